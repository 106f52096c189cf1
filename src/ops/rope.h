/* Rotary position embedding (Su et al., 2021): pairs of a head's dimensions are turned by an angle
 * that grows with the position. Every variant (scaled, partial, per layer, another one for long
 * texts) is only another table. */
#ifndef NIBBLE_OPS_ROPE_H
#define NIBBLE_OPS_ROPE_H

#include "ops/backend.h"

enum rope_layout {
    ROPE_HALF,        /* pairs (i, i + dim/2), counted from `first`: Hugging Face */
    ROPE_INTERLEAVED, /* pairs (2i, 2i + 1): Meta */
};

struct rope {
    float *freq;       /* [dim / 2] radians a position */
    size_t first, dim; /* of a head the dimensions first .. first + dim - 1 turn, the others stay;
                        * dim is even */
    enum rope_layout layout;
    float scale; /* on the cosines and sines (YaRN's attention factor); 1 otherwise */
};

/* angles [n, dim / 2, 2]: cosine and sine for the positions pos .. pos + n - 1. */
void rope_angles(const struct rope *r, float *angles, size_t n, size_t pos);

/* Turns x [n, heads, head_dim] in place. */
void rope_apply(const struct backend *b, const struct rope *r, const float *angles, float *x,
                size_t n, size_t heads, size_t head_dim);

/* Queries that grow with their position, for contexts longer than was learned from (Nakanishi,
 * Scalable-Softmax, 2025), with or without a rope:
 *
 *     q[t] *= 1 + beta * log(1 + floor((t + offset) / context))
 *
 * offset is 0 in Ministral 3 ("llama_4_scaling_beta" in transformers), 1 in Llama 4 ("attn_scale",
 * "floor_scale"), which does it in the layers that have no rope. */
struct rope_growth {
    float beta;     /* 0: none */
    size_t context; /* at least 1, where there is a beta */
    size_t offset;
};

/* Scales q [n, dim] of the positions pos .. pos + n - 1 in place; dim: of all heads. */
void rope_query_scale(const struct backend *b, const struct rope_growth *g, float *q, size_t n,
                      size_t dim, size_t pos);

#endif
