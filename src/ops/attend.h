/* Causal attention over the cache, grouped queries (Ainslie et al., 2023), optional sliding window.
 *
 *     out[t, h] = sum_j exp(s_j) v[j, h / group] / (sum_j exp(s_j) + exp(sink_h))
 *     s_j       = cap(scale * q[t, h] . k[j, h / group])
 *
 * with j from the first position that window and chunk show to the token's own. cap(s) is s, or
 * with a softcap c the c tanh(s / c) of Gemma 2 (ops/softcap.h). A sink is a learned logit of a
 * head that takes part in the denominator alone, as a position would whose value is 0 (gpt-oss:
 * "sinks" in modeling_gpt_oss.py of transformers); without sinks its term is absent: a softmax.
 *
 * All of it as online softmax (Milakov and Gimelshein, 2018) over tiles of positions: a tile of
 * keys and values is read, and where many queries share it made f32, once for all of them.
 * Positions are cut into chunks of a constant size, whose results are merged in order; threads take
 * heads and chunks. All cuts lie at fixed positions, so neither batches nor threads change a bit of
 * a query's result. */
#ifndef NIBBLE_OPS_ATTEND_H
#define NIBBLE_OPS_ATTEND_H

#include "ops/cache.h"

struct attention {
    size_t heads;       /* query heads, a multiple of the cache's */
    size_t window;      /* how many positions a token sees, itself included; 0: all */
    size_t chunk;       /* it sees none before the last multiple of this; 0: all */
    float scale;        /* on the scores: 1 / sqrt(key_dim), as a rule */
    float softcap;      /* of the scores; 0: none */
    const float *sinks; /* [heads], NULL: none */
    float *parts;       /* [attend_parts()] where results of chunks wait to be merged */
};

/* q [n, heads, key_dim], out [n, heads, value_dim], dims of the cache, which holds positions
 * 0 .. pos + n - 1. If the two are equal out may be q, else they must not overlap. */
void attend(const struct backend *b, const struct attention *a, const struct cache *cache,
            float *out, const float *q, size_t n, size_t pos);

/* The scratch floats that a thread needs, and the floats of attention.parts. */
size_t attend_scratch(size_t key_dim, size_t value_dim);
size_t attend_parts(size_t heads, size_t value_dim, size_t context);

#endif
