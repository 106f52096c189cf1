/* The residual stream (He et al., 2016): what a block made is added to what it read. */
#ifndef NIBBLE_OPS_RESIDUAL_H
#define NIBBLE_OPS_RESIDUAL_H

#include "ops/norm.h"

/* x[i] += scale * norm(y)[i], both [n, dim]; y is lost where there is a norm. */
void residual_add(const struct backend *b, float *x, float *y, struct norm norm, float scale,
                  size_t n, size_t dim);

#endif
