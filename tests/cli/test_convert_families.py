#!/usr/bin/python3
"""scripts/convert.py on models of every family: names, order, types, what is left out, and widths.

    tests/cli/test_convert_families.py [--build DIR] [WORD...]   some tests need DIR/nibble
"""
import json
import re
import struct
import sys

import numpy as np

from golden import FOLDERS, copy_of
from harness import main
from hf_models import LLAMA, check_refused, convert, make_folder, rng, tensor

FILES = {"config.json", "generation_config.json", "tokenizer.model"}


def names_in(arrays):
    return [name for name in arrays if name not in FILES]


def some(names, dtype="F32", *shape):
    return {name: tensor(dtype, *(shape or (2, 4))) for name in names.split()}


def converted(tmp, tensors, *options, **config):
    folder = make_folder(tmp / f"m{len(list(tmp.iterdir()))}", tensors, **config)
    return convert(folder, *options)


# ---- names and order

ORDERS = (  # as they should be written; in the input they are the other way round
    "transformer.wpe.weight transformer.wte.weight transformer.h.0.attn.c_attn.bias "
    "transformer.h.0.attn.c_attn.weight transformer.h.0.ln_1.weight transformer.h.2.ln_1.weight "
    "transformer.h.10.ln_1.weight transformer.ln_f.bias transformer.ln_f.weight lm_head.weight",
    "wpe.weight wte.weight h.0.attn.c_attn.bias h.9.mlp.c_fc.weight h.10.mlp.c_fc.weight "
    "ln_f.weight",
    "gpt_neox.embed_in.weight gpt_neox.layers.0.attention.query_key_value.weight "
    "gpt_neox.layers.1.input_layernorm.weight gpt_neox.final_layer_norm.weight embed_out.weight",
    "transformer.word_embeddings.weight transformer.h.0.self_attention.dense.weight "
    "transformer.h.1.self_attention.dense.weight transformer.ln_f.weight lm_head.weight",
    "model.embed_tokens.weight model.layers.0.mlp.experts.0.down_proj.weight "
    "model.layers.0.mlp.experts.2.down_proj.weight model.layers.0.mlp.experts.10.down_proj.weight "
    "model.layers.0.mlp.gate.e_score_correction_bias model.layers.1.mlp.experts.0.up_proj.weight "
    "model.norm.weight lm_head.bias lm_head.weight",
    "model.embed_tokens.weight model.layers.0.block_sparse_moe.experts.9.w1.weight "
    "model.layers.0.block_sparse_moe.experts.10.w1.weight "
    "model.layers.0.self_attn.qkv_proj.weight model.layers.1.mlp.gate_up_proj.weight "
    "model.layers.1.mlp.switch_mlp.up_proj.weight model.norm.weight lm_head.weight",
    "tok_embeddings.weight layers.2.attention.wq.weight layers.11.attention.wq.weight norm.weight "
    "output.weight",
    "language_model.model.embed_tokens.weight language_model.model.layers.0.mlp.up_proj.weight "
    "language_model.model.norm.weight language_model.lm_head.weight",
)


def test_names_and_order(tmp):
    for names in ORDERS:
        tensors = some(" ".join(reversed(names.split())), "F16")
        arrays, stderr = converted(tmp, tensors)
        assert names_in(arrays) == names.split(), names_in(arrays)
        assert "note" not in stderr
        for name, (_, shape, data) in tensors.items():
            assert arrays[name].shape == tuple(shape) and arrays[name].tobytes() == data, name


# ---- what is left out

def test_masks_and_frequencies(tmp):
    kept = "wte.weight h.0.attn.c_attn.bias h.0.attn.c_proj.bias layers.0.attention.dense.bias"
    out = ("h.0.attn.bias h.0.attn.masked_bias gpt_neox.layers.0.attention.bias "
           "gpt_neox.layers.0.attention.masked_bias model.layers.3.self_attn.rotary_emb.inv_freq "
           "gpt_neox.layers.0.attention.rotary_emb.inv_freq rope.freqs")
    for dtype in ("BOOL", "F16"):
        arrays, stderr = converted(tmp, {**some(kept), **some(out, dtype, 1, 1, 4, 4)})
        assert set(names_in(arrays)) == set(kept.split())
        assert "h.0.attn.bias" in stderr and "and 4 more" in stderr, stderr


