#!/usr/bin/python3
"""Folders and files of safetensors: the numbers of the same weights in .npz, and refusals."""
import json
import os
import shutil
import struct
import sys
from pathlib import Path

import numpy as np

from harness import ROOT, TOKENIZER, main
from models import META, Tiny

GOLDEN = ROOT / "tests" / "golden" / "llama-llama3"
TYPES = {"<f4": "F32", "<f2": "F16", "|V2": "BF16", "<V2": "BF16", "<u4": "U32", "|u1": "U8"}
IDS = "1 5 9 40 300 7 7 2 64 128 33"


def write(path, arrays, pad=0, change=lambda header: None):
    """As MLX does: the data follow a header that is not padded; pad adds blanks to it."""
    header, data = {"__metadata__": {"format": "mlx"}}, b""
    for name, a in arrays.items():
        header[name] = {"dtype": TYPES[a.dtype.str], "shape": list(a.shape),
                        "data_offsets": [len(data), len(data) + a.nbytes]}
        data += a.tobytes()
    change(header)
    text = json.dumps(header).encode() + b" " * pad
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def make_folder(path, config, tokenizer=TOKENIZER):
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    if tokenizer:
        (path / "tokenizer.model").write_bytes(tokenizer.read_bytes())
    return path


def whole(path, config, arrays, pad=0, name="model.safetensors"):
    write(make_folder(path, config) / name, arrays, pad)
    return path


def parts(arrays, n):
    return [{name: arrays[name] for name in list(arrays)[i::n]} for i in range(n)]


def sharded(path, config, arrays, n=3):
    """With an index, as Hugging Face has it."""
    make_folder(path, config)
    index = {}
    for i, part in enumerate(parts(arrays, n)):
        file = f"model-{i + 1:05}-of-{n:05}.safetensors"
        write(path / file, part, pad=i)
        index.update({name: file for name in part})
    text = json.dumps({"metadata": {"total_size": 1}, "weight_map": index}, indent=2)
    (path / "model.safetensors.index.json").write_text(text)
    return path


def numbered(path, config, arrays, n=2):
    """As early mlx-lm wrote them."""
    make_folder(path, config)
    for i, part in enumerate(parts(arrays, n)):
        write(path / f"weights.{i:02}.safetensors", part)
    return path


def logits(nibble, model, out, *options):
    out.unlink(missing_ok=True)
    nibble("logits", model, "--ids", IDS, "-o", out, *options)
    return np.load(out)


def bf16(a):
    return (a.view("<u4") >> 16).astype("<u2").view("V2")


def check_same(nibble, tmp, model, arrays):
    """Every way to lay arrays out gives the logits of the .npz, bit for bit."""
    want = logits(nibble, model.save(tmp / "m.npz", arrays=arrays), tmp / "l.npy")
    assert want.shape == (11, 400) and np.isfinite(want).all() and want.std() > 0.1
    for i, folder in enumerate((whole(tmp / "whole", model.config, arrays),
                                whole(tmp / "odd", model.config, arrays, pad=3),
                                sharded(tmp / "sharded", model.config, arrays),
                                numbered(tmp / "numbered", model.config, arrays))):
        got = logits(nibble, folder, tmp / "l.npy", "-t", 1 + i % 2)
        assert np.array_equal(got, want), f"{folder.name}: {np.abs(got - want).max()}"
        shutil.rmtree(folder)


# ---- the same numbers

def test_plain_weights(tmp, nibble):
    model = Tiny()
    for narrow in (lambda a: a, lambda a: a.astype("<f2"), bf16):
        check_same(nibble, tmp, model, {n: narrow(a) for n, a in model.arrays().items()})


def test_quantized_weights(tmp, nibble):
    """What mlx-lm writes: codes in U32, scales and offsets in F16 beside them."""
    model = Tiny()
    for bits in (4, 3):
        source = model.save(tmp / "m.npz", dtype="<f2")
        assert nibble.run("quantize", source, tmp / "q.npz", "--bits", bits).code == 0
        with np.load(tmp / "q.npz") as npz:
            arrays = {n: npz[n] for n in npz.files if n.startswith(("model.", "lm_head."))}
            config = json.loads(bytes(npz["config.json"]))
        assert arrays["lm_head.weight"].dtype == "<u4" and config["quantization"]["bits"] == bits
        model.config = config
        check_same(nibble, tmp, model, arrays)


def test_every_alignment(tmp, nibble):
    model = Tiny()
    want = None
    for pad in range(8):
        folder = whole(tmp / f"pad{pad}", model.config, model.arrays(), pad)
        got = [logits(nibble, folder, tmp / "l.npy", *o) for o in ((), ("--blas",))]
        want = want or got
        assert all(np.array_equal(g, w) for g, w in zip(got, want)), pad


def test_the_golden_model(tmp, nibble):
    """A folder as transformers wrote it."""
    golden = np.load(GOLDEN / "golden.npz")
    ids = " ".join(map(str, golden["input_ids"]))
    nibble("logits", GOLDEN, "--ids", ids, "-o", tmp / "l.npy", "--kv-type", "f32")
    assert np.abs(np.load(tmp / "l.npy") - golden["logits"]).max() <= 2e-4


def test_meta_names(tmp, nibble):
    """Mistral's own layout, by the file's name: params.json and the names of Meta."""
    model = Tiny(META)
    want = logits(nibble, model.save(tmp / "m.npz"), tmp / "l.npy")
    folder = whole(tmp / "f", model.config, model.arrays(), name="consolidated.safetensors")
    (folder / "config.json").rename(folder / "params.json")
    nibble.refuses("info", folder, says=["consolidated.safetensors", "name the file itself"])
    got = logits(nibble, folder / "consolidated.safetensors", tmp / "l.npy")
    assert np.array_equal(got, want)


