#!/usr/bin/python3
"""scripts/convert.py on GGUF files: numbers, config, tokenizers, split files, and what nibble makes
of the result.

    tests/cli/test_convert_gguf.py [--build DIR] [WORD...]   some tests need DIR/nibble
"""
import json
import math
import shutil
import struct
import sys

import numpy as np

from gguf_models import (BLOCKS, fields, floats, gguf, llama_metadata, llama_tensors, matrix,
                         pieces_of, spm_metadata, write_llama)
from harness import TOKENIZER, main
from hf_models import bf16_nearest, config_of, convert, members, run
from models import PIECES, Tiny, forward, save_npz, unpack

EXACT = {"Q4_0": 4, "Q4_1": 4, "Q5_0": 5, "Q5_1": 5, "Q8_0": 8, "MXFP4": 5, "Q4_K": 4, "Q5_K": 5}
LOSSY = {"Q2_K": 4, "Q3_K": 4, "Q6_K": 8}
HALVES = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", *LOSSY)  # whose scales are f16
IDS = [1, 5, 300, 7, 8, 9, 20, 21, 22, 399, 0, 8, 8, 8, 100, 31, 32, 33, 34]
Q = "model.layers.0.self_attn.q_proj."
EMBEDDING = {"token_embd.weight": floats(np.zeros((PIECES, 64)))}


def converted(tmp, tensors, metadata=None, name="m", **options):
    """({name: array}, stderr) of a llama that holds these tensors; bf16 becomes f32."""
    path = tmp / f"{name}.gguf"
    path.write_bytes(gguf({**llama_metadata(), **(metadata or {})}, {**EMBEDDING, **tensors},
                          **options))
    arrays, stderr = convert(path)
    return {name: (array.view("<u2").astype("<u4") << 16).view("<f4") if array.dtype == "V2"
            else array for name, array in arrays.items()}, stderr


# ---- numbers

