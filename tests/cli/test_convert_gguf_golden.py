#!/usr/bin/python3
"""GGUF files made of golden checkpoints, converted: the logits are those of transformers.

    tests/cli/test_convert_gguf_golden.py [--build DIR] [--reference DIR] [WORD...]

All need DIR/nibble. Of the checkpoints those of tests/golden are taken; the rest are looked for in
the folders golden and golden-extra of the reference.
"""
import json
import sys

import numpy as np

from gguf_golden import DEEPSEEK, FAMILIES, read_folder, write_gguf
from gguf_models import matrix
from harness import ROOT, main
from hf_models import run, write_safetensors

GOLDEN = ROOT / "tests" / "golden"
BOUND = 2e-4  # as large as any logit may differ
OTHERS = {"olmo3", "llama4", "gemma3n", "gemma4", "qwen3-next", "qwen3.5"}  # no converter for these
rng = np.random.default_rng(11)


def logits(nibble, model, ids, out):
    nibble("logits", model, "--ids", " ".join(map(str, ids)), "-o", out, "--kv-type", "f32")
    return np.load(out).astype("f8")


def convert(path):
    result = run(path, "-o", path.with_suffix(".npz"))
    assert result.returncode == 0, result.stderr
    return path.with_suffix(".npz")


def check_logits(got, want):
    assert got.shape == want.shape and want.std() > 0.1
    worst = np.abs(got - want).max()
    assert worst <= BOUND, f"logits differ by {worst:.2e}, {BOUND:g} is allowed"


def check_golden(nibble, tmp, folder, row):
    model = convert(write_gguf(tmp / "m.gguf", row, *read_folder(folder)))
    golden = np.load(folder / "golden.npz")
    check_logits(logits(nibble, model, golden["input_ids"], tmp / "l.npy"), golden["logits"])


# ---- checkpoints that are changed: there the folder itself, as nibble runs it, is the reference

def normal(*shape):
    return rng.standard_normal(shape).astype("<f4")


def with_norms(c, arrays, names, *heads):
    """Norms of queries and keys: a vector for each head, under the name that has a number in it, or
    all in one."""
    for layer in range(c["num_hidden_layers"]):
        for part, count in zip("qk", heads):
            start, values = f"model.layers.{layer}.self_attn.{part}_", 1 + normal(count, 16) / 4
            arrays.update({start + names % i: values[i] for i in range(count)} if "%" in names else
                          {start + names: values})


def without(arrays, *words):
    for name in [name for name in arrays if any(word in name for word in words)]:
        del arrays[name]


def with_biases(arrays, *words):
    for name in [name for name in arrays if any(f"{word}.weight" in name for word in words)]:
        arrays[name.replace(".weight", ".bias")] = normal(len(arrays[name])) / 4


def llama(c, arrays):
    c.update(attention_bias=True, mlp_bias=True)
    with_biases(arrays, "_proj")


def qwen2(c, arrays):
    c["rope_parameters"].update(rope_type="yarn", factor=4.0, original_max_position_embeddings=64)


def gemma3(c, arrays):
    c["rope_parameters"]["full_attention"].update(rope_type="linear", factor=8.0)
    c["rope_parameters"]["sliding_attention"].update(rope_theta=5000.0)


def phi3_longrope_long(c, arrays):
    c["rope_parameters"]["partial_rotary_factor"] = 0.5
    for part in ("long_factor", "short_factor"):
        c["rope_parameters"][part] = c["rope_parameters"][part][:4]


def stablelm(c, arrays):
    c.update(qk_layernorm=True, use_qkv_bias=True, use_parallel_residual=True)
    with_norms(c, arrays, "layernorm.norms.%d.weight", 4, 2)
    without(arrays, "post_attention_layernorm")
    with_biases(arrays, "q_proj", "k_proj", "v_proj")


def cohere(c, arrays):
    c.update(use_qk_norm=True)
    with_norms(c, arrays, "norm.weight", 4, 2)


def glm4(c, arrays):
    c.update(attention_bias=False)
    without(arrays, ".bias")


def gpt_neox(c, arrays):
    c.update(use_parallel_residual=False)


def falcon(c, arrays):
    c.update(num_ln_in_parallel_attn=1)
    without(arrays, "ln_mlp")
    for name in [name for name in arrays if "ln_attn" in name]:
        arrays[name.replace("ln_attn", "input_layernorm")] = arrays.pop(name)


def olmo(c, arrays):
    c.update(clip_qkv=0.5)


def exaone4(c, arrays):
    c.update(sliding_window=None, layer_types=["full_attention"] * c["num_hidden_layers"])
    c["rope_parameters"].update(rope_type="llama3", factor=16.0, low_freq_factor=1.0,
                                high_freq_factor=4.0, original_max_position_embeddings=8192)


def deepseek(c, arrays):
    c["rope_parameters"].update(rope_type="yarn", factor=8.0, mscale=0.707, mscale_all_dim=0.707,
                                original_max_position_embeddings=32, beta_fast=32, beta_slow=1)


def groups(c, arrays):
    c.update(topk_method="group_limited_greedy", n_group=3, topk_group=1, routed_scaling_factor=1.5)


