#!/usr/bin/python3
"""nibble score and nibble perplexity against numpy's reading of `nibble logits`."""
import json
import sys

import numpy as np

from harness import FAIRYTALE, ROOT, main
from models import PIECES, Tiny, byte_ids

TEXT = ROOT / "tests" / "text" / "corpus.txt"
BOS = 1
IDS = [BOS, 5, 300, 7, 8, 9, 20, 21, 22, 399, 0, 8, 8, 8, 100, 31, 32, 33, 34, 35, 36]
LONG_S = 280  # for what takes a quarter of a minute where nothing else runs
EXACT = ("--kv-type", "f32")


def log_softmax(nibble, tmp, model, ids):
    """[n, vocab] in double: what follows each of ids."""
    nibble("logits", model, "--ids", " ".join(map(str, ids)), "-o", tmp / "l.npy", *EXACT)
    x = np.load(tmp / "l.npy").astype("f8")
    x -= x.max(axis=1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=1, keepdims=True))


def ids_of(nibble, model, *words):
    return [int(word) for word in nibble("tokenize", model, *words).split()]


def words_of(ids):
    return "--ids", " ".join(map(str, ids))


# ---- score

def test_score(tmp, nibble):
    model = Tiny(seed=3).save(tmp / "m.npz")
    text = tmp / "text"
    text.write_bytes(b"one\0two \xff\n")
    for words, size in ((("-f", text), 10), (("-f", text, "--no-bos"), 10), (("-p", "abc"), 3),
                        (words_of(IDS), None)):
        ids = IDS if words[0] == "--ids" else ids_of(nibble, model, *words)
        want = log_softmax(nibble, tmp, model, ids)[range(len(ids) - 1), ids[1:]]
        got = nibble.json("score", model, *words, *EXACT)
        assert got["ids"] == ids and got["logprobs"][0] is None, got
        assert np.abs(np.array(got["logprobs"][1:]) - want).max() < 1e-9, words
        assert abs(got["total"] - want.sum()) < 1e-7 and got["tokens"] == len(want)
        assert abs(got["mean"] - want.mean()) < 1e-8
        assert abs(got["perplexity"] / np.exp(-want.mean()) - 1) < 1e-8
        bits = None if size is None else -want.sum() / np.log(2) / size
        assert got["bits_per_byte"] == bits or abs(got["bits_per_byte"] - bits) < 1e-8
        lines = nibble("score", model, *words, *EXACT).decode().splitlines()
        assert [int(line.split("\t")[0]) for line in lines[:-1]] == ids
        assert [json.loads(line.split("\t")[2]) for line in lines[:-1]] == got["texts"]
        assert lines[0].split("\t")[1] == "-" and lines[-1].startswith(f"# {len(want)} tokens, ")
        scores = [float(line.split("\t")[1]) for line in lines[1:-1]]
        assert np.abs(scores - want).max() < 1e-6


def test_texts_of_tokens(tmp, nibble):
    """A token is a line, whatever it holds; bytes that are no character become U+FFFD."""
    model = Tiny().save(tmp / "m.npz")
    ids = " ".join(map(str, (BOS, *byte_ids(b'a\n\t"\\\0\xff'), 344)))
    texts = ["<s>", "a", "\n", "\t", '"', "\\", "\0", "\ufffd", "f"]
    assert nibble.json("score", model, "--ids", ids)["texts"] == texts
    lines = nibble("score", model, "--ids", ids).decode().splitlines()
    assert [line.split("\t")[2] for line in lines[:-1]] == [
        '"<s>"', '"a"', r'"\n"', r'"\t"', r'"\""', r'"\\"', r'"\u0000"', '"\ufffd"', '"f"']
    got = nibble.json("score", FAIRYTALE, "-p", "Once upon a time")
    assert got["texts"] == ["<s>", " Once", " upon", " a", " time"], got
    bare = Tiny().save(tmp / "bare.npz", tokenizer=None)
    assert nibble.json("score", bare, "--ids", "1 2")["texts"] == [None, None]
    assert nibble("score", bare, "--ids", "1 2").startswith(b"1\t-\tnull\n2\t")


def test_score_in_batches_and_threads(tmp, nibble):
    want = nibble.json("score", FAIRYTALE, "-f", TEXT, "-c", 4096)
    for options in (("-b", 1), ("-b", 100), ("-t", 1), ("-t", 3)):
        got = nibble.json("score", FAIRYTALE, "-f", TEXT, "-c", 4096, *options)
        assert got["logprobs"] == want["logprobs"], options


