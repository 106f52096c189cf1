/* Files of tokenizers as they come: what is refused and by which name, what is damaged, tiktoken.
 */
#include "pipeline.h"

#define LETTERS "{`a`:0,`b`:1,`ab`:2}"
#define BYTE_LEVEL "{`type`:`ByteLevel`,`add_prefix_space`:false,`use_regex`:false}"

static struct error refusal(const char *text) {
    struct tokens *t = NULL;
    struct error e = {0};
    CHECK_MSG(!tokens_open_json(&t, span_of(text), "t.json", &e) && !t, "%s opens", text);
    tokens_close(t);
    return e;
}

/* One sentence that names the file and word. */
static void check_refused(int line, struct file f, enum status status, const char *word) {
    if (!f.vocab) f.vocab = LETTERS;
    char *text = write_file(&f);
    struct error e = refusal(text);
    CHECK_MSG(e.status == status && strstr(e.message, "t.json") && strstr(e.message, word),
              "line %d: status %d, %s", line, e.status, e.message);
    free(text);
}
#define CHECK_UNDONE(word, ...)                                                                    \
    check_refused(__LINE__, (struct file){__VA_ARGS__}, STATUS_MODEL, word)
#define CHECK_WRONG(word, ...)                                                                     \
    check_refused(__LINE__, (struct file){__VA_ARGS__}, STATUS_FORMAT, word)

/* --- What is not done ------------------------------------------------------------------------- */

static void test_undone_components(void) {
    CHECK_UNDONE("normalizer Precompiled", .normalizer = "{`type`:`Precompiled`}");
    CHECK_UNDONE("normalizer Nmt",
                 .normalizer = "{`type`:`Sequence`,`normalizers`:[{`type`:`NFC`},{`type`:`Nmt`}]}");
    CHECK_UNDONE("normalizer of no type", .normalizer = "{}");
    CHECK_UNDONE("normalizer lang", .normalizer = "{`type`:`NFC`,`lang`:`tr`}");
    CHECK_UNDONE("pre_tokenizer UnicodeScripts", .pre_tokenizer = "{`type`:`UnicodeScripts`}");
    CHECK_UNDONE("pre_tokenizer Halves",
                 .pre_tokenizer = "{`type`:`Split`,`pattern`:{`String`:`a`},`behavior`:`Halves`}");
    CHECK_UNDONE("decoder WordPiece", .decoder = "{`type`:`WordPiece`}");
    CHECK_UNDONE("post_processor BertProcessing", .post_processor = "{`type`:`BertProcessing`}");
    CHECK_UNDONE("setting truncation", .more = ",`truncation`:{`max_length`:5}");
    struct error e = refusal("{\"version\":\"2.0\",\"model\":{}}");
    CHECK_MSG(e.status == STATUS_MODEL && strstr(e.message, "version 2.0"), "%s", e.message);
    CHECK_UNDONE("setting shuffle", .more = ",`shuffle`:true");
    CHECK_UNDONE("added_tokens colour", .added = "[{`id`:3,`content`:`x`,`colour`:1}]");
}

static void test_undone_models(void) {
    CHECK_UNDONE("model dropout", .options = "`dropout`:0.1,");
    CHECK_UNDONE("end_of_word_suffix", .options = "`end_of_word_suffix`:`</w>`,");
    CHECK_UNDONE("continuing_subword_prefix", .options = "`continuing_subword_prefix`:`##`,");
    CHECK_UNDONE("model WordPiece", .type = "WordPiece");
    struct file plain = {.vocab = LETTERS,
                         .options = "`dropout`:0,`end_of_word_suffix`:``,"
                                    "`continuing_subword_prefix`:null,`unk_token`:``,",
                         .more = ",`truncation`:null,`padding`:null"};
    CHECK_FILE_IDS(plain, "ab", "0 1");
}

/* A token's text may depend on nothing but whether it is the first. */
static void test_undone_decoders(void) {
    static const char *const lists[] = {
        "{`type`:`Fuse`},{`type`:`Replace`,`pattern`:{`String`:`a`},`content`:`b`}",
        "{`type`:`Fuse`},{`type`:`Strip`,`content`:` `,`start`:2,`stop`:0}",
        "{`type`:`Fuse`},{`type`:`Strip`,`content`:` `,`start`:0,`stop`:1}",
        "{`type`:`ByteFallback`},{`type`:`Strip`,`content`:` `,`start`:1,`stop`:0}",
        "{`type`:`ByteFallback`},{`type`:`Metaspace`,`replacement`:`_`}",
        "{`type`:`Metaspace`,`replacement`:`_`},{`type`:`ByteLevel`}",
    };
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        char decoder[512];
        snprintf(decoder, sizeof decoder, "{`type`:`Sequence`,`decoders`:[%s]}", lists[i]);
        CHECK_UNDONE("the decoder ", .decoder = decoder);
    }
}

