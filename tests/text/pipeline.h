/* Small tokenizer.json files for the tests, and short ways to ask what they give. */
#ifndef NIBBLE_TESTS_TEXT_PIPELINE_H
#define NIBBLE_TESTS_TEXT_PIPELINE_H

#include <stdarg.h>

#include "fixture.h"

/* The parts of a file as JSON with ` for " (it is easier to read in C); NULL: null, of vocab and
 * merges: none. */
struct file {
    const char *added, *normalizer, *pre_tokenizer, *post_processor, *decoder;
    const char *type;    /* NULL: BPE */
    const char *options; /* members of the model, each with a comma behind it */
    const char *vocab, *merges;
    const char *more; /* members of the file, each with a comma before it */
};

static inline const char *part(const char *text, const char *absent) {
    return text ? text : absent;
}

static inline char *write_file(const struct file *f) {
    static const char form[] =
        "{`version`:`1.0`,`added_tokens`:%s,`normalizer`:%s,`pre_tokenizer`:%s,"
        "`post_processor`:%s,`decoder`:%s,`model`:{`type`:`%s`,%s`vocab`:%s,"
        "`merges`:%s}%s}";
    char *text = NULL;
    if (asprintf(&text, form, part(f->added, "[]"), part(f->normalizer, "null"),
                 part(f->pre_tokenizer, "null"), part(f->post_processor, "null"),
                 part(f->decoder, "null"), part(f->type, "BPE"), part(f->options, ""),
                 part(f->vocab, "{}"), part(f->merges, "[]"), part(f->more, "")) < 0)
        exit(1);
    for (char *c = text; *c; c++) {
        if (*c == '`') *c = '"';
    }
    return text;
}

static inline struct span span_of(const char *text) {
    return (struct span){(const unsigned char *)text, strlen(text)};
}

static inline struct tokens *open_file(const struct file *f) {
    struct tokens *t = NULL;
    struct error e = {0};
    char *text = write_file(f);
    CHECK_MSG(tokens_open_json(&t, span_of(text), "t.json", &e), "%s", e.message);
    free(text);
    if (!t) exit(1);
    return t;
}

/* "3 1 2" of what text gives: into a buffer that the next call reuses. */
static inline const char *ids_text(const int *ids, size_t count) {
    static char out[4096];
    size_t used = 0;
    *out = 0;
    for (size_t i = 0; i < count && used < sizeof out - 16; i++)
        used += (size_t)sprintf(out + used, "%s%d", i ? " " : "", ids[i]);
    return out;
}

static inline void check_ids_of(int line, const struct tokens *t, const char *text, bool special,
                                const char *want) {
    struct token_list list = encode(t, text, strlen(text), special);
    const char *got = ids_text(list.ids, list.count);
    CHECK_MSG(strcmp(got, want) == 0, "line %d: '%s' gives %s, not %s", line, text, got, want);
    free(list.ids);
}
#define CHECK_IDS(t, text, want) check_ids_of(__LINE__, t, text, true, want)
#define CHECK_PLAIN(t, text, want) check_ids_of(__LINE__, t, text, false, want)

/* Opens f, encodes text with it, closes it. */
static inline void check_file_ids(int line, struct file f, const char *text, const char *want) {
    struct tokens *t = open_file(&f);
    check_ids_of(line, t, text, true, want);
    tokens_close(t);
}
#define CHECK_FILE_IDS(f, text, want) check_file_ids(__LINE__, f, text, want)

/* The pieces of GPT-2's alphabet, ids that of the bytes, and more (a text with a comma before each)
 * behind them; malloc'd. Bytes that are printed in Latin-1 stand for themselves, the others for
 * U+0100 and so on: the definition. */
static inline char *byte_vocab(const char *more) {
    char *out = malloc(8192 + strlen(more)), *end = out;
    int other = 0x100;
    *end++ = '{';
    for (int b = 0; b < 256; b++) {
        bool printed = (b > 0x20 && b < 0x7f) || (b > 0xa0 && b != 0xad);
        end += sprintf(end, "%s`\\u%04x`:%d", b ? "," : "", printed ? b : other, b);
        other += !printed;
    }
    sprintf(end, "%s}", more);
    return out;
}

#define TOKEN(id, text, special, normalized)                                                       \
    "{`id`:" #id ",`content`:`" text "`,`special`:" #special ",`normalized`:" #normalized "}"

/* Bytes, and tokens around the messages of a conversation: 256 and 257 are special; 258 and 259 are
 * not, but are of the template; 260 is neither. */
static inline struct tokens *open_marks(const char *normalizer) {
    char *vocab = byte_vocab("");
    struct file f = {
        .vocab = vocab,
        .normalizer = normalizer,
        .pre_tokenizer = "{`type`:`ByteLevel`,`add_prefix_space`:false,`use_regex`:false}",
        .decoder = "{`type`:`ByteLevel`}",
        .added = "[" TOKEN(256, "<b>", true, false) "," TOKEN(257, "<e>", true, false) "," TOKEN(
            258, "<U>", false, true) "," TOKEN(259, "<A>", false,
                                               false) "," TOKEN(260, "\\n\\n", false, false) "]"};
    struct tokens *t = open_file(&f);
    free(vocab);
    return t;
}
#undef TOKEN

#endif
