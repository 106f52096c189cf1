#!/usr/bin/python3
"""nibble logits: numpy's own forward pass, batches, the file it writes."""
import os
import stat
import sys

import numpy as np

from harness import FAIRYTALE, main
from models import HF, META, PIECES, Tiny, forward

IDS = [1, 5, 300, 7, 8, 9, 20, 21, 22, 399, 0, 8, 8, 8, 100, 31, 32, 33, 34]


def logits(nibble, tmp, model, ids, *options):
    out = tmp / "l.npy"
    nibble("logits", model, "--ids", " ".join(map(str, ids)), "-o", out, *options)
    return np.load(out, allow_pickle=False)


def worst(a, b):
    return float(np.abs(a.astype("f8") - b).max())


# ---- values

def test_equal_to_numpy(tmp, nibble):
    for i, (names, sizes) in enumerate((
            (HF, {}), (META, {}), (HF, {"tied": True}), (META, {"kv_heads": 1, "layers": 3}),
            (HF, {"kv_heads": 4, "dim": 96, "head_dim": 32}), (META, {"head_dim": 6, "heads": 6}),
            (HF, {"dim": 33, "hidden": 77, "head_dim": 10, "vocab": 401}))):
        model = Tiny(names, seed=i, **sizes)
        want = forward(model, IDS)
        for level in ((), ("--level", "scalar")):
            got = logits(nibble, tmp, model.save(tmp / "m.npz"), IDS, "--kv-type", "f32", *level)
            assert worst(got, want) < 1e-5 * want.std(), (names, sizes, worst(got, want))
        got = logits(nibble, tmp, tmp / "m.npz", IDS)
        assert 1e-5 < worst(got, want) / want.std() < 1e-2, "the default cache is f16"
        got = logits(nibble, tmp, tmp / "m.npz", IDS, "--kv-type", "q8")
        assert 1e-4 < worst(got, want) / want.std() < 1e-1, "q8"


def test_folder_and_file_agree(tmp, nibble):
    for names in (HF, META):
        model = Tiny(names)
        one = logits(nibble, tmp, model.save(tmp / "m.npz"), IDS)
        folder = model.save_folder(tmp / f"folder-{names}")
        assert (logits(nibble, tmp, folder, IDS) == one).all()
        (folder / "config.json").rename(folder / "params.json")
        assert (logits(nibble, tmp, folder, IDS) == one).all()
        arrays = list(model.arrays().items())
        (folder / "weights.npz").unlink()
        np.savez(folder / "weights.00.npz", **dict(arrays[:7]))
        np.savez(folder / "weights.01.npz", **dict(arrays[7:]))
        assert (logits(nibble, tmp, folder, IDS) == one).all(), "two shards"


def test_types_of_weights(tmp, nibble):
    model = Tiny()
    want = forward(model, IDS)
    for dtype, bound in (("<f4", 1e-5), ("<f2", 1e-2)):
        got = logits(nibble, tmp, model.save(tmp / "m.npz", dtype), IDS, "--kv-type", "f32")
        assert worst(got, want) < bound, (dtype, worst(got, want))
    bf16 = {name: (a.view("<u4") >> 16).astype("<u2").view("V2")
            for name, a in model.arrays().items()}
    got = logits(nibble, tmp, model.save(tmp / "b.npz", arrays=bf16), IDS, "--kv-type", "f32")
    assert worst(got, want) < 0.1, worst(got, want)


def test_rope_theta_and_linear_scaling(tmp, nibble):
    model = Tiny()
    want = forward(model, IDS)
    for name, change in (("theta", {"rope_theta": 500.0}), ("linear", {"rope_scaling": {
            "type": "linear", "factor": 4.0}}), ("eps", {"rms_norm_eps": 0.5})):
        model.save(tmp / "m.npz", config={**model.config, **change})
        got = logits(nibble, tmp, tmp / "m.npz", IDS, "--kv-type", "f32")
        assert worst(got[:1], want[:1]) < 1e-5 or name == "eps", "the first position does not turn"
        assert worst(got, want) > 1e-2, f"{name} has no effect"
    model.save(tmp / "m.npz", config={**model.config, "rope_traditional": True})
    as_meta = Tiny(META)
    as_meta.weights = model.weights
    got = logits(nibble, tmp, tmp / "m.npz", IDS, "--kv-type", "f32")
    assert worst(got, forward(as_meta, IDS)) < 1e-5


# ---- batches and threads

