#!/usr/bin/python3
"""scripts/convert.py: every refusal is one sentence, the right exit status, and no file."""
import json
import os
import shutil
import struct
import sys

from harness import main
from hf_models import (check_refused, convert, header_of, make_folder, make_shards, mlx_model,
                       model, run, tensor, write_safetensors)


# ---- what the command is given

def test_wrong_usage(tmp):
    folder, output = make_folder(tmp / "m"), ["-o", tmp / "x.npz"]
    for words in ([], [folder], output, [folder, "-o", tmp / "x.bin"], [folder, "x.npz"],
                  [folder, *output, "--dtype", "f8"], [folder, *output, "--bits", "7"],
                  [folder, *output, "--group-size", "64"], [folder, *output, "--bit", "4"],
                  [folder, *output, "--mixed"], [folder, *output, "--high-bits", "6"],
                  [folder, *output, "--bits", "4", "--high-bits", "6"],
                  [folder, *output, "--bits", "8", "--mixed"],
                  [folder, *output, "--bits", "6", "--mixed", "--high-bits", "6"],
                  [folder, *output, "--bits", "4", "--group-size", "48"]):
        result = run(*words)
        assert result.returncode == 2 and result.stderr.count("\n") == 1, (words, result.stderr)
        assert result.stderr.startswith("convert.py: ")
    assert [p.name for p in tmp.iterdir()] == ["m"]
    result = run("--help")
    assert result.returncode == 0 and "--group-size" in result.stdout and result.stderr == ""


def test_no_numpy(tmp):
    (tmp / "numpy.py").write_text("raise ImportError")
    env = dict(os.environ, PYTHONPATH=str(tmp))
    check_refused(make_folder(tmp / "m"), "python3-numpy", env=env)


def test_wrong_output(tmp):
    folder = make_folder(tmp / "m")
    (tmp / "dir.npz").mkdir()
    for output in (tmp / "absent" / "x.npz", tmp / "dir.npz"):
        result = run(folder, "-o", output)
        assert result.returncode == 1 and result.stderr.startswith("convert.py: cannot write ")
    assert sorted(p.name for p in tmp.iterdir()) == ["dir.npz", "m"]


def test_a_file_instead_of_a_folder(tmp):
    check_refused(tmp / "absent", "does not exist")
    for name, words in (("model.safetensors", "the folder it lies in"), ("m.gguf", "GGUF"),
                        ("m.npz", "nibble quantize"), ("notes", "is not a folder"),
                        ("m.pth", "the folder it lies in")):
        (tmp / name).write_bytes(b"")
        check_refused(tmp / name, words)


def test_folders_of_other_kinds(tmp):
    for name, words in (("pytorch_model-00001-of-00002.bin", "index.json"),
                        ("consolidated.00.pth", "no params.json"), ("m.Q4_0.gguf", "GGUF"),
                        ("model-00001-of-00002.safetensors", "index.json"),
                        ("adapter_model.safetensors", "adapter"),
                        ("consolidated.safetensors", "Mistral"),
                        ("weights.00.npz", "not an .npz"), ("README.md", "neither"),
                        ("adapters.npz", "adapter"),
                        ("tokenizer.bin", "the model's .bin itself")):
        (tmp / f"with {name}").mkdir()
        (tmp / f"with {name}" / name).write_bytes(b"")
        check_refused(tmp / f"with {name}", words)
    folder = make_folder(tmp / "bare")
    (folder / "config.json").unlink()
    check_refused(folder, "no config.json")


def test_not_regular_files(tmp):
    folder = make_folder(tmp / "m")
    for name in ("model.safetensors", "config.json", "tokenizer.model"):
        path, kept = folder / name, (folder / name).read_bytes()
        path.unlink()
        os.mkfifo(path)
        check_refused(folder, f"{name} is not a regular file")
        path.unlink()
        path.mkdir()
        check_refused(folder, f"{name} is not a regular file")
        path.rmdir()
        path.symlink_to("nowhere")
        check_refused(folder, f"{name}: No such file")
        path.unlink()
        path.write_bytes(kept)
    convert(folder)


# ---- config.json

