"""The tokenizer of a GGUF file, made into the files that it once was.

The model "llama" is SentencePiece's: tokenizer.model is written anew from pieces, scores and types.
"gpt2" is a byte-level BPE: tokenizer.json is written from vocabulary and merges. How text is cut
before the merges, the file only names; where that name is not known for sure no tokenizer is made.
"""
import json
import struct
from collections import namedtuple

import numpy as np

from checkpoint import Failure

MAX_PIECE = 1024    # bytes, as nibble has it
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)

# count: of tokens; files: {name: bytes}; config: what config.json gains; notes: for people.
Tokenizer = namedtuple("Tokenizer", "count files config notes")

# How text is cut, by the name that GGUF has for it: a pattern, or a list of pre-tokenizers; the
# normalizer; whether a piece that is in the vocabulary is taken whole; whether BOS comes first.
Cut = namedtuple("Cut", "steps normalizer whole bos", defaults=(None, False, False))

CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
CL100K = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + REST
QWEN2 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + REST
O200K = (rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{CONTRACTIONS}?"
         rf"|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*{CONTRACTIONS}?|\p{{N}}{{1,3}}"
         r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
TEKKEN = (rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*|\p{{N}}"
          r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
DEEPSEEK = ["\\p{N}{1,3}", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
            "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+"
            "|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*"
            "|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"]
DIGITS = {"type": "Digits", "individual_digits": True}
GPT2 = "GPT-2's own"    # the pattern that the step ByteLevel has built in

CUTS = {
    "gpt-2": Cut([GPT2]),
    "phi-2": Cut([GPT2]),
    "olmo": Cut([GPT2], "NFC"),
    "starcoder": Cut([DIGITS, GPT2]),
    "refact": Cut([DIGITS, GPT2]),
    "smollm": Cut([DIGITS, GPT2]),
    "command-r": Cut([DIGITS, GPT2], "NFC"),
    "llama-bpe": Cut([CL100K], None, True, True),
    "llama3": Cut([CL100K], None, True, True),
    "llama-v3": Cut([CL100K], None, True, True),
    "dbrx": Cut([CL100K]),
    "qwen2": Cut([QWEN2], "NFC"),
    "tekken": Cut([TEKKEN], None, True, True),
    "gpt-4o": Cut([O200K], None, True),
    "deepseek-v3": Cut(DEEPSEEK),
}


class Source:
    """The metadata about the tokenizer, each checked when it is asked for."""

    def __init__(self, path, metadata):
        self.path, self.metadata = path, metadata

    def fail(self, why):
        raise Failure(f"{self.path} has a damaged tokenizer: {why}; download it again")

    def get(self, key, kind, absent=None):
        value = self.metadata.get(f"tokenizer.ggml.{key}", absent)
        if value is not absent and type(value) is not kind:
            self.fail(f"tokenizer.ggml.{key} is of another type than it should be")
        return value

    def strings(self, key):
        values = self.get(key, list, [])
        if not all(type(value) is bytes for value in values):
            self.fail(f"tokenizer.ggml.{key} should hold text")
        return values

    def numbers(self, key, kind, count):
        values = self.get(key, np.ndarray)
        if values is not None and (len(values) != count or values.dtype.kind not in kind):
            self.fail(f"tokenizer.ggml.{key} should be {count} numbers, one for each token")
        return values

    def id(self, name, count):
        """A token's number, or None; some files say -1 for none."""
        value = self.get(f"{name}_token_id", int)
        return value if value is not None and 0 <= value < count else None


# ---- SentencePiece: a message of protobuf

def varint(value):
    data = b""
    while value > 127:
        data, value = data + bytes([value & 127 | 128]), value >> 7
    return data + bytes([value])


def field(number, value):
    """bool and int as varint (a negative one in 64 bits), float as 32 bits, bytes with length."""
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    return varint(number << 3) + varint(int(value) & (1 << 64) - 1)


def trainer(source, tokens, types):
    """TrainerSpec: that it is a BPE, and which pieces have a meaning."""
    data = field(3, 2) + field(4, len(tokens)) + field(35, bool((types == BYTE).any()))
    ids = [("unknown", 40, 45), ("bos", 41, 46), ("eos", 42, 47), ("padding", 43, 48)]
    for name, id_field, piece_field in ids:
        id = source.id(name, len(tokens))
        if name == "unknown":
            id = int(np.argmax(types == UNKNOWN))
        data += field(id_field, -1 if id is None else id)
        if id is not None:
            data += field(piece_field, tokens[id])
    return data


def normalizer(source):
    """NormalizerSpec: llama's models change nothing but spaces."""
    charsmap = source.get("precompiled_charsmap", np.ndarray)
    data = field(1, b"identity") if charsmap is None else field(2, charsmap.tobytes())
    return (data + field(3, source.get("add_space_prefix", bool, True))
            + field(4, source.get("remove_extra_whitespaces", bool, False)) + field(5, True))


def why_no_pieces(tokens, types):
    """Why SentencePiece would not take these, or None."""
    if len(set(tokens)) != len(tokens):
        return "it has a token twice"
    if not all(0 < len(token) <= MAX_PIECE for token in tokens):
        return f"it has a token that is empty or longer than {MAX_PIECE} bytes"
    if np.count_nonzero(types == UNKNOWN) != 1:
        return "it should have one unknown token"
    if np.count_nonzero(types == BYTE) not in (0, 256):
        return "it should have a token for each byte or for none"
    return None


def sentencepiece(source, tokens):
    """tokenizer.model, or why there is none."""
    scores = source.numbers("scores", "f", len(tokens))
    types = source.numbers("token_type", "iu", len(tokens))
    if scores is None or types is None:
        return None, "its scores or the types of its tokens are missing"
    with np.errstate(over="ignore"):
        scores = scores.astype("<f4")
    if not np.isfinite(scores).all() or ((types < NORMAL) | (types > BYTE)).any():
        source.fail("it has scores or types that no token has")
    unknown = source.id("unknown", len(tokens))
    if unknown is not None and not (types == UNKNOWN).any():
        types = np.where(np.arange(len(types)) == unknown, UNKNOWN, types)  # some say control
    # Added tokens have plain spaces in GGUF; the text they are looked for in has none.
    tokens = [token.replace(b" ", "\u2581".encode()) if kind == USER_DEFINED else token
              for token, kind in zip(tokens, types.tolist())]
    why = why_no_pieces(tokens, types)
    if why:
        return None, why
    pieces = [field(1, field(1, token) + field(2, score) + field(3, kind))
              for token, score, kind in zip(tokens, scores.tolist(), types.tolist())]
    return b"".join(pieces) + field(2, trainer(source, tokens, types)) + field(
        3, normalizer(source)), None


# ---- byte-level BPE: tokenizer.json

def pre_tokenizer(source, cut):
    """The steps in order; the last of them turns bytes into characters."""
    space = source.get("add_space_prefix", bool, False)
    steps = [step if isinstance(step, dict) else
             {"type": "Split", "pattern": {"Regex": step}, "behavior": "Isolated", "invert": False}
             for step in cut.steps if step is not GPT2]
    steps.append({"type": "ByteLevel", "add_prefix_space": space, "trim_offsets": True,
                  "use_regex": GPT2 in cut.steps})
    return steps[0] if len(steps) == 1 else {"type": "Sequence", "pretokenizers": steps}


def post_processor(bos, token):
    levels = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False,
              "use_regex": True}
    if token is None:
        return levels
    first = {"SpecialToken": {"id": token, "type_id": 0}}
    texts = [{"Sequence": {"id": letter, "type_id": 0}} for letter in "AB"]
    template = {"type": "TemplateProcessing", "single": [first, texts[0]],
                "pair": [first, texts[0], first, texts[1]],
                "special_tokens": {token: {"id": token, "ids": [bos], "tokens": [token]}}}
    return {"type": "Sequence", "processors": [levels, template]}


def merges_of(source):
    merges = [merge.decode("utf-8").split(" ") for merge in source.strings("merges")]
    if any(len(merge) != 2 for merge in merges):
        source.fail("a merge should name two tokens")
    return merges


def byte_level(source, tokens, add_bos):
    """tokenizer.json, or why there is none."""
    cut = CUTS.get(source.get("pre", str))
    types = source.numbers("token_type", "iu", len(tokens))
    if cut is None:
        return None, f"how it cuts text, {str(source.get('pre', str))[:60]!r}, is not known here"
    if types is None or not source.strings("merges"):
        return None, "its merges or the types of its tokens are missing"
    try:
        tokens, merges = [token.decode("utf-8") for token in tokens], merges_of(source)
    except UnicodeDecodeError:
        return None, "a token is not UTF-8"
    kinds, bos = types.tolist(), source.id("bos", len(tokens))
    added = [{"id": id, "content": token, "single_word": False, "lstrip": False, "rstrip": False,
              "normalized": False, "special": kind != USER_DEFINED}
             for id, (token, kind) in enumerate(zip(tokens, kinds))
             if kind in (UNKNOWN, CONTROL, USER_DEFINED)]
    # Unused numbers are what GGUF fills up a vocabulary with.
    vocabulary = {token: id for id, (token, kind) in enumerate(zip(tokens, kinds))
                  if kind in (NORMAL, BYTE)}
    if len(vocabulary) != sum(kind in (NORMAL, BYTE) for kind in kinds):
        return None, "it has a token twice"
    text = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
            "normalizer": {"type": cut.normalizer} if cut.normalizer else None,
            "pre_tokenizer": pre_tokenizer(source, cut),
            "post_processor": post_processor(bos, tokens[bos] if add_bos and bos is not None
                                             else None),
            "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True,
                        "use_regex": True},
            "model": {"type": "BPE", "dropout": None, "unk_token": None,
                      "continuing_subword_prefix": None, "end_of_word_suffix": None,
                      "fuse_unk": False, "byte_fallback": False, "ignore_merges": cut.whole,
                      "vocab": vocabulary, "merges": merges}}
    return json.dumps(text, ensure_ascii=False).encode("utf-8"), None


