/* f32, f16 and bf16: a value is its own code. */
#include <string.h>

#include "num/format.h"
#include "num/half.h"

static const unsigned char *row_of(const struct mat *m, size_t row) {
    return m->plane[0] + row * m->stride[0];
}

static void decode_f32(const struct mat *m, size_t row, float *out) {
    memcpy(out, row_of(m, row), m->cols * sizeof *out);
}

static void decode_f16(const struct mat *m, size_t row, float *out) {
    const unsigned char *p = row_of(m, row);
    for (size_t i = 0; i < m->cols; i++) out[i] = half_from_f16(half_load_u16(p + 2 * i));
}

static void decode_bf16(const struct mat *m, size_t row, float *out) {
    const unsigned char *p = row_of(m, row);
    for (size_t i = 0; i < m->cols; i++) out[i] = half_from_bf16(half_load_u16(p + 2 * i));
}

const struct format format_f32 = {.name = "f32", .decode = decode_f32};
const struct format format_f16 = {.name = "f16", .decode = decode_f16};
const struct format format_bf16 = {.name = "bf16", .decode = decode_bf16};

struct mat format_plain(enum dtype dtype, size_t rows, size_t cols, const unsigned char *data) {
    size_t bytes = dtype_bytes(dtype);
    return (struct mat){
        .format = dtype == DTYPE_F32   ? &format_f32
                  : dtype == DTYPE_F16 ? &format_f16
                                       : &format_bf16,
        .rows = rows,
        .cols = cols,
        .plane = {data},
        .stride = {cols * bytes},
        .row_bytes = {cols * bytes},
        .dtype = dtype,
        .bits = (int)(8 * bytes),
    };
}
