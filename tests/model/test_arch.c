/* Families: what each makes of its config, layer by layer; numbers of experts, latent attention and
 * rope that do not fit; what no step of the page does, refused. */
#include <math.h>
#include <string.h>

#include "check.h"
#include "model/arch.h"

#define SHAPE                                                                                      \
    "\"hidden_size\": 64, \"num_hidden_layers\": 8, \"num_attention_heads\": 4, "                  \
    "\"intermediate_size\": 96, \"rms_norm_eps\": 1e-5, \"layer_norm_eps\": 1e-5, "                \
    "\"layer_norm_epsilon\": 1e-5, \"max_position_embeddings\": 4096"

static struct spec spec; /* of the last config that was read */
static struct error error;

static bool read_family(const char *type, const char *more) {
    const struct arch *arch;
    struct config c;
    char text[2048];
    snprintf(text, sizeof text, "{\"model_type\": \"%s\", " SHAPE "%s%s}", type, *more ? ", " : "",
             more);
    struct span span = {(const unsigned char *)text, strlen(text)};
    spec = (struct spec){0};
    error = (struct error){0};
    if (!config_open(&c, span, "m/config.json", &error)) {
        CHECK_MSG(false, "%s: %s", text, error.message);
        return false;
    }
    bool ok = arch_find(&arch, &c, &error) && arch_read(arch, &spec, &c, &error);
    config_close(&c);
    return ok;
}

static void check_read(const char *type, const char *more) {
    bool ok = read_family(type, more);
    CHECK_MSG(ok, "%s, %s: %s", type, more, error.message);
}

static void check_refused(const char *type, const char *more, const char *words) {
    CHECK_MSG(!read_family(type, more), "%s, %s is not refused", type, more);
    CHECK_MSG(error.status == STATUS_MODEL && strstr(error.message, words) &&
                  strstr(error.message, "m/config.json"),
              "'%s' lacks '%s'", error.message, words);
}

enum what { WINDOWED, ROTATES, EXPERTS };

/* A letter each layer: capital where it is so. */
static void check_layers(const char *type, const char *more, enum what what, const char *wanted) {
    check_read(type, more);
    for (size_t i = 0; wanted[i]; i++) {
        const struct spec_layer *l = &spec.layer[i];
        bool is = what == WINDOWED ? l->windowed : what == ROTATES ? l->rotates : l->experts;
        CHECK_MSG(is == (wanted[i] == 'Y'), "%s, %s: layer %zu %s", type, more, i,
                  what == WINDOWED  ? "has the window"
                  : what == ROTATES ? "turns"
                                    : "has experts");
    }
}

/* --- windows ---------------------------------------------------------------------------------- */

#define WINDOW "\"sliding_window\": 8"
#define TYPES(...) "\"layer_types\": [" __VA_ARGS__ "]"
#define SLIDES "\"sliding_attention\""
#define FULL "\"full_attention\""
#define MIXED                                                                                      \
    TYPES(SLIDES ", " FULL ", " FULL ", " FULL ", " SLIDES ", " SLIDES ", " FULL ", " SLIDES)

static void test_windows_in_turns(void) {
    check_layers("mistral", WINDOW, WINDOWED, "YYYYYYYY");
    check_layers("mistral", "", WINDOWED, "nnnnnnnn");
    check_layers("mistral", "\"sliding_window\": null", WINDOWED, "nnnnnnnn");
    check_layers("gemma2", WINDOW, WINDOWED, "YnYnYnYn");
    check_layers("gemma2", "\"sliding_window\": 0", WINDOWED, "nnnnnnnn");
    check_layers("gemma3_text", WINDOW, WINDOWED, "YYYYYnYY");
    check_layers("gemma3_text", WINDOW ", \"sliding_window_pattern\": 3", WINDOWED, "YYnYYnYY");
    check_layers("gemma3_text", WINDOW ", \"_sliding_window_pattern\": 4", WINDOWED, "YYYnYYYn");
    check_layers("cohere2", WINDOW, WINDOWED, "YYYnYYYn");
    check_layers("gpt_oss", WINDOW, WINDOWED, "YnYnYnYn");
    check_layers("exaone4", WINDOW, WINDOWED, "YYYnYYYn");
    check_layers("exaone4", "\"sliding_window\": null", WINDOWED, "nnnnnnnn");
    for (int i = 0; i < 5; i++) { /* as the file says, whatever is usual */
        static const char *const types[] = {"gemma2", "gemma3_text", "cohere2", "gpt_oss",
                                            "exaone4"};
        check_layers(types[i], WINDOW ", " MIXED, WINDOWED, "YnnnYYnY");
        check_layers(types[i], WINDOW ", \"sliding_window_pattern\": 3, " MIXED, WINDOWED,
                     "YnnnYYnY");
    }
    check_layers("gemma2", MIXED, WINDOWED, "nnnnnnnn"); /* no window to have */
}

