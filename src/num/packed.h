/* Activations packed to int8 for products with affine weights.
 *
 * Each token's row of x is cut into the groups of the weights. A group has a scale d = max|x| / 127
 * and codes a = rint(x * (127 / max|x|)), so that with weights w = s * q + z
 *
 *     sum w x  =  sum over groups of  s * d * (q . a)  +  z * d * sum(a)
 *
 * where q . a and sum(a) are exact integers. In a group whose max|x| is 0, 2^100 or more, or too
 * small for 127 / max|x| to be finite, all codes are 0, and d is infinite from 2^100 on, or the
 * NaN. A kernel of these products adds a group to an f32 sum in two steps,
 *
 *     y = y + s * (d * (q . a));  y = y + z * (d * sum(a))
 *
 * and the order in which it adds the groups of an output does not depend on how many tokens or rows
 * it works on.
 *
 * Integers become floats without a conversion: a sum that begins at the bits of the float
 * PACKED_SHIFT = 1.5 * 2^23 is, read as a float, PACKED_SHIFT + q . a, for |q . a| < 2^22. Times d,
 * less PACKED_SHIFT * d, rounded once, that is d * (q . a): the last two bits of d are cleared, so
 * that PACKED_SHIFT * d is exact. */
#ifndef NIBBLE_NUM_PACKED_H
#define NIBBLE_NUM_PACKED_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* How a token's codes lie: as they come, or of every PACKED_PAD the even ones first, which is how
 * the two nibbles of packed bytes fall apart. */
enum packed_order { PACKED_NATURAL, PACKED_EVEN_ODD };

/* Codes of a token are padded with zeros to an odd multiple of this: several tokens are read at
 * once, and at a distance of a power of two they would meet in the same places of the cache. */
enum { PACKED_PAD = 128 };

struct packed {
    size_t n, cols;
    int group;
    enum packed_order order;
    size_t stride; /* codes from one token to the next: packed_stride(cols) */
    int8_t *codes; /* [n, stride] */
    float *scales; /* [n, cols / group] d */
    float *shifts; /* [n, cols / group] -PACKED_SHIFT * d */
    float *sums;   /* [n, cols / group] d * sum(a) */
};

#define PACKED_SHIFT 0x1.8p23f
#define PACKED_SHIFT_BITS 0x4b400000

/* d of a group with that max|x|, which may be NaN. */
static inline float packed_scale(float max) {
    float d = max < 0x1p100f || max != max ? max / 127 : INFINITY;
    uint32_t bits;
    memcpy(&bits, &d, sizeof bits);
    if (d == d) bits &= ~(uint32_t)3;
    memcpy(&d, &bits, sizeof d);
    return d;
}

/* Whether such a group has codes. */
static inline bool packed_usable(float max) {
    return max < 0x1p100f && 127 / max < INFINITY;
}

static inline enum packed_order packed_order_of(int bits) {
    return bits == 4 ? PACKED_EVEN_ODD : PACKED_NATURAL;
}

static inline size_t packed_stride(size_t cols) {
    return ((cols + PACKED_PAD - 1) / PACKED_PAD | 1) * PACKED_PAD;
}

/* Where element i of a token stands among its codes. */
static inline size_t packed_place(enum packed_order order, size_t i) {
    if (order == PACKED_NATURAL) return i;
    return i / PACKED_PAD * PACKED_PAD + i % PACKED_PAD / 2 + i % 2 * (PACKED_PAD / 2);
}

/* A group's codes lie in two halves, the second so far from the first. */
static inline size_t packed_halves(enum packed_order order, int group) {
    return order == PACKED_NATURAL ? (size_t)group / 2 : PACKED_PAD / 2;
}

#endif
