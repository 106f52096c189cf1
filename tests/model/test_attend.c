/* Attention against the formula in double: grouped queries, windows, every type of cache. */
#include "fixture.h"
#include "model/kv.h"
#include "num/half.h"
#include "ops/attend.h"

enum { MOST_THREADS = 4 };

struct setup {
    size_t heads, kv_heads, head_dim, window, n, pos; /* n tokens after pos others */
    float scale;
};

/* A cache of which nothing but what cache_store wrote is a number, and what should be in it. */
struct filled {
    struct cache layer;
    float *k, *v; /* [pos + n, kv_heads, head_dim] as they were given to cache_store */
    size_t k_bytes, v_bytes, scales;
};

/* A multiple of 1/32 below 4: exact in f16, and in bytes too if a row's largest is 127/32. */
static float exact_value(void) {
    return (float)((int)fixture_below(255) - 127) / 32;
}

static float *exact_rows(size_t rows, size_t dim) {
    float *x = malloc(rows * dim * sizeof *x);
    for (size_t i = 0; i < rows * dim; i++) x[i] = exact_value();
    for (size_t r = 0; r < rows; r++)
        x[r * dim + fixture_below(dim)] = r % 2 ? 127.f / 32 : -127.f / 32;
    return x;
}

static void *nan_plane(size_t bytes) {
    void *p = malloc(bytes ? bytes : 1);
    memset(p, 0xff, bytes); /* NaN in f16 and f32 */
    return p;
}

static struct filled make_cache(const struct setup *s, enum dtype dtype) {
    size_t total = s->pos + s->n, context = total + 3, row = s->kv_heads * s->head_dim;
    size_t padded = (context + CACHE_TILE - 1) / CACHE_TILE * CACHE_TILE;
    struct filled c = {
        .layer = {
            .dtype = dtype, .heads = s->kv_heads, .context = context, .head_dim = s->head_dim}};
    c.k_bytes = row * padded * dtype_bytes(dtype);
    c.v_bytes = row * context * dtype_bytes(dtype);
    c.scales = dtype == DTYPE_I8 ? s->kv_heads * padded : 0;
    c.layer.k = nan_plane(c.k_bytes);
    c.layer.v = nan_plane(c.v_bytes);
    if (c.scales) c.layer.k_scales = nan_plane(c.scales * sizeof(float));
    if (c.scales) c.layer.v_scales = nan_plane(c.scales * sizeof(float));
    c.k = exact_rows(total * s->kv_heads, s->head_dim);
    c.v = exact_rows(total * s->kv_heads, s->head_dim);
    return c;
}

/* Stores positions from..to - 1, some at a time. */
static void fill(const struct backend *b, const struct filled *c, size_t from, size_t to) {
    size_t row = c->layer.heads * c->layer.head_dim;
    for (size_t n; from < to; from += n) {
        n = to - from < 5 ? to - from : 5;
        cache_store(b, &c->layer, c->k + from * row, c->v + from * row, n, from);
    }
}

static void drop(struct filled *c) {
    free(c->layer.k);
    free(c->layer.v);
    free(c->layer.k_scales);
    free(c->layer.v_scales);
    free(c->k);
    free(c->v);
}

/* The formula of attend.h for one query; out [head_dim]. */
static void attend_plainly(const struct setup *s, const struct filled *c, const float *q, size_t t,
                           size_t head, double *out) {
    size_t last = s->pos + t, dim = s->head_dim, kv = head / (s->heads / s->kv_heads);
    size_t first = s->window == 0 || last + 1 < s->window ? 0 : last + 1 - s->window;
    double *score = malloc((last + 1) * sizeof *score), most = -INFINITY, sum = 0;
    for (size_t j = first; j <= last; j++) {
        const float *k = c->k + (j * s->kv_heads + kv) * dim;
        score[j] = 0;
        for (size_t i = 0; i < dim; i++) score[j] += (double)q[i] * k[i];
        score[j] *= s->scale;
        most = fmax(most, score[j]);
    }
    for (size_t i = 0; i < dim; i++) out[i] = 0;
    for (size_t j = first; j <= last; j++) {
        double weight = exp(score[j] - most);
        sum += weight;
        for (size_t i = 0; i < dim; i++) {
            out[i] += weight * c->v[(j * s->kv_heads + kv) * dim + i];
        }
    }
    for (size_t i = 0; i < dim; i++) out[i] /= sum;
    free(score);
}

/* Scores are rounded to f32, and so weights err by as much as the scores are large. */
static double bound_of(const struct setup *s) {
    double largest_score = s->scale * 4 * 4 * (double)s->head_dim;
    return 4 * (2e-6 + largest_score * 0x1p-22);
}

