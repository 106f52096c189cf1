/* Attention against the formula in double: grouped queries, windows, softcaps, sinks, every type of
 * cache. */
#include "base/denormals.h"
#include "filled.h"
#include "model/kv.h"
#include "ops/attend.h"

enum { MOST_THREADS = 4, GUARD = 64 };

struct setup {
    size_t heads, kv_heads, key_dim, value_dim, window, n, pos; /* n tokens after pos others */
    size_t chunk;
    float scale, softcap;
    float most_sink; /* of the heads, from minus to plus this; 0: no sinks */
};

/* Without what few models have. */
static struct setup common(size_t heads, size_t kv_heads, size_t dim, size_t window, size_t n,
                           size_t pos, float scale) {
    return (struct setup){.heads = heads,
                          .kv_heads = kv_heads,
                          .key_dim = dim,
                          .value_dim = dim,
                          .window = window,
                          .n = n,
                          .pos = pos,
                          .scale = scale};
}

static struct filled make_cache(const struct setup *s, enum dtype dtype) {
    return filled_make(
        (struct cache){
            .dtype = dtype, .heads = s->kv_heads, .key_dim = s->key_dim, .value_dim = s->value_dim},
        s->pos + s->n);
}

/* The sinks are the caller's to free. */
static struct attention attention_of(const struct setup *s, float *sinks) {
    size_t parts = attend_parts(s->heads, s->value_dim, s->pos + s->n + 3);
    return (struct attention){.heads = s->heads,
                              .window = s->window,
                              .chunk = s->chunk,
                              .scale = s->scale,
                              .softcap = s->softcap,
                              .sinks = s->most_sink != 0 ? sinks : NULL,
                              .parts = fixture_nans(parts)};
}

/* The formula of attend.h for one query; out [value_dim]. */
static void attend_plainly(const struct setup *s, const struct filled *c, const float *sinks,
                           const float *q, size_t t, size_t head, double *out) {
    size_t last = s->pos + t, dim = s->key_dim, kv = head / (s->heads / s->kv_heads);
    size_t first = s->window == 0 || last + 1 < s->window ? 0 : last + 1 - s->window;
    if (s->chunk && first < last / s->chunk * s->chunk) first = last / s->chunk * s->chunk;
    double *score = malloc((last + 1) * sizeof *score), most = -INFINITY, sum = 0;
    if (sinks) most = sinks[head];
    for (size_t j = first; j <= last; j++) {
        const float *k = c->k + (j * s->kv_heads + kv) * dim;
        score[j] = 0;
        for (size_t i = 0; i < dim; i++) score[j] += (double)q[i] * k[i];
        score[j] *= s->scale;
        if (s->softcap != 0) score[j] = s->softcap * tanh(score[j] / s->softcap);
        most = fmax(most, score[j]);
    }
    dim = s->value_dim;
    for (size_t i = 0; i < dim; i++) out[i] = 0;
    if (sinks) sum = exp(sinks[head] - most);
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
    double largest_score = s->scale * 4 * 4 * (double)s->key_dim;
    return 4 * (2e-6 + (largest_score + s->softcap) * 0x1p-22);
}

static void print_setup(const struct setup *s, const char *level, enum dtype dtype) {
    printf("%zu/%zu heads of %zu and %zu, window %zu, softcap %g, sinks %g, %zu after %zu, %s, "
           "%s:\n",
           s->heads, s->kv_heads, s->key_dim, s->value_dim, s->window, s->softcap, s->most_sink,
           s->n, s->pos, level, kv_type_name(dtype));
}

/* In batches of 1, 3 and what remains; token by token; 37 at a time; where the queries lie, if they
 * are as long: the bits are those of out. */
static bool same_in_cuts(const struct setup *s, const struct backend *b, const struct attention *a,
                         const struct cache *kv, const float *q, const float *out) {
    size_t row = s->heads * s->value_dim, q_row = s->heads * s->key_dim;
    bool same = true;
    for (int kind = 0; kind < (row == q_row ? 4 : 3); kind++) {
        float *cut = fixture_nans(s->n * row);
        if (kind == 3) memcpy(cut, q, s->n * row * sizeof *q);
        for (size_t t = 0, n; t < s->n; t += n) {
            n = kind == 1 || t == 0 ? 1 : kind == 2 ? 37 : t == 1 ? 3 : s->n;
            n = n < s->n - t ? n : s->n - t;
            attend(b, a, kv, cut + t * row, (kind == 3 ? cut : q) + t * q_row, n, s->pos + t);
        }
        same = same && fixture_same(out, cut, s->n * row) && isnan(cut[s->n * row]);
        free(cut);
    }
    return same;
}

