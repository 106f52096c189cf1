#include "text/regex.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "text/bytes.h"
#include "text/unicode.h"

enum {
    MAX_PATTERN = 1 << 16, /* bytes; those in use take some hundreds */
    STEPS = 1 << 20,       /* of backtracking from one start, and more by the length of the text: */
    STEPS_PER_BYTE = 8,    /* a run of n spaces takes about 3 n */
    HEAP_KB = 256 << 10,   /* what backtracking may keep */
    MAX_NAME = 64,         /* of a property in \p{...} */
};

struct regex {
    pcre2_code *code; /* NULL for a literal */
    char *literal;
    size_t size;
};

/* --- Reading a pattern ------------------------------------------------------------------------ */

struct reader {
    const char *at;
    struct bytes out;
    const char *why;
    int depth; /* of sets of characters */
};

static pcre2_code *compile(const char *pattern, size_t size, int *code, size_t *offset) {
    pcre2_compile_context *limits = pcre2_compile_context_create(NULL);
    if (!limits) return NULL;
    pcre2_set_max_pattern_length(limits, MAX_PATTERN);
    pcre2_set_newline(limits, PCRE2_NEWLINE_LF);
    uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;
    pcre2_code *made = pcre2_compile((PCRE2_SPTR)pattern, size, options, code, offset, limits);
    pcre2_compile_context_free(limits);
    return made;
}

static bool is_script(const char *name, size_t size) {
    char pattern[MAX_NAME + 16];
    int code;
    size_t offset;
    int length = snprintf(pattern, sizeof pattern, "\\p{sc:%.*s}", (int)size, name);
    pcre2_code *made = compile(pattern, (size_t)length, &code, &offset);
    pcre2_code_free(made);
    return made != NULL;
}

/* \p{Name} at r->at: a script's name alone means all characters of its extensions to PCRE2. */
static void read_property(struct reader *r) {
    const char *name = r->at + 3 + (r->at[3] == '^'), *end = strchr(name, '}');
    size_t size = end ? (size_t)(end - name) : 0;
    bytes_add(&r->out, r->at, (size_t)(name - r->at));
    if (size > 2 && size <= MAX_NAME && is_script(name, size)) bytes_add(&r->out, "sc:", 3);
    bytes_add(&r->out, name, end ? size + 1 : strlen(name));
    r->at = end ? end + 1 : name + strlen(name);
}

/* \w and \W: marks are of a word as well. */
static void read_word(struct reader *r) {
    static const char word[] = "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}";
    const char *open = r->depth ? "" : r->at[1] == 'w' ? "[" : "[^";
    bytes_add(&r->out, open, strlen(open));
    bytes_add(&r->out, word, sizeof word - 1);
    bytes_add(&r->out, "]", r->depth ? 0 : 1);
    r->at += 2;
}

static void read_escape(struct reader *r) {
    char c = r->at[1];
    if ((c == 'p' || c == 'P') && r->at[2] == '{') {
        read_property(r);
        return;
    }
    if (c == 'h' || c == 'H')
        r->why = "holds \\h, which is a hexadecimal digit to some and a space to others";
    if (c == 'w' || (c == 'W' && !r->depth)) {
        read_word(r);
        return;
    }
    size_t size = c ? 2 : 1;
    bytes_add(&r->out, r->at, size);
    r->at += size;
}

/* A set within a set adds its characters: its brackets go. */
static void read_inner(struct reader *r) {
    bool opens = r->at[0] == '[';
    char before = r->out.data[r->out.size - 1], after = r->at[1];
    if (opens && after == '^') r->why = "holds a negated set of characters within a set";
    if (before == '-' || after == '-') r->why = "holds a set of characters beside a - in a set";
    if (opens && after == ']') r->why = "holds a set of characters that begins with ]";
    r->depth += opens ? 1 : -1;
    r->at++;
}

static void read_set(struct reader *r) {
    if (r->at[0] == '[' && r->at[1] == ':') {
        const char *end = strstr(r->at, ":]");
        size_t size = end ? (size_t)(end + 2 - r->at) : 1;
        bytes_add(&r->out, r->at, size);
        r->at += size;
        return;
    }
    if (r->at[0] == '[' || (r->at[0] == ']' && r->depth > 1)) {
        read_inner(r);
        return;
    }
    if (r->at[0] == '&' && r->at[1] == '&') r->why = "holds an intersection of sets (&&)";
    if (r->at[0] == ']') r->depth--;
    bytes_add(&r->out, r->at++, 1);
}

static void read_plain(struct reader *r) {
    char c = *r->at;
    if (c == '}' && r->at[1] == '+')
        r->why = "holds {...}+, which is one repetition to some and two to others";
    bytes_add(&r->out, r->at++, 1);
    if (c != '[') return;
    r->depth = 1;
    if (*r->at == '^') bytes_add(&r->out, r->at++, 1);
    if (*r->at == ']') bytes_add(&r->out, r->at++, 1); /* a first ] is a character */
}

static void read_pattern(struct reader *r) {
    while (*r->at && !r->why && !r->out.failed) {
        if (*r->at == '\\') {
            read_escape(r);
        } else if (r->depth) {
            read_set(r);
        } else {
            read_plain(r);
        }
    }
}

