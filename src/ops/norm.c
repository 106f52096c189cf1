#include "ops/norm.h"

#include <math.h>

struct norm {
    const struct backend *backend;
    float *y;
    const float *x, *w;
    size_t dim;
    float eps;
};

static void norm_tokens(void *arg, size_t begin, size_t end, int thread) {
    const struct norm *a = arg;
    (void)thread;
    for (size_t t = begin; t < end; t++) {
        const float *x = a->x + t * a->dim;
        float *y = a->y + t * a->dim;
        float mean = a->backend->kern.dot_f32(x, x, a->dim) / (float)a->dim;
        float scale = 1 / sqrtf(mean + a->eps);
        for (size_t i = 0; i < a->dim; i++) y[i] = a->w[i] * (x[i] * scale);
    }
}

void norm_rms(const struct backend *b, float *y, const float *x, const float *w, size_t n,
              size_t dim, float eps) {
    struct norm a = {b, y, x, w, dim, eps};
    backend_split(b, n, 2 * dim, norm_tokens, &a);
}
