#include "ops/residual.h"

struct sum {
    float *x;
    const float *y;
};

static void add_part(void *arg, size_t begin, size_t end, int thread) {
    const struct sum *s = arg;
    (void)thread;
    for (size_t i = begin; i < end; i++) s->x[i] += s->y[i];
}

void residual_add(const struct backend *b, float *x, const float *y, size_t n, size_t dim) {
    struct sum s = {x, y};
    backend_split(b, n * dim, 1, add_part, &s);
}
