#include "ops/residual.h"

struct sum {
    const struct backend *backend;
    float *x, *y;
    struct norm norm;
    float scale;
    size_t dim;
};

static void add_values(void *arg, size_t begin, size_t end, int thread) {
    const struct sum *s = arg;
    (void)thread;
    for (size_t i = begin; i < end; i++) s->x[i] += s->scale * s->y[i];
}

static void add_tokens(void *arg, size_t begin, size_t end, int thread) {
    const struct sum *s = arg;
    for (size_t t = begin; t < end; t++) {
        float *y = s->y + t * s->dim;
        norm_tokens(s->backend, y, y, &s->norm, 1, s->dim);
        add_values(arg, t * s->dim, (t + 1) * s->dim, thread);
    }
}

void residual_add(const struct backend *b, float *x, float *y, struct norm norm, float scale,
                  size_t n, size_t dim) {
    struct sum s = {b, x, y, norm, scale, dim};
    if (norm.kind)
        backend_split(b, n, 4 * dim, add_tokens, &s);
    else
        backend_split(b, n * dim, 1, add_values, &s);
}
