/* Norms and softcaps against their formulas in double. */
#include "ops/norm.h"
#include "ops/softcap.h"
#include "work.h"

/* --- norms ------------------------------------------------------------------------------------ */

/* What is tried: weights and bias or none, vectors far from 0, heads that have weights each. */
static struct {
    enum norm_kind kind;
    bool weight, bias;
    float mean; /* added to every other vector */
    size_t heads;
    bool per_head_weights;
} norm_case;

/* The formula of norm.h for one vector. */
static void norm_plainly(const struct norm *norm, const float *x, size_t dim, double *y,
                         double *bound) {
    double mean = 0, squares = 0;
    for (size_t i = 0; i < dim && norm->kind == NORM_LAYER; i++) mean += x[i];
    mean /= (double)dim;
    for (size_t i = 0; i < dim; i++) squares += (x[i] - mean) * (x[i] - mean);
    double root = sqrt(squares / (double)dim + (double)norm->eps);
    for (size_t i = 0; i < dim; i++) {
        double scaled = (norm->weight ? norm->weight[i] : 1) * (x[i] - mean) / root;
        double bias = norm->bias ? norm->bias[i] : 0;
        y[i] = scaled + bias;
        bound[i] = 2e-6 * (fabs(scaled) + fabs(bias));
    }
}

static void expect_norm(const struct norm *norm, const float *x, size_t dim, const float *y) {
    double *want = malloc(dim * sizeof *want), *bound = malloc(dim * sizeof *bound);
    norm_plainly(norm, x, dim, want, bound);
    for (size_t i = 0; i < dim; i++) {
        CHECK_MSG(fabs(y[i] - want[i]) <= bound[i], "norm %d of %zu: %g for %g", norm->kind, dim,
                  y[i], want[i]);
    }
    free(want);
    free(bound);
}

/* Vectors of every kind, in places that all differ. */
static float *norm_inputs(size_t n, size_t dim) {
    float *x = fixture_values(n * dim, 3);
    for (size_t i = 0; i < n * dim; i++) {
        size_t t = i / dim;
        if (t % 2) x[i] += norm_case.mean;
        if (t == 1) x[i] *= 1e-6f; /* where eps decides */
        if (t == 2) x[i] = 0;
    }
    return x;
}

static struct norm norm_of_case(const float *weights, size_t count) {
    return (struct norm){.kind = norm_case.kind,
                         .weight = norm_case.weight ? weights : NULL,
                         .bias = norm_case.bias ? weights + count : NULL,
                         .eps = 1e-5f};
}

static float *check_tokens(const struct work *w) {
    float *x = norm_inputs(w->n, w->dim), *weights = fixture_values(2 * w->dim, 2);
    float *y = fixture_nans(w->n * w->dim);
    struct norm norm = norm_of_case(weights, w->dim);
    norm_tokens(w->b, y, x, &norm, w->n, w->dim);
    for (size_t t = 0; t < w->n; t++) expect_norm(&norm, x + t * w->dim, w->dim, y + t * w->dim);
    norm_tokens(w->b, x, x, &norm, w->n, w->dim); /* in place */
    CHECK(fixture_same(x, y, w->n * w->dim));
    free(x);
    free(weights);
    return y;
}

static float *check_heads(const struct work *w) {
    size_t vectors = w->n * norm_case.heads, head_dim = w->dim / norm_case.heads;
    float *x = norm_inputs(vectors, head_dim), *weights = fixture_values(2 * w->dim, 2);
    float *y = fixture_nans(w->n * w->dim);
    struct norm norm = norm_of_case(weights, w->dim);
    memcpy(y, x, w->n * w->dim * sizeof *y);
    norm_heads(w->b, y, &norm, w->n, norm_case.heads, head_dim, norm_case.per_head_weights);
    for (size_t i = 0; i < vectors; i++) {
        struct norm own = norm;
        size_t at = norm_case.per_head_weights ? i % norm_case.heads * head_dim : 0;
        if (norm.weight) own.weight = norm.weight + at;
        if (norm.bias) own.bias = norm.bias + at;
        expect_norm(&own, x + i * head_dim, head_dim, y + i * head_dim);
    }
    free(x);
    free(weights);
    return y;
}

