#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/generate_json.h"
#include "cli/message.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/prompt.h"
#include "cli/stats.h"

/* --- what is heard while it runs -------------------------------------------------------------- */

static bool for_programs(const struct args *a) {
    return a->json || a->jsonl;
}

static void on_text(void *arg, const char *text, size_t size) {
    struct generate_job *j = arg;
    message_progress_end();
    if (for_programs(j->args))
        generate_json_text(j, text, size);
    else
        output_write(text, size);
}

static void on_token(void *arg, const nibble_token *t) {
    struct generate_job *j = arg;
    if (for_programs(j->args))
        generate_json_token(j, t);
    else if (!j->session.tokenizer)
        output_print("%s%d", j->tokens || j->args->echo ? " " : "", t->id);
    j->tokens++;
}

/* Prints the prompt, if that is wanted. */
static void echo(const struct generate_job *j) {
    if (!j->args->echo) return;
    if (j->prompt.bytes) output_write(j->prompt.bytes, j->prompt.size);
    for (size_t i = 0; i < j->ids.count && !j->prompt.bytes; i++)
        output_print("%s%d", i ? " " : "", j->ids.ids[i]);
}

/* Before the first pass, when the prompt is known to fit. */
static void begin(struct generate_job *j) {
    if (for_programs(j->args))
        generate_json_start(j);
    else
        echo(j);
    j->begun = true;
}

static bool go_on(void *arg, size_t prompt_done) {
    struct generate_job *j = arg;
    if (!j->begun) begin(j);
    if (!j->args->quiet && prompt_done < j->ids.count) {
        message_progress("reading the prompt", prompt_done, j->ids.count);
    }
    return !message_interrupted() && !output_failed() && !j->record.out_of_memory;
}

/* --- before ----------------------------------------------------------------------------------- */

static int read_ids(struct generate_job *j) {
    nibble_error e;
    int code = input_ids(j->args->ids, &j->ids);
    if (code != EXIT_DONE || !j->args->echo || !j->session.tokenizer) return code;
    bool ok = nibble_detokenize(j->session.tokenizer, j->ids.ids, j->ids.count, &j->prompt.bytes,
                                &j->prompt.size, &e);
    return ok ? EXIT_DONE : message_error(&e);
}

/* The prompt's tokens: given as ids, or text through the tokenizer. An empty one is BOS alone. */
static int read_prompt(struct generate_job *j) {
    const struct args *a = j->args;
    if (prompt_is_chat(a)) return prompt_read(a, &j->session, &j->prompt, &j->ids);
    if (a->ids && (a->prompt || a->file)) {
        message("--ids and a prompt are both given; choose one");
        return EXIT_USAGE;
    }
    if (a->ids) return read_ids(j);
    if (!j->session.tokenizer) {
        message("%s has no tokenizer; give the prompt as token ids with --ids", a->words[0]);
        return EXIT_FAILED;
    }
    int code = input_read(a, true, &j->prompt);
    return code != EXIT_DONE ? code : input_tokenize(a, j->session.tokenizer, &j->prompt, &j->ids);
}

static int check_args(const struct args *a) {
    if (a->json && a->jsonl) {
        message("--json and --jsonl are both given; choose one");
        return EXIT_USAGE;
    }
    if (a->logprobs >= 0 && !for_programs(a)) {
        message("--logprobs belongs to --json or --jsonl; give one of them too");
        return EXIT_USAGE;
    }
    return EXIT_DONE;
}

/* --- after ------------------------------------------------------------------------------------ */

static void tell_overflow(const struct generate_job *j, const nibble_generated *g) {
    nibble_context_info info;
    nibble_context_describe(j->session.context, &info);
    generation_tell_overflow(&j->generation, g, info.context);
}

static void finish_output(struct generate_job *j, const nibble_generated *g) {
    bool terminal = isatty(STDOUT_FILENO);
    message_progress_end();
    if (for_programs(j->args))
        generate_json_end(j, g);
    else if (!j->session.tokenizer)
        output_write("\n", 1);
    else if (terminal)
        fputc('\n', stderr);
    if (!for_programs(j->args)) tell_overflow(j, g);
    if (!j->args->quiet && (j->args->stats || isatty(STDERR_FILENO)))
        stats_print(&j->session, g, j->generation.seed);
}

static int generate(struct generate_job *j) {
    nibble_error e;
    nibble_generated done;
    nibble_model_info info;
    nibble_model_describe(j->session.model, &info);
    j->vocab = info.vocab;
    nibble_generation g = generation_options(j->args, &j->generation);
    g.keep = generation_keep(&j->generation, &j->ids, info.bos);
    g.arg = j;
    g.on_text = on_text;
    g.on_token = on_token;
    g.go_on = go_on;
    if (!nibble_generate(j->session.context, &g, j->ids.ids, j->ids.count, &done, &e))
        return message_error(&e);
    if (j->record.out_of_memory) {
        message("not enough memory to keep what is generated");
        return EXIT_FAILED;
    }
    finish_output(j, &done);
    return message_interrupted() ? message_interrupted_exit() : EXIT_DONE;
}

static int show_prompt(const struct generate_job *j) {
    return prompt_show(j->args, &j->session, &j->prompt, &j->ids);
}

static int run_prompt(struct generate_job *j) {
    session_confine(j->args, (const char *[]){NULL});
    int code = session_open_context(&j->session, j->args, 0);
    return code != EXIT_DONE ? code : generate(j);
}

static int run(const struct args *a) {
    struct generate_job j = {.args = a};
    message_catch_signals();
    int code = check_args(a);
    if (code == EXIT_DONE) code = prompt_check(a);
    if (code == EXIT_DONE) code = generation_read(a, &j.generation);
    if (code == EXIT_DONE) code = session_open_model(&j.session, a->words[0]);
    if (code == EXIT_DONE) code = generation_ask_model(a, &j.session, &j.generation);
    if (code == EXIT_DONE) code = read_prompt(&j);
    if (code == EXIT_DONE) code = a->show_prompt ? show_prompt(&j) : run_prompt(&j);
    session_close(&j.session);
    free(j.prompt.bytes);
    nibble_free(j.ids.ids);
    generate_json_free(&j.record);
    return code;
}

#define AT(member) offsetof(struct args, member)

static const struct option options_programs[] = {
    {"--jsonl", OPTION_FLAG, AT(jsonl), .help = "print a JSON object a line for each event"},
    {"--logprobs", OPTION_WHOLE, AT(logprobs), 0, GENERATE_JSON_LOGPROBS, -1, "N",
     "in JSON: log-probabilities of each token and of the N likeliest (default: off)"},
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
    .usage = "MODEL [-p TEXT | -f FILE | --ids \"ID...\"]",
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
