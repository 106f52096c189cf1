#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/message.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/sandbox.h"
#include "cli/session.h"

static const struct option options_info[] = {
    {"--all", OPTION_FLAG, offsetof(struct args, all),
     .help = "every number of the configuration, those that change nothing too"},
    {"--json", OPTION_FLAG, offsetof(struct args, json), .help = "print one JSON object"},
    {0}};

static int print_machine(void) {
    nibble_machine m;
    char build[1000], sandbox[80];
    nibble_machine_probe(&m);
    nibble_build(build, sizeof build);
    sandbox_describe(sandbox, sizeof sandbox);
    output_print("%s\n"
                 "CPU:      %s\n"
                 "levels:   %s (this CPU runs these; the last is the default)\n"
                 "cores:    %d, processors: %d\n"
                 "threads:  %d by default: %s\n"
                 "memory:   %.1f GB available\n"
                 "sandbox:  %s\n",
                 build, m.cpu, m.levels, m.physical, m.logical, m.threads, m.reason,
                 (double)m.memory_available / 1e9, sandbox);
    return EXIT_DONE;
}

/* --- numbers -------------------------------------------------------------------------------- */

/* Names on lines of a readable width. */
struct names {
    bool all; /* every number is printed by itself */
    char line[100];
};

static void print_number(void *arg, const char *name, const char *value, bool neutral) {
    const struct names *names = arg;
    if (names->all || !neutral) output_print("  %-24s %s\n", name, value);
}

static void print_neutral(void *arg, const char *name, const char *value, bool neutral) {
    struct names *names = arg;
    (void)value;
    if (!neutral) return;
    if (strlen(names->line) + strlen(name) + 3 >= sizeof names->line) {
        output_print("%s\n", names->line);
        *names->line = 0;
    }
    size_t used = strlen(names->line);
    snprintf(names->line + used, sizeof names->line - used, "%s%s", used ? " " : "  ", name);
}

static void print_numbers(const nibble_model *m, bool all) {
    struct names names = {.all = all};
    output_print("\nnumbers%s:\n",
                 all ? " (0 where the file leaves it open and nothing follows)" : "");
    nibble_model_numbers(m, print_number, &names);
    if (all) return;
    output_print("\n0, off, or a factor of 1 (--all prints them as well):\n");
    nibble_model_numbers(m, print_neutral, &names);
    if (*names.line) output_print("%s\n", names.line);
}

/* --- layers --------------------------------------------------------------------------------- */

enum { LAYER_KINDS = 8 };

static int kind_of(const nibble_model *m, size_t i) {
    nibble_layer l = nibble_model_layer(m, i);
    return l.windowed | l.rotates << 1 | l.experts << 2;
}

static bool layers_differ(const nibble_model *m, size_t layers) {
    for (size_t i = 1; i < layers; i++) {
        if (kind_of(m, i) != kind_of(m, 0)) return true;
    }
    return false;
}

static void describe_kind(int kind, const nibble_model_info *info, char *text, size_t size) {
    char window[48] = "all positions";
    if (kind & 1) snprintf(window, sizeof window, "window of %zu", info->window);
    snprintf(text, size, "%s, %s%s", window, kind & 2 ? "rope" : "no rope",
             kind & 4 ? ", experts" : "");
}

/* The layers of one kind: "0-4, 6-10". */
static void print_ranges(const nibble_model *m, size_t layers, int kind) {
    const char *between = "";
    for (size_t i = 0; i < layers; i++) {
        size_t last = i;
        if (kind_of(m, i) != kind) continue;
        while (last + 1 < layers && kind_of(m, last + 1) == kind) last++;
        output_print(last > i ? "%s%zu-%zu" : "%s%zu", between, i, last);
        between = ", ";
        i = last;
    }
    output_print("\n");
}

static void print_layers(const nibble_model *m, const nibble_model_info *info) {
    if (!layers_differ(m, info->layers)) return;
    output_print("\nlayers, of %zu:\n", info->layers);
    for (int kind = 0; kind < LAYER_KINDS; kind++) {
        char text[80];
        bool there = false;
        for (size_t i = 0; i < info->layers; i++) there |= kind_of(m, i) == kind;
        if (!there) continue;
        describe_kind(kind, info, text, sizeof text);
        output_print("  %-40s ", text);
        print_ranges(m, info->layers, kind);
    }
}

/* --- memory --------------------------------------------------------------------------------- */

/* What a run with default options takes; why there can be none is kept in e. */
struct plan {
    bool fits;
    nibble_context_info context;
    nibble_machine machine;
    nibble_error e;
};

/* The context is really opened: its memory is not touched by that. */
static void make_plan(const nibble_model *m, struct plan *p) {
    nibble_context_options o = nibble_context_defaults();
    o.threads = 1;
    nibble_machine_probe(&p->machine);
    nibble_context *c = nibble_context_open(m, &o, &p->e);
    p->fits = c != NULL;
    if (c) nibble_context_describe(c, &p->context);
    nibble_context_close(c);
}

