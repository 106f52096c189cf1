#!/usr/bin/python3
"""Convert a model to one .npz file that nibble maps as it lies.

  convert.py Llama-3.2-1B -o llama.npz                 keep the type of every tensor
  convert.py Llama-3.2-1B -o llama.npz --dtype f16     one type for all
  convert.py Llama-3.2-1B -o llama.npz --bits 4        quantize (calls nibble quantize)
  convert.py Llama-3.2-1B -o llama.npz --bits 3 --mixed    and what loses most in 6 bits
  convert.py Llama-3.2-1B-Q4_K_M.gguf -o llama.npz     keep what GGUF has quantized

INPUT is one of these, found out by looking:
  - a Hugging Face folder: config.json, usually a tokenizer, and model.safetensors or
    pytorch_model.bin, or shards of either with their index
  - a folder of MLX, which may be quantized: the same, or weights.npz, or shards weights.00.npz and
    so on (also .safetensors), with config.json or params.json
  - a folder of Meta's: params.json, consolidated.00.pth and so on, tokenizer.model
  - a .bin of llama2.c, with its tokenizer.bin beside it
  - a GGUF file; of one that is split, any part

The .npz holds nothing but arrays: config and tokenizer files as bytes (u1), then the tensors in
layer order under the names they have in the input, those of several matrices in one piece. What is
quantized already stays as it is. Members are stored, not compressed, the data of each at a multiple
of 64 bytes in the file. The same input gives the same bytes.

config.json is written in one spelling, that of Hugging Face with RoPE in rope_theta and
rope_scaling, whatever the input has; its object "nibble" says where the model came from. A chat
template is run on probe conversations (with Jinja, package python3-jinja2), and what it writes
around messages is stored as chat_segments.json.
"""
import argparse
import contextlib
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
    import numpy  # noqa: F401
except ImportError:
    name = os.path.basename(sys.argv[0])
    sys.exit(f"{name}: numpy is missing; install the package python3-numpy")

from chat_template import SEGMENTS, segments_file
from checkpoint import Failure, Made, reading
from console import (Stopped, catch_signals, chunks, megabytes, program, received, say,
                     stop_if_asked)
from gguf_file import is_gguf, read_gguf
from hf_folder import FILES, has_weights, read_folder
from llama2c_file import is_llama2c, read_llama2c
from meta_folder import is_meta_folder, read_meta_folder
from model_config import check_config, config_bytes, source_of, text_of
from npz_write import FLOATS, write_npz

# Endings of tensors that nibble makes anew when it opens a model: RoPE's frequencies, causal masks.
TABLES = (".rotary_emb.inv_freq", "rope.freqs", ".attn.bias", ".attn.masked_bias",
          ".attention.bias", ".attention.masked_bias")
LAYER = re.compile(r"(?:^|\.)(?:layers|h)\.(\d{1,9})\.")
EMBEDDING = re.compile(r"(?:^|\.)(embed_tokens|tok_embeddings|wte|wpe|word_embeddings|embed_in)\.")
OUTPUT = re.compile(r"(?:^|\.)(lm_head|output|embed_out)\.")

# Quantized matrices: the endings of the names of their parts, with the types that these have.
SCALES = ("F16", "BF16", "F32")
PACKED = ({".weight": ("U32",), ".scales": SCALES, ".biases": SCALES},  # MLX's affine
          {".weight": ("U32",), ".scales": ("U8",)},                    # its mxfp4
          {"_blocks": ("U8",), "_scales": ("U8",)})                     # that of gpt-oss


# ---- what there is to convert

FORMS = {".safetensors": "safetensors", ".npz": "npz"}  # of a folder's weights; else PyTorch's


def read_input(path, tokenizer):
    """The Checkpoint, a word for its format, and a function that gives sentences to say once all of
    it has been read. What kind of input it is shows by looking at it."""
    if is_llama2c(path):
        return read_llama2c(path, tokenizer), "llama2.c", tuple
    if is_meta_folder(path) and not has_weights(path):
        return read_meta_folder(path, tokenizer), "meta", tuple
    if tokenizer:
        raise Failure(f"{path} is not of llama2.c or Meta, which --tokenizer is for; put the "
                      "tokenizer into the folder")
    if is_gguf(path):
        checkpoint, notes = read_gguf(path, stop_if_asked)
        return checkpoint, "gguf", notes
    checkpoint = read_folder(path)
    suffix = next(iter(checkpoint.tensors.values())).path.suffix
    return checkpoint, FORMS.get(suffix, "pytorch"), tuple


