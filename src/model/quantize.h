/* Writes a model as a single .npz with its matrices in MLX's affine quantization.
 *
 * Vectors, config and tokenizer stay as they are; the config gains "quantization". Names stay too,
 * but what is part of a larger tensor becomes one of its own, under the first name of its slot in
 * weights.def. A matrix whose width is no multiple of the group keeps its type, or becomes f32 if
 * it is such a part. With 32 bits all matrices become f32, as they are decoded. One encoded matrix
 * is in memory at a time. */
#ifndef NIBBLE_MODEL_QUANTIZE_H
#define NIBBLE_MODEL_QUANTIZE_H

#include "model/calibrate.h"

struct quantize_options {
    int bits, group; /* as affine_valid() has them; or 32 bits: f32 */
    int embed_bits;  /* for the embedding, and so for an output tied to it; 0: as bits */
    int threads;
    int high_bits; /* for embedding, output and the matrices that lose most; 0: as bits */
    bool search;   /* scales and offsets are sought (num/search.h) */
    const struct calibrate_text *calibration; /* a text that search weighs errors by; or NULL */
    bool (*progress)(void *arg, size_t done,
                     size_t total); /* bytes of weights read; false: stop. May be NULL */
    void *arg;
};

struct quantize_report {
    size_t quantized;           /* matrices */
    size_t kept;                /* matrices whose width is no multiple of the group */
    size_t bytes_in, bytes_out; /* of all tensors */
};

/* Nothing appears under path unless all went well. */
bool quantize(const struct model *m, const char *path, const struct quantize_options *o,
              struct quantize_report *report, struct error *e);

#endif
