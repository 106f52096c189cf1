"""What GGUF calls things and what Hugging Face does: one row an architecture.

A row says the model_type, which metadata become which keys of config.json, what the architecture
implies without saying it, and what its tensors are called. What needs more than a name stands in a
function before the rows.

Where llama.cpp turns neighbouring dimensions of a head (2i, 2i + 1), its converters have permuted
the rows of q and k for it. They stay as they lie, and rope_traditional says so in the config: that
costs nothing, keeps whole matrices in one piece, and nibble runs either way.
"""
import math
from collections import namedtuple

import numpy as np

from gguf_blocks import FORMATS, Blocks, all_values, f32_array, take_rows

# keys: {GGUF's key: config's key}. fixed: {config's key: value} unless the file says otherwise.
# tensors: {GGUF's name without layer and without .weight or .bias: Hugging Face's}, or with it if
# Hugging Face has none; %d is the expert. layer: what Hugging Face puts before those of a layer.
# settle(model) does what is left; rearrange: {GGUF's name: function(model, array, layer)} for those
# whose rows lie in another order.
Row = namedtuple("Row", "model_type keys fixed tensors layer settle rearrange minus_one",
                 defaults=("model.layers.%d.", None, {}, False))


# ---- names that several share

SHAPE = {"context_length": "max_position_embeddings", "embedding_length": "hidden_size",
         "block_count": "num_hidden_layers", "feed_forward_length": "intermediate_size",
         "attention.head_count": "num_attention_heads",
         "attention.head_count_kv": "num_key_value_heads", "attention.key_length": "head_dim",
         "rope.freq_base": "rope_theta"}
RMS = {**SHAPE, "attention.layer_norm_rms_epsilon": "rms_norm_eps"}
LAYER_NORM = {**SHAPE, "attention.layer_norm_epsilon": "layer_norm_eps"}
EXPERTS = {**RMS, "expert_count": "num_experts", "expert_used_count": "num_experts_per_tok",
           "expert_weights_norm": "norm_topk_prob"}

ENDS = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
ATTENTION = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
             "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj"}