def config_file(path, config, form):
    data = config_bytes(path, config, source_of(path, form))
    return Made("config.json", path, "U8", (len(data),), len(data), lambda: iter((data,)))


def with_segments(path, files):
    """The files, with the segments of the chat template, unless they are there already."""
    if any(file.name == SEGMENTS for file in files):
        return files
    segments, notes = segments_file(path, files)
    for note in notes:
        say(note)
    return [*files, segments] if segments else files


def in_order(files):
    files = {file.name: file for file in files}
    return [files[name] for name in FILES if name in files]


# ---- which tensors, in which type, in which order

def packed_names(tensors):
    """The names of all parts of quantized matrices, which are kept as they are."""
    names = set()
    for name in tensors:
        for kind in PACKED:
            base = name.removesuffix(next(iter(kind)))
            parts = {base + end: dtypes for end, dtypes in kind.items()}
            if base != name and all(part in tensors and tensors[part].dtype in dtypes
                                    for part, dtypes in parts.items()):
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


def layers_left_out(config):
    """Those behind the last, which guess further tokens; config is that of the model of text."""
    count, more = (config.get(key) for key in ("num_hidden_layers", "num_nextn_predict_layers"))
    whole = type(count) is int and type(more) is int
    return range(count, count + more) if whole else range(0)


def root_of(tensors):
    """What all names of the model of text begin with, if there is one of images beside it."""
    roots = {root[0] for name in tensors if EMBEDDING.search(name)
             for root in [re.match(r"(?:model\.)?language_model\.", name)] if root}
    return roots.pop() if len(roots) == 1 else ""


def drop_unused(tensors, config):
    extra, root = layers_left_out(config), root_of(tensors)

    def is_unused(name):
        layer = LAYER.search(name)
        return (name.endswith(TABLES) or (layer is not None and int(layer[1]) in extra)
                or not (name.startswith(root) or OUTPUT.match(name)))

    names = [name for name in tensors if is_unused(name)]
    if names:
        say(f"note: left out what nibble has no use for: {', '.join(names[:3])}"
            + (f" and {len(names) - 3} more" if len(names) > 3 else ""))
    return {name: tensor for name, tensor in tensors.items() if not is_unused(name)}


def same(a, b):
    return (a.dtype, a.shape) == (b.dtype, b.shape) and all(
        x == y for x, y in zip(chunks(a), chunks(b)))


def tied_outputs(tensors):
    """[(output, embedding)]: the parts of both matrices by name."""
    outputs = [name for name in tensors if OUTPUT.search(name) and not LAYER.search(name)]
    embeddings = {name.rsplit(".", 1)[1]: name for name in tensors
                  if EMBEDDING.search(name) and not name.endswith("wpe.weight")}
    return [(name, embeddings.get(name.rsplit(".", 1)[1])) for name in outputs if embeddings
            and not name.endswith(".bias")]


def drop_tied_output(tensors, config):
    """With tied embeddings the output is the embedding, whatever else the file holds."""
    if config.get("tie_word_embeddings") is not True:
        return
    for name, embedding in tied_outputs(tensors):
        output = tensors.pop(name)
        equal = embedding and same(output, tensors[embedding])
        say(f"note: left out {name}, which " + (
            "equals the embedding" if equal else "differs from the embedding although config.json "
            "ties them; the embedding is used, as in transformers"))


def reading_order(name):
    """Embedding, layers by number, then the final norm and the output, as a run reads them; what
    else is numbered, as experts are, goes by number too."""
    layer = LAYER.search(name)
    rank = 1 if layer else 0 if EMBEDDING.search(name) else 3 if OUTPUT.search(name) else 2
    parts = re.split(r"(\d+)", name)
    return rank, int(layer[1]) if layer else 0, [int(p) if i % 2 else p
                                                 for i, p in enumerate(parts)]


@contextlib.contextmanager
def scratch_folder(output):
    """A folder beside the output, gone with all that is in it whatever happens."""
    folder = output.parent / f".nibble-{secrets.token_hex(4)}.tmp"
    try:
        folder.mkdir()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# ---- what is nibble's work

def find_nibble(given, needed):
    """The program; None if it is nowhere and only a reference was to be had of it."""
    beside = Path(__file__).resolve().parent.parent / "build" / "release" / "nibble"
    if given:
        found = shutil.which(os.path.abspath(given))
        if not found:
            raise Failure(f"{given} is not a program; build nibble with make, or leave it out")
        return found
    found = shutil.which(str(beside)) or shutil.which("nibble")
    if needed and not found:
        raise Failure(f"--bits needs nibble, which is neither {beside} nor in PATH; build it with "
                      "make, or name it with --nibble")
    return found and os.path.abspath(found)


