#!/usr/bin/python3
"""scripts/convert.py: what comes out, types, what is left out, stopped runs, quantizing.

    tests/cli/test_convert.py [--build DIR] [WORD...]   the test of --bits needs DIR/nibble
"""
import json
import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from harness import main
from hf_models import (LLAMA, SCRIPT, bf16_nearest, check_refused, config_of, convert, make_folder,
                       make_shards, members, mlx_model, model, npz_write, rng, run, script, tensor)

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


# ---- what comes out

def test_the_program_itself(tmp):
    folder, output = make_folder(tmp / "m"), tmp / "program.npz"
    result = subprocess.run([SCRIPT, folder, "-o", output], capture_output=True, text=True)
    assert result.returncode == 0 and str(output) in result.stderr, result.stderr
    convert(folder)
    assert output.read_bytes() == (tmp / "m.npz").read_bytes()
    assert SCRIPT.read_bytes().startswith(b"#!/usr/bin/python3\n")


def test_bytes_are_kept(tmp):
    tensors = model("F32")
    tensors["model.layers.0.self_attn.q_proj.weight"] = tensor("F16", 8, 8)
    tensors["model.layers.9.self_attn.q_proj.weight"] = tensor("BF16", 8, 8)
    tensors["model.layers.9.scale"] = tensor("F32")
    arrays, _ = convert(make_folder(tmp / "m", tensors))
    assert set(arrays) == set(tensors) | {"config.json", "tokenizer.model"}
    for name, (dtype, shape, data) in tensors.items():
        kind = {"F32": "<f4", "F16": "<f2", "BF16": "V2"}[dtype]
        assert arrays[name].dtype == np.dtype(kind) and list(arrays[name].shape) == shape, name
        assert arrays[name].tobytes() == data, name


def test_known_files_are_in_it(tmp):
    folder = make_folder(tmp / "m")
    for name in ("generation_config.json", "tokenizer_config.json", "tokenizer.json", "README.md"):
        (folder / name).write_text(f'{{"name": "{name}"}}')
    arrays, _ = convert(folder)
    wanted = {p.name for p in folder.iterdir()} - {"README.md", "model.safetensors"}
    assert {name for name in arrays if not name.endswith(".weight")} == wanted and len(wanted) == 5
    for name in wanted:
        assert arrays[name].dtype == np.uint8 and arrays[name].ndim == 1
        if name != "config.json":
            assert arrays[name].tobytes() == (folder / name).read_bytes()
    assert config_of(arrays).items() >= LLAMA.items()


def test_links_are_followed(tmp):
    blob = tmp / "blob"
    folder = make_folder(tmp / "m")
    (folder / "model.safetensors").rename(blob)
    (folder / "model.safetensors").symlink_to("../blob")
    assert "lm_head.weight" in convert(folder)[0]


def test_layout_in_the_file(tmp):
    tensors = model()
    tensors["x.scalar"], tensors["x.empty"] = tensor("F32"), tensor("F32", 0, 3)
    for length in range(1, 65):
        tensors["x." + "n" * length] = tensor("F16", 1)
    convert(make_folder(tmp / "m", tensors))
    rows = members(tmp / "m.npz")
    assert len(rows) == len(tensors) + 2
    for name, offset, text, extra in rows:
        assert offset % 64 == 0, f"{name} at {offset}"
        assert extra == b"" and text.endswith("\n") and len(text) + 10 <= 256, name
        assert text[:-1].rstrip(" ").endswith("), }") and text[-1] == "\n", name
    text = {name: text for name, _, text, _ in rows}
    layout = "{'descr': '%s', 'fortran_order': False, 'shape': %s, }"
    assert text["lm_head.weight.npy"].rstrip() == layout % ("<f4", "(16, 8)")
    assert text["model.norm.weight.npy"].rstrip() == layout % ("<f4", "(8,)")
    assert text["x.scalar.npy"].rstrip() == layout % ("<f4", "()")
    assert text["tokenizer.model.npy"].rstrip() == layout % ("|u1", "(9,)")


def test_order_is_that_of_a_run(tmp):
    convert(make_folder(tmp / "m"))
    names = [name[:-len(".npy")] for name, *_ in members(tmp / "m.npz")]
    layers = [f"model.layers.{n}.{part}.weight" for n in (0, 9, 10)
              for part in ("input_layernorm", "self_attn.q_proj")]
    assert names == ["config.json", "tokenizer.model", "model.embed_tokens.weight", *layers,
                     "model.norm.weight", "lm_head.weight"], names