static void test_windows_that_do_not_fit(void) {
    check_refused("gemma2", WINDOW ", " TYPES(SLIDES ", " FULL), "nothing of layer 2");
    check_refused("gemma2", WINDOW ", \"layer_types\": []", "nothing of layer 0");
    check_refused("gemma2", WINDOW ", " TYPES("\"chunked_attention\""),
                  "layer_types.0 'chunked_attention' is not supported; nibble runs full_attention");
    check_refused("qwen2", WINDOW ", " TYPES(FULL ", 7"),
                  "layer_types.1 '(not a string)' is not supported");
    check_refused("gemma3_text", WINDOW ", \"sliding_window_pattern\": 0",
                  "sliding_window_pattern is 0");
    check_refused("gemma3_text", WINDOW ", \"sliding_window_pattern\": 2.5", "a whole number");
}

static void test_late_windows(void) {
    static const char *const types[] = {"qwen2", "qwen3", "qwen2_moe", "smollm3"};
#define USED WINDOW ", \"use_sliding_window\": true"
#define DENSE ", \"num_experts\": 0, "
    for (int i = 0; i < 4; i++) {
        check_layers(types[i], USED DENSE "\"max_window_layers\": 5", WINDOWED, "nnnnnYYY");
        check_layers(types[i], USED DENSE "\"max_window_layers\": 0", WINDOWED, "YYYYYYYY");
        check_layers(types[i], USED, WINDOWED, "nnnnnnnn");
        check_layers(types[i], USED DENSE "\"max_window_layers\": 28", WINDOWED, "nnnnnnnn");
        check_layers(types[i], USED ", \"max_window_layers\": 5, " MIXED, WINDOWED, "YnnnYYnY");
        check_layers(types[i], WINDOW DENSE "\"max_window_layers\": 5", WINDOWED, "nnnnnnnn");
        CHECK(spec.window == 0);
        check_layers(types[i], WINDOW DENSE "\"use_sliding_window\": false, " MIXED, WINDOWED,
                     "nnnnnnnn");
        check_refused(types[i], USED DENSE "\"max_window_layers\": -1", "max_window_layers is -1");
    }
    /* the one that knows no first layer */
    check_layers("qwen3_moe", USED DENSE "\"max_window_layers\": 5", WINDOWED, "YYYYYYYY");
    check_layers("qwen3_moe", WINDOW DENSE "\"max_window_layers\": 0", WINDOWED, "nnnnnnnn");
}

/* --- rope ------------------------------------------------------------------------------------- */

static void test_layers_without_rope(void) {
    check_layers("llama", "", ROTATES, "YYYYYYYY");
    check_layers("cohere2", WINDOW, ROTATES, "YYYnYYYn");
    check_layers("cohere2", WINDOW ", " MIXED, ROTATES, "YnnnYYnY");
    check_layers("exaone4", WINDOW ", " MIXED, ROTATES, "YnnnYYnY");
    check_layers("exaone4", "\"sliding_window\": null, " MIXED, ROTATES, "YYYYYYYY");
    check_layers("smollm3", "", ROTATES, "YYYnYYYn");
    check_layers("smollm3", "\"no_rope_layer_interval\": 3", ROTATES, "YYnYYnYY");
    check_layers("smollm3", "\"no_rope_layers\": [0, 1, 1, 0, 1, 0, 1, 1]", ROTATES, "nYYnYnYY");
    check_layers("smollm3", "\"no_rope_layers\": [0, 1]", ROTATES, "nYYnYYYn");
    check_refused("smollm3", "\"no_rope_layers\": [1, 2]", "no_rope_layers.1 is 2");
    check_refused("smollm3", "\"no_rope_layers\": [1, true]", "no_rope_layers.1 is not a number");
    check_refused("smollm3", "\"no_rope_layer_interval\": 0", "no_rope_layer_interval is 0");
}

