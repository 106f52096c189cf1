#!/usr/bin/python3
"""Convert a model to one .npz file that nibble maps as it lies.

  convert.py Llama-3.2-1B -o llama.npz                 keep the type of every tensor
  convert.py Llama-3.2-1B -o llama.npz --dtype f16     one type for all
  convert.py Llama-3.2-1B -o llama.npz --bits 4        quantize (calls nibble quantize)
  convert.py Llama-3.2-1B-Q4_K_M.gguf -o llama.npz     keep what GGUF has quantized

INPUT is one of these, found out by looking:
  - a Hugging Face folder: config.json, usually a tokenizer, and model.safetensors or
    pytorch_model.bin, or shards of either with their index
  - a folder of Meta's: params.json, consolidated.00.pth and so on, tokenizer.model
  - a .bin of llama2.c, with its tokenizer.bin beside it
  - a GGUF file; of one that is split, any part

The .npz holds nothing but arrays: config and tokenizer files as bytes (u1), then the tensors in
layer order under the names they have in the input. Members are stored, not compressed, the data of
each at a multiple of 64 bytes in the file. The same input gives the same bytes.
"""
import argparse
import contextlib
import json
import math
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

try:
    import numpy as np
except ImportError:
    name = os.path.basename(sys.argv[0])
    sys.exit(f"{name}: numpy is missing; install the package python3-numpy")

from checkpoint import ELEMENT_BYTES, Failure, Made, read_chunks, reading
from gguf_file import is_gguf, read_gguf
from hf_folder import FILES, has_weights, read_folder
from llama2c_file import is_llama2c, read_llama2c
from meta_folder import is_meta_folder, read_meta_folder

FAMILIES = ("llama", "mistral", "ministral3", "mixtral", "gemma", "gemma2", "gemma3_text", "phi",
            "phi3", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "olmo", "olmo2", "olmoe", "gpt2",
            "gpt_neox", "falcon", "stablelm", "starcoder2", "smollm3", "granite", "cohere",
            "cohere2", "glm4", "exaone4", "deepseek_v2", "deepseek_v3", "gpt_oss")
ROPE_KINDS = ("default", "linear", "llama3", "yarn", "longrope")
UNUSED = (".rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias")  # endings of tensors to drop

FLOATS = {"F16": "<f2", "BF16": "<V2", "F32": "<f4", "F64": "<f8"}
ARRAYS = dict(FLOATS, U32="<u4", U8="|u1")
ALIGNMENT = 64
ZIP64_FROM = (1 << 31) - 4096  # zipfile wants zip64 from 2 GiB; 4096 is more than an array's header


class Stopped(Exception):
    """A signal asked to stop."""


# ---- signals set a mark; what moves many bytes or waits looks at it

received = []


def catch_signals():
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda number, frame: received.append(number))


def stop_if_asked():
    if received:
        raise Stopped


def chunks(tensor):
    for data in read_chunks(tensor):
        stop_if_asked()
        yield data


# ---- stderr

def program():
    """The name of what runs: tools/random_model.py writes with the functions here too."""
    return os.path.basename(sys.argv[0])


def show_progress(text):
    with contextlib.suppress(OSError):
        if sys.stderr.isatty():
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def say(text):
    show_progress("")
    with contextlib.suppress(OSError):
        print(f"{program()}: {text}", file=sys.stderr, flush=True)


def megabytes(size):
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.2f} MB"


# ---- what there is to convert

def read_input(path, tokenizer):
    """The Checkpoint, and a function that gives sentences to say once all of it has been read. What
    kind of input it is shows by looking at it."""
    if is_llama2c(path):
        return read_llama2c(path, tokenizer), tuple
    if is_meta_folder(path) and not has_weights(path):
        return read_meta_folder(path, tokenizer), tuple
    if tokenizer:
        raise Failure(f"{path} is not of llama2.c or Meta, which --tokenizer is for; put the "
                      "tokenizer into the folder")
    return read_gguf(path, stop_if_asked) if is_gguf(path) else (read_folder(path), tuple)


def with_config(path, config, files):
    """The files in the order of FILES, config.json among them."""
    data = (json.dumps(config, indent=2) + "\n").encode()
    made = Made("config.json", path, "U8", (len(data),), len(data), lambda: iter((data,)))
    files = {made.name: made, **{file.name: file for file in files}}
    return [files[name] for name in FILES if name in files]