/* In batches of 1, 3 and what remains; token by token; 37 at a time: the bits are those of out. */
static void check_cuts(const struct setup *s, const struct backend *b, const struct attention *a,
                       const struct cache *kv, const float *q, const float *out) {
    size_t row = s->heads * s->head_dim;
    for (int kind = 0; kind < 3; kind++) {
        float *cut = fixture_nans(s->n * row);
        for (size_t t = 0, n; t < s->n; t += n) {
            n = kind == 1 || t == 0 ? 1 : kind == 2 ? 37 : t == 1 ? 3 : s->n;
            n = n < s->n - t ? n : s->n - t;
            attend(b, a, kv, cut + t * row, q + t * row, n, s->pos + t);
        }
        CHECK_MSG(fixture_same(out, cut, s->n * row) && isnan(cut[s->n * row]),
                  "%zu/%zu heads of %zu, window %zu, %zu after %zu, %s: cut %d, other bits",
                  s->heads, s->kv_heads, s->head_dim, s->window, s->n, s->pos, b->level, kind);
        free(cut);
    }
}

static void check_setup(const struct setup *s, const char *level, enum dtype dtype) {
    size_t row = s->heads * s->head_dim, wrong = 0;
    struct filled c = make_cache(s, dtype);
    float *q = malloc(s->n * row * sizeof *q), *first = NULL;
    for (size_t i = 0; i < s->n * row; i++) q[i] = exact_value();
    double want[256], bound = bound_of(s);
    for (int threads = 1; threads <= MOST_THREADS; threads *= 2) {
        struct fixture_backend f;
        size_t parts = attend_parts(s->heads, s->head_dim, c.layer.context);
        struct attention a = {.heads = s->heads, .window = s->window, .scale = s->scale};
        a.parts = fixture_nans(parts);
        fixture_open(&f, threads, level, attend_scratch(s->head_dim));
        fill(&f.b, &c, 0, s->pos + s->n);
        float *out = fixture_nans(s->n * row);
        attend(&f.b, &a, &c.layer, out, q, s->n, s->pos);
        check_cuts(s, &f.b, &a, &c.layer, q, out);
        for (size_t i = 0; i < s->n * s->heads; i++) {
            attend_plainly(s, &c, q + i * s->head_dim, i / s->heads, i % s->heads, want);
            for (size_t d = 0; d < s->head_dim; d++) {
                wrong += !(fabs(out[i * s->head_dim + d] - want[d]) <= bound);
            }
        }
        CHECK_MSG(!wrong && isnan(out[s->n * row]),
                  "%zu/%zu heads of %zu, window %zu, %zu after %zu, %s, %s: %zu wrong", s->heads,
                  s->kv_heads, s->head_dim, s->window, s->n, s->pos, level, kv_type_name(dtype),
                  wrong);
        CHECK_MSG(!first || fixture_same(out, first, s->n * row), "%d threads: other bits",
                  threads);
        if (!first) first = out;
        if (out != first) free(out);
        CHECK_MSG(isnan(a.parts[parts]), "%s: written beyond the parts", level);
        free(a.parts);
        fixture_close(&f);
    }
    free(first);
    free(q);
    drop(&c);
}

/* Bytes at the best level only: what is special to them is not special to a level. */
static void check_everywhere(const struct setup *s) {
    const char *name, *best = NULL;
    for (int level = 0; (name = fixture_next_level(&level)) != NULL; best = name) {
        check_setup(s, name, DTYPE_F32);
        check_setup(s, name, DTYPE_F16);
    }
    check_setup(s, best, DTYPE_I8);
}

static void test_groups(void) {
    static const size_t heads[][2] = {{1, 1}, {4, 4}, {4, 2}, {6, 2}, {6, 3}, {8, 1}, {12, 4}};
    static const size_t dims[] = {2, 16, 24, 33, 64, 128};
    for (int h = 0; h < 7; h++) {
        for (int d = 0; d < 6; d++) {
            struct setup s = {heads[h][0], heads[h][1], dims[d], 0, 7, 11, 0};
            s.scale = 1 / sqrtf((float)s.head_dim);
            check_everywhere(&s);
        }
    }
}

static void test_windows(void) {
    static const size_t windows[] = {0, 1, 2, 7, 8, 9, 17, 18, 19, 1000};
    static const size_t at[][2] = {{1, 0}, {18, 0}, {8, 10}, {1, 17}, {1, 300}, {64, 70}};
    for (int w = 0; w < 10; w++) {
        for (int i = 0; i < 6; i++) {
            struct setup s = {4, 2, 16, windows[w], at[i][0], at[i][1], 0.25f};
            check_everywhere(&s);
        }
    }
}

