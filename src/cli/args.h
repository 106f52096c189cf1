/* The values of all options of all commands; a command's table says which of them it has. */
#ifndef NIBBLE_CLI_ARGS_H
#define NIBBLE_CLI_ARGS_H

#include <stdbool.h>
#include <stdint.h>

#include "nibble.h"

enum { ARGS_MAX_REPEATS = 64, ARGS_MAX_NUMBERS = 16, ARGS_MAX_GIVEN = 128 };

/* An option that may be given several times. */
struct args_list {
    const char *items[ARGS_MAX_REPEATS];
    int count;
};

/* Whole numbers in one value: "128,512". At least one. */
struct args_numbers {
    long long items[ARGS_MAX_NUMBERS];
    int count;
};

struct args {
    /* what stands without an option: MODEL, OUT.npz, ids */
    const char **words;
    int word_count;

    size_t given[ARGS_MAX_GIVEN]; /* where the values of options that were given lie in here */
    int given_count;

    bool help, version;

    /* prompt */
    const char *prompt, *file, *ids;
    bool escapes, special, bos, no_bos;

    /* run */
    long long context, batch, threads;
    const char *level, *kv_type;
    bool blas, no_sandbox;

    /* sampling */
    double temp, top_p, min_p, typical, repeat_penalty, presence_penalty, frequency_penalty;
    long long top_k, repeat_last_n, seed;
    struct args_list logit_bias;
    bool model_defaults;

    /* generation */
    long long n_predict;
    struct args_list stops;
    bool ignore_eos, echo;
    const char *overflow;
    long long keep;
    const char *batch_file, *prompt_cache;

    /* chat */
    const char *system, *template, *messages, *save_dir;
    bool chat, show_prompt;

    /* output */
    bool stats, quiet, json, jsonl;
    const char *color;
    bool show_probs;
    long long logprobs; /* -1: none are wanted */
    const char *out;

    /* bench */
    struct args_numbers bench_prompts, bench_tokens, bench_depths, bench_threads;
    long long repeats;
    const char *format;
    bool ops;

    /* info, verify */
    bool all, write_reference, print_reference;

    /* perplexity */
    const char *window, *save_logits, *kl;
    long long stride, chunks;

    /* quantize */
    long long bits, embed_bits, high_bits, group_size;
    bool mixed, search;
    const char *calibrate;
};

#endif
