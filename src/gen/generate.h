/* The loop: prompt in, tokens out one by one, until something ends it. */
#ifndef NIBBLE_GEN_GENERATE_H
#define NIBBLE_GEN_GENERATE_H

#include "base/span.h"
#include "gen/sampler.h"
#include "gen/stream.h"
#include "model/run.h"
#include "text/tokens.h"

enum finish { FINISH_STOP, FINISH_LENGTH, FINISH_STRING, FINISH_CONTEXT, FINISH_INTERRUPTED };

struct generate_options {
    size_t max_tokens;        /* SIZE_MAX: no limit but the context */
    const int *ends;          /* end tokens besides those of the model and the tokenizer */
    size_t end_count;
    bool ignore_ends;         /* end tokens do not stop the run */
    const char *const *stops; /* stop strings, none empty */
    size_t stop_count;
    bool slide;  /* when the context is full: go on without the oldest half of what follows */
    size_t keep; /* so many of its first tokens, at most those up to the prompt's end */
};

/* A token as it is chosen; what it points to lasts as long as the event. */
struct generate_token {
    int id;
    struct span text;    /* its own bytes, perhaps a part of a character; an end token has none */
    const float *logits; /* [vocab] that it was chosen from, before any stage of the sampler */
};

/* What the caller hears while it runs. Any may be NULL. */
struct generate_events {
    void *arg;
    /* Text that is settled: whole characters, but for the very last. */
    void (*on_text)(void *arg, const char *text, size_t size);
    /* Every token, behind the text that settled with it. */
    void (*on_token)(void *arg, const struct generate_token *t);
    bool (*go_on)(void *arg, size_t prompt_done); /* asked before each pass; false: stop */
};

struct generated {
    enum finish finish;
    size_t prompt_tokens, tokens; /* tokens: those chosen, an end token included */
    size_t slides, dropped;       /* how often the context slid, and the tokens it lost by that */
    uint64_t prompt_ns;           /* reading the prompt, up to its logits */
    uint64_t first_ns;            /* from the start to the first token chosen */
    uint64_t tokens_ns;           /* from the first token chosen to the last */
};

/* Appends prompt [n >= 1] to the run and generates. What the run holds already counts as prompt to
 * the penalties. tokens may be NULL: then there is no text, and stops are not looked for. Tokens
 * that end a text: the model's, the tokenizer's, and o->ends. A prompt that does not fit is refused
 * before anything runs.
 *
 * A full context ends the generation, unless it may slide. Then of the c tokens behind the kept
 * ones the oldest c / 2, rounded up, are dropped and the others move to the front. Their keys and
 * values belong to the positions and the neighbours they had, so they are computed anew: the run is
 * rewound to the kept tokens and reads the rest again, and goes on exactly as if it had read
 * nothing else. (Turning the cached keys to their new positions would be cheaper, but keeps values
 * in which the dropped text lives on.) That costs the reading of up to half a context for every
 * half a context generated. Where all is kept there is nothing to drop, and the context ends it. */
bool generate(struct run *r, const struct tokens *tokens, struct sampler *sampler,
              const int *prompt, size_t n, const struct generate_options *o,
              const struct generate_events *events, struct generated *out, struct error *e);

#endif
