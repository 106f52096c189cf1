/* A soft bound on scores and logits: x becomes cap * tanh(x / cap), which stays within cap and
 * leaves alone what is small beside it (Gemma 2, Gemma Team, 2024, section 2). */
#ifndef NIBBLE_OPS_SOFTCAP_H
#define NIBBLE_OPS_SOFTCAP_H

#include "ops/backend.h"

/* x [n] in place, cap > 0, on the calling thread; within cap / 2^22. Each element by itself: no cut
 * changes a bit. */
void softcap(const struct backend *b, float *x, size_t n, float cap);

#endif
