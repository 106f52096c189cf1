#!/usr/bin/python3
"""nibble info, and where models may lie."""
import json
import os
import shutil
import sys

import numpy as np

from harness import FAIRYTALE, main
from models import HF, META, PIECES, Tiny, save_npz


def field(text, name):
    """What follows a name at the start of a line."""
    lines = [line.split(None, 1) for line in text.splitlines() if line.strip()]
    return next(words[1].strip() for words in lines if words[0].rstrip(":") == name)


# ---- info

def test_machine(tmp, nibble):
    text = nibble("info").decode()
    assert text.startswith(nibble("--version").decode())
    levels = text.split("(this CPU runs these")[0].split("levels:")[-1].split()
    assert levels[0] == "scalar" and len(set(levels)) == len(levels), levels
    cpus = len(os.sched_getaffinity(0))
    assert 1 <= int(field(text, "threads").split()[0]) <= cpus, text
    assert f"processors: {cpus}" in text and "GB available" in text, text


def test_threads_follow_the_affinity_mask(tmp, nibble):
    one = {min(os.sched_getaffinity(0))}
    text = nibble("info", preexec_fn=lambda: os.sched_setaffinity(0, one)).decode()
    assert field(text, "threads").startswith("1 by default"), text


def test_model(tmp, nibble):
    model = Tiny(META, dim=96, hidden=160, layers=3, heads=6, kv_heads=3, vocab=401, context=77)
    path = model.save(tmp / "m.npz", "<f2")
    text = nibble("info", path, "--all").decode()
    parameters = sum(w.size for w in model.weights.values())
    assert text.startswith(f"{path}: llama, {parameters / 1e6:.2f} M parameters, with a tokenizer")
    for name, value in {"dim": 96, "layers": 3, "heads": 6, "kv_heads": 3, "head_dim": 16,
                        "hidden": 160, "vocab": 401, "context": 77, "rope_theta": 10000,
                        "norm_eps": "1e-05", "tied": "false", "rope_kind": "default"}.items():
        assert field(text, name) == str(value), f"{name}: {field(text, name)}"
    matrices = sum(w.size for w in model.weights.values() if w.ndim == 2)
    vectors = parameters - matrices
    assert f"weights mapped           {2 * parameters} bytes" in text, text
    read = 2 * matrices - 2 * 401 * 96 + 2 * 96 + 4 * vectors
    assert f"read for one token       {read / 1e6:.1f} MB" in text, text
    kv = 3 * 2 * 3 * 16
    assert f"KV cache, 1000 tokens    {kv * 2 / 1e3:.1f} MB in f16, {kv * 4 / 1e3:.1f} MB" in text
    assert text.split("tensors (")[1].startswith(str(len(model.weights)))
    for key, w in model.weights.items():
        name = model.name(key)[:-len(".weight")]
        line = next(line for line in text.splitlines() if line.split()[:1] == [name])
        assert str(list(w.shape)) in line, line
        assert line.split()[-1] == str(w.size * (2 if w.ndim == 2 else 4)), line


def test_numbers_that_change_nothing_stand_together(tmp, nibble):
    model = Tiny(layers=1)
    model.config["attention_multiplier"] = 0.5
    path = model.save(tmp / "m.npz")
    short, full = (nibble("info", path, *more).decode() for more in ((), ("--all",)))
    rows = lambda text: dict(line.split(None, 1) for line in
                             text.split("numbers")[1].split(":\n", 1)[1].split("\n\n")[0]
                             .splitlines())
    grouped = short.split("(--all prints them as well):\n")[1].split("\n\n")[0].split()
    assert {**rows(short), **{name: rows(full)[name] for name in grouped}} == rows(full)
    assert not set(rows(short)) & set(grouped) and len(rows(short)) < 30, short
    assert rows(short)["layers"] == "1", "1 is something where nothing would be 0"
    assert rows(short)["attention_scale"] == "0.5" and rows(short)["rope_theta"] == "10000"
    assert {rows(full)[name] for name in grouped} == {"0", "1", "false", "not given"}
    assert {"window", "residual_scale", "experts", "parallel", "rope_traditional"} < set(grouped)
    assert all(len(line) <= 100 for line in short.split("tensors (")[0].splitlines()), short


