/* The table of rotary frequencies, with every kind of context extension folded in. */
#ifndef NIBBLE_MODEL_ROTARY_H
#define NIBBLE_MODEL_ROTARY_H

#include "model/spec.h"
#include "ops/rope.h"

/* The tables that a model may have. */
enum rotary_table {
    ROTARY_GLOBAL,
    ROTARY_LOCAL, /* of layers with a window, where they have one of their own; never extended */
    ROTARY_LONG,  /* instead of the global one, for texts longer than the original context */
    ROTARY_TABLES
};

bool rotary_has(const struct spec *s, enum rotary_table table);

/* Fills r->freq [r->dim / 2] and r->scale from s; the rest is set by the caller. Formulas: linear,
 * Chen et al. 2023 (position interpolation); yarn, Peng et al. 2023, section 3.4; llama3, Meta's
 * Llama 3.1 reference code; longrope, Ding et al. 2024; all as transformers' modeling_rope_utils.py
 * computes them. */
void rotary_fill(struct rope *r, const struct spec *s, enum rotary_table table);

#endif
