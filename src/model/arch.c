#include "model/arch.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MAX_LISTED = 256 }; /* layers in a list */

/* --- numbers of a family's own -------------------------------------------------------------- */

/* What the page has no step for. */
static bool refuse(const struct config *c, const char *name, struct error *e) {
    return fail(e, STATUS_MODEL, "%s: %s is set, which is not supported", c->where, name);
}

/* A norm of queries and keys that a flag asks for. */
static bool read_qk_norm(struct spec *s, const struct config *c, const char *name,
                         enum spec_qk_norm kind, struct error *e) {
    int there = 0;
    if (!config_flag(c, name, &there, e)) return false;
    if (there) s->qk_norm = (int)kind;
    return true;
}

/* A window on all layers but every so many-th, and on those alone. */
static void window_but_every(struct spec *s, size_t n) {
    for (size_t i = 0; i < s->layers; i++) s->layer[i].windowed = s->window && (i + 1) % n != 0;
}

/* layer_types, where newer files say for each layer whether it has the window. False if absent. */
static bool read_layer_types(struct spec *s, const struct config *c, bool *there, struct error *e) {
    static const char *const words[] = {"full_attention", "sliding_attention", NULL};
    *there = config_find(c, "layer_types", NULL) != NULL;
    for (size_t i = 0; *there && i < s->layers; i++) {
        char name[64];
        int kind = 0;
        snprintf(name, sizeof name, "layer_types.%zu", i);
        if (!config_find(c, name, NULL)) {
            return fail(e, STATUS_MODEL, "%s: layer_types says nothing of layer %zu", c->where, i);
        }
        if (!config_choice(c, name, words, &kind, e)) return false;
        s->layer[i].windowed = s->window && kind == 1;
    }
    return true;
}

/* Layers with a window in turns with others: as the file says, or every n-th has none. */
static bool mix_windows(struct spec *s, const struct config *c, size_t usual, struct error *e) {
    bool there;
    double n = (double)usual;
    if (!read_layer_types(s, c, &there, e)) return false;
    if (there) return true;
    if (!config_number(c, "sliding_window_pattern _sliding_window_pattern", 1, SPEC_MAX_LAYERS,
                       true, &n, e)) {
        return false;
    }
    window_but_every(s, (size_t)n);
    return true;
}

/* A window from one layer on, if it is in use at all. */
static bool late_windows(struct spec *s, const struct config *c, struct error *e) {
    bool there;
    int used = 0;
    double first = (double)s->layers;
    if (!config_flag(c, "use_sliding_window", &used, e)) return false;
    if (!used) s->window = 0;
    if (!read_layer_types(s, c, &there, e)) return false;
    if (!config_number(c, "max_window_layers", 0, 1 << 20, true, &first, e)) return false;
    for (size_t i = 0; !there && i < s->layers; i++) {
        s->layer[i].windowed = s->window && (double)i >= first;
    }
    return true;
}

/* "gelu" in its first files means what later ones call gelu_pytorch_tanh. */
static bool settle_gemma(struct spec *s, const struct config *c, struct error *e) {
    int both_ways = 0;
    if (!config_flag(c, "use_bidirectional_attention", &both_ways, e)) return false;
    if (both_ways) return refuse(c, "use_bidirectional_attention", e);
    s->embed_scale = sqrt((double)s->dim);
    if (s->activation == ACTIVATION_GELU) s->activation = ACTIVATION_GELU_TANH;
    return true;
}

static bool settle_gemma2(struct spec *s, const struct config *c, struct error *e) {
    return settle_gemma(s, c, e) && mix_windows(s, c, 2, e);
}

static bool settle_gemma3(struct spec *s, const struct config *c, struct error *e) {
    s->score_softcap = 0; /* what its config has is not used: norms do the same */
    return settle_gemma(s, c, e) && mix_windows(s, c, 6, e);
}

static bool settle_cohere(struct spec *s, const struct config *c, struct error *e) {
    return read_qk_norm(s, c, "use_qk_norm", SPEC_QK_NORM_HEADS, e);
}

/* Rope is stretched in layers without window alone. */
static bool settle_olmo3(struct spec *s, const struct config *c, struct error *e) {
    if (s->rope_local_theta == 0) s->rope_local_theta = s->rope_theta;
    return mix_windows(s, c, 4, e);
}