static size_t wrong_outputs(const struct setup *s, const struct filled *c, const float *sinks,
                            const float *q, const float *out) {
    size_t wrong = 0;
    double want[256], bound = bound_of(s);
    for (size_t i = 0; i < s->n * s->heads; i++) {
        attend_plainly(s, c, sinks, q + i * s->key_dim, i / s->heads, i % s->heads, want);
        for (size_t d = 0; d < s->value_dim; d++) {
            wrong += !(fabs(out[i * s->value_dim + d] - want[d]) <= bound);
        }
    }
    return wrong;
}

/* What lies behind each thread's scratch is filled with a number, and must be it still. */
static size_t guards_lost(const struct backend *b, size_t floats, bool fill) {
    size_t lost = 0;
    for (int t = 0; t < pool_threads(b->pool); t++) {
        float *guard = backend_scratch(b, t) + floats;
        for (size_t i = 0; i < GUARD; i++) {
            if (fill) guard[i] = 12345;
            lost += guard[i] != 12345;
        }
    }
    return lost;
}

/* One backend: returns the outputs [n, heads, value_dim]. Those of one thread are compared with the
 * formula, those of more threads are the caller's to compare with them. */
static float *check_backend(const struct setup *s, const struct filled *c, float *sinks,
                            const float *q, int threads, const char *level) {
    struct fixture_backend f;
    struct attention a = attention_of(s, sinks);
    size_t row = s->heads * s->value_dim, floats = attend_scratch(s->key_dim, s->value_dim);
    float *out = fixture_nans(s->n * row);
    fixture_open(&f, threads, level, floats + GUARD);
    filled_store(&f.b, c, 0, s->pos + s->n);
    guards_lost(&f.b, floats, true);
    attend(&f.b, &a, &c->layer, out, q, s->n, s->pos);
    bool same = same_in_cuts(s, &f.b, &a, &c->layer, q, out);
    size_t wrong = threads == 1 ? wrong_outputs(s, c, a.sinks, q, out) : 0;
    size_t lost = guards_lost(&f.b, floats, false);
    if (!isnan(out[s->n * row])) lost++;
    if (!isnan(a.parts[attend_parts(s->heads, s->value_dim, c->layer.context)])) lost++;
    if (!same || wrong || lost) print_setup(s, level, c->layer.dtype);
    CHECK_MSG(same, "other bits in cuts");
    CHECK_MSG(!wrong, "%zu numbers are wrong", wrong);
    CHECK_MSG(!lost, "%zu numbers are written where none should be", lost);
    free(a.parts);
    fixture_close(&f);
    return out;
}

static void check_setup(const struct setup *s, const char *level, enum dtype dtype) {
    size_t queries = s->n * s->heads, row = s->heads * s->value_dim;
    struct filled c = make_cache(s, dtype);
    float *q = malloc(queries * s->key_dim * sizeof *q), *first = NULL;
    float *sinks = fixture_values(s->heads, s->most_sink);
    for (size_t i = 0; i < queries * s->key_dim; i++) q[i] = filled_value();
    for (int threads = 1; threads <= MOST_THREADS; threads *= 2) {
        float *out = check_backend(s, &c, sinks, q, threads, level);
        if (!first) first = out;
        if (!fixture_same(out, first, s->n * row)) {
            print_setup(s, level, dtype);
            CHECK_MSG(false, "%d threads: other bits", threads);
        }
        if (out != first) free(out);
    }
    free(first);
    free(sinks);
    free(q);
    filled_drop(&c);
}

#ifdef __SANITIZE_THREAD__
enum { EACH_LEVEL = false }; /* it is slow, and threads part the work alike at every level */
#else
enum { EACH_LEVEL = true };
#endif

/* Bytes at the best level only: what is special to them is not special to a level. */
static void check_everywhere(const struct setup *s) {
    const char *name, *best = NULL;
    for (int level = 0; (name = fixture_next_level(&level)) != NULL; best = name) {
        if (EACH_LEVEL) check_setup(s, name, DTYPE_F32);
        if (EACH_LEVEL) check_setup(s, name, DTYPE_F16);
    }
    if (!EACH_LEVEL) check_setup(s, best, DTYPE_F16);
    check_setup(s, best, DTYPE_I8);
}

