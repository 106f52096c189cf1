/* Norms: each of n vectors on its own, times weights, plus a bias.
 *
 *     RMSNorm (Zhang and Sennrich, 2019):  y = w * x / sqrt(mean(x^2) + eps) + b
 *     LayerNorm (Ba et al., 2016):         y = w * (x - m) / sqrt(mean((x - m)^2) + eps) + b
 *
 * with m = mean(x). LayerNorm takes the mean in double and subtracts it before anything is squared:
 * a mean that is large beside the deviations costs none of their digits. */
#ifndef NIBBLE_OPS_NORM_H
#define NIBBLE_OPS_NORM_H

#include "ops/backend.h"

enum norm_kind {
    NORM_NONE, /* an empty struct: x itself, and no call of the functions below */
    NORM_RMS,
    NORM_LAYER,
};

struct norm {
    enum norm_kind kind;
    const float *weight, *bias; /* [dim]; NULL: 1 and 0 */
    float eps;
};

/* x, y [n, dim]; y may be x. On the calling thread: linear() splits the tokens. */
void norm_tokens(const struct backend *b, float *y, const float *x, const struct norm *norm,
                 size_t n, size_t dim);

/* Each head of x [n, heads, head_dim] on its own, in place, split over the threads. Weight and bias
 * are [head_dim], the same for all heads, or with per_head_weights [heads, head_dim]. (A norm over
 * all heads at once is norm_tokens with dim = heads * head_dim.) */
void norm_heads(const struct backend *b, float *x, const struct norm *norm, size_t n, size_t heads,
                size_t head_dim, bool per_head_weights);

#endif
