#include <stdio.h>
#include <stdlib.h>

#include "cli/generate_batch.h"
#include "cli/generate_color.h"
#include "cli/generate_json.h"
#include "cli/message.h"
#include "cli/options.h"
#include "cli/prompt.h"

static int read_ids(struct generate_job *j) {
    int code = input_ids(j->args->ids, &j->ids);
    return code != EXIT_DONE ? code : generate_job_detokenize(j);
}

/* The prompt's tokens: given as ids, or text through the tokenizer. An empty one is BOS alone. */
static int read_prompt(struct generate_job *j) {
    const struct args *a = j->args;
    if (prompt_is_chat(a)) return prompt_read(a, j->session, &j->prompt, &j->ids);
    if (a->ids && (a->prompt || a->file)) {
        message("--ids and a prompt are both given; choose one");
        return EXIT_USAGE;
    }
    if (a->ids) return read_ids(j);
    int code = j->session->tokenizer ? input_read(a, true, &j->prompt) : EXIT_DONE;
    return code != EXIT_DONE ? code : generate_job_tokenize(j);
}

static int refuse(const char *why) {
    message("%s", why);
    return EXIT_USAGE;
}

/* What makes no sense together. */
static int check_args(const struct args *a) {
    bool json = generate_job_in_json(a) || a->batch_file;
    if (a->json && a->jsonl) return refuse("--json and --jsonl are both given; choose one");
    if (a->batch_file && a->jsonl)
        return refuse("--batch-file prints an object for each line; leave --jsonl out");
    if (a->batch_file && (a->prompt || a->file || a->ids))
        return refuse("--batch-file and a prompt are both given; choose one");
    if (a->batch_file && (a->messages || a->show_prompt))
        return refuse("--batch-file has conversations in its lines and generates; leave --messages "
                      "and --show-prompt out");
    if (a->prompt_cache && a->blas)
        return refuse("--prompt-cache and --blas do not go together: last bits would depend on "
                      "what the file holds; leave one out");
    if (a->logprobs >= 0 && !json)
        return refuse("--logprobs belongs to --json or --jsonl; give one of them too");
    if (a->show_probs && json)
        return refuse("--show-probs colours text; JSON tells probabilities with --logprobs");
    return generate_color_check(a);
}

/* The cache of the prompt is read and written when the model is there already. */
static void confine(const struct args *a) {
    char *folder = a->prompt_cache ? session_folder(a->prompt_cache) : NULL;
    session_confine(a, (const char *[]){folder, NULL});
    free(folder);
}

static int run_prompt(struct generate_job *j, struct session *s) {
    int code = generation_read(j->args, &j->generation);
    if (code == EXIT_DONE) code = session_open_model(s, j->args->words[0]);
    if (code == EXIT_DONE) code = generation_ask_model(j->args, s, &j->generation, true);
    if (code == EXIT_DONE) code = read_prompt(j);
    if (code != EXIT_DONE) return code;
    if (j->args->show_prompt) return prompt_show(j->args, s, &j->prompt, &j->ids);
    confine(j->args);
    code = session_open_context(s, j->args, 0);
    return code != EXIT_DONE ? code : generate_job_run(j);
}

/* What would be wrong with every line is told before the first. */
static int run_batch(const struct args *a, struct session *s) {
    FILE *f = NULL;
    struct generation all = {0};
    int code = generation_read(a, &all);
    if (code == EXIT_DONE) code = generate_batch_open(a, &f);
    if (code == EXIT_DONE) code = session_open_model(s, a->words[0]);
    if (code == EXIT_DONE) code = generation_ask_model(a, s, &all, true);
    if (code == EXIT_DONE) code = prompt_try(a, s);
    if (code == EXIT_DONE) confine(a);
    if (code == EXIT_DONE) code = session_open_context(s, a, 0);
    if (code == EXIT_DONE) code = generate_batch(a, s, f);
    if (f && f != stdin) fclose(f);
    return code;
}

static int run(const struct args *a) {
    struct session session = {0};
    struct generate_job j = {.args = a, .session = &session, .cache = a->prompt_cache};
    message_catch_signals();
    int code = check_args(a);
    if (code == EXIT_DONE) code = prompt_check(a);
    if (code == EXIT_DONE) code = a->batch_file ? run_batch(a, &session) : run_prompt(&j, &session);
    generate_job_free(&j);
    session_close(&session);
    return code;
}

#define AT(member) offsetof(struct args, member)

static const struct option options_programs[] = {
    {"--batch-file", OPTION_TEXT, AT(batch_file), .value = "FILE",
     .help = "many prompts, a JSON object a line; - for stdin"},
    {"--prompt-cache", OPTION_TEXT, AT(prompt_cache), .value = "FILE",
     .help = "keep the prompt's KV cache in a file, and use what is there"},
    {"--jsonl", OPTION_FLAG, AT(jsonl), .help = "print a JSON object a line for each event"},
    {"--logprobs", OPTION_WHOLE, AT(logprobs), 0, GENERATE_JSON_LOGPROBS, -1, "N",
     "in JSON: log-probabilities of each token and of the N likeliest (default: off)"},
    {"--color", OPTION_TEXT, AT(color), .value = "auto|always|never",
     .help = "mark prompt and answer; auto: on a terminal (default: never)"},
    {"--show-probs", OPTION_FLAG, AT(show_probs),
     .help = "with colours: each token by its probability, red to green"},
    {0}};

static const struct option *const groups[] = {options_prompt,
                                              prompt_options,
                                              options_generation,
                                              options_overflow,
                                              options_sampling,
                                              options_run,
                                              options_threads,
                                              options_output,
                                              options_programs,
                                              NULL};

const struct command command_generate = {
    .name = "generate",
    .usage = "MODEL [-p TEXT | -f FILE | --ids \"ID...\" | --batch-file FILE]",
    .summary = "stream a continuation of a prompt to stdout",
    .notes =
        "Without -p, -f and --ids the prompt is read from stdin. One final newline of a file or "
        "of\n"
        "stdin is not part of the prompt. Without a tokenizer the output is token ids.\n"
        "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 the prompt does not fit, 130 interrupted.",
    .min_words = 1,
    .max_words = 1,
    .groups = groups,
    .run = run,
};