def test_exact_formats(tmp):
    for kind, bits in EXACT.items():
        tensor, values = matrix(kind, 5, 512)
        arrays, stderr = converted(tmp, {"blk.0.attn_q.weight": tensor})
        assert arrays[Q + "weight"].shape == (5, 512 * bits // 32) and "note: Q" not in stderr
        assert arrays[Q + "scales"].shape == arrays[Q + "biases"].shape == (5, 16)
        dtype = "<f2" if kind in HALVES else "<f4"
        assert arrays[Q + "scales"].dtype == arrays[Q + "biases"].dtype == dtype, kind
        assert np.array_equal(unpack(arrays, Q + "weight", bits, 32)[0], values), kind
        assert config_of(arrays)["quantization"] == {"group_size": 32, "bits": bits,
                                                     "model.embed_tokens": False}


def test_scales_that_half_precision_cannot_hold(tmp):
    """An offset of -8 d, -16 d or -128 d overflows; very small ones stay exact."""
    for kind, largest in (("Q4_0", 8188), ("Q5_0", 4094), ("Q8_0", 511.75)):
        for d, dtype in ((largest, "<f2"), (largest * 1.01, "<f4"), (2 ** -24, "<f2"),
                         (-65504, "<f4"), (0, "<f2")):
            (name, shape, data), values = matrix(kind, 3, 64)
            last = len(data) - len(data) // 6
            old, = struct.unpack_from("<e", data, last)
            new, = struct.unpack("<e", struct.pack("<e", d))
            data = data[:last] + struct.pack("<e", d) + data[last + 2:]
            values[2, 32:] *= new / old
            arrays, _ = converted(tmp, {"blk.0.attn_q.weight": (name, shape, data)})
            got = unpack(arrays, Q + "weight", EXACT[kind], 32)[0]
            assert arrays[Q + "scales"].dtype == arrays[Q + "biases"].dtype == dtype, (kind, d)
            assert np.allclose(got, values, rtol=1e-12, atol=0), (kind, d)


def test_formats_that_are_quantized_again(tmp):
    for kind, bits in LOSSY.items():
        tensor, values = matrix(kind, 6, 512)
        arrays, stderr = converted(tmp, {"blk.0.attn_q.weight": tensor})
        got, steps = unpack(arrays, Q + "weight", bits, 32)
        assert arrays[Q + "scales"].dtype == "<f2"
        # Half a step, the whole of one at the far end, and what f16 rounds off the offset.
        assert (np.abs(got - values) <= 1.01 * steps + 2 ** -11 * np.abs(values).max()).all(), kind
        loss = math.sqrt(((got - values) ** 2).sum() / (values ** 2).sum())
        assert 0 < loss < (0.01 if bits == 8 else 0.15), (kind, loss)
        note = f"{kind} was quantized again, to {bits} bits in groups of 32; its rms error is "
        assert f"{note}{100 * loss:.2f}% of the rms of the weights" in stderr, (loss, stderr)


def test_quantized_again_as_nibble_does(tmp, nibble):
    """The same numbers in f32 through nibble quantize: the same codes, scales rounded to f16."""
    for kind, bits in LOSSY.items():
        model = Tiny(dim=256, hidden=256, heads=16, layers=1, seed=bits)
        arrays, _ = convert(write_llama(tmp / "m.gguf", model, quantized=kind))
        model.save(tmp / "f32.npz")
        nibble.run("quantize", tmp / "f32.npz", tmp / "q.npz", "--bits", bits, "--group-size", 32)
        with np.load(tmp / "q.npz") as want:
            for name in (Q.replace("q_proj", "v_proj"), "model.layers.0.mlp.down_proj."):
                assert np.array_equal(arrays[name + "weight"], want[name + "weight"]), (kind, name)
                for part in ("scales", "biases"):
                    assert want[name + part].dtype == "<f4"
                    assert np.array_equal(arrays[name + part], want[name + part].astype("<f2"))


def test_losses_are_added_up(tmp):
    """One note a format, over all of its tensors."""
    first, a = matrix("Q6_K", 3, 256, 0.01)
    second, b = matrix("Q6_K", 5, 512, 1.0)
    third, _ = matrix("Q3_K", 5, 512, 1.0)
    arrays, stderr = converted(tmp, {"blk.0.attn_q.weight": first, "blk.1.attn_q.weight": second,
                                     "blk.1.attn_v.weight": third})
    errors = [unpack(arrays, name + "weight", 8, 32)[0] - values for name, values in
              ((Q, a), (Q.replace("0", "1"), b))]
    loss = math.sqrt(sum((e ** 2).sum() for e in errors) / sum((v ** 2).sum() for v in (a, b)))
    note = "Q6_K was quantized again, to 8 bits in groups of 32; its rms error is"
    assert f"{note} {100 * loss:.2f}%" in stderr and stderr.count("quantized again") == 2, stderr


def test_floats_lie_as_they_lay(tmp):
    tensors = {f"blk.0.attn_{part}.weight": floats(np.linspace(-3, 1e-5, 70).reshape(7, 10), kind)
               for part, kind in (("q", "F32"), ("k", "F16"), ("v", "BF16"))}
    tensors["blk.0.attn_norm.weight"] = floats(np.arange(9.0))
    tensors["blk.0.ffn_norm.weight"] = floats(np.arange(9.0), "F16")
    tensors["blk.1.attn_q.weight"] = floats(np.full((2, 3), 0.1), "F64")
    convert_to = {"F32": "<f4", "F16": "<f2", "BF16": "<V2"}
    path = tmp / "m.gguf"
    path.write_bytes(gguf(llama_metadata(), {**EMBEDDING, **tensors}))
    arrays, _ = convert(path)
    for part in "qkv":
        kind, shape, data = tensors[f"blk.0.attn_{part}.weight"]
        array = arrays[f"model.layers.0.self_attn.{part}_proj.weight"]
        assert array.dtype == np.dtype(convert_to[kind]) and array.shape == shape
        assert array.tobytes() == data, kind
    assert arrays["model.layers.0.input_layernorm.weight"].dtype == "<f4"
    assert arrays["model.layers.0.post_attention_layernorm.weight"].dtype == "<f2"
    assert arrays["model.layers.1.self_attn.q_proj.weight"].tolist() == [[np.float32(0.1)] * 3] * 2
    assert "quantization" not in config_of(arrays)
    bf16, _ = convert(path, "--dtype", "bf16")
    norm = bf16["model.layers.0.input_layernorm.weight"].view("<u2")
    assert norm.tolist() == [bf16_nearest(float(i)) for i in range(9)]


def test_quantized_vectors_become_f32(tmp):
    (kind, _, data), values = matrix("Q8_0", 1, 64)
    (other, _, more), numbers = matrix("Q6_K", 1, 256)
    arrays, _ = converted(tmp, {"blk.0.attn_norm.weight": (kind, (64,), data),
                                "blk.0.ffn_norm.weight": (other, (256,), more)})
    assert np.array_equal(arrays["model.layers.0.input_layernorm.weight"], values[0].astype("f4"))
    got = arrays["model.layers.0.post_attention_layernorm.weight"]
    assert got.dtype == "<f4" and np.array_equal(got, numbers[0].astype("f4"))


def test_large_tensors_go_in_pieces(tmp):
    """More than one piece, and a last one that is shorter."""
    for kind, bits in (("Q5_0", 5), ("Q4_K", 4)):
        (_, _, data), values = matrix(kind, 1, 1024)
        repeat = 700
        arrays, _ = converted(tmp, {"blk.0.attn_q.weight": (kind, (repeat, 1024), data * repeat)})
        got = unpack(arrays, Q + "weight", bits, 32)[0]
        assert got.shape == (repeat, 1024) and (got == values).all(), kind


def test_same_bytes_twice(tmp):
    model = Tiny(dim=256, hidden=256, heads=16)
    first = write_llama(tmp / "a.gguf", model, "F16", list(BLOCKS),
                        spm_metadata(TOKENIZER.read_bytes()))
    (tmp / "b").mkdir()
    shutil.copy(first, tmp / "b")
    convert(first), convert(tmp / "b" / "a.gguf")
    assert (tmp / "a.gguf.npz").read_bytes() == (tmp / "b" / "a.gguf.npz").read_bytes()
    for name, offset, _, _ in members(tmp / "a.gguf.npz"):
        assert offset % 64 == 0, name


# ---- what nibble makes of it

def logits(nibble, path, ids=IDS):
    out = path.with_suffix(".npy")
    nibble("logits", path, "--ids", " ".join(map(str, ids)), "-o", out, "--kv-type", "f32")
    return np.load(out)


def test_logits_equal_those_of_the_same_weights(tmp, nibble):
    """The rows of q and k are those that llama.cpp's converters leave: a wrong pairing shows."""
    for i, sizes in enumerate(({}, {"tied": True}, {"kv_heads": 1, "head_dim": 32},
                               {"heads": 6, "kv_heads": 3, "dim": 96})):
        model = Tiny(seed=i, **sizes)
        convert(write_llama(tmp / "g.gguf", model))
        got, want = logits(nibble, tmp / "g.gguf.npz"), forward(model, IDS)
        assert np.abs(got - want).max() < 1e-5 * want.std(), (sizes, np.abs(got - want).max())
        config = {**model.config, "rope_traditional": False}
        half = logits(nibble, save_npz(tmp / "n.npz", model.arrays(), config))
        assert np.abs(got - half).max() < 1e-5 * want.std(), "the same weights as npz"


def in_f32(arrays):
    """The same numbers, not quantized. 32 codes take as many words as each has bits."""
    bits = {name: array.shape[1] // arrays[name[:-6] + "scales"].shape[1]
            for name, array in arrays.items() if array.dtype == "<u4"}
    return {name: unpack(arrays, name, bits[name], 32)[0].astype("<f4") if name in bits else array
            for name, array in arrays.items() if not name.endswith((".scales", ".biases"))}


def test_logits_of_quantized_weights(tmp, nibble):
    """nibble rounds activations to 8 bits, so the logits are only near; in f32 they are equal."""
    for kinds in (["Q4_0"], ["Q8_0", "Q4_K"], list(EXACT), list(LOSSY)):
        model = Tiny(dim=256, hidden=256, heads=16, layers=1, vocab=96, seed=len(kinds))
        arrays, _ = convert(write_llama(tmp / "g.gguf", model, "F16", kinds))
        ids = [id % 96 for id in IDS[:8]]
        got, want = logits(nibble, tmp / "g.gguf.npz", ids), forward(model, ids)
        assert np.abs(got - want).std() < 0.1 * want.std(), (kinds, np.abs(got - want).std())
        if "MXFP4" not in kinds and kinds != list(LOSSY):
            plain = save_npz(tmp / "f32.npz", in_f32(arrays), None)
            got = logits(nibble, plain, ids)
            assert np.abs(got - want).max() < 1e-5 * want.std(), (kinds, np.abs(got - want).max())


def test_text_in_text_out(tmp, nibble):
    """With the tokenizer: the same ids as the file it was made of, and a model that runs."""
    model = write_llama(tmp / "g.gguf", Tiny(), metadata=spm_metadata(TOKENIZER.read_bytes()))
    convert(model)
    words = ("generate", tmp / "g.gguf.npz", "-p", "Once", "-n", "5", "-s", "1", "--json")
    result = nibble.run(*words)
    assert result.code == 0 and len(json.loads(result.out)["ids"]) > 0, result


# ---- config

def test_config(tmp):
    arrays, _ = converted(tmp, {})
    assert config_of(arrays) == {
        "model_type": "llama", "hidden_act": "silu", "rope_traditional": True, "hidden_size": 64,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
        "intermediate_size": 128, "vocab_size": PIECES, "max_position_embeddings": 256,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": True,
        "attention_bias": False, "mlp_bias": False}


def rope_of(tmp, tensors=(), **keys):
    metadata = {f"llama.rope.{key.replace('__', '.')}": value for key, value in keys.items()}
    config = config_of(converted(tmp, dict(tensors), metadata)[0])
    return config.get("rope_scaling"), config["rope_theta"]


def llama3_factors(theta, factor, context, dim=16):
    """As llama.cpp's converter writes them, pair by pair."""
    found = []
    for i in range(0, dim, 2):
        wave = 2 * math.pi * theta ** (i / dim)
        if wave < context / 4:
            found.append(1.0)
        elif wave > context / 1:
            found.append(factor)
        else:
            smooth = (context / wave - 1) / (4 - 1)
            found.append(1 / ((1 - smooth) / factor + smooth))
    return {"rope_freqs.weight": floats(np.array(found))}


def test_rope_scaling(tmp):
    assert rope_of(tmp) == (None, 10000.0)
    assert rope_of(tmp, freq_base=("f32", 5e5)) == (None, 5e5)
    none = {"scaling__type": ("str", "none"), "scaling__finetuned": ("bool", True)}
    assert rope_of(tmp, **none)[0] is None
    linear = {"rope_type": "linear", "factor": 4.0}
    assert rope_of(tmp, scaling__type=("str", "linear"), scaling__factor=("f32", 4))[0] == linear
    assert rope_of(tmp, scale_linear=("f32", 4))[0] == linear, "as files of 2023 have it"
    yarn = {"scaling__type": ("str", "yarn"), "scaling__factor": ("f32", 8.0),
            "scaling__original_context_length": ("u32", 32)}
    want = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 32}
    assert rope_of(tmp, **yarn)[0] == want
    assert rope_of(tmp, **yarn, scaling__yarn_beta_fast=("f32", 16.0))[0] == {**want,
                                                                              "beta_fast": 16.0}
    for theta, factor, context in ((5e5, 8.0, 8192), (5e5, 32.0, 8192), (1e4, 8.0, 8192),
                                   (5e5, 16.0, 16384), (1e4, 4.0, 64)):
        freqs = llama3_factors(theta, factor, context)
        assert rope_of(tmp, freqs, freq_base=("f32", theta))[0] == {
            "rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": context}
    ones = {"rope_freqs.weight": floats(np.ones(8))}
    assert rope_of(tmp, ones)[0] is None, "factors of 1 are none"


