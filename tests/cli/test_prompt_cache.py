#!/usr/bin/python3
"""nibble generate --prompt-cache: a restored prompt gives what a fresh one gives, and nothing else
is ever taken for one."""
import json
import os
import resource
import shutil
import signal
import sys
import time
import zipfile

import numpy as np

from harness import FAIRYTALE, ROOT, main
from models import Tiny
from test_output import long_prompt, wait_until_ready

STORY = "Once upon a time there was a fisherman who lived with his wife by the sea"
LONGROPE = ROOT / "tests" / "golden" / "phi3-longrope-short"  # another table from 64 tokens on


def words_of(ids):
    return "--ids", " ".join(map(str, ids))


def with_cache(nibble, cache, *words):
    """(result, what is said on stderr) of a run that must succeed."""
    result = nibble.run("generate", *words, "--prompt-cache", cache, "--json")
    assert result.code == 0, result
    assert all(line.startswith("nibble: note: ") or line.startswith("  ")
               for line in result.err.splitlines()), result
    return json.loads(result.out), result.err


def check(nibble, cache, *words, cached, says=None):
    """The result is that of a run without a file; so many tokens come from it, and it is said why
    if not all do. Gives the result."""
    want = nibble.json("generate", *words, "--logprobs", "2")
    got, err = with_cache(nibble, cache, *words, "--logprobs", "2")
    for key in ("text", "ids", "logprobs", "finish_reason", "prompt_tokens"):
        assert got[key] == want[key], (words, key, got[key], want[key])
    assert got["cached_tokens"] == cached, (words, got["cached_tokens"], err)
    assert (says in err and err.count("\n") == 1) if says else not err, (says, err)
    return got


# ---- what is shared

def test_like_fresh_runs(tmp, nibble):
    cache, options = tmp / "kv", ("-s", "5", "-n", "12")
    story = lambda text: (FAIRYTALE, "-p", text, *options)
    total = check(nibble, cache, *story(STORY), cached=0)["prompt_tokens"]
    first = cache.read_bytes()
    check(nibble, cache, *story(STORY), cached=total - 1)
    short = nibble.json("generate", *story("Once upon a time"))["prompt_tokens"]
    check(nibble, cache, *story("Once upon a time"), cached=short - 1)
    assert cache.read_bytes() == first, "what it holds need not be written again"
    longer = STORY + " in a little hut"
    check(nibble, cache, *story(longer), cached=total, says=f"the first {total} of")
    assert cache.read_bytes() != first, "now it holds the longer one"
    whole = nibble.json("generate", *story(longer))["prompt_tokens"]
    check(nibble, cache, *story(longer), cached=whole - 1)
    other = "Once upon a time the fox"
    got = check(nibble, cache, *story(other), cached=short, says="the others are computed")
    check(nibble, cache, *story(other), cached=got["prompt_tokens"] - 1)
    check(nibble, cache, FAIRYTALE, "--ids", "5 6 7", *options, cached=0, says="begins otherwise")
    check(nibble, cache, FAIRYTALE, "--ids", "5 6 7", *options, cached=2)


def test_options_that_change_nothing(tmp, nibble):
    cache, words = tmp / "kv", (FAIRYTALE, "-p", STORY, "-s", "5", "-n", "6")
    total = check(nibble, cache, *words, cached=0)["prompt_tokens"]
    for options in (("-t", "1"), ("-b", "3"), ("-c", "40"), ("-n", "3"), ("--temp", "0"),
                    ("--repeat-penalty", "1.5"), ("--stop", "e"), ("--echo",)):
        check(nibble, cache, *words, *options, cached=total - 1)


def test_every_kind_of_cache(tmp, nibble):
    """Plain weights, types, windows, latent attention, over the ends of tiles."""
    rng = np.random.default_rng(8)
    tiny = Tiny(context=300).save(tmp / "m.npz", dtype="<f2")
    goldens = [ROOT / "tests" / "golden" / name for name in ("gemma2", "gpt-oss", "deepseek-v3")]
    for i, (model, kv) in enumerate([(tiny, kv) for kv in ("f16", "f32", "q8")] +
                                    [(model, "q8") for model in goldens] + [(goldens[2], "f16")]):
        ids = rng.integers(3, 90, 130).tolist()
        words = lambda n: (model, *words_of(ids[:n]), "-s", "3", "-n", "4", "--kv-type", kv)
        check(nibble, tmp / f"{i}", *words(100), cached=0)
        check(nibble, tmp / f"{i}", *words(100), cached=99)
        check(nibble, tmp / f"{i}", *words(64), cached=63)
        check(nibble, tmp / f"{i}", *words(130), cached=100, says="the first 100 of")


