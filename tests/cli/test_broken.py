#!/usr/bin/python3
"""Files that are no models: each ends in one sentence, the right exit code, nothing on stdout."""
import io
import json
import os
import struct
import sys
import zipfile

import numpy as np

from harness import FAIRYTALE, TOKENIZER, main
from models import HF, META, Tiny, save_npz


def commands(model, tmp):
    """All that open a model's weights."""
    return (("generate", model, "-p", "x"), ("bench", model), ("info", model),
            ("logits", model, "--ids", "1", "-o", tmp / "out"),
            ("quantize", model, tmp / "out"))


def refused(nibble, tmp, model, says, everywhere=False):
    """By generate, or by every command; nothing is written."""
    for words in commands(model, tmp)[:None if everywhere else 1]:
        err = nibble.refuses(*words, says=says)
    assert not (tmp / "out").exists()
    return err


def npy(descr="'<f4'", shape="(2, 2)", data=b"\0" * 16, order="False", magic=b"\x93NUMPY\x01\0"):
    text = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return magic + struct.pack("<H", len(text)) + text + data


def with_member(tmp, model, name, data, method=zipfile.ZIP_STORED):
    """The model with one member replaced by raw bytes."""
    buffer = io.BytesIO()
    np.savez(buffer, **{n: a for n, a in model.arrays().items() if n != name})
    with zipfile.ZipFile(buffer, "a") as z:
        z.writestr(name + ".npy", data, method)
        z.writestr("config.json", json.dumps(model.config))
    (tmp / "m.npz").write_bytes(buffer.getvalue())
    return tmp / "m.npz"


# ---- no model at all

def test_paths(tmp, nibble):
    (tmp / "empty.npz").write_bytes(b"")
    (tmp / "empty").mkdir()
    (tmp / "loop.npz").symlink_to("loop.npz")
    (tmp / "dangling.npz").symlink_to("nowhere")
    os.mkfifo(tmp / "fifo.npz")
    for name, says in (("absent.npz", "No such file"), ("absent/m.npz", "No such file"),
                       ("empty.npz", "empty"), ("empty", "weights.npz"), ("", "No such file"),
                       ("loop.npz", "symbolic links"), ("dangling.npz", "No such file"),
                       ("fifo.npz", "not a regular file"), ("x" * 300, "name too long"),
                       ("empty.npz/x", "Not a directory")):
        path = tmp / name if name else ""
        refused(nibble, tmp, path, says if not name else [says, name[:255]], everywhere=True)
        nibble.refuses("tokenize", path, "-p", "x")
        nibble.refuses("detokenize", path, "1")


def test_no_permission(tmp, nibble):
    if os.geteuid() == 0:
        return  # who may read everything cannot see this
    path = Tiny().save(tmp / "m.npz")
    path.chmod(0)
    refused(nibble, tmp, path, "Permission denied")


