/* tokenizer.json, and tiktoken's files. */
#include "mutate.h"
#include "tokens.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct tokens *t = NULL;
    struct error e = {0};
    struct span file = {data, size};
    bool json = size && *data == '{';
    bool ok = json ? tokens_open_json(&t, file, "tokenizer.json", &e)
                   : tokens_open(&t, file, "tokenizer.model", NULL, &e);
    fuzz_check(ok, &e);
    if (ok) tokens_try(t, data, size);
    tokens_close(t);
    return 0;
}

/* Lines of a tiktoken file: a piece in base 64 and its rank. */
static size_t change_lines(uint8_t *data, size_t size, size_t cap) {
    static uint8_t copy[4096];
    size_t begin = mutate_below(size), end;
    while (begin && data[begin - 1] != '\n') begin--;
    for (end = begin; end < size && data[end] != '\n';) end++;
    if (end < size) end++;
    if (end - begin > sizeof copy) return size;
    memcpy(copy, data + begin, end - begin);
    switch (mutate_below(3)) {
    case 0: return mutate_splice(data, size, cap, begin, end - begin, "", 0);
    case 1: return mutate_splice(data, size, cap, mutate_below(size), 0, copy, end - begin);
    default: return LLVMFuzzerMutate(data, size, cap);
    }
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t cap, unsigned seed) {
    mutate_state = seed;
    if (!size) return LLVMFuzzerMutate(data, size, cap);
    return *data == '{' ? mutate_json(data, size, cap) : change_lines(data, size, cap);
}
