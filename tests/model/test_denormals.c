/* Denormal numbers do not slow operations down: each takes at most twice the time over them that it
 * takes over usual ones. The time is the thread's own, the least of some tries of each, taken in
 * turns; and what is slow once is tried again, for the machine may have been. */
#include <time.h>

#include "base/denormals.h"
#include "filled.h"
#include "matrix.h"
#include "model/kv.h"
#include "model/run.h"
#include "ops/attend.h"
#include "ops/gate.h"
#include "ops/norm.h"
#include "tiny.h"

enum { ROWS = 256, COLS = 512, TOKENS = 4, TRIES = 7, ROUNDS = 5 };

static const struct backend *backend;
static const char *level_name;

/* Something that is timed over usual numbers (scale 1) and over tiny ones. */
struct timed {
    struct matrix w;
    float *x, *y, *z;
    struct filled cache;
};

typedef void operation(struct timed *t);

static double seconds_of(operation *run, struct timed *t) {
    struct timespec begin, end;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &begin);
    run(t);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &end);
    return (double)(end.tv_sec - begin.tv_sec) + 1e-9 * (double)(end.tv_nsec - begin.tv_nsec);
}

static void compare(const char *what, operation *run, struct timed *usual, struct timed *tiny) {
    double ratio = INFINITY;
    for (int round = 0; round < ROUNDS && ratio > 2; round++) {
        double least[2] = {INFINITY, INFINITY};
        for (int i = 0; i < TRIES; i++) {
            least[0] = fmin(least[0], seconds_of(run, usual));
            least[1] = fmin(least[1], seconds_of(run, tiny));
        }
        ratio = fmin(ratio, least[1] / least[0]);
    }
    CHECK_MSG(ratio <= 2, "%s, %s: %.1f times as long", what, level_name, ratio);
}

/* --- products --------------------------------------------------------------------------------- */

static void multiply(struct timed *t) {
    linear(backend, &(struct linear){t->y, &t->w.mat, NULL}, 1, (struct input){.x = t->x}, TOKENS);
}

static void fill_tiny(struct matrix *w, enum dtype dtype) {
    unsigned char *data = (unsigned char *)w->mat.plane[0];
    for (size_t i = 0; i < ROWS * COLS; i++) {
        float value = 1e-40f;
        if (dtype == DTYPE_F32) memcpy(data + 4 * i, &value, sizeof value);
        if (dtype == DTYPE_BF16) data[2 * i] = 0x10, data[2 * i + 1] = 0;
        if (dtype == DTYPE_F16) data[2 * i] = 0x55, data[2 * i + 1] = 0;
    }
}

static void check_product(const char *what, struct matrix usual, struct matrix tiny, float scale) {
    struct timed a = {.w = usual}, b = {.w = tiny};
    a.x = fixture_values(TOKENS * COLS, 1);
    b.x = fixture_values(TOKENS * COLS, scale);
    a.y = fixture_nans(TOKENS * ROWS);
    b.y = fixture_nans(TOKENS * ROWS);
    compare(what, multiply, &a, &b);
    free(a.x), free(b.x), free(a.y), free(b.y);
    matrix_drop(&usual);
    matrix_drop(&tiny);
}

static void check_products(void) {
    static const enum dtype types[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};
    for (int i = 0; i < 3; i++) {
        struct matrix tiny = matrix_plain(types[i], ROWS, COLS, 0);
        fill_tiny(&tiny, types[i]);
        check_product("tiny weights", matrix_plain(types[i], ROWS, COLS, 0), tiny, 1);
        check_product("tiny activations", matrix_plain(types[i], ROWS, COLS, 0),
                      matrix_plain(types[i], ROWS, COLS, 0), 1e-39f);
        check_product("tiny products", matrix_plain(types[i], ROWS, COLS, 0),
                      matrix_plain(types[i], ROWS, COLS, 0), 1e-37f);
    }
    for (int bits = 4; bits <= 8; bits += 4) {
        check_product("tiny activations, affine", matrix_affine(bits, 64, DTYPE_F16, ROWS, COLS),
                      matrix_affine(bits, 64, DTYPE_F16, ROWS, COLS), 1e-39f);
        check_product("tiny products, affine", matrix_affine(bits, 64, DTYPE_F16, ROWS, COLS),
                      matrix_affine(bits, 64, DTYPE_F16, ROWS, COLS), 1e-36f);
    }
}

/* --- norms, gates, attention ------------------------------------------------------------------ */

static void normalize(struct timed *t) {
    struct norm norm = {.kind = NORM_RMS, .eps = 1e-5f};
    for (int i = 0; i < 20; i++) norm_tokens(backend, t->y, t->x, &norm, TOKENS, COLS);
}

/* In place, so the input is copied each time; by both alike. */
static void activate(struct timed *t) {
    for (int i = 0; i < 20; i++) {
        memcpy(t->y, t->x, TOKENS * COLS * sizeof *t->y);
        gate_apply(backend, ACTIVATION_SILU, t->y, t->z, TOKENS * COLS);
    }
}

static void check_vectors(const char *what, operation *run, float x_scale, float z_scale) {
    struct timed a = {.x = fixture_values(TOKENS * COLS, 1), .z = fixture_values(TOKENS * COLS, 1)};
    struct timed b = {.x = fixture_values(TOKENS * COLS, x_scale),
                      .z = fixture_values(TOKENS * COLS, z_scale)};
    a.y = fixture_nans(TOKENS * COLS);
    b.y = fixture_nans(TOKENS * COLS);
    compare(what, run, &a, &b);
    free(a.x), free(a.y), free(a.z), free(b.x), free(b.y), free(b.z);
}

