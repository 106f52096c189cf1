#include "text/pipeline.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/unicode.h"

/* --- Opening ---------------------------------------------------------------------------------- */

static bool fail_token(const struct json *in, const struct added_token *t, const char *why) {
    return fail(in->e, STATUS_FORMAT, "%s: the added token %.100s (id %d) %s; fetch it again",
                in->where, t->text, t->id, why);
}

bool pipeline_add(struct pipeline *p, const struct pipeline_token *t, const struct json *in) {
    const struct added_token *token = &t->token;
    int there = vocab_find(&p->vocab, token->text, token->size);
    size_t size;
    if (there == token->id) return true;
    if (there >= 0) return fail_token(in, token, "has another id in the vocabulary");
    const char *other = vocab_text(&p->vocab, token->id, &size);
    if (other && size == token->size && memcmp(other, token->text, size) == 0)
        return fail_token(in, token, "is there twice");
    if (other) return fail_token(in, token, "has the id of another");
    const char *why = vocab_add(&p->vocab, token->id, token->text, token->size);
    return !why || (*why ? fail_token(in, token, why) : json_no_memory(in));
}

static bool list_token(struct pipeline *p, const struct pipeline_token *t, struct bytes *text,
                       struct bytes *spare, const struct json *in) {
    struct added_token token = t->token;
    p->special[token.id] |= token.special;
    if (!t->normalized) return added_add(&p->before, token) || json_no_memory(in);
    bytes_clear(text);
    bytes_add(text, token.text, token.size);
    if (text->failed) return json_no_memory(in);
    if (!normalize_run(&p->normalizer, text, spare, in->e)) return false;
    token.text = text->data;
    token.size = text->size;
    return !token.size || added_add(&p->after, token) || json_no_memory(in);
}

static bool list_tokens(struct pipeline *p, const struct pipeline_token *tokens, size_t count,
                        const struct json *in) {
    struct bytes text = {0}, spare = {0};
    bool ok = true;
    for (size_t i = 0; ok && i < count; i++) ok = list_token(p, &tokens[i], &text, &spare, in);
    bytes_free(&text);
    bytes_free(&spare);
    if (!ok) return false;
    const struct added_token *twice = added_sort(&p->before);
    if (!twice) twice = added_sort(&p->after);
    if (!twice) return true;
    return fail(in->e, STATUS_FORMAT, "%s: the added token %.*s is there twice; fetch it again",
                in->where, (int)(twice->size < 100 ? twice->size : 100), twice->text);
}

/* What the decoder is given. */
static const char *piece_of(const struct pipeline *p, int id, size_t *size) {
    const char *piece = vocab_text(&p->vocab, id, size);
    const struct added_token *normal = piece ? p->normal[id] : NULL;
    if (normal) *size = normal->size;
    return normal ? normal->text : piece;
}

static bool decode_pieces(struct pipeline *p, const struct json *in) {
    struct bytes text = {0}, spare = {0};
    bool ok = true;
    p->longest = p->vocab.longest;
    for (size_t i = 0; i < p->after.count; i++) p->normal[p->after.list[i].id] = &p->after.list[i];
    for (int id = 0; ok && id < p->vocab.count; id++) {
        size_t size;
        const char *piece = piece_of(p, id, &size);
        p->offsets[id] = p->texts.size;
        bytes_clear(&text);
        if (piece) ok = decode_piece(&p->decoder, piece, size, &text, &spare, in->e);
        bytes_add(&p->texts, text.data, text.size);
        if (size > p->longest) p->longest = size;
        if (text.size > p->longest) p->longest = text.size;
    }
    p->offsets[p->vocab.count] = p->texts.size;
    bytes_free(&text);
    bytes_free(&spare);
    return ok && (!p->texts.failed || json_no_memory(in));
}

bool pipeline_finish(struct pipeline *p, const struct pipeline_token *tokens, size_t count,
                     const struct json *in) {
    size_t pieces = (size_t)p->vocab.count;
    p->special = calloc(pieces + 1, sizeof *p->special);
    p->offsets = calloc(pieces + 1, sizeof *p->offsets);
    p->normal = calloc(pieces + 1, sizeof *p->normal);
    if (!p->special || !p->offsets || !p->normal) return json_no_memory(in);
    p->bpe.barred = p->special;
    return list_tokens(p, tokens, count, in) && decode_pieces(p, in);
}

