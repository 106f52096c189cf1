#!/usr/bin/python3
"""nibble quantize --search and --calibrate: the same format, less lost, the same bytes again."""
import shutil
import sys

import numpy as np

from golden import FOLDERS
from harness import FAIRYTALE, ROOT, main
from models import META, Tiny, unpack

WIDTHS = (2, 3, 4, 5, 6, 8)
TEXT = ROOT / "tests" / "text" / "corpus.txt"
LONG_S = 200  # for what takes some ten seconds where nothing else runs
FEW_PIECES = ROOT / "tests" / "text" / "char_spaces.model"


def quantize(nibble, source, out, *options):
    nibble("quantize", source, out, "-q", *options, timeout=LONG_S)
    with np.load(out, allow_pickle=False) as npz:
        return {name: npz[name] for name in npz.files}


def kl(nibble, tmp, source, model, *words):
    """Mean divergence of model from source on a text."""
    words = (*words, "-c", 64, "--window", "all", "--kv-type", "f32")
    if not (tmp / "kl.npz").exists():
        nibble("perplexity", source, *words, "--save-logits", tmp / "kl.npz")
    return nibble.json("perplexity", model, *words, "--kl", tmp / "kl.npz")["kl"]["mean"]


# ---- the file

def test_no_group_loses_more(tmp, nibble):
    model = Tiny(META, dim=128, hidden=256, head_dim=32, layers=1, vocab=40)
    rng = np.random.default_rng(1)
    for w in model.weights.values():
        w *= np.exp(rng.standard_normal(w.shape)).astype("f4")  # some lie far out
    for dtype in ("<f4", "<f2"):
        path = model.save(tmp / "m.npz", dtype, tokenizer=None)
        for group in (32, 64, 128):
            for bits in WIDTHS:
                options = ("--bits", bits, "--group-size", group)
                plain = quantize(nibble, path, tmp / "p.npz", *options)
                found = quantize(nibble, path, tmp / "s.npz", "--search", *options)
                assert plain.keys() == found.keys()
                for name, want in model.arrays(dtype).items():
                    if want.ndim == 1:
                        assert (found[name] == want).all()
                        continue
                    check_matrix(plain, found, name, want.astype("f8"), bits, group)


def check_matrix(plain, found, name, want, bits, group):
    for part in ("weight", "scales", "biases"):
        key = name[:-len("weight")] + part
        assert plain[key].dtype == found[key].dtype and plain[key].shape == found[key].shape
    errors = [((unpack(arrays, name, bits, group)[0] - want) ** 2).reshape(-1, group).sum(-1)
              for arrays in (plain, found)]
    assert (errors[1] <= errors[0] * (1 + 1e-5) + 1e-12).all(), (name, bits, group)
    assert errors[1].sum() < errors[0].sum(), (name, bits, group)


def test_same_bytes(tmp, nibble):
    source = Tiny(dim=128, hidden=256, layers=3).save(tmp / "m.npz", "<f2")
    for options in (("--search",), ("--calibrate", TEXT), ("--calibrate", TEXT, "--bits", 3)):
        outs = []
        for threads in (1, 2, 5):
            quantize(nibble, source, tmp / "q.npz", *options, "-t", threads)
            outs.append((tmp / "q.npz").read_bytes())
        assert outs[0] == outs[1] == outs[2], options


# ---- what it is good for

def test_less_is_lost(tmp, nibble):
    """Of a real model: the shipped one, decoded, on a text that it wrote itself."""
    source = tmp / "m.npz"
    nibble("quantize", FAIRYTALE, source, "--bits", 32, "-q")
    for name, seeds in (("calibration", range(4)), ("held out", range(10, 12))):
        text = b"\n".join(nibble("generate", FAIRYTALE, "-p", "", "-n", 500, "--temp", 1,
                                 "--top-k", 0, "--top-p", 1, "--min-p", 0, "-s", seed, "-q")
                          for seed in seeds)
        (tmp / name).write_bytes(text)
    lost = []
    for options in ((), ("--search",), ("--calibrate", tmp / "calibration")):
        quantize(nibble, source, tmp / "q.npz", "--bits", 3, "--group-size", 32, *options)
        lost.append(kl(nibble, tmp, source, tmp / "q.npz", "-f", tmp / "held out"))
    assert lost[1] < 0.8 * lost[0] and lost[2] < 0.8 * lost[1], lost


