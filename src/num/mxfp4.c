#include "num/mxfp4.h"

#include <math.h>

/* Both factors are exact, and so is their product. */
static void decode(const struct mat *m, size_t row, float *out) {
    static const float values[] = {0,    0.5f,  1,  1.5f,  2,  3,  4,  6,
                                   -0.f, -0.5f, -1, -1.5f, -2, -3, -4, -6};
    const unsigned char *codes = m->plane[0] + row * m->stride[0];
    const unsigned char *scales = m->plane[1] + row * m->stride[1];
    for (size_t g = 0; g < m->cols / MXFP4_GROUP; g++) {
        float scale = scales[g] == 255 ? NAN : ldexpf(1, scales[g] - 127);
        for (int i = 0; i < MXFP4_GROUP; i += 2, out += 2, codes++) {
            out[0] = scale * values[*codes & 15];
            out[1] = scale * values[*codes >> 4];
        }
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
