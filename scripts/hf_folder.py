"""What a folder of Hugging Face or MLX holds: JSON files, and tensors in safetensors, PyTorch or
.npz files.

A header that says something twice or contradicts itself is refused.
"""
import json
import math
import os
import re

from checkpoint import (ELEMENT_BYTES, Checkpoint, Failure, Tensor, read_chunks, read_json,
                        whole_file)
from npz_read import read_npz
from torch_file import read_torch

MAX_DIMS = 8  # as nibble has it
# What goes into the .npz beside the weights.
FILES = ("config.json", "generation_config.json", "tokenizer.model", "tokenizer.json",
         "added_tokens.json", "tokenizer_config.json", "chat_segments.json")


# ---- safetensors: 8 bytes length of the header, the header in JSON, data without holes

def is_sizes(value, most):
    return (isinstance(value, list) and len(value) <= most
            and all(type(n) is int and 0 <= n < 1 << 63 for n in value))


def parse_tensor(path, name, entry, data_offset):
    where = f"{path}: tensor {name[:200]!r}"
    if not re.fullmatch(r"[\w.:-]{1,1000}", name, re.ASCII):
        raise Failure(f"{where} has a name that no weight has")
    if not isinstance(entry, dict):
        raise Failure(f"{where} should be described by a JSON object")
    dtype, shape, ends = (entry.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str) or dtype not in ELEMENT_BYTES:
        raise Failure(f"{where} has the unknown type {json.dumps(dtype)[:60]}")
    if not is_sizes(shape, MAX_DIMS):
        raise Failure(f"{where} should have a shape of at most {MAX_DIMS} sizes")
    if not is_sizes(ends, 2) or len(ends) < 2 or ends[0] > ends[1]:
        raise Failure(f"{where} should have two rising data_offsets")
    size = math.prod(shape) * ELEMENT_BYTES[dtype]
    if size != ends[1] - ends[0]:
        raise Failure(f"{where} has {ends[1] - ends[0]} bytes where its shape takes {size}")
    return Tensor(name, path, dtype, tuple(shape), data_offset + ends[0], size)


def check_layout(path, tensors, data_offset, file_bytes):
    """Every byte after the header belongs to exactly one tensor."""
    position = data_offset
    for tensor in sorted(tensors, key=lambda tensor: (tensor.offset, tensor.size)):
        end = tensor.offset + tensor.size
        if end > file_bytes:
            raise Failure(f"{path} is cut short: tensor {tensor.name} ends at byte {end}, the file "
                          f"at {file_bytes}; download it again")
        if tensor.offset != position:
            problem = "overlaps another one" if tensor.offset < position else "follows a hole"
            raise Failure(f"{path}: the data of tensor {tensor.name} {problem}")
        position = end
    if position != file_bytes:
        raise Failure(f"{path}: {file_bytes - position} bytes follow the last tensor")


def read_safetensors(path):
    whole = whole_file(path)
    start = b"".join(read_chunks(whole._replace(size=min(whole.size, 8))))
    if start == b"version ":
        raise Failure(f"{path} is a Git LFS pointer, not the weights; fetch them with git lfs pull")
    header_bytes = int.from_bytes(start, "little")
    if len(start) < 8 or header_bytes > whole.size - 8:
        raise Failure(f"{path} is cut short or not a safetensors file; download it again")
    header = read_json(whole._replace(offset=8, size=header_bytes))
    tensors = [parse_tensor(path, name, entry, 8 + header_bytes)
               for name, entry in header.items() if name != "__metadata__"]
    check_layout(path, tensors, 8 + header_bytes, whole.size)
    if not tensors:
        raise Failure(f"{path} holds no tensors")
    return tensors


# ---- the folder's weights

READERS = {"model.safetensors": read_safetensors, "pytorch_model.bin": read_torch}  # in this order
OTHER_WEIGHTS = {  # what people have instead, and what to do then
    "model-*-of-*.safetensors":
        "holds shards without model.safetensors.index.json; download that too",
    "consolidated*.safetensors":
        "holds weights in Mistral's own layout; download model*.safetensors and their index",
    "adapter_model.*":
        "holds an adapter, not a model; merge it into its model first",
    "pytorch_model*.bin":
        "holds shards without pytorch_model.bin.index.json; download that too",
    "*.gguf":
        "holds a GGUF model; give the .gguf file itself",
    "adapters.*":
        "holds an adapter, not a model; fuse it into its model first",
    "tokenizer.bin":
        "looks like a folder of llama2.c; give the model's .bin itself",
}
OTHER_FILES = {  # the same for a file given instead of a folder, by its ending
    ".safetensors": "is a file; give the folder it lies in",
    ".bin": "is a PyTorch file; give the folder it lies in",
    ".pth": "is a PyTorch file; give the folder it lies in",
    ".npz": "is an .npz already; nibble runs it as it is, and nibble quantize makes it smaller",
}


