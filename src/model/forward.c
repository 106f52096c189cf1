/* The page: everything that a decoder-only transformer computes, over n tokens at once.
 *
 *     x  = E[token]
 *     x += attention(norm(x))        for each layer
 *     x += feed_forward(norm(x))
 *     logits = W norm(x)
 *
 * Decoding is n = 1. How a weight is stored, what CPU this is and whose model it is are not known
 * here: a step that a model does without has an empty slot, or a number that makes it do nothing
 * (a bias that is NULL, a scale of 1, a norm of no kind). */
#include "model/forward.h"

#include <string.h>

#include "ops/attend.h"
#include "ops/embed.h"
#include "ops/latent.h"
#include "ops/linear.h"
#include "ops/residual.h"
#include "ops/scale.h"
#include "ops/softcap.h"

static struct norm norm_of(const struct spec *s, const float *weight, const float *bias) {
    enum norm_kind kind = s->norm_kind == SPEC_NORM_LAYER ? NORM_LAYER : NORM_RMS;
    return (struct norm){kind, weight, bias, (float)s->norm_eps};
}

/* What a block reads: norm(x), made in y; or x, where norms come after blocks. */
static struct input block_input(const struct run *r, float *y, const float *weight,
                                const float *bias) {
    const struct spec *s = &r->model->spec;
    if (s->norms == SPEC_NORMS_POST) return (struct input){.x = r->x};
    return (struct input){r->x, norm_of(s, weight, bias), y};
}

/* x += y, or norm(y) where norms come after blocks. */
static void add_block(struct run *r, float *y, const float *weight, size_t n) {
    const struct spec *s = &r->model->spec;
    struct norm norm = {0};
    if (s->norms != SPEC_NORMS_PRE) norm = norm_of(s, weight, NULL);
    residual_add(&r->backend, r->x, y, norm, (float)s->residual_scale, n, s->dim);
}

/* --- attention -------------------------------------------------------------------------------- */

/* q, k, v = W y */
static void project(struct run *r, const struct layer *l, struct input y, size_t n) {
    linear(&r->backend,
           (struct linear[]){
               {r->q, &l->wq, l->q_bias}, {r->k, &l->wk, l->k_bias}, {r->v, &l->wv, l->v_bias}},
           3, y, n);
}

/* The same by way of short vectors: c = norm(Wa y), keys and values = Wb c, what turns of a key
 * straight from y and one for all heads; queries as they are, or of a short vector of their own. */
static void project_latent(struct run *r, const struct layer *l, struct input y, size_t n) {
    const struct backend *b = &r->backend;
    const struct spec *s = &r->model->spec;
    struct latent shape = {s->heads, s->nope_dim, s->rope_dim};
    struct linear from_y[] = {{r->kv_latent, &l->kv_a, l->kv_a_bias},
                              {r->k_rope, &l->k_rope, l->k_rope_bias},
                              {r->q, &l->wq, NULL}};
    if (s->q_rank) from_y[2] = (struct linear){r->q_latent, &l->q_a, l->q_a_bias};
    linear(b, from_y, 3, y, n);
    if (s->q_rank) {
        struct norm norm = {NORM_RMS, l->q_a_norm, NULL, (float)s->latent_eps};
        linear(b, &(struct linear){r->q, &l->q_b, NULL}, 1,
               (struct input){r->q_latent, norm, r->q_latent}, n);
    }
    struct norm norm = {NORM_RMS, l->kv_a_norm, NULL, (float)s->latent_eps};
    linear(b, (struct linear[]){{r->k_nope, &l->k_b, NULL}, {r->v, &l->v_b, NULL}}, 2,
           (struct input){r->kv_latent, norm, r->kv_latent}, n);
    latent_keys(b, &shape, r->k, r->k_nope, r->k_rope, n);
}

