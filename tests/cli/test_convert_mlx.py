#!/usr/bin/python3
"""scripts/convert.py on MLX's folders: .npz as MLX and numpy write it, early and late safetensors,
quantized weights, and files that are damaged or hostile.

    tests/cli/test_convert_mlx.py [--build DIR] [WORD...]   some tests need DIR/nibble
"""
import json
import os
import struct
import sys
import zipfile

import numpy as np

from harness import TOKENIZER, main
from hf_models import check_refused, config_of, convert, run, write_safetensors
from models import HF, META, Tiny, save_npz

TYPES = {"<f4": "F32", "<f2": "F16", "|V2": "BF16", "<u4": "U32"}


# ---- making folders

def npy(array, change=lambda text: text):
    """As MLX writes it: vectors are said to be in Fortran's order, a shape ends in a comma and a
    space, data begin at an even byte."""
    descr = "<V2" if array.dtype == "V2" else array.dtype.str
    text = "{{'descr': '{}', 'fortran_order': {}, 'shape': ({}), }}".format(
        descr, array.size == max(array.shape, default=1), "".join(f"{n}, " for n in array.shape))
    text = change(text + " " * (len(text) % 16 + len(text) % 2) + "\n").encode("latin-1")
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + array.tobytes()


def write_npz(path, arrays, method=zipfile.ZIP_STORED, make=npy):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                member.write(make(array))


def folder_of(path, config, config_name="config.json"):
    path.mkdir()
    (path / config_name).write_text(json.dumps(config))
    (path / "tokenizer.model").write_bytes(TOKENIZER.read_bytes())
    return path


def parts(arrays, count):
    return [{name: arrays[name] for name in list(arrays)[i::count]} for i in range(count)]


def as_tensors(arrays):
    return {name: (TYPES[a.dtype.str], list(a.shape), a.tobytes()) for name, a in arrays.items()}


def bf16(array):
    return (array.view("<u4") >> 16).astype("<u2").view("V2")


def quantized(nibble, tmp, model, bits):
    """(arrays, config) as MLX quantizes, which nibble quantize does too."""
    source = model.save(tmp / "plain.npz", "<f2")
    words = ("quantize", source, tmp / "q.npz", "--bits", bits, "--embed-bits", 8)
    assert nibble.run(*words).code == 0
    with np.load(tmp / "q.npz") as npz:
        arrays = {name: npz[name] for name in npz.files}
    config = json.loads(arrays.pop("config.json").tobytes())
    del arrays["tokenizer.model"], arrays["reference.json"]
    return arrays, config


def check(folder, arrays, form, nibble=None):
    """All of it, as it is; nibble says the same of both."""
    got, stderr = convert(folder)
    assert got.pop("tokenizer.model").tobytes() == TOKENIZER.read_bytes()
    assert json.loads(got["config.json"].tobytes())["nibble"]["source"] == {
        "format": form, "name": folder.name}
    config = config_of(got)
    del got["config.json"]
    assert got.keys() == arrays.keys() and "note" not in stderr
    for name, array in arrays.items():
        assert got[name].dtype == array.dtype and got[name].shape == array.shape, name
        assert got[name].tobytes() == array.tobytes(), name
    if nibble:
        same_logits(nibble, folder)
    return config


def same_logits(nibble, folder):
    results = []
    for path in (folder, folder.parent / f"{folder.name}.npz"):
        nibble("logits", path, "--ids", "1 5 9 40 300 7", "-o", folder.parent / "l.npy")
        results.append(np.load(folder.parent / "l.npy"))
    assert np.array_equal(*results) and results[0].std() > 0.1


# ---- .npz

def test_one_file(tmp, nibble):
    for names in (META, HF):
        model = Tiny(names)
        for narrow in (lambda a: a, lambda a: a.astype("<f2"), bf16):
            arrays = {name: narrow(a) for name, a in model.arrays().items()}
            folder = folder_of(tmp / f"m{len(list(tmp.iterdir()))}", model.config)
            write_npz(folder / "weights.npz", arrays)
            config = check(folder, arrays, "npz", nibble)
            assert config["hidden_size"] == 64 and config["num_hidden_layers"] == 2


def test_shards(tmp, nibble):
    model, count = Tiny(META), 0
    for form in ("weights.{:02}.npz", "weights.{}.npz"):
        for shards in (1, 3, 11):
            count += 1
            folder = folder_of(tmp / f"m{count}", model.config)
            for i, part in enumerate(parts(model.arrays(), shards)):
                write_npz(folder / form.format(i), part)
            check(folder, model.arrays(), "npz", nibble)