QK_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
FFN = {"ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
NORMS = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
LLAMA = {**ENDS, **ATTENTION, **FFN, **NORMS}
POST_NORMS = {"post_attention_norm": "post_attention_layernorm",
              "post_ffw_norm": "post_feedforward_layernorm"}
GEMMA_2 = {**LLAMA, **POST_NORMS, "ffn_norm": "pre_feedforward_layernorm"}
MIXTRAL = {"ffn_gate_inp": "block_sparse_moe.gate",
           "ffn_gate_exps": "block_sparse_moe.experts.%d.w1",
           "ffn_up_exps": "block_sparse_moe.experts.%d.w3",
           "ffn_down_exps": "block_sparse_moe.experts.%d.w2"}
MOE = {**ENDS, **ATTENTION, **QK_NORMS, **NORMS, "ffn_gate_inp": "mlp.gate",
       "ffn_gate_exps": "mlp.experts.%d.gate_proj", "ffn_up_exps": "mlp.experts.%d.up_proj",
       "ffn_down_exps": "mlp.experts.%d.down_proj"}

SILU = {"hidden_act": "silu"}
PAIRS = {**SILU, "rope_traditional": True}
GEMMA_ACT = {"hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh"}


# ---- what some architectures need besides

def by_layer(model, period):
    """layer_types: a window in all layers but every period-th, unless the file says which."""
    told = model.get("attention.sliding_window_pattern", period)
    if isinstance(told, np.ndarray) and len(told) == model.layers():
        sliding = [bool(value) for value in told]
    elif type(told) is int and 0 < told < 1 << 16:
        model.config["sliding_window_pattern"] = told
        sliding = [(i + 1) % told != 0 for i in range(model.layers())]
    else:
        model.fail(f"has the metadata {model.name}.attention.sliding_window_pattern in a form that "
                   "has no converter here")
    window = model.config.get("sliding_window")
    model.config["layer_types"] = ["sliding_attention" if window and slides else "full_attention"
                                   for slides in sliding]


def settle_llama(model):
    experts = model.whole("expert_count", 0)
    if experts:
        model.config.update(model_type="mixtral", num_local_experts=experts,
                            num_experts_per_tok=model.needs("expert_used_count"))
    model.config["attention_bias"] = model.holds("attn_q.bias")
    model.config["mlp_bias"] = model.holds("ffn_up.bias")


def settle_mistral3(model):
    model.number("rope.scaling.yarn_log_multiplier")
    beta = model.number("attention.temperature_scale")
    if beta:
        multiplier = model.number("rope.scaling.yarn_log_multiplier", 0)
        model.config["model_type"] = "ministral3"
        model.config.setdefault("rope_scaling", {}).update(
            llama_4_scaling_beta=beta, mscale=multiplier, mscale_all_dim=multiplier)


def expert_width(model, part, key):
    """What goes into an expert's last matrix, which not every file says in its metadata."""
    for name, array in model.tensors.items():
        if name.endswith(f".{part}.weight") and len(array.shape) > 1:
            model.config[key] = array.shape[-1]


def settle_moe(model):
    expert_width(model, "ffn_down_exps", "moe_intermediate_size")
    expert_width(model, "ffn_down_shexp", "shared_expert_intermediate_size")
    model.config.update(decoder_sparse_step=1, mlp_only_layers=[])


def settle_olmoe(model):
    expert_width(model, "ffn_down_exps", "intermediate_size")


def gemma_scale(model, largest_layers):
    """Queries are divided by the root of a head's dimensions, but in the model with most layers."""
    config = model.config
    config["query_pre_attn_scalar"] = (
        config["hidden_size"] // config["num_attention_heads"]
        if model.layers() == largest_layers else model.head_dim())


def settle_gemma2(model):
    gemma_scale(model, 46)
    by_layer(model, 2)


def settle_gemma3(model):
    gemma_scale(model, 62)
    by_layer(model, 6)
    model.config["rope_local_base_freq"] = model.number("rope.freq_base_swa", 10000.0)


def settle_phi3(model):
    original = model.whole("rope.scaling.original_context_length")
    model.config["original_max_position_embeddings"] = (
        original or model.config.get("max_position_embeddings"))
    model.config["sliding_window"] = model.config.get("sliding_window") or None


def settle_falcon(model):
    grouped = model.config["num_kv_heads"] > 1
    model.config.update(new_decoder_architecture=grouped, multi_query=not grouped,
                        num_ln_in_parallel_attn=2 if model.holds("attn_norm_2.weight") else 1)
    if model.holds("attn_norm_2.weight"):
        return {"attn_norm": "ln_mlp", "attn_norm_2": "ln_attn"}
    return None


def settle_neox(model):
    model.config["rotary_emb_base"] = model.config["rope_theta"]


def settle_stablelm(model):
    model.get("use_parallel_residual")  # llama.cpp too looks for the second norm instead
    model.config["use_parallel_residual"] = not model.holds("ffn_norm.weight")
    model.config["use_qkv_bias"] = model.holds("attn_q.bias")
    model.config["qk_layernorm"] = model.holds("attn_q_norm.weight")


def settle_glm4(model):
    model.config["attention_bias"] = model.holds("attn_q.bias")


def settle_granite(model):
    model.config.setdefault("attention_multiplier", model.head_dim() ** -0.5)
    model.config["attention_bias"] = model.holds("attn_q.bias")


def settle_cohere(model):
    model.config["use_qk_norm"] = model.holds("attn_q_norm.weight")


def settle_smollm3(model):
    model.config["no_rope_layers"] = [int((i + 1) % 4 != 0) for i in range(model.layers())]


def settle_exaone4(model):
    if model.config.get("sliding_window"):
        by_layer(model, 4)


def settle_olmo2(model):
    if model.whole("attention.sliding_window", 0):
        model.fail("is an OLMo 3, which has no converter here; download its safetensors version")


def settle_gpt_oss(model):
    by_layer(model, 2)
    if "rope_scaling" in model.config:
        model.config["rope_scaling"]["truncate"] = False


def settle_deepseek2(model):
    config, rotary = model.config, model.needs("rope.dimension_count")
    key, value = (model.needs(f"attention.{part}_length") for part in ("key", "value"))
    key = model.whole("attention.key_length_mla", key)
    value = model.whole("attention.value_length_mla", value)
    config.pop("head_dim", None)
    config["routed_scaling_factor"] = config["routed_scaling_factor"] or 1.0
    config.update(qk_rope_head_dim=rotary, qk_nope_head_dim=key - rotary, v_head_dim=value,
                  num_key_value_heads=config["num_attention_heads"])
    sigmoid = model.whole("expert_gating_func", 1) == 2
    config["model_type"] = "deepseek_v3" if sigmoid else "deepseek_v2"
    config["topk_method"] = ("noaux_tc" if sigmoid else "group_limited_greedy"
                             if config.get("n_group", 1) > 1 else "greedy")
    config["scoring_func"] = "sigmoid" if sigmoid else "softmax"
    expert_width(model, "ffn_down_exps", "moe_intermediate_size")
    multiplier = model.number("rope.scaling.yarn_log_multiplier", 0)
    if multiplier and "rope_scaling" in config:
        mscale = float(f"{multiplier * 10:.6g}")
        config["rope_scaling"].update(mscale=mscale, mscale_all_dim=mscale)


def of_heads(model, array):
    """The sizes of an array of heads of DeepSeek, (heads, rows, columns)."""
    if len(array.shape) != 3:
        model.fail(f"has {array.name} of the shape {array.shape}, which should be one matrix for "
                   "each head")
    return array.shape


def latent_keys(model, array, layer):
    """What makes the keys of each head, which lies transposed. Turning it takes numbers, so it
    becomes f32."""
    (heads, rank, dim), name = of_heads(model, array), f"{layer}self_attn.k_b_proj.weight"

    def pieces():
        for head in range(heads):
            one = take_rows(array, name, [(head, 1)], array.shape[1:])
            yield np.ascontiguousarray(all_values(one).T)

    return [f32_array(Blocks(name, array.path, FORMATS[0], (heads * dim, rank), None), pieces)]


def latent_values(model, array, layer):
    heads, dim, rank = of_heads(model, array)
    return [array._replace(name=f"{layer}self_attn.v_b_proj.weight", shape=(heads * dim, rank))]


def grouped_qkv(model, array, layer):
    """One matrix of queries, keys and values: GGUF has all queries first, Hugging Face the queries
    of each key with that key and its value."""
    heads = model.config["num_attention_heads"]
    groups = model.config.get("num_kv_heads", heads)
    dim = array.shape[0] // (heads + 2 * groups)
    if heads % groups or array.shape[0] != dim * (heads + 2 * groups):
        model.fail(f"has {array.name} with {array.shape[0]} rows, which its heads do not share")
    queries, rows = heads // groups * dim, []
    for i in range(groups):
        rows += [(i * queries, queries), ((heads + i) * dim, dim),
                 ((heads + groups + i) * dim, dim)]
    part = "attention" if model.name == "gptneox" else "self_attention"
    kind = array.name.rsplit(".", 1)[1]
    return [take_rows(array, f"{layer}{part}.query_key_value.{kind}", rows)]


def three_thirds(model, array, layer):
    """One matrix of queries, keys and values, which Hugging Face has as three."""
    third, kind = array.shape[0] // 3, array.name.rsplit(".", 1)[1]
    if array.shape[0] != 3 * third:
        model.fail(f"has {array.name} with {array.shape[0]} rows, which should be three matrices")
    return [take_rows(array, f"{layer}self_attn.{part}_proj.{kind}", [(i * third, third)])
            for i, part in enumerate("qkv")]


def one_row(model, array, layer):
    """The gate of the shared expert is a matrix of one row in Hugging Face's files."""
    return [array._replace(name=f"{layer}mlp.shared_expert_gate.weight",
                           shape=(1, math.prod(array.shape)))]


# ---- the rows

SHARED = {f"ffn_{part}_shexp": f"mlp.shared_expert.{part}_proj" for part in ("gate", "up", "down")}
WINDOW = {"attention.sliding_window": "sliding_window"}

ARCHITECTURES = {
    "llama": Row("llama", {**RMS, **WINDOW}, PAIRS, {**LLAMA, **MIXTRAL}, settle=settle_llama),
    "mistral3": Row("mistral", {**RMS, **WINDOW}, PAIRS, LLAMA, settle=settle_mistral3),
    "smollm3": Row("smollm3", RMS, {**PAIRS, "no_rope_layer_interval": 4}, LLAMA,
                   settle=settle_smollm3),
    "qwen2": Row("qwen2", RMS, SILU, LLAMA),
    "qwen3": Row("qwen3", RMS, SILU, {**LLAMA, **QK_NORMS}),
    "qwen2moe": Row("qwen2_moe", EXPERTS, {**SILU, "norm_topk_prob": False}, {**MOE, **SHARED},
                    settle=settle_moe, rearrange={"ffn_gate_inp_shexp": one_row}),
    "qwen3moe": Row("qwen3_moe", EXPERTS, {**SILU, "norm_topk_prob": True}, MOE,
                    settle=settle_moe),
    "olmoe": Row("olmoe", EXPERTS, {**SILU, "norm_topk_prob": False}, MOE, settle=settle_olmoe),
    "olmo": Row("olmo", {**SHAPE, "attention.clamp_kqv": "clip_qkv"}, PAIRS,
                {**ENDS, **ATTENTION, **FFN}),
    "olmo2": Row("olmo2", RMS, SILU, {**ENDS, **ATTENTION, **QK_NORMS, **FFN, **POST_NORMS},
                 settle=settle_olmo2),
    "exaone4": Row("exaone4", {**RMS, **WINDOW}, SILU,
                   {**ENDS, **ATTENTION, **QK_NORMS, **FFN, **POST_NORMS}, settle=settle_exaone4),
    "gemma": Row("gemma", RMS, GEMMA_ACT, LLAMA, minus_one=True),
    "gemma2": Row("gemma2", {**RMS, **WINDOW, "final_logit_softcapping": "final_logit_softcapping",
                             "attn_logit_softcapping": "attn_logit_softcapping"},
                  GEMMA_ACT, GEMMA_2, settle=settle_gemma2, minus_one=True),
    "gemma3": Row("gemma3_text", {**RMS, **WINDOW,
                                  "final_logit_softcapping": "final_logit_softcapping"},
                  GEMMA_ACT, {**GEMMA_2, **QK_NORMS}, settle=settle_gemma3, minus_one=True),
    "granite": Row("granite", {**RMS, "attention.scale": "attention_multiplier",
                               "embedding_scale": "embedding_multiplier",
                               "residual_scale": "residual_multiplier",
                               "logit_scale": "logits_scaling"},
                   PAIRS, LLAMA, settle=settle_granite),
    "command-r": Row("cohere", {**LAYER_NORM, "logit_scale": "logit_scale"}, PAIRS,
                     {**LLAMA, **QK_NORMS}, settle=settle_cohere),
    "cohere2": Row("cohere2", {**LAYER_NORM, **WINDOW, "logit_scale": "logit_scale"}, PAIRS, LLAMA,
                   settle=lambda model: by_layer(model, 4)),
    "glm4": Row("glm4", RMS, PAIRS,
                {**ENDS, **ATTENTION, "attn_norm": "input_layernorm",
                 "ffn_norm": "post_attention_layernorm", "ffn_up": "mlp.gate_up_proj",
                 "ffn_down": "mlp.down_proj", "post_attention_norm": "post_self_attn_layernorm",
                 "post_ffw_norm": "post_mlp_layernorm"}, settle=settle_glm4),
    "phi2": Row("phi", LAYER_NORM, {"hidden_act": "gelu_new", "partial_rotary_factor": 1.0},
                {**ENDS, **ATTENTION, "output_norm": "model.final_layernorm",
                 "attn_output": "self_attn.dense", "attn_norm": "input_layernorm",
                 "ffn_up": "mlp.fc1", "ffn_down": "mlp.fc2"},
                rearrange={"attn_qkv": three_thirds}),
    "phi3": Row("phi3", {**RMS, **WINDOW}, SILU,
                {**ENDS, **NORMS, "attn_qkv": "self_attn.qkv_proj",
                 "attn_output": "self_attn.o_proj", "ffn_up": "mlp.gate_up_proj",
                 "ffn_down": "mlp.down_proj"}, settle=settle_phi3),
    "stablelm": Row("stablelm", LAYER_NORM, {**SILU, "partial_rotary_factor": 1.0},
                    {**LLAMA, **QK_NORMS}, settle=settle_stablelm),
    "starcoder2": Row("starcoder2", {**SHAPE, "attention.layer_norm_epsilon": "norm_epsilon"},
                      {"hidden_act": "gelu_pytorch_tanh", "use_bias": True},
                      {**ENDS, **ATTENTION, **NORMS, "ffn_up": "mlp.c_fc",
                       "ffn_down": "mlp.c_proj"}),
    "gpt2": Row("gpt2", LAYER_NORM, {"hidden_act": "gelu_new"},
                {**ENDS, **NORMS, "position_embd": "model.wpe",
                 "attn_output": "self_attn.o_proj", "ffn_up": "mlp.fc1", "ffn_down": "mlp.fc2"},
                rearrange={"attn_qkv": three_thirds}),
    "gptneox": Row("gpt_neox", {**LAYER_NORM, "use_parallel_residual": "use_parallel_residual"},
                   {"hidden_act": "gelu", "rotary_pct": 1.0, "use_parallel_residual": False},
                   {"token_embd": "gpt_neox.embed_in", "output_norm": "gpt_neox.final_layer_norm",
                    "output": "embed_out", "attn_output": "attention.dense", **NORMS,
                    "ffn_up": "mlp.dense_h_to_4h", "ffn_down": "mlp.dense_4h_to_h"},
                   "gpt_neox.layers.%d.", settle_neox, {"attn_qkv": grouped_qkv}),
    "falcon": Row("falcon", {**SHAPE, "attention.head_count_kv": "num_kv_heads",
                             "attention.layer_norm_epsilon": "layer_norm_epsilon",
                             "feed_forward_length": "ffn_hidden_size"},
                  {"activation": "gelu", "alibi": False, "bias": False, "parallel_attn": True,
                   "num_kv_heads": 1},
                  {"token_embd": "transformer.word_embeddings", "output_norm": "transformer.ln_f",
                   "output": "lm_head", "attn_output": "self_attention.dense",
                   "attn_norm": "input_layernorm", "ffn_up": "mlp.dense_h_to_4h",
                   "ffn_down": "mlp.dense_4h_to_h"},
                  "transformer.h.%d.", settle_falcon, {"attn_qkv": grouped_qkv}),
    "deepseek2": Row("deepseek_v2", {
        **EXPERTS, "expert_count": "n_routed_experts", "expert_shared_count": "n_shared_experts",
        "expert_weights_scale": "routed_scaling_factor", "expert_group_count": "n_group",
        "expert_group_used_count": "topk_group", "attention.q_lora_rank": "q_lora_rank",
        "attention.kv_lora_rank": "kv_lora_rank",
        "leading_dense_block_count": "first_k_dense_replace"},
        {**PAIRS, "norm_topk_prob": False, "routed_scaling_factor": 1.0, "q_lora_rank": None,
         "n_group": 1, "topk_group": 1, "moe_layer_freq": 1}, {
        **MOE, **FFN, "attn_q_a": "self_attn.q_a_proj", "attn_q_b": "self_attn.q_b_proj",
        "attn_q_a_norm": "self_attn.q_a_layernorm", "attn_kv_b": "self_attn.kv_b_proj",
        "attn_kv_a_mqa": "self_attn.kv_a_proj_with_mqa",
        "attn_kv_a_norm": "self_attn.kv_a_layernorm",
        "exp_probs_b.bias": "mlp.gate.e_score_correction_bias",
        **{key: name.replace("expert", "experts") for key, name in SHARED.items()}},
        settle=settle_deepseek2,
        rearrange={"attn_k_b": latent_keys, "attn_v_b": latent_values}),
    "gpt-oss": Row("gpt_oss", {**EXPERTS, **WINDOW, "expert_count": "num_local_experts"},
                   {**SILU, "attention_bias": True}, {
        **ENDS, **ATTENTION, "attn_norm": "input_layernorm",
        "post_attention_norm": "post_attention_layernorm", "ffn_gate_inp": "mlp.router",
        "attn_sinks.weight": "self_attn.sinks", "ffn_gate_exps": "mlp.experts.gate_proj",
        "ffn_up_exps": "mlp.experts.up_proj", "ffn_down_exps": "mlp.experts.down_proj"},
        settle=settle_gpt_oss),
}
