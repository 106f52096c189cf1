"""Folders as Meta publishes Llama: params.json, consolidated.00.pth and so on, tokenizer.model.

A model for several GPUs comes in as many files, each with a part of every matrix.
"""
import functools
import itertools
import json
import re

from checkpoint import CHUNK, Checkpoint, Failure, Made, read_chunks, read_json, whole_file
from torch_file import read_torch

ROWS, COLS, SAME = 0, 1, None  # how a matrix is cut; a norm is in every file
CUTS = {"wq": ROWS, "wk": ROWS, "wv": ROWS, "w1": ROWS, "w3": ROWS, "output": ROWS, "wo": COLS,
        "w2": COLS, "attention_norm": SAME, "ffn_norm": SAME, "norm": SAME}
LLAMA_3 = {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0,
           "original_max_position_embeddings": 8192}


def is_meta_folder(folder):
    return folder.is_dir() and any(folder.glob("consolidated*.pth"))


# ---- one matrix from its parts

def blocks_of(tensor, block_bytes):
    """Its bytes in pieces of that size, and a shorter one at the end."""
    rest = b""
    for chunk in read_chunks(tensor):
        rest += chunk
        whole = len(rest) - len(rest) % block_bytes
        for start in range(0, whole, block_bytes):
            yield rest[start:start + block_bytes]
        rest = rest[whole:]
    if rest:
        yield rest


