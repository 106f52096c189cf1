#include "model/weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/tensors.h"

enum kind { MAT, MATS, VEC, NORM };

enum slot_id {
#define MODEL_SLOT(kind, member, names, rows, cols, presence) SLOT_##member,
#define LAYER_SLOT(kind, member, names, rows, cols, presence) SLOT_##member,
#include "model/weights.def"
    SLOTS
};

struct slot {
    size_t offset; /* of the member in struct weights or struct layer */
    enum kind kind;
    bool in_layer;
};

static const struct slot slots[SLOTS] = {
#define MODEL_SLOT(kind, m, names, r, c, p) {offsetof(struct weights, m), kind, false},
#define LAYER_SLOT(kind, m, names, r, c, p) {offsetof(struct layer, m), kind, true},
#include "model/weights.def"
};

/* What weights.def says of a slot: its names and shape, and whether there is such a tensor. */
#define NEEDED true
#define IF(needed) (needed)

static bool slot_of(struct tensors_slot *slot, enum slot_id id, const struct spec *s,
                    size_t layer) {
    const struct spec_layer *l = &s->layer[layer];
#define SLOT(m, n, r, c, p)                                                                        \
    case SLOT_##m:                                                                                 \
        slot->names = n;                                                                           \
        slot->rows = r;                                                                            \
        slot->cols = c;                                                                            \
        there = p;                                                                                 \
        break;
#define MODEL_SLOT(kind, m, n, r, c, p) SLOT(m, n, r, c, p)
#define LAYER_SLOT(kind, m, n, r, c, p) SLOT(m, n, r, c, p)
    bool there = false;
    slot->is_matrix = slots[id].kind == MAT || slots[id].kind == MATS;
    slot->in_layer = slots[id].in_layer;
    slot->of_experts = slots[id].kind == MATS;
    slot->count = slot->of_experts ? s->experts : 1;
    switch (id) {
#include "model/weights.def"
    default: break;
    }
    if (!slot->is_matrix) { /* rows of a vector are items */
        slot->count = slot->rows;
        slot->rows = 1;
    }
    return there;
}

static void *member_of(struct weights *w, enum slot_id id, size_t layer) {
    char *base = slots[id].in_layer ? (char *)&w->layers[layer] : (char *)w;
    return base + slots[id].offset;
}

static struct mat *matrix_of(struct weights *w, enum slot_id id, size_t layer, size_t item) {
    void *member = member_of(w, id, layer);
    return slots[id].kind == MATS ? *(struct mat **)member + item : member;
}

static float *vector_of(struct weights *w, enum slot_id id, size_t layer) {
    return *(float **)member_of(w, id, layer);
}

/* A walk over all slots: those of the model, then those of each layer; and what its steps need. */
struct each {
    struct weights *w;
    const struct spec *s;
    struct tensors t;
    struct error *e;
    bool *used;    /* [store->count] when checking; NULL when binding */
    bool problems; /* e holds a list */
    struct arena *arena;
    weights_visit *visit;
    void *arg;
};

static struct each each_of(const struct weights *w, const struct spec *s,
                           const struct store *store) {
    struct each each = {.w = (struct weights *)w, .s = s};
    struct tensors_slot embed;
    slot_of(&embed, SLOT_embed, s, 0);
    tensors_open(&each.t, store, s, embed.names);
    return each;
}

/* Where a step of a walk is. */
struct at {
    enum slot_id id;
    size_t layer;
    struct tensors_slot slot;
};

static void each_slot(struct each *each, void (*act)(struct each *, const struct at *)) {
    for (size_t round = 0; round <= each->s->layers; round++) { /* the model, then each layer */
        struct at at = {.layer = round ? round - 1 : 0};
        for (int id = 0; id < SLOTS; id++) {
            at.id = (enum slot_id)id;
            if (slots[id].in_layer != (round > 0)) continue;
            if (slot_of(&at.slot, at.id, each->s, at.layer)) act(each, &at);
        }
    }
}

