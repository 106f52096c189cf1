/* Every number the equations need, read from config.json or params.json by the table spec.def. */
#ifndef NIBBLE_MODEL_SPEC_H
#define NIBBLE_MODEL_SPEC_H

#include <stddef.h>

#include "model/config.h"
#include "ops/gate.h"
#include "ops/moe.h"

enum spec_norms { SPEC_NORMS_PRE, SPEC_NORMS_POST, SPEC_NORMS_BOTH };
enum spec_norm_kind { SPEC_NORM_RMS, SPEC_NORM_LAYER };
enum spec_qk_norm {
    SPEC_QK_NORM_NONE,
    SPEC_QK_NORM_HEAD,  /* each head, all with the same weights */
    SPEC_QK_NORM_HEADS, /* each head with its own */
    SPEC_QK_NORM_ALL,   /* all heads as one vector */
};
enum spec_rope_kind {
    SPEC_ROPE_DEFAULT,
    SPEC_ROPE_LINEAR,
    SPEC_ROPE_LLAMA3,
    SPEC_ROPE_YARN,
    SPEC_ROPE_LONG, /* frequencies divided by lists, one for short texts and one for long */
};

enum { SPEC_MAX_LAYERS = 4096, SPEC_MAX_PAIRS = 512 };

/* What tells one layer from another. */
struct spec_layer {
    bool windowed; /* it sees `window` positions, the others all */
    bool rotates;  /* its queries and keys are turned by rope */
    bool experts;  /* its feed-forward block is a mixture of them */
};

struct spec {
#define SPEC_SIZE(member, names, absent, low, high) size_t member;
#define SPEC_REAL(member, names, absent, low, high) double member;
#define SPEC_FLAG(member, names, absent) int member;
#define SPEC_CHOICE(member, names, words) int member;
#include "model/spec.def"
#undef SPEC_SIZE
#undef SPEC_REAL
#undef SPEC_FLAG
#undef SPEC_CHOICE
    struct spec_layer layer[SPEC_MAX_LAYERS]; /* [layers] */
    float rope_short[SPEC_MAX_PAIRS];         /* [rope_dim / 2] divisors, SPEC_ROPE_LONG only */
    float rope_long[SPEC_MAX_PAIRS];
};

/* Reads and checks every row. What the file does not say is as in family, where that is not 0, else
 * as in the table. A number that must be there and is not, or is out of range, is refused by its
 * name. The layers are alike: with the window and with experts if there are any, and turned by
 * rope. */
bool spec_read(struct spec *s, const struct config *c, const struct spec *family, struct error *e);

/* Fills what follows from other members (kv_heads, head_dim, attention_scale, ...) and refuses
 * those that do not fit each other; hidden, vocab and context may stay 0, for model_open to settle.
 */
bool spec_settle(struct spec *s, const struct config *c, struct error *e);

/* How the experts of a token are chosen. */
struct moe_choice spec_choice(const struct spec *s);

/* Calls print once a row with the value as text. neutral: it changes nothing in the equations,
 * being 0, off, or a factor of 1. */
void spec_each(const struct spec *s,
               void (*print)(void *arg, const char *name, const char *value, bool neutral),
               void *arg);

#endif
