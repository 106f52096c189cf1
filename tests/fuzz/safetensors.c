/* Files and indexes of safetensors. */
#include "store/safetensors.h"

#include "mutate.h"

static void try_file(const char *path) {
    struct safetensors st = {0};
    struct error e = {0};
    bool ok = safetensors_open(&st, path, &e);
    fuzz_check(ok, &e);
    for (size_t i = 0; i < st.count; i++) fuzz_read(st.tensors[i].bytes);
    safetensors_close(&st);
}

static void try_index(const char *path) {
    struct safetensors_index index = {0};
    struct error e = {0};
    bool ok = safetensors_index_open(&index, path, &e);
    fuzz_check(ok, &e);
    for (size_t i = 0; i < index.count; i++) {
        fuzz_read((struct span){(const unsigned char *)index.places[i].shard,
                                strlen(index.places[i].shard)});
        fuzz_read((struct span){(const unsigned char *)index.places[i].tensor,
                                strlen(index.places[i].tensor)});
    }
    safetensors_index_close(&index);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *path = fuzz_file("a.safetensors", data, size);
    if (size && *data == '{')
        try_index(path);
    else
        try_file(path);
    return 0;
}

/* Changes the header and states its length, mostly as it is. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t cap, unsigned seed) {
    static uint8_t header[1 << 16];
    uint64_t length = 0;
    mutate_state = seed;
    if (size && *data == '{') return mutate_json(data, size, cap);
    for (size_t i = 0; i < 8 && size > 8; i++) length |= (uint64_t)data[i] << 8 * i;
    if (size < 10 || length > size - 8 || length > sizeof header / 2 || mutate_below(8) == 0)
        return LLVMFuzzerMutate(data, size, cap);
    memcpy(header, data + 8, length);
    size_t now = mutate_json(header, length, sizeof header);
    size = mutate_splice(data, size, cap, 8, length, header, now);
    uint64_t stated = mutate_below(16) ? now : mutate_number();
    for (size_t i = 0; i < 8; i++) data[i] = (uint8_t)(stated >> 8 * i);
    return size;
}
