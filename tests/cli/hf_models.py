"""Tiny Hugging Face folders for the tests of scripts/convert.py, and what runs and checks it.

Nothing here uses the script's own code to write or to read files.
"""
import json
import os
import struct
import subprocess
import sys
import tempfile
import traceback
import zipfile
from pathlib import Path

import numpy as np

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "convert.py"
sys.dont_write_bytecode = True
sys.path.insert(0, str(SCRIPT.parent))
import convert as script
import npz_write

SIZES = {"F32": 4, "F16": 2, "BF16": 2, "F64": 8, "U32": 4, "U8": 1, "I64": 8, "BOOL": 1,
         "F8_E4M3": 1}
LLAMA = {"model_type": "llama", "hidden_size": 8, "vocab_size": 16, "num_hidden_layers": 11}
rng = np.random.default_rng(1)


# ---- making folders

def tensor(dtype, *shape, data=None):
    """(dtype, shape, bytes), random unless data are given as an array of the right width."""
    count = int(np.prod(shape))
    if data is None and dtype in ("F32", "F16", "F64"):
        data = rng.standard_normal(count).astype("<f" + str(SIZES[dtype]))
    elif data is None and dtype == "BF16":
        data = rng.standard_normal(count).astype("<f4").view("<u2")[1::2]
    elif data is None:
        data = rng.integers(0, 2, count * SIZES[dtype], dtype="u1")
    assert data.nbytes == count * SIZES[dtype]
    return dtype, list(shape), data.tobytes()


def header_of(tensors):
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    return header


def write_safetensors(path, tensors, header=None):
    """header: a changed object, or text; it is not made to agree with the data."""
    header = header_of(tensors) if header is None else header
    text = header if isinstance(header, str) else json.dumps(header)
    data = b"".join(data for _, _, data in tensors.values())
    path.write_bytes(struct.pack("<Q", len(text)) + text.encode() + data)


def model(dtype="F32"):
    tensors = {"model.norm.weight": tensor(dtype, 8), "lm_head.weight": tensor(dtype, 16, 8)}
    for layer in (10, 9, 0):
        tensors[f"model.layers.{layer}.self_attn.q_proj.weight"] = tensor(dtype, 8, 8)
        tensors[f"model.layers.{layer}.input_layernorm.weight"] = tensor(dtype, 8)
    tensors["model.embed_tokens.weight"] = tensor(dtype, 16, 8)
    return tensors


def mlx_model():
    return dict(model("F16"), **{"x.weight": tensor("U32", 8, 8), "x.scales": tensor("F16", 8, 1),
                                 "x.biases": tensor("F16", 8, 1)})


def make_folder(folder, tensors=None, config=LLAMA, header=None, **changes):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    (folder / "tokenizer.model").write_bytes(b"\x00\xffpieces\n")
    write_safetensors(folder / "model.safetensors", tensors or model(), header)
    return folder


def make_shards(folder, tensors, shards=2):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA))
    (folder / "tokenizer.model").write_bytes(b"\x00\xffpieces\n")
    names, index = list(tensors), {}
    for i in range(shards):
        file = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        write_safetensors(folder / file, {name: tensors[name] for name in names[i::shards]})
        index.update({name: file for name in names[i::shards]})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return folder


# ---- running and looking

def run_forked(words):
    """The script in a child of this process, which saves the time that importing numpy takes."""
    sys.stdout.flush()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        pid = os.fork()
        if pid == 0:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            sys.argv, code = ["convert.py", *words], 1
            try:
                code = script.main()
            except SystemExit as e:
                code = e.code
            except BaseException:
                traceback.print_exc()
            sys.stdout.flush()
            os._exit(code or 0)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        out.seek(0), err.seek(0)
        return subprocess.CompletedProcess(words, code, out.read(), err.read())


def run(*words, program=None, reference=False, **options):
    """program, or options of subprocess.run, make it a process of its own. Without a reference the
    output is that of the script alone, whether nibble is built or not."""
    words = [*map(str, words), *([] if reference else ["--no-reference"])]
    if program is None and not options:
        return run_forked(words)
    return subprocess.run([sys.executable, str(program or SCRIPT), *words], capture_output=True,
                          text=True, timeout=60, **options)


def convert(folder, *options):
    """Converts and gives {name: array}, plus stderr."""
    output = folder.parent / f"{folder.name}.npz"
    result = run(folder, "-o", output, *options)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "" and left_over(folder.parent) == [], "left-overs"
    with np.load(output, allow_pickle=False) as npz:
        return {name: npz[name] for name in npz.files}, result.stderr


def config_of(arrays):
    """config.json, without the note of where the model came from."""
    config = json.loads(arrays["config.json"].tobytes())
    assert config.pop("nibble").keys() == {"converter", "source"}
    return config


def left_over(folder):
    return [p.name for p in folder.iterdir() if p.name.startswith(".")]


def check_refused(folder, words, *options, code=1, **how):
    """One sentence on stderr with these words in it, and no file."""
    with tempfile.TemporaryDirectory() as empty:
        result = run(folder, "-o", Path(empty, "model.npz"), *options, **how)
        lines = result.stderr.splitlines()
        assert result.returncode == code, f"exit {result.returncode}: {result.stderr}"
        assert len(lines) == 1 and lines[0].startswith("convert.py: "), result.stderr
        assert words in lines[0], f"'{words}' is not in '{lines[0]}'"
        assert os.listdir(empty) == [] and result.stdout == "", os.listdir(empty)


def members(path):
    """[(name, offset of the data, text of the npy header, local extra field)], from the bytes."""
    data, rows = path.read_bytes(), []
    for info in zipfile.ZipFile(path).infolist():
        at = info.header_offset
        name_bytes, extra_bytes = struct.unpack_from("<HH", data, at + 26)
        extra = data[at + 30 + name_bytes:at + 30 + name_bytes + extra_bytes]
        start = at + 30 + name_bytes + extra_bytes
        assert info.compress_type == zipfile.ZIP_STORED
        assert info.date_time == (1980, 1, 1, 0, 0, 0), "the time of the run is in the file"
        assert data[start:start + 8] == b"\x93NUMPY\x01\x00"
        text_bytes, = struct.unpack_from("<H", data, start + 8)
        text = data[start + 10:start + 10 + text_bytes].decode("ascii")
        rows.append((info.filename, start + 10 + text_bytes, text, extra))
    return rows


def bf16_nearest(value):
    """The bf16 code nearest to a finite f32, ties to even, found by comparing distances."""
    low = struct.unpack("<I", struct.pack("<f", value))[0] >> 16
    decode = lambda code: struct.unpack("<f", struct.pack("<I", code << 16))[0]
    below, above = abs(value - decode(low)), abs(decode(low + 1) - value)
    return low if below < above or (below == above and low % 2 == 0) else low + 1
