/* The Gram matrix of what a product reads: G = sum over tokens of x x^T, of which the lower
 * triangle is kept. */
#ifndef NIBBLE_OPS_GRAM_H
#define NIBBLE_OPS_GRAM_H

#include "ops/backend.h"

/* g [cols, cols], rows i up to column i: += x^T x of n tokens x [n, cols]; the sum over tokens is
 * that of the level's dots. scratch holds n * cols floats. */
void gram_add(const struct backend *b, float *g, const float *x, size_t n, size_t cols,
              float *scratch);

#endif