def beside(parts):
    """Pieces of the matrix whose columns lie in parts."""
    row_bytes = parts[0].size // parts[0].shape[0]
    rows = max(1, CHUNK // (row_bytes * len(parts)))
    for blocks in zip(*(blocks_of(part, rows * row_bytes) for part in parts)):
        yield b"".join(block[start:start + row_bytes]
                       for start in range(0, len(blocks[0]), row_bytes) for block in blocks)


def below(parts):
    return itertools.chain.from_iterable(map(read_chunks, parts))


def cut_of(tensor, dim):
    """The embedding is cut by columns up to Llama 2, by rows since: its width tells."""
    module = tensor.name.removesuffix(".weight").split(".")[-1]
    if module == "tok_embeddings":
        return ROWS if tensor.shape[1:] == (dim,) else COLS
    if module not in CUTS:
        raise Failure(f"{tensor.path}: no rule joins the parts of tensor {tensor.name}; convert "
                      "the Hugging Face version of this model")
    return CUTS[module]


def join(parts, dim):
    first = parts[0]
    axis = cut_of(first, dim)
    for part in parts:
        if (part.shape, part.dtype) != (first.shape, first.dtype):
            raise Failure(f"{part.path}: tensor {part.name} has another shape or type than in "
                          f"{first.path.name}; download both again")
    if axis is SAME:
        return first
    if len(first.shape) != 2 or not first.size:
        raise Failure(f"{first.path}: tensor {first.name} should be a matrix, but has the shape "
                      f"{first.shape}")
    shape = tuple(n * len(parts) if i == axis else n for i, n in enumerate(first.shape))
    return Made(first.name, first.path, first.dtype, shape, first.size * len(parts),
                functools.partial(below if axis == ROWS else beside, parts))


# ---- all of them

def check_shapes(folder, tensors, params):
    """Files that are missing, or overlap as those for 16 GPUs do, show in the shapes."""
    dim, heads, vocab = params["dim"], params["n_heads"], params.get("vocab_size")
    head_dim = params.get("head_dim") or dim // heads
    queries, keys = head_dim * heads, head_dim * (params.get("n_kv_heads") or heads)
    vocab = vocab if type(vocab) is int and vocab > 0 else None
    wanted = {"wq": (queries, dim), "wk": (keys, dim), "wv": (keys, dim), "wo": (dim, queries),
              "w1": (None, dim), "w2": (dim, None), "w3": (None, dim), "output": (vocab, dim),
              "tok_embeddings": (vocab, dim)}
    for name, tensor in tensors.items():
        shape = wanted.get(name.removesuffix(".weight").split(".")[-1], ())
        if any(n and n != found for n, found in zip(shape, tensor.shape)):
            text = " x ".join(str(n or "any") for n in shape)
            raise Failure(f"{folder}: tensor {name} has the shape {tensor.shape} where params.json "
                          f"asks for {text}; copy every consolidated.NN.pth")


def find_shards(folder):
    paths = sorted(folder.glob("consolidated*.pth"))
    if len(paths) == 1 and paths[0].name == "consolidated.pth":
        return paths
    for i, path in enumerate(paths):
        if path.name != f"consolidated.{i:02}.pth":
            raise Failure(f"{folder} holds {path.name} where consolidated.{i:02}.pth should come; "
                          "copy every consolidated.NN.pth")
    return paths


def read_shards(folder, params):
    paths = find_shards(folder)
    shards = [{tensor.name: tensor for tensor in read_torch(path) if tensor.name != "rope.freqs"}
              for path in paths]
    for path, shard in zip(paths, shards):
        for name in sorted(shard.keys() ^ shards[0].keys()):
            raise Failure(f"{path} and {paths[0].name} do not both hold tensor {name}; they are "
                          "not of one model")
    tensors = shards[0]
    if len(shards) > 1:
        tensors = {name: join([shard[name] for shard in shards], params["dim"])
                   for name in tensors}
    check_shapes(folder, tensors, params)
    return tensors


def read_params(path):
    """The numbers, which newer files hold in an object "model"."""
    if not path.exists():
        raise Failure(f"{path.parent} has no params.json; copy it too")
    params = read_json(whole_file(path))
    if "dim" not in params and isinstance(params.get("model"), dict):
        params = params["model"]
    for key in ("dim", "n_heads", "n_kv_heads", "head_dim"):
        value = params.get(key)
        optional = value is None and key in ("n_kv_heads", "head_dim")
        if not optional and not (type(value) is int and 0 < value <= 1 << 20):
            raise Failure(f"{path}: {key} is {json.dumps(value)[:60]}, but should be a whole "
                          "number from 1 to 1048576")
    return params


def config_of(params):
    """Llama 3.1 and later say only that RoPE is scaled, not how. The factor is 32 for the two small
    models of Llama 3.2, which not all of their files say, and 8 for the others."""
    config = {"model_type": "llama", "rope_theta": 10000.0, **params}
    scaled, factor = config.pop("use_scaled_rope", None), config.pop("rope_scaling_factor", None)
    if scaled and not config.get("rope_scaling"):
        config["rope_scaling"] = {**LLAMA_3,
                                  "factor": factor or (32.0 if config["dim"] < 4096 else 8.0)}
        config.setdefault("max_seq_len", 131072)
    return config


def is_tokenizer(file):
    """SentencePiece's, or tiktoken's since Llama 3: text, a line a token."""
    start = b"".join(read_chunks(file._replace(size=min(file.size, 1024))))
    return start[:1] == b"\n" or bool(re.match(rb"[A-Za-z0-9+/]+=* [0-9]+\r?\n", start))


def find_tokenizers(folder, given):
    """In the folder, or around it where Meta's download and Hugging Face's copies of it have it."""
    if given:
        file = whole_file(given)
        if not is_tokenizer(file):
            raise Failure(f"{given} is not a tokenizer.model of SentencePiece or tiktoken, which "
                          "nibble needs")
        return [file._replace(name="tokenizer.model")]
    files = []
    for name in ("tokenizer.model", "tokenizer.json"):
        paths = [place / name for place in (folder, folder.resolve().parent)]
        found = [whole_file(path) for path in paths if path.exists()]
        files += [file for file in found if name != "tokenizer.model" or is_tokenizer(file)][:1]
    return files


def read_meta_folder(folder, tokenizer=None):
    """The Checkpoint; tokenizer is a file to take instead of the folder's own, or None."""
    params = read_params(folder / "params.json")
    tensors = read_shards(folder, params)
    return Checkpoint(config_of(params), find_tokenizers(folder, tokenizer), tensors)
