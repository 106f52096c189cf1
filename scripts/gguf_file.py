"""What a GGUF file holds: metadata, which become config.json and a tokenizer, and tensors.

Versions 2 and 3, little endian, in one file or split into several. The front of a file is its
metadata (keys with typed values) and a table of its tensors; their data follow. A file that says
something twice or contradicts itself is refused.
"""
import math
import re
import struct
from collections import namedtuple

import numpy as np

import gguf_model
import gguf_tokenizer
from checkpoint import Checkpoint, Failure, Made, read_chunks, reading, whole_file
from gguf_blocks import FORMATS, UNREAD, Blocks, Losses, arrays

MAX_FRONT = 128 << 20   # bytes of metadata and table; the largest vocabularies take some 20 MB
MAX_ITEMS = 2 << 20     # strings in all arrays together
MAX_ARRAYS = 1 << 16    # arrays in an array
MAX_KEYS = 1 << 16
MAX_TENSORS = 1 << 17
MAX_NESTING = 4
MAX_DIMS = 4            # as ggml has it
MAX_ALIGNMENT = 1 << 20

BOOL, STRING, ARRAY = 7, 8, 9
NUMBERS = {0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 10: "<u8",
           11: "<i8", 12: "<f8"}

# One file: its metadata {key: bool, int, float, str, numpy array or list}, its tensors {name:
# Blocks}. Strings in lists are bytes.
Part = namedtuple("Part", "path metadata tensors")


# ---- the front of a file

class Front:
    """Reads the front of a file from its beginning to its end, and no further than it must."""

    def __init__(self, path):
        self.whole = whole_file(path)
        self.path, self.data, self.at, self.items = path, bytearray(), 0, 0

    def fail(self, why):
        raise Failure(f"{self.path} {why}; download it again")

    def left(self):
        return self.whole.size - self.at

    def need(self, size):
        """Makes sure that size more bytes are in data."""
        end = self.at + size
        if end <= len(self.data):
            return
        if end > self.whole.size:
            self.fail("is cut short or damaged: its metadata do not end before it does")
        if end > MAX_FRONT:
            self.fail(f"has more than {MAX_FRONT >> 20} MiB of metadata, more than any model")
        start = len(self.data)
        stop = min(self.whole.size, max(end, 2 * start, 1 << 20))
        for chunk in read_chunks(self.whole._replace(offset=start, size=stop - start)):
            self.data += chunk

    def take(self, size):
        self.need(size)
        self.at += size
        return bytes(self.data[self.at - size:self.at])

    def number(self, code):
        return struct.unpack("<" + code, self.take(struct.calcsize(code)))[0]

    def text(self):
        return self.take(self.number("Q"))

    def count(self, what, most, least_bytes):
        """A count of things of which each takes at least so many bytes."""
        count = self.number("Q")
        if count > most or count * least_bytes > self.left():
            self.fail(f"is damaged: it claims to hold {count} {what}")
        return count

    def value(self, kind, depth=0):
        """A number of numpy's, a truth value, bytes, an array of numbers, or a list."""
        if kind in NUMBERS:
            return np.frombuffer(self.take(np.dtype(NUMBERS[kind]).itemsize), NUMBERS[kind])[0]
        if kind == BOOL:
            return self.flag()
        if kind == STRING:
            return self.text()
        if kind == ARRAY and depth < MAX_NESTING:
            return self.array(depth + 1)
        self.fail(f"is damaged: a value of its metadata has the type {kind}"
                  if kind != ARRAY else "has arrays nested too deeply in its metadata")

    def flag(self):
        byte = self.take(1)[0]
        if byte > 1:
            self.fail(f"is damaged: a truth value of its metadata is {byte}")
        return bool(byte)

    def array(self, depth):
        kind = self.number("I")
        if kind in NUMBERS or kind == BOOL:
            dtype = np.dtype(NUMBERS.get(kind, "<u1"))
            count = self.count("numbers in an array", MAX_FRONT, dtype.itemsize)
            return np.frombuffer(self.take(count * dtype.itemsize), dtype)
        count = self.count("items in an array", MAX_ITEMS if kind == STRING else MAX_ARRAYS, 8)
        self.items += count
        if self.items > MAX_ITEMS:
            self.fail("is damaged: it has more strings than any vocabulary")
        if kind == STRING:
            return self.texts(count)
        return [self.value(kind, depth) for _ in range(count)]

    def texts(self, count):
        """As text() does, at a third of the time."""
        found, length = [], struct.Struct("<Q").unpack_from
        for _ in range(count):
            self.need(8)
            size, = length(self.data, self.at)
            self.need(8 + size)
            self.at += 8 + size
            found.append(bytes(self.data[self.at - size:self.at]))
        return found


