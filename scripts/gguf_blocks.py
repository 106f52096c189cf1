"""The number formats of GGUF, and how each becomes arrays that nibble maps.

A block of 32 values with a scale, or a super-block of 256 with scales for parts of it, lies in a
row of a matrix. What is affine in groups of 32 already (Q4_0 to Q8_0, Q4_K, Q5_K, MXFP4) is carried
over without loss: only the bits change places. The others (Q2_K, Q3_K, Q6_K) have a scale for 16
values; they are decoded and quantized again in groups of 32, and what that costs is counted.
"""
import math
from collections import namedtuple

import numpy as np

from checkpoint import CHUNK, ELEMENT_BYTES, Failure, Made, Tensor, read_chunks

GROUP = 32
PIECE = 1 << 16     # values that are decoded at a time
F16_MAX = 65504.0
NUMPY = {"F16": "<f2", "F32": "<f4"}

# One format of numbers: a block of so many values takes so many bytes. dtype: of floats, which lie
# as they are. Otherwise unpack(blocks) gives codes of so many bits in groups, scales and offsets if
# it is exact, and the decoded values if not. scales: the type of the scales, where every block fits
# into it; without one, F16 if the offsets do, which reach([d, ...]) bounds, else F32. fields: where
# the f16 numbers d, ... stand in a block.
Format = namedtuple("Format", "name values bytes dtype bits scales unpack exact fields reach",
                    defaults=(None, 0, None, None, True, (), None))

# An array in a file: its bytes are those of spans [(offset, size)], one after the other.
Blocks = namedtuple("Blocks", "name path format shape spans")


# ---- parts of blocks; each of these takes uint8 [n, bytes of a block]

def half(blocks, at):
    """The f16 at a byte of each block, as f32 [n, 1]."""
    return blocks[:, at:at + 2].copy().view("<f2").astype("<f4")


def nibbles(packed):
    """[..., k] bytes to [..., 2k] values: first all low halves, then all high ones."""
    return np.concatenate([packed & 15, packed >> 4], axis=-1)


def bits_of(packed, width):
    """[..., k] bytes to [..., 8 / width, k]: first the lowest bits of all, and so on."""
    shifts = np.arange(0, 8, width, dtype="u1")[:, None]
    return packed[..., None, :] >> shifts & ((1 << width) - 1)


def fifth_bits(blocks, at):
    """Bit j of a little-endian u32 is the highest bit of value j."""
    return np.unpackbits(blocks[:, at:at + 4], axis=1, bitorder="little") << 4


def centred(codes, scale, centre):
    """Codes that stand for scale * (code - centre), a power of two."""
    return codes[:, None, :], scale, -centre * scale


# ---- blocks of 32: w = d * (q - centre) or w = d * q + m

def unpack_q4_0(blocks):
    """f16 d; 16 bytes: value j in the low half of byte j, value j + 16 in its high half."""
    return centred(nibbles(blocks[:, 2:]), half(blocks, 0), 8)


def unpack_q4_1(blocks):
    """f16 d, f16 m; 16 bytes as in Q4_0."""
    return nibbles(blocks[:, 4:])[:, None], half(blocks, 0), half(blocks, 2)


def unpack_q5_0(blocks):
    """f16 d; u32 of fifth bits; 16 bytes as in Q4_0."""
    return centred(nibbles(blocks[:, 6:]) | fifth_bits(blocks, 2), half(blocks, 0), 16)


def unpack_q5_1(blocks):
    """f16 d, f16 m; u32 of fifth bits; 16 bytes as in Q4_0."""
    codes = nibbles(blocks[:, 8:]) | fifth_bits(blocks, 4)
    return codes[:, None], half(blocks, 0), half(blocks, 2)


def unpack_q8_0(blocks):
    """f16 d; 32 signed bytes, to which 128 is added."""
    return centred(blocks[:, 2:] ^ 0x80, half(blocks, 0), 128)


# Twice what the 4 bits of an E2M1 number stand for, its sign being the highest of them.
E2M1_TWICE = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], "i1")


def unpack_mxfp4(blocks):
    """One byte e for a scale of 2^(e - 127); 16 bytes of E2M1 numbers as in Q4_0. They are
    multiples of one half from -6 to 6, so 5 bits hold them without loss."""
    exponent = blocks[:, :1].astype("i4")
    scale = np.where(exponent == 255, np.nan, np.ldexp(np.float32(1), exponent - 128))
    return centred((E2M1_TWICE[nibbles(blocks[:, 1:])] + 12).astype("u1"), scale.astype("<f4"), 12)


# ---- super-blocks of 256

