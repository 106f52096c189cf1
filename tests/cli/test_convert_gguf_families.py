#!/usr/bin/python3
"""scripts/convert.py on GGUF files of every architecture: names, config keys, rows that move.

    tests/cli/test_convert_gguf_families.py [WORD...]

What nibble makes of them is tested in test_convert_gguf_golden.py.
"""
import json
import sys

import numpy as np

from gguf_models import floats, gguf, interleave, llama_metadata, matrix
from harness import main
from hf_models import check_refused, convert
from models import unpack

LAYERS, HEADS, KV_HEADS, DIM, EXPERTS = 2, 4, 2, 64, 3
rng = np.random.default_rng(7)

# GGUF's name and Hugging Face's, of what a layer has; + after a name: with a bias.
ENDS = "token_embd model.embed_tokens, output_norm model.norm, output lm_head"
QKVO = ("attn_q self_attn.q_proj, attn_k self_attn.k_proj, attn_v self_attn.v_proj, "
        "attn_output self_attn.o_proj")
QKVO_BIASED = QKVO.replace("attn_q ", "attn_q+ ").replace("attn_k ", "attn_k+ ").replace(
    "attn_v ", "attn_v+ ")
NORMS = "attn_norm input_layernorm, ffn_norm post_attention_layernorm"
MLP = "ffn_gate mlp.gate_proj, ffn_up mlp.up_proj, ffn_down mlp.down_proj"
QK = "attn_q_norm self_attn.q_norm, attn_k_norm self_attn.k_norm"
POST = ("post_attention_norm post_attention_layernorm, "
        "post_ffw_norm post_feedforward_layernorm")
GEMMA = f"{QKVO}, {MLP}, {POST}, attn_norm input_layernorm, ffn_norm pre_feedforward_layernorm"
EXPERT = ("ffn_gate_inp mlp.gate, ffn_gate_exps mlp.experts.%d.gate_proj, "
          "ffn_up_exps mlp.experts.%d.up_proj, ffn_down_exps mlp.experts.%d.down_proj")
LLAMA = f"{QKVO}, {NORMS}, {MLP}"
LAYER_NORM = {"attention.layer_norm_rms_epsilon": None,
              "attention.layer_norm_epsilon": ("f32", 1e-5)}
MOE = {"expert_count": ("u32", EXPERTS), "expert_used_count": ("u32", 2)}
SLIDES, FULL = "sliding_attention", "full_attention"

