/* Tokenizers of tokenizer.json: ids and texts worked out by hand from what the parts are said to
 * do, on vocabularies of a dozen pieces. */
#include <limits.h>

#include "pipeline.h"

#define BYTE_LEVEL "{`type`:`ByteLevel`,`add_prefix_space`:false,`use_regex`:true}"
#define BYTES_ONLY "{`type`:`ByteLevel`,`add_prefix_space`:false,`use_regex`:false}"

/* --- Merges ----------------------------------------------------------------------------------- */

static const char letters[] = "{`a`:0,`b`:1,`c`:2,`ab`:3,`bc`:4,`aa`:5,`abc`:6,"
                              "`aaaa`:7,`<unk>`:8}";

static void test_merges(void) {
    struct file f = {.vocab = letters, .merges = "[`a b`,`b c`,`a a`,`ab c`,`aa aa`]"};
    struct tokens *t = open_file(&f);
    CHECK(tokens_count(t) == 9 && tokens_bos(t) == -1 && tokens_eos(t) == -1);
    CHECK_IDS(t, "abc", "6");
    CHECK_IDS(t, "bcab", "4 3");
    CHECK_IDS(t, "aaa", "5 0"); /* ties go to the left */
    CHECK_IDS(t, "aaaaa", "7 0");
    CHECK_IDS(t, "aaab", "5 3"); /* a b comes before a a */
    CHECK_IDS(t, "", "");
    CHECK_IDS(t, "axb", "3"); /* no unknown token: as if it were not there */
    tokens_close(t);
    f.merges = "[[`b`,`c`],[`a`,`b`],[`a`,`a`]]"; /* pairs; another order */
    CHECK_FILE_IDS(f, "abc", "0 4");
    f.merges = "[`#version: 0.2`,`a b`,`b c`,`a b`]"; /* the later rank counts */
    CHECK_FILE_IDS(f, "abc", "0 4");
}

static void test_unknown(void) {
    struct file f = {.vocab = letters, .options = "`unk_token`:`<unk>`,"};
    CHECK_FILE_IDS(f, "axyb\xe4\xb8\xad", "0 8 8 1 8");
    f.options = "`unk_token`:`<unk>`,`fuse_unk`:true,";
    CHECK_FILE_IDS(f, "axyb\xe4\xb8\xad", "0 8 1 8");
    f.vocab = "{`a`:0,`<unk>`:1,`<0xE4>`:2,`<0xB8>`:3,`<0xAD>`:4}";
    f.options = "`unk_token`:`<unk>`,`fuse_unk`:true,`byte_fallback`:true,";
    CHECK_FILE_IDS(f, "a\xe4\xb8\xad", "0 2 3 4");
    CHECK_FILE_IDS(f, "a\xe4\xb8\xaf", "0 1"); /* one byte is no piece: none is used */
    CHECK_FILE_IDS(f, "a\xff", "0 1");         /* no UTF-8: U+FFFD */
}

static void test_ignore_merges(void) {
    struct file f = {.vocab = letters, .merges = "[`a b`]"};
    CHECK_FILE_IDS(f, "abc", "3 2");
    f.options = "`ignore_merges`:true,";
    CHECK_FILE_IDS(f, "abc", "6");
    CHECK_FILE_IDS(f, "abcb", "3 2 1");
}

/* --- Words ------------------------------------------------------------------------------------ */

/* With ignore_merges a word that is a piece shows where the text was cut. */
static void check_words(int line, const char *pre_tokenizer, const char *text, const char *want) {
    struct file f = {.options = "`ignore_merges`:true,", .pre_tokenizer = pre_tokenizer};
    f.vocab = "{`a`:0,`-`:1,`--`:2,`a-`:3,`-a`:4,`a--`:5,`--a`:6,`1`:7,`12`:8,"
              "`\xe2\x96\x81`:9,`\xe2\x96\x81"
              "a`:10,`a\xe2\x96\x81`:11,`aa`:12,`a1`:13,` `:14,`a a`:15,`\xe2\x96\x81"
              "a\xe2\x96\x81"
              "a`:16,`!!`:17,`\xe6\xbc\xa2\xe3\x80\x81`:18,`\xe6\xbc\xa2`:19,"
              "`\xe3\x80\x81`:20,`!`:21}";
    struct tokens *t = open_file(&f);
    check_ids_of(line, t, text, true, want);
    tokens_close(t);
}
#define CHECK_WORDS(pre, text, want) check_words(__LINE__, pre, text, want)
#define SPLIT(kind, pattern, behavior, invert)                                                     \
    "{`type`:`Split`,`pattern`:{`" kind "`:`" pattern "`},`behavior`:`" behavior                   \
    "`,`invert`:" invert "}"

