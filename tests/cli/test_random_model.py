#!/usr/bin/python3
"""tools/random_model.py: what comes out, that nibble runs it, and every refusal."""
import json
import os
import resource
import signal
import subprocess
import sys
import time
import zipfile

import numpy as np

from harness import ROOT, TOKENIZER, main
from hf_models import left_over, members
from models import unpack

SCRIPT = ROOT / "tools" / "random_model.py"
sys.path.insert(0, str(SCRIPT.parent))
import random_model as script

STD = 0.02


def run(*words, **options):
    command = [sys.executable, SCRIPT, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)


def make(path, shape, *options):
    """The model, and what was said about it."""
    result = run(shape, "-o", path, *options)
    assert result.returncode == 0 and result.stdout == "", result.stderr
    assert left_over(path.parent) == [], "left-overs"
    return path, result.stderr


def arrays_of(path):
    with np.load(path, allow_pickle=False) as npz:
        return {name: npz[name] for name in npz.files}


def kinds(arrays):
    return {name: (a.dtype, a.shape) for name, a in arrays.items() if not name.endswith(".json")}


def config_of(arrays):
    return json.loads(bytes(arrays["config.json"]))


def logits(nibble, path, ids):
    out = path.with_suffix(".npy")
    nibble("logits", path, "--ids", ids, "-o", out)
    return np.load(out)


def check_runs(nibble, path):
    """Finite logits that depend on each token before, and that differ from token to token."""
    first, second = (logits(nibble, path, ids) for ids in ("1 200 30 4", "5 200 30 4"))
    assert np.isfinite(first).all() and first.std() > 0.05, first.std()
    assert np.abs(first[-1] - second[-1]).max() > 1e-4, "the first token has no effect"
    assert first.shape[0] == 4 and len(set(first[-1])) > first.shape[1] * 0.9, "equal logits"


def check_weights(w, name):
    """The smallest matrices have no more than 64 scales, hence 10%."""
    w, near = w.astype("f8"), 0.02 if w.size > 1 << 20 else 0.1
    assert abs(w.std() / STD - 1) < near and abs(w.mean()) < near * STD, (name, w.std(), w.mean())
    check_rows(w, name)


def check_rows(w, name):
    assert len({row.tobytes() for row in w}) == len(w), f"{name} has equal rows"


# ---- what comes out

def check_quantized(tmp, nibble, bits, group, *options):
    path, _ = make(tmp / f"{bits}-{group}.npz", "tiny", "--bits", bits, "--group-size", group,
                   *options)
    check_runs(nibble, path)
    assert f"affine {bits} bits, groups of {group}" in nibble("info", path).decode()
    arrays = arrays_of(path)
    for name, a in arrays.items():
        if a.ndim == 1 and name != "config.json":
            assert a.dtype == np.float16 and (a == 1).all(), name
        elif name.endswith(".weight"):
            width = 8 if options and "embed" in name else bits
            check_weights(unpack(arrays, name, width, group)[0], name)
        elif name.endswith(".scales"):
            assert a.dtype == np.float16 and 0.3 < (a < 0).mean() < 0.7, name
    nibble("quantize", tmp / "plain.npz", tmp / "want.npz", "--bits", bits, "--group-size", group,
           *options, "--quiet")
    want = arrays_of(tmp / "want.npz")
    assert kinds(arrays) == kinds(want) and config_of(arrays) == config_of(want), (bits, group)


def test_every_width_is_as_nibble_quantizes(tmp, nibble):
    make(tmp / "plain.npz", "tiny", "--dtype", "f16")
    for bits, group in ((2, 64), (3, 32), (4, 32), (4, 64), (4, 128), (5, 128), (6, 64), (8, 32)):
        check_quantized(tmp, nibble, bits, group)
    check_quantized(tmp, nibble, 3, 64, "--embed-bits", "8")


def test_columns_that_no_group_divides(tmp, nibble):
    plain, said = make(tmp / "plain.npz", "stories-15m", "--dtype", "f16")
    assert "note" not in said, said
    path, said = make(tmp / "m.npz", "stories-15m")
    assert "37 matrices stay f16" in said and said.count("\n") == 2, said
    nibble("quantize", plain, tmp / "want.npz", "--quiet")
    arrays, want = arrays_of(path), arrays_of(tmp / "want.npz")
    assert kinds(arrays) == kinds(want) and config_of(arrays) == config_of(want)
    check_weights(arrays["model.embed_tokens.weight"], "embedding")
    check_runs(nibble, path)


def test_plain_types(tmp, nibble):
    for dtype in ("f32", "f16", "bf16"):
        path, _ = make(tmp / f"{dtype}.npz", "tiny", "--dtype", dtype)
        check_runs(nibble, path)
        info = nibble("info", path).decode()
        assert f"[512, 128]         {dtype}" in info and "affine" not in info, info
        arrays = arrays_of(path)
        assert "quantization" not in config_of(arrays)
        for name, a in arrays.items():
            if dtype == "bf16" and name != "config.json":
                a = (a.view("<u2").astype("<u4") << 16).view("<f4")
            if a.ndim == 2:
                check_weights(a, name)
            elif name != "config.json":
                assert (a == 1).all(), name


