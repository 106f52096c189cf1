/* The cache of a layer: where keys and values of every type lie, and how bytes are rounded. */
#include "filled.h"
#include "model/kv.h"
#include "num/half.h"

static const enum dtype types[] = {DTYPE_F32, DTYPE_F16, DTYPE_I8};

/* An exact value as a cache of that type keeps it. */
static void encode(unsigned char *p, enum dtype dtype, float x) {
    if (dtype == DTYPE_F32) memcpy(p, &x, sizeof x);
    if (dtype == DTYPE_F16) half_store_u16(p, half_to_f16(x));
    if (dtype == DTYPE_I8) *p = (unsigned char)(int8_t)(32 * x);
}

/* What cache.h says must be in the planes after positions from..to - 1 were stored. */
static void expect_planes(const struct filled *c, unsigned char *k, unsigned char *v, float *scales,
                          size_t from, size_t to) {
    const struct cache *l = &c->layer;
    size_t size = dtype_bytes(l->dtype), tiles = (l->context + CACHE_TILE - 1) / CACHE_TILE;
    for (size_t i = from * l->heads; i < to * l->heads; i++) {
        size_t pos = i / l->heads, head = i % l->heads;
        for (size_t d = 0; d < l->key_dim; d++) {
            size_t row = (head * tiles + pos / CACHE_TILE) * l->key_dim + d;
            encode(k + (row * CACHE_TILE + pos % CACHE_TILE) * size, l->dtype,
                   c->k[i * l->key_dim + d]);
        }
        for (size_t d = 0; d < l->value_dim; d++) {
            encode(v + ((head * l->context + pos) * l->value_dim + d) * size, l->dtype,
                   c->v[i * l->value_dim + d]);
        }
        if (scales) scales[head * tiles * CACHE_TILE + pos] = 1.f / 32;
    }
}

static void check_store(enum dtype dtype, size_t key_dim, size_t value_dim, int threads) {
    enum { POS = 60, N = 70 }; /* into a third tile */
    struct cache layer = {.dtype = dtype, .heads = 2, .key_dim = key_dim, .value_dim = value_dim};
    struct filled c = filled_make(layer, POS + N);
    struct fixture_backend f;
    size_t scale_bytes = c.scales * sizeof(float);
    unsigned char *k = filled_nans(c.k_bytes), *v = filled_nans(c.v_bytes);
    float *scales = c.scales ? filled_nans(scale_bytes) : NULL;
    expect_planes(&c, k, v, scales, POS, POS + N);
    fixture_open(&f, threads, NULL, cache_scratch(key_dim));
    cache_store(&f.b, &c.layer, c.k + POS * 2 * key_dim, c.v + POS * 2 * value_dim, N, POS);
    CHECK_MSG(!memcmp(k, c.layer.k, c.k_bytes) && !memcmp(v, c.layer.v, c.v_bytes),
              "%s, %zu and %zu: other elements", kv_type_name(dtype), key_dim, value_dim);
    CHECK(!scales || (!memcmp(scales, c.layer.k_scales, scale_bytes) &&
                      !memcmp(scales, c.layer.v_scales, scale_bytes)));
    fixture_close(&f);
    free(k);
    free(v);
    free(scales);
    filled_drop(&c);
}

static void test_store(void) {
    static const size_t dims[][2] = {{33, 33}, {24, 24}, {192, 128}, {16, 40}, {7, 2}};
    for (int t = 0; t < 3; t++) {
        for (int i = 0; i < 5; i++) check_store(types[t], dims[i][0], dims[i][1], 1 + i % 2);
    }
}

/* A whole number of tiles takes what its positions take, up to the alignment of four planes. */
static void test_sizes(void) {
    for (int t = 0; t < 3; t++) {
        struct cache c = {.dtype = types[t],
                          .heads = 3,
                          .context = 5 * CACHE_TILE,
                          .key_dim = 24,
                          .value_dim = 10};
        struct arena count = {0};
        size_t each = cache_position_bytes(types[t], 3, 24, 10);
        cache_layout(&c, &count);
        CHECK(each == 3 * (34 * dtype_bytes(types[t]) + (t == 2 ? 2 * sizeof(float) : 0)));
        CHECK_MSG(count.used >= c.context * each && count.used < c.context * each + 4 * 64,
                  "%s: %zu bytes for %zu of %zu", kv_type_name(types[t]), count.used, c.context,
                  each);
    }
}

/* Any row is within half a step of what was given; one that is not finite stays so. */
static void test_bytes(void) {
    enum { DIM = 40 };
    struct cache layer = {.dtype = DTYPE_I8, .heads = 1, .key_dim = 16, .value_dim = DIM};
    for (int i = 0; i < 60; i++) {
        struct filled c = filled_make(layer, 1);
        struct fixture_backend f;
        float largest = 0;
        for (int d = 0; d < DIM; d++) {
            c.v[d] = ldexpf((float)((int)fixture_below(20001) - 10000), i - 40);
            if (i == 50) c.v[d] = 0;
            largest = fmaxf(largest, fabsf(c.v[d]));
        }
        if (i > 56) c.v[i - 30] = i == 57 ? NAN : i == 58 ? INFINITY : -INFINITY;
        fixture_open(&f, 1, NULL, cache_scratch(16));
        cache_store(&f.b, &c.layer, c.k, c.v, 1, 0);
        float scale = c.layer.v_scales[0];
        CHECK_MSG(i > 56 ? !isfinite(scale) : scale == largest / 127, "row %d: scale %g", i, scale);
        for (int d = 0; d < DIM && i <= 56; d++) {
            float got = scale * (float)(int8_t)c.layer.v[d];
            CHECK_MSG(fabsf(got - c.v[d]) <= 0.501f * scale, "row %d: %g is %g", i, c.v[d], got);
        }
        fixture_close(&f);
        filled_drop(&c);
    }
}

int main(void) {
    check_run("store", test_store);
    check_run("sizes", test_sizes);
    check_run("bytes", test_bytes);
    return check_done();
}
