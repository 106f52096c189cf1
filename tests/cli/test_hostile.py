#!/usr/bin/python3
"""Files from a stranger, by class of flaw: each row says how the file is made and how nibble must
answer. For every one: one sentence, the exit code, no signal, little time and memory.

The numbers are those of the list in docs/robustness.md. What other suites check in depth (npz, npy,
safetensors, SentencePiece, config.json) is here once more as a user meets it.
"""
import json
import os
import resource
import struct
import sys
import zlib

from harness import FAIRYTALE, TOKENIZER, main
from hostile import (BASE, archive, extra64, field, member, npy, piece, sentencepiece, varint,
                     zip64_end)
from models import Tiny

MEMORY_MOST = 150 << 20
CONFIG = json.dumps(Tiny(dim=8, layers=1, heads=2, kv_heads=1, head_dim=4, hidden=16,
                         vocab=16).config)
ARRAY = member("a.npy", npy())


def settings(text=CONFIG):
    return member("config.json", text.encode())


def check_rows(nibble, tmp, rows, name="m.npz", words=("info",)):
    """rows: {what: (bytes, what the sentence says)}; None: it may also be taken."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    for what, (data, says) in rows.items():
        path = tmp / name
        path.write_bytes(data)
        if says is None:
            result = nibble.run(words[0], path, *words[1:])
            assert result.code in (0, 1), f"{what}: {result}"
            assert result.code == 0 or result.err.startswith("nibble: "), f"{what}: {result}"
            continue
        try:
            nibble.refuses(words[0], path, *words[1:], says=says)
        except AssertionError as e:
            raise AssertionError(f"{what}: {e}") from e
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10
    assert nibble.sanitized or before << 10 > MEMORY_MOST or most < MEMORY_MOST, most


# ---- any file

def test_sparse_and_grown(tmp, nibble):
    for size in (1 << 20, 5 << 30):
        with open(tmp / "sparse.npz", "wb") as f:
            f.truncate(size)
        nibble.refuses("info", tmp / "sparse.npz", says="not a zip archive")
        os.rename(tmp / "sparse.npz", tmp / "sparse.safetensors")
        nibble.refuses("info", tmp / "sparse.safetensors", says="sparse.safetensors")
    path = Tiny().save(tmp / "m.npz")
    with open(path, "ab") as f:
        f.truncate(path.stat().st_size + (5 << 30))
    nibble.refuses("info", path, says="m.npz")


def test_growing_while_it_runs(tmp, nibble):
    path = tmp / "m.npz"
    path.write_bytes(FAIRYTALE.read_bytes())
    p = nibble.start("generate", path, "-p", "a", "-n", "60", "--temp", "0")
    with open(path, "ab") as f:
        f.write(bytes(1 << 20))
    out, err = p.communicate(timeout=60)
    assert p.returncode in (0, 1) and (p.returncode == 0) == (err == b""), err


# ---- 1 to 6: archives

def test_1_end_records(tmp, nibble):
    two = archive(settings(), ARRAY)
    end = two[-22:]
    check_rows(nibble, tmp, {
        "end record in the comment": (archive(settings(), ARRAY, comment=end + b"x"), "m.npz"),
        "two end records": (two + end, "m.npz"),
        "comment beyond the file": (archive(settings(), ARRAY, comment_bytes=500), "m.npz"),
        "comment of 64 kB": (archive(settings(), ARRAY, comment=b"c" * 65535), "m.npz"),
        "junk in front": (archive(settings(), ARRAY, prefix=b"#!/bin/sh\n" * 100), "m.npz"),
        "junk that is not counted": (b"junk" * 64 + two, "m.npz"),
    })


def test_2_zip64(tmp, nibble):
    top = (1 << 64) - 1
    end = archive(settings(), ARRAY, count=0xFFFF, directory=0xFFFFFFFF)
    rows = {}
    for what, (count, size, place, at) in {
            "locator outside": (2, 100, 100, 1 << 40), "locator at the end of numbers":
            (2, 100, 100, top), "directory outside": (2, 100, 1 << 40, None),
            "place and size wrap": (2, top - 50, 100, None), "entries": (1 << 60, 100, 100, None),
            "many small entries": (1 << 32, top, 0, None)}.items():
        body = archive(settings(), ARRAY, end=b"")
        tail = zip64_end(count, size, place, len(body) if at is None else at)
        rows[what] = (body + tail + end[-22:], "m.npz")
    for what, extra in {"shorter than its fields": extra64(5)[:-3], "for one field of three":
                        extra64(12), "longer than the header": struct.pack("<HH", 1, 60000),
                        "sizes beyond": extra64(top, top, top),
                        "sizes that wrap": extra64(top - 100, top - 100, 200)}.items():
        lie = member("a.npy", npy(), central_extra=extra, central_packed=0xFFFFFFFF,
                     central_size=0xFFFFFFFF)
        rows["zip64 extra " + what] = (archive(settings(), lie), "m.npz")
    check_rows(nibble, tmp, rows)


def test_3_entries_and_names(tmp, nibble):
    def names(*names):
        return archive(settings(), *(member(name, npy()) for name in names))
    check_rows(nibble, tmp, {
        "more entries than there are": (archive(settings(), ARRAY, count=9), "m.npz"),
        "fewer": (archive(settings(), ARRAY, ARRAY, count=1), "m.npz"),
        "none": (archive(), "m.npz"),
        "none said": (archive(settings(), ARRAY, count=0), "m.npz"),
        "65535": (archive(*[member("%d.npy" % i, no_data=1, offset=0) for i in range(65535)]),
                  "m.npz"),
        "a name twice": (names("a.npy", "a.npy"), "a.npy"),
        "dots": (names("../../etc/x.npy"), "no known naming"),
        "absolute": (names("/etc/x.npy"), "no known naming"),
        "a NUL": (names(b"a\0b.npy"), "m.npz"),
        "no UTF-8": (names(b"\xff\xfe.npy"), "m.npz"),
        "64 kB": (names("n" * 65531 + ".npy"), "m.npz"),
        "empty": (names(""), "m.npz"),
        "no ending": (names("a"), "m.npz"),
        "a terminal's commands": (names("\x1b[31m\n.npy"), "m.npz"),
        "a name longer than the directory": (
            archive(settings(), member("a.npy", npy(), central_name_bytes=5000)), "m.npz"),
        "a folder": (names("a/"), "m.npz"),
    })


def test_4_headers_that_disagree(tmp, nibble):
    data = npy()
    rows = {
        "offset past the end": member("a.npy", data, offset=1 << 30),
        "offset into another": member("a.npy", data, offset=20),
        "offset of another": member("a.npy", data, offset=0),
        "local name longer": member("a.npy", data, local_name_bytes=60000),
        "local extra longer": member("a.npy", data, local_extra_bytes=60000),
        "larger in the directory": member("a.npy", data, central_size=9999, central_packed=9999),
        "smaller in the directory": member("a.npy", data, central_size=9, central_packed=9),
        "2 GB": member("a.npy", data, central_size=1 << 31, central_packed=1 << 31),
        "4 GB": member("a.npy", data, size=0xFFFFFFFF, packed=0xFFFFFFFF),
        "stored, of two sizes": member("a.npy", data, size=len(data), packed=len(data) - 1),
        "deflated in the directory": member("a.npy", data, central_method=8),
    }
    check_rows(nibble, tmp, {what: (archive(settings(), m), "m.npz") for what, m in rows.items()})
    same = archive(settings(), member("a.npy", data), member("b.npy", data, no_data=1,
                                                             offset=35 + 11 + len(CONFIG) - 5))
    inner = archive(member("b.npy", data)).split(b"PK\1\2")[0]
    inner += bytes(-len(inner) % 4)
    outer = npy(shape=f"({len(inner) // 4},)", data=inner)
    begin = len(archive(settings()).split(b"PK\1\2")[0]) + 35 + len(outer) - len(inner)
    within = archive(settings(), member("a.npy", outer), member("b.npy", data, no_data=1,
                                                                offset=begin))
    check_rows(nibble, tmp, {"members that share bytes": (same, "another member"),
                             "a member within another": (within, "another member")})


def deflated(data, **lies):
    z = zlib.compressobj(9, zlib.DEFLATED, -15)
    squeezed = z.compress(data) + z.flush()
    return member("a.npy", squeezed, **{"method": 8, "size": len(data), "crc": zlib.crc32(data),
                                        **lies})


def bomb(**lies):
    """120 MB of zeros, never all in memory here: a child's peak begins with that of its parent."""
    z, zeros = zlib.compressobj(9, zlib.DEFLATED, -15), bytes(1 << 20)
    front = npy(shape=f"({30 << 20},)", data=b"")
    squeezed, crc = z.compress(front), zlib.crc32(front)
    for _ in range(120):
        squeezed, crc = squeezed + z.compress(zeros), zlib.crc32(zeros, crc)
    return member("a.npy", squeezed + z.flush(), **{"method": 8, "crc": crc,
                                                    "size": len(front) + (120 << 20), **lies})


