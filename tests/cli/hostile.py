"""Files made to break readers, byte by byte: zip archives, npy headers, SentencePiece models."""
import struct
import zlib

PLAIN = b"\x93NUMPY\x01\0"


# ---- npy

def npy(descr="'<f4'", shape="(2, 2)", data=bytes(16), order="False", magic=PLAIN, text=None,
        length=None, end=b"\n"):
    """text: the whole header instead; length: what the file says of it, if a lie."""
    if text is None:
        text = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"
    text = text if isinstance(text, bytes) else text.encode()
    text += b" " * (-(len(text) + 11) % 64) + end
    size = len(text) if length is None else length
    return magic + struct.pack("<I" if magic[6] > 1 else "<H", size) + text + data


# ---- zip

def member(name, data=b"", **lies):
    """lies: fields of the two headers that are not as they should be, by name; those of one alone
    begin with local_ or central_."""
    return name if isinstance(name, bytes) else name.encode(), data, lies


def extra64(*values):
    return struct.pack("<HH", 1, 8 * len(values)) + struct.pack(f"<{len(values)}Q", *values)


def header_fields(name, data, lies, which):
    fields = {"version": 20, "flags": 0, "method": 0, "crc": zlib.crc32(data), "packed": len(data),
              "size": len(data), "name": name, "extra": b"", "name_bytes": None,
              "extra_bytes": None}
    fields.update({k: v for k, v in lies.items() if k in fields})
    fields.update({k[len(which):]: v for k, v in lies.items() if k.startswith(which)})
    for part in ("name", "extra"):
        if fields[part + "_bytes"] is None:
            fields[part + "_bytes"] = len(fields[part])
    return fields


def packed(f, signature, before=b""):
    return signature + before + struct.pack(
        "<5H3I2H", f["version"], f["flags"], f["method"], 0, 0x21, f["crc"], f["packed"],
        f["size"], f["name_bytes"], f["extra_bytes"])


def archive(*members, prefix=b"", comment=b"", comment_bytes=None, count=None, directory=None,
            directory_bytes=None, between=b"", end=None):
    """between: bytes in front of the end record, which says count, directory (its place) and so on
    as given; end: the whole end record instead."""
    out, entries = bytearray(prefix), bytearray()
    for name, data, lies in members:
        local = header_fields(name, data, lies, "local_")
        central = header_fields(name, data, lies, "central_")
        at = lies.get("offset", len(out))
        entries += packed(central, b"PK\1\2", struct.pack("<H", 20))
        entries += struct.pack("<3H2I", 0, 0, 0, 0, at) + central["name"] + central["extra"]
        if not lies.get("no_data"):
            out += packed(local, b"PK\3\4") + local["name"] + local["extra"] + data
    place = len(out) if directory is None else directory
    number = len(members) if count is None else count
    size = len(entries) if directory_bytes is None else directory_bytes
    out += entries + between
    if end is not None:
        return bytes(out) + end
    length = len(comment) if comment_bytes is None else comment_bytes
    return bytes(out) + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, number, number, size, place,
                                    length) + comment


def zip64_end(count, size, place, at, disks=1):
    """The end record and the locator of zip64, to stand between; at: what the locator says."""
    record = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, place)
    return record + struct.pack("<4sIQI", b"PK\6\7", 0, at, disks)


# ---- protobuf

def varint(n):
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    return bytes(out) + bytes([n])


def field(number, value):
    """An integer, a float, or bytes."""
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def piece(text, score=0.0, kind=1):
    text = text if isinstance(text, bytes) else text.encode()
    return field(1, field(1, text) + field(2, score) + field(3, kind))


def sentencepiece(pieces, trainer=b"", normalizer=b""):
    """pieces: bytes of fields made by piece()."""
    return b"".join(pieces) + field(2, field(3, 2) + trainer) + field(3, normalizer)


BASE = [piece("<unk>", 0.0, 2), piece("<s>", 0.0, 3), piece("</s>", 0.0, 3)]
