/* The kernels of several rows and tokens, and those of exponentials: sums as close to double
 * precision as rounding explains, every output the same bits whatever is computed beside it and
 * wherever its arrays lie, and nothing written between rows and tokens. */
#ifndef NIBBLE_TESTS_KERN_CHECK_TILES_H
#define NIBBLE_TESTS_KERN_CHECK_TILES_H

#include "base/dtype.h"
#include "fixture.h"

enum { TILE_ROWS = 33, TILE_TOKENS = 14, TILE_COLS = 4097, TILE_GAP = 64 };
enum { TILE_FLOATS = TILE_ROWS * (TILE_COLS + TILE_GAP) };

/* left is x of dots [n, cols] and p of sums [n, rows]; out is y [n, rows] or [n, cols]. */
static struct buffer tile_out, tile_left, tile_w;
static float left_data[TILE_FLOATS], old_data[TILE_FLOATS], tile_first[TILE_FLOATS];
static unsigned char tile_w_data[sizeof(float) * TILE_FLOATS];

static void open_tile_buffers(void) {
    open_buffer(&tile_out, sizeof old_data);
    open_buffer(&tile_left, sizeof left_data);
    open_buffer(&tile_w, sizeof tile_w_data);
}

typedef void tiles_fn(float *y, size_t y_stride, const float *x, size_t x_stride, size_t n,
                      const void *w, size_t w_stride, size_t rows, size_t cols);

struct tiles {
    tiles_fn *kernel;
    enum dtype type;
    bool sums; /* of rows, else products */
    size_t n, rows, cols;
    size_t out_stride, left_stride, w_stride; /* the last in bytes */
    enum values values;
};

/* Elements of an array of count rows of `width`, the last without what follows it. */
static size_t extent(size_t count, size_t stride, size_t width) {
    return count && width ? (count - 1) * stride + width : 0;
}

static size_t out_width(const struct tiles *s) {
    return s->sums ? s->cols : s->rows;
}

static size_t left_width(const struct tiles *s) {
    return s->sums ? s->rows : s->cols;
}

static size_t out_floats(const struct tiles *s) {
    return extent(s->n, s->out_stride, out_width(s));
}

static size_t left_floats(const struct tiles *s) {
    return extent(s->n, s->left_stride, left_width(s));
}

static size_t w_bytes(const struct tiles *s) {
    return extent(s->rows, s->w_stride, s->cols * dtype_bytes(s->type));
}

/* --- values --- */

static void put_weight(const struct tiles *s, size_t r, size_t i, float f) {
    unsigned char *p = tile_w_data + r * s->w_stride + i * dtype_bytes(s->type);
    if (s->type == DTYPE_F32) memcpy(p, &f, sizeof f);
    if (s->type == DTYPE_F16) half_store_u16(p, half_to_f16(f));
    if (s->type == DTYPE_BF16) half_store_u16(p, half_to_bf16(f));
    if (s->type == DTYPE_I8) *p = (unsigned char)(int8_t)(s->values == WHOLE ? f : f * 127);
}

static double weight_at(const struct tiles *s, size_t r, size_t i) {
    const unsigned char *p = tile_w_data + r * s->w_stride + i * dtype_bytes(s->type);
    float f;
    if (s->type == DTYPE_F16) return half_from_f16(half_load_u16(p));
    if (s->type == DTYPE_BF16) return half_from_bf16(half_load_u16(p));
    if (s->type == DTYPE_I8) return (int8_t)*p;
    memcpy(&f, p, sizeof f);
    return f;
}

/* NaN fills all gaps. INFINITE and NAN_ONCE: one weight, or one value of the left side. */
static void fill_tiles(const struct tiles *s) {
    enum values v = s->values == WHOLE ? WHOLE : UNIFORM;
    size_t left = left_width(s), width = out_width(s);
    memset(left_data, 0xff, sizeof *left_data * left_floats(s));
    memset(old_data, 0xff, sizeof *old_data * out_floats(s));
    memset(tile_w_data, 0xff, w_bytes(s));
    for (size_t i = 0; i < s->n * left; i++) {
        left_data[i / left * s->left_stride + i % left] = draw(v, -1, 1);
    }
    for (size_t i = 0; s->sums && i < s->n * width; i++) {
        old_data[i / width * s->out_stride + i % width] = draw(v, -1, 1);
    }
    for (size_t i = 0; i < s->rows * s->cols; i++) {
        put_weight(s, i / s->cols, i % s->cols, draw(v, -1, 1));
    }
    if (s->values == v || !s->rows || !s->cols || !s->n) return;
    if (s->type != DTYPE_I8 && draw_bits() & 1) {
        put_weight(s, draw_bits() % s->rows, draw_bits() % s->cols, special(s->values));
    } else {
        size_t t = draw_bits() % s->n;
        left_data[t * s->left_stride + draw_bits() % left] = special(s->values);
    }
}

