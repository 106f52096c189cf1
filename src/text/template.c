#include "text/template.h"

#include <string.h>

struct reader {
    struct template *template;
    const struct vocab *vocab;
    const struct json *in;
    bool found; /* a TemplateProcessing */
};

static bool add_id(struct reader *r, int id, bool before) {
    struct template *t = r->template;
    size_t *count = before ? &t->before_count : &t->after_count, size;
    if (!vocab_text(r->vocab, id, &size))
        return json_wrong(r->in, "a token of its template is not in the vocabulary");
    if (*count == TEMPLATE_MAX) return json_wrong(r->in, "its template has more than 8 tokens");
    (before ? t->before : t->after)[(*count)++] = id;
    return true;
}

/* A special token of a template may be several ids. */
static bool add_special(struct reader *r, const char *name, const cJSON *table, bool before) {
    const cJSON *id, *ids = json_find(name ? json_find(table, name) : NULL, "ids");
    if (!cJSON_IsArray(ids) || !ids->child)
        return json_wrong(r->in, "its template names a token without ids");
    cJSON_ArrayForEach(id, ids) {
        double v = cJSON_IsNumber(id) ? id->valuedouble : -1;
        if (!(v >= 0 && v < r->vocab->count) || v != (int)v)
            return json_wrong(r->in, "a token of its template is not in the vocabulary");
        if (!add_id(r, (int)v, before)) return false;
    }
    return true;
}

static bool read_template(struct reader *r, const cJSON *o) {
    const cJSON *each, *single = json_find(o, "single");
    bool before = true;
    if (!json_only(r->in, o, "type single pair special_tokens")) return false;
    if (!cJSON_IsArray(single)) return json_wrong(r->in, "its template has no list for one text");
    if (r->found) return json_refuse(r->in, "of two templates");
    r->found = true;
    cJSON_ArrayForEach(each, single) {
        const cJSON *special = json_find(each, "SpecialToken");
        const char *text = json_text(json_find(each, "Sequence"), "id");
        if (special &&
            !add_special(r, json_text(special, "id"), json_find(o, "special_tokens"), before))
            return false;
        if (special) continue;
        if (!text || strcmp(text, "A") != 0 || !before)
            return json_wrong(r->in, "its template for one text has another text");
        before = false;
    }
    return !before || json_wrong(r->in, "its template for one text has no text");
}

static bool read_component(struct reader *r, const cJSON *o) {
    const char *type = json_type(o);
    if (strcmp(type, "TemplateProcessing") == 0) return read_template(r, o);
    if (strcmp(type, "ByteLevel") == 0)
        return json_only(r->in, o, "type add_prefix_space trim_offsets use_regex");
    if (strcmp(type, "Sequence") != 0) return json_refuse(r->in, type);
    const cJSON *each, *list = json_find(o, "processors");
    if (!cJSON_IsArray(list)) return json_wrong(r->in, "a Sequence of it has no list");
    if (!json_only(r->in, o, "type processors")) return false;
    cJSON_ArrayForEach(each, list) {
        if (!read_component(r, each)) return false;
    }
    return true;
}

bool template_open(struct template *t, const cJSON *component, const struct vocab *vocab,
                   const struct json *in) {
    struct reader r = {t, vocab, in, false};
    *t = (struct template){0};
    return !component || read_component(&r, component);
}
