/* The tensors of a model, bound by name and checked through the slot table weights.def. */
#ifndef NIBBLE_MODEL_WEIGHTS_H
#define NIBBLE_MODEL_WEIGHTS_H

#include "base/arena.h"
#include "model/spec.h"
#include "num/format.h"
#include "store/store.h"

/* Whose names the tensors carry; it also says how rope pairs dimensions unless the config does. */
enum weights_names { WEIGHTS_HUGGING_FACE, WEIGHTS_META };

#define WEIGHTS_MAT(member) struct mat member;
#define WEIGHTS_VEC(member) float *member;

struct layer {
#define MODEL_SLOT(kind, member, hf, meta, rows, cols)
#define LAYER_SLOT(kind, member, hf, meta, rows, cols) WEIGHTS_##kind(member)
#include "model/weights.def"
};

struct weights {
#define MODEL_SLOT(kind, member, hf, meta, rows, cols) WEIGHTS_##kind(member)
#define LAYER_SLOT(kind, member, hf, meta, rows, cols)
#include "model/weights.def"
    struct layer *layers; /* [spec.layers] */
    enum weights_names names;
};

/* Settles the sizes that spec leaves to the tensors (vocab, hidden), whose names are used, and
 * whether the output is tied (spec.tied becomes 0 or 1). */
bool weights_settle(struct weights *w, struct spec *s, const struct store *store, struct error *e);

/* Checks every slot against the store before anything is allocated: all missing and misshapen
 * tensors are reported at once with expected and found shapes, or else all that have no slot. */
bool weights_check(const struct weights *w, const struct spec *s, const struct store *store,
                   struct error *e);

/* Takes the layers and vectors from the arena (the counting run first; see base/arena.h). */
void weights_layout(struct weights *w, const struct spec *s, struct arena *a);

/* Binds what weights_check found sound: matrices borrow the store's bytes, vectors become f32. */
void weights_bind(struct weights *w, const struct spec *s, const struct store *store);

/* Calls visit once a tensor that is bound, in the order of the table, layer by layer. name lacks
 * ".weight"; m is NULL for a vector of `length`. A tied output is not visited. */
typedef void weights_visit(void *arg, const char *name, const struct mat *m, size_t length);
void weights_each(const struct weights *w, const struct spec *s, weights_visit *visit, void *arg);

#endif
