#!/usr/bin/python3
"""scripts/convert.py on damaged and hostile GGUF files: one sentence, soon, with little memory.

    tests/cli/test_convert_gguf_refusals.py [WORD...]
"""
import contextlib
import json
import os
import resource
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from gguf_models import (BLOCKS, floats, gguf, keys, llama_metadata, matrix, payload, spm_metadata,
                         table, text)
from harness import TOKENIZER, main
from hf_models import SCRIPT, check_refused, run
from models import PIECES

EMBEDDING = {"token_embd.weight": floats(np.zeros((PIECES, 64)))}
NORM = {"output_norm.weight": floats(np.ones(64))}


def write(tmp, data, name="m.gguf"):
    (tmp / name).write_bytes(data)
    return tmp / name


def model(tmp, metadata=None, tensors=None, **options):
    """A llama, with changes: {key: None} leaves a key out."""
    changed = {**llama_metadata(), **(metadata or {})}
    changed = {key: value for key, value in changed.items() if value is not None}
    return write(tmp, gguf(changed, {**EMBEDDING, **(tensors or {})}, **options))


def front(tensors=0, count=0, rest=b"", version=3):
    return b"GGUF" + struct.pack("<IQQ", version, tensors, count) + rest


# ---- what it is

def test_other_files(tmp):
    for data, words in ((b"", "not a GGUF file"), (b"GG", "not a GGUF file"),
                        (b"<!DOCTYPE html>", "not a GGUF file"),
                        (b"version https://git-lfs", "git lfs pull"), (b"tjgg\3\0\0\0", "older"),
                        (b"lmgg", "older"), (b"GGUF", "cut short"), (b"GGUF\3\0\0\0", "cut short")):
        check_refused(write(tmp, data), words)
    os.mkfifo(tmp / "pipe.gguf")
    check_refused(tmp / "pipe.gguf", "is not a folder")


def test_versions(tmp):
    for version in (0, 1, 4, 1000):
        check_refused(model(tmp, version=version), f"GGUF version {version}, but only 2 and 3")
    for version in (3 << 24, 2 << 24, 1 << 24):
        check_refused(model(tmp, version=version), "big-endian")


def test_kinds_of_models(tmp):
    cases = (({"general.architecture": None}, "the architecture 'None'"),
             ({"general.architecture": ("u32", 5)}, "the architecture '5'"),
             ({"general.architecture": (["str"], ["llama"])}, "the architecture"),
             ({"general.architecture": ("str", "clip")}, "those that have one are cohere2, "),
             ({"general.type": ("str", "adapter")}, "of the type 'adapter'"))
    for change, words in cases:
        check_refused(model(tmp, change), words)
    check_refused(write(tmp, gguf(llama_metadata(), {})), "only a vocabulary")
    check_refused(write(tmp, gguf(llama_metadata(), NORM)), "no embedding")
    (tmp / "folder").mkdir()
    (tmp / "folder" / "m.gguf").write_bytes(gguf(llama_metadata(), EMBEDDING))
    check_refused(tmp / "folder", "give the .gguf file itself")


def test_quantized_already(tmp):
    tensor, _ = matrix("Q4_0", 2, 32)
    path = model(tmp, {}, {"blk.0.attn_q.weight": tensor})
    check_refused(path, "quantized already", "--bits", "4", "--nibble", "/bin/true")


# ---- the front of the file

def test_every_cut(tmp):
    """Wherever the file ends before its end, that is said."""
    small = {"token_embd.weight": floats(np.zeros((3, 4)))}
    data = gguf({**llama_metadata(), "x.list": (["str"], ["a", "bc"])}, small)
    for end in {*range(4, len(data) - 1, 29), len(data) - 1}:
        check_refused(write(tmp, data[:end]), "download it again")


def test_counts_that_cannot_be(tmp):
    for count in (1 << 63, (1 << 64) - 1, 1 << 40, 1 << 20):
        for data in (front(count), front(0, count), front(0, 1, struct.pack("<Q", count))):
            check_refused(write(tmp, data), "download it again")
        for kind in range(13):
            array = text("a") + struct.pack("<IIQ", 9, kind, count)
            check_refused(write(tmp, front(0, 1, array)), "download it again")
        string = text("a") + struct.pack("<IQ", 8, count)
        check_refused(write(tmp, front(0, 1, string)), "cut short")