static void test_split(void) {
    CHECK_WORDS(NULL, "a--", "5");
    CHECK_WORDS(SPLIT("String", "-", "Isolated", "false"), "a--a", "0 1 1 0");
    CHECK_WORDS(SPLIT("String", "-", "Removed", "false"), "a--a", "0 0");
    CHECK_WORDS(SPLIT("String", "-", "MergedWithPrevious", "false"), "a--a", "3 1 0");
    CHECK_WORDS(SPLIT("String", "-", "MergedWithPrevious", "false"), "-a", "1 0");
    CHECK_WORDS(SPLIT("String", "-", "MergedWithNext", "false"), "a--a", "0 1 4");
    CHECK_WORDS(SPLIT("String", "-", "MergedWithNext", "false"), "a-", "0 1");
    CHECK_WORDS(SPLIT("String", "-", "Contiguous", "false"), "a--a", "0 2 0");
    CHECK_WORDS(SPLIT("String", "-", "Removed", "true"), "a--a", "1 1");
    CHECK_WORDS(SPLIT("Regex", "-+", "Isolated", "false"), "a--a", "0 2 0");
    CHECK_WORDS(SPLIT("Regex", "a-|-a", "Removed", "true"), "a--a", "3 4");
    CHECK_WORDS(SPLIT("Regex", "(?=-)", "Isolated", "false"), "aa--a", "12 1 4"); /* empty */
    CHECK_WORDS(SPLIT("Regex", "$^", "Isolated", "false"), "a--", "5");
}

/* Where other libraries read a pattern in another way than PCRE2 would. */
static void test_patterns(void) {
    CHECK_WORDS(SPLIT("Regex", "\\\\p{Han}+", "Isolated", "false"), "\xe6\xbc\xa2\xe3\x80\x81",
                "19 20");
    CHECK_WORDS(SPLIT("Regex", "[a[1!]]+", "Isolated", "false"), "-a1--", "1 13 2");
    CHECK_WORDS(SPLIT("Regex", "[^[1.]a]+", "Isolated", "false"), "a!!a", "0 17 0");
    CHECK_WORDS(SPLIT("Regex", "[[:alpha:]]+", "Isolated", "false"), "-aa-", "1 12 1");
    CHECK_WORDS(SPLIT("Regex", "[]-]+", "Isolated", "false"), "a--a", "0 2 0");
    CHECK_WORDS(SPLIT("Regex", "(?i:A)+", "Isolated", "false"), "-aa-", "1 12 1");
}

static void test_pre_tokenizers(void) {
    CHECK_WORDS("{`type`:`Digits`,`individual_digits`:true}", "a11a", "0 7 7 0");
    CHECK_WORDS("{`type`:`Digits`,`individual_digits`:false}", "a12a", "0 8 0");
    CHECK_WORDS("{`type`:`Punctuation`}", "a!!a", "0 21 21 0");
    CHECK_WORDS("{`type`:`Punctuation`,`behavior`:`Contiguous`}", "a!!a", "0 17 0");
    CHECK_WORDS("{`type`:`Whitespace`}", " aa!! a--1 ", "12 17 0 2 7");
    CHECK_WORDS("{`type`:`WhitespaceSplit`}", " a \xe2\x80\xa8 aa", "0 12");
    CHECK_WORDS("{`type`:`Sequence`,`pretokenizers`:[{`type`:`Digits`},"
                "{`type`:`Punctuation`}]}",
                "a12--", "0 8 1 1");
}

