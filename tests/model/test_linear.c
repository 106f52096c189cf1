/* linear() and embed(): every format, width and group against sums in double over weights that are
 * unpacked bit by bit (matrix.h), and the same bits whatever the threads and, for codes, the batch
 * and the other products of a call; linear_gated() also within exactly the scratch that it asks
 * for. How close products with codes come is test_accuracy.c's matter. */
#include <stdatomic.h>

#include "ops/blas.h"
#include "ops/embed.h"
#include "ops/norm.h"
#include "products.h"

static void test_plain(void) {
    static const enum dtype dtypes[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};
    static const size_t shapes[][2] = {{133, 256}, {517, 160}, {1, 3}, {64, 1}, {129, 37}};
    for (int d = 0; d < 3; d++) {
        for (size_t skip = 0; skip < 2; skip++) {
            for (int i = 0; i < 5; i++) {
                products_check(matrix_plain(dtypes[d], shapes[i][0], shapes[i][1], skip));
            }
        }
    }
}

static void test_affine(void) {
    static const int widths[] = {2, 3, 4, 5, 6, 8}, groups[] = {32, 64, 128};
    static const enum dtype dtypes[] = {DTYPE_F16, DTYPE_BF16, DTYPE_F32};
    for (int b = 0; b < 6; b++) {
        for (int g = 0; g < 3; g++) {
            for (int d = 0; d < 3; d++) {
                products_check(matrix_affine(widths[b], groups[g], dtypes[d], 67, 256));
            }
        }
        products_check(matrix_affine(widths[b], 32, DTYPE_F16, 1, 32));
        products_check(matrix_affine(widths[b], 64, DTYPE_F16, 517, 192));
    }
    /* wide enough to be packed by several threads and multiplied in several steps */
    products_check(matrix_affine(4, 128, DTYPE_F16, 65, 2176));
    products_check(matrix_affine(3, 32, DTYPE_BF16, 65, 2080));
}

/* One value that is not finite spoils its token and leaves the others alone. */
static void check_spoilt(const struct backend *b, const struct mat *w, float spoil) {
    enum { N = 9 };
    float *x = fixture_values(N * w->cols, 1), *y = fixture_nans(N * w->rows);
    size_t odd = fixture_below(N);
    x[odd * w->cols + fixture_below(w->cols)] = spoil;
    for (size_t n = 1; n <= N; n += N - 1) {
        size_t first = n == 1 ? odd : 0, wrong = 0;
        products_one(b, y, w, x + first * w->cols, n);
        for (size_t i = 0; i < n * w->rows; i++) {
            wrong += !isfinite(y[i]) != (first + i / w->rows == odd);
        }
        CHECK_MSG(!wrong, "%s, %s%d: %zu wrong of %zu tokens, one with %g", b->level,
                  w->format->name, w->bits, wrong, n, spoil);
    }
    free(x);
    free(y);
}

static void test_tokens_are_apart(void) {
    struct matrix w[] = {
        matrix_affine(4, 32, DTYPE_F16, 33, 96), matrix_affine(3, 32, DTYPE_BF16, 33, 96),
        matrix_affine(8, 32, DTYPE_F32, 33, 96), matrix_plain(DTYPE_F32, 33, 96, 1)};
    const char *name;
    for (int level = 0; (name = fixture_next_level(&level)) != NULL;) {
        struct fixture_backend f;
        fixture_open_linear(&f, 2, name, 96, 9);
        for (int i = 0; i < 5; i++) {
            f.b.blas = i == 4;
            check_spoilt(&f.b, &w[i < 4 ? i : 3].mat, NAN);
            check_spoilt(&f.b, &w[i < 4 ? i : 3].mat, INFINITY);
            check_spoilt(&f.b, &w[i < 4 ? i : 3].mat, -INFINITY);
        }
        fixture_close(&f);
    }
    for (int i = 0; i < 4; i++) matrix_drop(&w[i]);
}

/* Products that share x in a call, of formats that are packed for in different ways or not at all,
 * are each what they are alone. */