def test_layers_that_guess_further_tokens(tmp):
    kept = "model.embed_tokens.weight model.layers.0.x.weight model.layers.1.x.weight"
    out = "model.layers.2.x.weight model.layers.2.eh_proj.weight model.layers.3.x.weight"
    beyond = "model.layers.4.x.weight"
    tensors = some(f"{kept} {out} {beyond}")
    arrays, stderr = converted(tmp, tensors, num_hidden_layers=2, num_nextn_predict_layers=2)
    assert names_in(arrays) == f"{kept} {beyond}".split()
    assert "left out" in stderr and "model.layers.2.x.weight" in stderr, stderr
    for more in (0, None, True):
        arrays, stderr = converted(tmp, tensors, num_hidden_layers=2, num_nextn_predict_layers=more)
        assert set(names_in(arrays)) == set(tensors) and "left out" not in stderr
    folder = make_folder(tmp / "types", {**tensors, **some("model.layers.3.y.weight", "F8_E4M3")},
                         num_hidden_layers=2, num_nextn_predict_layers=2)
    assert "model.layers.3.y.weight" not in convert(folder)[0], "whatever its type is"


def test_models_of_images(tmp):
    for root, output in (("language_model.", "language_model.lm_head.weight"),
                         ("model.language_model.", "lm_head.weight")):
        model = root if root.startswith("model.") else f"{root}model."
        kept = f"{model}embed_tokens.weight {model}layers.0.mlp.up_proj.weight {output}"
        out = ("vision_tower.encoder.layers.0.mlp.fc1.weight model.vision_tower.embed.weight "
               "multi_modal_projector.weight visual.blocks.0.attn.qkv.weight")
        arrays, stderr = converted(tmp, {**some(out, "I64"), **some(kept)})
        assert names_in(arrays) == kept.split(), names_in(arrays)
        assert "left out" in stderr and "and 1 more" in stderr, stderr


def test_tied_outputs_of_other_names(tmp):
    for embedding, output in (("transformer.wte", "lm_head"), ("gpt_neox.embed_in", "embed_out"),
                              ("tok_embeddings", "output"),
                              ("language_model.model.embed_tokens", "language_model.lm_head")):
        root = "language_model." if embedding.startswith("language_model.") else ""
        tensors = some(f"{embedding}.weight {root}wpe.weight {root}layers.0.output.weight "
                       f"{output}.bias")
        tensors[f"{output}.weight"] = tensors[f"{embedding}.weight"]
        arrays, stderr = converted(tmp, tensors, tie_word_embeddings=True)
        assert set(names_in(arrays)) == set(tensors) - {f"{output}.weight"}
        assert "equals the embedding" in stderr
        for tied in (False, None):
            arrays, stderr = converted(tmp, tensors, tie_word_embeddings=tied)
            assert set(names_in(arrays)) == set(tensors) and "note" not in stderr


# ---- types

def packed():
    """Matrices of all three kinds, alone, fused, and stacked for experts."""
    tensors = some("model.embed_tokens.weight model.layers.0.mlp.router.weight", "BF16", 8, 64)
    for base, stack in (("model.layers.0.self_attn.q_proj", ()),
                        ("model.layers.0.mlp.switch_mlp.gate_proj", (3,))):
        tensors[f"{base}.weight"] = tensor("U32", *stack, 8, 8)
        tensors[f"{base}.scales"] = tensor("BF16", *stack, 8, 2)
        tensors[f"{base}.biases"] = tensor("BF16", *stack, 8, 2)
    for base, stack in (("model.layers.0.self_attn.o_proj", ()),
                        ("model.layers.0.mlp.switch_mlp.up_proj", (3,))):
        tensors[f"{base}.weight"] = tensor("U32", *stack, 8, 8)
        tensors[f"{base}.scales"] = tensor("U8", *stack, 8, 2)
    for name in ("gate_up_proj", "down_proj"):
        base = f"model.layers.0.mlp.experts.{name}"
        tensors[f"{base}_blocks"] = tensor("U8", 3, 8, 2, 16)
        tensors[f"{base}_scales"] = tensor("U8", 3, 8, 2)
        tensors[f"{base}_bias"] = tensor("BF16", 3, 8)
    return tensors


