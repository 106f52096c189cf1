"""What files of torch.save hold: pytorch_model*.bin, and consolidated.NN.pth of Meta's models.

Such a file is a zip archive: a pickle that says which tensor lies where in which storage, and each
storage as a stored member. A pickle is a program; the interpreter here knows only what torch writes
for a table of tensors. Everything else is refused by name, and nothing is looked up or called.
"""
import functools
import math
import re
import struct
import zipfile
from collections import namedtuple

from checkpoint import (ELEMENT_BYTES, Failure, Made, Tensor, read_chunks, reading, whole_file)

MAX_DIMS = 8             # as nibble has it
MAX_DIRECTORY = 4 << 20  # bytes; 100 to 150 a tensor
MAX_PICKLE = 32 << 20    # bytes; 200 a tensor
MAX_STEPS = 1 << 19      # of the pickle; 30 to 45 a tensor
MAX_STACK = 5000         # values; torch fills tables with 1000 pairs at a time

STORAGES = {"FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16",
            "DoubleStorage": "F64", "LongStorage": "I64", "IntStorage": "I32",
            "ShortStorage": "I16", "CharStorage": "I8", "ByteStorage": "U8", "BoolStorage": "BOOL"}
FUNCTIONS = ("collections.OrderedDict", "torch._utils._rebuild_tensor_v2",
             "torch._utils._rebuild_parameter")
OLD_FORMAT = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # begins with torch's magic number

Global = namedtuple("Global", "name")                   # one of STORAGES or FUNCTIONS
Storage = namedtuple("Storage", "dtype key count")      # the member data/KEY, count elements
View = namedtuple("View", "storage offset shape strides")  # a tensor; all counted in elements


# ---- the pickle

class Damaged(Exception):
    """The pickle makes no sense."""


class Pickle:
    """Runs one; each step is a method, or a line in the table below."""

    def __init__(self, path, data):
        self.path, self.data, self.at = path, data, 0
        self.stack, self.marks, self.memo = [], [], {}

    def take(self, size):
        self.at += size
        if self.at > len(self.data):
            raise Damaged
        return self.data[self.at - size:self.at]

    def number(self, size, signed=False):
        return int.from_bytes(self.take(size), "little", signed=signed)

    def line(self):
        end = self.data.find(b"\n", self.at, self.at + 200)
        if end < 0:
            raise Damaged
        return self.take(end + 1 - self.at)[:-1].decode("utf-8")

    def push(self, value):
        self.stack.append(value)

    def pop(self, kind=object):
        """The topmost value above the last mark."""
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise Damaged
        value = self.stack.pop()
        if not isinstance(value, kind):
            raise Damaged
        return value

    def pop_mark(self):
        if not self.marks:
            raise Damaged
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def tuple_of(self, count):
        values = [self.pop() for _ in range(count)]
        self.push(tuple(reversed(values)))

    def look_up(self):
        name = f"{self.line()}.{self.line()}"
        if name not in FUNCTIONS and name.removeprefix("torch.") not in STORAGES:
            raise Failure(f"{self.path}: its pickle names {name!r}, which is no part of a table of "
                          "tensors and is not run; save the model's state_dict alone")
        self.push(Global(name))

    def remember(self, index):
        self.memo[index] = self.stack[-1]

    def find_storage(self):
        """What torch calls a persistent id: ('storage', type, key, device, count)."""
        what, kind, key, _, count = self.pop(tuple)
        dtype = STORAGES.get(kind.name.removeprefix("torch.")) if type(kind) is Global else None
        if what != "storage" or not dtype or type(key) is not str or not is_count(count):
            raise Damaged
        self.push(Storage(dtype, key, count))

    def rebuild(self):
        """The three functions that are known are not called but understood."""
        arguments, function = self.pop(tuple), self.pop(Global).name
        if function == "collections.OrderedDict" and not arguments:
            self.push({})
        elif function == "torch._utils._rebuild_parameter" and len(arguments) == 3:
            self.push(check_view(arguments[0]))
        elif function == "torch._utils._rebuild_tensor_v2" and len(arguments) >= 6:
            if any(arguments[6:]):  # metadata: the tensor is the negative or conjugate of its data
                raise Damaged
            self.push(check_view(View(*arguments[:4])))
        else:
            raise Damaged

    def set_items(self, pairs):
        table = self.stack[-1]
        if not isinstance(table, dict) or len(pairs) % 2:
            raise Damaged
        for key, value in zip(pairs[::2], pairs[1::2]):
            if type(key) not in (str, int):
                raise Damaged
            table[key] = value

    def extend(self, values):
        if not isinstance(self.stack[-1], list):
            raise Damaged
        self.stack[-1].extend(values)

    def set_state(self):
        """Attributes of a table, such as _metadata, say nothing about tensors."""
        self.pop(dict)
        if not isinstance(self.stack[-1], dict):
            raise Damaged

    def check_protocol(self):
        version = self.number(1)
        if version != 2:
            raise Failure(f"{self.path}: its pickle has protocol {version}, torch.save writes 2; "
                          "save it with torch.save's own pickle_protocol")

    def run(self):
        """What the pickle makes, which is on the stack alone at the end."""
        for _ in range(MAX_STEPS):
            code = self.data[self.at:self.at + 1]
            self.at += 1
            if code == b"." and len(self.stack) == 1 and not self.marks:
                return self.stack[0]
            if code not in STEPS:
                raise Damaged
            STEPS[code](self)
            if len(self.stack) + len(self.marks) > MAX_STACK:
                raise Failure(f"{self.path}: its pickle nests deeper than a table of tensors does; "
                              "save the model's state_dict alone")
        raise Failure(f"{self.path}: its pickle takes more than {MAX_STEPS} steps; save the "
                      "model in several files")