# ---- the config: what nibble cannot run is refused before the work, not after

def check_config(path, config):
    family = config.get("model_type")
    if family not in FAMILIES:
        raise Failure(f"{path} has the model_type {json.dumps(family)[:60]}, which nibble does not "
                      f"run; it runs {', '.join(FAMILIES)}")
    check_rope(path, config)
    check_quantization(path, config)


def check_rope(path, config):
    for key in ("rope_scaling.type", "rope_scaling.rope_type", "rope_parameters.rope_type"):
        group, field = key.split(".")
        rope = config.get(group)
        if rope is not None and not isinstance(rope, dict):
            raise Failure(f"{path}: {group} should be an object or null")
        kind = (rope or {}).get(field)
        if kind is not None and kind not in ROPE_KINDS:
            raise Failure(f"{path}: {key} is {json.dumps(kind)[:60]}, which nibble does not run; "
                          f"it runs {', '.join(ROPE_KINDS)}")


def check_quantization(path, config):
    """MLX repeats its own "quantization" as "quantization_config"; any other is foreign."""
    mlx = config.get("quantization") or {}
    mode = mlx.get("mode", "affine") if isinstance(mlx, dict) else mlx
    if mode != "affine":
        raise Failure(f"{path} has the quantization mode {json.dumps(mode)[:60]}; nibble reads "
                      "affine quantization only")
    for key in ("quantization_config", "compression_config"):
        foreign = config.get(key)
        if foreign and foreign != mlx:
            method = foreign.get("quant_method") if isinstance(foreign, dict) else foreign
            raise Failure(f"{path} has a {key} with quant_method {json.dumps(method)[:60]}, which "
                          "nibble does not read; convert the unquantized model, with --bits")


# ---- which tensors, in which type, in which order

def packed_names(tensors):
    """The names of MLX's quantized matrices: u32 codes with floating scales and biases."""
    names = set()
    for name in tensors:
        base = name[:-len("weight")]
        parts = [name, base + "scales", base + "biases"]
        dtypes = [tensors[part].dtype for part in parts if part in tensors]
        if name.endswith(".weight") and dtypes[0] == "U32" and len(dtypes) == 3:
            if {"F16", "BF16", "F32"}.issuperset(dtypes[1:]):
                names.update(parts)
    return names


def stored_dtype(tensor, wanted, packed):
    if tensor.name in FILES:
        raise Failure(f"{tensor.path}: tensor {tensor.name} has the name of a file")
    if tensor.name in packed:
        return tensor.dtype
    if tensor.dtype not in FLOATS:
        raise Failure(f"{tensor.path}: tensor {tensor.name} has the type {tensor.dtype}; weights "
                      "should be F32, F16 or BF16")
    return wanted or ("F32" if tensor.dtype == "F64" else tensor.dtype)


def drop_unused(tensors):
    names = [name for name in tensors if name.endswith(UNUSED)]
    if names:
        say(f"note: left out what nibble has no use for: {', '.join(names[:3])}"
            + (f" and {len(names) - 3} more" if len(names) > 3 else ""))
    return {name: tensor for name, tensor in tensors.items() if name not in names}


def same(a, b):
    return (a.dtype, a.shape) == (b.dtype, b.shape) and all(
        x == y for x, y in zip(chunks(a), chunks(b)))


def drop_tied_output(tensors, config):
    """With tied embeddings the output is the embedding, whatever else the file holds."""
    if config.get("tie_word_embeddings") is not True or "model.embed_tokens.weight" not in tensors:
        return
    for end in ("weight", "scales", "biases"):
        output = tensors.pop(f"lm_head.{end}", None)
        embedding = tensors.get(f"model.embed_tokens.{end}")
        if output:
            equal = embedding and same(output, embedding)
            say(f"note: left out {output.name}, which " + (
                "equals the embedding" if equal else "differs from the embedding although "
                "config.json ties them; the embedding is used, as in transformers"))


def layer_order(name):
    """Embedding, layers by number, then the final norm and the output: as a run reads them."""
    layer = re.search(r"\blayers\.(\d+)\.", name)
    rank = 1 if layer else 0 if "embed" in name else 2
    return rank, int(layer[1]) if layer else 0, name.startswith("lm_head."), name


# ---- numbers: every conversion goes through f32, in which f16 and bf16 lose nothing

