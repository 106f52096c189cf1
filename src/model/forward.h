/* The transformer. */
#ifndef NIBBLE_MODEL_FORWARD_H
#define NIBBLE_MODEL_FORWARD_H

#include "model/run.h"

/* Runs n tokens (1 to r->batch) at positions pos .. pos + n - 1 through every layer, with positions
 * below pos in the cache. Leaves their keys and values in the cache, and the last layer's output of
 * the last `last` <= n tokens in r->x [last, dim]: behind its keys and values, the last layer is
 * for these alone. */
void forward(struct run *r, const int *ids, size_t n, size_t pos, size_t last);

/* The two halves of it: the embedding into r->x, with what else depends on positions alone; then
 * layer i from r->x [n, dim] to r->x [last, dim]. */
void forward_begin(struct run *r, const int *ids, size_t n, size_t pos);
void forward_layer(struct run *r, size_t i, size_t n, size_t pos, size_t last);

/* logits [count, vocab] of r->x, rows first .. first + count - 1, as the last forward() left it. */
void forward_logits(struct run *r, size_t first, size_t count, float *logits);

#endif
