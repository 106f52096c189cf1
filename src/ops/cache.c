#include "ops/cache.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

static size_t tiles_of(const struct cache *c) {
    return (c->context + CACHE_TILE - 1) / CACHE_TILE;
}

void cache_layout(struct cache *c, struct arena *a) {
    size_t bytes = dtype_bytes(c->dtype), padded = tiles_of(c) * CACHE_TILE;
    c->k = arena_take(a, c->heads * padded, c->key_dim * bytes);
    c->v = arena_take(a, c->heads * c->context, c->value_dim * bytes);
    if (c->dtype != DTYPE_I8) return;
    c->k_scales = arena_take(a, c->heads * padded, sizeof(float));
    c->v_scales = arena_take(a, c->heads * padded, sizeof(float));
}

size_t cache_position_bytes(enum dtype dtype, size_t heads, size_t key_dim, size_t value_dim) {
    size_t scales = dtype == DTYPE_I8 ? 2 * sizeof(float) : 0;
    return heads * ((key_dim + value_dim) * dtype_bytes(dtype) + scales);
}

unsigned char *cache_keys(const struct cache *c, size_t head, size_t tile) {
    size_t bytes = CACHE_TILE * c->key_dim * dtype_bytes(c->dtype);
    return c->k + (head * tiles_of(c) + tile) * bytes;
}

unsigned char *cache_values(const struct cache *c, size_t head, size_t pos) {
    return c->v + (head * c->context + pos) * c->value_dim * dtype_bytes(c->dtype);
}

size_t cache_scale_at(const struct cache *c, size_t head, size_t pos) {
    return head * tiles_of(c) * CACHE_TILE + pos;
}

/* --- storing ---------------------------------------------------------------------------------- */

struct store {
    const struct backend *backend;
    const struct cache *cache;
    const float *k, *v;
    size_t pos;
};

/* The largest magnitude by its bits, which order like the numbers and keep a NaN the largest. */
static float largest(const float *x, size_t n) {
    uint32_t most = 0, bits;
    for (size_t i = 0; i < n; i++) {
        memcpy(&bits, &x[i], sizeof bits);
        bits &= 0x7fffffff;
        most = bits > most ? bits : most;
    }
    float m;
    memcpy(&m, &most, sizeof m);
    return m;
}

/* Codes of a row; returns their scale. Adding 1.5 * 2^23 rounds to an integer in the low bits. */
static float store_bytes(unsigned char *row, const float *x, size_t n) {
    float most = largest(x, n), unit = 127 / most;
    if (!(most < INFINITY && unit < INFINITY)) {
        memset(row, 0, n);
        return most / 127;
    }
    for (size_t i = 0; i < n; i++) {
        float shifted = x[i] * unit + 0x1.8p23f;
        uint32_t bits;
        memcpy(&bits, &shifted, sizeof bits);
        row[i] = (unsigned char)bits;
    }
    return most / 127;
}

/* n numbers in the cache's type; their scale goes to scales[at] where the type has one. */
static void store_row(const struct store *s, unsigned char *row, float *scales, size_t at,
                      const float *x, size_t n) {
    switch (s->cache->dtype) {
    case DTYPE_F16: s->backend->kern.store_f16(row, x, n); break;
    case DTYPE_I8: scales[at] = store_bytes(row, x, n); break;
    default: memcpy(row, x, n * sizeof *x);
    }
}

/* Element i of a row goes to row i of a tile, whose rows are CACHE_TILE elements. */
static void transpose(unsigned char *tile, const unsigned char *row, size_t n, enum dtype dtype) {
    switch (dtype) {
    case DTYPE_F16:
        for (size_t i = 0; i < n; i++) memcpy(tile + 2 * CACHE_TILE * i, row + 2 * i, 2);
        break;
    case DTYPE_I8:
        for (size_t i = 0; i < n; i++) tile[CACHE_TILE * i] = row[i];
        break;
    default:
        for (size_t i = 0; i < n; i++) memcpy(tile + 4 * CACHE_TILE * i, row + 4 * i, 4);
    }
}

static void store_tokens(void *arg, size_t begin, size_t end, int thread) {
    const struct store *s = arg;
    const struct cache *c = s->cache;
    unsigned char *row = (unsigned char *)backend_scratch(s->backend, thread);
    for (size_t t = begin; t < end; t++) {
        for (size_t h = 0; h < c->heads; h++) {
            size_t from = t * c->heads + h, pos = s->pos + t, at = cache_scale_at(c, h, pos);
            unsigned char *tile = cache_keys(c, h, pos / CACHE_TILE);
            store_row(s, row, c->k_scales, at, s->k + from * c->key_dim, c->key_dim);
            transpose(tile + pos % CACHE_TILE * dtype_bytes(c->dtype), row, c->key_dim, c->dtype);
            store_row(s, cache_values(c, h, pos), c->v_scales, at, s->v + from * c->value_dim,
                      c->value_dim);
        }
    }
}

void cache_store(const struct backend *b, const struct cache *c, const float *k, const float *v,
                 size_t n, size_t pos) {
    struct store s = {b, c, k, v, pos};
    backend_split(b, n, 2 * c->heads * (c->key_dim + c->value_dim), store_tokens, &s);
}

size_t cache_scratch(size_t key_dim) {
    return key_dim;
}
