/* The gate of a gated feed-forward (Shazeer, 2020): SwiGLU's activation, and sums. */
#ifndef NIBBLE_OPS_GATE_H
#define NIBBLE_OPS_GATE_H

#include "ops/backend.h"

/* gate[i] = silu(gate[i]) * up[i], silu(x) = x / (1 + exp(-x)); both [n, hidden]. */
void gate_silu(const struct backend *b, float *gate, const float *up, size_t n, size_t hidden);

/* x[i] += y[i], both [n, dim]: the residual. */
void gate_add(const struct backend *b, float *x, const float *y, size_t n, size_t dim);

#endif
