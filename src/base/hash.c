#include "base/hash.h"

#include <string.h>

/* Each step is a bijection of h for a given word, and of the word for a given h: a single change is
 * never lost on the way. */
static uint64_t step(uint64_t h, uint64_t word) {
    h = (h ^ word) * 0x9e3779b97f4a7c15u;
    return h << 29 | h >> 35;
}

static uint64_t load(const unsigned char *p, size_t n) {
    uint64_t word = 0;
    for (size_t i = 0; i < n; i++) word |= (uint64_t)p[i] << 8 * i;
    return word;
}

enum { LANES = 4, WORD = 8 };

/* Four lanes, so that a multiplication need not wait for the one before. */
uint64_t hash_bytes(uint64_t seed, struct span bytes) {
    uint64_t lanes[LANES] = {seed, step(seed, 1), step(seed, 2), step(seed, 3)};
    size_t at = 0;
    for (; bytes.size - at >= LANES * WORD; at += LANES * WORD) {
        for (int i = 0; i < LANES; i++)
            lanes[i] = step(lanes[i], load(bytes.data + at + WORD * i, WORD));
    }
    uint64_t h = step(lanes[0], bytes.size);
    for (int i = 1; i < LANES; i++) h = step(h, lanes[i]);
    for (; at < bytes.size; at += WORD) {
        size_t left = bytes.size - at;
        h = step(h, load(bytes.data + at, left < WORD ? left : WORD));
    }
    return step(h, h >> 32);
}
