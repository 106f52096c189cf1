/* Random matrices in every format, what they stand for, and their products in double. */
#ifndef NIBBLE_TESTS_MATRIX_H
#define NIBBLE_TESTS_MATRIX_H

#include "fixture.h"
#include "num/affine.h"
#include "num/transposed.h"

/* A matrix, perhaps at an odd address, and what it stands for. */
struct matrix {
    struct mat mat;
    unsigned char *memory;
    double *value;     /* [rows, cols] */
    double *magnitude; /* |s q| + |z|, or |value|: what rounding is relative to */
    const char *name;
};

/* --- making ----------------------------------------------------------------------------------- */

/* 16 random bits that are a number of moderate size, at p. */
static inline double matrix_put_f16(unsigned char *p) {
    unsigned sign = (unsigned)fixture_below(2), exponent = 8 + (unsigned)fixture_below(7);
    unsigned fraction = (unsigned)fixture_below(1024);
    unsigned bits = sign << 15 | exponent << 10 | fraction;
    p[0] = (unsigned char)bits;
    p[1] = (unsigned char)(bits >> 8);
    return (sign ? -1 : 1) * ldexp(1 + fraction / 1024.0, (int)exponent - 15);
}

static inline double matrix_put_bf16(unsigned char *p) {
    unsigned sign = (unsigned)fixture_below(2), exponent = 120 + (unsigned)fixture_below(7);
    unsigned fraction = (unsigned)fixture_below(128);
    unsigned bits = sign << 15 | exponent << 7 | fraction;
    p[0] = (unsigned char)bits;
    p[1] = (unsigned char)(bits >> 8);
    return (sign ? -1 : 1) * ldexp(1 + fraction / 128.0, (int)exponent - 127);
}

static inline double matrix_put(unsigned char *p, size_t i, enum dtype dtype) {
    if (dtype == DTYPE_F16) return matrix_put_f16(p + 2 * i);
    if (dtype == DTYPE_BF16) return matrix_put_bf16(p + 2 * i);
    float f = fixture_value();
    memcpy(p + 4 * i, &f, sizeof f);
    return f;
}

static inline void matrix_allocate(struct matrix *w, size_t rows, size_t cols, size_t bytes,
                                   size_t skip) {
    w->memory = malloc(bytes + skip);
    w->value = malloc(rows * cols * sizeof *w->value);
    w->magnitude = malloc(rows * cols * sizeof *w->magnitude);
}

static inline struct matrix matrix_plain(enum dtype dtype, size_t rows, size_t cols, size_t skip) {
    struct matrix w = {.name = dtype_name(dtype)};
    matrix_allocate(&w, rows, cols, rows * cols * dtype_bytes(dtype), skip);
    for (size_t i = 0; i < rows * cols; i++) {
        w.value[i] = matrix_put(w.memory + skip, i, dtype);
        w.magnitude[i] = fabs(w.value[i]);
    }
    w.mat = format_plain(dtype, rows, cols, w.memory + skip);
    return w;
}

/* Stored as [cols, line], of which the first `rows` columns are meant; the rest is NaN. */
static inline struct matrix matrix_transposed(enum dtype dtype, size_t rows, size_t cols,
                                              size_t line) {
    struct matrix w = {.name = dtype_name(dtype)};
    size_t bytes = dtype_bytes(dtype);
    matrix_allocate(&w, rows, cols, ((cols - 1) * line + rows) * bytes, 1);
    unsigned char *data = w.memory + 1;
    memset(data, 0xff, ((cols - 1) * line + rows) * bytes);
    for (size_t i = 0; i < rows * cols; i++) {
        w.value[i] = matrix_put(data, i % cols * line + i / cols, dtype);
        w.magnitude[i] = fabs(w.value[i]);
    }
    w.mat = transposed_mat(dtype, rows, cols, line, data);
    return w;
}

/* The rows of w from `first` on in blocks of `block`, of which one begins every `apart` rows, over
 * copies of nothing but the values: w must stay. Block 0: single rows, which are one block with a
 * longer stride. */