def test_sliding_window_and_biases(tmp):
    bias = {"blk.0.attn_q.bias": floats(np.arange(64.0))}
    arrays, _ = converted(tmp, bias, {"llama.attention.sliding_window": ("u32", 32)})
    config = config_of(arrays)
    assert config["sliding_window"] == 32 and config["attention_bias"] is True
    assert arrays[Q + "bias"].tolist() == list(range(64))


def test_one_number_for_each_layer(tmp):
    same = {"llama.attention.head_count_kv": (["u32"], [2, 2])}
    assert config_of(converted(tmp, {}, same)[0])["num_key_value_heads"] == 2


# ---- the file

def test_versions_and_alignments(tmp):
    tensor, values = matrix("Q4_1", 3, 96)
    tensors = {"blk.0.attn_q.weight": tensor, "blk.0.attn_v.weight": tensor}
    for options in ({"version": 2}, {"version": 3}, {"alignment": 8}, {"alignment": 64},
                    {"alignment": 4096}):
        arrays, _ = converted(tmp, tensors, **options)
        for part in "qv":
            name = f"model.layers.0.self_attn.{part}_proj.weight"
            assert np.array_equal(unpack(arrays, name, 4, 32)[0], values), options


def test_every_kind_of_metadata(tmp):
    odd = {f"other.{kind}": (kind, 1) for kind in ("u8", "i8", "u16", "i16", "u32", "i32", "u64",
                                                   "i64", "f32", "f64", "bool")}
    odd.update({f"arrays.{kind}": ([kind], [1, 0, 1]) for kind in ("u8", "i64", "f64", "bool")})
    odd["arrays.text"] = ["str"], ["", "x" * 70000, "\u20ac"]
    odd["arrays.nested"] = [[["str"]]], [[["a"], []], [], [["b", "c"]]]
    odd["other.text"] = "str", "\u20ac"
    assert "model.embed_tokens.weight" in converted(tmp, {}, odd)[0]


