/* PCG32 (O'Neill, 2014: XSH-RR 64/32): a small generator of good quality, the same on every
 * machine. One seed gives one sequence. */
#ifndef NIBBLE_GEN_RANDOM_H
#define NIBBLE_GEN_RANDOM_H

#include <stdint.h>

struct random {
    uint64_t state, increment; /* increment is odd and chooses one of 2^63 sequences */
};

static inline uint32_t random_u32(struct random *r) {
    uint64_t old = r->state;
    r->state = old * 6364136223846793005u + r->increment;
    uint32_t xored = (uint32_t)((old >> 18 ^ old) >> 27), turn = (uint32_t)(old >> 59);
    return xored >> turn | xored << (-turn & 31);
}

static inline void random_seed(struct random *r, uint64_t seed, uint64_t sequence) {
    *r = (struct random){0, sequence << 1 | 1};
    random_u32(r);
    r->state += seed;
    random_u32(r);
}

/* Uniform in [0, 1), 53 bits. */
static inline double random_unit(struct random *r) {
    uint64_t high = random_u32(r) >> 5, low = random_u32(r) >> 6;
    return (double)(high << 26 | low) * 0x1p-53;
}

#endif
