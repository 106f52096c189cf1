#!/usr/bin/python3
"""scripts/convert.py on the files of llama2.c: its .bin in three versions, and its tokenizer.bin.

    tests/cli/test_convert_llama2c.py [--build DIR] [--reference DIR] [WORD...]

Tests that run models need DIR/nibble. The reference is described in test_reference.py; of it
models/stories260K/stories260K.bin and tok512.bin are used.
"""
import json
import os
import struct
import sys

import numpy as np

from harness import TOKENIZER, main
from hf_models import check_refused, convert
from models import META, PIECES, Tiny, forward, unpack

ATTENTION, FFN = ("wq", "wk", "wv", "wo"), ("gate", "down", "up")  # llama2.c's w1, w2, w3
IDS = "1 17 300 5 9 254 31"


# ---- files as llama2.c's export.py and tokenizer.py write them

def header(m, sign=1):
    s = m.size
    return struct.pack("<7i", s["dim"], s["hidden"], s["layers"], s["heads"], s["kv_heads"],
                       sign * s["vocab"], s["context"])


def each_layer(m, *names):
    return [m.weights[name, i] for name in names for i in range(m.size["layers"])]


def version_0(m):
    tables = np.full(m.size["context"] * m.size["head_dim"], np.nan, "<f4")  # not to be read
    weights = [m.weights["embed"], *each_layer(m, "attn_norm", *ATTENTION, "ffn_norm", *FFN),
               m.weights["norm"], tables] + ([] if m.tied else [m.weights["output"]])
    return header(m, 1 if m.tied else -1) + b"".join(w.tobytes() for w in weights)


def new_header(m, version, group=0):
    data = struct.pack("<Ii", 0x616B3432, version) + header(m)
    return (data + struct.pack("<Bi", m.tied, group)).ljust(256, b"\0")


def matrices(m):
    return ([m.weights["embed"]] + each_layer(m, *ATTENTION, *FFN)
            + ([] if m.tied else [m.weights["output"]]))


def norms(m):
    return each_layer(m, "attn_norm", "ffn_norm") + [m.weights["norm"]]


def version_1(m):
    return new_header(m, 1) + b"".join(w.tobytes() for w in norms(m) + matrices(m))


def quantized(w, group):
    """int8 codes and a scale for each group."""
    w = w.reshape(-1, group)
    scales = (np.abs(w).max(axis=1) / np.float32(127)).astype("<f4")
    return np.round(w / scales[:, None]).astype("i1"), scales


def version_2(m, group=64):
    parts = [part.tobytes() for w in matrices(m) for part in quantized(w, group)]
    return new_header(m, 2, group) + b"".join([w.tobytes() for w in norms(m)] + parts)


def pieces_of_text(count):
    """(score, text) as in a tokenizer that SentencePiece made: ids 0 to 2, bytes, the rest."""
    rest = [f" w{i}" if i % 2 else f"w{i}" for i in range(count - 259)]
    return [(0.0, b"<unk>"), (0.0, b"\n<s>\n"), (0.0, b"\n</s>\n"),
            *((0.0, b"<0x%02X>" % i) for i in range(256)),
            *((-float(i), text.encode()) for i, text in enumerate(rest))]


def tokenizer_bin(pieces):
    return struct.pack("<I", max(len(text) for _, text in pieces)) + b"".join(
        struct.pack("<fI", score, len(text)) + text for score, text in pieces)


