#!/usr/bin/python3
"""Every family quantized: nibble's own run of the decoded weights in f32 is what it must be near.

    tests/model/test_quantized.py [--build DIR] [--reference DIR] [WORD...]

That run is the one that test_golden.py proves. The checkpoints are those of tests/golden, and with
--reference all of its folder golden.

How near: a product with quantized weights rounds its input to int8, a scale for each 32 values. The
step is their largest over 127, so the error of a value is 1 / (127 sqrt(12)) of that largest, which
is 2.1 to 2.6 times the root mean square of 32 values as products see them: about 0.6% of it. What
that does to the logits, 2% in most of these models and 5% in some, depends on the model. So it is
measured: weights that are off by random 0.6% change each product by as much. The difference may be
1.5 times what they make, the least of three; over all positions it is the median, since a token for
which rounding chooses another expert is far off.
"""
import json
import sys

import numpy as np

from golden import GOLDEN, NAMES, decode, ids_of, logits, quantize, read_folder
from harness import main  # golden.py says where that is
from models import save_npz, unpack

GROUP = 32
ROUNDING = 0.006  # of the values of a group
ALLOWED = 1.5
EXACT = 2e-4      # as test_golden.py
WHOLE = (("--level", "scalar"), ())
RUNS = (*WHOLE, ("-b", 1), ("-b", 5, "-t", 3))


def distance(got, wanted):
    """Relative to what is wanted: root mean squares of a position, their median."""
    rms = [np.sqrt((a * a).mean(-1)) for a in (got - wanted, wanted)]
    return float(np.median(rms[0] / rms[1]))


# ---- what is in the files

def matrices(arrays):
    return [name for name in arrays if name.endswith(".weight") and arrays[name].ndim == 2 and
            not name.endswith(("q_norm.weight", "k_norm.weight"))]


def check_arrays(encoded, decoded, bits):
    """Each matrix that 32 divides is quantized, decoded is what numpy decodes, and vice versa."""
    config, kept = json.loads(bytes(encoded["config.json"])), 0
    assert config["quantization"]["bits"] == bits
    assert "quantization" not in json.loads(bytes(decoded["config.json"]))
    for name in matrices(decoded):
        module, got = name.removesuffix(".weight"), decoded[name]
        assert got.dtype == np.float32, name
        if f"{module}.scales" not in encoded:
            assert got.shape[1] % GROUP != 0, f"{name} is not quantized"
            assert (encoded[name] == got).all() and config["quantization"][module] is False, name
            kept += 1
            continue
        wanted, step = unpack(encoded, name, bits, GROUP)
        assert got.shape == wanted.shape and module not in config["quantization"], name
        assert (np.abs(got - wanted) <= 1e-6 * (np.abs(wanted) + step * 2 ** bits)).all(), name
    for name in set(encoded) - set(matrices(decoded)) - {"config.json", "reference.json"}:
        if not name.endswith((".scales", ".biases")):
            assert np.array_equal(encoded[name], decoded[name]), name
    return kept


def check_line(line, encoded, bits, kept):
    number = sum(name.endswith(".scales") for name in encoded)
    assert f"{number} matrices at {bits} bits in groups of 32, {kept} kept" in line, line


def noisy(arrays, encoded, seed):
    """Weights that are off by as much as activations that are rounded."""
    rng, changed = np.random.default_rng(seed), dict(arrays)
    for name in matrices(arrays):
        if name.removesuffix("weight") + "scales" in encoded:
            groups = arrays[name].reshape(len(arrays[name]), -1, GROUP)
            size = ROUNDING * np.sqrt((groups * groups).mean(-1, keepdims=True))
            noise = size * rng.standard_normal(groups.shape)
            changed[name] = (groups + noise).astype("<f4").reshape(arrays[name].shape)
    return changed


def bound(nibble, decoded, encoded, ids, wanted, tmp):
    found = []
    for seed in range(3):
        np.savez(tmp / "noisy.npz", **noisy(decoded, encoded, seed))
        found.append(distance(logits(nibble, tmp / "noisy.npz", ids, tmp / "l.npy"), wanted))
    return ALLOWED * min(found)


# ---- every family

def check_near(nibble, encoded, ids, tmp, runs=RUNS):
    """The model of these arrays is near that of its decoded weights, which this gives."""
    np.savez(tmp / "q.npz", **encoded)
    decoded = decode(nibble, tmp / "q.npz", tmp / "d.npz")
    wanted = logits(nibble, tmp / "d.npz", ids, tmp / "l.npy")
    most = bound(nibble, decoded, encoded, ids, wanted, tmp)
    assert 0.005 < most < 0.15, most
    for run in runs:
        got = distance(logits(nibble, tmp / "q.npz", ids, tmp / "l.npy", *run), wanted)
        assert 0 < got <= most, f"{run}: {got:.4f} is more than {most:.4f}"
    return decoded