#define REGEX(text) .pre_tokenizer = "{`type`:`Split`,`pattern`:{`Regex`:`" text "`}}"

static void test_undone_patterns(void) {
    CHECK_UNDONE("&&", REGEX("[a&&[b]]"));
    CHECK_UNDONE("negated set", REGEX("[a[^b]]"));
    CHECK_UNDONE("{...}+", REGEX("a{1,3}+"));
    CHECK_UNDONE("\\h", REGEX("\\\\h"));
    CHECK_UNDONE("cannot be read", REGEX("(a"));
    CHECK_UNDONE("cannot be read", REGEX("\\\\p{Klingon}"));
    CHECK_UNDONE("cannot be read", REGEX("\\\\C")); /* half a character */
    CHECK_UNDONE("cannot be read", REGEX("(?<=a+)"));
    char *long_one = malloc(70100);
    memset(long_one, 'a', 70000);
    strcpy(long_one + 70000, "`}}");
    memcpy(long_one, "{`type`:`Split`,`pattern`:{`Regex`:`", 36);
    CHECK_UNDONE("65536", .pre_tokenizer = long_one);
    free(long_one);
}

/* A pattern that takes for ever is stopped, and says so. */
static void test_limits(void) {
    struct file f = {.vocab = "{`a`:0,`b`:1}", REGEX("(?:a|a)+$(?<=b)|(?:a?){40}a{40}b")};
    struct tokens *t = open_file(&f);
    char text[3000];
    struct token_list list = {0};
    struct error e = {0};
    memset(text, 'a', sizeof text);
    CHECK(!tokens_encode(t, text, sizeof text, false, &list, &e) && !list.ids);
    CHECK_MSG(e.status == STATUS_MODEL && strstr(e.message, "3000 bytes"), "%s", e.message);
    tokens_close(t);
}

/* --- What is wrong ---------------------------------------------------------------------------- */

static void test_wrong_vocabularies(void) {
    CHECK_WRONG("is there twice", .vocab = "{`a`:0,`b`:0}");
    CHECK_WRONG("has 'a' twice", .vocab = "{`a`:0,`a`:1}");
    CHECK_WRONG("whole number", .vocab = "{`a`:-1}");
    CHECK_WRONG("whole number", .vocab = "{`a`:0.5}");
    CHECK_WRONG("whole number", .vocab = "{`a`:4194304}");
    CHECK_WRONG("whole number", .vocab = "{`a`:1e300}");
    CHECK_WRONG("whole number", .vocab = "{`a`:`0`}");
    CHECK_WRONG("no object", .vocab = "[`a`]");
    CHECK_WRONG("merges", .merges = "{}");
    CHECK_WRONG("ab and b", .merges = "[`ab b`]"); /* abb is no piece */
    CHECK_WRONG("x and b", .merges = "[`x b`]");
    CHECK_WRONG("of  and b", .merges = "[` b`]");
    CHECK_WRONG("two pieces", .merges = "[`ab`]");
    CHECK_WRONG("two pieces", .merges = "[`a b `]");
    CHECK_WRONG("two pieces", .merges = "[[`a`,`b`,`a`]]");
    CHECK_WRONG("two pieces", .merges = "[[`a`,1]]");
    CHECK_WRONG("unk_token", .options = "`unk_token`:`<unk>`,");
    CHECK_WRONG("fuse_unk", .options = "`fuse_unk`:1,");
    struct file holes = {.vocab = "{`a`:0,``:3,`b`:9}"};
    CHECK_FILE_IDS(holes, "ab", "0 9");
    struct tokens *t = open_file(&holes);
    static const int ids[] = {5, 0, 3, 8, 9};
    CHECK(tokens_count(t) == 10);
    check_text(t, ids, 5, true, "a  b", 4); /* no decoder: a space between tokens */
    tokens_close(t);
}

