#!/usr/bin/python3
"""nibble generate for programs: --json, --jsonl, --logprobs."""
import json
import math
import shutil
import signal
import sys

import numpy as np

from harness import FAIRYTALE, main
from models import BYTE_0, EOS, PIECES, Tiny, byte_ids, chain
from test_output import endless, wait_until_ready
from test_stream import spoken

STORY = ("generate", FAIRYTALE, "-p", "Once upon a time", "-s", "7")


def events(nibble, *words):
    """(the start, the tokens, the end) of --jsonl."""
    lines = nibble(*words, "--jsonl").decode("utf-8", "strict").splitlines()
    start, *tokens, end = map(json.loads, lines)
    assert [o["event"] for o in (start, *tokens, end)] == \
        ["start", *["token"] * len(tokens), "end"], lines
    return start, tokens, end


def text_of(start, tokens, end):
    return "".join(o.get("text", "") for o in (start, *tokens, end))


# ---- one object

def test_hash_and_commit(tmp, nibble):
    copy = tmp / "copy.npz"
    shutil.copy(FAIRYTALE, copy)
    hashes = [nibble.json("generate", model, "-p", "x", "-n", "0")["hash"]
              for model in (FAIRYTALE, copy, Tiny().save(tmp / "a.npz"),
                            Tiny(seed=2).save(tmp / "b.npz"))]
    bench = json.loads(nibble("bench", FAIRYTALE, "-p", "0", "-n", "1", "-r", "1", "--json"))
    assert hashes[0] == hashes[1] == bench["model"]["hash"], hashes
    assert len(set(hashes)) == 3 and all(len(hash) == 16 for hash in hashes), hashes
    commit = nibble.json(*STORY, "-n", "0")["versions"]["commit"]
    assert f"(commit {commit})" in nibble("--version").decode()


def test_without_logprobs(tmp, nibble):
    got = nibble.json(*STORY, "-n", "2")
    assert "logprobs" not in got, got
    assert nibble.json(*STORY, "-n", "0")["ids"] == []
    _, tokens, _ = events(nibble, *STORY, "-n", "2")
    assert all(set(token) == {"event", "id", "text"} for token in tokens), tokens


# ---- events

def test_events_tell_what_the_object_tells(tmp, nibble):
    for options in ((), ("--echo",), ("-n", "0"), ("--stop", "there"), ("-c", "9", "-n", "-1")):
        words = (*STORY, "-n", "12", *options)
        want, (start, tokens, end) = nibble.json(*words), events(nibble, *words)
        assert text_of(start, tokens, end) == want["text"], options
        assert [token["id"] for token in tokens] == want["ids"] and end["tokens"] == len(tokens)
        for key in ("prompt_tokens", "seed", "model", "hash", "versions"):
            assert start[key] == want[key], key
        assert end["finish_reason"] == want["finish_reason"]
        assert set(end["timings"]) == set(want["timings"])


def test_text_of_events_is_settled(tmp, nibble):
    """Whole characters; nothing of a stop string, and what was held back for one is not lost."""
    model = spoken(tmp, "a\u4e2dbcd".encode() + b"\xff")
    words = ("generate", model, "--temp", "0", "--ids", BYTE_0 + ord("<"))
    texts = lambda *options: [o["text"] for o in sum(map(list, events(
        nibble, *words, *options)[1:2]), [])] + [events(nibble, *words, *options)[2]["text"]]
    assert texts() == ["a", "", "", "\u4e2d", "b", "c", "d", "\ufffd", "", ""]
    assert texts("-n", "3") == ["a", "", "", "\ufffd\ufffd"], "an unfinished character ends it"
    assert texts("--stop", "bcX") == ["a", "", "", "\u4e2d", "", "", "bcd", "\ufffd", "", ""]
    assert texts("--stop", "cd") == ["a", "", "", "\u4e2d", "b", "", "", ""]
    assert texts("--stop", "cX", "-n", "6") == ["a", "", "", "\u4e2d", "b", "", "c"]


def test_events_without_a_tokenizer(tmp, nibble):
    model = Tiny().save(tmp / "m.npz", tokenizer=None)
    words = ("generate", model, "--temp", "0", "--ids", "5 6 7", "-n", "3", "--logprobs", "1")
    start, tokens, end = events(nibble, *words, "--echo")
    assert [o["text"] for o in (start, *tokens, end)] == [None] * 5, (start, tokens)
    assert tokens[0]["top"][0] == {"id": tokens[0]["id"], "text": None,
                                   "logprob": tokens[0]["logprob"]}


def test_events_stream(tmp, nibble):
    """A token's event is there before the next token is."""
    with nibble.start(*endless(tmp), "--jsonl") as p:
        lines = [json.loads(p.stdout.readline()) for _ in range(6)]
        assert p.poll() is None and [o.get("text") for o in lines[1:]] == list("yxyxy"), lines
        p.send_signal(signal.SIGINT)
        out, err = p.communicate(timeout=30)
    end = json.loads(out.splitlines()[-1])
    assert p.returncode == 130 and err == b"", (p.returncode, err)
    assert end["event"] == "end" and end["finish_reason"] == "interrupted", end


