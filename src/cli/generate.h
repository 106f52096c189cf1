/* What the parts of `nibble generate` share: a prompt on its way through the model, and what is
 * heard of it. */
#ifndef NIBBLE_CLI_GENERATE_H
#define NIBBLE_CLI_GENERATE_H

#include "cli/generation.h"
#include "cli/session.h"

struct cJSON;

/* What is kept of a run for --json; with --jsonl no more than is not printed yet. */
struct generate_record {
    char *text; /* malloc'd, like ids */
    size_t text_size, text_cap;
    int *ids;
    size_t count, cap;
    struct cJSON *logprobs; /* an entry a token; NULL without --logprobs */
    bool out_of_memory;
};

struct generate_job {
    const struct args *args;
    struct session session;
    struct input_text prompt; /* bytes is NULL if it is only known as ids */
    nibble_ids ids;           /* the prompt */
    bool begun;
    size_t vocab;
    size_t tokens; /* generated so far */
    struct generate_record record;
    struct generation generation;
};

#endif
