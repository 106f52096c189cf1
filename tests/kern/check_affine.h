/* affine_rows and affine_strip: every width, group and type of scales, at sizes that cover parts of
 * vectors, strips and chunks. The products of affine_rows are compared with exact ones of the same
 * packed activations, those of affine_strip with affine_rows bit for bit. Whatever part of a matrix
 * and of the tokens a call is given, and wherever its arrays lie, an output has the same bits. */
#ifndef NIBBLE_TESTS_KERN_CHECK_AFFINE_H
#define NIBBLE_TESTS_KERN_CHECK_AFFINE_H

#include "fixture.h"
#include "kern/stream.h"
#include "num/affine.h"

enum { MOST_ROWS = 40, MOST_TOKENS = 13, MOST_COLS = 44 * 128, MOST_GAP = 19 };
enum { MOST_STRIDE = MOST_COLS + 128 }; /* packed_stride rounds up to an odd number of 128 */
enum { MOST_GROUPS = MOST_COLS / 32, PLANES = MAT_PLANES };

static struct buffer planes[PLANES], packed_codes, packed_scales, packed_shifts, packed_sums,
    products, tiles;

/* The whole product that is being checked; its planes and arrays lie here. */
static struct {
    struct mat mat;
    struct packed x;
    unsigned char plane[PLANES][MOST_ROWS * MOST_COLS]; /* enough for f32 scales too */
    int8_t codes[MOST_TOKENS * MOST_STRIDE];
    float scales[MOST_TOKENS * MOST_GROUPS], sums[MOST_TOKENS * MOST_GROUPS];
    float shifts[MOST_TOKENS * MOST_GROUPS];
    float y[MOST_TOKENS * MOST_ROWS]; /* what affine_rows makes of it in one call */
} whole;

/* What a call is given of it. */
struct part {
    size_t row, count, token, n, stride;
    int at;
};

static void open_affine_buffers(void) {
    for (int i = 0; i < PLANES; i++) open_buffer(&planes[i], sizeof whole.plane[i]);
    open_buffer(&packed_codes, sizeof whole.codes);
    open_buffer(&packed_scales, sizeof whole.scales);
    open_buffer(&packed_shifts, sizeof whole.shifts);
    open_buffer(&packed_sums, sizeof whole.sums);
    open_buffer(&products, MOST_TOKENS * (MOST_ROWS + MOST_GAP) * sizeof(float));
    open_buffer(&tiles, KERN_SCRATCH);
}

/* --- values ----------------------------------------------------------------------------------- */

/* EXACT: no step rounds, no scale or activation is 0. LARGEST: codes and activations as large as
 * they come, of one sign. SMALL_SCALES: denormal. APART: a row and a token with what is not finite,
 * which must not reach the others. */
enum affine_values { EXACT, SPREAD, LARGEST, SMALL_SCALES, APART, AFFINE_VALUES };

static float draw_scale(void) {
    if (now.values == EXACT) return (float)(1 + draw_bits() % 2) * (draw_bits() & 1 ? 1 : -1);
    if (now.values == SMALL_SCALES) return draw_uniform() * 0x1p-14f;
    return ldexpf(draw_uniform(), -(int)(draw_bits() % 12));
}

static void put_scale(unsigned char *p, enum dtype dtype, float f) {
    if (dtype == DTYPE_F32) {
        if (now.values == SMALL_SCALES) f *= 0x1p-112f;
        memcpy(p, &f, sizeof f);
    } else if (dtype == DTYPE_BF16) {
        half_store_u16(p, half_to_bf16(now.values == SMALL_SCALES ? f * 0x1p-112f : f));
    } else {
        half_store_u16(p, half_to_f16(f));
    }
}

static void fill_weights(size_t rows, size_t groups) {
    struct mat *w = &whole.mat;
    size_t bytes = dtype_bytes(w->dtype), odd = draw_bits() % rows;
    for (size_t i = 0; i < rows * w->stride[0]; i++) {
        bool full = now.values == LARGEST && i / w->stride[0] != odd;
        whole.plane[0][i] = full ? 0xff : (unsigned char)draw_bits();
    }
    for (size_t i = 0; i < rows * groups; i++) {
        put_scale(whole.plane[1] + bytes * i, w->dtype, draw_scale());
        put_scale(whole.plane[2] + bytes * i, w->dtype, draw_scale());
    }
    if (now.values != APART) return;
    size_t i = odd * groups + draw_bits() % groups;
    enum values v = draw_bits() % 2 ? INFINITE : NAN_ONCE;
    put_scale(whole.plane[1 + draw_bits() % 2] + bytes * i, w->dtype, special(v));
}