static void test_products_of_one_call(void) {
    enum { PRODUCTS = 8, COLS = 256 };
    struct matrix w[PRODUCTS] = {
        matrix_affine(4, 64, DTYPE_F16, 200, COLS), matrix_affine(4, 64, DTYPE_BF16, 3, COLS),
        matrix_affine(4, 64, DTYPE_F32, 130, COLS), matrix_affine(4, 128, DTYPE_F16, 64, COLS),
        matrix_affine(8, 128, DTYPE_F16, 65, COLS), matrix_affine(3, 32, DTYPE_F32, 129, COLS),
        matrix_plain(DTYPE_F16, 70, COLS, 1),       matrix_plain(DTYPE_F32, 130, COLS, 0)};
    const char *name;
    float *x = fixture_values(MOST_TOKENS * COLS, 1);
    for (int level = 0; (name = fixture_next_level(&level)) != NULL;) {
        for (int i = 0; i < THREADS * COUNTS; i++) {
            size_t n = token_counts[i / THREADS], count = PRODUCTS - (size_t)i % 3;
            struct fixture_backend f;
            struct linear all[PRODUCTS];
            fixture_open_linear(&f, thread_counts[i % THREADS], name, COLS, n);
            for (int p = 0; p < PRODUCTS; p++) {
                all[p] = (struct linear){fixture_nans(n * w[p].mat.rows), &w[p].mat, NULL};
            }
            linear(&f.b, all, count, (struct input){.x = x}, n);
            for (size_t p = 0; p < PRODUCTS; p++) {
                float *alone = fixture_nans(n * w[p].mat.rows);
                if (p < count) products_one(&f.b, alone, &w[p].mat, x, n);
                CHECK_MSG(fixture_same(all[p].y, alone, n * w[p].mat.rows + 1),
                          "%s, %d threads, %zu tokens: product %zu of %zu", name,
                          thread_counts[i % THREADS], n, p, count);
                free(alone);
                free(all[p].y);
            }
            fixture_close(&f);
        }
    }
    for (int p = 0; p < PRODUCTS; p++) matrix_drop(&w[p]);
    free(x);
}

/* What linear and linear_gated do on the way, in steps of their own. */
static void gate_apart(const struct backend *b, float *h, float *gate, const float *x,
                       const struct norm *norm, const struct matrix *w, size_t n) {
    float *up = fixture_nans(n * w[1].mat.rows);
    norm_tokens(b, h, x, norm, n, w[0].mat.cols);
    products_one(b, gate, &w[0].mat, h, n);
    products_one(b, up, &w[1].mat, h, n);
    b->kern.silu_mul(gate, up, n * w[0].mat.rows);
    free(up);
}

static void check_gated(const struct fixture_backend *f, const struct matrix *w, const float *x,
                        const struct norm *norm, size_t n) {
    size_t cols = w[0].mat.cols, size = n * w[0].mat.rows;
    float *h[2], *gate[2];
    for (int i = 0; i < 2; i++) {
        h[i] = fixture_nans(n * cols);
        gate[i] = fixture_nans(size);
    }
    gate_apart(&f->b, h[0], gate[0], x, norm, w, n);
    struct gated g = {.y = gate[1], .gate = &w[0].mat, .up = &w[1].mat};
    linear_gated(&f->b, &g, 1, ACTIVATION_SILU, (struct input){x, *norm, h[1]}, n);
    CHECK_MSG(fixture_same(h[0], h[1], n * cols + 1) && fixture_same(gate[0], gate[1], size + 1),
              "%s, %s %d and %s %d bits, %zu tokens", f->b.level, w[0].name, w[0].mat.bits,
              w[1].name, w[1].mat.bits, n);
    for (int i = 0; i < 2; i++) {
        free(h[i]);
        free(gate[i]);
    }
}

static void test_norm_and_gate(void) {
    enum { PAIRS = 4, ROWS = 130, COLS = 256 };
    struct matrix w[PAIRS][2] = {
        {matrix_affine(4, 64, DTYPE_F16, ROWS, COLS), matrix_affine(4, 64, DTYPE_F16, ROWS, COLS)},
        {matrix_affine(4, 64, DTYPE_F16, ROWS, COLS), matrix_affine(8, 64, DTYPE_F16, ROWS, COLS)},
        {matrix_plain(DTYPE_F16, ROWS, COLS, 1), matrix_plain(DTYPE_F16, ROWS, COLS, 0)},
        {matrix_plain(DTYPE_F32, ROWS, COLS, 1), matrix_affine(3, 32, DTYPE_F32, ROWS, COLS)}};
    float *x = fixture_values(MOST_TOKENS * COLS, 3), *weights = fixture_values(2 * COLS, 1);
    const struct norm norms[] = {{NORM_RMS, weights, NULL, 1e-5f},
                                 {NORM_LAYER, weights, weights + COLS, 1e-5f}};
    const char *name;
    for (int level = 0; (name = fixture_next_level(&level)) != NULL;) {
        for (int i = 0; i < THREADS * COUNTS * PAIRS; i++) {
            struct fixture_backend f;
            size_t n = token_counts[i / THREADS % COUNTS];
            fixture_open_linear(&f, thread_counts[i % THREADS], name, COLS, n);
            for (int k = 0; k < 2; k++) check_gated(&f, w[i / THREADS / COUNTS], x, &norms[k], n);
            fixture_close(&f);
        }
    }
    for (int i = 0; i < 2 * PAIRS; i++) matrix_drop(&w[i / 2][i % 2]);
    free(x);
    free(weights);
}

