/* One prompt of `nibble generate` on its way through the model, and what is heard of it. */
#ifndef NIBBLE_CLI_GENERATE_JOB_H
#define NIBBLE_CLI_GENERATE_JOB_H

#include "cli/generation.h"
#include "cli/session.h"

struct cJSON;

/* A token whose bytes are not printed yet, and its colour. */
struct generate_waiting {
    size_t size;
    int color;
};

/* What is kept of a run for --json; with --jsonl and --show-probs no more than is not printed. */
struct generate_record {
    char *text; /* malloc'd, like ids */
    size_t text_size, text_cap;
    int *ids;
    size_t count, cap;
    struct cJSON *logprobs; /* an entry a token; NULL without --logprobs */
    struct generate_waiting *waiting;
    size_t waiting_count;
    bool out_of_memory;
};

struct generate_job {
    const struct args *args;
    const struct session *session;
    const struct cJSON *label; /* fields that go into the object first, or NULL */
    const char *cache;         /* the file that the prompt's KV cache is kept in, or NULL */
    struct input_text prompt;  /* bytes is NULL if it is only known as ids */
    nibble_ids ids;            /* the prompt */
    struct generation generation;

    size_t vocab;
    size_t restored; /* tokens of the prompt that its file held */
    size_t cached;   /* those that the context held already, its file's among them */
    size_t tokens; /* generated so far */
    bool begun, colored;
    struct generate_record record;
};

/* Whether programs are told, in JSON. */
bool generate_job_in_json(const struct args *a);

/* Tokens of a prompt that is given as text; the text of one that is given as ids, if it is to be
 * printed. Returns 0, or the exit code after printing why. */
int generate_job_tokenize(struct generate_job *j);
int generate_job_detokenize(struct generate_job *j);

/* Runs it, ids and generation being there, and prints what comes. The same returns. */
int generate_job_run(struct generate_job *j);

void generate_job_free(struct generate_job *j);

#endif
