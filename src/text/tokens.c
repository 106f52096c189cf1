#include "text/tokens.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "text/ids.h"
#include "text/pipeline.h"
#include "text/spm.h"

struct piece {
    size_t offset; /* of its text in tokens.text */
    uint32_t size; /* of its text; a control piece has none */
    bool special;  /* control or unknown: becomes an id when it is written in a text */
    bool space;    /* begins with the U+2581 that SentencePiece may have added */
};

struct tokens {
    struct pipeline *pipeline; /* if it is one, nothing below is used but kind */
    const char *kind;
    struct spm *spm;
    struct piece *pieces; // [count]
    char *text;
    struct added specials;
    size_t longest;
    int count, bos;
};

/* --- Opening ---------------------------------------------------------------------------------- */

static bool starts_with_space(const char *text, size_t size) {
    return size >= 3 && memcmp(text, "\xe2\x96\x81", 3) == 0;
}

/* Writes piece with a space for every U+2581; returns its size. */
static size_t write_spaced(const char *piece, size_t size, char *out) {
    size_t n = 0;
    for (size_t i = 0; i < size; n++) {
        bool space = starts_with_space(piece + i, size - i);
        out[n] = space ? ' ' : piece[i];
        i += space ? 3 : 1;
    }
    return n;
}

/* The text of a piece in the middle of a decoded sequence: at most as long as the piece or, for
 * the unknown one, as the surface. */
static size_t write_piece(const struct tokens *t, int id, char *out) {
    size_t size;
    const char *piece = spm_piece(t->spm, id, &size);
    char *end = out;
    switch (spm_kind(t->spm, id)) {
    case SPM_CONTROL: return 0;
    case SPM_BYTE: /* <0x41> */
        if (size > 3) *end++ = (char)strtoul(piece + 3, NULL, 16);
        return (size_t)(end - out);
    case SPM_UNKNOWN:
        piece = spm_unknown_surface(t->spm);
        size = strlen(piece);
        memcpy(out, piece, size);
        return size;
    default: return write_spaced(piece, size, out);
    }
}

static bool fill(struct tokens *t) {
    size_t used = 0;
    for (int id = 0; id < t->count; id++) {
        struct piece *p = &t->pieces[id];
        enum spm_kind kind = spm_kind(t->spm, id);
        size_t size, longest;
        const char *text = spm_piece(t->spm, id, &size);
        p->offset = used;
        p->size = (uint32_t)write_piece(t, id, t->text + used);
        p->special = kind == SPM_CONTROL || kind == SPM_UNKNOWN;
        p->space = (kind == SPM_NORMAL || kind == SPM_UNUSED) && starts_with_space(text, size);
        used += p->size;
        longest = p->special && size > p->size ? size : p->size;
        if (longest > t->longest) t->longest = longest;
        struct added_token token = {.text = text, .size = size, .id = id, .special = true};
        if (p->special && !added_add(&t->specials, token)) return false;
    }
    added_sort(&t->specials); /* no two pieces are the same */
    return true;
}

static bool allocate(struct tokens *t) {
    t->count = spm_count(t->spm);
    size_t text = strlen(spm_unknown_surface(t->spm)) + 1;
    for (int id = 0; id < t->count; id++) {
        size_t size;
        spm_piece(t->spm, id, &size);
        text += size;
    }
    t->pieces = calloc((size_t)t->count, sizeof *t->pieces);
    t->text = malloc(text);
    t->bos = spm_bos(t->spm);
    return t->pieces && t->text;
}

static bool fail_memory(const char *where, struct error *e) {
    return fail(e, STATUS_MEMORY, "not enough memory for the tokenizer in %s", where);
}

static bool open_spm(struct tokens *t, struct span model, const char *where, struct error *e) {
    char why[512] = "";
    t->kind = "SentencePiece";
    t->spm = spm_open(model.data, model.size, why, sizeof why);
    if (t->spm && allocate(t) && fill(t)) return true;
    if (!*why) return fail_memory(where, e);
    return fail(e, STATUS_FORMAT,
                "%s is no SentencePiece model that can be used: %s; fetch it again", where, why);
}

static bool open_pipeline(struct tokens *t, struct span file, bool json, const char *where,
                          struct error *e) {
    t->kind = json ? "tokenizer.json" : "tiktoken";
    t->pipeline = calloc(1, sizeof *t->pipeline);
    if (!t->pipeline) return fail_memory(where, e);
    return (json ? pipeline_json_open : pipeline_tiktoken_open)(t->pipeline, file, where, e);
}

