#include "model/weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "num/affine.h"

enum { NAME_BYTES = 128 };
enum kind { MAT, VEC };

enum slot_id {
#define MODEL_SLOT(kind, member, hf, meta, rows, cols) SLOT_##member,
#define LAYER_SLOT(kind, member, hf, meta, rows, cols) SLOT_##member,
#include "model/weights.def"
    SLOTS
};

struct slot {
    const char *names[2]; /* by enum weights_names */
    size_t offset;        /* of the member in struct weights or struct layer */
    enum kind kind;
    bool in_layer;
};

static const struct slot slots[SLOTS] = {
#define MODEL_SLOT(kind, m, hf, meta, r, c) {{hf, meta}, offsetof(struct weights, m), kind, 0},
#define LAYER_SLOT(kind, m, hf, meta, r, c) {{hf, meta}, offsetof(struct layer, m), kind, 1},
#include "model/weights.def"
};

struct shape {
    size_t rows, cols; /* a vector has one row */
};

static struct shape shape_of(enum slot_id id, const struct spec *s) {
    static const struct shape none;
    /* clang-format off */
    switch (id) {
#define MODEL_SLOT(kind, m, hf, meta, r, c) case SLOT_##m: return (struct shape){r, c};
#define LAYER_SLOT(kind, m, hf, meta, r, c) case SLOT_##m: return (struct shape){r, c};
#include "model/weights.def"
    default: return none;
    }
    /* clang-format on */
}

static void name_of(enum slot_id id, enum weights_names names, size_t layer,
                    char name[NAME_BYTES]) {
    snprintf(name, NAME_BYTES, slots[id].names[names], layer);
}

/* "name.suffix" in the store. */
static const struct array *find(const struct store *store, const char *name, const char *suffix) {
    char full[NAME_BYTES + 16];
    snprintf(full, sizeof full, "%s.%s", name, suffix);
    return store_find(store, full);
}

static void *member_of(struct weights *w, enum slot_id id, size_t layer) {
    char *base = slots[id].in_layer ? (char *)&w->layers[layer] : (char *)w;
    return base + slots[id].offset;
}

/* A walk over all slots: those of the model, then those of each layer; and what its steps need. */
struct each {
    struct weights *w;
    const struct spec *s;
    const struct store *store;
    struct error *e;
    bool *used;    /* [store->count] when checking; NULL when binding */
    bool problems; /* e holds a list */
    struct arena *arena;
    weights_visit *visit;
    void *arg;
};

static void each_slot(struct each *each, void (*act)(struct each *, enum slot_id, size_t layer)) {
    for (int id = 0; id < SLOTS; id++) {
        if (!slots[id].in_layer) act(each, (enum slot_id)id, 0);
    }
    for (size_t layer = 0; layer < each->s->layers; layer++) {
        for (int id = 0; id < SLOTS; id++) {
            if (slots[id].in_layer) act(each, (enum slot_id)id, layer);
        }
    }
}

/* --- what the config leaves open ------------------------------------------------------------ */

static size_t rows_of(const struct store *store, enum slot_id id, enum weights_names names) {
    char name[NAME_BYTES];
    name_of(id, names, 0, name);
    const struct array *a = find(store, name, "weight");
    return a && a->dims == 2 ? (size_t)a->shape[0] : 0;
}

bool weights_settle(struct weights *w, struct spec *s, const struct store *store, struct error *e) {
    const char *const *embed = slots[SLOT_embed].names;
    if (find(store, embed[WEIGHTS_HUGGING_FACE], "weight"))
        w->names = WEIGHTS_HUGGING_FACE;
    else if (find(store, embed[WEIGHTS_META], "weight"))
        w->names = WEIGHTS_META;
    else {
        return fail(e, STATUS_MODEL,
                    "%s has neither %s.weight nor %s.weight: no known naming of tensors",
                    store->path, embed[0], embed[1]);
    }
    if (!s->vocab) s->vocab = rows_of(store, SLOT_embed, w->names);
    if (!s->hidden) s->hidden = rows_of(store, SLOT_gate, w->names);
    if (!s->vocab || !s->hidden) {
        return fail(e, STATUS_MODEL, "%s: neither the config nor a tensor tells the size of the %s",
                    store->path, s->vocab ? "feed-forward" : "vocabulary");
    }
    char output[NAME_BYTES];
    name_of(SLOT_output, w->names, 0, output);
    if (s->tied < 0) s->tied = find(store, output, "weight") == NULL;
    return true;
}