#define LONG(key, more)                                                                            \
    "\"partial_rotary_factor\": 0.5, \"original_max_position_embeddings\": 1024, \"" key           \
    "\": {" more "}"
#define LIST "[1, 1.5, 2, 2.5]"

static void check_lists(const char *more, float last_short, float last_long) {
    check_read("phi3", more);
    CHECK(spec.rope_kind == SPEC_ROPE_LONG && spec.rope_dim == 8 && spec.rope_factor == 4);
    CHECK(spec.rope_short[0] == 1 && spec.rope_short[3] == last_short);
    CHECK(spec.rope_long[1] == 1.5f && spec.rope_long[3] == last_long);
}

static void test_lists_of_divisors(void) {
    check_lists(LONG("rope_scaling", "\"type\": \"longrope\", \"short_factor\": [1, 1, 1, 7], "
                                     "\"long_factor\": " LIST),
                7, 2.5f);
    check_lists(LONG("rope_scaling", "\"type\": \"su\", \"short_factor\": " LIST
                                     ", \"long_factor\": [1, 1.5, 2, 9]"),
                2.5f, 9);
    check_lists(LONG("rope_parameters", "\"rope_type\": \"longrope\", \"short_factor\": " LIST
                                        ", \"long_factor\": " LIST),
                2.5f, 2.5f);
#define BAD(short_factor, words)                                                                   \
    check_refused(                                                                                 \
        "phi3",                                                                                    \
        LONG("rope_scaling", "\"type\": \"longrope\", \"long_factor\": " LIST short_factor),       \
        words)
    BAD("", "short_factor must be a list of 4 numbers, one for each pair");
    BAD(", \"short_factor\": [1, 1, 1]", "must be a list of 4 numbers");
    BAD(", \"short_factor\": [1, 1, 1, 1, 1]", "must be a list of 4 numbers");
    BAD(", \"short_factor\": 2", "must be a list of 4 numbers");
    BAD(", \"short_factor\": [1, 1, 1, \"1\"]", "rope_scaling.short_factor.3 is not a number");
    BAD(", \"short_factor\": [1, 1, 0, 1]", "rope_scaling.short_factor.2 is 0");
    check_refused("phi3", LONG("rope_scaling", "\"type\": \"longrope\", \"short_factor\": " LIST),
                  "long_factor must be a list of 4 numbers");
}

static void test_rope_that_does_not_fit(void) {
    check_refused("llama", "\"rope_scaling\": \"yarn\"",
                  "rope_scaling is not an object with a rope_type");
    check_refused("llama", "\"rope_parameters\": [1]",
                  "rope_parameters is not an object with a rope_type");
    check_refused("llama", "\"rope_scaling\": {\"factor\": 2}", "does not say its rope_type");
    check_refused("llama", "\"head_dim\": 15", "heads of 15 dimensions");
    check_refused("phi", "\"partial_rotary_factor\": 1.5", "partial_rotary_factor is 1.5");
    check_read("phi", "");
    CHECK(spec.rope_dim == 8);
    check_read("phi", "\"partial_rotary_factor\": 0.2");
    CHECK(spec.rope_dim == 4); /* 3 would turn: whole pairs do */
    check_read("gpt_neox", "\"rotary_pct\": 0.75");
    CHECK(spec.rope_dim == 12 && spec.head_dim == 16);
}

/* --- experts ---------------------------------------------------------------------------------- */

#define TAKES "\"num_experts\": 6, \"num_experts_per_tok\": 2"
#define ROUTED "\"n_routed_experts\": 6, \"num_experts_per_tok\": 2, \"moe_intermediate_size\": 24"
#define LATENT                                                                                     \
    ", \"kv_lora_rank\": 24, \"qk_nope_head_dim\": 8, \"qk_rope_head_dim\": 4, \"v_head_dim\": 12"

