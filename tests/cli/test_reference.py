#!/usr/bin/python3
"""nibble against reference data: tests/cli/test_reference.py --reference DIR.

DIR holds models/stories260K (mlx, hf, greedy texts), models/fairytale (f16, samples.txt,
valid.txt), golden (checkpoints with the logits of Hugging Face transformers) and
tools/check_golden.py.
"""
import json
import re
import subprocess
import sys

import numpy as np

from harness import FAIRYTALE, ROOT, main
from models import save_npz, unpack

CONVERT = ROOT / "scripts" / "convert.py"
GOLDEN = ("llama", "llama-llama3", "llama-linear", "llama-yarn", "mistral", "mistral-nemo")
RUNS = [(), ("-t", 1), ("-t", 2), ("-t", 4), ("--batch-size", 1), ("--batch-size", 7),
        ("--batch-size", 512)]


def levels(nibble):
    """What this machine runs of the three levels."""
    return nibble("info").decode().split("(this CPU")[0].split("levels:")[-1].split()


def convert(folder, out, *options):
    subprocess.run([sys.executable, CONVERT, folder, "-o", out, *options], check=True,
                   capture_output=True)
    return out


def check_stories(nibble, stories, model):
    """Greedy texts at every level, by any number of threads, in any batches."""
    want = (stories / "greedy-257.txt").read_bytes()[:-1]
    tim = (stories / "greedy-120-tim.txt").read_bytes()[:-1]
    prompt = "Tim had a red ball"
    for level in levels(nibble):
        for run in RUNS:
            words = ("generate", model, "--temp", "0", "--level", level, *run)
            got = nibble(*words, "-p", "", "-n", "257")
            assert got == want, (level, run, got)
            got = nibble(*words, "-p", prompt, "-n", "120", "--echo")
            assert got.startswith(tim), (level, run, got)


def test_stories_as_mlx_wrote_them(tmp, nibble, reference):
    stories = reference / "models" / "stories260K"
    check_stories(nibble, stories, stories / "mlx")


def test_stories_converted(tmp, nibble, reference):
    stories = reference / "models" / "stories260K"
    check_stories(nibble, stories, convert(stories / "hf", tmp / "m.npz"))


def test_golden(tmp, nibble, reference):
    for level in levels(nibble):
        result = subprocess.run(
            [sys.executable, reference / "tools" / "check_golden.py", nibble, reference / "golden",
             *GOLDEN, "--convert", f"{sys.executable} {CONVERT}", "--level", level],
            capture_output=True, text=True, timeout=300)
        assert result.returncode == 0, f"{level}: {result.stdout}{result.stderr}"
        assert result.stdout.endswith(f"{len(GOLDEN)} passed, 0 failed\n"), result.stdout


def test_golden_with_the_default_cache(tmp, nibble, reference):
    """f16 keys and values: the same greedy ids, logits within 2e-2."""
    for name in GOLDEN:
        model = convert(reference / "golden" / name, tmp / f"{name}.npz", "--dtype", "f32")
        golden = np.load(reference / "golden" / name / "golden.npz")
        ids = " ".join(map(str, golden["input_ids"]))
        for level in levels(nibble):
            words = (model, "--ids", ids, "--level", level)
            nibble("logits", *words, "-o", tmp / "l.npy")
            got, want = np.load(tmp / "l.npy"), golden["logits"]
            assert got.shape == want.shape and got.dtype == np.float32, (name, got.shape)
            worst = float(np.abs(got.astype("f8") - want).max())
            assert worst <= 2e-2, f"{name} at {level}: {worst:.1e}"
            got = nibble.json("generate", *words, "--temp", "0", "-n", len(golden["greedy_ids"]),
                              "--ignore-eos")
            assert got["ids"] == golden["greedy_ids"].tolist(), (name, level)


def test_fairytale(tmp, nibble, reference):
    folder = reference / "models" / "fairytale"
    text = (folder / "samples.txt").read_text()
    part = text.split("=== greedy")[1]
    found = re.search(r"the first (\d+) are the prompt\): (\[[\d, ]+\])", part)
    prompt_tokens, ids = int(found[1]), json.loads(found[2])
    story = part.split("\n", 1)[1].split("\ntoken ids")[0]
    model = convert(folder, tmp / "m.npz")
    for level in levels(nibble):
        words = ("generate", model, "-p", "Once upon a time", "--temp", "0", "--kv-type", "f32",
                 "--level", level)
        n = len(ids) - prompt_tokens
        got = nibble.json(*words, "-n", n)
        assert got["prompt_tokens"] == prompt_tokens and n == 200, (got, n)
        assert got["ids"] == ids[prompt_tokens:], level
        assert nibble(*words, "-n", n, "--echo").decode() == story, level


def decoded(path, out):
    """The quantized model as f32: what its products would be without rounding activations."""
    arrays = dict(np.load(path))
    config = json.loads(bytes(arrays.pop("config.json")))
    group, common = config["quantization"]["group_size"], config["quantization"]["bits"]
    for name in [name for name in arrays if name.endswith(".scales")]:
        module = name.removesuffix(".scales")
        bits = config["quantization"].get(module, {"bits": common})["bits"]
        weights, _ = unpack(arrays, f"{module}.weight", bits, group)
        arrays[f"{module}.weight"] = weights.astype("<f4")
        del arrays[name], arrays[f"{module}.biases"]
    config.pop("quantization")
    config.pop("quantization_config", None)
    return save_npz(out, arrays, config)


def log_likelihoods(nibble, tmp, model, ids, *options):
    nibble("logits", model, "--ids", " ".join(map(str, ids)), "-o", tmp / "l.npy", *options)
    logits = np.load(tmp / "l.npy").astype("f8")[:-1]
    logits -= logits.max(axis=1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return logits[range(len(ids) - 1), ids[1:]]


def test_perplexity_of_integer_products(tmp, nibble, reference):
    text = reference / "models" / "fairytale" / "valid.txt"
    exact = decoded(FAIRYTALE, tmp / "f32.npz")
    ids = nibble("tokenize", FAIRYTALE, "-f", text, "--no-bos").split()[:20 * 511]
    windows = [[1, *map(int, ids[i:i + 511])] for i in range(0, len(ids), 511)]
    want, got, q8 = (
        np.concatenate([log_likelihoods(nibble, tmp, model, ids, "--kv-type", cache)
                        for ids in windows])
        for model, cache in ((exact, "f32"), (FAIRYTALE, "f32"), (FAIRYTALE, "q8")))
    assert 15 < np.exp(-want.mean()) < 20, "not the perplexity of that model"
    assert abs(np.expm1((want - got).mean())) < 1e-3 and np.abs(want - got).max() > 1e-3
    assert abs(np.expm1((want - q8).mean())) < 1e-3


if __name__ == "__main__":
    sys.exit(main(globals()))