/* --- memory --------------------------------------------------------------------------------- */

static void take_vector(struct each *each, enum slot_id id, size_t layer) {
    if (slots[id].kind != VEC) return;
    float *v = arena_take(each->arena, shape_of(id, each->s).cols, sizeof *v);
    if (each->arena->base) *(float **)member_of(each->w, id, layer) = v;
}

void weights_layout(struct weights *w, const struct spec *s, struct arena *a) {
    struct each each = {.w = w, .s = s, .arena = a};
    w->layers = arena_take(a, s->layers, sizeof *w->layers);
    each_slot(&each, take_vector);
}

/* --- checking ------------------------------------------------------------------------------- */

static void problem(struct each *each, const char *name, const char *found, struct shape want) {
    if (!each->problems) {
        each->problems = true;
        fail(each->e, STATUS_MODEL,
             "%s: tensors that its config asks for are missing, or of another type or shape:",
             each->store->path);
    }
    if (want.rows == 1)
        error_item(each->e, "%s: expected [%zu], %s", name, want.cols, found);
    else
        error_item(each->e, "%s: expected [%zu, %zu], %s", name, want.rows, want.cols, found);
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
    if (a && each->used) each->used[a - each->store->arrays] = true;
}

static bool is_float(const struct array *a) {
    return a->dtype == DTYPE_F32 || a->dtype == DTYPE_F16 || a->dtype == DTYPE_BF16;
}

static bool has_shape(const struct array *a, size_t rows, size_t cols) {
    return a->dims == 2 && a->shape[0] == rows && a->shape[1] == cols;
}

/* Quantized: group and bits follow from the shapes, whatever the config says. */
static bool fit_affine(struct mat *m, struct shape want, const struct array *codes,
                       const struct array *scales, const struct array *offsets) {
    if (codes->dtype != DTYPE_U32 || codes->dims != 2 || scales->dims != 2 || !scales->shape[1])
        return false;
    size_t group = want.cols / scales->shape[1], bits = codes->shape[1] * 32 / want.cols;
    if (group > 128 || bits > 8 || !affine_valid((int)bits, (int)group)) return false;
    if (!has_shape(codes, want.rows, want.cols * bits / 32) || want.cols % group != 0) return false;
    if (!has_shape(scales, want.rows, want.cols / group)) return false;
    if (!has_shape(offsets, want.rows, want.cols / group)) return false;
    if (!is_float(scales) || offsets->dtype != scales->dtype) return false;
    *m = affine_mat(want.rows, want.cols, (int)bits, (int)group, scales->dtype, codes->bytes.data,
                    scales->bytes.data, offsets->bytes.data);
    return true;
}

static bool fit_mat(const struct store *store, const char *name, const struct array *a,
                    struct shape want, struct mat *m) {
    const struct array *scales = find(store, name, "scales"),
                       *offsets = find(store, name, "biases");
    if (scales && offsets) return fit_affine(m, want, a, scales, offsets);
    if (scales || offsets || !is_float(a) || !has_shape(a, want.rows, want.cols)) return false;
    *m = format_plain(a->dtype, want.rows, want.cols, a->bytes.data);
    return true;
}

static bool fits_vec(const struct array *a, struct shape want) {
    return is_float(a) && a->dims == 1 && a->shape[0] == want.cols;
}

static bool is_tied_output(const struct each *each, enum slot_id id) {
    return id == SLOT_output && each->s->tied == 1;
}

