/* src/num/search.h: never worse than the plain encoder, on groups of every kind and width. */
#include "num/search.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "check.h"
#include "num/affine.h"

enum { GROUP = 128, ROWS = 24 };

static const int widths[] = {2, 3, 4, 5, 6, 8}, groups[] = {32, 64, 128};
static const enum dtype dtypes[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};
static uint32_t state = 1;

static float uniform(void) { /* -1 to 1 */
    state = state * 1664525 + 1013904223;
    return (float)(int32_t)state * 0x1p-31f;
}

/* Row k of those that are tried. */
static void fill(float *w, int k) {
    for (int i = 0; i < GROUP; i++) {
        float x = uniform(), y = uniform();
        w[i] = x * x * x + 0.3f * y;
        if (k == 0) w[i] = 0;
        if (k == 1) w[i] = 0.37f;
        if (k == 2) w[i] = i == 77 || i == 5 ? 900.0f : 0.01f * x;
        if (k == 3) w[i] = i % 32 ? -1.5f : 3;
        if (k == 4) w[i] = x * 1e-41f;
        if (k == 5) w[i] = x * 3e4f;
        if (k == 6) w[i] = x * 1e-7f;
        if (k == 7) w[i] = 5 + 0.001f * x;
        if (k == 8) w[i] = x > 0 ? 1 : -1;
        if (k == 9) w[i] = x * 3e38f;
        if (k == 10) w[i] = i % 32 == 0 ? -0.0f : 0.0f;
        if (k == 11) w[i] = fabsf(x);
    }
}

struct row {
    unsigned char codes[GROUP], scales[16], offsets[16];
};

static double error_of(const struct row *r, const float *w, const float *h, int bits, int group,
                       enum dtype dtype) {
    struct mat m = affine_mat(1, GROUP, bits, group, dtype, r->codes, r->scales, r->offsets);
    float got[GROUP];
    double sum = 0;
    format_decode(&m, 0, 1, got);
    for (int i = 0; i < GROUP; i++) {
        double d = (double)w[i] - (double)got[i];
        sum += (h ? (double)h[i] : 1) * d * d;
    }
    return sum;
}

/* The error of a plain and of a sought encoding; they are rows of one file format. */
static void compare(const float *w, const float *h, int bits, int group, enum dtype dtype,
                    double *plain, double *sought) {
    struct row a, b;
    affine_encode(w, GROUP, bits, group, dtype, a.codes, a.scales, a.offsets);
    search_encode(w, h, GROUP, bits, group, dtype, b.codes, b.scales, b.offsets);
    *plain = error_of(&a, w, h, bits, group, dtype);
    *sought = error_of(&b, w, h, bits, group, dtype);
}

static void check_row(const float *w, const float *h, int k) {
    for (size_t t = 0; t < sizeof dtypes / sizeof *dtypes; t++) {
        for (size_t b = 0; b < sizeof widths / sizeof *widths; b++) {
            for (size_t g = 0; g < sizeof groups / sizeof *groups; g++) {
                double plain, sought;
                compare(w, h, widths[b], groups[g], dtypes[t], &plain, &sought);
                bool overflows = !isfinite(plain); /* scales beyond f16 */
                CHECK_MSG(overflows || sought <= plain * (1 + 1e-5),
                          "row %d, %d bits, group %d, %s: %g over %g", k, widths[b], groups[g],
                          dtype_name(dtypes[t]), sought, plain);
            }
        }
    }
}

static void test_never_worse(void) {
    for (int k = 0; k < ROWS; k++) {
        float w[GROUP];
        fill(w, k);
        check_row(w, NULL, k);
    }
}

static void test_never_worse_with_weights(void) {
    for (int k = 0; k < ROWS; k++) {
        float w[GROUP], h[GROUP];
        fill(w, k);
        for (int i = 0; i < GROUP; i++) h[i] = i % 3 ? fabsf(uniform()) : k % 2 ? 0 : 1e6f;
        check_row(w, h, k);
        memset(h, 0, sizeof h); /* nothing counts: any encoding does */
        check_row(w, h, k);
    }
}

/* How much it saves on what weights look like, and that weights draw the line to them. */
static void test_saves(void) {
    double plain = 0, sought = 0, alike = 0, weighed = 0;
    for (int k = 0; k < 200; k++) {
        float w[GROUP], h[GROUP];
        double a, b;
        for (int i = 0; i < GROUP; i++) {
            w[i] = uniform() + uniform() + uniform() + uniform();
            h[i] = i % 8 ? 1 : 100;
        }
        compare(w, NULL, 3, 64, DTYPE_F16, &a, &b);
        plain += a;
        sought += b;
        struct row r;
        search_encode(w, NULL, GROUP, 3, 64, DTYPE_F16, r.codes, r.scales, r.offsets);
        alike += error_of(&r, w, h, 3, 64, DTYPE_F16);
        search_encode(w, h, GROUP, 3, 64, DTYPE_F16, r.codes, r.scales, r.offsets);
        weighed += error_of(&r, w, h, 3, 64, DTYPE_F16);
    }
    CHECK_MSG(sought < 0.8 * plain, "%g of %g", sought, plain);
    CHECK_MSG(weighed < 0.85 * alike, "%g of %g", weighed, alike);
}

/* What lies on 2^bits values at equal distances is found exactly, whatever the plain rule makes of
 * its ends. */
static void test_exact_lines(void) {
    for (size_t b = 0; b < sizeof widths / sizeof *widths; b++) {
        float w[GROUP];
        int levels = (1 << widths[b]) - 1;
        for (int i = 0; i < GROUP; i++) w[i] = 0.25f + 0.5f * (float)(i % (levels + 1));
        double plain, sought;
        compare(w, NULL, widths[b], 128, DTYPE_F32, &plain, &sought);
        CHECK_MSG(sought < 1e-8 || levels >= GROUP, "%d bits: %g", widths[b], sought);
    }
}

int main(void) {
    check_run("never worse", test_never_worse);
    check_run("never worse with weights", test_never_worse_with_weights);
    check_run("saves", test_saves);
    check_run("exact lines", test_exact_lines);
    return check_done();
}
