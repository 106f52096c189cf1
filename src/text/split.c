#include "text/split.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "text/normalize.h"
#include "text/regex.h"
#include "text/unicode.h"

enum { MAX_STEPS = 64 };

/* What becomes of a match (SplitDelimiterBehavior of Hugging Face tokenizers). */
enum behavior { ISOLATED, REMOVED, MERGED_WITH_PREVIOUS, MERGED_WITH_NEXT, CONTIGUOUS };

enum kind { CUT, PREFIX_SPACE, ALPHABET, METASPACE };
enum scheme { ALWAYS, FIRST, NEVER };

struct split_step {
    enum kind kind;
    struct regex *pattern; /* of CUT: this, or each character that passes the test */
    unicode_test *test;
    enum behavior behavior;
    bool invert;         /* what lies between matches is taken for the match */
    char replacement[5]; /* of METASPACE: for every space */
    enum scheme scheme;  /* which texts begin with one */
};

/* --- Opening ---------------------------------------------------------------------------------- */

static bool choose(const struct json *in, const cJSON *o, const char *name,
                   const char *const *words, int *value) {
    const char *word = json_text(o, name);
    int k = 0;
    if (!word) return true;
    while (words[k] && strcmp(words[k], word) != 0) k++;
    if (words[k]) *value = k;
    return words[k] || json_refuse(in, word);
}

static bool read_behavior(const struct json *in, const cJSON *o, struct split_step *s) {
    static const char *const words[] = {"Isolated",       "Removed",    "MergedWithPrevious",
                                        "MergedWithNext", "Contiguous", NULL};
    int behavior = (int)s->behavior;
    bool ok = choose(in, o, "behavior", words, &behavior);
    s->behavior = (enum behavior)behavior;
    return ok;
}

static struct split_step *add_step(struct splitter *s, enum kind kind, const struct json *in) {
    if (s->count == MAX_STEPS) {
        json_wrong(in, "it has more than 64 steps");
        return NULL;
    }
    struct split_step *grown = realloc(s->steps, (s->count + 1) * sizeof *grown);
    if (!grown) {
        json_no_memory(in);
        return NULL;
    }
    s->steps = grown;
    grown[s->count] = (struct split_step){.kind = kind};
    return &grown[s->count++];
}

static bool add_pattern(struct splitter *s, const char *pattern, bool literal,
                        enum behavior behavior, const struct json *in) {
    struct split_step *step = add_step(s, CUT, in);
    if (!step) return false;
    step->behavior = behavior;
    step->pattern = normalize_compile(pattern, literal, in);
    return step->pattern != NULL;
}

static bool add_split(struct splitter *s, const cJSON *o, const struct json *in) {
    struct split_step *step = add_step(s, CUT, in);
    if (!step || !json_only(in, o, "type pattern behavior invert") || !read_behavior(in, o, step) ||
        !json_flag(in, o, "invert", &step->invert))
        return false;
    step->pattern = normalize_pattern(json_find(o, "pattern"), in);
    return step->pattern != NULL;
}

