#include "text/normalize.h"

#include <stdlib.h>
#include <string.h>

#include "text/unicode.h"

enum { MAX_STEPS = 64 };

enum kind { FORM, LOWERCASE, STRIP_ACCENTS, STRIP, PREPEND, REPLACE, BYTE_LEVEL };

struct normalize_step {
    enum kind kind;
    enum unicode_form form;
    char *text; /* to prepend, or what replaces */
    struct regex *pattern;
    bool left, right; /* ends to strip */
};

/* --- Opening ---------------------------------------------------------------------------------- */

struct regex *normalize_compile(const char *pattern, bool literal, const struct json *in) {
    char why[320];
    struct regex *r = regex_open(pattern, literal, why, sizeof why);
    if (!r && !*why) json_no_memory(in);
    if (!r && *why)
        fail(in->e, STATUS_MODEL, "%s: the pattern %.200s of the %s %s", in->where, pattern,
             in->part, why);
    return r;
}

struct regex *normalize_pattern(const cJSON *pattern, const struct json *in) {
    const char *literal = json_text(pattern, "String"), *regex = json_text(pattern, "Regex");
    if (!literal == !regex || !*(literal ? literal : regex)) {
        json_wrong(in, "its pattern is neither a String nor a Regex");
        return NULL;
    }
    return normalize_compile(literal ? literal : regex, literal != NULL, in);
}

static const struct {
    const char *type;
    enum kind kind;
    enum unicode_form form;
    const char *members;
} types[] = {
    {"NFC", FORM, UNICODE_NFC, "type"},
    {"NFD", FORM, UNICODE_NFD, "type"},
    {"NFKC", FORM, UNICODE_NFKC, "type"},
    {"NFKD", FORM, UNICODE_NFKD, "type"},
    {"Lowercase", LOWERCASE, 0, "type"},
    {"StripAccents", STRIP_ACCENTS, 0, "type"},
    {"Strip", STRIP, 0, "type strip_left strip_right"},
    {"Prepend", PREPEND, 0, "type prepend"},
    {"Replace", REPLACE, 0, "type pattern content"},
    {"ByteLevel", BYTE_LEVEL, 0, "type"},
};

static bool read_step(struct normalize_step *s, const cJSON *o, const struct json *in) {
    const char *text = NULL;
    s->left = s->right = true;
    if (s->kind == STRIP &&
        !(json_flag(in, o, "strip_left", &s->left) && json_flag(in, o, "strip_right", &s->right)))
        return false;
    if (s->kind == PREPEND || s->kind == REPLACE) {
        text = json_text(o, s->kind == PREPEND ? "prepend" : "content");
        if (!text) return json_wrong(in, "it lacks the text to put in");
        s->text = strdup(text);
        if (!s->text) return json_no_memory(in);
    }
    if (s->kind == REPLACE) s->pattern = normalize_pattern(json_find(o, "pattern"), in);
    return s->kind != REPLACE || s->pattern;
}

static bool add_step(struct normalizer *n, const cJSON *o, const struct json *in) {
    size_t k = 0, kinds = sizeof types / sizeof *types;
    while (k < kinds && strcmp(types[k].type, json_type(o)) != 0) k++;
    if (k == kinds) return json_refuse(in, json_type(o));
    if (n->count == MAX_STEPS) return json_wrong(in, "it has more than 64 steps");
    if (!json_only(in, o, types[k].members)) return false;
    struct normalize_step *grown = realloc(n->steps, (n->count + 1) * sizeof *grown);
    if (!grown) return json_no_memory(in);
    n->steps = grown;
    grown[n->count] = (struct normalize_step){.kind = types[k].kind, .form = types[k].form};
    return read_step(&grown[n->count++], o, in);
}

static bool add_component(struct normalizer *n, const cJSON *o, const struct json *in) {
    const cJSON *each, *list = json_find(o, "normalizers");
    if (strcmp(json_type(o), "Sequence") != 0) return add_step(n, o, in);
    if (!cJSON_IsArray(list)) return json_wrong(in, "a Sequence of it has no list");
    if (!json_only(in, o, "type normalizers")) return false;
    cJSON_ArrayForEach(each, list) {
        if (!add_component(n, each, in)) return false;
    }
    return true;
}

bool normalize_open(struct normalizer *n, const cJSON *component, const struct json *in) {
    *n = (struct normalizer){0};
    return !component || add_component(n, component, in);
}

void normalize_close(struct normalizer *n) {
    for (size_t i = 0; i < n->count; i++) {
        free(n->steps[i].text);
        regex_close(n->steps[i].pattern);
    }
    free(n->steps);
    *n = (struct normalizer){0};
}

/* --- Running ---------------------------------------------------------------------------------- */

bool normalize_replace(const struct regex *r, const char *content, const char *text, size_t size,
                       struct bytes *out, struct error *e) {
    struct regex_search s;
    size_t from = 0, start = 0, end = 0;
    bool found = true, ok;
    if (!regex_search_open(&s, r, e)) return false;
    regex_search_text(&s, text, size);
    while ((ok = regex_search_next(&s, &start, &end, &found, e)) && found) {
        bytes_add(out, text + from, start - from);
        bytes_add(out, content, strlen(content));
        from = end;
    }
    bytes_add(out, text + from, size - from);
    regex_search_close(&s);
    return ok;
}

static void strip(const struct normalize_step *s, const struct bytes *text, struct bytes *out) {
    size_t from = 0, to = text->size;
    int32_t c;
    while (s->left && from < to) {
        size_t length = unicode_next(text->data + from, to - from, &c);
        if (!unicode_is_space(c)) break;
        from += length;
    }
    while (s->right && to > from) {
        size_t length = unicode_last(text->data + from, to - from, &c);
        if (!unicode_is_space(c)) break;
        to -= length;
    }
    if (text->size) bytes_add(out, text->data + from, to - from);
}

static void strip_accents(const struct bytes *text, struct bytes *out) {
    for (size_t at = 0, length; at < text->size; at += length) {
        int32_t c;
        length = unicode_next(text->data + at, text->size - at, &c);
        if (!unicode_is_mark(c)) bytes_add(out, text->data + at, length);
    }
}

static bool run_step(const struct normalize_step *s, const struct bytes *text, struct bytes *out,
                     struct error *e) {
    switch (s->kind) {
    case FORM: out->failed |= !unicode_normalize(out, text->data, text->size, s->form); break;
    case LOWERCASE: unicode_lower(out, text->data, text->size); break;
    case STRIP_ACCENTS: strip_accents(text, out); break;
    case STRIP: strip(s, text, out); break;
    case PREPEND:
        bytes_add(out, s->text, strlen(s->text)); /* an empty text stays so, see below */
        bytes_add(out, text->data, text->size);
        break;
    case REPLACE: return normalize_replace(s->pattern, s->text, text->data, text->size, out, e);
    case BYTE_LEVEL: unicode_to_alphabet(out, text->data, text->size); break;
    }
    return true;
}

bool normalize_run(const struct normalizer *n, struct bytes *text, struct bytes *spare,
                   struct error *e) {
    for (size_t i = 0; i < n->count && text->size; i++) {
        bytes_clear(spare);
        if (!run_step(&n->steps[i], text, spare, e)) return false;
        if (spare->failed)
            return fail(e, STATUS_MEMORY, "not enough memory to normalize %zu bytes", text->size);
        bytes_swap(text, spare);
    }
    return true;
}
