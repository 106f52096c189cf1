#include "num/mxfp4.h"

#include <math.h>

static void decode(const struct mat *m, size_t row, float *out) {
    static const float values[] = {0,    0.5f,  1,  1.5f,  2,  3,  4,  6,
                                   -0.f, -0.5f, -1, -1.5f, -2, -3, -4, -6};
    const unsigned char *codes = m->plane[0] + row * m->stride[0];
    const unsigned char *scales = m->plane[1] + row * m->stride[1];
    for (size_t i = 0; i < m->cols; i++) {
        int e = scales[i / MXFP4_GROUP], code = i % 2 ? codes[i / 2] >> 4 : codes[i / 2] & 15;
        out[i] = e == 255 ? NAN : ldexpf(values[code], e - 127);
    }
}

const struct format format_mxfp4 = {.name = "mxfp4", .decode = decode};

struct mat mxfp4_mat(size_t rows, size_t cols, const unsigned char *codes,
                     const unsigned char *scales) {
    return (struct mat){
        .format = &format_mxfp4,
        .rows = rows,
        .cols = cols,
        .plane = {codes, scales},
        .stride = {cols / 2, cols / MXFP4_GROUP},
        .row_bytes = {cols / 2, cols / MXFP4_GROUP},
        .dtype = DTYPE_BF16,
        .bits = 4,
    };
}
