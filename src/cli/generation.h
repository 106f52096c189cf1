/* How tokens are chosen, and what ends or outlasts a context, as the options say. */
#ifndef NIBBLE_CLI_GENERATION_H
#define NIBBLE_CLI_GENERATION_H

#include "cli/session.h"

struct generation {
    nibble_bias bias[ARGS_MAX_REPEATS];
    nibble_sampling sampling;
    int end;        /* the token that ends an answer in the chat template chosen, or -1 */
    uint32_t seed;  /* the one asked for, or a random one */
    bool slide;     /* --overflow slide */
    long long keep; /* --keep */
};

/* Checks and reads the options. Returns 0, or the exit code after printing why. */
int generation_read(const struct args *a, struct generation *g);

/* Then, once the model is open: what it says itself of sampling (--model-defaults), and the end of
 * an answer (--template). tell: a note on stderr if it says nothing of sampling. The same returns.
 */
int generation_ask_model(const struct args *a, const struct session *s, struct generation *g,
                         bool tell);

/* What the library wants to know, but for the callbacks. g and a are borrowed by it. */
nibble_generation generation_options(const struct args *a, const struct generation *g);

/* How many of a prompt's tokens never slide away: those of --keep and, before them, BOS. */
size_t generation_keep(const struct generation *g, const nibble_ids *prompt, int bos);

/* Says on stderr that a context was full, and what came of it; nothing if it was not. */
void generation_tell_overflow(const struct generation *g, const nibble_generated *done,
                              size_t context);

#endif
