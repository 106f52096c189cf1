#include "model/spec.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>

static const char *const spec_activations[] = {"silu", "swish", NULL};
static const char *const spec_rope_kinds[] = {"default", "linear", "llama3", "yarn", NULL};

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
#define SPEC_FLAG(m, n) {ROW(m, n, KIND_FLAG)},
#define SPEC_CHOICE(m, n, w) {ROW(m, n, KIND_CHOICE), .words = w},
static const struct row rows[] = {
#include "model/spec.def"
};
enum { ROWS = sizeof rows / sizeof *rows };

static void *member_of(struct spec *s, const struct row *r) {
    return (char *)s + r->offset;
}

static bool read_number(struct spec *s, const struct row *r, const struct config *c,
                        struct error *e) {
    double v = r->absent;
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

static bool read_row(struct spec *s, const struct row *r, const struct config *c, struct error *e) {
    int *number = member_of(s, r);
    switch (r->kind) {
    case KIND_FLAG: *number = -1; return config_flag(c, r->names, number, e);
    case KIND_CHOICE: *number = 0; return config_choice(c, r->names, r->words, number, e);
    default: return read_number(s, r, c, e);
    }
}

/* What one number leaves open and another settles. */
static bool settle_heads(struct spec *s, const struct config *c, struct error *e) {
    if (!s->kv_heads) s->kv_heads = s->heads;
    if (s->heads % s->kv_heads != 0) {
        return fail(e, STATUS_MODEL,
                    "%s: %zu attention heads cannot share %zu key/value heads evenly", c->where,
                    s->heads, s->kv_heads);
    }
    if (!s->head_dim && s->dim % s->heads != 0) {
        return fail(e, STATUS_MODEL,
                    "%s: %zu dimensions do not divide into %zu heads, and head_dim is not given",
                    c->where, s->dim, s->heads);
    }
    if (!s->head_dim) s->head_dim = s->dim / s->heads;
    if (s->head_dim % 2 == 0) return true;
    return fail(e, STATUS_MODEL,
                "%s: heads of %zu dimensions; rope turns pairs, so it must be even", c->where,
                s->head_dim);
}

/* A scaling that is there but not understood must not be passed over. */
static bool check_rope(const struct config *c, struct error *e) {
    const char *name;
    const cJSON *rope = config_find(c, "rope_parameters rope_scaling", &name);
    if (!rope || cJSON_IsObject(rope)) {
        bool typed = config_find(c, "rope_scaling.rope_type rope_scaling.type", NULL);
        if (typed || !config_find(c, "rope_scaling", NULL)) return true;
        return fail(e, STATUS_MODEL, "%s: rope_scaling does not say its rope_type", c->where);
    }
    return fail(e, STATUS_MODEL, "%s: %.*s is not an object with a rope_type", c->where,
                config_width(name), name);
}

static bool settle_rope(struct spec *s, const struct config *c, struct error *e) {
    const char *kind = spec_rope_kinds[s->rope_kind];
    if (!s->rope_original_context) s->rope_original_context = (double)s->context;
    if (s->rope_kind != SPEC_ROPE_DEFAULT && !s->rope_factor) {
        return fail(e, STATUS_MODEL, "%s: rope scaling '%s' needs a factor", c->where, kind);
    }
    bool needs_context = s->rope_kind == SPEC_ROPE_LLAMA3 || s->rope_kind == SPEC_ROPE_YARN;
    if (needs_context && !s->rope_original_context) {
        return fail(e, STATUS_MODEL, "%s: rope scaling '%s' needs original_max_position_embeddings",
                    c->where, kind);
    }
    if (s->rope_kind != SPEC_ROPE_LLAMA3) return true;
    if (s->rope_low_freq_factor > 0 && s->rope_high_freq_factor > s->rope_low_freq_factor)
        return true;
    return fail(e, STATUS_MODEL,
                "%s: rope scaling '%s' needs a low_freq_factor and a larger high_freq_factor",
                c->where, kind);
}

bool spec_read(struct spec *s, const struct config *c, struct error *e) {
    for (int i = 0; i < ROWS; i++) {
        if (!read_row(s, &rows[i], c, e)) return false;
    }
    return check_rope(c, e) && settle_heads(s, c, e) && settle_rope(s, c, e);
}

void spec_each(const struct spec *s, void (*print)(void *arg, const char *name, const char *value),
               void *arg) {
    for (int i = 0; i < ROWS; i++) {
        char text[64];
        const void *at = member_of((struct spec *)s, &rows[i]);
        switch (rows[i].kind) {
        case KIND_SIZE: snprintf(text, sizeof text, "%zu", *(const size_t *)at); break;
        case KIND_REAL: snprintf(text, sizeof text, "%.9g", *(const double *)at); break;
        case KIND_FLAG: {
            int v = *(const int *)at;
            snprintf(text, sizeof text, "%s", v < 0 ? "not given" : v ? "true" : "false");
            break;
        }
        case KIND_CHOICE: snprintf(text, sizeof text, "%s", rows[i].words[*(const int *)at]); break;
        }
        print(arg, rows[i].member, text);
    }
}