def test_what_score_refuses(tmp, nibble):
    model = Tiny(context=16).save(tmp / "m.npz")
    nibble.refuses("score", model, "-p", "a" * 40, says="fit the context of 16", code=3)
    nibble.refuses("score", model, "-p", "", says="none to score", code=2)
    nibble.refuses("score", model, "-p", "", "--no-bos", says="none to score", code=2)
    nibble.refuses("score", model, "--ids", f"1 2 {PIECES}", says="outside the vocabulary", code=2)
    nibble.refuses("score", model, "--ids", "1 x", says="'x'", code=2)
    bare = Tiny(context=16).save(tmp / "bare.npz", tokenizer=None)
    nibble.refuses("score", bare, "-p", "a", says="--ids")
    assert len(nibble.json("score", bare, "--ids", "1 2 3")["logprobs"]) == 3


def test_logits_that_are_not_finite(tmp, nibble):
    model = Tiny()
    model.weights["output"][7, 3] = np.nan
    path = model.save(tmp / "m.npz")
    for words in (("score",), ("perplexity", "-c", 8)):
        nibble.refuses(words[0], path, *words[1:], *words_of(IDS), says="not finite")


# ---- windows

def windows_llama(ids, length):
    """As llama.cpp's documentation of its tool has it: the second half of windows, BOS in front."""
    for begin in range(0, len(ids) - length + 1, length):
        window = [BOS] + ids[begin + 1:begin + length]
        yield window, length // 2 + 1


def windows_all(ids, length):
    """BOS and length - 1 tokens of the text."""
    text = ids[1:]
    for begin in range(0, len(text) - length + 2, length - 1):
        yield [BOS] + text[begin:begin + length - 1], 1


def windows_stride(ids, length, first, stride):
    for begin in range(0, len(ids) - length + 1, stride):
        yield [BOS] + ids[begin + 1:begin + length], length - stride if begin else first


def predictions(nibble, tmp, model, windows):
    """Per scored token its log-probability, and the whole row."""
    scores, rows = [], []
    for ids, first in windows:
        x = log_softmax(nibble, tmp, model, ids)
        scores += list(x[range(first - 1, len(ids) - 1), ids[first:]])
        rows += list(x[first - 1:-1])
    return np.array(scores), np.array(rows)


def test_windows(tmp, nibble):
    model = Tiny(seed=3).save(tmp / "m.npz")
    ids = ids_of(nibble, model, "-f", TEXT)[:130]
    for options, windows in (
            (("-c", 32), windows_llama(ids, 32)), (("-c", 33), windows_llama(ids, 33)),
            (("-c", 32, "--window", "llama"), windows_llama(ids, 32)),
            (("-c", 32, "--window", "all"), windows_all(ids, 32)),
            (("-c", 130, "--window", "all"), windows_all(ids, 130)),
            (("-c", 32, "--stride", 5), windows_stride(ids, 32, 17, 5)),
            (("-c", 32, "--stride", 15), windows_stride(ids, 32, 17, 15)),
            (("-c", 64, "--stride", 20, "--window", "all"), windows_stride(ids, 64, 1, 20)),
            (("-c", 32, "--chunks", 2), list(windows_llama(ids, 32))[:2])):
        windows = list(windows)
        want = -predictions(nibble, tmp, model, windows)[0]
        got = nibble.json("perplexity", model, *words_of(ids), *options, *EXACT)
        assert (got["tokens"], got["windows"]) == (len(want), len(windows)), (options, got)
        assert abs(got["loss"] - want.mean()) < 1e-8, (options, got["loss"], want.mean())
        error = want.std(ddof=1) / np.sqrt(len(want))
        assert abs(got["loss_error"] - error) < 1e-8, options
        assert abs(got["perplexity"] - np.exp(want.mean())) < 1e-5
        assert abs(got["perplexity_error"] - np.exp(want.mean()) * error) < 1e-5
        lines = nibble("perplexity", model, *words_of(ids), *options, *EXACT).decode().splitlines()
        assert f"{len(want)} tokens" in lines[0] and lines[1].split()[1] == f"{want.mean():.5f}"


