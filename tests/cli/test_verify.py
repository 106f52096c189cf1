#!/usr/bin/python3
"""nibble verify: what is damaged or wrong is noticed, what is sound passes; references."""
import io
import json
import os
import pty
import resource
import shutil
import subprocess
import sys
import zipfile

import numpy as np

from harness import FAIRYTALE, main
from hf_models import tensor, write_safetensors
from models import META, Tiny, forward, save_npz

STEPS = ["checksums", "tensors", "tokenizer", "numbers", "reference"]


def steps(text):
    """What follows each name."""
    found = dict(line.split(None, 1) for line in text.splitlines())
    assert list(found) == STEPS[:len(found)], text
    return found


def passes(nibble, path, *words):
    found = steps(nibble("verify", path, *words).decode())
    assert list(found) == STEPS, found
    return found


def fails(nibble, path, says, *words, passed=0):
    """After so many steps that are passed, in one sentence and perhaps a list."""
    result = nibble.run("verify", path, *words)
    first, *rest = result.err.splitlines() or [""]
    assert result.code == 1 and first.startswith("nibble: ") and first.isprintable(), result
    assert all(line.startswith("  ") for line in rest), result
    assert len(steps(result.out.decode())) == passed, result
    for word in [says] if isinstance(says, str) else says:
        assert word in result.err, f"'{word}' is not in {result}"
    return result.err


def flip(path, member, at, bit=1):
    """One bit of a stored member's data, counted from its end."""
    with zipfile.ZipFile(path) as z:
        info = z.getinfo(member)
        name = info.filename.encode()
    data = bytearray(path.read_bytes())
    start = data.index(name, info.header_offset) + len(name)
    extra = int.from_bytes(data[info.header_offset + 28:info.header_offset + 30], "little")
    data[start + extra + info.file_size - at] ^= bit
    path.write_bytes(data)


def save_safetensors(folder, model, arrays=None):
    folder.mkdir()
    tensors = {name: tensor("F32", *a.shape, data=a)
               for name, a in (arrays or model.arrays()).items()}
    write_safetensors(folder / "model.safetensors", tensors)
    (folder / "config.json").write_text(json.dumps(model.config))
    return folder


# ---- what is sound

def test_sound_models(tmp, nibble):
    model = Tiny()
    single = model.save(tmp / "m.npz")
    found = passes(nibble, single)
    count = len(model.weights)
    assert found["checksums"].startswith(f"{count + 2} members, "), "config and tokenizer too"
    assert found["tensors"].startswith(f"{count}, all that the family llama")
    assert found["tokenizer"] == "400 pieces for a vocabulary of 400"
    values = sum(w.size for w in model.weights.values())
    assert found["numbers"] == f"{values / 1e6:.2f} M, all finite"
    assert found["reference"].startswith("none")
    found = passes(nibble, model.save_folder(tmp / "folder", "<f2", tokenizer=None))
    assert found["tokenizer"] == "none" and found["checksums"].startswith(f"{count} members")
    found = passes(nibble, save_safetensors(tmp / "hf", model))
    assert found["checksums"].startswith("none")
    packed = save_npz(tmp / "z.npz", model.arrays(), model.config, save=np.savez_compressed)
    result = nibble.run("verify", packed)
    assert result.code == 0 and "compressed" in result.err, result
    assert steps(result.out.decode())["checksums"].startswith(f"{count + 1} members")
    passes(nibble, FAIRYTALE)


def test_json(tmp, nibble):
    path = Tiny().save(tmp / "m.npz")
    got = nibble.json("verify", path)
    assert got["model"] == str(path) and got["family"] == "llama" and got["reference"] is None
    assert got["tensors"] == len(Tiny().weights) and got["pieces"] == got["vocabulary"] == 400
    with zipfile.ZipFile(path) as z:
        assert got["checksums"] == {"members": len(z.infolist()),
                                    "bytes": sum(info.file_size for info in z.infolist())}
    nibble("verify", path, "--write-reference")
    reference = nibble.json("verify", path)["reference"]
    assert reference["tokens"] == 16 and 0 <= reference["difference"] <= reference["bound"]
    got = nibble.json("verify", save_safetensors(tmp / "hf", Tiny()))
    assert got["checksums"] is None and got["pieces"] is None