def test_layers_that_differ(tmp, nibble):
    full = (2, 5)
    model = Tiny(layers=8)
    kinds = ["full_attention" if i in full else "sliding_attention" for i in range(8)]
    model.config.update(model_type="smollm3", use_sliding_window=True, sliding_window=24,
                        layer_types=kinds, no_rope_layers=[1, 1, 0, 1, 1, 0, 1, 0])
    path = model.save(tmp / "m.npz")
    layers = nibble("info", path).decode().split("\nlayers, of 8:\n")[1].split("\n\n")[0]
    assert [" ".join(line.split()) for line in layers.splitlines()] == [
        "all positions, no rope 2, 5", "window of 24, no rope 7", "window of 24, rope 0-1, 3-4, 6"]
    alike = Tiny().save(tmp / "alike.npz")
    assert "layers, of" not in nibble("info", alike).decode()
    got = nibble.json("info", path)["layers"]
    assert [layer["window"] for layer in got] == [0 if i in full else 24 for i in range(8)]
    assert [layer["rope"] for layer in got] == [i not in (2, 5, 7) for i in range(8)]
    assert not any(layer["experts"] for layer in got)


def test_plan(tmp, nibble):
    """Cache and scratch are those of a context that is really opened."""
    path = Tiny(context=1000).save(tmp / "m.npz")
    text = nibble("info", path).decode()
    assert "the whole context of 1000 tokens fits" in text, text
    assert " MB for batches of 512 tokens" in text.split("scratch")[1].split("\n")[0], text
    if nibble.path.parent.name == "tsan":  # which fills four times the memory that is mapped
        return
    config = {**Tiny().config, "max_position_embeddings": 1 << 26}
    Tiny().save(tmp / "long.npz", config=config)
    got = nibble.json("info", tmp / "long.npz")["memory_bytes"]
    each = 2 * 2 * 2 * 16 * 2  # keys and values of 2 layers, 2 heads of 16, f16
    assert got["kv_token_f16"] == each
    assert abs(got["context"] * each - (got["available"] - (1 << 30))) < 200e6 or \
        got["context"] == 1 << 26, got
    if got["context"] < 1 << 26:
        line = f"of {1 << 26} tokens fits"
        assert line in nibble("info", tmp / "long.npz").decode()


def test_json(tmp, nibble):
    model = Tiny(tied=True)
    path = model.save(tmp / "m.npz", "<f2")
    got = nibble.json("info", path)
    assert got["model"] == str(path) and got["family"] == "llama" and got["tokenizer"] is True
    assert got["parameters"] == sum(w.size for w in model.weights.values())
    numbers = got["numbers"]
    assert numbers["dim"] == 64 and numbers["norm_eps"] == 1e-5 and numbers["tied"] is True
    assert numbers["rope_kind"] == "default" and numbers["rope_traditional"] is None
    assert {t["name"]: t["shape"] for t in got["tensors"]} == {
        model.name(key)[:-len(".weight")]: list(w.shape) for key, w in model.weights.items()}
    assert {(t["format"], len(t["shape"])) for t in got["tensors"]} == {("f16", 2), ("f32", 1)}
    nibble.refuses("info", "--json", says="nibble info MODEL --json", code=2)


def test_tokenizers(tmp, nibble):
    folder = Tiny(vocab=PIECES).save_folder(tmp / "m")
    line = f"tokenizer: tokenizer.model of SentencePiece, {PIECES} pieces, BOS 1, EOS 2\n"
    assert line in nibble("info", folder).decode()
    got = nibble.json("info", folder)["text"]
    assert got == {"file": "tokenizer.model", "kind": "SentencePiece", "pieces": PIECES, "bos": 1,
                   "eos": 2, "chat_template": False}
    bpe = {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}
    (folder / "tokenizer.json").write_text(json.dumps(bpe))
    assert "tokenizer: tokenizer.json, 1 pieces; it is used since it has added tokens" in nibble(
        "info", folder).decode()
    (folder / "tokenizer.json").write_text(json.dumps({**bpe, "normalizer": {"type": "Nmt"}}))
    got = nibble.json("info", folder)["text"]
    assert got["file"] == "tokenizer.model" and "tokenizer.json asks for" in got["why"]


