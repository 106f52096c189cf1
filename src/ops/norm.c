#include "ops/norm.h"

#include <math.h>

/* As many partial sums as the compiler adds side by side. */
enum { LANES = 8 };

static double mean_of(const float *x, size_t n) {
    double sum[LANES] = {0}, total = 0;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (size_t lane = 0; lane < LANES; lane++) sum[lane] += (double)x[i + lane];
    }
    for (; i < n; i++) total += (double)x[i];
    for (size_t lane = 0; lane < LANES; lane++) total += sum[lane];
    return total / (double)n;
}

/* The difference is taken in double: a float could not hold what is left of a large mean. */
static void center(float *y, const float *x, size_t n) {
    double mean = mean_of(x, n);
    for (size_t i = 0; i < n; i++) y[i] = (float)((double)x[i] - mean);
}

static void scale_to_one(const struct backend *b, float *y, const float *x, const struct norm *norm,
                         size_t dim) {
    const float *w = norm->weight, *bias = norm->bias;
    float mean = b->kern.dot_f32(x, x, dim) / (float)dim;
    float scale = 1 / sqrtf(mean + norm->eps);
    if (w) {
        for (size_t i = 0; i < dim; i++) y[i] = w[i] * (x[i] * scale);
    } else {
        for (size_t i = 0; i < dim; i++) y[i] = x[i] * scale;
    }
    for (size_t i = 0; bias && i < dim; i++) y[i] += bias[i];
}

void norm_tokens(const struct backend *b, float *y, const float *x, const struct norm *norm,
                 size_t n, size_t dim) {
    for (; n; n--, x += dim, y += dim) {
        if (norm->kind == NORM_LAYER) center(y, x, dim);
        scale_to_one(b, y, norm->kind == NORM_LAYER ? y : x, norm, dim);
    }
}

struct heads {
    const struct backend *backend;
    float *x;
    const struct norm *norm;
    size_t count, dim;
    bool weights; /* of each head's own */
};

static void norm_some(void *arg, size_t begin, size_t end, int thread) {
    const struct heads *h = arg;
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        struct norm own = *h->norm;
        size_t at = h->weights ? i % h->count * h->dim : 0;
        if (own.weight) own.weight += at;
        if (own.bias) own.bias += at;
        norm_tokens(h->backend, h->x + i * h->dim, h->x + i * h->dim, &own, 1, h->dim);
    }
}

void norm_heads(const struct backend *b, float *x, const struct norm *norm, size_t n, size_t heads,
                size_t head_dim, bool per_head_weights) {
    struct heads h = {b, x, norm, heads, head_dim, per_head_weights};
    backend_split(b, n * heads, 4 * head_dim, norm_some, &h);
}
