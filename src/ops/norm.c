#include "ops/norm.h"

#include <math.h>

void norm_rms(const struct backend *b, float *y, const float *x, const float *w, size_t n,
              size_t dim, float eps) {
    for (; n; n--, x += dim, y += dim) {
        float mean = b->kern.dot_f32(x, x, dim) / (float)dim;
        float scale = 1 / sqrtf(mean + eps);
        for (size_t i = 0; i < dim; i++) y[i] = w[i] * (x[i] * scale);
    }
}