def plain(front, key, value):
    """A value as Python has it; text is UTF-8."""
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            front.fail(f"is damaged: the text of {key} is not UTF-8")
    if isinstance(value, np.float32):
        return float(str(value))  # 1e-05 and not 9.999999747378752e-06
    return value.item() if isinstance(value, np.generic) else value


def read_version(front):
    """Refuses what is no GGUF, and what is one of another kind."""
    magic = front.take(min(4, front.whole.size))
    if magic == b"vers":
        raise Failure(f"{front.path} is a Git LFS pointer, not the model; fetch it with git lfs "
                      "pull")
    if magic in (b"lmgg", b"fmgg", b"tjgg"):
        raise Failure(f"{front.path} is older than GGUF (GGML, GGMF or GGJT); download the model "
                      "as GGUF")
    if magic != b"GGUF":
        raise Failure(f"{front.path} is not a GGUF file; it does not begin with GGUF")
    version = front.number("I")
    if version & 0xFFFF == 0 and version:
        raise Failure(f"{front.path} is a big-endian GGUF file; download or make a little-endian "
                      "one")
    if version not in (2, 3):
        raise Failure(f"{front.path} is GGUF version {version}, but only 2 and 3 are read; "
                      "download another file of the model")


def read_metadata(front, count):
    metadata = {}
    for _ in range(count):
        key = front.text()
        if not re.fullmatch(rb"[!-~]{1,1000}", key):
            front.fail(f"is damaged: a key of its metadata is {key[:60]!r}")
        key = key.decode("ascii")
        if key in metadata:
            raise Failure(f"{front.path} has the key {key[:200]} twice in its metadata")
        metadata[key] = plain(front, key, front.value(front.number("I")))
    return metadata


# ---- tensors

def tensor_format(front, name, kind):
    if kind in FORMATS:
        return FORMATS[kind]
    known = f"the type {UNREAD[kind]}" if kind in UNREAD else f"the unknown type {kind}"
    raise Failure(f"{front.path}: tensor {name} has {known}, which has no converter here; read are "
                  f"{', '.join(f.name for f in FORMATS.values())}")


def read_tensor(front):
    """Blocks, whose one span counts from the beginning of the data."""
    name = front.text()
    if not re.fullmatch(rb"[\w.:-]{1,127}", name):
        front.fail(f"is damaged: a tensor has the name {name[:60]!r}")
    name = name.decode("ascii")
    dims = front.number("I")
    if not 1 <= dims <= MAX_DIMS:
        front.fail(f"is damaged: tensor {name} has {dims} dimensions")
    sizes = [front.number("Q") for _ in range(dims)]
    form = tensor_format(front, name, front.number("I"))
    values, offset = math.prod(sizes), front.number("Q")
    if not 0 < values < 1 << 50 or sizes[0] % form.values:
        front.fail(f"is damaged: tensor {name} of type {form.name} has the sizes {sizes}")
    span = offset, values // form.values * form.bytes
    return Blocks(name, front.path, form, tuple(reversed(sizes)), [span])


