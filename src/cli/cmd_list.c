#include <cjson/cJSON.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/fault.h"
#include "cli/list.h"
#include "cli/message.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/weights.h"

enum { MAX_DIRS = 1000 };

static const struct option options_list[] = {
    {"--json", OPTION_FLAG, offsetof(struct args, json), .help = "print one JSON array"},
    {0}};

/* --- one model ------------------------------------------------------------------------------ */

/* What is told of a model; "" or 0 where it cannot be opened. */
struct entry {
    const struct list_model *model;
    char path[4096]; /* as it is printed */
    bool runs;
    char family[64], weights[WEIGHTS_TEXT];
    size_t parameters;
    char reason[4096]; /* why it does not run */
};

/* A terminal must not obey the name of a file. As messages do it: what is no UTF-8 becomes '?'. */
static void make_printable(const char *text, char *out, size_t size) {
    size_t left = strlen(text), n;
    for (; left && size > 4; text += n, left -= n) {
        size_t length = nibble_utf8_sequence(text, left);
        unsigned char c = (unsigned char)text[0];
        bool control =
            c < ' ' || c == 0x7f || (length == 2 && c == 0xc2 && (unsigned char)text[1] < 0xa0);
        n = length ? length : 1;
        memcpy(out, text, n);
        if (!length || control) memset(out, '?', n);
        out += n;
        size -= n;
    }
    *out = 0;
}

/* The sentence of an error, without the model's path before it. */
static void take_reason(struct entry *t, const nibble_error *e) {
    const char *text = e->message;
    size_t length = strlen(t->path);
    if (strncmp(text, t->path, length) == 0 && text[length] && strchr(":/ ", text[length]))
        text += length + (text[length] == ':' ? 2 : 1);
    size_t line = strcspn(text, "\n");
    if (text[line] && line && text[line - 1] == ':') line--; /* a list would follow */
    snprintf(t->reason, sizeof t->reason, "%.*s", (int)line, text);
}

static struct entry look_at(const struct list_model *model) {
    struct entry t = {.model = model};
    nibble_error e;
    make_printable(model->path, t.path, sizeof t.path);
    nibble_model_info info;
    fault_watch(model->path, NULL);
    nibble_model *m = nibble_model_glance(model->path, &e);
    t.runs = m != NULL;
    if (!m && strcmp(model->format, "pytorch") == 0)
        snprintf(t.reason, sizeof t.reason,
                 "its weights are pickled; convert it with scripts/convert.py");
    else if (!m)
        take_reason(&t, &e);
    if (!m) return t;
    nibble_model_describe(m, &info);
    snprintf(t.family, sizeof t.family, "%s", info.family);
    weights_summary(m, t.weights);
    t.parameters = info.parameters;
    nibble_model_close(m);
    return t;
}

/* --- printing ------------------------------------------------------------------------------- */

static void describe_size(double bytes, char *text, size_t size) {
    static const char *const units[] = {"kB", "MB", "GB", "TB"};
    int unit = 0;
    bytes /= 1e3;
    while (bytes >= 1e3 && unit < 3) {
        bytes /= 1e3;
        unit++;
    }
    snprintf(text, size, "%.1f %s", bytes, units[unit]);
}

/* Of a reason that lists all that would do, the beginning. */
static void print_reason(const char *reason) {
    size_t length = strlen(reason), most = 150;
    bool cut = length > most;
    if (cut) length = most;
    while (cut && length && (reason[length] & 0xc0) == 0x80) length--; /* inside a character */
    output_print("%9s  does not run: %.*s%s\n", "", (int)length, reason, cut ? "..." : "");
}

