/* Encoding with a metric: src/ops/gram.h, src/ops/factor.h, src/num/feedback.h. */
#include "num/feedback.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "fixture.h"
#include "num/search.h"
#include "ops/factor.h"
#include "ops/gram.h"

enum { COLS = 192, TOKENS = 700, RANK = 24 };

static uint32_t state = 7;

static float uniform(void) { /* -1 to 1 */
    state = state * 1664525 + 1013904223;
    return (float)(int32_t)state * 0x1p-31f;
}

/* Inputs whose columns go together, as a model's do: RANK directions and some noise. */
static float *make_inputs(size_t n, size_t cols) {
    float *x = malloc(n * cols * sizeof *x), mix[RANK][COLS];
    for (int i = 0; i < RANK; i++) {
        for (size_t c = 0; c < cols; c++) mix[i][c] = uniform();
    }
    for (size_t t = 0; t < n; t++) {
        float *row = x + t * cols;
        for (size_t c = 0; c < cols; c++) row[c] = 0.2f * uniform();
        for (int i = 0; i < RANK; i++) {
            float z = uniform() / (float)(1 + i);
            for (size_t c = 0; c < cols; c++) row[c] += z * mix[i][c];
        }
    }
    return x;
}

static double gram_of(const float *x, size_t n, size_t cols, size_t a, size_t b) {
    double sum = 0;
    for (size_t t = 0; t < n; t++) sum += (double)x[t * cols + a] * (double)x[t * cols + b];
    return sum;
}

/* --- Gram matrices ---------------------------------------------------------------------------- */

static void check_gram(size_t n, size_t cols, int threads, float *g) {
    struct fixture_backend f;
    float *x = make_inputs(n, cols), *scratch = malloc(512 * cols * sizeof *scratch);
    fixture_open(&f, threads, NULL, 0);
    memset(g, 0, cols * cols * sizeof *g);
    gram_add(&f.b, g, x, n, cols, scratch);
    gram_add(&f.b, g, x, 3, cols, scratch);
    for (size_t a = 0; a < cols; a++) {
        for (size_t b = 0; b <= a; b++) {
            double want = gram_of(x, n, cols, a, b) + gram_of(x, 3, cols, a, b);
            CHECK_MSG(fabs((double)g[a * cols + b] - want) < 1e-4 * (double)n, "%zu tokens: %g, %g",
                      n, (double)g[a * cols + b], want);
        }
    }
    fixture_close(&f);
    free(x);
    free(scratch);
}

static void test_gram(void) {
    static float one[COLS * COLS], four[COLS * COLS];
    static const size_t cols[] = {1, 31, 64, COLS};
    for (size_t i = 0; i < sizeof cols / sizeof *cols; i++) {
        state = 7;
        check_gram(TOKENS, cols[i], 1, one);
        state = 7;
        check_gram(TOKENS, cols[i], 4, four);
        CHECK(memcmp(one, four, cols[i] * cols[i] * sizeof *one) == 0);
    }
    check_gram(3, 64, 2, one);
}

/* --- factors ---------------------------------------------------------------------------------- */

static double product(const double *h, size_t n, size_t a, size_t b) {
    double sum = 0;
    for (size_t k = a > b ? a : b; k < n; k++) {
        sum += (k == a ? 1 : h[k * n + a]) * (k == b ? 1 : h[k * n + b]) * h[k * n + k];
    }
    return sum;
}

static void test_factors(void) {
    static const size_t sizes[] = {1, 2, 31, 32, 33, 100, COLS};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t n = sizes[i];
        float *x = make_inputs(TOKENS, n);
        double *h = malloc(n * n * sizeof *h), *one = malloc(n * n * sizeof *one);
        double *want = malloc(n * n * sizeof *want);
        struct pool *pool, *pool_of_one;
        struct error e;
        for (size_t a = 0; a < n; a++) {
            for (size_t b = 0; b < n; b++) want[a * n + b] = gram_of(x, TOKENS, n, a, b);
        }
        memcpy(h, want, n * n * sizeof *h);
        memcpy(one, want, n * n * sizeof *h);
        CHECK(pool_open(&pool, 3, &e) && pool_open(&pool_of_one, 1, &e));
        factor_symmetric(pool, h, n, 0);
        factor_symmetric(pool_of_one, one, n, 0);
        CHECK(memcmp(h, one, n * n * sizeof *h) == 0);
        for (size_t a = 0; a < n; a++) {
            for (size_t b = 0; b <= a; b++) {
                CHECK(fabs(product(h, n, a, b) - want[a * n + b]) < 1e-9 * want[a * n + a] + 1e-9);
            }
        }
        pool_close(pool);
        pool_close(pool_of_one);
        free(x);
        free(h);
        free(one);
        free(want);
    }
}

