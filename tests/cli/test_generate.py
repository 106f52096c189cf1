#!/usr/bin/python3
"""nibble generate: where the prompt comes from, what is printed, sampling, why it stops."""
import re
import sys

import numpy as np

from harness import FAIRYTALE, main
from models import BYTE_0, EOS, META, PIECES, Tiny, byte_ids, chain

STORY = ("generate", FAIRYTALE, "--temp", "0")
ONCE = "Once upon a time"


def text_ids(nibble, text, *options, model=FAIRYTALE):
    return nibble("tokenize", model, "-p", text, *options).decode().split()


# ---- where the prompt comes from

def test_prompt_sources_agree(tmp, nibble):
    (tmp / "p").write_text(ONCE)
    want = nibble(*STORY, "-n", "8", "-p", ONCE)
    assert want.startswith(b" ") and len(want) > 10, want
    for words, stdin in ((("-f", tmp / "p"), b""), (("-f", "-"), ONCE.encode()),
                         ((), ONCE.encode()), (("--prompt", ONCE), b""),
                         (("--file", tmp / "p"), b"unread"), (("-p", ONCE), b"unread"),
                         (("--ids", " ".join(text_ids(nibble, ONCE))), b"unread"),
                         (("--ids", ",".join(text_ids(nibble, ONCE))), b"")):
        assert nibble(*STORY, "-n", "8", *words, stdin=stdin) == want, words


def test_one_final_newline_is_dropped(tmp, nibble):
    counts = {}
    for text in (b"one", b"one\n", b"one\n\n", b"one\n\n\n", b"\n", b"\n\n"):
        (tmp / "p").write_bytes(text)
        from_file = nibble.json(*STORY, "-n", "0", "-f", tmp / "p")["prompt_tokens"]
        assert nibble.json(*STORY, "-n", "0", stdin=text)["prompt_tokens"] == from_file
        given = nibble.json(*STORY, "-n", "0", "-p", text[:-1] if text.endswith(b"\n") else text)
        assert given["prompt_tokens"] == from_file, text
        counts[text] = from_file
    assert counts[b"one"] == counts[b"one\n"] < counts[b"one\n\n"] < counts[b"one\n\n\n"], counts
    assert counts[b"\n"] == 1, "a lone newline leaves the empty prompt"
    kept = nibble.json(*STORY, "-n", "0", "-p", "one\n")["prompt_tokens"]
    assert kept == counts[b"one\n\n"], "-p is taken as it is"


def test_prompt_bytes_as_they_are(tmp, nibble):
    for text in (b"a\0b", b"\xff\xfe", b"\r\n", "\u00e9\u4e2d\U0001f600".encode()):
        (tmp / "p").write_bytes(text)
        ids = nibble("tokenize", FAIRYTALE, "-f", tmp / "p").split()
        want = nibble(*STORY, "-n", "6", "--ids", b" ".join(ids).decode())
        (tmp / "p").write_bytes(text + b"\n")
        assert nibble(*STORY, "-n", "6", "-f", tmp / "p") == want, text


def test_empty_prompt_is_bos_alone(tmp, nibble):
    want = nibble(*STORY, "-n", "5", "--ids", "1")
    for words in (("-p", ""), ("--prompt=",), ("-f", "/dev/null"), ("-f", "-"), ()):
        assert nibble(*STORY, "-n", "5", *words) == want, words
    nibble.refuses(*STORY, "-p", "", "--no-bos", says="no tokens", code=2)
    nibble.refuses(*STORY, "--ids", "", says="no tokens", code=2)


# ---- what is printed

def test_n(tmp, nibble):
    assert nibble(*STORY, "-p", ONCE, "-n", "0") == b""
    one, eight = (nibble(*STORY, "-p", ONCE, "-n", n) for n in "18")
    assert 0 < len(one) < len(eight) and eight.startswith(one)
    for option in ("--n-predict", "--max-tokens", "--max_tokens"):
        assert nibble(*STORY, "-p", ONCE, option, "8") == eight
    model = Tiny(context=300).save(tmp / "m.npz")
    ids = nibble.json("generate", model, "-p", "x", "--ignore-eos")["ids"]
    assert len(ids) == 256, "by default"