static bool open_file(struct tokens **out, struct span file, bool json, const char *where,
                      struct error *e) {
    struct tokens *t = calloc(1, sizeof *t);
    *out = NULL;
    if (!t) return fail_memory(where, e);
    bool ok = json || pipeline_tiktoken_begins(file) ? open_pipeline(t, file, json, where, e)
                                                     : open_spm(t, file, where, e);
    if (ok) *out = t;
    if (!ok) tokens_close(t);
    return ok;
}

bool tokens_open(struct tokens **t, struct span model, const char *where, struct error *e) {
    return open_file(t, model, false, where, e);
}

bool tokens_open_json(struct tokens **t, struct span file, const char *where, struct error *e) {
    return open_file(t, file, true, where, e);
}

void tokens_close(struct tokens *t) {
    if (!t) return;
    if (t->pipeline) pipeline_close(t->pipeline);
    free(t->pipeline);
    spm_close(t->spm);
    added_close(&t->specials);
    free(t->pieces);
    free(t->text);
    free(t);
}

/* --- Asking ----------------------------------------------------------------------------------- */

const char *tokens_kind(const struct tokens *t) {
    return t->kind;
}

int tokens_count(const struct tokens *t) {
    return t->pipeline ? t->pipeline->vocab.count : t->count;
}

bool tokens_has_template(const struct tokens *t) {
    return t->pipeline != NULL;
}

_Static_assert((int)TEMPLATE_MAX == (int)TOKENS_MAX_BEFORE, "a template has no more");

const int *tokens_before(const struct tokens *t, size_t *count) {
    *count = t->pipeline ? t->pipeline->template.before_count : t->bos >= 0;
    return t->pipeline ? t->pipeline->template.before : &t->bos;
}

int tokens_bos(const struct tokens *t) {
    size_t count;
    const int *before = tokens_before(t, &count);
    return count ? before[0] : -1;
}

int tokens_eos(const struct tokens *t) {
    if (!t->pipeline) return spm_eos(t->spm);
    const struct template *template = &t->pipeline->template;
    return template->after_count ? template->after[template->after_count - 1] : -1;
}

const int *tokens_ends(const struct tokens *t, size_t *count) {
    *count = t->pipeline ? t->pipeline->end_count : 0;
    return t->pipeline ? t->pipeline->ends : NULL;
}

bool tokens_is_control(const struct tokens *t, int id) {
    if (!t->pipeline) return spm_kind(t->spm, id) == SPM_CONTROL;
    return id >= 0 && id < t->pipeline->vocab.count && t->pipeline->special[id];
}

int tokens_find(const struct tokens *t, const char *text, size_t size) {
    if (t->pipeline) return pipeline_find(t->pipeline, text, size);
    for (int id = 0; id < t->count; id++) {
        size_t length;
        const char *piece = spm_piece(t->spm, id, &length);
        if (length == size && memcmp(piece, text, size) == 0) return id;
    }
    return -1;
}

bool tokens_is_added(const struct tokens *t, int id) {
    if (t->pipeline) return pipeline_is_added(t->pipeline, id);
    return spm_kind(t->spm, id) == SPM_CONTROL || spm_is_user_defined(t->spm, id);
}

const char *tokens_name(const struct tokens *t, int id, size_t *size) {
    if (!t->pipeline) return spm_piece(t->spm, id, size);
    const char *name = vocab_text(&t->pipeline->vocab, id, size);
    if (!name) *size = 0;
    return name;
}

size_t tokens_longest(const struct tokens *t) {
    return t->pipeline ? t->pipeline->longest : t->longest;
}

/* --- Encoding --------------------------------------------------------------------------------- */

static bool fail_encoding(size_t size, const char *why, struct error *e) {
    if (!*why) return fail(e, STATUS_MEMORY, "not enough memory to tokenize %zu bytes", size);
    return fail(e, STATUS_ARGUMENT, "a text of %zu bytes cannot be tokenized: %s", size, why);
}

static bool encode_plain(const struct tokens *t, const char *text, size_t size, struct ids *to,
                         struct error *e) {
    char why[512] = "";
    int *ids = NULL;
    size_t count = 0;
    if (!size) return true;
    if (!spm_encode(t->spm, text, size, &ids, &count, why, sizeof why))
        return fail_encoding(size, why, e);
    ids_add(to, ids, count);
    free(ids);
    return true;
}

/* What the words of others are encoded with besides: where they lie, and a bound of recursion. */
struct words {
    const struct guard *guard;
    size_t from; /* of the text that is encoded, in that of the guard */
    int depth;
};

static bool encode_apart(const struct tokens *t, const struct guard *guard, int id, int depth,
                         struct ids *to, struct error *e);

/* A user defined piece that is barred comes out in parts. Where it stands the library tells: it
 * finds such pieces both in the text and in what the normalizer makes of it. */