def test_5_methods(tmp, nibble):
    data = npy(shape="(64, 64)", data=bytes(range(256)) * 64)
    rows = {"encrypted": member("a.npy", data, flags=1),
            "strongly encrypted": member("a.npy", data, flags=0x41),
            "bzip2": member("a.npy", data, method=12), "lzma": member("a.npy", data, method=14),
            "unknown method": member("a.npy", data, method=77),
            "more than declared": deflated(data, size=len(data) - 100),
            "less than declared": deflated(data, size=len(data) + 100),
            "wrong checksum": deflated(data, crc=1),
            "a bomb": bomb(), "a bomb that says it is none": bomb(size=500),
            "inflates to 16 EB": deflated(data, central_size=0xFFFFFFFF,
                                          central_extra=extra64((1 << 64) - 1)),
            "ends early": member("a.npy", b"\x01\x05", method=8, size=100)}
    check_rows(nibble, tmp, {what: (archive(settings(), m), ["m.npz", "a"])
                             for what, m in rows.items()})
    path = Tiny().save(tmp / "m.npz")
    data = bytearray(path.read_bytes())
    at = data.index(b"model.norm.weight.npy") + 400
    data[at] ^= 1
    path.write_bytes(data)
    nibble("info", path)
    nibble.refuses("verify", path, says=["damaged", "model.norm.weight"])


