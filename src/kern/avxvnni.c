/* AVX-VNNI: AVX2 with products of bytes added to 32 bits at once, for CPUs without AVX-512. */
#include "kern/ymm.inc"

static inline ivec ivec_dot(ivec c, ivec codes, ivec a, int bits) {
    (void)bits;
    return _mm256_dpbusd_avx_epi32(c, codes, a);
}

#include "kern/vnni.inc"

#include "kern/affine.inc"
#include "kern/peaks.inc"

const struct kern kern_avxvnni = {AFFINE_KERNELS, PEAK_INT8};
