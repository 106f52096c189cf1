/* include/nibble.h: models and their tokenizers. */
#include <stdlib.h>
#include <string.h>

#include "api/handles.h"

/* Fewer pieces than rows is a padded vocabulary: those rows are never sampled. More would be ids
 * without a row. */
static bool match_vocabulary(nibble_model *m, struct error *e) {
    size_t rows = m->model.spec.vocab;
    m->sampled = rows;
    if (!m->tokenizer.tokens) return true;
    m->sampled = (size_t)tokens_count(m->tokenizer.tokens);
    if (m->sampled <= rows) return true;
    return fail(e, STATUS_MODEL,
                "%s: the tokenizer has %zu pieces, but the embedding has only %zu rows; they are "
                "not of one model",
                m->model.store.path, m->sampled, rows);
}

static bool open_all(nibble_model *m, const char *path, struct error *e) {
    return model_open(&m->model, path, e) &&
           handles_open_tokenizer(&m->tokenizer, &m->model.store, m->model.bos, m->model.spec.vocab,
                                  e) &&
           match_vocabulary(m, e) && handles_open_chat(m, e);
}

static bool open_glance(nibble_model *m, const char *path, struct error *e) {
    return model_glance(&m->model, path, e);
}

static nibble_model *open_by(bool (*open)(nibble_model *m, const char *path, struct error *e),
                             const char *path, nibble_error *out) {
    struct error e = {0};
    nibble_model *m = calloc(1, sizeof *m);
    bool ok = m ? open(m, path, &e) : fail(&e, STATUS_MEMORY, "not enough memory to open %s", path);
    if (ok) return m;
    nibble_model_close(m);
    handles_report(false, &e, out);
    return NULL;
}

nibble_model *nibble_model_open(const char *path, nibble_error *e) {
    return open_by(open_all, path, e);
}

nibble_model *nibble_model_glance(const char *path, nibble_error *e) {
    return open_by(open_glance, path, e);
}

void nibble_model_close(nibble_model *m) {
    if (!m) return;
    chat_json_close(&m->chat);
    tokens_close(m->tokenizer.tokens);
    model_close(&m->model);
    free(m);
}

/* --- looking at a model ----------------------------------------------------------------------- */

struct tally {
    size_t tensors, affine, plain;
};

static void tally_tensor(void *arg, const struct weights_tensor *w) {
    struct tally *t = arg;
    t->tensors++;
    t->affine += w->mat && w->mat->group;
    t->plain += w->mat && !w->mat->group;
}

static nibble_ops ops_of(struct model_ops ops) {
    return (nibble_ops){ops.int8, ops.f32};
}

void nibble_model_describe(const nibble_model *handle, nibble_model_info *info) {
    const struct model *m = &handle->model;
    struct tally t = {0};
    weights_each(&m->weights, &m->spec, &m->store, tally_tensor, &t);
    *info = (nibble_model_info){
        .family = m->arch->model_type,
        .title = m->arch->title,
        .hash = m->store.hash,
        .parameters = model_parameters(m),
        .vocab = m->spec.vocab,
        .context = m->spec.context,
        .layers = m->spec.layers,
        .mapped_bytes = m->store.mapped_bytes,
        .private_bytes = m->store.private_bytes,
        .own_bytes = m->arena.size,
        .bytes_per_token = model_bytes_per_token(m),
        .kv_bytes_f16 = kv_position_bytes(&m->spec, DTYPE_F16),
        .kv_bytes_f32 = kv_position_bytes(&m->spec, DTYPE_F32),
        .layer_ops = ops_of(model_layer_ops(m)),
        .last_ops = ops_of(model_last_ops(m)),
        .output_ops = ops_of(model_output_ops(m)),
        .tensors = t.tensors,
        .kept = t.affine ? t.plain : 0,
        .bos = handle->tokenizer.tokens ? handle->tokenizer.bos : m->bos,
    };
    for (size_t i = 0; i < m->store.count; i++) info->unmapped_arrays += !m->store.arrays[i].mapped;
    for (size_t i = 0; i < m->spec.layers; i++) info->windowed_layers += m->spec.layer[i].windowed;
    info->window = info->windowed_layers ? m->spec.window : 0;
}

bool nibble_model_holds(const nibble_model *m, const void *address) {
    return store_holds(&m->model.store, address);
}

void nibble_model_numbers(const nibble_model *m,
                          void (*see)(void *, const char *, const char *, bool), void *arg) {
    spec_each(&m->model.spec, see, arg);
}

nibble_layer nibble_model_layer(const nibble_model *m, size_t i) {
    const struct spec_layer *l = &m->model.spec.layer[i];
    return (nibble_layer){l->windowed, l->rotates, l->experts};
}

struct tensor_visit {
    void (*see)(void *arg, const nibble_tensor *t);
    void *arg;
};

static void see_tensor(void *arg, const struct weights_tensor *t) {
    const struct tensor_visit *v = arg;
    const struct mat *m = t->mat;
    nibble_tensor seen = {
        .name = t->name,
        .format = m ? m->format->name : "f32",
        .rows = t->rows,
        .cols = t->cols,
        .bits = m ? m->bits : 32,
        .group = m ? m->group : 0,
        .bytes = m ? format_bytes(m) : t->rows * t->cols * sizeof(float),
        .vector = !m,
    };
    v->see(v->arg, &seen);
}

