#!/usr/bin/python3
"""Write a model of random weights to measure a machine with: the shape of a real one, no download.

  random_model.py tinyllama-1.1b -o tl.npz                          4 bits, groups of 64
  random_model.py llama-7b -o l7.npz --bits 8 --group-size 32
  random_model.py stories-110m -o s.npz --dtype f16                 not quantized
  random_model.py tinyllama-1.1b -o tl.npz --tokenizer FILE_OR_FOLDER
  random_model.py --list

The file is of the kind that scripts/convert.py and nibble quantize write: config.json, the
tokenizer if one is given, then the tensors in the order of a run. The config has the numbers of the
published model but for its end tokens. Speed and memory are those of the real model; what it says
is noise.

Weights have mean 0 and standard deviation 0.02, norms are 1. They come from blocks of random
numbers that repeat through the file: it takes little longer than the disk needs, and a larger model
takes no more memory. The length of a block is prime, so that each row of a matrix begins at another
place of it and no two are equal. The same seed gives the same bytes.
"""
import argparse
import functools
import json
import os
import shutil
import sys
from collections import namedtuple
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
import convert  # which says how a run failed
import numpy as np
from checkpoint import Failure, Tensor, whole_file
from console import catch_signals, megabytes, program, say, stop_if_asked
from hf_folder import FILES
from npz_write import converted, from_f32, stored_bytes, write_npz

# window: tokens that one attends to, 0: all. llama3: factor of that kind of RoPE scaling, 0: none.
# tiny is for tests; the stories are llama2.c's; llama-7b is Llama 2's, mistral-7b v0.1.
TABLE = """\
name           family  layers  dim hidden heads kv_heads  vocab context window  theta llama3 tied
tiny           llama        2  128    256     4        2    512     256      0  10000      0    1
stories-15m    llama        6  288    768     6        6  32000     256      0  10000      0    1
stories-42m    llama        8  512   1376     8        8  32000    1024      0  10000      0    1
stories-110m   llama       12  768   2048    12       12  32000    1024      0  10000      0    1
tinyllama-1.1b llama       22 2048   5632    32        4  32000    2048      0  10000      0    0
llama-3.2-1b   llama       16 2048   8192    32        8 128256  131072      0 500000     32    1
llama-3.2-3b   llama       28 3072   8192    24        8 128256  131072      0 500000     32    1
llama-7b       llama       32 4096  11008    32       32  32000    4096      0  10000      0    0
mistral-7b     mistral     32 4096  14336    32        8  32000   32768   4096  10000      0    0
llama-3.1-8b   llama       32 4096  14336    32        8 128256  131072      0 500000      8    0
"""

WEIGHT_STD = 0.02
BLOCK = 1048573  # elements of a block of random numbers; a prime, see above
MEMBER = 1024    # bytes, more than the headers of a member take


def read_table():
    names, *rows = map(str.split, TABLE.splitlines())
    kind = namedtuple("Shape", names)
    return {row[0]: kind(*row[:2], *map(int, row[2:])) for row in rows}


SHAPES = read_table()


# ---- what is in the model

def modules_of(s):
    """[(module, shape)] in the order of a run; a norm's shape is one number."""
    keys, embedding = s.dim // s.heads * s.kv_heads, (s.vocab, s.dim)
    layer = {"input_layernorm": (s.dim,), "self_attn.q_proj": (s.dim, s.dim),
             "self_attn.k_proj": (keys, s.dim), "self_attn.v_proj": (keys, s.dim),
             "self_attn.o_proj": (s.dim, s.dim), "post_attention_layernorm": (s.dim,),
             "mlp.gate_proj": (s.hidden, s.dim), "mlp.up_proj": (s.hidden, s.dim),
             "mlp.down_proj": (s.dim, s.hidden)}
    layers = [(f"model.layers.{n}.{module}", shape) for n in range(s.layers)
              for module, shape in layer.items()]
    output = [] if s.tied else [("lm_head", embedding)]
    return [("model.embed_tokens", embedding), *layers, ("model.norm", (s.dim,)), *output]


def bits_of(module, shape, args):
    """0: not quantized. The rules are those of nibble quantize."""
    if not args.bits or len(shape) < 2 or shape[1] % args.group_size:
        return 0
    return args.embed_bits if module == "model.embed_tokens" else args.bits