enum { DIM = 64, HEADS = 2, CONTEXT = 512 };

static void look_back(struct timed *t) {
    struct attention a = {.heads = HEADS, .scale = 1, .parts = t->z};
    attend(backend, &a, &t->cache.layer, t->y, t->x, TOKENS, CONTEXT - TOKENS);
}

/* scale: of queries; a large one spreads the scores, so that weights of positions vanish. */
static struct timed attention_over(enum dtype dtype, float scale, float values) {
    struct cache layer = {.dtype = dtype, .heads = HEADS, .key_dim = DIM, .value_dim = DIM};
    struct timed t = {.cache = filled_make(layer, CONTEXT)};
    for (size_t i = 0; i < CONTEXT * HEADS * DIM; i++) t.cache.v[i] *= values;
    cache_store(backend, &t.cache.layer, t.cache.k, t.cache.v, CONTEXT, 0);
    t.x = fixture_values(TOKENS * HEADS * DIM, scale);
    t.y = fixture_nans(TOKENS * HEADS * DIM);
    t.z = fixture_nans(attend_parts(HEADS, DIM, CONTEXT));
    return t;
}

static void check_attention(const char *what, enum dtype dtype, float scale, float values) {
    struct timed a = attention_over(dtype, 1, 1), b = attention_over(dtype, scale, values);
    compare(what, look_back, &a, &b);
    filled_drop(&a.cache), filled_drop(&b.cache);
    free(a.x), free(a.y), free(a.z), free(b.x), free(b.y), free(b.z);
}

/* --- at every level --------------------------------------------------------------------------- */

static void at_every_level(void (*check)(void)) {
    for (int level = 0; (level_name = fixture_next_level(&level)) != NULL;) {
        struct fixture_backend f;
        size_t scratch = linear_scratch(COLS, COLS, TOKENS, false);
        if (scratch < attend_scratch(DIM, DIM)) scratch = attend_scratch(DIM, DIM);
        if (scratch < cache_scratch(DIM)) scratch = cache_scratch(DIM);
        fixture_open_both(&f, 1, level_name, scratch, COLS, TOKENS);
        backend = &f.b;
        check();
        fixture_close(&f);
    }
}

static void vectors(void) {
    check_vectors("norm of tiny values", normalize, 1e-39f, 1);
    check_vectors("norm of tiny squares", normalize, 1e-20f, 1);
    check_vectors("silu of tiny values", activate, 1e-39f, 1);
    check_vectors("silu of large values", activate, 95, 1);
    check_vectors("silu times tiny values", activate, 1, 1e-39f);
}

static void attention(void) {
    check_attention("scattered scores", DTYPE_F16, 20, 1);
    check_attention("tiny queries", DTYPE_F16, 1e-39f, 1);
    check_attention("tiny values", DTYPE_F32, 1, 1e-39f);
    check_attention("tiny values in f16", DTYPE_F16, 1, 1e-6f);
    check_attention("tiny values in q8", DTYPE_I8, 1, 1e-38f);
}

static void test_products(void) {
    at_every_level(check_products);
}

/* What is not split over threads runs on the caller's, which run_append makes flush. */
static void test_vectors(void) {
    unsigned long before = denormals_flush();
    at_every_level(vectors);
    denormals_restore(before);
}

static void test_attention(void) {
    at_every_level(attention);
}

/* --- who flushes, and when -------------------------------------------------------------------- */

static bool flushes(void) {
    volatile float tiny = 1e-30f, product = tiny * 1e-10f;
    return product == 0;
}

static void note(void *arg, size_t begin, size_t end, int thread) {
    bool *flushed = arg;
    (void)thread;
    for (size_t i = begin; i < end; i++) flushed[i] = flushes();
}

static void test_threads(void) {
    for (int threads = 1; threads <= 3; threads++) {
        struct fixture_backend f;
        bool flushed[300] = {false};
        fixture_open(&f, threads, NULL, 1);
        backend_split(&f.b, 300, 1 << 20, note, flushed);
        CHECK(!flushes());
        for (int i = 0; i < 300; i++) CHECK(flushed[i]);
        fixture_close(&f);
    }
}

/* Logits that would be denormal are zeros, and the caller is as it was. */
static void test_run(void) {
    static struct tiny_file file;
    struct model m;
    struct run r;
    struct error e;
    struct run_options o = {.threads = 1, .kv_type = DTYPE_F32};
    float logits[203];
    int id = 1;
    tiny_make(&file, &tiny_default, 3);
    struct tiny_array *output = tiny_find(&file, "lm_head.weight");
    for (size_t i = 0; i < output->bytes / 4; i++) tiny_put(output, i, 1e-40f);
    scratch_open();
    if (!model_open(&m, tiny_write(&file, "m.npz"), &e) || !run_open(&r, &m, &o, &e)) {
        printf("%s\n", e.message);
        exit(1);
    }
    CHECK(run_append(&r, &id, 1, logits, false, &e));
    for (size_t i = 0; i < m.spec.vocab; i++) CHECK(logits[i] == 0);
    CHECK(!flushes());
    run_close(&r);
    model_close(&m);
    tiny_drop(&file);
}

int main(void) {
    check_run("products", test_products);
    check_run("vectors", test_vectors);
    check_run("attention", test_attention);
    check_run("threads", test_threads);
    check_run("run", test_run);
    return check_done();
}