def test_6_local_sizes_are_not_trusted(tmp, nibble):
    """As numpy and MLX write them: 0xFFFFFFFF and an extra field in each local header."""
    lie = dict(local_size=0xFFFFFFFF, local_packed=0xFFFFFFFF, local_extra=extra64(16, 16))
    check_rows(nibble, tmp, {"as numpy": (archive(settings(), member("a.npy", npy(), **lie)),
                                          "no known naming"),
                             "a data descriptor": (archive(settings(), member(
                                 "a.npy", npy(), flags=8, local_size=0, local_packed=0,
                                 local_crc=0)), "no known naming")})


# ---- 7 to 11: arrays

def arrays(**made):
    return {what: (archive(settings(), member("a.npy", data)), says)
            for what, (data, says) in made.items()}


def test_7_to_11_npy(tmp, nibble):
    second = b"\x93NUMPY\x02\0"
    long_header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }" + " " * 70000
    check_rows(nibble, tmp, arrays(
        header_past_the_member=(npy(length=60000), "header"),
        header_of_4_gb=(npy(magic=second, length=0xFFFFFFFF), "header"),
        header_of_70_kb=(npy(magic=second, text=long_header), "m.npz"),
        no_newline=(npy(end=b" "), "m.npz"),
        version_3=(npy(magic=b"\x93NUMPY\3\0"), "version 3"),
        version_0=(npy(magic=b"\x93NUMPY\0\0"), "version 0"),
        bad_magic=(npy(magic=b"\x93NUMPX\1\0"), "npy"),
        object=(npy("'|O'"), "pickled"), big_endian=(npy("'>f4'"), "big-endian"),
        structured=(npy("[('x', '<f4'), ('y', '<f4')]"), "structured"),
        complex=(npy("'<c8'"), "type"), unicode=(npy("'<U4'"), "type"),
        no_type=(npy("''"), "type"), open_quote=(npy("'<f4"), "header"),
        half_a_type=(npy("'<f'"), "type"), wide=(npy("'<f99999999999999999999'"), "descr"),
        negative=(npy(shape="(-1, 4)"), "negative"), huge=(npy(shape=f"({1 << 63},)"), "m.npz"),
        beyond=(npy(shape=f"({10 ** 40},)"), "m.npz"),
        wraps=(npy(shape=f"({1 << 32}, {1 << 32}, 4)"), "m.npz"),
        wraps_to_what_is_there=(npy(shape=f"({(1 << 62) + 4},)"), "m.npz"),
        zero_hides_a_wrap=(npy(shape=f"(0, {1 << 62}, {1 << 62})", data=b""), "m.npz"),
        dimensions=(npy(shape="(" + "1, " * 33 + ")"), "dimensions"),
        python_2=(npy(shape="(4L,)"), "m.npz"), words=(npy(shape="(a, b)"), "m.npz"),
        real=(npy(shape="(2., 2)"), "header"), nested=(npy(shape="((2, 2),)"), "header"),
        fortran=(npy(order="True"), "Fortran"), no_order=(npy(order="Maybe"), "header"),
        short=(npy(data=bytes(15)), "15 bytes"), long=(npy(data=bytes(17)), "17 bytes"),
        twice=(npy(text="{'descr': '<f4', 'descr': '|O', 'fortran_order': False, "
                        "'shape': (2, 2), }"), "m.npz"),
        lacks=(npy(text="{'descr': '<f4', 'shape': (2, 2), }"), "header"),
        code=(npy(text="__import__('os').system('false')"), "header"),
        deep=(npy(text="(" * 50000), "header"),
        # and what is fine
        no_dimension=(npy(shape="()", data=bytes(4)), "no known naming"),
        empty=(npy(shape="(0, 4)", data=b""), "no known naming"),
        other_order=(npy(text="{'shape': (2, 2), 'fortran_order': False, 'descr': '<f4'}"),
                     "no known naming"),
        double_quotes=(npy(text='{"descr": "<f4", "fortran_order": False, "shape": (2, 2)}'),
                       "no known naming")))


