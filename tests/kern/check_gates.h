/* Activations, with a gate and without: at every length, place and kind of value, against their
 * formulas in double; each value is the same alone. */
#ifndef NIBBLE_TESTS_KERN_CHECK_GATES_H
#define NIBBLE_TESTS_KERN_CHECK_GATES_H

#include "check_tiles.h"

typedef void gate_kernel(float *gate, const float *up, size_t n);

/* A kernel, what it computes in double, and how far it may be off, relative to that. */
struct activation {
    gate_kernel *kernel;
    double (*exact)(double x, double up);
    double bound;
    bool needs_up;
};

/* --- formulas --- */

static double exact_silu(double x, double up) {
    return x / (1 + exp(-x)) * up;
}

static double exact_gelu(double x, double up) {
    return 0.5 * x * erfc(-x / sqrt(2)) * up;
}

/* As x / 2 (1 + tanh(u)), but with all digits where that is near 0. */
static double exact_gelu_tanh(double x, double up) {
    double u = sqrt(2 / acos(-1)) * (x + 0.044715 * x * x * x), y = x / (1 + exp(-2 * u));
    double direct = 0.5 * x * (1 + tanh(u));
    CHECK_MSG(!(fabs(y - direct) > 1e-14 * fabs(x)), "two forms of gelu differ at %g", x);
    return y * up;
}

static double exact_clamped(double x, double up) {
    double g = x > 7 ? 7 : x, u = up > 7 ? 7 : up < -7 ? -7 : up;
    return (u + 1) * g / (1 + exp(-1.702 * g));
}

/* --- checks --- */

/* exp may be 0 below -87.3 (exp_least): what that loses is at most 87.3 exp(-87.3) = 1.07e-36, and
 * as many times that as up or up + 1 is. Quotients of infinities are NaN. */
static bool gate_close(const struct activation *a, float got, float x, float up) {
    if (isnan(x) || isnan(up)) return isnan(got);
    if (x == -INFINITY) return isnan(got) || got == 0;
    double exact = a->exact(x, up);
    if (fabs(exact) > 3.4e38) return isinf(got) && (got > 0) == (exact > 0);
    return fabs(got - exact) <= a->bound * fabs(exact) + 1.07e-36 * fmax(1, fabs((double)up) + 1);
}

/* up may be NULL. */
static void check_gate(const struct activation *a, const float *x, const float *up, size_t n,
                       int at) {
    now.n = n;
    place(&tile_out, at, x, sizeof *x * n);
    if (up) place(&tile_left, at == AT_END ? at : (at + 20) % 64, up, sizeof *up * n);
    a->kernel((float *)tile_out.data, up ? (const float *)tile_left.data : NULL, n);
    const float *y = (const float *)tile_out.data;
    for (size_t i = 0; i < n && check_ok; i++) {
        float one = x[i], by = up ? up[i] : 1;
        CHECK_MSG(gate_close(a, y[i], x[i], by),
                  "%s at level %s: of %.9g and %s %.9g is %.9g, "
                  "not %.9g: %zu of %zu",
                  now.kernel, now.level, x[i], up ? "up" : "no up,", by, y[i], a->exact(x[i], by),
                  i, n);
        a->kernel(&one, up ? &up[i] : NULL, 1);
        CHECK_MSG(same_float(one, y[i]), "%s at level %s: %a is %a alone: %zu of %zu", now.kernel,
                  now.level, y[i], one, i, n);
    }
    CHECK_MSG(margins_intact(&tile_out), "%s at level %s writes outside its output: n = %zu",
              now.kernel, now.level, n);
    if (up) {
        CHECK_MSG(memcmp(tile_left.data, up, sizeof *up * n) == 0 && margins_intact(&tile_left),
                  "%s at level %s changes its input: n = %zu", now.kernel, now.level, n);
    }
}

static void check_both(const struct activation *a, const float *x, const float *up, size_t n,
                       int at) {
    check_gate(a, x, up, n, at);
    if (!a->needs_up) check_gate(a, x, NULL, n, at);
}

static void check_gates(struct activation a) {
    static const float edges[] = {0,      -0.0f,   1e-30f, -1e-30f,  88,        -88,  88.5f,
                                  -88.5f, 100,     -100,   104,      -104,      1e4f, -1e4f,
                                  3e38f,  -3e38f,  1e20f,  -1e20f,   1e-40f,    NAN,  -87.3f,
                                  87.3f,  2,       -2,     INFINITY, -INFINITY, 7,    -7,
                                  7.001f, -7.001f, -13.9f, -14.1f,   4,         -4,   1e-20f};
    static const float wide[] = {1, 8, 15, 95};
    static float x[EXP_SWEEP], up[EXP_SWEEP];
    for (size_t i = 0; i < EXP_SWEEP; i++) {
        x[i] = draw_uniform() * wide[i % 4];
        up[i] = draw_uniform() * (i % 3 ? 4 : 12);
    }
    check_both(&a, x, up, EXP_SWEEP, AT_END);
    for (size_t n = 0; n < EXP_LENGTHS; n++) {
        for (int at = AT_END; at >= 0 && check_ok; at -= 4) check_both(&a, x + n, up + n, n, at);
    }
    for (size_t i = 0; i < sizeof edges / sizeof *edges; i++) {
        for (size_t n = 1; n < 34 && check_ok; n++) {
            x[n - 1] = edges[i];
            up[n - 1] = n % 2 ? 0.5f : -1;
            check_both(&a, x, up, n, AT_END);
        }
    }
    up[3] = NAN;
    check_both(&a, x, up, 20, AT_END);
    up[3] = -INFINITY;
    up[4] = INFINITY;
    x[3] = x[4] = 1;
    check_both(&a, x, up, 20, AT_END);
}

static void check_silu_mul(void) {
    check_gates((struct activation){now.kern.silu_mul, exact_silu, 6 * 0x1p-23, false});
}

static void check_gelu_mul(void) {
    check_gates((struct activation){now.kern.gelu_mul, exact_gelu, 1e-6, false});
}

static void check_gelu_tanh_mul(void) {
    check_gates((struct activation){now.kern.gelu_tanh_mul, exact_gelu_tanh, 1e-6, false});
}

static void check_clamped_swiglu(void) {
    check_gates((struct activation){now.kern.clamped_swiglu, exact_clamped, 1e-6, true});
}

#endif
