#include <stdlib.h>

#include "cli/bench.h"
#include "cli/message.h"

/* --- what there is to measure ----------------------------------------------------------------- */

static bool add_test(struct bench_series *s, size_t repeats, bool generation, long long depth,
                     long long tokens) {
    struct bench_test t = {
        .generation = generation, .depth = (size_t)depth, .tokens = (size_t)tokens};
    if (!tokens) return true;
    t.ns = calloc(repeats, sizeof *t.ns);
    if (generation) t.token_ns = malloc(repeats * t.tokens * sizeof *t.token_ns);
    s->tests[s->count++] = t;
    return t.ns && (t.token_ns || !generation);
}

static bool add_tests(struct bench_series *s, const struct args *a) {
    const struct args_numbers *prompts = &a->bench_prompts, *tokens = &a->bench_tokens;
    bool ok = true;
    s->rounds = calloc((size_t)a->repeats, sizeof *s->rounds);
    s->tests = calloc(2 * ARGS_MAX_NUMBERS * ARGS_MAX_NUMBERS, sizeof *s->tests);
    if (!s->tests || !s->rounds) return false;
    for (int d = 0; d < a->bench_depths.count; d++) {
        long long depth = a->bench_depths.items[d];
        for (int i = 0; i < prompts->count; i++)
            ok = ok && add_test(s, (size_t)a->repeats, false, depth, prompts->items[i]);
        for (int i = 0; i < tokens->count; i++)
            ok = ok && add_test(s, (size_t)a->repeats, true, depth, tokens->items[i]);
    }
    return ok;
}

static long long largest(const struct args_numbers *list) {
    long long most = 0;
    for (int i = 0; i < list->count; i++) most = list->items[i] > most ? list->items[i] : most;
    return most;
}

/* Tokens of the longest test at the greatest depth. */
static size_t needed(const struct args *a) {
    long long p = largest(&a->bench_prompts), n = largest(&a->bench_tokens);
    return (size_t)(largest(&a->bench_depths) + (p > n ? p : n));
}

/* Ids spread over the vocabulary: what they are does not matter to the time. A position has the
 * same one in every test, so what a test leaves in the cache serves as the depth of the next. */
static bool make_ids(struct bench *b, size_t n) {
    b->ids = malloc((n + 1) * sizeof *b->ids);
    b->logits = malloc(b->model.vocab * sizeof *b->logits);
    if (!b->ids || !b->logits) return false;
    for (size_t i = 0; i < n; i++) b->ids[i] = (int)(i * 7919 % b->model.vocab);
    return true;
}

/* --- one run of a test ------------------------------------------------------------------------ */

/* Appends the ids of the next `count` positions. */
static int append(struct bench *b, size_t pos, size_t count, float *logits) {
    nibble_error e;
    if (message_interrupted()) return message_interrupted_exit();
    if (!nibble_eval(b->session.context, b->ids + pos, count, logits, false, &e))
        return message_error(&e);
    return EXIT_DONE;
}

/* Positions [pos, end) in batches; logits, unless NULL, of the last. */
static int append_prompt(struct bench *b, size_t batch, size_t pos, size_t end, float *logits) {
    int code = EXIT_DONE;
    while (code == EXIT_DONE && pos < end) {
        size_t count = end - pos < batch ? end - pos : batch;
        code = append(b, pos, count, pos + count == end ? logits : NULL);
        pos += count;
    }
    return code;
}

static int append_singly(struct bench *b, size_t pos, size_t end, uint64_t *token_ns) {
    int code = EXIT_DONE;
    for (; code == EXIT_DONE && pos < end; pos++) {
        uint64_t start = nibble_clock();
        code = append(b, pos, 1, b->logits);
        *token_ns++ = nibble_clock() - start;
    }
    return code;
}

/* Brings the cache to `depth` tokens; those that are there already are right. */
static int go_to_depth(struct bench *b, size_t depth) {
    nibble_context_info now;
    nibble_context_describe(b->session.context, &now);
    if (now.used > depth) nibble_rewind(b->session.context, depth);
    return append_prompt(b, now.batch, now.used, depth, NULL);
}

/* round 0 warms up: it leaves its times where those of round 1 will be. */
static int run_test(struct bench *b, struct bench_series *s, struct bench_test *t, size_t round) {
    size_t repeat = round ? round - 1 : 0, end = t->depth + t->tokens;
    int code = go_to_depth(b, t->depth);
    if (code != EXIT_DONE) return code;
    uint64_t start = nibble_clock();
    if (t->generation)
        code = append_singly(b, t->depth, end, t->token_ns + repeat * t->tokens);
    else
        code = append_prompt(b, s->context.batch, t->depth, end, b->logits);
    t->ns[repeat] = nibble_clock() - start;
    if (t == b->series[0].tests && !round && !t->generation && !t->depth)
        b->cold_ns = t->ns[repeat];
    return code;
}