static void test_factors_of_what_is_singular(void) {
    double h[9] = {1, 1, 1, 1, 1, 1, 1, 1, 1};
    struct pool *pool;
    struct error e;
    CHECK(pool_open(&pool, 1, &e));
    factor_symmetric(pool, h, 3, 1e-6);
    for (int i = 0; i < 9; i++) CHECK(isfinite(h[i]));
    CHECK(h[0] == 1e-6 && h[8] == 1);
    pool_close(pool);
}

/* --- rows ------------------------------------------------------------------------------------- */

/* A metric as model/calibrate.c makes it. */
struct problem {
    float h[COLS * COLS], factor[COLS * COLS], diagonal[COLS];
    double wide[COLS * COLS];
    feedback_sums *sums;
};

static void open_problem(struct problem *p) {
    struct kern kern;
    const char *level;
    float *x = make_inputs(TOKENS, COLS);
    double trace = 0;
    struct pool *pool;
    struct error e;
    for (size_t a = 0; a < COLS; a++) {
        for (size_t b = 0; b < COLS; b++) {
            p->h[a * COLS + b] = (float)(gram_of(x, TOKENS, COLS, a, b) / TOKENS);
        }
        trace += (double)p->h[a * COLS + a];
    }
    for (size_t a = 0; a < COLS; a++) p->h[a * COLS + a] += (float)(0.01 * trace / COLS);
    for (size_t i = 0; i < COLS * COLS; i++) p->wide[i] = (double)p->h[i];
    CHECK(pool_open(&pool, 2, &e) && kern_select(&kern, NULL, &level, &e));
    p->sums = kern.sums_f32;
    factor_symmetric(pool, p->wide, COLS, 0);
    pool_close(pool);
    for (size_t i = 0; i < COLS * COLS; i++) p->factor[i] = (float)p->wide[i];
    for (size_t i = 0; i < COLS; i++) p->diagonal[i] = (float)p->wide[i * COLS + i];
    free(x);
}

struct encoded {
    unsigned char q[FEEDBACK_ROWS * COLS];
    float s[FEEDBACK_ROWS * COLS / 32], z[FEEDBACK_ROWS * COLS / 32];
};

static void encode(const struct problem *p, const float *w, size_t count, int bits, int group,
                   int sweeps, struct encoded *out) {
    struct feedback f = {COLS,      bits,        group,  DTYPE_F16, p->h,
                         p->factor, p->diagonal, sweeps, p->sums};
    struct feedback_rows rows = {out->q, out->s, out->z};
    float *scratch = malloc(feedback_scratch(COLS, group) * sizeof *scratch);
    feedback_encode(&f, w, count, &rows, scratch);
    free(scratch);
}

static void search(const float *w, size_t count, int bits, int group, struct encoded *out) {
    size_t groups = COLS / (size_t)group;
    for (size_t i = 0; i < count * groups; i++) {
        const float *from = w + i * (size_t)group;
        search_group(from, NULL, group, bits, DTYPE_F16, &out->s[i], &out->z[i]);
        for (int k = 0; k < group; k++) {
            out->q[i * (size_t)group + (size_t)k] =
                (unsigned char)search_code(from[k], out->s[i], out->z[i], bits);
        }
    }
}