CHANGES = {"llama": llama, "qwen2": qwen2, "gemma3": gemma3, "stablelm": stablelm,
           "phi3-longrope-long": phi3_longrope_long, "cohere": cohere, "glm4": glm4,
           "gpt-neox": gpt_neox, "falcon": falcon, "olmo": olmo, "exaone4": exaone4,
           "deepseek-v3": deepseek, "deepseek-v2": groups}


def write_folder(folder, c, arrays):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(c))
    write_safetensors(folder / "model.safetensors", {
        name: ("F32", list(w.shape), w.tobytes()) for name, w in arrays.items()})
    return folder


def check_changed(nibble, tmp, folder, row, change):
    c, arrays = read_folder(folder)
    ids = np.load(folder / "golden.npz")["input_ids"]
    before = logits(nibble, folder, ids, tmp / "l.npy")
    change(c, arrays)
    want = logits(nibble, write_folder(tmp / "hf", c, arrays), ids, tmp / "l.npy")
    assert np.abs(want - before).max() > 0.01, "the change changes nothing"
    model = convert(write_gguf(tmp / "m.gguf", row, c, arrays))
    check_logits(logits(nibble, model, ids, tmp / "l.npy"), want)


def decoded(path):
    """The file again with matrices of 5 bits as f32, so that no product rounds anything."""
    with np.load(path) as npz:
        arrays = {name: npz[name] for name in npz.files}
    for name in [name for name in arrays if name.endswith(".scales")]:
        base = name.removesuffix("scales")
        words, *affine = (arrays.pop(base + part) for part in ("weight", "scales", "biases"))
        scales, offsets = map(f32_of, affine)
        streams = np.unpackbits(words.view("u1"), axis=-1, bitorder="little")
        codes = streams.reshape(*scales.shape, 32, 5) @ (1 << np.arange(5))
        values = scales[..., None] * codes + offsets[..., None]
        arrays[base + "weight"] = values.reshape(*words.shape[:-1], -1).astype("<f4")
    np.savez(path, **arrays)
    return path


def f32_of(array):
    assert array.dtype == "V2", "not bf16"
    return (array.view("<u2").astype("<u4") << 16).view("<f4")


def check_mxfp4(nibble, tmp, folder):
    """gpt-oss as it is published: its experts in MXFP4, all other matrices not."""
    c, arrays = read_folder(folder)
    ids, quantized = np.load(folder / "golden.npz")["input_ids"], {}
    for layer in range(c["num_hidden_layers"]):
        experts, parts = f"model.layers.{layer}.mlp.experts.", {}
        for part, rows, cols in (("gate", 32, 64), ("up", 32, 64), ("down", 64, 32)):
            (kind, _, data), values = matrix("MXFP4", 4 * rows, cols, 1 / 16)
            quantized[f"blk.{layer}.ffn_{part}_exps.weight"] = kind, (4, rows, cols), data
            parts[part] = values.reshape(4, rows, cols).transpose(0, 2, 1).astype("<f4")
        both = np.stack([parts["gate"], parts["up"]], axis=-1)
        arrays[experts + "gate_up_proj"] = both.reshape(*both.shape[:2], -1)
        arrays[experts + "down_proj"] = np.ascontiguousarray(parts["down"])
    want = logits(nibble, write_folder(tmp / "hf", c, arrays), ids, tmp / "l.npy")
    model = convert(write_gguf(tmp / "m.gguf", FAMILIES["gpt-oss"], c, arrays, quantized))
    check_logits(logits(nibble, decoded(model), ids, tmp / "l.npy"), want)


# ---- the tests: one for each row, and for each change

def make_test(name, check, *more):
    """Of a checkpoint that is here, or else in the reference."""
    def with_ours(tmp, nibble):
        check(nibble, tmp, GOLDEN / name, *more)

    def with_reference(tmp, nibble, reference):
        places = [reference / folder / name for folder in ("golden", "golden-extra")]
        check(nibble, tmp, next((path for path in places if path.is_dir()), places[0]), *more)
    return with_ours if (GOLDEN / name).is_dir() else with_reference


for name, rows in FAMILIES.items():
    for which, row in (rows if rows is DEEPSEEK else {"": rows}).items():
        ending = f"_{which}" if which else ""
        globals()[f"test_{name}{ending}"] = make_test(name, check_golden, row)
        if name in CHANGES:
            globals()[f"test_{name}{ending}_changed"] = make_test(name, check_changed, row,
                                                                  CHANGES[name])
test_experts_in_mxfp4 = make_test("gpt-oss", check_mxfp4)


def names_in(folder):
    return {path.parent.name for path in folder.glob("*/golden.npz")}


def test_every_checkpoint_has_a_row():
    assert names_in(GOLDEN) and names_in(GOLDEN) <= FAMILIES.keys() | OTHERS


def test_every_checkpoint_of_the_reference_has_a_row(reference):
    assert names_in(reference / "golden") <= FAMILIES.keys() | OTHERS


if __name__ == "__main__":
    sys.exit(main(globals()))