/* More query heads for a key/value head than share a tile: whole blocks of them and a rest. */
static void test_many_heads(void) {
    static const size_t heads[][2] = {{33, 1}, {40, 1}, {64, 1}, {71, 1},
                                      {80, 2}, {31, 1}, {34, 2}};
    for (int h = 0; h < 7; h++) {
        for (size_t n = 1; n <= 7; n += 3) {
            struct setup s = {heads[h][0], heads[h][1], 24, 0, n, 40, 0.2f};
            check_everywhere(&s);
            s.pos = 510; /* into the second chunk */
            s.window = h % 2 ? 100 : 0;
            check_everywhere(&s);
        }
    }
}

/* Several chunks, of 512 positions; windows that begin in a chunk, at its edge and in a tile. */
static void test_long_contexts(void) {
    static const size_t windows[] = {0, 1, 63, 64, 65, 476, 511, 512, 513, 700, 1024, 1500};
    static const size_t at[][2] = {{1, 1499}, {45, 1500}, {2, 511}, {1, 511}, {1, 512}, {40, 1000}};
    for (int w = 0; w < 12; w++) {
        for (int i = w % 3; i < 6; i += 3) { /* each window at two of the places */
            struct setup s = {4, 1 + (size_t)w % 2, 16, windows[w], at[i][0], at[i][1], 0.25f};
            check_everywhere(&s);
        }
    }
}

static void test_prompts(void) {
    struct setup s = {2, 1, 8, 0, 150, 450, 0.35f}; /* over the edge of a chunk */
    check_everywhere(&s);
    s.window = 90;
    check_everywhere(&s);
}

/* A token whose key or value is not finite spoils those that see it and no other; also where it
 * begins a chunk, and is all that a query sees of it. */
static void check_spoilt(const char *level, size_t window, size_t odd, float spoil, bool key) {
    enum { DIM = 16 };
    size_t n = odd + 80, wrong = 0, missing = 0;
    struct setup s = {2, 1, DIM, window, n, 0, 0.25f};
    struct filled c = make_cache(&s, DTYPE_F32);
    struct fixture_backend f;
    struct attention a = {.heads = 2, .window = window, .scale = 0.25f};
    float *q = fixture_values(n * 2 * DIM, 1), *out = fixture_nans(n * 2 * DIM);
    a.parts = fixture_nans(attend_parts(2, DIM, c.layer.context));
    (key ? c.k : c.v)[odd * DIM + 3] = spoil;
    fixture_open(&f, 2, level, attend_scratch(DIM));
    fill(&f.b, &c, 0, n);
    attend(&f.b, &a, &c.layer, out, q, n, 0);
    for (size_t t = 0; t < n; t++) {
        bool sees = t >= odd && (!window || t < odd + window);
        for (size_t i = 0; i < 2 * DIM && !sees; i++) wrong += !isfinite(out[t * 2 * DIM + i]);
        missing += sees && isnan(spoil) && !isnan(out[t * 2 * DIM + 3]);
    }
    CHECK_MSG(!missing, "%s, window %zu: %zu tokens that see a NaN at %zu in a %s are without it",
              level, window, missing, odd, key ? "key" : "value");
    CHECK_MSG(!wrong, "%s, window %zu: %g in a %s spoils %zu numbers of tokens that do not see it",
              level, window, spoil, key ? "key" : "value", wrong);
    fixture_close(&f);
    free(a.parts);
    free(q);
    free(out);
    drop(&c);
}

static void test_tokens_are_apart(void) {
    const char *name;
    for (int level = 0; (name = fixture_next_level(&level)) != NULL;) {
        for (int i = 0; i < 4; i++) {
            check_spoilt(name, 0, 70, i % 2 ? NAN : INFINITY, i / 2);
            check_spoilt(name, 20, 70, i % 2 ? NAN : INFINITY, i / 2);
            check_spoilt(name, 0, 512, i % 2 ? NAN : INFINITY, i / 2);
        }
    }
}

/* Scores of thousands: exp must be taken of their differences. */
static void test_large_scores(void) {
    struct setup s = {4, 2, 64, 0, 9, 20, 40};
    check_everywhere(&s);
    s.scale = 0; /* all equally: the mean */
    check_everywhere(&s);
}

