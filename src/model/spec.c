#include "model/spec.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>

/* The first are those of enum activation, the rest other words for them. */
static const char *const spec_activations[] = {
    "silu",  "gelu",     "gelu_pytorch_tanh", "relu",      "relu2", "clamped swiglu",
    "swish", "gelu_new", "gelu_tanh",         "gelu_fast", NULL};
static const char *const spec_norms[] = {"before blocks", "after blocks", "before and after", NULL};
static const char *const spec_norm_kinds[] = {"rms", "layer", NULL};
static const char *const spec_qk_norms[] = {"none", "each head", "each head of its own",
                                            "all heads", NULL};
static const char *const spec_expert_scores[] = {"softmax", "sigmoid", "softmax of the chosen",
                                                 NULL};
static const char *const spec_rope_kinds[] = {"default",  "linear", "llama3", "yarn",
                                              "longrope", "su",     NULL};

enum kind { KIND_SIZE, KIND_REAL, KIND_FLAG, KIND_CHOICE };

struct row {
    const char *member, *names;
    enum kind kind;
    size_t offset;
    double absent, low, high;
    const char *const *words;
};

#define REQUIRED NAN /* as the value when absent: the file must say it */
#define ROW(m, n, k) .member = #m, .names = n, .kind = k, .offset = offsetof(struct spec, m)
#define SPEC_SIZE(m, n, a, l, h) {ROW(m, n, KIND_SIZE), .absent = a, .low = l, .high = h},
#define SPEC_REAL(m, n, a, l, h) {ROW(m, n, KIND_REAL), .absent = a, .low = l, .high = h},
#define SPEC_FLAG(m, n, a) {ROW(m, n, KIND_FLAG), .absent = a},
#define SPEC_CHOICE(m, n, w) {ROW(m, n, KIND_CHOICE), .words = w},
static const struct row rows[] = {
#include "model/spec.def"
};
enum { ROWS = sizeof rows / sizeof *rows };

static void *member_of(struct spec *s, const struct row *r) {
    return (char *)s + r->offset;
}

/* What the family says of a number; 0: nothing. */
static double family_number(const struct spec *family, const struct row *r) {
    const void *at = member_of((struct spec *)family, r);
    return r->kind == KIND_REAL ? *(const double *)at : (double)*(const size_t *)at;
}

static bool read_number(struct spec *s, const struct row *r, const struct config *c,
                        const struct spec *family, struct error *e) {
    double v = family_number(family, r);
    if (v == 0) v = r->absent;
    if (!config_number(c, r->names, r->low, r->high, r->kind == KIND_SIZE, &v, e)) return false;
    if (isnan(v)) {
        return fail(e, STATUS_MODEL, "%s does not say %.*s, which the model needs", c->where,
                    config_width(r->names), r->names);
    }
    if (r->kind == KIND_REAL)
        *(double *)member_of(s, r) = v;
    else
        *(size_t *)member_of(s, r) = v < 0 ? 0 : (size_t)v; /* -1 is how some files say nothing */
    return true;
}

static bool read_row(struct spec *s, const struct row *r, const struct config *c,
                     const struct spec *family, struct error *e) {
    int *number = member_of(s, r);
    if (r->kind == KIND_SIZE || r->kind == KIND_REAL) return read_number(s, r, c, family, e);
    *number = *(const int *)member_of((struct spec *)family, r);
    if (r->kind == KIND_CHOICE) return config_choice(c, r->names, r->words, number, e);
    if (*number == 0) *number = (int)r->absent;
    return config_flag(c, r->names, number, e);
}

/* What one number leaves open and another settles. */
static bool settle_heads(struct spec *s, const struct config *c, struct error *e) {
    if (!s->kv_heads) s->kv_heads = s->heads;
    if (s->heads % s->kv_heads != 0) {
        return fail(e, STATUS_MODEL,
                    "%s: %zu attention heads cannot share %zu key/value heads evenly", c->where,
                    s->heads, s->kv_heads);
    }
    if (s->kv_rank) s->head_dim = s->nope_dim + s->rope_dim;
    if (!s->kv_rank) s->nope_dim = 0;
    if (!s->head_dim && s->dim % s->heads != 0) {
        return fail(e, STATUS_MODEL,
                    "%s: %zu dimensions do not divide into %zu heads, and head_dim is not given",
                    c->where, s->dim, s->heads);
    }
    if (!s->head_dim) s->head_dim = s->dim / s->heads;
    if (!s->value_dim) s->value_dim = s->head_dim;
    if (!s->kv_rank) s->rope_dim = (size_t)((double)s->head_dim * s->rope_partial);
    s->rope_dim += s->rope_dim % 2; /* whole pairs */
    if (s->query_scalar == 0) s->query_scalar = (double)s->head_dim;
    if (s->attention_scale == 0) s->attention_scale = 1 / sqrt(s->query_scalar);
    if (s->nope_dim + s->rope_dim <= s->head_dim) return true;
    return fail(e, STATUS_MODEL,
                "%s: heads of %zu dimensions; rope turns pairs, so it must be even", c->where,
                s->head_dim);
}