/* --- the scratch of gates --------------------------------------------------------------------- */

/* Gates over scratch of exactly linear_scratch() floats a thread, for tokens up to a few more than
 * kernels take as rows, and for many. A guard follows; the part that kernels may ask for belongs to
 * it too if none asked. */
static const size_t gate_counts[] = {1, 2, 3, 4, 5, 24};
enum { GATE_COUNTS = 6, GATE_TOKENS = 24, GUARD = 64 * GATE_TOKENS };
static const float guard = 1234.5f;

static struct kern real_kern;
static atomic_bool kernel_asked;

/* Uses all the scratch that it may, and leaves nothing in it that was of use to others. */
static void greedy_strip(float *y, size_t stride, const struct mat *w, size_t row, size_t count,
                         const struct packed *x, void *scratch) {
    real_kern.affine_strip(y, stride, w, row, count, x, scratch);
    memset(scratch, 0xff, KERN_SCRATCH);
    atomic_store(&kernel_asked, true);
}

struct gates {
    struct matrix w[2];
    float *x;             /* [GATE_TOKENS, cols] */
    double *want, *bound; /* [GATE_TOKENS, rows] */
};

/* silu(a) * b in double, and how far f32 may lie from it: silu is nowhere steeper than 1.1. */
static void open_gates(struct gates *g, struct matrix gate, struct matrix up) {
    size_t size = GATE_TOKENS * gate.mat.rows;
    double *b = malloc(size * sizeof *b), *b_bound = malloc(size * sizeof *b_bound);
    *g = (struct gates){.w = {gate, up}, .x = fixture_values(GATE_TOKENS * gate.mat.cols, 0.05f)};
    g->want = malloc(size * sizeof *g->want);
    g->bound = malloc(size * sizeof *g->bound);
    matrix_multiply(&gate, g->x, GATE_TOKENS, g->want, g->bound);
    matrix_multiply(&up, g->x, GATE_TOKENS, b, b_bound);
    for (size_t i = 0; i < size; i++) {
        double silu = g->want[i] / (1 + exp(-g->want[i]));
        g->want[i] = silu * b[i];
        g->bound[i] = 1.1 * g->bound[i] * (fabs(b[i]) + b_bound[i]) + fabs(silu) * b_bound[i] +
                      1e-6 * fabs(g->want[i]);
    }
    free(b);
    free(b_bound);
}

static void close_gates(struct gates *g) {
    for (int i = 0; i < 2; i++) matrix_drop(&g->w[i]);
    free(g->x);
    free(g->want);
    free(g->bound);
}

static void put_guards(const struct backend *b, size_t from) {
    for (int t = 0; t < pool_threads(b->pool); t++) {
        for (size_t i = from; i < b->scratch_floats; i++) backend_scratch(b, t)[i] = guard;
    }
}

static size_t broken_guards(const struct backend *b, size_t from) {
    size_t broken = 0;
    for (int t = 0; t < pool_threads(b->pool); t++) {
        for (size_t i = from; i < b->scratch_floats; i++) {
            broken += backend_scratch(b, t)[i] != guard;
        }
    }
    return broken;
}

/* n tokens where each thread may use so many floats of scratch. */
static void check_gates(const struct gates *g, const struct backend *b, size_t floats, size_t n) {
    size_t size = n * g->w[0].mat.rows, wrong = 0, own = floats - KERN_SCRATCH / sizeof(float);
    float *y = fixture_nans(size);
    put_guards(b, own);
    atomic_store(&kernel_asked, false);
    struct gated gate = {.y = y, .gate = &g->w[0].mat, .up = &g->w[1].mat};
    linear_gated(b, &gate, 1, ACTIVATION_SILU, (struct input){.x = g->x}, n);
    bool asked = atomic_load(&kernel_asked) || b->blas || g->w[0].mat.format->decode_rows;
    for (size_t i = 0; i < size; i++) wrong += !(fabs(y[i] - g->want[i]) <= g->bound[i]);
    size_t broken = broken_guards(b, asked ? floats : own);
    CHECK_MSG(!wrong && isnan(y[size]) && !broken,
              "%s%s, %s %d and %s %d bits, %zux%zu, %zu tokens: %zu wrong, %zu floats of scratch "
              "beyond the end",
              b->level, b->blas ? " with BLAS" : "", g->w[0].name, g->w[0].mat.bits, g->w[1].name,
              g->w[1].mat.bits, g->w[0].mat.rows, g->w[0].mat.cols, n, wrong, broken);
    free(y);
}