def test_batches_plain(tmp, nibble):
    model = Tiny(dim=160, hidden=224, heads=10, head_dim=16, kv_heads=5)
    ids = IDS * 5
    for dtype in ("<f4", "<f2"):
        path = model.save(tmp / "m.npz", dtype)
        one = logits(nibble, tmp, path, ids, "-b", "1", "--kv-type", "f32")
        for batch in ("7", "512"):
            got = logits(nibble, tmp, path, ids, "-b", batch, "--kv-type", "f32")
            assert np.array_equal(got, one), (dtype, batch, worst(got, one))
            got = logits(nibble, tmp, path, ids, "-b", batch, "--kv-type", "f32", "--blas")
            assert worst(got, one) < 1e-4, (dtype, batch, worst(got, one))
            got = logits(nibble, tmp, path, ids, "-b", batch)
            for threads in "124":
                again = logits(nibble, tmp, path, ids, "-b", batch, "-t", threads)
                assert (again == got).all(), (dtype, batch, threads)


def test_batches_quantized(tmp, nibble):
    ids = [1] + list(range(300, 400))
    want = logits(nibble, tmp, FAIRYTALE, ids)
    assert want.std() > 0.5
    for options in (("-b", "1"), ("-b", "7"), ("-b", "512"), ("-t", "1"), ("-t", "4", "-b", "3")):
        got = logits(nibble, tmp, FAIRYTALE, ids, *options)
        assert got.tobytes() == want.tobytes(), options


def test_levels_agree(tmp, nibble):
    levels = nibble("info").decode().split("(this CPU")[0].split("levels:")[-1].split()
    for model, bound in ((Tiny().save(tmp / "m.npz"), 1e-4), (FAIRYTALE, 0.5)):
        scalar = logits(nibble, tmp, model, IDS, "--level", "scalar")
        for level in levels:
            got = logits(nibble, tmp, model, IDS, "--level", level)
            assert worst(got, scalar) < bound, (level, worst(got, scalar))


# ---- the file

def test_shape_and_type(tmp, nibble):
    model = Tiny(vocab=PIECES + 3).save(tmp / "m.npz")
    for n in (1, 2, 19):
        got = logits(nibble, tmp, model, IDS[:n])
        assert got.shape == (n, PIECES + 3) and got.dtype == np.dtype("<f4"), got.shape
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE((tmp / "l.npy").stat().st_mode) == 0o666 & ~mask
    assert sorted(p.name for p in tmp.iterdir()) == ["l.npy", "m.npz"], "nothing else is left"


def test_where_it_cannot_be_written(tmp, nibble):
    ids = ("--ids", "1 2")
    nibble.refuses("logits", FAIRYTALE, *ids, "-o", tmp / "no" / "x.npy", says=["no", "No such"])
    nibble.refuses("logits", FAIRYTALE, *ids, "-o", tmp, says=str(tmp))
    (tmp / "file").write_text("")
    nibble.refuses("logits", FAIRYTALE, *ids, "-o", tmp / "file" / "x.npy", says="Not a directory")
    nibble.refuses("logits", FAIRYTALE, *ids, "-o", "/proc/x.npy", says="/proc/x.npy")
    nibble.refuses("logits", FAIRYTALE, *ids, "-o", "", code=2)
    assert [p.name for p in tmp.iterdir()] == ["file"]


def test_written_into_a_pipe_or_a_device(tmp, nibble):
    out = nibble("logits", FAIRYTALE, "--ids", "1 2", "-o", "/dev/stdout")
    assert len(out) == 128 + 2 * 4096 * 4 and out.startswith(b"\x93NUMPY")
    nibble.refuses("logits", FAIRYTALE, "--ids", "1", "-o", "/dev/full", says="No space left")
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)


def test_what_it_needs(tmp, nibble):
    out = tmp / "x.npy"
    nibble.refuses("logits", FAIRYTALE, "--ids", "1", says="-o", code=2)
    nibble.refuses("logits", FAIRYTALE, "-o", out, says="--ids", code=2)
    for ids, word in (("4096", "vocabulary of 4096"), ("1 4096 2", "4096"), ("x", "'x'"),
                      ("-1", "'-1'"), (" ", "empty")):
        nibble.refuses("logits", FAIRYTALE, "--ids", ids, "-o", out, says=word, code=2)
    assert not out.exists()


def test_an_old_file_survives_a_failure(tmp, nibble):
    out = tmp / "x.npy"
    out.write_text("old")
    nibble.refuses("logits", FAIRYTALE, "--ids", "1 4096", "-o", out, code=2)
    assert out.read_text() == "old"
    nibble("logits", FAIRYTALE, "--ids", "1", "-o", out)
    assert np.load(out).shape == (1, 4096)


if __name__ == "__main__":
    sys.exit(main(globals()))