static bool settle_cohere2(struct spec *s, const struct config *c, struct error *e) {
    if (!mix_windows(s, c, 4, e)) return false;
    for (size_t i = 0; i < s->layers; i++) s->layer[i].rotates = s->layer[i].windowed;
    return true;
}

static bool settle_exaone4(struct spec *s, const struct config *c, struct error *e) {
    return s->window ? settle_cohere2(s, c, e) : true;
}

/* no_rope_layers is 1 for layers with rope; else every so many-th has none. */
static bool read_rope_layers(struct spec *s, const struct config *c, struct error *e) {
    double interval = 4;
    if (!config_number(c, "no_rope_layer_interval", 1, SPEC_MAX_LAYERS, true, &interval, e))
        return false;
    for (size_t i = 0; i < s->layers; i++) {
        char name[64];
        double rotates = (i + 1) % (size_t)interval != 0;
        snprintf(name, sizeof name, "no_rope_layers.%zu", i);
        if (!config_number(c, name, 0, 1, true, &rotates, e)) return false;
        s->layer[i].rotates = rotates != 0;
    }
    return true;
}

static bool settle_smollm3(struct spec *s, const struct config *c, struct error *e) {
    return late_windows(s, c, e) && read_rope_layers(s, c, e);
}

static bool settle_phi(struct spec *s, const struct config *c, struct error *e) {
    if (!read_qk_norm(s, c, "qk_layernorm", SPEC_QK_NORM_HEAD, e)) return false;
    s->qk_norm_bias = s->qk_norm != SPEC_QK_NORM_NONE;
    return true;
}

static bool settle_stablelm(struct spec *s, const struct config *c, struct error *e) {
    s->norm_shared = s->parallel;
    return read_qk_norm(s, c, "qk_layernorm", SPEC_QK_NORM_HEADS, e);
}

static bool settle_gpt2(struct spec *s, const struct config *c, struct error *e) {
    int scales = 1, by_layer = 0;
    if (!config_flag(c, "scale_attn_weights", &scales, e)) return false;
    if (!config_flag(c, "scale_attn_by_inverse_layer_idx", &by_layer, e)) return false;
    if (!scales) s->attention_scale = 1;
    return !by_layer || refuse(c, "scale_attn_by_inverse_layer_idx", e);
}

/* Three kinds of heads: as many keys as num_kv_heads says, one for all, or one for each query. */
static bool settle_falcon(struct spec *s, const struct config *c, struct error *e) {
    int newer = 0, multi_query = 1, alibi = 0;
    if (!config_flag(c, "new_decoder_architecture", &newer, e)) return false;
    if (!config_flag(c, "multi_query", &multi_query, e)) return false;
    if (!config_flag(c, "alibi", &alibi, e)) return false;
    if (alibi) return refuse(c, "alibi", e);
    double norms = newer ? 2 : 1;
    if (!config_number(c, "num_ln_in_parallel_attn", 1, 2, true, &norms, e)) return false;
    if (!newer) s->kv_heads = multi_query ? 1 : s->heads;
    s->norm_shared = s->parallel && norms == 1;
    return true;
}

/* Every so many-th layer has experts, but those in a list. */
static bool sparse_layers(struct spec *s, const struct config *c, struct error *e) {
    double step = 1;
    int dense[MAX_LISTED], count = 0;
    if (!config_number(c, "decoder_sparse_step", 1, 1 << 20, true, &step, e)) return false;
    if (!config_ids(c, "mlp_only_layers", dense, MAX_LISTED, &count, e)) return false;
    for (size_t i = 0; i < s->layers; i++) {
        s->layer[i].experts = s->experts && (i + 1) % (size_t)step == 0;
        for (int k = 0; k < count; k++) {
            if ((size_t)dense[k] == i) s->layer[i].experts = false;
        }
    }
    return true;
}

static bool settle_qwen2_moe(struct spec *s, const struct config *c, struct error *e) {
    return late_windows(s, c, e) && sparse_layers(s, c, e);
}

