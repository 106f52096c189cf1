#!/usr/bin/python3
"""nibble quantize: what numpy finds in the file, how near it is, what is kept, runs that fail."""
import json
import os
import resource
import sys
import zipfile

import numpy as np

from harness import FAIRYTALE, TOKENIZER, main
from models import META, Tiny, forward, save_npz, unpack

WIDTHS = (2, 3, 4, 5, 6, 8)


def quantize(nibble, source, out, *options):
    """{name: array} and the closing line."""
    result = nibble.run("quantize", source, out, *map(str, options))
    assert result.code == 0 and result.out == b"", result
    with np.load(out, allow_pickle=False) as npz:
        return {name: npz[name] for name in npz.files}, result.err


def config_of(arrays):
    return json.loads(arrays["config.json"].tobytes())


# ---- what is in the file

def encode(w, bits, group):
    """MLX's rule, in f32 like its own: codes [rows, groups, group], scales and biases."""
    w, one = w.astype("<f4").reshape(len(w), -1, group), np.float32
    low, high, n = w.min(-1), w.max(-1), 2 ** bits - 1
    step = np.maximum((high - low) / one(n), one(1e-7))
    edge = np.where(np.abs(low) > np.abs(high), low, high)
    step = np.where(np.abs(low) > np.abs(high), step, -step)
    at = np.rint(edge / step)
    scale = np.where(at != 0, edge / np.where(at == 0, 1, at), step)
    bias = np.where(at != 0, edge, 0)
    codes = np.clip(np.rint((w - bias[..., None]) / scale[..., None]), 0, n)
    return codes, scale, bias


def allowed(decoded, want, step):
    """Half a step; a whole one where the rule puts an end of the group out of the codes' range."""
    low, high = decoded.min(-1, keepdims=True), decoded.max(-1, keepdims=True)
    return np.where((want < low) | (want > high), 1, 0.5) * step


def test_every_width_and_group(tmp, nibble):
    for dtype in ("<f4", "<f2"):
        model = Tiny(META, dim=128, hidden=256, head_dim=32, layers=1, vocab=40)
        path = model.save(tmp / "m.npz", dtype, tokenizer=None)
        for group in (32, 64, 128):
            for bits in WIDTHS:
                arrays, _ = quantize(nibble, path, tmp / "q.npz", "--bits", bits, "--group-size",
                                     group)
                for name, want in model.arrays(dtype).items():
                    check_array(arrays, name, want, bits, group)
                assert config_of(arrays)["quantization"] == {"group_size": group, "bits": bits}


