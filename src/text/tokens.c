#include "text/tokens.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "text/spm.h"

struct piece {
    size_t offset; /* of its text in tokens.text */
    uint32_t size; /* of its text; a control piece has none */
    bool special;  /* control or unknown: becomes an id when it is written in a text */
    bool space;    /* begins with the U+2581 that SentencePiece may have added */
};

struct special {
    const char *text; /* owned by the spm */
    size_t size;
    int id;
};

struct tokens {
    struct spm *spm;
    struct piece *pieces; // [count]
    char *text;
    struct special *specials; // [special_count] sorted by text
    size_t special_count, longest;
    int count;
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

static int compare_specials(const void *a, const void *b) {
    const struct special *x = a, *y = b;
    int order = memcmp(x->text, y->text, x->size < y->size ? x->size : y->size);
    return order ? order : (x->size > y->size) - (x->size < y->size);
}

static void fill(struct tokens *t) {
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
        if (p->special) t->specials[t->special_count++] = (struct special){text, size, id};
    }
    if (t->special_count) {
        qsort(t->specials, t->special_count, sizeof *t->specials, compare_specials);
    }
}

static bool allocate(struct tokens *t) {
    t->count = spm_count(t->spm);
    size_t text = strlen(spm_unknown_surface(t->spm)) + 1, specials = 1;
    for (int id = 0; id < t->count; id++) {
        size_t size;
        enum spm_kind kind = spm_kind(t->spm, id);
        spm_piece(t->spm, id, &size);
        text += size;
        specials += kind == SPM_CONTROL || kind == SPM_UNKNOWN;
    }
    t->pieces = calloc((size_t)t->count, sizeof *t->pieces);
    t->text = malloc(text);
    t->specials = calloc(specials, sizeof *t->specials);
    return t->pieces && t->text && t->specials;
}

bool tokens_open(struct tokens **out, struct span model, const char *where, struct error *e) {
    char why[512] = "";
    struct tokens *t = calloc(1, sizeof *t);
    *out = NULL;
    if (t) t->spm = spm_open(model.data, model.size, why, sizeof why);
    if (t && t->spm && allocate(t)) {
        fill(t);
        *out = t;
        return true;
    }
    tokens_close(t);
    if (!*why) return fail(e, STATUS_MEMORY, "not enough memory for the tokenizer in %s", where);
    return fail(e, STATUS_FORMAT,
                "%s is no SentencePiece model that can be used: %s; fetch it again", where, why);
}

void tokens_close(struct tokens *t) {
    if (!t) return;
    spm_close(t->spm);
    free(t->pieces);
    free(t->text);
    free(t->specials);
    free(t);
}

/* --- Asking ----------------------------------------------------------------------------------- */

int tokens_count(const struct tokens *t) {
    return t->count;
}

int tokens_bos(const struct tokens *t) {
    return spm_bos(t->spm);
}

int tokens_eos(const struct tokens *t) {
    return spm_eos(t->spm);
}

bool tokens_is_control(const struct tokens *t, int id) {
    return spm_kind(t->spm, id) == SPM_CONTROL;
}

size_t tokens_longest(const struct tokens *t) {
    return t->longest;
}

/* --- Encoding --------------------------------------------------------------------------------- */

struct buffer {
    int *ids;
    size_t count, room;
};

static bool append(struct buffer *b, const int *ids, size_t count, struct error *e) {
    if (count > b->room - b->count) {
        size_t room = b->count + count > 2 * b->room ? b->count + count : 2 * b->room;
        int *grown = realloc(b->ids, room * sizeof *grown);
        if (!grown) return fail(e, STATUS_MEMORY, "not enough memory for %zu tokens", room);
        b->ids = grown;
        b->room = room;
    }
    if (count) memcpy(b->ids + b->count, ids, count * sizeof *ids);
    b->count += count;
    return true;
}

static bool encode_plain(const struct tokens *t, const char *text, size_t size, struct buffer *b,
                         struct error *e) {
    char why[512] = "";
    int *ids = NULL;
    size_t count = 0;
    if (!size) return true;
    if (!spm_encode(t->spm, text, size, &ids, &count, why, sizeof why)) {
        if (!*why) return fail(e, STATUS_MEMORY, "not enough memory to tokenize %zu bytes", size);
        return fail(e, STATUS_ARGUMENT, "a text of %zu bytes cannot be tokenized: %s", size, why);
    }
    bool ok = append(b, ids, count, e);
    free(ids);
    return ok;
}

/* The first of specials[low, high), which agree before byte k and are longer, whose byte k is
 * not below c. */
static size_t lower_bound(const struct tokens *t, size_t low, size_t high, size_t k, int c) {
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if ((unsigned char)t->specials[middle].text[k] < c) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/* The longest special token that text begins with, or NULL: the range of those that agree with
 * it narrows byte by byte, and one that ends there is the first of the range. */
static const struct special *find_special(const struct tokens *t, const char *text, size_t size) {
    const struct special *best = NULL;
    size_t low = 0, high = t->special_count;
    for (size_t k = 0; low < high; k++) {
        if (t->specials[low].size == k) best = &t->specials[low++];
        if (k == size) break;
        unsigned char c = (unsigned char)text[k];
        low = lower_bound(t, low, high, k, c);
        high = lower_bound(t, low, high, k, c + 1);
    }
    return best;
}

static bool encode_special(const struct tokens *t, const char *text, size_t size, struct buffer *b,
                           struct error *e) {
    size_t start = 0, at = 0;
    while (at < size) {
        const struct special *s = find_special(t, text + at, size - at);
        if (!s) {
            at++;
            continue;
        }
        TRY(encode_plain(t, text + start, at - start, b, e));
        TRY(append(b, &s->id, 1, e));
        start = at += s->size;
    }
    return encode_plain(t, text + start, size - start, b, e);
fail:
    return false;
}

bool tokens_encode(const struct tokens *t, const char *text, size_t size, bool special,
                   struct token_list *list, struct error *e) {
    struct buffer b = {NULL, 0, 0};
    if (!size) return true;
    TRY((special ? encode_special : encode_plain)(t, text, size, &b, e));
    if (b.count) {
        struct buffer all = {list->ids, list->count, list->count};
        TRY(append(&all, b.ids, b.count, e));
        *list = (struct token_list){all.ids, all.count};
    }
    free(b.ids);
    return true;
fail:
    free(b.ids);
    return false;
}

/* --- Decoding --------------------------------------------------------------------------------- */

/* SentencePieceProcessor::Decode, piece by piece. */
size_t tokens_text(struct detokenizer *d, int id, bool show_control, char *out, size_t cap) {
    const struct tokens *t = d->tokens;
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
