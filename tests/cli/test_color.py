#!/usr/bin/python3
"""nibble generate --color, --show-probs: what is coloured how, and when nothing is."""
import math
import os
import re
import sys

from harness import FAIRYTALE, main
from models import BYTE_0, Tiny
from test_output import has_terminals, on_terminal
from test_stream import spoken

STORY = ("generate", FAIRYTALE, "-p", "Once upon a time", "-s", "5", "-n", "16")
SCALE = [196, 202, 208, 214, 220, 226, 190, 154, 118, 46]  # as docs/cli.md has it
PART = re.compile(rb"\x1b\[([\d;]+)m(.*?)\x1b\[0m", re.S)


def parts(data):
    """[(colour, text)], and nothing outside of them."""
    found = PART.findall(data)
    assert b"".join(b"\x1b[%sm%s\x1b[0m" % part for part in found) == data, data
    assert all(b"\x1b" not in text for _, text in found), data
    return found


def plain(data):
    return b"".join(text for _, text in parts(data))


def test_prompt_and_answer(tmp, nibble):
    want = nibble(*STORY)
    for echo in ((), ("--echo",)):
        found = parts(nibble(*STORY, *echo, "--color", "always"))
        prompt = [text for color, text in found if color == b"36"]
        assert prompt == ([b"Once upon a time"] if echo else []), found
        assert b"".join(text for color, text in found if color == b"32") == want, found


def test_each_token_by_its_probability(tmp, nibble):
    words = (*STORY, "--temp", "2", "--top-k", "0", "--min-p", "0")
    got = nibble.json(*words, "--logprobs", "0")
    found = parts(nibble(*words, "--show-probs", "--color", "always"))
    texts = [text.decode() for _, text in found]
    assert "".join(texts) == got["text"] and len(texts) == len(got["ids"]), texts
    assert texts == [entry["text"] for entry in got["logprobs"]]
    steps = [min(int(10 * math.exp(entry["logprob"])), 9) for entry in got["logprobs"]]
    assert [color.decode() for color, _ in found] == [f"38;5;{SCALE[step]}" for step in steps]
    assert len(set(steps)) > 2, "the text shows several"


def test_characters_stay_whole(tmp, nibble):
    """Of several tokens: they have the colour of the first; text that was held back is not lost."""
    model = spoken(tmp, "a\u4e2d\u00e9bcd".encode() + b"\xff!")
    words = ("generate", model, "--temp", "0", "--ids", BYTE_0 + ord("<"))
    coloured = (*words, "--show-probs", "--color", "always")
    texts = lambda *options: [text for _, text in parts(nibble(*coloured, *options))]
    whole = ["a".encode(), "\u4e2d".encode(), "\u00e9".encode(), b"b", b"c", b"d", b"\xff", b"!"]
    assert texts() == whole, texts()
    for options in (("--stop", "cX"), ("--stop", "bcd"), ("--stop", "d\ufffd"), ("-n", "3"),
                    ("-n", "5"), ("--stop", "dX", "-n", "9"), ("--stop", "\u00e9bX")):
        assert b"".join(texts(*options)) == nibble(*words, *options), options


def test_when(tmp, nibble):
    want = nibble(*STORY)
    for options in ((), ("--color", "never"), ("--color", "auto"), ("--show-probs",),
                    ("--color", "never", "--show-probs")):
        assert nibble(*STORY, *options) == want, options
    assert plain(nibble(*STORY, "--color", "always", env={"NO_COLOR": "1"})) == want
    got = nibble.json(*STORY, "--color", "always", "--echo")
    assert "\x1b" not in got["text"], got
    ids = nibble("generate", Tiny().save(tmp / "m.npz", tokenizer=None), "--ids", "5", "-n", "3",
                 "--color", "always", "--show-probs")
    assert len(ids.split()) == 3 and b"\x1b" not in ids, ids


def test_when_on_a_terminal(tmp, nibble):
    if not has_terminals():
        return
    want = nibble(*STORY)
    environment = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
    for options, variable, coloured in (
            ((), None, False), (("--color", "auto"), None, True), (("--show-probs",), None, True),
            (("--color", "auto"), "1", False), (("--show-probs",), "1", False),
            (("--color", "auto"), "", True), (("--color", "never"), None, False),
            (("--color", "never", "--show-probs"), None, False),
            (("--color", "always"), "1", True)):
        env = environment if variable is None else {**environment, "NO_COLOR": variable}
        code, shown, _, _ = on_terminal(nibble, *STORY, *options, streams=["stdout"], env=env)
        assert code == 0 and (plain(shown) if coloured else shown) == want, (options, shown)


def test_refused(tmp, nibble):
    for word in ("sometimes", "", "Always"):
        nibble.refuses(*STORY, "--color", word, says="auto, always or never", code=2)
    for option in ("--json", "--jsonl"):
        nibble.refuses(*STORY, "--show-probs", option, says="--logprobs", code=2)


if __name__ == "__main__":
    sys.exit(main(globals()))