def test_generates_as_by_default(tmp, nibble):
    path, said = make(tmp / "m.npz", "tiny")
    assert "arrays" in said and " s: " in said and str(path) in said, said
    assert "affine 4 bits, groups of 64" in nibble("info", path).decode()
    result = nibble.json("generate", path, "--ids", "1 2 3", "-n", "5", "--temp", "0")
    assert len(result["ids"]) == 5 and result["text"] is None, result


def test_layout_and_order(tmp):
    path, _ = make(tmp / "m.npz", "tiny", "--tokenizer", TOKENIZER)
    rows = members(path)
    assert all(offset % 64 == 0 for _, offset, *_ in rows)
    names = [name[:-len(".npy")] for name, *_ in rows]
    assert names[:4] == ["config.json", "tokenizer.model", "model.embed_tokens.weight",
                         "model.embed_tokens.scales"], names
    assert names[-1] == "model.norm.weight"
    layers = [name.split(".")[2] for name in names if ".layers." in name]
    assert layers == sorted(layers) and set(layers) == {"0", "1"}, layers
    assert zipfile.ZipFile(path).testzip() is None


def test_blocks_that_repeat_make_no_equal_rows(tmp):
    """The embedding takes two blocks of codes, 512 columns a power of two of words in a row."""
    arrays = arrays_of(make(tmp / "m.npz", "stories-42m")[0])
    embedding = arrays["model.embed_tokens.weight"]
    assert embedding.size > 1.9 * script.BLOCK
    check_rows(embedding, "embedding")
    first, second = (arrays[f"model.layers.{n}.mlp.up_proj.weight"] for n in (0, 1))
    assert (first != second).any(1).all(), "layers are equal"


def test_seeds(tmp):
    for dtype in ((), ("--dtype", "bf16")):
        one, two, other = (make(tmp / f"{i}{len(dtype)}.npz", "tiny", *dtype, *seed)[0].read_bytes()
                           for i, seed in enumerate(((), ("--seed", "0"), ("--seed", "1"))))
        assert one == two and one != other


def test_memory_is_bounded(tmp):
    """Measured by a process between: what this one has used would count for its children too."""
    between = ("import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True); "
               "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)")
    for shape, *options in (("stories-110m", "--dtype", "f16"), ("tinyllama-1.1b", "--bits", "2")):
        path = tmp / f"{shape}.npz"
        command = [sys.executable, "-c", between, sys.executable, SCRIPT, shape, "-o", path]
        kilobytes = int(subprocess.run([*command, *options], stdout=subprocess.PIPE,
                                       stderr=subprocess.DEVNULL, check=True).stdout)
        assert path.stat().st_size > 210e6
        assert kilobytes < 100 << 10, f"{kilobytes >> 10} MB"


# ---- shapes

def test_published_numbers():
    """Weights as the models' own pages count them, in millions."""
    want = {"tiny": 0.4, "stories-15m": 15.2, "stories-42m": 41.7, "stories-110m": 109.5,
            "tinyllama-1.1b": 1100.0, "llama-3.2-1b": 1235.8, "llama-3.2-3b": 3212.7,
            "llama-7b": 6738.4, "mistral-7b": 7241.7, "llama-3.1-8b": 8030.3}
    rows = [line.split() for line in run("--list").stdout.splitlines()]
    assert rows[0][1] == "name" and {row[2]: float(row[0]) for row in rows[1:]} == want, rows


def config_for(shape):
    args = script.make_parser().parse_args([shape, "-o", "m.npz", "--dtype", "f16"])
    args.bits, shape = 0, script.SHAPES[shape]
    return script.config_of(shape, script.modules_of(shape), args)