def quantization(modules, args):
    """The config's object: a width for all, then the matrices that differ."""
    common = {"group_size": args.group_size, "bits": args.bits}
    widths = {module: bits_of(module, shape, args) for module, shape in modules if len(shape) == 2}
    return {**common, **{module: {**common, "bits": bits} if bits else False
                         for module, bits in widths.items() if bits != args.bits}}


def config_of(s, modules, args):
    config = {
        "model_type": s.family, "hidden_size": s.dim, "intermediate_size": s.hidden,
        "num_hidden_layers": s.layers, "num_attention_heads": s.heads,
        "num_key_value_heads": s.kv_heads, "head_dim": s.dim // s.heads, "vocab_size": s.vocab,
        "max_position_embeddings": s.context, "hidden_act": "silu", "rms_norm_eps": 1e-5,
        "rope_theta": float(s.theta), "tie_word_embeddings": bool(s.tied)}
    if s.window:
        config["sliding_window"] = s.window
    if s.llama3:
        config["rope_scaling"] = {
            "rope_type": "llama3", "factor": float(s.llama3), "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    if args.bits:
        config["quantization"] = quantization(modules, args)
    return config


def find_tokenizer(path):
    """The tokenizer's files, under the names that they have in a model."""
    if path.is_dir():
        files = [whole_file(path / name) for name in FILES
                 if name.startswith("tokenizer") and os.path.lexists(path / name)]
        if not {"tokenizer.model", "tokenizer.json"}.intersection(file.name for file in files):
            raise Failure(f"{path} holds neither tokenizer.model nor tokenizer.json; give the "
                          "folder or the file of a tokenizer")
        return files
    if path.suffix not in (".model", ".json"):
        raise Failure(f"{path} is neither a folder nor a tokenizer's file, which ends in .model or "
                      ".json; give one of these")
    return [whole_file(path)._replace(name="tokenizer" + path.suffix)]


# ---- its bytes

class Stream:
    """Bytes that repeat: each piece taken begins where the last one ended."""

    def __init__(self, values):
        self.bytes, self.at = memoryview(values).cast("B"), 0

    def take(self, size):
        while size:
            stop_if_asked()
            piece = self.bytes[self.at:self.at + size]
            self.at = (self.at + len(piece)) % len(self.bytes)
            size -= len(piece)
            yield piece


def steps(seed, bits):
    """Scales for uniform codes, so that weights get their deviation. Like a real model's they
    differ from group to group, and half of them are negative."""
    rng = np.random.default_rng((seed, bits))
    values = rng.uniform(0.5, 1.5, BLOCK) * rng.choice((-1, 1), BLOCK)
    code_variance, step_variance = (4 ** bits - 1) / 12, 13 / 12
    return (values * WEIGHT_STD / (code_variance * step_variance) ** 0.5).astype("<f2")


def block(kind, dtype, bits, seed):
    if kind == "scales":
        return steps(seed, bits)
    if kind == "biases":  # half the codes' range below zero
        return (steps(seed, bits) * np.float32((1 - 2 ** bits) / 2)).astype("<f2")
    rng = np.random.default_rng(seed)
    if kind == "codes":  # any bits are uniform codes of any width
        return rng.integers(0, 1 << 32, BLOCK, "<u4")
    values = np.ones(BLOCK, "<f4") if kind == "ones" else rng.standard_normal(BLOCK, "<f4")
    return from_f32(values if kind == "ones" else values * np.float32(WEIGHT_STD), dtype)


# An array to be written, its bytes taken from a stream.
Array = namedtuple("Array", "name shape stream")


def arrays_of(module, shape, bits, args, stream):
    """[(array, dtype)] of a module; stream(kind, dtype, bits) gives the source of each."""
    if not bits:
        kind, dtype = "normal" if len(shape) == 2 else "ones", (args.dtype or "f16").upper()
        return [(Array(f"{module}.weight", shape, stream(kind, dtype, 0)), dtype)]
    rows, cols = shape
    words, groups = (rows, cols * bits // 32), (rows, cols // args.group_size)
    return [(Array(f"{module}.weight", words, stream("codes", "U32", 0)), "U32"),
            (Array(f"{module}.scales", groups, stream("scales", "F16", bits)), "F16"),
            (Array(f"{module}.biases", groups, stream("biases", "F16", bits)), "F16")]


def note_kept(modules, args):
    kept = [module for module, shape in modules
            if len(shape) == 2 and not bits_of(module, shape, args)]
    if kept and args.bits:
        say(f"note: {len(kept)} matrices stay f16, as nibble quantize would leave them: "
                    f"their columns are no multiple of the group size {args.group_size}")


def plan(args):
    """[(array or file, dtype)]: all that is in the model."""
    stream = functools.cache(lambda *kind: Stream(block(*kind, args.seed)))
    modules = modules_of(args.shape)
    note_kept(modules, args)
    text = np.frombuffer(json.dumps(config_of(args.shape, modules, args), indent=2).encode(), "u1")
    files = find_tokenizer(args.tokenizer) if args.tokenizer else []
    return ([(Array("config.json", text.shape, Stream(text)), "U8")]
            + [(file, file.dtype) for file in files]
            + [array for module, shape in modules
               for array in arrays_of(module, shape, bits_of(module, shape, args), args, stream)])


def pieces_of(source, dtype):
    if isinstance(source, Tensor):
        return converted(source, dtype)
    return source.stream.take(stored_bytes(source, dtype))


# ---- the command

def check_room(args, members):
    size = sum(stored_bytes(*member) + MEMBER for member in members)
    free = shutil.disk_usage(args.output.parent).free
    if size > free:
        raise Failure(f"{args.output} would take {megabytes(size)}, but its disk has "
                      f"{megabytes(free)} left; name a file on another one")


def write_model(args):
    convert.check_output(args.output)
    if os.path.lexists(args.output) and not args.force:
        raise Failure(f"{args.output} exists; give another name, or --force to replace it")
    members = plan(args)
    check_room(args, members)
    with convert.scratch_folder(args.output) as scratch:
        write_npz(scratch / args.output.name, members, pieces_of)
        stop_if_asked()
        os.replace(scratch / args.output.name, args.output)


def describe_shapes():
    """The table, the number of weights before each row."""
    names, *rows = TABLE.splitlines()
    yield f"{'weights':>8}  {names}"
    for row, shape in zip(rows, SHAPES.values()):
        weights = sum(int(np.prod(shape)) for _, shape in modules_of(shape))
        yield f"{weights / 1e6:6.1f} M  {row}"


def make_parser():
    parser = convert.Parser(prog=program(), description=__doc__, allow_abbrev=False,
                            formatter_class=argparse.RawDescriptionHelpFormatter)
    add, bits = parser.add_argument, (2, 3, 4, 5, 6, 8)
    add("shape", metavar="SHAPE", nargs="?", choices=SHAPES, help="the model to be like")
    add("-o", "--output", metavar="FILE", type=Path, help="the .npz to write, when all is done")
    add("--list", action="store_true", help="print the shapes that are known")
    add("--bits", type=int, choices=bits, help="bits of a weight (default: 4)")
    add("--group-size", type=int, choices=(32, 64, 128),
        help="weights that share a scale (default: 64)")
    add("--embed-bits", type=int, choices=bits,
        help="bits of the embedding and a tied output (default: as the rest)")
    add("--dtype", choices=("f32", "f16", "bf16"), help="do not quantize: the type of all weights")
    add("--tokenizer", metavar="PATH", type=Path, help="a folder with tokenizer.model, or such a "
        "file; it should not have more pieces than the shape's vocabulary")
    add("--seed", type=int, default=0, help="of the random numbers (default: 0)")
    add("--force", action="store_true", help="replace FILE if it exists")
    return parser


def parse_arguments():
    parser = make_parser()
    args = parser.parse_args()
    if args.list:
        return args
    if not args.shape or not args.output:
        parser.error("a shape and an output are needed, as in: tinyllama-1.1b -o tl.npz")
    if args.output.suffix != ".npz":
        parser.error(f"the output {args.output} should end in .npz")
    if args.seed < 0:
        parser.error("--seed should not be negative")
    if args.dtype and (args.bits or args.group_size or args.embed_bits):
        parser.error("--dtype is for weights that are not quantized; leave out --bits, "
                     "--group-size and --embed-bits")
    if not args.dtype:
        args.bits, args.group_size = args.bits or 4, args.group_size or 64
        args.embed_bits = args.embed_bits or args.bits
    args.shape = SHAPES[args.shape]
    return args


def main():
    catch_signals()
    args = parse_arguments()
    if args.list:
        print("\n".join(describe_shapes()))
        return 0
    return convert.finish(write_model, args)


if __name__ == "__main__":
    sys.exit(main())
