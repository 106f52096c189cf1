#include "ops/softcap.h"

#include <math.h>

enum { BLOCK = 64 };

/* tanh y = sign(y) (1 - e) / (1 + e) with e = exp(-2 |y|), which the softmax of what is at most 0
 * gives: so the loops here have no calls, and compilers make vectors of them. */
void softcap(const struct backend *b, float *x, size_t n, float cap) {
    float e[BLOCK], most = 0;
    for (size_t count; n; n -= count, x += count) {
        count = n < BLOCK ? n : BLOCK;
        for (size_t i = 0; i < count; i++) e[i] = -2 * fabsf(x[i] / cap);
        b->kern.online_softmax(e, &most, count);
        for (size_t i = 0; i < count; i++) {
            x[i] = copysignf(cap * ((1 - e[i]) / (1 + e[i])), x[i]);
        }
    }
}