def test_without_the_ending_of_its_name(tmp):
    path = tmp / "sha256-0123"
    path.write_bytes(gguf(llama_metadata(), EMBEDDING))
    result = run(path, "-o", tmp / "x.npz")
    assert result.returncode == 0 and "no tokenizer" in result.stderr, result.stderr


def write_split(tmp, parts, count=None, first=None, **changes):
    """parts: [{name: tensor}]; the paths."""
    paths, count = [], count or len(parts)
    total = sum(len(tensors) for tensors in parts)
    for i, tensors in enumerate(parts):
        split = {"split.no": ("u16", i), "split.count": ("u16", count),
                 "split.tensors.count": ("i32", total), **changes}
        paths.append(tmp / f"m-{i + 1:05}-of-{count:05}.gguf")
        paths[-1].write_bytes(gguf({**(llama_metadata() if i == 0 else {}), **split}, tensors))
    return paths


def test_split_files(tmp):
    (kind, shape, data), values = matrix("Q8_0", 3, 96)
    parts = [dict(EMBEDDING), {"blk.0.attn_q.weight": (kind, shape, data)},
             {"blk.0.attn_v.weight": (kind, shape, data)}]
    paths = write_split(tmp, parts)
    for path in paths:
        arrays, _ = convert(path)
        for part in "qv":
            name = f"model.layers.0.self_attn.{part}_proj.weight"
            assert np.array_equal(unpack(arrays, name, 8, 32)[0], values), path.name
    first, *others = (path.read_bytes() for path in tmp.glob("*.npz"))
    assert len(others) == 2 and all(other == first for other in others)