/* What the window has passed, and what lies beyond the token, is not looked at. */
static void test_only_the_window_is_read(void) {
    struct setup s = {2, 1, 16, 5, 1, 30, 0.25f};
    const char *name;
    for (int level = 0; (name = fixture_next_level(&level)) != NULL;) {
        struct filled c = make_cache(&s, DTYPE_F32);
        struct fixture_backend f;
        struct attention a = {.heads = 2, .window = 5, .scale = 0.25f};
        float q[32], out[32];
        a.parts = fixture_nans(attend_parts(2, 16, c.layer.context));
        for (int i = 0; i < 32; i++) q[i] = exact_value();
        fixture_open(&f, 1, name, attend_scratch(16));
        fill(&f.b, &c, 26, 31); /* all else is NaN */
        attend(&f.b, &a, &c.layer, out, q, 1, 30);
        for (int i = 0; i < 32; i++) CHECK(isfinite(out[i]));
        free(a.parts);
        fixture_close(&f);
        drop(&c);
    }
}

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
    for (size_t pos = from; pos < to; pos++) {
        for (size_t i = 0; i < l->heads * l->head_dim; i++) {
            size_t head = i / l->head_dim, d = i % l->head_dim,
                   at = pos * l->heads * l->head_dim + i;
            size_t row = (head * tiles + pos / CACHE_TILE) * l->head_dim + d;
            encode(k + (row * CACHE_TILE + pos % CACHE_TILE) * size, l->dtype, c->k[at]);
            encode(v + ((head * l->context + pos) * l->head_dim + d) * size, l->dtype, c->v[at]);
            if (scales) scales[head * tiles * CACHE_TILE + pos] = 1.f / 32;
        }
    }
}

static void test_store(void) {
    static const enum dtype types[] = {DTYPE_F32, DTYPE_F16, DTYPE_I8};
    for (int i = 0; i < 6; i++) {
        struct setup s = {2, 2, i % 2 ? 24 : 33, 0, 70, 60, 1}; /* into a third tile */
        struct fixture_backend f;
        struct filled c = make_cache(&s, types[i / 2]);
        unsigned char *k = nan_plane(c.k_bytes), *v = nan_plane(c.v_bytes);
        float *scales = c.scales ? nan_plane(c.scales * sizeof *scales) : NULL;
        size_t scale_bytes = c.scales * sizeof *scales, row = 2 * s.head_dim;
        expect_planes(&c, k, v, scales, s.pos, s.pos + s.n);
        fixture_open(&f, 1 + i % 2, NULL, cache_scratch(s.head_dim));
        cache_store(&f.b, &c.layer, c.k + s.pos * row, c.v + s.pos * row, s.n, s.pos);
        CHECK_MSG(!memcmp(k, c.layer.k, c.k_bytes) && !memcmp(v, c.layer.v, c.v_bytes),
                  "%s: other elements", kv_type_name(types[i / 2]));
        CHECK(!scales || (!memcmp(scales, c.layer.k_scales, scale_bytes) &&
                          !memcmp(scales, c.layer.v_scales, scale_bytes)));
        fixture_close(&f);
        free(k);
        free(v);
        free(scales);
        drop(&c);
    }
}

/* Any row is within half a step of what was given; one that is not finite stays so. */
static void test_bytes(void) {
    enum { DIM = 40 };
    struct setup s = {1, 1, DIM, 0, 1, 0, 1};
    for (int i = 0; i < 60; i++) {
        struct filled c = make_cache(&s, DTYPE_I8);
        struct fixture_backend f;
        float largest = 0;
        for (int d = 0; d < DIM; d++) {
            c.v[d] = ldexpf((float)((int)fixture_below(20001) - 10000), i - 40);
            if (i == 50) c.v[d] = 0;
            largest = fmaxf(largest, fabsf(c.v[d]));
        }
        if (i > 56) c.v[i - 30] = i == 57 ? NAN : i == 58 ? INFINITY : -INFINITY;
        fixture_open(&f, 1, NULL, cache_scratch(DIM));
        cache_store(&f.b, &c.layer, c.k, c.v, 1, 0);
        float scale = c.layer.v_scales[0];
        CHECK_MSG(i > 56 ? !isfinite(scale) : scale == largest / 127, "row %d: scale %g", i, scale);
        for (int d = 0; d < DIM && i <= 56; d++) {
            float got = scale * (float)(int8_t)c.layer.v[d];
            CHECK_MSG(fabsf(got - c.v[d]) <= 0.501f * scale, "row %d: %g is %g", i, c.v[d], got);
        }
        fixture_close(&f);
        drop(&c);
    }
}

int main(void) {
    check_run("groups", test_groups);
    check_run("windows", test_windows);
    check_run("many heads", test_many_heads);
    check_run("long contexts", test_long_contexts);
    check_run("prompts", test_prompts);
    check_run("tokens are apart", test_tokens_are_apart);
    check_run("large scores", test_large_scores);
    check_run("only the window is read", test_only_the_window_is_read);
    check_run("store", test_store);
    check_run("bytes", test_bytes);
    return check_done();
}
