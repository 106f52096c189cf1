#!/usr/bin/python3
"""nibble generate on a full context: stop, or slide. Which tokens slide is tested in C
(tests/model/test_generate.c)."""
import sys

from harness import FAIRYTALE, main

STORY = ("generate", FAIRYTALE, "--temp", "0", "--ignore-eos", "-c", "11")
BOS = 1


def test_stop_is_the_default_and_is_told(tmp, nibble):
    for words in ((), ("--overflow", "stop"), ("--overflow=stop", "--keep", "5")):
        result = nibble.run(*STORY, "--ids", "1 300 301", "-n", "50", *words)
        assert result.code == 0, result
        assert result.err.startswith("nibble: note: the context of 11 tokens is full; "), result
        assert "--overflow slide" in result.err and result.err.count("\n") == 1, result
    got = nibble.json(*STORY, "--ids", "1 300 301", "-n", "50")
    assert (got["finish_reason"], got["dropped_tokens"], len(got["ids"])) == ("context", 0, 9)


def test_slide_goes_on_and_is_told(tmp, nibble):
    stopped = nibble.json(*STORY, "--ids", "1 300 301", "-n", "50")["ids"]
    words = (*STORY, "--ids", "1 300 301", "-n", "50", "--overflow", "slide")
    got = nibble.json(*words)
    assert got["finish_reason"] == "length" and len(got["ids"]) == 50, got
    assert got["ids"][:9] == stopped, "nothing changes before the context is full"
    result = nibble.run(*words, "-q")
    assert result.code == 0 and result.out.decode() == got["text"], result
    assert "slid " in result.err and f"{got['dropped_tokens']} old tokens" in result.err, result


def test_kept_tokens(tmp, nibble):
    """Half of what is not kept goes, rounded up: 11 - 3 = 8 with BOS and two tokens."""
    for ids, keep, dropped in (("1 300 301 302", 0, 5), ("1 300 301 302", 2, 4),
                               ("1 300 301 302", -1, 4), ("1 300 301 302", 99, 4),
                               ("300 301 302 303", 0, 6), ("300 301 302 303", 2, 5),
                               ("300 301 302 303", -1, 4)):
        first_slide = 11 - len(ids.split()) + 2
        words = (*STORY, "--overflow", "slide", "--keep", keep, "--ids", ids, "-n")
        assert nibble.json(*words, first_slide - 1)["dropped_tokens"] == 0, (ids, keep)
        assert nibble.json(*words, first_slide)["dropped_tokens"] == dropped, (ids, keep)


def test_text_goes_on_after_a_slide(tmp, nibble):
    """What follows a slide is what follows the tokens that are left, as a prompt of their own."""
    words = ("generate", FAIRYTALE, "--temp", "0", "--ignore-eos")
    prompt = [BOS, 300, 301, 302]
    slid = nibble.json(*words, "-c", "11", "--overflow", "slide", "--keep", "1", "-n", "12",
                       "--ids", " ".join(map(str, prompt)))["ids"]
    held = prompt + slid[:8]  # the last of them finds the context full
    left = held[:2] + held[2 + 5:]
    want = nibble.json(*words, "-n", "4", "--ids", " ".join(map(str, left)))["ids"]
    assert slid[8:] == want, (slid, want)


def test_nothing_to_drop(tmp, nibble):
    result = nibble.run(*STORY, "--ids", "1 " * 11, "-n", "5", "--overflow", "slide", "--keep",
                        "-1", "--stats")
    assert result.code == 0 and "finish: context" in result.err, result
    assert "lower --keep" in result.err, result


def test_refusals(tmp, nibble):
    nibble.refuses(*STORY, "-p", "x", "--overflow", "shift", code=2,
                   says=["--overflow", "'shift'", "stop", "slide"])
    nibble.refuses(*STORY, "-p", "x", "--keep", "-2", code=2, says="--keep")
    nibble.refuses(*STORY, "--ids", "1 " * 12, "--overflow", "slide", code=3, says="12 tokens")


if __name__ == "__main__":
    sys.exit(main(globals()))
