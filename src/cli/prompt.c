#include "cli/prompt.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

#include "cli/message.h"
#include "cli/output.h"

#define AT(member) offsetof(struct args, member)

const struct option prompt_options[] = {
    {"--chat", OPTION_FLAG, AT(chat),
     .help = "the prompt is a message: put the chat template around it"},
    {"--system", OPTION_TEXT, AT(system), .value = "TEXT",
     .help = "with --chat: the system message"},
    {"--messages", OPTION_TEXT, AT(messages), .value = "FILE",
     .help = "a conversation instead of a prompt: [{\"role\": ..., \"content\": ...}, ...]"},
    {"--template", OPTION_TEXT, AT(template), .value = "TEMPLATE",
     .help = "a built-in chat template (default: the model's own)"},
    {"--show-prompt", OPTION_FLAG, AT(show_prompt),
     .help = "print the text that goes in, and on the last line its ids; generate nothing"},
    {0}};

bool prompt_is_chat(const struct args *a) {
    return a->chat || a->messages;
}

static int refuse(const char *why) {
    message("%s", why);
    return EXIT_USAGE;
}

int prompt_check(const struct args *a) {
    if (!prompt_is_chat(a) && (a->system || a->template))
        return refuse("--system and --template belong to --chat or --messages; give one of them "
                      "too");
    if (!prompt_is_chat(a)) return EXIT_DONE;
    if (a->chat && a->messages) return refuse("--chat and --messages are both given; choose one");
    if (a->ids) return refuse("--ids goes in as it is; leave --chat and --messages out");
    if (a->special)
        return refuse("--special: control tokens of a conversation are those of its template; "
                      "leave it out");
    if (a->messages && (a->prompt || a->file || a->system))
        return refuse("--messages holds the whole conversation; leave -p, -f and --system out");
    return EXIT_DONE;
}

int prompt_check_size(const struct args *a, const struct session *s,
                      const struct input_text *text) {
    return a->show_prompt ? EXIT_DONE : input_check_size(a, s->model, text->size);
}

/* --- text and ids ------------------------------------------------------------------------------
 */

/* BOS is the template's business, but somebody may know better. */
static int change_bos(const struct args *a, int bos, nibble_ids *ids) {
    bool there = ids->count && ids->ids[0] == bos;
    if (a->bos && a->no_bos) return refuse("--bos and --no-bos are both given; choose one");
    if (a->no_bos && there) memmove(ids->ids, ids->ids + 1, --ids->count * sizeof *ids->ids);
    if (!a->bos || there || bos < 0) return EXIT_DONE;
    int *more = realloc(ids->ids, (ids->count + 1) * sizeof *more);
    if (!more) {
        message("not enough memory for the tokens");
        return EXIT_FAILED;
    }
    memmove(more + 1, more, ids->count++ * sizeof *more);
    more[0] = bos;
    ids->ids = more;
    return EXIT_DONE;
}

/* The template around messages; *text and *ids are new. */
static int encode(const struct args *a, const struct session *s, const nibble_message *messages,
                  size_t count, struct input_text *text, nibble_ids *ids) {
    nibble_error e;
    nibble_model_info info;
    if (!s->tokenizer) {
        message("%s has no tokenizer, and so no conversation can be had with it", a->words[0]);
        return EXIT_FAILED;
    }
    const nibble_template *c = nibble_template_choose(s->model, a->template, &e);
    if (!c) return message_error(&e);
    if (!nibble_chat_text(s->tokenizer, c, messages, count, true, &text->bytes, &text->size, &e))
        return message_error(&e);
    int code = prompt_check_size(a, s, text);
    if (code != EXIT_DONE) return code;
    if (!nibble_chat_encode(s->tokenizer, c, messages, count, true, ids, &e))
        return message_error(&e);
    nibble_model_describe(s->model, &info);
    return change_bos(a, info.bos, ids);
}

/* --- the messages ------------------------------------------------------------------------------
 */

int prompt_wrap(const struct args *a, const struct session *s, struct input_text *text,
                nibble_ids *ids) {
    struct input_text said = *text;
    nibble_message messages[2];
    size_t count = 0;
    *text = (struct input_text){0};
    if (a->system) messages[count++] = (nibble_message){"system", a->system, strlen(a->system)};
    messages[count++] = (nibble_message){"user", said.bytes, said.size};
    int code = encode(a, s, messages, count, text, ids);
    free(said.bytes);
    return code;
}