def test_configs_nibble_cannot_run(tmp):
    for i, (words, changes) in enumerate((
            ('model_type "mamba"', {"model_type": "mamba"}),
            ("model_type null", {"model_type": None}),
            ("it runs llama, mistral", {"model_type": ["llama"]}),
            ('rope_scaling.type is "dynamic"', {"rope_scaling": {"type": "dynamic"}}),
            ('rope_scaling.rope_type is "mrope"', {"rope_scaling": {"rope_type": "mrope"}}),
            ('rope_parameters.type is "ntk"', {"rope_parameters": {"type": "ntk"}}),
            ('rope_parameters.full_attention.rope_type is "x"',
             {"rope_parameters": {"full_attention": {"rope_type": "x"}}}),
            ("it runs default, linear, llama3", {"rope_parameters": {"rope_type": "proportional"}}),
            ('rope_parameters.sliding_attention.rope_type is "yarn"',
             {"rope_parameters": {"sliding_attention": {"rope_type": "yarn"}}}),
            ("rope_scaling.rope_type is 3", {"rope_scaling": {"type": "linear", "rope_type": 3}}),
            ("rope_scaling should be", {"rope_scaling": "linear"}),
            ("rope_parameters should be", {"rope_parameters": [1]}),
            ("does not say its rope_type", {"rope_scaling": {"factor": 2.0}}),
            ('hidden_act is "quick_gelu"', {"hidden_act": "quick_gelu"}),
            ('activation_function is "mish"', {"activation_function": "mish"}),
            ("it runs silu, gelu, gelu_pytorch_tanh", {"hidden_activation": 3}),
            ('"gptq"', {"quantization_config": {"quant_method": "gptq", "bits": 4}}),
            ('"fp8"', {"quantization_config": {"quant_method": "fp8"}, "quantization": None}),
            ("quant_method null", {"quantization_config": {"load_in_4bit": True}}),
            ("compression_config", {"compression_config": {"format": "int-quantized"}}),
            ('mode "nvfp4"', {"quantization": {"group_size": 16, "bits": 4, "mode": "nvfp4"}}),
            ('mode "mxfp8"', {"quantization": {"group_size": 64, "bits": 4, "lm_head": {
                "group_size": 32, "bits": 8, "mode": "mxfp8"}}}))):
        check_refused(make_folder(tmp / f"m{i}", **changes), words)


def test_configs_nibble_runs(tmp):
    for i, changes in enumerate((
            {"model_type": "mistral"}, {"rope_scaling": None}, {"quantization_config": None},
            {"rope_scaling": {"type": "linear", "factor": 2.0}},
            {"rope_scaling": {"rope_type": "llama3"}}, {"hidden_activation": None},
            {"hidden_act": "gelu_new", "activation": "silu"},
            {"quantization_config": {"quant_method": "mxfp4"}},
            {"rope_parameters": {"rope_type": "yarn"}, "rope_scaling": {"rope_type": "default"}})):
        convert(make_folder(tmp / f"m{i}", **changes))


def test_broken_json(tmp):
    folder = make_folder(tmp / "m")
    deep = "[" * 100000 + "]" * 100000
    for words, text in (("broken JSON", ""), ("broken JSON", "\ufeff{}"), ("broken JSON", '{"a\\'),
                        ("broken JSON", '{"a": %s}' % deep), ("NaN", '{"a": NaN}'),
                        ("a JSON object", "[]"), ("model_type", "{}"),
                        ("'model_type' twice", '{"model_type": "llama", "model_type": "llama"}'),
                        ("'b' twice", '{"a": {"b": 1, "b": 2}}')):
        (folder / "config.json").write_text(text, encoding="utf-8")
        check_refused(folder, words)
    (folder / "config.json").write_bytes(b'{"a": "\xff"}')
    check_refused(folder, "broken JSON")


# ---- safetensors

def test_types_nibble_has_not(tmp):
    for dtype in ("I64", "F8_E4M3", "U32", "BOOL"):
        folder = make_folder(tmp / dtype, dict(model(), x=tensor(dtype, 4, 4)))
        check_refused(folder, f"tensor x has the type {dtype}")
    tensors = mlx_model()
    del tensors["x.biases"]
    check_refused(make_folder(tmp / "no-biases", tensors), "x.weight has the type U32")