static int draw_code(int sign) {
    if (now.values == EXACT) return (1 + (int)(draw_bits() % 3)) * (draw_bits() & 1 ? 1 : -1);
    return now.values == LARGEST ? sign * 127 : (int)(draw_bits() % 255) - 127;
}

static void fill_packed_group(size_t t, size_t g, size_t groups, bool finite) {
    size_t group = (size_t)whole.x.group;
    int8_t *codes = whole.codes + t * whole.x.stride;
    int sum = 0;
    float d = fabsf(draw_scale());
    for (size_t i = g * group; i < (g + 1) * group; i++) {
        int code = finite ? draw_code(t % 2 ? 1 : -1) : 0;
        codes[packed_place(whole.x.order, i)] = (int8_t)code;
        sum += code;
    }
    if (now.values == SMALL_SCALES) d = 1 + d;
    if (!finite) d = draw_bits() % 2 ? INFINITY : NAN;
    if (finite) d = half_from_bits(half_to_bits(d) & ~3u);
    whole.scales[t * groups + g] = d;
    whole.shifts[t * groups + g] = -PACKED_SHIFT * d;
    whole.sums[t * groups + g] = d * (float)sum;
}

static void fill_packed(size_t groups) {
    size_t odd = now.values == APART ? draw_bits() % whole.x.n : whole.x.n;
    size_t broken = draw_bits() % groups;
    memset(whole.codes, 0, whole.x.n * whole.x.stride);
    for (size_t t = 0; t < whole.x.n; t++) {
        for (size_t g = 0; g < groups; g++) {
            fill_packed_group(t, g, groups, t != odd || g != broken);
        }
    }
}

static void make_whole(int bits, int group, enum dtype dtype, size_t rows, size_t groups,
                       size_t tokens) {
    size_t cols = groups * (size_t)group;
    whole.mat =
        affine_mat(rows, cols, bits, group, dtype, whole.plane[0], whole.plane[1], whole.plane[2]);
    whole.x = (struct packed){.n = tokens,
                              .cols = cols,
                              .group = group,
                              .order = packed_order_of(bits),
                              .stride = packed_stride(cols),
                              .codes = whole.codes,
                              .scales = whole.scales,
                              .shifts = whole.shifts,
                              .sums = whole.sums};
    fill_weights(rows, groups);
    fill_packed(groups);
}

/* --- calls ------------------------------------------------------------------------------------ */

static void describe(const struct part *p) {
    const struct mat *w = &whole.mat;
    snprintf(now.what, sizeof now.what,
             ", %d bits by %d, %s, [%zu, %zu], values %zu: %zu rows from %zu, %zu tokens from %zu, "
             "stride %zu, place %d",
             w->bits, w->group, dtype_name(w->dtype), w->rows, w->cols, now.values, p->count,
             p->row, p->n, p->token, p->stride, p->at);
}

/* Another place for each array, such that every one sees all 64 alignments; arrays of floats 16. */
static int place_of(int at, int array) {
    return at == AT_END ? AT_END : at * (2 * array + 1) % 64;
}

static float *place_floats(struct buffer *b, int at, const float *content, size_t n) {
    place(b, at == AT_END ? AT_END : at * 4 % 64, content, n * sizeof(float));
    return (float *)(void *)b->data;
}

/* The matrix as far as the part needs it: what ends at the guard page are its last rows. */
static struct mat place_weights(const struct part *p) {
    struct mat w = whole.mat;
    w.rows = p->row + p->count;
    for (int i = 0; i < PLANES; i++) {
        place(&planes[i], place_of(p->at, i), whole.plane[i], w.rows * w.stride[i]);
        w.plane[i] = planes[i].data;
    }
    return w;
}

static struct packed place_tokens(const struct part *p) {
    struct packed x = whole.x;
    size_t groups = x.cols / (size_t)x.group, first = p->token * groups;
    x.n = p->n;
    place(&packed_codes, place_of(p->at, 4), whole.codes + p->token * x.stride, x.n * x.stride);
    x.codes = (int8_t *)packed_codes.data;
    x.scales = place_floats(&packed_scales, p->at, whole.scales + first, x.n * groups);
    x.shifts = place_floats(&packed_shifts, place_of(p->at, 5), whole.shifts + first, x.n * groups);
    x.sums = place_floats(&packed_sums, place_of(p->at, 1), whole.sums + first, x.n * groups);
    return x;
}

