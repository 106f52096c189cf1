#!/usr/bin/python3
"""Families whose equations meet: a checkpoint of one, written with the names and the config of the
other, gives the same logits. This holds for families that tests/golden has no checkpoint of.

    tests/model/test_families.py [--build DIR] [WORD...]
"""
import sys

import numpy as np

from golden import GOLDEN, ids_of, logits, read_folder
from harness import main  # golden.py says where that is
from models import save_npz


def compare(nibble, tmp, ids, one, other, most=0.0):
    """Logits of two models, each arrays and config."""
    a, b = (logits(nibble, save_npz(tmp / "m.npz", *model), ids, tmp / "l.npy")
            for model in (one, other))
    assert a.std() > 0.3
    worst = np.abs(a - b).max()
    assert worst <= most, f"logits differ by {worst:.1e}"
    return a


def renamed(arrays, *pairs):
    for old, new in pairs:
        assert any(old in name for name in arrays), old
        arrays = {name.replace(old, new): a for name, a in arrays.items()}
    return arrays


# ---- Llama's equations

def check_like_llama(nibble, tmp, family, changes, change=lambda arrays: arrays):
    """And a config that says something else makes a difference."""
    arrays, config = read_folder(GOLDEN / "llama-llama3")
    ids = ids_of(GOLDEN / "llama-llama3")
    other = config | {"model_type": family} | changes
    return compare(nibble, tmp, ids, (arrays, config), (change(dict(arrays)), other)), ids


def with_zero_biases(arrays):
    for i in range(2):
        for part, size in (("q", 64), ("k", 32), ("v", 32)):
            arrays[f"model.layers.{i}.self_attn.{part}_proj.bias"] = np.zeros(size, "<f4")
    return arrays


def fused(arrays):
    for i in range(2):
        layer = f"model.layers.{i}."
        for new, parts in ((f"{layer}self_attn.qkv_proj.weight",
                            [f"{layer}self_attn.{p}_proj.weight" for p in "qkv"]),
                           (f"{layer}mlp.gate_up_proj.weight",
                            [f"{layer}mlp.{p}_proj.weight" for p in ("gate", "up")])):
            arrays[new] = np.concatenate([arrays.pop(part) for part in parts])
    return arrays


def test_mistral(tmp, nibble):
    whole, ids = check_like_llama(nibble, tmp, "mistral", {"sliding_window": None})
    arrays, config = read_folder(GOLDEN / "llama-llama3")
    config |= {"model_type": "mistral", "sliding_window": 8}
    save_npz(tmp / "m.npz", arrays, config)
    got = logits(nibble, tmp / "m.npz", ids, tmp / "l.npy")
    assert np.array_equal(got[:8], whole[:8]) and np.abs(got[8:] - whole[8:]).max() > 0.01


def test_ministral3(tmp, nibble):
    check_like_llama(nibble, tmp, "ministral3", {"sliding_window": None})


def test_qwen2(tmp, nibble):
    check_like_llama(nibble, tmp, "qwen2", {"attention_bias": None}, with_zero_biases)


def test_smollm3(tmp, nibble):
    check_like_llama(nibble, tmp, "smollm3", {"no_rope_layers": [1, 1]})


def test_granite(tmp, nibble):
    check_like_llama(nibble, tmp, "granite",
                     {"embedding_multiplier": 1.0, "residual_multiplier": 1.0,
                      "logits_scaling": 1.0, "attention_multiplier": 0.25})


def test_phi3(tmp, nibble):
    check_like_llama(nibble, tmp, "phi3", {}, fused)


def test_cohere(tmp, nibble):
    """Command R7B whose layers all have a window that is wide enough."""
    arrays, config = read_folder(GOLDEN / "cohere2")
    config["layer_types"] = ["sliding_attention"] * 4
    ids = ids_of(GOLDEN / "cohere2")
    one, other = config | {"sliding_window": 256}, config | {"model_type": "cohere",
                                                             "sliding_window": None}
    compare(nibble, tmp, ids, (arrays, one), (arrays, other))


# ---- experts