def test_same_bytes_twice(tmp):
    tensors = model("BF16")
    for place in "abc":
        (tmp / place).mkdir()
    first, second = make_folder(tmp / "a" / "m", tensors), make_folder(tmp / "b" / "m", tensors)
    shards = make_shards(tmp / "c" / "m", dict(sorted(tensors.items())), 3)
    for folder in (first, second, shards):
        convert(folder)
        os.utime(folder / "config.json", (1, 1))
    one, two, three = ((tmp / place / "m.npz").read_bytes() for place in "abc")
    assert one == two, "two runs differ"
    assert one == three, "shards differ from a single file"
    assert str(tmp).encode() not in one, "a path of this machine is in the file"


def test_zip64_members_are_aligned_too(tmp):
    folder = make_folder(tmp / "m")
    tensors = script.read_folder(folder).tensors
    kept, npz_write.ZIP64_FROM = npz_write.ZIP64_FROM, 0
    npz_write.write_npz(tmp / "m.npz", [(tensors[name], "F32") for name in tensors])
    npz_write.ZIP64_FROM = kept
    for name, offset, _, extra in members(tmp / "m.npz"):
        assert offset % 64 == 0 and extra[:2] == b"\x01\x00", name
    assert set(np.load(tmp / "m.npz").files) == set(tensors)


def test_large_tensors_go_in_pieces(tmp):
    values = np.arange((5 << 20) // 4, dtype="<f4")
    tensors = dict(model(), **{"x.weight": tensor("F32", 5, 1 << 18, data=values)})
    assert (convert(make_folder(tmp / "m", tensors))[0]["x.weight"].ravel() == values).all()
    bf16 = convert(tmp / "m", "--dtype", "bf16")[0]["x.weight"].view("<u2").ravel()
    for i in (0, 1 << 20, len(values) - 1, 12345, 1048577):
        assert bf16[i] == bf16_nearest(float(values[i])), i


def test_output_is_replaced_and_reported(tmp):
    (tmp / "m.npz").write_text("old")
    arrays, stderr = convert(make_folder(tmp / "m"))
    last = stderr.splitlines()[-1]
    assert f"{len(arrays)} arrays" in last and " s: " in last and str(tmp / "m.npz") in last, last
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp / "m.npz").stat().st_mode & 0o777 == 0o666 & ~mask


# ---- types

def converted(tmp, dtype, data, wanted):
    tensors = {"x.weight": tensor(dtype, data.size, data=data)}
    folder = make_folder(tmp / f"{dtype}-{wanted}", tensors)
    return convert(folder, "--dtype", wanted)[0]["x.weight"]


def test_to_f32(tmp):
    half = np.array([1.5, -0.0, 65504, 2 ** -24, np.inf, np.nan], "<f2")
    assert converted(tmp, "F16", half, "f32").tobytes() == half.astype("<f4").tobytes()
    codes = np.array([0x3F80, 0x8000, 0x7F7F, 0x0001, 0xFF80], "<u2")
    wanted = (codes.astype("<u4") << 16).tobytes()
    assert converted(tmp, "BF16", codes, "f32").tobytes() == wanted
    double = np.array([0.1, 1e-50, -np.inf])
    assert converted(tmp, "F64", double, "f32").tobytes() == double.astype("<f4").tobytes()


def test_f64_becomes_f32_unasked(tmp):
    tensors = dict(model(), **{"x.weight": tensor("F64", 3, data=np.array([0.1, 2.0, -3.0]))})
    array = convert(make_folder(tmp / "m", tensors))[0]["x.weight"]
    assert array.dtype == np.float32 and array[0] == np.float32(0.1)


def test_to_f16(tmp):
    values = np.array([1 + 2 ** -11, 1 + 3 * 2 ** -11, 65519.9, -1e-8, np.inf], "<f4")
    assert converted(tmp, "F32", values, "f16").tolist() == [1, 1 + 2 ** -9, 65504, -0.0, np.inf]
    codes = np.array([0x3F80, 0x4049], "<u2")
    assert converted(tmp, "BF16", codes, "f16").tolist() == [1, 3.140625]


def test_to_bf16_rounds_to_nearest_even(tmp):
    codes = np.array([0x3F808000, 0x3F818000, 0x3F808001, 0x3F807FFF, 0xBF818000, 0x00008000,
                      0x00018000, 0x7F7F7FFF, 0x00000001, 0x80000000], "<u4")
    values = np.concatenate([codes.view("<f4"), rng.standard_normal(200).astype("<f4")])
    got = converted(tmp, "F32", values, "bf16").view("<u2")
    for value, code in zip(values.tolist(), got.tolist()):
        assert code == bf16_nearest(value), value