def test_every_family(tmp, nibble):
    """Experts, latent attention, fused and transposed matrices: all are measured."""
    for folder in FOLDERS:
        source = tmp / folder.name
        shutil.copytree(folder, source)
        shutil.copy(FEW_PIECES, source / "tokenizer.model")
        lost = []
        for options in ((), ("--calibrate", TEXT)):
            words = ("--bits", 4, "--group-size", 32, *options)
            quantize(nibble, source, tmp / "q.npz", *words)
            lost.append(kl(nibble, tmp, source, tmp / "q.npz", "-f", TEXT))
        quantize(nibble, source, tmp / "again.npz", *words, "-t", 3)
        assert (tmp / "again.npz").read_bytes() == (tmp / "q.npz").read_bytes(), folder.name
        assert nibble.json("verify", tmp / "q.npz")["reference"], folder.name
        assert lost[1] < 0.9 * lost[0], (folder.name, lost)
        (tmp / "kl.npz").unlink()


# ---- runs that fail

def test_what_is_refused(tmp, nibble):
    path, out = Tiny().save(tmp / "m.npz"), tmp / "q.npz"
    for options, says, code in ((("--search", "--bits", 32), "no scales", 2),
                                (("--calibrate", tmp / "none"), "none", 1),
                                (("--calibrate", "/dev/null"), "too few", 2)):
        nibble.refuses("quantize", path, out, *options, says=says, code=code)
    bare = Tiny().save(tmp / "bare.npz", tokenizer=None)
    nibble.refuses("quantize", bare, out, "--calibrate", TEXT, says="no tokenizer")
    assert not out.exists()


def test_values_that_are_not_finite(tmp, nibble):
    for key in (("up", 1), "embed", "output"):
        for value in (np.nan, np.inf):
            model = Tiny()
            model.weights[key][:, 5] = value
            path = model.save(tmp / "m.npz")
            for options in (("--search",), ("--calibrate", TEXT)):
                nibble.refuses("quantize", path, tmp / "q.npz", *options, says="finite")
    assert sorted(p.name for p in tmp.iterdir()) == ["m.npz"]


def test_fairytale(tmp, nibble, reference):
    """On a held-out text, by perplexity, in groups of 64, calibrated on what it wrote itself:
    a third less is lost at 4 bits and half at 3."""
    source = reference / "models" / "fairytale"
    sample = ("generate", source, "-p", "", "--temp", 1, "--top-k", 0, "--top-p", 1, "--min-p", 0)
    (tmp / "text").write_bytes(b"\n".join(nibble(*sample, "-n", 505, "--ignore-eos", "-s", seed,
                                                 "-q") for seed in range(1, 71)))
    words = ("-f", source / "valid.txt", "--window", "all", "--chunks", 30)
    exact = nibble.json("perplexity", source, *words)["perplexity"]
    for bits, part in ((4, 2 / 3), (3, 1 / 2)):
        over = []
        for options in ((), ("--search",), ("--calibrate", tmp / "text")):
            quantize(nibble, source, tmp / "q.npz", "--bits", bits, *options)
            over.append(nibble.json("perplexity", tmp / "q.npz", *words)["perplexity"] - exact)
        assert over[2] < part * over[0] and over[1] < 0.9 * over[0], (bits, over)


def test_stories(tmp, nibble, reference):
    """The same by KL over 20 texts that the model wrote, in groups of 32, calibrated on
    another 60. The width of one matrix a layer is no multiple of 32."""
    source = reference / "models" / "stories260K" / "hf"
    sample = ("generate", source, "-p", "", "--temp", 1, "--top-k", 0, "--top-p", 1, "--min-p", 0)
    (tmp / "text").write_bytes(b"\n".join(nibble(*sample, "-n", 500, "-s", seed, "-q")
                                          for seed in range(101, 161)))
    texts = [[1] + nibble.json(*sample, "-n", 255, "-s", seed)["ids"] for seed in range(1, 21)]
    for bits, part in ((4, 2 / 3), (3, 1 / 2)):
        lost = []
        for options in ((), ("--calibrate", tmp / "text")):
            quantize(nibble, source, tmp / "q.npz", "--bits", bits, "--group-size", 32, *options)
            lost.append(np.mean([divergence(nibble, tmp, source, tmp / "q.npz", ids)
                                 for ids in texts]))
        assert lost[1] < part * lost[0], (bits, lost)


def divergence(nibble, tmp, source, model, ids):
    """KL by numpy, over one text."""
    rows = []
    for m in (source, model):
        nibble("logits", m, "--ids", " ".join(map(str, ids)), "-o", tmp / "l.npy", "--kv-type",
               "f32")
        x = np.load(tmp / "l.npy").astype("f8")[:-1]
        x -= x.max(axis=1, keepdims=True)
        rows.append(x - np.log(np.exp(x).sum(axis=1, keepdims=True)))
    return (np.exp(rows[0]) * (rows[0] - rows[1])).sum(axis=1).mean()


if __name__ == "__main__":
    sys.exit(main(globals()))
