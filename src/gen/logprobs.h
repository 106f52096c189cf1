/* What probability a model gives to tokens: log softmax of its logits, which are the model's own,
 * before any stage of the sampler. */
#ifndef NIBBLE_GEN_LOGPROBS_H
#define NIBBLE_GEN_LOGPROBS_H

#include <stddef.h>

struct logprob {
    int id;
    double value; /* natural logarithm of the probability */
};

/* log p(id) under logits [vocab]. top [n] receives the likeliest tokens, as many as there are, the
 * likeliest first and the lower id first among equals; it may be NULL if n is 0. */
double logprobs(const float *logits, size_t vocab, int id, struct logprob *top, size_t n);

#endif