def as_f32(data, dtype):
    if dtype == "BF16":
        return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")
    return np.frombuffer(data, FLOATS[dtype]).astype("<f4")


def as_bf16(values):
    """Rounds to nearest, ties to even; a NaN stays one."""
    bits = values.view("<u4")
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return np.where(np.isnan(values), bits >> 16 | 0x40, rounded).astype("<u2")


def from_f32(values, dtype):
    return as_bf16(values) if dtype == "BF16" else values.astype(FLOATS[dtype])


def convert_chunk(data, tensor, dtype):
    if dtype == tensor.dtype:
        return data
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        values = as_f32(data, tensor.dtype)
        result = from_f32(values, dtype)
    before = np.frombuffer(data, "<f8") if tensor.dtype == "F64" else values
    if np.isinf(as_f32(result, dtype)).sum() != np.isinf(before).sum():
        raise Failure(f"{tensor.path}: tensor {tensor.name} has values too large for "
                      f"{dtype.lower()}; choose another --dtype")
    return result.tobytes()


# ---- writing

def npy_header(dtype, shape, start):
    """A header for byte start of the file, padded so that the data after it lie aligned."""
    text = f"{{'descr': '{ARRAYS[dtype]}', 'fortran_order': False, 'shape': {shape}, }}"
    text += " " * (-(start + 10 + len(text) + 1) % ALIGNMENT) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode("ascii")


def converted(tensor, dtype):
    for chunk in chunks(tensor):
        yield convert_chunk(chunk, tensor, dtype)


def stored_bytes(tensor, dtype):
    return math.prod(tensor.shape) * ELEMENT_BYTES[dtype]


def write_member(archive, out, tensor, dtype, pieces):
    """Yields the sizes of the pieces as they are written."""
    info = zipfile.ZipInfo(tensor.name + ".npy", (1980, 1, 1, 0, 0, 0))
    info.create_system = 3  # Unix, on every system
    zip64 = stored_bytes(tensor, dtype) >= ZIP64_FROM
    with archive.open(info, "w", force_zip64=zip64) as entry:
        # zipfile has written the local header, zip64 field included: the array begins here.
        entry.write(npy_header(dtype, tensor.shape, out.tell()))
        for piece in pieces:
            entry.write(piece)
            yield len(piece)


def write_npz(path, members, pieces_of=converted):
    """members: [(tensor, dtype)]; pieces_of(tensor, dtype) gives the bytes to store, piece by
    piece. On a terminal, shows how far it is once it takes longer than a second."""
    total, done, due = sum(stored_bytes(*member) for member in members), 0, time.monotonic() + 1
    with open(path, "wb") as out, zipfile.ZipFile(out, "w") as archive:
        for member in members:
            for size in write_member(archive, out, *member, pieces_of(*member)):
                done += size
                if time.monotonic() > due:
                    show_progress(f"{program()}: {done * 100 // total}% of {megabytes(total)}")
                    due = time.monotonic() + 0.2
    show_progress("")


@contextlib.contextmanager
def scratch_folder(output):
    """A folder beside the output, gone with all that is in it whatever happens."""
    folder = output.parent / f".nibble-{secrets.token_hex(4)}.tmp"
    try:
        folder.mkdir()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# ---- quantizing is nibble's work

def find_nibble(given):
    beside = Path(__file__).resolve().parent.parent / "build" / "release" / "nibble"
    if given:
        found = shutil.which(os.path.abspath(given))
        if not found:
            raise Failure(f"{given} is not a program; build nibble with make, or leave out --bits")
        return found
    found = shutil.which(str(beside)) or shutil.which("nibble")
    if not found:
        raise Failure(f"--bits needs nibble, which is neither {beside} nor in PATH; build it with "
                      "make, or name it with --nibble")
    return os.path.abspath(found)


def quantize(nibble, args, source, target):
    """Works in the scratch folder, so that whatever nibble leaves there goes with it."""
    command = [nibble, "quantize", f"./{source.name}", f"./{target.name}",
               "--bits", str(args.bits), "--group-size", str(args.group_size or 64)]
    if args.embed_bits:
        command += ["--embed-bits", str(args.embed_bits)]
    with subprocess.Popen(command, cwd=target.parent, stdin=subprocess.DEVNULL,
                          stdout=subprocess.DEVNULL) as child:
        try:
            while child.poll() is None:
                stop_if_asked()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(0.1)
        finally:
            child.kill()
    stop_if_asked()  # Ctrl-C reaches nibble too: that is no failure of its own
    if child.returncode or not target.is_file():
        raise Failure(f"nibble quantize failed with exit status {child.returncode}")