/* Leaves the outputs in `products`. */
static void call(const struct part *p, bool strip) {
    struct mat w = place_weights(p);
    struct packed x = place_tokens(p);
    size_t floats_of_y = p->n ? (p->n - 1) * p->stride + p->count : 0;
    float *y = place_floats(&products, place_of(p->at, 2), NULL, floats_of_y);
    place(&tiles, AT_END, NULL, KERN_SCRATCH);
    describe(p);
    if (strip)
        now.kern.affine_strip(y, p->stride, &w, p->row, p->count, &x, tiles.data);
    else
        now.kern.affine_rows(y, p->stride, &w, p->row, p->count, &x);
}

static void check_only_outputs_written(const struct part *p) {
    const unsigned char *gap = products.data + p->count * sizeof(float);
    bool intact = margins_intact(&products) && margins_intact(&tiles);
    for (size_t t = 0; t + 1 < p->n; t++, gap += p->stride * sizeof(float)) {
        intact = intact && memcmp(gap, canary, (p->stride - p->count) * sizeof(float)) == 0;
    }
    CHECK_MSG(intact, "%s at level %s writes beyond its outputs%s", now.kernel, now.level,
              now.what);
    for (int i = 0; i < PLANES; i++) intact = intact && margins_intact(&planes[i]);
    CHECK_MSG(intact, "%s at level %s writes to its weights%s", now.kernel, now.level, now.what);
}

/* The part again has the bits that it has in the whole. */
static void check_part(const struct part *p, bool strip) {
    size_t wrong = 0, first = 0;
    call(p, strip);
    check_only_outputs_written(p);
    for (size_t i = p->n * p->count; i-- > 0;) {
        size_t t = i / p->count, row = i % p->count;
        float got, want = whole.y[(p->token + t) * whole.mat.rows + p->row + row];
        memcpy(&got, products.data + (t * p->stride + row) * sizeof got, sizeof got);
        if (memcmp(&got, &want, sizeof got) == 0 || (isnan(got) && isnan(want))) continue;
        first = i;
        wrong++;
    }
    CHECK_MSG(!wrong, "%s at level %s: %zu outputs have other bits, first row %zu, token %zu%s",
              now.kernel, now.level, wrong, p->row + first % p->count, p->token + first / p->count,
              now.what);
}

/* --- exact products --------------------------------------------------------------------------- */

/* Codes one a byte, in the order of columns. */
static uint8_t row_codes[MOST_COLS];
static int8_t token_codes[MOST_TOKENS * MOST_COLS];

static void unpack_row(size_t row) {
    const unsigned char *bytes = whole.plane[0] + row * whole.mat.stride[0];
    for (size_t i = 0, bit = 0; i < whole.mat.cols; i++) {
        unsigned code = 0;
        for (int k = 0; k < whole.mat.bits; k++, bit++) {
            code |= ((unsigned)bytes[bit / 8] >> bit % 8 & 1u) << k;
        }
        row_codes[i] = (uint8_t)code;
    }
}

static void unpack_tokens(void) {
    const struct packed *x = &whole.x;
    for (size_t i = 0; i < x->n * x->cols; i++) {
        size_t t = i / x->cols, col = i % x->cols;
        token_codes[i] = x->codes[t * x->stride + packed_place(x->order, col)];
    }
}

static float scale_of(int plane, size_t i) {
    const unsigned char *p = whole.plane[plane];
    float f;
    if (whole.mat.dtype == DTYPE_F16) return half_from_f16(half_load_u16(p + 2 * i));
    if (whole.mat.dtype == DTYPE_BF16) return half_from_bf16(half_load_u16(p + 2 * i));
    memcpy(&f, p + 4 * i, sizeof f);
    return f;
}

/* The output of the row in row_codes, and how far rounding may lead away from it: each group adds
 * two terms to a sum, one of them a product that is rounded before. */
static double exact_output(size_t row, size_t t, double *bound) {
    size_t group = (size_t)whole.mat.group, groups = whole.mat.cols / group;
    double y = 0, magnitude = 0;
    for (size_t g = 0; g < groups; g++) {
        const uint8_t *q = row_codes + g * group;
        const int8_t *a = token_codes + t * whole.mat.cols + g * group;
        int dot = 0;
        for (size_t i = 0; i < group; i++) dot += q[i] * a[i];
        double s = scale_of(1, row * groups + g), z = scale_of(2, row * groups + g);
        double first = s * ((double)whole.scales[t * groups + g] * dot);
        double second = z * (double)whole.sums[t * groups + g];
        y += first + second;
        magnitude += fabs(first) + fabs(second);
    }
    *bound = now.values == EXACT && magnitude < 0x1p24
                 ? 0
                 : ((double)groups + 4) * (0x1p-23 * magnitude + 0x1p-149);
    return y;
}

