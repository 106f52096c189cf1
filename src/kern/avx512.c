/* AVX-512 F, BW, DQ, VL: sixteen floats a vector, and masks for what is left at the end. */
#include <immintrin.h>

#include "kern/kern.h"

enum { LANES = 16, ALL = 0xffff };

/* The elements of sixteen that the mask selects, at any alignment, as f32; zeros elsewhere, and
 * nothing is read there. */
typedef __m512 load_fn(__mmask16 mask, const unsigned char *w);

static inline __m512 f32_at(__mmask16 mask, const unsigned char *w) {
    return _mm512_maskz_loadu_ps(mask, w);
}

static inline __m512 f16_at(__mmask16 mask, const unsigned char *w) {
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, w));
}

static inline __m512 bf16_at(__mmask16 mask, const unsigned char *w) {
    __m512i bits = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, w));
    return _mm512_castsi512_ps(_mm512_slli_epi32(bits, 16));
}

/* Selects the first n < LANES elements. */
static inline __mmask16 first(size_t n) {
    return (__mmask16)((1u << n) - 1);
}

/* Four sums, so that an addition need not wait for the last. The order depends on n alone. */
static inline float dot(const float *x, const void *row, size_t n, load_fn *load, size_t bytes) {
    const unsigned char *w = row;
    __m512 s0 = _mm512_setzero_ps(), s1 = s0, s2 = s0, s3 = s0;
    size_t i = 0, step = LANES * bytes;
    for (; i + 4 * LANES <= n; i += 4 * LANES, w += 4 * step) {
        s0 = _mm512_fmadd_ps(load(ALL, w), _mm512_loadu_ps(x + i), s0);
        s1 = _mm512_fmadd_ps(load(ALL, w + step), _mm512_loadu_ps(x + i + LANES), s1);
        s2 = _mm512_fmadd_ps(load(ALL, w + 2 * step), _mm512_loadu_ps(x + i + 2 * LANES), s2);
        s3 = _mm512_fmadd_ps(load(ALL, w + 3 * step), _mm512_loadu_ps(x + i + 3 * LANES), s3);
    }
    for (; i + LANES <= n; i += LANES, w += step) {
        s0 = _mm512_fmadd_ps(load(ALL, w), _mm512_loadu_ps(x + i), s0);
    }
    if (i < n) {
        __mmask16 mask = first(n - i);
        s1 = _mm512_fmadd_ps(load(mask, w), _mm512_maskz_loadu_ps(mask, x + i), s1);
    }
    return _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(s0, s1), _mm512_add_ps(s2, s3)));
}

static float dot_f32(const float *x, const void *w, size_t n) {
    return dot(x, w, n, f32_at, 4);
}

static float dot_f16(const float *x, const void *w, size_t n) {
    return dot(x, w, n, f16_at, 2);
}

static float dot_bf16(const float *x, const void *w, size_t n) {
    return dot(x, w, n, bf16_at, 2);
}

static inline void axpy(float *y, float a, const void *row, size_t n, load_fn *load, size_t bytes) {
    const unsigned char *w = row;
    __m512 factor = _mm512_set1_ps(a);
    size_t i = 0;
    for (; i + LANES <= n; i += LANES, w += LANES * bytes) {
        _mm512_storeu_ps(y + i, _mm512_fmadd_ps(load(ALL, w), factor, _mm512_loadu_ps(y + i)));
    }
    if (i < n) {
        __mmask16 mask = first(n - i);
        __m512 old = _mm512_maskz_loadu_ps(mask, y + i);
        _mm512_mask_storeu_ps(y + i, mask, _mm512_fmadd_ps(load(mask, w), factor, old));
    }
}

static void axpy_f32(float *y, float a, const void *w, size_t n) {
    axpy(y, a, w, n, f32_at, 4);
}

static void axpy_f16(float *y, float a, const void *w, size_t n) {
    axpy(y, a, w, n, f16_at, 2);
}

static inline void load_row(float *y, const void *row, size_t n, load_fn *load, size_t bytes) {
    const unsigned char *w = row;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES, w += LANES * bytes) _mm512_storeu_ps(y + i, load(ALL, w));
    if (i < n) _mm512_mask_storeu_ps(y + i, first(n - i), load(first(n - i), w));
}

static void load_f16(float *y, const void *w, size_t n) {
    load_row(y, w, n, f16_at, 2);
}

static void load_bf16(float *y, const void *w, size_t n) {
    load_row(y, w, n, bf16_at, 2);
}

static inline __m256i round_f16(__m512 v) {
    return _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

static void store_f16(void *row, const float *x, size_t n) {
    unsigned char *w = row;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES, w += LANES * 2) {
        _mm256_storeu_si256((void *)w, round_f16(_mm512_loadu_ps(x + i)));
    }
    if (i < n) {
        __mmask16 mask = first(n - i);
        _mm256_mask_storeu_epi16(w, mask, round_f16(_mm512_maskz_loadu_ps(mask, x + i)));
    }
}

const struct kern kern_avx512 = {
    .dot_f32 = dot_f32,
    .dot_f16 = dot_f16,
    .dot_bf16 = dot_bf16,
    .axpy_f32 = axpy_f32,
    .axpy_f16 = axpy_f16,
    .load_f16 = load_f16,
    .load_bf16 = load_bf16,
    .store_f16 = store_f16,
};
