#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "cli/bench.h"
#include "cli/weights.h"

/* --- adding ----------------------------------------------------------------------------------- */

static void add(struct bench_fields *f, struct bench_field field) {
    if (f->count < BENCH_FIELDS) f->items[f->count++] = field;
}

void bench_fields_text(struct bench_fields *f, const char *name, const char *text) {
    size_t room = sizeof f->store - f->stored;
    char *to = f->store + f->stored;
    if (!text || !*text || room < 2) {
        bench_fields_number(f, name, NAN);
        return;
    }
    snprintf(to, room, "%s", text);
    f->stored += strlen(to) + 1;
    add(f, (struct bench_field){name, to, NAN});
}

void bench_fields_number(struct bench_fields *f, const char *name, double number) {
    add(f, (struct bench_field){name, NULL, number});
}

const char *bench_fields_find(const struct bench_fields *f, const char *name) {
    for (int i = 0; i < f->count; i++) {
        const struct bench_field *field = &f->items[i];
        if (field->text && strcmp(field->name, name) == 0) return field->text;
    }
    return "";
}

/* --- the machine and this build --------------------------------------------------------------- */

void bench_fields_machine(struct bench_fields *f) {
    nibble_machine m;
    nibble_machine_probe(&m);
    bench_fields_text(f, "cpu", m.cpu);
    bench_fields_number(f, "cores", m.physical);
    bench_fields_number(f, "processors", m.logical);
    bench_fields_text(f, "levels", m.levels);
}

/* What stands between two marks in the lines of nibble_build; absent if they are not there. */
static void add_between(struct bench_fields *f, const char *name, const char *text,
                        const char *from, const char *to) {
    char part[128];
    const char *at = strstr(text, from);
    if (at) {
        at += strlen(from);
        snprintf(part, sizeof part, "%.*s", (int)strcspn(at, to), at);
    }
    bench_fields_text(f, name, at ? part : NULL);
}

void bench_fields_build(struct bench_fields *f) {
    char build[1000];
    nibble_build(build, sizeof build);
    bench_fields_text(f, "version", nibble_version());
    add_between(f, "commit", build, "(commit ", ")\n");
    add_between(f, "compiler", build, "compiler: ", "\n");
}

void bench_fields_date(struct bench_fields *f) {
    char date[32] = "";
    struct tm utc;
    time_t now = time(NULL);
    if (gmtime_r(&now, &utc)) strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", &utc);
    bench_fields_text(f, "date", date);
}

/* --- the model -------------------------------------------------------------------------------- */

/* How most of the model's bytes are stored. */
static void add_format(const nibble_model *m, struct bench_fields *f) {
    char text[WEIGHTS_TEXT];
    weights_summary(m, text);
    bench_fields_text(f, "format", text);
}

void bench_fields_model(const struct bench *b, struct bench_fields *f) {
    char hash[24] = "";
    if (b->model.hash) snprintf(hash, sizeof hash, "%016llx", (unsigned long long)b->model.hash);
    bench_fields_text(f, "path", b->args->words[0]);
    bench_fields_text(f, "family", b->model.family);
    add_format(b->session.model, f);
    bench_fields_number(f, "parameters", (double)b->model.parameters);
    bench_fields_number(f, "weight_bytes_per_token", (double)b->model.bytes_per_token);
    bench_fields_text(f, "hash", hash);
}

/* --- the run and its tests -------------------------------------------------------------------- */

static double seconds(uint64_t ns) {
    return ns ? (double)ns / 1e9 : NAN;
}

void bench_fields_run(const struct bench *b, struct bench_fields *f) {
    const nibble_context_info *context = &b->series[0].context;
    bench_fields_date(f);
    bench_fields_text(f, "level", context->level);
    bench_fields_text(f, "kv_type", context->kv_type);
    bench_fields_number(f, "context", (double)context->context);
    bench_fields_number(f, "batch", (double)context->batch);
    bench_fields_number(f, "blas", b->args->blas);
    bench_fields_number(f, "load_s", seconds(b->load_ns));
    bench_fields_number(f, "cold_first_token_s", seconds(b->cold_ns));
    bench_fields_number(f, "private_bytes", (double)b->private_bytes);
    bench_fields_number(f, "peak_bytes", (double)b->peak_bytes);
}

void bench_fields_peaks(const nibble_peaks *p, struct bench_fields *f) {
    bench_fields_number(f, "peak_read_bytes_per_s", p->read_bytes);
    bench_fields_number(f, "peak_int8_ops_per_s", p->int8_ops);
    bench_fields_number(f, "peak_f32_ops_per_s", p->f32_ops);
}

void bench_fields_test(const struct bench *b, const struct bench_series *s,
                       const struct bench_test *t, struct bench_fields *f) {
    struct bench_figures g = bench_figures(b, s, t);
    bench_fields_text(f, "test", t->generation ? "generation" : "prompt");
    bench_fields_number(f, "depth", (double)t->depth);
    bench_fields_number(f, "tokens", (double)t->tokens);
    bench_fields_number(f, "repeats", (double)b->args->repeats);
    bench_fields_number(f, "tokens_per_s", g.rate);
    bench_fields_number(f, "deviation", g.deviation);
    bench_fields_number(f, "median_s", g.median_s);
    bench_fields_number(f, "median_tokens_per_s", g.median_rate);
    bench_fields_number(f, "bytes_per_token", g.bytes_per_token);
    bench_fields_number(f, "int8_ops_per_token", g.int8_ops_per_token);
    bench_fields_number(f, "f32_ops_per_token", g.f32_ops_per_token);
    bench_fields_number(f, "read_bytes_per_s", g.bytes_per_token * g.median_rate);
    bench_fields_number(f, "share_of_limit", g.share);
    bench_fields_number(f, "first_token_s", t->generation ? NAN : g.median_s);
    static const char *const latency[] = {"latency_p50_s", "latency_p90_s", "latency_p99_s"};
    for (int i = 0; i < BENCH_PERCENTILES; i++)
        bench_fields_number(f, latency[i], t->generation ? g.latency_s[i] : NAN);
}