#define METASPACE(scheme, split)                                                                   \
    "{`type`:`Metaspace`,`replacement`:`\xe2\x96\x81`,`prepend_scheme`:`" scheme                   \
    "`,`split`:" split "}"

static void test_metaspace(void) {
    CHECK_WORDS(METASPACE("always", "true"), "a a", "10 10");
    CHECK_WORDS(METASPACE("always", "true"), " a", "10");
    CHECK_WORDS(METASPACE("always", "false"), "a a", "16");
    CHECK_WORDS(METASPACE("never", "true"), "a a", "0 10");
    CHECK_WORDS(METASPACE("first", "true"), "a  a", "10 9 10");
    CHECK_WORDS("{`type`:`Sequence`,`pretokenizers`:[" SPLIT(
                    "String", "-", "Isolated", "false") "," METASPACE("first", "true") "]}",
                "a-a", "10 1 0");
    CHECK_WORDS("{`type`:`Metaspace`,`replacement`:`\xe2\x96\x81`,`add_prefix_space`:"
                "false}",
                "a a", "0 10");
    struct file f = {.vocab = "{`a`:0,`\xe2\x96\x81`:1,`\xe2\x96\x81"
                              "a`:2}",
                     .merges = "[`\xe2\x96\x81 a`]",
                     .added = "[{`id`:3,`content`:`<x>`,`special`:true}]",
                     .pre_tokenizer = METASPACE("first", "true")};
    CHECK_FILE_IDS(f, "a<x>a", "2 3 0");
    CHECK_FILE_IDS(f, "<x>a", "3 0");
    f.pre_tokenizer = METASPACE("always", "true");
    CHECK_FILE_IDS(f, "a<x>a", "2 3 2");
}

static void test_byte_level(void) {
    char *vocab = byte_vocab(",`he`:256,`ll`:257,`hell`:258,`hello`:259,`\xc4\xa0"
                             "hello`:260,`'t`:261,`\xc4\xa0\xc4\xa0`:262");
    struct file f = {.vocab = vocab,
                     .pre_tokenizer = BYTE_LEVEL,
                     .decoder = BYTE_LEVEL,
                     .merges = "[`h e`,`l l`,`he ll`,`hell o`,`\xc4\xa0 hello`,`' t`,"
                               "`\xc4\xa0 \xc4\xa0`]"};
    struct tokens *t = open_file(&f);
    CHECK_IDS(t, "hello hello", "259 260");
    CHECK_IDS(t, "hello   hello", "259 262 260"); /* the last space belongs to the word */
    CHECK_IDS(t, "n't", "110 261");
    CHECK_IDS(t, "\n \t", "10 32 9");
    CHECK_IDS(t, "\xc3\xa9", "195 169");
    CHECK_IDS(t, "\xff", "239 191 189");
    struct token_list nul = encode(t, "a\0b", 3, true);
    CHECK(nul.count == 3 && nul.ids[1] == 0);
    free(nul.ids);
    check_text(t, (int[]){260, 0, 195}, 3, false, " hello\0\xc3", 8);
    CHECK_IDS(t, "\xc2\xad", "194 173");
    for (int b = 0; b < 256; b++) check_text(t, &b, 1, false, (char[]){(char)b}, 1);
    tokens_close(t);
    f.pre_tokenizer = "{`type`:`ByteLevel`}"; /* a space in front unless it says otherwise */
    CHECK_FILE_IDS(f, "hello", "260");
    CHECK_FILE_IDS(f, " hello", "260");
    f.pre_tokenizer = BYTES_ONLY;
    CHECK_FILE_IDS(f, "n't hello", "110 261 260");
    free(vocab);
}

/* --- Normalizers ------------------------------------------------------------------------------ */

