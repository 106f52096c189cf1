#include "ops/scale.h"

struct values {
    float *x;
    float by;
};

static void multiply(void *arg, size_t begin, size_t end, int thread) {
    const struct values *v = arg;
    (void)thread;
    for (size_t i = begin; i < end; i++) v->x[i] *= v->by;
}

static void clip(void *arg, size_t begin, size_t end, int thread) {
    const struct values *v = arg;
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        float x = v->x[i] > v->by ? v->by : v->x[i];
        v->x[i] = x < -v->by ? -v->by : x;
    }
}

void scale(const struct backend *b, float *x, size_t n, float factor) {
    struct values v = {x, factor};
    if (factor != 1) backend_split(b, n, 1, multiply, &v);
}

void scale_clip(const struct backend *b, float *x, size_t n, float limit) {
    struct values v = {x, limit};
    backend_split(b, n, 1, clip, &v);
}