def scales_and_mins(packed):
    """Of Q4_K and Q5_K, 12 bytes: 8 scales and 8 minima of 6 bits. The first four of each are the
    low 6 bits of bytes 0 to 3 and 4 to 7; the highest 2 bits of these bytes lie above the low
    (scales) and the high halves (minima) of bytes 8 to 11, which are the last four."""
    a, b, c = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = np.concatenate([a & 63, c & 15 | a >> 6 << 4], axis=1)
    minima = np.concatenate([b & 63, c >> 4 | b >> 6 << 4], axis=1)
    return scales, minima


def affine_k(blocks, codes):
    """w = d * scale * q - dmin * minimum, in 8 groups of 32; f16 d, f16 dmin, the scales."""
    scales, minima = scales_and_mins(blocks[:, 4:16])
    return codes, half(blocks, 0) * scales, -half(blocks, 2) * minima


def unpack_q4_k(blocks):
    """After the scales 128 bytes: 32 of them hold a group in their low halves, and the next one in
    their high halves."""
    return affine_k(blocks, nibbles(blocks[:, 16:].reshape(-1, 4, 32)).reshape(-1, 8, 32))


def unpack_q5_k(blocks):
    """After the scales 32 bytes, whose bit g is the fifth bit of group g; 128 bytes as in Q4_K."""
    low = nibbles(blocks[:, 48:].reshape(-1, 4, 32)).reshape(-1, 8, 32)
    return affine_k(blocks, low | bits_of(blocks[:, 16:48], 1) << 4)


def unpack_q2_k(blocks):
    """16 bytes, a scale (low half) and a minimum (high half) for each 16 values; 64 bytes, in which
    32 hold four times 32 values of 2 bits, the first ones lowest; f16 d, f16 dmin."""
    codes = bits_of(blocks[:, 16:80].reshape(-1, 2, 32), 2).reshape(-1, 16, 16)
    scales = half(blocks, 80) * (blocks[:, :16] & 15)
    minima = half(blocks, 82) * (blocks[:, :16] >> 4)
    return scales[..., None] * codes - minima[..., None]


def unpack_q3_k(blocks):
    """32 bytes, whose bit g is the third bit of the g-th 32 values; 64 bytes as in Q2_K; 12 bytes
    of 16 scales of 6 bits, their low 4 bits in the low, then the high halves of bytes 0 to 7, the
    rest in the last 4 bytes, lowest bits first; f16 d. w = d * (scale - 32) * (q - 4)."""
    codes = bits_of(blocks[:, 32:96].reshape(-1, 2, 32), 2).reshape(-1, 8, 32)
    codes = codes | bits_of(blocks[:, :32], 1) << 2
    scales = nibbles(blocks[:, 96:104]) | bits_of(blocks[:, 104:108], 2).reshape(-1, 16) << 4
    scales = half(blocks, 108) * (scales.astype("i1") - 32)
    return scales[..., None] * (codes.astype("i1") - 4).reshape(-1, 16, 16)


def unpack_q6_k(blocks):
    """128 bytes, in which 64 hold the low 4 bits of 64 values in their low and of the next 64 in
    their high halves; 64 bytes, in which 32 hold four times the high 2 bits of 32 values, the first
    ones lowest; 16 signed bytes, a scale for each 16 values; f16 d. w = d * scale * (q - 32)."""
    low = nibbles(blocks[:, :128].reshape(-1, 2, 64)).reshape(-1, 2, 4, 32)
    high = bits_of(blocks[:, 128:192].reshape(-1, 2, 32), 2)
    codes = ((low | high << 4).astype("i1") - 32).reshape(-1, 16, 16)
    return (half(blocks, 208) * blocks[:, 192:208].view("i1"))[..., None] * codes