static bool encode_words(const struct tokens *t, const char *text, size_t size, struct words w,
                         struct ids *to, struct error *e) {
    char why[512] = "";
    struct spm_token *tokens = NULL;
    size_t count = 0;
    bool ok = true;
    if (!size) return true;
    if (!spm_encode_at(t->spm, text, size, &tokens, &count, why, sizeof why)) {
        free(tokens);
        return fail_encoding(size, why, e);
    }
    for (size_t i = 0; ok && i < count; i++) {
        const struct spm_token *s = &tokens[i];
        if (guard_bars(w.guard, s->id) &&
            guard_covers(w.guard, w.from + s->begin, w.from + s->end))
            ok = encode_apart(t, w.guard, s->id, w.depth, to, e);
        else
            ids_add(to, &s->id, 1);
    }
    free(tokens);
    return ok;
}

/* The first character of a barred piece, then the rest: neither is the piece. What is barred in
 * turn is cut as well, a few times over; a character that is a barred piece by itself is left out.
 */
static bool encode_apart(const struct tokens *t, const struct guard *guard, int id, int depth,
                         struct ids *to, struct error *e) {
    enum { DEEP = 8 };
    size_t size;
    const char *piece = spm_piece(t->spm, id, &size);
    size_t first = utf8_sequence(piece, size);
    struct guard_range all = {0, size};
    struct guard inner = {&all, 1, guard->barred, guard->barred_count};
    struct words w = {&inner, 0, depth + 1};
    if (!first || first == size || depth == DEEP) return true;
    return encode_words(t, piece, first, w, to, e) &&
           encode_words(t, piece + first, size - first, w, to, e);
}

static bool encode_between(const struct tokens *t, const char *text, size_t start, size_t end,
                           const struct guard *guard, struct ids *to, struct error *e) {
    if (guard && guard->barred_count)
        return encode_words(t, text + start, end - start, (struct words){guard, start, 0}, to, e);
    return encode_plain(t, text + start, end - start, to, e);
}

static bool encode_special(const struct tokens *t, const char *text, size_t size,
                           const struct guard *guard, struct ids *to, struct error *e) {
    size_t start = 0, at = 0;
    while (at < size) {
        const struct added_token *s = added_find(&t->specials, text + at, size - at);
        if (!s || (guard && guard_covers(guard, at, at + s->size))) {
            at++;
            continue;
        }
        TRY(encode_between(t, text, start, at, guard, to, e));
        ids_add(to, &s->id, 1);
        start = at += s->size;
    }
    return encode_between(t, text, start, size, guard, to, e);
fail:
    return false;
}

static bool encode(const struct tokens *t, const char *text, size_t size, bool special,
                   const struct guard *guard, struct token_list *list, struct error *e) {
    struct ids ids = {0}, all = {list->ids, list->count, list->count, false};
    bool ok = true;
    if (!size) return true;
    if (t->pipeline)
        ok = pipeline_encode(t->pipeline, text, size, special, guard, &ids, e);
    else
        ok = special ? encode_special(t, text, size, guard, &ids, e)
                     : encode_plain(t, text, size, &ids, e);
    if (ok && !ids.failed) ids_add(&all, ids.list, ids.count);
    free(ids.list);
    if (ok && (ids.failed || all.failed))
        return fail(e, STATUS_MEMORY, "not enough memory for the tokens of %zu bytes", size);
    if (ok) *list = (struct token_list){all.list, all.count};
    return ok;
}

bool tokens_encode(const struct tokens *t, const char *text, size_t size, bool special,
                   struct token_list *list, struct error *e) {
    return encode(t, text, size, special, NULL, list, e);
}

bool tokens_encode_guarded(const struct tokens *t, const char *text, size_t size,
                           const struct guard *guard, struct token_list *list, struct error *e) {
    return encode(t, text, size, true, guard, list, e);
}

/* --- Decoding --------------------------------------------------------------------------------- */

/* SentencePieceProcessor::Decode, piece by piece. */
size_t tokens_text(struct detokenizer *d, int id, bool show_control, char *out, size_t cap) {
    const struct tokens *t = d->tokens;
    if (t->pipeline) return pipeline_text(t->pipeline, &d->started, id, show_control, out, cap);
    if (id < 0 || id >= t->count) return 0;
    const struct piece *p = &t->pieces[id];
    const char *text = t->text + p->offset;
    size_t size = p->size;
    if (p->special && show_control) {
        text = spm_piece(t->spm, id, &size);
    } else if (p->space && !d->started) {
        bool single = spm_single_spaces(t->spm), drop = single || spm_dummy_prefix(t->spm);
        text += drop;
        size -= drop;
        d->started = !single;
    }
    if (size) d->started = true;
    size_t n = size < cap ? size : cap;
    if (n) memcpy(out, text, n);
    return size;
}