static void check_normal(int line, const char *normalizer, const char *text, const char *want) {
    struct file f = {.normalizer = normalizer,
                     .options = "`unk_token`:`?`,",
                     .vocab = "{`?`:0,`e`:1,`\xcc\x81`:2,`\xc3\xa9`:3,`f`:4,`i`:5,"
                              "`\xef\xac\x81`:6,`_`:7,` `:8,`\xc3\x89`:9,`\xc4\xa0`:10,"
                              "`\xcc\x87`:11}"};
    struct tokens *t = open_file(&f);
    check_ids_of(line, t, text, true, want);
    tokens_close(t);
}
#define CHECK_NORMAL(normalizer, text, want) check_normal(__LINE__, normalizer, text, want)

static void test_normalizers(void) {
    CHECK_NORMAL(NULL, "e\xcc\x81", "1 2");
    CHECK_NORMAL("{`type`:`NFC`}", "e\xcc\x81\xef\xac\x81", "3 6");
    CHECK_NORMAL("{`type`:`NFD`}", "\xc3\xa9", "1 2");
    CHECK_NORMAL("{`type`:`NFKC`}", "e\xcc\x81\xef\xac\x81", "3 4 5");
    CHECK_NORMAL("{`type`:`NFKD`}", "\xc3\xa9\xef\xac\x81", "1 2 4 5");
    CHECK_NORMAL("{`type`:`Lowercase`}", "E\xc3\x89\xc4\xb0", "1 3 5 11");
    CHECK_NORMAL("{`type`:`StripAccents`}", "e\xcc\x81", "1");
    CHECK_NORMAL("{`type`:`Strip`}", " \n e f\xe2\x80\x83", "1 8 4");
    CHECK_NORMAL("{`type`:`Strip`,`strip_left`:false,`strip_right`:true}", " e ", "8 1");
    CHECK_NORMAL("{`type`:`Strip`}", "  ", "");
    CHECK_NORMAL("{`type`:`Prepend`,`prepend`:`_`}", "e", "7 1");
    CHECK_NORMAL("{`type`:`Prepend`,`prepend`:`_`}", "", "");
    CHECK_NORMAL("{`type`:`Replace`,`pattern`:{`String`:` `},`content`:`_`}", "e  f", "1 7 7 4");
    CHECK_NORMAL("{`type`:`Replace`,`pattern`:{`Regex`:` +`},`content`:`_i`}", "e  f", "1 7 5 4");
    CHECK_NORMAL("{`type`:`ByteLevel`}", " e", "10 1");
    CHECK_NORMAL("{`type`:`Sequence`,`normalizers`:[{`type`:`Strip`},{`type`:`Prepend`,"
                 "`prepend`:`_`}]}",
                 "  ", "");
    CHECK_NORMAL("{`type`:`Sequence`,`normalizers`:[{`type`:`Prepend`,`prepend`:` `},"
                 "{`type`:`Replace`,`pattern`:{`String`:` `},`content`:`_`}]}",
                 "e f", "7 1 7 4");
}

/* --- Added tokens ----------------------------------------------------------------------------- */

static void test_added(void) {
    struct file f = {.vocab = "{`a`:0,` `:1,`<`:2,`x`:3,`>`:4,`b`:5}"};
    f.added = "[{`id`:6,`content`:`<x>`,`special`:true},"
              "{`id`:7,`content`:`<x>x`,`special`:false,`normalized`:false},"
              "{`id`:8,`content`:`<a>`,`special`:true},"
              "{`id`:0,`content`:`a`,`special`:false,`single_word`:true}]";
    struct tokens *t = open_file(&f);
    CHECK(tokens_count(t) == 9 && tokens_is_control(t, 6) && !tokens_is_control(t, 7));
    CHECK(tokens_find(t, "<x>", 3) == 6 && tokens_find(t, "b", 1) == 5);
    CHECK(tokens_find(t, "<x", 2) == -1 && tokens_find(t, "", 0) == -1);
    CHECK_IDS(t, "b<x>b", "5 6 5");
    CHECK_IDS(t, "<x>x<x>", "7 6"); /* the longest */
    CHECK_IDS(t, "<x><x", "6 2 3");
    CHECK_PLAIN(t, "b<x>b", "5 2 3 4 5"); /* special ones stay text */
    CHECK_PLAIN(t, "<x>x", "7");          /* others do not */
    CHECK_PLAIN(t, "<x><x>x", "2 3 4 7");
    tokens_close(t);
}

