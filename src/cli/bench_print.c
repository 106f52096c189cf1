#include <cjson/cJSON.h>
#include <stdio.h>
#include <string.h>

#include "cli/bench.h"
#include "cli/output.h"

/* --- for people: table and markdown ----------------------------------------------------------- */

enum { COLUMNS = 11, CELL = 32 };

/* Widths on a terminal; negative: to the left. */
static const struct column {
    const char *name;
    int width;
} columns[COLUMNS] = {
    {"threads", 7},   {"test", -10}, {"depth", 6},         {"tokens", 6},
    {"tok/s", 8},     {"stddev", 7}, {"median", 8},        {"MB/token", 8},
    {"Mop/token", 9}, {"limit", 5},  {"latency, ms", -11},
};

/* Three digits or more. */
static void put_ms(char *out, size_t size, double seconds) {
    double ms = seconds * 1e3;
    snprintf(out, size, "%.*f", ms < 10 ? 2 : ms < 100 ? 1 : 0, ms);
}

static void put_latency(char *out, size_t size, bool generation, const struct bench_figures *g) {
    *out = 0;
    if (!generation) {
        put_ms(out, size, g->median_s);
        return;
    }
    for (int i = 0; i < BENCH_PERCENTILES; i++) {
        size_t used = strlen(out);
        if (i) used += (size_t)snprintf(out + used, size - used, "/");
        if (used < size) put_ms(out + used, size - used, g->latency_s[i]);
    }
}

static void fill_cells(const struct bench *b, const struct bench_series *s,
                       const struct bench_test *t, char cells[COLUMNS][CELL]) {
    struct bench_figures g = bench_figures(b, s, t);
    int i = 0;
    snprintf(cells[i++], CELL, "%d", s->context.threads);
    snprintf(cells[i++], CELL, "%s", t->generation ? "generation" : "prompt");
    snprintf(cells[i++], CELL, "%zu", t->depth);
    snprintf(cells[i++], CELL, "%zu", t->tokens);
    snprintf(cells[i++], CELL, "%.2f", g.rate);
    snprintf(cells[i++], CELL, "%.2f", g.deviation);
    snprintf(cells[i++], CELL, "%.2f", g.median_rate);
    snprintf(cells[i++], CELL, "%.2f", g.bytes_per_token / 1e6);
    snprintf(cells[i++], CELL, "%.2f", (g.int8_ops_per_token + g.f32_ops_per_token) / 1e6);
    snprintf(cells[i++], CELL, "%.0f%%", 100 * g.share);
    put_latency(cells[i], CELL, t->generation, &g);
}

static void print_row(bool markdown, char cells[COLUMNS][CELL]) {
    char line[COLUMNS * (CELL + 3) + 4] = "";
    for (int i = 0; i < COLUMNS; i++) {
        size_t used = strlen(line);
        if (markdown)
            snprintf(line + used, sizeof line - used, "| %s ", cells[i]);
        else
            snprintf(line + used, sizeof line - used, "%s%*s", i ? " " : "",
                     i < COLUMNS - 1 ? columns[i].width : 0, cells[i]);
    }
    output_print(markdown ? "%s|\n" : "%s\n", line);
}

static void print_names(bool markdown) {
    char cells[COLUMNS][CELL], rules[COLUMNS][CELL];
    for (int i = 0; i < COLUMNS; i++) {
        snprintf(cells[i], CELL, "%s", columns[i].name);
        snprintf(rules[i], CELL, "%s", columns[i].width < 0 ? ":--" : "--:");
    }
    output_print("\n");
    print_row(markdown, cells);
    if (markdown) print_row(true, rules);
}

/* Lines about the run; `mark` begins each. */
static void print_head(const struct bench *b, const char *mark) {
    const nibble_context_info *context = &b->series[0].context;
    struct bench_fields f = {0};
    bench_fields_model(b, &f);
    bench_fields_machine(&f);
    bench_fields_build(&f);
    bench_fields_date(&f);
    const char *hash = bench_fields_find(&f, "hash");
    output_print("%smodel:   %s%s%s\n", mark, bench_fields_find(&f, "path"), *hash ? ", hash " : "",
                 hash);
    output_print("%sweights: %s, %.2f M parameters, %s, %.1f MB a token\n", mark, b->model.family,
                 (double)b->model.parameters / 1e6, bench_fields_find(&f, "format"),
                 (double)b->model.bytes_per_token / 1e6);
    output_print("%smachine: %s, %s\n", mark, bench_fields_find(&f, "cpu"), context->level);
    output_print("%sbuild:   nibble %s, commit %s, %s\n", mark, bench_fields_find(&f, "version"),
                 bench_fields_find(&f, "commit"), bench_fields_find(&f, "compiler"));
    output_print("%srun:     %s, KV cache %s, batch %zu, context %zu, %d repeats%s\n", mark,
                 bench_fields_find(&f, "date"), context->kv_type, context->batch, context->context,
                 (int)b->args->repeats, b->args->blas ? ", BLAS" : "");
}