# By architecture: the names of a layer, more metadata, what the config should say. Besides: the
# names of the ends, and what Hugging Face puts before a layer.
FAMILIES = {
    "llama": (LLAMA, {}, {"model_type": "llama", "rope_traditional": True, "rms_norm_eps": 1e-5}),
    "mistral3": (LLAMA, {}, {"model_type": "mistral", "rope_traditional": True}),
    "smollm3": (LLAMA, {"block_count": ("u32", 4)}, {
        "model_type": "smollm3", "rope_traditional": True, "no_rope_layers": [1, 1, 1, 0]}),
    "qwen2": (f"{QKVO_BIASED}, {NORMS}, {MLP}", {}, {"model_type": "qwen2", "hidden_act": "silu"}),
    "qwen3": (f"{LLAMA}, {QK}", {}, {"model_type": "qwen3", "head_dim": 16}),
    "qwen2moe": (f"{QKVO_BIASED}, {NORMS}, {EXPERT}, ffn_gate_shexp mlp.shared_expert.gate_proj, "
                 "ffn_up_shexp mlp.shared_expert.up_proj, "
                 "ffn_down_shexp mlp.shared_expert.down_proj", MOE,
                 {"model_type": "qwen2_moe", "num_experts": EXPERTS, "num_experts_per_tok": 2,
                  "norm_topk_prob": False, "moe_intermediate_size": 5,
                  "shared_expert_intermediate_size": 5}),
    "qwen3moe": (f"{QKVO}, {NORMS}, {QK}, {EXPERT}", MOE,
                 {"model_type": "qwen3_moe", "num_experts": EXPERTS, "norm_topk_prob": True,
                  "moe_intermediate_size": 5}),
    "olmoe": (f"{QKVO}, {NORMS}, {QK}, {EXPERT}", MOE,
              {"model_type": "olmoe", "num_experts": EXPERTS, "intermediate_size": 5}),
    "olmo": (f"{QKVO}, {MLP}", {**LAYER_NORM, "attention.clamp_kqv": ("f32", 8.0)},
             {"model_type": "olmo", "rope_traditional": True, "clip_qkv": 8.0}),
    "olmo2": (f"{QKVO}, {QK}, {MLP}, {POST}", {}, {"model_type": "olmo2"}),
    "exaone4": (f"{QKVO}, {QK}, {MLP}, {POST}",
                {"block_count": ("u32", 4), "attention.sliding_window": ("u32", 8)},
                {"model_type": "exaone4", "layer_types": [SLIDES, SLIDES, SLIDES, FULL]}),
    "gemma": (LLAMA, {}, {"model_type": "gemma", "hidden_act": "gelu_pytorch_tanh"}),
    "gemma2": (GEMMA, {"attention.sliding_window": ("u32", 8),
                       "attn_logit_softcapping": ("f32", 50.0),
                       "final_logit_softcapping": ("f32", 30.0)},
               {"model_type": "gemma2", "sliding_window": 8, "attn_logit_softcapping": 50.0,
                "final_logit_softcapping": 30.0, "query_pre_attn_scalar": 16,
                "layer_types": [SLIDES, FULL]}),
    "gemma3": (f"{GEMMA}, {QK}", {"block_count": ("u32", 7),
                                  "attention.sliding_window": ("u32", 8),
                                  "rope.scaling.type": ("str", "linear"),
                                  "rope.scaling.factor": ("f32", 8.0)},
               {"model_type": "gemma3_text", "rope_local_base_freq": 10000.0,
                "sliding_window_pattern": 6, "layer_types": [SLIDES] * 5 + [FULL, SLIDES],
                "rope_scaling": {"rope_type": "linear", "factor": 8.0}}),
    "granite": (LLAMA, {"attention.scale": ("f32", 0.25), "embedding_scale": ("f32", 12.0),
                        "residual_scale": ("f32", 0.5), "logit_scale": ("f32", 8.0)},
                {"model_type": "granite", "attention_multiplier": 0.25,
                 "embedding_multiplier": 12.0, "residual_multiplier": 0.5, "logits_scaling": 8.0,
                 "rope_traditional": True}),
    "command-r": (f"{QKVO}, {QK}, {MLP}, attn_norm input_layernorm",
                  {**LAYER_NORM, "logit_scale": ("f32", 0.0625),
                   "rope.scaling.type": ("str", "none")},
                  {"model_type": "cohere", "logit_scale": 0.0625, "use_qk_norm": True,
                   "layer_norm_eps": 1e-5, "rope_traditional": True}),
    "cohere2": (f"{QKVO}, {MLP}, attn_norm input_layernorm",
                {**LAYER_NORM, "logit_scale": ("f32", 0.25), "block_count": ("u32", 5),
                 "attention.sliding_window": ("u32", 8)},
                {"model_type": "cohere2", "layer_types": [SLIDES] * 3 + [FULL, SLIDES]}),
    "glm4": (f"{QKVO_BIASED}, attn_norm input_layernorm, ffn_norm post_attention_layernorm, "
             "post_attention_norm post_self_attn_layernorm, post_ffw_norm post_mlp_layernorm, "
             "ffn_up mlp.gate_up_proj, ffn_down mlp.down_proj",
             {"rope.dimension_count": ("u32", 8)},
             {"model_type": "glm4", "partial_rotary_factor": 0.5, "rope_traditional": True,
              "attention_bias": True}),
    "phi2": ("attn_q+ self_attn.q_proj, attn_k+ self_attn.k_proj, attn_v+ self_attn.v_proj, "
             "attn_output+ self_attn.dense, attn_norm+ input_layernorm, ffn_up+ mlp.fc1, "
             "ffn_down+ mlp.fc2", {**LAYER_NORM, "rope.dimension_count": ("u32", 4)},
             {"model_type": "phi", "partial_rotary_factor": 0.25, "hidden_act": "gelu_new"},
             ENDS.replace("model.norm", "model.final_layernorm").replace("norm ", "norm+ ").replace(
                 "output lm", "output+ lm")),
    "phi3": (f"attn_qkv self_attn.qkv_proj, attn_output self_attn.o_proj, {NORMS}, "
             "ffn_up mlp.gate_up_proj, ffn_down mlp.down_proj",
             {"attention.sliding_window": ("u32", 0),
              "rope.scaling.original_context_length": ("u32", 128)},
             {"model_type": "phi3", "sliding_window": None,
              "original_max_position_embeddings": 128}),
    "stablelm": (LLAMA.replace("norm ", "norm+ "),
                 {**LAYER_NORM, "rope.dimension_count": ("u32", 4),
                  "use_parallel_residual": ("bool", True)},
                 {"model_type": "stablelm", "partial_rotary_factor": 0.25,
                  "use_parallel_residual": False, "use_qkv_bias": False,
                  "qk_layernorm": False},
                 ENDS.replace("norm ", "norm+ ")),
    "starcoder2": (f"{QKVO_BIASED}, {NORMS}, ffn_up+ mlp.c_fc, ffn_down+ mlp.c_proj".replace(
        "norm ", "norm+ ").replace("output ", "output+ "), LAYER_NORM,
        {"model_type": "starcoder2", "norm_epsilon": 1e-5, "use_bias": True},
        ENDS.replace("norm ", "norm+ ")),
    "gpt2": (f"{NORMS}, attn_output self_attn.o_proj, ffn_up mlp.fc1, ffn_down mlp.fc2".replace(
        " ", "+ ").replace(",+", ","), LAYER_NORM, {"model_type": "gpt2", "hidden_act": "gelu_new"},
        ENDS.replace("norm ", "norm+ ") + ", position_embd model.wpe"),
    "gptneox": (f"{NORMS}, attn_output attention.dense, ffn_up mlp.dense_h_to_4h, "
                "ffn_down mlp.dense_4h_to_h".replace(" ", "+ ").replace(",+", ",").replace(
                    "+ ,", ","), {**LAYER_NORM, "use_parallel_residual": ("bool", True),
                                  "rope.dimension_count": ("u32", 4)},
                {"model_type": "gpt_neox", "partial_rotary_factor": 0.25,
                 "use_parallel_residual": True, "rope_theta": 10000.0},
                "token_embd gpt_neox.embed_in, output_norm+ gpt_neox.final_layer_norm, "
                "output embed_out", "gpt_neox.layers.%d."),
    "falcon": ("attn_norm+ input_layernorm, attn_output self_attention.dense, "
               "ffn_up mlp.dense_h_to_4h, ffn_down mlp.dense_4h_to_h", LAYER_NORM,
               {"model_type": "falcon", "num_kv_heads": 2, "new_decoder_architecture": True,
                "num_ln_in_parallel_attn": 1, "layer_norm_epsilon": 1e-5},
               "token_embd transformer.word_embeddings, output_norm+ transformer.ln_f, "
               "output lm_head", "transformer.h.%d."),
    "gpt-oss": (f"{QKVO_BIASED}, attn_norm input_layernorm, "
                "post_attention_norm post_attention_layernorm, ffn_gate_inp+ mlp.router, "
                "ffn_gate_exps+ mlp.experts.gate_proj, ffn_up_exps+ mlp.experts.up_proj, "
                "ffn_down_exps+ mlp.experts.down_proj".replace("output ", "output+ "),
                {**MOE, "attention.sliding_window": ("u32", 8),
                 "rope.scaling.type": ("str", "yarn"), "rope.scaling.factor": ("f32", 32.0),
                 "rope.scaling.original_context_length": ("u32", 64)},
                {"model_type": "gpt_oss", "num_local_experts": EXPERTS,
                 "layer_types": [SLIDES, FULL],
                 "rope_scaling": {"rope_type": "yarn", "factor": 32.0, "truncate": False,
                                  "original_max_position_embeddings": 64}}),
    "deepseek2": (f"attn_q self_attn.q_proj, attn_output self_attn.o_proj, {NORMS}, {EXPERT}, "
                  "attn_kv_a_mqa self_attn.kv_a_proj_with_mqa, attn_kv_b self_attn.kv_b_proj, "
                  "attn_kv_a_norm self_attn.kv_a_layernorm, "
                  "ffn_gate_shexp mlp.shared_experts.gate_proj, "
                  "ffn_up_shexp mlp.shared_experts.up_proj, "
                  "ffn_down_shexp mlp.shared_experts.down_proj",
                  {**MOE, "attention.key_length": ("u32", 24), "rope.dimension_count": ("u32", 8),
                   "attention.kv_lora_rank": ("u32", 24), "expert_shared_count": ("u32", 1),
                   "leading_dense_block_count": ("u32", 1), "rope.scaling.type": ("str", "yarn"),
                   "rope.scaling.factor": ("f32", 40.0),
                   "rope.scaling.original_context_length": ("u32", 64),
                   "rope.scaling.yarn_log_multiplier": ("f32", 0.0707)},
                  {"model_type": "deepseek_v2", "qk_nope_head_dim": 16, "qk_rope_head_dim": 8,
                   "v_head_dim": 16, "kv_lora_rank": 24, "n_routed_experts": EXPERTS,
                   "first_k_dense_replace": 1, "q_lora_rank": None, "num_key_value_heads": 4,
                   "routed_scaling_factor": 1.0, "topk_method": "greedy",
                   "rope_scaling": {"rope_type": "yarn", "factor": 40.0, "mscale": 0.707,
                                    "mscale_all_dim": 0.707,
                                    "original_max_position_embeddings": 64}}),
}


