#include "text/decode.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "text/normalize.h"
#include "text/unicode.h"

enum { MAX_STEPS = 64, MAX_STRIP = 4096 };

enum kind { BYTE_LEVEL, REPLACE, BYTE_FALLBACK, STRIP, SPACE_BEFORE };

struct decode_step {
    enum kind kind;
    struct regex *pattern;
    char *content; /* that replaces; a character to strip */
    int left, right;
};

/* --- Opening ---------------------------------------------------------------------------------- */

static struct decode_step *add_step(struct decoder *d, enum kind kind, const struct json *in) {
    struct decode_step *grown = NULL;
    if (d->count == MAX_STEPS)
        json_wrong(in, "it has more than 64 steps");
    else if (d->fused || d->start != DECODE_ALL)
        json_refuse(in, "that goes on after Fuse, ByteLevel or Metaspace");
    else if (!(grown = realloc(d->steps, (d->count + 1) * sizeof *grown)))
        json_no_memory(in);
    if (!grown) return NULL;
    d->steps = grown;
    grown[d->count] = (struct decode_step){.kind = kind};
    return &grown[d->count++];
}

static bool set_content(struct decode_step *s, const char *content, const struct json *in) {
    if (!content) return json_wrong(in, "it lacks the text to put in");
    s->content = strdup(content);
    return s->content || json_no_memory(in);
}

static bool is_character(const char *text) {
    int32_t c;
    size_t size = text ? strlen(text) : 0;
    return size && unicode_next(text, size, &c) == size;
}

static bool add_byte_level(struct decoder *d, const cJSON *o, const struct json *in) {
    bool ok = json_only(in, o, "type add_prefix_space trim_offsets use_regex") &&
              add_step(d, BYTE_LEVEL, in);
    d->fused = true;
    return ok;
}

/* What it asks of the first token is asked of the piece, so nothing may have changed it. */
static bool add_metaspace(struct decoder *d, const cJSON *o, const struct json *in) {
    bool prefix = true;
    const char *character = json_text(o, "replacement"), *scheme = json_text(o, "prepend_scheme");
    if (!is_character(character))
        return json_wrong(in, "the replacement of its Metaspace is no single character");
    if (d->count) return json_refuse(in, "Metaspace behind others");
    struct decode_step *s = add_step(d, REPLACE, in);
    if (!s || !json_only(in, o, "type replacement str_rep add_prefix_space prepend_scheme split") ||
        !json_flag(in, o, "add_prefix_space", &prefix))
        return false;
    s->pattern = normalize_compile(character, true, in);
    if (!s->pattern || !set_content(s, " ", in)) return false;
    if (!prefix || (scheme && strcmp(scheme, "never") == 0)) return true;
    d->start = DECODE_DROP_EACH;
    memcpy(d->dropped, character, strlen(character) + 1);
    return true;
}

static bool add_replace(struct decoder *d, const cJSON *o, const struct json *in) {
    struct decode_step *s = add_step(d, REPLACE, in);
    if (!s || !json_only(in, o, "type pattern content")) return false;
    s->pattern = normalize_pattern(json_find(o, "pattern"), in);
    return s->pattern && set_content(s, json_text(o, "content"), in);
}

/* Before Metaspace's rule for the first token it makes no difference: no byte is written so. */
static bool add_byte_fallback(struct decoder *d, const cJSON *o, const struct json *in) {
    enum decode_start start = d->start;
    d->start = DECODE_ALL;
    bool ok = json_only(in, o, "type") && add_step(d, BYTE_FALLBACK, in);
    d->start = start;
    d->bytes = true;
    return ok;
}

static bool add_fuse(struct decoder *d, const cJSON *o, const struct json *in) {
    d->fused = true;
    return json_only(in, o, "type");
}

/* Of the whole text only one character at its beginning can be held back. */
static bool add_strip(struct decoder *d, const cJSON *o, const struct json *in) {
    int left = 0, right = 0;
    const char *character = json_text(o, "content");
    if (!json_only(in, o, "type content start stop") ||
        !json_integer(in, o, "start", MAX_STRIP, &left) ||
        !json_integer(in, o, "stop", MAX_STRIP, &right))
        return false;
    if (!is_character(character)) return json_wrong(in, "its Strip names no single character");
    if (!d->fused && d->bytes) return json_refuse(in, "Strip behind ByteFallback without Fuse");
    if (!d->fused) {
        struct decode_step *s = add_step(d, STRIP, in);
        if (s) s->left = left;
        if (s) s->right = right;
        return s && set_content(s, character, in);
    }
    if (right || left > 1 || (left && d->start != DECODE_ALL))
        return json_refuse(in, "Strip of anything but one character at the start");
    if (!left) return true;
    d->start = DECODE_DROP_ONE;
    memcpy(d->dropped, character, strlen(character) + 1);
    return true;
}