static void print_entry(const struct entry *t, bool first) {
    char size[32], format[48];
    const char *row = "%9s  %-16s %-12s %-24s ";
    if (first) {
        output_print(row, "size", "format", "family", "weights");
        output_print("model\n");
    }
    describe_size((double)t->model->bytes, size, sizeof size);
    snprintf(format, sizeof format, "%s", t->model->format);
    if (t->model->files > 1)
        snprintf(format, sizeof format, "%s, %zu", t->model->format, t->model->files);
    output_print(row, size, format, t->runs ? t->family : "-", t->runs ? t->weights : "-");
    output_print("%s\n", t->path);
    if (!t->runs) print_reason(t->reason);
}

static void add_text(cJSON *o, const char *name, const char *text) {
    cJSON_AddItemToObject(o, name,
                          *text ? output_json_text(text, strlen(text)) : cJSON_CreateNull());
}

static cJSON *json_of(const struct entry *t) {
    cJSON *o = cJSON_CreateObject();
    add_text(o, "path", t->model->path);
    add_text(o, "format", t->model->format);
    cJSON_AddNumberToObject(o, "files", (double)t->model->files);
    cJSON_AddNumberToObject(o, "bytes", (double)t->model->bytes);
    cJSON_AddBoolToObject(o, "runs", t->runs);
    add_text(o, "family", t->family);
    add_text(o, "weights", t->weights);
    cJSON_AddNumberToObject(o, "parameters", (double)t->parameters);
    add_text(o, "reason", t->reason);
    return o;
}

static void print_models(const struct list_scan *s, bool json) {
    cJSON *list = json ? cJSON_CreateArray() : NULL;
    for (size_t i = 0; i < s->count && !output_failed(); i++) {
        struct entry t = look_at(&s->models[i]);
        if (json)
            cJSON_AddItemToArray(list, json_of(&t));
        else
            print_entry(&t, i == 0);
    }
    if (json) output_json(list);
}

/* --- where to look -------------------------------------------------------------------------- */

/* The cache of Hugging Face's library, by the rules that it documents; malloc'd, NULL if there is
 * none. */
static char *find_cache(void) {
    static const struct {
        const char *variable, *rest;
    } places[] = {{"HF_HUB_CACHE", ""},
                  {"HF_HOME", "/hub"},
                  {"XDG_CACHE_HOME", "/huggingface/hub"},
                  {"HOME", "/.cache/huggingface/hub"}};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        const char *value = getenv(places[i].variable);
        char *path;
        if (!value || !*value) continue;
        return asprintf(&path, "%s%s", value, places[i].rest) < 0 ? NULL : path;
    }
    return NULL;
}

/* What is not there is passed over: nobody has asked for it by name. */
static void scan_usual_places(struct list_scan *s) {
    char *cache = find_cache();
    list_scan(s, ".");
    list_scan(s, "models");
    if (cache) list_scan(s, cache);
    free(cache);
}

static int scan_places(struct list_scan *s, const struct args *a) {
    if (!a->word_count) scan_usual_places(s);
    for (int i = 0; i < a->word_count; i++) {
        if (list_scan(s, a->words[i])) continue;
        message("%s cannot be opened: %s", a->words[i], strerror(errno));
        return EXIT_FAILED;
    }
    return EXIT_DONE;
}

static int run(const struct args *a) {
    struct list_scan s = {0};
    int code = scan_places(&s, a);
    list_scan_sort(&s);
    if (code == EXIT_DONE) print_models(&s, a->json);
    if (code == EXIT_DONE && !s.count && !a->json) message("no models were found");
    if (s.cut) message("note: a place holds more than 20000 names; the rest was not looked at");
    if (s.no_memory) {
        message("not enough memory for all models");
        code = EXIT_FAILED;
    }
    list_scan_free(&s);
    return code;
}

static const struct option *const groups[] = {options_list, NULL};

const struct command command_list = {
    .name = "list",
    .usage = "[DIR...]",
    .summary = "list the models in folders, and whether they would run",
    .notes = "Without DIR: here, in ./models and in the Hugging Face cache. Folders are searched "
             "five levels\ndeep; only headers and configs are read.",
    .min_words = 0,
    .max_words = MAX_DIRS,
    .groups = groups,
    .run = run,
};
