/* How a matrix of weights is stored, and the reference for reading and writing it.
 *
 * A format is a row of format.def: its two functions are the definition of the numbers. All that
 * is faster is compared with them. */
#ifndef NIBBLE_NUM_FORMAT_H
#define NIBBLE_NUM_FORMAT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/dtype.h"

struct mat;

struct format {
    const char *name; /* "f16", "affine" */
    /* out[0..cols) = row `row` of m as f32 */
    void (*decode)(const struct mat *m, size_t row, float *out);
};

/* A matrix of weights, [rows, cols], in whatever format; borrows its bytes. y = W x maps cols
 * inputs to rows outputs. Planes may lie at any alignment. */
enum { MAT_PLANES = 3 };

struct mat {
    const struct format *format;
    size_t rows, cols;
    const unsigned char *plane[MAT_PLANES]; /* plain: values. affine: codes, scales, offsets */
    size_t stride[MAT_PLANES];              /* bytes from one row to the next, by plane */
    enum dtype dtype;                       /* of the values, or of the scales and offsets */
    int bits;                               /* of one code or value */
    int group;                              /* codes that share a scale; 0 for plain formats */
};

#define FORMAT(id) extern const struct format format_##id;
#include "num/format.def"
#undef FORMAT

/* The bytes that a row, and the whole matrix, occupy over all planes. */
size_t format_row_bytes(const struct mat *m);
size_t format_bytes(const struct mat *m);

/* A matrix of f32, f16 or bf16 values at data, rows one after another. */
struct mat format_plain(enum dtype dtype, size_t rows, size_t cols, const unsigned char *data);

#endif
