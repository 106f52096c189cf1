/* affine_pack: every level gives what the plain one gives, bit for bit, and that is what
 * num/packed.h says. */
#ifndef NIBBLE_TESTS_KERN_CHECK_PACK_H
#define NIBBLE_TESTS_KERN_CHECK_PACK_H

#include "fixture.h"

enum { PACK_TOKENS = 4, PACK_COLS = 44 * 128, PACK_GROUPS = PACK_COLS / 32 };
enum { PACK_STRIDE = PACK_COLS + 128 }; /* packed_stride rounds up to an odd number of 128 */

static struct buffer pack_x, pack_codes, pack_scales, pack_shifts, pack_sums;

static float pack_data[PACK_TOKENS * PACK_COLS];

/* What the plain kernel makes of pack_data. */
static int8_t want_codes[PACK_TOKENS * PACK_STRIDE];
static float want_scales[PACK_TOKENS * PACK_GROUPS], want_sums[PACK_TOKENS * PACK_GROUPS];
static float want_shifts[PACK_TOKENS * PACK_GROUPS];

static void open_pack_buffers(void) {
    open_buffer(&pack_x, sizeof pack_data);
    open_buffer(&pack_codes, sizeof want_codes);
    open_buffer(&pack_scales, sizeof want_scales);
    open_buffer(&pack_shifts, sizeof want_scales);
    open_buffer(&pack_sums, sizeof want_sums);
}

/* --- values --- */

/* PACK_TIES: halfway between codes, or as close to that as rounding leads. PACK_PEAK: one value far
 * above the others. PACK_EDGE: all of one magnitude. PACK_SMALL: 127 / max|x| does not fit f32. */
enum pack_values {
    PACK_UNIFORM,
    PACK_TIES,
    PACK_PEAK,
    PACK_EDGE,
    PACK_WIDE,
    PACK_HUGE,
    PACK_ZERO,
    PACK_SMALL,
    PACK_DENORMAL,
    PACK_INFINITE,
    PACK_NAN,
    PACK_BITS,
    PACK_VALUES
};

static float pack_value(enum pack_values v, size_t i) {
    float x = draw_uniform();
    switch (v) {
    case PACK_TIES: return i == 0 ? 127 : truncf(x * 127) + (x < 0 ? -0.5f : 0.5f);
    case PACK_EDGE: return x < -0.4f ? -0.7f : 0.7f;
    case PACK_WIDE: return draw(WIDE, -40, 40);
    case PACK_HUGE: return draw(WIDE, 120, 128);
    case PACK_ZERO: return draw(ZERO, 0, 1);
    case PACK_SMALL: return draw(WIDE, -149, -120);
    case PACK_DENORMAL: return draw(DENORMAL, 0, 1);
    case PACK_BITS: return draw(BITS, 0, 1);
    default: return x;
    }
}

static void fill_group(float *x, size_t group, enum pack_values v) {
    float scale = v == PACK_TIES ? ldexpf(1, (int)(draw_bits() % 60) - 30) : 1;
    if (draw_bits() % 4) scale *= 1 + fabsf(draw_uniform());
    size_t at = draw_bits() % group;
    for (size_t i = 0; i < group; i++) x[i] = scale * pack_value(v, (i + at) % group);
    if (v == PACK_PEAK) x[at] *= 3000;
    if (v == PACK_INFINITE) x[at] = special(INFINITE);
    if (v == PACK_NAN) x[at] = special(NAN_ONCE);
    if (v == PACK_NAN && at % 2) x[(at + 7) % group] = special(INFINITE);
}

/* Mostly groups of one kind, with others among them. */
static void fill_tokens(const struct packed *p) {
    for (size_t i = 0; i < p->n * p->cols; i += (size_t)p->group) {
        enum pack_values other = (enum pack_values)(draw_bits() % PACK_VALUES);
        bool same = draw_bits() % 4 || now.values == PACK_UNIFORM;
        fill_group(pack_data + i, (size_t)p->group, same ? (enum pack_values)now.values : other);
    }
}

/* --- what it must compute --- */

static float pack_magnitude(const float *x, size_t group) {
    float most = 0;
    for (size_t i = 0; i < group; i++) {
        if (isnan(x[i])) return NAN;
        most = fmaxf(most, fabsf(x[i]));
    }
    return most;
}

/* Group g (of all tokens) as num/packed.h defines it. Where d is denormal, it is too coarse to say
 * what x / d is; then the codes must only be in range and e be what they add up to. */
