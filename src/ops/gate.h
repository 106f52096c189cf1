/* Activations, and gates made of them: y = act(gate) * up, or y = act(up) without a gate.
 *
 *     silu(x)      = x / (1 + exp(-x))                    Elfwing et al., 2018; gated: SwiGLU
 *     gelu(x)      = x / 2 (1 + erf(x / sqrt(2)))         Hendrycks and Gimpel, 2016
 *     gelu_tanh(x) = x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))      the same; GPT-2's
 *     relu(x)      = max(x, 0)
 *     relu2(x)     = max(x, 0)^2                          So et al., 2021 (Primer)
 *     clamped      y = (u + 1) g / (1 + exp(-1.702 g)), g = min(gate, 7), u = up within -7 .. 7
 *                                                         gpt-oss, openai/gpt-oss: torch/model.py
 *
 * Gates are Shazeer's, 2020 (GLU variants). All are within about 1e-6 of the values in double,
 * relative to them. NaN stays NaN. */
#ifndef NIBBLE_OPS_GATE_H
#define NIBBLE_OPS_GATE_H

#include "ops/backend.h"

enum activation {
    ACTIVATION_SILU,
    ACTIVATION_GELU,
    ACTIVATION_GELU_TANH,
    ACTIVATION_RELU,
    ACTIVATION_RELU2,
    ACTIVATION_CLAMPED, /* has no form without a gate */
};

/* y[i] = act(y[i]) * up[i], or act(y[i]) where up is NULL, for n values, on the calling thread. */
void gate_apply(const struct backend *b, enum activation a, float *y, const float *up, size_t n);

#endif
