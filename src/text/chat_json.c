/* text/chat.h: the stored form. */
#include <string.h>

#include "text/chat.h"
#include "text/json.h"

enum { MAX_TEXT = 1 << 16, MAX_MARK = 256, MAX_MARKS = 1024 };

static const char *const text_names[CHAT_TEXTS] = {
    [CHAT_START_SYSTEM] = "start_system",
    [CHAT_SYSTEM_USER] = "system_user",
    [CHAT_START_USER] = "start_user",
    [CHAT_USER_ASSISTANT] = "user_assistant",
    [CHAT_USER_LAST_ASSISTANT] = "user_last_assistant",
    [CHAT_ASSISTANT_USER] = "assistant_user",
    [CHAT_USER_OPEN] = "user_open",
    [CHAT_USER_END] = "user_end",
    [CHAT_ASSISTANT_END] = "assistant_end",
};

static const char *const part_names[CHAT_PARTS] = {
    [CHAT_SYSTEM] = "system",
    [CHAT_FIRST_USER] = "first_user",
    [CHAT_USER] = "user",
    [CHAT_ASSISTANT] = "assistant",
    [CHAT_LAST_ASSISTANT] = "last_assistant",
    [CHAT_THOUGHT] = "thought",
};

static const struct {
    const char *name;
    unsigned char trim;
} trims[] = {
    {"left", CHAT_TRIM_LEFT},
    {"right", CHAT_TRIM_RIGHT},
    {"both", CHAT_TRIM_BOTH},
    {"left lines", CHAT_TRIM_LEFT | CHAT_TRIM_LINES},
    {"right lines", CHAT_TRIM_RIGHT | CHAT_TRIM_LINES},
    {"both lines", CHAT_TRIM_BOTH | CHAT_TRIM_LINES},
};
enum { TRIMS = sizeof trims / sizeof *trims };

static bool read_text(const struct json *in, const cJSON *o, const char *name, const char **text) {
    const cJSON *found = json_find(o, name);
    *text = cJSON_GetStringValue(found);
    if (found && !*text) return json_wrong(in, "a text of it is no string");
    if (!*text) return true;
    if (strlen(*text) > MAX_TEXT) return json_wrong(in, "a text of it has more than 65536 bytes");
    for (const char *p = *text; *p; p++) {
        if ((unsigned char)*p < ' ' && !strchr("\t\n\r", *p))
            return json_wrong(in, "a text of it holds a control character");
    }
    return true;
}

static bool is_required(const struct chat *c, int text) {
    switch (text) {
    case CHAT_START_USER:
    case CHAT_USER_ASSISTANT:
    case CHAT_ASSISTANT_USER:
    case CHAT_USER_OPEN: return true;
    case CHAT_SYSTEM_USER: return c->system_last || c->text[CHAT_START_SYSTEM];
    default: return false;
    }
}

static bool read_texts(const struct json *in, const cJSON *o, struct chat *c) {
    if (!cJSON_IsObject(o)) return json_wrong(in, "it has no texts");
    if (!json_only(in, o,
                   "start_system system_user start_user user_assistant user_last_assistant "
                   "assistant_user user_open user_end assistant_end"))
        return false;
    for (int i = 0; i < CHAT_TEXTS; i++) {
        if (!read_text(in, o, text_names[i], &c->text[i])) return false;
    }
    for (int i = 0; i < CHAT_TEXTS; i++) {
        if (!c->text[i] && is_required(c, i))
            return fail(in->e, STATUS_FORMAT,
                        "%s: the %s lacks the text %s; convert the model again", in->where,
                        in->part, text_names[i]);
    }
    return true;
}

static bool read_trim(const struct json *in, const cJSON *o, const char *name,
                      unsigned char *trim) {
    const cJSON *found = json_find(o, name);
    const char *word = cJSON_GetStringValue(found);
    if (!found) return true;
    for (int i = 0; word && i < TRIMS; i++) {
        if (strcmp(word, trims[i].name) != 0) continue;
        *trim = trims[i].trim;
        return true;
    }
    return json_refuse(in, word ? word : "of no kind");
}

static bool read_trims(const struct json *in, const cJSON *o, struct chat *c) {
    if (o && !cJSON_IsObject(o)) return json_wrong(in, "it is no object");
    if (!json_only(in, o, "system first_user user assistant last_assistant thought")) return false;
    for (int i = 0; i < CHAT_PARTS; i++) {
        if (!read_trim(in, o, part_names[i], &c->trim[i])) return false;
    }
    return true;
}

static bool read_marks(const struct json *in, const cJSON *list, struct chat *c) {
    const cJSON *each;
    c->marks = list;
    if (!list) return true;
    if (!cJSON_IsArray(list)) return json_wrong(in, "its marks are no list");
    if (cJSON_GetArraySize(list) > MAX_MARKS) return json_wrong(in, "it has over 1024 marks");
    cJSON_ArrayForEach(each, list) {
        const char *text = cJSON_GetStringValue(each);
        if (!text || strlen(text) > MAX_MARK)
            return json_wrong(in, "a mark of it is no string, or of more than 256 bytes");
    }
    return true;
}

static bool read_version(const struct json *in, const cJSON *root) {
    int version = 0;
    if (!json_integer(in, root, "nibble_chat", 1 << 20, &version)) return false;
    if (version == 1) return true;
    return fail(in->e, STATUS_MODEL,
                "%s: version %d of this form is not known; take a newer nibble, or convert the "
                "model again",
                in->where, version);
}

bool chat_json_open(struct chat *c, struct span file, const char *where, struct error *e) {
    const struct json in = {where, "chat template", e}, trim = {where, "trimming", e};
    cJSON *root = json_parse(file, json_sizes, where, e);
    *c = (struct chat){.name = "of the model", .owned = root};
    if (!root) return false;
    if (read_version(&in, root) &&
        json_only(&in, root,
                  "nibble_chat texts trim system_last system_ignored thought_end marks") &&
        json_flag(&in, root, "system_last", &c->system_last) &&
        json_flag(&in, root, "system_ignored", &c->system_ignored) &&
        read_text(&in, root, "thought_end", &c->thought_end) &&
        read_marks(&in, json_find(root, "marks"), c) &&
        read_texts(&in, json_find(root, "texts"), c) &&
        read_trims(&trim, json_find(root, "trim"), c))
        return true;
    chat_json_close(c);
    return false;
}

void chat_json_close(struct chat *c) {
    cJSON_Delete(c->owned);
    *c = (struct chat){0};
}