/* --- what must come out --- */

/* Element i of token t, and how far rounding may lead away: every product and every addition errs
 * by 2^-24 of a sum of magnitudes; products run in at least 8 partial sums, sums of rows in one. */
static double tile_exactly(const struct tiles *s, size_t t, size_t i, double *bound) {
    const float *left = left_data + t * s->left_stride;
    size_t count = left_width(s);
    double sum = s->sums ? old_data[t * s->out_stride + i] : 0, size = fabs(sum);
    for (size_t k = 0; k < count; k++) {
        double product = left[k] * (s->sums ? weight_at(s, k, i) : weight_at(s, i, k));
        sum += product;
        size += fabs(product);
    }
    double steps = (s->sums ? (double)count : (double)count / 8 + 8) + 2;
    *bound = s->values == WHOLE ? 0 : steps * 0x1p-24 * size + (double)count * 0x1p-149;
    return sum;
}

/* The same output from calls for one token and one row each. */
static float alone(const struct tiles *s, size_t t, size_t i) {
    const float *left = (const float *)tile_left.data + t * s->left_stride;
    float y = s->sums ? old_data[t * s->out_stride + i] : NAN;
    const unsigned char *w = tile_w.data;
    size_t bytes = dtype_bytes(s->type);
    if (!s->sums) {
        s->kernel(&y, 1, left, s->left_stride, 1, w + i * s->w_stride, s->w_stride, 1, s->cols);
        return y;
    }
    for (size_t k = 0; k < s->rows; k++) {
        s->kernel(&y, 1, left + k, 1, 1, w + k * s->w_stride + i * bytes, s->w_stride, 1, 1);
    }
    return y;
}

static void describe_tiles(const struct tiles *s, int at) {
    now.n = s->cols;
    snprintf(now.what, sizeof now.what,
             " columns, %zu rows, %zu tokens, strides %zu, %zu, %zu, values %d, place %d", s->rows,
             s->n, s->out_stride, s->left_stride, s->w_stride, (int)s->values, at);
}

static void check_tile_outputs(const struct tiles *s) {
    const float *y = (const float *)tile_out.data;
    size_t width = out_width(s);
    for (size_t at = 0; at < out_floats(s) && check_ok; at++) {
        size_t t = at / s->out_stride, i = at % s->out_stride;
        if (i >= width) {
            CHECK_MSG(memcmp(&y[at], canary, sizeof *y) == 0,
                      "%s at level %s writes after token %zu: %zu%s", now.kernel, now.level, t,
                      now.n, now.what);
            continue;
        }
        double bound, exact = tile_exactly(s, t, i, &bound);
        CHECK_MSG(is_close(y[at], exact, bound),
                  "%s at level %s: [%zu, %zu] is %.9g, not %.9g within %.3g: %zu%s", now.kernel,
                  now.level, t, i, y[at], exact, bound, now.n, now.what);
        if (s->cols > 4 * TILE_GAP && i % 16) continue; /* of large ones a few */
        float one = alone(s, t, i);
        CHECK_MSG(same_float(y[at], one), "%s at level %s: [%zu, %zu] is %a, but %a alone: %zu%s",
                  now.kernel, now.level, t, i, y[at], one, now.n, now.what);
    }
}

