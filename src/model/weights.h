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
#define WEIGHTS_MATS(member) struct mat *member; /* [spec.experts]; NULL: there are none */
#define WEIGHTS_VEC(member) float *member;       /* NULL: there is none */
#define WEIGHTS_NORM(member) float *member;

struct layer {
#define MODEL_SLOT(kind, member, names, rows, cols, presence)
#define LAYER_SLOT(kind, member, names, rows, cols, presence) WEIGHTS_##kind(member)
#include "model/weights.def"
};

struct weights {
#define MODEL_SLOT(kind, member, names, rows, cols, presence) WEIGHTS_##kind(member)
#define LAYER_SLOT(kind, member, names, rows, cols, presence)
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
void weights_layout(struct weights *w, const struct spec *s, const struct store *store,
                    struct arena *a);

/* Binds what weights_check found sound: matrices borrow the store's bytes, vectors become f32. */
void weights_bind(struct weights *w, const struct spec *s, const struct store *store);

/* A tensor that is bound. */
struct weights_tensor {
    const char *name;           /* without ".weight"; of a part of a larger one, that of the slot */
    bool plain_name;            /* there was none to leave out: a bias */
    const struct mat *mat;      /* NULL: a vector */
    const float *vec;           /* [rows, cols] as it is used, norm_offset and all */
    const struct array *source; /* NULL: it is a part, or its rows lie apart */
    size_t rows, cols;
    bool of_experts; /* one of those of which a token takes top_k */
};

/* Calls visit once a tensor, in the order of the table, layer by layer. A tied output is not
 * visited. */
typedef void weights_visit(void *arg, const struct weights_tensor *t);
void weights_each(const struct weights *w, const struct spec *s, const struct store *store,
                  weights_visit *visit, void *arg);

#endif
