"""Models of llama2.c: one file of numbers in a fixed order, and a tokenizer.bin.

Three versions of the file are known: the first one, which is a header of seven numbers and f32
weights; version 1, the same in another order; and version 2, whose matrices are int8 in groups with
a scale each. The names the tensors get are Meta's, as is the way their rotary pairs lie.
"""
import functools
import math
import os
import struct
from collections import namedtuple

import numpy as np

from checkpoint import Checkpoint, Failure, Made, Tensor, read_chunks, whole_file

MAGIC = b"24ka"     # "ak42" as a little-endian number
HEADER_BYTES = 256  # since version 1
MAX_TOKENIZER = 64 << 20  # bytes, as nibble has it
MOST = {"dim": 1 << 20, "hidden_dim": 1 << 24, "n_layers": 1 << 12, "n_heads": 1 << 12,
        "n_kv_heads": 1 << 12, "vocab_size": 1 << 24, "max_seq_len": 1 << 26}  # as nibble has it
EXPORT = "export it again with llama2.c's export.py --version 1"

# Its file, the numbers of its header, whether the embedding is the output, where the weights begin.
Model = namedtuple("Model", "whole version sizes tied group start")


def first_bytes(whole, size):
    return b"".join(read_chunks(whole._replace(size=min(whole.size, size))))


def is_llama2c(path):
    """By its first bytes; the first version has nothing to know it by but .bin, which PyTorch's
    zip files and pickles are called too."""
    if not path.is_file():
        return False
    start = first_bytes(whole_file(path), 4)
    return start == MAGIC or (path.suffix == ".bin" and start[:2] not in (b"PK", b"\x80\x02"))


# ---- the header

def check_sizes(path, sizes):
    for key, value in sizes.items():
        if not 0 < value <= MOST[key]:
            raise Failure(f"{path} is not a model of llama2.c: its header says {key} {value}; give "
                          "the .bin that export.py wrote")
    for key, of in (("n_heads", "dim"), ("n_kv_heads", "n_heads")):
        if sizes[of] % sizes[key]:
            raise Failure(f"{path} is not a model of llama2.c: its header says {key} {sizes[key]}, "
                          f"which does not divide {of} {sizes[of]}; give the .bin that export.py "
                          "wrote")


def read_header(whole):
    data = first_bytes(whole, HEADER_BYTES)
    version, at, tied, group = 0, 0, True, 0
    if data[:4] == MAGIC:
        data = data.ljust(HEADER_BYTES, b"\0")
        version, at = struct.unpack_from("<i", data, 4)[0], 8
        tied, group = struct.unpack_from("<Bi", data, 36)
    if version not in (0, 1, 2) or tied not in (0, 1):
        raise Failure(f"{whole.path} has version {version} of llama2.c's format, or a damaged "
                      f"header; {EXPORT}")
    if len(data) < at + 28:
        raise Failure(f"{whole.path} is cut short or not a model of llama2.c; copy it again")
    numbers = struct.unpack_from("<7i", data, at)
    sizes = dict(zip(MOST, numbers))
    if version == 0:
        tied, sizes["vocab_size"] = numbers[5] > 0, abs(numbers[5])
    check_sizes(whole.path, sizes)
    if version == 2 and group not in (32, 64, 128):
        raise Failure(f"{whole.path} is quantized in groups of {group}; nibble has groups of 32, "
                      f"64 and 128, so {EXPORT}")
    return Model(whole, version, sizes, bool(tied), group if version == 2 else 0,
                 HEADER_BYTES if version else 28)


# ---- the weights

def layers(sizes, *modules):
    """(name, shape) of each module in all layers, one module after the other."""
    dim, hidden = sizes["dim"], sizes["hidden_dim"]
    keys = dim // sizes["n_heads"] * sizes["n_kv_heads"]
    shapes = {"attention_norm": (dim,), "ffn_norm": (dim,), "attention.wq": (dim, dim),
              "attention.wk": (keys, dim), "attention.wv": (keys, dim), "attention.wo": (dim, dim),
              "feed_forward.w1": (hidden, dim), "feed_forward.w2": (dim, hidden),
              "feed_forward.w3": (hidden, dim)}
    return [(f"layers.{n}.{module}", shapes[module]) for module in modules
            for n in range(sizes["n_layers"])]