# ---- tokenizers

TEXTS = ("", "Once upon a time", "  two  spaces ", "tabs\tand\nlines\n", "<s> </s> <unk>",
         "\u00e9\u20ac\U0001f600 caf\u00e9", "x" * 300, "\u2581", "The quick brown fox, 123 times!")


def test_sentencepiece(tmp, nibble):
    original = TOKENIZER.read_bytes()
    for name, more in (("plain", {}), ("bos", {"add_bos_token": ("bool", False)})):
        arrays, stderr = converted(tmp, {}, spm_metadata(original, **more), name)
        model = arrays["tokenizer.model"].tobytes()
        assert pieces_of(model) == pieces_of(original) and "note" not in stderr
        settings = json.loads(arrays["tokenizer_config.json"].tobytes())
        assert settings["add_bos_token"] is (name == "plain") and settings["bos_token"] == "<s>"
        config = config_of(arrays)
        assert (config["bos_token_id"], config["eos_token_id"]) == (1, 2)
    save_npz(tmp / "want.npz", {}, Tiny().config, TOKENIZER)
    for folder, data in (("got", model), ("want", original)):
        (tmp / folder).mkdir()
        (tmp / folder / "tokenizer.model").write_bytes(data)
    for text in TEXTS:
        for options in ((), ("--special",)):
            ids = [nibble("tokenize", tmp / folder, "-p", text, *options)
                   for folder in ("got", "want")]
            assert ids[0] == ids[1], (text, ids)
        words = ids[0].decode().split()
        texts = [nibble("detokenize", tmp / folder, *words) for folder in ("got", "want")]
        assert texts[0] == texts[1], text


