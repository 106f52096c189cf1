"""Golden checkpoints as GGUF files: a folder of Hugging Face's laid out as llama.cpp's converter
does it.

Most of that is names. A family whose arrays or metadata are more than renamed says so in its row of
FAMILIES. Nothing here uses the script's own code.
"""
import json
import math
import re
import struct
from collections import namedtuple

import numpy as np

from gguf_models import floats, gguf, interleave

# GGUF's names, and those that Hugging Face's families have for the same. Layers are left out, and
# so is .weight or .bias. Families that use a word for something else say it in their row.
NAMES = {
    "token_embd": "embed_tokens wte word_embeddings embed_in", "position_embd": "wpe",
    "output_norm": "norm ln_f final_layernorm final_layer_norm", "output": "lm_head embed_out",
    "attn_norm": "input_layernorm ln_1 ln_mlp", "attn_norm_2": "ln_attn",
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_qkv": "self_attn.qkv_proj attention.query_key_value self_attention.query_key_value "
                "attn.c_attn",
    "attn_output": "self_attn.o_proj self_attn.dense attention.dense self_attention.dense "
                   "attn.c_proj",
    "attn_q_norm": "self_attn.q_norm self_attn.q_layernorm",
    "attn_k_norm": "self_attn.k_norm self_attn.k_layernorm", "attn_sinks": "self_attn.sinks",
    "attn_q_a": "self_attn.q_a_proj", "attn_q_a_norm": "self_attn.q_a_layernorm",
    "attn_q_b": "self_attn.q_b_proj", "attn_kv_a_mqa": "self_attn.kv_a_proj_with_mqa",
    "attn_kv_a_norm": "self_attn.kv_a_layernorm", "attn_kv_b": "self_attn.kv_b_proj",
    "attn_k_b": "self_attn.k_b_proj", "attn_v_b": "self_attn.v_b_proj",
    "post_attention_norm": "post_self_attn_layernorm",
    "ffn_norm": "post_attention_layernorm ln_2 pre_feedforward_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj mlp.gate_up_proj mlp.fc1 mlp.c_fc mlp.dense_h_to_4h",
    "ffn_down": "mlp.down_proj mlp.fc2 mlp.c_proj mlp.dense_4h_to_h",
    "post_ffw_norm": "post_feedforward_layernorm post_mlp_layernorm",
    "ffn_gate_inp": "mlp.gate mlp.router block_sparse_moe.gate",
    "exp_probs_b": "mlp.gate.e_score_correction",
    "ffn_gate_exps": "mlp.experts.gate_proj block_sparse_moe.experts.w1",
    "ffn_up_exps": "mlp.experts.up_proj block_sparse_moe.experts.w3",
    "ffn_down_exps": "mlp.experts.down_proj block_sparse_moe.experts.w2",
    "ffn_gate_inp_shexp": "mlp.shared_expert_gate",
    "ffn_gate_shexp": "mlp.shared_expert.gate_proj mlp.shared_experts.gate_proj",
    "ffn_up_shexp": "mlp.shared_expert.up_proj mlp.shared_experts.up_proj",
    "ffn_down_shexp": "mlp.shared_expert.down_proj mlp.shared_experts.down_proj"}
WORDS = {word: name for name, words in NAMES.items() for word in words.split()}
AFTER = {"post_attention_layernorm": "post_attention_norm"}  # of attention, not before what follows

# Metadata that follow from the config alone, by the words it has for them.
KEYS = {
    "block_count": "num_hidden_layers n_layer", "context_length": "max_position_embeddings "
    "n_positions", "embedding_length": "hidden_size n_embd",
    "feed_forward_length": "intermediate_size n_inner ffn_hidden_size",
    "attention.head_count": "num_attention_heads n_head",
    "attention.head_count_kv": "num_key_value_heads num_kv_heads",
    "attention.key_length": "head_dim", "attention.value_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "attention.layer_norm_epsilon": "layer_norm_eps layer_norm_epsilon norm_epsilon",
    "expert_count": "num_local_experts num_experts n_routed_experts",
    "expert_used_count": "num_experts_per_tok", "expert_group_count": "n_group",
    "expert_group_used_count": "topk_group"}


def read_folder(folder):
    """(config, {name: f32 array})."""
    data = (folder / "model.safetensors").read_bytes()
    size, = struct.unpack_from("<Q", data)
    header, arrays = json.loads(data[8:8 + size]), {}
    header.pop("__metadata__", None)
    for name, entry in header.items():
        start, end = (8 + size + offset for offset in entry["data_offsets"])
        assert entry["dtype"] == "F32", name
        arrays[name] = np.frombuffer(data[start:end], "<f4").reshape(entry["shape"])
    return json.loads((folder / "config.json").read_text()), arrays