def test_echo(tmp, nibble):
    prompt = "Once \u00e9 \\n"
    rest = nibble(*STORY, "-p", prompt, "-n", "6")
    assert nibble(*STORY, "-p", prompt, "-n", "6", "--echo") == prompt.encode() + rest
    assert nibble(*STORY, "-n", "6", "--echo", stdin=b"Once\n\n") == \
        b"Once\n" + nibble(*STORY, "-n", "6", stdin=b"Once\n\n")
    assert nibble.json(*STORY, "-p", prompt, "-n", "6", "--echo")["text"].startswith(prompt)


def test_echo_of_ids_is_their_text(tmp, nibble):
    ids = " ".join(text_ids(nibble, ONCE, "--no-bos"))
    whole = nibble(*STORY, "-p", ONCE, "--no-bos", "-n", "6", "--echo")
    assert nibble(*STORY, "--ids", ids, "-n", "6", "--echo") == whole
    got = nibble.json(*STORY, "--ids", ids, "-n", "6", "--echo")
    assert got["text"].encode() == whole and len(got["ids"]) == 6


def test_without_a_tokenizer(tmp, nibble):
    model = Tiny().save(tmp / "m.npz", tokenizer=None)
    words = ("generate", model, "--temp", "0", "--ids", "5 6 7")
    got = nibble.json(*words, "-n", "4")
    assert got["text"] is None and len(got["ids"]) == 4
    line = " ".join(map(str, got["ids"]))
    assert nibble(*words, "-n", "4").decode() == line + "\n"
    assert nibble(*words, "-n", "4", "--echo").decode() == f"5 6 7 {line}\n"
    assert nibble(*words, "-n", "0", "--echo") == b"5 6 7\n"
    assert nibble(*words, "-n", "0") == b"\n"
    nibble.refuses("generate", model, "-p", "text", says=["no tokenizer", "--ids"])
    nibble.refuses("generate", model, says=["no tokenizer", "--ids"])


def test_escapes(tmp, nibble):
    ids = lambda *words: nibble("tokenize", FAIRYTALE, *words)
    for text, want in ((r"a\nb", "a\nb"), (r"\t\r", "\t\r"), (r"\\n", "\\n"), (r"\"\'", "\"'"),
                       (r"\x41\x4a", "AJ"), (r"\xe9", b"\xe9"), ("\\", "\\"), (r"\q", r"\q"),
                       (r"\xE9Z", b"\xe9Z"), (r"\x4", r"\x4"), (r"\xzz", r"\xzz"), ("", ""),
                       ("\\x4\x11", "\\x4\x11"), ("\\x\x11\x11", "\\x\x11\x11"),
                       (b"\\x4\xb1", b"\\x4\xb1")):
        assert ids("-e", "-p", text) == ids("-p", want), text
        (tmp / "p").write_bytes(text if isinstance(text, bytes) else text.encode())
        assert ids("-f", tmp / "p") == ids("-p", text), "not without -e"
    (tmp / "p").write_bytes(b"a\0b")
    assert ids("-e", "-p", r"a\x00b") == ids("-f", tmp / "p")
    assert ids("-p", r"a\nb") != ids("-p", "a\nb")
    assert nibble(*STORY, "-n", "5", "-e", "-p", r"A\n") == nibble(*STORY, "-n", "5", "-p", "A\n")


def test_stats_and_quiet(tmp, nibble):
    words = (*STORY, "-p", ONCE, "-n", "4")
    result = nibble.run(*words, "--stats", "-c", "100", "--seed", "77")
    assert result.code == 0 and result.out == nibble(*words), result
    for word in ("5 tokens", "4 tokens", "finish: length", "seed 77", "context 100", "KV f16",
                 "threads", "tok/s", "GB/s", "MB private", "first token"):
        assert word in result.err, f"{word}: {result.err}"
    assert nibble.run(*words, "--stats", "--quiet").err == ""