def make_file(folder, data, pieces=None, name="model.bin", tokenizer="tokenizer.bin"):
    """The path of the model; pieces: of the tokenizer beside it."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(data)
    if pieces:
        (folder / tokenizer).write_bytes(tokenizer_bin(pieces))
    return folder / name


def fields(data):
    """[(number, value)] of a protobuf message: bytes, integers, or four bytes of a float."""
    def varint():
        nonlocal at
        value = shift = 0
        while True:
            value, shift, at = value | (data[at] & 127) << shift, shift + 7, at + 1
            if data[at - 1] < 128:
                return value

    at, found = 0, []
    while at < len(data):
        tag = varint()
        if tag & 7 == 0:
            found.append((tag >> 3, varint()))
        else:
            size = varint() if tag & 7 == 2 else {1: 8, 5: 4}[tag & 7]
            found.append((tag >> 3, data[at:at + size]))
            at += size
    return found


def sentencepiece(data):
    """([(text, score, type)], trainer, normalizer) of a tokenizer.model."""
    model = fields(data)
    pieces = [{3: 1, **dict(fields(value))} for number, value in model if number == 1]
    rest = {number: dict(fields(value)) for number, value in model if number > 1}
    return [(p[1].decode(), struct.unpack("<f", p[2])[0], p[3]) for p in pieces], rest[2], rest[3]


# ---- weights

def check_weights(arrays, m):
    names = {"config.json", *(m.arrays())}
    assert set(arrays) - {"tokenizer.model"} == names
    for name, array in m.arrays().items():
        assert arrays[name].shape == array.shape and arrays[name].dtype == array.dtype, name
        assert (arrays[name] == array).all(), name


def test_weights_and_config(tmp):
    for i, (tied, write) in enumerate(((True, version_0), (False, version_0), (True, version_1),
                                       (False, version_1))):
        m = Tiny(META, seed=i, tied=tied)
        arrays, stderr = convert(make_file(tmp / str(i), write(m)))
        check_weights(arrays, m)
        assert "no tokenizer" in stderr
        config = json.loads(arrays["config.json"].tobytes())
        assert config == {
            "model_type": "llama", "hidden_size": 64, "intermediate_size": 128,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
            "vocab_size": PIECES, "max_position_embeddings": 256, "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0, "tie_word_embeddings": tied, "bos_token_id": 1,
            "eos_token_id": [1, 2], "nibble": {"converter": 1, "source": {
                "format": "llama2.c", "name": "model.bin"}}}, config


def test_found_by_its_first_bytes(tmp):
    m = Tiny(META)
    check_weights(convert(make_file(tmp / "a", version_1(m), name="model.v1"))[0], m)


def test_other_types(tmp):
    m = Tiny(META)
    arrays, _ = convert(make_file(tmp / "a", version_0(m)), "--dtype", "f16")
    for name, array in m.arrays("<f2").items():
        assert arrays[name].dtype == np.float16 and (arrays[name] == array).all(), name


def test_quantized_weights(tmp):
    for group in (32, 64):
        m = Tiny(META, tied=group == 32)
        path = make_file(tmp / str(group), version_2(m, group))
        arrays, _ = convert(path)
        assert json.loads(arrays["config.json"].tobytes())["quantization"] == {
            "group_size": group, "bits": 8}
        for name, array in m.arrays().items():
            if array.ndim == 1:
                assert (arrays[name] == array).all(), name
                continue
            codes, scales = quantized(array, group)
            base = name[:-len("weight")]
            assert arrays[name].dtype == np.uint32 and arrays[base + "scales"].dtype == np.float32
            assert (arrays[base + "scales"].ravel() == scales).all()
            got, _ = unpack(arrays, name, 8, group)
            want = codes.astype("f8") * scales[:, None].astype("f8")
            assert got.shape == array.shape and (got.ravel() == want.ravel()).all(), name
        check_refused(path, "quantized already", "--bits", "4", "--nibble", "/bin/true")


def test_same_bytes_twice(tmp):
    m = Tiny(META)
    for name in "ab":
        convert(make_file(tmp / name, version_2(m), pieces_of_text(PIECES)))
    assert (tmp / "a" / "model.bin.npz").read_bytes() == (tmp / "b" / "model.bin.npz").read_bytes()


def logits(nibble, model, out):
    nibble("logits", model, "--ids", IDS, "--kv-type", "f32", "-o", out)
    return np.load(out)


def test_models_run(tmp, nibble):
    for i, (tied, write) in enumerate(((True, version_0), (False, version_0), (False, version_1))):
        m = Tiny(META, tied=tied)
        convert(make_file(tmp / str(i), write(m), pieces_of_text(PIECES)))
        path = tmp / str(i) / "model.bin.npz"
        got = logits(nibble, path, tmp / "got.npy")
        assert (got == logits(nibble, m.save(tmp / "want.npz"), tmp / "want.npy")).all()
        assert np.abs(got - forward(m, [int(id) for id in IDS.split()])).max() < 1e-3
        nibble("generate", path, "-p", "w1 w2", "-n", "4", "--temp", "0")


def test_quantized_models_run(tmp, nibble):
    m = Tiny(META)
    arrays, _ = convert(make_file(tmp / "q", version_2(m)))
    got = logits(nibble, tmp / "q" / "model.bin.npz", tmp / "got.npy")
    for key, w in m.weights.items():
        if w.ndim == 2:
            codes, scales = quantized(w, 64)
            m.weights[key] = (codes * scales[:, None]).reshape(w.shape)
    want = forward(m, [int(id) for id in IDS.split()])
    assert np.abs(got - want).max() < 0.02 * np.abs(want).max(), np.abs(got - want).max()


# ---- the tokenizer

def test_tokenizer(tmp):
    pieces = pieces_of_text(PIECES)
    pieces[300] = (-1.25, " \u00e4  b".encode())
    arrays, stderr = convert(make_file(tmp / "a", version_0(Tiny(META)), pieces))
    assert stderr.count("\n") == 1, stderr
    got, trainer, normalizer = sentencepiece(arrays["tokenizer.model"].tobytes())
    assert got[:3] == [("<unk>", 0, 2), ("<s>", 0, 3), ("</s>", 0, 3)]
    assert got[3:259] == [(f"<0x{i:02X}>", 0, 6) for i in range(256)]
    assert got[259:] == [(text.decode().replace(" ", "\u2581"), score, 1)
                         for score, text in pieces[259:]]
    assert got[300] == ("\u2581\u00e4\u2581\u2581b", -1.25, 1)
    assert trainer == {3: 2, 4: PIECES, 35: 1, 40: 0, 41: 1, 42: 2}
    assert normalizer == {1: b"identity", 3: 1, 4: 0, 5: 1}


def test_bytes_as_the_first_versions_wrote_them(tmp):
    pieces = pieces_of_text(PIECES)
    pieces[3:259] = [(0.0, chr(i).encode()) for i in range(256)]
    old, _ = convert(make_file(tmp / "a", version_0(Tiny(META)), pieces))
    new, _ = convert(make_file(tmp / "b", version_0(Tiny(META)), pieces_of_text(PIECES)))
    assert (old["tokenizer.model"] == new["tokenizer.model"]).all()


def test_where_tokenizers_lie(tmp):
    m = Tiny(META)
    path = make_file(tmp / "a", version_0(m), pieces_of_text(PIECES))
    plain = convert(path)[0]["tokenizer.model"].tobytes()
    (tmp / "a" / f"tok{PIECES}.bin").write_bytes(tokenizer_bin(
        pieces_of_text(PIECES)[:-1] + [(-1.0, b"special")]))
    assert sentencepiece(convert(path)[0]["tokenizer.model"].tobytes())[0][-1][0] == "special"
    arrays, _ = convert(path, "--tokenizer", tmp / "a" / "tokenizer.bin")
    assert arrays["tokenizer.model"].tobytes() == plain
    arrays, _ = convert(path, "--tokenizer", TOKENIZER)
    assert arrays["tokenizer.model"].tobytes() == TOKENIZER.read_bytes()
    check_refused(path, "cannot read", "--tokenizer", tmp / "absent")


def test_the_same_tokens(tmp, nibble):
    """A SentencePiece model sent through llama2.c's format and back."""
    pieces, _, _ = sentencepiece(TOKENIZER.read_bytes())
    assert len(pieces) == PIECES
    there = [(score, text.replace("\u2581", " ").encode()) for text, score, _ in pieces]
    there[1:3] = [(score, b"\n" + text + b"\n") for score, text in there[1:3]]
    m = Tiny(META)
    convert(make_file(tmp / "a", version_0(m), there))
    back, same = tmp / "a" / "model.bin.npz", m.save(tmp / "same.npz")
    for text in ("a", "the cat and the dog", "\u00e4\u4e2d \U0001f600", "a\nb\tc", "</s><s>", "",
                 "  a   b "):
        got = [nibble("tokenize", model, "-f", "-", "--no-bos", stdin=text.encode())
               for model in (back, same)]
        assert got[0] == got[1] and got[0].isascii(), (text, got)
        assert not text or nibble("detokenize", back, *got[0].split()) == text.encode(), text
    assert nibble("tokenize", back, "-p", "a").startswith(b"1 ")