def test_to_bf16_keeps_inf_and_nan(tmp):
    codes = np.array([0x7F800000, 0xFF800000, 0x7F800001, 0x7FFFFFFF, 0xFFFFFFFF], "<u4")
    got = converted(tmp, "F32", codes.view("<f4"), "bf16").view("<u2")
    assert got[:2].tolist() == [0x7F80, 0xFF80]
    assert ((got[2:] & 0x7F80) == 0x7F80).all() and ((got[2:] & 0x7F) != 0).all(), got


def test_overflow_is_refused_by_name(tmp):
    cases = (("F32", "<f4", 65520.0, "f16"), ("BF16", "<u2", 0x4780, "f16"),
             ("F64", "<f8", 1e39, "f32"), ("F32", "<f4", 3.4028e38, "bf16"),
             ("F64", "<f8", -1e300, "bf16"))
    for i, (dtype, kind, value, wanted) in enumerate(cases):
        tensors = dict(model(), **{"x.big": tensor(dtype, 1, data=np.array([value], kind))})
        check_refused(make_folder(tmp / f"m{i}", tensors),
                      f"tensor x.big has values too large for {wanted}", "--dtype", wanted)


# ---- what is left out, what is passed on

def test_tied_output(tmp):
    tensors = model()
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    arrays, stderr = convert(make_folder(tmp / "same", tensors, tie_word_embeddings=True))
    assert "lm_head.weight" not in arrays and "equals the embedding" in stderr
    arrays, stderr = convert(make_folder(tmp / "other", tie_word_embeddings=True))
    assert "lm_head.weight" not in arrays and "differs from the embedding" in stderr
    arrays, stderr = convert(make_folder(tmp / "untied", tensors, tie_word_embeddings=False))
    assert "lm_head.weight" in arrays and "note" not in stderr


def test_unused_tensors(tmp):
    tensors = model()
    for layer in range(5):
        tensors[f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"] = tensor("F32", 4)
        tensors[f"model.layers.{layer}.attn.bias"] = tensor("BOOL", 4, 4)
    arrays, stderr = convert(make_folder(tmp / "m", tensors))
    assert set(arrays) == set(model()) | {"config.json", "tokenizer.model"}
    assert "inv_freq" in stderr and "7 more" in stderr, stderr


def test_no_tokenizer_is_noted(tmp):
    folder = make_folder(tmp / "m")
    (folder / "tokenizer.model").unlink()
    assert "no tokenizer" in convert(folder)[1]


def test_mlx_quantized_weights_pass(tmp):
    tensors, mlx = mlx_model(), {"group_size": 64, "bits": 4}
    folder = make_folder(tmp / "m", tensors, quantization=mlx, quantization_config=mlx)
    for options in ((), ("--dtype", "f32")):
        arrays, _ = convert(folder, *options)
        assert arrays["x.weight"].dtype == np.uint32 and arrays["x.scales"].dtype == np.float16
        for part in ("x.weight", "x.scales", "x.biases"):
            assert arrays[part].tobytes() == tensors[part][2], part
    assert arrays["lm_head.weight"].dtype == np.float32
    check_refused(folder, "quantized already", "--bits", "4", "--nibble", "/bin/true")


# ---- interrupted and broken runs

def test_full_disk(tmp):
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (3 << 20, 3 << 20))
    tensors = dict(model(), x=tensor("F32", 1 << 20))
    check_refused(make_folder(tmp / "m", tensors), "File too large", preexec_fn=limit)


def sparse_folder(folder, count):
    """F32 zeros that take no room on the disk."""
    make_folder(folder)
    header = json.dumps({"x": {"dtype": "F32", "shape": [count], "data_offsets": [0, count * 4]}})
    file = folder / "model.safetensors"
    file.write_bytes(struct.pack("<Q", len(header)) + header.encode())
    os.truncate(file, 8 + len(header) + count * 4)
    return folder


def peak_of(*words):
    """The most memory, in MB, that the script had."""
    command = [sys.executable, SCRIPT, *words, "--no-reference"]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        stderr = process.stderr.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, stderr
    return used.ru_maxrss >> 10


def test_memory_is_bounded(tmp):
    """A tensor of 400 MB takes little more than none, whatever becomes of its type."""
    small, large = make_folder(tmp / "s"), sparse_folder(tmp / "m", 100 << 20)
    least = peak_of(small, "-o", tmp / "s.npz")
    for options in ((), ("--dtype", "f16"), ("--dtype", "bf16")):
        most = peak_of(large, "-o", tmp / "m.npz", *options)
        assert most < least + 100, (options, least, most)
        (tmp / "m.npz").unlink()


