#!/usr/bin/python3
"""nibble list: what it finds, what it says of it, and what must not hold it up."""
import json
import os
import shutil
import sys
import time
import zipfile

import numpy as np

from harness import FAIRYTALE, main
from hf_models import tensor, write_safetensors
from models import Tiny, save_npz

NOWHERE = {"HF_HUB_CACHE": "/nonexistent"}


def listed(nibble, *words, **options):
    """What --json says, by path."""
    entries = nibble.json("list", *words, **options)
    found = {entry["path"]: entry for entry in entries}
    assert len(found) == len(entries) and list(found) == sorted(found), entries
    return found


def env(**variables):
    """None of the user's own."""
    keep = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "XDG_"))}
    return {**keep, "HOME": "/nonexistent", **variables}


# ---- what is found

def test_formats(tmp, nibble):
    model = Tiny()
    single = model.save(tmp / "single.npz", "<f2")
    folder = model.save_folder(tmp / "folder", "<f2")
    shards = model.save_folder(tmp / "shards")
    (shards / "weights.npz").unlink()
    arrays = model.arrays()
    for i, name in enumerate(arrays):
        np.savez(shards / f"weights.{i}.npz", **{name: arrays[name]})
    tensors = {name: tensor("F32", *a.shape, data=a) for name, a in arrays.items()}
    hugging = tmp / "hugging"
    hugging.mkdir()
    names = list(tensors)
    parts = {f"model-0000{i + 1}-of-00002.safetensors": names[i::2] for i in range(2)}
    for file, some in parts.items():
        write_safetensors(hugging / file, {name: tensors[name] for name in some})
    index = {name: file for file, some in parts.items() for name in some}
    (hugging / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    (hugging / "config.json").write_text(json.dumps(model.config))

    found = listed(nibble, tmp)
    assert set(found) == {str(path) for path in (single, folder, shards, hugging)}, found
    for path, format, files, weights in ((single, "npz", 1, "f16"), (folder, "npz", 1, "f16"),
                                         (shards, "npz", len(arrays), "f32"),
                                         (hugging, "safetensors", 2, "f32")):
        entry = found[str(path)]
        assert entry["runs"] and entry["reason"] is None and entry["family"] == "llama", entry
        assert (entry["format"], entry["files"], entry["weights"]) == (format, files, weights)
        assert entry["parameters"] == sum(a.size for a in arrays.values())
        patterns = ("*.npz", "*.safetensors")
        files = [f for pattern in patterns for f in path.glob(pattern)] if path.is_dir() else [path]
        assert entry["bytes"] == sum(file.stat().st_size for file in files), entry
    for path in (single, folder, shards, hugging):  # and each by itself
        assert list(listed(nibble, path)) == [str(path)]


def test_text(tmp, nibble):
    shutil.copy(FAIRYTALE, tmp / "tale.npz")
    (tmp / "none.npz").write_bytes(b"nothing")
    head, none, reason, tale = nibble("list", tmp).decode().splitlines()
    assert head.split() == ["size", "format", "family", "weights", "model"]
    assert tale.split() == ["5.0", "MB", "npz", "llama", "affine", "4", "bits,", "group", "64",
                            str(tmp / "tale.npz")]
    assert none.split() == ["0.0", "kB", "npz", "-", "-", str(tmp / "none.npz")]
    assert reason.strip() == "does not run: is not a zip archive; an .npz file is expected"


def test_why_it_would_not_run(tmp, nibble):
    """One sentence each; the rest is listed all the same."""
    model = Tiny()
    model.save(tmp / "runs.npz")
    model.save(tmp / "cut.npz")
    (tmp / "cut.npz").write_bytes((tmp / "cut.npz").read_bytes()[:20000])
    model.save(tmp / "mamba.npz", config={**model.config, "model_type": "mamba"})
    some = {name: a for name, a in model.arrays().items() if "norm" not in name}
    model.save(tmp / "lacks.npz", arrays=some)
    np.savez(tmp / "data.npz", x=np.zeros(3))
    (tmp / "a.gguf").write_bytes(b"GGUF" + b"\3" * 100)
    torch = model.save_folder(tmp / "torch")
    (torch / "weights.npz").rename(torch / "pytorch_model.bin")
    wants = model.save_folder(tmp / "wants")
    (wants / "weights.npz").rename(wants / "model-00001-of-00002.safetensors")
    gone = model.save_folder(tmp / "gone")
    (gone / "weights.npz").unlink()
    (gone / "weights.npz").symlink_to("nowhere")
    stuck = model.save_folder(tmp / "stuck")
    (stuck / "config.json").unlink()
    os.mkfifo(stuck / "config.json")
    found = listed(nibble, tmp)
    reasons = {path[len(str(tmp)) + 1:]: entry["reason"] for path, entry in found.items()}
    assert reasons.pop("runs.npz") is None
    for name, says in {"cut.npz": "cut short", "mamba.npz": "'mamba' is not supported",
                       "lacks.npz": "missing", "data.npz": "config.json", "a.gguf": "convert.py",
                       "torch": "convert.py", "wants": "index.json", "gone": "No such file",
                       "stuck": "not a regular file"}.items():
        reason = reasons.pop(name)
        assert says in reason and "\n" not in reason and not found[str(tmp / name)]["runs"], reason
        assert str(tmp / name) + ":" not in reason
    assert not reasons, reasons
    folder = model.save_folder(tmp / "other")
    (folder / "config.json").write_text(json.dumps({**model.config, "model_type": "mamba"}))
    reason = listed(nibble, folder)[str(folder)]["reason"]
    assert reason.startswith("config.json: model_type 'mamba'") and "llama, mistral" in reason
    line = nibble("list", folder).decode().splitlines()[-1]
    assert "config.json: model_type 'mamba' is not supported; nibble runs" in line
    assert len(line) < 200 and line.endswith("..."), "the whole list is in the JSON"


def test_what_is_no_model(tmp, nibble):
    (tmp / "web").mkdir()
    (tmp / "web" / "config.json").write_text("{}")
    (tmp / "text.txt").write_text("x")
    (tmp / ".hidden").mkdir()
    Tiny().save(tmp / ".hidden" / "m.npz")
    folder = Tiny().save_folder(tmp / "m")
    np.savez(folder / "calibration.npz", x=np.zeros(3))
    (folder / "onnx").mkdir()
    Tiny().save(folder / "onnx" / "m.npz")
    assert list(listed(nibble, tmp)) == [str(folder)], "what lies in a model's folder is its own"


def test_nothing(tmp, nibble):
    result = nibble.run("list", tmp)
    assert result.code == 0 and not result.out and "no models were found" in result.err, result
    assert nibble.json("list", tmp) == []
    nibble.refuses("list", tmp / "absent", says=["absent", "No such file"])
    nibble.refuses("list", "--nothing", says="--nothing", code=2)


# ---- where it looks

def cache(home, model):
    """As huggingface_hub lays it out: links in snapshots, files in blobs."""
    repo = home / "models--some--tiny"
    snapshot = repo / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)
    (repo / "blobs").mkdir()
    made = model.save_folder(home / "made")
    for i, file in enumerate(sorted(made.iterdir())):
        file.rename(repo / "blobs" / str(i))
        (snapshot / file.name).symlink_to(f"../../blobs/{i}")
    made.rmdir()
    return snapshot


