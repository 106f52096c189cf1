"""Files as torch.save writes them, for the tests of scripts/convert.py: the pickle byte by byte, in
protocol 2, and the zip archive around it. Nothing here uses the script's own code.
"""
import json
import struct
import zlib
from collections import namedtuple

import numpy as np

TYPES = {"F32": ("FloatStorage", 4), "F16": ("HalfStorage", 2), "BF16": ("BFloat16Storage", 2),
         "F64": ("DoubleStorage", 8), "I64": ("LongStorage", 8), "BOOL": ("BoolStorage", 1)}
LLAMA = {"model_type": "llama", "hidden_size": 8, "vocab_size": 16, "num_hidden_layers": 1}

Storage = namedtuple("Storage", "key dtype data count")
View = namedtuple("View", "storage offset shape strides parameter")
Member = namedtuple("Member", "name data method flags size packed_size offset")


# ---- tensors

def storage(key, dtype, data, count=None):
    """data: bytes, or an array of the right width; count: what the pickle says of it, if a lie."""
    data = data if isinstance(data, bytes) else data.tobytes()
    return Storage(str(key), dtype, data, len(data) // TYPES[dtype][1] if count is None else count)


def c_strides(shape):
    return tuple(int(np.prod(shape[i + 1:])) for i in range(len(shape)))


def view(of, shape, offset=0, strides=None, parameter=False):
    return View(of, offset, tuple(shape), c_strides(shape) if strides is None else strides,
                parameter)


def views(arrays, dtype="F32", **how):
    """{name: View}, each with a storage of its own."""
    return {name: view(storage(i, dtype, array), array.shape, **how)
            for i, (name, array) in enumerate(arrays.items())}


# ---- the pickle

class Pickler:
    """What C's pickler writes for the objects that torch gives it, memo included."""

    def __init__(self):
        self.out, self.memo, self.puts = [b"\x80\x02"], {}, 0

    def write(self, *parts):
        self.out += parts

    def put(self, key=None):
        if key is not None:
            self.memo[key] = self.puts
        small = self.puts < 256
        self.write(b"q" if small else b"r", struct.pack("<B" if small else "<I", self.puts))
        self.puts += 1

    def known(self, key):
        if key in self.memo:
            at = self.memo[key]
            self.write(b"h" if at < 256 else b"j", struct.pack("<B" if at < 256 else "<I", at))
        return key in self.memo

    def look_up(self, module, name):
        if not self.known(("global", module, name)):
            self.write(b"c", f"{module}\n{name}\n".encode())
            self.put(("global", module, name))

    def text(self, value):
        if not self.known(("text", value)):
            data = value.encode()
            self.write(b"X", struct.pack("<I", len(data)), data)
            self.put(("text", value))

    def integer(self, value):
        for code, form, least, most in ((b"K", "<B", 0, 255), (b"M", "<H", 0, 65535),
                                        (b"J", "<i", -1 << 31, (1 << 31) - 1)):
            if least <= value <= most:
                return self.write(code, struct.pack(form, value))
        data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
        return self.write(b"\x8a", bytes([len(data)]), data)

    def tuple(self, values):
        if not values:
            return self.write(b")")
        if len(values) > 3:
            self.write(b"(")
        for value in values:
            self.value(value)
        self.write({1: b"\x85", 2: b"\x86", 3: b"\x87"}.get(len(values), b"t"))
        return self.put()

    def ordered(self):
        self.look_up("collections", "OrderedDict")
        self.write(b")R")
        self.put()

    def storage(self, of):
        self.write(b"(")
        self.text("storage")
        self.look_up("torch", TYPES[of.dtype][0])
        self.text(of.key)
        self.text("cpu")
        self.value(of.count)
        self.write(b"t")
        self.put()
        self.write(b"Q")

    def tensor(self, v):
        if v.parameter:
            self.look_up("torch._utils", "_rebuild_parameter")
            self.write(b"(")
        self.look_up("torch._utils", "_rebuild_tensor_v2")
        self.write(b"(")
        self.storage(v.storage)
        for part in (v.offset, v.shape, v.strides, False):
            self.value(part)
        self.ordered()
        self.write(b"t")
        self.put()
        self.write(b"R")
        self.put()
        if v.parameter:
            self.value(True)
            self.ordered()
            self.write(b"t")
            self.put()
            self.write(b"R")
            self.put()

    def batches(self, items, one, many):
        """items: [(value, ...)], at most 1000 with one step."""
        for start in range(0, len(items), 1000):
            batch = items[start:start + 1000]
            self.write(b"(" if len(batch) > 1 else b"")
            for values in batch:
                for value in values:
                    self.value(value)
            self.write(many if len(batch) > 1 else one)

    def items(self, table):
        self.batches(list(table.items()), b"s", b"u")

    def value(self, value):
        if isinstance(value, View):
            self.tensor(value)
        elif isinstance(value, bytes):  # a pickle of its own, as it is
            self.write(value)
        elif value is None or isinstance(value, bool):
            self.write({None: b"N", True: b"\x88", False: b"\x89"}[value])
        elif isinstance(value, int):
            self.integer(value)
        elif isinstance(value, str):
            self.text(value)
        elif isinstance(value, tuple):
            self.tuple(value)
        elif isinstance(value, list):
            self.write(b"]")
            self.put()
            self.batches([(item,) for item in value], b"a", b"e")
        else:
            self.write(b"}")
            self.put()
            self.items(value)


def pickle_of(table, state=None):
    """An OrderedDict of table; state: attributes of it, as state_dict() has its _metadata."""
    p = Pickler()
    p.ordered()
    p.items(table)
    if state is not None:
        p.value(state)
        p.write(b"b")
    return b"".join(p.out) + b"."


# ---- the archive

def member(name, data, method=0, flags=0x808, size=None, packed_size=None, offset=None):
    """size, packed_size, offset: what the directory says of it, if a lie."""
    return Member(name, data, method, flags, size, packed_size, offset)


def local_header(m, at):
    """Sizes follow the data, and the data begin at a multiple of 64, as torch has it."""
    name = m.name.encode()
    pad = -(at + 30 + len(name) + 4) % 64
    return struct.pack("<4s5H3I2H", b"PK\3\4", 20, m.flags, m.method, 0, 0, 0, 0, 0, len(name),
                       4 + pad) + name + struct.pack("<2sH", b"FB", pad) + b"Z" * pad


def directory_entry(m, at, zip64):
    name, size = m.name.encode(), len(m.data) if m.size is None else m.size
    packed = size if m.packed_size is None else m.packed_size
    at = at if m.offset is None else m.offset
    extra, numbers = b"", (packed, size, at)
    if zip64:
        extra = struct.pack("<2H3Q", 1, 24, size, packed, at)
        numbers = (0xFFFFFFFF,) * 3
    return struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, 20, m.flags, m.method, 0, 0,
                       zlib.crc32(m.data), numbers[0], numbers[1], len(name), len(extra), 0, 0, 0,
                       0, numbers[2]) + name + extra