static void check_place(const struct tiles *s, int at) {
    size_t bytes = sizeof(float) * out_floats(s);
    describe_tiles(s, at);
    place(&tile_left, at == AT_END ? at : at * 5 % 16 * 4, left_data,
          sizeof(float) * left_floats(s));
    place(&tile_w, at, tile_w_data, w_bytes(s));
    place(&tile_out, at == AT_END ? at : at * 3 % 16 * 4, s->sums ? old_data : NULL, bytes);
    s->kernel((float *)tile_out.data, s->out_stride, (const float *)tile_left.data, s->left_stride,
              s->n, tile_w.data, s->w_stride, s->rows, s->cols);
    if (at == AT_END) {
        memcpy(tile_first, tile_out.data, bytes);
        check_tile_outputs(s);
    }
    CHECK_MSG(memcmp(tile_out.data, tile_first, bytes) == 0,
              "%s at level %s depends on where its arrays lie: %zu%s", now.kernel, now.level, now.n,
              now.what);
    CHECK_MSG(memcmp(tile_left.data, left_data, tile_left.bytes) == 0 &&
                  memcmp(tile_w.data, tile_w_data, tile_w.bytes) == 0,
              "%s at level %s changes its input: %zu%s", now.kernel, now.level, now.n, now.what);
    CHECK_MSG(margins_intact(&tile_out) && margins_intact(&tile_left) && margins_intact(&tile_w),
              "%s at level %s writes outside its arrays: %zu%s", now.kernel, now.level, now.n,
              now.what);
}

/* --- all shapes --- */

static size_t next_cols(size_t cols) {
    return cols <= 49 ? cols + 1 : cols == 50 ? 129 : cols == 129 ? 1023 : TILE_COLS;
}

static void check_tile_shape(struct tiles s, size_t round) {
    static const size_t gaps[] = {0, 1, 5, 16}, byte_gaps[] = {0, 1, 6, 35, TILE_GAP};
    static const enum values kinds[] = {WHOLE, UNIFORM, WHOLE, NAN_ONCE, UNIFORM, INFINITE};
    s.out_stride = out_width(&s) + gaps[round % 4];
    s.left_stride = left_width(&s) + gaps[round / 4 % 4];
    s.w_stride = s.cols * dtype_bytes(s.type) + byte_gaps[round % 5];
    if (!s.out_stride) s.out_stride = 1;
    s.values = kinds[round % 6];
    fill_tiles(&s);
    check_place(&s, AT_END);
    bool all = s.cols == 35 && s.rows == 7 && (s.n == 2 || s.n == 13);
    for (int at = all ? 0 : (int)(round % 64); at < 64 && check_ok; at += all ? 1 : 64) {
        check_place(&s, at);
    }
}

static void check_tiles(tiles_fn *kernel, enum dtype type, bool sums) {
    static const size_t rows[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 17, TILE_ROWS, 0};
    struct tiles s = {.kernel = kernel, .type = type, .sums = sums};
    size_t round = 0;
    for (int r = 0; r < 13; r++) {
        s.rows = rows[r];
        for (s.n = 0; s.n <= TILE_TOKENS; s.n++) {
            for (s.cols = 0; check_ok; s.cols = next_cols(s.cols)) {
                bool large = s.cols > 4 * TILE_GAP;
                if (!large || (s.rows + s.n) % 5 == 0) check_tile_shape(s, round++);
                if (s.cols == TILE_COLS) break;
            }
        }
    }
}

static void check_dots_f32(void) {
    check_tiles(now.kern.dots_f32, DTYPE_F32, false);
}

static void check_dots_f16(void) {
    check_tiles(now.kern.dots_f16, DTYPE_F16, false);
}

static void check_dots_bf16(void) {
    check_tiles(now.kern.dots_bf16, DTYPE_BF16, false);
}

static void check_sums_f32(void) {
    check_tiles(now.kern.sums_f32, DTYPE_F32, true);
}

static void check_sums_f16(void) {
    check_tiles(now.kern.sums_f16, DTYPE_F16, true);
}

static void check_sums_i8(void) {
    check_tiles(now.kern.sums_i8, DTYPE_I8, true);
}

/* --- exponentials --- */

enum { EXP_LENGTHS = 67, EXP_SWEEP = 40000 };

/* From here on results are numbers of full precision. */
static const float exp_least = -87.3f;

static bool exp_close(float got, float x) {
    if (isnan(x)) return isnan(got);
    if (x == -INFINITY) return half_to_bits(got) == 0;
    if (x < exp_least) return got >= 0 && got <= 0x1.1p-126;
    return fabs(got - exp(x)) <= 4 * 0x1p-23 * exp(x);
}

