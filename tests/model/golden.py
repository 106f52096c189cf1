"""What the tests on tests/golden share."""
import json
import struct
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
NAMES = sorted(folder.name for folder in GOLDEN.iterdir() if folder.is_dir())
sys.dont_write_bytecode = True
sys.path.insert(0, str(ROOT / "tests" / "cli"))


def read_folder(folder):
    """Its tensors, f32, and its config."""
    data = (folder / "model.safetensors").read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    arrays = {}
    for name, about in json.loads(data[8:8 + length]).items():
        if name != "__metadata__":
            begin, end = (8 + length + at for at in about["data_offsets"])
            assert about["dtype"] == "F32", name
            arrays[name] = np.frombuffer(data[begin:end], "<f4").reshape(about["shape"])
    return arrays, json.loads((folder / "config.json").read_text())


def ids_of(folder):
    return np.load(folder / "golden.npz")["input_ids"]


def quantize(nibble, source, out, *options):
    """{name: array} of what it writes, and its closing line."""
    result = nibble.run("quantize", source, out, *options)
    assert result.code == 0 and result.out == b"", result
    with np.load(out) as npz:
        return {name: npz[name] for name in npz.files}, result.err


def decode(nibble, source, out):
    return quantize(nibble, source, out, "--bits", 32)[0]


def logits(nibble, model, ids, out, *options):
    out.unlink(missing_ok=True)
    nibble("logits", model, "--ids", " ".join(map(str, ids)), "-o", out, "--kv-type", "f32",
           *options)
    got = np.load(out)
    assert np.isfinite(got).all(), model
    return got.astype("f8")