static void test_added_spaces(void) {
    struct file f = {.vocab = "{`a`:0,` `:1,`_`:2,`b`:3}"};
    f.added = "[{`id`:4,`content`:`<l>`,`special`:true,`lstrip`:true},"
              "{`id`:5,`content`:`<r>`,`special`:true,`rstrip`:true}]";
    CHECK_FILE_IDS(f, "a  <l>  a", "0 4 1 1 0");
    CHECK_FILE_IDS(f, "a  <r> \n a", "0 1 1 5 0");
    CHECK_FILE_IDS(f, "<r>  <l>  <r>", "5 4 1 1 5");
    f.added = "[{`id`:3,`content`:`b`,`special`:true,`single_word`:true}]";
    CHECK_FILE_IDS(f, "b b_b ba b", "3 1 2 1 0 1 3"); /* text cannot become a special id */
    f.options = "`unk_token`:`_`,";
    CHECK_FILE_IDS(f, "ab", "0 2");
}

/* A token that is normalized is found as it reads then, in text that is. */
static void test_added_normalized(void) {
    struct file f = {.vocab = "{`a`:0,`b`:1,`_`:2}",
                     .normalizer = "{`type`:`Sequence`,`normalizers`:[{`type`:`Lowercase`"
                                   "},{`type`:`Prepend`,`prepend`:`_`}]}"};
    f.added = "[{`id`:3,`content`:`AB`,`special`:false,`normalized`:false}]";
    CHECK_FILE_IDS(f, "aABab", "2 0 3 2 0 1");
    f.added = "[{`id`:3,`content`:`AB`,`special`:false,`normalized`:true}]";
    CHECK_FILE_IDS(f, "abAB", "3 0 1"); /* _ab is searched in _abab */
    f.decoder = "{`type`:`Replace`,`pattern`:{`String`:`_`},`content`:` `}";
    struct tokens *t = open_file(&f);
    check_text(t, (int[]){0, 3}, 2, true, "a ab", 4); /* and it is that that is decoded */
    CHECK(tokens_find(t, "AB", 2) == 3 && tokens_find(t, "_ab", 3) == -1);
    tokens_close(t);
}

/* --- Templates and decoders ------------------------------------------------------------------- */

#define TEMPLATE                                                                                   \
    "{`type`:`Sequence`,`processors`:[" BYTE_LEVEL ",{`type`:`TemplateProcessing`,"                \
    "`single`:[{`SpecialToken`:{`id`:`<x>`,`type_id`:0}},{`Sequence`:{`id`:`A`}},"                 \
    "{`SpecialToken`:{`id`:`<y>`}}],`pair`:[],`special_tokens`:{`<x>`:{`id`:"                      \
    "`<x>`,`ids`:[1,2],`tokens`:[]},`<y>`:{`id`:`<y>`,`ids`:[2]}}}]}"

static void test_template(void) {
    struct file f = {.vocab = "{`a`:0,`b`:1,`c`:2}", .post_processor = TEMPLATE};
    struct tokens *t = open_file(&f);
    int before[TOKENS_MAX_BEFORE];
    size_t count = tokens_before(t, before);
    CHECK(count == 2 && before[0] == 1 && before[1] == 2);
    CHECK(tokens_bos(t) == 1 && tokens_eos(t) == 2 && tokens_has_template(t));
    CHECK_IDS(t, "a", "0"); /* none is added */
    tokens_close(t);
}

static const char spaced[] = "{`\xe2\x96\x81`:0,`\xe2\x96\x81"
                             "a`:1,`a\xe2\x96\x81`:2,`<0xC3>`:3,`<0x0g>`:4,`<s>`:5,"
                             "`b`:7}";