static bool settle_latent(struct spec *s, const struct config *c, struct error *e) {
    bool even = !s->kv_heads || s->kv_heads == s->heads;
    if (!s->kv_rank || (s->nope_dim && s->rope_dim && even)) return true;
    return fail(e, STATUS_MODEL,
                "%s: latent attention (kv_lora_rank) needs qk_nope_head_dim, qk_rope_head_dim and "
                "as many key/value heads as heads",
                c->where);
}

static bool settle_experts(struct spec *s, const struct config *c, struct error *e) {
    if (!s->experts) return true;
    if (!s->expert_hidden) s->expert_hidden = s->hidden;
    size_t groups = s->expert_groups, each = groups ? s->experts / groups : s->experts;
    size_t reach = groups ? each * s->top_groups : s->experts;
    if (groups && (s->experts % groups != 0 || !s->top_groups || s->top_groups > groups ||
                   each < s->group_best)) {
        return fail(e, STATUS_MODEL, "%s: %zu experts cannot be chosen from %zu of %zu groups",
                    c->where, s->experts, s->top_groups, groups);
    }
    if (s->top_k && s->top_k <= reach && s->expert_hidden) return true;
    return fail(e, STATUS_MODEL,
                "%s: %zu experts of %zu dimensions, of which a token takes %zu: that cannot be",
                c->where, s->experts, s->expert_hidden, s->top_k);
}

/* A scaling that is there but not understood must not be passed over. */
static bool check_rope(const struct config *c, struct error *e) {
    static const char *const unscaled[] = {"default", NULL}; /* where there are two tables */
    const char *name;
    int kind;
    if (!config_choice(c,
                       "rope_parameters.sliding_attention.rope_type "
                       "rope_parameters.sliding_attention.type",
                       unscaled, &kind, e)) {
        return false;
    }
    if (config_find(c, "rope_parameters.full_attention.type", NULL)) {
        return fail(e, STATUS_MODEL,
                    "%s: rope_parameters.full_attention.type is not read; it is "
                    "called rope_type there",
                    c->where);
    }
    const cJSON *rope = config_find(c, "rope_parameters rope_scaling", &name);
    if (!rope || cJSON_IsObject(rope)) {
        bool typed = config_find(c, "rope_scaling.rope_type rope_scaling.type", NULL);
        if (typed || !config_find(c, "rope_scaling", NULL)) return true;
        return fail(e, STATUS_MODEL, "%s: rope_scaling does not say its rope_type", c->where);
    }
    return fail(e, STATUS_MODEL, "%s: %.*s is not an object with a rope_type", c->where,
                config_width(name), name);
}

/* The list at `name`, a number for each pair of dimensions. */
static bool read_divisors(float *out, const struct spec *s, const struct config *c,
                          const char *name, struct error *e) {
    static const char *const objects[] = {"rope_parameters", "rope_scaling"};
    size_t pairs = s->rope_dim / 2, count = 0;
    for (size_t i = 0; i < 2; i++) {
        char path[96];
        for (count = 0; count <= pairs && count < SPEC_MAX_PAIRS; count++) {
            double v = 0;
            snprintf(path, sizeof path, "%s.%s.%zu", objects[i], name, count);
            if (!config_find(c, path, NULL)) break;
            if (!config_number(c, path, 1e-6, 1e6, false, &v, e)) return false;
            out[count] = (float)v;
        }
        if (count) break;
    }
    if (count == pairs) return true;
    return fail(e, STATUS_MODEL, "%s: %s must be a list of %zu numbers, one for each pair",
                c->where, name, pairs);
}

static bool settle_long_rope(struct spec *s, const struct config *c, struct error *e) {
    s->rope_kind = SPEC_ROPE_LONG;
    if (s->rope_factor == 0 && s->context)
        s->rope_factor = (double)s->context / s->rope_original_context;
    return read_divisors(s->rope_short, s, c, "short_factor", e) &&
           read_divisors(s->rope_long, s, c, "long_factor", e);
}

