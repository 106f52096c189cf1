/* The keys and values of one layer for one timeline of tokens, as attention reads them.
 *
 * Values lie row by row: [heads, context, value_dim]. Keys lie in tiles of CACHE_TILE positions,
 * each transposed: [heads, context / CACHE_TILE, key_dim, CACHE_TILE], so that the scores of a
 * tile are a weighted sum of rows, as outputs are: no sum runs across a vector. Elements are f32,
 * f16, or signed bytes, which have a scale for each head and position: max|x| / 127 (q8). Where
 * max|x| is not finite, or too small for 127 / max|x| to be, the codes are 0 and the scale says so.
 */
#ifndef NIBBLE_OPS_CACHE_H
#define NIBBLE_OPS_CACHE_H

#include "base/dtype.h"
#include "ops/backend.h"

enum { CACHE_TILE = 64 };

struct cache {
    enum dtype dtype; /* DTYPE_F32, DTYPE_F16 or DTYPE_I8 */
    size_t heads, context;
    size_t key_dim, value_dim; /* of a head: equal, but for latent attention */
    unsigned char *k, *v;
    float *k_scales, *v_scales; /* [heads, context rounded up to tiles]; DTYPE_I8 only */
};

/* Takes the planes of a cache whose dtype, heads, context and dims are set. */
void cache_layout(struct cache *c, struct arena *a);

/* Bytes of one position. */
size_t cache_position_bytes(enum dtype dtype, size_t heads, size_t key_dim, size_t value_dim);

/* Stores k [n, heads, key_dim] and v [n, heads, value_dim] at positions pos .. pos + n - 1. */
void cache_store(const struct backend *b, const struct cache *c, const float *k, const float *v,
                 size_t n, size_t pos);

/* A head's tile of keys [key_dim, CACHE_TILE], and its values from position pos on. */
unsigned char *cache_keys(const struct cache *c, size_t head, size_t tile);
unsigned char *cache_values(const struct cache *c, size_t head, size_t pos);

/* Where the scale of a head's position lies in k_scales and v_scales. */
size_t cache_scale_at(const struct cache *c, size_t head, size_t pos);

/* The scratch floats that a thread needs. */
size_t cache_scratch(size_t key_dim);

#endif