static void check_decoded(int line, const char *decoder, bool control, const char *want) {
    static const int ids[] = {5, 0, 1, 2, 3, 4, 6, 7, 99, -1};
    struct file f = {.vocab = spaced, .decoder = decoder};
    f.added = "[{`id`:5,`content`:`<s>`,`special`:true}]";
    struct tokens *t = open_file(&f);
    size_t size;
    char *text = decode(t, ids, sizeof ids / sizeof *ids, control, &size);
    CHECK_MSG(size == strlen(want) && memcmp(text, want, size) == 0, "line %d: '%.*s', not '%s'",
              line, (int)size, text, want);
    free(text);
    tokens_close(t);
}

#define SEQUENCE(list) "{`type`:`Sequence`,`decoders`:[" list "]}"
#define SPACES "{`type`:`Replace`,`pattern`:{`String`:`\xe2\x96\x81`},`content`:` `}"
#define STRIP "{`type`:`Strip`,`content`:` `,`start`:1,`stop`:0}"

static void test_decoders(void) {
    static const char strip[] = SEQUENCE(SPACES ",{`type`:`ByteFallback`},{`type`:`Fuse`}," STRIP);
    check_decoded(__LINE__, strip, false, " aa \xc3<0x0g>b");
    check_decoded(__LINE__, strip, true, "<s>  aa \xc3<0x0g>b");
    check_decoded(__LINE__, SEQUENCE(SPACES "," STRIP), false, "aa <0xC3><0x0g>b");
    check_decoded(__LINE__,
                  "{`type`:`Metaspace`,`replacement`:`\xe2\x96\x81`,`prepend_scheme`:"
                  "`always`}",
                  false, " aa <0xC3><0x0g>b"); /* of the first token each is dropped */
    check_decoded(__LINE__,
                  "{`type`:`Metaspace`,`replacement`:`\xe2\x96\x81`,`prepend_scheme`:"
                  "`never`}",
                  false, "  aa <0xC3><0x0g>b");
    check_decoded(__LINE__, NULL, true,
                  "<s> \xe2\x96\x81 \xe2\x96\x81"
                  "a a\xe2\x96\x81 <0xC3> <0x0g> b");
}

static void test_long_texts(void) {
    static const char *const units[] = {"a", " ", "ab ", "<x", "\xc3\xa9", "\n", "12"};
    enum { SIZE = 300000 };
    char *vocab = byte_vocab(",`aa`:256,`aaaa`:257,`\xc4\xa0\xc4\xa0`:258"), *text = malloc(SIZE);
    struct file f = {.vocab = vocab,
                     .pre_tokenizer = BYTE_LEVEL,
                     .decoder = BYTE_LEVEL,
                     .merges = "[`a a`,`aa aa`,`\xc4\xa0 \xc4\xa0`]",
                     .added = "[{`id`:259,`content`:`<x>`,`special`:true}]"};
    struct tokens *t = open_file(&f);
    for (size_t u = 0; u < sizeof units / sizeof *units; u++) {
        size_t n = strlen(units[u]), size = SIZE / n * n;
        for (size_t i = 0; i < size; i++) text[i] = units[u][i % n];
        struct token_list list = encode(t, text, size, true);
        check_text(t, list.ids, list.count, true, text, size);
        CHECK(u > 0 || list.count == size / 4);
        free(list.ids);
    }
    struct error e;
    struct token_list none = {0};
    CHECK(!tokens_encode(t, "x", (size_t)1 << 31, false, &none, &e) && !none.ids);
    CHECK(e.status == STATUS_ARGUMENT && strstr(e.message, "too long"));
    free(text);
    free(vocab);
    tokens_close(t);
}

int main(void) {
    check_run("merges", test_merges);
    check_run("unknown characters", test_unknown);
    check_run("ignore_merges", test_ignore_merges);
    check_run("Split", test_split);
    check_run("patterns", test_patterns);
    check_run("other pre-tokenizers", test_pre_tokenizers);
    check_run("Metaspace", test_metaspace);
    check_run("ByteLevel", test_byte_level);
    check_run("normalizers", test_normalizers);
    check_run("added tokens", test_added);
    check_run("added tokens and spaces", test_added_spaces);
    check_run("added tokens, normalized", test_added_normalized);
    check_run("template", test_template);
    check_run("decoders", test_decoders);
    check_run("long texts", test_long_texts);
    return check_done();
}
