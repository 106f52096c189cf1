#!/usr/bin/python3
"""scripts/convert.py and config.json: what it lets pass nibble runs; one spelling comes out.

    tests/cli/test_convert_config.py [--build DIR] [WORD...]   some tests need DIR/nibble
"""
import json
import re
import sys

from golden import FOLDERS, copy_of, spellings
from harness import ROOT, main
from hf_models import LLAMA, check_refused, config_of, convert, make_folder, script
import model_config
from models import Tiny

# ---- the converter's lists and nibble's


def source(path):
    return (ROOT / "src" / path).read_text()


def words_of(text, name):
    """The strings of a C array."""
    return re.findall(r'"([^"]*)"', re.search(rf"\b{name}\[\] = {{(.*?)}};", text, re.S)[1])


def test_families_are_those_of_nibble(tmp, nibble):
    known = re.findall(r'\.model_type = "(\w+)"', source("model/arch.c"))
    assert list(model_config.FAMILIES) == known and len(known) >= 30
    err = nibble.refuses("info", Tiny().save(tmp / "m.npz", config={"model_type": "x"}))
    assert err.strip().endswith("nibble runs " + ", ".join(model_config.FAMILIES)), err


def test_words_are_those_of_nibble(tmp):
    spec = source("model/spec.c")
    assert list(model_config.ROPE_KINDS) == words_of(spec, "spec_rope_kinds")
    activations = words_of(spec, "spec_activations")  # one of them is of a family, not of a file
    assert list(model_config.ACTIVATIONS) == [word for word in activations if " " not in word]


def test_keys_are_those_of_nibble(tmp):
    spec = source("model/spec.def")
    for ours, keys in (("activation", model_config.ACTIVATION_KEYS),
                       ("rope_kind", model_config.ROPE_TYPE_KEYS)):
        row = re.search(rf"SPEC_CHOICE\({ours},(.*?),\s+spec_\w+\)", spec, re.S)[1]
        for name in re.findall(r'ROPE\("(\w+)"\)', row):
            row = row.replace(f'ROPE("{name}")', '"{0}.{2} {0}.full_attention.{2} {1}.{2}"'.format(
                "rope_parameters", "rope_scaling", name))
        assert " ".join(re.findall(r'"([^"]*)"', row)).split() == list(keys), row
    rows = [row.split() for row in re.findall(r'SPEC_\w+\(\w+,\s*"([^"]*)"', spec)]
    for meta, name in model_config.META.items():
        assert [row for row in rows if meta in row and name in row], (meta, name)


def test_tables_are_those_of_nibble(tmp):
    known = words_of(source("model/weights.c"), "ends")
    assert len(known) == len(script.TABLES)
    assert all(any(end.endswith(name) for name in known) for end in script.TABLES), known


def test_refused_as_nibble_does(tmp, nibble):
    """Before the work, and with the same list: what nibble itself says of the folder as it is."""
    for i, changes in enumerate(({"model_type": "mamba"}, {"hidden_act": "mish"},
                                 {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}})):
        m = Tiny()
        config = {**m.config, **changes}
        err = nibble.refuses("info", m.save(tmp / "m.npz", config=config))
        check_refused(make_folder(tmp / f"m{i}", None, config),
                      re.search(r"nibble runs (.*)", err)[1].replace(", clamped swiglu", ""))


# ---- one spelling

ROPE = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192}
SPELLINGS = [  # what comes out, and what it may be made of
    ({"rope_theta": 5e5}, {"rope_theta": 5e5}, {"rope_theta": 5e5, "rope_scaling": None},
     {"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}}, {"rotary_emb_base": 5e5},
     {"rope_theta": 5e5, "rope_scaling": {"type": "default"}},
     {"rope_theta": 5e5, "rope_parameters": {"rope_theta": 1e4}}),
    ({"rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", **ROPE}},
     {"rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", **ROPE}},
     {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, **ROPE}},
     {"rope_theta": 5e5, "rope_scaling": {"type": "llama3", "rope_type": None, **ROPE}},
     {"rope_theta": 5e5, "rope_scaling": {"type": "linear", "rope_type": "llama3", **ROPE}},
     {"rope_parameters": {"full_attention": {"rope_type": "llama3", "rope_theta": 5e5, **ROPE}}}),
    ({"rope_scaling": {"rope_type": "longrope", "short_factor": [1.5], "long_factor": [2]}},
     {"rope_scaling": {"type": "su", "short_factor": [1.5], "long_factor": [2]}},
     {"rope_parameters": {"rope_type": "longrope", "short_factor": [1.5], "long_factor": [2]}}),
    ({"rope_scaling": {"rope_type": "longrope"}, "original_max_position_embeddings": 16},
     {"rope_scaling": {"type": "longrope"}, "original_max_position_embeddings": 16},
     {"rope_parameters": {"type": "su", "original_max_position_embeddings": 16},
      "original_max_position_embeddings": 32}),
    ({"rope_theta": 1e4, "partial_rotary_factor": 0.25},
     {"rotary_emb_base": 1e4, "rotary_pct": 0.25},
     {"rope_parameters": {"partial_rotary_factor": 0.25, "rope_theta": 1e4}},
     {"rope_theta": 1e4, "partial_rotary_factor": 0.25, "rotary_pct": 0.5}),
    ({"rope_theta": 1e6, "rope_local_base_freq": 1e4},
     {"rope_theta": 1e6, "rope_local_base_freq": 1e4},
     {"rope_parameters": {"full_attention": {"rope_theta": 1e6, "rope_type": "default"},
                          "sliding_attention": {"rope_theta": 1e4, "rope_type": "default"}}}),
    ({"rope_scaling": {"rope_type": "default", "llama_4_scaling_beta": 0.1}},
     {"rope_parameters": {"llama_4_scaling_beta": 0.1}}),
    ({"quantization": {"group_size": 64, "bits": 4}},
     {"quantization": {"group_size": 64, "bits": 4},
      "quantization_config": {"group_size": 64, "bits": 4}}),
    ({}, {}, {"sliding_window": None}, {"_name_or_path": "./out"}, {"_name_or_path": ""}),
    ({"_name_or_path": "a-b/C_1.5"}, {"_name_or_path": "a-b/C_1.5"}),
]
OUTER = {"model_type": "gemma3", "vision_config": {"hidden_size": 9}, "bos_token_id": 2,
         "eos_token_id": [1, 106], "hidden_size": None, "num_hidden_layers": None,
         "quantization": {"group_size": 64, "bits": 4}}
