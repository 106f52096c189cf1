/* Multi-head latent attention (DeepSeek-V2, 2024): the part of a key that turns is one for all
 * heads, the rest each head's own. */
#ifndef NIBBLE_OPS_LATENT_H
#define NIBBLE_OPS_LATENT_H

#include "ops/backend.h"

struct latent {
    size_t heads;
    size_t nope_dim, rope_dim; /* of a head's key: what stays, then what turns */
};

/* k[t, h] = own[t, h] then shared[t]: [n, heads, nope_dim + rope_dim] of [n, heads, nope_dim] and
 * [n, rope_dim]. */
void latent_keys(const struct backend *b, const struct latent *l, float *k, const float *own,
                 const float *shared, size_t n);

#endif