static void test_groups(void) {
    static const size_t heads[][2] = {{1, 1}, {4, 4}, {4, 2}, {6, 2}, {6, 3}, {8, 1}, {12, 4}};
    static const size_t dims[] = {2, 16, 24, 33, 64, 128};
    for (int h = 0; h < 7; h++) {
        for (int d = 0; d < 6; d++) {
            struct setup s = common(heads[h][0], heads[h][1], dims[d], 0, 7, 11, 0);
            s.scale = 1 / sqrtf((float)dims[d]);
            check_everywhere(&s);
        }
    }
}

static void test_windows(void) {
    static const size_t windows[] = {0, 1, 2, 7, 8, 9, 17, 18, 19, 1000};
    static const size_t at[][2] = {{1, 0}, {18, 0}, {8, 10}, {1, 17}, {1, 300}, {64, 70}};
    for (int w = 0; w < 10; w++) {
        for (int i = 0; i < 6; i++) {
            struct setup s = common(4, 2, 16, windows[w], at[i][0], at[i][1], 0.25f);
            check_everywhere(&s);
        }
    }
}

/* Alone, and with a window that is shorter or longer. */
static void test_chunks(void) {
    static const size_t chunks[] = {1, 2, 8, 63, 64, 65, 512, 700};
    static const size_t at[][2] = {{1, 0}, {18, 0}, {1, 511}, {1, 512}, {70, 500}, {3, 1023}};
    for (size_t c = 0; c < 8; c++) {
        for (size_t i = c % 2; i < 6; i += 2) {
            struct setup s = common(4, 2, 16, i % 3 * 40, at[i][0], at[i][1], 0.25f);
            s.chunk = chunks[c];
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
            struct setup s = common(heads[h][0], heads[h][1], 24, 0, n, 40, 0.2f);
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
            struct setup s =
                common(4, 1 + (size_t)w % 2, 16, windows[w], at[i][0], at[i][1], 0.25f);
            check_everywhere(&s);
        }
    }
}

static void test_prompts(void) {
    struct setup s = common(2, 1, 8, 0, 150, 450, 0.35f); /* over the edge of a chunk */
    check_everywhere(&s);
    s.window = 90;
    check_everywhere(&s);
}

/* A token whose key or value is not finite spoils those that see it and no other; also where it
 * begins a chunk, and is all that a query sees of it. */
