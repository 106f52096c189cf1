#include <stdio.h>

#include "cli/message.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/session.h"

static int print_machine(void) {
    nibble_machine m;
    char build[1000];
    nibble_machine_probe(&m);
    nibble_build(build, sizeof build);
    output_print("%s\n"
                 "CPU:      %s\n"
                 "levels:   %s (this CPU runs these; the last is the default)\n"
                 "cores:    %d, processors: %d\n"
                 "threads:  %d by default: %s\n"
                 "memory:   %.1f GB available\n",
                 build, m.cpu, m.levels, m.physical, m.logical, m.threads, m.reason,
                 (double)m.memory_available / 1e9);
    return EXIT_DONE;
}

static void print_number(void *arg, const char *name, const char *value) {
    (void)arg;
    output_print("  %-24s %s\n", name, value);
}

static void print_tensor(void *arg, const nibble_tensor *t) {
    char shape[48], format[48];
    (void)arg;
    if (t->vector)
        snprintf(shape, sizeof shape, "[%zu]", t->cols);
    else
        snprintf(shape, sizeof shape, "[%zu, %zu]", t->rows, t->cols);
    if (t->group)
        snprintf(format, sizeof format, "%s %d bits, groups of %d", t->format, t->bits, t->group);
    else
        snprintf(format, sizeof format, "%s", t->format);
    output_print("  %-48s %-18s %-30s %zu\n", t->name, shape, format, t->bytes);
}

static void print_kept(void *arg, const nibble_tensor *t) {
    (void)arg;
    if (!t->vector && !t->group)
        output_print("  %s [%zu, %zu] %s\n", t->name, t->rows, t->cols, t->format);
}

static void print_memory(const nibble_model_info *info) {
    nibble_machine machine;
    nibble_machine_probe(&machine);
    double context = (double)info->context;
    output_print("\nmemory:\n"
                 "  weights mapped           %zu bytes, read from the file's pages, not copied\n"
                 "  weights inflated         %zu bytes private\n"
                 "  vectors and tables       %zu bytes private\n"
                 "  KV cache, 1000 tokens    %.1f MB in f16, %.1f MB in f32\n"
                 "  KV cache, whole context  %.1f MB in f16, %.1f MB in f32\n"
                 "  available here           %.1f MB\n"
                 "  read for one token       %.1f MB of weights\n",
                 info->mapped_bytes, info->private_bytes, info->own_bytes,
                 (double)info->kv_bytes_f16 / 1e3, (double)info->kv_bytes_f32 / 1e3,
                 context * (double)info->kv_bytes_f16 / 1e6,
                 context * (double)info->kv_bytes_f32 / 1e6, (double)machine.memory_available / 1e6,
                 (double)info->bytes_per_token / 1e6);
}

static int print_model(const char *path) {
    struct session s;
    nibble_model_info info;
    int code = session_open_model(&s, path);
    if (code != EXIT_DONE) return code;
    nibble_model_describe(s.model, &info);
    output_print("%s: %s, %.2f M parameters, %s\n", path, info.family,
                 (double)info.parameters / 1e6,
                 s.tokenizer ? "with a tokenizer" : "without a tokenizer");
    output_print("\nnumbers (0 where the file leaves it open and nothing follows):\n");
    nibble_model_numbers(s.model, print_number, NULL);
    print_memory(&info);
    if (info.kept) {
        output_print("\nmatrices kept as they were (width no multiple of the group): %zu\n",
                     info.kept);
        nibble_model_tensors(s.model, print_kept, NULL);
    }
    output_print("\ntensors (%zu), shape, format, bytes:\n", info.tensors);
    nibble_model_tensors(s.model, print_tensor, NULL);
    session_close(&s);
    return EXIT_DONE;
}

static int run(const struct args *a) {
    return a->word_count ? print_model(a->words[0]) : print_machine();
}

static const struct option *const groups[] = {NULL};

const struct command command_info = {
    .name = "info",
    .usage = "[MODEL]",
    .summary = "show this machine and build, or a model's numbers, memory and tensors",
    .min_words = 0,
    .max_words = 1,
    .groups = groups,
    .run = run,
};