def test_cut_files(tmp):
    folder = make_folder(tmp / "m")
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    end, last = 8 + struct.unpack("<Q", whole[:8])[0], len(whole) - 1
    for size in (0, 1, 7, 8, 9, end // 2, end - 1, end, end + 1, (end + last) // 2, last):
        file.write_bytes(whole[:size])
        check_refused(folder, "is cut short")
    file.write_bytes(whole + b"\0")
    check_refused(folder, "1 bytes follow the last tensor")
    file.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    check_refused(folder, "git lfs pull")


def test_header_length(tmp):
    folder = make_folder(tmp / "m")
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    for length in (len(whole) - 7, 1 << 32, (1 << 63) + 5, (1 << 64) - 1, (1 << 64) - 8):
        file.write_bytes(struct.pack("<Q", length) + whole[8:])
        check_refused(folder, "cut short or not a safetensors file")
    file.write_bytes(struct.pack("<Q", 1 << 30))
    os.truncate(file, 2 << 30)
    check_refused(folder, "bytes of JSON")


def test_hostile_entries(tmp):
    tensors = {"a": tensor("F32", 4), "b": tensor("F32", 2, 2)}  # bytes 0 to 16, 16 to 32
    folder, huge, wrap = make_folder(tmp / "m", tensors), 1 << 62, (1 << 64) - 16
    rows = [("rising data_offsets", "a", {"data_offsets": offsets}) for offsets in (
        [16, 0], [-16, 0], [0], [0, 16, 16], [0.0, 16.0], [wrap, wrap + 16], [False, 16], 16, None)]
    rows += [("at most 8 sizes", "a", {"shape": shape}) for shape in (
        [1] * 9, [-4], [4.0], [True, 4], [1 << 64], ["4"], 4, None)]
    rows += [("has 16 bytes where its shape takes", "a", change) for change in (
        {"shape": [3]}, {"dtype": "F16"}, {"shape": [huge, 4]}, {"shape": [huge, huge, 0]})]
    rows += [(f"unknown type {json.dumps(dtype)}", "a", {"dtype": dtype}) for dtype in (
        "F4", "f32", None, ["F32"], 4)]
    rows += [("cut short", "b", {"data_offsets": [huge, huge + 16]}),
             ("cut short", "b", {"data_offsets": [32, 48]}),
             ("overlaps", "b", {"data_offsets": [0, 16]}),
             ("overlaps", "b", {"data_offsets": [12, 28]}),
             ("follows a hole", "a", {"data_offsets": [4, 12], "shape": [2]}),
             ("8 bytes follow", "b", {"data_offsets": [16, 24], "shape": [2]})]
    for words, name, change in rows:
        header = header_of(tensors)
        header[name].update(change)
        write_safetensors(folder / "model.safetensors", tensors, header)
        check_refused(folder, words)


def test_hostile_headers(tmp):
    tensors = {"a": tensor("F32", 4)}
    folder, entry = make_folder(tmp / "m", tensors), header_of(tensors)["a"]
    text = json.dumps({"a": entry})
    rows = [("a name that no weight has", {name: entry}) for name in (
        "../a", "a/b", "", "a\0b", "a b", "\u00e4", "a" * 1001)]
    rows += [("JSON object", "[]"), ("JSON object", {"a": 1}), ("broken JSON", "{"),
             ("the name of a file", {"config.json": entry}),
             ("'a' twice", text[:-1] + ", " + text[1:]),
             ("'dtype' twice", text.replace('"dtype"', '"dtype": "F32", "dtype"'))]
    for words, header in rows:
        write_safetensors(folder / "model.safetensors", tensors, header)
        check_refused(folder, words)
    write_safetensors(folder / "model.safetensors", {})
    check_refused(folder, "no tensors")


def test_metadata_is_ignored(tmp):
    for i, metadata in enumerate((None, 3, {"dtype": "F32"}, {"a": {"b": []}})):
        tensors = model()
        header = dict(header_of(tensors), __metadata__=metadata)
        assert "__metadata__" not in convert(make_folder(tmp / f"m{i}", tensors, header=header))[0]


# ---- shards

def test_wrong_index(tmp):
    folder = make_shards(tmp / "m", model())
    index, name = folder / "model.safetensors.index.json", "model.norm.weight"
    good = json.loads(index.read_text())["weight_map"]
    outside = shutil.copy(folder / good[name], tmp / "outside.safetensors")
    second = "model-00002-of-00002.safetensors"
    assert good[name] != second
    rows = [("not the name of a safetensors file", {name: file}) for file in (
        None, "../outside.safetensors", str(outside), ["x"], "", ".safetensors", "config.json",
        f"./{second}", f"{second}/", f"..\\{second}", f"{second}\0", f"{second}\n")]
    rows += [("which is not in the folder", {name: "absent.safetensors"}),
             ("does not hold it", {name: second}), ("does not hold it", {"more.weight": second})]
    for words, changes in rows:
        index.write_text(json.dumps({"weight_map": {**good, **changes}}))
        check_refused(folder, words)
    for text in ("{}", '{"weight_map": []}', '{"weight_map": {}}'):
        index.write_text(text)
        check_refused(folder, "no weight_map")
    index.write_text(json.dumps({"weight_map": good}))
    convert(folder)


def test_wrong_shards(tmp):
    folder, second = make_shards(tmp / "m", model()), "model-00002-of-00002.safetensors"
    (folder / second).unlink()
    check_refused(folder, f"{second}, which is not in the folder")
    write_safetensors(folder / second, model())
    check_refused(folder, "both hold tensor")


if __name__ == "__main__":
    sys.exit(main(globals()))
