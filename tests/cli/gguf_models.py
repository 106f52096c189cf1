"""GGUF files for the tests of scripts/convert.py, written element by element.

Blocks are made of known numbers: a function for each format draws scales and codes, writes them as
the format is described, bit by bit, and says which numbers they stand for. Nothing here uses the
script's own code, nor numpy where a loop says it too.
"""
import math
import struct

import numpy as np

from models import LAYER, MODEL, PIECES

TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q5_0": 6, "Q5_1": 7, "Q8_0": 8, "Q2_K": 10,
         "Q3_K": 11, "Q4_K": 12, "Q5_K": 13, "Q6_K": 14, "IQ2_XXS": 16, "IQ4_NL": 20, "I32": 26,
         "F64": 28, "BF16": 30, "MXFP4": 39}
KINDS = {"u8": 0, "i8": 1, "u16": 2, "i16": 3, "u32": 4, "i32": 5, "f32": 6, "bool": 7, "str": 8,
         "array": 9, "u64": 10, "i64": 11, "f64": 12}
CODES = {"u8": "B", "i8": "b", "u16": "H", "i16": "h", "u32": "I", "i32": "i", "f32": "f",
         "bool": "?", "u64": "Q", "i64": "q", "f64": "d"}
rng = np.random.default_rng(5)


# ---- the file

def text(value):
    data = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(data)) + data


def payload(kind, value):
    """kind: a name of KINDS, or [kind] for an array of such."""
    if isinstance(kind, list):
        items = b"".join(payload(kind[0], item) for item in value)
        inner = KINDS["array" if isinstance(kind[0], list) else kind[0]]
        return struct.pack("<IQ", inner, len(value)) + items
    return text(value) if kind == "str" else struct.pack("<" + CODES[kind], value)


def keys(metadata):
    """metadata: {key: (kind, value)}."""
    data = b""
    for key, (kind, value) in metadata.items():
        number = KINDS["array" if isinstance(kind, list) else kind]
        data += text(key) + struct.pack("<I", number) + payload(kind, value)
    return data


def table(tensors, alignment):
    """tensors: {name: (type, shape as numpy has it, bytes)}; the table and the data."""
    infos, data = b"", b""
    for name, (kind, shape, content) in tensors.items():
        data += bytes(-len(data) % alignment)
        infos += text(name) + struct.pack("<I", len(shape))
        infos += b"".join(struct.pack("<Q", size) for size in reversed(shape))
        infos += struct.pack("<IQ", TYPES.get(kind, kind), len(data))
        data += content
    return infos, data


def gguf(metadata, tensors, version=3, alignment=32):
    infos, data = table(tensors, alignment)
    if alignment != 32:
        metadata = {**metadata, "general.alignment": ("u32", alignment)}
    front = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(metadata))
    front += keys(metadata) + infos
    return front + bytes(-len(front) % alignment) + data


# ---- blocks of known numbers: (bytes, values)

def draw(low, high, count):
    """Whole numbers from low to high, both among them."""
    values = [low, high] + [int(v) for v in rng.integers(low, high + 1, count - 2)]
    return [values[int(i)] for i in rng.permutation(count)]


def f16(value):
    """(bytes, the number they stand for)."""
    data = struct.pack("<e", value)
    return data, struct.unpack("<e", data)[0]


def random_f16(scale):
    return f16(float(rng.uniform(0.5, 1) * scale * rng.choice([-1, 1])))


def low_and_high(codes):
    """16 bytes of 32 codes of 4 bits: code j low, code j + 16 high."""
    return bytes(codes[j] | codes[j + 16] << 4 for j in range(16))


def highest_bits(codes):
    """The fifth bits of 32 codes as a u32."""
    return struct.pack("<I", sum((codes[j] >> 4) << j for j in range(32)))


def q4_0(scale):
    (data, d), codes = random_f16(scale), draw(0, 15, 32)
    return data + low_and_high(codes), [d * (q - 8) for q in codes]