def shape_of(part):
    """Some shape of the right number of sizes; no two sizes of a matrix are equal."""
    if part.endswith(("_exps", "_shexp")):
        of_one = (7, 5) if "down" in part else (5, 7)
        return (EXPERTS, *of_one) if part.endswith("_exps") else of_one
    return (7,) if "norm" in part else (9, 6)


def pairs_of(names, before="", after=""):
    """[(GGUF's name, Hugging Face's, shape)] of what FAMILIES says."""
    found = []
    for pair in names.split(", "):
        part, target = pair.replace("+", "").split(" ")
        found.append((f"{before}{part}.weight", f"{after}{target}.weight", shape_of(part)))
        if "+" in pair:
            shape = shape_of(part)[:-1] if part.endswith("_exps") else (7,)
            found.append((f"{before}{part}.bias", f"{after}{target}.bias", shape))
    return found


def family(arch):
    """(metadata, tensors, {Hugging Face's name: values}, what the config should say)."""
    layer_names, more, config, *rest = FAMILIES[arch]
    ends, prefix = [*rest, *(ENDS, "model.layers.%d.")[len(rest):]]
    metadata = llama_metadata(None, arch, **more)
    pairs, tensors, want = pairs_of(ends), {}, {}
    for layer in range(metadata[f"{arch}.block_count"][1]):
        pairs += pairs_of(layer_names, f"blk.{layer}.", prefix % layer)
    for name, target, shape in pairs:
        values = rng.standard_normal(shape).astype("<f4")
        tensors[name] = floats(values)
        if "%d" in target:
            want.update({target % i: values[i] for i in range(EXPERTS)})
        else:
            shift = arch.startswith("gemma") and "norm" in name
            want[target] = values - np.float32(1) if shift else values
    return metadata, tensors, want, config