# ---- what is damaged

def test_flipped_bits(tmp, nibble):
    """In weights, where nothing else would notice it; all members are named."""
    model = Tiny()
    path = model.save(tmp / "m.npz", "<f2")
    names = [model.name(("wq", 1)), model.name("norm")]
    for name in names:
        flip(path, name + ".npy", at=20)
    err = fails(nibble, path, ["m.npz: members are damaged", "copy the file again"])
    assert [line.split(":")[0].strip() for line in err.splitlines()[1:]] == sorted(
        (name + ".npy" for name in names), key=lambda n: list(model.arrays()).index(n[:-4])), err
    nibble("generate", path, "-p", "x", "-n", "1")  # it runs all the same
    assert nibble.run("verify", path, "--json").out == b"", "no half an object"


def test_flipped_bits_in_shards_and_files(tmp, nibble):
    model = Tiny()
    folder = model.save_folder(tmp / "m")
    (folder / "weights.npz").unlink()
    for i, (name, a) in enumerate(model.arrays().items()):
        np.savez(folder / f"weights.{i}.npz", **{name: a})
    name = model.name(("up", 0))
    i = list(model.arrays()).index(name)
    flip(folder / f"weights.{i}.npz", name + ".npy", at=1)
    fails(nibble, folder, [f"weights.{i}.npz", name])
    single = model.save(tmp / "m.npz")
    text = json.dumps(model.config)
    flip(single, "config.json.npy", at=len(text) - text.index("model_type"))
    fails(nibble, single, "config.json")


def test_numbers_that_are_none(tmp, nibble):
    model = Tiny()
    for key, at, value, words in (
            ("norm", 3, np.nan, "model.norm: 1 of 64 values"),
            (("ffn_norm", 1), 0, np.inf, "post_attention_layernorm: 1 of 64 values"),
            (("down", 0), (5, 7), -np.inf, "down_proj: 1 of 8192 values, the first in row 5"),
            ("embed", (slice(399, 400), slice(0, 4)), np.nan,
             "embed_tokens: 4 of 25600 values, the first in row 399")):
        arrays = {name: a.copy() for name, a in model.arrays().items()}
        arrays[model.name(key)][at] = value
        path = model.save(tmp / "m.npz", arrays=arrays)
        fails(nibble, path, ["NaN or infinite", words], passed=3)
    arrays = {name: np.full_like(a, np.nan) for name, a in model.arrays().items()}
    err = fails(nibble, model.save(tmp / "m.npz", arrays=arrays), "and 1 more", passed=3)
    assert err.count("\n") == 1 + 20 + 1, err
    folder = save_safetensors(tmp / "hf", model, arrays)
    fails(nibble, folder, "NaN", passed=3)


def test_scales_that_are_none(tmp, nibble):
    model = Tiny()
    nibble("quantize", model.save(tmp / "m.npz", "<f2"), tmp / "q.npz", "-q")
    arrays = dict(np.load(tmp / "q.npz"))
    del arrays["reference.json"]
    name = "model.layers.1.self_attn.k_proj"
    for part in ("scales", "biases"):
        changed = {key: a.copy() for key, a in arrays.items()}
        changed[f"{name}.{part}"][9, 0] = np.nan
        np.savez(tmp / "n.npz", **changed)
        fails(nibble, tmp / "n.npz", f"{name}: 64 of 2048 values, the first in row 9", passed=3)
    np.savez(tmp / "n.npz", **arrays)
    passes(nibble, tmp / "n.npz")


