/* The residual stream (He et al., 2016): what a block made is added to what it read. */
#ifndef NIBBLE_OPS_RESIDUAL_H
#define NIBBLE_OPS_RESIDUAL_H

#include "ops/backend.h"

/* x[i] += y[i], both [n, dim]. */
void residual_add(const struct backend *b, float *x, const float *y, size_t n, size_t dim);

#endif
