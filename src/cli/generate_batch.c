#include "cli/generate_batch.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/buffer.h"
#include "cli/generate_job.h"
#include "cli/input.h"
#include "cli/message.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/prompt.h"

enum { MOST_BYTES = 64 << 20 }; /* of a line */

/* One line of the file. */
struct line {
    cJSON *json;
    cJSON *label;          /* what its result begins with: line, and id if it has one */
    const cJSON *messages; /* NULL: it has a prompt or ids */
    struct args args;
    struct generate_job job;
};

static int refuse(const char *why) {
    message("%s", why);
    return EXIT_USAGE;
}

/* --- keys ------------------------------------------------------------------------------------- */

typedef int read_key(struct line *l, const cJSON *value);

static int read_prompt(struct line *l, const cJSON *value) {
    if (!cJSON_IsString(value)) return refuse("prompt is not a string");
    free(l->job.prompt.bytes);
    l->job.prompt = (struct input_text){strdup(value->valuestring), strlen(value->valuestring)};
    return l->job.prompt.bytes ? EXIT_DONE : refuse("not enough memory for the prompt");
}

/* What they are is seen when the template goes around them. */
static int read_messages(struct line *l, const cJSON *value) {
    l->messages = value;
    return EXIT_DONE;
}

static int read_ids(struct line *l, const cJSON *value) {
    if (!cJSON_IsArray(value)) return refuse("ids is not a list of token ids");
    nibble_free(l->job.ids.ids);
    l->job.ids = (nibble_ids){malloc(((size_t)cJSON_GetArraySize(value) + 1) * sizeof(int)), 0};
    if (!l->job.ids.ids) return refuse("not enough memory for the ids");
    const cJSON *id;
    cJSON_ArrayForEach(id, value) {
        double x = cJSON_IsNumber(id) ? id->valuedouble : -1;
        if (!(x >= 0 && x <= 1 << 30 && x == floor(x)))
            return refuse("ids is not a list of token ids");
        l->job.ids.ids[l->job.ids.count++] = (int)x;
    }
    return EXIT_DONE;
}

/* It comes back as it is: a number that a double does not hold would be another, and cJSON prints
 * 15 digits of one. */
static int read_id(struct line *l, const cJSON *value) {
    bool number = cJSON_IsNumber(value) && fabs(value->valuedouble) <= 0x1p53;
    if (!number && !cJSON_IsString(value)) return refuse("id is not a string or a number to 2^53");
    char digits[32];
    const char *text = number ? digits : value->valuestring;
    snprintf(digits, sizeof digits, "%.17g", number ? value->valuedouble : 0);
    cJSON_DeleteItemFromObject(l->label, "id");
    cJSON_AddItemToObject(l->label, "id",
                          number ? cJSON_CreateRaw(text) : output_json_text(text, strlen(text)));
    return EXIT_DONE;
}

static int add_stop(struct args_list *list, const cJSON *value) {
    if (!cJSON_IsString(value)) return refuse("stop is not a string or a list of strings");
    if (list->count == ARGS_MAX_REPEATS) return refuse("stop holds more than 64 strings");
    list->items[list->count++] = value->valuestring;
    return EXIT_DONE;
}

static int read_stop(struct line *l, const cJSON *value) {
    l->args.stops.count = 0;
    if (!cJSON_IsArray(value)) return add_stop(&l->args.stops, value);
    int code = EXIT_DONE;
    const cJSON *text;
    cJSON_ArrayForEach(text, value) {
        if (code == EXIT_DONE) code = add_stop(&l->args.stops, text);
    }
    return code;
}

static int read_ignore_eos(struct line *l, const cJSON *value) {
    if (!cJSON_IsBool(value)) return refuse("ignore_eos is not true or false");
    l->args.ignore_eos = cJSON_IsTrue(value);
    return EXIT_DONE;
}

/* The keys of their own; the others are options with a number, "--" before their name. */
static const struct {
    const char *name;
    read_key *read;
} keys[] = {{"prompt", read_prompt}, {"messages", read_messages}, {"ids", read_ids},
            {"id", read_id},         {"stop", read_stop},         {"ignore_eos", read_ignore_eos}};

static const char *const numbers[] = {
    "n_predict",        "max_tokens",     "seed",          "temp",
    "temperature",      "top_k",          "top_p",         "min_p",
    "typical",          "repeat_penalty", "repeat_last_n", "presence_penalty",
    "frequency_penalty"};

enum { KEYS = sizeof keys / sizeof *keys, NUMBERS = sizeof numbers / sizeof *numbers };

static int read_number(struct line *l, const char *key, const cJSON *value) {
    char name[64], text[32];
    snprintf(name, sizeof name, "--%s", key);
    snprintf(text, sizeof text, "%.17g", value->valuedouble);
    if (!cJSON_IsNumber(value)) {
        message("%s is not a number", key);
        return EXIT_USAGE;
    }
    return options_set(&command_generate, name, key, text, &l->args) ? EXIT_DONE : EXIT_USAGE;
}

static int read_pair(struct line *l, const cJSON *pair) {
    for (int i = 0; i < KEYS; i++) {
        if (strcmp(pair->string, keys[i].name) == 0) return keys[i].read(l, pair);
    }
    for (int i = 0; i < NUMBERS; i++) {
        if (strcmp(pair->string, numbers[i]) == 0) return read_number(l, numbers[i], pair);
    }
    message("'%.40s' is no key of a line; see the list in docs/cli.md", pair->string);
    return EXIT_USAGE;
}

/* --- a line ----------------------------------------------------------------------------------- */

