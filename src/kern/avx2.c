/* AVX2, FMA and F16C: eight floats a vector. */
#include <immintrin.h>
#include <string.h>

#include "kern/kern.h"

enum { LANES = 8 };

/* Eight elements of a row, at any alignment, as f32. */
typedef __m256 load_fn(const unsigned char *w);

static inline __m256 f32_at(const unsigned char *w) {
    return _mm256_loadu_ps((const void *)w);
}

static inline __m256 f16_at(const unsigned char *w) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const void *)w));
}

static inline __m256 bf16_at(const unsigned char *w) {
    __m256i bits = _mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)w));
    return _mm256_castsi256_ps(_mm256_slli_epi32(bits, 16));
}

/* The last n < LANES elements, zeros after them: nothing is read beyond the row. */
static inline __m256 load_rest(const unsigned char *w, size_t n, load_fn *load, size_t bytes) {
    unsigned char rest[LANES * sizeof(float)] = {0};
    memcpy(rest, w, bytes * n);
    return load(rest);
}

/* Selects the first n <= LANES floats. */
static inline __m256i first(size_t n) {
    static const int32_t mask[2 * LANES] = {-1, -1, -1, -1, -1, -1, -1, -1};
    return _mm256_loadu_si256((const void *)(mask + LANES - n));
}

static inline float add_lanes(__m256 v) {
    __m128 sum = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
    sum = _mm_add_ss(sum, _mm_movehdup_ps(sum));
    return _mm_cvtss_f32(sum);
}

/* Four sums, so that an addition need not wait for the last. The order depends on n alone. */
static inline float dot(const float *x, const void *row, size_t n, load_fn *load, size_t bytes) {
    const unsigned char *w = row;
    __m256 s0 = _mm256_setzero_ps(), s1 = s0, s2 = s0, s3 = s0;
    size_t i = 0, step = LANES * bytes;
    for (; i + 4 * LANES <= n; i += 4 * LANES, w += 4 * step) {
        s0 = _mm256_fmadd_ps(load(w), _mm256_loadu_ps(x + i), s0);
        s1 = _mm256_fmadd_ps(load(w + step), _mm256_loadu_ps(x + i + LANES), s1);
        s2 = _mm256_fmadd_ps(load(w + 2 * step), _mm256_loadu_ps(x + i + 2 * LANES), s2);
        s3 = _mm256_fmadd_ps(load(w + 3 * step), _mm256_loadu_ps(x + i + 3 * LANES), s3);
    }
    for (; i + LANES <= n; i += LANES, w += step) {
        s0 = _mm256_fmadd_ps(load(w), _mm256_loadu_ps(x + i), s0);
    }
    if (i < n) {
        __m256 last = _mm256_maskload_ps(x + i, first(n - i));
        s1 = _mm256_fmadd_ps(load_rest(w, n - i, load, bytes), last, s1);
    }
    return add_lanes(_mm256_add_ps(_mm256_add_ps(s0, s1), _mm256_add_ps(s2, s3)));
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
    __m256 factor = _mm256_set1_ps(a);
    size_t i = 0;
    for (; i + LANES <= n; i += LANES, w += LANES * bytes) {
        _mm256_storeu_ps(y + i, _mm256_fmadd_ps(load(w), factor, _mm256_loadu_ps(y + i)));
    }
    if (i < n) {
        __m256i mask = first(n - i);
        __m256 old = _mm256_maskload_ps(y + i, mask), rest = load_rest(w, n - i, load, bytes);
        _mm256_maskstore_ps(y + i, mask, _mm256_fmadd_ps(rest, factor, old));
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
    for (; i + LANES <= n; i += LANES, w += LANES * bytes) _mm256_storeu_ps(y + i, load(w));
    if (i < n) _mm256_maskstore_ps(y + i, first(n - i), load_rest(w, n - i, load, bytes));
}

static void load_f16(float *y, const void *w, size_t n) {
    load_row(y, w, n, f16_at, 2);
}

static void load_bf16(float *y, const void *w, size_t n) {
    load_row(y, w, n, bf16_at, 2);
}

static inline __m128i round_f16(__m256 v) {
    return _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

static void store_f16(void *row, const float *x, size_t n) {
    unsigned char *w = row;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        _mm_storeu_si128((void *)(w + 2 * i), round_f16(_mm256_loadu_ps(x + i)));
    }
    if (i < n) {
        __m128i rest = round_f16(_mm256_maskload_ps(x + i, first(n - i)));
        memcpy(w + 2 * i, &rest, 2 * (n - i));
    }
}

const struct kern kern_avx2 = {
    .dot_f32 = dot_f32,
    .dot_f16 = dot_f16,
    .dot_bf16 = dot_bf16,
    .axpy_f32 = axpy_f32,
    .axpy_f16 = axpy_f16,
    .load_f16 = load_f16,
    .load_bf16 = load_bf16,
    .store_f16 = store_f16,
};