/* e^T H e over all rows. */
static double loss(const struct problem *p, const float *w, size_t count, int bits, int group,
                   const struct encoded *enc) {
    size_t groups = COLS / (size_t)group;
    double sum = 0;
    for (size_t r = 0; r < count; r++) {
        double e[COLS];
        for (size_t c = 0; c < COLS; c++) {
            size_t g = r * groups + c / (size_t)group;
            unsigned char q = enc->q[r * COLS + c];
            CHECK(q < 1 << bits);
            CHECK(enc->s[g] == search_round(enc->s[g], DTYPE_F16));
            CHECK(enc->z[g] == search_round(enc->z[g], DTYPE_F16));
            e[c] = (double)w[r * COLS + c] - ((double)enc->s[g] * q + (double)enc->z[g]);
        }
        for (size_t a = 0; a < COLS; a++) {
            for (size_t b = 0; b < COLS; b++) sum += e[a] * (double)p->h[a * COLS + b] * e[b];
        }
    }
    return sum;
}

static void fill(float *w, size_t count) {
    for (size_t i = 0; i < count * COLS; i++) w[i] = uniform() + uniform() + uniform();
}

static void test_feedback_loses_less(void) {
    static struct problem p;
    static struct encoded a, b, c;
    static float w[FEEDBACK_ROWS * COLS];
    open_problem(&p);
    fill(w, FEEDBACK_ROWS);
    for (int bits = 2; bits <= 8; bits += bits == 6 ? 2 : 1) {
        for (int group = 32; group <= 64; group *= 2) {
            search(w, FEEDBACK_ROWS, bits, group, &a);
            encode(&p, w, FEEDBACK_ROWS, bits, group, 0, &b);
            encode(&p, w, FEEDBACK_ROWS, bits, group, 3, &c);
            double search_loss = loss(&p, w, FEEDBACK_ROWS, bits, group, &a);
            double first = loss(&p, w, FEEDBACK_ROWS, bits, group, &b);
            double swept = loss(&p, w, FEEDBACK_ROWS, bits, group, &c);
            CHECK_MSG(first < 0.5 * search_loss, "%d bits, %d: %g of %g", bits, group, first,
                      search_loss);
            CHECK_MSG(swept < 0.95 * first, "%d bits, %d: %g of %g", bits, group, swept, first);
        }
    }
}

/* A row is what it is whoever is beside it. */
static void test_rows_are_independent(void) {
    static struct problem p;
    static struct encoded all, one;
    static float w[FEEDBACK_ROWS * COLS];
    open_problem(&p);
    fill(w, FEEDBACK_ROWS);
    encode(&p, w, FEEDBACK_ROWS, 3, 64, 3, &all);
    for (size_t r = 0; r < FEEDBACK_ROWS; r++) {
        encode(&p, w + r * COLS, 1, 3, 64, 3, &one);
        CHECK(memcmp(one.q, all.q + r * COLS, COLS) == 0);
        CHECK(memcmp(one.s, all.s + r * COLS / 64, COLS / 64 * sizeof(float)) == 0);
        CHECK(memcmp(one.z, all.z + r * COLS / 64, COLS / 64 * sizeof(float)) == 0);
    }
}

/* Rows of zeros, of one value, with one that lies far out, too small for f16. */
static void test_rows_of_all_kinds(void) {
    static struct problem p;
    static struct encoded a, b;
    static float w[5 * COLS];
    open_problem(&p);
    fill(w, 5);
    for (size_t c = 0; c < COLS; c++) {
        w[c] = 0;
        w[COLS + c] = 0.7f;
        w[3 * COLS + c] *= 1e-8f;
        w[4 * COLS + c] *= 1e-40f;
    }
    w[2 * COLS + 70] = 500;
    for (size_t r = 0; r < 5; r++) {
        search(w + r * COLS, 1, 4, 64, &a);
        encode(&p, w + r * COLS, 1, 4, 64, 3, &b);
        double before = loss(&p, w + r * COLS, 1, 4, 64, &a);
        double after = loss(&p, w + r * COLS, 1, 4, 64, &b);
        CHECK_MSG(isfinite(after) && after <= before * 1.001 + 1e-12, "row %zu: %g, %g", r, after,
                  before);
    }
}

int main(void) {
    check_run("Gram matrices", test_gram);
    check_run("factors", test_factors);
    check_run("factors of what is singular", test_factors_of_what_is_singular);
    check_run("feedback loses less", test_feedback_loses_less);
    check_run("rows are independent", test_rows_are_independent);
    check_run("rows of all kinds", test_rows_of_all_kinds);
    return check_done();
}