def test_a_text_without_bos(tmp, nibble):
    """Windows overlap by a token, so that all but the first are scored; nothing is replaced."""
    model = Tiny(seed=3).save(tmp / "m.npz")
    ids = ids_of(nibble, model, "-f", TEXT, "--no-bos")
    windows = [(ids[i:i + 64], 1) for i in range(0, len(ids) - 63, 63)]
    for options, windows in ((("--window", "all"), windows),
                             ((), [(ids[i:i + 64], 33) for i in range(0, len(ids) - 63, 64)])):
        want = -predictions(nibble, tmp, model, windows)[0]
        got = nibble.json("perplexity", model, "-f", TEXT, "--no-bos", "-c", 64, *options, *EXACT)
        assert got["tokens"] == len(want) and abs(got["loss"] - want.mean()) < 1e-8, options


def test_batches_and_threads_of_windows(tmp, nibble):
    words = ("perplexity", FAIRYTALE, "-f", TEXT, "-c", 100)
    want = nibble.json(*words)
    for options in (("-b", 7), ("-t", 1), ("-t", 3)):
        got = nibble.json(*words, *options)
        assert got["loss"] == want["loss"], options
    assert nibble.json(*words, "--kv-type", "q8")["loss"] != want["loss"]


def test_what_perplexity_refuses(tmp, nibble):
    model = Tiny(context=64).save(tmp / "m.npz")
    words = ("perplexity", model, *words_of(IDS))
    for options, says in ((("-c", 22), "longer text"), (("--window", "half"), "'half'"),
                          ((), "longer text"), (("-c", 2), "none to score"),
                          (("-c", 8, "--stride", 4), "a window scores 3"),
                          (("-c", 8, "--window", "all", "--stride", 8), "a window scores 7"),
                          (("--stride", -1), "--stride")):
        nibble.refuses(*words, *options, says=says, code=2)
    assert "KL" not in nibble(*words, "-c", 8).decode()
    assert nibble.json(*words, "-c", 8)["kl"] is None


# ---- against saved predictions

def two_models(tmp, nibble):
    a, b = Tiny(seed=3), Tiny(seed=3)
    noise = np.random.default_rng(0)
    for w in b.weights.values():
        w += 0.02 * noise.standard_normal(w.shape).astype("f4")
    return a.save(tmp / "a.npz"), b.save(tmp / "b.npz")


def test_kl(tmp, nibble):
    a, b = two_models(tmp, nibble)
    ids = ids_of(nibble, a, "-f", TEXT)[:300]
    for options, windows in ((("-c", 32), windows_llama(ids, 32)),
                             (("-c", 64, "--stride", 20), windows_stride(ids, 64, 33, 20))):
        words = (*words_of(ids), *options, *EXACT)
        windows = list(windows)
        alone = nibble.json("perplexity", a, *words, "--save-logits", tmp / "r.npz")
        logp_a, rows_a = predictions(nibble, tmp, a, windows)
        logp_b, rows_b = predictions(nibble, tmp, b, windows)
        with np.load(tmp / "r.npz") as saved:
            assert (saved["tokens"] == ids[:len(saved["tokens"])]).all()
            kept = np.concatenate([saved[name] for name in sorted(saved.files)
                                   if name.startswith("log_probabilities.")])
        assert kept.dtype == np.float16 and (kept == rows_a.astype("f2")).mean() > 0.999
        got = nibble.json("perplexity", b, *words, "--kl", tmp / "r.npz")
        kl = (np.exp(rows_a) * (rows_a - rows_b)).sum(axis=1)
        k = got["kl"]
        assert kl.mean() > 1e-3 and abs(k["mean"] / kl.mean() - 1) < 1e-3, (k, kl.mean())
        for name, share in (("median", 50), ("p90", 90), ("p95", 95), ("p99", 99), ("max", 100)):
            assert abs(k[name] / np.percentile(kl, share) - 1) < 2e-2, name
        assert abs(k["error"] / (kl.std(ddof=1) / np.sqrt(len(kl))) - 1) < 1e-2
        same = rows_a.argmax(axis=1) == rows_b.argmax(axis=1)
        assert same.mean() < 0.99 and abs(k["same_top"] - same.mean()) < 0.01, (k, same.mean())
        assert abs(k["logprob_difference"] - (logp_b - logp_a).mean()) < 1e-3
        assert abs(k["reference_loss"] - alone["loss"]) < 1e-3
        assert abs(got["loss"] + logp_b.mean()) < 1e-8
        text = nibble("perplexity", b, *words, "--kl", tmp / "r.npz").decode()
        assert f"KL          {k['mean']:.6f} +- {k['error']:.6f}, median" in text, text


