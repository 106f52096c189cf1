#!/usr/bin/python3
"""What families allow and no checkpoint of tests/golden has: biases and norms of queries and keys
that a config turns on. Each tensor must be there exactly if it says so, must count, and must lie in
a decoded model as well. And the sentences about stacked experts that do not fit.

    tests/model/test_variants.py [--build DIR] [WORD...]
"""
import sys

import numpy as np

from golden import GOLDEN, decode, ids_of, logits, read_folder
from harness import main  # golden.py says where that is
from models import save_npz

HEADS = {"q_layernorm": 4, "k_layernorm": 2}

# A checkpoint, what its config gains, and the tensors of each layer that this asks for.
VARIANTS = {
    "phi_norms": ("phi", {"qk_layernorm": True},
                  {f"self_attn.{part}_layernorm.{kind}": 16 for part in "qk"
                   for kind in ("weight", "bias")}),
    "llama_mlp_bias": ("llama-llama3", {"mlp_bias": True},
                       {"mlp.gate_proj.bias": 128, "mlp.up_proj.bias": 128,
                        "mlp.down_proj.bias": 64}),
    "llama_attention_bias": ("llama-llama3", {"attention_bias": True},
                             {"self_attn.q_proj.bias": 64, "self_attn.k_proj.bias": 32,
                              "self_attn.v_proj.bias": 32, "self_attn.o_proj.bias": 64}),
    "deepseek_bias": ("deepseek-v3", {"attention_bias": True},
                      {"self_attn.q_a_proj.bias": 24, "self_attn.kv_a_proj_with_mqa.bias": 32,
                       "self_attn.o_proj.bias": 64}),
    "stablelm_norms": ("llama-llama3", {"model_type": "stablelm", "qk_layernorm": True},
                       {f"self_attn.{part}.norms.{head}.weight": 16
                        for part, heads in HEADS.items() for head in range(heads)}),
    "cohere_norms": ("cohere2", {"model_type": "cohere", "use_qk_norm": True},
                     {"self_attn.q_norm.weight": (4, 16), "self_attn.k_norm.weight": (2, 16)}),
}


def values(rng, name, shape):
    return rng.normal(name.endswith("weight"), 0.3, shape).astype("<f4")


def make(variant):
    """Arrays of the checkpoint, its config, and the arrays that the variant adds."""
    base, changes, tensors = VARIANTS[variant]
    arrays, config = read_folder(GOLDEN / base)
    rng = np.random.default_rng(2)
    if changes.get("model_type") == "stablelm":
        config["layer_norm_eps"] = 1e-5
        for name in [name for name in arrays if name.endswith("norm.weight")]:
            arrays[name.replace("weight", "bias")] = values(rng, "bias", arrays[name].shape)
    added = {f"model.layers.{i}.{name}": values(rng, name, shape)
             for i in range(config["num_hidden_layers"]) for name, shape in tensors.items()}
    return arrays, config | {k: v for k, v in changes.items() if v is not True}, added


def check_variant(variant, tmp, nibble):
    base, changes, _ = VARIANTS[variant]
    arrays, config, added = make(variant)
    ids, flags = ids_of(GOLDEN / base), {k: v for k, v in changes.items() if v is True}

    def run(arrays, config, name="m.npz"):
        return logits(nibble, save_npz(tmp / name, arrays, config), ids, tmp / "l.npy")

    without, wanted = run(arrays, config), run(arrays | added, config | flags)
    assert np.abs(wanted - without).max() > 0.01
    for name in added:
        still = name.endswith(("k_proj.bias", "k_layernorm.bias"))  # what rope hardly turns
        for end in (0,) if still else (0, -1):                      # is the same at all positions
            changed = added[name].copy()
            changed.flat[end] += 1
            got = run(arrays | added | {name: changed}, config | flags)
            difference = np.abs(got - wanted).max()
            assert difference > 1e-3, f"{name}: the number at {end} changes {difference:.1e}"
    save_npz(tmp / "m.npz", arrays | added, config | flags)
    decode(nibble, tmp / "m.npz", tmp / "d.npz")
    assert np.array_equal(logits(nibble, tmp / "d.npz", ids, tmp / "l.npy"), wanted)

    for name in added:
        less = {n: a for n, a in (arrays | added).items() if n != name}
        save_npz(tmp / "less.npz", less, config | flags)
        nibble.refuses("info", tmp / "less.npz", says=[name.split("self_attn")[0].split("mlp")[0],
                                                       "it is missing"])
    save_npz(tmp / "more.npz", arrays | added, config)
    nibble.refuses("info", tmp / "more.npz", says=["no place for", *list(added)[:3]])


for each in VARIANTS:
    globals()[f"test_{each}"] = (
        lambda variant: lambda tmp, nibble: check_variant(variant, tmp, nibble))(each)


def test_norms_of_heads_in_one(tmp, nibble):
    """StableLM's norms, a tensor each, become the rows of one."""
    arrays, config, added = make("stablelm_norms")
    save_npz(tmp / "m.npz", arrays | added, config | {"qk_layernorm": True})
    decoded = decode(nibble, tmp / "m.npz", tmp / "d.npz")
    for part, heads in HEADS.items():
        rows = [added[f"model.layers.1.self_attn.{part}.norms.{i}.weight"] for i in range(heads)]
        got = decoded[f"model.layers.1.self_attn.{part[0]}_norm.weight"]
        assert np.array_equal(got, np.stack(rows)), part