def converted(tmp, arch, metadata, tensors):
    """({name: array} without the files, config)."""
    path = tmp / f"{arch}.gguf"
    path.write_bytes(gguf(metadata, tensors))
    arrays, _ = convert(path)
    config = json.loads(arrays.pop("config.json").tobytes())
    return arrays, config


def check_arrays(arrays, want):
    assert arrays.keys() == want.keys(), arrays.keys() ^ want.keys()
    for name, values in want.items():
        assert arrays[name].dtype == "<f4" and np.array_equal(arrays[name], values), name


def check_config(config, want):
    for key, value in want.items():
        assert config.get(key) == value, (key, config.get(key), value)


# ---- names and keys

def test_every_architecture(tmp):
    for arch in FAMILIES:
        metadata, tensors, want, keys = family(arch)
        arrays, config = converted(tmp, arch, metadata, tensors)
        check_arrays(arrays, want)
        check_config(config, {**keys, "vocab_size": 9, "tie_word_embeddings": False,
                              "num_attention_heads": HEADS, "max_position_embeddings": 256})


def test_all_are_named_when_one_is_refused(tmp):
    path = tmp / "m.gguf"
    path.write_bytes(gguf(llama_metadata(None, "mamba"), {"x": floats(np.ones(4))}))
    check_refused(path, "'mamba', which has no converter here; those that have one are "
                  + ", ".join(sorted(FAMILIES)))