def test_written_by_numpy(tmp, nibble):
    model = Tiny(META)
    for i, save in enumerate((np.savez, np.savez_compressed)):
        folder = folder_of(tmp / f"m{i}", model.config)
        save(folder / "weights.npz", **model.arrays("<f2"))
        check(folder, model.arrays("<f2"), "npz", None if i else nibble)  # it notes compression


def test_other_configs(tmp, nibble):
    """Of December 2023: params.json alone, and no word of the family."""
    model = Tiny(META)
    params = {key: value for key, value in model.config.items() if key != "model_type"}
    for i, name in enumerate(("params.json", "config.json")):
        folder = folder_of(tmp / f"m{i}", params, name)
        write_npz(folder / "weights.npz", model.arrays())
        config = check(folder, model.arrays(), "npz", nibble)
        assert config["model_type"] == "llama" and config["num_attention_heads"] == 4
    model.config["rope_traditional"] = False  # as of TinyLlama, whose rows lie the other way
    folder = folder_of(tmp / "other", model.config)
    write_npz(folder / "weights.npz", model.arrays())
    assert check(folder, model.arrays(), "npz", nibble)["rope_traditional"] is False


def test_quantized(tmp, nibble):
    for names in (META, HF):
        for bits in (4, 3):
            model = Tiny(names)
            arrays, config = quantized(nibble, tmp, model, bits)
            folder = folder_of(tmp / f"m{len(list(tmp.iterdir()))}",
                               {**config, "quantization_config": config["quantization"]})
            write_npz(folder / "weights.npz", arrays)
            got = check(folder, arrays, "npz", nibble)
            assert got["quantization"]["bits"] == bits and "quantization_config" not in got
            kept, _ = convert(folder, "--dtype", "f32")
            for name, array in arrays.items():
                if name.endswith((".scales", ".biases")) or array.dtype == "<u4":
                    assert kept[name].dtype == array.dtype, name
            check_refused(folder, "quantized already", "--bits", "4", "--nibble", nibble)


def test_types(tmp):
    folder = folder_of(tmp / "m", Tiny(META).config)
    arrays = Tiny(META).arrays()
    write_npz(folder / "weights.npz", arrays)
    for dtype, kind in (("f16", "<f2"), ("f32", "<f4")):
        got, _ = convert(folder, "--dtype", dtype)
        assert all((got[name] == a.astype(kind)).all() for name, a in arrays.items())


def test_it_goes_first(tmp):
    """As nibble takes them, where a folder has more than one kind of weights."""
    arrays = Tiny(META).arrays()
    folder = folder_of(tmp / "m", Tiny(META).config)
    write_npz(folder / "weights.00.npz", arrays)
    for name in ("model.safetensors", "pytorch_model.bin", "consolidated.00.pth"):
        (folder / name).write_bytes(b"no matter")
    check(folder, arrays, "npz")


# ---- safetensors

def test_late_safetensors(tmp, nibble):
    """mlx-lm: Hugging Face's names, quantized, the whole in one file or with an index."""
    arrays, config = quantized(nibble, tmp, Tiny(), 4)
    folder = folder_of(tmp / "m", config)
    write_safetensors(folder / "model.safetensors", as_tensors(arrays))
    check(folder, arrays, "safetensors", nibble)


def test_early_safetensors(tmp, nibble):
    arrays, config = quantized(nibble, tmp, Tiny(), 4)
    for i, form in enumerate(("weights.{:02}.safetensors", "weights.safetensors")):
        folder = folder_of(tmp / f"m{i}", config)
        for k, part in enumerate(parts(arrays, 2 - i)):
            write_safetensors(folder / form.format(k), as_tensors(part))
        check(folder, arrays, "safetensors", nibble)


# ---- refusals

def one(tmp, data=None, name="weights.npz"):
    """A folder with these bytes, or those of a model."""
    folder = tmp / f"m{len(list(tmp.iterdir()))}"
    folder_of(folder, Tiny(META).config)
    if data is None:
        write_npz(folder / name, Tiny(META).arrays())
    else:
        (folder / name).write_bytes(data)
    return folder


def test_wrong_shards(tmp):
    for names, words in ((("weights.1.npz",), "not weights.0.npz"),
                         (("weights.00.npz", "weights.02.npz"), "not weights.1.npz"),
                         (("weights.0.npz", "weights.00.npz"), "weights.0.npz and weights.00.npz"),
                         (("weights.npz", "weights.00.npz"), "weights.npz and shards of it"),
                         (("weights.00.npz", "weights.01.npz"), "both hold tensor")):
        folder = one(tmp, name=names[0])
        for name in names[1:]:
            write_npz(folder / name, Tiny(META).arrays())
        check_refused(folder, words)