def test_progress(tmp):
    """How much is done, on a terminal, from the first second on."""
    tensors = script.read_folder(sparse_folder(tmp / "m", 5 << 20)).tensors
    shown, clock = [], iter(range(1000))
    kept = npz_write.show_progress, npz_write.time.monotonic
    npz_write.show_progress, npz_write.time.monotonic = shown.append, lambda: next(clock)
    try:
        npz_write.write_npz(tmp / "m.npz", [(tensors["x"], "F16")])
    finally:
        npz_write.show_progress, npz_write.time.monotonic = kept
    assert [text.split(": ")[-1] for text in shown] == [
        *(f"{n}% of 10.49 MB" for n in (40, 60, 80, 100)), ""], shown


def test_reference_is_stored(tmp, nibble):
    folder = GOLDEN / "llama-llama3"
    words = (folder, "-o", tmp / "m.npz", "--nibble", nibble.path)
    assert run(*words, reference=True).returncode == 0
    with np.load(tmp / "m.npz") as npz:
        stored = json.loads(npz["reference.json"].tobytes())
    assert stored["nibble_reference"] == 1
    assert b"reference  16 tokens" in nibble("verify", tmp / "m.npz")
    assert run(*words).returncode == 0
    with np.load(tmp / "m.npz") as npz:
        assert "reference.json" not in npz.files


def test_reference_that_cannot_be(tmp):
    """It is only said so: what was converted is there."""
    false = program(tmp / "false", "echo 'nibble: it is no use' >&2; exit 1")
    result = run(GOLDEN / "llama-llama3", "-o", tmp / "m.npz", "--nibble", false, reference=True)
    assert result.returncode == 0 and (tmp / "m.npz").exists()
    assert "no reference for 'nibble verify' is stored: it is no use" in result.stderr, result


def wait_for(condition):
    limit = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < limit, "waited 30 seconds in vain"
        time.sleep(0.002)


def check_stopped(tmp, number, *options, started):
    """Sends the signal once started() is true; the output is as it was before."""
    (tmp / "out").mkdir(exist_ok=True)
    (tmp / "out" / "x.npz").write_text("old")
    command = [sys.executable, SCRIPT, tmp / "m", "-o", tmp / "out" / "x.npz", *options]
    heard = lambda: signal.signal(number, signal.SIG_DFL)  # which nohup has switched off
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heard) as process:
        try:
            wait_for(started)
            process.send_signal(number)
            stderr = process.communicate(timeout=15)[1]
        finally:
            process.kill()
    assert process.returncode == 128 + number, (process.returncode, stderr)
    assert stderr.startswith("convert.py: stopped by SIG") and stderr.count("\n") == 1, stderr
    assert [p.name for p in (tmp / "out").iterdir()] == ["x.npz"]
    assert (tmp / "out" / "x.npz").read_text() == "old"


def test_signals_while_writing(tmp):
    sparse_folder(tmp / "m", 1 << 33)  # 32 GiB, of which a few chunks get written
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        check_stopped(tmp, number, started=lambda: any((tmp / "out").glob(".nibble-*/x.npz")))


def program(path, text):
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return path


def test_signal_while_quantizing(tmp):
    make_folder(tmp / "m")
    text = "touch rest; echo $$ > {0}/new; mv {0}/new {0}/pid; exec sleep 60\n"
    nibble = program(tmp / "nibble", text.format(tmp))
    check_stopped(tmp, signal.SIGTERM, "--bits", "4", "--nibble", nibble,
                  started=(tmp / "pid").exists)
    pid = int((tmp / "pid").read_text())
    wait_for(lambda: not Path(f"/proc/{pid}").exists())


# ---- quantizing

FAKE = 'echo "$0 $@" >> {log}; echo result; cp "$2" "$3"; touch more.tmp\n'