def test_memory_of_a_wide_model(tmp, nibble):
    """A long prompt takes 64 MB beyond the cache at most, in smaller batches if need be."""
    if nibble.sanitized:  # which has memory of its own
        return
    plain = Tiny(hidden=57344, layers=2, context=1024).save(tmp / "f16.npz", dtype="<f2")
    nibble.run("quantize", plain, tmp / "m.npz", "--bits", "4")
    runs = {}
    for batch in ("0", "512"):
        runs[batch] = nibble.run("generate", tmp / "m.npz", "--ids", "7 8 9 10 11 12 " * 100,
                                 "-n", "4", "--temp", "0", "--stats", "-b", batch)
    private = [float(re.search(r"([\d.]+) MB private", run.err)[1]) for run in runs.values()]
    assert private[0] < 64 < 100 < private[1], private
    assert runs["0"].out == runs["512"].out and runs["0"].code == 0, runs


# ---- sampling

def test_same_seed_same_bytes(tmp, nibble):
    prompt = "Once upon a time, in a village by the sea, there lived a fisherman"
    words = ("generate", FAIRYTALE, "-p", prompt, "-n", "20", "-s", "5", "--ignore-eos")
    want = nibble(*words)
    for more in (("-t", "1"), ("-t", "2"), ("-t", "4"), ("-b", "1"), ("-b", "7"), ("-b", "512"),
                 ("-t", "3", "-b", "2"), ("-c", "64")):
        assert nibble(*words, *more) == want, more


def test_same_seed_same_bytes_plain_weights(tmp, nibble):
    model = Tiny(seed=3, dim=160, hidden=224, heads=10).save(tmp / "m.npz", dtype="<f2")
    words = ("generate", model, "-p", "the quick brown fox", "-n", "60", "-s", "5", "--ignore-eos")
    want = nibble(*words)
    for threads in "124":
        assert nibble(*words, "-t", threads) == want, threads


def test_seeds(tmp, nibble):
    words = ("generate", Tiny().save(tmp / "m.npz"), "-p", "x", "-n", "30", "--ignore-eos")
    texts = {seed: nibble(*words, "--seed", seed) for seed in ("0", "1", "2", "4294967295")}
    assert len(set(texts.values())) == 4, "different seeds differ"
    got = nibble.json(*words)
    again = nibble.json(*words, "--seed", got["seed"])
    assert again["ids"] == got["ids"] and again["seed"] == got["seed"], "the seed is reported"
    assert nibble.json(*words, "-n", "0")["seed"] != nibble.json(*words, "-n", "0")["seed"]
    assert nibble.json(*words, "-n", "0", "-s", "-1")["seed"] >= 0


def test_greedy_is_the_argmax_of_logits(tmp, nibble):
    for model in (FAIRYTALE, Tiny(META).save(tmp / "m.npz")):
        ids = [int(id) for id in text_ids(nibble, "the fox", model=model)]
        got = nibble.json("generate", model, "--ids", " ".join(map(str, ids)), "--temp", "0",
                          "-n", "20", "--ignore-eos", "-b", "1")["ids"]
        nibble("logits", model, "--ids", " ".join(map(str, ids + got)), "-o", tmp / "l.npy",
               "-b", "1")
        logits = np.load(tmp / "l.npy")[len(ids) - 1:-1]
        assert logits.argmax(-1).tolist() == got


def test_filters(tmp, nibble):
    model = Tiny().save(tmp / "m.npz")
    words = ("generate", model, "-p", "the", "-n", "20", "--ignore-eos")
    greedy = nibble.json(*words, "--temp", "0")["ids"]
    for one in (("--top-k", "1"), ("--top-p", "0"), ("--min-p", "1"),
                ("--temp", "1e-9"), ("--temp", "1e-300")):
        assert nibble.json(*words, "-s", "9", "--temp", "5", *one)["ids"] == greedy, one
    off = ("--top-k", "0", "--top-p", "1", "--min-p", "0", "--temp", "50", "--seed", "1")
    assert len(set(nibble.json(*words, *off)["ids"])) > 15, "nearly uniform"
    assert len(set(nibble.json(*words, *off, "--top-k", "1000000")["ids"])) > 15
    assert len(set(nibble.json(*words, *off, "--typical", "0")["ids"])) <= 20


