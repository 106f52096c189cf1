/* What the tests of this folder share: the models and a call or two around tokens.h. */
#ifndef NIBBLE_TESTS_TEXT_FIXTURE_H
#define NIBBLE_TESTS_TEXT_FIXTURE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "text/tokens.h"

static const char *const models[] = {"bpe_bytes", "unigram_rules", "bpe_symbols", "char_spaces"};

enum { BPE_BYTES, UNIGRAM_RULES, BPE_SYMBOLS, CHAR_SPACES, MODELS };

static inline struct span read_beside(const char *name) {
    char path[1024];
    const char *slash = strrchr(__FILE__, '/');
    snprintf(path, sizeof path, "%.*s/%s", slash ? (int)(slash - __FILE__) : 1,
             slash ? __FILE__ : ".", name);
    FILE *f = fopen(path, "rb");
    CHECK_MSG(f, "cannot read %s", path);
    if (!f) exit(1);
    fseek(f, 0, SEEK_END);
    size_t size = (size_t)ftell(f);
    rewind(f);
    unsigned char *data = calloc(size + 1, 1);
    CHECK(data && fread(data, 1, size, f) == size);
    fclose(f);
    return (struct span){data, size};
}

static inline struct span read_model(int model) {
    char name[64];
    snprintf(name, sizeof name, "%s.model", models[model]);
    return read_beside(name);
}

static inline struct tokens *open_model(int model) {
    struct span bytes = read_model(model);
    struct tokens *t = NULL;
    struct error e = {0};
    CHECK_MSG(tokens_open(&t, bytes, models[model], NULL, &e), "%s", e.message);
    free((void *)bytes.data);
    if (!t) exit(1);
    return t;
}

static inline struct token_list encode(const struct tokens *t, const char *text, size_t size,
                                       bool special) {
    struct token_list list = {NULL, 0};
    struct error e = {0};
    CHECK_MSG(tokens_encode(t, text, size, special, &list, &e), "%s", e.message);
    return list;
}

/* The text of ids in a malloc'd string. */
static inline char *decode(const struct tokens *t, const int *ids, size_t count, bool control,
                           size_t *size) {
    struct detokenizer d = {t, false};
    char *text = malloc(count * tokens_longest(t) + 1);
    *size = 0;
    for (size_t i = 0; text && i < count; i++) {
        size_t n = tokens_text(&d, ids[i], control, text + *size, tokens_longest(t));
        CHECK(n <= tokens_longest(t));
        *size += n;
    }
    return text;
}

static inline void check_text(const struct tokens *t, const int *ids, size_t count, bool control,
                              const char *want, size_t want_size) {
    size_t size;
    char *text = decode(t, ids, count, control, &size);
    CHECK_MSG(text && size == want_size && memcmp(text, want, size) == 0, "'%.*s', not '%.*s'",
              (int)size, text, (int)want_size, want);
    free(text);
}

#endif