def test_rope_for_long_texts(tmp, nibble):
    ids = [i * 7 % 90 + 3 for i in range(120)]
    words = lambda n: (LONGROPE, *words_of(ids[:n]), "--temp", "0", "-n", "8", "--ignore-eos")
    check(nibble, tmp / "kv", *words(60), cached=0)
    check(nibble, tmp / "kv", *words(40), cached=39)
    check(nibble, tmp / "kv", *words(70), cached=0, says="so short that another table")
    check(nibble, tmp / "kv", *words(100), cached=70, says="the first 70 of")
    check(nibble, tmp / "kv", *words(64), cached=0, says="so long that another table")


def test_many_prompts(tmp, nibble):
    """The file is that of the first prompt."""
    (tmp / "b").write_text('{"prompt":1}\n{"prompt":"Once upon a time"}\n{"prompt":"The fox"}\n')
    words = ("generate", FAIRYTALE, "--batch-file", tmp / "b", "-n", "4", "-s", "1",
             "--prompt-cache", tmp / "kv")
    first, second = (nibble.run(*words) for _ in range(2))
    results = [[json.loads(line) for line in run.out.splitlines()] for run in (first, second)]
    assert [[got.get("cached_tokens") for got in run] for run in results] == \
        [[None, 0, 1], [None, 4, 1]], results
    assert [got.get("text") for got in results[0]] == [got.get("text") for got in results[1]]
    check(nibble, tmp / "kv", FAIRYTALE, "-p", "Once upon a time", "-s", "1", cached=4)


# ---- what is not taken for it

def test_another_model_or_run(tmp, nibble):
    folder = Tiny().save_folder(tmp / "f")
    cache, words = tmp / "kv", ("-p", "the quick brown fox", "-s", "1", "-n", "4")
    total = check(nibble, cache, folder, *words, cached=0)["prompt_tokens"]
    for options, says in ((("--kv-type", "q8"), "another type of KV cache"),
                          (("--level", "scalar"), "another SIMD level")):
        check(nibble, cache, folder, *words, *options, cached=0, says=says)
        check(nibble, cache, folder, *words, *options, cached=total - 1)
        check(nibble, cache, folder, *words, cached=0, says=says)
    other = Tiny(seed=2).save_folder(tmp / "g")
    check(nibble, cache, other, *words, cached=0, says="other weights")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "rope_theta": 20000.0}))
    check(nibble, cache, other, *words, cached=total - 1)
    check(nibble, cache, folder, *words, cached=0, says="other weights")
    (folder / "config.json").write_text(json.dumps(config))
    check(nibble, cache, folder, *words, cached=0, says="another config")
    (folder / "tokenizer_config.json").write_text("{}")
    check(nibble, cache, folder, *words, cached=0, says="another tokenizer")


def test_weights_without_checksums(tmp, nibble):
    """Any byte of them counts, though the file's size and date stay."""
    folder = Tiny().save_folder(tmp / "f")
    (folder / "weights.npz").unlink()
    path = folder / "model.safetensors"
    write_safetensors(path, Tiny().arrays("<f2"))
    words = (folder, "-p", "the quick brown fox", "-s", "1", "-n", "4")
    total = check(nibble, tmp / "kv", *words, cached=0)["prompt_tokens"]
    assert nibble.json("generate", *words)["hash"] is None
    check(nibble, tmp / "kv", *words, cached=total - 1)
    stat = path.stat()
    with open(path, "r+b") as f:
        f.seek(stat.st_size - 40000)
        byte = f.read(1)
        f.seek(-1, 1)
        f.write(bytes([byte[0] ^ 1]))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    check(nibble, tmp / "kv", *words, cached=0, says="other weights")


def write_safetensors(path, tensors):
    header, at = {}, 0
    for name, w in tensors.items():
        header[name] = {"dtype": "F16", "shape": w.shape, "data_offsets": [at, at + w.nbytes]}
        at += w.nbytes
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text +
                     b"".join(w.tobytes() for w in tensors.values()))