# ---- the whole

def ids_for_config(source, count):
    """bos_token_id and eos_token_id; whatever ends a turn or a message ends a text too."""
    config, bos = {}, source.id("bos", count)
    ends = [id for id in (source.id(name, count) for name in ("eos", "eot", "eom"))
            if id is not None]
    if bos is not None:
        config["bos_token_id"] = bos
    if ends:
        ends = list(dict.fromkeys(ends))
        config["eos_token_id"] = ends[0] if len(ends) == 1 else ends
    return config


def tokenizer_config(source, tokens, add_bos):
    """What tokenizer_config.json says of it: whether BOS comes first, and the chat template."""
    settings = {"add_bos_token": add_bos}
    for name in ("bos", "eos"):
        id = source.id(name, len(tokens))
        if id is not None:
            settings[f"{name}_token"] = tokens[id].decode("utf-8", "replace")
    template = source.metadata.get("tokenizer.chat_template")
    if isinstance(template, str):
        settings["chat_template"] = template
    return json.dumps(settings, ensure_ascii=False, indent=1).encode("utf-8")


def convert(path, metadata):
    """Its files, the ids for config.json, and why a file is missing."""
    source = Source(path, metadata)
    kind, tokens = source.get("model", str), source.strings("tokens")
    cut = CUTS.get(source.get("pre", str)) if kind == "gpt2" else None
    add_bos = source.get("add_bos_token", bool, kind == "llama" or bool(cut and cut.bos))
    if not tokens or kind is None:
        return Tokenizer(0, {}, {}, [])
    if kind == "llama":
        name, (data, why) = "tokenizer.model", sentencepiece(source, tokens)
    elif kind == "gpt2":
        name, (data, why) = "tokenizer.json", byte_level(source, tokens, add_bos)
    else:
        data, why = None, f"its kind, {kind[:60]!r}, has no converter here"
    notes = [f"note: left out the tokenizer of {path}: {why}"] if why else []
    files = {name: data} if data else {}
    files["tokenizer_config.json"] = tokenizer_config(source, tokens, add_bos)
    return Tokenizer(len(tokens), files, ids_for_config(source, len(tokens)), notes)