# ---- 12: safetensors

def test_12_safetensors(tmp, nibble):
    def whole(header, data=bytes(16), length=None):
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        return struct.pack("<Q", len(text) if length is None else length) + text + data

    def one(dtype="F32", shape=(2, 2), offsets=(0, 16), **more):
        return {"a": {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}, **more}
    (tmp / "config.json").write_text(CONFIG)
    b = {"b": {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}}
    rows = {
        "longer than the file": whole(one(), length=10 ** 6),
        "100 MB": whole(one(), length=10 ** 8),
        "2^64 - 1": whole(one(), length=(1 << 64) - 1),
        "2^64 - 8": whole(one(), length=(1 << 64) - 8),
        "no header": whole(b"", data=b""), "7 bytes": b"\1\0\0\0\0\0\0",
        "begin behind end": whole(one(offsets=(16, 0))), "negative": whole(one(offsets=(-4, 12))),
        "beyond the file": whole(one(shape=(4, 4), offsets=(0, 64))),
        "overlap": whole(one(**b)), "hole": whole(one(shape=(1,), offsets=(0, 4), **b)),
        "wraps": whole(one(shape=(1 << 62, 4))), "2^63": whole(one(shape=(1 << 63, 0))),
        "a fraction": whole(one(shape=(2.5, 2))), "1e300": whole(one(shape=(1e300,))),
        "other size": whole(one(dtype="F16")), "unknown type": whole(one(dtype="F8_E9M9")),
        "type is a number": whole(one(dtype=7)), "no type": whole({"a": {"shape": [4]}}),
        "a name twice": whole(b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},'
                              b'"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}'),
        "metadata is a list": whole(one(__metadata__=[1])),
        "metadata of numbers": whole(one(__metadata__={"a": 1})),
        "a list": whole(b"[]"), "no JSON": whole(b"{"), "nested": whole(b"[" * 100000),
        "NUL in a name": whole(b'{"a\\u0000b":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}'),
        "33 dimensions": whole(one(shape=[1] * 33, offsets=(0, 4)), data=bytes(4)),
    }
    check_rows(nibble, tmp, {what: (data, "model.safetensors") for what, data in rows.items()},
               name="model.safetensors")
    (tmp / "model.safetensors").unlink()
    shard = "model-00001-of-00001.safetensors"
    (tmp / shard).write_bytes(whole(one()))
    for target in ("../x.safetensors", "/etc/passwd", "a\0b.safetensors", "", "none.safetensors"):
        (tmp / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": target}}))
        nibble.refuses("info", tmp, says="safetensors")


# ---- 13: SentencePiece

def test_13_sentencepiece(tmp, nibble):
    bytes_ = [piece("<0x%02X>" % b, 0.0, 6) for b in range(256)]
    good = sentencepiece(BASE + [piece("a", -1.0), piece("\u2581", -1.0)])
    fallback = field(35, 1)
    rows = {
        "no pieces": sentencepiece([]), "no unknown": sentencepiece(BASE[1:]),
        "two unknowns": sentencepiece(BASE + BASE[:1]),
        "a piece twice": sentencepiece(BASE + [piece("a")] * 2),
        "an empty piece": sentencepiece(BASE + [piece("")]),
        "100 kB": sentencepiece(BASE + [piece("a" * 100000)]),
        "NUL in a piece": sentencepiece(BASE + [piece("a\0b")]),
        "no UTF-8": sentencepiece(BASE + [piece(b"\xff\xfe")]),
        "NaN": sentencepiece(BASE + [piece("a", float("nan"))]),
        "infinite": sentencepiece(BASE + [piece("a", float("inf"))]),
        "a kind that is none": sentencepiece(BASE + [piece("a", 0.0, 99)]),
        "bytes missing": sentencepiece(BASE + bytes_[:-1], fallback),
        "no bytes at all": sentencepiece(BASE + [piece("a")], fallback),
        "<0x-1>": sentencepiece(BASE + bytes_[1:] + [piece("<0x-1>", 0.0, 6)], fallback),
        "<0xG0>": sentencepiece(BASE + bytes_[1:] + [piece("<0xG0>", 0.0, 6)], fallback),
        "<0x1>": sentencepiece(BASE + bytes_[1:] + [piece("<0x1>", 0.0, 6)], fallback),
        "<0x100>": sentencepiece(BASE + bytes_[1:] + [piece("<0x100>", 0.0, 6)], fallback),
        "varint of 11 bytes": b"\x0a" + b"\xff" * 10 + b"\x01" + good,
        "length past the end": good + b"\x0a\xff\xff\x03x",
        "length of 2^63": good + b"\x0a" + varint(1 << 63) + b"x",
        "wire type 3": b"\x0b" + good, "wire type 4": b"\x0c" + good,
        "wire type 6": b"\x0e" + good, "wire type 7": b"\x0f" + good,
        "field 0": b"\x02\x01x" + good, "nested": field(3, field(5, b"\x0b" * 100000)) + good,
        "charsmap of 3 bytes": good + field(3, field(2, b"abc")),
        "charsmap longer than it is": good + field(3, field(2, struct.pack("<I", 1 << 30) + b"x")),
        "charsmap of size 2^32-1": good + field(3, field(2, b"\xff" * 64)),
    }
    for what, data in rows.items():
        (tmp / "tokenizer.model").write_bytes(data)
        result = nibble.run("tokenize", tmp, "-p", "a <0x41> b\u00e9")
        refusal = result.code == 1 and result.err.startswith("nibble: ")
        assert result.code == 0 or refusal and result.err.count("\n") == 1, f"{what}: {result}"
        assert result.code == 1 or what in MAY_PASS, f"{what}: {result}"
        assert result.cpu_s < nibble.refusal_s, f"{what}: {result.cpu_s}"
    (tmp / "tokenizer.model").write_bytes(sentencepiece(BASE + [piece("p%d" % i) for i in
                                                                range(10 ** 5)]))
    nibble("tokenize", tmp, "-p", "p1")
    (tmp / "tokenizer.model").write_bytes(TOKENIZER.read_bytes())
    (tmp / "long").write_bytes(b"a" * 10 ** 6)
    assert len(nibble("tokenize", tmp, "-f", tmp / "long").split()) > 10 ** 5 / 32


# What protobuf and SentencePiece themselves take: they skip what they do not know, and a piece is
# bytes.
MAY_PASS = ("NUL in a piece", "no UTF-8", "a kind that is none", "nested")


# ---- 14: JSON, in each place where it is read

def test_14_json(tmp, nibble):
    texts = {"nested lists": "[" * 10 ** 5, "nested objects": '{"a":' * 10 ** 5,
             "ends in a backslash": '{"model_type": "llama\\', "half a surrogate": '{"\\ud800": 1}',
             "a wrong escape": '{"\\u12": 1}', "NUL": '{"model_type": "lla\\u0000ma"}',
             "NaN": '{"hidden_size": NaN}', "Infinity": '{"hidden_size": Infinity}', "a list": "[]",
             "a string": '"llama"', "nothing": "", "only blanks": "   ", "null": "null",
             "raw control characters": '{"a\x01": 1}', "a comment": '{} // x', "text behind": "{}x"}
    for what, text in texts.items():
        data = archive(settings(text), member("model.norm.weight.npy", npy()))
        check_rows(nibble, tmp, {what: (data, "config.json")})
        if what in ("NaN", "Infinity"):
            continue
        (tmp / "tokenizer.json").write_text(text)
        nibble.refuses("tokenize", tmp, "-p", "x", says="tokenizer.json")
    (tmp / "tokenizer.json").unlink()


def test_14_a_config_all_good_but_for_one_thing(tmp, nibble):
    config = json.dumps({**Tiny().config, "hidden_size": 32})
    size = lambda text: config.replace('"hidden_size": 32', '"hidden_size": ' + text)
    more = lambda text: config[:-1] + ", " + text + "}"
    assert size("9") != config
    for what, text, says in (
            ("1e999", size("1e999"), "hidden_size"), ("-0", size("-0"), "hidden_size"),
            ("10^6 digits", size("9" * 10 ** 6), "hidden_size"),
            ("a key twice", more('"hidden_size": 32'), "'hidden_size' twice"),
            ("a key twice below", more('"a": [{"factor": 2, "b": 1, "factor": 2}]'),
             "'factor' twice"),
            ("a NUL in a value", config.replace('"llama"', '"llama\\u0000x"'), "NUL"),
            ("a NUL in a key", more('"rope_theta\\u0000": 5'), "NUL"),
            ("a NUL", config + "\0", "control characters"),
            ("not UTF-8", more('"a": "\udcff"'), "UTF-8"),
            ("17 MB of blanks", config + " " * (17 << 20), "larger than 16 MiB"),
            ("2 million values", more('"a": [' + "1," * (2 << 20) + "1]"), "values")):
        assert text != config, what
        data = archive(member("config.json", text.encode("utf-8", "surrogateescape")),
                       member("model.norm.weight.npy", npy()))
        (tmp / "m.npz").write_bytes(data)
        nibble.refuses("info", tmp / "m.npz", says=["config.json", says])


# ---- 15: numbers of the config

def test_15_config(tmp, nibble):
    model = Tiny(dim=8, layers=1, heads=2, kv_heads=1, head_dim=4, hidden=16, vocab=16)
    sizes = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
             "head_dim", "intermediate_size", "vocab_size", "max_position_embeddings")
    wrong = [(key, value) for key in sizes for value in (0, -1, 1 << 31, 1 << 63, 1e30, 2.5, "8",
                                                         [8], {}, True)
             if (key, value) != ("max_position_embeddings", 1 << 31)]
    wrong += [("num_hidden_layers", 10 ** 6), ("num_key_value_heads", 3), ("rms_norm_eps", -1),
              ("rms_norm_eps", "x"), ("rope_theta", 0), ("rope_theta", -5), ("head_dim", 5),
              ("model_type", "no_such"), ("model_type", 5), ("rope_scaling", {"type": "no_such"}),
              ("rope_scaling", [1]), ("quantization", True), ("quantization", [4]),
              ("quantization", {"bits": 0, "group_size": 64}),
              ("quantization", {"bits": 4, "group_size": 0}),
              ("quantization", {"bits": 16, "group_size": 64}),
              ("quantization", {"bits": 4, "group_size": 48}), ("eos_token_id", 99),
              ("eos_token_id", -5), ("bos_token_id", 99), ("eos_token_id", [1] * 100 + ["x"])]
    said = 0
    for key, value in wrong:
        path = model.save(tmp / "m.npz", tokenizer=None, config={**model.config, key: value})
        result = nibble.run("generate", path, "--ids", "1", "-n", "1")
        if f"{key} {value}" in ACCEPTED:
            assert result.code == 0, f"{key} {value}: {result}"
            continue
        said += 1
        assert result.code == 1 and result.err.startswith("nibble: "), f"{key} {value}: {result}"
        assert result.cpu_s < nibble.refusal_s, f"{key} {value}: {result.cpu_s}"
    assert said > 90, said