def test_damaged_files(tmp, nibble):
    """They are not used, and written anew. (tests/model/test_kv_file.c tries them one by one.)"""
    cache, words = tmp / "kv", (FAIRYTALE, "-p", STORY, "-s", "1", "-n", "4")
    total = check(nibble, cache, *words, cached=0)["prompt_tokens"]
    good = cache.read_bytes()
    for size in (0, 4, 100, len(good) // 2, len(good) - 1):
        cache.write_bytes(good[:size])
        check(nibble, cache, *words, cached=0, says="computed anew")
        assert cache.read_bytes() == good, size
    cache.write_bytes(good[:50000] + bytes([good[50000] ^ 4]) + good[50001:])
    result = nibble.run("generate", *words, "--prompt-cache", cache)
    assert result.code == 0 and "damaged" in result.err, result
    check(nibble, cache, *words, cached=total - 1)


def test_hostile_files(tmp, nibble):
    """Sound archives that claim what is not so."""
    cache, words = tmp / "kv", (FAIRYTALE, "-p", STORY, "-s", "1", "-n", "4")
    check(nibble, cache, *words, cached=0)
    arrays = dict(np.load(cache))
    half = {name: a[:len(a) // 2] for name, a in arrays.items()}
    for name, array in (("ids", arrays["ids"].astype("<i8")), ("ids", arrays["ids"][:0]),
                        ("ids", np.tile(arrays["ids"], 3)), ("ids", arrays["ids"][None]),
                        ("layers.0.keys", half["layers.0.keys"]),
                        ("layers.1.values", arrays["layers.1.values"].astype("<f4")),
                        ("layers.2.keys", arrays["layers.2.keys"].reshape(-1)),
                        ("cache.json", np.frombuffer(b"{}", "u1")),
                        ("cache.json", np.frombuffer(b"[" * 99999, "u1")),
                        ("layers.3.values", None)):
        changed = {**arrays, name: array}
        if array is None:
            del changed[name]
        np.savez(tmp / "bad.npz", **changed)
        check(nibble, tmp / "bad.npz", *words, cached=0, says="computed anew")
    np.savez_compressed(tmp / "small.npz", **arrays)
    check(nibble, tmp / "small.npz", *words, cached=len(arrays["ids"]) - 1)


def test_what_is_no_such_file_is_not_replaced(tmp, nibble):
    words = ("generate", FAIRYTALE, "-p", "x", "-n", "1")
    (tmp / "prompt.txt").write_text("Once upon a time")
    (tmp / "short").write_text("P")
    shutil.copy(FAIRYTALE, tmp / "m.npz")
    os.mkfifo(tmp / "fifo")
    for name in ("prompt.txt", "m.npz", "fifo", "."):
        nibble.refuses(*words, "--prompt-cache", tmp / name, says="name another", code=2)
    assert (tmp / "prompt.txt").read_text() == "Once upon a time"
    assert (tmp / "m.npz").read_bytes() == FAIRYTALE.read_bytes()
    nibble.refuses(*words, "--prompt-cache", tmp / "kv", "--blas", says="--blas", code=2)


# ---- writing

def test_nothing_half_written(tmp, nibble):
    def little():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
    words = ("generate", FAIRYTALE, "-p", STORY, "-n", "4", "--temp", "0")
    text = nibble(*words)
    folder = tmp / "d"
    folder.mkdir()
    nibble.refuses(*words, "--prompt-cache", folder / "kv", out=text, says="kv cannot be written",
                   preexec_fn=little)
    assert list(folder.iterdir()) == []
    nibble(*words[:4], "-n", "0", "--prompt-cache", folder / "kv")
    before = (folder / "kv").read_bytes()
    result = nibble.run(*words[:3], STORY + " and", "--prompt-cache", folder / "kv",
                        preexec_fn=little)
    assert result.code == 1 and "kv cannot be written" in result.err, result
    assert list(folder.iterdir()) == [folder / "kv"] and (folder / "kv").read_bytes() == before
    nibble.refuses(*words, "--prompt-cache", tmp / "none" / "kv", out=text, says="be written")


def test_interrupted(tmp, nibble):
    """In the prompt nothing is kept."""
    with nibble.start(*long_prompt(tmp), "--prompt-cache", tmp / "kv") as p:
        wait_until_ready(p)
        time.sleep(0.2)
        p.send_signal(signal.SIGINT)
        out, err = p.communicate(timeout=30)
    assert (p.returncode, out, err) == (130, b"", b"") and not (tmp / "kv").exists()


def test_a_prompt_that_slid_away(tmp, nibble):
    result = nibble.run("generate", FAIRYTALE, "-p", STORY, "-n", "60", "-c", "32", "--overflow",
                        "slide", "--ignore-eos", "--json", "--prompt-cache", tmp / "kv")
    assert result.code == 0 and "slid away" in result.err and not (tmp / "kv").exists(), result


def test_numpy_reads_it(tmp, nibble):
    """As docs/model-files.md describes it."""
    nibble("generate", FAIRYTALE, "--ids", "1 1935 675", "-n", "1", "--prompt-cache", tmp / "kv",
           "--kv-type", "q8")
    z = np.load(tmp / "kv")
    description = json.loads(bytes(z["cache.json"]))
    assert z["ids"].tolist() == [1, 1935, 675] and description["kv_type"] == "q8", description
    assert description["format"] == "1" and not description["long_rope"]
    keys, values, scales = (z[f"layers.0.{name}"] for name in ("keys", "values", "key_scales"))
    assert keys.dtype == values.dtype == np.int8 and scales.dtype == np.float32
    assert keys.shape == (4, 1, 32, 64) and values.shape == (4, 3, 32) and scales.shape == (4, 3)
    assert keys[..., :3].any() and not keys[..., 3:].any(), "nothing behind the last token"
    assert all(info.compress_type == 0 for info in zipfile.ZipFile(tmp / "kv").infolist())


if __name__ == "__main__":
    sys.exit(main(globals()))