def place_tensors(front, tensors, alignment):
    """{name: Blocks} with offsets in the file, where no two share a byte."""
    start = -(-front.at // alignment) * alignment
    placed, end, last = {}, start, None
    for tensor in sorted(tensors, key=lambda tensor: tensor.spans):
        (offset, size), = tensor.spans
        if offset % alignment:
            front.fail(f"is damaged: tensor {tensor.name} does not begin at a multiple of "
                       f"{alignment} bytes")
        if start + offset + size > front.whole.size:
            raise Failure(f"{front.path} is cut short: tensor {tensor.name} ends at byte "
                          f"{start + offset + size}, the file at {front.whole.size}; download it "
                          "again")
        if start + offset < end:
            front.fail(f"is damaged: the tensors {last} and {tensor.name} overlap")
        end, last = start + offset + size, tensor.name
        placed[tensor.name] = tensor._replace(spans=[(start + offset, size)])
    return placed


def read_part(path):
    front = Front(path)
    read_version(front)
    tensor_count = front.count("tensors", MAX_TENSORS, 33)
    metadata = read_metadata(front, front.count("keys", MAX_KEYS, 13))
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is not int or not 0 < alignment <= MAX_ALIGNMENT or (
            alignment & alignment - 1):
        front.fail(f"is damaged: its alignment is {str(alignment)[:60]}")
    tensors, names = [], set()
    for _ in range(tensor_count):
        tensors.append(read_tensor(front))
        if tensors[-1].name in names:
            raise Failure(f"{path} has the tensor {tensors[-1].name} twice")
        names.add(tensors[-1].name)
    return Part(path, metadata, place_tensors(front, tensors, alignment))


# ---- a model split into several files

def part_paths(path, count):
    """All files of the model that this one is a part of, from its name."""
    name = re.fullmatch(r"(.*)-\d{5}-of-(\d{5})\.gguf", path.name)
    if not name or int(name[2]) != count:
        raise Failure(f"{path} is one of the {count} files of a model, so its name should end in "
                      f"-00001-of-{count:05}.gguf or the like; rename the files")
    return [path.with_name(f"{name[1]}-{i + 1:05}-of-{count:05}.gguf") for i in range(count)]


def split_number(part, key, absent=None):
    value = part.metadata.get(f"split.{key}", absent)
    if type(value) is not int or not 0 <= value <= MAX_TENSORS:
        raise Failure(f"{part.path} is damaged: its split.{key} is {str(value)[:60]}; download it "
                      "again")
    return value


def same_model(path, parts):
    """The tensors of all parts, which are checked to be those of one model, in order."""
    count, tensors = len(parts), {}
    for i, part in enumerate(parts):
        if (split_number(part, "no"), split_number(part, "count")) != (i, count):
            raise Failure(f"{part.path} is not part {i + 1} of {count} of a model, as its name "
                          "says; download it again")
        for name, tensor in part.tensors.items():
            if tensors.setdefault(name, tensor) is not tensor:
                raise Failure(f"{part.path} and {tensors[name].path} both hold tensor {name}")
    total = split_number(parts[0], "tensors.count", len(tensors))
    if total != len(tensors):
        raise Failure(f"the parts of {path} hold {len(tensors)} tensors where the first of them "
                      f"promises {total}; download them again")
    return tensors


def read_parts(path):
    """The model's metadata, those of its first file, and its tensors."""
    part = read_part(path)
    count = split_number(part, "count", 1)
    if count < 2:
        return part.metadata, part.tensors
    paths = part_paths(path, count)
    for other in paths:
        with reading(other):
            if not other.exists():
                raise Failure(f"{path} is one of {count} files, of which {other.name} is missing; "
                              "download it too")
    parts = [read_part(other) for other in paths]
    return parts[0].metadata, same_model(path, parts)


# ---- the model

def quantization(tensors):
    """As MLX has it in a config: bits and group of most matrices, and those that differ."""
    widths = {}
    for array in tensors:
        if array.format.bits and len(array.shape) == 2:
            widths[array.name.removesuffix(".weight")] = array.format.bits
    if not widths:
        return {}
    most = max(sorted(set(widths.values())), key=list(widths.values()).count)
    rest = {name: {"group_size": 32, "bits": bits} for name, bits in widths.items() if bits != most}
    rest.update((array.name.removesuffix(".weight"), False) for array in tensors
                if array.format.dtype and len(array.shape) == 2)
    return {"quantization": {"group_size": 32, "bits": most, **rest}}


def is_gguf(path):
    """A file that says so in its name or in its first bytes."""
    if not path.is_file():
        return False
    start = whole_file(path)._replace(size=min(4, path.stat().st_size))
    return path.suffix == ".gguf" or b"".join(read_chunks(start)) == b"GGUF"


def read_gguf(path, look):
    """Its Checkpoint, and a function that gives sentences about what it cost, to be called once
    the tensors have been written. look() is called now and then and may raise what ends it all."""
    metadata, tensors = read_parts(path)
    if not tensors:
        raise Failure(f"{path} holds no tensors, perhaps only a vocabulary; download the model")
    config, kept = gguf_model.convert(path, metadata, tensors)
    tokenizer = gguf_tokenizer.convert(path, metadata)
    if tokenizer.count > config["vocab_size"]:
        raise Failure(f"{path} has {tokenizer.count} tokens, but an embedding of only "
                      f"{config['vocab_size']} rows; download it again")
    config.update(tokenizer.config)
    config.update(quantization([array for array in kept if isinstance(array, Blocks)]))
    losses, converted = Losses(look), {}
    for array in kept:
        for tensor in arrays(array, losses) if isinstance(array, Blocks) else [array]:
            if tensor.name in converted:
                raise Failure(f"{path} has the tensor {tensor.name} twice, under two names")
            converted[tensor.name] = tensor
    files = [Made(name, path, "U8", (len(data),), len(data), lambda data=data: iter([data]))
             for name, data in tokenizer.files.items()]

    def notes():
        yield from tokenizer.notes
        yield from losses.sentences()

    return Checkpoint(config, files, converted), notes
