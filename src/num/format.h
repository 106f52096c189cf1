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
    /* out[0..cols) = row `row` of m as f32; m has no blocks (format_decode reads any) */
    void (*decode)(const struct mat *m, size_t row, float *out);
    /* out[count, cols] = rows `row` and on, where that takes less than one by one; else NULL */
    void (*decode_rows)(const struct mat *m, size_t row, size_t count, float *out);
};

/* A matrix of weights, [rows, cols], in whatever format; borrows its bytes. y = W x maps cols
 * inputs to rows outputs. Planes may lie at any alignment.
 *
 * A matrix may be a part of a larger tensor. Row r of a plane begins at
 *
 *     plane + r / block * block_stride + r % block * stride
 *
 * With block 0 all rows are one block: a range of rows is a plane that begins later, every other
 * row a doubled stride. Blocks are for heads whose queries, keys and values follow each other:
 * with 3 * head_dim rows a head, the keys are blocks of head_dim rows that begin head_dim rows
 * into the tensor, 3 * head_dim rows apart. */
enum { MAT_PLANES = 3 };

struct mat {
    const struct format *format;
    size_t rows, cols;
    const unsigned char *plane[MAT_PLANES]; /* plain: values. affine: codes, scales, offsets */
    size_t stride[MAT_PLANES];              /* bytes from one row to the next, by plane */
    size_t row_bytes[MAT_PLANES];           /* bytes that belong to a row, by plane */
    size_t block;                           /* rows of a block; 0: all */
    size_t block_stride[MAT_PLANES];        /* bytes from one block to the next, by plane */
    size_t step;      /* bytes from one column to the next; transposed formats only */
    enum dtype dtype; /* of the values, or of the scales and offsets */
    int bits;         /* of one code or value */
    int group;        /* codes that share a scale; 0 for plain formats */
};

#define FORMAT(id) extern const struct format format_##id;
#include "num/format.def"
#undef FORMAT

/* The bytes of a row, and of the whole matrix, over all planes. */
size_t format_row_bytes(const struct mat *m);
size_t format_bytes(const struct mat *m);

/* The rows from `row` on that lie evenly, as a matrix without blocks; *count is how many they are:
 * those of row's block, at least one. Whoever reads planes goes through this. */
struct mat format_rows(const struct mat *m, size_t row, size_t *count);

/* Rows first, first + 1 .. of m, which has no blocks, as many as `rows`; or with a block, so many
 * of every `apart` rows, from first on. */
struct mat format_part(const struct mat *m, size_t first, size_t rows, size_t block, size_t apart);

/* out[count, cols] = rows `row` to row + count - 1 of any matrix as f32. */
void format_decode(const struct mat *m, size_t row, size_t count, float *out);

/* A matrix of f32, f16 or bf16 values at data, rows one after another. */
struct mat format_plain(enum dtype dtype, size_t rows, size_t cols, const unsigned char *data);

#endif
