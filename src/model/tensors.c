#include "model/tensors.h"

#include <stdio.h>
#include <string.h>

#include "num/affine.h"
#include "num/mxfp4.h"
#include "num/transposed.h"

static const struct tensors_prefix prefixes[] = {
    {"", "model.", "model.layers.%zu."},
    {"", "", "layers.%zu."},
    {"", "transformer.", "transformer.h.%zu."},
    {"", "", "h.%zu."},
    {"", "gpt_neox.", "gpt_neox.layers.%zu."},
    {"", "model.", "model.h.%zu."},
    {"language_model.", "language_model.model.", "language_model.model.layers.%zu."},
    {"model.language_model.", "model.language_model.", "model.language_model.layers.%zu."},
};
enum { PREFIXES = sizeof prefixes / sizeof *prefixes };

enum { NAME_HALF = TENSORS_NAME_BYTES / 2 };

/* --- words: "attn.c_attn^@q", "mlp.experts.#.up_proj" -------------------------------------------
 */

struct word {
    const char *text;
    int length;       /* of the name */
    const char *part; /* what follows @, or "" */
    bool transposed;
    bool numbered;
};

/* The next of a list of words; false at its end. */
static bool next_word(const char **names, struct word *w) {
    const char *p = *names + strspn(*names, " ");
    size_t all = strcspn(p, " ");
    *names = p + all;
    w->text = p;
    w->length = (int)strcspn(p, " ^@");
    w->transposed = p[w->length] == '^';
    w->numbered = memchr(p, '#', (size_t)w->length) != NULL;
    const char *at = memchr(p, '@', all);
    w->part = at ? at + 1 : "";
    return all > 0;
}

/* start and the word's name, # replaced by the item. */
static void spell(char name[TENSORS_NAME_BYTES], const char *start, const struct word *w,
                  size_t item) {
    int before = (int)strcspn(w->text, "#");
    if (!w->numbered) {
        snprintf(name, TENSORS_NAME_BYTES, "%.*s%.*s", NAME_HALF, start, w->length, w->text);
        return;
    }
    snprintf(name, TENSORS_NAME_BYTES, "%.*s%.*s%zu%.*s", NAME_HALF, start, before, w->text, item,
             w->length - before - 1, w->text + before + 1);
}

static bool is_part(const struct word *w, const char *part) {
    size_t length = strlen(part);
    return strncmp(w->part, part, length) == 0 && strchr(" ", w->part[length]) != NULL;
}

/* Which rows, or numbers, of its tensor a word means. */
static struct tensors_part part_of(const struct word *w, const struct spec *s,
                                   const struct tensors_slot *slot) {
    size_t rows = slot->is_matrix ? slot->rows : slot->cols;
    size_t heads = s->heads / s->kv_heads, dim = s->head_dim, keys = s->kv_heads * dim;
    size_t queries = s->heads * dim, all = queries + 2 * keys, group = (heads + 2) * dim;
    size_t latent = s->kv_rank + s->rope_dim, nope = s->nope_dim, value = s->value_dim;
    size_t made = nope + value, of_heads = s->heads * made;
    const struct {
        const char *part;
        struct tensors_part is;
    } parts[] = {
        /* all queries, all keys, all values */
        {"q", {0, 0, 0, all}},
        {"k", {queries, 0, 0, all}},
        {"v", {queries + keys, 0, 0, all}},
        /* queries, keys and values of one key/value head after the other */
        {"gq", {0, heads * dim, group, all}},
        {"gk", {heads * dim, dim, group, all}},
        {"gv", {(heads + 1) * dim, dim, group, all}},
        /* what latent attention makes: the latent vector, then the keys that turn; and what it
         * makes of that: keys that do not turn and values of one head after the other */
        {"latent", {0, 0, 0, latent}},
        {"turning", {s->kv_rank, 0, 0, latent}},
        {"nope", {0, nope, made, of_heads}},
        {"values", {nope, value, made, of_heads}},
        /* two of as many rows, one after the other or in turns */
        {"gate", {0, 0, 0, 2 * rows}},
        {"up", {rows, 0, 0, 2 * rows}},
        {"even", {0, 1, 2, 2 * rows}},
        {"odd", {1, 1, 2, 2 * rows}},
    };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (is_part(w, parts[i].part)) return parts[i].is;
    }
    return (struct tensors_part){0, 0, 0, rows};
}

/* --- finding -------------------------------------------------------------------------------- */

static const struct array *find(const struct store *store, const char *name, const char *suffix) {
    char full[TENSORS_NAME_BYTES + 16];
    snprintf(full, sizeof full, "%s%s", name, suffix);
    return store_find(store, full);
}