def run_nibble(command, folder, **streams):
    """Works in the scratch folder, so that whatever nibble leaves there goes with it."""
    with subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL,
                          stdout=subprocess.DEVNULL, **streams) as child:
        try:
            while child.poll() is None:
                stop_if_asked()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(0.1)
        finally:
            child.kill()
        text = child.stderr.read().decode(errors="replace") if child.stderr else ""
    stop_if_asked()  # Ctrl-C reaches nibble too: that is no failure of its own
    return child.returncode, text


def quantize(nibble, args, source, target):
    command = [nibble, "quantize", f"./{source.name}", f"./{target.name}",
               "--bits", str(args.bits), "--group-size", str(args.group_size or 64)]
    for option, value in (("--embed-bits", args.embed_bits), ("--high-bits", args.high_bits)):
        command += [option, str(value)] if value else []
    command += ["--mixed"] if args.mixed else []
    code, _ = run_nibble(command, target.parent)
    if code or not target.is_file():
        raise Failure(f"nibble quantize failed with exit status {code}")


def store_reference(nibble, target):
    """What the model answers to a few tokens, with which 'nibble verify' can compare later."""
    command = [nibble, "verify", f"./{target.name}", "--write-reference", "--quiet"]
    code, text = run_nibble(command, target.parent, stderr=subprocess.PIPE)
    if code:
        why = text.partition("\n")[0].removeprefix("nibble: ") or f"exit status {code}"
        say(f"note: no reference for 'nibble verify' is stored: {why}")


# ---- the command

def plan(args):
    """What to write, [(tensor, dtype)], and a function that gives sentences to say once that has
    been done; all that can be refused beforehand is refused here."""
    (config, files, tensors), form, notes = read_input(args.input, args.tokenizer)
    written = next((file.path for file in files if file.name == "config.json"), args.input)
    check_config(written, config)
    files = with_segments(args.input, files)
    files = in_order([*files, config_file(args.input, config, form)])
    packed = packed_names(tensors)
    if packed and args.bits:
        raise Failure(f"{args.input} is quantized already; leave out --bits")
    text = text_of(config)
    tensors = drop_unused(tensors, text)
    wanted = args.dtype and args.dtype.upper()
    dtypes = {name: stored_dtype(tensor, wanted, packed) for name, tensor in tensors.items()}
    drop_tied_output(tensors, text)
    if not {"tokenizer.model", "tokenizer.json"}.intersection(file.name for file in files):
        say("note: no tokenizer that nibble reads, so it will take and give token ids only")
    return ([(file, file.dtype) for file in files]
            + [(tensors[name], dtypes[name]) for name in sorted(tensors, key=reading_order)]), notes


def check_output(output):
    if not output.parent.is_dir() or output.is_dir():
        raise Failure(f"cannot write {output}; name a file in a folder that exists")


def convert(args):
    check_output(args.output)
    nibble = find_nibble(args.nibble, args.bits)
    with reading(args.input):
        members, notes = plan(args)
    with scratch_folder(args.output) as scratch:
        result = scratch / args.output.name
        if args.bits:  # which stores a reference too
            unquantized = scratch / f"unquantized-{args.output.name}"
            write_npz(unquantized, members)
            quantize(nibble, args, unquantized, result)
        else:
            write_npz(result, members)
            if nibble and not args.no_reference:
                store_reference(nibble, result)
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


def check_bits(parser, args):
    if not args.bits and (args.group_size or args.embed_bits or args.mixed):
        parser.error("--group-size, --embed-bits and --mixed go with --bits")
    if args.high_bits and not args.mixed:
        parser.error("--high-bits goes with --mixed")
    if args.mixed and (args.high_bits or 8) <= args.bits:
        parser.error(f"--mixed needs more bits for some than --bits {args.bits} for the others")


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
    add("--mixed", action="store_true", help="with --bits: more bits for what loses most: the "
        "embedding, the output, and in some layers values and down projections, as MLX has it")
    add("--high-bits", type=int, choices=bits,
        help="with --mixed: how many (default: 6, or 8 if --bits is over 4)")
    add("--no-reference", action="store_true",
        help="do not run the model to store what 'nibble verify' compares with")
    add("--nibble", metavar="PATH", help="the nibble program, which quantizes and makes the "
        "reference (default: ../build/release/nibble beside this script, then the one in PATH)")
    args = parser.parse_args()
    if args.output.suffix != ".npz":
        parser.error(f"the output {args.output} should end in .npz")
    check_bits(parser, args)
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
