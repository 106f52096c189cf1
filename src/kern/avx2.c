/* AVX2, FMA and F16C: eight floats a vector. */
#include <immintrin.h>
#include <string.h>

#include "kern/kern.h"

enum { LANES = 8 };

typedef __m256 vec;

static inline vec vec_all(float x) {
    return _mm256_set1_ps(x);
}

static inline vec vec_fma(vec a, vec b, vec c) {
    return _mm256_fmadd_ps(a, b, c);
}

static inline vec vec_add(vec a, vec b) {
    return _mm256_add_ps(a, b);
}

static inline float vec_sum(vec v) {
    __m128 sum = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
    sum = _mm_add_ss(sum, _mm_movehdup_ps(sum));
    return _mm_cvtss_f32(sum);
}

static inline vec vec_load(const float *x) {
    return _mm256_loadu_ps(x);
}

static inline void vec_store(float *x, vec v) {
    _mm256_storeu_ps(x, v);
}

/* Selects the first n <= LANES floats. */
static inline __m256i first(size_t n) {
    static const int32_t mask[2 * LANES] = {-1, -1, -1, -1, -1, -1, -1, -1};
    return _mm256_loadu_si256((const void *)(mask + LANES - n));
}

static inline vec vec_load_first(const float *x, size_t n) {
    return _mm256_maskload_ps(x, first(n));
}

static inline void vec_store_first(float *x, vec v, size_t n) {
    _mm256_maskstore_ps(x, first(n), v);
}

static inline vec f32_at(const unsigned char *w) {
    return _mm256_loadu_ps((const void *)w);
}

static inline vec f16_at(const unsigned char *w) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const void *)w));
}

static inline vec bf16_at(const unsigned char *w) {
    __m256i bits = _mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)w));
    return _mm256_castsi256_ps(_mm256_slli_epi32(bits, 16));
}

/* AVX2 has no masked load of bytes: a row's end is copied in front of zeros. */
static inline vec f32_first(const unsigned char *w, size_t n) {
    unsigned char rest[4 * LANES] = {0};
    memcpy(rest, w, 4 * n);
    return f32_at(rest);
}

static inline vec f16_first(const unsigned char *w, size_t n) {
    unsigned char rest[2 * LANES] = {0};
    memcpy(rest, w, 2 * n);
    return f16_at(rest);
}

static inline vec bf16_first(const unsigned char *w, size_t n) {
    unsigned char rest[2 * LANES] = {0};
    memcpy(rest, w, 2 * n);
    return bf16_at(rest);
}

static inline __m128i round_f16(vec v) {
    return _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

static inline void vec_store_f16(unsigned char *w, vec v) {
    _mm_storeu_si128((void *)w, round_f16(v));
}

static inline void vec_store_f16_first(unsigned char *w, vec v, size_t n) {
    __m128i rest = round_f16(v);
    memcpy(w, &rest, 2 * n);
}

#include "kern/floats.inc"

const struct kern kern_avx2 = {FLOAT_KERNELS};