def test_metadata_that_cannot_be(tmp):
    value = payload("u32", 1)
    for entry, words in (
            (text("a") + struct.pack("<I", 13) + value, "the type 13"),
            (text("a") + struct.pack("<I", 1 << 31) + value, "the type 2147483648"),
            (text("a") + struct.pack("<IIQ", 9, 77, 1) + value, "the type 77"),
            (text("") + struct.pack("<I", 4) + value, "a key"),
            (text("a\n") + struct.pack("<I", 4) + value, "a key"),
            (text("a" * 5000) + struct.pack("<I", 4) + value, "a key"),
            (text(b"\xff") + struct.pack("<I", 4) + value, "a key"),
            (text("a") + struct.pack("<IB", 7, 2), "a truth value of its metadata is 2"),
            (text("a") + struct.pack("<I", 8) + text(b"\xff\xfe"), "is not UTF-8")):
        check_refused(write(tmp, front(0, 1, entry + bytes(40))), words)
    twice = keys({"a": ("u32", 1)}) + keys({"a": ("u32", 2)})
    check_refused(write(tmp, front(0, 2, twice)), "the key a twice")
    nested = struct.pack("<IQ", 9, 1) * 50
    check_refused(write(tmp, front(0, 1, text("a") + struct.pack("<I", 9) + nested)), "too deeply")
    for alignment in (("u32", 0), ("u32", 3), ("u32", 1 << 31), ("str", "32"), ("f32", 32.0),
                      (["u32"], [32])):
        check_refused(model(tmp, {"general.alignment": alignment}), "its alignment is")


def test_little_memory_and_time(tmp):
    """Sparse files that claim as much as they can without being cut short."""
    limit = lambda: resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
    env = dict(os.environ, OPENBLAS_NUM_THREADS="1")
    strings = text("a") + struct.pack("<IIQ", 9, 8, 2 << 20)
    lists = text("a") + struct.pack("<IIQ", 9, 9, 1 << 16)
    numbers = text("a") + struct.pack("<IIQ", 9, 0, 1 << 35)
    words = text("a") + struct.pack("<IQ", 8, 1 << 35)
    for data in (front(0, 2, strings), front(0, 2, lists), front(0, 1, numbers), front(0, 1, words),
                 front(1 << 17, 0), front(0, 1 << 16)):
        path = write(tmp, data)
        os.truncate(path, 1 << 36)
        started = time.monotonic()
        check_refused(path, "download it again", preexec_fn=limit, env=env)
        assert time.monotonic() - started < 10, data[:60]


def opened(process, path):
    """Whether it has the file open."""
    with contextlib.suppress(OSError):
        return any(os.path.realpath(fd) == str(path)
                   for fd in Path(f"/proc/{process.pid}/fd").iterdir())
    return False


