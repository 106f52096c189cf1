#include <cjson/cJSON.h>
#include <stdio.h>
#include <string.h>

#include "cli/fault.h"
#include "cli/message.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/session.h"

static const struct option options_verify[] = {
    {"--write-reference", OPTION_FLAG, offsetof(struct args, write_reference),
     .help = "compute the reference anew and store it with the model"},
    {"--print-reference", OPTION_FLAG, offsetof(struct args, print_reference),
     .help = "compute it and print its JSON, nothing else"},
    {"--json", OPTION_FLAG, offsetof(struct args, json), .help = "print one JSON object"},
    {"--level", OPTION_TEXT, offsetof(struct args, level), .value = "LEVEL",
     .help = "SIMD level at most; nibble info lists them (default: the best)"},
    {"-q --quiet", OPTION_FLAG, offsetof(struct args, quiet), .help = "no progress"},
    {0}};

struct verify {
    const struct args *args;
    const char *path;
    struct session session;
    nibble_model_info info;
    nibble_checksums checksums;
    nibble_reference_check reference;
    const char *step; /* for progress */
};

static bool progress(void *arg, size_t done, size_t total) {
    const struct verify *v = arg;
    if (!v->args->quiet) message_progress(v->step, done, total);
    return !message_interrupted();
}

/* --- the steps ------------------------------------------------------------------------------ */

/* Each returns 0, or the exit code after printing why. */
static int check_files(struct verify *v) {
    nibble_error e;
    v->step = "checksums";
    fault_watch(v->path, NULL);
    if (!nibble_check_files(v->path, progress, v, &v->checksums, &e)) return message_error(&e);
    return EXIT_DONE;
}

static int check_tensors(struct verify *v) {
    int code = session_open_model(&v->session, v->path);
    if (code == EXIT_DONE) nibble_model_describe(v->session.model, &v->info);
    return code;
}

static int check_numbers(struct verify *v) {
    nibble_error e;
    int threads = (int)v->args->threads;
    v->step = "numbers";
    if (!nibble_check_numbers(v->session.model, threads, progress, v, &e)) return message_error(&e);
    return EXIT_DONE;
}

static int check_reference(struct verify *v) {
    nibble_error e;
    if (nibble_check_reference(v->session.model, (int)v->args->threads, v->args->level,
                               &v->reference, &e))
        return EXIT_DONE;
    return message_error(&e);
}

/* --- what they have found ------------------------------------------------------------------- */

static void print_files(const struct verify *v) {
    if (v->checksums.members)
        output_print("checksums  %zu members, %.1f MB, as they were written\n",
                     v->checksums.members, (double)v->checksums.bytes / 1e6);
    else
        output_print("checksums  none: safetensors have none\n");
}

static void print_tensors(const struct verify *v) {
    output_print("tensors    %zu, all that the family %s asks for\n", v->info.tensors,
                 v->info.family);
}

static void print_numbers(const struct verify *v) {
    output_print("numbers    %.2f M, all finite\n", (double)v->info.parameters / 1e6);
}

static void print_tokenizer(const struct verify *v) {
    const nibble_tokenizer *t = v->session.tokenizer;
    if (t)
        output_print("tokenizer  %zu pieces for a vocabulary of %zu\n", nibble_tokenizer_pieces(t),
                     v->info.vocab);
    else
        output_print("tokenizer  none\n");
}

static void print_reference(const struct verify *v) {
    const nibble_reference_check *r = &v->reference;
    if (r->tokens)
        output_print("reference  %zu tokens: logits differ by at most %.2g, %.2g is allowed\n",
                     r->tokens, r->difference, r->bound);
    else
        output_print("reference  none; nibble verify --write-reference stores one\n");
}

/* Whether the tokenizer fits the vocabulary is found out when the model is opened. */
static const struct step {
    int (*check)(struct verify *v); /* NULL: done by one before */
    void (*print)(const struct verify *v);
} steps[] = {
    {check_files, print_files},     {check_tensors, print_tensors},     {NULL, print_tokenizer},
    {check_numbers, print_numbers}, {check_reference, print_reference},
};
enum { STEPS = sizeof steps / sizeof *steps };