/* The window is one of all layers. */
static bool settle_qwen3_moe(struct spec *s, const struct config *c, struct error *e) {
    int used = 0;
    if (!config_flag(c, "use_sliding_window", &used, e)) return false;
    if (!used) s->window = 0;
    for (size_t i = 0; i < s->layers; i++) s->layer[i].windowed = s->window > 0;
    return sparse_layers(s, c, e);
}

/* Which layers have experts: a list, or every so many-th. */
static bool listed_experts(struct spec *s, const struct config *c, struct error *e) {
    double step = 1;
    int list[MAX_LISTED], count = 0;
    if (!config_number(c, "interleave_moe_layer_step", 1, 1 << 20, true, &step, e)) return false;
    if (!config_ids(c, "moe_layers", list, MAX_LISTED, &count, e)) return false;
    for (size_t i = 0; i < s->layers; i++) {
        s->layer[i].experts = !count && (i + 1) % (size_t)step == 0;
        for (int k = 0; k < count; k++) s->layer[i].experts |= (size_t)list[k] == i;
    }
    return true;
}

/* Layers with rope see their chunk alone; in the others queries grow instead. Blocks without
 * experts have a width of their own. */
static bool settle_llama4(struct spec *s, const struct config *c, struct error *e) {
    double beta = 0.1, floor = 8192, hidden = (double)s->hidden;
    int grows = 1, normed = 1;
    if (!config_flag(c, "attn_temperature_tuning", &grows, e)) return false;
    if (!config_flag(c, "use_qk_norm", &normed, e)) return false;
    if (!config_number(c, "attn_scale", 0, 1e6, false, &beta, e)) return false;
    if (!config_number(c, "floor_scale", 1, 1 << 26, true, &floor, e)) return false;
    if (!config_number(c, "intermediate_size_mlp", 1, 1 << 24, true, &hidden, e)) return false;
    s->expert_hidden = s->shared_hidden = s->hidden;
    s->hidden = (size_t)hidden;
    s->qk_norm = normed ? SPEC_QK_NORM_HEAD : SPEC_QK_NORM_NONE;
    s->query_growth = grows ? beta : 0;
    s->growth_context = (size_t)floor;
    if (!read_rope_layers(s, c, e) || !listed_experts(s, c, e)) return false;
    for (size_t i = 0; i < s->layers; i++) s->layer[i].windowed = s->layer[i].rotates;
    return true;
}

/* The first layers have no experts. */
static bool settle_deepseek(struct spec *s, const struct config *c, struct error *e) {
    double first = 0, step = 1, shared = 0;
    if (!config_number(c, "first_k_dense_replace", 0, 1 << 20, true, &first, e)) return false;
    if (!config_number(c, "moe_layer_freq", 1, 1 << 20, true, &step, e)) return false;
    if (!config_number(c, "n_shared_experts", 0, 1 << 10, true, &shared, e)) return false;
    s->shared_hidden = (size_t)shared * s->expert_hidden;
    for (size_t i = 0; i < s->layers; i++) {
        s->layer[i].experts = s->experts && (double)i >= first && i % (size_t)step == 0;
    }
    return true;
}

static bool settle_deepseek2(struct spec *s, const struct config *c, struct error *e) {
    static const char *const words[] = {"greedy", "group_limited_greedy", NULL};
    int method = s->expert_groups > 0;
    if (!config_choice(c, "topk_method", words, &method, e)) return false;
    if (method == 0) s->expert_groups = 0;
    s->renormalize = 0; /* whatever norm_topk_prob says: transformers never does */
    return settle_deepseek(s, c, e);
}

static bool settle_gpt_oss(struct spec *s, const struct config *c, struct error *e) {
    double limit = 7; /* what the activation is made for */
    if (!config_number(c, "swiglu_limit", 7, 7, false, &limit, e)) return false;
    s->activation = ACTIVATION_CLAMPED;
    return mix_windows(s, c, 2, e);
}

/* --- the families --------------------------------------------------------------------------- */