def test_mixtral(tmp, nibble):
    """The softmax over the chosen is the softmax over all, renormalized."""
    arrays, config = read_folder(GOLDEN / "qwen2-moe")
    ids = ids_of(GOLDEN / "qwen2-moe")
    arrays = {name: np.zeros_like(a) if name.endswith("_proj.bias") else a
              for name, a in arrays.items() if "shared_expert" not in name}
    config |= {"shared_expert_intermediate_size": 0, "norm_topk_prob": True}
    other = renamed({name: a for name, a in arrays.items() if not name.endswith("_proj.bias")},
                    ("mlp.", "block_sparse_moe."), (".gate_proj.", ".w1."), (".up_proj.", ".w3."),
                    (".down_proj.", ".w2."))
    changes = {"model_type": "mixtral", "num_local_experts": config["num_experts"],
               "intermediate_size": config["moe_intermediate_size"], "qkv_bias": None}
    compare(nibble, tmp, ids, (arrays, config), (other, config | changes), 2e-5)


# ---- LayerNorm, and a feed-forward block without a gate

def neox(**changes):
    """gpt-neox without biases but of norms, all of a head turning."""
    arrays, config = read_folder(GOLDEN / "gpt-neox")
    arrays = {name: np.zeros_like(a) if name.endswith("bias") and "norm" not in name else a
              for name, a in arrays.items()}
    config["rope_parameters"] = {"rope_type": "default", "rope_theta": 10000.0,
                                 "partial_rotary_factor": 1.0}
    return arrays, config | changes, ids_of(GOLDEN / "gpt-neox")


def without_biases(arrays):
    return {name: a for name, a in arrays.items()
            if not name.endswith("bias") or "norm" in name or "ln_" in name}


COMMON = {"attention_bias": None, "tie_word_embeddings": False}


def falcon_names(arrays):
    return renamed(arrays, ("gpt_neox.layers.", "transformer.h."), ("gpt_neox.", "transformer."),
                   (".attention.", ".self_attention."),
                   ("input_layernorm", "ln_attn"), ("post_attention_layernorm", "ln_mlp"),
                   ("final_layer_norm", "ln_f"), ("embed_in", "word_embeddings"),
                   ("embed_out", "lm_head"))


def test_falcon(tmp, nibble):
    arrays, config, ids = neox(use_parallel_residual=True)
    other = falcon_names(without_biases(arrays))
    changes = {"model_type": "falcon", "new_decoder_architecture": True, "num_kv_heads": 4,
               "parallel_attn": True, "bias": False, **COMMON}
    compare(nibble, tmp, ids, (arrays, config), (other, config | changes))


def split_heads(arrays):
    """Queries, keys and values of one head after the other, apart."""
    for name in [name for name in arrays if ".query_key_value." in name]:
        rows = arrays.pop(name)
        heads = rows.reshape(4, 3, 16, *rows.shape[1:])
        for i, part in enumerate("qkv"):
            new = name.replace("attention.query_key_value", f"self_attn.{part}_proj")
            arrays[new] = np.ascontiguousarray(heads[:, i]).reshape(64, *rows.shape[1:])
    return renamed(arrays, ("gpt_neox.", "model."), (".attention.dense.", ".self_attn.o_proj."),
                   ("final_layer_norm", "norm"), ("embed_in", "embed_tokens"),
                   ("embed_out", "lm_head"), ("dense_h_to_4h", "c_fc"), ("dense_4h_to_h", "c_proj"))


def test_starcoder2(tmp, nibble):
    arrays, config, ids = neox(use_parallel_residual=False, hidden_act="gelu_pytorch_tanh")
    changes = {"model_type": "starcoder2", "use_bias": True, "sliding_window": None,
               "norm_epsilon": config["layer_norm_eps"], **COMMON}
    compare(nibble, tmp, ids, (arrays, config), (split_heads(dict(arrays)), config | changes))


def test_starcoder2_without_biases(tmp, nibble):
    arrays, config, ids = neox(use_parallel_residual=False, hidden_act="gelu_pytorch_tanh")
    changes = {"model_type": "starcoder2", "use_bias": False, "sliding_window": None,
               "norm_epsilon": config["layer_norm_eps"], **COMMON}
    other = without_biases(split_heads(dict(arrays)))
    compare(nibble, tmp, ids, (arrays, config), (other, config | changes))


if __name__ == "__main__":
    sys.exit(main(globals()))