static void norm_queries_and_keys(struct run *r, const struct layer *l, size_t n) {
    const struct backend *b = &r->backend;
    const struct spec *s = &r->model->spec;
    struct norm q = norm_of(s, l->q_norm, l->q_norm_bias), k = q;
    k.weight = l->k_norm;
    k.bias = l->k_norm_bias;
    if (s->qk_norm == SPEC_QK_NORM_ALL) {
        norm_heads(b, r->q, &q, n, 1, s->heads * s->head_dim, false);
        norm_heads(b, r->k, &k, n, 1, s->kv_heads * s->head_dim, false);
    } else if (s->qk_norm) {
        bool own = s->qk_norm == SPEC_QK_NORM_HEADS;
        norm_heads(b, r->q, &q, n, s->heads, s->head_dim, own);
        norm_heads(b, r->k, &k, n, s->kv_heads, s->head_dim, own);
    }
}

static void clip(struct run *r, size_t n) {
    const struct spec *s = &r->model->spec;
    float limit = (float)s->qkv_clip;
    if (limit == 0) return;
    scale_clip(&r->backend, r->q, n * s->heads * s->head_dim, limit);
    scale_clip(&r->backend, r->k, n * s->kv_heads * s->head_dim, limit);
    scale_clip(&r->backend, r->v, n * s->kv_heads * s->value_dim, limit);
}

/* With y = norm(x): q = rope(Wq y), cache = cache + (rope(Wk y), Wv y) */
static void queries_and_cache(struct run *r, size_t layer, size_t n, size_t pos) {
    const struct backend *b = &r->backend;
    const struct spec *s = &r->model->spec;
    const struct layer *l = &r->model->weights.layers[layer];
    const struct spec_layer *kind = &s->layer[layer];
    const struct rotation *rope = kind->windowed && r->local.rope ? &r->local : &r->global;
    struct input y = block_input(r, r->h, l->attn_norm, l->attn_norm_bias);

    if (s->kv_rank)
        project_latent(r, l, y, n);
    else
        project(r, l, y, n);
    if (kind->rotates || !s->qk_norm_plain) norm_queries_and_keys(r, l, n);
    clip(r, n);
    if (kind->rotates && rope->rope) {
        rope_apply(b, rope->rope, rope->angles, r->q, n, s->heads, s->head_dim);
        rope_apply(b, rope->rope, rope->angles, r->k, n, s->kv_heads, s->head_dim);
    }
    if (!kind->rotates || !s->growth_unturned)
        rope_query_scale(b, &r->growth, r->q, n, s->heads * s->head_dim, pos);
    cache_store(b, &r->kv.layers[layer], r->k, r->v, n, pos);
}

/* Of n tokens the last ones become the first, and the only ones. */
static void keep_last(struct run *r, size_t n, size_t last) {
    size_t dim = r->model->spec.dim, width = r->model->spec.heads * r->model->spec.head_dim;
    if (last == n) return;
    memmove(r->x, r->x + (n - last) * dim, last * dim * sizeof *r->x);
    memmove(r->q, r->q + (n - last) * width, last * width * sizeof *r->q);
}

/* h = Wo attend(q, cache) */
static void attention(struct run *r, size_t layer, size_t n, size_t pos) {
    const struct backend *b = &r->backend;
    const struct spec *s = &r->model->spec;
    const struct layer *l = &r->model->weights.layers[layer];
    bool windowed = s->layer[layer].windowed;
    struct attention a = {.heads = s->heads,
                          .window = windowed ? s->window : 0,
                          .chunk = windowed ? s->chunk : 0,
                          .scale = (float)s->attention_scale,
                          .softcap = (float)s->score_softcap,
                          .sinks = l->sinks,
                          .parts = r->parts};
    attend(b, &a, &r->kv.layers[layer], r->attended, r->q, n, pos);
    linear(b, &(struct linear){r->h, &l->wo, l->o_bias}, 1, (struct input){.x = r->attended}, n);
}

/* --- feed-forward ----------------------------------------------------------------------------- */