def test_logit_bias(tmp, nibble):
    words = (*STORY, "-p", ONCE, "-n", "6")
    first = nibble.json(*words)["ids"]
    forbidden = [option for id in first for option in ("--logit-bias", f"{id}=-inf")]
    assert not set(nibble.json(*words, *forbidden, "--ignore-eos")["ids"]) & set(first)
    forced = nibble.json(*words, "--logit-bias", "300=1e9")
    assert forced["ids"] == [300] * 6, forced
    for bad in ("5", "=1", "5=", "-1=1", "5=nan", "5=inf", "x=1", "5=1x", "5.5=1", "99999999=1",
                "4096=1", "00000000000000000000000000005=1"):
        nibble.refuses(*words, "--logit-bias", bad, code=2)


def test_every_token_forbidden(tmp, nibble):
    model = Tiny(vocab=40).save(tmp / "m.npz", tokenizer=None)
    bias = [word for id in range(40) for word in ("--logit-bias", f"{id}=-inf")]
    words = ("generate", model, "--ids", "1", "-n", "3", "--ignore-eos")
    for temp in ("0", "1"):
        nibble.refuses(*words, *bias, "--json", "--temp", temp, says="forbidden")
        assert nibble.json(*words, *bias[2:], "--temp", temp)["ids"] == [0, 0, 0], "all but one"


def test_repeat_penalty(tmp, nibble):
    model = Tiny(tied=True).save(tmp / "m.npz")  # its logits are far apart
    words = ("generate", model, "--temp", "0", "-p", "x", "-n", "100", "--ignore-eos")
    plain, penalized = (nibble.json(*words, "--repeat-penalty", p)["ids"] for p in ("1", "1.5"))
    assert len(set(penalized)) > 1.5 * len(set(plain)), (len(set(penalized)), len(set(plain)))
    assert nibble.json(*words, "--repeat-penalty", "1.5", "--repeat-last-n", "0")["ids"] == plain
    assert len(set(nibble.json(*words, "--presence-penalty", "1e6", "--repeat-last-n", "-1")["ids"]
                   )) == 100, "no token twice"


# ---- why it stops

def test_finish_reasons(tmp, nibble):
    model = chain(tmp / "m.npz", byte_ids(b"abcdef"), context=16)
    words = ("generate", model, "--temp", "0", "--ids", BYTE_0 + ord("a"))
    got = nibble.json(*words)
    assert (got["text"], got["finish_reason"]) == ("bcdef", "stop")
    assert got["ids"] == byte_ids(b"bcdef") + [EOS] and got["prompt_tokens"] == 1
    got = nibble.json(*words, "-n", "3")
    assert (got["text"], got["finish_reason"], len(got["ids"])) == ("bcd", "length", 3)
    got = nibble.json(*words, "--stop", "e")
    assert (got["text"], got["finish_reason"]) == ("bcd", "string")
    got = nibble.json(*words, "--ignore-eos", "-n", "-1")
    assert (got["text"], got["finish_reason"]) == ("bcdef", "context")
    assert got["ids"] == byte_ids(b"bcdef") + [EOS] * 11, got["ids"]
    got = nibble.json(*words, "-n", "6")
    assert got["finish_reason"] == "stop", "the last token allowed is an end"
    assert nibble.json(*words, "-n", "0")["finish_reason"] == "length"