def test_folders_and_shards(tmp, nibble):
    model = Tiny(HF, tied=True)
    folder = model.save_folder(tmp / "m", tokenizer=None)
    text = nibble("info", folder).decode()
    assert "without a tokenizer" in text and field(text, "tied") == "true", text
    assert "lm_head" not in text
    (folder / "weights.npz").unlink()
    for i, (name, a) in enumerate(model.arrays().items()):
        np.savez(folder / f"weights.{i:02}.npz", **{name: a})
    same = lambda text: [line for line in text.splitlines() if "available here" not in line]
    assert same(nibble("info", folder).decode()) == same(text), "one array a shard"


def test_compressed_members_are_noted(tmp, nibble):
    model = Tiny()
    path = save_npz(tmp / "m.npz", model.arrays(), model.config, save=np.savez_compressed)
    result = nibble.run("info", path)
    assert result.code == 0 and result.err.count("\n") == 1, result
    assert result.err.startswith("nibble: note: 21 arrays of") and "compress" in result.err
    private = sum(a.nbytes for a in model.arrays().values())
    assert f"{private} bytes private" in result.out.decode(), result.out
    plain = model.save(tmp / "plain.npz", tokenizer=None)
    words = ("--ids", "1 2 3", "--temp", "0", "-n", "9")
    result = nibble.run("generate", path, *words)
    assert result.code == 0 and result.out == nibble("generate", plain, *words), result


def test_extra_members_are_passed_over(tmp, nibble):
    """Tables of rope frequencies, and what is no array at all."""
    model = Tiny()
    arrays = {**model.arrays(), "model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(8, "f4")}
    path = model.save(tmp / "m.npz", arrays=arrays)
    assert "inv_freq" not in nibble("info", path).decode()
    model = Tiny(META)
    model.save(tmp / "n.npz", arrays={**model.arrays(), "rope.freqs": np.ones(8, "f4")})
    nibble("info", tmp / "n.npz")


def test_vocabulary_and_hidden_size_from_the_tensors(tmp, nibble):
    model = Tiny(META)
    for change in ({"vocab_size": -1}, {"vocab_size": None}, {"hidden_dim": None}):
        model.save(tmp / "m.npz", config={**model.config, **change})
        text = nibble("info", tmp / "m.npz").decode()
        assert field(text, "vocab") == "400" and field(text, "hidden") == "128", change


# ---- where models lie

def test_odd_paths(tmp, nibble):
    for name in ("a b.npz", "m\u00e9.npz", "'q\".npz", "x" * 200 + ".npz"):
        shutil.copy(FAIRYTALE, tmp / name)
        assert nibble("info", name, cwd=tmp).decode().startswith(f"{name}: llama"), name
    (tmp / "link").symlink_to("a b.npz")
    nibble("info", tmp / "link")
    (tmp / "folder").mkdir()
    nibble("info", f"{Tiny().save_folder(tmp / 'm')}/")
    got = nibble.json("generate", "m\u00e9.npz", "-p", "x", "-n", "1", cwd=tmp)
    assert got["model"] == "m\u00e9.npz"
    bad = os.fsencode(tmp) + b"/\xff.npz"
    os.symlink(FAIRYTALE, bad)
    assert nibble.json("generate", bad, "-p", "x", "-n", "1")["model"].endswith("/\ufffd.npz")
    got = nibble.json("bench", bad, "-p", "1", "-n", "1", "-r", "1")
    assert got["model"]["path"].endswith("/\ufffd.npz")


if __name__ == "__main__":
    sys.exit(main(globals()))
