/* Whether the numbers of a model are numbers. */
#ifndef NIBBLE_MODEL_VERIFY_H
#define NIBBLE_MODEL_VERIFY_H

#include "model/model.h"

/* Decodes every value of every tensor, as the forward pass would have it, and refuses NaN and
 * infinity: in plain weights, vectors, or made by a scale or an offset. All tensors that hold some
 * are named. threads is at least 1. go_on, which may be NULL, is told how many values of how many
 * have been seen; false stops. */
bool verify_numbers(const struct model *m, int threads,
                    bool (*go_on)(void *arg, size_t done, size_t total), void *arg,
                    struct error *e);

#endif