static void print_json(const struct verify *v) {
    cJSON *o = cJSON_CreateObject(), *part;
    cJSON_AddItemToObject(o, "model", output_json_text(v->path, strlen(v->path)));
    cJSON_AddStringToObject(o, "family", v->info.family);
    part = v->checksums.members ? cJSON_AddObjectToObject(o, "checksums")
                                : cJSON_AddNullToObject(o, "checksums");
    if (v->checksums.members) {
        cJSON_AddNumberToObject(part, "members", (double)v->checksums.members);
        cJSON_AddNumberToObject(part, "bytes", (double)v->checksums.bytes);
    }
    cJSON_AddNumberToObject(o, "tensors", (double)v->info.tensors);
    cJSON_AddNumberToObject(o, "values", (double)v->info.parameters);
    cJSON_AddNumberToObject(o, "vocabulary", (double)v->info.vocab);
    if (v->session.tokenizer)
        cJSON_AddNumberToObject(o, "pieces", (double)nibble_tokenizer_pieces(v->session.tokenizer));
    else
        cJSON_AddNullToObject(o, "pieces");
    part = v->reference.tokens ? cJSON_AddObjectToObject(o, "reference")
                               : cJSON_AddNullToObject(o, "reference");
    if (v->reference.tokens) {
        cJSON_AddNumberToObject(part, "tokens", (double)v->reference.tokens);
        cJSON_AddNumberToObject(part, "difference", v->reference.difference);
        cJSON_AddNumberToObject(part, "bound", v->reference.bound);
    }
    output_json(o);
}

/* --- the reference -------------------------------------------------------------------------- */

static int make_reference(struct verify *v) {
    nibble_error e;
    char *json = NULL;
    if (!nibble_reference(v->session.model, (int)v->args->threads, v->args->level, &json, &e))
        return message_error(&e);
    int code = EXIT_DONE;
    if (v->args->print_reference) output_print("%s\n", json);
    fault_watch(v->path, NULL); /* it is opened anew */
    if (v->args->write_reference && !nibble_store_reference(v->path, json, &e))
        code = message_error(&e);
    nibble_free(json);
    return code;
}

/* --- the command ---------------------------------------------------------------------------- */

static int check_all(struct verify *v, int count) {
    bool text = !v->args->json && !v->args->print_reference;
    for (int i = 0; i < count; i++) {
        int code = message_interrupted() ? message_interrupted_exit() : EXIT_DONE;
        if (code == EXIT_DONE && steps[i].check) code = steps[i].check(v);
        message_progress_end();
        if (code != EXIT_DONE) return code;
        if (text) steps[i].print(v);
    }
    return EXIT_DONE;
}

static int run(const struct args *a) {
    struct verify v = {.args = a, .path = a->words[0]};
    message_catch_signals();
    if (a->json && (a->print_reference || a->write_reference)) {
        message("--json tells what a check has found; leave it out");
        return EXIT_USAGE;
    }
    bool make = a->print_reference || a->write_reference;
    int code = EXIT_DONE;
    if (a->print_reference) /* whatever makes the file need not read all of it again */
        code = check_tensors(&v);
    else
        code = check_all(&v, make ? STEPS - 1 : STEPS); /* one that is there is replaced */
    if (code == EXIT_DONE && make) code = make_reference(&v);
    if (code == EXIT_DONE && a->write_reference && !a->print_reference)
        output_print("reference  written\n");
    if (code == EXIT_DONE && a->json) print_json(&v);
    session_close(&v.session);
    return code;
}

static const struct option *const groups[] = {options_verify, options_threads, NULL};

const struct command command_verify = {
    .name = "verify",
    .usage = "MODEL",
    .summary = "check a model's files: checksums, tensors, numbers, tokenizer, stored reference",
    .notes = "The reference is what the model answered to a few tokens when it was made. What is\n"
             "checked is printed as it is found in order; the first failure ends the run.",
    .min_words = 1,
    .max_words = 1,
    .groups = groups,
    .run = run,
};
