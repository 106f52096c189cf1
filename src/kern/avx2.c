/* AVX2, FMA and F16C: eight floats a vector. */
#include "kern/ymm.inc"

static inline ivec add_pairs(ivec sum, ivec products, short factor) {
    return ivec_add(sum, _mm256_madd_epi16(products, _mm256_set1_epi16(factor)));
}

/* Products of bytes are added in pairs to 16 bits, which saturate: 63 * 127 * 2 fits, 255 * 127 * 2
 * does not, so codes of 8 bits go a nibble at a time. */
static inline ivec ivec_dot(ivec sum, ivec codes, ivec a, int bits) {
    if (bits < 8) return add_pairs(sum, _mm256_maddubs_epi16(codes, a), 1);
    sum = add_pairs(sum, _mm256_maddubs_epi16(ivec_low4(codes), a), 1);
    return add_pairs(sum, _mm256_maddubs_epi16(ivec_high4(codes), a), 16);
}

#include "kern/floats.inc"
#include "kern/tiles.inc"

#include "kern/affine.inc"
#include "kern/peaks.inc"

const struct kern kern_avx2 = {FLOAT_KERNELS, TILE_KERNELS, AFFINE_KERNELS, PEAK_KERNELS};
