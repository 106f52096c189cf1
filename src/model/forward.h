/* The transformer. */
#ifndef NIBBLE_MODEL_FORWARD_H
#define NIBBLE_MODEL_FORWARD_H

#include "model/run.h"

/* Runs n tokens (1 to r->batch) at positions pos .. pos + n - 1 through every layer, with positions
 * below pos in the cache. Leaves the last layer's output in r->x [n, dim] and their keys and values
 * in the cache. */
void forward(struct run *r, const int *ids, size_t n, size_t pos);

/* The two halves of it: the embedding into r->x, with what else depends on positions alone; then
 * layer i from r->x to r->x. */
void forward_begin(struct run *r, const int *ids, size_t n, size_t pos);
void forward_layer(struct run *r, size_t i, size_t n, size_t pos);

/* logits [count, vocab] of tokens first .. first + count - 1 of the last forward(). */
void forward_logits(struct run *r, size_t first, size_t count, float *logits);

#endif
