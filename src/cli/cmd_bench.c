#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/message.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/stats.h"

enum { MAX_REPEATS = 1000 };

static const struct option options_bench[] = {
    {"-p --prompt", OPTION_WHOLE, offsetof(struct args, bench_prompt), 0, 1 << 24, 512, "N",
     "tokens of the prompt test; 0: leave it out"},
    {"-n --n-predict", OPTION_WHOLE, offsetof(struct args, bench_tokens), 0, 1 << 24, 128, "N",
     "tokens of the generation test; 0: leave it out"},
    {"-r --repeats", OPTION_WHOLE, offsetof(struct args, repeats), 1, MAX_REPEATS, 5, "N",
     "how often each test runs"},
    {"--json", OPTION_FLAG, offsetof(struct args, json), .help = "print one JSON object"},
    {"-q --quiet", OPTION_FLAG, offsetof(struct args, quiet), .help = "no progress"},
    {0}};

struct bench {
    const struct args *args;
    struct session session;
    nibble_model_info model;
    nibble_context_info context;
    int *ids;      /* [bench_prompt] */
    float *logits; /* [vocab] */
    uint64_t
        first_ns; /* of the first prompt, before anything was warm: the time to a first token */
};

/* One test: `tokens` tokens in passes of at most `step`. */
struct test {
    const char *name;
    size_t tokens, step;
    uint64_t ns[MAX_REPEATS];
    int repeats;
};

struct figures {
    double mean, deviation; /* of tokens per second over the repeats */
};

static struct figures figures_of(const struct test *t) {
    struct figures f = {0};
    for (int i = 0; i < t->repeats; i++) f.mean += stats_rate(t->tokens, t->ns[i]) / t->repeats;
    for (int i = 0; i < t->repeats; i++) {
        double d = stats_rate(t->tokens, t->ns[i]) - f.mean;
        f.deviation += d * d;
    }
    f.deviation = t->repeats > 1 ? sqrt(f.deviation / (t->repeats - 1)) : 0;
    return f;
}

/* The tokens from an empty context on; the last pass of each brings logits, as generation needs
 * them. */
static int pass(struct bench *b, const struct test *t, uint64_t *ns) {
    nibble_error e;
    uint64_t start = nibble_clock();
    nibble_rewind(b->session.context, 0);
    for (size_t done = 0; done < t->tokens; done += t->step) {
        size_t rest = t->tokens - done, count = rest < t->step ? rest : t->step;
        bool last = done + count == t->tokens;
        if (message_interrupted()) return message_interrupted_exit();
        float *logits = last || t->step == 1 ? b->logits : NULL;
        if (!nibble_eval(b->session.context, b->ids + (t->step == 1 ? 0 : done), count, logits,
                         false, &e)) {
            return message_error(&e);
        }
    }
    *ns = nibble_clock() - start;
    return EXIT_DONE;
}

static int measure(struct bench *b, struct test *t) {
    uint64_t warm_up;
    if (!t->tokens) return EXIT_DONE;
    int code = pass(b, t, &warm_up);
    if (!b->first_ns) b->first_ns = warm_up;
    for (; code == EXIT_DONE && t->repeats < b->args->repeats; t->repeats++) {
        if (!b->args->quiet)
            message_progress(t->name, (size_t)t->repeats, (size_t)b->args->repeats);
        code = pass(b, t, &t->ns[t->repeats]);
    }
    message_progress_end();
    return code;
}

/* --- printing --------------------------------------------------------------------------------- */

static double weights_gb(const struct bench *b, const struct figures *f) {
    return f->mean * (double)b->model.bytes_per_token / 1e9;
}

static void print_table(const struct bench *b, const struct test *prompt,
                        const struct test *generation) {
    struct figures p = figures_of(prompt), g = figures_of(generation);
    output_print("%s: %s, %.2f M parameters, %.1f MB of weights a token\n"
                 "%d threads, %s, KV cache %s, %d repeats\n\n",
                 b->args->words[0], b->model.family, (double)b->model.parameters / 1e6,
                 (double)b->model.bytes_per_token / 1e6, b->context.threads, b->context.level,
                 b->context.kv_type, (int)b->args->repeats);
    output_print("test         tokens      tok/s  deviation   GB/s of weights\n");
    if (prompt->tokens)
        output_print("prompt     %8zu %10.2f %10.2f\n", prompt->tokens, p.mean, p.deviation);
    if (generation->tokens) {
        output_print("generation %8zu %10.2f %10.2f %17.2f\n", generation->tokens, g.mean,
                     g.deviation, weights_gb(b, &g));
    }
    output_print("\nload %.4f s, time to first token %.4f s, memory %.1f MB private, %.1f MB at "
                 "most with mapped pages\n",
                 (double)b->session.load_ns / 1e9, (double)b->first_ns / 1e9,
                 (double)nibble_memory_private() / 1e6, (double)nibble_memory_peak() / 1e6);
}

