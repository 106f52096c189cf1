#!/usr/bin/python3
"""Text on its way out: whole characters, stop strings, what JSON makes of bytes."""
import fcntl
import os
import sys

from harness import FAIRYTALE, main
from models import BYTE_0, EOS, byte_ids, chain

F_SETPIPE_SZ = 1031


def speak(nibble, model, *options):
    """Has a chain that begins with the byte '<' say the rest."""
    return nibble("generate", model, "--temp", "0", "--ids", BYTE_0 + ord("<"), *options)


def writes(nibble, *words):
    """The program's writes to stdout one by one: a pipe in packet mode keeps them apart."""
    read, write = os.pipe2(os.O_DIRECT)
    fcntl.fcntl(write, F_SETPIPE_SZ, 1 << 20)
    with nibble.start(*words, stdout=write) as p:
        os.close(write)
        packets = list(iter(lambda: os.read(read, 4096), b""))
        os.close(read)
        assert p.wait() == 0, p.stderr.read()
    return packets


def spoken(tmp, data, **config):
    """A chain that says data, a byte a token; no byte may come twice."""
    return chain(tmp / "m.npz", [BYTE_0 + ord("<"), *byte_ids(data)], **config)


# ---- characters

def test_characters_come_whole(tmp, nibble):
    for text in ("\u00e9", "\u4e2d", "\U0001f600", "a\u00e9b\u4e2dc"):
        data = text.encode()
        model = spoken(tmp, data)
        packets = writes(nibble, "generate", model, "--temp", "0", "--ids", BYTE_0 + ord("<"))
        assert packets == [c.encode() for c in text], packets


def test_invalid_bytes_are_not_held_for_ever(tmp, nibble):
    for data, want in ((b"\xffa", [b"\xff", b"a"]), (b"\xc3a", [b"\xc3a"]),
                       (b"\x80\xbf", [b"\x80", b"\xbf"]), (b"\xf0\x9fa", [b"\xf0\x9fa"]),
                       (b"\xe0\x80a", [b"\xe0\x80", b"a"]), (b"\xc3\xe9", [b"\xc3", b"\xe9"]),
                       (b"a\0b", [b"a", b"\0", b"b"])):
        model = spoken(tmp, data)
        words = ("generate", model, "--temp", "0", "--ids", BYTE_0 + ord("<"))
        packets = writes(nibble, *words)
        assert b"".join(packets) == data and packets == want, (data, packets)


def test_text_cut_inside_a_character(tmp, nibble):
    model = spoken(tmp, "a\u4e2d".encode())
    assert speak(nibble, model, "-n", "3") == b"a\xe4\xb8", "what is held goes out at the end"
    words = ("generate", model, "--temp", "0", "--ids", BYTE_0 + ord("<"))
    assert nibble.json(*words, "-n", "3")["text"] == "a\ufffd\ufffd"
    assert nibble.json(*words)["text"] == "a\u4e2d"


def test_a_character_that_began_in_the_prompt(tmp, nibble):
    model = chain(tmp / "m.npz", byte_ids("\u4e2d".encode()))
    first, *rest = "\u4e2d".encode()
    words = ("generate", model, "--temp", "0", "--ids", BYTE_0 + first)
    assert nibble(*words) == bytes(rest)
    assert nibble(*words, "--echo") == "\u4e2d".encode()


def test_text_streams(tmp, nibble):
    x, y = byte_ids(b"xy")
    model = chain(tmp / "m.npz", [x, y, x], context=1 << 20)
    with nibble.start("generate", model, "--ids", x, "-n", "-1", "-c", "100000") as p:
        got = b"".join(os.read(p.stdout.fileno(), 64) for _ in range(5))
        assert p.poll() is None and got.startswith(b"yxyx"), got
        p.kill()


def test_first_piece(tmp, nibble):
    """A space that SentencePiece puts before a text stays inside one and goes at its start."""
    hello = int(nibble("tokenize", chain(tmp / "m.npz", [1, 2]), "-p", "the").split()[1])
    model = chain(tmp / "n.npz", [1, hello])
    assert nibble("detokenize", model, "1", hello) == b"<s> the"
    for prompt, want in (((), b"the"), (("--ids", "1"), b"the")):
        assert nibble("generate", model, "--temp", "0", *prompt) == want
    x, = byte_ids(b"x")
    model = chain(tmp / "o.npz", [x, hello])
    assert nibble("generate", model, "--temp", "0", "--ids", x) == b" the"


# ---- stop strings

