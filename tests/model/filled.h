/* Caches of random keys and values that every type keeps exactly. */
#ifndef NIBBLE_TESTS_FILLED_H
#define NIBBLE_TESTS_FILLED_H

#include "fixture.h"
#include "ops/cache.h"

/* A cache of which nothing but what cache_store wrote is a number, and what should be in it. */
struct filled {
    struct cache layer;
    float *k; /* [tokens, heads, key_dim] and */
    float *v; /* [tokens, heads, value_dim], to be given to cache_store */
    size_t k_bytes, v_bytes, scales;
};

/* A multiple of 1/32 below 4: exact in f16, and in bytes too if a row's largest is 127/32. */
static inline float filled_value(void) {
    return (float)((int)fixture_below(255) - 127) / 32;
}

static inline float *filled_rows(size_t rows, size_t dim) {
    float *x = malloc(rows * dim * sizeof *x);
    for (size_t i = 0; i < rows * dim; i++) x[i] = filled_value();
    for (size_t r = 0; r < rows; r++)
        x[r * dim + fixture_below(dim)] = r % 2 ? 127.f / 32 : -127.f / 32;
    return x;
}

static inline void *filled_nans(size_t bytes) {
    void *p = malloc(bytes ? bytes : 1);
    memset(p, 0xff, bytes); /* NaN in f16 and f32 */
    return p;
}

/* What layer gives as dtype, heads and dims, with room for a few tokens more. */
static inline struct filled filled_make(struct cache layer, size_t tokens) {
    struct filled c = {.layer = layer};
    size_t context = tokens + 3;
    size_t padded = (context + CACHE_TILE - 1) / CACHE_TILE * CACHE_TILE;
    c.layer.context = context;
    c.k_bytes = layer.heads * layer.key_dim * padded * dtype_bytes(layer.dtype);
    c.v_bytes = layer.heads * layer.value_dim * context * dtype_bytes(layer.dtype);
    c.scales = layer.dtype == DTYPE_I8 ? layer.heads * padded : 0;
    c.layer.k = filled_nans(c.k_bytes);
    c.layer.v = filled_nans(c.v_bytes);
    if (c.scales) c.layer.k_scales = filled_nans(c.scales * sizeof(float));
    if (c.scales) c.layer.v_scales = filled_nans(c.scales * sizeof(float));
    c.k = filled_rows(tokens * layer.heads, layer.key_dim);
    c.v = filled_rows(tokens * layer.heads, layer.value_dim);
    return c;
}

/* Stores positions from..to - 1, some at a time. */
static inline void filled_store(const struct backend *b, const struct filled *c, size_t from,
                                size_t to) {
    size_t k = c->layer.heads * c->layer.key_dim, v = c->layer.heads * c->layer.value_dim;
    for (size_t n; from < to; from += n) {
        n = to - from < 5 ? to - from : 5;
        cache_store(b, &c->layer, c->k + from * k, c->v + from * v, n, from);
    }
}

static inline void filled_drop(struct filled *c) {
    free(c->layer.k);
    free(c->layer.v);
    free(c->layer.k_scales);
    free(c->layer.v_scales);
    free(c->k);
    free(c->v);
}

#endif