STEPS = {
    b"\x80": Pickle.check_protocol,
    b"(": lambda p: p.marks.append(len(p.stack)),
    b"}": lambda p: p.push({}),
    b"]": lambda p: p.push([]),
    b")": lambda p: p.push(()),
    b"N": lambda p: p.push(None),
    b"\x88": lambda p: p.push(True),
    b"\x89": lambda p: p.push(False),
    b"K": lambda p: p.push(p.number(1)),
    b"M": lambda p: p.push(p.number(2)),
    b"J": lambda p: p.push(p.number(4, signed=True)),
    b"\x8a": lambda p: p.push(p.number(p.number(1), signed=True)),
    b"X": lambda p: p.push(p.take(p.number(4)).decode("utf-8")),
    b"c": Pickle.look_up,
    b"q": lambda p: p.remember(p.number(1)),
    b"r": lambda p: p.remember(p.number(4)),
    b"h": lambda p: p.push(p.memo[p.number(1)]),
    b"j": lambda p: p.push(p.memo[p.number(4)]),
    b"t": lambda p: p.push(tuple(p.pop_mark())),
    b"\x85": lambda p: p.tuple_of(1),
    b"\x86": lambda p: p.tuple_of(2),
    b"\x87": lambda p: p.tuple_of(3),
    b"Q": Pickle.find_storage,
    b"R": Pickle.rebuild,
    b"b": Pickle.set_state,
    b"s": lambda p: p.set_items([p.pop(), p.pop()][::-1]),
    b"u": lambda p: p.set_items(p.pop_mark()),
    b"a": lambda p: p.extend([p.pop()]),
    b"e": lambda p: p.extend(p.pop_mark()),
}


def is_count(value):
    return type(value) is int and 0 <= value < 1 << 63


def check_view(view):
    """Of the right types; what the numbers mean is checked against the storage."""
    if (not isinstance(view, View) or not isinstance(view.storage, Storage)
            or not isinstance(view.shape, tuple) or not isinstance(view.strides, tuple)):
        raise Damaged
    return view


def read_pickle(path, data):
    """{name: View}"""
    try:
        table = Pickle(path, data).run()
    except (Damaged, IndexError, KeyError, ValueError) as e:  # nothing to pop, to recall, to split
        raise Failure(f"{path}: its pickle is damaged, or more than a table of tensors; save the "
                      "model's state_dict alone") from e
    if not isinstance(table, dict) or not table:
        raise Failure(f"{path} holds no table of tensors; save the model's state_dict alone")
    for name, view in table.items():
        if not isinstance(view, View):
            raise Failure(f"{path}: its entry {str(name)[:200]!r} is not a tensor; save the "
                          "model's state_dict alone")
        if not re.fullmatch(r"[\w.:-]{1,1000}", str(name), re.ASCII):
            raise Failure(f"{path}: tensor {str(name)[:200]!r} has a name that no weight has")
    return {str(name): view for name, view in table.items()}


# ---- the archive

class DirectoryReader:
    """The file as zipfile sees it, which would read as much as the file tells it to."""

    def __init__(self, file):
        self.file, self.seek, self.tell = file, file.seek, file.tell

    def read(self, size=-1):
        if size > MAX_DIRECTORY:
            raise zipfile.BadZipFile("its directory is too large")
        return self.file.read(size)


def read_directory(whole):
    """{name: ZipInfo} without the folder that all members lie in."""
    path = whole.path
    broken = f"{path} is damaged or cut short; download it again"
    try:
        with reading(path), open(path, "rb") as file, zipfile.ZipFile(DirectoryReader(file)) as z:
            infos = z.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OverflowError, struct.error) as e:
        raise Failure(broken) from e
    folder = next((info.filename[:-len("data.pkl")] for info in infos
                   if re.fullmatch(r"[^/]+/data\.pkl", info.filename)), None)
    if folder is None:
        raise Failure(f"{path} is a zip archive without a data.pkl, not a file of torch.save; save "
                      "the model's state_dict with torch.save")
    members = {}
    for info in infos:
        name = info.filename.removeprefix(folder)
        if ".." in info.filename.split("/") or name == info.filename or name in members:
            raise Failure(f"{path} holds the member {info.filename[:200]!r} where torch writes "
                          "none; download it again")
        members[name] = info
    return members