/* The pattern of GPT-2's encoder.py. */
static const char byte_level[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|"
    "\\s+(?!\\S)|\\s+";

static bool add_byte_level(struct splitter *s, const cJSON *o, const struct json *in) {
    bool prefix = true, regex = true;
    return json_only(in, o, "type add_prefix_space trim_offsets use_regex") &&
           json_flag(in, o, "add_prefix_space", &prefix) && json_flag(in, o, "use_regex", &regex) &&
           (!prefix || add_step(s, PREFIX_SPACE, in)) &&
           (!regex || add_pattern(s, byte_level, false, ISOLATED, in)) && add_step(s, ALPHABET, in);
}

static bool add_digits(struct splitter *s, const cJSON *o, const struct json *in) {
    bool each = false;
    struct split_step *step = add_step(s, CUT, in);
    if (!step || !json_only(in, o, "type individual_digits") ||
        !json_flag(in, o, "individual_digits", &each))
        return false;
    step->test = unicode_is_number;
    step->behavior = each ? ISOLATED : CONTIGUOUS;
    return true;
}

static bool add_punctuation(struct splitter *s, const cJSON *o, const struct json *in) {
    struct split_step *step = add_step(s, CUT, in);
    if (step) step->test = unicode_is_punctuation;
    return step && json_only(in, o, "type behavior") && read_behavior(in, o, step);
}

static bool add_whitespace_split(struct splitter *s, const cJSON *o, const struct json *in) {
    struct split_step *step = add_step(s, CUT, in);
    if (!step || !json_only(in, o, "type")) return false;
    step->test = unicode_is_space;
    step->behavior = REMOVED;
    return true;
}

/* Words and what is neither words nor spaces. */
static bool add_whitespace(struct splitter *s, const cJSON *o, const struct json *in) {
    if (!json_only(in, o, "type")) return false;
    if (!add_pattern(s, "\\w+|[^\\w\\s]+", false, REMOVED, in)) return false;
    s->steps[s->count - 1].invert = true;
    return true;
}

static bool add_metaspace(struct splitter *s, const cJSON *o, const struct json *in) {
    static const char *const words[] = {"always", "first", "never", NULL};
    bool prefix = true, split = true;
    int scheme = ALWAYS;
    const char *replacement = json_text(o, "replacement");
    struct split_step *step = add_step(s, METASPACE, in);
    if (!step ||
        !json_only(in, o,
                   "type replacement str_rep add_prefix_space prepend_scheme "
                   "split") ||
        !json_flag(in, o, "add_prefix_space", &prefix) || !json_flag(in, o, "split", &split) ||
        !choose(in, o, "prepend_scheme", words, &scheme))
        return false;
    int32_t c;
    size_t size = replacement ? strlen(replacement) : 0;
    if (!size || unicode_next(replacement, size, &c) != size)
        return json_wrong(in, "the replacement of its Metaspace is no single character");
    memcpy(step->replacement, replacement, size + 1);
    step->scheme = prefix ? (enum scheme)scheme : NEVER;
    return !split || add_pattern(s, replacement, true, MERGED_WITH_NEXT, in);
}

static bool add_component(struct splitter *s, const cJSON *o, const struct json *in);

static bool add_sequence(struct splitter *s, const cJSON *o, const struct json *in) {
    const cJSON *each, *list = json_find(o, "pretokenizers");
    if (!cJSON_IsArray(list)) return json_wrong(in, "a Sequence of it has no list");
    if (!json_only(in, o, "type pretokenizers")) return false;
    cJSON_ArrayForEach(each, list) {
        if (!add_component(s, each, in)) return false;
    }
    return true;
}

static bool add_component(struct splitter *s, const cJSON *o, const struct json *in) {
    static const struct {
        const char *type;
        bool (*add)(struct splitter *, const cJSON *, const struct json *);
    } types[] = {
        {"Sequence", add_sequence},       {"Split", add_split},
        {"ByteLevel", add_byte_level},    {"Digits", add_digits},
        {"Punctuation", add_punctuation}, {"WhitespaceSplit", add_whitespace_split},
        {"Metaspace", add_metaspace},     {"Whitespace", add_whitespace},
    };
    for (size_t k = 0; k < sizeof types / sizeof *types; k++) {
        if (strcmp(types[k].type, json_type(o)) == 0) return types[k].add(s, o, in);
    }
    return json_refuse(in, json_type(o));
}

bool split_open(struct splitter *s, const cJSON *component, const struct json *in) {
    *s = (struct splitter){0};
    return !component || add_component(s, component, in);
}

bool split_open_bytes(struct splitter *s, const char *regex, const struct json *in) {
    *s = (struct splitter){0};
    return add_pattern(s, regex, false, ISOLATED, in) && add_step(s, ALPHABET, in);
}

void split_close(struct splitter *s) {
    for (size_t i = 0; i < s->count; i++) regex_close(s->steps[i].pattern);
    free(s->steps);
    *s = (struct splitter){0};
}

/* --- Parts ------------------------------------------------------------------------------------ */

void split_parts_add(struct split_parts *p, size_t start, size_t size, bool first) {
    if (!size || p->failed) return;
    if (p->count == p->room) {
        size_t room = p->room ? 2 * p->room : 64;
        struct split_part *grown = realloc(p->list, room * sizeof *grown);
        p->failed = !grown;
        if (!grown) return;
        p->list = grown;
        p->room = room;
    }
    p->list[p->count++] = (struct split_part){start, size, first};
}

void split_parts_clear(struct split_parts *p) {
    bytes_clear(&p->text);
    p->count = 0;
    p->failed = false;
}

void split_parts_free(struct split_parts *p) {
    bytes_free(&p->text);
    free(p->list);
    *p = (struct split_parts){0};
}

/* --- Cutting ---------------------------------------------------------------------------------- */

/* One part on its way into parts: matches and what lies between come in order, and the last is held
 * while the next may join it. */
struct cut {
    struct split_parts *out;
    enum behavior behavior;
    bool invert;
    size_t base; /* where the part begins */
    bool first;
    size_t start, end; /* what is held */
    bool held, was_match;
};

static void release(struct cut *c) {
    if (c->held)
        split_parts_add(c->out, c->base + c->start, c->end - c->start, c->first && !c->start);
    c->held = false;
}

static void take(struct cut *c, size_t start, size_t end, bool match) {
    bool joins = false;
    match ^= c->invert;
    switch (c->behavior) {
    case ISOLATED:
    case REMOVED: break;
    case MERGED_WITH_PREVIOUS: joins = match && !c->was_match; break;
    case MERGED_WITH_NEXT: joins = !match && c->was_match; break;
    case CONTIGUOUS: joins = match == c->was_match; break;
    }
    c->was_match = match;
    if (joins && c->held) {
        c->end = end;
        return;
    }
    release(c);
    c->start = start;
    c->end = end;
    c->held = c->behavior != REMOVED || !match;
}

static void cut_by_test(struct cut *c, unicode_test *test, const char *text, size_t size) {
    size_t from = 0;
    for (size_t at = 0, length; at < size; at += length) {
        int32_t character;
        length = unicode_next(text + at, size - at, &character);
        if (!test(character)) continue;
        if (from < at) take(c, from, at, false);
        take(c, at, at + length, true);
        from = at + length;
    }
    if (from < size) take(c, from, size, false);
}

static bool cut_by_pattern(struct cut *c, struct regex_search *s, const char *text, size_t size,
                           struct error *e) {
    size_t from = 0, start = 0, end = 0;
    bool found, ok;
    regex_search_text(s, text, size);
    while ((ok = regex_search_next(s, &start, &end, &found, e)) && found) {
        if (from < start) take(c, from, start, false);
        take(c, start, end, true);
        from = end;
    }
    if (from < size) take(c, from, size, false);
    return ok;
}

static bool run_cut(const struct split_step *s, const struct split_parts *in,
                    struct split_parts *out, struct error *e) {
    struct regex_search search = {0};
    bool ok = true;
    if (s->pattern && !regex_search_open(&search, s->pattern, e)) return false;
    bytes_add(&out->text, in->text.data, in->text.size);
    for (size_t i = 0; ok && i < in->count; i++) {
        const struct split_part *p = &in->list[i];
        const char *text = in->text.data + p->start;
        struct cut c = {out, s->behavior, s->invert, p->start, p->first, 0, 0, false, false};
        if (s->pattern) ok = cut_by_pattern(&c, &search, text, p->size, e);
        if (!s->pattern) cut_by_test(&c, s->test, text, p->size);
        release(&c);
    }
    regex_search_close(&search);
    return ok;
}

/* --- Changing the text of parts --------------------------------------------------------------- */

static bool begins_with(const char *text, size_t size, const char *with) {
    size_t length = strlen(with);
    return size >= length && memcmp(text, with, length) == 0;
}

static void add_metaspaced(struct bytes *out, const struct split_step *s, const char *text,
                           size_t size, bool first) {
    size_t length = strlen(s->replacement);
    bool there = *text == ' ' || begins_with(text, size, s->replacement);
    if (!there && (s->scheme == ALWAYS || (s->scheme == FIRST && first)))
        bytes_add(out, s->replacement, length);
    for (size_t at = 0; at < size;) {
        const char *space = memchr(text + at, ' ', size - at);
        size_t end = space ? (size_t)(space - text) : size;
        bytes_add(out, text + at, end - at);
        if (space) bytes_add(out, s->replacement, length);
        at = end + (space != NULL);
    }
}

static void run_change(const struct split_step *s, const struct split_parts *in,
                       struct split_parts *out) {
    for (size_t i = 0; i < in->count; i++) {
        const struct split_part *p = &in->list[i];
        const char *text = in->text.data + p->start;
        size_t before = out->text.size;
        if (s->kind == PREFIX_SPACE && *text != ' ') bytes_add(&out->text, " ", 1);
        if (s->kind == PREFIX_SPACE) bytes_add(&out->text, text, p->size);
        if (s->kind == ALPHABET) unicode_to_alphabet(&out->text, text, p->size);
        if (s->kind == METASPACE) add_metaspaced(&out->text, s, text, p->size, p->first);
        split_parts_add(out, before, out->text.size - before, p->first);
    }
}

bool split_run(const struct splitter *s, struct split_parts *parts, struct split_parts *spare,
               struct error *e) {
    for (size_t i = 0; i < s->count; i++) {
        const struct split_step *step = &s->steps[i];
        split_parts_clear(spare);
        if (step->kind != CUT) run_change(step, parts, spare);
        if (step->kind == CUT && !run_cut(step, parts, spare, e)) return false;
        if (spare->failed || spare->text.failed)
            return fail(e, STATUS_MEMORY, "not enough memory to split %zu bytes", parts->text.size);
        struct split_parts kept = *parts;
        *parts = *spare;
        *spare = kept;
    }
    return true;
}
