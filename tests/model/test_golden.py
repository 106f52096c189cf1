#!/usr/bin/python3
"""nibble against Hugging Face transformers, on the checkpoints of tests/golden.

    tests/model/test_golden.py [--build DIR] [WORD...]

Each runs as transformers saved it, with both spellings of its config, and as scripts/convert.py
converts it. See tests/golden/README.md.
"""
import json
import re
import subprocess
import sys

import numpy as np

from golden import GOLDEN, NAMES, ROOT
from harness import main  # golden.py says where that is

CONVERTED = NAMES
CONFIGS = ("config.json", "config.legacy.json")  # as transformers 5 and 4 write it
ONE_SPELLING = ("gpt2",)                         # both write the same
BOUNDS = {"f32": 2e-4, "f16": 2e-2}              # of the cache: the largest difference of a logit
# How a prompt is cut and split must not matter; each level and cache gets another of these.
WAYS = (("-b", 512, "-t", 2), ("-b", 1, "-t", 1), ("-b", 7, "-t", 3), ("-b", 10, "-t", 4))
MOST_BYTES = 10_000_000                          # of all checkpoints


def folder_of(name, config, tmp):
    """The checkpoint with one of its spellings as config.json."""
    folder = tmp / name
    folder.mkdir()
    (folder / "config.json").symlink_to(GOLDEN / name / config)
    (folder / "model.safetensors").symlink_to(GOLDEN / name / "model.safetensors")
    return folder


def convert(folder, output):
    command = [ROOT / "scripts" / "convert.py", folder, "-o", output, "--dtype", "f32"]
    return subprocess.run(command, capture_output=True, text=True)


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
        assert golden["logits"].std() > 0.3 and len(golden["greedy_ids"]) == 32
        model, turn = folder_of(name, config, tmp), 0
        for level in levels_of(nibble):
            for cache, bound in BOUNDS.items():
                options = ("--level", level, "--kv-type", cache, *WAYS[turn % len(WAYS)])
                check(nibble, model, golden, tmp / "logits.npy", options, bound)
                turn += 1
    return test


def make_converted_test(name, config):
    def test(tmp, nibble):
        result = convert(folder_of(name, config, tmp), tmp / "model.npz")
        assert result.returncode == 0, result.stderr
        golden = np.load(GOLDEN / name / "golden.npz")
        for level in levels_of(nibble)[::-1][:2]:
            options = ("--level", level, "--kv-type", "f32")
            check(nibble, tmp / "model.npz", golden, tmp / "logits.npy", options, BOUNDS["f32"])
    return test


for each in NAMES:
    for which in CONFIGS[:1 if each in ONE_SPELLING else 2]:
        globals()[f"test_{each}_{which}"] = make_test(each, which)
        if each in CONVERTED:
            globals()[f"test_{each}_{which}_converted"] = make_converted_test(each, which)


def test_the_converter_takes_no_others(tmp):
    """What it takes belongs in CONVERTED."""
    for name in set(NAMES) - set(CONVERTED):
        result = convert(GOLDEN / name, tmp / "model.npz")
        assert result.returncode != 0 and "model_type" in result.stderr, f"{name}: {result}"


def test_the_configs_differ():
    """The two spellings put rope's numbers in different places; otherwise one would be untested."""
    for name in NAMES:
        if name in ONE_SPELLING:
            assert not (GOLDEN / name / CONFIGS[1]).exists(), name
            continue
        new, old = (json.loads((GOLDEN / name / config).read_text()) for config in CONFIGS)
        assert "rope_parameters" in new and "rope_parameters" not in old, name
        assert "rope_theta" in old or "rotary_emb_base" in old, name
        assert "rope_theta" not in new, name


def test_the_checkpoints_stay_small():
    size = sum(path.stat().st_size for path in GOLDEN.rglob("*") if path.is_file())
    assert size <= MOST_BYTES, f"tests/golden has {size} bytes, {MOST_BYTES} are allowed"


if __name__ == "__main__":
    sys.exit(main(globals()))