static void check_outputs(void) {
    unpack_tokens();
    for (size_t row = 0; row < whole.mat.rows && check_ok; row++) {
        unpack_row(row);
        for (size_t t = 0; t < whole.x.n; t++) {
            double bound, exact = exact_output(row, t, &bound);
            float got = whole.y[t * whole.mat.rows + row];
            CHECK_MSG(is_close(got, exact, bound),
                      "%s at level %s: row %zu, token %zu: %.9g is not %.9g within %.3g%s",
                      now.kernel, now.level, row, t, got, exact, bound, now.what);
        }
    }
}

/* --- cases ------------------------------------------------------------------------------------ */

static size_t draw_below(size_t n) {
    return n ? draw_bits() % n : 0;
}

/* Nothing at all is written for no rows and no tokens. */
static void check_none(bool strip) {
    struct part none = {.count = draw_bits() % 2, .stride = 1, .at = AT_END};
    none.n = !none.count;
    check_part(&none, strip);
}

/* One row alone, all rows of one token, any part; the last two of them at changing places. */
static void check_parts(bool strip) {
    size_t rows = whole.mat.rows, n = whole.x.n;
    static int at;
    for (int i = 0; i < 4 && check_ok; i++) {
        struct part p = {.row = i == 1 ? 0 : draw_below(rows), .token = i == 0 ? 0 : draw_below(n)};
        p.count = i == 0 ? 1 : i == 1 ? rows : 1 + draw_below(rows - p.row);
        p.n = i == 0 ? n : i == 1 ? 1 : 1 + draw_below(n - p.token);
        p.stride = p.count + draw_below(MOST_GAP + 1);
        p.at = i < 2 ? AT_END : at;
        if (i >= 2) at = (at + 1) % 64;
        check_part(&p, strip);
    }
}

/* The body that this CPU would not take, where a width has two, makes the same bits. */
static void check_other_body(void) {
    const struct streams *here = atomic_load(&kern_streams);
    struct streams other = *here;
    struct part all = {.count = whole.mat.rows, .n = whole.x.n, .stride = whole.mat.rows};
    other.in_pairs = !other.in_pairs;
    atomic_store(&kern_streams, &other);
    check_part(&all, false);
    if (check_ok) check_parts(false);
    atomic_store(&kern_streams, here);
}

/* All of it by affine_rows in one call, which is what every part is compared with. */
static void check_whole(bool strip) {
    struct part all = {.count = whole.mat.rows, .n = whole.x.n, .stride = whole.mat.rows};
    all.at = AT_END;
    call(&all, false);
    memcpy(whole.y, products.data, products.bytes);
    if (strip)
        check_part(&all, true);
    else
        check_outputs();
    if (check_ok) check_parts(strip);
    if (check_ok && !strip) check_other_body();
    if (check_ok) check_none(strip);
}

static const int affine_widths[] = {2, 3, 4, 5, 6, 8};
static const enum dtype affine_dtypes[] = {DTYPE_F16, DTYPE_BF16, DTYPE_F32};

/* Rows, tokens and kinds of values change with i, so that with steps prime to one another all of
 * them meet all formats and sizes. */
static void check_case(int bits, int group, enum dtype dtype, size_t groups, size_t i, bool strip) {
    size_t rows = 1 + i * 7 % MOST_ROWS, tokens = 1 + i * 5 % MOST_TOKENS;
    now.values = i % AFFINE_VALUES;
    make_whole(bits, group, dtype, rows, groups, tokens);
    check_whole(strip);
}

static void check_affine(bool strip) {
    size_t i = 0;
    for (int b = 0; b < 6; b++) {
        for (int group = 32; group <= 128; group *= 2) {
            /* up to where a chunk of 2048 columns ends, around it, and two of them and more */
            size_t chunk = 2048 / (size_t)group;
            const size_t many[] = {11, 23, 44, chunk - 1, chunk, chunk + 1, 2 * chunk + 1};
            for (int d = 0; d < 3; d++) {
                for (size_t n = 1; n <= 9 && check_ok; n++, i++) {
                    check_case(affine_widths[b], group, affine_dtypes[d], n, i, strip);
                }
            }
            for (size_t n = 0; n < sizeof many / sizeof *many && check_ok; n++, i++) {
                check_case(affine_widths[b], group, affine_dtypes[i % 3], many[n], i, strip);
            }
        }
    }
}

static void check_affine_rows(void) {
    check_affine(false);
}

static void check_affine_strip(void) {
    check_affine(true);
}

#endif
