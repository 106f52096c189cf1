/* What the checkpoints of tests/golden leave out: each slot of weights.def must be there in one of
 * them and not in another, each number of spec.def given and not given, each flag on and off, each
 * word of a choice chosen. What none of them has is listed below with the reason. */
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "check.h"
#include "model/model.h"

#define GOLDEN "tests/golden"
#define REQUIRED NAN
#define NEEDED true
#define IF(needed) (needed)

/* What is looked for: a yes and a no. */
enum thing {
#define MODEL_SLOT(kind, m, names, rows, cols, presence) SLOT_##m,
#define LAYER_SLOT(kind, m, names, rows, cols, presence) SLOT_##m,
#include "model/weights.def"
#define SPEC_SIZE(m, names, absent, low, high) SPEC_##m,
#define SPEC_REAL(m, names, absent, low, high) SPEC_##m,
#define SPEC_FLAG(m, names, absent) SPEC_##m,
#define SPEC_CHOICE(m, names, words) SPEC_##m,
#include "model/spec.def"
#undef SPEC_SIZE
#undef SPEC_REAL
#undef SPEC_FLAG
#undef SPEC_CHOICE
    LAYER_WINDOWED,
    LAYER_ROTATES,
    LAYER_EXPERTS,
    THINGS
};

static const char *const names[THINGS] = {
#define MODEL_SLOT(kind, m, names, rows, cols, presence) "slot " #m,
#define LAYER_SLOT(kind, m, names, rows, cols, presence) "slot " #m,
#include "model/weights.def"
#define SPEC_SIZE(m, names, absent, low, high) "number " #m,
#define SPEC_REAL(m, names, absent, low, high) "number " #m,
#define SPEC_FLAG(m, names, absent) "flag " #m,
#define SPEC_CHOICE(m, names, words) "choice " #m,
#include "model/spec.def"
#undef SPEC_SIZE
#undef SPEC_REAL
#undef SPEC_FLAG
#undef SPEC_CHOICE
    "layers with a window", "layers with rope", "layers with experts"};

static struct seen { bool yes, no; } seen[THINGS];

enum { WORDS = 16 };
static bool chosen[THINGS][WORDS]; /* of a choice: each number */

static void see(int thing, bool yes) {
    *(yes ? &seen[thing].yes : &seen[thing].no) = true;
}

/* --- looking ---------------------------------------------------------------------------------- */

static void see_layer(const struct spec *s, size_t layer) {
    const struct spec_layer *l = &s->layer[layer];
#define MODEL_SLOT(kind, m, names, rows, cols, presence) see(SLOT_##m, presence);
#define LAYER_SLOT(kind, m, names, rows, cols, presence) see(SLOT_##m, presence);
#include "model/weights.def"
    see(LAYER_WINDOWED, l->windowed);
    see(LAYER_ROTATES, l->rotates);
    see(LAYER_EXPERTS, l->experts);
}

/* A number that has no name in configs is given by a family. */
static void see_number(int thing, const struct config *c, const char *in_config, bool neutral) {
    see(thing, *in_config ? config_find(c, in_config, NULL) != NULL : !neutral);
}

static void see_choice(int thing, int word) {
    seen[thing] = (struct seen){true, true};
    chosen[thing][word] = true;
}

