#!/usr/bin/python3
"""Writes the seeds of the fuzz targets, always the same ones; what a fuzzer has found is added to
them by hand, under names that begin with "found-".

    tests/fuzz/make_corpus.py     needs build/release/nibble, to leave out models that do not open
"""
import base64
import io
import json
import struct
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
ROOT, CORPUS = HERE.parents[1], HERE / "corpus"
GOLDEN = ROOT / "tests" / "golden"
TOKENIZERS = ROOT / "tests" / "text"
ALIKE = ("granite", "ministral3", "olmo", "olmo2")  # no steps that others do not have
rng = np.random.default_rng(7)


def seed(target, name, data):
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())


# ---- arrays and archives

def npy(array):
    out = io.BytesIO()
    np.lib.format.write_array(out, array)
    return out.getvalue()


def archive(members, method=zipfile.ZIP_STORED, zip64=False):
    """The time and system of members are fixed, so that the same seeds come out."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as z:
        for name, data in members.items():
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.compress_type = method
            with z.open(info, "w", force_zip64=zip64) as f:
                f.write(data)
    return out.getvalue()


def npz(arrays):
    return archive({name + ".npy": npy(a) for name, a in arrays.items()})


def file_array(data):
    return np.frombuffer(data if isinstance(data, bytes) else json.dumps(data).encode(), "u1")


def array_seeds():
    for name, dtype in (("f4", "<f4"), ("f2", "<f2"), ("u4", "<u4"), ("u1", "|u1"), ("v2", "|V2")):
        seed("npy", name, npy(np.zeros((2, 3), dtype)))
    seed("npy", "scalar", npy(np.float32(1)[()].reshape(())))
    seed("npy", "fortran", npy(np.asfortranarray(np.zeros((3, 2), "<f4"))))
    two = {"a.npy": npy(np.arange(6, dtype="<f4")), "b/c.npy": npy(np.zeros((2, 2), "<f2"))}
    seed("npz", "stored", archive(two))
    seed("npz", "deflated", archive(two, zipfile.ZIP_DEFLATED))
    seed("npz", "zip64", archive(two, zip64=True))
    seed("npz", "empty", archive({}))
    seed("npz", "config", archive({"config.json": b"{}", "x": b""}))


def safetensors(tensors, metadata=None):
    header, at = {} if metadata is None else {"__metadata__": metadata}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + b"".join(d for _, _, d in tensors.values())


def safetensors_seeds():
    tensors = {"a": ("F32", [2, 3], bytes(24)), "b.c": ("BF16", [4], bytes(8)),
               "d": ("U8", [0], b""), "e": ("F16", [], bytes(2))}
    seed("safetensors", "four", safetensors(tensors))
    seed("safetensors", "metadata", safetensors({"a": tensors["a"]}, {"format": "pt"}))
    seed("safetensors", "none", safetensors({}))
    index = {"metadata": {"total_size": 1}, "weight_map": {
        "a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    seed("safetensors", "index", json.dumps(index))


# ---- tokenizers

def letters():
    """GPT-2's alphabet of bytes."""
    plain = [b for b in range(256) if 0x20 < b < 0x7f or (b > 0xa0 and b != 0xad)]
    others = [b for b in range(256) if b not in plain]
    names = {b: chr(b) for b in plain} | {b: chr(0x100 + i) for i, b in enumerate(others)}
    return [names[b] for b in range(256)]


