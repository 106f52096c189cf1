#!/usr/bin/python3
"""Feeds scripts/convert.py with damaged files: GGUF, PyTorch's pickles, llama2.c, safetensors, npz.

    tests/fuzz/converter.py --seconds 600 --findings build/fuzz/findings
    tests/fuzz/converter.py --count 300        so many inputs, always the same ones

Whatever it is given, the script must end with 0, or with 1 and one sentence, in little memory and
time. Everything else is a finding: the input is kept in the folder of findings. The seeds are made
by what the tests of the converter use; the changes are to bytes, above all near the front, where
the numbers lie, and to the pickle inside a PyTorch archive, whose checksum is then made right.
"""
import argparse
import contextlib
import io
import json
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
import zipfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "cli"))
import hf_models  # noqa: E402
import torch_models  # noqa: E402
from gguf_models import spm_metadata, write_llama  # noqa: E402
from models import TOKENIZER, Tiny  # noqa: E402

EDGES = [0, 1, 2, 3, 7, 8, 31, 32, 63, 64, 127, 128, 255, 256, 0x7FFF, 0xFFFF, 0x7FFFFFFF,
         0x80000000, 0xFFFFFFFF, 1 << 32, 1 << 53, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]
SECONDS_MOST, MEMORY_MOST = 20, 3 << 30


# ---- seeds: (what is changed, files beside it) as {name: bytes}