void pipeline_close(struct pipeline *p) {
    vocab_close(&p->vocab);
    added_close(&p->before);
    added_close(&p->after);
    normalize_close(&p->normalizer);
    split_close(&p->splitter);
    bpe_close(&p->bpe);
    decode_close(&p->decoder);
    free(p->special);
    free(p->normal);
    bytes_free(&p->texts);
    free(p->offsets);
    *p = (struct pipeline){0};
}

/* --- Encoding --------------------------------------------------------------------------------- */

struct work {
    const struct pipeline *pipeline;
    bool special;
    const struct guard *guard; /* of the clean text, or NULL */
    struct guard inner;        /* of the normalized text between two added tokens */
    struct guard_range *words; // [guard->count], of inner
    struct bytes clean, normal, spare;
    struct split_parts parts, more;
    struct bpe_work bpe;
    struct ids *out;
    struct error *e;
};

static bool fail_memory(const struct work *w, size_t size) {
    return fail(w->e, STATUS_MEMORY, "not enough memory to tokenize %zu bytes", size);
}

/* Text between added tokens. first: nothing came before it. */
static bool encode_words(struct work *w, const char *text, size_t size, bool first) {
    split_parts_clear(&w->parts);
    bytes_add(&w->parts.text, text, size);
    split_parts_add(&w->parts, 0, size, first);
    if (w->parts.failed || w->parts.text.failed) return fail_memory(w, size);
    if (!split_run(&w->pipeline->splitter, &w->parts, &w->more, w->e)) return false;
    for (size_t i = 0; i < w->parts.count; i++) {
        const struct split_part *p = &w->parts.list[i];
        if (p->size > INT_MAX)
            return fail(w->e, STATUS_ARGUMENT, "a word of %zu bytes is too long, cut the text",
                        p->size);
        if (!bpe_encode(&w->pipeline->bpe, &w->bpe, w->parts.text.data + p->start, p->size, w->out))
            return fail_memory(w, size);
    }
    return true;
}

typedef bool encode_text(struct work *w, const char *text, size_t size, bool first);

/* Turns added tokens into their ids and hands what lies between them on. */
static bool encode_around(struct work *w, const struct added *added, const struct guard *guard,
                          const char *text, size_t size, bool first, encode_text *between) {
    struct added_walk walk = {
        .added = added, .text = text, .size = size, .special = w->special, .guard = guard};
    int id;
    size_t start, length;
    while (added_next(&walk, &id, &start, &length)) {
        if (id >= 0) ids_add(w->out, &id, 1);
        if (id < 0 && !between(w, text + start, length, first && !start)) return false;
    }
    return !w->out->failed || fail_memory(w, size);
}

/* Leaves text in w->normal, normalized. */
static bool normalize(struct work *w, const char *text, size_t size) {
    bytes_clear(&w->normal);
    bytes_add(&w->normal, text, size);
    if (w->normal.failed) return fail_memory(w, size);
    return normalize_run(&w->pipeline->normalizer, &w->normal, &w->spare, w->e);
}

/* How long text[0..end) is once it is normalized. */
static bool map(struct work *w, const char *text, size_t end, size_t *mapped) {
    *mapped = 0;
    if (!end) return true;
    if (!normalize(w, text, end)) return false;
    *mapped = w->normal.size;
    return true;
}

/* Fills w->inner: where the words of others lie in text, a part of the clean one, once it is
 * normalized. What goes before them tells that: a normalizer looks no further ahead than an accent.
 */
static bool map_words(struct work *w, const char *text, size_t size) {
    size_t from = (size_t)(text - w->clean.data);
    w->inner = *w->guard;
    w->inner.words = w->words;
    w->inner.count = 0;
    for (size_t i = 0; i < w->guard->count; i++) {
        struct guard_range r = w->guard->words[i];
        struct guard_range *to = &w->words[w->inner.count];
        if (r.end <= from || r.start >= from + size) continue;
        r.start = r.start > from ? r.start - from : 0;
        r.end = r.end - from < size ? r.end - from : size;
        if (!map(w, text, r.start, &to->start) || !map(w, text, r.end, &to->end)) return false;
        w->inner.count++;
    }
    return true;
}

