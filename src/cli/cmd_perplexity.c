#include <cjson/cJSON.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/message.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/stats.h"

static const struct option options_perplexity[] = {
    {"--window", OPTION_TEXT, offsetof(struct args, window), .value = "llama|all",
     .help = "what is scored of each: the second half (default), or all"},
    {"--stride", OPTION_WHOLE, offsetof(struct args, stride), 0, 1 << 26, 0, "N",
     "begin a window every N tokens, each scoring what none before it did; 0: as --window says"},
    {"--chunks", OPTION_WHOLE, offsetof(struct args, chunks), 0, 1 << 26, 0, "N",
     "at most so many windows; 0: all"},
    {"--save-logits", OPTION_TEXT, offsetof(struct args, save_logits), .value = "OUT.npz",
     .help = "keep the predictions, to compare another model with"},
    {"--kl", OPTION_TEXT, offsetof(struct args, kl), .value = "REFERENCE.npz",
     .help = "compare with predictions that were kept"},
    {0}};

enum { WINDOW = 512 };

static bool progress(void *arg, size_t done, size_t total) {
    const struct args *a = arg;
    if (!a->quiet) message_progress("scoring", done, total);
    return !message_interrupted();
}

static double same_top_error(const nibble_perplexity_result *r) {
    double n = (double)r->tokens;
    return n < 2 ? 0 : sqrt(r->same_top * (1 - r->same_top) / (n - 1));
}

/* --- output ----------------------------------------------------------------------------------- */

static cJSON *kl_json(const nibble_perplexity_result *r) {
    const nibble_figures *d = &r->divergence;
    struct {
        const char *name;
        double value;
    } const fields[] = {{"mean", d->mean},
                        {"error", d->error},
                        {"median", d->median},
                        {"p90", d->p90},
                        {"p95", d->p95},
                        {"p99", d->p99},
                        {"max", d->most},
                        {"same_top", r->same_top},
                        {"same_top_error", same_top_error(r)},
                        {"logprob_difference", r->difference},
                        {"logprob_difference_error", r->difference_error},
                        {"reference_loss", r->reference_loss},
                        {"reference_perplexity", exp(r->reference_loss)}};
    cJSON *o = cJSON_CreateObject();
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        cJSON_AddNumberToObject(o, fields[i].name, fields[i].value);
    }
    return o;
}

static void print_json(const struct session *s, const struct args *a, const nibble_windows *w,
                       const nibble_perplexity_result *r) {
    cJSON *o = cJSON_CreateObject();
    cJSON_AddNumberToObject(o, "loss", r->loss);
    cJSON_AddNumberToObject(o, "loss_error", r->loss_error);
    cJSON_AddNumberToObject(o, "perplexity", exp(r->loss));
    cJSON_AddNumberToObject(o, "perplexity_error", exp(r->loss) * r->loss_error);
    cJSON_AddNumberToObject(o, "tokens", (double)r->tokens);
    cJSON_AddNumberToObject(o, "windows", (double)r->windows);
    cJSON_AddStringToObject(o, "window", w->all ? "all" : "llama");
    cJSON_AddNumberToObject(o, "length", (double)w->length);
    cJSON_AddNumberToObject(o, "stride", (double)w->stride);
    cJSON_AddItemToObject(o, "kl", a->kl ? kl_json(r) : cJSON_CreateNull());
    cJSON_AddItemToObject(o, "model", output_json_text(a->words[0], strlen(a->words[0])));
    cJSON_AddItemToObject(o, "versions", stats_versions(s));
    output_json(o);
}

