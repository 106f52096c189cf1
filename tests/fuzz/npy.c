/* Headers of npy arrays. */
#include "store/npy.h"

#include "mutate.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct npy npy;
    struct error e = {0};
    uint8_t *exact = malloc(size ? size : 1); /* its end is where a sanitizer looks */
    memcpy(exact, data, size);
    bool ok = npy_parse((struct span){exact, size}, "a.npy", &npy, &e);
    fuzz_check(ok, &e);
    if (ok && (npy.header_bytes > size || npy.data_bytes != size - npy.header_bytes)) abort();
    if (ok) fuzz_read((struct span){exact + npy.header_bytes, npy.data_bytes});
    free(exact);
    return 0;
}

static const char *const types[] = {"<f4", "<f2", "|V2", "<u4", "<i4",  "|u1", "|i1", "<i8",
                                    "<f8", ">f4", "|O",  "<c8", "<f16", "",    "f4",  "<U3"};
static const char *const shapes[] = {"()",
                                     "(0,)",
                                     "(4,)",
                                     "(2, 3)",
                                     "(-1,)",
                                     "(1, 2,",
                                     "(4L,)",
                                     "(9223372036854775808,)",
                                     "(1,1,1,1,1,1,1,1,1)",
                                     "(4294967296, 4294967296)",
                                     "(0, 18446744073709551615)",
                                     "4"};
static const char *const orders[] = {"False", "True", "None", "0"};

#define PICK(list) list[mutate_below(sizeof(list) / sizeof *(list))]

/* A header anew, mostly with its length right, before the bytes that were there. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t cap, unsigned seed) {
    char text[400];
    mutate_state = seed;
    if (mutate_below(2)) return LLVMFuzzerMutate(data, size, cap);
    int length = snprintf(text, sizeof text, "{'descr': '%s', 'fortran_order': %s, 'shape': %s, }",
                          PICK(types), PICK(orders), PICK(shapes));
    while ((length + 11) % 64) text[length++] = ' ';
    text[length++] = '\n';
    size_t stated = mutate_below(8) ? (size_t)length : (size_t)mutate_number(), end = 10;
    bool second = mutate_below(4) == 0;
    if (cap < 12 + (size_t)length) return size;
    memcpy(data, "\x93NUMPY", 6);
    data[6] = (uint8_t)(second ? 2 : 1);
    data[7] = 0;
    for (int i = 0; i < (second ? 4 : 2); i++) data[8 + i] = (uint8_t)(stated >> 8 * i);
    if (second) end = 12;
    memcpy(data + end, text, (size_t)length);
    end += (size_t)length;
    size_t bytes = mutate_below(4) * 4 * mutate_below(7);
    for (size_t i = 0; i < bytes && end < cap; i++) data[end++] = (uint8_t)mutate_random();
    return end;
}
