#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/message.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/stats.h"

struct job {
    const struct args *args;
    struct session session;
    nibble_ids ids;
    size_t bytes;  /* of the text; 0: only known as ids */
    double *log_p; /* [ids.count - 1], of all but the first */
};

static bool progress(void *arg, size_t done, size_t total) {
    const struct job *j = arg;
    if (!j->args->quiet) message_progress("scoring", done, total);
    return !message_interrupted();
}

struct totals {
    size_t tokens; /* scored */
    double total, mean, perplexity;
    double bits_per_byte; /* NaN: the text is not known */
};

static struct totals totals_of(const struct job *j) {
    struct totals t = {.tokens = j->ids.count - 1};
    for (size_t i = 0; i < t.tokens; i++) t.total += j->log_p[i];
    t.mean = t.total / (double)t.tokens;
    t.perplexity = exp(-t.mean);
    t.bits_per_byte = j->bytes ? -t.total / log(2) / (double)j->bytes : (double)NAN;
    return t;
}

static void print_json(const struct job *j) {
    struct totals t = totals_of(j);
    const char *model = j->args->words[0];
    cJSON *o = cJSON_CreateObject();
    cJSON_AddItemToObject(o, "ids", cJSON_CreateIntArray(j->ids.ids, (int)j->ids.count));
    cJSON *texts = cJSON_AddArrayToObject(o, "texts");
    cJSON *list = cJSON_AddArrayToObject(o, "logprobs");
    for (size_t i = 0; i < j->ids.count; i++) {
        cJSON_AddItemToArray(texts, output_json_token(j->session.tokenizer, j->ids.ids[i]));
        cJSON_AddItemToArray(list, i ? cJSON_CreateNumber(j->log_p[i - 1]) : cJSON_CreateNull());
    }
    cJSON_AddNumberToObject(o, "tokens", (double)t.tokens);
    cJSON_AddNumberToObject(o, "total", t.total);
    cJSON_AddNumberToObject(o, "mean", t.mean);
    cJSON_AddNumberToObject(o, "perplexity", t.perplexity);
    cJSON_AddNumberToObject(o, "bits_per_byte", t.bits_per_byte); /* null if it is NaN */
    cJSON_AddItemToObject(o, "model", output_json_text(model, strlen(model)));
    cJSON_AddItemToObject(o, "versions", stats_versions(&j->session));
    output_json(o);
}

/* Id, log-probability and text: a JSON string, so that a token is a line, and spaces are seen. */
static void print_token(const struct job *j, size_t i) {
    char log_p[32] = "-";
    cJSON *json = output_json_token(j->session.tokenizer, j->ids.ids[i]);
    char *text = cJSON_PrintUnformatted(json);
    if (i) snprintf(log_p, sizeof log_p, "%.6f", j->log_p[i - 1]);
    output_print("%d\t%s\t%s\n", j->ids.ids[i], log_p, text ? text : "");
    cJSON_free(text);
    cJSON_Delete(json);
}

static void print_lines(const struct job *j) {
    struct totals t = totals_of(j);
    char bits[48] = "";
    if (j->bytes) snprintf(bits, sizeof bits, ", %.4f bits a byte", t.bits_per_byte);
    for (size_t i = 0; i < j->ids.count && !output_failed(); i++) print_token(j, i);
    output_print("# %zu tokens, log p %.4f in all, %.4f a token, perplexity %.4f%s\n", t.tokens,
                 t.total, t.mean, t.perplexity, bits);
}

static int score(struct job *j) {
    nibble_error e;
    j->log_p = calloc(j->ids.count + 1, sizeof *j->log_p);
    if (!j->log_p) {
        message("not enough memory for %zu tokens", j->ids.count);
        return EXIT_FAILED;
    }
    if (!nibble_score(j->session.context, j->ids.ids, j->ids.count, j->log_p, progress, j, &e))
        return message_error(&e);
    message_progress_end();
    if (j->args->json)
        print_json(j);
    else
        print_lines(j);
    return EXIT_DONE;
}

static int run(const struct args *a) {
    struct job j = {.args = a};
    size_t lead;
    message_catch_signals();
    int code = session_open_model(&j.session, a->words[0]);
    if (code == EXIT_DONE) code = input_text_ids(a, j.session.model, true, &j.ids, &lead, &j.bytes);
    if (code == EXIT_DONE) session_confine(a, (const char *[]){NULL});
    if (code == EXIT_DONE) code = session_open_context(&j.session, a, 0);
    if (code == EXIT_DONE) code = score(&j);
    session_close(&j.session);
    nibble_free(j.ids.ids);
    free(j.log_p);
    return code;
}

static const struct option *const groups[] = {options_prompt, options_measured, options_run,
                                              options_threads, NULL};

const struct command command_score = {
    .name = "score",
    .usage = "MODEL [-p TEXT | -f FILE | --ids \"ID...\"]",
    .summary = "the log-probability of each token of a text, and totals",
    .notes = "A line has an id, the natural logarithm of its probability behind those before it, "
             "which the\n"
             "first does not have, and the token's text as a JSON string. The text is taken as it "
             "is, a final\n"
             "newline included, and must fit the context; nibble perplexity cuts a long one into "
             "windows.",
    .min_words = 1,
    .max_words = 1,
    .groups = groups,
    .run = run,
};
