/* Chooses the next token from logits: a chain of stages in llama.cpp's order, with its names and
 * defaults.
 *
 *     logit bias, penalties, top-k, typical, top-p, min-p, temperature, draw
 *
 * The probabilities that top-p, min-p and typical look at are those before the temperature.
 * Temperature 0 takes the likeliest token after bias and penalties. Ties go to the lower id. */
#ifndef NIBBLE_GEN_SAMPLER_H
#define NIBBLE_GEN_SAMPLER_H

#include <stdint.h>

#include "base/arena.h"
#include "gen/random.h"

struct logit_bias {
    int id;
    float value; /* added to the logit; -INFINITY forbids the token */
};

struct sampler_options {
    uint64_t seed;
    float temp;    /* 0: greedy */
    int top_k;     /* keep the k likeliest; 0: all */
    float top_p;   /* keep the likeliest that make up p; 1: all */
    float min_p;   /* keep those at least min_p times as likely as the likeliest; 0: all */
    float typical; /* keep those nearest the expected surprise that make up this much; 1: all */
    float repeat_penalty; /* divides a positive logit of a recent token, multiplies a negative one;
                             1: off */
    float presence_penalty;        /* subtracted once from every recent token */
    float frequency_penalty;       /* and once for each time it is there */
    int repeat_last_n;             /* how many tokens are recent; 0: off, -1: the whole context */
    const struct logit_bias *bias; /* borrowed while the sampler lives */
    size_t bias_count;
};

struct candidate {
    int id;
    float logit, p;
};

struct sampler {
    struct sampler_options options;
    size_t vocab; /* ids that may be sampled: 0 .. vocab - 1 */
    struct random random;
    struct candidate *candidates; /* [vocab] */
    size_t count;                 /* of those still in */
    bool sorted;                  /* likeliest first */
    int *recent;                  /* ring of the last tokens [recent_size] */
    size_t recent_size, recent_count;
    uint32_t *times; /* how often each id is in the ring [vocab] */
    struct arena arena;
};

/* vocab: ids from here on are never sampled (rows beyond the tokenizer's pieces). Options out of
 * their range and a bias on an id outside vocab are refused. context bounds the history for
 * repeat_last_n -1. */
bool sampler_open(struct sampler *s, const struct sampler_options *o, size_t vocab, size_t context,
                  struct error *e);
void sampler_close(struct sampler *s);

/* Notes a token of the text, of the prompt too, for the penalties. */
void sampler_accept(struct sampler *s, int id);

/* *id from logits [vocab]. NaN, or no finite logit, is an error, never a token. */
bool sampler_pick(struct sampler *s, const float *logits, int *id, struct error *e);

#endif