def order_of(model):
    """(name, shape) of all that lies in the file, in its order; a None is skipped."""
    s = model.sizes
    norm, embedding = [("norm", (s["dim"],))], [("tok_embeddings", (s["vocab_size"], s["dim"]))]
    output = [] if model.tied else [("output", embedding[0][1])]
    attention = ("attention.wq", "attention.wk", "attention.wv", "attention.wo")
    ffn = ("feed_forward.w1", "feed_forward.w2", "feed_forward.w3")
    if model.version == 0:
        rope = [(None, (s["max_seq_len"], s["dim"] // s["n_heads"] // 2))] * 2  # cosines, sines
        return (embedding + layers(s, "attention_norm", *attention, "ffn_norm", *ffn) + norm
                + rope + output)
    return (layers(s, "attention_norm", "ffn_norm") + norm + embedding
            + layers(s, *attention, *ffn) + output)


def codes_of(source):
    """int8 -128 to 127 as codes 0 to 255."""
    table = bytes(i ^ 0x80 for i in range(256))
    for chunk in read_chunks(source):
        yield chunk.translate(table)


def offsets_of(scales):
    """What stands for code 0: -128 scales, which f32 holds exactly."""
    for chunk in read_chunks(scales):
        values = np.frombuffer(chunk, "<f4")
        if not (np.isfinite(values) & (values >= 0) & (values < 1e30)).all():
            raise Failure(f"{scales.path}: {scales.name} are no scales but other numbers; {EXPORT}")
        yield (values * np.float32(-128)).tobytes()


def quantized(whole, name, shape, group, offset):
    """MLX's three arrays: w = scale * code + offset."""
    rows, cols = shape
    if cols % group:
        raise Failure(f"{whole.path}: the rows of {name} have {cols} values, which groups of "
                      f"{group} do not divide; {EXPORT}")
    count = rows * cols
    source = Tensor(name, whole.path, "I8", shape, offset, count)
    scales = Tensor(f"{name}.scales", whole.path, "F32", (rows, cols // group), offset + count,
                    count // group * 4)
    return [Made(f"{name}.weight", whole.path, "U32", (rows, cols // 4), count,
                 functools.partial(codes_of, source)),
            scales,
            Made(f"{name}.biases", whole.path, "F32", scales.shape, scales.size,
                 functools.partial(offsets_of, scales))]


def read_weights(model):
    """{name: Tensor or Made}"""
    whole, at, tensors = model.whole, model.start, []
    for name, shape in order_of(model):
        count = math.prod(shape)
        if model.group and len(shape) == 2:
            tensors += quantized(whole, name, shape, model.group, at)
            at += count + count // model.group * 4
            continue
        if name:
            tensors.append(Tensor(f"{name}.weight", whole.path, "F32", shape, at, count * 4))
        at += count * 4
    if at != whole.size:
        raise Failure(f"{whole.path} has {whole.size} bytes where its header asks for {at}; it is "
                      "cut short, or not a model of llama2.c")
    return {tensor.name: tensor for tensor in tensors}


def config_of(model):
    """The numbers that are not in the header are those of run.c, which ends at BOS as well."""
    config = {"model_type": "llama", **model.sizes, "norm_eps": 1e-5, "rope_theta": 10000.0,
              "tie_word_embeddings": model.tied, "bos_token_id": 1, "eos_token_id": [1, 2]}
    if model.group:
        config["quantization"] = {"group_size": model.group, "bits": 8}
    return config


# ---- the tokenizer: (score, length, bytes) a piece, after the length of the longest

NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6  # SentencePiece's types of pieces
BPE = 2                                      # and of models
FIRST_BYTE = 3                               # ids: <unk>, <s>, </s>, then 256 bytes
NAMES = ("<unk>", "<s>", "</s>")


def varint(value):
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def field(number, value):
    """One field of a protobuf message: bytes, an integer, or four bytes of a float as (bytes,)."""
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    if isinstance(value, tuple):
        return varint(number << 3 | 5) + value[0]
    return varint(number << 3) + varint(value)


def split_pieces(whole, count):
    """[(four bytes of the score, text)]"""
    path = whole.path
    if whole.size > MAX_TOKENIZER:
        raise Failure(f"{path} has {whole.size} bytes, more than any tokenizer; name the model's "
                      "own tokenizer.bin with --tokenizer")
    data, at, pieces = first_bytes(whole, whole.size), 4, []
    while at < len(data):
        if len(data) - at < 8 or len(data) - at - 8 < struct.unpack_from("<I", data, at + 4)[0]:
            raise Failure(f"{path} is cut short or not a tokenizer.bin of llama2.c; copy it again")
        score, size = struct.unpack_from("<fI", data, at)
        text = data[at + 8:at + 8 + size]
        if not 0 < size <= 1024 or not math.isfinite(score):
            raise Failure(f"{path}: piece {len(pieces)} has {size} bytes and the score {score}; "
                          "export the tokenizer again")
        pieces.append((data[at:at + 4], text))
        at += 8 + size
    if len(pieces) != count:
        raise Failure(f"{path} has {len(pieces)} pieces, the model's vocabulary {count}; name the "
                      "model's own tokenizer.bin with --tokenizer")
    return pieces


def type_of(path, index, text):
    """(type, text) in SentencePiece's spelling. The first versions wrote bytes as what they are."""
    byte = index - FIRST_BYTE
    if index < FIRST_BYTE and text.strip("\n") == NAMES[index]:
        return (CONTROL if index else UNKNOWN), NAMES[index]
    if 0 <= byte < 256 and text in (f"<0x{byte:02X}>", chr(byte)):
        return BYTE, f"<0x{byte:02X}>"
    if byte >= 256:
        return NORMAL, text.replace(" ", "\u2581")
    raise Failure(f"{path}: piece {index} is {text[:40]!r}, but should be "
                  f"{(NAMES[index] if byte < 0 else f'<0x{byte:02X}>')!r}; nibble runs llama2.c's "
                  "tokenizers with a piece for every byte")


def read_tokenizer(path, count):
    """The bytes of a SentencePiece model."""
    whole, model, seen = whole_file(path), [], set()
    for index, (score, data) in enumerate(split_pieces(whole, count)):
        try:
            kind, text = type_of(path, index, data.decode("utf-8"))
        except UnicodeDecodeError as e:
            raise Failure(f"{path}: piece {index} is not UTF-8; export the tokenizer again") from e
        if text in seen:
            raise Failure(f"{path}: two pieces are {text[:40]!r}; export the tokenizer again")
        seen.add(text)
        piece = field(1, text.encode()) + field(2, (score,))
        model.append(field(1, piece + (field(3, kind) if kind != NORMAL else b"")))
    trainer = (field(3, BPE) + field(4, count) + field(35, 1) + field(40, 0) + field(41, 1)
               + field(42, 2))
    normalizer = field(1, b"identity") + field(3, 1) + field(4, 0) + field(5, 1)
    return b"".join(model) + field(2, trainer) + field(3, normalizer)


def find_tokenizer(model, given):
    """Beside the model: the name that llama2.c gives one of so many pieces, or the general one."""
    path, count = model.whole.path, model.sizes["vocab_size"]
    if not given:
        names = (f"tok{count}.bin", "tokenizer.bin")
        given = next((path.with_name(n) for n in names if os.path.lexists(path.with_name(n))), None)
    if not given:
        return []
    if first_bytes(whole_file(given), 3)[::2] == b"\n\n":  # SentencePiece's own tokenizer.model
        return [whole_file(given)._replace(name="tokenizer.model")]
    data = read_tokenizer(given, count)
    return [Made("tokenizer.model", given, "U8", (len(data),), len(data), lambda: iter((data,)))]


def read_llama2c(path, tokenizer=None):
    """The Checkpoint; tokenizer is a file to take instead of the one beside, or None."""
    model = read_header(whole_file(path))
    weights = read_weights(model)
    return Checkpoint(config_of(model), find_tokenizer(model, tokenizer), weights)
