/* y = W x for n tokens, whatever way W is stored.
 *
 * Plain weights (f32, f16, bf16): with few tokens a dot kernel a row; with many, blocks of a
 * constant number of rows through BLAS. Other formats: a row is decoded to f32 once and multiplied
 * with every token by the f32 dot kernel, so that an output is the same sum in the same order for
 * any n. */
#ifndef NIBBLE_OPS_LINEAR_H
#define NIBBLE_OPS_LINEAR_H

#include "num/format.h"
#include "ops/backend.h"

/* x [n, w->cols], y [n, w->rows]. */
void linear(const struct backend *b, float *y, const struct mat *w, const float *x, size_t n);

/* The scratch floats a thread needs for matrices of at most `cols` columns. */
size_t linear_scratch(size_t cols);

#endif
