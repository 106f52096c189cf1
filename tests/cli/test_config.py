#!/usr/bin/python3
"""config.json: numbers that make no model, kinds that are not supported, files that are no JSON."""
import json
import os
import resource
import sys

import numpy as np

from harness import FAIRYTALE, main
from models import META, Tiny

HUGE = 10 ** 30


def refused(nibble, model, tmp, config, says):
    path = model.save(tmp / "m.npz", config=config)
    return nibble.refuses("generate", path, "-p", "x", "-n", "1", says=says)


def raw(model, name, text):
    """The config as text with one value written as given, valid JSON or not."""
    config = json.dumps({**model.config, name: "@"})
    return config.replace('"@"', text)


# ---- one number after another

def test_sizes(tmp, nibble):
    hf, meta = Tiny(), Tiny(META)
    required = ["hidden_size", "num_hidden_layers", "num_attention_heads"]
    sizes = required + ["num_key_value_heads", "head_dim", "intermediate_size", "vocab_size",
                        "max_position_embeddings"]
    for name in sizes:
        for value in (0, -2, 1.5, "64", HUGE, 2 ** 31, 2 ** 63, [64], [[64]], {"a": 1}, True):
            if name == "vocab_size" and value == 0:  # how Meta says nothing, like -1
                continue
            refused(nibble, hf, tmp, {**hf.config, name: value}, name)
    for name in ("dim", "n_layers", "n_heads", "n_kv_heads", "norm_eps"):
        for value in (-1, "x", HUGE, []):
            refused(nibble, meta, tmp, {**meta.config, name: value}, name)
    for name in [*required, "rms_norm_eps"]:
        config = {key: value for key, value in hf.config.items() if key != name}
        refused(nibble, hf, tmp, config, [name, "does not say"])
        refused(nibble, hf, tmp, {**hf.config, name: None}, [name, "does not say"])


def test_numbers_that_json_has_not(tmp, nibble):
    model = Tiny()
    for name in ("hidden_size", "rms_norm_eps", "rope_theta", "eos_token_id"):
        refused(nibble, model, tmp, raw(model, name, "1e999"), name)
        refused(nibble, model, tmp, raw(model, name, "-1e999"), name)
        for text in ("NaN", "Infinity", "1.2.3", "--1", "0x10", "", "1e", "'1'"):
            refused(nibble, model, tmp, raw(model, name, text), "JSON")
    refused(nibble, model, tmp, raw(model, "hidden_size", "1" * 5000), "hidden_size")
    for text in ("64.0", "6.4e1", "64"):
        path = model.save(tmp / "m.npz", config=raw(model, "hidden_size", text))
        nibble("generate", path, "-p", "x", "-n", "1")


def test_reals(tmp, nibble):
    model = Tiny()
    for name, values in {"rms_norm_eps": (-1e-5, 2, "1e-5", [1e-5]),
                         "rope_theta": (0, -1, 1e20, "10000", [1])}.items():
        for value in values:
            refused(nibble, model, tmp, {**model.config, name: value}, name)


def test_sizes_that_do_not_agree(tmp, nibble):
    model = Tiny()
    for change, says in (({"num_key_value_heads": 3}, "cannot share"),
                         ({"num_key_value_heads": 8}, "cannot share"),
                         ({"head_dim": None, "num_attention_heads": 5,
                           "num_key_value_heads": 5}, "do not divide"),
                         ({"head_dim": 15}, "even"), ({"vocab_size": 399}, "expected [399, 64]"),
                         ({"vocab_size": 401}, "expected [401, 64]"),
                         ({"hidden_size": 128}, "expected [128]"),
                         ({"intermediate_size": 64}, "expected [64, 64]"),
                         ({"num_hidden_layers": 1}, "no place for"),
                         ({"num_hidden_layers": 3}, "model.layers.2."),
                         ({"tie_word_embeddings": "yes"}, "tie_word_embeddings"),
                         ({"hidden_act": "quick_gelu"}, ["quick_gelu", "silu"]),
                         ({"hidden_act": 3}, "hidden_act")):
        refused(nibble, model, tmp, {**model.config, **change}, says)


# ---- kinds