def test_usual_places(tmp, nibble):
    here = tmp / "here"
    (here / "models").mkdir(parents=True)
    Tiny().save(here / "a.npz")
    Tiny().save(here / "models" / "b.npz")
    near = {"a.npz", "models/b.npz"}
    for at, variables in (("hub", {"HF_HUB_CACHE": tmp / "hub", "HF_HOME": "/nonexistent"}),
                          ("home/hub", {"HF_HOME": tmp / "home"}),
                          ("xdg/huggingface/hub", {"XDG_CACHE_HOME": tmp / "xdg"}),
                          ("user/.cache/huggingface/hub", {"HOME": tmp / "user"})):
        (tmp / at).mkdir(parents=True)
        snapshot = cache(tmp / at, Tiny())
        strings = {key: str(value) for key, value in variables.items()}
        found = listed(nibble, cwd=here, env=env(**strings))
        assert set(found) == near | {str(snapshot)}, (at, found)
        entry = found[str(snapshot)]
        assert entry["runs"] and entry["bytes"] == (snapshot / "weights.npz").stat().st_size
    assert set(listed(nibble, cwd=here, env=env(**NOWHERE))) == near


def test_places_named_twice(tmp, nibble):
    path = Tiny().save(tmp / "m.npz")
    (tmp / "again").symlink_to(tmp)
    assert list(listed(nibble, tmp, tmp / "again", f"{tmp}/.")) == [str(path)]