/* With y = norm(x): f = Wdown (act(Wgate y) * Wup y), or Wdown act(Wup y) */
static void feed_forward(struct run *r, const struct layer *l, size_t n) {
    const struct backend *b = &r->backend;
    const struct spec *s = &r->model->spec;
    struct gated gate = {.y = r->gate,
                         .gate = s->ungated ? NULL : &l->gate,
                         .up = &l->up,
                         .gate_bias = l->gate_bias,
                         .up_bias = l->up_bias};
    struct input y = block_input(r, r->f, l->ffn_norm, l->ffn_norm_bias);
    linear_gated(b, &gate, 1, (enum activation)s->activation, y, n); // [n, hidden]
    linear(b, &(struct linear){r->f, &l->down, l->down_bias}, 1, (struct input){.x = r->gate}, n);
}

/* With y = norm(x): f = the sum of what the experts chosen for y make of it, weighted. */
static void mixture(struct run *r, const struct layer *l, size_t n) {
    const struct spec *s = &r->model->spec;
    struct moe m = {
        .choice = spec_choice(s),
        .activation = (enum activation)s->activation,
        .experts = s->experts,
        .router = &l->router,
        .router_bias = l->router_bias,
        .correction = l->correction,
        .expert = {l->expert_gate, l->expert_up, l->expert_down, l->expert_gate_bias,
                   l->expert_up_bias, l->expert_down_bias},
    };
    if (s->shared_hidden) {
        m.shared = (struct moe_ffn){&l->shared_gate,     &l->shared_up,     &l->shared_down,
                                    l->shared_gate_bias, l->shared_up_bias, l->shared_down_bias};
        m.shared_router = s->shared_router ? &l->shared_router : NULL;
    }
    moe(&r->backend, &m, &r->moe, r->f, block_input(r, r->h, l->ffn_norm, l->ffn_norm_bias), n);
}

/* --- all of it -------------------------------------------------------------------------------- */

void forward_layer(struct run *r, size_t i, size_t n, size_t pos, size_t last) {
    const struct spec *s = &r->model->spec;
    const struct layer *l = &r->model->weights.layers[i];
    queries_and_cache(r, i, n, pos);
    if (!last) return;
    keep_last(r, n, last);
    pos += n - last;
    n = last;
    attention(r, i, n, pos);
    if (!s->parallel) add_block(r, r->h, l->attn_post_norm, n);
    if (s->layer[i].experts)
        mixture(r, l, n);
    else
        feed_forward(r, l, n);
    if (s->parallel) add_block(r, r->h, l->attn_post_norm, n);
    add_block(r, r->f, l->ffn_post_norm, n);
}

void forward_begin(struct run *r, const int *ids, size_t n, size_t pos) {
    const struct backend *b = &r->backend;
    const struct spec *s = &r->model->spec;
    const struct weights *w = &r->model->weights;

    embed(b, r->x, &w->embed, (float)s->embed_scale, ids, n); // [n, dim]
    if (s->positions) embed_positions(b, r->x, r->h, &w->positions, n, pos);
    if (r->global.rope) rope_angles(r->global.rope, r->global.angles, n, pos);
    if (r->local.rope) rope_angles(r->local.rope, r->local.angles, n, pos);
}

void forward(struct run *r, const int *ids, size_t n, size_t pos, size_t last) {
    size_t layers = r->model->spec.layers;
    forward_begin(r, ids, n, pos);
    for (size_t i = 0; i < layers; i++) forward_layer(r, i, n, pos, i + 1 < layers ? n : last);
}

void forward_logits(struct run *r, size_t first, size_t count, float *logits) {
    const struct backend *b = &r->backend;
    const struct spec *s = &r->model->spec;
    const struct weights *w = &r->model->weights;
    struct input y = {r->x + first * s->dim, norm_of(s, w->norm, w->norm_bias), r->h};
    linear(b, &(struct linear){logits, &w->output, w->output_bias}, 1, y, count); // [count, vocab]
    scale(b, logits, count * s->vocab, (float)(s->logit_scale / s->logit_divisor));
    if (s->logit_softcap != 0) softcap(b, logits, count * s->vocab, (float)s->logit_softcap);
}