static bool open_pattern(struct regex *r, const char *pattern, char *why, size_t why_size) {
    struct reader in = {.at = pattern};
    int code = 0;
    size_t offset = 0;
    if (strlen(pattern) > MAX_PATTERN) in.why = "is longer than 65536 bytes";
    if (!in.why) read_pattern(&in);
    if (!in.why && !in.out.failed) r->code = compile(in.out.data, in.out.size, &code, &offset);
    bytes_free(&in.out);
    if (in.why) snprintf(why, why_size, "%s", in.why);
    if (!in.why && code > 0 && !r->code) {
        PCRE2_UCHAR words[160] = "";
        pcre2_get_error_message(code, words, sizeof words);
        snprintf(why, why_size, "cannot be read: %s, at byte %zu", (const char *)words, offset);
    }
    return r->code != NULL;
}

struct regex *regex_open(const char *pattern, bool literal, char *why, size_t why_size) {
    struct regex *r = calloc(1, sizeof *r);
    *why = 0;
    if (!r) return NULL;
    if (literal) {
        r->literal = strdup(pattern);
        r->size = strlen(pattern);
        if (r->literal) return r;
    } else if (open_pattern(r, pattern, why, why_size)) {
        return r;
    }
    regex_close(r);
    return NULL;
}

void regex_close(struct regex *r) {
    if (!r) return;
    pcre2_code_free(r->code);
    free(r->literal);
    free(r);
}

/* --- Searching -------------------------------------------------------------------------------- */

bool regex_search_open(struct regex_search *s, const struct regex *r, struct error *e) {
    *s = (struct regex_search){.regex = r};
    if (!r->code) return true;
    s->data = pcre2_match_data_create(1, NULL);
    s->limits = pcre2_match_context_create(NULL);
    if (!s->data || !s->limits) {
        regex_search_close(s);
        return fail(e, STATUS_MEMORY, "not enough memory to search a text");
    }
    pcre2_set_heap_limit(s->limits, HEAP_KB);
    return true;
}

void regex_search_close(struct regex_search *s) {
    pcre2_match_data_free(s->data);
    pcre2_match_context_free(s->limits);
    *s = (struct regex_search){0};
}

void regex_search_text(struct regex_search *s, const char *text, size_t size) {
    size_t steps =
        size < UINT32_MAX / (2 * STEPS_PER_BYTE) ? STEPS + STEPS_PER_BYTE * size : UINT32_MAX;
    s->text = text;
    s->size = size;
    s->at = 0;
    s->last = SIZE_MAX;
    if (s->limits) pcre2_set_match_limit(s->limits, (uint32_t)steps);
}

static bool find_literal(struct regex_search *s, size_t *start, size_t *end, bool *found) {
    const struct regex *r = s->regex;
    const char *place = memmem(s->text + s->at, s->size - s->at, r->literal, r->size);
    *found = place != NULL;
    if (place) *start = (size_t)(place - s->text);
    if (place) *end = *start + r->size;
    return true;
}

static bool find_pattern(struct regex_search *s, size_t *start, size_t *end, bool *found,
                         struct error *e) {
    int code = pcre2_match(s->regex->code, (PCRE2_SPTR)s->text, s->size, s->at,
                           PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, s->data, s->limits);
    *found = code >= 0;
    if (code == PCRE2_ERROR_NOMATCH) return true;
    if (code < 0) {
        PCRE2_UCHAR words[160] = "";
        pcre2_get_error_message(code, words, sizeof words);
        return fail(e, code == PCRE2_ERROR_NOMEMORY ? STATUS_MEMORY : STATUS_MODEL,
                    "a pattern of the tokenizer takes too much at byte %zu of a text of %zu "
                    "bytes: %s",
                    s->at, s->size, (const char *)words);
    }
    const PCRE2_SIZE *place = pcre2_get_ovector_pointer(s->data);
    *start = place[0];
    *end = place[1];
    if (*start >= s->at && *end >= *start && *end <= s->size) return true;
    return fail(e, STATUS_MODEL, "a pattern of the tokenizer moves its own start (\\K)");
}

/* As FindMatches of the onig crate goes through a text. */
bool regex_search_next(struct regex_search *s, size_t *start, size_t *end, bool *found,
                       struct error *e) {
    for (;;) {
        *found = false;
        if (s->at > s->size) return true;
        bool ok = s->regex->code ? find_pattern(s, start, end, found, e)
                                 : find_literal(s, start, end, found);
        if (!ok || !*found) return ok;
        if (*start < *end || *end != s->last) break;
        int32_t c;
        s->at += s->at < s->size ? unicode_next(s->text + s->at, s->size - s->at, &c) : 1;
    }
    s->at = s->last = *end;
    return true;
}

#define TEXT_OF(x) #x
#define VERSION_OF(major, minor) TEXT_OF(major) "." TEXT_OF(minor)

const char *regex_library(void) {
    return VERSION_OF(PCRE2_MAJOR, PCRE2_MINOR);
}