static void print_limits(const struct bench *b, const char *mark) {
    for (int i = 0; i < b->series_count; i++) {
        const struct bench_series *s = &b->series[i];
        output_print(
            "%slimits:  %.1f GB/s read, %.1f int8 Gop/s, %.1f f32 Gop/s with %d thread%s\n", mark,
            s->peaks.read_bytes / 1e9, s->peaks.int8_ops / 1e9, s->peaks.f32_ops / 1e9,
            s->context.threads, s->context.threads == 1 ? "" : "s");
    }
}

static void print_foot(const struct bench *b, const char *mark) {
    output_print("\n%sload %.4f s", mark, (double)b->load_ns / 1e9);
    if (b->cold_ns) output_print(", first token while cold %.4f s", (double)b->cold_ns / 1e9);
    output_print(", memory %.1f MB private, %.1f MB with mapped pages\n",
                 (double)b->private_bytes / 1e6, (double)b->peak_bytes / 1e6);
}

static void print_table(const struct bench *b, bool markdown) {
    const char *mark = markdown ? "- " : "";
    char cells[COLUMNS][CELL];
    print_head(b, mark);
    print_limits(b, mark);
    print_names(markdown);
    for (int i = 0; i < b->series_count; i++) {
        const struct bench_series *s = &b->series[i];
        for (size_t k = 0; k < s->count; k++) {
            fill_cells(b, s, &s->tests[k], cells);
            print_row(markdown, cells);
        }
    }
    print_foot(b, mark);
}

/* --- for programs: CSV and JSON --------------------------------------------------------------- */

/* All fields in one row: what holds for all tests is repeated. */
static void print_csv_row(const struct bench *b, const struct bench_series *s,
                          const struct bench_test *t, bool names) {
    struct bench_fields f = {0};
    bench_fields_machine(&f);
    bench_fields_model(b, &f);
    bench_fields_build(&f);
    bench_fields_run(b, &f);
    bench_fields_number(&f, "threads", s->context.threads);
    bench_fields_peaks(&s->peaks, &f);
    bench_fields_test(b, s, t, &f);
    bench_write_csv(&f, names);
}

static void print_csv(const struct bench *b) {
    uint64_t never[BENCH_MAX_REPEATS] = {0};
    print_csv_row(b, &b->series[0], &(struct bench_test){.ns = never}, true);
    for (int i = 0; i < b->series_count; i++) {
        const struct bench_series *s = &b->series[i];
        for (size_t k = 0; k < s->count; k++) print_csv_row(b, s, &s->tests[k], false);
    }
}

static cJSON *test_json(const struct bench *b, const struct bench_series *s,
                        const struct bench_test *t) {
    struct bench_fields f = {0};
    bench_fields_number(&f, "threads", s->context.threads);
    bench_fields_test(b, s, t, &f);
    cJSON *o = bench_write_json(&f), *seconds = cJSON_AddArrayToObject(o, "seconds");
    for (int i = 0; i < b->args->repeats; i++)
        cJSON_AddItemToArray(seconds, cJSON_CreateNumber((double)t->ns[i] / 1e9));
    return o;
}

static cJSON *peaks_json(const struct bench_series *s, long long repeats) {
    struct bench_fields f = {0};
    bench_fields_number(&f, "threads", s->context.threads);
    bench_fields_peaks(&s->peaks, &f);
    cJSON *o = bench_write_json(&f), *rounds = cJSON_AddArrayToObject(o, "rounds");
    for (int i = 0; i < repeats; i++) {
        struct bench_fields round = {0};
        bench_fields_peaks(&s->rounds[i], &round);
        cJSON_AddItemToArray(rounds, bench_write_json(&round));
    }
    return o;
}

static void print_json(const struct bench *b) {
    struct bench_fields machine = {0}, model = {0}, build = {0}, run = {0};
    cJSON *o = cJSON_CreateObject();
    bench_fields_machine(&machine);
    bench_fields_model(b, &model);
    bench_fields_build(&build);
    bench_fields_run(b, &run);
    cJSON_AddItemToObject(o, "machine", bench_write_json(&machine));
    cJSON_AddItemToObject(o, "model", bench_write_json(&model));
    cJSON_AddItemToObject(o, "build", bench_write_json(&build));
    cJSON_AddItemToObject(o, "run", bench_write_json(&run));
    cJSON *peaks = cJSON_AddArrayToObject(o, "peaks"), *tests = cJSON_AddArrayToObject(o, "tests");
    for (int i = 0; i < b->series_count; i++) {
        const struct bench_series *s = &b->series[i];
        cJSON_AddItemToArray(peaks, peaks_json(s, b->args->repeats));
        for (size_t k = 0; k < s->count; k++)
            cJSON_AddItemToArray(tests, test_json(b, s, &s->tests[k]));
    }
    output_json(o);
}

void bench_print(const struct bench *b) {
    switch (b->format) {
    case BENCH_JSON: print_json(b); return;
    case BENCH_CSV: print_csv(b); return;
    default: print_table(b, b->format == BENCH_MARKDOWN);
    }
}
