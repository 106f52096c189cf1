#include "ops/moe.h"

#include <math.h>
#include <string.h>

struct job {
    const struct backend *backend;
    const struct moe *m;
    const struct moe_scratch *s;
    float *y;
    const float *x;
    size_t dim;
    const size_t *slots; /* of one expert's tokens */
};

/* --- choosing --------------------------------------------------------------------------------- */

static void softmax(const struct backend *b, float *x, size_t n) {
    float max = -INFINITY, sum = b->kern.online_softmax(x, &max, n);
    for (size_t i = 0; i < n; i++) x[i] /= sum;
}

static float sigmoid(float x) {
    return 1 / (1 + expf(-x));
}

static void score(const struct job *j, float *logits) {
    size_t experts = j->m->experts;
    if (j->m->choice.score == MOE_SOFTMAX) softmax(j->backend, logits, experts);
    if (j->m->choice.score != MOE_SIGMOID) return;
    for (size_t i = 0; i < experts; i++) logits[i] = sigmoid(logits[i]);
}

/* Keeps in list, best first, the k best of what it holds and of experts begin .. end - 1; equals in
 * the order in which they came. Returns how many it holds. */
static size_t keep_best(size_t *list, size_t have, size_t k, const float *ranks, size_t begin,
                        size_t end) {
    for (size_t i = begin; i < end; i++) {
        size_t at = have;
        while (at > 0 && ranks[i] > ranks[list[at - 1]]) at--;
        if (at == k) continue;
        have += have < k;
        for (size_t p = have - 1; p > at; p--) list[p] = list[p - 1];
        list[at] = i;
    }
    return have;
}

static float score_group(const float *ranks, size_t count, size_t best) {
    float first = -INFINITY, second = -INFINITY;
    for (size_t i = 0; i < count; i++) {
        if (ranks[i] > first) {
            second = first;
            first = ranks[i];
        } else if (ranks[i] > second) {
            second = ranks[i];
        }
    }
    return best == 2 ? first + second : first;
}

/* Whether fewer than `most` groups come before this one. */
static bool is_allowed(const float *scores, size_t groups, size_t most, size_t group) {
    size_t before = 0;
    for (size_t g = 0; g < groups; g++) {
        before += scores[g] > scores[group] || (g < group && scores[g] == scores[group]);
    }
    return before < most;
}

static void choose_best(const struct moe *m, float *ranks, size_t *list) {
    const struct moe_choice *c = &m->choice;
    size_t groups = c->groups ? c->groups : 1, each = m->experts / groups, have = 0;
    float *scores = ranks + m->experts;
    for (size_t g = 0; g < c->groups; g++) {
        scores[g] = score_group(ranks + g * each, each, c->group_best);
    }
    for (size_t g = 0; g < groups; g++) {
        if (c->groups && !is_allowed(scores, groups, c->top_groups, g)) continue;
        have = keep_best(list, have, c->top_k, ranks, g * each, (g + 1) * each);
    }
}

static void sort(size_t *list, size_t n) {
    for (size_t i = 1; i < n; i++) {
        size_t v = list[i], at = i;
        for (; at > 0 && list[at - 1] > v; at--) list[at] = list[at - 1];
        list[at] = v;
    }
}

static void weigh(const struct job *j, const float *scores, const size_t *chosen, float *weights) {
    const struct moe_choice *c = &j->m->choice;
    for (size_t i = 0; i < c->top_k; i++) weights[i] = scores[chosen[i]];
    if (c->score == MOE_LOGIT) softmax(j->backend, weights, c->top_k);
    float sum = 0;
    for (size_t i = 0; i < c->top_k; i++) sum += weights[i];
    float total = c->renormalize ? sum + 1e-20f : 1;
    for (size_t i = 0; i < c->top_k; i++) weights[i] = weights[i] / total * c->scale;
}

static void choose_tokens(void *arg, size_t begin, size_t end, int thread) {
    const struct job *j = arg;
    const struct moe *m = j->m;
    size_t top = m->choice.top_k;
    (void)thread;
    for (size_t t = begin; t < end; t++) {
        float *scores = j->s->logits + t * m->experts;
        float *ranks = j->s->ranks + t * (m->experts + m->choice.groups);
        size_t *chosen = j->s->chosen + t * top;
        score(j, scores);
        for (size_t i = 0; i < m->experts; i++) {
            ranks[i] = scores[i] + (m->correction ? m->correction[i] : 0);
        }
        choose_best(m, ranks, chosen);
        sort(chosen, top);
        weigh(j, scores, chosen, j->s->weights + t * top);
        memset(j->y + t * j->dim, 0, j->dim * sizeof *j->y);
    }
}

/* The slots of all tokens in the order of experts, and within one in that of tokens. */
static void group_slots(const struct moe *m, const struct moe_scratch *s, size_t n) {
    size_t count = n * m->choice.top_k, sum = 0;
    memset(s->ends, 0, m->experts * sizeof *s->ends);
    for (size_t i = 0; i < count; i++) s->ends[s->chosen[i]]++;
    for (size_t e = 0; e < m->experts; e++) {
        size_t own = s->ends[e];
        s->ends[e] = sum; /* where its slots begin, until they are there */
        sum += own;
    }
    for (size_t i = 0; i < count; i++) s->slots[s->ends[s->chosen[i]]++] = i;
}

/* --- experts ---------------------------------------------------------------------------------- */

static void add_scaled(float *y, const float *x, float scale, size_t n) {
    for (size_t i = 0; i < n; i++) y[i] += scale * x[i];
}

static const float *bias_of(const float *bias, size_t rows, size_t expert) {
    return bias ? bias + expert * rows : NULL;
}