FORMATS = {
    0: Format("F32", 1, 4, "F32"),
    1: Format("F16", 1, 2, "F16"),
    28: Format("F64", 1, 8, "F64"),
    30: Format("BF16", 1, 2, "BF16"),
    2: Format("Q4_0", 32, 18, None, 4, None, unpack_q4_0, True, (0,), lambda d: 8 * d),
    3: Format("Q4_1", 32, 20, None, 4, "F16", unpack_q4_1),
    6: Format("Q5_0", 32, 22, None, 5, None, unpack_q5_0, True, (0,), lambda d: 16 * d),
    7: Format("Q5_1", 32, 24, None, 5, "F16", unpack_q5_1),
    8: Format("Q8_0", 32, 34, None, 8, None, unpack_q8_0, True, (0,), lambda d: 128 * d),
    10: Format("Q2_K", 256, 84, None, 4, None, unpack_q2_k, False, (80, 82),
               lambda d, dmin: 45 * d + 15 * dmin),
    11: Format("Q3_K", 256, 110, None, 4, None, unpack_q3_k, False, (108,), lambda d: 128 * d),
    12: Format("Q4_K", 256, 144, None, 4, "F32", unpack_q4_k),
    13: Format("Q5_K", 256, 176, None, 5, "F32", unpack_q5_k),
    14: Format("Q6_K", 256, 210, None, 8, None, unpack_q6_k, False, (208,), lambda d: 4096 * d),
    39: Format("MXFP4", 32, 17, None, 5, "BF16", unpack_mxfp4),
}
UNREAD = {9: "Q8_1", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S",
          20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32",
          27: "I64", 29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0", 40: "NVFP4"}


# ---- MLX's affine quantization, in f32 as nibble does it

def quantize(values, bits):
    """[n, 32] to codes, scales and offsets [n]: the end of a group's range with the larger
    magnitude is the offset, and the scale is bent so that zero has a code of its own."""
    levels = np.float32((1 << bits) - 1)
    columns = np.ascontiguousarray(values.T)  # numpy is slow at the least of a few
    low, high = columns.min(axis=0), columns.max(axis=0)
    low_is_larger = np.abs(low) > np.abs(high)
    scale = np.maximum((high - low) / levels, np.float32(1e-7))
    scale = np.where(low_is_larger, scale, -scale)
    edge = np.where(low_is_larger, low, high)
    steps = np.rint(edge / scale)
    bent = steps != 0
    scale = np.divide(edge, steps, out=scale, where=bent)
    offset = np.where(bent, edge, np.float32(0))
    codes = values - offset[:, None]
    codes /= scale[:, None]
    np.rint(codes, out=codes)
    np.maximum(codes, 0, out=codes)
    return np.minimum(codes, levels, out=codes).astype("u1"), scale, offset


def pack(codes, bits):
    """Eight codes become so many bytes as each has bits: one stream, lowest bits first."""
    if bits == 8:
        return codes.tobytes()
    if bits == 4:
        return (codes[:, ::2] | codes[:, 1::2] << 4).tobytes()
    eights = codes.reshape(-1, 8)
    words = np.zeros(len(eights), "<u8")
    for i in range(8):
        words |= eights[:, i].astype("<u8") << np.uint64(i * bits)
    return words.view("u1").reshape(-1, 8)[:, :bits].tobytes()


# ---- arrays

def read_many(array):
    """Its blocks, as many at a time as fit into a chunk: uint8 [n, bytes of a block]."""
    size = CHUNK // array.format.bytes * array.format.bytes
    for offset, length in array.spans:
        for start in range(0, length, size):
            part = Tensor(array.name, array.path, "U8", None, offset + start,
                          min(size, length - start))
            yield np.frombuffer(b"".join(read_chunks(part)), "u1").reshape(-1, array.format.bytes)


def read_blocks(array):
    """The same in pieces of a size that is good to compute with."""
    count = PIECE // array.format.values
    for blocks in read_many(array):
        for start in range(0, len(blocks), count):
            yield blocks[start:start + count]


def take_rows(array, name, rows, shape=None):
    """The array of some of its rows, [(first, count)]; a row is what its first size counts."""
    row_bytes = sum(size for _, size in array.spans) // array.shape[0]
    (start, _), = array.spans
    spans = [(start + first * row_bytes, count * row_bytes) for first, count in rows]
    shape = shape or (sum(count for _, count in rows), *array.shape[1:])
    return array._replace(name=name, spans=spans, shape=shape)


def refuse_nan(array, *numbers):
    if not all(np.isfinite(part).all() for part in numbers):
        raise Failure(f"{array.path}: tensor {array.name} holds numbers that are infinite or none; "
                      "the file is damaged, download it again")


def decode(array, blocks):
    """f32 values of some blocks of a quantized array."""
    with np.errstate(all="ignore"):
        values = array.format.unpack(blocks)
        if array.format.exact:
            codes, scales, offsets = values
            values = scales[..., None] * codes + offsets[..., None]
    refuse_nan(array, values)
    return values


def as_affine(array, blocks):
    """Some blocks as codes [n, 32], scales and offsets [n], and the values of what is quantized
    again, else None."""
    if not array.format.exact:
        values = decode(array, blocks).reshape(-1, GROUP)
        return *quantize(values, array.format.bits), values
    with np.errstate(all="ignore"):
        codes, scales, offsets = array.format.unpack(blocks)
    refuse_nan(array, scales, offsets)
    return codes.reshape(-1, GROUP), scales.ravel(), offsets.ravel(), None


def scale_dtype(array, look):
    """F16 where it is as exact as F32 or, for what is quantized again, as good. To know that, the
    scales are read; look() is called now and then."""
    if array.format.scales:
        return array.format.scales
    most = np.zeros(len(array.format.fields), "<u2")
    for blocks in read_many(array):
        look()
        for i, at in enumerate(array.format.fields):  # without their signs, codes are in order
            codes = blocks[:, at:at + 2].copy().view("<u2") & 0x7FFF
            most[i] = max(most[i], codes.max())
    return "F16" if array.format.reach(*most.view("<f2").tolist()) <= F16_MAX else "F32"


def stored(numbers, dtype):
    if dtype == "BF16":  # the high half; powers of two and their multiples by 3 have no other
        return (numbers.astype("<f4").view("<u4") >> 16).astype("<u2")
    return numbers.astype(NUMPY[dtype])


class Losses:
    """What quantizing again cost, by format. look: see scale_dtype."""

    def __init__(self, look):
        self.look, self.squares = look, {}

    def count(self, array, values, codes, scales, offsets):
        got = scales.astype("<f4")[:, None] * codes + offsets.astype("<f4")[:, None]
        error, total = self.squares.get(array.format.name, (0.0, 0.0))
        got -= values
        self.squares[array.format.name] = (error + float(np.square(got).sum(dtype="f8")),
                                           total + float(np.square(values).sum(dtype="f8")))

    def sentences(self):
        bits = {f.name: f.bits for f in FORMATS.values()}
        for name, (error, total) in sorted(self.squares.items()):
            loss = math.sqrt(error / total) if total else 0.0
            yield (f"note: {name} was quantized again, to {bits[name]} bits in groups of {GROUP}; "
                   f"its rms error is {100 * loss:.2f}% of the rms of the weights")


def affine_arrays(array, losses):
    """The three arrays of a quantized matrix, or of several in one array, NAME.weight."""
    (*rows, cols), bits = array.shape, array.format.bits
    dtype, kept = scale_dtype(array, losses.look), {}

    def codes():
        for blocks in read_blocks(array):
            codes, scales, offsets, values = as_affine(array, blocks)
            if values is not None:
                losses.count(array, values, codes, stored(scales, dtype), stored(offsets, dtype))
            yield pack(codes, bits)

    def numbers(part, other):
        """Scales or offsets; the others come with them and are kept for the call that asks next,
        since to find them out again takes long."""
        if part in kept:
            yield from kept.pop(part)
            return
        rest = []
        for blocks in read_blocks(array):
            found = as_affine(array, blocks)
            rest.append(stored(found[other], dtype).tobytes())
            yield stored(found[part], dtype).tobytes()
        kept[other] = rest

    base = array.name.removesuffix("weight")
    groups = (*rows, cols // GROUP)
    scale_bytes = math.prod(groups) * ELEMENT_BYTES[dtype]
    return [
        Made(array.name, array.path, "U32", (*rows, cols * bits // 32),
             math.prod(array.shape) * bits // 8, codes),
        Made(base + "scales", array.path, dtype, groups, scale_bytes,
             lambda: numbers(1, 2)),
        Made(base + "biases", array.path, dtype, groups, scale_bytes,
             lambda: numbers(2, 1))]


def f32_values(array, blocks):
    """f32 values of some blocks of any array."""
    if not array.format.dtype:
        return decode(array, blocks)
    if array.format.dtype == "BF16":
        return (blocks.view("<u2").astype("<u4") << 16).view("<f4")
    with np.errstate(all="ignore"):
        return blocks.view({"F64": "<f8", **NUMPY}[array.format.dtype]).astype("<f4")


def all_values(array):
    """The f32 values of a small array."""
    return np.concatenate([f32_values(array, blocks).ravel()
                           for blocks in read_blocks(array)]).reshape(array.shape)


def f32_array(array, pieces):
    """An array of f32 whose values pieces() gives, some at a time."""
    return Made(array.name, array.path, "F32", tuple(array.shape), math.prod(array.shape) * 4,
                lambda: (piece.astype("<f4").tobytes() for piece in pieces()))


def minus_one(array):
    """An array of f32 from which 1 has been taken."""
    def pieces():
        for blocks in read_blocks(array):
            with np.errstate(all="ignore"):
                values = f32_values(array, blocks) - np.float32(1)
            yield values
    return f32_array(array, pieces)


def arrays(array, losses):
    """What the file's array becomes: [Tensor or Made]."""
    size = sum(size for _, size in array.spans)
    if array.format.dtype and len(array.spans) == 1:
        return [Tensor(array.name, array.path, array.format.dtype, tuple(array.shape),
                       array.spans[0][0], size)]
    if array.format.dtype:
        return [Made(array.name, array.path, array.format.dtype, tuple(array.shape), size,
                     lambda: (blocks.tobytes() for blocks in read_blocks(array)))]
    if len(array.shape) > 1 and array.name.endswith(".weight"):
        return affine_arrays(array, losses)
    return [f32_array(array, lambda: (decode(array, blocks) for blocks in read_blocks(array)))]
