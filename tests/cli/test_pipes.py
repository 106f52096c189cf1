#!/usr/bin/python3
"""Every command in a pipe: a reader that leaves, no stdin, a full disk, a huge prompt."""
import os
import shlex
import subprocess
import sys

from chats import talker
from harness import FAIRYTALE, main
from test_chat_prompt import folder

CHAT = ("chat", FAIRYTALE, "--template", "zephyr", "-n", "30")
# Words, and what they read from stdin. Each prints more than ten bytes.
PRINTING = (
    (("generate", FAIRYTALE, "-n", "200"), b"Once"),
    (("generate", FAIRYTALE, "-p", "Once", "-n", "20", "--json"), b""),
    (CHAT, b"Once\nand then\n"),
    (("tokenize", FAIRYTALE), b"Once upon a time there was a king"),
    (("detokenize", FAIRYTALE, "300", "301", "302", "303", "304", "305", "306", "307"), b""),
    (("info",), b""),
    (("info", FAIRYTALE), b""),
    (("list", FAIRYTALE), b""),
    (("verify", FAIRYTALE), b""),
    (("bench", FAIRYTALE, "-p", "2", "-n", "2", "-r", "1"), b""),
    (("--help",), b""),
    (("chat", "--help"), b""),
)


def test_head(tmp, nibble):
    for words, stdin in PRINTING:
        line = shlex.join(map(str, (nibble, *words)))
        line += " | head -c 10; echo /${PIPESTATUS[0]}"
        shell = subprocess.run(["bash", "-c", line], input=stdin, capture_output=True,
                               timeout=nibble.hang_s)
        out, _, code = shell.stdout.strip(b"\n").rpartition(b"/")
        assert len(out) == 10 and code == b"0", (words, shell)
        assert shell.stderr == b"" or words[0] in ("chat", "bench"), (words, shell.stderr)


def test_full_disk(tmp, nibble):
    with open("/dev/full", "wb") as full:
        for words, stdin in PRINTING:
            result = nibble.run(*words, stdin=stdin, stdout=full)
            assert result.code == 1 and "No space left" in result.err, (words, result)


def test_no_stdin(tmp, nibble):
    """It counts as empty; nothing waits."""
    closed = {"stdin": None, "preexec_fn": lambda: os.close(0)}
    for words, _ in PRINTING:
        result = nibble.run(*words, **closed)
        assert result.code == 0, (words, result)
    assert nibble("tokenize", FAIRYTALE, **closed) == b"1\n"
    assert nibble(*CHAT, **closed) == b""
    empty = nibble("generate", FAIRYTALE, "--temp", "0", "-n", "5", **closed)
    assert empty == nibble("generate", FAIRYTALE, "--temp", "0", "-n", "5", "-p", "")


def test_stdin_that_cannot_be_read(tmp, nibble):
    for words in (("generate", FAIRYTALE), ("tokenize", FAIRYTALE), CHAT):
        with open("/proc/self/mem", "rb") as unreadable:
            nibble.refuses(*words, stdin=unreadable, says="stdin cannot be read")


def test_huge_prompt(tmp, nibble):
    """1 and 10 MB: far more tokens than the context has."""
    text = b"Once upon a time there was a king. " * 30000
    (tmp / "big").write_bytes(text * 10)
    for result in (nibble.run("generate", FAIRYTALE, "-f", tmp / "big"),
                   nibble.run("generate", FAIRYTALE, "-c", "100000", stdin=text),
                   nibble.run("chat", talker(tmp / "m.npz"), "--template", "zephyr", stdin=text)):
        assert result.code == 3 and "do not fit the context of" in result.err, result
        assert result.out == b"" and result.err.count("\n") == 1, result


def test_huge_prompt_is_refused_at_once(tmp, nibble):
    """Its length tells that it is too long, whoever asks; tokenizing it takes half a minute."""
    text = b"Once upon a time there was a king. " * 300000
    zephyr, line = ("--template", "zephyr"), b'{"prompt":"%s"}\n' % text
    for words in (("generate", FAIRYTALE), ("generate", FAIRYTALE, "-c", "400"),
                  ("generate", FAIRYTALE, "--chat", *zephyr), ("chat", FAIRYTALE, *zephyr),
                  ("score", FAIRYTALE), ("score", FAIRYTALE, "-c", "1000")):
        nibble.refuses(*words, stdin=text, code=3, says=["at least ", "do not fit the context of"])
    batch = nibble.run("generate", FAIRYTALE, "--batch-file", "-", stdin=line)
    assert batch.code == 1 and b"at least " in batch.out and batch.cpu_s < nibble.refusal_s, batch
    assert nibble.run("perplexity", FAIRYTALE, "-c", "64", stdin=text[:20000]).code == 0
    assert nibble("generate", FAIRYTALE, "--show-prompt", stdin=text[:200000]).startswith(b"Once")


def test_spaces_that_a_token_takes_are_no_tokens(tmp, nibble):
    model = folder(tmp / "m", tokenizer_config={"added_tokens_decoder": {
        "400": {"content": "<|turn|>", "special": False, "lstrip": True}}})
    (model / "added_tokens.json").unlink()
    got = nibble.json("generate", model, "-n", "1", stdin=b" " * 100000 + b"<|turn|>")
    assert got["prompt_tokens"] == 2, got


def test_prompt_as_long_as_the_context(tmp, nibble):
    ids = nibble("tokenize", FAIRYTALE, "-p", "word " * 400).split()
    (tmp / "p").write_bytes(b"word " * 400)
    fits = nibble.run("generate", FAIRYTALE, "-f", tmp / "p", "-c", len(ids), "-n", "1")
    assert fits.code == 0 and fits.out, fits
    nibble.refuses("generate", FAIRYTALE, "-f", tmp / "p", "-c", len(ids) - 1, "-n", "1", code=3,
                   says=f"{len(ids)} tokens")


if __name__ == "__main__":
    sys.exit(main(globals()))