/* What *most must become. */
static float largest_of(const float *x, float most, size_t n) {
    for (size_t i = 0; i < n; i++) most = x[i] > most ? x[i] : most;
    return most;
}

/* The new maximum, each value, and the sum within n / 2^24; the sum is returned for more checks. */
static float check_softmax(const float *x, float before, size_t n, int at) {
    float most = before, top = largest_of(x, before, n);
    now.n = n;
    place(&tile_out, at, x, sizeof *x * n);
    float sum = now.kern.online_softmax((float *)tile_out.data, &most, n);
    CHECK_MSG(margins_intact(&tile_out) && same_float(most, top),
              "online_softmax at level %s: most is %a, not %a, or it writes outside: n = %zu",
              now.level, most, top, n);
    const float *y = (const float *)tile_out.data;
    double exact = 0;
    for (size_t i = 0; i < n && check_ok; i++) {
        CHECK_MSG(exp_close(y[i], x[i] - top),
                  "online_softmax at level %s: exp(%.9g) is %.9g: %zu of %zu", now.level,
                  x[i] - top, y[i], i, n);
        exact += y[i];
    }
    CHECK_MSG(is_close(sum, exact, ((double)n + 8) * 0x1p-24 * exact),
              "online_softmax at level %s: the sum is %.9g, not %.9g: n = %zu", now.level, sum,
              exact, n);
    return sum;
}

static void check_softmax_nan(float *x, size_t n) {
    for (size_t odd = 0; odd < n && check_ok; odd++) {
        float kept = x[odd];
        x[odd] = half_from_bits(0x7fc12345);
        float sum = check_softmax(x, 0.75f, n, AT_END);
        CHECK_MSG(isnan(sum), "online_softmax at level %s loses a NaN: %zu of %zu", now.level, odd,
                  n);
        x[odd] = kept;
    }
}

/* The largest is the one before, or stands anywhere. */
static void check_softmax_lengths(void) {
    float x[EXP_LENGTHS];
    for (size_t n = 0; n < EXP_LENGTHS && check_ok; n++) {
        for (size_t i = 0; i < n; i++) x[i] = 12 * draw_uniform() - 10;
        float sum = check_softmax(x, 2.5f, n, AT_END);
        for (int at = 0; at < 64; at += 4) {
            CHECK_MSG(same_float(check_softmax(x, 2.5f, n, at), sum),
                      "online_softmax at level %s depends on where its array lies: n = %zu",
                      now.level, n);
        }
        for (size_t i = 0; i < n; i++) {
            float one = ((const float *)tile_out.data)[i], y = x[i], most = 2.5f;
            float only = now.kern.online_softmax(&y, &most, 1);
            CHECK_MSG(same_float(y, one) && same_float(only, one),
                      "online_softmax at level %s: %a is %a alone: %zu of %zu", now.level, one, y,
                      i, n);
        }
        check_softmax_nan(x, n);
        check_softmax(x, -INFINITY, n, AT_END);
        for (size_t i = 0; i < n; i++) {
            float kept = x[i];
            x[i] = 7;
            check_softmax(x, 0, n, AT_END);
            x[i] = kept;
        }
    }
}

static void check_online_softmax(void) {
    static const float edges[] = {0,     -0.0f,  -1e-30f, -87.2f, -87.31f, -88, -104,     -200,
                                  3e38f, -1e30f, -3e38f,  -0.5f,  -20,     88,  -INFINITY};
    static float x[EXP_SWEEP];
    check_softmax_lengths();
    for (size_t i = 0; i < EXP_SWEEP; i++) x[i] = -87.3f + (float)i * 87.3f / EXP_SWEEP;
    for (size_t from = 0; from < EXP_SWEEP && check_ok; from += 1000) {
        float shift = from % 2000 ? 0 : 3.25f;
        for (size_t i = from; i < from + 1000; i++) x[i] += shift;
        check_softmax(x + from, shift, 1000, AT_END);
    }
    for (size_t i = 0; i < sizeof edges / sizeof *edges && check_ok; i++) {
        for (size_t n = 1; n < 34; n += 16) {
            for (size_t k = 0; k < n; k++) x[k] = k + 1 == n ? edges[i] : -1;
            check_softmax(x, 0, n, AT_END);
        }
    }
}

#endif
