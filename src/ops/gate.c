#include "ops/gate.h"

/* Not x > 0 ? x : 0, which would lose a NaN. */
static float relu(float x) {
    return x < 0 ? 0 : x;
}

static void relu_mul(float *y, const float *up, size_t n) {
    for (size_t i = 0; i < n; i++) y[i] = relu(y[i]) * (up ? up[i] : 1);
}

static void relu2_mul(float *y, const float *up, size_t n) {
    for (size_t i = 0; i < n; i++) y[i] = relu(y[i]) * relu(y[i]) * (up ? up[i] : 1);
}

void gate_apply(const struct backend *b, enum activation a, float *y, const float *up, size_t n) {
    switch (a) {
    case ACTIVATION_SILU: b->kern.silu_mul(y, up, n); return;
    case ACTIVATION_GELU: b->kern.gelu_mul(y, up, n); return;
    case ACTIVATION_GELU_TANH: b->kern.gelu_tanh_mul(y, up, n); return;
    case ACTIVATION_RELU: relu_mul(y, up, n); return;
    case ACTIVATION_RELU2: relu2_mul(y, up, n); return;
    case ACTIVATION_CLAMPED: b->kern.clamped_swiglu(y, up, n); return;
    }
}
