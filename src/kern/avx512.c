/* AVX-512 F, BW, DQ, VL: sixteen floats a vector, and masks for what is left at the end. */
#include <immintrin.h>
#include <math.h>
#include <string.h>

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

static inline vec i8_at(const unsigned char *w) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)w)));
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

static inline vec i8_first(const unsigned char *w, size_t n) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(first(n), w)));
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

static inline vec vec_mul(vec a, vec b) {
    return _mm512_mul_ps(a, b);
}

static inline vec vec_sub(vec a, vec b) {
    return _mm512_sub_ps(a, b);
}

static inline vec vec_div(vec a, vec b) {
    return _mm512_div_ps(a, b);
}

static inline vec vec_max(vec a, vec b) {
    return _mm512_max_ps(a, b);
}

static inline float vec_largest(vec v) {
    return _mm512_reduce_max_ps(v);
}

static inline vec vec_by_sign(vec x, vec neg, vec pos) {
    return _mm512_mask_blend_ps(_mm512_movepi32_mask(_mm512_castps_si512(x)), pos, neg);
}

static inline vec vec_minus_abs(vec x) {
    return _mm512_or_ps(x, vec_all(-0.0f));
}

static inline vec vec_round(vec v) {
    return _mm512_roundscale_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

static inline vec vec_pow2(vec n) {
    return _mm512_scalef_ps(vec_all(1), n);
}

static inline vec vec_keep_from(vec v, vec x, float low) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, vec_all(low), _CMP_NLT_UQ), v);
}

static inline void vec_store4(float *y, vec a, vec b, vec c, vec d, size_t n) {
    vec ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    vec cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    vec all = _mm512_add_ps(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xee));
    __m256 half = _mm256_add_ps(_mm512_castps512_ps256(all), _mm512_extractf32x8_ps(all, 1));
    __m128 sum = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    _mm_mask_storeu_ps(y, (__mmask8)((1u << n) - 1), sum);
}

#include "kern/floats.inc"
#include "kern/tiles.inc"
#include "kern/gates.inc"

/* --- integers --------------------------------------------------------------------------------- */

enum { BYTES = 64 };

typedef __m512i ivec;

static inline ivec ivec_zero(void) {
    return _mm512_setzero_si512();
}

static inline ivec ivec_add(ivec a, ivec b) {
    return _mm512_add_epi32(a, b);
}

static inline ivec ivec_load(const void *p) {
    return _mm512_loadu_si512(p);
}

static inline void ivec_store(void *p, ivec v) {
    _mm512_storeu_si512(p, v);
}

static inline ivec ivec_low4(ivec v) {
    return _mm512_and_si512(v, _mm512_set1_epi8(15));
}

static inline ivec ivec_high4(ivec v) {
    return ivec_low4(_mm512_srli_epi16(v, 4));
}

static inline size_t unpack_bytes(int bits) {
    return 8 * (size_t)bits;
}

/* Words 0 to 7 of lane k are words bits * k and on: its 16 codes. The two bytes at bit 2 * bits * i
 * hold codes 2 * i and 2 * i + 1: one shift makes the first an even byte, another the second an odd
 * one. */
static inline ivec ivec_unpack(const unsigned char *p, int bits) {
    const __m512i word = _mm512_set_epi16(7, 6, 5, 4, 3, 2, 1, 0, 7, 6, 5, 4, 3, 2, 1, 0, 7, 6, 5,
                                          4, 3, 2, 1, 0, 7, 6, 5, 4, 3, 2, 1, 0);
    const __m512i lane = _mm512_set_epi16(3, 3, 3, 3, 3, 3, 3, 3, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1,
                                          1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0);
    __m512i from = _mm512_add_epi16(word, _mm512_mullo_epi16(lane, _mm512_set1_epi16((short)bits)));
    __m512i bit = _mm512_mullo_epi16(word, _mm512_set1_epi16((short)(2 * bits)));
    __m512i first = _mm512_srli_epi16(bit, 3); /* of the two bytes, and the second above it */
    __m512i bytes = _mm512_add_epi16(_mm512_mullo_epi16(first, _mm512_set1_epi16(0x101)),
                                     _mm512_set1_epi16(0x100));
    __m512i shift = _mm512_and_si512(bit, _mm512_set1_epi16(7));
    __m512i v = _mm512_maskz_loadu_epi8(((__mmask64)1 << 8 * bits) - 1, p);
    v = _mm512_shuffle_epi8(_mm512_permutexvar_epi16(from, v), bytes);
    uint8_t rest = (uint8_t)(8 - bits); /* an int for gcc's intrinsic, unsigned for clang's */
    __m512i even = _mm512_srlv_epi16(v, shift), odd = _mm512_slli_epi16(even, rest);
    __m512i both = _mm512_ternarylogic_epi32(even, odd, _mm512_set1_epi16(0xff), 0xe4);
    return _mm512_and_si512(both, _mm512_set1_epi8((char)((1 << bits) - 1)));
}

static inline ivec ivec_dot(ivec c, ivec codes, ivec a, int bits) {
    (void)bits;
    return _mm512_dpbusd_epi32(c, codes, a);
}

#include "kern/vnni.inc"

