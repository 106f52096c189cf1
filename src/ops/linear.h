/* y = W x + bias for n tokens, whatever way W is stored.
 *
 * Plain weights (f32, f16, bf16): tiles of rows and tokens. Affine weights: x is packed to int8
 * (num/packed.h) for the integer kernels. Any other format: rows are decoded to f32 once and
 * multiplied with every token. In each an output is one sum in one order, for any n, to which the
 * bias is added last. If the backend says blas, plain weights and many tokens go through BLAS,
 * whose order depends on n. */
#ifndef NIBBLE_OPS_LINEAR_H
#define NIBBLE_OPS_LINEAR_H

#include "num/format.h"
#include "ops/backend.h"
#include "ops/gate.h"
#include "ops/norm.h"

struct linear {
    float *y; /* [n, w->rows] */
    const struct mat *w;
    const float *bias; /* [w->rows]; NULL: none */
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

/* The products of one token each with an input of its own: product i with row i of x [count, cols];
 * all matrices have cols columns. Room for packed activations is that of `count` tokens. */
void linear_each(const struct backend *b, const struct linear *products, size_t count,
                 const float *x);

/* The first half of a feed-forward block: y = act(gate x + gate_bias) * (up x + up_bias), as
 * ops/gate.h has it, or y = act(up x + up_bias); all of as many rows. */
struct gated {
    float *y;                         /* [n, up->rows] */
    const struct mat *gate, *up;      /* gate NULL: none */
    const float *gate_bias, *up_bias; /* [up->rows]; NULL: none */
};

/* Several of one input at once, in one parallel region, each a block of rows at a time while it is
 * in the cache. */
void linear_gated(const struct backend *b, const struct gated *gates, size_t count,
                  enum activation a, struct input in, size_t n);

/* What the threads need for matrices of at most `cols` columns, gates of at most `rows` rows, and
 * batches of at most n tokens; BLAS needs more than the rest. */
size_t linear_scratch(size_t cols, size_t rows, size_t n, bool blas);
void linear_layout(struct backend *b, struct arena *a, size_t cols, size_t n);

#endif