# ---- numbers

def head(c):
    return c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"]


def turned(c):
    return int(head(c) * c["rope_parameters"].get("partial_rotary_factor", 1))


def rope_of(c):
    """The part of rope_parameters that counts for all layers, or for those without a window."""
    rope = c.get("rope_parameters", {})
    return rope.get("full_attention", rope)


def rope_keys(c):
    rope, kind = rope_of(c), rope_of(c).get("rope_type")
    local = c.get("rope_parameters", {}).get("sliding_attention", {})
    keys = {"rope.freq_base": rope.get("rope_theta"), "rope.freq_base_swa": local.get("rope_theta")}
    if kind in ("linear", "yarn"):
        keys.update({"rope.scaling.type": kind, "rope.scaling.factor": rope["factor"]})
    if kind == "yarn":
        keys.update({"rope.scaling.original_context_length":
                     rope["original_max_position_embeddings"],
                     "rope.scaling.yarn_beta_fast": rope.get("beta_fast"),
                     "rope.scaling.yarn_beta_slow": rope.get("beta_slow")})
    return keys


def rope_tensors(c):
    """Numbers that frequencies are divided by, one for each pair."""
    rope, found = rope_of(c), {}
    if rope.get("rope_type") == "longrope":
        for kind in ("long", "short"):
            found[f"rope_factors_{kind}.weight"] = np.array(rope[f"{kind}_factor"])
    if rope.get("rope_type") == "llama3":
        low, high = rope["low_freq_factor"], rope["high_freq_factor"]
        waves = [rope["original_max_position_embeddings"] / (2 * math.pi)
                 * rope["rope_theta"] ** (-i / head(c)) for i in range(0, head(c), 2)]
        found["rope_freqs.weight"] = np.array([
            rope["factor"] if w < low else 1 if w > high else
            1 / ((high - w) / (high - low) / rope["factor"] + (w - low) / (high - low))
            for w in waves])
    return found


def llama(c):
    return {"vocab_size": c["vocab_size"], "rope.dimension_count": head(c)}


def yarn_multiplier(scale):
    return lambda c: {"rope.scaling.yarn_log_multiplier": scale * rope_of(c)["mscale_all_dim"]
                      if "mscale_all_dim" in rope_of(c) else None}


def phi3(c):
    context, original = c["max_position_embeddings"], c["original_max_position_embeddings"]
    stretch = math.sqrt(1 + math.log(context / original) / math.log(original)) if (
        context > original) else 1.0
    return {"rope.scaling.original_context_length": original, "rope.dimension_count": turned(c),
            "attention.sliding_window": c["sliding_window"] or 0,
            "rope.scaling.attn_factor": stretch if rope_tensors(c) else None}


def windows(c):
    return {"attention.sliding_window": c["sliding_window"]}


def pattern(c):
    kinds = [kind == "sliding_attention" for kind in c["layer_types"]]
    return {**windows(c), "attention.sliding_window_pattern": c["sliding_window"] and kinds}


def moe(c):
    return {"expert_feed_forward_length": c.get("moe_intermediate_size", c["intermediate_size"]),
            "expert_shared_feed_forward_length": c.get("shared_expert_intermediate_size")}


def deepseek(c):
    return {**moe(c), **yarn_multiplier(0.1)(c), "vocab_size": c["vocab_size"],
            "rope.dimension_count": c["qk_rope_head_dim"],
            "leading_dense_block_count": c["first_k_dense_replace"],
            "attention.q_lora_rank": c["q_lora_rank"],
            "attention.kv_lora_rank": c["kv_lora_rank"],
            "expert_shared_count": c["n_shared_experts"],
            "expert_weights_scale": c["routed_scaling_factor"],
            "expert_weights_norm": c["norm_topk_prob"] or None,
            "expert_gating_func": 2 if c["model_type"] == "deepseek_v3" else 1,
            "attention.key_length": c["qk_head_dim"], "attention.value_length": c["v_head_dim"]}


def deepseek_as_one_head(c):
    """Newer files describe what one head over the latent vector computes."""
    rank, rotary = c["kv_lora_rank"], c["qk_rope_head_dim"]
    return {**deepseek(c), "attention.head_count_kv": 1, "attention.key_length": rank + rotary,
            "attention.value_length": rank, "attention.key_length_mla": c["qk_head_dim"],
            "attention.value_length_mla": c["v_head_dim"]}