/* Both kinds, with and without weights and bias, near 0 and far from it. */
static void over_cases(void (*shapes)(void)) {
    for (int i = 0; i < 16; i++) {
        norm_case.kind = i / 8 ? NORM_LAYER : NORM_RMS;
        norm_case.weight = i / 4 % 2;
        norm_case.bias = i / 2 % 2;
        norm_case.mean = i % 2 ? 30000 : 0;
        shapes();
    }
}

static void over_tokens(void) {
    static const size_t shapes[][2] = {{1, 1}, {3, 7}, {1, 4096}, {33, 64}, {50, 2050}};
    for (int i = 0; i < 5; i++) work_everywhere(check_tokens, shapes[i][0], shapes[i][1]);
}

static void over_heads(void) {
    static const size_t shapes[][3] = {{1, 1, 2}, {5, 3, 20}, {1, 64, 128}, {70, 8, 24}};
    for (int i = 0; i < 8; i++) {
        const size_t *shape = shapes[i / 2];
        norm_case.heads = shape[1];
        norm_case.per_head_weights = i % 2;
        work_everywhere(check_heads, shape[0], shape[1] * shape[2]);
    }
}

static void test_tokens(void) {
    over_cases(over_tokens);
}

static void test_heads(void) {
    over_cases(over_heads);
}

/* --- softcaps --------------------------------------------------------------------------------- */

static float cap;

static float *check_softcap(const struct work *w) {
    size_t count = w->n * w->dim, wrong = 0, alone = 0;
    float *x = fixture_values(count, 1), *y = fixture_nans(count), one;
    for (size_t i = 0; i < count; i++) {
        y[i] = x[i] *= cap * (i % 3 == 0 ? 1e-3f : i % 3 == 1 ? 2 : 40);
    }
    softcap(w->b, y, count, cap);
    for (size_t i = 0; i < count; i++) {
        wrong += !(fabs(y[i] - cap * tanh((double)x[i] / cap)) <= ldexp(cap, -22));
        one = x[i];
        softcap(w->b, &one, 1, cap);
        alone += memcmp(&one, &y[i], sizeof one) != 0;
    }
    CHECK_MSG(!wrong, "%zu of %zu are wrong below %g", wrong, count, cap);
    CHECK_MSG(!alone, "%zu of %zu are others alone", alone, count);
    free(x);
    return y;
}

static float *check_odd_numbers(const struct work *w) {
    float *x = fixture_nans(w->dim);
    const float odd[] = {INFINITY, -INFINITY, NAN, 0, -0.0f, 3e38f, -3e38f, 1e-40f};
    memcpy(x, odd, sizeof odd);
    softcap(w->b, x, w->dim, cap);
    CHECK(x[0] == cap && x[1] == -cap && isnan(x[2]) && x[3] == 0 && x[4] == 0);
    CHECK(x[5] == cap && x[6] == -cap && fabsf(x[7]) <= ldexpf(cap, -22));
    return x;
}

static void test_softcap(void) {
    static const float caps[] = {0.5f, 3, 30, 50};
    static const size_t counts[] = {1, 3, 15, 16, 17, 63, 64, 65, 300};
    for (int c = 0; c < 4; c++) {
        cap = caps[c];
        for (int i = 0; i < 9; i++) work_everywhere(check_softcap, 1, counts[i]);
        work_everywhere(check_odd_numbers, 1, 8);
    }
}

int main(void) {
    check_run("tokens", test_tokens);
    check_run("heads", test_heads);
    check_run("softcap", test_softcap);
    return check_done();
}