static void test_wrong_tokens(void) {
    CHECK_WRONG("x (id 1) has the id of another", .added = "[{`id`:1,`content`:`x`}]");
    CHECK_WRONG("b (id 7) has another id", .added = "[{`id`:7,`content`:`b`}]");
    CHECK_WRONG("is there twice", .added = "[{`id`:3,`content`:`x`},{`id`:3,`content`:`x`}]");
    CHECK_WRONG("is there twice", .added = "[{`id`:3,`content`:`x`},{`id`:4,`content`:`x`}]");
    CHECK_WRONG("is there twice", .added = "[{`id`:1,`content`:`b`},{`id`:1,`content`:`b`}]");
    CHECK_WRONG("content", .added = "[{`id`:3}]");
    CHECK_WRONG("no id", .added = "[{`content`:`x`}]");
    CHECK_WRONG("id of the added_tokens", .added = "[{`id`:-3,`content`:`x`}]");
    CHECK_WRONG("id of the added_tokens", .added = "[{`id`:1e9,`content`:`x`}]");
    CHECK_WRONG("special", .added = "[{`id`:3,`content`:`x`,`special`:`yes`}]");
    CHECK_WRONG("no list", .added = "{}");
    CHECK_WRONG("no list", .normalizer = "{`type`:`Sequence`}");
    CHECK_WRONG("pattern", .normalizer = "{`type`:`Replace`,`pattern`:`a`,`content`:`b`}");
    CHECK_WRONG("pattern", REGEX(""));
    CHECK_WRONG("single character", .pre_tokenizer = "{`type`:`Metaspace`,`replacement`:`ab`}");
}

#define SINGLE(list, table)                                                                        \
    .post_processor =                                                                              \
        "{`type`:`TemplateProcessing`,`single`:[" list "],`special_tokens`:{" table "}}"

static void test_wrong_templates(void) {
    CHECK_WRONG("no text", SINGLE("", ""));
    CHECK_WRONG("another text", SINGLE("{`Sequence`:{`id`:`B`}}", ""));
    CHECK_WRONG("another text", SINGLE("{`Sequence`:{`id`:`A`}},{`Sequence`:{`id`:`A`}}", ""));
    CHECK_WRONG("without ids", SINGLE("{`SpecialToken`:{`id`:`x`}}", ""));
    CHECK_WRONG("not in the vocabulary", SINGLE("{`SpecialToken`:{`id`:`x`}}", "`x`:{`ids`:[3]}"));
    CHECK_WRONG("more than 8",
                SINGLE("{`SpecialToken`:{`id`:`x`}}", "`x`:{`ids`:[0,0,0,0,0,0,0,0,0]}"));
}

static void test_no_json(void) {
    static const char *const texts[] = {
        "",
        "{",
        "[]",
        "nonsense",
        "{} x",
        "{\"version\":\"\\u0000\"}",
        "{\"a\":\"\xff\"}",
        "{\"a\":\"\xed\xa0\x80\"}",
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"\\ud800\":1},\"merges\":[]}}",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct error e = refusal(texts[i]);
        CHECK_MSG(e.status == STATUS_FORMAT && strstr(e.message, "t.json"), "%s", e.message);
    }
    struct file f = {.vocab = "{`\\\\`:0,`u`:1,`0`:2,`\\\\\\\\u0000`:3}", /* not a NUL: \u0000 */
                     .options = "`ignore_merges`:true,"};
    CHECK_FILE_IDS(f, "\\\\u0000", "3");
    size_t size = 3 << 23;
    char *many = malloc(size + 1);
    memset(many, '[', size);
    for (size_t i = 1; i < size; i += 2) many[i] = ',';
    many[size] = 0;
    struct error e = refusal(many);
    CHECK_MSG(strstr(e.message, "more values than any in use"), "%s", e.message);
    free(many);
}

/* --- Damage ----------------------------------------------------------------------------------- */