def test_kl_of_a_model_against_itself(tmp, nibble):
    """Only what rounding to 16 bits leaves."""
    words = ("perplexity", FAIRYTALE, "-f", TEXT, "-c", 64)
    nibble(*words, "--save-logits", tmp / "r.npz")
    k = nibble.json(*words, "--kl", tmp / "r.npz")["kl"]
    assert 0 <= k["mean"] < 1e-6 and k["max"] < 1e-5 and k["same_top"] == 1, k
    assert abs(k["logprob_difference"]) < 1e-4


def test_what_cannot_be_compared(tmp, nibble):
    a, b = two_models(tmp, nibble)
    words = ("perplexity", a, *words_of(IDS), "-c", 8)
    nibble(*words, "--save-logits", tmp / "r.npz")
    other = list(IDS)
    other[9] = 17
    for changed in ((*words_of(other), "-c", 8), (*words_of(IDS), "-c", 10),
                    (*words_of(IDS), "-c", 8, "--chunks", 1),
                    (*words_of(IDS), "-c", 8, "--window", "all"),
                    (*words_of(IDS), "-c", 8, "--stride", 2)):
        nibble.refuses("perplexity", b, *changed, "--kl", tmp / "r.npz", says="r.npz", code=2)
    nibble.refuses(*words, "--kl", b, says="no saved predictions")
    nibble.refuses(*words, "--kl", tmp / "none.npz", says="none.npz")
    wider = Tiny(vocab=PIECES + 1).save(tmp / "w.npz")
    nibble.refuses("perplexity", wider, *words_of(IDS), "-c", 8, "--kl", tmp / "r.npz",
                   says="vocabulary")
    nibble.refuses(*words, "--save-logits", tmp / "no" / "r.npz", says="No such")


def test_broken_references(tmp, nibble):
    """Shapes and types that a file only claims."""
    a, _ = two_models(tmp, nibble)
    words = ("perplexity", a, *words_of(IDS), "-c", 8)
    nibble(*words, "--save-logits", tmp / "r.npz")
    with np.load(tmp / "r.npz") as f:
        good = dict(f)
    assert len(good) == 4 and good["windows"].tolist() == [8, 8, 1, 5]
    for name, value in (("tokens", good["tokens"].astype("f4")), ("tokens", good["tokens"][:-1]),
                        ("windows", good["windows"][:3]), ("windows", np.zeros((2, 2), "i4")),
                        ("log_probabilities.00001", good["log_probabilities.00001"][:-1]),
                        ("log_probabilities.00001", good["log_probabilities.00001"].astype("f4")),
                        ("log_probabilities.00000", None)):
        arrays = {**good, name: value}
        np.savez(tmp / "x.npz", **{k: v for k, v in arrays.items() if v is not None})
        assert "x.npz" in nibble.run(*words, "--kl", tmp / "x.npz").err, name
        assert nibble.run(*words, "--kl", tmp / "x.npz").code in (1, 2), name
    data = (tmp / "r.npz").read_bytes()
    for end in range(0, len(data), len(data) // 40):
        (tmp / "x.npz").write_bytes(data[:end])
        assert nibble.run(*words, "--kl", tmp / "x.npz").code == 1, end


# ---- reference data

def test_fairytale(tmp, nibble, reference):
    """Ten windows of the held-out text against numpy; all of it against the loss that an
    independent program found in f32."""
    folder = reference / "models" / "fairytale"
    words = ("perplexity", folder, "-f", folder / "valid.txt", "--window", "all", "-c", 512, *EXACT)
    ids = ids_of(nibble, folder, "-f", folder / "valid.txt")
    want = -predictions(nibble, tmp, folder, list(windows_all(ids, 512))[:10])[0]
    got = nibble.json(*words, "--chunks", 10)
    assert got["tokens"] == len(want) == 5110 and abs(got["loss"] - want.mean()) < 1e-7
    got = nibble.json(*words, timeout=LONG_S)
    assert got["tokens"] == 77672 and abs(got["loss"] - 2.77584) < 2e-5, got
    assert abs(got["perplexity"] - 16.052) < 1e-3, got


if __name__ == "__main__":
    sys.exit(main(globals()))
