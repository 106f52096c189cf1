/* The first step: a token id picks its row of the embedding, and where positions are learned, its
 * position picks a row of theirs. */
#ifndef NIBBLE_OPS_EMBED_H
#define NIBBLE_OPS_EMBED_H

#include "num/format.h"
#include "ops/backend.h"

/* x[t] = scale * row ids[t] of table; x [n, table->cols], every id below table->rows. */
void embed(const struct backend *b, float *x, const struct mat *table, float scale, const int *ids,
           size_t n);

/* x[t] += row pos + t of table, which has so many; h [n, table->cols] is scratch. */
void embed_positions(const struct backend *b, float *x, float *h, const struct mat *table, size_t n,
                     size_t pos);

#endif
