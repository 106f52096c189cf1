/* Every kernel in plain C: the meaning of the others, and all that an unknown CPU gets. */
#include <math.h>
#include <string.h>

#include "kern/kern.h"
#include "num/half.h"

/* Element i of a row at any alignment. */
static float f32_at(const void *w, size_t i) {
    float f;
    memcpy(&f, (const unsigned char *)w + sizeof f * i, sizeof f);
    return f;
}

static float f16_at(const void *w, size_t i) {
    return half_from_f16(half_load_u16((const unsigned char *)w + 2 * i));
}

static float bf16_at(const void *w, size_t i) {
    return half_from_bf16(half_load_u16((const unsigned char *)w + 2 * i));
}

/* A dot product runs in this many partial sums, as the other levels' do: the error grows with
 * n / LANES, and one addition need not wait for the last. */
enum { LANES = 8 };

static float add_lanes(const float *sum) {
    float total = 0;
    for (size_t lane = 0; lane < LANES; lane++) total += sum[lane];
    return total;
}

static float dot_f32(const float *x, const void *w, size_t n) {
    float sum[LANES] = {0};
    for (size_t i = 0; i < n; i++) sum[i % LANES] += x[i] * f32_at(w, i);
    return add_lanes(sum);
}

static float dot_f16(const float *x, const void *w, size_t n) {
    float sum[LANES] = {0};
    for (size_t i = 0; i < n; i++) sum[i % LANES] += x[i] * f16_at(w, i);
    return add_lanes(sum);
}

static float dot_bf16(const float *x, const void *w, size_t n) {
    float sum[LANES] = {0};
    for (size_t i = 0; i < n; i++) sum[i % LANES] += x[i] * bf16_at(w, i);
    return add_lanes(sum);
}

static void axpy_f32(float *y, float a, const void *w, size_t n) {
    for (size_t i = 0; i < n; i++) y[i] += a * f32_at(w, i);
}

static void axpy_f16(float *y, float a, const void *w, size_t n) {
    for (size_t i = 0; i < n; i++) y[i] += a * f16_at(w, i);
}

static void axpy_i8(float *y, float a, const void *w, size_t n) {
    for (size_t i = 0; i < n; i++) y[i] += a * (float)((const int8_t *)w)[i];
}

static void load_f16(float *y, const void *w, size_t n) {
    for (size_t i = 0; i < n; i++) y[i] = f16_at(w, i);
}

static void load_bf16(float *y, const void *w, size_t n) {
    for (size_t i = 0; i < n; i++) y[i] = bf16_at(w, i);
}

static void load_i8(float *y, const void *w, size_t n) {
    for (size_t i = 0; i < n; i++) y[i] = ((const int8_t *)w)[i];
}

static void store_f16(void *w, const float *x, size_t n) {
    for (size_t i = 0; i < n; i++) half_store_u16((unsigned char *)w + 2 * i, half_to_f16(x[i]));
}

/* --- affine weights --------------------------------------------------------------------------- */

/* Code number i of a row's bit stream: at most two bytes hold it, and the second may not be there.
 */
static int code_at(const unsigned char *row, size_t i, int bits) {
    size_t bit = i * (size_t)bits, byte = bit / 8;
    int shift = (int)(bit % 8), word = row[byte];
    if (shift + bits > 8) word |= row[byte + 1] << 8;
    return word >> shift & ((1 << bits) - 1);
}

static float scale_at(const struct mat *w, int plane, size_t row, size_t i) {
    const unsigned char *p = w->plane[plane] + row * w->stride[plane];
    return w->dtype == DTYPE_F16    ? f16_at(p, i)
           : w->dtype == DTYPE_BF16 ? bf16_at(p, i)
                                    : f32_at(p, i);
}