static void print_lines(const struct args *a, const nibble_windows *w,
                        const nibble_perplexity_result *r) {
    const nibble_figures *d = &r->divergence;
    const char *what = w->all ? "all of each" : "the second half of each";
    if (w->stride) what = "what none before had";
    output_print("windows     %zu of %zu tokens, %s scored: %zu tokens\n", r->windows, w->length,
                 what, r->tokens);
    output_print("loss        %.5f +- %.5f nats a token\n", r->loss, r->loss_error);
    output_print("perplexity  %.4f +- %.4f\n", exp(r->loss), exp(r->loss) * r->loss_error);
    if (!a->kl) return;
    output_print("reference   %.5f nats a token, perplexity %.4f\n", r->reference_loss,
                 exp(r->reference_loss));
    output_print("KL          %.6f +- %.6f, median %.6f, 90%% %.6f, 95%% %.6f, 99%% %.6f, "
                 "most %.6f\n",
                 d->mean, d->error, d->median, d->p90, d->p95, d->p99, d->most);
    output_print("same top    %.3f +- %.3f %%\n", 100 * r->same_top, 100 * same_top_error(r));
    output_print("log p       %+.6f +- %.6f against the reference\n", r->difference,
                 r->difference_error);
}

/* --- running ---------------------------------------------------------------------------------- */

static nibble_windows windows_of(const struct args *a) {
    return (nibble_windows){.length = a->context ? (size_t)a->context : WINDOW,
                            .stride = (size_t)a->stride,
                            .most = (size_t)a->chunks,
                            .all = a->window && strcmp(a->window, "all") == 0};
}

/* The usual length, but for models whose own context is shorter. */
static void choose_length(const struct args *a, const nibble_model *m, nibble_windows *w) {
    nibble_model_info info;
    nibble_model_describe(m, &info);
    if (!a->context && info.context < w->length) w->length = info.context;
}

/* All but the folders of the predictions that are kept, or compared with. */
static int confine(const struct args *a) {
    const char *const files[] = {a->save_logits, a->kl};
    char *folders[3] = {NULL};
    int count = 0;
    for (int i = 0; i < 2; i++) {
        if (!files[i]) continue;
        folders[count] = session_folder(files[i]);
        if (!folders[count++]) {
            message("not enough memory for the name of a folder");
            free(folders[0]);
            return EXIT_FAILED;
        }
    }
    session_confine(a, (const char *const *)folders);
    free(folders[0]);
    free(folders[1]);
    return EXIT_DONE;
}

static int measure(const struct session *s, const struct args *a, const nibble_windows *w,
                   const nibble_ids *ids) {
    nibble_error e;
    nibble_perplexity_result r;
    if (!nibble_perplexity(s->context, ids->ids, ids->count, w, a->save_logits, a->kl, progress,
                           (void *)a, &r, &e)) {
        return message_error(&e);
    }
    message_progress_end();
    if (a->json)
        print_json(s, a, w, &r);
    else
        print_lines(a, w, &r);
    return EXIT_DONE;
}

static int run(const struct args *a) {
    struct session s = {0};
    nibble_ids ids = {0};
    nibble_windows w = windows_of(a);
    size_t bytes;
    message_catch_signals();
    int code = session_open_model(&s, a->words[0]);
    if (code == EXIT_DONE) code = input_text_ids(a, s.model, false, &ids, &w.lead, &bytes);
    if (code == EXIT_DONE) choose_length(a, s.model, &w);
    if (code == EXIT_DONE) code = confine(a);
    if (code == EXIT_DONE) code = session_open_context(&s, a, w.length);
    if (code == EXIT_DONE) code = measure(&s, a, &w, &ids);
    session_close(&s);
    nibble_free(ids.ids);
    return code;
}

static const struct option *const groups[] = {options_prompt, options_perplexity, options_measured,
                                              options_run,    options_threads,    NULL};

const struct command command_perplexity = {
    .name = "perplexity",
    .usage = "MODEL [-p TEXT | -f FILE | --ids \"ID...\"]",
    .summary = "how well a model predicts a text, or how far a smaller one is from it",
    .notes = "The text is cut into windows of -c tokens (512, or the model's context if that is "
             "less), each\n"
             "begun with BOS in the place of its first token. As in llama.cpp their second half "
             "is scored;\n"
             "with --window all every token behind BOS. An incomplete last window is left out.",
    .min_words = 1,
    .max_words = 1,
    .groups = groups,
    .run = run,
};
