/* Biases, gates of every activation, several of them in one call, and products of one token each:
 * the same bits as the steps one by one, and the formulas in double. Products alone are in
 * test_linear.c, activations alone at every level in tests/kern/check_gates.h. */
#include "base/denormals.h"
#include "ops/blas.h"
#include "products.h"

enum { ACTIVATIONS = 6, ROWS = 133, COLS = 192 };

static const char *const names[ACTIVATIONS] = {"silu", "gelu",  "gelu_tanh",
                                               "relu", "relu2", "clamped"};

/* --- activations ------------------------------------------------------------------------------ */

/* What ops/gate.h says, in double; up is 1 where there is no gate. */
static double exactly(enum activation a, double x, double up) {
    double u = sqrt(2 / acos(-1)) * (x + 0.044715 * x * x * x), g = fmin(x, 7);
    switch (a) {
    case ACTIVATION_SILU: return x / (1 + exp(-x)) * up;
    case ACTIVATION_GELU: return x / 2 * (1 + erf(x / sqrt(2))) * up;
    case ACTIVATION_GELU_TANH: return x / 2 * (1 + tanh(u)) * up;
    case ACTIVATION_RELU: return fmax(x, 0) * up;
    case ACTIVATION_RELU2: return fmax(x, 0) * fmax(x, 0) * up;
    default: return (fmax(fmin(up, 7), -7) + 1) * g / (1 + exp(-1.702 * g));
    }
}

static void test_activations(void) {
    enum { N = 1003 };
    const char *name;
    for (int level = 0; (name = fixture_next_level(&level)) != NULL;) {
        struct fixture_backend f;
        fixture_open(&f, 1, name, 1);
        for (int a = 0; a < 2 * ACTIVATIONS - 1; a++) {
            enum activation act = (enum activation)(a / 2);
            float *x = fixture_values(N, 9), *y = fixture_nans(N), *up = fixture_values(N, 9);
            bool gated = a % 2 == 0;
            memcpy(y, x, N * sizeof *y);
            y[N] = NAN;
            gate_apply(&f.b, act, y, gated ? up : NULL, N);
            for (size_t i = 0; i < N; i++) {
                double want = exactly(act, x[i], gated ? up[i] : 1);
                CHECK_MSG(fabs(y[i] - want) <= 1e-6 * fabs(want) + 1e-14, "%s, %s: %g for %g",
                          names[act], name, y[i], want);
            }
            y[0] = NAN;
            gate_apply(&f.b, act, y, gated ? up : NULL, 1);
            CHECK_MSG(isnan(y[0]) && isnan(y[N]), "%s, %s", names[act], name);
            free(x);
            free(y);
            free(up);
        }
        fixture_close(&f);
    }
}

/* --- biases ----------------------------------------------------------------------------------- */

static void check_biased(const struct fixture_backend *f, const struct matrix *w, const float *x,
                         const float *bias, size_t n) {
    size_t rows = w->mat.rows, wrong = 0;
    float *y = fixture_nans(n * rows), *plain = fixture_nans(n * rows);
    products_one(&f->b, plain, &w->mat, x, n);
    linear(&f->b, &(struct linear){y, &w->mat, bias}, 1, (struct input){.x = x}, n);
    for (size_t i = 0; i < n * rows; i++) wrong += y[i] != plain[i] + bias[i % rows];
    CHECK_MSG(!wrong && isnan(y[n * rows]), "%s, %s%d, %zu tokens: %zu of %zu rows", f->b.level,
              w->name, w->mat.bits, n, wrong, rows);
    free(y);
    free(plain);
}

