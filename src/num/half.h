/* 16-bit floats to f32 and back, one value at a time; the reference for the kernels that do many.
 * f16 is IEEE 754 binary16; bf16 is the upper half of an f32. Rounding is to nearest, ties to
 * even; NaN stays NaN. */
#ifndef NIBBLE_NUM_HALF_H
#define NIBBLE_NUM_HALF_H

#include <stdint.h>
#include <string.h>

static inline float half_from_bits(uint32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline uint32_t half_to_bits(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

static inline float half_from_bf16(uint16_t h) {
    return half_from_bits((uint32_t)h << 16);
}

static inline uint16_t half_to_bf16(float f) {
    uint32_t bits = half_to_bits(f);
    if ((bits & 0x7fffffff) > 0x7f800000) return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static inline float half_from_f16(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16;
    uint32_t exponent = h >> 10 & 0x1f, fraction = h & 0x3ff;
    if (exponent == 0x1f) { /* infinity, or a NaN, made quiet as hardware does */
        uint32_t quiet = fraction ? 0x400000 : 0;
        return half_from_bits(sign | 0x7f800000 | quiet | fraction << 13);
    }
    if (exponent == 0) { /* zero or denormal: fraction * 2^-24, exact */
        float f = (float)fraction * 0x1p-24f;
        return sign ? -f : f;
    }
    return half_from_bits(sign | (exponent + 112) << 23 | fraction << 13);
}

static inline uint16_t half_to_f16(float f) {
    uint32_t bits = half_to_bits(f), magnitude = bits & 0x7fffffff;
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    if (magnitude > 0x7f800000) return sign | 0x7e00 | (uint16_t)(magnitude >> 13 & 0x3ff);
    if (magnitude >= 0x477ff000) return sign | 0x7c00; /* rounds to 2^16: infinity */
    if (magnitude < 0x38800000) { /* below 2^-14: denormal, in units of 2^-24 */
        float units = half_from_bits(magnitude) * 0x1p24f + 0x1p23f; /* the addition rounds */
        return sign | (uint16_t)(half_to_bits(units) - 0x4b000000);
    }
    return sign | (uint16_t)((magnitude - 0x38000000 + 0xfff + (magnitude >> 13 & 1)) >> 13);
}

/* The same from and to bytes in a file, at any alignment, little endian. */
static inline uint16_t half_load_u16(const unsigned char *p) {
    return (uint16_t)(p[0] | p[1] << 8);
}

static inline void half_store_u16(unsigned char *p, uint16_t h) {
    p[0] = (unsigned char)h;
    p[1] = (unsigned char)(h >> 8);
}

#endif
