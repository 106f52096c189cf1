/* MLX's affine quantization: packing vectors worked out from the rule by hand, and round trips. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "num/affine.h"
#include "num/half.h"

enum { LONGEST = 512 };

static unsigned char codes[LONGEST], scales[LONGEST], offsets[LONGEST];

static float load_f32(const unsigned char *p) {
    float f;
    memcpy(&f, p, sizeof f);
    return f;
}

/* w_i = (i - 20) / 16 for i = 0..31: the scale, the offset and the words of a group of 32. The
 * values follow from the published rule, in f32 at each step; they were not made by this encoder.
 */
static const struct {
    int bits;
    float scale;
    const char *words;
} worked[] = {
    {2, 0.625f, "95555000 fffaaaaa"},
    {3, 0.25f, "92489200 db2491b6 ffffb6da"},
    {4, 0.125f, "43222100 87666544 cbaaa988 ffeeedcc"},
    {5, 0.0625f, "8a418820 c5a92839 ca307b9a 38bdab49 ffbbcdeb"},
    {6, 0.030487806f, "88184080 449038c2 7dd6d95d e99e58e1 5cf1beda ffeef9df"},
    {8, 0.0075757578f, "19100800 3a322921 5b524a42 7c746b63 9d948c84 beb6ada5 dfd6cec6 fff8efe7"},
};

static void test_worked_vectors(void) {
    float w[32];
    for (int i = 0; i < 32; i++) w[i] = (float)(i - 20) / 16;
    for (size_t v = 0; v < sizeof worked / sizeof *worked; v++) {
        int bits = worked[v].bits;
        affine_encode(w, 32, bits, 32, DTYPE_F32, codes, scales, offsets);
        CHECK_MSG(load_f32(scales) == worked[v].scale, "%d bits: scale %.9g", bits,
                  load_f32(scales));
        CHECK_MSG(load_f32(offsets) == -1.25f, "%d bits: offset %.9g", bits, load_f32(offsets));
        char words[128] = "";
        for (int i = 0; i < bits; i++) {
            const unsigned char *p = codes + 4 * i;
            sprintf(words + strlen(words), "%s%02x%02x%02x%02x", i ? " " : "", p[3], p[2], p[1],
                    p[0]);
        }
        CHECK_MSG(strcmp(words, worked[v].words) == 0, "%d bits: words %s", bits, words);
    }
}

static float random_unit(void) {
    return (float)rand() / (float)RAND_MAX;
}

/* Decoded values lie within half a step (and the rounding of the scale) of what was encoded. */
static void check_round_trip(int bits, int group, enum dtype dtype, float low, float high) {
    size_t cols = 256, n = (size_t)group;
    float w[256], got[256];
    for (size_t i = 0; i < cols; i++) w[i] = low + (high - low) * random_unit();
    affine_encode(w, cols, bits, group, dtype, codes, scales, offsets);
    struct mat m = affine_mat(1, cols, bits, group, dtype, codes, scales, offsets);
    m.format->decode(&m, 0, got);
    float rounding = dtype == DTYPE_F32 ? 1e-6f : dtype == DTYPE_F16 ? 1e-3f : 8e-3f;
    for (size_t i = 0; i < cols; i++) {
        float least = w[i / n * n], most = least;
        for (size_t k = i / n * n; k < i / n * n + n; k++) {
            least = fminf(least, w[k]);
            most = fmaxf(most, w[k]);
        }
        float largest = fmaxf(fabsf(least), fabsf(most));
        /* bending the scale so that zero has a code can widen the step by up to 1 / (2 q0) */
        float step = (most - least) / (float)((1 << bits) - 1);
        float bound = step * (bits == 2 ? 1.5f : 1.0f) + 2 * rounding * largest;
        CHECK_MSG(fabsf(got[i] - w[i]) <= bound, "%d bits, group %d, %s: %g became %g (bound %g)",
                  bits, group, dtype_name(dtype), w[i], got[i], bound);
    }
}

static void test_round_trips(void) {
    static const int widths[] = {2, 3, 4, 5, 6, 8};
    static const enum dtype types[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};
    for (int b = 0; b < 6; b++) {
        for (int group = 32; group <= 128; group *= 2) {
            for (int t = 0; t < 3; t++) {
                check_round_trip(widths[b], group, types[t], -1, 1);
                check_round_trip(widths[b], group, types[t], 0.25f, 3);
                check_round_trip(widths[b], group, types[t], -3, -0.25f);
            }
        }
    }
}

/* Values that are exactly s * q + z with the ends in place survive any width unchanged. */
static void test_exact(void) {
    static const int widths[] = {2, 3, 4, 5, 6, 8};
    for (int b = 0; b < 6; b++) {
        int bits = widths[b], levels = (1 << bits) - 1;
        float w[32], got[32];
        for (int i = 0; i < 32; i++) w[i] = (float)(i * 11 % (levels + 1) - levels) * 0.5f;
        w[0] = (float)-levels * 0.5f;
        w[1] = 0;
        affine_encode(w, 32, bits, 32, DTYPE_F16, codes, scales, offsets);
        struct mat m = affine_mat(1, 32, bits, 32, DTYPE_F16, codes, scales, offsets);
        m.format->decode(&m, 0, got);
        CHECK_MSG(memcmp(got, w, sizeof w) == 0, "%d bits: not exact", bits);
    }
}

/* A positive range, or a tie, makes the scale negative and the offset the positive end. */
static void test_negative_scale(void) {
    float w[32], got[32];
    for (int i = 0; i < 32; i++) w[i] = (float)(i - 15) / 16; /* -15/16 .. 1 */
    affine_encode(w, 32, 4, 32, DTYPE_F32, codes, scales, offsets);
    CHECK(load_f32(scales) < 0);
    CHECK(load_f32(offsets) == 1);
    w[31] = 15.0f / 16;
    affine_encode(w, 32, 4, 32, DTYPE_F32, codes, scales, offsets);
    /* a tie: step 2 * 15/16 / 15 = 0.125, q0 = rint(-7.5) = -8 (half to even), s = 15/16 / -8 */
    CHECK(load_f32(scales) == -0.1171875f && load_f32(offsets) == 15.0f / 16);
    struct mat m = affine_mat(1, 32, 4, 32, DTYPE_F32, codes, scales, offsets);
    m.format->decode(&m, 0, got);
    CHECK(got[31] == w[31]);
}

static void test_zero_group(void) {
    float w[32] = {0}, got[32];
    affine_encode(w, 32, 4, 32, DTYPE_F16, codes, scales, offsets);
    CHECK(half_load_u16(scales) == 0x8002); /* -1e-7 rounds to the denormal -1.19e-7 */
    CHECK(half_load_u16(offsets) == 0);
    struct mat m = affine_mat(1, 32, 4, 32, DTYPE_F16, codes, scales, offsets);
    m.format->decode(&m, 0, got);
    for (int i = 0; i < 32; i++) CHECK(got[i] == 0);
}

static void test_valid(void) {
    CHECK(affine_valid(2, 32) && affine_valid(8, 128) && affine_valid(5, 64));
    CHECK(!affine_valid(7, 64) && !affine_valid(1, 64) && !affine_valid(9, 64));
    CHECK(!affine_valid(4, 16) && !affine_valid(4, 48) && !affine_valid(4, 0) &&
          !affine_valid(0, 64));
}

int main(void) {
    check_run("worked vectors", test_worked_vectors);
    check_run("round trips", test_round_trips);
    check_run("exact values", test_exact);
    check_run("negative scale", test_negative_scale);
    check_run("zero group", test_zero_group);
    check_run("valid widths", test_valid);
    return check_done();
}
