/* Attention against the formula in double: grouped queries, windows, both types of cache. */
#include "fixture.h"
#include "ops/attend.h"

enum { MOST_THREADS = 4 };

struct setup {
    size_t heads, kv_heads, head_dim, window, n, pos; /* n tokens after pos others */
    float scale;
};

/* A cache of which nothing but what attend_store wrote is a number, and what should be in it. */
struct cache {
    struct kv_layer layer;
    float *k, *v; /* [pos + n, kv_heads, head_dim] as they were given to attend_store */
    size_t bytes;
};

/* A multiple of 1/256 below 4: exact in f16, so that both caches hold the same. */
static float exact_value(void) {
    return (float)((int)fixture_below(2047) - 1023) / 256;
}

static unsigned char *nan_plane(size_t bytes) {
    unsigned char *p = malloc(bytes);
    memset(p, 0xff, bytes); /* NaN in both types */
    return p;
}

static struct cache make_cache(const struct setup *s, enum dtype dtype) {
    size_t total = s->pos + s->n, context = total + 3, row = s->kv_heads * s->head_dim;
    struct cache c = {
        .layer = {
            .dtype = dtype, .heads = s->kv_heads, .context = context, .head_dim = s->head_dim}};
    c.bytes = row * context * dtype_bytes(dtype);
    c.layer.k = nan_plane(c.bytes);
    c.layer.v = nan_plane(c.bytes);
    c.k = malloc(total * row * sizeof *c.k);
    c.v = malloc(total * row * sizeof *c.v);
    for (size_t i = 0; i < total * row; i++) {
        c.k[i] = exact_value();
        c.v[i] = exact_value();
    }
    return c;
}

/* Stores positions from..to - 1, some at a time. */
static void fill(const struct backend *b, const struct cache *c, size_t from, size_t to) {
    size_t row = c->layer.heads * c->layer.head_dim;
    for (size_t n; from < to; from += n) {
        n = to - from < 5 ? to - from : 5;
        attend_store(b, &c->layer, c->k + from * row, c->v + from * row, n, from);
    }
}

static void drop(struct cache *c) {
    free(c->layer.k);
    free(c->layer.v);
    free(c->k);
    free(c->v);
}

/* The formula of attend.h for one query; out [head_dim]. */
static void attend_plainly(const struct setup *s, const struct cache *c, const float *q, size_t t,
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
                       const struct kv_layer *kv, const float *q, const float *out) {
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
    struct cache c = make_cache(s, dtype);
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
                  s->kv_heads, s->head_dim, s->window, s->n, s->pos, level, dtype_name(dtype),
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

static void check_everywhere(const struct setup *s) {
    const char *name;
    for (int level = 0; (name = fixture_next_level(&level)) != NULL;) {
        check_setup(s, name, DTYPE_F32);
        check_setup(s, name, DTYPE_F16);
    }
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

/* A token whose key or value is not finite spoils those that see it and no other. */
static void check_spoilt(const char *level, size_t window, float spoil, bool key) {
    enum { N = 150, ODD = 70, DIM = 16 };
    struct setup s = {2, 1, DIM, window, N, 0, 0.25f};
    struct cache c = make_cache(&s, DTYPE_F32);
    struct fixture_backend f;
    struct attention a = {.heads = 2, .window = window, .scale = 0.25f};
    float *q = fixture_values(N * 2 * DIM, 1), *out = fixture_nans(N * 2 * DIM);
    size_t wrong = 0;
    a.parts = fixture_nans(attend_parts(2, DIM, c.layer.context));
    (key ? c.k : c.v)[ODD * DIM + 3] = spoil;
    fixture_open(&f, 2, level, attend_scratch(DIM));
    fill(&f.b, &c, 0, N);
    attend(&f.b, &a, &c.layer, out, q, N, 0);
    for (size_t t = 0; t < N; t++) {
        bool sees = t >= ODD && (!window || t < ODD + window);
        for (size_t i = 0; i < 2 * DIM && !sees; i++) wrong += !isfinite(out[t * 2 * DIM + i]);
    }
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
            check_spoilt(name, 0, i % 2 ? NAN : INFINITY, i / 2);
            check_spoilt(name, 20, i % 2 ? NAN : INFINITY, i / 2);
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
        struct cache c = make_cache(&s, DTYPE_F32);
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

/* A number of the cache; f16 is taken apart here, exact values are never denormal. */
static float value_at(const unsigned char *p, enum dtype dtype) {
    float f;
    if (dtype == DTYPE_F32) {
        memcpy(&f, p, sizeof f);
        return f;
    }
    unsigned bits = p[0] | (unsigned)p[1] << 8, magnitude = bits & 0x7fff;
    if (magnitude > 0x7c00) return NAN;
    double value = ldexp(1 + (magnitude & 1023) / 1024.0, (int)(magnitude >> 10) - 15);
    f = magnitude ? (float)value : 0;
    return bits >> 15 ? -f : f;
}

/* attend_store writes [kv_heads, context, head_dim] and nothing else. */
static void test_store(void) {
    enum { KV_HEADS = 2, DIM = 24, FROM = 6, N = 4 };
    struct setup s = {KV_HEADS, KV_HEADS, DIM, 0, N, FROM, 1};
    struct fixture_backend f;
    fixture_open(&f, 1, NULL, 1);
    for (int half = 0; half < 2; half++) {
        struct cache c = make_cache(&s, half ? DTYPE_F16 : DTYPE_F32);
        size_t row = KV_HEADS * DIM, size = dtype_bytes(c.layer.dtype), wrong = 0;
        attend_store(&f.b, &c.layer, c.k + FROM * row, c.v + FROM * row, N, FROM);
        for (size_t i = 0; i < c.bytes / size; i++) {
            size_t head = i / DIM / c.layer.context, pos = i / DIM % c.layer.context;
            size_t from = pos * row + head * DIM + i % DIM;
            float k = value_at(c.layer.k + i * size, c.layer.dtype);
            float v = value_at(c.layer.v + i * size, c.layer.dtype);
            bool stored = pos >= FROM && pos < FROM + N;
            wrong += stored ? k != c.k[from] || v != c.v[from] : !isnan(k) || !isnan(v);
        }
        CHECK_MSG(!wrong, "%s: %zu wrong", dtype_name(c.layer.dtype), wrong);
        drop(&c);
    }
    fixture_close(&f);
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
    return check_done();
}
