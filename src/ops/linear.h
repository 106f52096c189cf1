/* y = W x for n tokens, whatever way W is stored.
 *
 * Plain weights (f32, f16, bf16): tiles of rows and tokens. Affine weights: x is packed to int8
 * (num/packed.h) for the integer kernels. Any other format: a row is decoded to f32 once and
 * multiplied with every token. In each an output is one sum in one order, for any n. If the backend
 * says blas, plain weights and many tokens go through BLAS, whose order depends on n. */
#ifndef NIBBLE_OPS_LINEAR_H
#define NIBBLE_OPS_LINEAR_H

#include "num/format.h"
#include "ops/backend.h"
#include "ops/norm.h"

struct linear {
    float *y; /* [n, w->rows] */
    const struct mat *w;
};

/* What is multiplied: x [n, cols]; given a norm, h [n, cols], which is made first as the norm of x,
 * in the parallel region that packs it. */
struct input {
    const float *x;
    struct norm norm; /* empty: x itself */
    float *h;
};

/* The products of the input with several matrices at once, in one parallel region. */
void linear(const struct backend *b, const struct linear *products, size_t count, struct input in,
            size_t n);

/* SwiGLU (Shazeer, 2020): y = silu(gate x) * (up x), silu(a) = a / (1 + exp(-a)), y [n, rows], a
 * block of rows at a time while it is in the cache. */
void linear_gated(const struct backend *b, float *y, const struct mat *gate, const struct mat *up,
                  struct input in, size_t n);

/* What the threads need for matrices of at most `cols` columns, gates of at most `rows` rows, and
 * batches of at most n tokens; BLAS needs more than the rest. */
size_t linear_scratch(size_t cols, size_t rows, size_t n, bool blas);
void linear_layout(struct backend *b, struct arena *a, size_t cols, size_t n);

#endif
