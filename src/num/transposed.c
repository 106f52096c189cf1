#include "num/transposed.h"

#include <string.h>

#include "num/half.h"

static inline float load(const unsigned char *p, enum dtype dtype) {
    float f;
    if (dtype == DTYPE_F16) return half_from_f16(half_load_u16(p));
    if (dtype == DTYPE_BF16) return half_from_bf16(half_load_u16(p));
    memcpy(&f, p, sizeof f);
    return f;
}

/* Column by column: what the rows have of it lies side by side. Inlined with a constant type. */
static inline void gather(const struct mat *m, size_t row, size_t count, float *out,
                          enum dtype dtype) {
    const unsigned char *column = m->plane[0] + row * m->stride[0];
    for (size_t c = 0; c < m->cols; c++, column += m->step) {
        const unsigned char *p = column;
        for (size_t r = 0; r < count; r++, p += m->stride[0]) out[r * m->cols + c] = load(p, dtype);
    }
}

static void decode_rows(const struct mat *m, size_t row, size_t count, float *out) {
    switch (m->dtype) {
    case DTYPE_F16: gather(m, row, count, out, DTYPE_F16); return;
    case DTYPE_BF16: gather(m, row, count, out, DTYPE_BF16); return;
    default: gather(m, row, count, out, DTYPE_F32); return;
    }
}

static void decode(const struct mat *m, size_t row, float *out) {
    decode_rows(m, row, 1, out);
}

const struct format format_f32_transposed = {"f32 transposed", decode, decode_rows};
const struct format format_f16_transposed = {"f16 transposed", decode, decode_rows};
const struct format format_bf16_transposed = {"bf16 transposed", decode, decode_rows};

struct mat transposed_mat(enum dtype dtype, size_t rows, size_t cols, size_t line,
                          const unsigned char *data) {
    size_t bytes = dtype_bytes(dtype);
    return (struct mat){
        .format = dtype == DTYPE_F32   ? &format_f32_transposed
                  : dtype == DTYPE_F16 ? &format_f16_transposed
                                       : &format_bf16_transposed,
        .rows = rows,
        .cols = cols,
        .plane = {data},
        .stride = {bytes},
        .row_bytes = {cols * bytes},
        .step = line * bytes,
        .dtype = dtype,
        .bits = (int)(8 * bytes),
    };
}