static bool encode_normalized(struct work *w, const char *text, size_t size, bool first) {
    bool guarded = w->words && w->pipeline->after.count;
    if (guarded && !map_words(w, text, size)) return false;
    return normalize(w, text, size) &&
           encode_around(w, &w->pipeline->after, guarded ? &w->inner : NULL, w->normal.data,
                         w->normal.size, first, encode_words);
}

bool pipeline_encode(const struct pipeline *p, const char *text, size_t size, bool special,
                     const struct guard *guard, struct ids *out, struct error *e) {
    struct work w = {.pipeline = p, .special = special, .guard = guard, .out = out, .e = e};
    if (size > INT_MAX / 4)
        return fail(e, STATUS_ARGUMENT,
                    "a text of %zu bytes cannot be tokenized: it is too long, cut it into parts",
                    size);
    unicode_clean(&w.clean, text, size);
    if (guard) w.words = calloc(guard->count + 1, sizeof *w.words);
    bool ok = (!w.clean.failed && (w.words || !guard)) || fail_memory(&w, size);
    ok = ok && encode_around(&w, &p->before, guard, w.clean.data, w.clean.size, true,
                             encode_normalized);
    free(w.words);
    bytes_free(&w.clean);
    bytes_free(&w.normal);
    bytes_free(&w.spare);
    split_parts_free(&w.parts);
    split_parts_free(&w.more);
    bpe_work_free(&w.bpe);
    return ok;
}

static bool is_listed(const struct added *a, int id) {
    for (size_t i = 0; i < a->count; i++) {
        if (a->list[i].id == id) return true;
    }
    return false;
}

bool pipeline_is_added(const struct pipeline *p, int id) {
    return is_listed(&p->before, id) || is_listed(&p->after, id);
}

/* --- Decoding --------------------------------------------------------------------------------- */

static bool begins_with(const char *text, size_t size, const char *with, size_t length) {
    return length && size >= length && memcmp(text, with, length) == 0;
}

/* The piece without any of d->dropped; false if it holds none. */
static bool write_undropped(const struct decoder *d, const char *piece, size_t size, char *out,
                            size_t cap, size_t *written) {
    size_t length = strlen(d->dropped);
    *written = 0;
    if (!memmem(piece, size, d->dropped, length)) return false;
    for (size_t at = 0; at < size;) {
        bool drop = begins_with(piece + at, size - at, d->dropped, length);
        if (!drop && *written < cap) out[*written] = piece[at];
        *written += !drop;
        at += drop ? length : 1;
    }
    return true;
}

static size_t write(const char *text, size_t size, char *out, size_t cap) {
    size_t n = size < cap ? size : cap;
    if (n) memcpy(out, text, n);
    return size;
}

size_t pipeline_text(const struct pipeline *p, bool *started, int id, bool show_control, char *out,
                     size_t cap) {
    size_t piece_size, written;
    const char *piece = piece_of(p, id, &piece_size);
    if (!piece || (p->special[id] && !show_control)) return 0;
    const char *text = p->texts.data ? p->texts.data + p->offsets[id] : "";
    size_t size = p->offsets[id + 1] - p->offsets[id], drop = strlen(p->decoder.dropped);
    bool first = !*started;
    if (size || p->decoder.start == DECODE_DROP_EACH) *started = true;
    if (first && p->decoder.start == DECODE_DROP_EACH &&
        write_undropped(&p->decoder, piece, piece_size, out, cap, &written))
        return written;
    if (first && p->decoder.start == DECODE_DROP_ONE &&
        begins_with(text, size, p->decoder.dropped, drop))
        return write(text + drop, size - drop, out, cap);
    return write(text, size, out, cap);
}

/* Names are asked for a few times when a model opens. */
int pipeline_find(const struct pipeline *p, const char *text, size_t size) {
    for (int id = 0; id < p->vocab.count; id++) {
        size_t length;
        const char *piece = vocab_text(&p->vocab, id, &length);
        if (piece && size && length == size && memcmp(piece, text, size) == 0) return id;
    }
    return -1;
}
