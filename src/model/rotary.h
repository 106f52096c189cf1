/* The table of rotary frequencies, with every kind of context extension folded in. */
#ifndef NIBBLE_MODEL_ROTARY_H
#define NIBBLE_MODEL_ROTARY_H

#include "model/spec.h"
#include "ops/rope.h"

/* Fills r->freq [r->dim / 2] and r->scale from s; r->dim and r->layout are set by the caller.
 * Formulas: linear, Chen et al. 2023 (position interpolation); yarn, Peng et al. 2023, section 3.4;
 * llama3, Meta's Llama 3.1 reference code; all as transformers' modeling_rope_utils.py computes
 * them. */
void rotary_fill(struct rope *r, const struct spec *s);

#endif