def test_biases_stand_for_others(tmp, nibble):
    """W (norm + b) = W norm + W b: what a norm adds can be added behind its matrices as well."""
    arrays, config, _ = make("stablelm_norms")
    ids = ids_of(GOLDEN / "llama-llama3")
    wanted = logits(nibble, save_npz(tmp / "m.npz", arrays, config), ids, tmp / "l.npy")
    moved = dict(arrays)
    for i in range(2):
        layer = f"model.layers.{i}."
        for norm, parts in (("post_attention_layernorm", ("mlp.gate_proj", "mlp.up_proj")),
                            ("input_layernorm", [f"self_attn.{p}_proj" for p in "qkv"])):
            bias = arrays[f"{layer}{norm}.bias"].astype("f8")
            moved[f"{layer}{norm}.bias"] = np.zeros(64, "<f4")
            for part in parts:
                product = arrays[f"{layer}{part}.weight"].astype("f8") @ bias
                moved[f"{layer}{part}.bias"] = product.astype("<f4")
        moved[f"{layer}mlp.down_proj.bias"] = np.zeros(64, "<f4")
    config |= {"mlp_bias": True, "use_qkv_bias": True}
    config.pop("attention_bias", None)
    got = logits(nibble, save_npz(tmp / "m.npz", moved, config), ids, tmp / "l.npy")
    assert np.abs(got - wanted).max() < 5e-5, np.abs(got - wanted).max()


def test_bounds_of_queries_keys_and_values(tmp, nibble):
    """OLMo's clip_qkv: one that nothing reaches changes nothing, another does."""
    arrays, config = read_folder(GOLDEN / "olmo")
    ids = ids_of(GOLDEN / "olmo")
    free, far, near = (
        logits(nibble, save_npz(tmp / "m.npz", arrays, config | {"clip_qkv": clip}), ids,
               tmp / "l.npy") for clip in (None, 1000, 0.5))
    assert np.array_equal(free, far) and np.abs(free - near).max() > 0.01


# ---- sentences

def stacked():
    """qwen2-moe as mlx-lm writes it."""
    arrays, config = read_folder(GOLDEN / "qwen2-moe")
    for name in [name for name in arrays if ".mlp.experts.0." in name]:
        each = [arrays.pop(name.replace("experts.0.", f"experts.{i}.")) for i in range(4)]
        arrays[name.replace("experts.0.", "switch_mlp.")] = np.stack(each)
    return arrays, config


def test_stacks_that_do_not_fit(tmp, nibble):
    good, config = stacked()
    ids, folder = ids_of(GOLDEN / "qwen2-moe"), GOLDEN / "qwen2-moe"
    a, b = (logits(nibble, m, ids, tmp / "l.npy")
            for m in (save_npz(tmp / "m.npz", good, config), folder))
    assert np.array_equal(a, b)
    name = "model.layers.1.mlp.switch_mlp.gate_proj.weight"
    for shape in ((5, 32, 64), (3, 32, 64), (4, 33, 64), (4, 32, 63), (4, 64, 32), (128, 64),
                  (4, 32, 64, 1)):
        save_npz(tmp / "m.npz", good | {name: np.zeros(shape, "<f4")}, config)
        found = ", ".join(map(str, shape))
        nibble.refuses("info", tmp / "m.npz",
                       says=f"{name}: expected [4, 32, 64], found f32 [{found}]")
    save_npz(tmp / "m.npz", good | {name: good[name].astype("<i4")}, config)
    nibble.refuses("info", tmp / "m.npz", says=f"{name}: expected [4, 32, 64], found i32 [4, 32")
    save_npz(tmp / "m.npz", good | {name.replace("weight", "scales"): np.ones((4, 32, 2), "<f4")},
             config)
    nibble.refuses("info", tmp / "m.npz", says=f"{name}: expected [4, 32, 64], found f32 [4, 32, 64"
                   "] with scales f32 [4, 32, 2]")
    arrays = {n: a for n, a in good.items() if n != name}
    save_npz(tmp / "m.npz", arrays, config)
    nibble.refuses("info", tmp / "m.npz", says="model.layers.1.mlp.experts.0.gate_proj.weight: "
                   "expected [32, 64], it is missing")


def test_mxfp4_that_does_not_fit(tmp, nibble):
    arrays, config = read_folder(GOLDEN / "gpt-oss")
    name = "model.layers.2.mlp.experts.gate_up_proj"
    del arrays[name]
    blocks, scales = np.zeros((4, 64, 2, 16), "u1"), np.full((4, 64, 2), 120, "u1")
    both = {name + "_blocks": blocks, name + "_scales": scales}
    save_npz(tmp / "m.npz", arrays | both, config)
    assert "mxfp4" in nibble("info", tmp / "m.npz").decode()
    for change, found in (({name + "_scales": scales.astype("<f2")}, "scales f16 [4, 64, 2]"),
                          ({name + "_scales": scales[:3]}, "scales u8 [3, 64, 2]"),
                          ({name + "_scales": scales[:, :, :1]}, "scales u8 [4, 64, 1]"),
                          ({name + "_blocks": blocks[:, :63]}, "found u8 [4, 63, 2, 16]"),
                          ({name + "_blocks": blocks[:, :, :, :15]}, "found u8 [4, 64, 2, 15]"),
                          ({name + "_blocks": blocks.astype("<f4")}, "found f32 [4, 64, 2, 16]")):
        save_npz(tmp / "m.npz", arrays | both | change, config)
        error = nibble.refuses("info", tmp / "m.npz", says=[f"{name}_blocks: expected [", found])
        assert "biases" not in error, error


if __name__ == "__main__":
    sys.exit(main(globals()))