static void check_slot(struct each *each, enum slot_id id, size_t layer) {
    char name[NAME_BYTES], full[NAME_BYTES + 16], found[512] = "";
    struct shape want = shape_of(id, each->s);
    struct mat m;
    name_of(id, each->w->names, layer, name);
    snprintf(full, sizeof full, "%s.weight", name);
    const struct array *a = store_find(each->store, full),
                       *scales = find(each->store, name, "scales"),
                       *biases = find(each->store, name, "biases");
    mark_used(each, a);
    mark_used(each, scales);
    mark_used(each, biases);
    if (is_tied_output(each, id)) return;
    if (a && (slots[id].kind == MAT ? fit_mat(each->store, name, a, want, &m) : fits_vec(a, want)))
        return;

    if (a) describe(found, sizeof found, "found", a);
    if (a && scales) describe(found, sizeof found, " with scales", scales);
    if (a && biases) describe(found, sizeof found, " with biases", biases);
    if (a && scales && !biases) strncat(found, " without biases", sizeof found - strlen(found) - 1);
    problem(each, full, a ? found : "it is missing", want);
}

static bool ends_with(const char *name, const char *end) {
    size_t a = strlen(name), b = strlen(end);
    return a >= b && strcmp(name + a - b, end) == 0;
}

/* A tensor that has no slot would change the result if it were left out: refused, but for tables
 * of rope frequencies, which we make ourselves. */
static bool check_unknown(struct each *each) {
    bool unknown = false;
    for (size_t i = 0; i < each->store->count; i++) {
        const char *name = each->store->arrays[i].name;
        if (each->used[i] || ends_with(name, "rotary_emb.inv_freq") ||
            strcmp(name, "rope.freqs") == 0)
            continue;
        if (!unknown) {
            fail(each->e, STATUS_MODEL,
                 "%s holds tensors that its family has no place for:", each->store->path);
        }
        unknown = true;
        error_item(each->e, "%s", name);
    }
    return !unknown;
}

bool weights_check(const struct weights *w, const struct spec *s, const struct store *store,
                   struct error *e) {
    struct each each = {.w = (struct weights *)w, .s = s, .store = store, .e = e};
    each.used = calloc(store->count + 1, sizeof *each.used);
    if (!each.used)
        return fail(e, STATUS_MEMORY, "not enough memory for a list of %zu tensors", store->count);
    each_slot(&each, check_slot);
    bool ok = !each.problems && check_unknown(&each);
    if (!ok) error_items_end(e);
    free(each.used);
    return ok;
}

/* --- binding -------------------------------------------------------------------------------- */

static void bind_slot(struct each *each, enum slot_id id, size_t layer) {
    char name[NAME_BYTES];
    if (is_tied_output(each, id)) {
        each->w->output = each->w->embed;
        return;
    }
    name_of(id, each->w->names, layer, name);
    const struct array *a = find(each->store, name, "weight");
    struct shape want = shape_of(id, each->s);
    void *member = member_of(each->w, id, layer);
    if (slots[id].kind == MAT) {
        fit_mat(each->store, name, a, want, member);
    } else {
        struct mat m = format_plain(a->dtype, 1, want.cols, a->bytes.data);
        m.format->decode(&m, 0, *(float **)member);
    }
}

void weights_bind(struct weights *w, const struct spec *s, const struct store *store) {
    struct each each = {.w = w, .s = s, .store = store};
    each_slot(&each, bind_slot);
}

/* --- visiting ------------------------------------------------------------------------------- */

static void visit_slot(struct each *each, enum slot_id id, size_t layer) {
    char name[NAME_BYTES];
    if (is_tied_output(each, id)) return;
    name_of(id, each->w->names, layer, name);
    const struct mat *m = slots[id].kind == MAT ? member_of(each->w, id, layer) : NULL;
    each->visit(each->arg, name, m, m ? 0 : shape_of(id, each->s).cols);
}

void weights_each(const struct weights *w, const struct spec *s, weights_visit *visit, void *arg) {
    struct each each = {.w = (struct weights *)w, .s = s, .visit = visit, .arg = arg};
    each_slot(&each, visit_slot);
}