def check_array(arrays, name, want, bits, group):
    got = arrays[name]
    if want.ndim == 1:
        assert got.dtype == want.dtype and (got == want).all(), name
        return
    rows, cols = want.shape
    assert got.dtype == np.uint32 and got.shape == (rows, cols * bits // 32), (name, got.shape)
    for part in ("scales", "biases"):
        plane = arrays[name[:-len("weight")] + part]
        assert plane.dtype == want.dtype and plane.shape == (rows, cols // group), (name, part)
    codes, scale, bias = encode(want, bits, group)
    scale, bias = (np.repeat(a.astype(want.dtype).astype("f8"), group, axis=1)
                   for a in (scale, bias))
    decoded, step = unpack(arrays, name, bits, group)
    assert (decoded == scale * codes.reshape(rows, cols) + bias).all(), (name, bits, group)
    grouped = [a.reshape(rows, -1, group) for a in (decoded, want.astype("f8"), step)]
    error, bound = np.abs(grouped[0] - grouped[1]), allowed(*grouped)
    rounding = 2 * np.finfo(want.dtype).eps * np.abs(want).max()
    assert (error <= bound + rounding).all(), (name, bits, group, (error / bound).max())


def test_worked_vectors(tmp, nibble):
    """Packing as MLX does it, computed by hand: w = (i - 20) / 16 in a group of 32."""
    model = Tiny(META, dim=32, heads=2, kv_heads=1, hidden=32, layers=1, vocab=8)
    model.weights["output"][:] = (np.arange(32) - 20) / 16
    path = model.save(tmp / "m.npz", tokenizer=None)
    for bits, scale, words in ((2, 0.625, "95555000 fffaaaaa"),
                               (3, 0.25, "92489200 db2491b6 ffffb6da"),
                               (4, 0.125, "43222100 87666544 cbaaa988 ffeeedcc"),
                               (5, 0.0625, "8a418820 c5a92839 ca307b9a 38bdab49 ffbbcdeb"),
                               (6, 0.030487806,
                                "88184080 449038c2 7dd6d95d e99e58e1 5cf1beda ffeef9df")):
        arrays, _ = quantize(nibble, path, tmp / "q.npz", "--bits", bits, "--group-size", 32)
        assert " ".join(f"{word:08x}" for word in arrays["output.weight"][0]) == words, bits
        assert arrays["output.scales"][0, 0] == np.float32(scale)
        assert arrays["output.biases"][0, 0] == -1.25


def test_config_and_files_are_kept(tmp, nibble):
    model = Tiny(tied=True)
    model.config.update({"my_note": "\u00e9", "quantization_config": {"old": 1}, "big": 1e15,
                         "rope_theta": 500000.0, "eos_token_id": [2, 5]})
    folder = model.save_folder(tmp / "m")
    for name in ("generation_config.json", "tokenizer_config.json"):
        (folder / name).write_text('{"a": 1}')
    arrays, _ = quantize(nibble, folder, tmp / "q.npz", "--embed-bits", "8")
    config = config_of(arrays)
    assert config.pop("quantization") == {"group_size": 64, "bits": 4, "model.embed_tokens": {
        "group_size": 64, "bits": 8}}
    assert config == {k: v for k, v in model.config.items() if k != "quantization_config"}
    assert arrays["tokenizer.model"].tobytes() == TOKENIZER.read_bytes()
    assert arrays["generation_config.json"].tobytes() == b'{"a": 1}'
    assert arrays["tokenizer_config.json"].tobytes() == b'{"a": 1}'
    assert arrays["model.embed_tokens.weight"].shape == (400, 16), "8 bits"
    assert arrays["model.layers.0.mlp.up_proj.weight"].shape == (128, 8), "4 bits"


def test_values_that_have_no_codes(tmp, nibble):
    for value in (np.nan, np.inf):
        model = Tiny()
        model.weights["wv", 1][1, 2] = value
        path = model.save(tmp / "m.npz")
        for options in ((), ("--bits", "8"), ("--search",)):
            nibble.refuses("quantize", path, tmp / "q.npz", "-q", *options,
                           says=["NaN or infinite", "nibble verify names it"])
        assert sorted(p.name for p in tmp.iterdir()) == ["m.npz"]


def test_layout_in_the_file(tmp, nibble):
    quantize(nibble, Tiny().save(tmp / "m.npz"), tmp / "q.npz")
    data = (tmp / "q.npz").read_bytes()
    with zipfile.ZipFile(tmp / "q.npz") as z:
        assert z.testzip() is None
        for info in z.infolist():
            assert info.compress_type == zipfile.ZIP_STORED and info.filename.endswith(".npy")
            start = data.index(b"\x93NUMPY", info.header_offset)
            header = int.from_bytes(data[start + 8:start + 10], "little")
            assert (start + 10 + header) % 64 == 0, info.filename


# ---- how good it is

def test_logits_stay_near(tmp, nibble):
    model, ids = Tiny(seed=4), list(range(1, 30))
    path, want = model.save(tmp / "m.npz"), forward(model, ids)
    errors = []
    for bits in WIDTHS:
        quantize(nibble, path, tmp / "q.npz", "--bits", bits, "--group-size", 32)
        nibble("logits", tmp / "q.npz", "--ids", " ".join(map(str, ids)), "-o", tmp / "l.npy")
        errors.append(float(np.abs(np.load(tmp / "l.npy") - want).mean()))
    assert errors == sorted(errors, reverse=True), errors
    assert errors[-1] < 0.02 < errors[0], errors


def test_runs_as_numpy_decodes_it(tmp, nibble):
    """A model of the decoded weights gives the same logits, but for the rounding of activations."""
    model, ids = Tiny(META, seed=5), list(range(1, 30))
    path = model.save(tmp / "m.npz")
    for bits, group in ((4, 64), (3, 32), (8, 64), (6, 32)):
        arrays, _ = quantize(nibble, path, tmp / "q.npz", "--bits", bits, "--group-size", group)
        for key, w in model.weights.items():
            if w.ndim == 2:
                model.weights[key] = unpack(arrays, model.name(key), bits, group)[0]
        for level in (("--level", "scalar"), ()):
            nibble("logits", tmp / "q.npz", "--ids", " ".join(map(str, ids)), "-o", tmp / "l.npy",
                   "--kv-type", "f32", *level)
            difference = np.abs(np.load(tmp / "l.npy") - forward(model, ids)).max()
            assert difference < 0.1, (bits, group, level, difference)
        model = Tiny(META, seed=5)


def test_decoded(tmp, nibble):
    """--bits 32 writes what numpy decodes, and the line and info speak of f32."""
    path = Tiny().save(tmp / "m.npz", "<f2")
    encoded, _ = quantize(nibble, path, tmp / "q.npz", "--bits", 3, "--group-size", 32)
    decoded, line = quantize(nibble, tmp / "q.npz", tmp / "d.npz", "--bits", 32)
    assert "16 matrices in f32, 0 kept as they were" in line and "bits" not in line, line
    for name in [name for name in encoded if encoded[name].dtype == np.uint32]:
        want, got = unpack(encoded, name, 3, 32)[0], decoded[name]
        assert got.dtype == np.float32 and np.abs(got - want).max() <= 1e-6 * np.abs(want).max()
    assert "quantization" not in config_of(decoded) and "affine" in \
        nibble("info", tmp / "q.npz").decode()
    assert "affine" not in nibble("info", tmp / "d.npz").decode()
    for words, says in ((("--bits", 32, "--embed-bits", 8), "8 bits for the embedding alone"),
                        (("--bits", 7), "--bits: '7' is not 2, 3, 4, 5, 6, 8 or 32"),
                        (("--embed-bits", 9), "9 bits: a width"),
                        (("--embed-bits", 33), "from 0 to 32")):
        nibble.refuses("quantize", path, tmp / "x.npz", *words, says=says, code=2)


# ---- what is kept as it was

def test_widths_that_are_no_multiple(tmp, nibble):
    model = Tiny(hidden=96)  # down_proj has 96 columns, in two layers
    arrays, line = quantize(nibble, model.save(tmp / "m.npz", "<f2"), tmp / "q.npz")
    assert "14 matrices" in line and "2 kept" in line, line
    for layer in range(2):
        name = f"model.layers.{layer}.mlp.down_proj"
        assert (arrays[name + ".weight"] == model.arrays("<f2")[name + ".weight"]).all()
        assert name + ".scales" not in arrays
        assert config_of(arrays)["quantization"][name] is False
    info = nibble("info", tmp / "q.npz").decode()
    listed = info.split("kept as they were", 1)[1].split("\n\n")[0]
    assert "model.layers.1.mlp.down_proj [64, 96] f16" in listed and listed.count("\n") == 2, listed
    assert "kept" not in nibble("info", tmp / "m.npz").decode()
    assert len(nibble.json("generate", tmp / "q.npz", "-p", "x", "-n", "3", "--ignore-eos")["ids"])


def test_nothing_to_quantize(tmp, nibble):
    model = Tiny(dim=40, hidden=40, head_dim=10)
    arrays, line = quantize(nibble, model.save(tmp / "m.npz"), tmp / "q.npz")
    assert "0 matrices" in line and "16 kept" in line, line
    assert (arrays["lm_head.weight"] == model.weights["output"]).all()
    assert nibble("generate", tmp / "q.npz", "-p", "x", "-n", "5", "--temp", "0") == \
        nibble("generate", tmp / "m.npz", "-p", "x", "-n", "5", "--temp", "0")


def test_quantizing_again(tmp, nibble):
    model = Tiny(seed=8)
    path = model.save(tmp / "m.npz")
    eight, _ = quantize(nibble, path, tmp / "8.npz", "--bits", "8")
    four, _ = quantize(nibble, tmp / "8.npz", tmp / "4.npz", "--bits", "4", "--group-size", "32")
    assert config_of(four)["quantization"] == {"group_size": 32, "bits": 4}
    for name, want in model.arrays().items():
        if want.ndim == 2:
            middle, _ = unpack(eight, name, 8, 64)
            grouped = [a.reshape(len(a), -1, 32) for a in (*unpack(four, name, 4, 32), middle)]
            got, step, middle = grouped
            assert (np.abs(got - middle) <= allowed(got, middle, step) + 1e-5).all(), name


def test_matrices_of_several_widths(tmp, nibble):
    """As mixed recipes make them: shapes tell, whatever the config says."""
    model = Tiny()
    arrays = model.arrays()
    path = model.save(tmp / "m.npz")
    for part, bits, group in (("mlp.up_proj", 3, 32), ("self_attn.q_proj", 8, 64)):
        some, _ = quantize(nibble, path, tmp / "q.npz", "--bits", bits, "--group-size", group)
        for name in [n for n in some if f"layers.1.{part}" in n]:
            arrays[name] = some[name]
    model.save(tmp / "mixed.npz", arrays=arrays)
    info = nibble("info", tmp / "mixed.npz").decode()
    assert "affine 3 bits, groups of 32" in info and "affine 8 bits, groups of 64" in info
    ids = list(range(20))
    nibble("logits", tmp / "mixed.npz", "--ids", " ".join(map(str, ids)), "-o", tmp / "l.npy")
    assert np.abs(np.load(tmp / "l.npy") - forward(model, ids)).mean() < 0.3


# ---- mixed widths

SENSITIVE = {8: (0, 3, 6, 7), 3: (2,), 16: (0, 1, 4, 7, 10, 13, 14, 15)}  # by number of layers


def test_mixed_widths(tmp, nibble):
    """v_proj and down_proj of MLX's layers, the embedding and the output; by both namings."""
    for names, layers, tied in ((0, 8, False), (META, 3, True), (0, 16, True)):
        model = Tiny(names, layers=layers, tied=tied, vocab=16)
        source = model.save(tmp / "m.npz", tokenizer=None)
        for options, low, high in ((("--mixed",), 4, 6), (("--bits", 2, "--mixed"), 2, 6),
                                   (("--bits", 5, "--mixed"), 5, 8),
                                   (("--bits", 3, "--mixed", "--high-bits", 4), 3, 4)):
            arrays, line = quantize(nibble, source, tmp / "q.npz", "--group-size", 32, *options)
            assert f"{low} or {high} bits" in line, line
            said = config_of(arrays)["quantization"]
            for key, w in model.weights.items():
                if w.ndim == 1:
                    continue
                sensitive = key in ("embed", "output") or (
                    key[0] in ("wv", "down") and key[1] in SENSITIVE[layers])
                check_array(arrays, model.name(key), w, high if sensitive else low, 32)
                module = model.name(key).removesuffix(".weight")
                assert said.get(module) == ({"group_size": 32, "bits": high} if sensitive else None)
            assert said["bits"] == low


def test_mixed_and_the_embedding(tmp, nibble):
    """--embed-bits goes before; an output that is not tied is no embedding."""
    model = Tiny(vocab=16)
    source = model.save(tmp / "m.npz", tokenizer=None)
    arrays, _ = quantize(nibble, source, tmp / "q.npz", "--mixed", "--embed-bits", 3)
    check_array(arrays, "model.embed_tokens.weight", model.weights["embed"], 3, 64)
    check_array(arrays, "lm_head.weight", model.weights["output"], 6, 64)


def test_mixed_is_nearer(tmp, nibble):
    model, ids = Tiny(META, seed=4, layers=4), list(range(1, 30))
    path, want, errors = model.save(tmp / "m.npz"), forward(model, ids), []
    for options in ((), ("--mixed",), ("--bits", 6)):
        quantize(nibble, path, tmp / "q.npz", "--bits", 2, "--group-size", 32, *options)
        nibble("logits", tmp / "q.npz", "--ids", " ".join(map(str, ids)), "-o", tmp / "l.npy")
        errors.append(float(np.abs(np.load(tmp / "l.npy") - want).mean()))
    assert errors == sorted(errors, reverse=True), errors


def test_wrong_mixed_widths(tmp, nibble):
    path = Tiny().save(tmp / "m.npz")
    for options, says in ((("--bits", "8", "--mixed"), "more than the 8"),
                          (("--mixed", "--high-bits", "4"), "more than the 4"),
                          (("--mixed", "--high-bits", "7"), "7 bits")):
        err = nibble.refuses("quantize", path, tmp / "q.npz", *options, says=says, code=2)
        assert "sensitive matrices" in err
    nibble.refuses("quantize", path, tmp / "q.npz", "--high-bits", "6", says="--mixed", code=2)
    assert not (tmp / "q.npz").exists()


# ---- the same bytes

def test_same_bytes(tmp, nibble):
    source = Tiny(dim=128, hidden=256, layers=3).save(tmp / "m.npz", "<f2")
    outs = []
    for i, options in enumerate(((), (), ("-t", "1"), ("-t", "2"), ("-t", "5"))):
        quantize(nibble, source, tmp / f"{i}.npz", *options)
        outs.append((tmp / f"{i}.npz").read_bytes())
        os.utime(source, (1, 1))
    assert all(out == outs[0] for out in outs)


def test_over_itself(tmp, nibble):
    model = Tiny()
    first, _ = quantize(nibble, model.save(tmp / "m.npz"), tmp / "q.npz")
    before = (tmp / "m.npz").read_bytes()
    (tmp / "same.npz").symlink_to(tmp / "m.npz")
    for out in ("m.npz", "same.npz"):
        nibble.refuses("quantize", tmp / "m.npz", tmp / out, code=2, says="would replace the model")
    assert (tmp / "m.npz").read_bytes() == before and first
    folder = model.save_folder(tmp / "f")
    (tmp / "link.npz").symlink_to(tmp / "q.npz")
    quantize(nibble, folder, tmp / "link.npz")
    assert (tmp / "link.npz").is_symlink()


# ---- runs that fail

def test_unwritable_output(tmp, nibble):
    (tmp / "file").write_text("")
    (tmp / "dir.npz").mkdir()
    for out, says in ((tmp / "no" / "x.npz", "No such"), (tmp / "dir.npz", "not a regular file"),
                      (tmp / "file" / "x.npz", "Not a directory"), ("/dev/null", "not a regular"),
                      ("/proc/x.npz", "/proc/x.npz"), ("", "written")):
        nibble.refuses("quantize", FAIRYTALE, out, says=says)
    assert sorted(p.name for p in tmp.iterdir()) == ["dir.npz", "file"]


def test_full_disk(tmp, nibble):
    """A file size limit stands for a disk that fills up half way."""
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
    (tmp / "x.npz").write_text("old")
    nibble.refuses("quantize", FAIRYTALE, tmp / "x.npz", says="x.npz cannot be written",
                   preexec_fn=limit)
    assert [p.name for p in tmp.iterdir()] == ["x.npz"] and (tmp / "x.npz").read_text() == "old"
    nibble.refuses("logits", FAIRYTALE, "--ids", "1 " * 100, "-o", tmp / "y.npy",
                   says="y.npy cannot be written", preexec_fn=limit)
    assert [p.name for p in tmp.iterdir()] == ["x.npz"]


def test_broken_input_leaves_nothing(tmp, nibble):
    model = Tiny()
    arrays = model.arrays()
    del arrays["model.norm.weight"]
    save_npz(tmp / "m.npz", arrays, model.config)
    nibble.refuses("quantize", tmp / "m.npz", tmp / "q.npz", says="model.norm.weight")
    nibble.refuses("quantize", tmp / "absent.npz", tmp / "q.npz", says="absent.npz")
    assert [p.name for p in tmp.iterdir()] == ["m.npz"]


def test_quiet_and_the_closing_line(tmp, nibble):
    source = Tiny().save(tmp / "m.npz")
    _, line = quantize(nibble, source, tmp / "q.npz", "--bits", "5", "--group-size", "32")
    assert line.count("\n") == 1 and str(tmp / "q.npz") in line and "5 bits" in line, line
    assert "16 matrices" in line and "0 kept" in line and "MB" in line, line
    assert nibble("quantize", source, tmp / "q.npz", "--quiet") == b""


if __name__ == "__main__":
    sys.exit(main(globals()))