/* --- a series --------------------------------------------------------------------------------- */

static int probe(struct bench *b, struct bench_series *s, nibble_peaks *out) {
    nibble_error e;
    if (!nibble_measure_peaks(b->model.bytes_per_token, s->context.threads, s->context.level, out,
                              &e))
        return message_error(&e);
    return message_interrupted() ? message_interrupted_exit() : EXIT_DONE;
}

static double median_peak(const nibble_peaks *rounds, size_t n, size_t offset) {
    double values[BENCH_MAX_REPEATS];
    for (size_t i = 0; i < n; i++)
        values[i] = *(const double *)(const void *)((const char *)&rounds[i] + offset);
    return bench_figures_median(values, n);
}

static void settle_peaks(struct bench_series *s, size_t n) {
    s->peaks.read_bytes = median_peak(s->rounds, n, offsetof(nibble_peaks, read_bytes));
    s->peaks.int8_ops = median_peak(s->rounds, n, offsetof(nibble_peaks, int8_ops));
    s->peaks.f32_ops = median_peak(s->rounds, n, offsetof(nibble_peaks, f32_ops));
}

static void show_progress(const struct bench *b, const struct bench_series *s, size_t round,
                          size_t test) {
    size_t rounds = (size_t)b->args->repeats + 1, series = (size_t)(s - b->series);
    size_t done = (series * rounds + round) * s->count + test;
    if (b->args->quiet) return;
    message_progress("benchmark", done, (size_t)b->args->bench_threads.count * rounds * s->count);
}

/* Before a probe takes its memory: all that the tests need is there after the first round. */
static void note_memory(struct bench *b) {
    b->private_bytes = nibble_memory_private();
    b->peak_bytes = nibble_memory_peak();
}

/* The limits and every test once, then again: what disturbs the machine for a while disturbs all
 * alike. */
static int run_rounds(struct bench *b, struct bench_series *s) {
    int code = EXIT_DONE;
    for (size_t round = 0; round <= (size_t)b->args->repeats; round++) {
        if (s == b->series && round == 1) note_memory(b);
        if (round && code == EXIT_DONE) code = probe(b, s, &s->rounds[round - 1]);
        for (size_t i = 0; i < s->count && code == EXIT_DONE; i++) {
            show_progress(b, s, round, i);
            code = run_test(b, s, &s->tests[i], round);
        }
    }
    return code;
}

static int open_context(struct bench *b, struct bench_series *s, long long threads) {
    struct args a = *b->args;
    size_t tokens = needed(&a);
    a.threads = threads;
    nibble_context_close(b->session.context);
    b->session.context = NULL;
    int code = session_open_context(&b->session, &a, tokens ? tokens : 1);
    if (code != EXIT_DONE) return code;
    if (!b->load_ns) b->load_ns = b->session.load_ns;
    nibble_context_describe(b->session.context, &s->context);
    if (tokens <= s->context.context) return EXIT_DONE;
    message("the longest test and the depth before it need %zu tokens, and the context has %zu; "
            "raise --ctx-size or shorten them",
            tokens, s->context.context);
    return EXIT_CONTEXT;
}

static int run_series(struct bench *b, struct bench_series *s, long long threads) {
    int code = open_context(b, s, threads);
    if (code != EXIT_DONE) return code;
    if (!add_tests(s, b->args)) {
        message("not enough memory for the times of the benchmark; ask for fewer repeats");
        return EXIT_FAILED;
    }
    code = run_rounds(b, s);
    if (code == EXIT_DONE) settle_peaks(s, (size_t)b->args->repeats);
    return code;
}

int bench_run(struct bench *b) {
    int code = EXIT_DONE;
    if (!make_ids(b, needed(b->args))) {
        message("not enough memory for the benchmark");
        return EXIT_FAILED;
    }
    for (int i = 0; i < b->args->bench_threads.count && code == EXIT_DONE; i++)
        code = run_series(b, &b->series[b->series_count++], b->args->bench_threads.items[i]);
    message_progress_end();
    return code;
}

void bench_run_free(struct bench *b) {
    for (int i = 0; i < b->series_count; i++) {
        struct bench_series *s = &b->series[i];
        for (size_t k = 0; k < s->count; k++) {
            free(s->tests[k].ns);
            free(s->tests[k].token_ns);
        }
        free(s->tests);
        free(s->rounds);
    }
    free(b->ids);
    free(b->logits);
}