static void test_biases(void) {
    enum { KINDS = 7 };
    struct matrix w[KINDS] = {
        matrix_plain(DTYPE_F32, 517, COLS, 0), matrix_plain(DTYPE_BF16, ROWS, COLS, 1),
        matrix_affine(4, 64, DTYPE_F16, 517, COLS), matrix_affine(3, 32, DTYPE_F32, 1, COLS),
        matrix_transposed(DTYPE_F32, ROWS, COLS, ROWS)};
    w[5] = matrix_view(&w[0], 24, 24, 72);
    w[6] = matrix_view(&w[2], 1, 0, 2);
    float *x = fixture_values(MOST_TOKENS * COLS, 1), *bias = fixture_values(517, 4);
    const char *name;
    for (int level = 0; (name = fixture_next_level(&level)) != NULL;) {
        for (int i = 0; i < THREADS * COUNTS * 2; i++) {
            struct fixture_backend f;
            size_t n = token_counts[i / 2 % COUNTS];
            fixture_open_linear(&f, thread_counts[i / 2 / COUNTS], name, COLS, n);
            f.b.blas = i % 2 && strcmp(name, "scalar") != 0;
            for (int k = 0; k < KINDS; k++) check_biased(&f, &w[k], x, bias, n);
            fixture_close(&f);
        }
    }
    for (int k = 0; k < KINDS; k++) matrix_drop(&w[k]);
    free(x);
    free(bias);
}

/* --- gates ------------------------------------------------------------------------------------ */

struct variant {
    const struct matrix *gate, *up; /* gate NULL: none */
    const float *gate_bias, *up_bias;
    enum activation activation;
};

static struct gated gated_of(const struct variant *c, float *y) {
    return (struct gated){y, c->gate ? &c->gate->mat : NULL, &c->up->mat, c->gate_bias, c->up_bias};
}

/* Step by step; malloc'd. */
static float *steps(const struct backend *b, const struct variant *c, const float *x, size_t n) {
    size_t size = n * c->up->mat.rows;
    float *up = fixture_nans(size);
    linear(b, &(struct linear){up, &c->up->mat, c->up_bias}, 1, (struct input){.x = x}, n);
    if (!c->gate) {
        gate_apply(b, c->activation, up, NULL, size);
        return up;
    }
    float *y = fixture_nans(size);
    linear(b, &(struct linear){y, &c->gate->mat, c->gate_bias}, 1, (struct input){.x = x}, n);
    gate_apply(b, c->activation, y, up, size);
    free(up);
    return y;
}

static void check_case(const struct backend *b, const struct variant *c, const float *x, size_t n) {
    size_t size = n * c->up->mat.rows;
    float *want = steps(b, c, x, n), *y = fixture_nans(size);
    struct gated g = gated_of(c, y);
    linear_gated(b, &g, 1, c->activation, (struct input){.x = x}, n);
    CHECK_MSG(fixture_same(y, want, size) && isnan(y[size]), "%s, %s of %s%d and %s%d, %zu tokens",
              b->level, names[c->activation], c->gate ? c->gate->name : "no gate",
              c->gate ? c->gate->mat.bits : 0, c->up->name, c->up->mat.bits, n);
    free(want);
    free(y);
}

enum { PAIRS = 6 };
static struct matrix pairs[PAIRS][2]; /* gate, up */

/* Gate and up are every other row of one tensor. */
static void split_pair(struct matrix *pair, struct matrix fused) {
    for (size_t i = 0; i < 2; i++) pair[i] = matrix_view(&fused, i, 0, 2);
    free(pair[0].memory);
    pair[0].memory = fused.memory;
    free(fused.value);
    free(fused.magnitude);
}

static void open_pairs(void) {
    pairs[0][0] = matrix_plain(DTYPE_F16, ROWS, COLS, 1);
    pairs[0][1] = matrix_plain(DTYPE_F16, ROWS, COLS, 0);
    pairs[1][0] = matrix_affine(4, 64, DTYPE_F16, ROWS, COLS);
    pairs[1][1] = matrix_affine(4, 64, DTYPE_BF16, ROWS, COLS);
    pairs[2][0] = matrix_affine(4, 64, DTYPE_F16, ROWS, COLS);
    pairs[2][1] = matrix_affine(8, 32, DTYPE_F32, ROWS, COLS);
    pairs[3][0] = matrix_plain(DTYPE_F32, ROWS, COLS, 1);
    pairs[3][1] = matrix_affine(3, 32, DTYPE_F32, ROWS, COLS);
    split_pair(pairs[4], matrix_transposed(DTYPE_BF16, 2 * ROWS, COLS, 2 * ROWS));
    split_pair(pairs[5], matrix_plain(DTYPE_BF16, 2 * ROWS, COLS, 0));
}