static bool add_component(struct decoder *d, const cJSON *o, const struct json *in);

static bool add_sequence(struct decoder *d, const cJSON *o, const struct json *in) {
    const cJSON *each, *list = json_find(o, "decoders");
    if (!cJSON_IsArray(list)) return json_wrong(in, "a Sequence of it has no list");
    if (!json_only(in, o, "type decoders")) return false;
    cJSON_ArrayForEach(each, list) {
        if (!add_component(d, each, in)) return false;
    }
    return true;
}

static bool add_component(struct decoder *d, const cJSON *o, const struct json *in) {
    static const struct {
        const char *type;
        bool (*add)(struct decoder *, const cJSON *, const struct json *);
    } types[] = {
        {"Sequence", add_sequence},   {"ByteLevel", add_byte_level},
        {"Metaspace", add_metaspace}, {"Replace", add_replace},
        {"Fuse", add_fuse},           {"ByteFallback", add_byte_fallback},
        {"Strip", add_strip},
    };
    for (size_t k = 0; k < sizeof types / sizeof *types; k++) {
        if (strcmp(types[k].type, json_type(o)) == 0) return types[k].add(d, o, in);
    }
    return json_refuse(in, json_type(o));
}

bool decode_open(struct decoder *d, const cJSON *component, const struct json *in) {
    *d = (struct decoder){0};
    if (component) return add_component(d, component, in);
    bool ok = add_step(d, SPACE_BEFORE, in);
    d->start = DECODE_DROP_ONE;
    d->dropped[0] = ' ';
    return ok;
}

bool decode_open_bytes(struct decoder *d, const struct json *in) {
    *d = (struct decoder){0};
    return add_step(d, BYTE_LEVEL, in) != NULL;
}

void decode_close(struct decoder *d) {
    for (size_t i = 0; i < d->count; i++) {
        regex_close(d->steps[i].pattern);
        free(d->steps[i].content);
    }
    free(d->steps);
    *d = (struct decoder){0};
}

/* --- A piece ---------------------------------------------------------------------------------- */

/* <0x41> */
static bool add_byte(const char *text, size_t size, struct bytes *out) {
    if (size != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>') return false;
    if (!isxdigit((unsigned char)text[3]) || !isxdigit((unsigned char)text[4])) return false;
    char digits[3] = {text[3], text[4], 0}, byte = (char)strtoul(digits, NULL, 16);
    bytes_add(out, &byte, 1);
    return true;
}

static void strip(const struct decode_step *s, const struct bytes *text, struct bytes *out) {
    size_t size = strlen(s->content), from = 0, to = text->size;
    for (int i = 0; i < s->left && to - from >= size; i++, from += size) {
        if (memcmp(text->data + from, s->content, size) != 0) break;
    }
    for (int i = 0; i < s->right && to - from >= size; i++, to -= size) {
        if (memcmp(text->data + to - size, s->content, size) != 0) break;
    }
    bytes_add(out, text->data + from, to - from);
}

static bool run_step(const struct decode_step *s, const struct bytes *text, struct bytes *out,
                     struct error *e) {
    bool done = false;
    switch (s->kind) {
    case BYTE_LEVEL: done = unicode_from_alphabet(out, text->data, text->size); break;
    case BYTE_FALLBACK: done = add_byte(text->data, text->size, out); break;
    case SPACE_BEFORE: bytes_add(out, " ", 1); break;
    case REPLACE: return normalize_replace(s->pattern, s->content, text->data, text->size, out, e);
    case STRIP: strip(s, text, out); return true;
    }
    if (!done) bytes_add(out, text->data, text->size);
    return true;
}

bool decode_piece(const struct decoder *d, const char *piece, size_t size, struct bytes *text,
                  struct bytes *spare, struct error *e) {
    bytes_clear(text);
    bytes_add(text, piece, size);
    for (size_t i = 0; i < d->count; i++) {
        if (!text->size && d->steps[i].kind != SPACE_BEFORE) continue;
        bytes_clear(spare);
        if (!run_step(&d->steps[i], text, spare, e)) return false;
        bytes_swap(text, spare);
        if (text->failed || spare->failed) break;
    }
    return !text->failed || fail(e, STATUS_MEMORY, "not enough memory for a piece");
}