# The tensors say it: so many rows of the embedding, nothing quantized.
ACCEPTED = ("vocab_size 0", "vocab_size -1", "quantization True", "quantization [4]",
            *(f"quantization {{'bits': {bits}, 'group_size': {group}}}"
              for bits, group in ((0, 64), (4, 0), (16, 64), (4, 48))))


# ---- 17: the run

def test_17_sampling_at_its_limits(tmp, nibble):
    words = ("generate", FAIRYTALE, "-p", "a", "-n", "3", "-s", "1")
    for options in (["--temp", "0"], ["--temp", "1e-9"], ["--temp", "1e6"], ["--top-p", "0"],
                    ["--top-p", "1"], ["--top-k", "1000000000"], ["--min-p", "1"],
                    ["--typical", "0"], ["--repeat-last-n", "-1"], ["--repeat-last-n", "0"],
                    ["--repeat-penalty", "1000000"], ["--presence-penalty=-1000000"]):
        assert nibble(*words, *options), options
    nibble.refuses(*words, *(w for i in range(60) for w in ("--logit-bias", f"{i}=x")), code=2)


def test_17_processors(tmp, nibble):
    """One processor, and 256 threads on it."""
    one = min(os.sched_getaffinity(0))
    words = ("generate", FAIRYTALE, "-p", "a", "-n", "5", "--temp", "0")
    want = nibble(*words)
    assert nibble(*words, preexec_fn=lambda: os.sched_setaffinity(0, {one})) == want
    assert nibble(*words[:5], "1", "--temp", "0", "-t", "256",
                  preexec_fn=lambda: os.sched_setaffinity(0, {one})) in want


if __name__ == "__main__":
    sys.exit(main(globals()))
