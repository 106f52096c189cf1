/* AVX-512 F, BW, DQ, VL: sixteen floats a vector, and masks for what is left at the end. */
#include <immintrin.h>

#include "kern/kern.h"

enum { LANES = 16 };

typedef __m512 vec;

static inline vec vec_all(float x) {
    return _mm512_set1_ps(x);
}

static inline vec vec_fma(vec a, vec b, vec c) {
    return _mm512_fmadd_ps(a, b, c);
}

static inline vec vec_add(vec a, vec b) {
    return _mm512_add_ps(a, b);
}

static inline float vec_sum(vec v) {
    return _mm512_reduce_add_ps(v);
}

static inline vec vec_load(const float *x) {
    return _mm512_loadu_ps(x);
}

static inline void vec_store(float *x, vec v) {
    _mm512_storeu_ps(x, v);
}

/* Selects the first n < LANES elements. */
static inline __mmask16 first(size_t n) {
    return (__mmask16)((1u << n) - 1);
}

static inline vec vec_load_first(const float *x, size_t n) {
    return _mm512_maskz_loadu_ps(first(n), x);
}

static inline void vec_store_first(float *x, vec v, size_t n) {
    _mm512_mask_storeu_ps(x, first(n), v);
}

static inline vec bf16_to_f32(__m256i w) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(w), 16));
}

static inline vec f32_at(const unsigned char *w) {
    return _mm512_loadu_ps(w);
}

static inline vec f16_at(const unsigned char *w) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const void *)w));
}

static inline vec bf16_at(const unsigned char *w) {
    return bf16_to_f32(_mm256_loadu_si256((const void *)w));
}

static inline vec f32_first(const unsigned char *w, size_t n) {
    return _mm512_maskz_loadu_ps(first(n), w);
}

static inline vec f16_first(const unsigned char *w, size_t n) {
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first(n), w));
}

static inline vec bf16_first(const unsigned char *w, size_t n) {
    return bf16_to_f32(_mm256_maskz_loadu_epi16(first(n), w));
}

static inline __m256i round_f16(vec v) {
    return _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

static inline void vec_store_f16(unsigned char *w, vec v) {
    _mm256_storeu_si256((void *)w, round_f16(v));
}

static inline void vec_store_f16_first(unsigned char *w, vec v, size_t n) {
    _mm256_mask_storeu_epi16(w, first(n), round_f16(v));
}

#include "kern/floats.inc"

const struct kern kern_avx512 = {FLOAT_KERNELS};