static bool has_layers(const struct store *store, const char *layer) {
    char start[TENSORS_NAME_BYTES];
    size_t length = (size_t)snprintf(start, sizeof start, layer, (size_t)0);
    for (size_t i = 0; i < store->count; i++) {
        if (strncmp(store->arrays[i].name, start, length) == 0) return true;
    }
    return false;
}

/* The number of the first of names that is there behind `start`; -1: none. */
static int word_there(const struct store *store, const char *start, const char *names) {
    struct word w;
    for (int i = 0; next_word(&names, &w); i++) {
        char name[TENSORS_NAME_BYTES];
        snprintf(name, sizeof name, "%s%.*s", start, w.length, w.text);
        if (find(store, name, ".weight")) return i;
    }
    return -1;
}

bool tensors_open(struct tensors *t, const struct store *store, const struct spec *s,
                  const char *names) {
    *t = (struct tensors){.store = store, .spec = s};
    for (int i = 0; i < PREFIXES; i++) {
        int word = word_there(store, prefixes[i].model, names);
        bool layers = has_layers(store, prefixes[i].layer);
        if (word < 0 || (t->prefix && !layers)) continue;
        t->prefix = &prefixes[i];
        t->meta = word == 1;
        if (layers) break;
    }
    return t->prefix != NULL;
}

static bool is_float(const struct array *a) {
    return a->dtype == DTYPE_F32 || a->dtype == DTYPE_F16 || a->dtype == DTYPE_BF16;
}

/* Matrices that are stored transposed are plain, and stacked ones of them have no ".weight". */
static void find_transposed(struct tensors_place *place, const struct tensors *t, bool stacked) {
    place->array = find(t->store, place->name, stacked ? "" : ".weight");
    place->transposed = true;
    if (place->array && !is_float(place->array)) place->array = NULL;
    if (place->array || !stacked) return;
    place->array = find(t->store, place->name, "_blocks");
    place->scales = find(t->store, place->name, "_scales");
    place->transposed = false;
}

static bool look(struct tensors_place *place, const struct tensors *t,
                 const struct tensors_slot *slot, const char *start, const struct word *w,
                 size_t item) {
    bool stacked = (slot->of_experts || slot->count > 1) && !w->numbered;
    *place = (struct tensors_place){.part = part_of(w, t->spec, slot)};
    spell(place->name, start, w, item);
    if (w->transposed && (stacked || t->spec->transposed)) {
        find_transposed(place, t, stacked);
    } else if (!w->transposed) {
        place->array = find(t->store, place->name, slot->is_matrix ? ".weight" : "");
        place->scales = slot->is_matrix ? find(t->store, place->name, ".scales") : NULL;
        place->offsets = slot->is_matrix ? find(t->store, place->name, ".biases") : NULL;
    }
    place->index = stacked ? item : 0;
    place->of = stacked ? slot->count : 0;
    place->whole = !place->transposed && !*w->part && !w->numbered && !(stacked && slot->is_matrix);
    return place->array != NULL;
}

bool tensors_in_root(const struct tensors *t, const char *name) {
    return strncmp(name, t->prefix->root, strlen(t->prefix->root)) == 0;
}

static void start_of(char start[TENSORS_NAME_BYTES], const struct tensors *t,
                     const struct tensors_slot *slot, size_t layer) {
    if (slot->in_layer)
        snprintf(start, TENSORS_NAME_BYTES, t->prefix->layer, layer);
    else
        snprintf(start, TENSORS_NAME_BYTES, "%s", t->prefix->model);
}

void tensors_find(struct tensors_place *place, const struct tensors *t,
                  const struct tensors_slot *slot, size_t layer, size_t item) {
    char start[TENSORS_NAME_BYTES];
    const char *names = slot->names;
    struct word w, usual = {.text = "", .part = ""};
    start_of(start, t, slot, layer);
    for (int i = 0; next_word(&names, &w); i++) {
        if (look(place, t, slot, start, &w, item)) return;
        if (!slot->in_layer && look(place, t, slot, t->prefix->root, &w, item)) return;
        if (!slot->in_layer && look(place, t, slot, "", &w, item)) return;
        if (i <= t->meta) usual = w;
    }
    look(place, t, slot, start, &usual, item);
}

void tensors_name(char name[TENSORS_NAME_BYTES], const struct tensors *t,
                  const struct tensors_slot *slot, size_t layer, size_t item) {
    char start[TENSORS_NAME_BYTES];
    const char *names = slot->names;
    struct word w;
    start_of(start, t, slot, layer);
    next_word(&names, &w);
    spell(name, start, &w, item);
}

