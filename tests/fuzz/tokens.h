/* A tokenizer that opened is used: texts, what it makes of them, all that it can be asked. */
#ifndef NIBBLE_TESTS_FUZZ_TOKENS_H
#define NIBBLE_TESTS_FUZZ_TOKENS_H

#include "fuzz.h"
#include "text/tokens.h"

static inline void tokens_try_text(const struct tokens *t, const char *text, size_t size,
                                   bool special) {
    struct token_list list = {0};
    struct error e = {0};
    char out[64];
    bool ok = tokens_encode(t, text, size, special, &list, &e);
    fuzz_check(ok, &e);
    struct detokenizer d = {t, false};
    for (size_t i = 0; ok && i < list.count; i++) {
        if (list.ids[i] < 0 || list.ids[i] >= tokens_count(t)) abort();
        if (tokens_text(&d, list.ids[i], special, out, sizeof out) > tokens_longest(t)) abort();
    }
    free(list.ids);
}

/* more: the end of the input, as a text as well. */
static inline void tokens_try(const struct tokens *t, const uint8_t *more, size_t size) {
    static const char *const texts[] = {"",
                                        " ",
                                        "Once upon a time, there was 1 cat.",
                                        "  two  spaces\n\nand\ttabs ",
                                        "\xc3\xa9\xe2\x96\x81\xf0",
                                        "<s></s><unk><0x0A>",
                                        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
    char out[8];
    int before[TOKENS_MAX_BEFORE];
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        tokens_try_text(t, texts[i], strlen(texts[i]), i % 2);
    size_t tail = size < 64 ? size : 64;
    tokens_try_text(t, (const char *)more + size - tail, tail, true);
    if (tokens_before(t, before) > TOKENS_MAX_BEFORE) abort();
    for (int id = -1; id <= tokens_count(t) && id < 3000; id++) {
        struct detokenizer d = {t, id % 2};
        tokens_text(&d, id, id % 3, out, sizeof out);
        tokens_is_control(t, id);
    }
    tokens_find(t, "<s>", 3);
    fuzz_seen ^= (unsigned char)(tokens_bos(t) ^ tokens_eos(t));
}

#endif