def index_of(folder, name):
    return folder / f"{name}.index.json"


def mlx_files(folder, kind):
    """MLX's weights.KIND, or its shards weights.0.KIND and so on, with or without leading zeros."""
    whole, shards = folder / f"weights.{kind}", {}
    for path in sorted(folder.glob(f"weights.*.{kind}")):
        number = re.fullmatch(rf"weights\.([0-9]{{1,6}})\.{kind}", path.name)
        if number and shards.setdefault(int(number[1]), path) is not path:
            raise Failure(f"{folder} holds {shards[int(number[1])].name} and {path.name}; remove "
                          "the one that is not of this model")
    if shards and os.path.lexists(whole):
        raise Failure(f"{folder} holds {whole.name} and shards of it; remove what is not of this "
                      "model")
    missing = next((n for n in range(len(shards)) if n not in shards), None)
    if missing is not None:
        raise Failure(f"{folder} holds shards up to {max(shards)}, but not weights.{missing}.{kind}"
                      "; copy every one")
    return [shards[n] for n in sorted(shards)] or [whole] * os.path.lexists(whole)


def has_weights(folder):
    return bool(mlx_files(folder, "npz")) or any(
        os.path.lexists(path) for name in READERS
        for path in (folder / name, index_of(folder, name)))


def check_folder(folder):
    wanted = "give a folder with config.json and model.safetensors"
    if not folder.exists():
        raise Failure(f"{folder} does not exist; {wanted}")
    if not folder.is_dir():
        raise Failure(f"{folder} {OTHER_FILES.get(folder.suffix, f'is not a folder; {wanted}')}")


def read_index(path):
    """{tensor: shard}, where a shard is the plain name of a file beside the index."""
    shards = read_json(whole_file(path)).get("weight_map")
    kind = path.name.split(".")[1]  # safetensors or bin
    if not isinstance(shards, dict) or not shards:
        raise Failure(f"{path} has no weight_map that names tensors and their files")
    for name, shard in shards.items():
        plain = rf"[\w-][\w.-]*\.{kind}"
        if not isinstance(shard, str) or not re.fullmatch(plain, shard, re.ASCII):
            raise Failure(f"{path} puts tensor {name[:200]!r} into {json.dumps(shard)[:200]}, "
                          f"which is not the name of a {kind} file beside it")
        if not (path.parent / shard).exists():
            raise Failure(f"{path} names {shard}, which is not in the folder; download it too")
    return shards


def read_files(paths, read):
    tensors = {}
    for path in paths:
        for tensor in read(path):
            other = tensors.setdefault(tensor.name, tensor)
            if other is not tensor:
                raise Failure(f"{tensor.path} and {other.path} both hold tensor {tensor.name}")
    return tensors


def read_shards(index, read):
    """All tensors of all files that the index names, as transformers takes them."""
    shards = read_index(index)
    tensors = read_files([index.parent / name for name in sorted(set(shards.values()))], read)
    for name, shard in shards.items():
        if name not in tensors or tensors[name].path.name != shard:
            raise Failure(f"{index} puts tensor {name[:200]!r} into {shard}, which does not hold "
                          "it; download both again")
    return tensors


def read_tensors(folder):
    """{name: Tensor or Made}; a single file goes before shards, as in transformers. Where there is
    more than one kind, nibble itself takes them in this order."""
    if mlx_files(folder, "npz"):
        return read_files(mlx_files(folder, "npz"), read_npz)
    for name, read in READERS.items():
        if os.path.lexists(folder / name):
            return read_files([folder / name], read)
        if os.path.lexists(index_of(folder, name)):
            return read_shards(index_of(folder, name), read)
    if mlx_files(folder, "safetensors"):  # of early versions of mlx-lm
        return read_files(mlx_files(folder, "safetensors"), read_safetensors)
    for pattern, sentence in OTHER_WEIGHTS.items():
        if any(folder.glob(pattern)):
            raise Failure(f"{folder} {sentence}")
    raise Failure(f"{folder} holds neither {' nor '.join(READERS)}, nor an index of shards; "
                  "download them")


def read_folder(folder):
    """The Checkpoint. Early folders of MLX have Meta's params.json alone."""
    check_folder(folder)
    tensors, config = read_tensors(folder), folder / "config.json"
    if not os.path.lexists(config):
        config = folder / "params.json"
    if not os.path.lexists(config):
        raise Failure(f"{folder} has no config.json; download it too")
    files = [whole_file(folder / name) for name in FILES if os.path.lexists(folder / name)]
    return Checkpoint(read_json(whole_file(config)), files, tensors)