def spec(arrays, number):
    """TrainerSpec (2) or NormalizerSpec (3) of the tokenizer.model."""
    return dict(fields(dict(fields(arrays["tokenizer.model"].tobytes()))[number]))


def test_sentencepiece_settings(tmp):
    original = TOKENIZER.read_bytes()
    arrays, _ = converted(tmp, {}, spm_metadata(original, padding_token_id=("u32", 5)))
    trainer, normalizer = spec(arrays, 2), spec(arrays, 3)
    assert trainer[3] == 2 and trainer[35] == 1 and trainer[4] == PIECES, "BPE with bytes"
    assert (trainer[40], trainer[41], trainer[42], trainer[43]) == (0, 1, 2, 5)
    assert (trainer[45], trainer[46], trainer[47]) == (b"<unk>", b"<s>", b"</s>")
    assert (normalizer[3], normalizer[4], normalizer[5]) == (1, 0, 1)
    control = spm_metadata(original)
    control["tokenizer.ggml.token_type"][1][0] = 3
    arrays, _ = converted(tmp, {}, control)
    assert pieces_of(arrays["tokenizer.model"].tobytes()) == pieces_of(original), "<unk> is known"
    more = {"add_space_prefix": ("bool", False), "remove_extra_whitespaces": ("bool", True),
            "bos_token_id": None, "eos_token_id": ("i32", -1)}
    arrays, _ = converted(tmp, {}, spm_metadata(original, **more))
    trainer, normalizer = spec(arrays, 2), spec(arrays, 3)
    assert (normalizer[3], normalizer[4], normalizer[5]) == (0, 1, 1)
    assert trainer[41] == trainer[42] == trainer[43] == (1 << 64) - 1 and 46 not in trainer
    assert "bos_token_id" not in config_of(arrays) and "eos_token_id" not in config_of(arrays)


def test_added_pieces_have_no_spaces(tmp):
    pieces = spm_metadata(TOKENIZER.read_bytes())
    pieces["tokenizer.ggml.tokens"][1][399] = b"  <x y>"
    pieces["tokenizer.ggml.token_type"][1][399] = 4
    arrays, _ = converted(tmp, {}, pieces)
    pieces = pieces_of(arrays["tokenizer.model"].tobytes())
    assert pieces[399][0].decode() == "\u2581\u2581<x\u2581y>"


def bpe_metadata(**more):
    """'h e', 'he l', 'hel lo' and the like; a special, an added and two unused tokens."""
    tokens = ["h", "e", "l", "o", "\u0120", "he", "ll", "hell", "hello", "<|end|>", "[PAD10]",
              "<x>", "[PAD12]"]
    own = {"model": ("str", "gpt2"), "pre": ("str", "llama-bpe"), "tokens": (["str"], tokens),
           "token_type": (["i32"], [1] * 9 + [3, 5, 4, 5]),
           "merges": (["str"], ["h e", "l l", "he ll", "hell o"]),
           "bos_token_id": ("u32", 9), "eos_token_id": ("u32", 9), "eot_token_id": ("u32", 11),
           **more}
    return {f"tokenizer.ggml.{key}": value for key, value in own.items() if value}


