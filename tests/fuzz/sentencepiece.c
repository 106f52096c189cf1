/* Models of SentencePiece. */
#include "protobuf.h"
#include "tokens.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct tokens *t = NULL;
    struct error e = {0};
    bool ok = tokens_open(&t, (struct span){data, size}, "tokenizer.model", NULL, &e);
    fuzz_check(ok, &e);
    if (ok) tokens_try(t, data, size);
    tokens_close(t);
    return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t cap, unsigned seed) {
    mutate_state = seed;
    return protobuf_mutate(data, size, cap, 2);
}