static void close_pairs(void) {
    for (int i = 0; i < 2 * PAIRS; i++) matrix_drop(&pairs[i / 2][i % 2]);
}

/* With and without a gate and each bias, over all activations, formats and backends in turn. */
static void test_gates(void) {
    float *x = fixture_values(MOST_TOKENS * COLS, 0.3f), *bias = fixture_values(2 * ROWS, 2);
    const char *name;
    open_pairs();
    for (int level = 0; (name = fixture_next_level(&level)) != NULL;) {
        for (int i = 0; i < 2 * THREADS * COUNTS; i++) {
            struct fixture_backend f;
            size_t n = token_counts[i / THREADS % COUNTS];
            fixture_open_linear(&f, thread_counts[i % THREADS], name, COLS, n);
            for (int k = 0; k < PAIRS * 8; k++) {
                struct matrix *w = pairs[k / 8];
                struct variant c = {.up = &w[1], .activation = (enum activation)((i + k) % 6)};
                if (k & 1 || c.activation == ACTIVATION_CLAMPED) c.gate = &w[0];
                if (k & 2 && c.gate) c.gate_bias = bias;
                if (k & 4) c.up_bias = bias + ROWS;
                check_case(&f.b, &c, x, n);
            }
            fixture_close(&f);
        }
    }
    close_pairs();
    free(x);
    free(bias);
}

/* The whole of it in double. No activation is steeper than 12 within what comes here. */
static void test_formula(void) {
    enum { N = 5 };
    float *x = fixture_values(N * COLS, 0.2f), *bias = fixture_values(2 * ROWS, 2);
    double gate[N * ROWS], up[N * ROWS], gate_bound[N * ROWS], up_bound[N * ROWS];
    const char *name;
    open_pairs();
    matrix_multiply(&pairs[0][0], x, N, gate, gate_bound);
    matrix_multiply(&pairs[0][1], x, N, up, up_bound);
    for (int level = 0; (name = fixture_next_level(&level)) != NULL;) {
        for (int a = 0; a < ACTIVATIONS; a++) {
            struct fixture_backend f;
            struct variant c = {&pairs[0][0], &pairs[0][1], bias, bias + ROWS, (enum activation)a};
            float *y = fixture_nans(N * ROWS);
            struct gated g = gated_of(&c, y);
            fixture_open_linear(&f, 2, name, COLS, N);
            linear_gated(&f.b, &g, 1, c.activation, (struct input){.x = x}, N);
            for (size_t i = 0; i < N * ROWS; i++) {
                double u = up[i] + bias[ROWS + i % ROWS], v = gate[i] + bias[i % ROWS];
                double want = exactly(c.activation, v, u);
                double bound = 12 * (gate_bound[i] * (fabs(u) + 1) + up_bound[i] * (fabs(v) + 1));
                CHECK_MSG(fabs(y[i] - want) <= bound + 2e-6 * fabs(want), "%s, %s: %g for %g",
                          names[a], name, y[i], want);
            }
            free(y);
            fixture_close(&f);
        }
    }
    close_pairs();
    free(x);
    free(bias);
}

/* --- several at once -------------------------------------------------------------------------- */

