#include "text/pieces.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "text/spm.h"
#include "text/unicode.h"

struct piece {
    size_t offset; /* of its text in pieces.text */
    uint32_t size; /* of its text; a control piece has none */
    bool special;  /* control or unknown: becomes an id when it is written in a text */
    bool space;    /* begins with the U+2581 that SentencePiece may have added */
    const struct added_token *extra; /* or NULL */
};

struct pieces {
    struct spm *spm;
    struct piece *list; // [count]
    char *text;
    struct added added; /* special pieces and extra tokens */
    bool any_plain;     /* of these, one that is found in every text */
    struct extra extra;
    size_t longest, reach;
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
static size_t write_piece(const struct pieces *p, int id, char *out) {
    size_t size;
    const char *piece = spm_piece(p->spm, id, &size);
    char *end = out;
    switch (spm_kind(p->spm, id)) {
    case SPM_CONTROL: return 0;
    case SPM_BYTE: /* <0x41> */
        if (size > 3) *end++ = (char)strtoul(piece + 3, NULL, 16);
        return (size_t)(end - out);
    case SPM_UNKNOWN:
        piece = spm_unknown_surface(p->spm);
        size = strlen(piece);
        memcpy(out, piece, size);
        return size;
    default: return write_spaced(piece, size, out);
    }
}

static bool fill(struct pieces *p) {
    size_t used = 0;
    for (int id = 0; id < spm_count(p->spm); id++) {
        struct piece *piece = &p->list[id];
        enum spm_kind kind = spm_kind(p->spm, id);
        size_t size, longest;
        const char *text = spm_piece(p->spm, id, &size);
        piece->offset = used;
        piece->size = (uint32_t)write_piece(p, id, p->text + used);
        piece->special = kind == SPM_CONTROL || kind == SPM_UNKNOWN;
        piece->space = (kind == SPM_NORMAL || kind == SPM_UNUSED) && starts_with_space(text, size);
        used += piece->size;
        longest = piece->special && size > piece->size ? size : piece->size;
        if (longest > p->longest) p->longest = longest;
        struct added_token token = {.text = text, .size = size, .id = id, .special = true};
        if (piece->special && !added_add(&p->added, token)) return false;
    }
    return true;
}

/* Whether a piece of that id is special under the same name: then nothing is added to it. */
static bool is_the_same(const struct pieces *p, const struct added_token *t) {
    size_t size;
    const char *name = spm_piece(p->spm, t->id, &size);
    return t->id < spm_count(p->spm) && p->list[t->id].special && size == t->size &&
           memcmp(name, t->text, size) == 0;
}

static bool fill_extra(struct pieces *p) {
    for (size_t i = 0; i < p->extra.count; i++) {
        const struct added_token *t = &p->extra.list[i];
        if (is_the_same(p, t)) continue;
        p->list[t->id].extra = t;
        p->any_plain |= !t->special;
        if (t->size > p->longest) p->longest = t->size;
        if (!added_add(&p->added, *t)) return false;
    }
    return true;
}

static bool allocate(struct pieces *p) {
    int count = spm_count(p->spm);
    size_t text = strlen(spm_unknown_surface(p->spm)) + 1;
    p->count = count;
    for (int id = 0; id < count; id++) {
        size_t size;
        spm_piece(p->spm, id, &size);
        text += size;
    }
    for (size_t i = 0; i < p->extra.count; i++) {
        if (p->extra.list[i].id >= p->count) p->count = p->extra.list[i].id + 1;
    }
    p->list = calloc((size_t)p->count, sizeof *p->list);
    p->text = malloc(text);
    p->bos = spm_bos(p->spm);
    return p->list && p->text;
}

/* The lists of added tokens name each once, so a text that is there twice is also a special piece
 * of another id. */
static bool sort(struct pieces *p, const char *where, struct error *e) {
    const struct added_token *twice = added_sort(&p->added);
    if (!twice) return true;
    return fail(e, STATUS_FORMAT,
                "%s: the token %.*s is added with another id than it has; fetch its files again",
                where, (int)(twice->size < 100 ? twice->size : 100), twice->text);
}

/* Whether encode_apart may leave it out of a message: only a mark (chat.c) is ever barred. */
static bool may_be_left_out(const struct pieces *p, int id) {
    size_t size;
    int32_t c;
    const char *name = spm_piece(p->spm, id, &size);
    return unicode_next(name, size, &c) == size && unicode_is_punctuation(c) &&
           spm_is_user_defined(p->spm, id);
}

/* A piece stands for its own bytes, with three of them for a space, and for no more; an added token
 * for its text, unless it takes the spaces around it. */
static size_t find_reach(const struct pieces *p) {
    size_t reach = 0;
    if (!spm_keeps_all(p->spm)) return 0;
    for (int id = 0; id < spm_count(p->spm); id++) {
        size_t size;
        spm_piece(p->spm, id, &size);
        if (size > reach) reach = size;
        if (may_be_left_out(p, id)) return 0;
    }
    for (size_t i = 0; i < p->extra.count; i++) {
        const struct added_token *t = &p->extra.list[i];
        if (t->size > reach) reach = t->size;
        if (t->lstrip || t->rstrip) return 0;
    }
    return reach;
}

static bool copy_extra(struct pieces *p, const struct extra *from) {
    p->extra.list = calloc(from->count + 1, sizeof *p->extra.list);
    if (!p->extra.list) return false;
    for (size_t i = 0; i < from->count; i++) {
        struct added_token t = from->list[i];
        t.text = strdup(t.text);
        if (!t.text) return false;
        p->extra.list[p->extra.count++] = t;
    }
    return true;
}

struct pieces *pieces_open(struct span model, const struct extra *extra, const char *where,
                           struct error *e) {
    char why[512] = "";
    struct pieces *p = calloc(1, sizeof *p);
    bool ok = p && copy_extra(p, extra);
    if (ok) p->spm = spm_open(model.data, model.size, why, sizeof why);
    ok = ok && p->spm && allocate(p) && fill(p) && fill_extra(p);
    if (ok) p->reach = find_reach(p);
    if (ok && sort(p, where, e)) return p;
    pieces_close(p);
    if (!ok && !*why) fail(e, STATUS_MEMORY, "not enough memory for the tokenizer in %s", where);
    if (!ok && *why)
        fail(e, STATUS_FORMAT, "%s is no SentencePiece model that can be used: %s; fetch it again",
             where, why);
    return NULL;
}

void pieces_close(struct pieces *p) {
    if (!p) return;
    spm_close(p->spm);
    added_close(&p->added);
    extra_close(&p->extra);
    free(p->list);
    free(p->text);
    free(p);
}

/* --- Asking ----------------------------------------------------------------------------------- */

int pieces_count(const struct pieces *p) {
    return p->count;
}

int pieces_bos(const struct pieces *p) {
    return p->bos;
}

int pieces_eos(const struct pieces *p) {
    return spm_eos(p->spm);
}

static const struct added_token *extra_of(const struct pieces *p, int id) {
    return id >= 0 && id < p->count ? p->list[id].extra : NULL;
}

bool pieces_is_control(const struct pieces *p, int id) {
    const struct added_token *extra = extra_of(p, id);
    return extra ? extra->special : spm_kind(p->spm, id) == SPM_CONTROL;
}

bool pieces_is_added(const struct pieces *p, int id) {
    return extra_of(p, id) || spm_kind(p->spm, id) == SPM_CONTROL ||
           spm_is_user_defined(p->spm, id);
}

const char *pieces_name(const struct pieces *p, int id, size_t *size) {
    const struct added_token *extra = extra_of(p, id);
    if (!extra) return spm_piece(p->spm, id, size);
    *size = extra->size;
    return extra->text;
}

int pieces_find(const struct pieces *p, const char *text, size_t size) {
    for (int id = 0; id < p->count; id++) {
        size_t length;
        const char *name = pieces_name(p, id, &length);
        if (size && length == size && memcmp(name, text, size) == 0) return id;
    }
    return -1;
}

size_t pieces_longest(const struct pieces *p) {
    return p->longest;
}

size_t pieces_reach(const struct pieces *p) {
    return p->reach;
}

/* --- Encoding --------------------------------------------------------------------------------- */

static bool fail_encoding(size_t size, const char *why, struct error *e) {
    if (!*why) return fail(e, STATUS_MEMORY, "not enough memory to tokenize %zu bytes", size);
    return fail(e, STATUS_ARGUMENT, "a text of %zu bytes cannot be tokenized: %s", size, why);
}

static bool encode_plain(const struct pieces *p, const char *text, size_t size, struct ids *to,
                         struct error *e) {
    char why[512] = "";
    int *ids = NULL;
    size_t count = 0;
    if (!size) return true;
    if (!spm_encode(p->spm, text, size, &ids, &count, why, sizeof why))
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

static bool encode_apart(const struct pieces *p, const struct guard *guard, int id, int depth,
                         struct ids *to, struct error *e);

/* A user defined piece that is barred comes out in parts. Where it stands the library tells: it
 * finds such pieces both in the text and in what the normalizer makes of it. */
static bool encode_words(const struct pieces *p, const char *text, size_t size, struct words w,
                         struct ids *to, struct error *e) {
    char why[512] = "";
    struct spm_token *tokens = NULL;
    size_t count = 0;
    bool ok = true;
    if (!size) return true;
    if (!spm_encode_at(p->spm, text, size, &tokens, &count, why, sizeof why)) {
        free(tokens);
        return fail_encoding(size, why, e);
    }
    for (size_t i = 0; ok && i < count; i++) {
        const struct spm_token *s = &tokens[i];
        if (guard_bars(w.guard, s->id) && guard_covers(w.guard, w.from + s->begin, w.from + s->end))
            ok = encode_apart(p, w.guard, s->id, w.depth, to, e);
        else
            ids_add(to, &s->id, 1);
    }
    free(tokens);
    return ok;
}

/* The first character of a barred piece, then the rest: neither is the piece. What is barred in
 * turn is cut as well, a few times over; a character that is a barred piece by itself is left out.
 */
static bool encode_apart(const struct pieces *p, const struct guard *guard, int id, int depth,
                         struct ids *to, struct error *e) {
    enum { DEEP = 8 };
    size_t size;
    const char *piece = spm_piece(p->spm, id, &size);
    size_t first = utf8_sequence(piece, size);
    struct guard_range all = {0, size};
    struct guard inner = {&all, 1, guard->barred, guard->barred_count};
    struct words w = {&inner, 0, depth + 1};
    if (!first || first == size || depth == DEEP) return true;
    return encode_words(p, piece, first, w, to, e) &&
           encode_words(p, piece + first, size - first, w, to, e);
}

static bool encode_between(const struct pieces *p, const char *text, size_t start, size_t end,
                           const struct guard *guard, struct ids *to, struct error *e) {
    if (guard && guard->barred_count)
        return encode_words(p, text + start, end - start, (struct words){guard, start, 0}, to, e);
    return encode_plain(p, text + start, end - start, to, e);
}

/* The text between two added tokens is one of its own to SentencePiece. */
static bool encode_around(const struct pieces *p, const char *text, size_t size, bool special,
                          const struct guard *guard, struct ids *to, struct error *e) {
    struct added_walk walk = {
        .added = &p->added, .text = text, .size = size, .special = special, .guard = guard};
    int id;
    size_t start, length;
    while (added_next(&walk, &id, &start, &length)) {
        if (id >= 0) ids_add(to, &id, 1);
        if (id < 0 && !encode_between(p, text, start, start + length, guard, to, e)) return false;
    }
    return true;
}

bool pieces_encode(const struct pieces *p, const char *text, size_t size, bool special,
                   const struct guard *guard, struct ids *out, struct error *e) {
    if (!special && !p->any_plain) return encode_plain(p, text, size, out, e);
    return encode_around(p, text, size, special, guard, out, e);
}

/* --- Decoding --------------------------------------------------------------------------------- */

/* SentencePieceProcessor::Decode, piece by piece. */
size_t pieces_text(const struct pieces *p, bool *started, int id, bool show_control, char *out,
                   size_t cap) {
    if (id < 0 || id >= p->count) return 0;
    const struct piece *piece = &p->list[id];
    const char *text = p->text + piece->offset;
    size_t size = piece->size;
    if (piece->extra) {
        text = piece->extra->text;
        size = piece->extra->special && !show_control ? 0 : piece->extra->size;
    } else if (piece->special && show_control) {
        text = spm_piece(p->spm, id, &size);
    } else if (piece->space && !*started) {
        bool single = spm_single_spaces(p->spm), drop = single || spm_dummy_prefix(p->spm);
        text += drop;
        size -= drop;
        *started = !single;
    }
    if (size) *started = true;
    size_t n = size < cap ? size : cap;
    if (n) memcpy(out, text, n);
    return size;
}
