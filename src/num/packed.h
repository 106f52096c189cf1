/* Activations packed to int8 for products with affine weights.
 *
 * Each token's row of x is cut into the groups of the weights. A group has a scale d = max|x| / 127
 * and codes a = rint(x * (127 / max|x|)), so that with weights w = s * q + z
 *
 *     sum w x  =  sum over groups of  s * d * (q . a)  +  z * d * sum(a)
 *
 * where q . a and sum(a) are exact integers. In a group whose max|x| is 0, 2^100 or more, or too
 * small for 127 / max|x| to be finite, all codes are 0, and d is infinite from 2^100 on, or the
 * NaN. Every kernel of these products adds the groups of an output in this order, in f32, one
 * accumulator an output:
 *
 *     y = y + s * (d * (q . a));  y = y + z * (d * sum(a))
 *
 * with a rounding at each step that does not depend on how many tokens or rows it works on.
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

/* How codes lie within a group: as they come, or the even ones first, which is how the two
 * nibbles of packed bytes fall apart. */
enum packed_order { PACKED_NATURAL, PACKED_EVEN_ODD };

/* Codes of a token are padded with zeros to a multiple of this. */
enum { PACKED_PAD = 128 };

struct packed {
    size_t n, cols;
    int group;
    enum packed_order order;
    size_t stride; /* codes from one token to the next: cols rounded up to PACKED_PAD */
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
    return (cols + PACKED_PAD - 1) / PACKED_PAD * PACKED_PAD;
}

/* Where element i of a group stands among its codes. */
static inline size_t packed_place(enum packed_order order, int group, size_t i) {
    return order == PACKED_NATURAL ? i : i / 2 + i % 2 * ((size_t)group / 2);
}

#endif