def test_json_fields(tmp, nibble):
    got = nibble.json(*STORY, "-p", ONCE, "-n", "4", "-s", "3", "-t", "1", "--level", "scalar")
    assert got["prompt_tokens"] == 5 and got["seed"] == 3 and len(got["ids"]) == 4
    assert got["text"].encode() == nibble(*STORY, "-p", ONCE, "-n", "4")
    assert all(type(value) in (int, float) and value >= 0 for value in got["timings"].values())
    versions = got["versions"]
    assert versions["level"] == "scalar" and versions["threads"] == 1, versions
    assert versions["nibble"] == nibble("--version").split()[1].decode()
    raw = nibble(*STORY, "-p", ONCE, "-n", "4", "--json")
    assert raw.count(b"\n") == 1 and raw.endswith(b"}\n"), "one line"


def test_every_end_token_ends(tmp, nibble):
    x, y = byte_ids(b"xy")
    model = chain(tmp / "m.npz", [x, y, 300, 301], eos_token_id=[300, 7])
    words = ("generate", model, "--temp", "0", "--ids", x)
    assert nibble.json(*words)["ids"] == [y, 300]
    model = chain(tmp / "n.npz", [x, y], eos_token_id=300)
    words = ("generate", model, "--temp", "0", "--ids", x)
    assert nibble.json(*words)["ids"] == [y, EOS], "the tokenizer's, which the config does not say"
    assert nibble.json(*words, "--ignore-eos", "-n", "5")["ids"] == [y, EOS, EOS, EOS, EOS]


def test_full_context(tmp, nibble):
    for context in (5, 6, 20):
        result = nibble.run(*STORY, "-p", ONCE, "-c", context, "-n", "-1", "--stats")
        assert result.code == 0 and "finish: context" in result.err, result
        got = nibble.json(*STORY, "-p", ONCE, "--ctx-size", context, "-n", "-1")
        assert got["finish_reason"] == "context"
        assert len(got["ids"]) == context - 5 + 1, "the last token needs no place"
    assert len(nibble.json(*STORY, "-p", ONCE, "-c", "20", "-n", "16")["ids"]) == 16


def test_prompt_longer_than_the_context(tmp, nibble):
    for words in (("generate",), ("generate", "--json"), ("generate", "--echo", "--stats")):
        nibble.refuses(words[0], FAIRYTALE, *words[1:], "-p", ONCE, "-c", "4", code=3,
                       says=["5 tokens", "context of 4", "--ctx-size"])
    nibble.refuses(*STORY, says=["601", "512"], code=3, stdin=b"x\n" * 300)
    nibble.refuses("logits", FAIRYTALE, "--ids", "1 2 3", "-c", "2", "-o", tmp / "x.npy", code=3,
                   says=["3 tokens", "context of 2"])
    assert not (tmp / "x.npy").exists()


def test_ids_outside_the_vocabulary(tmp, nibble):
    for ids in ("4096", "1 99999", "-1", "1 x", "1.5", "1e30"):
        nibble.refuses(*STORY, "--ids", ids, code=2)
    model = Tiny(vocab=PIECES + 8).save(tmp / "m.npz")
    nibble("generate", model, "--ids", PIECES + 7, "-n", "1")  # a row without a piece may be given
    nibble.refuses("generate", model, "--ids", PIECES + 8, says="408", code=2)


def test_levels(tmp, nibble):
    machine = nibble("info").decode()
    levels = next(line for line in machine.splitlines() if "this CPU runs" in line)
    levels = levels.split(":")[1].split("(")[0].split()
    assert levels[0] == "scalar"
    for level in levels:
        got = nibble.json(*STORY, "-p", ONCE, "-n", "6", "--level", level)
        assert got["versions"]["level"] == level and len(got["ids"]) == 6
        assert got["text"].startswith(" there was a"), got
    assert nibble.json(*STORY, "-p", ONCE, "-n", "1")["versions"]["level"] == levels[-1]
    for bad in ("sse9", "", "AVX2", "scalar "):
        nibble.refuses(*STORY, "-p", ONCE, "--level", bad, says=levels, code=2)
    nibble.refuses(*STORY, "-p", ONCE, "--kv-type", "f17", says=["f16", "f32"], code=2)


if __name__ == "__main__":
    sys.exit(main(globals()))
