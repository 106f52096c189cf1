#include "base/dtype.h"

#include <string.h>

static const struct {
    const char *name;
    const char *descr; /* as we write it */
    size_t bytes;
} types[DTYPE_COUNT] = {
    [DTYPE_F32] = {"f32", "<f4", 4},   [DTYPE_F16] = {"f16", "<f2", 2},
    [DTYPE_BF16] = {"bf16", "<V2", 2}, [DTYPE_F64] = {"f64", "<f8", 8},
    [DTYPE_U8] = {"u8", "|u1", 1},     [DTYPE_I8] = {"i8", "|i1", 1},
    [DTYPE_BOOL] = {"bool", "|b1", 1}, [DTYPE_U16] = {"u16", "<u2", 2},
    [DTYPE_I16] = {"i16", "<i2", 2},   [DTYPE_U32] = {"u32", "<u4", 4},
    [DTYPE_I32] = {"i32", "<i4", 4},   [DTYPE_U64] = {"u64", "<u8", 8},
    [DTYPE_I64] = {"i64", "<i8", 8},
};

const char *dtype_name(enum dtype t) {
    return types[t].name;
}

size_t dtype_bytes(enum dtype t) {
    return types[t].bytes;
}

const char *dtype_descr(enum dtype t) {
    return types[t].descr;
}

enum dtype dtype_from_descr(const char *descr) {
    if (strcmp(descr, "V2") == 0) return DTYPE_BF16; /* numpy's short spelling */
    if (strlen(descr) != 3) return DTYPE_COUNT;
    for (int t = 0; t < DTYPE_COUNT; t++) {
        if (strcmp(descr + 1, types[t].descr + 1) != 0) continue;
        /* The byte order matters only where there is more than one byte. */
        if (t == DTYPE_BF16 || types[t].bytes == 1 || descr[0] == '<') return (enum dtype)t;
    }
    return DTYPE_COUNT;
}