def test_model_types(tmp, nibble):
    model = Tiny()
    for value, says in (("mamba", ["'mamba'", "llama"]), ("", "''"), ("x" * 500, "llama"),
                        (None, "does not say model_type"), (7, "model_type"),
                        ("a\n\x1b[2J", "llama"), (["llama"], "model_type")):
        refused(nibble, model, tmp, {**model.config, "model_type": value}, says)
    meta = Tiny(META)
    del meta.config["model_type"]
    nibble("generate", meta.save(tmp / "n.npz"), "-p", "x", "-n", "1")


def test_text_model_inside(tmp, nibble):
    """A model that sees images: its text model answers as it does alone; the rest is left alone."""
    model = Tiny()
    words = ("--ids", "5 6 7 8", "--kv-type", "f32", "-o")
    nibble("logits", model.save(tmp / "alone.npz"), *words, tmp / "want.npy")
    config = {"model_type": "sees", "vision_config": {"hidden_size": 3},
              "text_config": model.config}
    for prefix, output in (("language_model.model.", "language_model.lm_head.weight"),
                           ("model.language_model.", "lm_head.weight")):
        arrays = {name.replace("model.", prefix, 1) if name.startswith("model.") else output: array
                  for name, array in model.arrays("<f4").items()}
        arrays["vision_tower.patch.weight"] = np.ones((3, 3), "<f4")
        path = model.save(tmp / "m.npz", arrays=arrays, config=config)
        nibble("logits", path, *words, tmp / "got.npy")
        assert (np.load(tmp / "got.npy") == np.load(tmp / "want.npy")).all(), prefix
        arrays[prefix + "extra.weight"] = np.ones((3, 3), "<f4")
        nibble.refuses("generate", model.save(tmp / "m.npz", arrays=arrays, config=config), "-p",
                       "x", says="extra.weight", code=1)
    refused(nibble, model, tmp, {"model_type": "sees", "text_config": {"model_type": "hears"}},
            "'hears' is not supported")


def test_rope_types(tmp, nibble):
    model = Tiny()
    known = ["default", "linear", "llama3", "yarn", "longrope"]
    for value in ("dynamic", "proportional", "", 3, ["linear"]):
        for section in ("rope_scaling", "rope_parameters"):
            for key in ("type", "rope_type"):
                refused(nibble, model, tmp, {**model.config, section: {key: value, "factor": 2.0}},
                        [f"{section}.{key}", *known])
    for section, says in (({"type": "linear"}, "needs a factor"),
                          ({"type": "longrope"}, "short_factor must be a list of 8 numbers"),
                          ({"type": "su", "short_factor": [1] * 8, "long_factor": [1] * 9},
                           "long_factor must be a list of 8 numbers"),
                          ({"type": "longrope", "short_factor": [1] * 7 + [0]}, "short_factor.7"),
                          ({"type": "linear", "factor": 0.5}, "factor"),
                          ({"type": "linear", "factor": "2"}, "factor"),
                          ({"type": "llama3", "factor": 8.0}, "low_freq_factor"),
                          ({"type": "llama3", "factor": 8.0, "low_freq_factor": 4.0,
                            "high_freq_factor": 1.0}, "high_freq_factor"),
                          ({"type": "yarn"}, "needs a factor")):
        refused(nibble, model, tmp, {**model.config, "rope_scaling": section}, says)
    for section in ({"type": "linear", "factor": 2}, {"rope_type": "default"}, None,
                    {"type": "yarn", "factor": 4.0},
                    {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                     "high_freq_factor": 4.0, "original_max_position_embeddings": 64}):
        path = model.save(tmp / "m.npz", config={**model.config, "rope_scaling": section})
        nibble("generate", path, "-p", "x", "-n", "1")


# ---- JSON

def test_what_is_no_json(tmp, nibble):
    model = Tiny()
    good = json.dumps(model.config)
    for text in ("", "{", "hello", good[:-1], "{'a': 1}", '{"a": "\\', "\0", "\ufffe",
                 '{"a": "\\u12"}', good.replace(":", "", 1), '{"a": %s}' % ("[" * 100000)):
        refused(nibble, model, tmp, text, "JSON" if text else "config.json")
    for text in ("[]", "3", '"config"', "null", "true", f"[{good}]"):
        refused(nibble, model, tmp, text, "not a JSON object")
    refused(nibble, model, tmp, b'{"a": "\xff", "model_type": "\xff"}', "not UTF-8")
    folder = model.save_folder(tmp / "f")
    (folder / "config.json").write_text("{")
    nibble.refuses("info", folder, says=str(folder / "config.json"))