static void check_spoilt(const char *level, size_t window, size_t odd, float spoil, bool key,
                         float softcap) {
    enum { DIM = 16 };
    size_t n = odd + 80, wrong = 0, missing = 0;
    float sinks[] = {1, -1};
    struct setup s = common(2, 1, DIM, window, n, 0, 0.25f);
    struct filled c = make_cache(&s, DTYPE_F32);
    struct fixture_backend f;
    s.softcap = s.most_sink = softcap;
    struct attention a = attention_of(&s, sinks);
    float *q = fixture_values(n * 2 * DIM, 1), *out = fixture_nans(n * 2 * DIM);
    (key ? c.k : c.v)[odd * DIM + 3] = spoil;
    fixture_open(&f, 2, level, attend_scratch(DIM, DIM));
    filled_store(&f.b, &c, 0, n);
    attend(&f.b, &a, &c.layer, out, q, n, 0);
    for (size_t t = 0; t < n; t++) {
        bool sees = t >= odd && (!window || t < odd + window);
        for (size_t i = 0; i < 2 * DIM && !sees; i++) {
            if (!isfinite(out[t * 2 * DIM + i])) wrong++;
        }
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
    filled_drop(&c);
}

static void test_tokens_are_apart(void) {
    const char *name;
    for (int level = 0; (name = fixture_next_level(&level)) != NULL;) {
        for (int i = 0; i < 4; i++) {
            check_spoilt(name, 0, 70, i % 2 ? NAN : INFINITY, i / 2, 0);
            check_spoilt(name, 20, 70, i % 2 ? NAN : INFINITY, i / 2, 0);
            check_spoilt(name, 0, 512, i % 2 ? NAN : INFINITY, i / 2, 0);
            check_spoilt(name, 20, 512, i % 2 ? NAN : INFINITY, i / 2, 2);
        }
    }
}

/* Scores of thousands: exp must be taken of their differences. */
static void test_large_scores(void) {
    struct setup s = common(4, 2, 64, 0, 9, 20, 40);
    check_everywhere(&s);
    s.scale = 0; /* all equally: the mean */
    check_everywhere(&s);
}

/* What the window has passed, and what lies beyond the token, is not looked at. */
static void test_only_the_window_is_read(void) {
    struct setup s = common(2, 1, 16, 5, 1, 30, 0.25f);
    const char *name;
    for (int level = 0; (name = fixture_next_level(&level)) != NULL;) {
        struct filled c = make_cache(&s, DTYPE_F32);
        struct fixture_backend f;
        struct attention a = attention_of(&s, NULL);
        float q[32], out[32];
        for (int i = 0; i < 32; i++) q[i] = filled_value();
        fixture_open(&f, 1, name, attend_scratch(16, 16));
        filled_store(&f.b, &c, 26, 31); /* all else is NaN */
        attend(&f.b, &a, &c.layer, out, q, 1, 30);
        for (int i = 0; i < 32; i++) CHECK(isfinite(out[i]));
        free(a.parts);
        fixture_close(&f);
        filled_drop(&c);
    }
}

/* --- what few models have --------------------------------------------------------------------- */

/* Into the second chunk and the third, as a prompt and as a token; and within the first. */
static void check_places(struct setup s) {
    static const size_t at[][2] = {{7, 11}, {20, 500}, {1, 1100}};
    for (int i = 0; i < 3; i++) {
        s.n = at[i][0];
        s.pos = at[i][1];
        check_everywhere(&s);
    }
}

static void test_softcaps(void) {
    static const float caps[] = {0.5f, 3, 50}, scales[] = {0.05f, 0.2f, 4}; /* to the cap */
    for (int i = 0; i < 9; i++) {
        struct setup s = common(4, 1 + (size_t)i % 2, 24, i % 4 ? 0 : 100, 0, 0, scales[i / 3]);
        s.softcap = caps[i % 3];
        check_places(s);
    }
}

/* Far below the scores, among them, and so far above that nothing is left of the values. */
static void test_sinks(void) {
    static const float most[] = {0.1f, 2, 20, 300};
    static const size_t windows[] = {0, 5, 100};
    for (int i = 0; i < 12; i++) {
        struct setup s = common(i % 6 ? 4 : 33, 1, 16, windows[i % 3], 0, 0, 0.25f);
        s.most_sink = most[i / 3];
        check_places(s);
    }
}

/* A sink of minus infinity is none, one of infinity takes all. */
static void test_sinks_without_end(void) {
    const char *name;
    for (int level = 0; (name = fixture_next_level(&level)) != NULL;) {
        for (size_t n = 1; n <= 9; n += 8) {
            struct setup s = common(2, 2, 16, 0, n, 600, 0.25f);
            float sinks[2] = {-INFINITY, INFINITY};
            struct filled c = make_cache(&s, DTYPE_F32);
            float *q = fixture_values(n * 32, 1), *none, *out;
            none = check_backend(&s, &c, NULL, q, 1, name);
            out = fixture_nans(n * 32);
            struct fixture_backend f;
            s.most_sink = 1;
            struct attention a = attention_of(&s, sinks);
            fixture_open(&f, 2, name, attend_scratch(16, 16));
            attend(&f.b, &a, &c.layer, out, q, n, 600);
            for (size_t i = 0; i < n * 32; i++) {
                CHECK(i / 16 % 2 ? out[i] == 0 : memcmp(&out[i], &none[i], sizeof *out) == 0);
            }
            fixture_close(&f);
            free(a.parts);
            free(none);
            free(out);
            free(q);
            filled_drop(&c);
        }
    }
}

static void test_unequal_dims(void) {
    static const size_t dims[][2] = {{192, 128}, {24, 16}, {16, 40}, {33, 7}, {2, 64}, {128, 192}};
    for (int i = 0; i < 12; i++) {
        struct setup s = common(4, i % 2 ? 4 : 1, dims[i / 2][0], 0, 0, 0, 0);
        s.scale = 1 / sqrtf((float)s.key_dim);
        s.value_dim = dims[i / 2][1];
        check_places(s);
    }
}

static void test_all_at_once(void) {
    struct setup s = common(6, 3, 24, 70, 0, 0, 0.3f);
    s.value_dim = 16;
    s.softcap = 5;
    s.most_sink = 6;
    check_places(s);
    s.window = 0;
    check_places(s);
}

int main(void) {
    denormals_flush(); /* as a forward pass does, and its other threads */
    check_run("groups", test_groups);
    check_run("windows", test_windows);
    check_run("chunks", test_chunks);
    check_run("many heads", test_many_heads);
    check_run("long contexts", test_long_contexts);
    check_run("prompts", test_prompts);
    check_run("tokens are apart", test_tokens_are_apart);
    check_run("large scores", test_large_scores);
    check_run("only the window is read", test_only_the_window_is_read);
    check_run("softcaps", test_softcaps);
    check_run("sinks", test_sinks);
    check_run("sinks without end", test_sinks_without_end);
    check_run("unequal dims", test_unequal_dims);
    check_run("all at once", test_all_at_once);
    return check_done();
}