# ---- arrays that are more than renamed: (config, name, array) to {name: array}

def permuted(c, name, w):
    heads = {"q": c["num_attention_heads"], "k": c["num_key_value_heads"]}
    part = re.search(r"\.([qk])_proj\.", name)
    return {name: interleave(w, heads[part[1]]) if part else w}


def plus_one(c, name, w):
    """Besides, llama.cpp divides scores by the root of head_dim whatever the config says, so a
    checkpoint with another divisor needs larger or smaller queries to become a file of its."""
    by = math.sqrt(c["head_dim"] / c.get("query_pre_attn_scalar", c["head_dim"]))
    w = w + np.float32(1) if name.endswith("norm.weight") else w
    scaled = "q_norm.weight" if c["model_type"] == "gemma3_text" else "q_proj.weight"
    return {name: w * np.float32(by) if name.endswith(scaled) else w}


def transposed(c, name, w):
    return {name: w.T if w.ndim == 2 and ".c_" in name else w}


def keys_of(c):
    """Of Falcon and GPT-NeoX, which say in several ways how many heads share keys and values."""
    if c.get("new_decoder_architecture"):
        return c["num_kv_heads"]
    return 1 if c.get("multi_query") else c["num_attention_heads"]


def apart(c, name, w):
    """Queries of a key, that key and its value in turns: all queries come first, then all keys."""
    if "query_key_value" not in name:
        return {name: w}
    heads, groups = c["num_attention_heads"], keys_of(c)
    parts = w.reshape(groups, heads // groups + 2, -1, *w.shape[1:])
    return {name: np.concatenate([part.reshape(-1, *w.shape[1:]) for part in
                                  (parts[:, :-2], parts[:, -2], parts[:, -1])])}


def two_of_kv_b(c, name, w):
    if "kv_b_proj" not in name:
        return {name: w}
    heads = w.reshape(c["num_attention_heads"], -1, w.shape[1])
    keys, values = heads[:, :c["qk_nope_head_dim"]], heads[:, c["qk_nope_head_dim"]:]
    return {name.replace("kv_b", "k_b"): keys.transpose(0, 2, 1),
            name.replace("kv_b", "v_b"): values}


def untangled(c, name, w):
    """gpt-oss: matrices of experts are transposed, and gate and up lie in turns."""
    match = re.fullmatch(r"(.*\.experts\.)(gate_up|down)_proj(_bias)?", name)
    if not match:
        return {name + ".weight" if name.endswith("sinks") else name: w}
    start, part, bias = match.groups()
    w, end = (w, "bias") if bias else (w.transpose(0, 2, 1), "weight")
    if part == "down":
        return {f"{start}down_proj.{end}": w}
    return {f"{start}gate_proj.{end}": w[:, ::2], f"{start}up_proj.{end}": w[:, 1::2]}


def same(c, name, w):
    return {name: w}


# ---- families

# says: functions of the config, or metadata, besides KEYS and those of rope; None leaves one out.
Family = namedtuple("Family", "arch says move names", defaults=({}, same, {}))


def family(arch, *says, move=same, names=None):
    def together(c):
        return {key: value for each in says
                for key, value in (each(c) if callable(each) else each).items()}
    return Family(arch, together, move, names or {})


LLAMA = family("llama", llama, move=permuted)
NO_SCALING = {"rope.scaling.type": "none"}
GEMMA_2 = {**AFTER, "pre_feedforward_layernorm": "ffn_norm"}
PHI_3 = family("phi3", phi3)
FALCON = family("falcon", lambda c: {"tensor_data_layout": "jploski", "rope.freq_base": None,
                                     "attention.head_count_kv": keys_of(c)}, move=apart)
DEEPSEEK = {"older": family("deepseek2", deepseek),
            "": family("deepseek2", deepseek_as_one_head, move=two_of_kv_b)}


def rotary(c):
    return {"rope.dimension_count": turned(c)}


# By folder; some have files of two generations.
FAMILIES = {
    "llama": LLAMA, "llama-llama3": LLAMA, "llama-linear": LLAMA, "llama-yarn": LLAMA,
    "mistral-nemo": LLAMA, "mixtral": LLAMA,
    "mistral": family("llama", llama, windows, move=permuted),  # llama.cpp leaves the window out
    "ministral3": family("mistral3", llama, yarn_multiplier(1), lambda c: {
        "attention.temperature_scale": rope_of(c)["llama_4_scaling_beta"]}, move=permuted),
    "gemma": family("gemma", move=plus_one),
    "gemma2": family("gemma2", windows, lambda c: {
        "attn_logit_softcapping": c["attn_logit_softcapping"],
        "final_logit_softcapping": c["final_logit_softcapping"]}, move=plus_one, names=GEMMA_2),
    "gemma3": family("gemma3", pattern, move=plus_one, names=GEMMA_2),
    "phi": family("phi2", rotary), "phi3": PHI_3, "phi3-longrope-long": PHI_3,
    "phi3-longrope-short": PHI_3,
    "qwen2": family("qwen2"), "qwen3": family("qwen3"), "qwen2-moe": family("qwen2moe", moe),
    "qwen3-moe": family("qwen3moe", moe),
    "olmo": family("olmo", lambda c: {"attention.layer_norm_epsilon": 1e-5,
                                      "attention.clamp_kqv": c["clip_qkv"]}, move=permuted),
    "olmo2": family("olmo2", names=AFTER), "olmoe": family("olmoe"),
    "gpt2": family("gpt2", move=transposed),
    "gpt-neox": family("gptneox", rotary, lambda c: {
        "attention.head_count_kv": None, "rope.freq_base": None,
        "use_parallel_residual": c["use_parallel_residual"]}, move=apart),
    "falcon": FALCON, "falcon-mq": FALCON,
    "stablelm": family("stablelm", rotary, lambda c: {
        "use_parallel_residual": c["use_parallel_residual"]}),
    "starcoder2": family("starcoder2"), "smollm3": family("smollm3", llama, move=permuted),
    "granite": family("granite", llama, lambda c: {
        "attention.scale": c["attention_multiplier"], "embedding_scale": c["embedding_multiplier"],
        "residual_scale": c["residual_multiplier"], "logit_scale": c["logits_scaling"]},
        move=permuted),
    "cohere": family("command-r", NO_SCALING, lambda c: {"logit_scale": c["logit_scale"]}),
    "cohere2": family("cohere2", llama, windows, NO_SCALING,
                      lambda c: {"logit_scale": c["logit_scale"]}),
    "glm4": family("glm4", rotary),
    "exaone4": family("exaone4", pattern, names=AFTER),
    "deepseek-v2": DEEPSEEK, "deepseek-v3": DEEPSEEK,
    "gpt-oss": family("gpt-oss", windows, moe, move=untangled, names=AFTER),
}


# ---- the file

def typed(value):
    if isinstance(value, list):
        return [typed(value[0])[0]], value
    return {bool: "bool", int: "u32", float: "f32", str: "str"}[type(value)], value


def metadata_of(row, c):
    said = {key: next((c[word] for word in words.split() if c.get(word) is not None), None)
            for key, words in KEYS.items()}
    said.update(**rope_keys(c))
    said.update(row.says(c))
    return {"general.architecture": ("str", row.arch), "general.type": ("str", "model"),
            **{f"{row.arch}.{key}": typed(value) for key, value in said.items()
               if value is not None}}


def stacked(arrays):
    """What experts, or heads, have each for themselves becomes one array of all."""
    found, number = {}, re.compile(r"\.norms\.(\d+)|(?<=\.experts)\.(\d+)")
    for name, w in arrays.items():
        which = number.search(name)
        group = found.setdefault(number.sub("", name), {})
        group[int(which[1] or which[2]) if which else None] = w
    return {name: group[None] if None in group else np.stack([group[i] for i in range(len(group))])
            for name, group in found.items()}


def name_of(row, name):
    name = name.replace("e_score_correction_bias", "e_score_correction.bias")
    layer, word, kind = re.fullmatch(
        r"(?:(?:model|transformer|gpt_neox)\.)?(?:(?:layers|h)\.(\d+)\.)?(.*)\.(weight|bias)",
        name).groups()
    start = f"blk.{layer}." if layer else ""
    return f"{start}{row.names.get(word) or WORDS[word]}.{kind}"


def tensors_of(row, c, arrays):
    """{GGUF's name: array}."""
    moved = {new: w for name, array in arrays.items()
             for new, w in row.move(c, name, array).items()}
    return {**rope_tensors(c), **{name_of(row, name): w for name, w in stacked(moved).items()}}


def write_gguf(path, row, c, arrays, quantized=None):
    """quantized: {GGUF's name: (format, shape, bytes)} of tensors that replace those of arrays."""
    tensors = {name: floats(w) for name, w in tensors_of(row, c, arrays).items()}
    path.write_bytes(gguf(metadata_of(row, c), {**tensors, **(quantized or {})}))
    return path
