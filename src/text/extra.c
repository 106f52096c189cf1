#include "text/extra.h"

#include <stdlib.h>
#include <string.h>

#include "text/json.h"
#include "text/vocab.h"

static bool is_known(const struct extra *x, const struct added_token *token) {
    for (size_t i = 0; i < x->count; i++) {
        const struct added_token *t = &x->list[i];
        if (t->id == token->id) return true;
        if (t->size == token->size && memcmp(t->text, token->text, t->size) == 0) return true;
    }
    return false;
}

static bool add(struct extra *x, struct added_token token, int limit, const struct json *in) {
    token.size = strlen(token.text);
    if (token.size > VOCAB_MAX_PIECE) return json_wrong(in, "one is longer than 4096 bytes");
    if (!token.size || (limit && token.id >= limit) || is_known(x, &token)) return true;
    if (x->count == x->room) {
        size_t room = x->room ? 2 * x->room : 16;
        struct added_token *grown = realloc(x->list, room * sizeof *grown);
        if (!grown) return json_no_memory(in);
        x->list = grown;
        x->room = room;
    }
    token.text = strdup(token.text);
    if (!token.text) return json_no_memory(in);
    x->list[x->count++] = token;
    return true;
}

/* {"content": ..., "special": ...}; *id stays if there is none. */
static bool read_token(const struct json *in, const cJSON *o, struct added_token *t) {
    t->text = json_text(o, "content");
    if (!t->text) return json_wrong(in, "one of them has no content");
    return json_integer(in, o, "id", VOCAB_MAX_PIECES - 1, &t->id) &&
           json_flag(in, o, "special", &t->special) && json_flag(in, o, "lstrip", &t->lstrip) &&
           json_flag(in, o, "rstrip", &t->rstrip) &&
           json_flag(in, o, "single_word", &t->single_word);
}

static bool read_id(const struct json *in, const char *name, int *id) {
    char *end;
    long value = name && *name >= '0' && *name <= '9' ? strtol(name, &end, 10) : -1;
    if (value < 0 || value >= VOCAB_MAX_PIECES || *end)
        return json_wrong(in, "one has an id that is no whole number from 0 to 4194303");
    *id = (int)value;
    return true;
}

static bool read_decoder(struct extra *x, const cJSON *o, int limit, const struct json *in) {
    const cJSON *each;
    if (!o) return true;
    if (!cJSON_IsObject(o)) return json_wrong(in, "they are no object");
    cJSON_ArrayForEach(each, o) {
        struct added_token t = {0};
        if (!read_id(in, each->string, &t.id) || !read_token(in, each, &t) || !add(x, t, limit, in))
            return false;
    }
    return true;
}

static bool read_ids(struct extra *x, const cJSON *o, int limit, const struct json *in) {
    const cJSON *each;
    cJSON_ArrayForEach(each, o) {
        struct added_token t = {.text = each->string ? each->string : "", .id = -1};
        double v = cJSON_IsNumber(each) ? each->valuedouble : -1;
        if (!(v >= 0 && v < VOCAB_MAX_PIECES) || v != (int)v)
            return json_wrong(in, "one has an id that is no whole number from 0 to 4194303");
        t.id = (int)v;
        if (!add(x, t, limit, in)) return false;
    }
    return true;
}

static bool read_list(struct extra *x, const cJSON *list, int limit, const struct json *in) {
    const cJSON *each;
    if (!list) return true;
    if (!cJSON_IsArray(list)) return json_wrong(in, "they are no list");
    cJSON_ArrayForEach(each, list) {
        struct added_token t = {.id = -1};
        if (!read_token(in, each, &t)) return false;
        if (t.id < 0) return json_wrong(in, "one of them has no id");
        if (!add(x, t, limit, in)) return false;
    }
    return true;
}

bool extra_read(struct extra *x, const struct extra_source *source, int limit, struct error *e) {
    const struct json in = {source->where, "list of added tokens", e};
    cJSON *root = json_parse(source->file, json_sizes, source->where, e);
    bool ok = false;
    if (!root) return false;
    switch (source->form) {
    case EXTRA_DECODER:
        ok = read_decoder(x, json_find(root, "added_tokens_decoder"), limit, &in);
        break;
    case EXTRA_IDS: ok = read_ids(x, root, limit, &in); break;
    case EXTRA_LIST: ok = read_list(x, json_find(root, "added_tokens"), limit, &in); break;
    }
    cJSON_Delete(root);
    return ok;
}

void extra_close(struct extra *x) {
    for (size_t i = 0; i < x->count; i++) free((char *)x->list[i].text);
    free(x->list);
    *x = (struct extra){0};
}
