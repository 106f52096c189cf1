/* AVX2, FMA and F16C: eight floats a vector. */
#include "kern/ymm.inc"

/* Products of bytes are added in pairs to 16 bits, which hold 8 * 15 * 127 * 2 or 2 * 63 * 127 * 2
 * but not 255 * 127 * 2: codes of 8 bits go a nibble at a time, to 32 bits. */
static inline size_t max_dots(int bits) {
    return bits <= 4 ? 8 : bits <= 6 ? 2 : 32;
}

static inline int multiplied_as(int bits) {
    return bits < 4 ? 3 : bits == 5 ? 6 : bits;
}
#define MULTIPLIED(DO) GROUPS(DO, 3) GROUPS(DO, 4) GROUPS(DO, 6) GROUPS(DO, 8)

enum { UNROLL = 8 };

/* The same sum, which the compiler then takes as it comes: it would add the products of several
 * steps among each other first, which needs more registers than there are. */
static inline ivec in_turn(ivec sum) {
    __asm__("" : "+x"(sum));
    return sum;
}

static inline ivec add_pairs(ivec sum, ivec products, short factor) {
    return in_turn(ivec_add(sum, _mm256_madd_epi16(products, _mm256_set1_epi16(factor))));
}

static inline ivec ivec_dot(ivec c, ivec codes, ivec a, int bits) {
    if (bits < 8) return in_turn(_mm256_add_epi16(c, _mm256_maddubs_epi16(codes, a)));
    c = add_pairs(c, _mm256_maddubs_epi16(ivec_low4(codes), a), 1);
    return add_pairs(c, _mm256_maddubs_epi16(ivec_high4(codes), a), 16);
}

static inline ivec ivec_begin(ivec sum, int bits) {
    return bits < 8 ? ivec_zero() : sum;
}

static inline ivec ivec_widen(ivec sum, ivec c, int bits) {
    return bits < 8 ? add_pairs(sum, c, 1) : c;
}

#include "kern/floats.inc"
#include "kern/tiles.inc"
#include "kern/gates.inc"

#include "kern/affine.inc"
#include "kern/peaks.inc"

const struct kern kern_avx2 = {FLOAT_KERNELS, TILE_KERNELS, GATE_KERNELS, AFFINE_KERNELS,
                               PEAK_KERNELS};
