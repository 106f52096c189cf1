#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/bench.h"
#include "cli/stats.h"

const int bench_percentiles[BENCH_PERCENTILES] = {50, 90, 99};

static int compare(const void *a, const void *b) {
    uint64_t x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return (x > y) - (x < y);
}

/* The smallest of the sorted times that at least `percent` of them do not exceed. */
static double percentile(const uint64_t *sorted, size_t n, int percent) {
    size_t rank = (n * (size_t)percent + 99) / 100;
    return (double)sorted[rank ? rank - 1 : 0] / 1e9;
}

/* Sorts the times in place: nobody needs their order. */
static void find_latencies(const struct bench_test *t, size_t repeats, struct bench_figures *f) {
    size_t n = t->tokens * repeats;
    if (!t->token_ns || !n) return;
    qsort(t->token_ns, n, sizeof *t->token_ns, compare);
    for (int i = 0; i < BENCH_PERCENTILES; i++)
        f->latency_s[i] = percentile(t->token_ns, n, bench_percentiles[i]);
}

static int compare_doubles(const void *a, const void *b) {
    double x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return (x > y) - (x < y);
}

double bench_figures_median(double *values, size_t n) {
    qsort(values, n, sizeof *values, compare_doubles);
    return (values[(n - 1) / 2] + values[n / 2]) / 2;
}

static double median_seconds(const uint64_t *ns, size_t n) {
    double seconds[BENCH_MAX_REPEATS];
    for (size_t i = 0; i < n; i++) seconds[i] = (double)ns[i] / 1e9;
    return bench_figures_median(seconds, n);
}

static void find_rates(const struct bench_test *t, size_t repeats, struct bench_figures *f) {
    double n = (double)repeats;
    for (size_t i = 0; i < repeats; i++) f->rate += stats_rate(t->tokens, t->ns[i]) / n;
    for (size_t i = 0; i < repeats; i++) {
        double d = stats_rate(t->tokens, t->ns[i]) - f->rate;
        f->deviation += d * d;
    }
    f->deviation = repeats > 1 ? sqrt(f->deviation / (n - 1)) : 0;
    f->median_s = median_seconds(t->ns, repeats);
    f->median_rate = f->median_s > 0 ? (double)t->tokens / f->median_s : 0;
}

static double quotient(double a, double b) {
    return b > 0 ? a / b : 0;
}

/* Positions that a token of the test attends to, in the mean: token i of them, counted from 1, sees
 * depth + i, itself included, until these fill the window. */
static double mean_seen(const struct bench_test *t, size_t window) {
    double n = (double)t->tokens, depth = (double)t->depth, full = (double)window;
    double growing = window ? fmin(fmax(full - depth, 0), n) : n;
    return (growing * (depth + (growing + 1) / 2) + (n - growing) * full) / n;
}

/* Of the cache, in the mean: layers with a window read no more positions than that. */
static double mean_cache_bytes(const struct bench *b, const struct bench_series *s,
                               const struct bench_test *t) {
    double windowed = (double)b->model.windowed_layers / (double)b->model.layers;
    double seen = (1 - windowed) * mean_seen(t, 0) + windowed * mean_seen(t, b->model.window);
    return (double)s->context.kv_bytes * seen;
}

/* A generated token reads all weights, and the cache of the positions that it attends to. */
static void generation_work(const struct bench *b, const struct bench_series *s,
                            const struct bench_test *t, struct bench_figures *f) {
    f->bytes_per_token = (double)b->model.bytes_per_token + mean_cache_bytes(b, s, t);
    f->int8_ops_per_token = (double)(b->model.layer_ops.int8 + b->model.output_ops.int8);
    f->f32_ops_per_token = (double)(b->model.layer_ops.f32 + b->model.output_ops.f32);
}

/* A prompt's multiply-adds a token: logits, and what only they need, are of its last token. */
static double prompt_ops(size_t layers, size_t last, size_t output, double tokens) {
    return (double)(layers - last) + (double)(last + output) / tokens;
}

/* A prompt reads the weights once a batch. */
static void prompt_work(const struct bench *b, const struct bench_series *s,
                        const struct bench_test *t, struct bench_figures *f) {
    double n = (double)t->tokens, batches = ceil(n / (double)s->context.batch);
    f->bytes_per_token = (double)b->model.bytes_per_token * batches / n;
    const nibble_model_info *m = &b->model;
    f->int8_ops_per_token = prompt_ops(m->layer_ops.int8, m->last_ops.int8, m->output_ops.int8, n);
    f->f32_ops_per_token = prompt_ops(m->layer_ops.f32, m->last_ops.f32, m->output_ops.f32, n);
}

/* Of the limits p, by a run that took that long. */
static double share_of(const struct bench_test *t, const struct bench_figures *f,
                       const nibble_peaks *p, uint64_t ns) {
    double rate = stats_rate(t->tokens, ns);
    if (t->generation) return quotient(f->bytes_per_token * rate, p->read_bytes);
    return rate * (quotient(f->int8_ops_per_token, p->int8_ops) +
                   quotient(f->f32_ops_per_token, p->f32_ops));
}

/* Each run by the limits of its own round: what the machine has for us may change from one to the
 * next. */
static double median_share(const struct bench_series *s, const struct bench_test *t, size_t repeats,
                           const struct bench_figures *f) {
    double shares[BENCH_MAX_REPEATS];
    for (size_t i = 0; i < repeats; i++) shares[i] = share_of(t, f, &s->rounds[i], t->ns[i]);
    return bench_figures_median(shares, repeats);
}

struct bench_figures bench_figures(const struct bench *b, const struct bench_series *s,
                                   const struct bench_test *t) {
    struct bench_figures f = {0};
    size_t repeats = (size_t)b->args->repeats;
    find_rates(t, repeats, &f);
    find_latencies(t, repeats, &f);
    (t->generation ? generation_work : prompt_work)(b, s, t, &f);
    f.share = median_share(s, t, repeats, &f);
    return f;
}