static void find_item(const struct each *each, const struct at *at, size_t item,
                      struct tensors_place *place) {
    tensors_find(place, &each->t, &at->slot, at->layer, item);
}

/* --- what the config leaves open ------------------------------------------------------------ */

static const struct array *find_first(const struct each *each, enum slot_id id,
                                      struct tensors_place *place) {
    struct tensors_slot slot;
    slot_of(&slot, id, each->s, 0);
    tensors_find(place, &each->t, &slot, 0, 0);
    return place->array && place->array->dims == 2 ? place->array : NULL;
}

static size_t rows_of(const struct each *each, enum slot_id id) {
    struct tensors_place place;
    const struct array *a = find_first(each, id, &place);
    if (!a) return 0;
    size_t rows = (size_t)a->shape[place.transposed];
    return place.whole || place.transposed ? rows : rows / 2; /* gate and up in one */
}

/* MLX has turned around what its source stores transposed; queries, keys and values in one tensor,
 * which is never square, tell. */
static void settle_transposed(const struct each *each, struct spec *s) {
    struct tensors_place place;
    const struct array *a = s->transposed ? find_first(each, SLOT_wq, &place) : NULL;
    if (a && place.transposed && a->shape[0] != s->dim && a->shape[1] == s->dim) s->transposed = 0;
}

bool weights_settle(struct weights *w, struct spec *s, const struct store *store, struct error *e) {
    struct each each = each_of(w, s, store);
    struct tensors_place place;
    if (!each.t.prefix) {
        return fail(
            e, STATUS_MODEL,
            "%s has neither model.embed_tokens.weight nor tok_embeddings.weight nor another "
            "known embedding: no known naming of tensors",
            store->path);
    }
    w->names = each.t.meta ? WEIGHTS_META : WEIGHTS_HUGGING_FACE;
    settle_transposed(&each, s);
    if (!s->vocab) s->vocab = rows_of(&each, SLOT_embed);
    if (!s->hidden && !s->layer[0].experts) s->hidden = rows_of(&each, SLOT_up);
    if (!s->context && s->positions) s->context = rows_of(&each, SLOT_positions);
    if (!s->vocab || (!s->hidden && !s->layer[0].experts)) {
        return fail(e, STATUS_MODEL, "%s: neither the config nor a tensor tells the size of the %s",
                    store->path, s->vocab ? "feed-forward" : "vocabulary");
    }
    if (s->tied < 0) s->tied = find_first(&each, SLOT_output, &place) == NULL;
    return true;
}

/* --- memory --------------------------------------------------------------------------------- */

static void take_slot(struct each *each, const struct at *at) {
    const struct tensors_slot *slot = &at->slot;
    if (slots[at->id].kind == MAT) return;
    size_t size = slot->is_matrix ? sizeof(struct mat) : slot->cols * sizeof(float);
    void *taken = arena_take(each->arena, slot->count, size);
    if (each->arena->base) *(void **)member_of(each->w, at->id, at->layer) = taken;
}

void weights_layout(struct weights *w, const struct spec *s, const struct store *store,
                    struct arena *a) {
    struct each each = each_of(w, s, store);
    each.arena = a;
    w->layers = arena_take(a, s->layers, sizeof *w->layers);
    if (a->base) memset(w->layers, 0, s->layers * sizeof *w->layers);
    each_slot(&each, take_slot);
}

/* --- checking ------------------------------------------------------------------------------- */