/* The group that begins with element `begin` of a token. */
static void pack_group(const struct packed *p, const float *x, size_t begin, int8_t *codes,
                       size_t at) {
    float max = 0;
    int sum = 0;
    bool nan = false;
    x += begin;
    for (int i = 0; i < p->group; i++) {
        nan |= x[i] != x[i];
        max = fabsf(x[i]) > max ? fabsf(x[i]) : max;
    }
    float unit = 127 / max;
    bool usable = !nan && packed_usable(max);
    for (int i = 0; i < p->group; i++) {
        int code = usable ? (int)rintf(x[i] * unit) : 0;
        codes[packed_place(p->order, begin + (size_t)i)] = (int8_t)code;
        sum += code;
    }
    float d = packed_scale(nan ? NAN : max);
    p->scales[at] = d;
    p->shifts[at] = -PACKED_SHIFT * d;
    p->sums[at] = d * (float)sum;
}

static void affine_pack(const struct packed *p, const float *x, size_t begin, size_t end) {
    size_t group = (size_t)p->group, groups = p->cols / group;
    for (size_t t = begin; t < end; t++) {
        memset(p->codes + t * p->stride, 0, p->stride);
        for (size_t g = 0; g < groups; g++) {
            pack_group(p, x + t * p->cols, g * group, p->codes + t * p->stride, t * groups + g);
        }
    }
}

static float affine_dot(const struct mat *w, size_t row, const struct packed *x, size_t t) {
    size_t group = (size_t)w->group, groups = w->cols / group;
    const unsigned char *codes = w->plane[0] + row * w->stride[0];
    const int8_t *a = x->codes + t * x->stride;
    float y = 0;
    for (size_t g = 0; g < groups; g++) {
        int dot = 0;
        for (size_t i = g * group; i < (g + 1) * group; i++) {
            dot += code_at(codes, i, w->bits) * a[packed_place(x->order, i)];
        }
        y += scale_at(w, 1, row, g) * (x->scales[t * groups + g] * (float)dot);
        y += scale_at(w, 2, row, g) * x->sums[t * groups + g];
    }
    return y;
}

static void affine_rows(float *y, size_t stride, const struct mat *w, size_t row, size_t count,
                        const struct packed *x) {
    for (size_t t = 0; t < x->n; t++) {
        for (size_t i = 0; i < count; i++) y[t * stride + i] = affine_dot(w, row + i, x, t);
    }
}

static void affine_strip(float *y, size_t stride, const struct mat *w, size_t row, size_t count,
                         const struct packed *x, void *scratch) {
    (void)scratch;
    affine_rows(y, stride, w, row, count, x);
}

/* --- several rows, several tokens ------------------------------------------------------------- */

typedef float dot_fn(const float *x, const void *w, size_t n);
typedef void axpy_fn(float *y, float a, const void *w, size_t n);

static void dots(float *y, size_t y_stride, const float *x, size_t x_stride, size_t n,
                 const void *w, size_t w_stride, size_t rows, size_t cols, dot_fn *dot) {
    for (size_t t = 0; t < n; t++) {
        for (size_t r = 0; r < rows; r++) {
            const unsigned char *row = (const unsigned char *)w + r * w_stride;
            y[t * y_stride + r] = dot(x + t * x_stride, row, cols);
        }
    }
}

static void sums(float *y, size_t y_stride, const float *p, size_t p_stride, size_t n,
                 const void *w, size_t w_stride, size_t rows, size_t cols, axpy_fn *axpy) {
    for (size_t t = 0; t < n; t++) {
        for (size_t j = 0; j < rows; j++) {
            const unsigned char *row = (const unsigned char *)w + j * w_stride;
            axpy(y + t * y_stride, p[t * p_stride + j], row, cols);
        }
    }
}

#define TILE(name, of, one)                                                                        \
    static void name(float *y, size_t y_stride, const float *x, size_t x_stride, size_t n,         \
                     const void *w, size_t w_stride, size_t rows, size_t cols) {                   \
        of(y, y_stride, x, x_stride, n, w, w_stride, rows, cols, one);                             \
    }
