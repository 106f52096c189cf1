/* How experts are chosen, in double; and scratch for them in which a step beyond a piece is seen.
 */
#ifndef NIBBLE_TESTS_EXPERTS_H
#define NIBBLE_TESTS_EXPERTS_H

#include "matrix.h"
#include "ops/moe.h"

enum { MOST_EXPERTS = 64 };

/* --- scratch ---------------------------------------------------------------------------------- */

/* Pieces of exactly the documented sizes, each a block of its own: what writes beyond one is seen
 * by the address sanitizer. */
static inline struct moe_scratch experts_open_scratch(const struct moe *m, size_t dim,
                                                      size_t hidden, size_t n) {
    size_t top = m->choice.top_k, most = n > top ? n : top;
    return (struct moe_scratch){
        .logits = malloc(n * m->experts * sizeof(float)),
        .ranks = malloc(n * (m->experts + m->choice.groups) * sizeof(float)),
        .weights = malloc(n * top * sizeof(float)),
        .chosen = malloc(n * top * sizeof(size_t)),
        .slots = malloc(n * top * sizeof(size_t)),
        .ends = malloc(m->experts * sizeof(size_t)),
        .x = malloc(n * dim * sizeof(float)),
        .hidden = malloc(most * hidden * sizeof(float)),
        .out = malloc(most * dim * sizeof(float)),
        .gates = malloc(top * sizeof(struct gated)),
        .products = malloc(top * sizeof(struct linear)),
    };
}

static inline void experts_close_scratch(struct moe_scratch *s) {
    free(s->logits);
    free(s->ranks);
    free(s->weights);
    free(s->chosen);
    free(s->slots);
    free(s->ends);
    free(s->x);
    free(s->hidden);
    free(s->out);
    free(s->gates);
    free(s->products);
}

/* --- choosing, in double ---------------------------------------------------------------------- */

/* The best of those that are not taken; of equals the first. */
static inline size_t experts_best(const double *v, const bool *taken, size_t n) {
    size_t best = n;
    for (size_t i = 0; i < n; i++) {
        if (!taken[i] && (best == n || v[i] > v[best])) best = i;
    }
    return best;
}

/* No two of them differ by so little that f32 may see them otherwise. */
static inline bool experts_apart(const double *v, size_t n) {
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < i; k++) {
            double d = fabs(v[i] - v[k]);
            if (d > 0 && d < 1e-5 * (fabs(v[i]) + fabs(v[k]))) return false;
        }
    }
    return true;
}

/* Takes those whose group is not among the best; false if that is too close to tell. */
static inline bool experts_take_groups(const struct moe_choice *c, const double *rank,
                                       size_t experts, bool *taken) {
    double group[MOST_EXPERTS];
    bool used[MOST_EXPERTS] = {false}, allowed[MOST_EXPERTS] = {false};
    size_t each = experts / c->groups;
    for (size_t g = 0; g < c->groups; g++) {
        bool seen[MOST_EXPERTS] = {false};
        group[g] = 0;
        for (size_t i = 0; i < c->group_best; i++) {
            size_t best = experts_best(rank + g * each, seen, each);
            group[g] += rank[g * each + best];
            seen[best] = true;
        }
    }
    for (size_t i = 0; i < c->top_groups; i++) {
        size_t best = experts_best(group, used, c->groups);
        used[best] = allowed[best] = true;
    }
    for (size_t i = 0; i < experts; i++) taken[i] = !allowed[i / each];
    return experts_apart(group, c->groups);
}

/* weight [experts], 0 for those not chosen. False if the choice is too close to tell. */
static inline bool experts_weigh(const struct moe *m, const double *logit, double *weight) {
    const struct moe_choice *c = &m->choice;
    double score[MOST_EXPERTS], rank[MOST_EXPERTS], sum = 0, total = 0;
    bool taken[MOST_EXPERTS] = {false}, apart;
    size_t n = m->experts;
    for (size_t i = 0; i < n; i++) sum += exp(logit[i]);
    for (size_t i = 0; i < n; i++) {
        score[i] = c->score == MOE_SOFTMAX   ? exp(logit[i]) / sum
                   : c->score == MOE_SIGMOID ? 1 / (1 + exp(-logit[i]))
                                             : logit[i];
        rank[i] = score[i] + (m->correction ? m->correction[i] : 0);
        weight[i] = 0;
    }
    apart = experts_apart(rank, n);
    if (c->groups) apart &= experts_take_groups(c, rank, n, taken);
    for (size_t k = 0; k < c->top_k; k++) {
        size_t best = experts_best(rank, taken, n);
        taken[best] = true;
        weight[best] = c->score == MOE_LOGIT ? exp(score[best]) : score[best];
        total += weight[best];
    }
    if (c->score != MOE_LOGIT) total = c->renormalize ? total + 1e-20 : 1;
    for (size_t i = 0; i < n; i++) weight[i] *= (double)c->scale / total;
    return apart;
}

#endif