static void test_layers_with_experts(void) {
    check_layers("mixtral", "\"num_local_experts\": 4, \"num_experts_per_tok\": 2", EXPERTS,
                 "YYYYYYYY");
    CHECK(spec.expert_hidden == 96);
    check_layers("llama", "", EXPERTS, "nnnnnnnn");
    check_layers("qwen3_moe", TAKES, EXPERTS, "YYYYYYYY");
    check_layers("qwen3_moe", TAKES ", \"mlp_only_layers\": [0, 5, 7, 99]", EXPERTS, "nYYYYnYn");
    check_layers("qwen2_moe", TAKES ", \"decoder_sparse_step\": 2", EXPERTS, "nYnYnYnY");
    check_layers("qwen2_moe", TAKES ", \"decoder_sparse_step\": 3, \"mlp_only_layers\": [2]",
                 EXPERTS, "nnnnnYnn");
    check_layers("qwen2_moe", TAKES ", \"mlp_only_layers\": []", EXPERTS, "YYYYYYYY");
    check_layers("deepseek_v3", ROUTED LATENT, EXPERTS, "YYYYYYYY");
    check_layers("deepseek_v3", ROUTED LATENT ", \"first_k_dense_replace\": 3", EXPERTS,
                 "nnnYYYYY");
    check_layers("deepseek_v2",
                 ROUTED LATENT ", \"first_k_dense_replace\": 1, "
                               "\"moe_layer_freq\": 2",
                 EXPERTS, "nnYnYnYn");
    check_layers("deepseek_v2", "\"first_k_dense_replace\": 1" LATENT, EXPERTS, "nnnnnnnn");
    check_refused("qwen2_moe", TAKES ", \"mlp_only_layers\": [-1]", "mlp_only_layers");
    check_refused("qwen2_moe", TAKES ", \"decoder_sparse_step\": 0", "decoder_sparse_step is 0");
    check_refused("deepseek_v3", ROUTED LATENT ", \"moe_layer_freq\": 0", "moe_layer_freq is 0");
}

static void test_experts_that_do_not_fit(void) {
    check_refused("mixtral", "\"num_local_experts\": 4",
                  "4 experts of 96 dimensions, of which a token takes 0");
    check_refused("mixtral", "\"num_local_experts\": 4, \"num_experts_per_tok\": 5",
                  "of which a token takes 5");
    check_refused("mixtral", "\"num_local_experts\": 5000", "num_local_experts is 5000");
#define GROUPS(groups, top) ROUTED LATENT ", \"n_group\": " groups ", \"topk_group\": " top
    check_read("deepseek_v3", GROUPS("3", "1"));
    CHECK(spec.expert_groups == 3 && spec.top_groups == 1 && spec.group_best == 2);
    check_refused("deepseek_v3", GROUPS("4", "2"), "6 experts cannot be chosen from 2 of 4 groups");
    check_refused("deepseek_v3", GROUPS("3", "0"), "from 0 of 3 groups");
    check_refused("deepseek_v3", GROUPS("3", "4"), "from 4 of 3 groups");
    check_refused("deepseek_v3", GROUPS("6", "2"), "from 2 of 6 groups"); /* the best two of one */
    check_refused("deepseek_v2",
                  LATENT ", \"n_routed_experts\": 6, \"num_experts_per_tok\": 3, \"n_group\": 3, "
                         "\"topk_group\": 1, \"topk_method\": \"group_limited_greedy\"" +
                      2,
                  "of which a token takes 3"); /* 2 in reach */
}

static void test_deepseek(void) {
    check_read("deepseek_v3", ROUTED LATENT ", \"n_shared_experts\": 3, \"q_lora_rank\": 20");
    CHECK(spec.shared_hidden == 72 && spec.hidden == 96 && spec.q_rank == 20);
    CHECK(spec.head_dim == 12 && spec.rope_dim == 4 && spec.value_dim == 12 && spec.kv_heads == 4);
    CHECK(spec.attention_scale == 1 / sqrt(12) && spec.expert_score == MOE_SIGMOID);
    check_read("deepseek_v2", GROUPS("3", "2") ", \"topk_method\": \"greedy\"");
    CHECK(spec.expert_groups == 0 && spec.expert_score == MOE_SOFTMAX && spec.group_best == 1);
    check_read("deepseek_v2", GROUPS("3", "2") ", \"topk_method\": \"group_limited_greedy\"");
    CHECK(spec.expert_groups == 3 && spec.top_groups == 2);
    check_refused("deepseek_v2", GROUPS("3", "2") ", \"topk_method\": \"noaux_tc\"",
                  "topk_method 'noaux_tc' is not supported; nibble runs greedy");
    check_read("deepseek_v3", ROUTED LATENT ", \"rope_scaling\": {\"type\": \"yarn\", \"factor\": "
                                            "40, \"mscale\": 1, \"mscale_all_dim\": 0.5}");
    double sharper = 0.05 * log(40) + 1;
    CHECK(fabs(spec.attention_scale * sqrt(12) / (sharper * sharper) - 1) < 1e-12);
    check_read("deepseek_v3", ROUTED LATENT ", \"rope_scaling\": {\"type\": \"yarn\", \"factor\": "
                                            "40, \"mscale\": 1}");
    CHECK(spec.attention_scale == 1 / sqrt(12));
}

