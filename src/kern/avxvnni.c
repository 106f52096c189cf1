/* AVX-VNNI: AVX2 with products of bytes added to 32 bits at once, for CPUs without AVX-512. */
#include "kern/ymm.inc"

static inline size_t most_dots(int bits) {
    (void)bits;
    return 32;
}

enum { UNROLL = 32 };

static inline ivec ivec_dot(ivec c, ivec codes, ivec a, int bits) {
    (void)bits;
    return _mm256_dpbusd_avx_epi32(c, codes, a);
}

static inline ivec ivec_begin(ivec sum, int bits) {
    (void)bits;
    return sum;
}

static inline ivec ivec_widen(ivec sum, ivec c, int bits) {
    (void)sum;
    (void)bits;
    return c;
}

#include "kern/affine.inc"
#include "kern/peaks.inc"

const struct kern kern_avxvnni = {AFFINE_KERNELS, PEAK_INT8};
