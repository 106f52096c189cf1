/* Every kernel in plain C: the meaning of the others, and all that an unknown CPU gets. */
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

static void load_f16(float *y, const void *w, size_t n) {
    for (size_t i = 0; i < n; i++) y[i] = f16_at(w, i);
}

static void load_bf16(float *y, const void *w, size_t n) {
    for (size_t i = 0; i < n; i++) y[i] = bf16_at(w, i);
}

static void store_f16(void *w, const float *x, size_t n) {
    for (size_t i = 0; i < n; i++) half_store_u16((unsigned char *)w + 2 * i, half_to_f16(x[i]));
}

const struct kern kern_scalar = {
#define KERNEL(name, result, params) .name = name,
#include "kern/kern.def"
#undef KERNEL
};