static int fail_list(const char *where, const char *why) {
    message("%s: %s; a list of objects such as {\"role\": \"user\", \"content\": \"Hello\"} is "
            "expected",
            where, why);
    return EXIT_FAILED;
}

static bool read_message(const cJSON *o, nibble_message *m) {
    m->role = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(o, "role"));
    m->text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(o, "content"));
    if (m->text) m->size = strlen(m->text);
    return m->role && m->text;
}

int prompt_wrap_list(const struct args *a, const struct session *s, const char *where,
                     const cJSON *list, struct input_text *text, nibble_ids *ids) {
    if (!cJSON_IsArray(list)) return fail_list(where, "it is no list in JSON");
    size_t count = 0;
    nibble_message *messages = calloc((size_t)cJSON_GetArraySize(list) + 1, sizeof *messages);
    if (!messages) return fail_list(where, "there is not enough memory for it");
    int code = EXIT_DONE;
    const cJSON *each;
    cJSON_ArrayForEach(each, list) {
        if (code == EXIT_DONE && !read_message(each, &messages[count++]))
            code = fail_list(where, "a message has no role or no content as text");
    }
    if (code == EXIT_DONE) code = encode(a, s, messages, count, text, ids);
    free(messages);
    return code;
}

/* --- the options -------------------------------------------------------------------------------
 */

static int read_list(const struct args *a, const struct session *s, struct input_text *text,
                     nibble_ids *ids) {
    struct args from = {.file = a->messages};
    struct input_text file = {0};
    int code = input_read(&from, false, &file);
    if (code != EXIT_DONE) return code;
    bool nul = input_json_nul(file.bytes, file.size);
    cJSON *list = nul ? NULL : cJSON_ParseWithLength(file.bytes, file.size);
    code = nul ? fail_list(a->messages, "it holds a NUL")
               : prompt_wrap_list(a, s, a->messages, list, text, ids);
    cJSON_Delete(list);
    free(file.bytes);
    return code;
}

/* A template that takes no system message may pass one over in silence. */
static void tell_system(const struct args *a, const struct session *s) {
    nibble_error e;
    const nibble_template *c = a->system ? nibble_template_choose(s->model, a->template, &e) : NULL;
    if (c && !nibble_template_has_system(c))
        message("note: the chat template %s takes no notice of a system message",
                nibble_template_name(c));
}

int prompt_read(const struct args *a, const struct session *s, struct input_text *text,
                nibble_ids *ids) {
    if (a->messages) return read_list(a, s, text, ids);
    int code = input_read(a, true, text);
    if (code == EXIT_DONE) code = prompt_wrap(a, s, text, ids);
    if (code == EXIT_DONE) tell_system(a, s);
    return code;
}

int prompt_try(const struct args *a, const struct session *s) {
    struct input_text text = {0};
    nibble_ids ids = {0};
    int code = a->chat ? prompt_wrap(a, s, &text, &ids) : EXIT_DONE;
    if (code == EXIT_DONE) tell_system(a, s);
    free(text.bytes);
    nibble_free(ids.ids);
    return code;
}

int prompt_end(const struct args *a, const struct session *s) {
    const nibble_template *c = a->template ? nibble_template_named(a->template) : NULL;
    return c && s->tokenizer ? nibble_chat_end(s->tokenizer, c) : -1;
}

/* --- showing it --------------------------------------------------------------------------------
 */

static int show(const struct args *a, const char *text, size_t size, const nibble_ids *ids) {
    if (a->json || a->jsonl) {
        cJSON *o = cJSON_CreateObject();
        cJSON_AddItemToObject(o, "text", text ? output_json_text(text, size) : cJSON_CreateNull());
        cJSON_AddItemToObject(o, "ids", cJSON_CreateIntArray(ids->ids, (int)ids->count));
        output_json(o);
        return EXIT_DONE;
    }
    if (size) output_write(text, size);
    output_write("\n", 1);
    for (size_t i = 0; i < ids->count; i++) output_print("%s%d", i ? " " : "", ids->ids[i]);
    output_write("\n", 1);
    return EXIT_DONE;
}

int prompt_show(const struct args *a, const struct session *s, const struct input_text *text,
                const nibble_ids *ids) {
    nibble_error e;
    char *made;
    size_t size;
    if (text->bytes || !s->tokenizer) return show(a, text->bytes, text->size, ids);
    if (!nibble_detokenize(s->tokenizer, ids->ids, ids->count, &made, &size, &e))
        return message_error(&e);
    int code = show(a, made, size, ids);
    nibble_free(made);
    return code;
}
