/* A model: its files, numbers and tensors, immutable once open and shared by any number of runs. */
#ifndef NIBBLE_MODEL_MODEL_H
#define NIBBLE_MODEL_MODEL_H

#include "base/arena.h"
#include "model/arch.h"
#include "model/rotary.h"
#include "model/weights.h"
#include "store/store.h"

enum { MODEL_MAX_ENDS = 16 };

struct model {
    struct store store;
    const struct arch *arch;
    struct spec spec;
    struct weights weights;
    struct rope ropes[ROTARY_TABLES]; /* dim 0: there is no such table */
    int bos;                          /* from the config; -1: it does not say */
    int ends[MODEL_MAX_ENDS]; /* tokens that end a text, from config and generation_config */
    int end_count;
    struct arena arena; /* vectors and tables: small, whatever the model's size */
};

/* Opens what path holds (see store/store.h). The tokenizer is not looked at. */
bool model_open(struct model *m, const char *path, struct error *e);
void model_close(struct model *m);

/* The same in a short time, whatever has to be inflated: for looking at, not for running (see
 * store_glance). */
bool model_glance(struct model *m, const char *path, struct error *e);

/* Bytes of weights read for one token: every matrix once, of experts those that it takes, one row
 * of the embedding. */
size_t model_bytes_per_token(const struct model *m);

/* Multiply-adds of one token's products, by how ops/linear.h multiplies. */
struct model_ops {
    size_t int8, f32; /* with quantized weights, and with others */
};

struct model_ops model_layer_ops(const struct model *m); /* through all layers */
struct model_ops model_last_ops(const struct model *m);  /* of these, what only a token with logits
                                                            takes: the last layer behind its keys */
struct model_ops model_output_ops(const struct model *m);

/* The number of values in all tensors; of quantized ones the values they stand for. */
size_t model_parameters(const struct model *m);

#endif