TEXT = {**LLAMA, "eos_token_id": 1, "bos_token_id": 3, "rope_parameters": {"rope_theta": 1e6}}


def test_one_spelling(tmp):
    count = 0
    for want, *spelled in SPELLINGS:
        for changes in spelled:
            count += 1
            arrays, _ = convert(make_folder(tmp / f"m{count}", **changes))
            got = config_of(arrays)
            assert got == {**LLAMA, **want}, (changes, got)
    text = arrays["config.json"].tobytes().decode("ascii")
    assert text == json.dumps(json.loads(text), indent=2, sort_keys=True) + "\n"


def test_the_model_of_text_alone(tmp):
    config = {"text_config": TEXT, **OUTER}
    assert config_of(convert(make_folder(tmp / "m", None, config))[0]) == {
        **LLAMA, "rope_theta": 1e6, "bos_token_id": 2, "eos_token_id": [1, 106],
        "quantization": OUTER["quantization"]}
    for words, inner, outer in (('model_type "gemma3n_text"', {"model_type": "gemma3n_text"}, {}),
                                ('hidden_act is "mish"', {"hidden_act": "mish"}, {}),
                                ('"fp8"', {}, {"quantization_config": {"quant_method": "fp8"}})):
        config = {**OUTER, **outer, "text_config": {**TEXT, **inner}}
        check_refused(make_folder(tmp / words.strip('"')[-9:], None, config), words)


def spec_of(nibble, model):
    """Every number of it, as nibble info prints them."""
    text = nibble("info", "--all", model).decode()
    names = re.findall(r"^SPEC_\w+\((\w+),", source("model/spec.def"), re.M)
    return {name: re.search(rf"^  {name} +(.*)$", text, re.M)[1] for name in names}


def test_nibble_reads_the_same(tmp, nibble):
    """Every number, from the folder as it is and from what is made of it."""
    for folder, config in spellings():
        name = f"{folder.name}-{config}"
        model = copy_of(folder, tmp / name, config)
        convert(model)
        want, got = spec_of(nibble, model), spec_of(nibble, tmp / f"{name}.npz")
        assert len(want) > 20 and want == got, (name, want.items() ^ got.items())


def test_both_spellings_become_one(tmp):
    """But for what the older spelling leaves to the family: which layers have a window."""
    left = {"layer_types", "sliding_window_pattern", "_sliding_window_pattern", "head_dim",
            "qk_head_dim", "dtype", "torch_dtype", "transformers_version"}
    for folder in FOLDERS:
        names = [config for path, config in spellings() if path == folder]
        configs = [config_of(convert(copy_of(folder, tmp / folder.name / name, name))[0])
                   for name in names]
        for config in configs:
            assert "rope_parameters" not in config
            assert {**config, **dict.fromkeys(left)} == {**configs[0], **dict.fromkeys(left)}, names


def test_where_it_came_from(tmp):
    cache = tmp / "models--meta-llama--Llama-3.2-1B" / "snapshots"
    cache.mkdir(parents=True)
    for folder, want in (
            (tmp / "Tiny-1.5", {"format": "safetensors", "name": "Tiny-1.5"}),
            (cache / "0a1b", {"format": "safetensors", "name": "meta-llama/Llama-3.2-1B",
                              "revision": "0a1b"})):
        arrays, _ = convert(make_folder(folder, nibble={"source": "somewhere else"}))
        config = json.loads(arrays["config.json"].tobytes())
        assert config["nibble"] == {"converter": model_config.CONVERTER, "source": want}
        assert str(tmp) not in json.dumps(config)


def test_a_name_that_is_no_text(tmp, nibble):
    """A file's name may be any bytes; the config is JSON that nibble reads all the same."""
    m = Tiny()
    folder = make_folder(tmp / "m\udcff\u00e9", None, m.config)
    config = json.loads(convert(folder)[0]["config.json"].tobytes())
    assert config["nibble"]["source"]["name"] == "m?\u00e9"
    assert nibble("info", m.save(tmp / "n.npz", config=config))


def test_numbers_beyond_all(tmp):
    folder = make_folder(tmp / "m")
    (folder / "config.json").write_text(json.dumps(LLAMA).replace("}", ', "rope_theta": 1e999}'))
    check_refused(folder, "beyond all floating types")


if __name__ == "__main__":
    sys.exit(main(globals()))