static struct gated gate_of(const struct moe_ffn *f, size_t expert, float *y) {
    const struct mat *up = &f->up[expert];
    return (struct gated){y, f->gate ? &f->gate[expert] : NULL, up,
                          bias_of(f->gate_bias, up->rows, expert),
                          bias_of(f->up_bias, up->rows, expert)};
}

static struct linear down_of(const struct moe_ffn *f, size_t expert, float *y) {
    const struct mat *down = &f->down[expert];
    return (struct linear){y, down, bias_of(f->down_bias, down->rows, expert)};
}

/* s->out = the block of n tokens. */
static void feed_forward(const struct job *j, const struct moe_ffn *f, size_t expert,
                         const float *x, size_t n) {
    struct gated gate = gate_of(f, expert, j->s->hidden);
    struct linear down = down_of(f, expert, j->s->out);
    linear_gated(j->backend, &gate, 1, j->m->activation, (struct input){.x = x}, n);
    linear(j->backend, &down, 1, (struct input){.x = j->s->hidden}, n);
}

static void gather_tokens(void *arg, size_t begin, size_t end, int thread) {
    const struct job *j = arg;
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        size_t slot = j->slots[i], token = slot / j->m->choice.top_k;
        float *x = j->s->x + i * j->dim, weight = j->s->weights[slot];
        memcpy(x, j->x + token * j->dim, j->dim * sizeof *x);
        for (size_t c = 0; j->m->choice.weigh_inputs && c < j->dim; c++) x[c] *= weight;
    }
}

static void add_tokens(void *arg, size_t begin, size_t end, int thread) {
    const struct job *j = arg;
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        size_t slot = j->slots[i], token = slot / j->m->choice.top_k;
        float weight = j->m->choice.weigh_inputs ? 1 : j->s->weights[slot];
        add_scaled(j->y + token * j->dim, j->s->out + i * j->dim, weight, j->dim);
    }
}

/* Expert by expert, each over the tokens that chose it. */
static void run_experts(struct job *j, size_t n) {
    const struct moe_scratch *s = j->s;
    group_slots(j->m, s, n);
    for (size_t e = 0, begin = 0; e < j->m->experts; begin = s->ends[e++]) {
        size_t count = s->ends[e] - begin;
        if (!count) continue;
        j->slots = s->slots + begin;
        backend_split(j->backend, count, j->dim, gather_tokens, j);
        feed_forward(j, &j->m->expert, e, s->x, count);
        backend_split(j->backend, count, j->dim, add_tokens, j);
    }
}

/* One token: all that it chose at once, for one expert alone is little work to share. */
static void run_token(const struct job *j) {
    const struct moe *m = j->m;
    const struct moe_scratch *s = j->s;
    size_t top = m->choice.top_k, hidden = m->expert.up->rows;
    for (size_t i = 0; i < top; i++) {
        s->gates[i] = gate_of(&m->expert, s->chosen[i], s->hidden + i * hidden);
        s->products[i] = down_of(&m->expert, s->chosen[i], s->out + i * j->dim);
    }
    linear_gated(j->backend, s->gates, top, m->activation, (struct input){.x = j->x}, 1);
    linear_each(j->backend, s->products, top, s->hidden);
    for (size_t i = 0; i < top; i++) {
        add_scaled(j->y, s->out + i * j->dim, s->weights[i], j->dim);
    }
}

/* --- the shared expert ------------------------------------------------------------------------ */

static void add_shared(void *arg, size_t begin, size_t end, int thread) {
    const struct job *j = arg;
    (void)thread;
    for (size_t t = begin; t < end; t++) {
        float weight = j->m->shared_router ? sigmoid(j->s->logits[t]) : 1;
        add_scaled(j->y + t * j->dim, j->s->out + t * j->dim, weight, j->dim);
    }
}

static void run_shared(struct job *j, size_t n) {
    struct linear router = {j->s->logits, j->m->shared_router, NULL};
    if (router.w) linear(j->backend, &router, 1, (struct input){.x = j->x}, n);
    feed_forward(j, &j->m->shared, 0, j->x, n);
    backend_split(j->backend, n, j->dim, add_shared, j);
}

void moe(const struct backend *b, const struct moe *m, const struct moe_scratch *s, float *y,
         struct input in, size_t n) {
    struct job j = {.backend = b, .m = m, .s = s, .y = y, .dim = m->router->cols};
    struct linear router = {s->logits, m->router, m->router_bias};
    j.x = in.norm.kind ? in.h : in.x; /* which the router's product makes */
    linear(b, &router, 1, in, n);
    backend_split(b, n, 8 * m->experts + j.dim, choose_tokens, &j);
    if (n == 1 && !m->choice.weigh_inputs)
        run_token(&j);
    else
        run_experts(&j, n);
    if (m->shared.up) run_shared(&j, n);
}

void moe_layout(struct moe_scratch *s, struct arena *a, const struct moe_choice *choice,
                size_t experts, size_t dim, size_t hidden, size_t n) {
    size_t top = choice->top_k, most = n > top ? n : top;
    s->logits = arena_take(a, n, experts * sizeof(float));
    s->ranks = arena_take(a, n, (experts + choice->groups) * sizeof(float));
    s->weights = arena_take(a, n, top * sizeof(float));
    s->chosen = arena_take(a, n, top * sizeof(size_t));
    s->slots = arena_take(a, n, top * sizeof(size_t));
    s->ends = arena_take(a, experts, sizeof(size_t));
    s->x = arena_take(a, n, dim * sizeof(float));
    s->hidden = arena_take(a, most, hidden * sizeof(float));
    s->out = arena_take(a, most, dim * sizeof(float));
    s->gates = arena_take(a, top, sizeof *s->gates);
    s->products = arena_take(a, top, sizeof *s->products);
}
