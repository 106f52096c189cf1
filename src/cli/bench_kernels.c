#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/bench.h"
#include "cli/message.h"
#include "cli/output.h"

/* A copy of what the library shows. */
struct row {
    char kernel[48], level[16], format[64];
    double bytes, ops, ns;
};

struct listing {
    enum bench_format format;
    struct row *rows;
    size_t count, room;
    bool full; /* no memory for another */
};

/* --- gathering -------------------------------------------------------------------------------- */

static bool keep(struct listing *l, const nibble_kernel_time *t) {
    if (l->count == l->room) {
        size_t room = l->room ? 2 * l->room : 64;
        struct row *rows = realloc(l->rows, room * sizeof *rows);
        if (!rows) return false;
        l->rows = rows;
        l->room = room;
    }
    struct row *r = &l->rows[l->count++];
    *r = (struct row){.bytes = t->bytes, .ops = t->ops, .ns = t->ns};
    snprintf(r->kernel, sizeof r->kernel, "%s", t->kernel);
    snprintf(r->level, sizeof r->level, "%s", t->level);
    snprintf(r->format, sizeof r->format, "%s", t->format);
    return true;
}

static double per_ns(double amount, const struct row *r) {
    return r->ns > 0 ? amount / r->ns : 0;
}

/* --- printing --------------------------------------------------------------------------------- */

static void print_head(bool markdown) {
    struct bench_fields f = {0};
    const char *mark = markdown ? "- " : "";
    bench_fields_machine(&f);
    bench_fields_build(&f);
    bench_fields_date(&f);
    output_print("%smachine: %s, one thread\n", mark, bench_fields_find(&f, "cpu"));
    output_print("%sbuild:   nibble %s, commit %s, %s\n", mark, bench_fields_find(&f, "version"),
                 bench_fields_find(&f, "commit"), bench_fields_find(&f, "compiler"));
    output_print("%srun:     %s\n\n", mark, bench_fields_find(&f, "date"));
    if (markdown)
        output_print("| kernel | level | format | GB/s | Gop/s | ns a call |\n"
                     "| :-- | :-- | :-- | --: | --: | --: |\n");
    else
        output_print("%-24s %-8s %-24s %9s %9s %12s\n", "kernel", "level", "format", "GB/s",
                     "Gop/s", "ns a call");
}

static void print_row(const struct row *r, bool markdown) {
    const char *arrange = markdown ? "| %s | %s | %s | %.2f | %.2f | %.1f |\n"
                                   : "%-24s %-8s %-24s %9.2f %9.2f %12.1f\n";
    output_print(arrange, r->kernel, r->level, r->format, per_ns(r->bytes, r), per_ns(r->ops, r),
                 r->ns);
}

static void add_kernel(struct bench_fields *f, const struct row *r) {
    bench_fields_text(f, "kernel", r->kernel);
    bench_fields_text(f, "level", r->level);
    bench_fields_text(f, "format", r->format);
    bench_fields_number(f, "bytes", r->bytes);
    bench_fields_number(f, "ops", r->ops);
    bench_fields_number(f, "ns", r->ns);
    bench_fields_number(f, "gb_per_s", per_ns(r->bytes, r));
    bench_fields_number(f, "gop_per_s", per_ns(r->ops, r));
}

static void print_csv(const struct listing *l) {
    for (size_t i = 0; i < l->count; i++) {
        struct bench_fields f = {0};
        bench_fields_machine(&f);
        bench_fields_build(&f);
        bench_fields_date(&f);
        add_kernel(&f, &l->rows[i]);
        if (i == 0) bench_write_csv(&f, true);
        bench_write_csv(&f, false);
    }
}

static void print_json(const struct listing *l) {
    struct bench_fields machine = {0}, build = {0}, run = {0};
    cJSON *o = cJSON_CreateObject();
    bench_fields_machine(&machine);
    bench_fields_build(&build);
    bench_fields_date(&run);
    cJSON_AddItemToObject(o, "machine", bench_write_json(&machine));
    cJSON_AddItemToObject(o, "build", bench_write_json(&build));
    cJSON_AddItemToObject(o, "run", bench_write_json(&run));
    cJSON *kernels = cJSON_AddArrayToObject(o, "kernels");
    for (size_t i = 0; i < l->count; i++) {
        struct bench_fields f = {0};
        add_kernel(&f, &l->rows[i]);
        cJSON_AddItemToArray(kernels, bench_write_json(&f));
    }
    output_json(o);
}

static void print_rest(const struct listing *l) {
    if (l->format == BENCH_CSV) print_csv(l);
    if (l->format == BENCH_JSON) print_json(l);
    if (l->format != BENCH_MARKDOWN) return;
    print_head(true);
    for (size_t i = 0; i < l->count; i++) print_row(&l->rows[i], true);
}

/* --- all of it -------------------------------------------------------------------------------- */

/* A table for people grows while it is measured; all else is printed when it is whole. */
static bool see_kernel(void *arg, const nibble_kernel_time *t) {
    struct listing *l = arg;
    if (message_interrupted() || output_failed()) return false;
    l->full = !keep(l, t);
    if (l->full) return false;
    if (l->format != BENCH_TABLE) return true;
    if (l->count == 1) print_head(false);
    print_row(&l->rows[l->count - 1], false);
    return true;
}

static int measure(struct listing *l, const char *level) {
    nibble_error e;
    if (!nibble_measure_kernels(level, see_kernel, l, &e)) return message_error(&e);
    if (message_interrupted()) return message_interrupted_exit();
    if (!l->full) return EXIT_DONE;
    message("not enough memory for the table of kernels");
    return EXIT_FAILED;
}

int bench_kernels(enum bench_format format, const char *level) {
    struct listing l = {.format = format};
    message_catch_signals();
    int code = measure(&l, level);
    if (code == EXIT_DONE) print_rest(&l);
    free(l.rows);
    return code;
}