def tokenizer_seeds():
    pieces = letters() + ["an", "on", "\u0120a", "\u0120an"]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    merges = ["a n", "o n", "\u0120 a", "\u0120a n"]
    added = [{"id": 260, "content": "<s>", "special": True, "single_word": False, "lstrip": False,
              "rstrip": True, "normalized": False},
             {"id": 261, "content": "cat", "special": False, "single_word": True, "lstrip": True,
              "rstrip": False, "normalized": True}]
    split = {"type": "Split", "pattern": {"Regex": r"\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s+"},
             "behavior": "Isolated", "invert": False}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                  "use_regex": False}
    single = [{"SpecialToken": {"id": "<s>", "type_id": 0}},
              {"Sequence": {"id": "A", "type_id": 0}}]
    template = {"type": "TemplateProcessing", "single": single, "pair": single,
                "special_tokens": {"<s>": {"id": "<s>", "ids": [260], "tokens": ["<s>"]}}}
    file = {"version": "1.0", "added_tokens": added, "normalizer": {"type": "NFC"},
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
            "post_processor": template, "decoder": byte_level,
            "model": {"type": "BPE", "ignore_merges": True, "vocab": vocab, "merges": merges}}
    seed("tokenizer", "byte-level.json", json.dumps(file))
    small = ["<unk>", "<s>", *(f"<0x{b:02X}>" for b in range(256)), "\u2581", "a", "n", "an",
             "\u2581an"]
    metaspace = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first",
                 "split": False}
    strip = [{"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
             {"type": "ByteFallback"}, {"type": "Fuse"},
             {"type": "Strip", "content": " ", "start": 1, "stop": 0}]
    file = {"version": "1.0", "added_tokens": [dict(added[0], id=1)],
            "normalizer": {"type": "Sequence", "normalizers": [
                {"type": "Prepend", "prepend": "\u2581"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]},
            "pre_tokenizer": None, "post_processor": None,
            "decoder": {"type": "Sequence", "decoders": strip},
            "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True,
                      "vocab": {p: i for i, p in enumerate(small)},
                      "merges": ["a n", "\u2581 an"]}}
    seed("tokenizer", "fallback.json", json.dumps(file))
    seed("tokenizer", "metaspace.json", json.dumps({**file, "pre_tokenizer": metaspace,
                                                   "normalizer": None, "decoder": metaspace}))
    ranks = [bytes([b]) for b in range(256)] + [b"an", b" a", b" an"]
    seed("tokenizer", "tiktoken", b"".join(base64.b64encode(piece) + b" %d\n" % i
                                           for i, piece in enumerate(ranks)))
    for path in sorted(TOKENIZERS.glob("*.model")):
        seed("sentencepiece", path.name, path.read_bytes())


# ---- chat templates

def marked(**more):
    """A template in the stored form, of the tokens in tests/text/pipeline.h."""
    texts = {"start_user": "<b><U>", "user_assistant": "<A>", "assistant_user": "<e><U>",
             "user_open": "<A>", "user_end": "", "assistant_end": "<e>"}
    return {"nibble_chat": 1, "texts": {**texts, **more.pop("texts", {})}, **more}


def talk(*texts, system=None):
    roles = ["user", "assistant"] * len(texts)
    messages = [{"role": r, "content": t} for r, t in zip(roles, texts)]
    return [{"role": "system", "content": system}] * (system is not None) + messages


def chat_seed(name, template, messages):
    template = template if isinstance(template, str) else json.dumps(template)
    seed("chat", name, template + "\0" + json.dumps(messages))


def chat_seeds():
    system = {"start_system": "<b>", "system_user": "\n\n<U>"}
    turns = {name: "<turn>" for name in ("user_assistant", "assistant_user", "user_open")}
    chat_seed("system", marked(texts=system), talk("<U> hello", system="Be <b>brief</b>."))
    chat_seed("trimmed", marked(trim={"user": "both", "assistant": "left lines"}),
              talk(" \n a\t", "\n\nb", "c"))
    chat_seed("thought", marked(thought_end="</t>", trim={"thought": "left lines"},
                                texts={"user_last_assistant": "<A>!"}),
              talk("a", "x</t>\n\ny", "b", "z</t>w"))
    chat_seed("system-last", marked(system_last=True, texts={"system_user": "\n\n"}, marks=["<s>"]),
              talk("a", "b", "c", system="s"))
    chat_seed("system-ignored", marked(system_ignored=True, marks=["<U>", "<tool>"]),
              talk("<tool>", system="s"))
    chat_seed("pieces", marked(texts={"start_user": "<turn><tool>", **turns,
                                      "assistant_end": "<turn|end>"}),
              talk("a<tool><turn><tools>  def", "b<tool>"))
    for name in ("chatml", "llama2", "zephyr"):
        chat_seed(name, name, talk("Who? <s>", "<|im_end|> A thief.", "Why?", system="Be brief."))


# ---- configs and models

def scaled(config, by):
    """The config of a model whose widths are so many times smaller, with a vocabulary of 16."""
    widths = ("hidden_size", "intermediate_size", "head_dim", "kv_lora_rank", "q_lora_rank",
              "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "moe_intermediate_size",
              "shared_expert_intermediate_size", "n_embd", "n_inner", "query_pre_attn_scalar")
    config = dict(config)
    for key in widths:
        if isinstance(config.get(key), int):
            config[key] = max(config[key] // by, 1)
    for key in [k for k in config if k.endswith("_token_id")]:
        config[key] = 1
    return {**config, "vocab_size": 16}


def shrink(array, config, by):
    experts = {config.get(k) for k in ("num_experts", "n_routed_experts", "num_local_experts")}
    for axis, size in enumerate(array.shape):
        keep = 16 if size == config["vocab_size"] else size if size in experts else size // by
        array = array.take(range(max(keep, 1)), axis)
    return array


def read_safetensors(path):
    data = path.read_bytes()
    length, = struct.unpack_from("<Q", data)
    header = json.loads(data[8:8 + length])
    for name, t in header.items():
        if name == "__metadata__" or t["dtype"] != "F32":
            continue
        begin, end = (8 + length + at for at in t["data_offsets"])
        yield name, np.frombuffer(data[begin:end], "<f4").reshape(t["shape"])


def opens(data):
    with tempfile.TemporaryDirectory() as tmp:
        path = Path(tmp) / "m.npz"
        path.write_bytes(data)
        words = [ROOT / "build/release/nibble", "generate", path, "--ids", "1 2", "-n", "2"]
        return subprocess.run(words, capture_output=True).returncode == 0


def family_seeds():
    for folder in sorted(p for p in GOLDEN.iterdir() if p.is_dir()):
        config = json.loads((folder / "config.json").read_text())
        seed("config", folder.name, json.dumps(config))
        for by in (8, 4):
            arrays = {name: shrink(a, config, by).astype("<f2")
                      for name, a in read_safetensors(folder / "model.safetensors")}
            data = npz({"config.json": file_array(scaled(config, by)), **arrays})
            if folder.name not in ALIKE and opens(data):
                seed("model", folder.name, data)
                break
    seed("config", "meta", json.dumps({"dim": 64, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2,
                                       "multiple_of": 32, "ffn_dim_multiplier": 1.3,
                                       "norm_eps": 1e-5, "vocab_size": -1, "rope_theta": 1e4}))


def affine(rows, cols, bits, group):
    return {"weight": rng.integers(0, 1 << 32, (rows, cols * bits // 32), dtype="u4"),
            "scales": rng.normal(0, 0.1, (rows, cols // group)).astype("<f2"),
            "biases": rng.normal(0, 0.1, (rows, cols // group)).astype("<f2")}


def quantized_seed():
    """A small llama in 4 bits with a tokenizer."""
    dim, hidden, vocab = 32, 32, 400
    config = {"model_type": "llama", "hidden_size": dim, "num_hidden_layers": 1,
              "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": hidden,
              "vocab_size": vocab, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
              "eos_token_id": [2, 3], "tie_word_embeddings": True,
              "quantization": {"bits": 4, "group_size": 32}}
    arrays = {"config.json": file_array(config),
              "tokenizer.model": file_array((TOKENIZERS / "bpe_bytes.model").read_bytes())}
    layer = {"self_attn.q_proj": dim, "self_attn.k_proj": dim // 2, "self_attn.v_proj": dim // 2,
             "self_attn.o_proj": dim, "mlp.gate_proj": hidden, "mlp.up_proj": hidden,
             "mlp.down_proj": dim}
    matrices = {"model.embed_tokens": vocab, **{f"model.layers.0.{k}": v for k, v in layer.items()}}
    for name, rows in matrices.items():
        arrays.update({f"{name}.{part}": a for part, a in affine(rows, dim, 4, 32).items()})
    for name in ("model.norm", "model.layers.0.input_layernorm",
                 "model.layers.0.post_attention_layernorm"):
        arrays[f"{name}.weight"] = np.ones(dim, "<f2")
    data = npz(arrays)
    if not opens(data):
        sys.exit("the quantized seed does not open")
    seed("model", "quantized", data)


# ---- files of a KV cache

def kv_seed(kv_type, n):
    """n tokens of the model in kv_file.c: two layers, two heads of 8, tiles of 64 positions."""
    dtype = {"f16": "<f2", "f32": "<f4", "q8": "|i1"}[kv_type]
    hashes = {name: f"{i:016x}" for i, name in enumerate(("weights", "config", "tokenizer"), 2)}
    text = {"format": "1", "build": "a build", **hashes, "kv_type": kv_type, "level": "scalar",
            "long_rope": False}
    arrays = {"cache.json": file_array(text), "ids": np.arange(n, dtype="<i4") * 7 % 32}
    for layer in range(2):
        shapes = {"keys": (2, -(-n // 64), 8, 64), "values": (2, n, 8)}
        planes = {name: rng.normal(0, 4, shape).astype(dtype) for name, shape in shapes.items()}
        if kv_type == "q8":
            planes.update({name: np.ones((2, n), "<f4") for name in ("key_scales", "value_scales")})
        arrays.update({f"layers.{layer}.{name}": a for name, a in planes.items()})
    seed("kv_file", f"{kv_type}-{n}", npz(arrays))


def kv_seeds():
    for kv_type, n in (("f16", 1), ("f16", 64), ("f16", 65), ("f16", 70), ("f32", 3), ("q8", 3),
                       ("q8", 65)):
        kv_seed(kv_type, n)


# ---- the command line

def args_seeds():
    lines = ["model.npz -p text -n 5 --temp 0.7 --top-k=3 --logit-bias 3=-inf --stop x -s 1",
             "model -p 1,2 -n 3 -d 0,5 -t 1,2 -r 3 --format csv", "in out.npz --bits 4 --mixed",
             "model --ids 1,2 -o out.npy --level scalar --kv-type q8 --blas", "--help", "-- -x",
             "model 1 2 3"]
    for i, line in enumerate(lines):
        seed("args", f"line-{i}", "".join(word + "\0" for word in line.split(" ")))


def main():
    for path in CORPUS.glob("*/*"):
        if not path.name.startswith("found-"):
            path.unlink()
    for make in (array_seeds, safetensors_seeds, tokenizer_seeds, chat_seeds, family_seeds,
                 quantized_seed, kv_seeds, args_seeds):
        make()
    sizes = [p.stat().st_size for p in CORPUS.glob("*/*")]
    print(f"{len(sizes)} seeds, {sum(sizes) / 1000:.0f} kB")


if __name__ == "__main__":
    main()