static cJSON *test_json(const struct bench *b, const struct test *t) {
    struct figures f = figures_of(t);
    cJSON *o = cJSON_CreateObject();
    cJSON *seconds = cJSON_AddArrayToObject(o, "seconds");
    for (int i = 0; i < t->repeats; i++)
        cJSON_AddItemToArray(seconds, cJSON_CreateNumber((double)t->ns[i] / 1e9));
    cJSON_AddNumberToObject(o, "tokens", (double)t->tokens);
    cJSON_AddNumberToObject(o, "tokens_per_s", f.mean);
    cJSON_AddNumberToObject(o, "deviation", f.deviation);
    if (t->step == 1) cJSON_AddNumberToObject(o, "weights_gb_per_s", weights_gb(b, &f));
    return o;
}

static void print_json(const struct bench *b, const struct test *prompt,
                       const struct test *generation) {
    const char *model = b->args->words[0];
    nibble_machine machine;
    nibble_machine_probe(&machine);
    cJSON *o = cJSON_CreateObject();
    cJSON_AddItemToObject(o, "model", output_json_text(model, strlen(model)));
    cJSON_AddStringToObject(o, "family", b->model.family);
    cJSON_AddNumberToObject(o, "parameters", (double)b->model.parameters);
    cJSON_AddNumberToObject(o, "weight_bytes_per_token", (double)b->model.bytes_per_token);
    if (prompt->tokens) cJSON_AddItemToObject(o, "prompt", test_json(b, prompt));
    if (generation->tokens) cJSON_AddItemToObject(o, "generation", test_json(b, generation));
    cJSON_AddNumberToObject(o, "load_s", (double)b->session.load_ns / 1e9);
    cJSON_AddNumberToObject(o, "first_token_s", (double)b->first_ns / 1e9);
    cJSON_AddNumberToObject(o, "private_bytes", (double)nibble_memory_private());
    cJSON_AddNumberToObject(o, "peak_bytes", (double)nibble_memory_peak());
    cJSON_AddStringToObject(o, "cpu", machine.cpu);
    cJSON_AddItemToObject(o, "versions", stats_versions(&b->session));
    output_json(o);
}

/* --- all of it -------------------------------------------------------------------------------- */

/* Ids spread over the vocabulary: what they are does not matter to the time. */
static bool make_ids(struct bench *b) {
    size_t n = (size_t)b->args->bench_prompt;
    b->ids = malloc((n + 1) * sizeof *b->ids);
    b->logits = malloc(b->model.vocab * sizeof *b->logits);
    if (!b->ids || !b->logits) return false;
    for (size_t i = 0; i < n + 1; i++) b->ids[i] = (int)(i * 7919 % b->model.vocab);
    return true;
}

static int bench(struct bench *b) {
    struct test *tests = calloc(2, sizeof *tests);
    if (!tests || !make_ids(b)) {
        free(tests);
        message("not enough memory for the benchmark");
        return EXIT_FAILED;
    }
    tests[0] = (struct test){
        .name = "prompt", .tokens = (size_t)b->args->bench_prompt, .step = b->context.batch};
    tests[1] =
        (struct test){.name = "generation", .tokens = (size_t)b->args->bench_tokens, .step = 1};
    int code = measure(b, &tests[0]);
    if (code == EXIT_DONE) code = measure(b, &tests[1]);
    if (code == EXIT_DONE) (b->args->json ? print_json : print_table)(b, &tests[0], &tests[1]);
    free(tests);
    return code;
}

static int run(const struct args *a) {
    struct bench b = {.args = a};
    long long longest = a->bench_prompt > a->bench_tokens ? a->bench_prompt : a->bench_tokens;
    message_catch_signals();
    int code = session_open_model(&b.session, a->words[0]);
    if (code == EXIT_DONE)
        code = session_open_context(&b.session, a, longest ? (size_t)longest : 1);
    if (code == EXIT_DONE) {
        nibble_model_describe(b.session.model, &b.model);
        nibble_context_describe(b.session.context, &b.context);
        code = bench(&b);
    }
    session_close(&b.session);
    free(b.ids);
    free(b.logits);
    return code;
}

static const struct option *const groups[] = {options_bench, options_run, options_threads, NULL};

const struct command command_bench = {
    .name = "bench",
    .usage = "MODEL",
    .summary = "measure tokens per second, prompt and generation apart",
    .notes = "A prompt is read from an empty context in batches; generation runs a token at a time "
             "from an\n"
             "empty context. Each test runs once to warm up, then -r times; mean and standard "
             "deviation.\n"
             "The context is as long as the longer test unless -c says otherwise.",
    .min_words = 1,
    .max_words = 1,
    .groups = groups,
    .run = run,
};