static inline ivec ivec_all32(const void *p) {
    int32_t four;
    memcpy(&four, p, sizeof four);
    return _mm512_set1_epi32(four);
}

/* Two rounds of adding what unpack interleaves. */
static inline ivec ivec_sum4(const ivec *v) {
    ivec ab =
        _mm512_add_epi32(_mm512_unpacklo_epi32(v[0], v[1]), _mm512_unpackhi_epi32(v[0], v[1]));
    ivec cd =
        _mm512_add_epi32(_mm512_unpacklo_epi32(v[2], v[3]), _mm512_unpackhi_epi32(v[2], v[3]));
    return _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
}

/* The sums of 16 bytes that make a group are 4, 2 or 1; lane 4 * k + i of them is of vector i. */
static inline __attribute__((always_inline)) ivec ivec_groups(const ivec *sums, size_t each) {
    if (each == 4) {
        const __m512i order =
            _mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0);
        return _mm512_permutexvar_epi32(order, sums[0]);
    }
    if (each == 2) {
        const __m512i first =
            _mm512_set_epi32(27, 19, 26, 18, 25, 17, 24, 16, 11, 3, 10, 2, 9, 1, 8, 0);
        const __m512i second = _mm512_add_epi32(first, _mm512_set1_epi32(4));
        return _mm512_add_epi32(_mm512_permutex2var_epi32(sums[0], first, sums[1]),
                                _mm512_permutex2var_epi32(sums[0], second, sums[1]));
    }
    ivec ab = _mm512_add_epi32(_mm512_shuffle_i32x4(sums[0], sums[1], 0x88),
                               _mm512_shuffle_i32x4(sums[0], sums[1], 0xdd));
    ivec cd = _mm512_add_epi32(_mm512_shuffle_i32x4(sums[2], sums[3], 0x88),
                               _mm512_shuffle_i32x4(sums[2], sums[3], 0xdd));
    return _mm512_add_epi32(_mm512_shuffle_i32x4(ab, cd, 0x88),
                            _mm512_shuffle_i32x4(ab, cd, 0xdd));
}

static inline float vec_fourth(vec v) {
    __m128 four = _mm512_castps512_ps128(v);
    return _mm_cvtss_f32(_mm_permute_ps(four, 0xff));
}

static inline vec vec_up(vec v) {
    return _mm512_permute_ps(v, 0x90);
}

static inline vec vec_tree(vec v, size_t n) {
    if (n > 4) v = _mm512_add_ps(v, _mm512_shuffle_f32x4(v, v, 0xb1));
    return n > 8 ? _mm512_add_ps(v, _mm512_shuffle_f32x4(v, v, 0x4e)) : v;
}

static inline vec vec_as(ivec v) {
    return _mm512_castsi512_ps(v);
}

static inline ivec ivec_as(vec v) {
    return _mm512_castps_si512(v);
}

/* Four rows: 32-bit lanes change places within each 16 bytes. */
static inline void transpose_four(vec *v) {
    vec a = _mm512_unpacklo_ps(v[0], v[1]), b = _mm512_unpackhi_ps(v[0], v[1]);
    vec c = _mm512_unpacklo_ps(v[2], v[3]), d = _mm512_unpackhi_ps(v[2], v[3]);
    __m512d ad = _mm512_castps_pd(a), bd = _mm512_castps_pd(b);
    __m512d cd = _mm512_castps_pd(c), dd = _mm512_castps_pd(d);
    v[0] = _mm512_castpd_ps(_mm512_unpacklo_pd(ad, cd));
    v[1] = _mm512_castpd_ps(_mm512_unpackhi_pd(ad, cd));
    v[2] = _mm512_castpd_ps(_mm512_unpacklo_pd(bd, dd));
    v[3] = _mm512_castpd_ps(_mm512_unpackhi_pd(bd, dd));
}

/* Four vectors of four blocks of 16 bytes: block i of vector k and block k of i change places. */
static inline void transpose_blocks(vec *a, vec *b, vec *c, vec *d) {
    vec ab02 = _mm512_shuffle_f32x4(*a, *b, 0x88), ab13 = _mm512_shuffle_f32x4(*a, *b, 0xdd);
    vec cd02 = _mm512_shuffle_f32x4(*c, *d, 0x88), cd13 = _mm512_shuffle_f32x4(*c, *d, 0xdd);
    *a = _mm512_shuffle_f32x4(ab02, cd02, 0x88);
    *b = _mm512_shuffle_f32x4(ab13, cd13, 0x88);
    *c = _mm512_shuffle_f32x4(ab02, cd02, 0xdd);
    *d = _mm512_shuffle_f32x4(ab13, cd13, 0xdd);
}

static inline __attribute__((always_inline)) void vec_transpose(vec *v) {
    for (int i = 0; i < 16; i += 4) transpose_four(v + i);
    for (int i = 0; i < 4; i++) transpose_blocks(v + i, v + i + 4, v + i + 8, v + i + 12);
}

#include "kern/affine.inc"
#include "kern/peaks.inc"

const struct kern kern_avx512 = {FLOAT_KERNELS, TILE_KERNELS, GATE_KERNELS, AFFINE_KERNELS,
                                 PEAK_KERNELS};
