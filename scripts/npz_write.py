"""Writing an .npz that nibble maps as it lies: members stored, their data aligned, and the same
arrays give the same bytes. Numbers change their type on the way.
"""
import math
import time
import zipfile

import numpy as np

from checkpoint import ELEMENT_BYTES, Failure
from console import chunks, megabytes, program, show_progress

FLOATS = {"F16": "<f2", "BF16": "<V2", "F32": "<f4", "F64": "<f8"}
ARRAYS = dict(FLOATS, U32="<u4", U8="|u1")
ALIGNMENT = 64
ZIP64_FROM = (1 << 31) - 4096  # zipfile wants zip64 from 2 GiB; 4096 is more than an array's header


# ---- numbers: every conversion goes through f32, in which f16 and bf16 lose nothing

def as_f32(data, dtype):
    if dtype == "BF16":
        return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")
    return np.frombuffer(data, FLOATS[dtype]).astype("<f4")


def as_bf16(values):
    """Rounds to nearest, ties to even; a NaN stays one."""
    bits = values.view("<u4")
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return np.where(np.isnan(values), bits >> 16 | 0x40, rounded).astype("<u2")


def from_f32(values, dtype):
    return as_bf16(values) if dtype == "BF16" else values.astype(FLOATS[dtype])


def convert_chunk(data, tensor, dtype):
    if dtype == tensor.dtype:
        return data
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        values = as_f32(data, tensor.dtype)
        result = from_f32(values, dtype)
    before = np.frombuffer(data, "<f8") if tensor.dtype == "F64" else values
    if np.isinf(as_f32(result, dtype)).sum() != np.isinf(before).sum():
        raise Failure(f"{tensor.path}: tensor {tensor.name} has values too large for "
                      f"{dtype.lower()}; choose another --dtype")
    return result.tobytes()


# ---- writing

def npy_header(dtype, shape, start):
    """A header for byte start of the file, padded so that the data after it lie aligned."""
    text = f"{{'descr': '{ARRAYS[dtype]}', 'fortran_order': False, 'shape': {shape}, }}"
    text += " " * (-(start + 10 + len(text) + 1) % ALIGNMENT) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode("ascii")


def converted(tensor, dtype):
    for chunk in chunks(tensor):
        yield convert_chunk(chunk, tensor, dtype)


def stored_bytes(tensor, dtype):
    return math.prod(tensor.shape) * ELEMENT_BYTES[dtype]


def write_member(archive, out, tensor, dtype, pieces):
    """Yields the sizes of the pieces as they are written."""
    info = zipfile.ZipInfo(tensor.name + ".npy", (1980, 1, 1, 0, 0, 0))
    info.create_system = 3  # Unix, on every system
    zip64 = stored_bytes(tensor, dtype) >= ZIP64_FROM
    with archive.open(info, "w", force_zip64=zip64) as entry:
        # zipfile has written the local header, zip64 field included: the array begins here.
        entry.write(npy_header(dtype, tensor.shape, out.tell()))
        for piece in pieces:
            entry.write(piece)
            yield len(piece)


def write_npz(path, members, pieces_of=converted):
    """members: [(tensor, dtype)]; pieces_of(tensor, dtype) gives the bytes to store, piece by
    piece. On a terminal, shows how far it is once it takes longer than a second."""
    total, done, due = sum(stored_bytes(*member) for member in members), 0, time.monotonic() + 1
    with open(path, "wb") as out, zipfile.ZipFile(out, "w") as archive:
        for member in members:
            for size in write_member(archive, out, *member, pieces_of(*member)):
                done += size
                if time.monotonic() > due:
                    show_progress(f"{program()}: {done * 100 // total}% of {megabytes(total)}")
                    due = time.monotonic() + 0.2
    show_progress("")