def find_member(whole, members, name):
    """Where a member's bytes lie: after its local header, whose length only that header tells."""
    info, where = members.get(name), f"{whole.path}: its member {name[:200]!r}"
    if info is None:
        raise Failure(f"{where} is missing; download it again")
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
        raise Failure(f"{where} is compressed or encrypted, as torch never writes it; save the "
                      "model with torch.save again")
    start, size = info.header_offset, info.file_size
    header = b""
    if 0 <= start <= whole.size - 30:
        header = b"".join(read_chunks(whole._replace(offset=start, size=30)))
    if header[:4] == b"PK\x03\x04":
        start += 30 + sum(struct.unpack_from("<HH", header, 26))
        if size == info.compress_size and size <= whole.size - start:
            return whole._replace(name=name, shape=(size,), offset=start, size=size)
    raise Failure(f"{where} does not lie where the directory says; download the file again")


def check_format(whole):
    path, start = whole.path, b"".join(read_chunks(whole._replace(size=min(whole.size, 16))))
    if start[:4] == b"PK\x03\x04":
        return
    if start[:8] == b"version ":
        raise Failure(f"{path} is a Git LFS pointer, not the weights; fetch them with git lfs pull")
    if start.startswith(OLD_FORMAT):
        raise Failure(f"{path} has the format of torch before 1.6; load it with torch and save it "
                      "again with torch.save")
    raise Failure(f"{path} is cut short or not a file of torch.save; download it again")


# ---- tensors

def transposed(source, element_bytes):
    """Pieces of the transpose of a matrix that is source: the columns of that, one by one."""
    rows, cols = source.shape
    data = memoryview(b"".join(read_chunks(source))).cast({1: "B", 2: "H", 4: "I",
                                                           8: "Q"}[element_bytes])
    for col in range(cols):
        yield data[col::cols].tobytes()


def place(path, name, view, storage):
    """The tensor in its storage, which is bytes of the file."""
    where = f"{path}: tensor {name}"
    dtype, shape, strides = view.storage.dtype, view.shape, view.strides
    if (len(shape) > MAX_DIMS or len(shape) != len(strides)
            or not all(map(is_count, (view.offset, *shape, *strides)))):
        raise Failure(f"{where} should have at most {MAX_DIMS} sizes, as many strides and an "
                      "offset, none of them negative")
    each, count = ELEMENT_BYTES[dtype], math.prod(shape)
    if view.storage.count * each != storage.size:
        raise Failure(f"{where}: its storage has {storage.size} bytes where the pickle says "
                      f"{view.storage.count * each}; download it again")
    last = view.offset + sum((n - 1) * stride for n, stride in zip(shape, strides) if count)
    if last >= view.storage.count and count or view.offset > view.storage.count:
        raise Failure(f"{where} reaches beyond its storage; download it again")
    wanted = [math.prod(shape[i + 1:]) for i in range(len(shape))]
    tensor = Tensor(name, path, dtype, shape, storage.offset + view.offset * each, count * each)
    if not count or all(n == 1 or s == w for n, s, w in zip(shape, strides, wanted)):
        return tensor
    if len(shape) == 2 and strides == (1, shape[0]):
        source = tensor._replace(shape=shape[::-1])
        return Made(name, path, dtype, shape, count * each,
                    functools.partial(transposed, source, each))
    raise Failure(f"{where} has the strides {strides}, which are neither those of an array nor of "
                  "a transposed one; save it after contiguous()")


def read_torch(path):
    """Every tensor of a file, [Tensor or Made]."""
    whole = whole_file(path)
    check_format(whole)
    members = read_directory(whole)
    order = b"little"
    if "byteorder" in members:
        order = b"".join(read_chunks(find_member(whole, members, "byteorder")._replace(size=6)))
    if order != b"little":
        raise Failure(f"{path} has big-endian numbers; save it on a little-endian machine")
    pickle = find_member(whole, members, "data.pkl")
    if pickle.size > MAX_PICKLE:
        raise Failure(f"{path}: its pickle has {pickle.size} bytes, more than any table of tensors")
    storages, tensors = {}, []
    for name, view in read_pickle(path, b"".join(read_chunks(pickle))).items():
        key = view.storage.key
        if key not in storages:
            storages[key] = find_member(whole, members, f"data/{key}")
        tensors.append(place(path, name, view, storages[key]))
    total = sum(tensor.size for tensor in tensors)
    if total > 2 * whole.size:  # tied matrices share a storage, but no model shares them all
        raise Failure(f"{path}: its tensors take {total} bytes, more than twice the file; save "
                      "each with data of its own")
    return tensors