def zip_of(members, zip64=False):
    out, entries = bytearray(), bytearray()
    for m in members:
        entries += directory_entry(m, len(out), zip64)
        out += local_header(m, len(out)) + m.data
        if m.flags & 8:
            out += struct.pack("<4s3I", b"PK\7\10", zlib.crc32(m.data), len(m.data), len(m.data))
    end, count = len(out), len(members)
    out += entries
    if zip64:
        out += struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 20, 45, 0, 0, count, count, len(entries),
                           end)
        out += struct.pack("<4sIQI", b"PK\6\7", 0, end + len(entries), 1)
        count, end = 0xFFFF, 0xFFFFFFFF
    return bytes(out) + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count, count, len(entries), end, 0)


def members_of(table, pickle=None, root="archive", state=None, order=b"little"):
    """The members of torch.save(table); pickle: another than that of table."""
    pickle = pickle_of(table, state) if pickle is None else pickle
    members = [member(f"{root}/data.pkl", pickle)]
    if order is not None:
        members.append(member(f"{root}/byteorder", order))
    storages = {v.storage.key: v.storage for v in table.values() if isinstance(v, View)}
    members += [member(f"{root}/data/{key}", s.data) for key, s in storages.items()]
    return members + [member(f"{root}/version", b"3\n"),
                      member(f"{root}/.data/serialization_id", b"0" * 40)]


def write_torch(path, table, **how):
    path.write_bytes(zip_of(members_of(table, **how)))
    return path


# ---- folders

def make_folder(folder, table, config=LLAMA, **how):
    """A Hugging Face folder with pytorch_model.bin."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.model").write_bytes(b"\x00\xffpieces\n")
    write_torch(folder / "pytorch_model.bin", table, **how)
    return folder


def make_meta_folder(folder, shards, params, tokenizer=b"\npieces"):
    """shards: [{name: array}], one a consolidated.NN.pth."""
    folder.mkdir(parents=True)
    (folder / "params.json").write_text(json.dumps(params))
    if tokenizer is not None:
        (folder / "tokenizer.model").write_bytes(tokenizer)
    for i, arrays in enumerate(shards):
        dtype = {"<f4": "F32", "<f2": "F16", "<u2": "BF16"}[next(iter(arrays.values())).dtype.str]
        write_torch(folder / f"consolidated.{i:02}.pth", views(arrays, dtype))
    return folder