TILE(dots_f32, dots, dot_f32)
TILE(dots_f16, dots, dot_f16)
TILE(dots_bf16, dots, dot_bf16)
TILE(sums_f32, sums, axpy_f32)
TILE(sums_f16, sums, axpy_f16)
TILE(sums_i8, sums, axpy_i8)

static float online_softmax(float *x, float *max, size_t n) {
    float sum = 0;
    for (size_t i = 0; i < n; i++) *max = x[i] > *max ? x[i] : *max;
    for (size_t i = 0; i < n; i++) sum += x[i] = expf(x[i] - *max);
    return sum;
}

/* --- gates ------------------------------------------------------------------------------------ */

static void silu_mul(float *gate, const float *up, size_t n) {
    for (size_t i = 0; i < n; i++) gate[i] = gate[i] / (1 + expf(-gate[i])) * (up ? up[i] : 1);
}

static void gelu_mul(float *gate, const float *up, size_t n) {
    for (size_t i = 0; i < n; i++) {
        double x = gate[i];
        gate[i] = (float)(0.5 * x * erfc(-x * M_SQRT1_2)) * (up ? up[i] : 1);
    }
}

static void gelu_tanh_mul(float *gate, const float *up, size_t n) {
    for (size_t i = 0; i < n; i++) {
        double x = gate[i], twice = 2 * M_2_SQRTPI * M_SQRT1_2 * (x + 0.044715 * x * x * x);
        gate[i] = (float)(x / (1 + exp(-twice))) * (up ? up[i] : 1);
    }
}

static void clamped_swiglu(float *gate, const float *up, size_t n) {
    for (size_t i = 0; i < n; i++) {
        double x = gate[i] > 7 ? 7 : gate[i], y = up[i] > 7 ? 7 : up[i] < -7 ? -7 : up[i];
        gate[i] = (float)((y + 1) * (x / (1 + exp(-1.702 * x))));
    }
}

/* --- measuring -------------------------------------------------------------------------------- */

static uint32_t peak_read(const void *p, size_t n, bool ahead) {
    (void)ahead;
    const unsigned char *bytes = p;
    uint32_t sum = 0, word;
    size_t i = 0;
    for (; i + sizeof word <= n; i += sizeof word) {
        memcpy(&word, bytes + i, sizeof word);
        sum += word;
    }
    word = 0;
    memcpy(&word, bytes + i, n - i);
    return sum + word;
}

/* Operands in memory of which the compiler knows nothing from one round to the next. */
enum { PRODUCTS = 64 };
#define FORGET(array) __asm__ volatile("" : : "r"(array) : "memory")

static int64_t peak_int8(uint8_t code, int8_t a, size_t rounds) {
    uint8_t codes[PRODUCTS];
    int8_t values[PRODUCTS];
    int64_t sum = 0;
    memset(codes, code, sizeof codes);
    memset(values, a, sizeof values);
    for (size_t r = 0; r < rounds; r++) {
        int dot = 0;
        FORGET(codes);
        FORGET(values);
        for (size_t i = 0; i < PRODUCTS; i++) dot += codes[i] * values[i];
        sum += dot;
    }
    return sum;
}

static double peak_f32(float w, float x, size_t rounds) {
    float weights[PRODUCTS], values[PRODUCTS], sums[PRODUCTS] = {0};
    double sum = 0;
    for (size_t i = 0; i < PRODUCTS; i++) weights[i] = w, values[i] = x;
    for (size_t r = 0; r < rounds; r++) {
        FORGET(weights);
        FORGET(values);
        for (size_t i = 0; i < PRODUCTS; i++) sums[i] += weights[i] * values[i];
    }
    for (size_t i = 0; i < PRODUCTS; i++) sum += (double)sums[i];
    return sum;
}

const struct kern kern_scalar = {
#define KERNEL(name, result, params) .name = name,
#include "kern/kern.def"
#undef KERNEL
};
