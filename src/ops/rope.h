/* Rotary position embedding (Su et al., 2021): pairs of a head's dimensions are turned by an angle
 * that grows with the position. Every variant (scaled, partial, per layer) is only another table.
 */
#ifndef NIBBLE_OPS_ROPE_H
#define NIBBLE_OPS_ROPE_H

#include "ops/backend.h"

enum rope_layout {
    ROPE_HALF,        /* pairs (i, i + dim/2): Hugging Face */
    ROPE_INTERLEAVED, /* pairs (2i, 2i + 1): Meta */
};

struct rope {
    float *freq; /* [dim / 2] radians a position */
    size_t dim;  /* how many of a head's dimensions turn; even */
    enum rope_layout layout;
    float scale; /* on the cosines and sines (YaRN's attention factor); 1 otherwise */
};

/* angles [n, dim / 2, 2]: cosine and sine for the positions pos .. pos + n - 1. */
void rope_angles(const struct rope *r, float *angles, size_t n, size_t pos);

/* Turns x [n, heads, head_dim] in place. */
void rope_apply(const struct backend *b, const struct rope *r, const float *angles, float *x,
                size_t n, size_t heads, size_t head_dim);

#endif