def check_quantized(nibble, source, ids, tmp, bits, runs=RUNS):
    encoded, line = quantize(nibble, source, tmp / "q.npz", "--bits", bits, "--group-size", GROUP)
    decoded = check_near(nibble, encoded, ids, tmp, runs)
    check_line(line, encoded, bits, check_arrays(encoded, decoded, bits))
    return encoded


def check_decoded(nibble, folder, tmp):
    """All matrices in f32, each of its own, is the same model."""
    golden = np.load(folder / "golden.npz")
    arrays = decode(nibble, folder, tmp / "f.npz")
    assert all(arrays[name].dtype == np.float32 for name in matrices(arrays))
    got = logits(nibble, tmp / "f.npz", golden["input_ids"], tmp / "l.npy")
    worst = np.abs(got - golden["logits"]).max()
    assert worst <= EXACT, f"{folder.name}: logits differ by {worst:.1e}"


def make_test(name, bits):
    def test(tmp, nibble):
        check_quantized(nibble, GOLDEN / name, ids_of(GOLDEN / name), tmp, bits)
    return test


def make_decoded_test(name):
    return lambda tmp, nibble: check_decoded(nibble, GOLDEN / name, tmp)


for each in NAMES:
    for width in (4, 8):
        globals()[f"test_{each}_{width}_bits"] = make_test(each, width)
    globals()[f"test_{each}_decoded"] = make_decoded_test(each)


def test_all_of_the_reference(tmp, nibble, reference):
    folders = sorted(path.parent for path in (reference / "golden").glob("*/golden.npz"))
    assert len(folders) >= len(NAMES)
    for folder in folders:
        check_decoded(nibble, folder, tmp)
        for bits in (4, 8):
            check_quantized(nibble, folder, ids_of(folder), tmp, bits, RUNS)


def test_half_precision(tmp, nibble):
    """Scales have the type that the weights had; parts of larger tensors are f32 if kept."""
    for name in ("gpt2", "gpt-oss", "gpt-neox", "deepseek-v3", "phi3-longrope-short"):
        arrays, config = read_folder(GOLDEN / name)
        source = save_npz(tmp / "m.npz", {n: a.astype("<f2") for n, a in arrays.items()}, config)
        encoded = check_quantized(nibble, source, ids_of(GOLDEN / name), tmp, 4)
        assert all(a.dtype == np.float16 for n, a in encoded.items() if n.endswith(".scales"))


def test_router_of_another_width(tmp, nibble):
    """As MLX's recipes have it: 8 bits for what chooses, 4 for the rest."""
    for name, router in (("qwen2-moe", "mlp.gate."), ("gpt-oss", "mlp.router."),
                         ("qwen2-moe", "mlp.shared_expert_gate.")):
        folder = GOLDEN / name
        mixed, better = (quantize(nibble, folder, tmp / "q.npz", "--bits", bits, "--group-size",
                                  GROUP)[0] for bits in (4, 8))
        changed = [n for n in better if router in n and mixed[n].dtype == np.uint32]
        mixed |= {n: better[n] for n in better if router in n}
        assert changed and mixed[changed[0]].shape[1] == 16, changed
        decoded = check_near(nibble, mixed, ids_of(folder), tmp)
        wanted, _ = unpack(better, changed[0], 8, GROUP)
        assert np.abs(decoded[changed[0]] - wanted).max() < 1e-6


# ---- the bound notices

def test_the_bound_is_tight(tmp, nibble):
    """Scales that are 10% off, but of queries and keys, and matrices that are exchanged, are
    further off than is allowed."""
    folder = GOLDEN / "llama-llama3"
    ids = ids_of(folder)
    encoded, _ = quantize(nibble, folder, tmp / "q.npz", "--bits", 4, "--group-size", GROUP)
    decoded = decode(nibble, tmp / "q.npz", tmp / "d.npz")
    wanted = logits(nibble, tmp / "d.npz", ids, tmp / "l.npy")
    most = bound(nibble, decoded, encoded, ids, wanted, tmp)

    def check(changed, what):
        np.savez(tmp / "changed.npz", **changed)
        got = distance(logits(nibble, tmp / "changed.npz", ids, tmp / "l.npy"), wanted)
        assert got > most, f"{what}: {got:.4f} is within {most:.4f}"

    for name in matrices(decoded):
        base = name.removesuffix("weight")
        if base.endswith(("q_proj.", "k_proj.")):
            continue
        check({**encoded, **{base + part: encoded[base + part] * np.float32(1.1)
                             for part in ("scales", "biases")}}, name)
    for a, b in (("self_attn.k_proj", "self_attn.v_proj"), ("mlp.gate_proj", "mlp.up_proj"),
                 ("self_attn.q_proj", "self_attn.o_proj")):
        swapped = dict(encoded)
        for part in ("weight", "scales", "biases"):
            names = [f"model.layers.1.{module}.{part}" for module in (a, b)]
            swapped[names[0]], swapped[names[1]] = encoded[names[1]], encoded[names[0]]
        check(swapped, f"{a} and {b}")


