#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/generation.h"
#include "cli/message.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/stats.h"

struct job {
    const struct args *args;
    struct session session;
    struct input_text prompt; /* bytes is NULL if it is only known as ids */
    nibble_ids ids;           /* the prompt */
    bool begun;
    int *tokens; /* generated, for --json */
    size_t token_count, token_cap;
    char *text; /* generated, for --json */
    size_t text_size, text_cap;
    bool out_of_memory;
    struct generation generation;
};

/* --- what is heard while it runs -------------------------------------------------------------- */

/* Makes room for `more` elements in an array that grows by doubling. */
static bool reserve(struct job *j, void **array, size_t *cap, size_t count, size_t more,
                    size_t elem_bytes) {
    if (count + more <= *cap) return true;
    size_t wanted = 2 * (count + more);
    void *bigger = realloc(*array, wanted * elem_bytes);
    j->out_of_memory |= !bigger;
    if (!bigger) return false;
    *array = bigger;
    *cap = wanted;
    return true;
}

static void keep_text(struct job *j, const char *text, size_t size) {
    void *array = j->text;
    if (!reserve(j, &array, &j->text_cap, j->text_size, size, 1)) return;
    j->text = array;
    memcpy(j->text + j->text_size, text, size);
    j->text_size += size;
}

static void on_text(void *arg, const char *text, size_t size) {
    struct job *j = arg;
    message_progress_end();
    if (j->args->json)
        keep_text(j, text, size);
    else
        output_write(text, size);
}

static void on_token(void *arg, int id) {
    struct job *j = arg;
    void *array = j->tokens;
    if (!j->session.tokenizer && !j->args->json)
        output_print("%s%d", j->token_count || j->args->echo ? " " : "", id);
    if (j->args->json && reserve(j, &array, &j->token_cap, j->token_count, 1, sizeof *j->tokens)) {
        j->tokens = array;
        j->tokens[j->token_count] = id;
    }
    j->token_count++;
}

/* Prints the prompt when it is known to fit: before the first pass. */
static void echo(struct job *j) {
    bool due = j->args->echo && !j->args->json && !j->begun;
    j->begun = true;
    if (due && j->prompt.bytes) output_write(j->prompt.bytes, j->prompt.size);
    if (!due || j->prompt.bytes) return;
    for (size_t i = 0; i < j->ids.count; i++) output_print("%s%d", i ? " " : "", j->ids.ids[i]);
}

static bool go_on(void *arg, size_t prompt_done) {
    struct job *j = arg;
    echo(j);
    if (!j->args->quiet && prompt_done < j->ids.count) {
        message_progress("reading the prompt", prompt_done, j->ids.count);
    }
    return !message_interrupted() && !output_failed() && !j->out_of_memory;
}

/* --- before ----------------------------------------------------------------------------------- */

static int read_ids(struct job *j) {
    nibble_error e;
    int code = input_ids(j->args->ids, &j->ids);
    if (code != EXIT_DONE || !j->args->echo || !j->session.tokenizer) return code;
    bool ok = nibble_detokenize(j->session.tokenizer, j->ids.ids, j->ids.count, &j->prompt.bytes,
                                &j->prompt.size, &e);
    return ok ? EXIT_DONE : message_error(&e);
}

/* The prompt's tokens: given as ids, or text through the tokenizer. An empty one is BOS alone. */
static int read_prompt(struct job *j) {
    const struct args *a = j->args;
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

/* --- after ------------------------------------------------------------------------------------ */

static cJSON *text_json(struct job *j) {
    if (!j->session.tokenizer) return cJSON_CreateNull();
    if (!j->args->echo) return output_json_text(j->text, j->text_size);
    size_t size = j->prompt.size + j->text_size;
    char *whole = malloc(size + 1);
    if (!whole) return NULL;
    if (j->prompt.size) memcpy(whole, j->prompt.bytes, j->prompt.size);
    if (j->text_size) memcpy(whole + j->prompt.size, j->text, j->text_size);
    cJSON *text = output_json_text(whole, size);
    free(whole);
    return text;
}

static void print_json(struct job *j, const nibble_generated *g) {
    const char *model = j->args->words[0];
    cJSON *o = cJSON_CreateObject();
    cJSON_AddItemToObject(o, "text", text_json(j));
    cJSON_AddItemToObject(o, "ids", cJSON_CreateIntArray(j->tokens, (int)j->token_count));
    cJSON_AddStringToObject(o, "finish_reason", stats_finish(g->finish));
    cJSON_AddNumberToObject(o, "prompt_tokens", (double)g->prompt_tokens);
    cJSON_AddNumberToObject(o, "dropped_tokens", (double)g->dropped);
    cJSON_AddNumberToObject(o, "seed", j->generation.seed);
    cJSON_AddItemToObject(o, "model", output_json_text(model, strlen(model)));
    cJSON_AddItemToObject(o, "timings", stats_timings(&j->session, g));
    cJSON_AddItemToObject(o, "versions", stats_versions(&j->session));
    output_json(o);
}

static void tell_overflow(const struct job *j, const nibble_generated *g) {
    nibble_context_info info;
    nibble_context_describe(j->session.context, &info);
    generation_tell_overflow(&j->generation, g, info.context);
}

static void finish_output(struct job *j, const nibble_generated *g) {
    bool terminal = isatty(STDOUT_FILENO);
    message_progress_end();
    if (j->args->json)
        print_json(j, g);
    else if (!j->session.tokenizer)
        output_write("\n", 1);
    else if (terminal)
        fputc('\n', stderr);
    if (!j->args->json) tell_overflow(j, g);
    if (!j->args->quiet && (j->args->stats || isatty(STDERR_FILENO)))
        stats_print(&j->session, g, j->generation.seed);
}

static int generate(struct job *j) {
    nibble_error e;
    nibble_generated done;
    nibble_model_info info;
    nibble_model_describe(j->session.model, &info);
    nibble_generation g = generation_options(j->args, &j->generation);
    g.keep = generation_keep(&j->generation, &j->ids, info.bos);
    g.arg = j;
    g.on_text = on_text;
    g.on_token = on_token;
    g.go_on = go_on;
    if (!nibble_generate(j->session.context, &g, j->ids.ids, j->ids.count, &done, &e))
        return message_error(&e);
    if (j->out_of_memory) {
        message("not enough memory to keep the text for --json");
        return EXIT_FAILED;
    }
    finish_output(j, &done);
    return message_interrupted() ? message_interrupted_exit() : EXIT_DONE;
}

static int run(const struct args *a) {
    struct job j = {.args = a};
    message_catch_signals();
    int code = generation_read(a, &j.generation);
    if (code == EXIT_DONE) code = session_open_model(&j.session, a->words[0]);
    if (code == EXIT_DONE) code = read_prompt(&j);
    if (code == EXIT_DONE) session_confine(a, (const char *[]){NULL});
    if (code == EXIT_DONE) code = session_open_context(&j.session, a, 0);
    if (code == EXIT_DONE) code = generate(&j);
    session_close(&j.session);
    free(j.prompt.bytes);
    nibble_free(j.ids.ids);
    free(j.tokens);
    free(j.text);
    return code;
}

static const struct option *const groups[] = {options_prompt,
                                              options_generation,
                                              options_overflow,
                                              options_sampling,
                                              options_run,
                                              options_threads,
                                              options_output,
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