void nibble_model_tensors(const nibble_model *m, void (*see)(void *, const nibble_tensor *),
                          void *arg) {
    struct tensor_visit v = {see, arg};
    weights_each(&m->model.weights, &m->model.spec, &m->model.store, see_tensor, &v);
}

/* --- tokenizers ------------------------------------------------------------------------------- */

const nibble_tokenizer *nibble_model_tokenizer(const nibble_model *m) {
    return m->tokenizer.tokens ? &m->tokenizer : NULL;
}

static bool open_tokenizer(nibble_tokenizer *t, const char *path, struct error *e) {
    struct store store;
    if (!store_open(&store, path, e)) return false;
    bool ok = handles_open_tokenizer(t, &store, -1, 0, e);
    if (ok && !t->tokens)
        ok = fail(e, STATUS_MODEL, "%s has no tokenizer.model and no tokenizer.json", path);
    store_close(&store);
    return ok;
}

nibble_tokenizer *nibble_tokenizer_open(const char *path, nibble_error *out) {
    struct error e = {0};
    nibble_tokenizer *t = calloc(1, sizeof *t);
    bool ok = t ? open_tokenizer(t, path, &e)
                : fail(&e, STATUS_MEMORY, "not enough memory to open %s", path);
    if (ok) return t;
    free(t);
    handles_report(false, &e, out);
    return NULL;
}

void nibble_tokenizer_close(nibble_tokenizer *t) {
    if (t) tokens_close(t->tokens);
    free(t);
}

bool nibble_tokenizer_adds_bos(const nibble_tokenizer *t) {
    return t->adds_bos;
}

size_t nibble_tokenizer_pieces(const nibble_tokenizer *t) {
    return (size_t)tokens_count(t->tokens);
}

void nibble_tokenizer_describe(const nibble_tokenizer *t, nibble_tokenizer_info *info) {
    *info = (nibble_tokenizer_info){tokens_kind(t->tokens), t->file, t->why, t->bos, t->eos};
}

static bool begins_with(const struct token_list *list, const int *ids, size_t count) {
    return list->count >= count && memcmp(list->ids, ids, count * sizeof *ids) == 0;
}

/* BOS is put in front after encoding, so that one written in the text is seen. */
static bool add_before(struct token_list *list, const int *before, size_t n, struct error *e) {
    if (!n || begins_with(list, before, n)) return true;
    int *ids = realloc(list->ids, (list->count + n) * sizeof *ids);
    if (!ids) return fail(e, STATUS_MEMORY, "not enough memory for %zu tokens", list->count + n);
    memmove(ids + n, ids, list->count * sizeof *ids);
    memcpy(ids, before, n * sizeof *ids);
    list->ids = ids;
    list->count += n;
    return true;
}

bool nibble_tokenize(const nibble_tokenizer *t, const char *text, size_t size, int flags,
                     nibble_ids *out, nibble_error *error) {
    struct error e = {0};
    struct token_list list = {0};
    TRY(tokens_encode(t->tokens, text, size, flags & NIBBLE_SPECIAL, &list, &e));
    if (flags & NIBBLE_BOS) TRY(add_before(&list, t->before, t->before_count, &e));
    *out = (nibble_ids){list.ids, list.count};
    return true;
fail:
    free(list.ids);
    return handles_report(false, &e, error);
}

size_t nibble_tokens_least(const nibble_tokenizer *t, size_t bytes) {
    size_t reach = tokens_reach(t->tokens);
    return reach ? bytes / reach + (bytes % reach != 0) : 0;
}

static bool check_ids(const nibble_tokenizer *t, const int *ids, size_t n, struct error *e) {
    for (size_t i = 0; i < n; i++) {
        if (ids[i] >= 0 && ids[i] < tokens_count(t->tokens)) continue;
        return fail(e, STATUS_ARGUMENT, "token id %d lies outside the tokenizer's %d pieces",
                    ids[i], tokens_count(t->tokens));
    }
    return true;
}

/* Twice over the ids: once to measure, once to write. */
static size_t write_text(const nibble_tokenizer *t, const int *ids, size_t n, char *out,
                         size_t cap) {
    struct detokenizer d = {.tokens = t->tokens};
    size_t used = 0;
    for (size_t i = 0; i < n; i++) {
        used += tokens_text(&d, ids[i], true, out ? out + used : NULL, cap > used ? cap - used : 0);
    }
    return used;
}

bool nibble_detokenize(const nibble_tokenizer *t, const int *ids, size_t n, char **text,
                       size_t *size, nibble_error *error) {
    struct error e = {0};
    if (!check_ids(t, ids, n, &e)) return handles_report(false, &e, error);
    *size = write_text(t, ids, n, NULL, 0);
    *text = malloc(*size + 1);
    if (!*text) {
        fail(&e, STATUS_MEMORY, "not enough memory for %zu bytes of text", *size);
        return handles_report(false, &e, error);
    }
    write_text(t, ids, n, *text, *size);
    (*text)[*size] = 0;
    return true;
}

size_t nibble_token_text(const nibble_tokenizer *t, int id, char *out, size_t cap) {
    struct detokenizer inside = {.tokens = t->tokens, .started = true};
    return tokens_text(&inside, id, true, out, cap);
}

void nibble_free(void *p) {
    free(p);
}