static void problem(struct each *each, const char *name, const char *found,
                    const struct tensors_slot *want, const struct tensors_place *p) {
    char stack[32] = "";
    size_t rows = want->is_matrix ? p->part.total : 1,
           cols = want->is_matrix ? want->cols : p->part.total;
    if (!each->problems) {
        each->problems = true;
        fail(each->e, STATUS_MODEL,
             "%s: tensors that its config asks for are missing, or of another type or shape:",
             each->t.store->path);
    }
    if (p->of) snprintf(stack, sizeof stack, "%zu, ", p->of);
    if (p->transposed)
        error_item(each->e, "%s: expected [%s%zu, %zu], %s", name, stack, cols, rows, found);
    else if (rows == 1)
        error_item(each->e, "%s: expected [%s%zu], %s", name, stack, cols, found);
    else
        error_item(each->e, "%s: expected [%s%zu, %zu], %s", name, stack, rows, cols, found);
}

/* Adds "WORDS TYPE [SHAPE]" to out, cut to its size. */
static void describe(char *out, size_t size, const char *words, const struct array *a) {
    char shape[NPY_MAX_DIMS * 24] = "";
    for (int i = 0; i < a->dims; i++) {
        size_t used = strlen(shape);
        snprintf(shape + used, sizeof shape - used, "%s%llu", i ? ", " : "",
                 (unsigned long long)a->shape[i]);
    }
    size_t used = strlen(out);
    snprintf(out + used, size - used, "%s %s [%s]", words, dtype_name(a->dtype), shape);
}

static void mark_used(struct each *each, const struct array *a) {
    if (a) each->used[a - each->t.store->arrays] = true;
}

static void mark_place(struct each *each, const struct tensors_place *p) {
    mark_used(each, p->array);
    mark_used(each, p->scales);
    mark_used(each, p->offsets);
}

static bool fits(const struct tensors_place *p, const struct tensors_slot *slot) {
    struct mat m;
    if (!p->array) return false;
    return slot->is_matrix ? tensors_matrix(&m, p, slot) : tensors_vector(NULL, p, slot);
}

static void check_item(struct each *each, const struct at *at, size_t item) {
    char full[TENSORS_NAME_BYTES + 16], found[512] = "";
    struct tensors_place p;
    find_item(each, at, item, &p);
    mark_place(each, &p);
    if (fits(&p, &at->slot)) return;

    if (p.array) describe(found, sizeof found, "found", p.array);
    if (p.array && p.scales) describe(found, sizeof found, " with scales", p.scales);
    if (p.array && p.offsets) describe(found, sizeof found, " with biases", p.offsets);
    if (p.array && p.scales && !p.offsets && p.array->dtype == DTYPE_U32)
        strncat(found, " without biases", sizeof found - strlen(found) - 1);
    snprintf(full, sizeof full, "%s%s", p.name, at->slot.is_matrix ? ".weight" : "");
    problem(each, p.array ? p.array->name : full, p.array ? found : "it is missing", &at->slot, &p);
}

static void check_slot(struct each *each, const struct at *at) {
    for (size_t item = 0; item < at->slot.count; item++) check_item(each, at, item);
}

/* With tied embeddings a file may hold the output all the same. */
static void mark_output(struct each *each) {
    struct tensors_place place;
    find_first(each, SLOT_output, &place);
    mark_place(each, &place);
}

static bool ends_with(const char *name, const char *end) {
    size_t a = strlen(name), b = strlen(end);
    return a >= b && strcmp(name + a - b, end) == 0;
}

/* Tables that are made anew when a model opens: of rope frequencies, and causal masks. */
static bool is_table(const char *name) {
    static const char *const ends[] = {"rotary_emb.inv_freq", "rope.freqs",
                                       ".attn.bias",          ".attn.masked_bias",
                                       ".attention.bias",     ".attention.masked_bias"};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        if (ends_with(name, ends[i])) return true;
    }
    return false;
}

/* Layers behind the last, which guess further tokens. */
static bool is_extra(const struct each *each, const char *name) {
    const struct spec *s = each->s;
    for (size_t i = s->layers; i < s->layers + s->extra_layers; i++) {
        char start[TENSORS_NAME_BYTES];
        int length = snprintf(start, sizeof start, each->t.prefix->layer, i);
        if (strncmp(name, start, (size_t)length) == 0) return true;
    }
    return false;
}