def q4_1(scale):
    (data, d), (more, m), codes = random_f16(scale), random_f16(8 * scale), draw(0, 15, 32)
    return data + more + low_and_high(codes), [d * q + m for q in codes]


def q5_0(scale):
    (data, d), codes = random_f16(scale), draw(0, 31, 32)
    low = low_and_high([q & 15 for q in codes])
    return data + highest_bits(codes) + low, [d * (q - 16) for q in codes]


def q5_1(scale):
    (data, d), (more, m), codes = random_f16(scale), random_f16(16 * scale), draw(0, 31, 32)
    low = low_and_high([q & 15 for q in codes])
    return data + more + highest_bits(codes) + low, [d * q + m for q in codes]


def q8_0(scale):
    (data, d), codes = random_f16(scale), draw(-128, 127, 32)
    return data + struct.pack("<32b", *codes), [d * q for q in codes]


def mxfp4(scale):
    exponent, codes = int(math.log2(scale)) + int(rng.integers(-2, 3)), draw(0, 15, 32)
    magnitudes = [0, 0.5, 1, 1.5, 2, 3, 4, 6]
    values = [magnitudes[q & 7] * (-1 if q & 8 else 1) * 2.0 ** exponent for q in codes]
    return bytes([exponent + 127]) + low_and_high(codes), values


def six_bit_pairs(scales, minima):
    """12 bytes of Q4_K and Q5_K: 8 scales and 8 minima of 6 bits."""
    data = [0] * 12
    for j in range(4):
        data[j] = scales[j] & 63 | (scales[j + 4] >> 4) << 6
        data[j + 4] = minima[j] & 63 | (minima[j + 4] >> 4) << 6
        data[j + 8] = scales[j + 4] & 15 | (minima[j + 4] & 15) << 4
    return bytes(data)


def k_affine(scale, bits):
    """(d and dmin and the scales, 8 groups of 32 codes, values) of Q4_K and Q5_K."""
    (data, d), (more, dmin) = random_f16(scale / 32), random_f16(scale / 4)
    scales, minima = draw(0, 63, 8), draw(0, 63, 8)
    groups = [draw(0, (1 << bits) - 1, 32) for _ in range(8)]
    values = [d * s * q - dmin * m for s, m, codes in zip(scales, minima, groups) for q in codes]
    return data + more + six_bit_pairs(scales, minima), groups, values


def q4_k(scale):
    data, groups, values = k_affine(scale, 4)
    for g in range(0, 8, 2):
        data += bytes(groups[g][i] | groups[g + 1][i] << 4 for i in range(32))
    return data, values


def q5_k(scale):
    data, groups, values = k_affine(scale, 5)
    data += bytes(sum((groups[g][i] >> 4) << g for g in range(8)) for i in range(32))
    for g in range(0, 8, 2):
        data += bytes(groups[g][i] & 15 | (groups[g + 1][i] & 15) << 4 for i in range(32))
    return data, values


def two_bits(codes):
    """64 bytes of 256 codes of 2 bits: byte i of a half has codes i, i + 32, i + 64 and i + 96."""
    return bytes(sum(codes[128 * h + 32 * j + i] << 2 * j for j in range(4))
                 for h in range(2) for i in range(32))