def test_other_files(tmp, nibble):
    for name, data, says in (
            ("text.npz", b"hello\n", "not a zip archive"), ("one.npz", b"P", "not a zip archive"),
            ("lfs.npz", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
            ("page.npz", b"<!DOCTYPE html>", "web page"), ("m.gguf", b"GGUF\3\0\0\0", "zip"),
            ("a.npy", npy(), "zip"), ("m.safetensors", b"\0" * 64, "no JSON that can be used"),
            ("tokenizer.model", TOKENIZER.read_bytes(), "zip")):
        (tmp / name).write_bytes(data)
        refused(nibble, tmp, tmp / name, [says, name])


def test_folders(tmp, nibble):
    model = Tiny()
    for files, says in ((["model.safetensors"], "model.safetensors is cut short"),
                        (["model-00001-of-00002.safetensors", "config.json"], "index.json"),
                        (["config.json"], "no arrays"), (["tokenizer.model"], "no arrays"),
                        (["model.npz", "config.json"], ["model.npz", "name the file itself"]),
                        (["pytorch_model.bin"], "weights.npz")):
        folder = tmp / files[0].replace(".", "-")
        folder.mkdir()
        for name in files:
            (folder / name).write_text("{}")
        refused(nibble, tmp, folder, says)
    folder = model.save_folder(tmp / "f")
    (folder / "config.json").unlink()
    refused(nibble, tmp, folder, ["no config.json", str(folder)])
    (folder / "config.json").mkdir()
    refused(nibble, tmp, folder, "config.json is not a regular file")


def test_shards(tmp, nibble):
    model = Tiny()
    folder, arrays = model.save_folder(tmp / "f"), list(model.arrays().items())
    np.savez(folder / "weights.00.npz", **dict(arrays[:3]))
    refused(nibble, tmp, folder, "both weights.npz and weights.00.npz")
    (folder / "weights.npz").unlink()
    refused(nibble, tmp, folder, arrays[3][0])
    np.savez(folder / "weights.02.npz", **dict(arrays[3:]))
    refused(nibble, tmp, folder, "lacks the shard weights.01.npz")
    (folder / "weights.02.npz").rename(folder / "weights.01.npz")
    nibble("info", folder)
    np.savez(folder / "weights.01.npz", **dict(arrays[2:]))
    refused(nibble, tmp, folder, [arrays[2][0], "weights.00.npz", "weights.01.npz"])


# ---- zip and npy

def test_cut_short(tmp, nibble):
    data = Tiny().save(tmp / "m.npz").read_bytes()
    for size in [1, 2, 21, 22, 100, len(data) // 2, len(data) - 22, len(data) - 1]:
        (tmp / "m.npz").write_bytes(data[:size])
        refused(nibble, tmp, tmp / "m.npz", "m.npz", everywhere=size == 100)
    whole = FAIRYTALE.read_bytes()
    (tmp / "m.npz").write_bytes(whole[:-1000])
    refused(nibble, tmp, tmp / "m.npz", "cut short")


def test_damaged_directory(tmp, nibble):
    """Every byte of the directory and end record in turn; a sentence or, where it does not
    matter, a run."""
    whole = save_npz(tmp / "m.npz", {"a": np.zeros((2, 2), "f4")}, {"model_type": "llama"})
    whole = whole.read_bytes()
    start = whole.index(b"PK\1\2")
    for at in range(start, len(whole), 3):
        data = bytearray(whole)
        data[at] ^= 0xff
        (tmp / "m.npz").write_bytes(data)
        refused(nibble, tmp, tmp / "m.npz", "nibble: ")


def test_members_that_are_no_arrays(tmp, nibble):
    model, name = Tiny(), "model.norm.weight"
    for data, says in ((b"hello", "not in npy format"), (b"", "not in npy format"),
                       (npy()[:9], "not in npy format"), (npy()[:40], "npy header"),
                       (npy(magic=b"\x93NUMPY\3\0"), "version 3.0"),
                       (npy(data=b"\0" * 15), "15 bytes of data"),
                       (npy(data=b"\0" * 17), "17 bytes of data"),
                       (npy("'|O'"), "pickled"), (npy("'>f4'"), "big-endian"),
                       (npy("'<f8'", data=b"\0" * 32), "found f64"), (npy("'<c8'"), "type"),
                       (npy("[('a', '<f4')]"), "structured"), (npy("''"), "type"),
                       (npy("'<f4"), "header"), (npy(shape="(2, 2"), "header"),
                       (npy(shape="(-2, 2)"), "negative"), (npy(shape="(2.0, 2)"), "header"),
                       (npy(shape=f"({1 << 62}, {1 << 62})"), "more elements"),
                       (npy(shape=f"({1 << 64},)"), "64 bits"), (npy(order="True"), "Fortran"),
                       (npy(shape="(" + "1, " * 33 + ")"), "dimensions")):
        refused(nibble, tmp, with_member(tmp, model, name, data), [says, name])


def test_compressed_bombs(tmp, nibble):
    data = npy(shape="(2000, 5000)", data=b"\0" * 40000000)
    model = with_member(tmp, Tiny(), "model.norm.weight", data, zipfile.ZIP_DEFLATED)
    assert model.stat().st_size < 1e6
    refused(nibble, tmp, model, ["model.norm.weight", "inflate"])


def test_damaged_compressed_member(tmp, nibble):
    model = Tiny()
    path = save_npz(tmp / "m.npz", model.arrays(), model.config, save=np.savez_compressed)
    with zipfile.ZipFile(path) as z:
        info = z.getinfo("lm_head.weight.npy")
    data = bytearray(path.read_bytes())
    data[info.header_offset + 2000] ^= 0xff
    path.write_bytes(data)
    refused(nibble, tmp, path, "lm_head.weight.npy is damaged")


# ---- tensors

def without(model, *names):
    return {name: a for name, a in model.arrays().items() if name not in names}


def test_missing_tensors_are_all_listed(tmp, nibble):
    for names in (HF, META):
        model = Tiny(names)
        gone = [model.name("norm"), model.name(("wq", 1)), model.name(("down", 0))]
        path = model.save(tmp / "m.npz", arrays=without(model, *gone))
        err = refused(nibble, tmp, path, ["[64]", "[64, 64]", "[64, 128]", *gone], everywhere=True)
        assert err.count("\n") == 4 and err.count("missing") == 4, err
    path = Tiny(layers=30).save(tmp / "m.npz", arrays=Tiny(layers=1).arrays())
    err = refused(nibble, tmp, path, "and 241 more")
    assert err.count("\n") == 1 + 20 + 1, err
    config = {**Tiny().config, "num_hidden_layers": 4096}
    err = refused(nibble, tmp, Tiny().save(tmp / "m.npz", config=config), "more")
    assert err.count("\n") == 22, err


def test_misshapen_tensors_are_all_listed(tmp, nibble):
    model = Tiny()
    wrong = {"model.norm.weight": ((65,), "[64]"), "lm_head.weight": ((400, 63), "[400, 64]"),
             "model.layers.0.mlp.up_proj.weight": ((64, 128), "[128, 64]"),
             "model.layers.1.self_attn.q_proj.weight": ((64, 64, 1), "[64, 64]"),
             "model.layers.1.mlp.gate_proj.weight": ((), "[128, 64]")}
    arrays = {**model.arrays(), **{name: np.zeros(s[0], "f4") for name, s in wrong.items()}}
    err = refused(nibble, tmp, model.save(tmp / "m.npz", arrays=arrays), list(wrong))
    for name, (shape, want) in wrong.items():
        line = next(line for line in err.splitlines() if line.startswith(f"  {name}: "))
        assert f"expected {want}" in line and f"found f32 {list(shape)}" in line, line
    assert err.count("\n") == 1 + len(wrong), err


def test_wrong_types(tmp, nibble):
    model = Tiny()
    for name, dtype in (("lm_head.weight", "i4"), ("model.norm.weight", "u1"),
                        ("model.layers.0.self_attn.q_proj.weight", "i1"),
                        ("model.embed_tokens.weight", "u4")):
        arrays = {**model.arrays(), name: model.arrays()[name].astype(dtype)}
        refused(nibble, tmp, model.save(tmp / "m.npz", arrays=arrays), [name, "found"])
    arrays = {name: a.astype("f8") for name, a in model.arrays().items()}
    refused(nibble, tmp, model.save(tmp / "m.npz", arrays=arrays),
            ["found f64 [400, 64]", "1 more"])


def test_unknown_tensors(tmp, nibble):
    model = Tiny()
    more = {"model.layers.0.self_attn.q_norm.weight": np.ones(16, "f4"),
            "model.layers.2.mlp.up_proj.weight": np.ones((128, 64), "f4")}
    path = model.save(tmp / "m.npz", arrays={**model.arrays(), **more})
    err = refused(nibble, tmp, path, list(more), everywhere=True)
    assert err.count("\n") == 3, err
    more = {f"lora.{i}\n\x1b[31m": np.ones(1, "f4") for i in range(25)}
    err = refused(nibble, tmp, model.save(tmp / "m.npz", arrays={**model.arrays(), **more}),
                  "and 5 more")
    assert err.count("\n") == 22 and "\x1b" not in err, "a terminal must not obey names"
    save_npz(tmp / "m.npz", {"foo": np.ones(3)[:1].astype("f4")}, model.config)
    refused(nibble, tmp, tmp / "m.npz", "no known naming")


def test_quantized_planes(tmp, nibble):
    model, name = Tiny(), "model.layers.0.mlp.up_proj"
    assert nibble.run("quantize", model.save(tmp / "m.npz"), tmp / "q.npz").code == 0
    with np.load(tmp / "q.npz") as npz:
        good = {key: npz[key] for key in npz.files if not key.startswith(("config", "token"))}
    weight, scales = good[name + ".weight"], good[name + ".scales"]
    for change in ({"scales": None}, {"biases": None}, {"weight": weight[:, :-1]},
                   {"weight": weight[:-1]}, {"weight": weight.view("i4")}, {"scales": scales[:-1]},
                   {"scales": scales.astype("f2")}, {"scales": scales[:, :0]},
                   {"biases": good[name + ".biases"][:, 0]}, {"weight": None},
                   {"scales": np.ones((128, 3), "f4")}, {"weight": weight.view("u1")}):
        arrays = {**good, **{f"{name}.{part}": a for part, a in change.items()}}
        arrays = {key: a for key, a in arrays.items() if a is not None}
        refused(nibble, tmp, model.save(tmp / "m.npz", arrays=arrays), f"{name}.weight")


# ---- numbers that are none

def test_nan_in_weights(tmp, nibble):
    for value in (np.nan, np.inf):
        model = Tiny()
        model.weights["output"][7, 3] = value
        path = model.save(tmp / "m.npz")
        for options in (("--temp", "0"), ("-s", "1"), ("--json",)):
            nibble.refuses("generate", path, "-p", "x", *options, says=["logit 7", "weights"])
        nibble("logits", path, "--ids", "1", "-o", tmp / "l.npy")
        assert not np.isfinite(np.load(tmp / "l.npy")[0, 7])
    model = Tiny()
    model.weights["wv", 1][:] = np.nan
    nibble.refuses("generate", model.save(tmp / "m.npz"), "-p", "x", says="not a number")


def test_zeros_and_huge_weights(tmp, nibble):
    model = Tiny()
    for w in model.weights.values():
        w[:] = 0
    path = model.save(tmp / "m.npz")
    words = ("-p", "x", "-n", "4", "--ignore-eos")
    assert nibble.json("generate", path, *words, "--temp", "0")["ids"] == [0] * 4, "the lowest id"
    assert len(set(nibble.json("generate", path, *words, "--top-k", "0")["ids"])) > 1
    model = Tiny()
    model.weights["output"][:] *= 1e30
    nibble("generate", model.save(tmp / "m.npz"), *words)
    model.weights["output"][:] = 3e38
    nibble.refuses("generate", model.save(tmp / "m.npz"), *words, says="overflow")


if __name__ == "__main__":
    sys.exit(main(globals()))
