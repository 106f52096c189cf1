/* Every kernel of kern.def, at every level that this machine has, on what makes such loops fail:
 * all lengths around the vector sizes, all alignments, arrays that end at a page that faults, and
 * values that are whole, wide, zero, denormal, infinite and NaN. Conversions must be equal to those
 * of num/half.h (test_half.c), sums as close to double precision as rounding explains. This file
 * has the kernels of plain weights; those of affine ones are in check_pack.h and check_affine.h,
 * those of several rows and tokens in check_tiles.h, activations in check_gates.h, those that
 * measure in check_peaks.h. */
#include <signal.h>

#include "check_affine.h"
#include "check_gates.h"
#include "check_pack.h"
#include "check_peaks.h"
#include "check_tiles.h"
#include "fixture.h"

enum { MAX_N = 65537, WIDEST = 64 /* elements of the largest step that a kernel takes */ };

static struct buffer floats, row;

/* Places 0 to 63 are every alignment of the row and of the floats; AT_END ends at the guard. */
static void place_both(int at, const void *f, const void *w, size_t row_bytes) {
    place(&row, at, w, row_bytes);
    place(&floats, at == AT_END ? at : (at * 5 % 16) * 4, f, sizeof(float) * now.n);
}

/* An input must stay what it was: content. An output (content NULL) must be what it was at AT_END,
 * the first place, where its values are checked: where the arrays lie makes no difference. */
static void check_bytes(const struct buffer *b, const void *content, int at) {
    static unsigned char first[sizeof(float) * MAX_N];
    if (!content && at == AT_END) memcpy(first, b->data, b->bytes);
    CHECK_MSG(memcmp(b->data, content ? content : first, b->bytes) == 0,
              "%s at level %s %s: n = %zu, place %d", now.kernel, now.level,
              content ? "changes its input" : "depends on where its arrays lie", now.n, at);
    CHECK_MSG(margins_intact(b), "%s at level %s writes outside its arrays: n = %zu, place %d",
              now.kernel, now.level, now.n, at);
}

/* --- values --- */

static const struct {
    enum values floats, row;
} mixes[] = {
    {WHOLE, WHOLE},      {UNIFORM, UNIFORM}, {WIDE, WIDE},        {ZERO, UNIFORM},
    {UNIFORM, ZERO},     {ZERO, ZERO},       {UNIFORM, DENORMAL}, {DENORMAL, UNIFORM},
    {UNIFORM, INFINITE}, {INFINITE, WIDE},   {UNIFORM, NAN_ONCE}, {NAN_ONCE, UNIFORM},
};
static const enum values conversions[] = {UNIFORM, WIDE, ZERO, DENORMAL, INFINITE, BITS, TIES};

enum { MIXES = sizeof mixes / sizeof *mixes };
enum { CONVERSIONS = sizeof conversions / sizeof *conversions };
enum { LOW = -55, HIGH = 50 }; /* exponents of WIDE, such that sums of products stay finite */

static float float_data[MAX_N];
static unsigned char row_data[sizeof(float) * MAX_N];

static void fill_floats(enum values v) {
    for (size_t i = 0; i < now.n; i++) float_data[i] = draw(v, LOW, HIGH);
    if (now.n && (v == INFINITE || v == NAN_ONCE)) float_data[draw_bits() % now.n] = special(v);
}

static uint16_t draw_half(enum dtype type, enum values v, size_t i) {
    bool f16 = type == DTYPE_F16;
    if (v == BITS) return (uint16_t)(i * 40503); /* every pattern, once MAX_N are asked for */
    if (v == DENORMAL) return (uint16_t)(draw_bits() & (f16 ? 0x83ff : 0x807f));
    return f16 ? half_to_f16(draw(v, -24, 15)) : half_to_bf16(draw(v, LOW, HIGH));
}

static void put(enum dtype type, size_t i, float f) {
    if (type == DTYPE_F32) memcpy(row_data + 4 * i, &f, sizeof f);
    if (type == DTYPE_F16) half_store_u16(row_data + 2 * i, half_to_f16(f));
    if (type == DTYPE_BF16) half_store_u16(row_data + 2 * i, half_to_bf16(f));
}