def test_interrupted_object_holds_what_there_is(tmp, nibble):
    with nibble.start(*endless(tmp), "--json", "--logprobs", "0") as p:
        wait_until_ready(p)
        p.send_signal(signal.SIGINT)
        out, _ = p.communicate(timeout=30)
    got = json.loads(out)
    assert p.returncode == 130 and got["finish_reason"] == "interrupted", got
    assert len(got["ids"]) == len(got["text"]) == len(got["logprobs"]), got


def test_a_run_that_fails_has_no_end(tmp, nibble):
    m = Tiny()
    m.weights["output"][7] = np.nan
    model = m.save(tmp / "m.npz")
    result = nibble.run("generate", model, "-p", "x", "--jsonl")
    assert result.code == 1 and "logit 7 is not a number" in result.err, result
    assert [json.loads(line)["event"] for line in result.out.splitlines()] == ["start"], result


# ---- log-probabilities

def log_softmax(nibble, tmp, model, ids, *options):
    nibble("logits", model, "--ids", " ".join(map(str, ids)), "-o", tmp / "l.npy", *options)
    logits = np.load(tmp / "l.npy").astype("f8")
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def test_logprobs_are_those_of_the_raw_logits(tmp, nibble):
    sampled = ("--temp", "3", "--top-k", "5", "--logit-bias", "403=-inf", "--repeat-penalty", "2",
               "--presence-penalty", "1", "--min-p", "0.2")
    for options in (("--temp", "0"), sampled):
        words = (*STORY, "-n", "10", *options)
        plain, got = nibble.json(*words), nibble.json(*words, "--logprobs", "3")
        assert plain["ids"] == got["ids"], "looking changes nothing"
        prompt = nibble("tokenize", FAIRYTALE, "-p", "Once upon a time").decode().split()
        want = log_softmax(nibble, tmp, FAIRYTALE, prompt + got["ids"])[len(prompt) - 1:-1]
        for row, id, entry in zip(want, got["ids"], got["logprobs"], strict=True):
            assert entry["id"] == id and abs(entry["logprob"] - row[id]) < 1e-9, entry
            best = np.argsort(-row, kind="stable")[:3]
            assert [top["id"] for top in entry["top"]] == best.tolist(), entry
            assert all(abs(top["logprob"] - row[top["id"]]) < 1e-9 for top in entry["top"])
        tokens = events(nibble, *words, "--logprobs", "3")[1]
        assert [(o["id"], o["logprob"], o["top"]) for o in tokens] == \
            [(o["id"], o["logprob"], o["top"]) for o in got["logprobs"]]


def test_how_many_logprobs(tmp, nibble):
    model = Tiny(vocab=PIECES + 8).save(tmp / "m.npz")
    words = ("generate", model, "-p", "x", "-n", "2", "--ignore-eos")
    for n, want in (("0", 0), ("1", 1), ("1000", PIECES + 8)):
        got = nibble.json(*words, "--logprobs", n)["logprobs"]
        assert [len(entry["top"]) for entry in got] == [want] * 2, n
    every = [top["logprob"] for top in got[0]["top"]]
    assert every == sorted(every, reverse=True) and abs(sum(map(math.exp, every)) - 1) < 1e-9
    assert nibble.json(*words[:-3], "-n", "0", "--logprobs", "2")["logprobs"] == []


def test_equally_likely_tokens_come_in_order(tmp, nibble):
    model = chain(tmp / "m.npz", byte_ids(b"abc"))
    got = nibble.json("generate", model, "--temp", "0", "--ids", BYTE_0 + ord("a"),
                      "--logprobs", "4")
    first, _, last = got["logprobs"]
    assert [top["id"] for top in first["top"]] == [BYTE_0 + ord("b"), 0, 1, 2], first
    assert [top["text"] for top in first["top"]][0] == first["text"] == "b"
    assert (last["id"], last["text"]) == (EOS, "</s>"), "an end token has a name, but no text"
    assert got["text"] == "bc"


def test_pieces_of_logprobs(tmp, nibble):
    """Bytes that are no character stay valid JSON; a piece keeps its space at a text's start."""
    model = spoken(tmp, b"\xff\xe4\"")
    got = nibble.json("generate", model, "--temp", "0", "--ids", BYTE_0 + ord("<"),
                      "--logprobs", "1")
    assert [entry["text"] for entry in got["logprobs"]] == ["\ufffd", "\ufffd", "\"", "</s>"]
    hello = int(nibble("tokenize", model, "-p", "the").split()[1])
    got = nibble.json("generate", chain(tmp / "n.npz", [1, hello]), "--temp", "0", "--ids", "1",
                      "--logprobs", "1")
    assert got["text"] == "the" and got["logprobs"][0]["text"] == " the", got


# ---- what is refused

def test_refused(tmp, nibble):
    for words, says in ((("--logprobs", "2"), "--json"), (("--json", "--jsonl"), "choose one"),
                        (("--json", "--logprobs", "-1"), "--logprobs"),
                        (("--json", "--logprobs", "1001"), "1000"),
                        (("--json", "--logprobs", "x"), "--logprobs")):
        nibble.refuses(*STORY, *words, says=says, code=2)
    for option in ("--json", "--jsonl"):
        nibble.refuses(*STORY, "-c", "4", option, says="do not fit", code=3)


if __name__ == "__main__":
    sys.exit(main(globals()))