def test_byte_level_bpe(tmp):
    metadata = {**bpe_metadata(), "tokenizer.chat_template": ("str", "{{ bos_token }}\u20ac")}
    arrays, stderr = converted(tmp, {}, metadata)
    got = json.loads(arrays["tokenizer.json"].tobytes())
    assert got["model"]["vocab"] == {"h": 0, "e": 1, "l": 2, "o": 3, "\u0120": 4, "he": 5, "ll": 6,
                                     "hell": 7, "hello": 8}
    assert got["model"]["merges"] == [["h", "e"], ["l", "l"], ["he", "ll"], ["hell", "o"]]
    assert got["model"]["type"] == "BPE" and got["model"]["ignore_merges"] is True
    assert [(token["id"], token["content"], token["special"]) for token in got["added_tokens"]] == [
        (9, "<|end|>", True), (11, "<x>", False)]
    split, bytes_ = got["pre_tokenizer"]["pretokenizers"]
    assert split["pattern"]["Regex"] == (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
    assert bytes_["type"] == "ByteLevel" and bytes_["use_regex"] is False
    assert got["post_processor"]["processors"][1]["special_tokens"]["<|end|>"]["ids"] == [9]
    settings = json.loads(arrays["tokenizer_config.json"].tobytes())
    assert settings == {"add_bos_token": True, "bos_token": "<|end|>", "eos_token": "<|end|>",
                        "chat_template": "{{ bos_token }}\u20ac"}
    assert config_of(arrays)["eos_token_id"] == [9, 11] and "note: left out" not in stderr


def test_how_text_is_cut(tmp):
    for pre, steps, normalizer, bos in (
            ("gpt-2", 0, None, False), ("qwen2", 2, "NFC", False), ("starcoder", 2, None, False),
            ("tekken", 2, None, True), ("gpt-4o", 2, None, False), ("deepseek-v3", 4, None, False),
            ("command-r", 2, "NFC", False), ("dbrx", 2, None, False)):
        arrays, _ = converted(tmp, {}, bpe_metadata(pre=("str", pre)))
        got = json.loads(arrays["tokenizer.json"].tobytes())
        assert len(got["pre_tokenizer"].get("pretokenizers", [])) == steps, pre
        assert (got["normalizer"] or {}).get("type") == normalizer, pre
        last = (got["pre_tokenizer"].get("pretokenizers") or [got["pre_tokenizer"]])[-1]
        assert last["use_regex"] == (pre in ("gpt-2", "starcoder", "command-r"))
        settings = json.loads(arrays["tokenizer_config.json"].tobytes())
        assert settings["add_bos_token"] is bos, pre
        assert (got["post_processor"]["type"] == "Sequence") is bos, pre
    arrays, _ = converted(tmp, {}, bpe_metadata(add_bos_token=("bool", False)))
    assert json.loads(arrays["tokenizer.json"].tobytes())["post_processor"]["type"] == "ByteLevel"


def test_tokenizers_that_are_left_out(tmp):
    spm = spm_metadata(TOKENIZER.read_bytes())
    twice = spm_metadata(TOKENIZER.read_bytes())
    twice["tokenizer.ggml.tokens"][1][300] = twice["tokenizer.ggml.tokens"][1][301]
    for metadata, why in (
            (bpe_metadata(pre=("str", "made-up")), "'made-up', is not known"),
            (bpe_metadata(pre=None), "'None', is not known"),
            (bpe_metadata(merges=None), "merges or the types"),
            (bpe_metadata(token_type=None), "merges or the types"),
            ({key: value for key, value in spm.items() if "scores" not in key}, "its scores or"),
            (twice, "a token twice"),
            ({**spm, "tokenizer.ggml.model": ("str", "t5")}, "'t5', has no converter"),
            (bpe_metadata(tokens=(["str"], [b"\xff"] * 13)), "not UTF-8")):
        arrays, stderr = converted(tmp, {}, metadata)
        assert "note: left out the tokenizer" in stderr and why in stderr, (why, stderr)
        assert not {"tokenizer.model", "tokenizer.json"} & set(arrays)
        assert config_of(arrays)["eos_token_id"] in (2, [9, 11]), "the ids are known all the same"


if __name__ == "__main__":
    sys.exit(main(globals()))
