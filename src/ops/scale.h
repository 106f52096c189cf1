/* Values times a constant, or kept within bounds: one by one, so no cut changes a bit. */
#ifndef NIBBLE_OPS_SCALE_H
#define NIBBLE_OPS_SCALE_H

#include "ops/backend.h"

/* x[i] *= factor for n values; nothing at all if it is 1. */
void scale(const struct backend *b, float *x, size_t n, float factor);

/* x[i] = within -limit .. limit; NaN stays NaN. */
void scale_clip(const struct backend *b, float *x, size_t n, float limit);

#endif