/* Scratch for every count of tokens, and on it that many and all counts below. */
static void check_gate_scratch(const struct gates *g, const char *level, int threads, bool blas) {
    size_t rows = g->w[0].mat.rows, cols = g->w[0].mat.cols;
    for (int most = 0; most < GATE_COUNTS; most++) {
        struct fixture_backend f;
        size_t n = gate_counts[most], floats = linear_scratch(cols, rows, n, blas);
        fixture_open_both(&f, threads, level, floats + GUARD, cols, n);
        f.b.blas = blas;
        real_kern = f.b.kern;
        f.b.kern.affine_strip = greedy_strip;
        for (int i = 0; i <= most; i++) check_gates(g, &f.b, floats, gate_counts[i]);
        fixture_close(&f);
    }
}

static void over_backends(struct gates g) {
    const char *name;
    bool plain = !g.w[0].mat.group;
    for (int level = 0; (name = fixture_next_level(&level)) != NULL;) {
        for (int threads = 1; threads <= 3; threads += 2) {
            check_gate_scratch(&g, name, threads, false);
            if (plain && strcmp(name, "scalar") != 0) check_gate_scratch(&g, name, threads, true);
        }
    }
    close_gates(&g);
}

static void test_scratch_of_gates(void) {
    /* Of the first, 3 tokens need more than 5 do; of the second 4 need more than 3; of the third
     * BLAS needs more than kernels. */
    static const size_t shapes[][2] = {{261, 64}, {70, 64}, {460, 448}};
    for (int i = 0; i < 3; i++) {
        size_t rows = shapes[i][0], cols = shapes[i][1];
        struct gates g;
        open_gates(&g, matrix_plain(DTYPE_F16, rows, cols, 1),
                   matrix_plain(DTYPE_F16, rows, cols, 0));
        over_backends(g);
        open_gates(&g, matrix_plain(DTYPE_F32, rows, cols, 1),
                   matrix_affine(3, 32, DTYPE_F32, rows, cols));
        over_backends(g);
        open_gates(&g, matrix_transposed(DTYPE_BF16, rows, cols, rows),
                   matrix_transposed(DTYPE_F32, rows, cols, rows + 3));
        over_backends(g);
        if (i == 2) continue;
        open_gates(&g, matrix_affine(4, 32, DTYPE_F16, rows, cols),
                   matrix_affine(4, 32, DTYPE_F16, rows, cols));
        over_backends(g);
        open_gates(&g, matrix_affine(4, 64, DTYPE_BF16, rows, cols),
                   matrix_affine(8, 64, DTYPE_BF16, rows, cols));
        over_backends(g);
    }
}

/* --- the embedding ---------------------------------------------------------------------------- */

static void check_embed(struct matrix w) {
    enum { N = 200 };
    size_t rows = w.mat.rows, cols = w.mat.cols;
    int ids[N];
    for (int i = 0; i < N; i++) ids[i] = i < 2 ? (int)rows - 1 : (int)fixture_below(rows);
    for (int t = 0; t < THREADS; t++) {
        struct fixture_backend f;
        fixture_open(&f, thread_counts[t], NULL, 1);
        float *x = fixture_nans(N * cols);
        embed(&f.b, x, &w.mat, 1, ids, N);
        size_t wrong = 0;
        for (size_t i = 0; i < N * cols; i++) {
            size_t at = (size_t)ids[i / cols] * cols + i % cols;
            wrong += !(fabs(x[i] - w.value[at]) <= 0x1p-23 * w.magnitude[at]);
        }
        CHECK_MSG(!wrong && isnan(x[N * cols]), "%s%d: %zu wrong", w.name, w.mat.bits, wrong);
        free(x);
        fixture_close(&f);
    }
    matrix_drop(&w);
}

static void test_embed(void) {
    check_embed(matrix_plain(DTYPE_F32, 41, 96, 1));
    check_embed(matrix_plain(DTYPE_F16, 41, 97, 1));
    check_embed(matrix_plain(DTYPE_BF16, 41, 97, 0));
    check_embed(matrix_affine(3, 32, DTYPE_BF16, 41, 96));
    check_embed(matrix_affine(8, 64, DTYPE_F32, 41, 512));
}

int main(void) {
    blas_init();
    check_run("plain weights", test_plain);
    check_run("affine weights", test_affine);
    check_run("tokens are apart", test_tokens_are_apart);
    check_run("products of one call", test_products_of_one_call);
    check_run("norm and gate", test_norm_and_gate);
    check_run("scratch of gates", test_scratch_of_gates);
    check_run("embed", test_embed);
    return check_done();
}