def test_stopped_while_it_reads(tmp):
    """Scales are looked at before anything is written, and here that takes long."""
    data = gguf({**llama_metadata()}, {"token_embd.weight": ("Q4_0", (1 << 28, 64), b"")})
    path = write(tmp, data)
    os.truncate(path, len(data) + (1 << 29) * 18)
    command = [sys.executable, SCRIPT, path, "-o", tmp / "x.npz"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            while not opened(process, path):
                assert process.poll() is None, process.stderr.read()
            process.send_signal(signal.SIGTERM)
            stderr = process.communicate(timeout=5)[1]
        finally:
            process.kill()
    assert process.returncode == 128 + signal.SIGTERM and "stopped by SIGTERM" in stderr, stderr
    assert [p.name for p in tmp.iterdir()] == ["m.gguf"]


# ---- tensors

DATA = 64 * PIECES * 4


def raw_tensor(name="token_embd.weight", sizes=(64, PIECES), kind=0, offset=0, data=DATA):
    """A llama whose one tensor is described like this."""
    info = text(name) + struct.pack(f"<I{len(sizes)}Q", len(sizes), *sizes)
    entries = llama_metadata()
    data_of = front(1, len(entries), keys(entries) + info + struct.pack("<IQ", kind, offset))
    return data_of + bytes(-len(data_of) % 32) + bytes(data)


def test_tensors_that_cannot_be(tmp):
    huge = 1 << 62
    for change, words in (
            ({"sizes": ()}, "has 0 dimensions"), ({"sizes": (1,) * 5}, "has 5 dimensions"),
            ({"sizes": (64, 0)}, "the sizes [64, 0]"), ({"sizes": (huge, huge)}, "the sizes"),
            ({"sizes": (1 << 32, 1 << 32)}, "the sizes"), ({"sizes": (33, 2), "kind": 2}, "Q4_0"),
            ({"sizes": (128, 2), "kind": 12}, "Q4_K has the sizes"),
            ({"sizes": (1 << 40,)}, "is cut short"), ({"data": DATA - 1}, "is cut short"),
            ({"offset": 32}, "is cut short"), ({"offset": (1 << 64) - 32}, "is cut short"),
            ({"offset": 16}, "multiple of 32"), ({"name": ""}, "has the name"),
            ({"name": "a" * 200}, "has the name"), ({"name": "a/b"}, "has the name"),
            ({"name": "a\0"}, "has the name"), ({"sizes": (2, 3, 4)}, "no embedding")):
        check_refused(write(tmp, raw_tensor(**change)), words)


def test_types_without_a_converter(tmp):
    for kind, name in ((16, "the type IQ2_XXS"), (20, "the type IQ4_NL"), (23, "the type IQ4_XS"),
                       (24, "the type I8"), (26, "the type I32"), (34, "the type TQ1_0"),
                       (4, "the unknown type 4"), (31, "the unknown type 31"),
                       (99, "the unknown type 99"), (1 << 31, "the unknown type 2147483648")):
        check_refused(write(tmp, raw_tensor(kind=kind)), f"{name}, which has no converter here; "
                      "read are F32, F16, F64, BF16, Q4_0")


def test_tensors_that_contradict_each_other(tmp):
    infos, data = table({"token_embd.weight": floats(np.zeros((4, 8))),
                         "output_norm.weight": floats(np.zeros(8))}, 32)
    entries = llama_metadata()

    def put(changed):
        start = front(2, len(entries), keys(entries) + changed)
        return write(tmp, start + bytes(-len(start) % 32) + data)
    check_refused(put(infos[:-8] + struct.pack("<Q", 96)), "overlap")
    half = len(infos) - len(table({"output_norm.weight": floats(np.zeros(8))}, 32)[0])
    check_refused(put(infos[:half] * 2), "the tensor token_embd.weight twice")
    mixed = {"blk.0.ffn_up.0.weight": floats(np.zeros((2, 2))),
             "blk.0.ffn_up_exps.weight": floats(np.zeros((1, 2, 2)))}
    check_refused(model(tmp, {"llama.expert_count": ("u32", 1),
                              "llama.expert_used_count": ("u32", 1)}, mixed), "under two names")


def test_tensors_without_a_place(tmp):
    for name, words in (("blk.0.ssm_in.weight", "no place"), ("foo.weight", "no place"),
                        ("blk.0.attn_q.lora_a", "no place"), ("blk.0.attn_qkv.weight", "no place"),
                        ("attn_q.bias.weight", "no place"), ("weight", "no place"),
                        ("blk.2.attn_q.weight", "but only 2 layers"),
                        ("blk.999999999.attn_q.weight", "but only 2 layers"),
                        (f"blk.{'9' * 20}.attn_q.weight", "no place")):
        check_refused(model(tmp, {}, {name: floats(np.zeros((2, 2)))}), f"tensor {name}, ")
        check_refused(tmp / "m.gguf", words)
    flat = {"blk.0.ffn_up_exps.weight": floats(np.zeros((4, 2)))}
    check_refused(model(tmp, {}, flat), "one matrix for each expert")
    many = {"blk.0.ffn_up_exps.weight": ("F32", (5000, 1, 1), bytes(20000))}
    check_refused(model(tmp, {}, many), "one matrix for each expert")


def test_scales_that_are_no_numbers(tmp):
    """In every format, infinite and NaN, named when they are met."""
    places = {"Q4_0": (0,), "Q4_1": (0, 2), "Q5_0": (0,), "Q5_1": (0, 2), "Q8_0": (0,),
              "Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}
    for kind in BLOCKS:
        (_, shape, data), _ = matrix(kind, 1, 256)
        bad = [data[:at] + struct.pack("<e", number) + data[at + 2:]
               for at in places.get(kind, ()) for number in (float("inf"), float("nan"))]
        for changed in bad or [b"\xff" + data[1:]]:
            tensor = {"blk.0.attn_q.weight": (kind, shape, changed)}
            path = model(tmp, spm_metadata(TOKENIZER.read_bytes()), tensor)
            check_refused(path, "q_proj.weight holds numbers that are infinite or none")


# ---- metadata of the model

def test_sizes_that_cannot_be(tmp):
    for key in ("embedding_length", "block_count", "attention.head_count"):
        for value in (None, ("u32", 0), ("i32", -1), ("f32", 2.5), ("str", "x"), ("bool", True),
                      ("u64", 1 << 62), (["u32"], [1, 2]), (["u32"], []), (["str"], ["a"])):
            check_refused(model(tmp, {f"llama.{key}": value}), f"llama.{key}")
    for key, value in (("block_count", 1 << 30), ("attention.head_count", 1 << 30)):
        check_refused(model(tmp, {f"llama.{key}": ("u32", value)}), "should have a size")
    check_refused(model(tmp, {"llama.rope.freq_base": ("f32", float("nan"))}), "rope.freq_base")
    check_refused(model(tmp, {"llama.attention.head_count_kv": (["u32"], [2, 4])}),
                  "one number for all layers")


def test_what_would_change_the_result(tmp):
    for key, value, words in (
            ("attention.causal", ("bool", False), "not causal"),
            ("attention.value_length", ("u32", 8), "different lengths"),
            ("logit_scale", ("f32", 0.5), "llama.logit_scale"),
            ("attention.max_alibi_bias", ("f32", 8.0), "max_alibi_bias"),
            ("nextn_predict_layers", ("u32", 1), "nextn_predict_layers"),
            ("rope.dimension_sections", (["u32"], [1, 2]), "dimension_sections"),
            ("expert_gating_func", ("u32", 2), "by softmax"),
            ("rope.dimension_count", ("u32", 32), "turns 32 of the 16"),
            ("rope.scaling.type", ("str", "made-up"), "'made-up'"[1:-1]),
            ("rope.scaling.type", ("u32", 1), "should be text"),
            ("rope.scaling.type", ("str", "longrope"), "rope_factors_long"),
            ("rope.scaling.attn_factor", ("f32", 1.5), "attn_factor"),
            ("rope.scaling.yarn_log_multiplier", ("f32", 0.1), "yarn_log_multiplier")):
        check_refused(model(tmp, {f"llama.{key}": value}), words)
    yarn = {"llama.rope.scaling.type": ("str", "yarn"), "llama.rope.scaling.factor": ("f32", 4.0)}
    check_refused(model(tmp, yarn), "original_context_length")
    factors = {"llama.rope.scaling.yarn_attn_factor": ("f32", 0.9)}
    check_refused(model(tmp, {**yarn, **factors,
                              "llama.rope.scaling.original_context_length": ("u32", 64)}),
                  "yarn_attn_factor")


def test_frequencies_that_are_not_llama_3s(tmp):
    for values, words in (([1, 1, 1, 1, 2, 3, 8, 8], "other numbers than Llama 3"),
                          ([1] * 6 + [8], "other numbers than Llama 3"),
                          ([1] * 7 + [0], "scale nothing"), ([1] * 7 + [-8], "scale nothing"),
                          ([1] * 7 + [np.inf], "scale nothing"),
                          ([[1] * 8], "one number for each pair")):
        freqs = {"rope_freqs.weight": floats(np.array(values, "f8"))}
        check_refused(model(tmp, {"llama.rope.freq_base": ("f32", 500000.0)}, freqs), words)
    halves = {"rope_freqs.weight": floats(np.array([1] * 999 + [2, 3] + [8] * 999))}
    for theta in (1.0, 1e308):
        check_refused(model(tmp, {"llama.rope.freq_base": ("f64", theta),
                                  "llama.attention.key_length": ("u32", 4000),
                                  "llama.attention.value_length": ("u32", 4000),
                                  "llama.rope.dimension_count": ("u32", 4000)}, halves),
                      "other numbers than Llama 3")


def test_partial_rope_is_passed_on(tmp):
    path = model(tmp, {"llama.rope.dimension_count": ("u32", 8)})
    assert run(path, "-o", tmp / "x.npz").returncode == 0
    assert b'"partial_rotary_factor": 0.5' in np.load(tmp / "x.npz")["config.json"].tobytes()


def test_a_part_of_rope_that_is_no_binary_fraction(tmp):
    """As many turn as the part times all, rounded down."""
    for turned in range(2, 98, 2):
        path = model(tmp, {"llama.rope.dimension_count": ("u32", turned),
                           "llama.attention.key_length": ("u32", 98),
                           "llama.attention.value_length": ("u32", 98)})
        assert run(path, "-o", tmp / "x.npz").returncode == 0
        config = json.loads(np.load(tmp / "x.npz")["config.json"].tobytes())
        assert int(98 * config["partial_rotary_factor"]) == turned


# ---- tokenizers

def test_tokenizers_that_cannot_be(tmp):
    good = spm_metadata(TOKENIZER.read_bytes())
    bpe = {"tokenizer.ggml.model": ("str", "gpt2"), "tokenizer.ggml.pre": ("str", "gpt-2"),
           "tokenizer.ggml.tokens": (["str"], ["a", "b"]),
           "tokenizer.ggml.token_type": (["i32"], [1, 1])}
    for changed, words in (
            ({"scores": (["f32"], [0.0] * 3)}, "one for each token"),
            ({"scores": (["i32"], [0] * PIECES)}, "one for each token"),
            ({"scores": ("f32", 1.0)}, "scores is of another type"),
            ({"scores": (["f32"], [float("nan")] * PIECES)}, "that no token has"),
            ({"scores": (["f64"], [1e300] * PIECES)}, "that no token has"),
            ({"token_type": (["i32"], [7] * PIECES)}, "that no token has"),
            ({"token_type": (["i32"], [1])}, "one for each token"),
            ({"tokens": (["u32"], [1, 2])}, "tokens is of another type"),
            ({"tokens": ("str", "x")}, "tokens is of another type"),
            ({"tokens": ([["str"]], [["a"]])}, "should hold text"),
            ({"model": ("u32", 1)}, "model is of another type"),
            ({"bos_token_id": ("str", "1")}, "bos_token_id is of another type"),
            ({"add_bos_token": ("u32", 1)}, "add_bos_token is of another type"),
            ({"precompiled_charsmap": ("str", "x")}, "precompiled_charsmap is of another type")):
        change = {f"tokenizer.ggml.{key}": value for key, value in changed.items()}
        check_refused(model(tmp, {**good, **change}), words)
    merges = {**bpe, "tokenizer.ggml.merges": (["str"], ["a b", "ab"])}
    check_refused(model(tmp, merges), "should name two tokens")
    check_refused(write(tmp, gguf({**llama_metadata(), **good},
                                  {"token_embd.weight": floats(np.zeros((5, 64)))})),
                  f"{PIECES} tokens, but an embedding of only 5 rows")


# ---- split files

def part(tmp, i, tensors=None, **split):
    """The i-th of three files; split: what it says of itself, {key: (kind, value) or None}."""
    split = {"no": ("u16", i), "count": ("u16", 3), **split}
    metadata = {f"split.{key.replace('__', '.')}": value for key, value in split.items() if value}
    metadata.update(llama_metadata() if i == 0 else {})
    path = tmp / f"m-{i + 1:05}-of-00003.gguf"
    path.write_bytes(gguf(metadata, EMBEDDING if i == 0 else tensors or {}))
    return path


def test_parts_that_do_not_fit(tmp):
    first = part(tmp, 0)
    check_refused(first, "of which m-00002-of-00003.gguf is missing")
    part(tmp, 1), part(tmp, 2)
    part(tmp, 0, count=("u16", 4))
    check_refused(first, "should end in -00001-of-00004.gguf")
    part(tmp, 0)
    for change in ({"no": ("u16", 2)}, {"no": ("str", "1")}, {"no": None}, {"no": (["u16"], [1])},
                   {"count": ("u16", 4)}, {"count": None}, {"count": ("i32", -1)}):
        part(tmp, 1, **change)
        check_refused(first, "split" if next(iter(change.values())) is None else "m-00002-of-00003")
    part(tmp, 1, tensors=EMBEDDING)
    check_refused(first, "both hold tensor token_embd.weight")
    part(tmp, 1)
    part(tmp, 0, tensors__count=("i32", 5))
    check_refused(first, "hold 1 tensors where the first of them promises 5")
    part(tmp, 0, tensors__count=("str", "5"))
    check_refused(first, "split.tensors.count")
    first.rename(tmp / "m.gguf")
    check_refused(tmp / "m.gguf", "should end in -00001-of-00003.gguf")
    check_refused(model(tmp, {"split.count": ("u64", 1 << 63)}), "split.count")


if __name__ == "__main__":
    sys.exit(main(globals()))
