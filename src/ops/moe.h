/* A mixture of experts: a router chooses a few feed-forward blocks for each token.
 *
 *     l = Wr x + br                                    logits of the experts
 *     s = softmax(l), sigmoid(l) or l                  their scores
 *     the top_k experts with the largest s + correction are chosen, of the allowed groups only;
 *         of equals the one that comes first
 *     w = s of the chosen, or the softmax over theirs  their weights
 *     w = w / (sum of w + 1e-20)                       if renormalize
 *     y = sum over the chosen, in ascending order, of scale w Wdown (act(Wgate x) * Wup x), biased
 *         as linear is; then the shared expert's, times sigmoid(Ws x) if it has a router
 *
 * With weigh_inputs (Llama 4) it is the sum of Wdown (act(Wgate w x) * Wup w x).
 *
 * Groups (DeepSeek): experts lie in groups of as many. A group's score is the largest s +
 * correction in it (V2) or the sum of the two largest (V3); the top_groups best groups are allowed.
 *
 * Sources: Shazeer et al., 2017; Hugging Face transformers' modeling_mixtral, qwen2_moe (the shared
 * expert's router), qwen3_moe, olmoe, deepseek_v2, deepseek_v3, gpt_oss. Experts of other groups
 * are left out, as in DeepSeek's own code; transformers gives them a score of 0, which is no
 * difference while the others' are above. */
#ifndef NIBBLE_OPS_MOE_H
#define NIBBLE_OPS_MOE_H

#include "ops/linear.h"

enum moe_score {
    MOE_SOFTMAX,
    MOE_SIGMOID,
    MOE_LOGIT, /* weights are the softmax over the chosen; what softmax and renormalize are too */
};

/* How experts are chosen. top_k is at most the experts of top_groups groups. */
struct moe_choice {
    enum moe_score score;
    size_t top_k;
    size_t groups;     /* divides the experts; 0: none */
    size_t top_groups; /* at most groups */
    size_t group_best; /* a group's score is the sum of its 1 or 2 largest, so it has as many */
    bool renormalize;
    float scale;       /* of the weights; 1: none */
    bool weigh_inputs; /* instead of what the experts make of them */
};

/* A feed-forward block, or `experts` of them one after the other: matrices [dim -> hidden] and
 * back. gate is NULL where up alone is activated; a bias is NULL where there is none. */
struct moe_ffn {
    const struct mat *gate, *up, *down;
    const float *gate_bias, *up_bias; /* [hidden] each */
    const float *down_bias;           /* [dim] each */
};

/* The block of one layer. */
struct moe {
    struct moe_choice choice;
    enum activation activation;
    size_t experts;
    const struct mat *router;        /* [experts, dim] */
    const float *router_bias;        /* [experts]; NULL: none */
    const float *correction;         /* [experts], added for the choice only; NULL: none */
    struct moe_ffn expert;           /* [experts] */
    struct moe_ffn shared;           /* of every token; up NULL: none */
    const struct mat *shared_router; /* [1, dim]; NULL: the shared expert counts whole */
};

/* What is needed on the way, for batches of at most as many tokens as moe_layout was told. */
struct moe_scratch {
    float *logits;           /* [n, experts] then scores */
    float *ranks;            /* [n, experts + groups] what the choice goes by */
    float *weights;          /* [n, top_k] */
    size_t *chosen;          /* [n, top_k] ascending */
    size_t *slots;           /* [n, top_k] places in chosen, by expert */
    size_t *ends;            /* [experts] where an expert's slots end */
    float *x;                /* [n, dim] tokens of one expert */
    float *hidden;           /* [n, hidden], or [top_k, hidden] of one token */
    float *out;              /* [n, dim], or [top_k, dim] */
    struct gated *gates;     /* [top_k] */
    struct linear *products; /* [top_k] */
};

/* hidden: the most rows of an expert's up or the shared one's. */
void moe_layout(struct moe_scratch *s, struct arena *a, const struct moe_choice *choice,
                size_t experts, size_t dim, size_t hidden, size_t n);

/* y [n, dim] of the input [n, dim]; y is neither in.x nor in.h. Experts that no token chose are
 * not touched, the weights of the others are read once. A token's result does not depend on the
 * other tokens. linear_layout() must have been told top_k tokens or more, also where n is less. */
void moe(const struct backend *b, const struct moe *m, const struct moe_scratch *s, float *y,
         struct input in, size_t n);

#endif