def test_quantized_matrices_stay(tmp):
    tensors = packed()
    plain = {name for name in tensors if tensors[name][0] == "BF16"
             and not name.endswith((".scales", ".biases"))}
    assert len(plain) == 4
    for options, kind in (((), "V2"), (("--dtype", "f32"), "<f4"), (("--dtype", "f16"), "<f2")):
        arrays, _ = converted(tmp, tensors, *options, model_type="gpt_oss", quantization_config={
            "quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]})
        assert set(names_in(arrays)) == set(tensors)
        for name, (dtype, shape, data) in tensors.items():
            assert arrays[name].shape == tuple(shape)
            if name in plain:
                assert arrays[name].dtype == np.dtype(kind), name
            else:
                assert arrays[name].tobytes() == data, name


def test_parts_that_are_missing(tmp):
    for lost, words in (("self_attn.q_proj.biases", "self_attn.q_proj.weight has the type U32"),
                        ("mlp.switch_mlp.up_proj.scales", "up_proj.weight has the type U32"),
                        ("mlp.experts.down_proj_scales", "down_proj_blocks has the type U8"),
                        ("mlp.experts.down_proj_blocks", "down_proj_scales has the type U8")):
        tensors = packed()
        del tensors[f"model.layers.0.{lost}"]
        check_refused(make_folder(tmp / lost, tensors), words)
    check_refused(make_folder(tmp / "m", packed()), "quantized already", "--bits", "4", "--nibble",
                  "/bin/true")


# ---- whole models

def tensors_of(path):
    """{name: (dtype, shape, bytes)} of a safetensors file."""
    data = path.read_bytes()
    start = 8 + struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:start])
    header.pop("__metadata__", None)
    return {name: (entry["dtype"], tuple(entry["shape"]),
                   data[start + entry["data_offsets"][0]:start + entry["data_offsets"][1]])
            for name, entry in header.items()}


def logits(nibble, model, out):
    nibble("logits", model, "--ids", "1 2 3 5 7 11 13", "--kv-type", "f32", "-o", out)
    return np.load(out)


def test_whole_models(tmp, nibble):
    """Every tensor under its name as it lies, and nibble's logits to the last bit."""
    for source in FOLDERS:
        folder = copy_of(source, tmp / source.name)
        arrays, stderr = convert(folder)
        assert "left out" not in stderr, "what the test of the whole set would not see"
        tensors = tensors_of(source / "model.safetensors")
        assert set(names_in(arrays)) == set(tensors), source
        for name, (_, shape, data) in tensors.items():
            assert arrays[name].shape == shape and arrays[name].tobytes() == data, (source, name)
        direct = logits(nibble, folder, tmp / "direct.npy")
        assert np.array_equal(logits(nibble, tmp / f"{source.name}.npz", tmp / "l.npy"), direct)
        kept = (tmp / f"{source.name}.npz").read_bytes()
        convert(folder)
        assert (tmp / f"{source.name}.npz").read_bytes() == kept, "another run gives other bytes"


