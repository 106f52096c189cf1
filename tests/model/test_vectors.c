/* What works on vectors value by value, against its formula in double: the residual sum, scales,
 * bounds, learned positions, keys of latent attention. */
#include "ops/embed.h"
#include "ops/latent.h"
#include "ops/residual.h"
#include "ops/scale.h"
#include "work.h"

static const size_t shapes[][2] = {{1, 1}, {3, 7}, {1, 4096}, {33, 64}, {50, 2050}};
enum { SHAPES = 5 };

static bool near(double found, double wanted) {
    return fabs(found - wanted) <= 2e-6 * (1 + fabs(wanted));
}

/* --- the residual ----------------------------------------------------------------------------- */

static float residual_scale;
static bool residual_normed;

static float *check_add(const struct work *w) {
    size_t count = w->n * w->dim, wrong = 0;
    float *x = fixture_values(count, 3), *y = fixture_values(count, 3), *sum = fixture_nans(count);
    float *weight = fixture_values(w->dim, 1), *made = fixture_nans(count);
    struct norm rms = {NORM_RMS, weight, NULL, 1e-5f}, none = {0};
    memcpy(sum, x, count * sizeof *x);
    memcpy(made, y, count * sizeof *y);
    if (residual_normed) norm_tokens(w->b, made, y, &rms, w->n, w->dim);
    residual_add(w->b, sum, y, residual_normed ? rms : none, residual_scale, w->n, w->dim);
    for (size_t i = 0; i < count; i++) {
        wrong += !near(sum[i], (double)x[i] + (double)residual_scale * (double)made[i]);
    }
    CHECK_MSG(!wrong, "%zu sums are wrong", wrong);
    free(x);
    free(y);
    free(weight);
    free(made);
    return sum;
}

static void test_residual(void) {
    for (int i = 0; i < 2 * SHAPES; i++) {
        residual_scale = i % 3 ? 0.25f : 1;
        residual_normed = i % 2;
        work_everywhere(check_add, shapes[i / 2][0], shapes[i / 2][1]);
    }
}

/* --- scales and bounds ------------------------------------------------------------------------ */

static float *check_scale(const struct work *w) {
    size_t count = w->n * w->dim, wrong = 0;
    float *x = fixture_values(count, 3), *y = fixture_nans(count);
    memcpy(y, x, count * sizeof *x);
    scale(w->b, y, count, 0.3f);
    for (size_t i = 0; i < count; i++) wrong += y[i] != x[i] * 0.3f;
    CHECK_MSG(!wrong, "%zu values are wrong", wrong);
    free(x);
    return y;
}

static float *check_clip(const struct work *w) {
    size_t count = w->n * w->dim, wrong = 0;
    float *x = fixture_values(count, 3), *y = fixture_nans(count);
    memcpy(y, x, count * sizeof *x);
    scale_clip(w->b, y, count, 0.5f);
    for (size_t i = 0; i < count; i++) wrong += y[i] != fmaxf(-0.5f, fminf(0.5f, x[i]));
    CHECK_MSG(!wrong, "%zu values are wrong", wrong);
    free(x);
    return y;
}

static void test_scale(void) {
    for (int i = 0; i < SHAPES; i++) {
        work_everywhere(check_scale, shapes[i][0], shapes[i][1]);
        work_everywhere(check_clip, shapes[i][0], shapes[i][1]);
    }
}

static void test_clip_keeps_nan(void) {
    struct fixture_backend f;
    float x[] = {NAN, INFINITY, -INFINITY, 0};
    fixture_open(&f, 1, NULL, 1);
    scale_clip(&f.b, x, 4, 2);
    CHECK(isnan(x[0]) && x[1] == 2 && x[2] == -2 && x[3] == 0);
    fixture_close(&f);
}

/* --- positions -------------------------------------------------------------------------------- */

enum { BEFORE = 5 }; /* tokens before those at hand */

static float *check_positions(const struct work *w) {
    size_t count = w->n * w->dim, wrong = 0, rows = w->n + BEFORE;
    float *x = fixture_values(count, 3), *sum = fixture_nans(count), *h = fixture_nans(count);
    float *values = fixture_values(rows * w->dim, 1);
    struct mat table = format_plain(DTYPE_F32, rows, w->dim, (const unsigned char *)values);
    memcpy(sum, x, count * sizeof *x);
    embed_positions(w->b, sum, h, &table, w->n, BEFORE);
    for (size_t i = 0; i < count; i++) wrong += sum[i] != x[i] + values[BEFORE * w->dim + i];
    CHECK_MSG(!wrong && isnan(h[count]), "%zu sums are wrong", wrong);
    free(x);
    free(h);
    free(values);
    return sum;
}

static void test_positions(void) {
    for (int i = 0; i < SHAPES; i++) work_everywhere(check_positions, shapes[i][0], shapes[i][1]);
}

/* --- latent keys ------------------------------------------------------------------------------ */

enum { HEADS = 3, NOPE = 5, TURNS = 4, KEY = NOPE + TURNS };

static float *check_keys(const struct work *w) {
    static const struct latent shape = {HEADS, NOPE, TURNS};
    size_t wrong = 0;
    float *own = fixture_values(w->n * HEADS * NOPE, 1), *shared = fixture_values(w->n * TURNS, 1);
    float *k = fixture_nans(w->n * w->dim);
    latent_keys(w->b, &shape, k, own, shared, w->n);
    for (size_t i = 0; i < w->n * w->dim; i++) {
        size_t t = i / w->dim, head = i / KEY % HEADS, at = i % KEY;
        float wanted =
            at < NOPE ? own[(t * HEADS + head) * NOPE + at] : shared[t * TURNS + at - NOPE];
        wrong += k[i] != wanted;
    }
    CHECK_MSG(!wrong, "%zu of the keys' values are wrong", wrong);
    free(own);
    free(shared);
    return k;
}

static void test_latent_keys(void) {
    work_everywhere(check_keys, 1, HEADS * KEY);
    work_everywhere(check_keys, 700, HEADS * KEY);
}

int main(void) {
    check_run("residual", test_residual);
    check_run("scales and bounds", test_scale);
    check_run("a bound keeps what is no number", test_clip_keeps_nan);
    check_run("learned positions", test_positions);
    check_run("keys of latent attention", test_latent_keys);
    return check_done();
}