# ---- refusals

def test_broken_files(tmp):
    m = Tiny(META)
    path = make_file(tmp / "a", b"")
    for words, data in (
            ("is cut short", b""), ("is cut short", bytes(27)), ("header says dim 0", bytes(28)),
            ("is cut short", version_0(m)[:-1]), ("is cut short", version_0(m) + b"\0"),
            ("is cut short", version_1(m)[:-4]), ("is cut short", version_2(m)[:-1]),
            ("is cut short", version_1(m)[:256]), ("header says dim 0", version_1(m)[:8]),
            ("has version 3", new_header(m, 3)), ("has version -1", new_header(m, -1)),
            ("damaged header", new_header(m, 1)[:36] + b"\2" + bytes(219)),
            ("header says dim", os.urandom(3) + b"\xff" * 97)):
        path.write_bytes(data)
        check_refused(path, words)


def test_wrong_numbers(tmp):
    m = Tiny(META)
    path, data = make_file(tmp / "a", b""), version_0(m)
    names = ("dim", "hidden_dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "max_seq_len")
    for i, name in enumerate(names):
        for value in (0, -1, -1 << 31, (1 << 31) - 1):
            if name == "vocab_size" and value == -1:
                continue  # one piece, and an output matrix
            path.write_bytes(data[:4 * i] + struct.pack("<i", value) + data[4 * i + 4:])
            check_refused(path, f"header says {name} {abs(value) if i == 5 else value}")
    for words, i, value in (("n_heads 3, which does not divide", 3, 3),
                            ("n_kv_heads 3, which does not divide", 4, 3),
                            ("bytes where its header asks for", 5, -1),
                            ("bytes where its header asks for", 1, 1 << 24)):
        path.write_bytes(data[:4 * i] + struct.pack("<i", value) + data[4 * i + 4:])
        check_refused(path, words)


def test_quantized_files_that_do_not_fit(tmp):
    path = make_file(tmp / "a", version_2(Tiny(META), 16), pieces_of_text(PIECES))
    check_refused(path, "in groups of 16")
    path.write_bytes(new_header(Tiny(META), 2, -64) + bytes(1000))
    check_refused(path, "in groups of -64")
    path.write_bytes(version_2(Tiny(META, hidden=96), 64))
    check_refused(path, "layers.0.feed_forward.w2 have 96 values, which groups of 64")
    m = Tiny(META)
    for value in (np.nan, np.inf, -1.0, 1e35):
        data = bytearray(version_2(m))
        at = 256 + sum(w.nbytes for w in norms(m)) + m.weights["embed"].size
        data[at:at + 4] = struct.pack("<f", value)
        path.write_bytes(data)
        check_refused(path, "are no scales but other numbers")


def test_broken_tokenizers(tmp):
    path = make_file(tmp / "a", version_0(Tiny(META)))
    good, file = pieces_of_text(PIECES), tmp / "a" / "tokenizer.bin"
    data = tokenizer_bin(good)

    def changed(index, score, text):
        return tokenizer_bin(good[:index] + [(score, text)] + good[index + 1:])

    for words, broken in (
            ("has 0 pieces", b""), ("has 0 pieces", data[:4]), ("is cut short", data[:-1]),
            ("is cut short", data[:7]), ("has 399 pieces", tokenizer_bin(good[:-1])),
            ("has 401 pieces", tokenizer_bin([*good, (0.0, b"more")])),
            ("is cut short", data[:8] + b"\xff\xff\xff\xff" + data[12:]),
            ("piece 300 has 0 bytes", changed(300, 0.0, b"")),
            ("piece 300 has 1025 bytes", changed(300, 0.0, b"x" * 1025)),
            ("the score nan", changed(300, np.nan, b"x")),
            ("piece 300 is not UTF-8", changed(300, 0.0, b"\xff")),
            ("two pieces are 'w0'", changed(300, 0.0, b"w0")),
            ("two pieces are '<0x41>'", changed(300, 0.0, b"<0x41>")),
            ("piece 0 is 'x', but should be '<unk>'", changed(0, 0.0, b"x")),
            ("piece 1 is", changed(1, 0.0, b"</s>")),
            ("piece 258 is '<0xFE>', but should be '<0xFF>'", changed(258, 0.0, b"<0xFE>"))):
        file.write_bytes(broken)
        check_refused(path, words)
    os.truncate(file, 65 << 20)
    check_refused(path, "more than any tokenizer")
    file.unlink()
    os.mkfifo(file)
    check_refused(path, "is not a regular file")


def test_not_regular_files(tmp):
    os.mkfifo(tmp / "model.bin")
    check_refused(tmp / "model.bin", "give the folder it lies in")
    (tmp / "folder").mkdir()
    make_file(tmp / "folder", version_0(Tiny(META)), pieces_of_text(PIECES))
    check_refused(tmp / "folder", "give the model's .bin itself")


# ---- the real thing

def test_stories(tmp, nibble, reference):
    stories, text = reference / "models" / "stories260K", "Tim had a red ball"
    data = (stories / "stories260K.bin").read_bytes()
    path = make_file(tmp / "a", data, name="stories.bin")
    (tmp / "a" / "tok512.bin").write_bytes((stories / "tok512.bin").read_bytes())
    convert(path)
    model = tmp / "a" / "stories.bin.npz"
    got = nibble("generate", model, "--temp", "0", "-p", "", "-n", "257")
    assert got == (stories / "greedy-257.txt").read_bytes()[:-1]
    got = nibble("generate", model, "--temp", "0", "-p", text, "-n", "120", "--echo")
    assert got.startswith((stories / "greedy-120-tim.txt").read_bytes()[:-1])
    for words in (text, "Once upon a time, \u00e4 \u4e2d", ""):
        assert nibble("tokenize", model, "-p", words) == nibble("tokenize", stories / "mlx", "-p",
                                                                words)


if __name__ == "__main__":
    sys.exit(main(globals()))