static void see_spec(const struct spec *s, const struct config *c) {
#define SPEC_SIZE(m, n, absent, low, high)                                                         \
    see_number(SPEC_##m, c, n, (double)s->m == (double)(absent));
#define SPEC_REAL(m, n, absent, low, high) see_number(SPEC_##m, c, n, s->m == (absent));
#define SPEC_FLAG(m, n, absent) see(SPEC_##m, s->m > 0);
#define SPEC_CHOICE(m, n, words) see_choice(SPEC_##m, s->m);
#include "model/spec.def"
#undef SPEC_SIZE
#undef SPEC_REAL
#undef SPEC_FLAG
#undef SPEC_CHOICE
}

static bool look(const char *folder) {
    static struct model m;
    struct config c;
    struct error e;
    char path[300], where[512];
    snprintf(path, sizeof path, GOLDEN "/%s", folder);
    if (!model_open(&m, path, &e)) {
        CHECK_MSG(false, "%s", e.message);
        return false;
    }
    store_where(&m.store, "config.json", where, sizeof where);
    CHECK(config_open(&c, store_file(&m.store, "config.json"), where, &e));
    for (size_t i = 0; i < m.spec.layers; i++) see_layer(&m.spec, i);
    see_spec(&m.spec, &c);
    config_close(&c);
    model_close(&m);
    return true;
}

static void test_checkpoints_open(void) {
    int count = 0;
    DIR *dir = opendir(GOLDEN);
    CHECK_MSG(dir != NULL, GOLDEN " is not there: run from the root of the sources");
    for (struct dirent *d; dir && (d = readdir(dir)) != NULL;) {
        if (!strchr(d->d_name, '.')) count += look(d->d_name);
    }
    if (dir) closedir(dir);
    CHECK_MSG(count >= 10, "%d checkpoints", count);
}

/* --- what is missing -------------------------------------------------------------------------- */

struct exception {
    const char *what, *reason;
};

/* Numbers that every file gives are read in other spellings by test_config.c. */
static const struct exception exceptions[] = {
    {"slot embed: no", "every model has it"},
    {"slot wo: no", "every model has it"},
    {"slot q_norm_bias: yes", "Phi's qk_layernorm: test_norm.c, test_variants.py"},
    {"slot k_norm_bias: yes", "the same"},
    {"flag qk_norm_bias: yes", "the same"},
    {"slot q_a_bias: yes", "DeepSeek's attention_bias, none published: test_variants.py"},
    {"slot kv_a_bias: yes", "the same"},
    {"slot k_rope_bias: yes", "the same"},
    {"slot gate_bias: yes", "Llama's mlp_bias: test_gated.c, test_variants.py"},
    {"slot shared_gate_bias: yes", "DeepSeek's mlp_bias, none published: test_moe.c"},
    {"slot shared_up_bias: yes", "the same"},
    {"slot shared_down_bias: yes", "the same"},
    {"number chunk: yes", "Llama 4's: test_attend.c"},
    {"flag qk_norm_plain: yes", "Llama 4's: test_norm.c"},
    {"flag weigh_inputs: yes", "Llama 4's: test_moe.c"},
    {"number growth_context: yes", "Llama 4's: test_rope.c"},
    {"flag growth_unturned: yes", "Llama 4's: test_rope.c"},
    {"number latent_eps: yes", "it is the same for all"},
    {"number dim: no", "required"},
    {"number layers: no", "required"},
    {"number heads: no", "required"},
    {"number hidden: no", "Hugging Face always gives it: test_weights.c"},
    {"number vocab: no", "Hugging Face always gives it: test_weights.c"},
    {"number context: no", "Hugging Face always gives it: test_weights.c"},
    {"number qkv_clip: yes", "OLMo's clip_qkv: test_vectors.c, test_variants.py"},
    {"number rope_attention_factor: yes", "what it replaces follows from others: test_rope.c"},
    {"flag rope_truncate: yes", "it is true unless a file says false"},
    {"choice qk_norm: 2", "StableLM's and Command R+'s heads: test_norm.c, test_variants.py"},
    {"choice activation: 3", "no family's own: test_gated.c"},
    {"choice activation: 4", "no family's own: test_gated.c"},
    {"choice rope_kind: 1", "test_rope.c has its tables"},
};
enum { EXCEPTIONS = sizeof exceptions / sizeof *exceptions };
static bool needed[EXCEPTIONS];

static bool is_excepted(const char *what) {
    for (int i = 0; i < EXCEPTIONS; i++) {
        if (strcmp(exceptions[i].what, what) == 0) return needed[i] = true;
    }
    return false;
}

static void check_thing(const char *kind, const char *name) {
    char what[96];
    snprintf(what, sizeof what, "%s: %s", name, kind);
    CHECK_MSG(is_excepted(what), "no checkpoint in " GOLDEN " has '%s'", what);
}

static void test_yes_and_no(void) {
    for (int i = 0; i < THINGS; i++) {
        if (!seen[i].yes) check_thing("yes", names[i]);
        if (!seen[i].no) check_thing("no", names[i]);
    }
}

static void test_choices(void) {
    static const struct {
        int thing, count;
    } choices[] = {{SPEC_norms, SPEC_NORMS_BOTH + 1},    {SPEC_norm_kind, SPEC_NORM_LAYER + 1},
                   {SPEC_qk_norm, SPEC_QK_NORM_ALL + 1}, {SPEC_activation, ACTIVATION_CLAMPED + 1},
                   {SPEC_expert_score, MOE_LOGIT + 1},   {SPEC_rope_kind, SPEC_ROPE_LONG + 1}};
    for (size_t i = 0; i < sizeof choices / sizeof *choices; i++) {
        for (int word = 0; word < choices[i].count; word++) {
            char number[16];
            snprintf(number, sizeof number, "%d", word);
            if (!chosen[choices[i].thing][word]) check_thing(number, names[choices[i].thing]);
        }
    }
}

static void test_no_exception_is_stale(void) {
    for (int i = 0; i < EXCEPTIONS; i++) {
        CHECK_MSG(needed[i] && *exceptions[i].reason, "'%s' is there: no exception",
                  exceptions[i].what);
    }
}

int main(void) {
    check_run("checkpoints open", test_checkpoints_open);
    check_run("yes and no", test_yes_and_no);
    check_run("choices", test_choices);
    check_run("no exception is stale", test_no_exception_is_stale);
    return check_done();
}