static void print_verdict(const nibble_model_info *info, const struct plan *p) {
    size_t available = p->machine.memory_available;
    output_print("  available here           %.1f MB\n", (double)available / 1e6);
    if (!p->fits)
        output_print("  here                     no context: %s\n", p->e.message);
    else if (p->context.context < info->context)
        output_print("  here                     a context of %zu of %zu tokens fits\n",
                     p->context.context, info->context);
    else
        output_print("  here                     the whole context of %zu tokens fits\n",
                     info->context);
    if (available && info->mapped_bytes > available)
        output_print("                           the weights do not: they would be read from the "
                     "disk for every token\n");
}

static void print_memory(const nibble_model_info *info, const struct plan *p) {
    double context = (double)info->context;
    output_print("\nmemory:\n"
                 "  weights mapped           %zu bytes, read from the file's pages, not copied\n"
                 "  weights inflated         %zu bytes private\n"
                 "  vectors and tables       %zu bytes private\n"
                 "  KV cache, 1000 tokens    %.1f MB in f16, %.1f MB in f32\n"
                 "  KV cache, whole context  %.1f MB in f16, %.1f MB in f32\n"
                 "  read for one token       %.1f MB of weights\n",
                 info->mapped_bytes, info->private_bytes, info->own_bytes,
                 (double)info->kv_bytes_f16 / 1e3, (double)info->kv_bytes_f32 / 1e3,
                 context * (double)info->kv_bytes_f16 / 1e6,
                 context * (double)info->kv_bytes_f32 / 1e6, (double)info->bytes_per_token / 1e6);
    if (p->fits)
        output_print("  scratch                  %.1f MB for batches of %zu tokens\n",
                     (double)p->context.scratch_bytes / 1e6, p->context.batch);
    print_verdict(info, p);
}

/* --- tensors -------------------------------------------------------------------------------- */

static void describe_shape(const nibble_tensor *t, char *text, size_t size) {
    if (t->vector && t->rows == 1)
        snprintf(text, size, "[%zu]", t->cols);
    else
        snprintf(text, size, "[%zu, %zu]", t->rows, t->cols);
}

static void print_tensor(void *arg, const nibble_tensor *t) {
    char shape[48], format[48];
    (void)arg;
    describe_shape(t, shape, sizeof shape);
    snprintf(format, sizeof format, t->group ? "%s %d bits, groups of %d" : "%s", t->format,
             t->bits, t->group);
    output_print("  %-48s %-18s %-30s %zu\n", t->name, shape, format, t->bytes);
}

static void print_kept(void *arg, const nibble_tensor *t) {
    (void)arg;
    if (!t->vector && !t->group)
        output_print("  %s [%zu, %zu] %s\n", t->name, t->rows, t->cols, t->format);
}

static void print_tensors(const nibble_model *m, const nibble_model_info *info) {
    if (info->kept) {
        output_print("\nmatrices kept as they were (width no multiple of the group): %zu\n",
                     info->kept);
        nibble_model_tensors(m, print_kept, NULL);
    }
    output_print("\ntensors (%zu), shape, format, bytes:\n", info->tensors);
    nibble_model_tensors(m, print_tensor, NULL);
}

/* --- JSON ----------------------------------------------------------------------------------- */

static void add_number(void *arg, const char *name, const char *value, bool neutral) {
    char *end;
    double number = strtod(value, &end);
    (void)neutral;
    if (*end == 0)
        cJSON_AddNumberToObject(arg, name, number);
    else if (strcmp(value, "true") == 0 || strcmp(value, "false") == 0)
        cJSON_AddBoolToObject(arg, name, *value == 't');
    else if (strcmp(value, "not given") == 0)
        cJSON_AddNullToObject(arg, name);
    else
        cJSON_AddStringToObject(arg, name, value);
}

static void add_tensor(void *arg, const nibble_tensor *t) {
    cJSON *o = cJSON_CreateObject(), *shape = cJSON_AddArrayToObject(o, "shape");
    if (!t->vector || t->rows != 1)
        cJSON_AddItemToArray(shape, cJSON_CreateNumber((double)t->rows));
    cJSON_AddItemToArray(shape, cJSON_CreateNumber((double)t->cols));
    cJSON_AddItemToObject(o, "name", output_json_text(t->name, strlen(t->name)));
    cJSON_AddStringToObject(o, "format", t->format);
    cJSON_AddNumberToObject(o, "bits", t->bits);
    cJSON_AddNumberToObject(o, "group", t->group);
    cJSON_AddNumberToObject(o, "bytes", (double)t->bytes);
    cJSON_AddItemToArray(arg, o);
}

