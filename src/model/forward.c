/* The page: everything that a decoder-only transformer computes, over n tokens at once.
 *
 *     x  = E[token]
 *     x += attention(norm(x))        for each layer
 *     x += feed_forward(norm(x))
 *     logits = W norm(x)
 *
 * Decoding is n = 1. How a weight is stored, what CPU this is and whose model it is are not known
 * here. */
#include "model/forward.h"

#include <math.h>

#include "ops/attend.h"
#include "ops/embed.h"
#include "ops/linear.h"
#include "ops/residual.h"

/* What a block reads: norm(x), made in h. */
static struct input normed(const struct run *r, const float *norm) {
    struct norm rms = {NORM_RMS, norm, NULL, (float)r->model->spec.norm_eps};
    return (struct input){r->x, rms, r->h};
}

/* With y = norm(x): h = Wo attend(rope(Wq y), cache + rope(Wk y), cache + Wv y) */
static void attention(struct run *r, const struct layer *l, const struct cache *cache, size_t n,
                      size_t pos) {
    const struct backend *b = &r->backend;
    const struct spec *s = &r->model->spec;
    const struct rope *rope = &r->model->rope;
    struct attention a = {.heads = s->heads,
                          .window = s->window,
                          .scale = 1 / sqrtf((float)s->head_dim),
                          .parts = r->parts};

    linear(b, (struct linear[]){{r->q, &l->wq}, {r->k, &l->wk}, {r->v, &l->wv}}, 3,
           normed(r, l->attn_norm), n);
    rope_apply(b, rope, r->angles, r->q, n, s->heads, s->head_dim);
    rope_apply(b, rope, r->angles, r->k, n, s->kv_heads, s->head_dim);
    cache_store(b, cache, r->k, r->v, n, pos);
    attend(b, &a, cache, r->q, r->q, n, pos);
    linear(b, &(struct linear){r->h, &l->wo}, 1, (struct input){.x = r->q}, n); // [n, dim]
}

/* With y = norm(x): h = Wdown (silu(Wgate y) * Wup y) */
static void feed_forward(struct run *r, const struct layer *l, size_t n) {
    const struct backend *b = &r->backend;
    linear_gated(b, r->gate, &l->gate, &l->up, normed(r, l->ffn_norm), n);           // [n, hidden]
    linear(b, &(struct linear){r->h, &l->down}, 1, (struct input){.x = r->gate}, n); // [n, dim]
}

void forward(struct run *r, const int *ids, size_t n, size_t pos) {
    const struct backend *b = &r->backend;
    const struct spec *s = &r->model->spec;
    const struct weights *w = &r->model->weights;

    embed(b, r->x, &w->embed, ids, n); // [n, dim]
    rope_angles(&r->model->rope, r->angles, n, pos);
    for (size_t i = 0; i < s->layers; i++) {
        const struct layer *l = &w->layers[i];
        attention(r, l, &r->kv.layers[i], n, pos);
        residual_add(b, r->x, r->h, n, s->dim);
        feed_forward(r, l, n);
        residual_add(b, r->x, r->h, n, s->dim);
    }
}

void forward_logits(struct run *r, size_t first, size_t count, float *logits) {
    const struct spec *s = &r->model->spec;
    const struct weights *w = &r->model->weights;
    struct input h = normed(r, w->norm);
    h.x += first * s->dim;
    linear(&r->backend, &(struct linear){logits, &w->output}, 1, h, count); // [count, vocab]
}
