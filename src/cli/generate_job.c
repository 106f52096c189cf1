#include "cli/generate_job.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli/generate_color.h"
#include "cli/generate_json.h"
#include "cli/message.h"
#include "cli/output.h"
#include "cli/prompt.h"
#include "cli/stats.h"

bool generate_job_in_json(const struct args *a) {
    return a->json || a->jsonl;
}

/* --- the prompt ------------------------------------------------------------------------------- */

int generate_job_tokenize(struct generate_job *j) {
    const struct session *s = j->session;
    if (!s->tokenizer) {
        message("%s has no tokenizer; give the prompt as token ids with --ids", j->args->words[0]);
        return EXIT_FAILED;
    }
    int code = prompt_check_size(j->args, s, &j->prompt);
    return code != EXIT_DONE ? code : input_tokenize(j->args, s->tokenizer, &j->prompt, &j->ids);
}

int generate_job_detokenize(struct generate_job *j) {
    nibble_error e;
    if (!j->args->echo || !j->session->tokenizer) return EXIT_DONE;
    bool ok = nibble_detokenize(j->session->tokenizer, j->ids.ids, j->ids.count, &j->prompt.bytes,
                                &j->prompt.size, &e);
    return ok ? EXIT_DONE : message_error(&e);
}

/* --- what is heard while it runs -------------------------------------------------------------- */

static void on_text(void *arg, const char *text, size_t size) {
    struct generate_job *j = arg;
    message_progress_end();
    if (generate_job_in_json(j->args))
        generate_json_text(j, text, size);
    else if (j->colored)
        generate_color_text(j, text, size);
    else
        output_write(text, size);
}

static void on_token(void *arg, const nibble_token *t) {
    struct generate_job *j = arg;
    if (generate_job_in_json(j->args))
        generate_json_token(j, t);
    else if (!j->session->tokenizer)
        output_print("%s%d", j->tokens || j->args->echo ? " " : "", t->id);
    else if (j->colored)
        generate_color_token(j, t);
    j->tokens++;
}

/* Prints the prompt, if that is wanted. */
static void echo(const struct generate_job *j) {
    if (!j->args->echo) return;
    if (j->prompt.bytes && j->colored)
        generate_color_prompt(j->prompt.bytes, j->prompt.size);
    else if (j->prompt.bytes)
        output_write(j->prompt.bytes, j->prompt.size);
    for (size_t i = 0; i < j->ids.count && !j->prompt.bytes; i++)
        output_print("%s%d", i ? " " : "", j->ids.ids[i]);
}

/* Before the first pass, when the prompt is known to fit. */
static void begin(struct generate_job *j) {
    if (generate_job_in_json(j->args))
        generate_json_start(j);
    else
        echo(j);
    j->begun = true;
}

static bool go_on(void *arg, size_t prompt_done) {
    struct generate_job *j = arg;
    size_t left = j->ids.count - j->cached;
    if (!j->begun) begin(j);
    if (!j->args->quiet && prompt_done < left)
        message_progress("reading the prompt", prompt_done, left);
    return !message_interrupted() && !output_failed() && !j->record.out_of_memory;
}

/* --- running ---------------------------------------------------------------------------------- */

static void tell_overflow(const struct generate_job *j, const nibble_generated *g) {
    nibble_context_info info;
    nibble_context_describe(j->session->context, &info);
    generation_tell_overflow(&j->generation, g, info.context);
}

static void finish_output(struct generate_job *j, const nibble_generated *g) {
    bool json = generate_job_in_json(j->args), terminal = isatty(STDOUT_FILENO);
    message_progress_end();
    if (j->colored) generate_color_end(j);
    if (json)
        generate_json_end(j, g);
    else if (!j->session->tokenizer)
        output_write("\n", 1);
    else if (terminal)
        fputc('\n', stderr);
    if (!json) tell_overflow(j, g);
    if (!j->args->quiet && (j->args->stats || (isatty(STDERR_FILENO) && !j->args->batch_file)))
        stats_print(j->session, g, j->generation.seed);
}

/* Fills the context from the file, as far as it is of use. Returns 0, or the exit code after
 * printing why not: of a file that may not be replaced. */
static int restore(struct generate_job *j) {
    nibble_error e;
    size_t wanted = j->ids.count;
    if (!j->cache || access(j->cache, F_OK) != 0) return EXIT_DONE;
    bool ok =
        nibble_load_cache(j->session->context, j->cache, j->ids.ids, wanted, &j->restored, &e);
    if (!ok && e.status == NIBBLE_ARGUMENT) return message_error(&e);
    if (!ok)
        message_note("the prompt is computed anew: %s", e.message);
    else if (j->restored < wanted)
        message_note("%s holds the first %zu of the prompt's %zu tokens, the others are computed",
                     j->cache, j->restored, wanted);
    return EXIT_DONE;
}

/* Keeps the prompt in the file, unless it is there or is not read to its end. */
static int save(const struct generate_job *j, const nibble_generated *g) {
    nibble_error e;
    nibble_context_info info;
    nibble_context_describe(j->session->context, &info);
    if (!j->cache || j->restored == j->ids.count) return EXIT_DONE;
    if (g->slides) message_note("%s is not written, for the prompt slid away", j->cache);
    if (g->slides || info.used < j->ids.count) return EXIT_DONE;
    bool ok = nibble_save_cache(j->session->context, j->cache, j->ids.count, &e);
    return ok ? EXIT_DONE : message_error(&e);
}

/* Forgets what the context holds but for a common beginning. BLAS's last bits depend on where a
 * prompt is cut: with it nothing is shared, and results are those of a single run. */
static void keep_beginning(struct generate_job *j) {
    if (j->args->blas)
        nibble_rewind(j->session->context, 0);
    else
        j->cached = nibble_keep(j->session->context, j->ids.ids, j->ids.count);
}

int generate_job_run(struct generate_job *j) {
    nibble_error e;
    nibble_generated done;
    nibble_model_info info;
    nibble_model_describe(j->session->model, &info);
    j->vocab = info.vocab;
    j->colored = !generate_job_in_json(j->args) && generate_color_wanted(j->args);
    nibble_generation g = generation_options(j->args, &j->generation);
    g.keep = generation_keep(&j->generation, &j->ids, info.bos);
    g.arg = j;
    g.on_text = on_text;
    g.on_token = on_token;
    g.go_on = go_on;
    int code = restore(j);
    if (code != EXIT_DONE) return code;
    keep_beginning(j);
    if (!nibble_generate(j->session->context, &g, j->ids.ids + j->cached, j->ids.count - j->cached,
                         &done, &e))
        return message_error(&e);
    if (j->record.out_of_memory) {
        message("not enough memory to keep what is generated");
        return EXIT_FAILED;
    }
    finish_output(j, &done);
    code = save(j, &done);
    if (code != EXIT_DONE) return code;
    return message_interrupted() ? message_interrupted_exit() : EXIT_DONE;
}

void generate_job_free(struct generate_job *j) {
    free(j->prompt.bytes);
    nibble_free(j->ids.ids);
    generate_json_free(&j->record);
}