def test_tensors_and_tokenizer(tmp, nibble):
    model = Tiny()
    arrays = model.arrays()
    del arrays[model.name(("wo", 0))]
    fails(nibble, model.save(tmp / "m.npz", arrays=arrays), ["missing", "o_proj"], passed=1)
    small = Tiny(vocab=300)
    fails(nibble, small.save(tmp / "m.npz"), "400 pieces", passed=1)
    padded = Tiny(vocab=417).save(tmp / "m.npz")
    assert passes(nibble, padded)["tokenizer"] == "400 pieces for a vocabulary of 417"
    fails(nibble, tmp / "absent.npz", "No such file")
    nibble.refuses("verify", code=2, says="MODEL")


# ---- the reference

def reference_of(path):
    if path.is_dir():
        return json.loads((path / "reference.json").read_text())
    with np.load(path) as arrays:
        return json.loads(arrays["reference.json"].tobytes())


def test_what_a_reference_says(tmp, nibble):
    """Numpy's own logits."""
    model = Tiny(META)
    path = model.save(tmp / "m.npz", tokenizer=None)
    text = nibble("verify", path, "--print-reference").decode()
    reference = json.loads(text)
    assert text.count("\n") == 1 and reference["nibble_reference"] == 1
    ids, top = reference["ids"], reference["top"]
    assert len(ids) == 16 and len(set(ids)) > 10 and all(0 <= id < 400 for id in ids)
    logits = forward(model, ids)[-1]
    assert [t["id"] for t in top] == np.argsort(-logits)[:10].tolist()
    assert np.abs(logits[[t["id"] for t in top]] - [t["logit"] for t in top]).max() < 1e-4
    assert abs(reference["deviation"] - logits.std()) < 1e-4
    assert "reference.json" not in np.load(path).files, "it is only printed"
    assert len(json.loads(nibble("verify", Tiny(context=5).save(tmp / "5.npz"),
                                 "--print-reference"))["ids"]) == 5


def test_writing_and_checking(tmp, nibble):
    model = Tiny()
    places = (model.save(tmp / "m.npz"), model.save_folder(tmp / "m"),
              save_safetensors(tmp / "hf", model))
    for path in places:
        printed = nibble("verify", path, "--print-reference")
        before = {f: f.read_bytes() for f in path.iterdir()} if path.is_dir() else {}
        assert nibble("verify", path, "--write-reference").decode().splitlines()[-1].split() == [
            "reference", "written"]
        assert reference_of(path) == json.loads(printed)
        assert all(f.read_bytes() == data for f, data in before.items())
        assert passes(nibble, path)["reference"].startswith("16 tokens: logits differ by at most")
        for level in ("scalar", "avx2"):
            if level in nibble("info").decode().split("levels:")[-1].split("(")[0].split():
                passes(nibble, path, "--level", level)
        nibble("generate", path, "--ids", "1 2", "-n", "2")
    file = tmp / "hf" / "model.safetensors"
    assert passes(nibble, file)["reference"].startswith("16 tokens")


def test_an_archive_is_added_to_in_place(tmp, nibble):
    """What is there stays as it is, also when a reference is replaced; numpy and unzip read it."""
    for save in (np.savez, np.savez_compressed):
        model = Tiny()
        path = save_npz(tmp / "m.npz", model.arrays(), model.config, save=save)
        before, inode = path.read_bytes(), path.stat().st_ino
        sizes = []
        for _ in range(3):
            assert nibble.run("verify", path, "--write-reference").code == 0
            data = path.read_bytes()
            front = before.rindex(b"PK\x01\x02", 0, before.index(b"PK\x01\x02") + 4)
            assert data[:front] == before[:front] and path.stat().st_ino == inode
            sizes.append(len(data))
            with zipfile.ZipFile(path) as z:
                assert z.testzip() is None and z.namelist().count("reference.json.npy") == 1
                info = z.getinfo("reference.json.npy")
                assert info.compress_type == zipfile.ZIP_STORED
                data_at = data.index(b'{"nibble_reference"', info.header_offset)
                assert data_at % 64 == 0, data_at
            with np.load(path) as arrays:
                assert set(arrays.files) == {*model.arrays(), "config.json", "reference.json"}
        assert len(set(sizes)) == 1, sizes
    assert sorted(f.name for f in tmp.iterdir()) == ["m.npz"]


