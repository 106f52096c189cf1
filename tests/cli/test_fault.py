#!/usr/bin/python3
"""A mapped file that is cut short while it is in use ends the run with a sentence, not a signal."""
import json
import os
import shutil
import sys
import time

from harness import FAIRYTALE, main
from hf_models import tensor, write_safetensors
from models import TOKENIZER, Tiny

SAYS = "cannot be read any more: it was cut short while it was in use"


def check(nibble, path, file):
    """Generating with path says so when that file of it is cut short."""
    p = nibble.start("generate", path, "-p", "a", "-n", "-1", "-c", "100000", "--ignore-eos")
    assert p.stdout.read(1)  # it is past opening, and reads all weights for each token
    os.truncate(file, 100000)
    _, err = p.communicate(timeout=60)
    lines = err.decode().splitlines()
    assert p.returncode == 1, (p.returncode, lines)
    assert len(lines) == 1 and lines[0].startswith(f"nibble: {path} ") and SAYS in lines[0], lines


def test_generate_says_so(nibble, tmp):
    path = tmp / "tale.npz"
    shutil.copy(FAIRYTALE, path)
    check(nibble, path, path)


def test_safetensors(nibble, tmp):
    model, folder = Tiny(dim=256, hidden=1024, layers=4), tmp / "folder"
    folder.mkdir()
    tensors = {name: tensor("F32", *w.shape, data=w) for name, w in model.arrays().items()}
    write_safetensors(folder / "model.safetensors", tensors)
    (folder / "config.json").write_text(json.dumps(model.config))
    shutil.copy(TOKENIZER, folder / "tokenizer.model")
    check(nibble, folder, folder / "model.safetensors")


def test_at_any_time(nibble, tmp):
    """Opening, checking, converting: whenever it happens there is no signal and one sentence."""
    path = tmp / "tale.npz"
    commands = [["verify", path, "-q"], ["info", path], ["tokenize", path, "-p", "a b c"],
                ["generate", path, "-p", "a", "-n", "20"], ["list", path],
                ["quantize", path, tmp / "out.npz", "-q", "--bits", "32"]]
    seen = 0
    for i in range(48):
        shutil.copy(FAIRYTALE, path)
        p = nibble.start(*commands[i % len(commands)])
        time.sleep(i * i * 1e-4)
        os.truncate(path, 1 << i % 22)
        _, err = p.communicate(timeout=60)
        lines = err.decode().splitlines()
        assert p.returncode in (0, 1), (commands[i % len(commands)], p.returncode, lines)
        assert p.returncode == 0 or lines[0].startswith("nibble: "), lines
        seen += SAYS in err.decode()
    print(f"{seen} of 48 runs read what was gone")


def test_names_are_cleaned(nibble, tmp):
    path = tmp / "a\nb.npz"
    shutil.copy(FAIRYTALE, path)
    p = nibble.start("generate", path, "-p", "a", "-n", "-1", "-c", "100000", "--ignore-eos")
    assert p.stdout.read(1)
    os.truncate(path, 4096)
    _, err = p.communicate(timeout=60)
    assert p.returncode == 1 and len(err.decode().splitlines()) == 1, err


if __name__ == "__main__":
    sys.exit(main(globals()))