static inline struct matrix matrix_view(const struct matrix *w, size_t first, size_t block,
                                        size_t apart) {
    struct matrix v = {.mat = w->mat, .name = w->name};
    size_t cols = w->mat.cols, length = block ? block : 1;
    v.mat.rows = (w->mat.rows - first + apart - length) / apart * length;
    matrix_allocate(&v, v.mat.rows, cols, 0, 1);
    for (size_t r = 0; r < v.mat.rows; r++) {
        size_t from = (first + r / length * apart + r % length) * cols;
        memcpy(v.value + r * cols, w->value + from, cols * sizeof *v.value);
        memcpy(v.magnitude + r * cols, w->magnitude + from, cols * sizeof *v.magnitude);
    }
    for (int p = 0; p < MAT_PLANES && v.mat.plane[p]; p++) {
        v.mat.plane[p] += first * v.mat.stride[p];
        if (block) v.mat.block_stride[p] = apart * v.mat.stride[p];
        if (!block) v.mat.stride[p] *= apart;
    }
    v.mat.block = block;
    return v;
}

/* Code k of a row: the bits from k * bits on, least significant first. */
static inline unsigned matrix_code_at(const unsigned char *row, size_t k, int bits) {
    unsigned code = 0;
    for (size_t i = 0; i < (size_t)bits; i++) {
        size_t bit = k * (size_t)bits + i;
        code |= ((unsigned)row[bit / 8] >> bit % 8 & 1u) << i;
    }
    return code;
}

static inline struct matrix matrix_affine(int bits, int group, enum dtype dtype, size_t rows,
                                          size_t cols) {
    struct matrix w = {.name = "affine"};
    size_t code_bytes = cols * (size_t)bits / 8, groups = cols / (size_t)group;
    size_t scale_bytes = groups * dtype_bytes(dtype), skip = 1;
    matrix_allocate(&w, rows, cols, rows * (code_bytes + 2 * scale_bytes), skip);
    unsigned char *codes = w.memory + skip, *scales = codes + rows * code_bytes;
    unsigned char *offsets = scales + rows * scale_bytes;
    for (size_t i = 0; i < rows * code_bytes; i++) codes[i] = (unsigned char)fixture_below(256);
    for (size_t g = 0; g < rows * groups; g++) {
        double s = matrix_put(scales, g, dtype), z = matrix_put(offsets, g, dtype);
        for (size_t i = 0; i < (size_t)group; i++) {
            size_t row = g / groups, col = g % groups * (size_t)group + i;
            unsigned q = matrix_code_at(codes + row * code_bytes, col, bits);
            w.value[row * cols + col] = s * q + z;
            w.magnitude[row * cols + col] = fabs(s * q) + fabs(z);
        }
    }
    w.mat = affine_mat(rows, cols, bits, group, dtype, codes, scales, offsets);
    return w;
}

static inline void matrix_drop(struct matrix *w) {
    free(w->memory);
    free(w->value);
    free(w->magnitude);
}

/* --- products --------------------------------------------------------------------------------- */

/* The variance of x W if each x is rounded to a multiple of max|x| / 127 in its group. */
static inline double matrix_rounding_variance(const struct mat *w, const float *x,
                                              const double *value) {
    double sum = 0;
    for (size_t begin = 0; begin < w->cols; begin += (size_t)w->group) {
        double most = 0, squares = 0;
        for (size_t c = begin; c < begin + (size_t)w->group; c++) {
            most = fmax(most, fabs((double)x[c]));
            squares += value[c] * value[c];
        }
        sum += most / 127 * (most / 127) / 12 * squares;
    }
    return sum;
}

/* Products in double [n, rows], and how far f32 may lie from them: a quarter of the worst case of
 * a plain sum. That is far above what rounding does and far below one term. Where activations are
 * rounded to 8 bits, six standard deviations of that come on top. */
static inline void matrix_multiply(const struct matrix *w, const float *x, size_t n, double *y,
                                   double *bound) {
    size_t rows = w->mat.rows, cols = w->mat.cols;
    for (size_t i = 0; i < n * rows; i++) {
        const double *v = w->value + i % rows * cols, *m = w->magnitude + i % rows * cols;
        const float *token = x + i / rows * cols;
        double sum = 0, size = 0;
        for (size_t c = 0; c < cols; c++) {
            sum += token[c] * v[c];
            size += fabs(token[c]) * m[c];
        }
        y[i] = sum;
        bound[i] = ((double)cols / 4 + 8) * 0x1p-24 * size;
        if (w->mat.group) bound[i] += 6 * sqrt(matrix_rounding_variance(&w->mat, token, v));
    }
}

#endif