def test_stop_over_tokens(tmp, nibble):
    model = spoken(tmp, b"Hi. END_more")
    assert speak(nibble, model) == b"Hi. END_more"
    for stop, want in ((". END", b"Hi"), ("E", b"Hi. "), ("Hi", b""), ("more", b"Hi. END_"),
                       ("e", b"Hi. END_mor"), ("Hi. END_more", b""), ("END!", b"Hi. END_more")):
        assert speak(nibble, model, "--stop", stop) == want, stop
    assert speak(nibble, model, "--stop=zzz", "--stop", "ND", "--stop", "END") == b"Hi. "
    assert speak(nibble, model, "--stop", "END", "--stop", "N") == b"Hi. E", "the first complete"
    assert speak(nibble, model, "--stop", "<") == b"Hi. END_more", "not in the prompt"


def test_held_text_is_flushed(tmp, nibble):
    model = spoken(tmp, b"abcdef")
    for options, want in (((), b"abcdef"), (("-n", "5"), b"abcde"), (("-c", "4"), b"abcd")):
        got = nibble.run("generate", model, "--temp", "0", "--ids", BYTE_0 + ord("<"), "--stop",
                         "bcdefX", *options)
        assert (got.code, got.out) == (0, want), (options, got)
        packets = writes(nibble, "generate", model, "--temp", "0", "--ids", BYTE_0 + ord("<"),
                         "--stop", "bcdefX", *options)
        assert packets == [b"a", want[1:]], packets
    packets = writes(nibble, "generate", model, "--temp", "0", "--ids", BYTE_0 + ord("<"),
                     "--stop", "bcX")
    assert packets == [b"a", b"bcd", b"e", b"f"], "let go as soon as it cannot be a stop string"


def test_stop_inside_a_token(tmp, nibble):
    ids = nibble("tokenize", FAIRYTALE, "-p", "Once upon a time").decode()
    words = ("generate", FAIRYTALE, "--temp", "0", "--ids", ids, "-n", "20")
    text = nibble(*words)
    at = text.index(b"ther")
    assert nibble(*words, "--stop", "her") == text[:text.index(b"her")] and at >= 0
    assert nibble.json(*words, "--stop", "her")["finish_reason"] == "string"


def test_stop_with_characters(tmp, nibble):
    model = spoken(tmp, "a\u00e9\u4e2db".encode())
    assert speak(nibble, model, "--stop", "\u4e2d") == "a\u00e9".encode()
    assert speak(nibble, model, "--stop", b"\xb8") == b"a\xc3\xa9\xe4", "bytes are bytes"


def test_wrong_stops(tmp, nibble):
    nibble.refuses("generate", FAIRYTALE, "-p", "x", "--stop", "", says="--stop", code=2)
    many = [word for i in range(65) for word in ("--stop", f"s{i}")]
    nibble.refuses("generate", FAIRYTALE, "-p", "x", *many, says="64", code=2)
    nibble("generate", FAIRYTALE, "-p", "x", "-n", "1", *many[2:])


# ---- JSON

def test_json_of_any_bytes(tmp, nibble):
    for data, want in ((b"\xff", "\ufffd"), (b"a\0b", "a\0b"), (b"\xc3\x28", "\ufffd("),
                       (b"\"\\/", "\"\\/"), (b"\x01\x1f\x7f", "\x01\x1f\x7f"), (b"\n\t", "\n\t"),
                       ("\u4e2d\U0001f600".encode()[:6], "\u4e2d\ufffd\ufffd\ufffd"),
                       (b"\xed\xa0\x80", "\ufffd\ufffd\ufffd"), ("\u2028".encode(), "\u2028")):
        model = spoken(tmp, data)
        got = nibble.json("generate", model, "--temp", "0", "--ids", BYTE_0 + ord("<"))
        assert got["text"] == want and got["ids"] == byte_ids(data) + [EOS], (data, got)
        assert speak(nibble, model) == data


def test_forced_bytes(tmp, nibble):
    for byte, want in ((0, "\0"), (0xff, "\ufffd"), (0xc3, "\ufffd")):
        bias = f"{BYTE_0 + byte}=1e9"
        words = ("generate", FAIRYTALE, "-p", "x", "-n", "3", "--logit-bias", bias)
        assert nibble.json(*words)["text"] == 3 * want
        assert nibble(*words) == 3 * bytes([byte])


def test_json_of_the_prompt(tmp, nibble):
    words = ("generate", FAIRYTALE, "--temp", "0", "-n", "2", "--echo", "-f", "-")
    got = nibble.json(*words, stdin=b"\"a\0\xff\n")
    assert got["text"].startswith("\"a\0\ufffd"), got


if __name__ == "__main__":
    sys.exit(main(globals()))
