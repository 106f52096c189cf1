#!/usr/bin/python3
"""nibble against Hugging Face transformers, on the checkpoints of tests/golden.

    tests/model/test_golden.py [--build DIR] [WORD...]

Each goes the way of a user's model: scripts/convert.py, then nibble. See tests/golden/README.md.
"""
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
sys.dont_write_bytecode = True
sys.path.insert(0, str(ROOT / "tests" / "cli"))
from harness import main  # noqa: E402

NAMES = ("llama", "llama-llama3", "llama-linear", "llama-yarn", "mistral", "mistral-nemo")
CONFIGS = ("config.json", "config.legacy.json")  # as transformers 5 and 4 write it
BOUNDS = {"f32": 2e-4, "f16": 2e-2}              # of the cache: the largest difference of a logit
# How a prompt is cut and split must not matter; each level and cache gets another of these.
WAYS = (("-b", 512, "-t", 2), ("-b", 1, "-t", 1), ("-b", 7, "-t", 3), ("-b", 10, "-t", 4))


def convert(name, config, folder):
    source, output = folder / name, folder / f"{name}.npz"
    source.mkdir()
    (source / "config.json").symlink_to(GOLDEN / name / config)
    (source / "model.safetensors").symlink_to(GOLDEN / name / "model.safetensors")
    command = [ROOT / "scripts" / "convert.py", source, "-o", output, "--dtype", "f32"]
    subprocess.run(command, check=True, capture_output=True)
    return output


def levels_of(nibble):
    """Those that this build has and this CPU runs."""
    return re.search(r"^levels: +([a-z0-9_ ]+) \(", nibble("info").decode(), re.M)[1].split()


def check(nibble, model, golden, out, options, bound):
    ids = " ".join(map(str, golden["input_ids"]))
    nibble("logits", model, "--ids", ids, "-o", out, *options)
    logits, wanted = np.load(out), golden["logits"]
    assert logits.shape == wanted.shape and logits.dtype == np.float32, (logits.shape, logits.dtype)
    worst = np.abs(logits.astype(np.float64) - wanted).max()
    assert worst <= bound, f"{options}: logits differ by {worst:.2e}, {bound:g} is allowed"
    got = nibble.json("generate", model, "--ids", ids, "--temp", 0, "--ignore-eos", "-n",
                      len(golden["greedy_ids"]), *options)["ids"]
    assert got == golden["greedy_ids"].tolist(), f"{options}: {got}"


def make_test(name, config):
    def test(tmp, nibble):
        golden = np.load(GOLDEN / name / "golden.npz")
        assert golden["logits"].std() > 1 and len(golden["greedy_ids"]) == 32
        model, turn = convert(name, config, tmp), 0
        for level in levels_of(nibble):
            for cache, bound in BOUNDS.items():
                options = ("--level", level, "--kv-type", cache, *WAYS[turn % len(WAYS)])
                check(nibble, model, golden, tmp / "logits.npy", options, bound)
                turn += 1
    return test


for each in NAMES:
    for which in CONFIGS:
        globals()[f"test_{each}_{which}"] = make_test(each, which)


def test_the_configs_differ(tmp):
    """The two spellings put rope's numbers in different places; otherwise one would be untested."""
    for name in NAMES:
        new, old = (json.loads((GOLDEN / name / config).read_text()) for config in CONFIGS)
        assert "rope_parameters" in new and "rope_parameters" not in old, name
        assert "rope_theta" in old and "rope_theta" not in new, name


if __name__ == "__main__":
    sys.exit(main(globals()))