static void test_latent_that_does_not_fit(void) {
    const char *words = "needs qk_nope_head_dim, qk_rope_head_dim and as many key/value heads";
    check_refused("deepseek_v3", ROUTED ", \"kv_lora_rank\": 24, \"qk_rope_head_dim\": 4", words);
    check_refused("deepseek_v3", ROUTED ", \"kv_lora_rank\": 24, \"qk_nope_head_dim\": 8", words);
    check_refused("deepseek_v3", ROUTED LATENT ", \"num_key_value_heads\": 2", words);
    check_refused("deepseek_v3",
                  ROUTED ", \"kv_lora_rank\": 24, \"qk_nope_head_dim\": 8, "
                         "\"qk_rope_head_dim\": 3",
                  "must be even");
}

/* --- other numbers ---------------------------------------------------------------------------- */

static void test_falcon(void) {
    check_read("falcon", "\"num_kv_heads\": 2, \"new_decoder_architecture\": true, "
                         "\"parallel_attn\": true");
    CHECK(spec.kv_heads == 2 && spec.parallel == 1 && !spec.norm_shared);
    check_read("falcon", "\"num_kv_heads\": 2, \"new_decoder_architecture\": true, "
                         "\"num_ln_in_parallel_attn\": 1");
    CHECK(spec.kv_heads == 2 && spec.norm_shared);
    check_read("falcon", "\"num_kv_heads\": 2");
    CHECK(spec.kv_heads == 1 && spec.norm_shared && spec.parallel == 1);
    check_read("falcon", "\"multi_query\": false, \"parallel_attn\": false");
    CHECK(spec.kv_heads == 4 && !spec.parallel && !spec.norm_shared);
    check_refused("falcon", "\"alibi\": true", "alibi is set, which is not supported");
    check_refused("falcon", "\"num_ln_in_parallel_attn\": 3", "num_ln_in_parallel_attn is 3");
}

static void test_llama4(void) {
#define FEW "\"num_local_experts\": 4, \"num_experts_per_tok\": 1, \"attention_chunk_size\": 8, "
    check_layers("llama4_text", FEW "\"interleave_moe_layer_step\": 2", EXPERTS, "nYnYnYnY");
    check_layers("llama4_text", FEW "\"moe_layers\": [0, 5]", EXPERTS, "YnnnnYnn");
    check_layers("llama4_text", FEW "\"no_rope_layers\": [1, 0]", WINDOWED, "YnYnYYYn");
    check_read("llama4_text", FEW "\"intermediate_size_mlp\": 96, \"attn_scale\": 0.3, "
                                  "\"floor_scale\": 16");
    CHECK(spec.chunk == 8 && spec.hidden == 96 && spec.expert_hidden == spec.shared_hidden);
    CHECK(spec.query_growth == 0.3 && spec.growth_context == 16 && spec.qk_norm_plain == 1);
    check_read("llama4_text", FEW "\"attn_temperature_tuning\": false, \"use_qk_norm\": false");
    CHECK(spec.query_growth == 0 && spec.qk_norm == SPEC_QK_NORM_NONE && spec.window == 0);
#undef FEW
}

static void test_gpt2(void) {
    check_read("gpt2", "");
    CHECK(spec.attention_scale == 0.25 && spec.transposed && spec.positions && spec.tied == 1);
    check_read("gpt2", "\"scale_attn_weights\": false");
    CHECK(spec.attention_scale == 1);
    check_refused("gpt2", "\"scale_attn_by_inverse_layer_idx\": true",
                  "scale_attn_by_inverse_layer_idx is set, which is not supported");
}