# ---- ways that quantized experts lie in other files

def check_same(nibble, tmp, a, b, ids):
    """Bit for bit, at the least and the best level."""
    for run in RUNS:
        x, y = (logits(nibble, path, ids, tmp / "l.npy", *run) for path in (a, b))
        assert np.array_equal(x, y), f"{run}: {np.abs(x - y).max()}"


def test_stacked_experts(tmp, nibble):
    """mlx-lm's switch_mlp: one tensor for all experts, codes, scales and offsets."""
    folder = GOLDEN / "qwen2-moe"
    ids = ids_of(folder)
    for bits in (4, 3):
        encoded, _ = quantize(nibble, folder, tmp / "q.npz", "--bits", bits, "--group-size", GROUP)
        first = [name for name in encoded if ".mlp.experts.0." in name]
        assert len(first) == 2 * 3 * 3, first
        stacked = {name: a for name, a in encoded.items() if ".mlp.experts." not in name}
        for name in first:
            each = [encoded[name.replace("experts.0.", f"experts.{i}.")] for i in range(4)]
            stacked[name.replace("experts.0.", "switch_mlp.")] = np.stack(each)
        np.savez(tmp / "stacked.npz", **stacked)
        check_same(nibble, tmp, tmp / "q.npz", tmp / "stacked.npz", ids)


VALUES = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])  # E2M1


def mxfp4(matrix):
    """Codes [.., rows, groups, 16], scales [.., rows, groups] and what they stand for."""
    groups = matrix.reshape(*matrix.shape[:-1], -1, 32).astype("f8")
    scales = np.floor(np.log2(np.abs(groups).max(-1, keepdims=True))) - 2
    near = np.abs((groups / 2 ** scales)[..., None] - VALUES).argmin(-1).astype("u1")
    decoded = (VALUES[near] * 2 ** scales).reshape(matrix.shape).astype("<f4")
    return near[..., 0::2] | near[..., 1::2] << 4, (scales[..., 0] + 127).astype("u1"), decoded


def test_mxfp4_experts(tmp, nibble):
    """gpt-oss as it is published, and as mlx-lm has it, are the decoded weights bit for bit."""
    folder = GOLDEN / "gpt-oss"
    ids = ids_of(folder)
    plain, config = read_folder(folder)
    blocks, words = dict(plain), dict(plain)
    for name in [name for name in plain if name.endswith(("gate_up_proj", "down_proj"))]:
        codes, scales, decoded = mxfp4(plain[name].transpose(0, 2, 1))
        plain[name] = np.ascontiguousarray(decoded.transpose(0, 2, 1))
        del blocks[name], words[name]
        blocks[name + "_blocks"], blocks[name + "_scales"] = codes, scales
        codes = np.ascontiguousarray(codes.reshape(*codes.shape[:2], -1)).view("<u4")
        experts = name.rsplit(".", 1)[0]
        parts = {"down_proj": slice(None)} if name.endswith("down_proj") else {
            "gate_proj": slice(0, None, 2), "up_proj": slice(1, None, 2)}
        for module, rows in parts.items():
            words[f"{experts}.{module}.weight"] = codes[:, rows]
            words[f"{experts}.{module}.scales"] = scales[:, rows]
            bias = words[name + "_bias"] if module == "down_proj" else plain[name + "_bias"]
            words[f"{experts}.{module}.bias"] = bias[:, rows]
        del words[name + "_bias"]
    files = {"plain": plain, "blocks": blocks, "words": words}
    for name, arrays in files.items():
        save_npz(tmp / f"{name}.npz", {n: np.ascontiguousarray(a) for n, a in arrays.items()},
                 config)
    for name in ("blocks", "words"):
        assert "mxfp4" in nibble("info", tmp / f"{name}.npz").decode()
        check_same(nibble, tmp, tmp / f"{name}.npz", tmp / "plain.npz", ids)
        decode(nibble, tmp / f"{name}.npz", tmp / "decoded.npz")
        check_same(nibble, tmp, tmp / "decoded.npz", tmp / "plain.npz", ids)
        quantize(nibble, tmp / f"{name}.npz", tmp / "q.npz", "--bits", 8, "--group-size", GROUP)
        wanted = logits(nibble, tmp / "plain.npz", ids, tmp / "l.npy")
        assert distance(logits(nibble, tmp / "q.npz", ids, tmp / "l.npy"), wanted) < 0.15


if __name__ == "__main__":
    sys.exit(main(globals()))