def test_tied_output(tmp):
    for arch in FAMILIES:
        metadata, tensors, want, _ = family(arch)
        del tensors["output.weight"]
        tensors.pop("output.bias", None)
        arrays, config = converted(tmp, arch, metadata, tensors)
        assert config["tie_word_embeddings"] is True
        assert len(want) - len(arrays) == (2 if arch == "phi2" else 1)


def test_mixtral(tmp):
    metadata, tensors, want, _ = family("llama")
    metadata.update({f"llama.{key}": value for key, value in MOE.items()})
    for part, target in (("gate", "w1"), ("down", "w2"), ("up", "w3")):
        tensors.pop(f"blk.0.ffn_{part}.weight"), tensors.pop(f"blk.1.ffn_{part}.weight")
        values = rng.standard_normal((EXPERTS, 3, 4)).astype("<f4")
        tensors[f"blk.0.ffn_{part}_exps.weight"] = floats(values)
        for i in range(EXPERTS):  # files of 2023 hold the experts one by one
            tensors[f"blk.1.ffn_{part}.{i}.weight"] = floats(values[i] + 1)
            for layer in (0, 1):
                name = f"model.layers.{layer}.block_sparse_moe.experts.{i}.{target}.weight"
                want[name] = values[i] + np.float32(layer)
        for layer in (0, 1):
            del want[f"model.layers.{layer}.mlp.{part}_proj.weight"]
    for layer in (0, 1):
        values = rng.standard_normal((EXPERTS, 4)).astype("<f4")
        tensors[f"blk.{layer}.ffn_gate_inp.weight"] = floats(values)
        want[f"model.layers.{layer}.block_sparse_moe.gate.weight"] = values
    arrays, config = converted(tmp, "llama", metadata, tensors)
    check_arrays(arrays, want)
    check_config(config, {"model_type": "mixtral", "num_local_experts": EXPERTS,
                          "num_experts_per_tok": 2})


def test_ministral(tmp):
    metadata, tensors, want, _ = family("mistral3")
    metadata.update({"mistral3.attention.temperature_scale": ("f32", 0.1),
                     "mistral3.rope.scaling.type": ("str", "yarn"),
                     "mistral3.rope.scaling.factor": ("f32", 16.0),
                     "mistral3.rope.scaling.yarn_beta_fast": ("f32", 32.0),
                     "mistral3.rope.scaling.yarn_beta_slow": ("f32", 1.0),
                     "mistral3.rope.scaling.yarn_log_multiplier": ("f32", 1.0),
                     "mistral3.rope.scaling.original_context_length": ("u32", 64)})
    _, config = converted(tmp, "mistral3", metadata, tensors)
    check_config(config, {"model_type": "ministral3", "rope_scaling": {
        "rope_type": "yarn", "factor": 16.0, "original_max_position_embeddings": 64,
        "beta_fast": 32.0, "beta_slow": 1.0, "llama_4_scaling_beta": 0.1, "mscale": 1.0,
        "mscale_all_dim": 1.0}})


# ---- rows that move