/* A tensor that has no slot would change the result if it were left out: refused. */
static bool check_unknown(struct each *each) {
    bool unknown = false;
    const struct store *store = each->t.store;
    for (size_t i = 0; i < store->count; i++) {
        const char *name = store->arrays[i].name;
        bool other = is_table(name) || is_extra(each, name) || !tensors_in_root(&each->t, name);
        if (each->used[i] || other) continue;
        if (!unknown) {
            fail(each->e, STATUS_MODEL,
                 "%s holds tensors that its family has no place for:", store->path);
        }
        unknown = true;
        error_item(each->e, "%s", name);
    }
    return !unknown;
}

bool weights_check(const struct weights *w, const struct spec *s, const struct store *store,
                   struct error *e) {
    struct each each = each_of(w, s, store);
    each.e = e;
    each.used = calloc(store->count + 1, sizeof *each.used);
    if (!each.used)
        return fail(e, STATUS_MEMORY, "not enough memory for a list of %zu tensors", store->count);
    each_slot(&each, check_slot);
    if (s->tied) mark_output(&each);
    bool ok = !each.problems && check_unknown(&each);
    if (!ok) error_items_end(e);
    free(each.used);
    return ok;
}

/* --- binding -------------------------------------------------------------------------------- */

static void bind_slot(struct each *each, const struct at *at) {
    const struct tensors_slot *slot = &at->slot;
    struct tensors_place place;
    for (size_t item = 0; item < slot->count; item++) {
        find_item(each, at, item, &place);
        if (slot->is_matrix) {
            tensors_matrix(matrix_of(each->w, at->id, at->layer, item), &place, slot);
            continue;
        }
        float *v = vector_of(each->w, at->id, at->layer) + item * slot->cols;
        float offset = slots[at->id].kind == NORM ? (float)each->s->norm_offset : 0;
        tensors_vector(v, &place, slot);
        for (size_t i = 0; i < slot->cols; i++) v[i] += offset;
    }
}

void weights_bind(struct weights *w, const struct spec *s, const struct store *store) {
    struct each each = each_of(w, s, store);
    each_slot(&each, bind_slot);
    if (s->tied) w->output = w->embed;
    for (size_t i = 0; s->norm_shared && i < s->layers; i++) {
        w->layers[i].ffn_norm = w->layers[i].attn_norm;
        w->layers[i].ffn_norm_bias = w->layers[i].attn_norm_bias;
    }
}

/* --- visiting ------------------------------------------------------------------------------- */

static void visit_item(struct each *each, const struct at *at, size_t item) {
    const struct tensors_slot *slot = &at->slot;
    struct tensors_place place;
    find_item(each, at, item, &place);
    struct weights_tensor t = {
        .name = place.name,
        .source = place.whole ? place.array : NULL,
        .rows = slot->is_matrix ? slot->rows : slot->count,
        .cols = slot->cols,
        .of_experts = slot->of_experts,
    };
    if (slot->is_matrix)
        t.mat = matrix_of(each->w, at->id, at->layer, item);
    else
        t.vec = vector_of(each->w, at->id, at->layer);
    if (!place.whole) tensors_name(place.name, &each->t, slot, at->layer, item);
    t.plain_name = !slot->is_matrix && !ends_with(place.name, ".weight");
    if (ends_with(place.name, ".weight")) place.name[strlen(place.name) - strlen(".weight")] = 0;
    each->visit(each->arg, &t);
}

static void visit_slot(struct each *each, const struct at *at) {
    size_t items =
        at->slot.is_matrix ? at->slot.count : 1; /* the rows of a vector are one tensor */
    for (size_t item = 0; item < items; item++) visit_item(each, at, item);
}

void weights_each(const struct weights *w, const struct spec *s, const struct store *store,
                  weights_visit *visit, void *arg) {
    struct each each = each_of(w, s, store);
    each.visit = visit;
    each.arg = arg;
    each_slot(&each, visit_slot);
}
