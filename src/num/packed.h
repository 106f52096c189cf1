/* Activations packed to int8 for products with affine weights.
 *
 * Each token's row of x is cut into the groups of the weights. A group has a scale d = max|x| / 127
 * and codes a = rint(x / d), so that with weights w = s * q + z
 *
 *     sum w x  =  sum over groups of  s * d * (q . a)  +  z * d * sum(a)
 *
 * where q . a and sum(a) are exact integers. In a group whose max|x| is 0, not finite, or too small
 * for 127 / max|x| to be finite, all codes are 0, and a NaN or an infinity lives on in d. Every
 * kernel of these products adds the groups of an output in this order, in f32, one accumulator an
 * output:
 *
 *     y = y + s * (d * (q . a));  y = y + z * (d * sum(a))
 *
 * with a rounding at each step that does not depend on how many tokens or rows it works on. */
#ifndef NIBBLE_NUM_PACKED_H
#define NIBBLE_NUM_PACKED_H

#include <stddef.h>
#include <stdint.h>

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
    float *sums;   /* [n, cols / group] d * sum(a) */
};

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