static char *whole_file(void) {
    static char *vocab;
    free(vocab);
    vocab = byte_vocab(",`he`:256,`ll`:257,`hell`:258,`<0x41>`:259");
    struct file f = {
        .added = "[{`id`:260,`content`:`<s>`,`special`:true,`lstrip`:true,`rstrip`:true},"
                 "{`id`:261,`content`:`AB`,`single_word`:true}]",
        .normalizer = "{`type`:`Sequence`,`normalizers`:[{`type`:`NFC`},{`type`:`Strip`},{`type`:"
                      "`Prepend`,`prepend`:`_`},{`type`:`Replace`,`pattern`:{`Regex`:` +`},"
                      "`content`:` `}]}",
        .pre_tokenizer = "{`type`:`Sequence`,`pretokenizers`:[{`type`:`Split`,`pattern`:{`Regex`:"
                         "`(?i:'s|'t)|[^\\\\s\\\\p{L}]+|\\\\s+(?!\\\\S)`},`behavior`:"
                         "`Isolated`,`invert`:false},{`type`:`Digits`},{`type`:`Metaspace`,"
                         "`replacement`:`_`}," BYTE_LEVEL "]}",
        .post_processor = "{`type`:`TemplateProcessing`,`single`:[{`SpecialToken`:{`id`:`<s>`}},"
                          "{`Sequence`:{`id`:`A`}}],`special_tokens`:{`<s>`:{`ids`:[260]}}}",
        .decoder = "{`type`:`Sequence`,`decoders`:[{`type`:`Replace`,`pattern`:{`String`:`_`},"
                   "`content`:` `},{`type`:`ByteFallback`},{`type`:`Fuse`},{`type`:`Strip`,"
                   "`content`:` `,`start`:1,`stop`:0}]}",
        .options = "`unk_token`:`!`,`fuse_unk`:true,`byte_fallback`:true,`ignore_merges`:true,",
        .vocab = vocab,
        .merges = "[`h e`,[`l`,`l`],`he ll`]"};
    return write_file(&f);
}

/* Opens, or refuses with a sentence; what opens encodes and decodes. */
static bool try_file(const char *data, size_t size) {
    static const char text[] = " hello <s> 12AB it's\n\xc3\xa9 e\xcc\x81 \xff\xe4\xb8\xad AB ";
    struct tokens *t = NULL;
    struct error e = {0};
    if (!tokens_open_json(&t, (struct span){(const unsigned char *)data, size}, "t.json", &e)) {
        CHECK_MSG(!t && e.status != STATUS_OK && strstr(e.message, "t.json"), "%s", e.message);
        return false;
    }
    struct token_list list = {0};
    if (tokens_encode(t, text, sizeof text - 1, true, &list, &e)) {
        size_t length;
        free(decode(t, list.ids, list.count, true, &length));
        for (size_t i = 0; i < list.count; i++)
            CHECK(list.ids[i] >= 0 && list.ids[i] < tokens_count(t));
    }
    free(list.ids);
    tokens_close(t);
    return true;
}

static void test_cut_short(void) {
    char *file = whole_file();
    size_t size = strlen(file);
    CHECK(try_file(file, size));
    for (size_t n = 0; n < size; n++) {
        char *part = malloc(n + 1); /* of exactly this size, for the sanitizer */
        memcpy(part, file, n);
        CHECK_MSG(!try_file(part, n), "%zu bytes open", n);
        free(part);
    }
    free(file);
}

static unsigned next_random(unsigned *state) {
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

static void test_damaged(void) {
    static const char bytes[] = "\"\\{}[],:0123456789-.eE+*?|()^$abcpLNsSu_ <>\x80\xff\xc3\0";
    char *file = whole_file();
    size_t size = strlen(file), opened = 0;
    unsigned state = 1;
    for (int round = 0; round < 4000; round++) {
        char *damaged = malloc(size);
        memcpy(damaged, file, size);
        for (unsigned hits = 1 + next_random(&state) % 3; hits; hits--) {
            size_t from = next_random(&state) % size, to = next_random(&state) % size;
            size_t length = next_random(&state) % 12;
            bool copy =
                next_random(&state) % 3 == 0 && from + length <= size && to + length <= size;
            if (copy) memmove(damaged + to, damaged + from, length);
            if (!copy) damaged[to] = bytes[next_random(&state) % sizeof bytes];
        }
        opened += try_file(damaged, size);
        free(damaged);
    }
    CHECK_MSG(opened > 100 && opened < 3900, "%zu open", opened);
    free(file);
}

/* --- tiktoken --------------------------------------------------------------------------------- */

static char *write_base64(const unsigned char *bytes, size_t size, char *out) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < size; i += 3) {
        unsigned bits = (unsigned)bytes[i] << 16 | (i + 1 < size ? bytes[i + 1] : 0u) << 8 |
                        (i + 2 < size ? bytes[i + 2] : 0u);
        for (int k = 0; k < 4; k++)
            *out++ = i + (size_t)k > size ? '=' : digits[bits >> (18 - 6 * k) & 63];
    }
    return out;
}