static void check_group(const struct packed *p, size_t g) {
    size_t group = (size_t)p->group, groups = p->cols / group, wrong = 0;
    const int8_t *codes = p->codes + g / groups * p->stride;
    size_t begin = g % groups * group;
    const float *x = pack_data + g * group;
    float most = pack_magnitude(x, group),
          d = most < 0x1p100f || isnan(most) ? most / 127 : INFINITY;
    int sum = 0;
    for (size_t i = 0; i < group; i++) {
        int a = codes[packed_place(p->order, begin + i)];
        bool near = fabs((double)x[i] / d - a) <= 0.5 + 0x1p-15;
        if (!isfinite(d) || d == 0 || isinf(127 / most))
            near = a == 0;
        else if (d < 0x1p-126f)
            near = a >= -127;
        wrong += !near;
        sum += a;
    }
    CHECK_MSG(!wrong, "affine_pack at level %s: %zu codes of group %zu are not x / d%s", now.level,
              wrong, g, now.what);
    if (isfinite(d)) d = half_from_bits(half_to_bits(d) & ~3u);
    CHECK_MSG(same_float(p->shifts[g], (float)(-12582912.0 * d)) &&
                  (!isfinite(d) || p->shifts[g] == -12582912.0 * d),
              "affine_pack at level %s: shift %zu is %a, not exact%s", now.level, g, p->shifts[g],
              now.what);
    CHECK_MSG(same_float(p->scales[g], d), "affine_pack at level %s: scale %zu is %a, not %a%s",
              now.level, g, p->scales[g], d, now.what);
    CHECK_MSG(same_float(p->sums[g], d * (float)sum),
              "affine_pack at level %s: sum %zu is %a, not %a%s", now.level, g, p->sums[g],
              d * (float)sum, now.what);
}

/* Tokens begin .. end - 1 are as the plain kernel packs them, and the others still untouched. */
static void check_token(const struct packed *p, size_t t, bool packed) {
    size_t groups = p->cols / (size_t)p->group, wrong = 0;
    const int8_t *codes = p->codes + t * p->stride;
    for (size_t i = 0; i < p->stride; i++) {
        wrong += codes[i] != (packed ? want_codes[t * p->stride + i] : -1);
    }
    CHECK_MSG(!wrong, "affine_pack at level %s: %zu codes of token %zu are wrong%s", now.level,
              wrong, t, now.what);
    for (size_t g = t * groups; g < (t + 1) * groups && check_ok; g++) {
        float scale = packed ? want_scales[g] : NAN, sum = packed ? want_sums[g] : NAN;
        CHECK_MSG(same_float(p->scales[g], scale) && same_float(p->sums[g], sum),
                  "affine_pack at level %s: scale and sum %zu are %a and %a, not %a and %a%s",
                  now.level, g, p->scales[g], p->sums[g], scale, sum, now.what);
    }
}

/* --- cases --- */

static struct packed place_packed(struct packed p, int at) {
    size_t groups = p.cols / (size_t)p.group;
    int aligned = at == AT_END ? AT_END : at * 4 % 64; /* as arrays of floats are */
    place(&pack_x, aligned, pack_data, p.n * p.cols * sizeof(float));
    place(&pack_codes, at, NULL, p.n * p.stride);
    place(&pack_scales, aligned, NULL, p.n * groups * sizeof(float));
    place(&pack_shifts, aligned, NULL, p.n * groups * sizeof(float));
    place(&pack_sums, aligned, NULL, p.n * groups * sizeof(float));
    p.codes = (int8_t *)pack_codes.data;
    p.scales = (float *)(void *)pack_scales.data;
    p.shifts = (float *)(void *)pack_shifts.data;
    p.sums = (float *)(void *)pack_sums.data;
    return p;
}

static void check_packing(const struct packed *shape, size_t begin, size_t end, int at) {
    struct packed p = place_packed(*shape, at);
    snprintf(now.what, sizeof now.what,
             ", %zu tokens of %zu in groups of %d, order %d, values %zu, from %zu to %zu, place %d",
             p.n, p.cols, p.group, (int)p.order, now.values, begin, end, at);
    now.kern.affine_pack(&p, (const float *)(const void *)pack_x.data, begin, end);
    for (size_t t = 0; t < p.n; t++) check_token(&p, t, t >= begin && t < end);
    bool intact = margins_intact(&pack_codes) && margins_intact(&pack_scales) &&
                  margins_intact(&pack_shifts) && margins_intact(&pack_sums) &&
                  margins_intact(&pack_x);
    CHECK_MSG(intact, "affine_pack at level %s writes outside its arrays%s", now.level, now.what);
    CHECK_MSG(memcmp(pack_x.data, pack_data, pack_x.bytes) == 0,
              "affine_pack at level %s changes its input%s", now.level, now.what);
    for (size_t g = begin * (p.cols / (size_t)p.group);
         g < end * (p.cols / (size_t)p.group) && check_ok; g++) {
        check_group(&p, g);
    }
}

static void check_shape(enum packed_order order, int group, size_t groups) {
    struct packed p = {.n = PACK_TOKENS, .cols = groups * (size_t)group, .group = group};
    static int at;
    p.order = order;
    p.stride = packed_stride(p.cols);
    fill_tokens(&p);
    struct packed want = p;
    want.codes = want_codes;
    want.scales = want_scales;
    want.shifts = want_shifts;
    want.sums = want_sums;
    kern_scalar.affine_pack(&want, pack_data, 0, p.n);
    check_packing(&p, 0, p.n, AT_END);
    at = (at + 1) % 64;
    check_packing(&p, (size_t)at % 3, p.n - (size_t)at % 2, at);
}

static void check_affine_pack(void) {
    static const size_t counts[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 17, 23, 44};
    for (now.values = 0; now.values < PACK_VALUES; now.values++) {
        for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
            for (int group = 32; group <= 128 && check_ok; group *= 2) {
                check_shape(PACKED_NATURAL, group, counts[i]);
                check_shape(PACKED_EVEN_ODD, group, counts[i]);
            }
        }
    }
}

#endif