static bool settle_rope(struct spec *s, const struct config *c, struct error *e) {
    const char *kind = spec_rope_kinds[s->rope_kind];
    bool needs_factor = s->rope_kind != SPEC_ROPE_DEFAULT && s->rope_kind < SPEC_ROPE_LONG;
    if (s->rope_original_context == 0) s->rope_original_context = (double)s->context;
    if (needs_factor && s->rope_factor == 0) {
        return fail(e, STATUS_MODEL, "%s: rope scaling '%s' needs a factor", c->where, kind);
    }
    bool needs_context = s->rope_kind >= SPEC_ROPE_LLAMA3;
    if (needs_context && s->rope_original_context == 0) {
        return fail(e, STATUS_MODEL, "%s: rope scaling '%s' needs original_max_position_embeddings",
                    c->where, kind);
    }
    if (s->sharpened && s->rope_kind != SPEC_ROPE_DEFAULT && s->rope_factor > 1) {
        double sharper = 0.1 * s->rope_mscale_all_dim * log(s->rope_factor) + 1;
        s->attention_scale *= sharper * sharper;
    }
    if (s->rope_kind >= SPEC_ROPE_LONG) return settle_long_rope(s, c, e);
    if (s->rope_kind != SPEC_ROPE_LLAMA3) return true;
    if (s->rope_low_freq_factor > 0 && s->rope_high_freq_factor > s->rope_low_freq_factor)
        return true;
    return fail(e, STATUS_MODEL,
                "%s: rope scaling '%s' needs a low_freq_factor and a larger high_freq_factor",
                c->where, kind);
}

static void settle_activation(struct spec *s) {
    static const int meant[] = {[6] = ACTIVATION_SILU,
                                [7] = ACTIVATION_GELU_TANH,
                                [8] = ACTIVATION_GELU_TANH,
                                [9] = ACTIVATION_GELU_TANH};
    if (s->activation > ACTIVATION_CLAMPED) s->activation = meant[s->activation];
}

static void settle_layers(struct spec *s) {
    for (size_t i = 0; i < s->layers; i++) {
        s->layer[i] = (struct spec_layer){s->window > 0, true, s->experts > 0};
    }
}

bool spec_read(struct spec *s, const struct config *c, const struct spec *family, struct error *e) {
    for (int i = 0; i < ROWS; i++) {
        if (!read_row(s, &rows[i], c, family, e)) return false;
    }
    settle_activation(s);
    settle_layers(s);
    return check_rope(c, e);
}

bool spec_settle(struct spec *s, const struct config *c, struct error *e) {
    return settle_latent(s, c, e) && settle_heads(s, c, e) && settle_rope(s, c, e) &&
           settle_experts(s, c, e);
}

struct moe_choice spec_choice(const struct spec *s) {
    return (struct moe_choice){
        .score = (enum moe_score)s->expert_score,
        .top_k = s->top_k,
        .groups = s->expert_groups,
        .top_groups = s->top_groups,
        .group_best = s->group_best,
        .renormalize = s->renormalize,
        .scale = (float)s->expert_scale,
        .weigh_inputs = s->weigh_inputs,
    };
}

static bool is_neutral(const struct row *r, const void *at) {
    double v = 0;
    switch (r->kind) {
    case KIND_SIZE: v = (double)*(const size_t *)at; break;
    case KIND_REAL: v = *(const double *)at; break;
    case KIND_FLAG: return *(const int *)at <= 0;
    case KIND_CHOICE: return false;
    }
    return v == 0 || (v == 1 && r->absent == 1);
}

static void format_value(char *text, size_t size, const struct row *r, const void *at) {
    int number = 0;
    if (r->kind == KIND_FLAG || r->kind == KIND_CHOICE) number = *(const int *)at;
    switch (r->kind) {
    case KIND_SIZE: snprintf(text, size, "%zu", *(const size_t *)at); break;
    case KIND_REAL: snprintf(text, size, "%.9g", *(const double *)at); break;
    case KIND_FLAG:
        snprintf(text, size, "%s", number < 0 ? "not given" : number ? "true" : "false");
        break;
    case KIND_CHOICE: snprintf(text, size, "%s", r->words[number]); break;
    }
}

void spec_each(const struct spec *s,
               void (*print)(void *arg, const char *name, const char *value, bool neutral),
               void *arg) {
    for (int i = 0; i < ROWS; i++) {
        char text[64];
        const void *at = member_of((struct spec *)s, &rows[i]);
        format_value(text, sizeof text, &rows[i], at);
        print(arg, rows[i].member, text, is_neutral(&rows[i], at));
    }
}