def test_other_commands(tmp, nibble):
    model = Tiny()
    npz, folder = model.save(tmp / "m.npz"), sharded(tmp / "f", model.config, model.arrays())
    words = ("-p", "Once upon a time", "-n", "12", "--temp", "0", "--ignore-eos")
    assert nibble("generate", folder, *words) == nibble("generate", npz, *words)
    assert nibble("tokenize", folder, *words[:2]) == nibble("tokenize", npz, *words[:2])
    for i, source in enumerate((npz, folder)):
        assert nibble.run("quantize", source, tmp / f"{i}.npz").code == 0
    assert (tmp / "0.npz").read_bytes() == (tmp / "1.npz").read_bytes()


def test_links(tmp, nibble):
    """A snapshot of Hugging Face's cache: links into a folder of blobs."""
    model = Tiny()
    sharded(tmp / "blobs", model.config, model.arrays())
    (tmp / "snapshot").mkdir()
    for file in (tmp / "blobs").iterdir():
        (tmp / "snapshot" / file.name).symlink_to(Path("..") / "blobs" / file.name)
    nibble("info", tmp / "snapshot")


def test_npz_goes_first(tmp, nibble):
    model, other = Tiny(), Tiny(seed=2)
    folder = model.save_folder(tmp / "f")
    want = logits(nibble, folder, tmp / "l.npy")
    write(folder / "model.safetensors", other.arrays())
    assert np.array_equal(logits(nibble, folder, tmp / "l.npy"), want)
    got = logits(nibble, folder / "model.safetensors", tmp / "l.npy")
    assert not np.array_equal(got, want), "a file that is named is read"
    (folder / "weights.npz").unlink()
    assert np.array_equal(logits(nibble, folder, tmp / "l.npy"), got)


# ---- refusals

def refused(nibble, tmp, model, says):
    """By all commands that open weights; nothing is written."""
    for words in (("generate", model, "-p", "x"), ("bench", model), ("info", model),
                  ("logits", model, "--ids", "1", "-o", tmp / "out"),
                  ("quantize", model, tmp / "out")):
        nibble.refuses(*words, says=says)
    assert not (tmp / "out").exists()


def test_damaged_files(tmp, nibble):
    model = Tiny()
    folder = whole(tmp / "f", model.config, model.arrays())
    file, name = folder / "model.safetensors", "model.norm.weight"
    data = file.read_bytes()
    for damaged, says in ((data[:-1], "cut short"), (data[:1000], "cut short"), (data[:5], "has 5"),
                          (b"", "empty"), (data + b"\0", "1 bytes behind its last tensor"),
                          (b"\xff" * 8 + data[8:], "not a safetensors file"),
                          (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
                          (b"<!DOCTYPE html>", "web page"),
                          (data.replace(b'"F32"', b'"F99"', 1), "type 'F99'"),
                          (data.replace(b"lm_head.weight", b"lm_head\\u0000w"), "NUL")):
        file.write_bytes(damaged)
        refused(nibble, tmp, folder, [says, "f/model.safetensors"])
    for key, value, says in (("dtype", "F8_E4M3", "type 'F8_E4M3'"), ("shape", [65], "need 260"),
                             ("shape", [-64], "whole number"), ("shape", [2**70], "whole number"),
                             ("data_offsets", [2**64 - 8, 2**64], "whole numbers"),
                             ("data_offsets", [0, 256], "shares bytes")):
        write(file, model.arrays(), change=lambda header: header[name].update({key: value}))
        refused(nibble, tmp, folder, [says, "f/model.safetensors: "])


def test_damaged_sets(tmp, nibble):
    model = Tiny()
    folder = sharded(tmp / "f", model.config, model.arrays())
    index, first = folder / "model.safetensors.index.json", "model.embed_tokens.weight"
    second = "model-00002-of-00003.safetensors"
    good = json.loads(index.read_text())["weight_map"]
    for shard, says in (("../x.safetensors", "'../x.safetensors'"), ("/etc/passwd", "same folder"),
                        ("model-00004-of-00004.safetensors", "not in the folder"),
                        (second, "does not hold it"), (7, "same folder")):
        index.write_text(json.dumps({"weight_map": {**good, first: shard}}))
        refused(nibble, tmp, folder, [says, "index.json"])
    index.write_text(json.dumps({"weight_map": good}))
    (folder / second).rename(tmp / "away")
    refused(nibble, tmp, folder, [f"names {second}", "download it as well"])
    (folder / second).symlink_to("nowhere")
    refused(nibble, tmp, folder, [second, "No such file"])
    index.unlink()
    refused(nibble, tmp, folder, ["no model.safetensors.index.json", "download that"])
    refused(nibble, tmp, folder / "model-00001-of-00003.safetensors", "name the folder")


def test_no_config(tmp, nibble):
    model = Tiny()
    folder = whole(tmp / "f", model.config, model.arrays())
    nibble("info", folder / "model.safetensors")
    os.remove(folder / "config.json")
    for path in (folder, folder / "model.safetensors"):
        refused(nibble, tmp, path, [str(path), "has no config.json"])


def test_tensors_without_a_place(tmp, nibble):
    model = Tiny()
    for name, says in (("model.layers.0.self_attn.rotary_emb.inv_freq", None),
                       ("model.layers.0.self_attn.q_proj.bias", "no place")):
        arrays = {**model.arrays(), name: np.ones(8, "<f4")}
        folder = whole(tmp / name, model.config, arrays)
        if says:
            refused(nibble, tmp, folder, [says, name])
        else:
            nibble("info", folder)


if __name__ == "__main__":
    sys.exit(main(globals()))