def test_configs():
    one = config_for("llama-3.2-1b")
    assert one["rope_scaling"] == {
        "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192}
    assert one["head_dim"] == 64 and one["tie_word_embeddings"] is True
    assert one["rope_theta"] == 500000.0 and one["max_position_embeddings"] == 131072
    assert config_for("llama-3.1-8b")["rope_scaling"]["factor"] == 8.0
    mistral = config_for("mistral-7b")
    assert mistral["model_type"] == "mistral" and mistral["sliding_window"] == 4096
    assert "rope_scaling" not in mistral and mistral["tie_word_embeddings"] is False


# ---- the tokenizer

def test_tokenizer(tmp, nibble):
    folder = tmp / "tok"
    folder.mkdir()
    (folder / "tokenizer.model").write_bytes(TOKENIZER.read_bytes())
    (folder / "tokenizer_config.json").write_text('{"add_bos_token": false}')
    (folder / "config.json").write_text('{"model_type": "another"}')
    by_file, _ = make(tmp / "file.npz", "tiny", "--tokenizer", TOKENIZER)
    by_folder, _ = make(tmp / "folder.npz", "tiny", "--tokenizer", folder)
    assert "tokenizer_config.json" in arrays_of(by_folder)
    for path in (by_file, by_folder):
        arrays = arrays_of(path)
        assert bytes(arrays["tokenizer.model"]) == TOKENIZER.read_bytes()
        assert config_of(arrays)["model_type"] == "llama"
        assert b"with a tokenizer" in nibble("info", path)
        text = nibble.json("generate", path, "-p", "once", "-n", "5", "--ignore-eos")
        assert isinstance(text["text"], str) and len(text["ids"]) == 5, text


def test_wrong_tokenizers(tmp):
    for name in ("notes.txt", "empty/x", "dir.model/x"):
        (tmp / name).parent.mkdir(exist_ok=True)
        (tmp / name).write_text("")
    for name, words in (("notes.txt", "neither a folder nor"), ("empty", "holds neither"),
                        ("absent.model", "No such file"), ("absent", "neither a folder nor"),
                        ("dir.model", "holds neither")):
        check_refused(tmp, words, "tiny", "--tokenizer", tmp / name)


# ---- refusals and runs that are stopped

def check_refused(tmp, words, *options, code=1, output="m.npz", **how):
    """One sentence on stderr with these words in it, and no new file."""
    before = sorted(tmp.iterdir())
    result = run(*options, "-o", tmp / output, **how)
    assert result.returncode == code and result.stdout == "", result
    assert result.stderr.count("\n") == 1 and result.stderr.startswith("random_model.py: "), result
    assert words in result.stderr, f"'{words}' is not in '{result.stderr}'"
    assert sorted(tmp.iterdir()) == before, sorted(tmp.iterdir())


def test_wrong_usage(tmp):
    for words, *options in (("--bits", "tiny", "--bits", "7"), ("--bits", "tiny", "--bits", "x"),
                            ("--group-size", "tiny", "--group-size", "48"),
                            ("--embed-bits", "tiny", "--embed-bits", "1"),
                            ("--dtype", "tiny", "--dtype", "f8"), ("SHAPE", "gpt"),
                            ("not quantized", "tiny", "--dtype", "f16", "--bits", "4"),
                            ("not quantized", "tiny", "--dtype", "f16", "--group-size", "32"),
                            ("negative", "tiny", "--seed", "-1"), ("are needed",)):
        check_refused(tmp, words, *options, code=2)
    check_refused(tmp, "end in .npz", "tiny", output="m.bin", code=2)
    assert run("tiny").returncode == 2 and run("--help").returncode == 0


def test_existing_output(tmp):
    path = tmp / "m.npz"
    path.write_text("old")
    check_refused(tmp, "--force", "tiny")
    assert path.read_text() == "old"
    make(path, "tiny", "--force")
    assert zipfile.is_zipfile(path)
    (tmp / "dir.npz").mkdir()
    check_refused(tmp, "cannot write", "tiny", "--force", output="dir.npz")
    check_refused(tmp, "cannot write", "tiny", output="absent/m.npz")


def test_disk_without_room(tmp):
    """As it would be with as little room as a patched disk_usage says."""
    patch = ("import shutil, sys, types; sys.path.insert(0, sys.argv.pop(1)); import random_model; "
             "shutil.disk_usage = lambda path: types.SimpleNamespace(free=%d); "
             "sys.argv[0] = 'random_model.py'; sys.exit(random_model.main())")
    for free, code in ((200_000, 1), (1 << 20, 0)):
        command = [sys.executable, "-c", patch % free, SCRIPT.parent, "tiny", "-o", tmp / "m.npz"]
        result = subprocess.run(command, capture_output=True, text=True)
        assert result.returncode == code, result
        assert ("has 0.20 MB left" in result.stderr) == (code == 1), result.stderr
        assert [p.name for p in tmp.iterdir()] == ["m.npz"] * (code == 0)


def test_disk_that_fills_up(tmp):
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
    check_refused(tmp, "File too large", "stories-15m", "--dtype", "f16", preexec_fn=limit)


def test_signals(tmp):
    for number in (signal.SIGTERM, signal.SIGINT):
        command = [sys.executable, SCRIPT, "tinyllama-1.1b", "-o", tmp / "m.npz", "--dtype", "f32"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            try:
                limit = time.monotonic() + 30
                while not any(tmp.glob(".nibble-*/m.npz")):
                    assert time.monotonic() < limit, "waited 30 seconds in vain"
                    time.sleep(0.002)
                process.send_signal(number)
                stderr = process.communicate(timeout=30)[1]
            finally:
                process.kill()
        assert process.returncode == 128 + number, (process.returncode, stderr)
        assert stderr.startswith("random_model.py: stopped by SIG"), stderr
        assert list(tmp.iterdir()) == []


if __name__ == "__main__":
    sys.exit(main(globals()))
