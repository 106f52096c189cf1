#include "text/tokens.h"

#include <stdlib.h>
#include <string.h>

#include "text/pieces.h"
#include "text/pipeline.h"

/* One of the two is there. */
struct tokens {
    struct pipeline *pipeline;
    struct pieces *pieces;
    const char *kind;
};

/* --- Opening ---------------------------------------------------------------------------------- */

static bool fail_memory(const char *where, struct error *e) {
    return fail(e, STATUS_MEMORY, "not enough memory for the tokenizer in %s", where);
}

static bool open_pieces(struct tokens *t, struct span model, const char *where,
                        const struct tokens_beside *beside, struct error *e) {
    struct extra extra = {0};
    bool ok = true;
    t->kind = "SentencePiece";
    for (size_t i = 0; ok && beside && i < beside->count; i++)
        ok = extra_read(&extra, &beside->sources[i], beside->limit, e);
    if (ok) t->pieces = pieces_open(model, &extra, where, e);
    extra_close(&extra);
    return t->pieces != NULL;
}

static bool open_pipeline(struct tokens *t, struct span file, bool json, const char *where,
                          struct error *e) {
    t->kind = json ? "tokenizer.json" : "tiktoken";
    t->pipeline = calloc(1, sizeof *t->pipeline);
    if (!t->pipeline) return fail_memory(where, e);
    return (json ? pipeline_json_open : pipeline_tiktoken_open)(t->pipeline, file, where, e);
}

static bool open_file(struct tokens **out, struct span file, bool json, const char *where,
                      const struct tokens_beside *beside, struct error *e) {
    struct tokens *t = calloc(1, sizeof *t);
    *out = NULL;
    if (!t) return fail_memory(where, e);
    bool ok = json || pipeline_tiktoken_begins(file) ? open_pipeline(t, file, json, where, e)
                                                     : open_pieces(t, file, where, beside, e);
    if (ok) *out = t;
    if (!ok) tokens_close(t);
    return ok;
}

bool tokens_open(struct tokens **t, struct span model, const char *where,
                 const struct tokens_beside *beside, struct error *e) {
    return open_file(t, model, false, where, beside, e);
}

bool tokens_open_json(struct tokens **t, struct span file, const char *where, struct error *e) {
    return open_file(t, file, true, where, NULL, e);
}

void tokens_close(struct tokens *t) {
    if (!t) return;
    if (t->pipeline) pipeline_close(t->pipeline);
    free(t->pipeline);
    pieces_close(t->pieces);
    free(t);
}

/* --- Asking ----------------------------------------------------------------------------------- */

const char *tokens_kind(const struct tokens *t) {
    return t->kind;
}

int tokens_count(const struct tokens *t) {
    return t->pipeline ? t->pipeline->vocab.count : pieces_count(t->pieces);
}

bool tokens_has_template(const struct tokens *t) {
    return t->pipeline != NULL;
}

_Static_assert((int)TEMPLATE_MAX == (int)TOKENS_MAX_BEFORE, "a template has no more");

size_t tokens_before(const struct tokens *t, int *before) {
    if (!t->pipeline) {
        before[0] = pieces_bos(t->pieces);
        return before[0] >= 0;
    }
    size_t count = t->pipeline->template.before_count;
    memcpy(before, t->pipeline->template.before, count * sizeof *before);
    return count;
}

int tokens_bos(const struct tokens *t) {
    int before[TOKENS_MAX_BEFORE];
    return tokens_before(t, before) ? before[0] : -1;
}

int tokens_eos(const struct tokens *t) {
    if (!t->pipeline) return pieces_eos(t->pieces);
    const struct template *template = &t->pipeline->template;
    return template->after_count ? template->after[template->after_count - 1] : -1;
}

const int *tokens_ends(const struct tokens *t, size_t *count) {
    *count = t->pipeline ? t->pipeline->end_count : 0;
    return t->pipeline ? t->pipeline->ends : NULL;
}

bool tokens_is_control(const struct tokens *t, int id) {
    if (!t->pipeline) return pieces_is_control(t->pieces, id);
    return id >= 0 && id < t->pipeline->vocab.count && t->pipeline->special[id];
}

bool tokens_is_added(const struct tokens *t, int id) {
    return t->pipeline ? pipeline_is_added(t->pipeline, id) : pieces_is_added(t->pieces, id);
}

const char *tokens_name(const struct tokens *t, int id, size_t *size) {
    if (!t->pipeline) return pieces_name(t->pieces, id, size);
    const char *name = vocab_text(&t->pipeline->vocab, id, size);
    if (!name) *size = 0;
    return name;
}

int tokens_find(const struct tokens *t, const char *text, size_t size) {
    return t->pipeline ? pipeline_find(t->pipeline, text, size)
                       : pieces_find(t->pieces, text, size);
}

size_t tokens_longest(const struct tokens *t) {
    return t->pipeline ? t->pipeline->longest : pieces_longest(t->pieces);
}

size_t tokens_reach(const struct tokens *t) {
    return t->pipeline ? 0 : pieces_reach(t->pieces);
}

/* --- Encoding --------------------------------------------------------------------------------- */

static bool encode(const struct tokens *t, const char *text, size_t size, bool special,
                   const struct guard *guard, struct token_list *list, struct error *e) {
    struct ids ids = {0}, all = {list->ids, list->count, list->count, false};
    if (!size) return true;
    bool ok = t->pipeline ? pipeline_encode(t->pipeline, text, size, special, guard, &ids, e)
                          : pieces_encode(t->pieces, text, size, special, guard, &ids, e);
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

size_t tokens_text(struct detokenizer *d, int id, bool show_control, char *out, size_t cap) {
    const struct tokens *t = d->tokens;
    if (t->pipeline) return pipeline_text(t->pipeline, &d->started, id, show_control, out, cap);
    return pieces_text(t->pieces, &d->started, id, show_control, out, cap);
}