def files_of(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def seeds(tmp):
    small = Tiny(dim=8, layers=1, heads=2, kv_heads=1, head_dim=4, hidden=16, vocab=400,
                 context=32)
    wide = Tiny(dim=32, layers=1, heads=2, kv_heads=1, head_dim=16, hidden=32, vocab=400,
                context=32)
    tokenizer = spm_metadata(TOKENIZER.read_bytes())
    write_llama(tmp / "plain.gguf", small, metadata=tokenizer)
    write_llama(tmp / "quantized.gguf", wide, quantized=["Q4_0", "Q8_0", "Q5_1", "MXFP4"])
    for name in ("plain", "quantized"):
        yield f"{name}.gguf", f"{name}.gguf", {f"{name}.gguf": (tmp / f"{name}.gguf").read_bytes()}
    arrays = {"model.norm.weight": np.ones(8, "<f4"),
              "lm_head.weight": np.ones((16, 8), "<f4"),
              "model.embed_tokens.weight": np.ones((16, 8), "<f4"),
              "model.layers.0.input_layernorm.weight": np.ones(8, "<f4")}
    folder = torch_models.make_folder(tmp / "torch", torch_models.views(arrays))
    yield "torch", "pytorch_model.bin", files_of(folder)
    folder = hf_models.make_folder(tmp / "hf", hf_models.mlx_model())
    yield "safetensors", "model.safetensors", files_of(folder)
    yield "config", "config.json", files_of(folder)
    (tmp / "npz").mkdir()
    (tmp / "npz" / "config.json").write_text(json.dumps(torch_models.LLAMA))
    np.savez(tmp / "npz" / "weights.npz", **arrays)
    yield "npz", "weights.npz", files_of(tmp / "npz")
    sizes = (8, 16, 1, 2, 1, 16, 8)
    floats = 16 * 8 + 8 + 64 + 32 + 32 + 64 + 8 + 128 + 128 + 128 + 8 + 8 * 4
    yield "llama2c.bin", "llama2c.bin", {"llama2c.bin": struct.pack("<7i", *sizes) +
                                         bytes(4 * floats)}


# ---- changes

def change_bytes(rng, data):
    data = bytearray(data)
    near = rng.choice((64, 512, 4096, len(data)))
    for _ in range(rng.randint(1, 4)):
        if not data:
            return bytes(data)
        at, width = rng.randrange(min(near, len(data))), rng.choice((1, 2, 4, 8))
        edge = (rng.choice(EDGES) + rng.randint(-1, 1)) % (1 << 8 * width)
        kind = rng.randrange(6)
        if kind < 3:
            data[at:at + width] = edge.to_bytes(width, "little")[:len(data) - at]
        elif kind == 3:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 4:
            del data[at:at + rng.choice((1, 4, 8, 1 << 10, len(data)))]
        else:
            data[at:at] = data[at:at + rng.randint(1, 64)]
    return bytes(data)


def change_member(rng, data):
    """One member of a zip archive, which is written anew around it."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        names = old.namelist()
        pick = rng.choice([n for n in names if n.endswith((".pkl", ".npy"))] or names)
        for name in names:
            content = old.read(name)
            new.writestr(name, change_bytes(rng, content) if name == pick else content)
    return out.getvalue()


def change_header(rng, data):
    """The header of safetensors, with its length right."""
    length, = struct.unpack_from("<Q", data)
    header = change_bytes(rng, data[8:8 + length])
    return struct.pack("<Q", len(header)) + header + data[8 + length:]


def change(rng, name, data):
    if name in ("torch", "npz") and rng.random() < 0.7:
        return change_member(rng, data)
    if name == "safetensors" and rng.random() < 0.7:
        return change_header(rng, data)
    return change_bytes(rng, data)


# ---- running

class TooLong(BaseException):
    pass


def too_long(number, frame):
    raise TooLong(f"more than {SECONDS_MOST} s")


def run(source, output):
    """None, or what is wrong with how the script ended."""
    out, err, code = io.StringIO(), io.StringIO(), None
    sys.argv = ["convert.py", str(source), "-o", str(output), "--no-reference"]
    signal.alarm(SECONDS_MOST)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = hf_models.script.main()
    except BaseException:
        return traceback.format_exc()
    finally:
        signal.alarm(0)
    lines = err.getvalue().splitlines()
    if code not in (0, 1) or out.getvalue():
        return f"exit status {code}, stdout {out.getvalue()[:100]!r}"
    if not lines or not all(line.startswith("convert.py: ") for line in lines):
        return f"stderr is {err.getvalue()[:500]!r}"
    sentences = [line for line in lines if not line.startswith("convert.py: note: ")]
    if code == 1 and (len(sentences) != 1 or "not enough memory" in sentences[0]):
        return f"stderr is {err.getvalue()[:500]!r}"
    if code == 1 and output.exists():
        return "it failed and left a file"
    return None


def try_one(rng, seed, folder):
    name, changed, files = seed
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "in").mkdir(parents=True)
    for file, data in files.items():
        (folder / "in" / file).write_bytes(change(rng, name, data) if file == changed else data)
    source = folder / "in" / changed if name == changed else folder / "in"
    return run(source, folder / "out.npz"), folder / "in" / changed


def loop(args, tmp):
    every, begin, count, found = list(seeds(tmp)), time.monotonic(), 0, 0
    while count != args.count and found < 10:
        if args.seconds and time.monotonic() - begin > args.seconds:
            break
        number = args.first + count
        count += 1
        wrong, path = try_one(random.Random(number), every[number % len(every)], tmp / "run")
        if not wrong:
            continue
        found += 1
        print(f"input {number} ({path.name}): {wrong}", flush=True)
        if args.findings:
            args.findings.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, args.findings / f"converter-{number}-{path.name}")
    return count, found


def main():
    parser = argparse.ArgumentParser(description="Feeds the converter with damaged files.")
    parser.add_argument("--seconds", type=float, help="how long")
    parser.add_argument("--count", type=int, help="how many inputs")
    parser.add_argument("--first", type=int, help="the first input's number (default: by chance)")
    parser.add_argument("--findings", type=Path, help="where inputs that fail are kept")
    args = parser.parse_args()
    if args.first is None:
        args.first = 0 if args.count else random.SystemRandom().randrange(1 << 40)
    signal.signal(signal.SIGALRM, too_long)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MOST, MEMORY_MOST))
    with tempfile.TemporaryDirectory() as tmp:
        count, found = loop(args, Path(tmp))
    print(f"stat::number_of_executed_units: {count}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