def test_quantized_experts_stay_quantized(tmp):
    metadata, tensors, _, _ = family("qwen3moe")
    (kind, _, data), values = matrix("Q4_K", EXPERTS * 2, 256)
    tensors["blk.0.ffn_up_exps.weight"] = kind, (EXPERTS, 2, 256), data
    arrays, _ = converted(tmp, "qwen3moe", metadata, tensors)
    for i in range(EXPERTS):
        base = f"model.layers.0.mlp.experts.{i}.up_proj."
        codes = np.stack([arrays[base + "weight"].view("u1") & 15,
                          arrays[base + "weight"].view("u1") >> 4], axis=-1).reshape(2, 8, 32)
        got = codes * arrays[base + "scales"][..., None].astype("f8") + (
            arrays[base + "biases"][..., None])
        assert np.array_equal(got.reshape(2, 256), values[2 * i:2 * i + 2]), i


def test_divisor_of_scores(tmp):
    """The root of head_dim, but in the largest Gemma 2 that of the width through the heads."""
    for layers, divisor in ((2, 24), (46, 16)):
        metadata, tensors, _, _ = family("gemma2")
        metadata.update({"gemma2.block_count": ("u32", layers),
                         "gemma2.attention.key_length": ("u32", 24),
                         "gemma2.attention.value_length": ("u32", 24)})
        del metadata["gemma2.rope.dimension_count"]
        config = converted(tmp, "gemma2", metadata, tensors)[1]
        assert config["query_pre_attn_scalar"] == divisor and config["head_dim"] == 24


def test_gate_and_up_in_one(tmp):
    metadata, tensors, want, _ = family("qwen3moe")
    for layer in (0, 1):
        parts = [tensors.pop(f"blk.{layer}.ffn_{part}_exps.weight") for part in ("gate", "up")]
        both = np.concatenate([np.frombuffer(data, "<f4").reshape(shape)
                               for _, shape, data in parts], axis=1)
        tensors[f"blk.{layer}.ffn_gate_up_exps.weight"] = floats(both)
    arrays, config = converted(tmp, "qwen3moe", metadata, tensors)
    check_arrays(arrays, want)
    check_config(config, {"moe_intermediate_size": 5})
    tensors["blk.0.ffn_gate_up_exps.weight"] = floats(both[:, 1:])
    (tmp / "odd.gguf").write_bytes(gguf(metadata, tensors))
    check_refused(tmp / "odd.gguf", "one matrix for each expert")


def test_norms_of_each_head(tmp):
    for arch, key in (("stablelm", "qk_layernorm"), ("command-r", "use_qk_norm")):
        metadata, tensors, _, _ = family(arch)
        for name in [name for name in tensors if "_q_norm" in name or "_k_norm" in name]:
            del tensors[name]
        assert converted(tmp, arch, metadata, tensors)[1][key] is False
        values = rng.standard_normal((HEADS, 16)).astype("<f4")
        tensors["blk.0.attn_q_norm.weight"] = floats(values)
        arrays, config = converted(tmp, arch, metadata, tensors)
        assert np.array_equal(arrays["model.layers.0.self_attn.q_norm.weight"], values)
        assert config[key] is True


def test_biases_that_some_lack(tmp):
    metadata, tensors, _, _ = family("glm4")
    tensors = {name: tensor for name, tensor in tensors.items() if not name.endswith(".bias")}
    assert converted(tmp, "glm4", metadata, tensors)[1]["attention_bias"] is False


def test_stacked_experts(tmp):
    metadata, tensors, want, _ = family("gpt-oss")
    (kind, _, data), _ = matrix("MXFP4", EXPERTS * 2, 64)
    tensors["blk.0.ffn_up_exps.weight"] = kind, (EXPERTS, 2, 64), data
    tensors["blk.0.attn_sinks.weight"] = floats(np.arange(4.0))
    arrays, _ = converted(tmp, "gpt-oss", metadata, tensors)
    base = "model.layers.0.mlp.experts.up_proj."
    assert arrays[base + "weight"].shape == (EXPERTS, 2, 10)
    assert arrays[base + "scales"].shape == arrays[base + "biases"].shape == (EXPERTS, 2, 2)
    assert arrays["model.layers.0.self_attn.sinks"].tolist() == [0, 1, 2, 3]
    assert len(arrays) == len(want) + 3


