/* RMSNorm (Zhang and Sennrich, 2019): y = w * x / sqrt(mean(x^2) + eps), token by token. */
#ifndef NIBBLE_OPS_NORM_H
#define NIBBLE_OPS_NORM_H

#include "ops/backend.h"

/* x, y [n, dim], w [dim]; y may be x. On the calling thread: linear() splits the tokens. */
void norm_rms(const struct backend *b, float *y, const float *x, const float *w, size_t n,
              size_t dim, float eps);

#endif