static int parse(struct line *l, const char *text, size_t size) {
    const char *end = text;
    if (input_json_nul(text, size))
        return refuse("the line holds a NUL; give such a prompt as ids");
    l->json = cJSON_ParseWithLengthOpts(text, size, &end, false);
    size_t at = (size_t)(end - text);
    if (l->json) at += strspn(end, " \t\r\n");
    if (at < size || !l->json) {
        message("the line is not JSON, at its byte %zu", at + 1);
        return EXIT_USAGE;
    }
    if (!cJSON_IsObject(l->json)) return refuse("the line is not a JSON object");
    int code = EXIT_DONE;
    const cJSON *pair;
    cJSON_ArrayForEach(pair, l->json) {
        if (code == EXIT_DONE) code = read_pair(l, pair);
    }
    return code;
}

/* What goes in: ids as they are, a text, or what the chat template makes of a conversation. */
static int make_prompt(struct line *l) {
    struct generate_job *j = &l->job;
    int given = (j->prompt.bytes != NULL) + (l->messages != NULL) + (j->ids.ids != NULL);
    if (given != 1) return refuse("a line has either a prompt, messages or ids");
    if (j->ids.ids) return generate_job_detokenize(j);
    if (l->messages && l->args.system)
        return refuse("messages holds the whole conversation; leave --system out");
    if (l->messages)
        return prompt_wrap_list(&l->args, j->session, "messages", l->messages, &j->prompt, &j->ids);
    if (l->args.chat) return prompt_wrap(&l->args, j->session, &j->prompt, &j->ids);
    return generate_job_tokenize(j);
}

static int run_line(struct line *l, const char *text, size_t size) {
    struct generate_job *j = &l->job;
    int code = parse(l, text, size);
    if (code != EXIT_DONE) return code;
    code = make_prompt(l);
    if (code == EXIT_DONE) code = generation_read(&l->args, &j->generation);
    if (code == EXIT_DONE) code = generation_ask_model(&l->args, j->session, &j->generation, false);
    return code != EXIT_DONE ? code : generate_job_run(j);
}

static void print_error(const struct line *l, const char *why) {
    cJSON *o = cJSON_Duplicate(l->label, true);
    cJSON_AddItemToObject(o, "error", output_json_text(why, strlen(why)));
    output_json(o);
}

/* Prints a result, an error that is the line's own included. */
static int answer(const struct args *a, const struct session *s, size_t number, const char *text,
                  size_t size, const char **cache) {
    char why[sizeof(nibble_error)];
    struct line l = {.args = *a, .label = cJSON_CreateObject()};
    l.args.json = true;
    l.job = (struct generate_job){.args = &l.args, .session = s, .label = l.label, .cache = *cache};
    cJSON_AddNumberToObject(l.label, "line", (double)number);
    message_capture(why, sizeof why);
    int code = run_line(&l, text, size);
    message_capture(NULL, 0);
    if (code == EXIT_DONE) *cache = NULL;
    if (code != EXIT_DONE && !message_interrupted()) print_error(&l, why);
    generate_job_free(&l.job);
    cJSON_Delete(l.label);
    cJSON_Delete(l.json);
    return code;
}

/* --- the file --------------------------------------------------------------------------------- */

static bool from_stdin(const struct args *a) {
    return strcmp(a->batch_file, "-") == 0;
}

static int fail_read(const char *path, const char *what) {
    message("%s cannot be %s: %s", path, what, strerror(errno));
    return EXIT_FAILED;
}

/* The next line, without its end; false where there is none, or no whole one. */
static bool read_line(FILE *f, struct buffer *line) {
    int c = EOF;
    line->size = 0;
    while (!line->failed && line->size <= MOST_BYTES && (c = getc_unlocked(f)) != EOF &&
           c != '\n') {
        char byte = (char)c;
        buffer_add(line, &byte, 1);
    }
    return !ferror(f) && !line->failed && line->size <= MOST_BYTES && (c == '\n' || line->size);
}

static bool is_blank(const struct buffer *line) {
    return !line->size || strspn(line->bytes, " \t\r") == line->size;
}

/* Why no more lines were read, after printing it. */
static int end(const struct args *a, FILE *f, const struct buffer *line, size_t number,
               size_t failed) {
    const char *name = from_stdin(a) ? "stdin" : a->batch_file;
    if (message_interrupted()) return message_interrupted_exit();
    if (line->failed || line->size > MOST_BYTES) {
        message("%s: line %zu is larger than %d MiB or memory; give one object a line", name,
                number + 1, MOST_BYTES >> 20);
        return EXIT_FAILED;
    }
    if (!feof(f) && !output_failed()) return fail_read(name, "read");
    if (failed) {
        message("%s: an error is the result of %zu line%s", name, failed, failed == 1 ? "" : "s");
    }
    return failed ? EXIT_FAILED : EXIT_DONE;
}

int generate_batch(const struct args *a, const struct session *s, FILE *f) {
    struct buffer line = {0};
    const char *cache = a->prompt_cache; /* until a prompt has been computed: it is that one's */
    size_t number = 0, failed = 0;
    while (!message_interrupted() && !output_failed() && read_line(f, &line)) {
        number++;
        if (is_blank(&line)) continue;
        failed += answer(a, s, number, line.bytes, line.size, &cache) != EXIT_DONE;
    }
    int code = end(a, f, &line, number, failed);
    free(line.bytes);
    return code;
}

int generate_batch_open(const struct args *a, FILE **f) {
    *f = from_stdin(a) ? stdin : fopen(a->batch_file, "rb");
    if (!*f && message_interrupted()) return message_interrupted_exit();
    return *f ? EXIT_DONE : fail_read(a->batch_file, "opened");
}