def test_a_byte_order_mark_is_fine(tmp, nibble):
    model = Tiny()
    path = model.save(tmp / "m.npz", config="\ufeff" + json.dumps(model.config))
    nibble("generate", path, "-p", "x", "-n", "1")


def test_configs_beside(tmp, nibble):
    folder = Tiny().save_folder(tmp / "f")
    for name in ("generation_config.json", "tokenizer_config.json"):
        for text in ("{", "[]", "hello"):
            (folder / name).write_text(text)
            nibble.refuses("generate", folder, "-p", "x", says=name)
        (folder / name).unlink()
    (folder / "generation_config.json").write_text('{"eos_token_id": [5, 6, "x"]}')
    nibble.refuses("generate", folder, "-p", "x", says="eos_token_id")


def test_deep_nesting_and_long_strings(tmp, nibble):
    model = Tiny()
    refused(nibble, model, tmp, raw(model, "x", "[" * 5000 + "]" * 5000), "JSON")
    more = {"x": "y" * 3000000, "z": [[[]]] * 9999}
    path = model.save(tmp / "m.npz", config={**model.config, **more})
    nibble("generate", path, "-p", "x", "-n", "1")


# ---- memory

def test_contexts_beyond_memory(tmp, nibble):
    model = Tiny(heads=64, kv_heads=64, head_dim=512, layers=1)
    path = model.save(tmp / "m.npz", "<f2")
    nibble.refuses("generate", path, "-p", "x", "-c", 1 << 26, says=["--ctx-size", "MB"])
    if nibble.path.parent.name == "tsan":  # which fills four times the memory that is mapped
        return
    model = Tiny(context=1 << 26)
    got = nibble.json("generate", model.save(tmp / "m.npz"), "-p", "x", "-n", "1")
    assert got["versions"]["context"] <= 1 << 26


def test_little_address_space(tmp, nibble):
    if nibble.sanitized:
        return
    limit = lambda: resource.setrlimit(resource.RLIMIT_AS, (300 << 20, 300 << 20))
    env = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # its threads wait for memory for ever
    want = nibble("generate", FAIRYTALE, "-p", "x", "-n", "9", "--temp", "0")
    assert nibble("generate", FAIRYTALE, "-p", "x", "-n", "9", "--temp", "0", preexec_fn=limit,
                  env=env) == want
    nibble.refuses("generate", FAIRYTALE, "-p", "x", "-c", "100000", says=["available", "MB"],
                   preexec_fn=limit, env=env)
    nibble.refuses("generate", FAIRYTALE, "-p", "x", "-t", "256", says="thread", preexec_fn=limit,
                   env=env)


def test_model_type_that_is_no_text(tmp, nibble):
    model = Tiny(META)
    for value in (3, ["mixtral"], {"a": 1}, True):
        refused(nibble, model, tmp, {**model.config, "model_type": value}, "model_type")


def test_rope_that_is_not_understood(tmp, nibble):
    model = Tiny()
    for value in ("yarn", ["yarn"], 2, True):
        refused(nibble, model, tmp, {**model.config, "rope_scaling": value}, "rope_scaling")
        refused(nibble, model, tmp, {**model.config, "rope_parameters": value}, "rope_parameters")
    refused(nibble, model, tmp, {**model.config, "rope_scaling": {"factor": 2.0}}, "rope_type")
    refused(nibble, model, tmp, {**model.config, "partial_rotary_factor": 1.5},
            "partial_rotary_factor")


def test_text_after_the_object(tmp, nibble):
    model = Tiny()
    text = json.dumps(model.config)
    for tail in ("}", "x", " {}", ","):
        refused(nibble, model, tmp, text + tail, "JSON")
    nibble("generate", model.save(tmp / "m.npz", config=text + " \n\t"), "-p", "x", "-n", "1")


if __name__ == "__main__":
    sys.exit(main(globals()))
