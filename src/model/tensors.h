/* Where the tensors of a model lie: the names that a slot goes by, and the part of a larger tensor
 * that it may be. */
#ifndef NIBBLE_MODEL_TENSORS_H
#define NIBBLE_MODEL_TENSORS_H

#include "model/spec.h"
#include "num/format.h"
#include "store/store.h"

enum { TENSORS_NAME_BYTES = 160 };

/* What stands before the names: "model." and, of a layer, "model.layers.%zu.". Where the text model
 * is a part of a larger one, root is before all its tensors; else it is "". */
struct tensors_prefix {
    const char *root, *model, *layer;
};

/* The tensors of one model. */
struct tensors {
    const struct store *store;
    const struct spec *spec;
    const struct tensors_prefix *prefix;
    bool meta; /* Meta's names */
};

/* What is looked for: one matrix [rows, cols] or one for each expert, or `count` vectors [cols],
 * rows 1; each is an item. names are words as weights.def has them. */
struct tensors_slot {
    const char *names;
    bool is_matrix, in_layer;
    bool of_experts; /* count matrices: in tensors of their own, or stacked, however few */
    size_t rows, cols, count;
};

/* Rows first, first + 1 .. of a tensor of `total` rows; with a block, so many of every `apart`. Of
 * a vector, numbers. */
struct tensors_part {
    size_t first, block, apart, total;
};

/* Where an item was found. */
struct tensors_place {
    char name[TENSORS_NAME_BYTES];        /* as it is, less ".weight" of a matrix */
    const struct array *array;            /* NULL: none of the names is there */
    const struct array *scales, *offsets; /* of a quantized matrix */
    struct tensors_part part;
    size_t index, of; /* in a tensor in which so many are stacked; 0 of 0: in one of its own */
    bool whole;       /* the slot is all of the tensor, as it lies */
    bool transposed;
};

/* Finds under which prefix a model's tensors go, by the names of its embedding, and whether they
 * are Meta's: the second of the words. False if none is there. */
bool tensors_open(struct tensors *t, const struct store *store, const struct spec *s,
                  const char *names);

/* Whether a tensor is one of the text model, as far as its name tells. */
bool tensors_in_root(const struct tensors *t, const char *name);

/* Number `item` under the first of a slot's names that is there. If none is, place->name is the one
 * that should be. */
void tensors_find(struct tensors_place *place, const struct tensors *t,
                  const struct tensors_slot *slot, size_t layer, size_t item);

/* The name by which an item of a slot is written: the first of its names. */
void tensors_name(char name[TENSORS_NAME_BYTES], const struct tensors *t,
                  const struct tensors_slot *slot, size_t layer, size_t item);

/* Whether the place holds a matrix of the slot's shape in a known format: *m borrows its bytes. */
bool tensors_matrix(struct mat *m, const struct tensors_place *place,
                    const struct tensors_slot *slot);

/* Whether it holds a vector of the slot's length; out, unless NULL, becomes its numbers. */
bool tensors_vector(float *out, const struct tensors_place *place, const struct tensors_slot *slot);

#endif
