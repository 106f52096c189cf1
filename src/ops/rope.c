#include "ops/rope.h"

#include <math.h>

void rope_angles(const struct rope *r, float *angles, size_t n, size_t pos) {
    for (size_t t = 0; t < n; t++) {
        for (size_t i = 0; i < r->dim / 2; i++) {
            float angle = (float)(pos + t) * r->freq[i];
            *angles++ = cosf(angle) * r->scale;
            *angles++ = sinf(angle) * r->scale;
        }
    }
}

static void turn(float *a, float *b, const float *angle) {
    float x = *a, y = *b;
    *a = x * angle[0] - y * angle[1];
    *b = x * angle[1] + y * angle[0];
}

static void turn_head(const struct rope *r, const float *angles, float *head) {
    float *x = head + r->first;
    size_t half = r->dim / 2;
    if (r->layout == ROPE_HALF) {
        for (size_t i = 0; i < half; i++) turn(x + i, x + half + i, angles + 2 * i);
    } else {
        for (size_t i = 0; i < half; i++) turn(x + 2 * i, x + 2 * i + 1, angles + 2 * i);
    }
}

struct rotation {
    const struct rope *rope;
    const float *angles;
    float *x;
    size_t heads, head_dim;
};

static void turn_tokens(void *arg, size_t begin, size_t end, int thread) {
    const struct rotation *a = arg;
    (void)thread;
    for (size_t t = begin; t < end; t++) {
        for (size_t h = 0; h < a->heads; h++) {
            turn_head(a->rope, a->angles + t * a->rope->dim,
                      a->x + (t * a->heads + h) * a->head_dim);
        }
    }
}

void rope_apply(const struct backend *b, const struct rope *r, const float *angles, float *x,
                size_t n, size_t heads, size_t head_dim) {
    struct rotation a = {r, angles, x, heads, head_dim};
    backend_split(b, n, 4 * heads * head_dim, turn_tokens, &a);
}

/* --- growing queries -------------------------------------------------------------------------- */

struct growth {
    const struct rope_growth *law;
    float *q;
    size_t dim, pos;
};

static void grow_tokens(void *arg, size_t begin, size_t end, int thread) {
    const struct growth *g = arg;
    const struct rope_growth *law = g->law;
    (void)thread;
    for (size_t t = begin; t < end; t++) {
        size_t contexts = (g->pos + t + law->offset) / law->context;
        float scale = (float)(1 + (double)law->beta * log1p((double)contexts));
        for (size_t i = 0; i < g->dim; i++) g->q[t * g->dim + i] *= scale;
    }
}

void rope_query_scale(const struct backend *b, const struct rope_growth *g, float *q, size_t n,
                      size_t dim, size_t pos) {
    struct growth growth = {g, q, dim, pos};
    if (g->beta != 0) backend_split(b, n, dim, grow_tokens, &growth);
}