static const struct arch rows[] = {
    {.model_type = "llama", .title = "Llama 1 to 3 and models built like them"},
    {.model_type = "mistral",
     .title = "Mistral 7B and Nemo: Llama's equations with a sliding window"},
    {.model_type = "ministral3", .title = "Ministral 3: queries that grow with the position"},
    {.model_type = "mixtral", .title = "Mixtral", .spec = {.expert_score = MOE_LOGIT}},
    {.model_type = "llama4_text",
     .title = "Llama 4",
     .spec = {.qk_norm_plain = 1,
              .rope_traditional = 1,
              .expert_score = MOE_SIGMOID,
              .weigh_inputs = 1,
              .growth_unturned = 1},
     .settle = settle_llama4},
    {.model_type = "gemma",
     .title = "Gemma",
     .spec = {.norm_offset = 1, .tied = 1, .activation = ACTIVATION_GELU_TANH},
     .settle = settle_gemma},
    {.model_type = "gemma2",
     .title = "Gemma 2",
     .spec = {.norm_offset = 1,
              .tied = 1,
              .activation = ACTIVATION_GELU_TANH,
              .norms = SPEC_NORMS_BOTH},
     .settle = settle_gemma2},
    {.model_type = "gemma3_text", /* the larger ones rely on these numbers */
     .title = "Gemma 3",
     .spec = {.heads = 8,
              .kv_heads = 4,
              .head_dim = 256,
              .context = 131072,
              .norm_offset = 1,
              .norm_eps = 1e-6,
              .tied = 1,
              .activation = ACTIVATION_GELU_TANH,
              .norms = SPEC_NORMS_BOTH,
              .qk_norm = SPEC_QK_NORM_HEAD,
              .query_scalar = 256,
              .rope_theta = 1e6,
              .rope_local_theta = 10000},
     .settle = settle_gemma3},
    {.model_type = "phi",
     .title = "Phi 1 to 2",
     .spec = {.parallel = 1,
              .norm_kind = SPEC_NORM_LAYER,
              .norm_bias = 1,
              .norm_shared = 1,
              .output_bias = 1,
              .qkv_bias = 1,
              .ungated = 1,
              .ffn_bias = 1,
              .rope_partial = 0.5},
     .settle = settle_phi},
    {.model_type = "phi3", .title = "Phi 3 and 4"},
    {.model_type = "qwen2",
     .title = "Qwen 2 and 2.5",
     .spec = {.qkv_bias = 1, .o_plain = 1},
     .settle = late_windows},
    {.model_type = "qwen2_moe",
     .title = "Qwen 1.5 and 2 with experts",
     .spec = {.qkv_bias = 1, .o_plain = 1, .shared_router = 1},
     .settle = settle_qwen2_moe},
    {.model_type = "qwen3",
     .title = "Qwen 3",
     .spec = {.qk_norm = SPEC_QK_NORM_HEAD},
     .settle = late_windows},
    {.model_type = "qwen3_moe",
     .title = "Qwen 3 with experts",
     .spec = {.qk_norm = SPEC_QK_NORM_HEAD},
     .settle = settle_qwen3_moe},
    {.model_type = "olmo",
     .title = "OLMo",
     .spec = {.norm_kind = SPEC_NORM_LAYER, .norm_plain = 1, .norm_eps = 1e-5}},
    {.model_type = "olmo2",
     .title = "OLMo 2",
     .spec = {.norms = SPEC_NORMS_POST, .qk_norm = SPEC_QK_NORM_ALL}},
    {.model_type = "olmo3",
     .title = "OLMo 3",
     .spec = {.norms = SPEC_NORMS_POST, .qk_norm = SPEC_QK_NORM_ALL},
     .settle = settle_olmo3},
    {.model_type = "olmoe", .title = "OLMoE", .spec = {.qk_norm = SPEC_QK_NORM_ALL}},
    {.model_type = "gpt2",
     .title = "GPT-2",
     .spec = {.norm_kind = SPEC_NORM_LAYER,
              .norm_bias = 1,
              .positions = 1,
              .tied = 1,
              .transposed = 1,
              .qkv_bias = 1,
              .ungated = 1,
              .ffn_bias = 1,
              .activation = ACTIVATION_GELU_TANH},
     .settle = settle_gpt2},
    {.model_type = "gpt_neox",
     .title = "GPT-NeoX and Pythia",
     .spec = {.parallel = 1,
              .norm_kind = SPEC_NORM_LAYER,
              .norm_bias = 1,
              .qkv_bias = 1,
              .ungated = 1,
              .ffn_bias = 1,
              .activation = ACTIVATION_GELU,
              .rope_partial = 0.25}},
    {.model_type = "falcon",
     .title = "Falcon",
     .spec = {.parallel = 1,
              .norm_kind = SPEC_NORM_LAYER,
              .norm_bias = 1,
              .ungated = 1,
              .activation = ACTIVATION_GELU},
     .settle = settle_falcon},
    {.model_type = "stablelm",
     .title = "StableLM",
     .spec = {.norm_kind = SPEC_NORM_LAYER, .norm_bias = 1, .o_plain = 1, .rope_partial = 0.25},
     .settle = settle_stablelm},
    {.model_type = "starcoder2",
     .title = "StarCoder 2",
     .spec = {.norm_kind = SPEC_NORM_LAYER,
              .norm_bias = 1,
              .ungated = 1,
              .qkv_bias = 1,
              .ffn_bias = 1,
              .activation = ACTIVATION_GELU_TANH}},
    {.model_type = "smollm3", .title = "SmolLM 3: layers without rope", .settle = settle_smollm3},
    {.model_type = "granite", .title = "Granite 3"},
    {.model_type = "cohere",
     .title = "Cohere's Command R",
     .spec = {.parallel = 1,
              .norm_kind = SPEC_NORM_LAYER,
              .norm_shared = 1,
              .tied = 1,
              .logit_scale = 0.0625,
              .rope_traditional = 1},
     .settle = settle_cohere},
    {.model_type = "cohere2",
     .title = "Cohere's Command R7B and A",
     .spec = {.parallel = 1,
              .norm_kind = SPEC_NORM_LAYER,
              .norm_shared = 1,
              .tied = 1,
              .logit_scale = 0.0625,
              .rope_traditional = 1},
     .settle = settle_cohere2},
    {.model_type = "glm4",
     .title = "GLM 4",
     .spec = {.norms = SPEC_NORMS_BOTH, .rope_traditional = 1, .rope_partial = 0.5, .o_plain = 1}},
    {.model_type = "exaone4",
     .title = "EXAONE 4",
     .spec = {.norms = SPEC_NORMS_POST, .qk_norm = SPEC_QK_NORM_HEAD},
     .settle = settle_exaone4},
    {.model_type = "deepseek_v2",
     .title = "DeepSeek V2",
     .spec = {.rope_traditional = 1, .sharpened = 1},
     .settle = settle_deepseek2},
    {.model_type = "deepseek_v3",
     .title = "DeepSeek V3 and R1",
     .spec = {.rope_traditional = 1,
              .sharpened = 1,
              .expert_score = MOE_SIGMOID,
              .group_best = 2,
              .renormalize = 1,
              .expert_correction = 1},
     .settle = settle_deepseek},
    {.model_type = "gpt_oss",
     .title = "gpt-oss",
     .spec = {.qkv_bias = 1, .sinks = 1, .expert_score = MOE_LOGIT, .expert_bias = 1},
     .settle = settle_gpt_oss},
};
enum { ROWS = sizeof rows / sizeof *rows };