static void fill_row(enum dtype type, enum values v) {
    for (size_t i = 0; i < now.n; i++) {
        if (type == DTYPE_I8) {
            row_data[i] = (unsigned char)draw_bits();
        } else if (type == DTYPE_F32) {
            put(type, i, draw(v, LOW, HIGH));
        } else {
            half_store_u16(row_data + 2 * i, draw_half(type, v, i));
        }
    }
    if (now.n && (v == INFINITE || v == NAN_ONCE)) put(type, draw_bits() % now.n, special(v));
}

static float row_at(enum dtype type, size_t i) {
    float f;
    if (type == DTYPE_F16) return half_from_f16(half_load_u16(row_data + 2 * i));
    if (type == DTYPE_BF16) return half_from_bf16(half_load_u16(row_data + 2 * i));
    if (type == DTYPE_I8) return (int8_t)row_data[i];
    memcpy(&f, row_data + 4 * i, sizeof f);
    return f;
}

/* All places with the first kind of values and lengths up to 3 * WIDEST, else four of them. */
static int next_place(int at) {
    return at - (now.values == 0 && now.n <= 3 * WIDEST ? 1 : 21);
}

static size_t next_length(size_t n) {
    static const size_t large[] = {1023, 4097, 5633, 11009};
    if (n <= 3 * WIDEST) return n + 1;
    for (size_t i = 0; i < 4; i++) {
        if (n < large[i]) return large[i];
    }
    return n < MAX_N ? MAX_N : MAX_N + 1;
}

/* --- what the kernels must compute --- */

/* The exact sum, and how far rounding may lead away from it: a kernel has at least 8 partial sums,
 * so a product is rounded once (by 2^-150 at most where it underflows) and then takes part in at
 * most n / 8 + 8 additions; each of these errors is within 2^-24 of a sum of magnitudes. */
static double sum_exactly(enum dtype type, enum values v, double *bound) {
    double sum = 0, magnitude = 0;
    for (size_t i = 0; i < now.n; i++) {
        double product = (double)float_data[i] * row_at(type, i);
        sum += product;
        magnitude += fabs(product);
    }
    double n = (double)now.n;
    *bound = v == WHOLE ? 0 : (n / 8 + 10) * 0x1p-24 * magnitude + n * 0x1p-149;
    return sum;
}

static void check_sum(float (*dot)(const float *, const void *, size_t), enum dtype type,
                      enum values v) {
    double bound, exact = sum_exactly(type, v, &bound);
    float first = 0;
    for (int at = AT_END; at >= 0 && check_ok; at = next_place(at)) {
        place_both(at, float_data, row_data, dtype_bytes(type) * now.n);
        float got = dot((float *)floats.data, row.data, now.n);
        if (at == AT_END) first = got;
        CHECK_MSG(is_close(got, exact, bound),
                  "%s at level %s: %.9g is not %.9g within %.3g: n = %zu, place %d", now.kernel,
                  now.level, got, exact, bound, now.n, at);
        CHECK_MSG(memcmp(&got, &first, sizeof got) == 0,
                  "%s at level %s depends on where its arrays lie: n = %zu, place %d", now.kernel,
                  now.level, now.n, at);
        check_bytes(&floats, float_data, at);
        check_bytes(&row, row_data, at);
    }
}

static void check_dot(float (*dot)(const float *, const void *, size_t), enum dtype type) {
    for (now.values = 0; now.values < MIXES; now.values++) {
        for (now.n = 0; now.n < MAX_N && check_ok; now.n = next_length(now.n)) {
            fill_floats(mixes[now.values].floats);
            fill_row(type, mixes[now.values].row);
            check_sum(dot, type, mixes[now.values].row);
        }
    }
}