/* --- matrices ------------------------------------------------------------------------------- */

/* The array of one item: without its first dimension, if it is that of a stack. */
static bool slice(struct array *out, const struct array *a, const struct tensors_place *p) {
    *out = *a;
    if (!p->of) return true;
    if (a->dims < 2 || a->shape[0] != p->of) return false;
    out->bytes.size /= p->of;
    out->bytes.data += p->index * out->bytes.size;
    out->dims--;
    for (int i = 0; i < out->dims; i++) out->shape[i] = a->shape[i + 1];
    return true;
}

static bool has_shape(const struct array *a, size_t rows, size_t cols) {
    return a->dims == 2 && a->shape[0] == rows && a->shape[1] == cols;
}

/* Quantized: group and bits follow from the shapes, whatever the config says. */
static bool affine(struct mat *m, const struct array *codes, const struct array *scales,
                   const struct array *offsets, size_t rows, size_t cols) {
    if (codes->dtype != DTYPE_U32 || codes->dims != 2 || scales->dims != 2 || !scales->shape[1])
        return false;
    size_t group = cols / scales->shape[1], bits = codes->shape[1] * 32 / cols;
    if (group > 128 || bits > 8 || !affine_valid((int)bits, (int)group)) return false;
    if (!has_shape(codes, rows, cols * bits / 32) || cols % group != 0) return false;
    if (!has_shape(scales, rows, cols / group) || !has_shape(offsets, rows, cols / group))
        return false;
    if (!is_float(scales) || offsets->dtype != scales->dtype) return false;
    *m = affine_mat(rows, cols, (int)bits, (int)group, scales->dtype, codes->bytes.data,
                    scales->bytes.data, offsets->bytes.data);
    return true;
}

/* Codes as u32 [rows, cols / 8], or as bytes [rows, groups, 16]; scales [rows, groups]. */
static bool mxfp4(struct mat *m, const struct array *codes, const struct array *scales, size_t rows,
                  size_t cols) {
    size_t groups = cols / MXFP4_GROUP;
    bool words = codes->dtype == DTYPE_U32 && has_shape(codes, rows, cols / 8);
    bool bytes = codes->dtype == DTYPE_U8 && codes->dims == 3 && codes->shape[0] == rows &&
                 codes->shape[1] == groups && codes->shape[2] == MXFP4_GROUP / 2;
    if (cols % MXFP4_GROUP != 0 || !(words || bytes)) return false;
    if (scales->dtype != DTYPE_U8 || !has_shape(scales, rows, groups)) return false;
    *m = mxfp4_mat(rows, cols, codes->bytes.data, scales->bytes.data);
    return true;
}

static bool whole_matrix(struct mat *m, const struct tensors_place *p, size_t rows, size_t cols) {
    struct array a, scales = {0}, offsets = {0};
    if (!slice(&a, p->array, p)) return false;
    if (p->scales && !slice(&scales, p->scales, p)) return false;
    if (p->offsets && !slice(&offsets, p->offsets, p)) return false;
    if (p->scales && p->offsets) return affine(m, &a, &scales, &offsets, rows, cols);
    if (p->scales) return mxfp4(m, &a, &scales, rows, cols);
    if (p->offsets || !is_float(&a)) return false;
    if (p->transposed) {
        if (!has_shape(&a, cols, rows)) return false;
        *m = transposed_mat(a.dtype, rows, cols, rows, a.bytes.data);
        return true;
    }
    if (!has_shape(&a, rows, cols)) return false;
    *m = format_plain(a.dtype, rows, cols, a.bytes.data);
    return true;
}

bool tensors_matrix(struct mat *m, const struct tensors_place *p, const struct tensors_slot *slot) {
    if (!whole_matrix(m, p, p->part.total, slot->cols)) return false;
    *m = format_part(m, p->part.first, slot->rows, p->part.block, p->part.apart);
    return true;
}

/* --- vectors -------------------------------------------------------------------------------- */

bool tensors_vector(float *out, const struct tensors_place *p, const struct tensors_slot *slot) {
    struct array a;
    const struct tensors_part *part = &p->part;
    if (!slice(&a, p->array, p)) return false;
    if (a.dims == 2 && a.shape[0] == 1) { /* a stack of one */
        a.dims = 1;
        a.shape[0] = a.shape[1];
    }
    if (!is_float(&a) || a.dims != 1 || a.shape[0] != part->total) return false;
    struct mat all = format_plain(a.dtype, part->total, 1, a.bytes.data);
    all = format_part(&all, part->first, slot->cols, part->block, part->apart);
    if (out) format_decode(&all, 0, slot->cols, out);
    return true;
}