def split_rows(values, heads, groups):
    """Queries, keys and values as GGUF has them: [heads, dim, ...], [groups, dim, ...] twice."""
    parts = values.reshape(heads + 2 * groups, -1, *values.shape[1:])
    return parts[:heads], parts[heads:heads + groups], parts[heads + groups:]


def test_grouped_queries_keys_and_values(tmp):
    for arch, groups, name in (("falcon", 2, "transformer.h.0.self_attention"),
                               ("falcon", 1, "transformer.h.0.self_attention"),
                               ("gptneox", HEADS, "gpt_neox.layers.0.attention")):
        metadata, tensors, _, _ = family(arch)
        metadata[f"{arch}.attention.head_count_kv"] = "u32", groups
        rows = (HEADS + 2 * groups) * 16
        weight, bias = rng.standard_normal((rows, 6)), rng.standard_normal(rows)
        tensors["blk.0.attn_qkv.weight"] = floats(weight)
        tensors["blk.0.attn_qkv.bias"] = floats(bias)
        (kind, shape, data), quantized = matrix("Q8_0", rows, 32)
        tensors["blk.1.attn_qkv.weight"] = kind, shape, data
        arrays, config = converted(tmp, arch, metadata, tensors)
        for part, values in (("weight", weight), ("bias", bias)):
            q, k, v = split_rows(values, HEADS, groups)
            per = HEADS // groups
            want = [w for g in range(groups) for w in (*q[g * per:(g + 1) * per], k[g], v[g])]
            got = arrays[f"{name}.query_key_value.{part}"]
            assert np.array_equal(got, np.concatenate(want).astype("f4")), (arch, groups, part)
        q, k, v = split_rows(quantized, HEADS, groups)
        want = np.concatenate([w for g in range(groups) for w in
                               (*q[g * (HEADS // groups):(g + 1) * (HEADS // groups)], k[g], v[g])])
        base = name.replace(".0.", ".1.") + ".query_key_value."
        got = arrays[base + "weight"].view("u1") * arrays[base + "scales"].astype("f8")
        assert np.array_equal(got + arrays[base + "biases"], want), (arch, groups)
        assert config.get("multi_query", groups == 1) == (groups == 1)


def test_falcon_with_two_norms(tmp):
    metadata, tensors, _, _ = family("falcon")
    tensors["blk.0.attn_norm_2.weight"] = floats(np.full(7, 3.0))
    arrays, config = converted(tmp, "falcon", metadata, tensors)
    assert (arrays["transformer.h.0.ln_attn.weight"] == 3).all()
    assert "transformer.h.0.ln_mlp.bias" in arrays and config["num_ln_in_parallel_attn"] == 2


def test_phi2_in_one_matrix(tmp):
    metadata, tensors, _, _ = family("phi2")
    values = rng.standard_normal((12, 6)).astype("<f4")
    for part in ("q", "k", "v"):
        tensors.pop(f"blk.0.attn_{part}.weight"), tensors.pop(f"blk.0.attn_{part}.bias")
    tensors["blk.0.attn_qkv.weight"] = floats(values)
    tensors["blk.0.attn_qkv.bias"] = floats(values[:, 0])
    arrays, _ = converted(tmp, "phi2", metadata, tensors)
    for i, part in enumerate("qkv"):
        name, rows = f"model.layers.0.self_attn.{part}_proj.", slice(4 * i, 4 * i + 4)
        assert np.array_equal(arrays[name + "weight"], values[rows])
        assert np.array_equal(arrays[name + "bias"], values[rows, 0])


def test_gate_of_the_shared_expert(tmp):
    metadata, tensors, _, _ = family("qwen2moe")
    tensors["blk.0.ffn_gate_inp_shexp.weight"] = floats(np.arange(7.0))
    arrays, _ = converted(tmp, "qwen2moe", metadata, tensors)
    gate = arrays["model.layers.0.mlp.shared_expert_gate.weight"]
    assert gate.tolist() == [[0, 1, 2, 3, 4, 5, 6]]


def test_deepseek_keys_and_values(tmp):
    """llama.cpp's newer files hold kv_b in two, that of keys transposed; v3 has more metadata."""
    metadata, tensors, _, _ = family("deepseek2")
    values = rng.standard_normal((HEADS, 16 + 12, 32)).astype("<f4")
    tensors.pop("blk.0.attn_kv_b.weight")
    tensors["blk.0.attn_k_b.weight"] = floats(values[:, :16].transpose(0, 2, 1))
    tensors["blk.0.attn_v_b.weight"] = floats(values[:, 16:])
    (kind, _, data), numbers = matrix("Q8_0", HEADS * 12, 32)
    tensors.pop("blk.1.attn_kv_b.weight")
    tensors["blk.1.attn_k_b.weight"] = floats(values[:, :16].transpose(0, 2, 1), "F16")
    tensors["blk.1.attn_v_b.weight"] = kind, (HEADS, 12, 32), data
    tensors["blk.1.exp_probs_b.bias"] = floats(np.arange(3.0))
    metadata.update({"deepseek2.attention.key_length_mla": ("u32", 24),
                     "deepseek2.attention.value_length_mla": ("u32", 12),
                     "deepseek2.attention.head_count_kv": ("u32", 1),
                     "deepseek2.expert_gating_func": ("u32", 2),
                     "deepseek2.expert_weights_norm": ("bool", True),
                     "deepseek2.expert_weights_scale": ("f32", 2.5),
                     "deepseek2.attention.q_lora_rank": ("u32", 24)})
    arrays, config = converted(tmp, "deepseek2", metadata, tensors)
    name = "model.layers.%d.self_attn.%s_b_proj."
    keys, others = values[:, :16].reshape(-1, 32), values[:, 16:].reshape(-1, 32)
    assert np.array_equal(arrays[name % (0, "k") + "weight"], keys)
    assert np.array_equal(arrays[name % (0, "v") + "weight"], others)
    assert np.array_equal(arrays[name % (1, "k") + "weight"], keys.astype("f2").astype("f4"))
    got, _ = unpack(arrays, name % (1, "v") + "weight", 8, 32)
    assert np.array_equal(got, numbers), "these stay quantized"
    assert arrays["model.layers.1.mlp.gate.e_score_correction_bias"].tolist() == [0, 1, 2]
    check_config(config, {"model_type": "deepseek_v3", "norm_topk_prob": True, "v_head_dim": 12,
                          "routed_scaling_factor": 2.5, "topk_method": "noaux_tc",
                          "q_lora_rank": 24, "num_key_value_heads": HEADS})


def test_phi3_long(tmp):
    metadata, tensors, want, _ = family("phi3")
    long, short = [1.1, 2.5, 3.75, 8.0, 9.0, 10.0, 11.0, 12.0], [1.0] * 7 + [1.5]
    tensors["rope_factors_long.weight"] = floats(np.array(long))
    tensors["rope_factors_short.weight"] = floats(np.array(short))
    metadata["phi3.rope.scaling.attn_factor"] = "f32", 1.19
    arrays, config = converted(tmp, "phi3", metadata, tensors)
    check_arrays(arrays, want)
    check_config(config, {"rope_scaling": {"rope_type": "longrope", "long_factor": long,
                                           "short_factor": short}})


def test_interleaving_is_its_own_description():
    """Of a head with rows a0 a1 a2 | b0 b1 b2, llama.cpp's files hold a0 b0 a1 b1 a2 b2."""
    rows = ["a0", "a1", "a2", "b0", "b1", "b2", "c0", "c1", "c2", "d0", "d1", "d2"]
    assert interleave(rows, 2) == ["a0", "b0", "a1", "b1", "a2", "b2",
                                   "c0", "d0", "c1", "d1", "c2", "d2"]


if __name__ == "__main__":
    sys.exit(main(globals()))