static void list(char *out, size_t size) {
    *out = 0;
    for (int i = 0; i < ROWS; i++) {
        size_t used = strlen(out);
        snprintf(out + used, size - used, "%s%s", i ? ", " : "", rows[i].model_type);
    }
}

bool arch_find(const struct arch **arch, const struct config *c, struct error *e) {
    const char *type = config_text(c, "model_type");
    bool meta = !config_find(c, "model_type", NULL) && config_find(c, "dim", NULL);
    if (meta) type = rows[0].model_type; /* params.json in Meta's own spelling names no family */
    for (int i = 0; type && i < ROWS; i++) {
        if (strcmp(type, rows[i].model_type) != 0) continue;
        *arch = &rows[i];
        return true;
    }
    char known[1024];
    list(known, sizeof known);
    if (!type)
        return fail(e, STATUS_MODEL, "%s does not say model_type in words; nibble runs %s",
                    c->where, known);
    return fail(e, STATUS_MODEL, "%s: model_type '%.64s' is not supported; nibble runs %s",
                c->where, type, known);
}

bool arch_read(const struct arch *arch, struct spec *s, const struct config *c, struct error *e) {
    return spec_read(s, c, &arch->spec, e) && (!arch->settle || arch->settle(s, c, e)) &&
           spec_settle(s, c, e);
}