def test_a_reference_inside_as_a_plain_member(tmp, nibble):
    """As any zip program adds it."""
    path = Tiny().save(tmp / "m.npz")
    text = nibble("verify", path, "--print-reference")
    with zipfile.ZipFile(path, "a") as z:
        z.writestr("reference.json", text)
    assert passes(nibble, path)["reference"].startswith("16 tokens")
    nibble("verify", path, "--write-reference")
    with zipfile.ZipFile(path) as z:
        assert [n for n in z.namelist() if "reference" in n] == ["reference.json.npy"]
    assert passes(nibble, path)["reference"].startswith("16 tokens")


def test_a_reference_of_another_model(tmp, nibble):
    folder = Tiny().save_folder(tmp / "m")
    nibble("verify", folder, "--write-reference")
    other = Tiny(seed=2).save_folder(tmp / "n")
    shutil.copy(folder / "reference.json", other)
    fails(nibble, other, ["does not answer as its reference.json says", "convert"], passed=4)
    fails(nibble, other, "reference.json", "--level", "scalar", passed=4)
    good = json.loads((folder / "reference.json").read_text())
    for change, token in (({"top": good["top"][1:]}, good["top"][0]),
                          ({"top": good["top"][:4] + good["top"][5:]}, good["top"][4])):
        (folder / "reference.json").write_text(json.dumps({**good, **change}))
        fails(nibble, folder, f"logit of token {token['id']} differs", passed=4)
    got = nibble.run("verify", other, "--json")
    assert got.code == 1 and not got.out


def test_what_a_reference_notices(tmp, nibble):
    """Mistakes of a converter whose file is sound by itself: each changes little and is noticed."""
    model = Tiny(names=META)
    reference = nibble("verify", model.save(tmp / "m.npz"), "--print-reference")
    arrays = model.arrays()
    swapped = {**arrays, model.name(("gate", 1)): arrays[model.name(("up", 1))],
               model.name(("up", 1)): arrays[model.name(("gate", 1))]}
    off = {**arrays, model.name("norm"): arrays[model.name("norm")] * np.float32(1.01)}
    one = {name: a.copy() for name, a in arrays.items()}
    one[model.name(("wo", 0))][3, 4] += 0.5
    changes = [({**model.config, "rope_theta": 20000.0}, arrays),
               ({**model.config, "norm_eps": 1e-2}, arrays),
               ({**model.config, "rope_traditional": False}, arrays),
               ({**model.config, "n_kv_heads": 2, "n_heads": 4}, swapped),
               (model.config, off), (model.config, one)]
    for i, (config, changed) in enumerate(changes):
        path = model.save(tmp / "n.npz", arrays=changed, config=config)
        with zipfile.ZipFile(path, "a") as z:
            z.writestr("reference.json", reference)
        fails(nibble, path, "reference.json", passed=4)


def test_quantizing_stores_a_reference(tmp, nibble):
    """Of the quantized weights, and one that was there is not carried over."""
    model = Tiny()
    path = model.save(tmp / "m.npz")
    nibble("verify", path, "--write-reference")
    for bits in ("2", "4", "8"):
        nibble("quantize", path, tmp / "q.npz", "--bits", bits, "-q")
        own = nibble("verify", tmp / "q.npz", "--print-reference")
        assert reference_of(tmp / "q.npz") == json.loads(own) != reference_of(path), bits
        assert passes(nibble, tmp / "q.npz", "--level", "scalar")["reference"].startswith("16 tok")
        assert sorted(f.name for f in tmp.iterdir()) == ["m.npz", "q.npz"]
    assert nibble.run("verify", tmp / "q.npz", "--level", "scalar", "-t", "3").code == 0
    arrays = model.arrays()
    arrays[model.name("norm")] = np.full_like(arrays[model.name("norm")], np.nan)
    bad = model.save(tmp / "bad.npz", arrays=arrays)
    nibble("quantize", bad, tmp / "q.npz", "-q")
    assert "reference.json" not in np.load(tmp / "q.npz").files, "there is no answer to keep"