static void add_memory(cJSON *o, const nibble_model_info *info, const struct plan *p) {
    const struct {
        const char *name;
        size_t bytes;
    } rows[] = {{"mapped", info->mapped_bytes},
                {"inflated", info->private_bytes},
                {"vectors_and_tables", info->own_bytes},
                {"kv_token_f16", info->kv_bytes_f16},
                {"kv_token_f32", info->kv_bytes_f32},
                {"read_for_one_token", info->bytes_per_token},
                {"available", p->machine.memory_available}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        cJSON_AddNumberToObject(o, rows[i].name, (double)rows[i].bytes);
    if (p->fits) cJSON_AddNumberToObject(o, "scratch", (double)p->context.scratch_bytes);
    cJSON_AddNumberToObject(o, "context", p->fits ? (double)p->context.context : 0);
}

static void add_tokenizer(cJSON *o, const struct session *s) {
    nibble_tokenizer_info t;
    nibble_tokenizer_describe(s->tokenizer, &t);
    cJSON_AddStringToObject(o, "file", t.file);
    cJSON_AddStringToObject(o, "kind", t.kind);
    if (t.why) cJSON_AddStringToObject(o, "why", t.why);
    cJSON_AddNumberToObject(o, "pieces", (double)nibble_tokenizer_pieces(s->tokenizer));
    if (t.bos >= 0) cJSON_AddNumberToObject(o, "bos", t.bos);
    if (t.eos >= 0) cJSON_AddNumberToObject(o, "eos", t.eos);
    cJSON_AddBoolToObject(o, "chat_template", nibble_model_template(s->model) != NULL);
}

static void print_json(const char *path, const struct session *s, const nibble_model_info *info,
                       const struct plan *p) {
    cJSON *o = cJSON_CreateObject(), *layers;
    cJSON_AddItemToObject(o, "model", output_json_text(path, strlen(path)));
    cJSON_AddStringToObject(o, "family", info->family);
    cJSON_AddNumberToObject(o, "parameters", (double)info->parameters);
    cJSON_AddBoolToObject(o, "tokenizer", s->tokenizer != NULL);
    if (s->tokenizer) add_tokenizer(cJSON_AddObjectToObject(o, "text"), s);
    nibble_model_numbers(s->model, add_number, cJSON_AddObjectToObject(o, "numbers"));
    layers = cJSON_AddArrayToObject(o, "layers");
    for (size_t i = 0; i < info->layers; i++) {
        nibble_layer l = nibble_model_layer(s->model, i);
        cJSON *layer = cJSON_CreateObject();
        cJSON_AddNumberToObject(layer, "window", l.windowed ? (double)info->window : 0);
        cJSON_AddBoolToObject(layer, "rope", l.rotates);
        cJSON_AddBoolToObject(layer, "experts", l.experts);
        cJSON_AddItemToArray(layers, layer);
    }
    add_memory(cJSON_AddObjectToObject(o, "memory_bytes"), info, p);
    nibble_model_tensors(s->model, add_tensor, cJSON_AddArrayToObject(o, "tensors"));
    output_json(o);
}

/* --- the command ---------------------------------------------------------------------------- */

static void print_token(const char *name, int id) {
    if (id >= 0) output_print(", %s %d", name, id);
}

static void print_tokenizer(const struct session *s) {
    nibble_tokenizer_info t;
    if (!s->tokenizer) return;
    nibble_tokenizer_describe(s->tokenizer, &t);
    output_print("tokenizer: %s", t.file);
    if (strcmp(t.kind, t.file) != 0) output_print(" of %s", t.kind);
    output_print(", %zu pieces", nibble_tokenizer_pieces(s->tokenizer));
    print_token("BOS", t.bos);
    print_token("EOS", t.eos);
    output_print("%s%s\n", t.why ? "; it is used since " : "", t.why ? t.why : "");
    const char *jinja = nibble_model_jinja(s->model);
    if (nibble_model_template(s->model))
        output_print("chat template: the model's own\n");
    else if (jinja)
        output_print("chat template: in Jinja, in %s, which nibble does not run\n", jinja);
    else
        output_print("chat template: none\n");
}

static void print_text(const char *path, const struct session *s, const nibble_model_info *info,
                       const struct plan *p, bool all) {
    output_print("%s: %s, %.2f M parameters, %s\n", path, info->family,
                 (double)info->parameters / 1e6,
                 s->tokenizer ? "with a tokenizer" : "without a tokenizer");
    output_print("%s\n", info->title);
    print_tokenizer(s);
    print_numbers(s->model, all);
    print_layers(s->model, info);
    print_memory(info, p);
    print_tensors(s->model, info);
}

static int print_model(const struct args *a) {
    struct session s;
    nibble_model_info info;
    struct plan plan = {0};
    int code = session_open_model(&s, a->words[0]);
    if (code != EXIT_DONE) return code;
    nibble_model_describe(s.model, &info);
    make_plan(s.model, &plan);
    if (a->json)
        print_json(a->words[0], &s, &info, &plan);
    else
        print_text(a->words[0], &s, &info, &plan, a->all);
    session_close(&s);
    return EXIT_DONE;
}

static int run(const struct args *a) {
    if (a->word_count) return print_model(a);
    if (!a->json) return print_machine();
    message("--json describes a model: nibble info MODEL --json");
    return EXIT_USAGE;
}

static const struct option *const groups[] = {options_info, NULL};

const struct command command_info = {
    .name = "info",
    .usage = "[MODEL]",
    .summary = "show this machine and build, or a model's numbers, memory and tensors",
    .min_words = 0,
    .max_words = 1,
    .groups = groups,
    .run = run,
};