# ---- the command

def plan(args):
    """What to write, [(tensor, dtype)], and a function that gives sentences to say once that has
    been done; all that can be refused beforehand is refused here."""
    (config, files, tensors), notes = read_input(args.input, args.tokenizer)
    files = with_config(args.input, config, files)
    check_config(files[0].path, config)
    packed = packed_names(tensors)
    if packed and args.bits:
        raise Failure(f"{args.input} is quantized already; leave out --bits")
    tensors = drop_unused(tensors)
    wanted = args.dtype and args.dtype.upper()
    dtypes = {name: stored_dtype(tensor, wanted, packed) for name, tensor in tensors.items()}
    drop_tied_output(tensors, config)
    if not {"tokenizer.model", "tokenizer.json"}.intersection(file.name for file in files):
        say("note: no tokenizer that nibble reads, so it will take and give token ids only")
    return ([(file, file.dtype) for file in files]
            + [(tensors[name], dtypes[name]) for name in sorted(tensors, key=layer_order)]), notes


def check_output(output):
    if not output.parent.is_dir() or output.is_dir():
        raise Failure(f"cannot write {output}; name a file in a folder that exists")


def convert(args):
    check_output(args.output)
    nibble = find_nibble(args.nibble) if args.bits else None
    with reading(args.input):
        members, notes = plan(args)
    with scratch_folder(args.output) as scratch:
        result = scratch / args.output.name
        if nibble:
            unquantized = scratch / f"unquantized-{args.output.name}"
            write_npz(unquantized, members)
            quantize(nibble, args, unquantized, result)
        else:
            write_npz(result, members)
        stop_if_asked()
        os.replace(result, args.output)
    for note in notes():
        say(note)


def report(output, seconds):
    with zipfile.ZipFile(output) as archive:
        arrays = len(archive.namelist())
    say(f"{arrays} arrays, {megabytes(output.stat().st_size)}, {seconds:.1f} s: {output}")


class Parser(argparse.ArgumentParser):
    def error(self, message):
        say(f"{message}; see {self.prog} --help")
        sys.exit(2)


def parse_arguments():
    parser = Parser(prog=program(), description=__doc__, allow_abbrev=False,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    add, bits = parser.add_argument, (2, 3, 4, 5, 6, 8)
    add("input", metavar="INPUT", type=Path, help="a model's folder or file, see above")
    add("-o", "--output", metavar="FILE", type=Path, required=True,
        help="the .npz to write; it appears, or is replaced, when all is done")
    add("--dtype", choices=("f32", "f16", "bf16"),
        help="type of all weights (default: what each tensor has, f64 as f32)")
    add("--tokenizer", metavar="FILE", type=Path,
        help="llama2.c and Meta: a tokenizer.bin or tokenizer.model that lies elsewhere")
    add("--bits", type=int, choices=bits, help="quantize to so many bits a weight")
    add("--group-size", type=int, choices=(32, 64, 128),
        help="with --bits: weights that share a scale (default: 64)")
    add("--embed-bits", type=int, choices=bits,
        help="with --bits: bits of the embedding and a tied output (default: as the rest)")
    add("--nibble", metavar="PATH", help="with --bits: the nibble program (default: "
        "../build/release/nibble beside this script, then the one in PATH)")
    args = parser.parse_args()
    if args.output.suffix != ".npz":
        parser.error(f"the output {args.output} should end in .npz")
    if not args.bits and (args.group_size or args.embed_bits or args.nibble):
        parser.error("--group-size, --embed-bits and --nibble go with --bits")
    return args


def finish(work, args):
    """Does work(args), which makes args.output, and says how that went; the exit status."""
    started = time.monotonic()
    try:
        work(args)
        report(args.output, time.monotonic() - started)
        return 0
    except Failure as e:
        say(e)
    except Stopped:
        say(f"stopped by {signal.Signals(received[0]).name}; nothing was written")
        return 128 + received[0]
    except MemoryError:
        say("there is not enough memory")
    except OSError as e:
        say(f"cannot write {args.output}: {e.strerror or e}")
    return 1


def main():
    catch_signals()
    return finish(convert, parse_arguments())


if __name__ == "__main__":
    sys.exit(main())
