#include "ops/attend.h"

#include <math.h>
#include <string.h>

static size_t row_bytes(const struct kv_layer *kv) {
    return kv->head_dim * dtype_bytes(kv->dtype);
}

/* Where position pos of a head lies in a plane. */
static unsigned char *row_of(const struct kv_layer *kv, unsigned char *plane, size_t head,
                             size_t pos) {
    return plane + (head * kv->context + pos) * row_bytes(kv);
}

static void store_row(const struct backend *b, const struct kv_layer *kv, unsigned char *row,
                      const float *x) {
    if (kv->dtype == DTYPE_F16)
        b->kern.store_f16(row, x, kv->head_dim);
    else
        memcpy(row, x, row_bytes(kv));
}

void attend_store(const struct backend *b, const struct kv_layer *kv, const float *k,
                  const float *v, size_t n, size_t pos) {
    for (size_t t = 0; t < n; t++) {
        for (size_t h = 0; h < kv->heads; h++) {
            size_t at = (t * kv->heads + h) * kv->head_dim;
            store_row(b, kv, row_of(kv, kv->k, h, pos + t), k + at);
            store_row(b, kv, row_of(kv, kv->v, h, pos + t), v + at);
        }
    }
}

struct attend {
    const struct backend *backend;
    const struct attention *attention;
    const struct kv_layer *kv;
    float *out;
    const float *q;
    size_t n, pos;
};

/* scores[j] for count positions from first on; returns the largest. */
static float score(const struct attend *a, float *scores, const float *q, size_t kv_head,
                   size_t first, size_t count) {
    const struct kv_layer *kv = a->kv;
    const struct kern *kern = &a->backend->kern;
    float (*dot)(const float *, const void *, size_t) =
        kv->dtype == DTYPE_F16 ? kern->dot_f16 : kern->dot_f32;
    const unsigned char *k = row_of(kv, kv->k, kv_head, first);
    size_t stride = row_bytes(kv), dim = kv->head_dim;
    float largest = -INFINITY;
    for (size_t j = 0; j < count; j++, k += stride) {
        float s = dot(q, k, dim) * a->attention->scale;
        scores[j] = s;
        largest = s > largest ? s : largest;
    }
    return largest;
}

/* Turns scores into exp(score - largest) and returns their sum. */
static float exponentials(float *scores, size_t count, float largest) {
    float sum = 0;
    for (size_t j = 0; j < count; j++) sum += scores[j] = expf(scores[j] - largest);
    return sum;
}

/* out = sum of weights[j] v[j] / total */
static void mix_values(const struct attend *a, float *out, const float *weights, float total,
                       size_t kv_head, size_t first, size_t count) {
    const struct kv_layer *kv = a->kv;
    const struct kern *kern = &a->backend->kern;
    void (*axpy)(float *, float, const void *, size_t) =
        kv->dtype == DTYPE_F16 ? kern->axpy_f16 : kern->axpy_f32;
    const unsigned char *v = row_of(kv, kv->v, kv_head, first);
    size_t stride = row_bytes(kv), dim = kv->head_dim;
    memset(out, 0, dim * sizeof *out);
    for (size_t j = 0; j < count; j++, v += stride) axpy(out, weights[j], v, dim);
    for (size_t i = 0; i < dim; i++) out[i] /= total;
}

/* One query: item is head * n + token, so that a thread's part holds early and late tokens alike.
 */
static void attend_queries(void *arg, size_t begin, size_t end, int thread) {
    const struct attend *a = arg;
    size_t heads = a->attention->heads, window = a->attention->window, dim = a->kv->head_dim;
    float *scores = backend_scratch(a->backend, thread);
    for (size_t item = begin; item < end; item++) {
        size_t h = item / a->n, t = item % a->n;
        size_t kv_head = h / (heads / a->kv->heads), seen = a->pos + t + 1;
        size_t first = window && seen > window ? seen - window : 0, count = seen - first;
        size_t at = (t * heads + h) * dim;
        float largest = score(a, scores, a->q + at, kv_head, first, count);
        float total = exponentials(scores, count, largest);
        mix_values(a, a->out + at, scores, total, kv_head, first, count);
    }
}

void attend(const struct backend *b, const struct attention *attention, const struct kv_layer *kv,
            float *out, const float *q, size_t n, size_t pos) {
    struct attend a = {b, attention, kv, out, q, n, pos};
    size_t cost = 2 * (pos + n) * kv->head_dim;
    backend_split(b, attention->heads * n, cost, attend_queries, &a);
}

size_t attend_scratch(size_t context) {
    return context;
}
