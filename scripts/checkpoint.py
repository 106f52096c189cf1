"""What the readers of checkpoints share: arrays that lie in files or are made of what lies there.

Nothing in a file is trusted: a length is compared with the file before it is used. Data are read
only when asked for, and no more than a piece of an array is in memory.
"""
import contextlib
import json
from collections import namedtuple

ELEMENT_BYTES = {"BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1,
                 "U16": 2, "I16": 2, "F16": 2, "BF16": 2, "U32": 4, "I32": 4, "F32": 4,
                 "U64": 8, "I64": 8, "F64": 8, "C64": 8}
CHUNK = 4 << 20         # bytes read at a time; a multiple of every element size
MAX_JSON = 100_000_000  # as the safetensors library has it

# One array: size bytes at offset of path. A config or tokenizer file is one as well, of bytes.
Tensor = namedtuple("Tensor", "name path dtype shape offset size")

# One that has to be computed: pieces() gives its bytes, piece by piece, in C order.
Made = namedtuple("Made", "name path dtype shape size pieces")

# A model: its config (a dict), its other files ([Tensor or Made]), its arrays ({name: the same}).
Checkpoint = namedtuple("Checkpoint", "config files tensors")


class Failure(Exception):
    """Why this checkpoint cannot be converted, in one sentence."""


# ---- reading files

@contextlib.contextmanager
def reading(path):
    try:
        yield
    except OSError as e:
        raise Failure(f"cannot read {path}: {e.strerror}") from e


def whole_file(path):
    """Refuses all but regular files: opening another kind could wait for ever."""
    with reading(path):
        size = path.stat().st_size
        if not path.is_file():
            raise Failure(f"{path} is not a regular file")
    return Tensor(path.name, path, "U8", (size,), 0, size)


def read_chunks(tensor):
    """Its bytes in pieces; those of a file have at most CHUNK."""
    if isinstance(tensor, Made):
        yield from tensor.pieces()
        return
    with reading(tensor.path), open(tensor.path, "rb") as file:
        file.seek(tensor.offset)
        for start in range(0, tensor.size, CHUNK):
            size = min(CHUNK, tensor.size - start)
            data = file.read(size)
            if len(data) != size:
                raise Failure(f"{tensor.path} became shorter while it was read")
            yield data


def read_json(source):
    """An object without duplicate keys, NaN or Infinity."""
    def unique(pairs):
        keys = {}
        for key, value in pairs:
            if key in keys:
                raise Failure(f"{source.path} has the key {key[:200]!r} twice in one object")
            keys[key] = value
        return keys

    def refuse(constant):
        raise ValueError(f"{constant} is not JSON")

    if source.size > MAX_JSON:
        raise Failure(f"{source.path} holds {source.size} bytes of JSON, more than any model has")
    text = b"".join(read_chunks(source))
    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=unique, parse_constant=refuse)
    except (ValueError, RecursionError) as e:
        raise Failure(f"{source.path} holds broken JSON ({e}); download it again") from e
    if not isinstance(value, dict):
        raise Failure(f"{source.path} should hold a JSON object")
    return value