static void test_qk_norms(void) {
    static const struct {
        const char *type, *flag;
        int kind;
    } cases[] = {{"cohere", "use_qk_norm", SPEC_QK_NORM_HEADS},
                 {"stablelm", "qk_layernorm", SPEC_QK_NORM_HEADS},
                 {"phi", "qk_layernorm", SPEC_QK_NORM_HEAD}};
    for (int i = 0; i < 3; i++) {
        char more[64];
        check_read(cases[i].type, "");
        CHECK(spec.qk_norm == SPEC_QK_NORM_NONE && !spec.qk_norm_bias);
        snprintf(more, sizeof more, "\"%s\": true", cases[i].flag);
        check_read(cases[i].type, more);
        CHECK(spec.qk_norm == cases[i].kind && spec.qk_norm_bias == (i == 2));
        snprintf(more, sizeof more, "\"%s\": 1", cases[i].flag);
        check_refused(cases[i].type, more, "is neither true nor false");
    }
    check_read("stablelm", "\"use_parallel_residual\": true");
    CHECK(spec.parallel == 1 && spec.norm_shared);
    check_read("stablelm", "\"use_parallel_residual\": false");
    CHECK(!spec.parallel && !spec.norm_shared);
}

static void test_activations(void) {
    static const struct {
        const char *type, *word;
        int activation;
    } cases[] = {{"llama", "silu", ACTIVATION_SILU},
                 {"llama", "swish", ACTIVATION_SILU},
                 {"llama", "gelu", ACTIVATION_GELU},
                 {"gemma", "gelu", ACTIVATION_GELU_TANH}, /* a mistake in its first files */
                 {"gemma2", "gelu_pytorch_tanh", ACTIVATION_GELU_TANH},
                 {"phi", "gelu_new", ACTIVATION_GELU_TANH},
                 {"phi", "gelu_tanh", ACTIVATION_GELU_TANH},
                 {"phi", "gelu_fast", ACTIVATION_GELU_TANH},
                 {"starcoder2", "relu", ACTIVATION_RELU},
                 {"starcoder2", "relu2", ACTIVATION_RELU2},
                 {"gpt_oss", "silu", ACTIVATION_CLAMPED}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char more[64];
        snprintf(more, sizeof more, "\"hidden_act\": \"%s\"", cases[i].word);
        check_read(cases[i].type, more);
        CHECK_MSG(spec.activation == cases[i].activation, "%s, %s: %d", cases[i].type,
                  cases[i].word, spec.activation);
    }
    check_refused("gpt_oss", "\"swiglu_limit\": 8", "swiglu_limit is 8, but must be from 7 to 7");
    check_read("gemma", "");
    CHECK(spec.embed_scale == 8 && spec.norm_offset == 1 && spec.tied == 1);
}

/* What a file says counts before what its family does. */
static void test_files_before_families(void) {
    check_read("gemma", "\"tie_word_embeddings\": false");
    CHECK(spec.tied == 0);
    check_read("cohere", "\"logit_scale\": 0.5");
    CHECK(spec.logit_scale == 0.5 && spec.rope_traditional == 1);
    check_read("qwen2", "\"attention_bias\": false");
    CHECK(spec.qkv_bias == 0 && spec.o_plain);
    check_read("deepseek_v3", ROUTED LATENT ", \"rope_interleave\": false, \"norm_topk_prob\": "
                                            "false, \"routed_scaling_factor\": 2.5");
    CHECK(spec.rope_traditional == 0 && spec.renormalize == 0 && spec.expert_scale == 2.5);
    check_read("granite", "\"attention_multiplier\": 0.1, \"query_pre_attn_scalar\": 9");
    CHECK(spec.attention_scale == 0.1);
    check_read("gemma2", "\"query_pre_attn_scalar\": 100");
    CHECK(spec.attention_scale == 0.1);
}

int main(void) {
    check_run("windows in turns", test_windows_in_turns);
    check_run("windows that do not fit", test_windows_that_do_not_fit);
    check_run("late windows", test_late_windows);
    check_run("layers without rope", test_layers_without_rope);
    check_run("lists of divisors", test_lists_of_divisors);
    check_run("rope that does not fit", test_rope_that_does_not_fit);
    check_run("layers with experts", test_layers_with_experts);
    check_run("experts that do not fit", test_experts_that_do_not_fit);
    check_run("deepseek", test_deepseek);
    check_run("latent attention that does not fit", test_latent_that_does_not_fit);
    check_run("falcon", test_falcon);
    check_run("llama4", test_llama4);
    check_run("gpt2", test_gpt2);
    check_run("norms of queries and keys", test_qk_norms);
    check_run("activations", test_activations);
    check_run("files before families", test_files_before_families);
    return check_done();
}
