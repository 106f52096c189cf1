"""The arrays of an .npz, as numpy and MLX write them.

Nothing in it is trusted: a name, a shape or a size that contradicts another is refused, and a
member's checksum is compared when its data are read.
"""
import math
import re
import struct
import zipfile
import zlib

from checkpoint import CHUNK, ELEMENT_BYTES, Failure, Made, reading, whole_file

DTYPES = {"f2": "F16", "V2": "BF16", "f4": "F32", "f8": "F64", "u1": "U8", "i1": "I8", "b1": "BOOL",
          "u2": "U16", "i2": "I16", "u4": "U32", "i4": "I32", "u8": "U64", "i8": "I64", "c8": "C64"}
HEADER = re.compile(r"\{'descr': '[<|=]([a-zA-Z]\d+)', 'fortran_order': (True|False), "
                    r"'shape': \(((?:\d{1,19}, ?)*(?:\d{1,19})?)\), ?\} *\n?")
MAX_HEADER = 10000  # of one array, as numpy has it
MAX_DIMS = 8        # as nibble has it

# What zipfile raises on what is no archive or is damaged.
BROKEN = (zipfile.BadZipFile, zlib.error, struct.error, ValueError, RuntimeError, EOFError)


def read_exactly(member, size):
    data = member.read(size)
    if len(data) != size:
        raise EOFError("a member ends too early")
    return data


def read_header(member):
    """Its text, and how many bytes it takes with what stands before."""
    start = read_exactly(member, 8)
    if start[:6] != b"\x93NUMPY" or start[6] not in (1, 2):
        raise ValueError("a member is no array")
    width = 2 if start[6] == 1 else 4
    size = int.from_bytes(read_exactly(member, width), "little")
    if size > MAX_HEADER:
        raise ValueError(f"a header of {size} bytes")
    return read_exactly(member, size).decode("latin-1"), 8 + width + size


def pieces_of(where, archive, info, skip):
    """Its data; zipfile compares the checksum at the end."""
    try:
        with reading(where), archive.open(info) as member:
            read_exactly(member, skip)
            for start in range(skip, info.file_size, CHUNK):
                yield read_exactly(member, min(CHUNK, info.file_size - start))
    except BROKEN as e:
        raise Failure(f"{where}: {info.filename} is damaged ({e}); download it again") from e


def read_member(path, archive, info):
    name = info.filename.removesuffix(".npy")
    where = f"{path}: array {name[:200]!r}"
    if not re.fullmatch(r"[\w.:-]{1,1000}", name, re.ASCII):
        raise Failure(f"{where} has a name that no weight has")
    with archive.open(info) as member:
        text, skip = read_header(member)
    found = HEADER.fullmatch(text)
    if not found or found[1] not in DTYPES:
        raise Failure(f"{where} has the header {text.rstrip()[:100]!r}, which is of no weight")
    shape = tuple(int(n) for n in re.findall(r"\d+", found[3]))
    if found[2] == "True" and sum(n != 1 for n in shape) > 1:
        raise Failure(f"{where} is stored in Fortran order; save it again after "
                      "numpy.ascontiguousarray")
    dtype = DTYPES[found[1]]
    size = math.prod(shape) * ELEMENT_BYTES[dtype]
    if len(shape) > MAX_DIMS or size != info.file_size - skip:
        raise Failure(f"{where} has {info.file_size - skip} bytes where its shape takes {size}")
    return Made(name, path, dtype, shape, size,
                lambda: pieces_of(path, archive, info, skip))


def is_weight(member):
    """Not what nibble has stored beside them: an answer, which is another's once types change."""
    return member.endswith(".npy") and member != "reference.json.npy"


def read_npz(path):
    """[Made]; what is no array of weights is passed over."""
    whole_file(path)
    try:
        with reading(path):
            archive = zipfile.ZipFile(path)  # stays open: members are read from it later
            members = [info for info in archive.infolist() if is_weight(info.filename)]
            tensors = [read_member(path, archive, info) for info in members]
    except BROKEN as e:
        raise Failure(f"{path} is cut short or not an .npz ({e}); download it again") from e
    names = set()
    for tensor in tensors:
        if tensor.name in names:
            raise Failure(f"{path} holds {tensor.name} twice")
        names.add(tensor.name)
    if not tensors:
        raise Failure(f"{path} holds no arrays")
    return tensors