/* All bytes from 255 down, then pieces. */
static char *write_ranks(const char *const *pieces, size_t count) {
    char *text = malloc(16384), *end = text;
    for (size_t i = 0; i < 256 + count; i++) {
        unsigned char byte = (unsigned char)(255 - i);
        const char *piece = i < 256 ? NULL : pieces[i - 256];
        end = write_base64(piece ? (const unsigned char *)piece : &byte, piece ? strlen(piece) : 1,
                           end);
        end += sprintf(end, " %zu\n", i);
    }
    return text;
}

static void test_tiktoken(void) {
    static const char *const pieces[] = {"el", "he", "lo", " he", "hello", "hel", "abcd", "12"};
    char *text = write_ranks(pieces, 8);
    struct tokens *t = NULL;
    struct error e = {0};
    CHECK_MSG(tokens_open(&t, span_of(text), "ranks", NULL, &e), "%s", e.message);
    free(text);
    if (!t) exit(1);
    CHECK(strcmp(tokens_kind(t), "tiktoken") == 0 && tokens_count(t) == 264 + 256);
    CHECK(tokens_bos(t) == 264 && tokens_eos(t) == 265 && tokens_is_control(t, 519));
    CHECK(tokens_find(t, "<|eot_id|>", 10) == 264 + 9);
    CHECK(tokens_find(t, "<|reserved_special_token_246|>", 30) == 519);
    CHECK_IDS(t, "hello", "260");      /* a piece, though merges do not lead to it */
    CHECK_IDS(t, "hellox", "260 135"); /* el, lo, h el, hel lo */
    CHECK_IDS(t, "helx", "261 135");
    CHECK_IDS(t, "abcd", "262"); /* a piece, though merges do not lead to it */
    CHECK_IDS(t, "abcde", "158 157 156 155 154");
    CHECK_IDS(t, "he he", "257 259");
    CHECK_IDS(t, "1212", "263 206 205"); /* three digits at most: 121 2 */
    CHECK_IDS(t, "<|begin_of_text|>a<|eot_id|>", "264 158 273");
    CHECK_PLAIN(t, "<|eot_id|>", "195 131 154 144 139 160 150 155 131 193");
    check_text(t, (int[]){264, 259, 60, 86}, 4, false, " he\xc3\xa9", 5);
    tokens_close(t);
}

static void test_wrong_tiktoken(void) {
    static const char *const twice[] = {"ab", "ab"}, *const sound[] = {"ab"};
    struct {
        char *text;
        const char *says;
    } cases[7] = {
        {write_ranks(twice, 2), "same text"}, {write_ranks(sound, 1), "line 257"},
        {write_ranks(sound, 1), "missing"},   {write_ranks(sound, 1), "twice"},
        {write_ranks(sound, 1), "outside"},   {strdup("YWI= 0\n"), "byte is missing"},
        {write_ranks(sound, 1), "line 257"},
    };
    strcpy(strstr(cases[1].text, " 256\n"), "\n");
    strcpy(strstr(cases[2].text, " 256\n"), " 258\n");
    strcpy(strstr(cases[3].text, " 256\n"), " 255\n");
    strcpy(strstr(cases[4].text, " 256\n"), " 9999999\n");
    strcpy(strstr(cases[6].text, "YWI= 256\n"), "YWI 256\n"); /* no padding */
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct tokens *t = NULL;
        struct error e = {0};
        CHECK(!tokens_open(&t, span_of(cases[i].text), "ranks", NULL, &e) && !t);
        CHECK_MSG(e.status == STATUS_FORMAT && strstr(e.message, cases[i].says), "%zu: %s", i,
                  e.message);
        free(cases[i].text);
    }
}

int main(void) {
    check_run("components that are not done", test_undone_components);
    check_run("models that are not done", test_undone_models);
    check_run("decoders that are not done", test_undone_decoders);
    check_run("patterns that are not done", test_undone_patterns);
    check_run("limits of patterns", test_limits);
    check_run("wrong vocabularies", test_wrong_vocabularies);
    check_run("wrong added tokens", test_wrong_tokens);
    check_run("wrong templates", test_wrong_templates);
    check_run("no JSON", test_no_json);
    check_run("files cut short", test_cut_short);
    check_run("damaged files", test_damaged);
    check_run("tiktoken", test_tiktoken);
    check_run("wrong tiktoken files", test_wrong_tiktoken);
    return check_done();
}