def test_broken_references(tmp, nibble):
    folder = Tiny().save_folder(tmp / "m")
    good = json.loads(nibble("verify", folder, "--print-reference"))
    first = {"id": 1, "logit": 2.0}
    for change, says in (({"ids": [400]}, "400 lies outside"), ({"ids": [-1]}, "ids"),
                         ({"ids": []}, "lacks"), ({"ids": None}, "lacks"), ({"top": []}, "lacks"),
                         ({"ids": list(range(100))}, "over 64 ids"), ({"ids": "x"}, "ids"),
                         ({"top": [{**first, "id": 400}]}, "top.0.id"),
                         ({"top": [first, {**first, "logit": "x"}]}, "top.1.logit"),
                         ({"top": [{**first, "logit": 1e300}]}, "top.0.logit"),
                         ({"deviation": 0}, "deviation"), ({"deviation": None}, "lacks"),
                         ({"nibble_reference": 2}, "nibble_reference is 2")):
        (folder / "reference.json").write_text(json.dumps({**good, **change}))
        fails(nibble, folder, ["reference.json", says], passed=4)
    (folder / "reference.json").write_text("{")
    fails(nibble, folder, "not valid JSON", passed=4)
    (folder / "reference.json").write_text('{"of": "something else"}')
    assert passes(nibble, folder)["reference"].startswith("none")
    long = {**good, "top": [first] * 100}
    (folder / "reference.json").write_text(json.dumps(long))
    fails(nibble, folder, "does not answer", passed=4)


def test_writing_fails(tmp, nibble):
    """Nothing is written if a check fails, and what cannot be written is said."""
    model = Tiny()
    path = model.save(tmp / "m.npz")
    flip(path, model.name("norm") + ".npy", at=1)
    before = path.read_bytes()
    fails(nibble, path, "damaged", "--write-reference")
    assert path.read_bytes() == before
    nibble.refuses("verify", path, "--write-reference", "--json", code=2, says="--json")
    arrays = {name: np.full_like(a, np.nan) for name, a in model.arrays().items()}
    nibble.refuses("verify", model.save(tmp / "n.npz", arrays=arrays), "--print-reference",
                   says="not a number")
    arrays = {name: a * 0 for name, a in model.arrays().items()}
    zeros = model.save(tmp / "n.npz", arrays=arrays)
    nibble.refuses("verify", zeros, "--print-reference", says="all logits are equal")
    nibble("quantize", zeros, tmp / "q.npz", "-q")
    passes(nibble, tmp / "q.npz")
    path = model.save(tmp / "m.npz")
    before = path.read_bytes()
    limit = (len(before), len(before))  # as if the disk were full
    result = nibble.run("verify", path, "--write-reference", preexec_fn=lambda: resource.setrlimit(
        resource.RLIMIT_FSIZE, limit))
    assert result.code == 1 and "m.npz cannot be added to: File too large" in result.err, result
    assert path.read_bytes() == before and passes(nibble, path)
    with zipfile.ZipFile(path) as z:  # the reference before all else: the rest would have to move
        members = {name: z.read(name) for name in z.namelist()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as z:
        for name, data in {"reference.json": b"{}", **members}.items():
            z.writestr(name, data)
    path.write_bytes(buffer.getvalue())
    err = fails(nibble, path, "cannot be added to", "--write-reference", passed=4)
    assert path.read_bytes() == buffer.getvalue(), err


def test_progress_on_a_terminal_only(tmp, nibble):
    main_end, end = pty.openpty()
    p = subprocess.run([nibble.path, "verify", FAIRYTALE], stdout=subprocess.PIPE, stderr=end)
    os.close(end)
    assert p.returncode == 0 and list(steps(p.stdout.decode())) == STEPS
    os.close(main_end)
    help_text = nibble("verify", "--help").decode()
    assert "--write-reference" in help_text and "--print-reference" in help_text


if __name__ == "__main__":
    sys.exit(main(globals()))