def gpt_oss():
    """One layer, its experts in 4 bits as OpenAI publishes them."""
    dim, heads, hidden, experts, layer = 64, 2, 64, 3, "model.layers.0"
    config = dict(LLAMA, model_type="gpt_oss", hidden_size=dim, num_hidden_layers=1, head_dim=32,
                  num_attention_heads=heads, num_key_value_heads=1, intermediate_size=hidden,
                  vocab_size=40, rms_norm_eps=1e-5, num_local_experts=experts, attention_bias=True,
                  num_experts_per_tok=2, max_position_embeddings=64, sliding_window=8,
                  layer_types=["full_attention"], quantization_config={"quant_method": "mxfp4"})
    shapes = {"self_attn.sinks": (heads,), "mlp.experts.gate_up_proj_bias": (experts, 2 * hidden),
              "mlp.experts.down_proj_bias": (experts, dim), "input_layernorm.weight": (dim,),
              "post_attention_layernorm.weight": (dim,)}
    for name, rows, cols in (("self_attn.q_proj", 64, dim), ("self_attn.k_proj", 32, dim),
                             ("self_attn.v_proj", 32, dim), ("self_attn.o_proj", dim, 64),
                             ("mlp.router", experts, dim)):
        shapes.update({f"{name}.weight": (rows, cols), f"{name}.bias": (rows,)})
    tensors = {f"{layer}.{name}": tensor("BF16", *shape) for name, shape in shapes.items()}
    for name, rows, cols in (("gate_up_proj", 2 * hidden, dim), ("down_proj", dim, hidden)):
        base, groups = f"{layer}.mlp.experts.{name}", (experts, rows, cols // 32)
        tensors[f"{base}_blocks"] = tensor("U8", *groups, 16, data=rng.integers(
            0, 256, (*groups, 16), dtype="u1"))
        tensors[f"{base}_scales"] = tensor("U8", *groups, data=rng.integers(
            122, 126, groups, dtype="u1"))
    return {**tensors, **some("model.embed_tokens.weight lm_head.weight", "BF16", 40, dim),
            **some("model.norm.weight", "BF16", dim)}, config


def test_experts_in_mxfp4_run(tmp, nibble):
    tensors, config = gpt_oss()
    folder = make_folder(tmp / "m", tensors, config)
    (folder / "tokenizer.model").unlink()
    convert(folder)
    direct = logits(nibble, folder, tmp / "direct.npy")
    assert np.isfinite(direct).all() and direct.std() > 0.1
    assert np.array_equal(logits(nibble, tmp / "m.npz", tmp / "l.npy"), direct)


# ---- quantizing

HIGH = re.compile(r"\.(v_proj|v_b_proj|down_proj|mlp\.fc2|mlp\.c_proj|mlp\.dense_4h_to_h)$")


def widths_of(arrays):
    """{module: bits} of matrices in groups of 32."""
    names = [name.removesuffix(".scales") for name in arrays if name.endswith(".scales")]
    return {name: arrays[f"{name}.weight"].shape[1] // arrays[f"{name}.scales"].shape[1]
            for name in names}


def wanted_bits(module, layers, low, high):
    """The rule of mlx_lm's mixed recipes, and the embedding besides."""
    layer = re.search(r"\.(\d+)\.", module)
    if not layer:
        return low if module.endswith("wpe") else high
    i = int(layer[1])
    more = i < layers // 8 or i >= 7 * layers // 8 or (i - layers // 8) % 3 == 2
    return high if more and HIGH.search(module) else low


def check_widths(arrays, low, high):
    config, widths = json.loads(arrays["config.json"].tobytes()), widths_of(arrays)
    layers = config.get("num_hidden_layers", config.get("n_layer"))
    for module, bits in widths.items():
        assert bits == wanted_bits(module, layers, low, high), (module, bits)
        own = config["quantization"].get(module, {"bits": low})
        assert own["bits"] == bits, (module, own)
    assert low in widths.values() and high in widths.values(), "it shows nothing"
    assert config["quantization"]["bits"] == low


def test_widths_of_whole_models(tmp, nibble):
    for i, source in enumerate(FOLDERS):
        low, high, *options = ((4, 6), (2, 6), (3, 4, "--high-bits", "4"), (5, 8))[i % 4]
        folder = copy_of(source, tmp / source.name)
        arrays, _ = convert(folder, "--bits", low, "--group-size", 32, "--mixed", *options,
                            "--nibble", nibble)
        check_widths(arrays, low, high)
        assert np.isfinite(logits(nibble, tmp / f"{source.name}.npz", tmp / "l.npy")).all()
        arrays, _ = convert(folder, "--bits", 8, "--group-size", 32, "--nibble", nibble)
        assert set(widths_of(arrays).values()) == {8}


def mixtral(layers, experts):
    config = dict(LLAMA, model_type="mixtral", hidden_size=32, num_hidden_layers=layers,
                  num_attention_heads=2, num_key_value_heads=1, intermediate_size=32,
                  vocab_size=40, rms_norm_eps=1e-5, num_local_experts=experts,
                  num_experts_per_tok=2, max_position_embeddings=64)
    shapes = {"self_attn.q_proj": (32, 32), "self_attn.k_proj": (16, 32),
              "self_attn.v_proj": (16, 32), "self_attn.o_proj": (32, 32), "input_layernorm": (32,),
              "post_attention_layernorm": (32,), "block_sparse_moe.gate": (experts, 32)}
    for i in range(experts):
        shapes.update({f"block_sparse_moe.experts.{i}.w{n}": (32, 32) for n in (1, 2, 3)})
    tensors = {f"model.layers.{layer}.{name}.weight": tensor("F16", *shape)
               for layer in range(layers) for name, shape in shapes.items()}
    return {**tensors, **some("model.embed_tokens.weight lm_head.weight", "F16", 40, 32),
            **some("model.norm.weight", "F16", 32)}, config


def test_widths_layer_by_layer(tmp, nibble):
    """With layers enough for an eighth to be one, and two; experts count like other matrices."""
    for layers in (1, 9, 17):
        tensors, config = mixtral(layers, 3)
        folder = make_folder(tmp / f"m{layers}", tensors, config)
        (folder / "tokenizer.model").unlink()
        arrays, _ = convert(folder, "--bits", 4, "--group-size", 32, "--mixed", "--nibble", nibble)
        check_widths(arrays, 4, 6)
        sensitive = {9: {0, 3, 6, 7, 8}, 17: {0, 1, 4, 7, 10, 13, 14, 15, 16}, 1: {0}}[layers]
        widths = widths_of(arrays)
        for layer in range(layers):
            for expert in range(3):
                down, *others = (widths[f"model.layers.{layer}.mlp.experts.{expert}.{part}_proj"]
                                 for part in ("down", "gate", "up"))
                assert down == (6 if layer in sensitive else 4), (layers, layer)
                assert others == [4, 4]


if __name__ == "__main__":
    sys.exit(main(globals()))