def test_quantize_is_called(tmp):
    folder, log = make_folder(tmp / "m"), tmp / "log"
    nibble = program(tmp / "my nibble", FAKE.format(log=log))
    plain, _ = convert(folder)
    arrays, _ = convert(folder, "--bits", "4", "--nibble", nibble)
    assert set(arrays) == set(plain)
    convert(folder, "--bits", "3", "--group-size", "32", "--embed-bits", "8", "--nibble", nibble)
    convert(folder, "--bits", "5", "--mixed", "--nibble", nibble)
    convert(folder, "--bits", "3", "--mixed", "--high-bits", "4", "--nibble", nibble)
    first, second, third, fourth = log.read_text().splitlines()
    assert first.startswith(f"{nibble} quantize "), first
    assert first.endswith(" --bits 4 --group-size 64"), first
    assert second.endswith(" --bits 3 --group-size 32 --embed-bits 8"), second
    assert third.endswith(" --bits 5 --group-size 64 --mixed"), third
    assert fourth.endswith(" --bits 3 --group-size 64 --high-bits 4 --mixed"), fourth


def test_quantize_fails(tmp):
    folder = make_folder(tmp / "m")
    for status in (7, 0):
        nibble = program(tmp / f"n{status}", f"touch rest; exit {status}\n")
        check_refused(folder, f"exit status {status}", "--bits", "4", "--nibble", nibble)
    (tmp / "plain").write_text("text")
    for path in (tmp / "absent", tmp / "plain", tmp):
        check_refused(folder, "is not a program", "--bits", "4", "--nibble", path)


def test_where_nibble_is_looked_for(tmp):
    folder, log = make_folder(tmp / "m"), tmp / "log"
    for name in ("tree/scripts", "tree/build/release", "bin"):
        (tmp / name).mkdir(parents=True)
    for module in SCRIPT.parent.glob("*.py"):
        shutil.copy(module, tmp / "tree" / "scripts")
    copy = tmp / "tree" / "scripts" / SCRIPT.name
    env = dict(os.environ, PATH=f"{tmp / 'bin'}:/bin:/usr/bin")
    words = (folder, "-o", tmp / "x.npz", "--bits", "4")
    if not shutil.which("nibble", path=env["PATH"]):
        check_refused(folder, "--bits needs nibble", "--bits", "4", program=copy, env=env)
    in_path = program(tmp / "bin" / "nibble", FAKE.format(log=log))
    assert run(*words, program=copy, env=env).returncode == 0
    beside = program(tmp / "tree" / "build" / "release" / "nibble", FAKE.format(log=log))
    assert run(*words, program=copy, env=env).returncode == 0
    assert [line.split()[0] for line in log.read_text().splitlines()] == [str(in_path), str(beside)]


def small_llama():
    """One layer with every tensor that a run needs."""
    config = {"model_type": "llama", "hidden_size": 64, "vocab_size": 96, "num_hidden_layers": 1,
              "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 128,
              "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 128}
    shapes = {"self_attn.q_proj": (64, 64), "self_attn.k_proj": (32, 64),
              "self_attn.v_proj": (32, 64), "self_attn.o_proj": (64, 64),
              "mlp.gate_proj": (128, 64), "mlp.up_proj": (128, 64), "mlp.down_proj": (64, 128),
              "input_layernorm": (64,), "post_attention_layernorm": (64,)}
    shapes = {f"layers.0.{name}": shape for name, shape in shapes.items()}
    shapes = {**shapes, "embed_tokens": (96, 64), "norm": (64,)}
    tensors = {f"model.{name}.weight": tensor("F32", *shape) for name, shape in shapes.items()}
    return dict(tensors, **{"lm_head.weight": tensor("F32", 96, 64)}), config


def decoded(arrays, name, rows, cols):
    """4-bit codes in groups of 32, and the size of a step for each."""
    base = name[:-len("weight")]
    scales, biases = (arrays[base + part][..., None] for part in ("scales", "biases"))
    data = arrays[name].view("u1")
    codes = np.stack([data & 15, data >> 4], axis=-1).reshape(rows, cols // 32, 32)
    steps = np.broadcast_to(np.abs(scales), codes.shape).reshape(rows, cols)
    return (scales * codes + biases).reshape(rows, cols), steps


def test_quantize_with_nibble(tmp, nibble):
    tensors, config = small_llama()
    folder = make_folder(tmp / "m", tensors, config)
    (folder / "tokenizer.model").unlink()
    arrays, _ = convert(folder, "--bits", "4", "--group-size", "32", "--nibble", nibble)
    assert arrays["config.json"].tobytes() != b""
    for name, (_, shape, data) in tensors.items():
        want = np.frombuffer(data, "<f4").reshape(shape)
        if len(shape) == 1:
            assert (arrays[name] == want).all(), name
        else:
            got, steps = decoded(arrays, name, *shape)
            assert (np.abs(got - want) <= 1.01 * steps).all(), name


if __name__ == "__main__":
    sys.exit(main(globals()))