def test_cut_and_damaged(tmp):
    whole = (one(tmp) / "weights.npz").read_bytes()
    for size in (0, 1, 21, 22, 1000, len(whole) // 2, len(whole) - 23, len(whole) - 1):
        check_refused(one(tmp, whole[:size]), "not an .npz")
    at = whole.index(b"tok_embeddings.weight.npy") + 10000
    damaged = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1:]
    check_refused(one(tmp, damaged), "tok_embeddings.weight.npy is damaged (Bad CRC-32")
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):  # which nibble does not read, but this may
        folder = one(tmp)
        write_npz(folder / "weights.npz", Tiny(META).arrays(), method)
        convert(folder)


def test_any_byte_changed(tmp):
    """No traceback, whatever the directory and the headers say."""
    whole = bytearray((one(tmp) / "weights.npz").read_bytes())
    rng, folder = np.random.default_rng(5), one(tmp)
    spots = [*range(60), *range(len(whole) - 3000, len(whole))]
    for at in rng.choice(spots, 120, replace=False):
        changed = whole.copy()
        changed[at] ^= int(rng.integers(1, 256))
        (folder / "weights.npz").write_bytes(changed)
        result = run(folder, "-o", tmp / "x.npz")
        assert result.returncode in (0, 1) and "Traceback" not in result.stderr, result.stderr


def test_hostile_headers(tmp):
    array = np.ones((4, 6), "<f4")
    rows = [("4 bytes where", lambda text: text.replace("(4, 6, )", "()")),
            ("96 bytes where its shape takes 192", lambda text: text.replace("4, 6", "8, 6")),
            ("its shape takes", lambda text: text.replace("(4, 6, )", "(9223372036854775807, )")),
            ("its shape takes", lambda text: text.replace("(4, ", "(1, 1, 1, 1, 1, 1, 1, 4, ")),
            ("Fortran order", lambda text: text.replace("False", "True"))]
    rows += [("is of no weight", lambda text, a=a, b=b: text.replace(a, b)) for a, b in (
        ("<f4", ">f4"), ("<f4", "|O4"), ("<f4", "<f3"), ("(4, 6, )", "(-4, -6)"),
        ("(4, 6, )", "24"), ("'descr': '<f4'", "'descr': [('a', '<f4')]"), ("False", "0"),
        ("}", ""), ("(4", "(99" * 99))]
    for words, change in rows:
        words = words.replace("4 bytes where", "96 bytes where its shape takes 4")
        folder = one(tmp)
        write_npz(folder / "weights.npz", {"a": array}, make=lambda a, c=change: npy(a, c))
        check_refused(folder, words)


def test_hostile_members(tmp):
    plain = npy(np.ones(2, "<f4"))
    for words, name, data in (("no array", "a", b"\x93NUMPX" + plain[6:]),
                              ("no array", "a", b"x" * 99), ("ends too early", "a", plain[:20]),
                              ("ends too early", "a", b""),
                              ("header of 65535 bytes", "a", plain[:8] + b"\xff\xff" + plain[10:]),
                              ("no array", "a", plain[:6] + b"\x03" + plain[7:]),
                              ("a name that no weight has", "../a", plain),
                              ("a name that no weight has", "a b", plain),
                              ("the name of a file", "config.json", npy(np.ones(2, "u1")))):
        folder = one(tmp)
        write_npz(folder / "weights.npz", {name: None}, make=lambda _, data=data: data)
        check_refused(folder, words)
    folder = one(tmp)
    with zipfile.ZipFile(folder / "weights.npz", "w") as archive:
        archive.writestr("readme.txt", "no array")
    check_refused(folder, "holds no arrays")
    os.remove(folder / "weights.npz")
    os.mkfifo(folder / "weights.npz")
    check_refused(folder, "not a regular file")


def test_names_twice(tmp):
    folder = one(tmp)
    with zipfile.ZipFile(folder / "weights.npz", "w") as archive:
        for name in ("a.npy", "b.npy"):
            archive.writestr(name, npy(np.ones(2, "<f4")))
    data = (folder / "weights.npz").read_bytes().replace(b"b.npy", b"a.npy")
    (folder / "weights.npz").write_bytes(data)
    check_refused(folder, "holds a twice")


def test_a_file_of_nibble(tmp):
    """Which needs no converting."""
    check_refused(save_npz(tmp / "m.npz", Tiny().arrays(), Tiny().config), "is an .npz already")


if __name__ == "__main__":
    sys.exit(main(globals()))