static void check_loaded(enum dtype type) {
    for (size_t i = 0; i < now.n && check_ok; i++) {
        float got, expected = row_at(type, i);
        memcpy(&got, floats.data + sizeof got * i, sizeof got);
        bool same = isnan(expected) ? isnan(got) : half_to_bits(got) == half_to_bits(expected);
        CHECK_MSG(same, "%s at level %s: element %zu of %zu is %a, not %a", now.kernel, now.level,
                  i, now.n, got, expected);
    }
}

static void check_load(void (*load)(float *, const void *, size_t), enum dtype type) {
    for (now.values = 0; now.values < CONVERSIONS; now.values++) {
        for (now.n = 0; now.n <= MAX_N && check_ok; now.n = next_length(now.n)) {
            fill_row(type, conversions[now.values]);
            for (int at = AT_END; at >= 0 && check_ok; at = next_place(at)) {
                place_both(at, NULL, row_data, dtype_bytes(type) * now.n);
                load((float *)floats.data, row.data, now.n);
                if (at == AT_END) check_loaded(type);
                check_bytes(&floats, NULL, at);
                check_bytes(&row, row_data, at);
            }
        }
    }
}

static bool is_nan_f16(uint16_t h) {
    return (h & 0x7fff) > 0x7c00;
}

static void check_stored(void) {
    for (size_t i = 0; i < now.n && check_ok; i++) {
        uint16_t got = half_load_u16(row.data + 2 * i), expected = half_to_f16(float_data[i]);
        CHECK_MSG(got == expected || (is_nan_f16(got) && is_nan_f16(expected)),
                  "%s at level %s: element %zu of %zu, from %a, is %04x, not %04x", now.kernel,
                  now.level, i, now.n, float_data[i], got, expected);
    }
}

static void check_store_f16(void) {
    for (now.values = 0; now.values < CONVERSIONS; now.values++) {
        for (now.n = 0; now.n <= MAX_N && check_ok; now.n = next_length(now.n)) {
            fill_floats(conversions[now.values]);
            for (int at = AT_END; at >= 0 && check_ok; at = next_place(at)) {
                place_both(at, float_data, NULL, 2 * now.n);
                now.kern.store_f16(row.data, (float *)floats.data, now.n);
                if (at == AT_END) check_stored();
                check_bytes(&floats, float_data, at);
                check_bytes(&row, NULL, at);
            }
        }
    }
}

static void check_dot_f32(void) {
    check_dot(now.kern.dot_f32, DTYPE_F32);
}

static void check_load_f16(void) {
    check_load(now.kern.load_f16, DTYPE_F16);
}

static void check_load_bf16(void) {
    check_load(now.kern.load_bf16, DTYPE_BF16);
}

static void check_load_i8(void) {
    check_load(now.kern.load_i8, DTYPE_I8);
}

/* A kernel of kern.def that has no check_NAME above is an undefined name here. */
static const struct {
    const char *kernel;
    void (*check)(void);
} checks[] = {
#define KERNEL(name, result, params) {#name, check_##name},
#include "kern/kern.def"
#undef KERNEL
};

static void check_level(enum kern_level level) {
    struct error e;
    if (!kern_select(&now.kern, kern_level_name(level), &now.level, &e)) {
        printf("%s\n", e.message);
        exit(1);
    }
    for (size_t i = 0; i < sizeof checks / sizeof *checks; i++) {
        char name[64];
        snprintf(name, sizeof name, "%s at level %s", checks[i].kernel, now.level);
        now.kernel = checks[i].kernel;
        now.n = now.values = 0;
        now.what[0] = 0;
        check_run(name, checks[i].check);
    }
}

int main(void) {
    memset(canary, 0xff, sizeof canary);
    open_buffer(&floats, sizeof(float) * MAX_N);
    open_buffer(&row, sizeof(float) * MAX_N);
    open_pack_buffers();
    open_affine_buffers();
    open_tile_buffers();
    open_peak_buffers();
    signal(SIGSEGV, report_fault);
    signal(SIGBUS, report_fault);
    for (enum kern_level level = 0; level < KERN_LEVELS; level++) {
        if (kern_level_available(level)) check_level(level);
    }
    return check_done();
}