def q2_k(scale):
    (data, d), (more, dmin) = random_f16(scale / 8), random_f16(scale / 8)
    scales, minima, codes = draw(0, 15, 16), draw(0, 15, 16), draw(0, 3, 256)
    values = [d * scales[i // 16] * codes[i] - dmin * minima[i // 16] for i in range(256)]
    return bytes(s | m << 4 for s, m in zip(scales, minima)) + two_bits(codes) + data + more, values


def q3_k(scale):
    (data, d), scales, codes = random_f16(scale / 32), draw(0, 63, 16), draw(0, 7, 256)
    values = [d * (scales[i // 16] - 32) * (codes[i] - 4) for i in range(256)]
    third = bytes(sum((codes[32 * g + i] >> 2) << g for g in range(8)) for i in range(32))
    packed = bytes(scales[i] & 15 | (scales[i + 8] & 15) << 4 for i in range(8))
    packed += bytes(sum((scales[4 * j + i] >> 4) << 2 * j for j in range(4)) for i in range(4))
    return third + two_bits([q & 3 for q in codes]) + packed + data, values


def q6_k(scale):
    (data, d), scales, codes = random_f16(scale / 1024), draw(-128, 127, 16), draw(0, 63, 256)
    values = [d * scales[i // 16] * (codes[i] - 32) for i in range(256)]
    low = bytes(codes[128 * h + i] & 15 | (codes[128 * h + 64 + i] & 15) << 4
                for h in range(2) for i in range(64))
    return low + two_bits([q >> 4 for q in codes]) + struct.pack("<16b", *scales) + data, values


BLOCKS = {"Q4_0": (q4_0, 32), "Q4_1": (q4_1, 32), "Q5_0": (q5_0, 32), "Q5_1": (q5_1, 32),
          "Q8_0": (q8_0, 32), "MXFP4": (mxfp4, 32), "Q4_K": (q4_k, 256), "Q5_K": (q5_k, 256),
          "Q2_K": (q2_k, 256), "Q3_K": (q3_k, 256), "Q6_K": (q6_k, 256)}


def matrix(kind, rows, cols, scale=0.01):
    """((type, shape, bytes), values [rows, cols] in f64), a row at a time."""
    make, length = BLOCKS[kind]
    made = [make(scale) for _ in range(rows * cols // length)]
    values = np.array([value for _, values in made for value in values]).reshape(rows, cols)
    return (kind, (rows, cols), b"".join(data for data, _ in made)), values


def usual(kind, rows, cols):
    """A matrix with the variance that matrices of a model have."""
    spread = matrix(kind, 4, 256, 1.0)[1].std()
    return matrix(kind, rows, cols, cols ** -0.5 / spread)


def floats(values, kind="F32"):
    """An array as it lies in the file."""
    data = values.astype("<f4").view("<u4") >> 16 if kind == "BF16" else values
    dtype = {"F32": "<f4", "F16": "<f2", "F64": "<f8", "BF16": "<u2"}[kind]
    return kind, values.shape, data.astype(dtype).tobytes()


# ---- models

def interleave(rows, heads):
    """The rows of q or k as llama.cpp's converters leave them: those of a head's first half come
    to even places, those of its second half to odd ones. rows: an array, or a list."""
    dim = len(rows) // heads
    order = [h * dim + (i % 2) * (dim // 2) + i // 2 for h in range(heads) for i in range(dim)]
    return rows[order] if isinstance(rows, np.ndarray) else [rows[i] for i in order]


GGUF_LAYER = {"attn_norm": "attn_norm", "wq": "attn_q", "wk": "attn_k", "wv": "attn_v",
              "wo": "attn_output", "ffn_norm": "ffn_norm", "gate": "ffn_gate", "down": "ffn_down",
              "up": "ffn_up"}
GGUF_MODEL = {"embed": "token_embd", "norm": "output_norm", "output": "output"}
assert GGUF_LAYER.keys() == LAYER.keys() and GGUF_MODEL.keys() == MODEL.keys()


def gguf_name(key):
    """GGUF's name of a weight of models.Tiny."""
    part = GGUF_MODEL[key] if isinstance(key, str) else f"blk.{key[1]}.{GGUF_LAYER[key[0]]}"
    return f"{part}.weight"


def llama_metadata(size=None, arch="llama", **more):
    """What a file of llama.cpp's converters says; more: {key without arch, dots as __: (kind,
    value)}, or None to leave it out."""
    size = size or {"dim": 64, "layers": 2, "heads": 4, "kv_heads": 2, "head_dim": 16,
                    "hidden": 128, "context": 256}
    own = {"context_length": ("u32", size["context"]), "embedding_length": ("u32", size["dim"]),
           "block_count": ("u32", size["layers"]), "feed_forward_length": ("u32", size["hidden"]),
           "attention.head_count": ("u32", size["heads"]),
           "attention.head_count_kv": ("u32", size["kv_heads"]),
           "attention.layer_norm_rms_epsilon": ("f32", 1e-5),
           "attention.key_length": ("u32", size["head_dim"]),
           "attention.value_length": ("u32", size["head_dim"]),
           "rope.dimension_count": ("u32", size["head_dim"]), "rope.freq_base": ("f32", 10000.0),
           "vocab_size": ("u32", PIECES)}
    own.update({key.replace("__", "."): value for key, value in more.items()})
    head = {"general.architecture": ("str", arch), "general.name": ("str", "tiny"),
            "general.file_type": ("u32", 0), "general.tags": (["str"], ["a", "b"]),
            "general.nested": ([["u8"]], [[1, 2], []])}
    return {**head, **{f"{arch}.{key}": value for key, value in own.items() if value}}


def llama_tensors(model, kind="F32", quantized=None):
    """All weights of a models.Tiny. Matrices of the format quantized (all formats in turn, if it
    is a list) replace those of the model, which then has what they stand for."""
    kinds, tensors = quantized if isinstance(quantized, list) else [quantized], {}
    for i, (key, w) in enumerate(model.weights.items()):
        heads = {"wq": "heads", "wk": "kv_heads"}.get(key[0])
        put = (lambda rows, n=heads and model.size[heads]: interleave(rows, n) if n else rows)
        if w.ndim == 2 and quantized:
            (name, shape, data), values = usual(kinds[i % len(kinds)], *w.shape)
            step = len(data) // len(w)
            rows = put([data[r * step:(r + 1) * step] for r in range(len(w))])
            model.weights[key] = values
            tensors[gguf_name(key)] = name, shape, b"".join(rows)
        else:
            tensors[gguf_name(key)] = floats(put(w), kind if w.ndim == 2 else "F32")
    return tensors


def write_llama(path, model, kind="F32", quantized=None, metadata=None, **more):
    tensors = llama_tensors(model, kind, quantized)
    path.write_bytes(gguf({**llama_metadata(model.size, **more), **(metadata or {})}, tensors))
    return path


# ---- tokenizers

def read_varint(data, at):
    value = shift = 0
    while True:
        byte, at = data[at], at + 1
        value, shift = value | (byte & 127) << shift, shift + 7
        if byte < 128:
            return value, at


def fields(data):
    """[(number, value)] of a message of protobuf: integers, bytes, or 4 bytes as they lie."""
    at, found = 0, []
    while at < len(data):
        tag, at = read_varint(data, at)
        if tag & 7 == 0:
            value, at = read_varint(data, at)
        else:
            size, at = (4, at) if tag & 7 == 5 else read_varint(data, at)
            value, at = data[at:at + size], at + size
        found.append((tag >> 3, value))
    return found


def pieces_of(model):
    """[(text, score, type)] of a tokenizer.model."""
    pieces = []
    for number, message in fields(model):
        if number == 1:
            piece = dict(fields(message))
            pieces.append((piece[1], struct.unpack("<f", piece[2])[0] if 2 in piece else 0.0,
                           piece.get(3, 1)))
    return pieces


def spm_metadata(model, **more):
    """The metadata that a tokenizer.model becomes."""
    pieces = pieces_of(model)
    own = {"model": ("str", "llama"), "tokens": (["str"], [piece for piece, _, _ in pieces]),
           "scores": (["f32"], [score for _, score, _ in pieces]),
           "token_type": (["i32"], [kind for _, _, kind in pieces]),
           "bos_token_id": ("u32", 1), "eos_token_id": ("u32", 2), "unknown_token_id": ("u32", 0),
           **more}
    return {f"tokenizer.ggml.{key}": value for key, value in own.items() if value}