/* Gates of one call, of formats that are packed for in different ways and of different sizes. */
static void test_gates_of_one_call(void) {
    enum { GATES = 8 };
    float *x = fixture_values(MOST_TOKENS * COLS, 0.3f), *bias = fixture_values(2 * ROWS, 2);
    struct matrix wide[2] = {matrix_affine(8, 32, DTYPE_F16, 300, COLS),
                             matrix_affine(8, 32, DTYPE_F16, 300, COLS)};
    static const int order[GATES] = {1, 1, 2, 0, 0, 3, 4, 6};
    const char *name;
    open_pairs();
    for (int level = 0; (name = fixture_next_level(&level)) != NULL;) {
        for (int i = 0; i < THREADS * COUNTS; i++) {
            struct fixture_backend f;
            size_t n = token_counts[i % COUNTS];
            struct gated all[GATES];
            struct variant cases[GATES];
            float *want[GATES];
            fixture_open_both(&f, thread_counts[i / COUNTS], name,
                              linear_scratch(COLS, 300, n, false), COLS, n);
            for (int g = 0; g < GATES; g++) {
                struct matrix *w = order[g] < PAIRS ? pairs[order[g]] : wide;
                cases[g] = (struct variant){g % 3 ? &w[0] : NULL, &w[1], NULL, g == 4 ? bias : NULL,
                                            ACTIVATION_GELU};
                want[g] = steps(&f.b, &cases[g], x, n);
                all[g] = gated_of(&cases[g], fixture_nans(n * w[1].mat.rows));
            }
            linear_gated(&f.b, all, GATES, ACTIVATION_GELU, (struct input){.x = x}, n);
            for (int g = 0; g < GATES; g++) {
                size_t size = n * all[g].up->rows;
                CHECK_MSG(fixture_same(all[g].y, want[g], size) && isnan(all[g].y[size]),
                          "%s, %zu tokens, gate %d", name, n, g);
                free(all[g].y);
                free(want[g]);
            }
            fixture_close(&f);
        }
    }
    close_pairs();
    for (int i = 0; i < 2; i++) matrix_drop(&wide[i]);
    free(x);
    free(bias);
}

static void test_each(void) {
    enum { EACH = 9 };
    struct matrix w[EACH];
    float *x = fixture_values(EACH * COLS, 1), *bias = fixture_values(2 * ROWS, 1);
    const char *name;
    for (int i = 0; i < EACH; i++) {
        w[i] = i < 4    ? matrix_affine(4, 64, DTYPE_F16, ROWS + (size_t)i, COLS)
               : i < 5  ? matrix_affine(6, 32, DTYPE_F32, ROWS, COLS)
               : i == 6 ? matrix_transposed(DTYPE_F16, ROWS, COLS, ROWS)
                        : matrix_plain(DTYPE_F32, ROWS, COLS, 1);
    }
    for (int level = 0; (name = fixture_next_level(&level)) != NULL;) {
        for (int t = 0; t < THREADS; t++) {
            struct fixture_backend f;
            struct linear all[EACH];
            fixture_open_linear(&f, thread_counts[t], name, COLS, EACH);
            for (int i = 0; i < EACH; i++) {
                all[i] = (struct linear){fixture_nans(w[i].mat.rows), &w[i].mat, i % 2 ? bias : 0};
            }
            linear_each(&f.b, all, EACH, x);
            for (int i = 0; i < EACH; i++) {
                float *alone = fixture_nans(w[i].mat.rows);
                linear(&f.b, &(struct linear){alone, &w[i].mat, all[i].bias}, 1,
                       (struct input){.x = x + i * COLS}, 1);
                CHECK_MSG(fixture_same(alone, all[i].y, w[i].mat.rows) &&
                              isnan(all[i].y[w[i].mat.rows]),
                          "%s, %d threads, product %d", name, thread_counts[t], i);
                free(alone);
                free(all[i].y);
            }
            fixture_close(&f);
        }
    }
    for (int i = 0; i < EACH; i++) matrix_drop(&w[i]);
    free(x);
    free(bias);
}

int main(void) {
    blas_init();
    denormals_flush(); /* as a forward pass does, and its other threads */
    check_run("activations", test_activations);
    check_run("biases", test_biases);
    check_run("gates", test_gates);
    check_run("gates in double", test_formula);
    check_run("gates of one call", test_gates_of_one_call);
    check_run("products of one token each", test_each);
    return check_done();
}
