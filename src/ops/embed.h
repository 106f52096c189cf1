/* The first step: a token id picks its row of the embedding. */
#ifndef NIBBLE_OPS_EMBED_H
#define NIBBLE_OPS_EMBED_H

#include "num/format.h"
#include "ops/backend.h"

/* x[t] = row ids[t] of table; x [n, table->cols], every id below table->rows. */
void embed(const struct backend *b, float *x, const struct mat *table, const int *ids, size_t n);

#endif