# ---- what must not hold it up

def test_hostile_folders(tmp, nibble):
    Tiny().save(tmp / "m.npz")
    (tmp / "loop.npz").symlink_to("loop.npz")
    os.mkfifo(tmp / "fifo.npz")
    os.mkfifo(tmp / "fifo.gguf")
    (tmp / "folder.npz").mkdir()
    deep = tmp
    for i in range(12):
        deep = deep / "d"
        deep.mkdir()
        (deep / "back").symlink_to(tmp)
        (deep / "here").symlink_to(".")
    Tiny().save(deep / "too_deep.npz")
    (tmp / "closed").mkdir()
    (tmp / "closed").chmod(0)
    (tmp / "esc\x1b[31m.npz").write_bytes(b"x")
    place = tmp / "place"
    place.mkdir()
    for name in ("d", "closed", "m.npz", "loop.npz", "fifo.npz", "fifo.gguf", "folder.npz",
                 "esc\x1b[31m.npz"):
        (place / name).symlink_to(f"../{name}")
    result = nibble.run("list", place)
    (tmp / "closed").chmod(0o700)
    assert result.code == 0 and b"\x1b" not in result.out and result.cpu_s < nibble.refusal_s
    lines = result.out.decode().splitlines()
    paths = [line.split()[-1] for line in lines[1:] if "does not run" not in line]
    assert {os.path.basename(path) for path in paths} == {"esc?[31m.npz", "m.npz"}, lines
    assert len(paths) == 4 and f"{place}/m.npz" in paths, "where it is, and behind one link"


def test_thousands_of_files(tmp, nibble):
    """It looks at what is near first, and ends."""
    Tiny().save(tmp / "m.npz")
    for i in range(21):
        (tmp / f"d{i:02}").mkdir()
        for k in range(1000):
            os.symlink("x", tmp / f"d{i:02}" / f"f{k}")
    Tiny().save(tmp / "d00" / "far.npz")
    begin = time.monotonic()
    result = nibble.run("list", tmp, "--json")
    assert time.monotonic() - begin < 20 and result.code == 0, result
    assert "20000 names" in result.err and result.err.count("\n") == 1, result
    assert str(tmp / "m.npz") in [entry["path"] for entry in json.loads(result.out)]


def test_compressed_arrays_are_not_inflated(tmp, nibble):
    """Their headers tell all that is listed: damage at the end of one is for others to find."""
    big = np.random.default_rng(1).integers(0, 2, (60000, 64)).astype("f4")
    model = Tiny(vocab=len(big))
    model.weights["embed"] = model.weights["output"] = big
    path = save_npz(tmp / "m.npz", model.arrays(), model.config, save=np.savez_compressed)
    entry = listed(nibble, path)[str(path)]
    assert entry["runs"] and entry["parameters"] == sum(w.size for w in model.weights.values())
    with zipfile.ZipFile(path) as z:
        info = z.getinfo("lm_head.weight.npy")
    data = bytearray(path.read_bytes())
    data[info.header_offset + info.compress_size - 1000] ^= 0xff
    path.write_bytes(data)
    assert listed(nibble, path)[str(path)] == entry
    nibble.refuses("info", path, says="lm_head.weight.npy is damaged")


if __name__ == "__main__":
    sys.exit(main(globals()))
