"""What config.json says: whether nibble runs such a model, and the spelling it is written in."""
import copy
import json
import os
import re
from pathlib import Path

from checkpoint import Failure

# What nibble runs, as src/model/arch.c and src/model/spec.c list it. The lists are repeated here so
# that a model is refused before it is copied, also where no nibble has been built;
# tests/cli/test_convert_config.py compares them with the sources.
FAMILIES = ("llama", "mistral", "ministral3", "mixtral", "llama4_text", "gemma", "gemma2",
            "gemma3_text", "phi", "phi3", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "olmo",
            "olmo2", "olmo3", "olmoe", "gpt2", "gpt_neox", "falcon", "stablelm", "starcoder2",
            "smollm3", "granite", "cohere", "cohere2", "glm4", "exaone4", "deepseek_v2",
            "deepseek_v3", "gpt_oss")
ROPE_KINDS = ("default", "linear", "llama3", "yarn", "longrope", "su")
ACTIVATIONS = ("silu", "gelu", "gelu_pytorch_tanh", "relu", "relu2", "swish", "gelu_new",
               "gelu_tanh", "gelu_fast")
MODES = ("affine", "mxfp4")  # of MLX's quantization

ACTIVATION_KEYS = ("hidden_activation", "hidden_act", "activation_function", "activation")
ROPE_TYPE_KEYS = ("rope_parameters.rope_type", "rope_parameters.full_attention.rope_type",
                  "rope_scaling.rope_type", "rope_parameters.type", "rope_scaling.type")
META = {"dim": "hidden_size", "n_layers": "num_hidden_layers", "n_heads": "num_attention_heads",
        "n_kv_heads": "num_key_value_heads", "hidden_dim": "intermediate_size",
        "norm_eps": "rms_norm_eps", "max_seq_len": "max_position_embeddings"}

CONVERTER = 1  # goes up when the same input begins to give another file


def find(config, path):
    """The value at a dotted path, None if it is not there."""
    for key in path.split("."):
        config = config.get(key) if isinstance(config, dict) else None
    return config


def text_of(config):
    """What is said of the model of text: where it sees images too, in an object of its own."""
    text = config.get("text_config")
    return text if isinstance(text, dict) else config


# ---- what nibble cannot run is refused before the work, not after

def is_meta(config):
    """Written as Meta does, which leaves the family unsaid."""
    return config.get("hidden_size") is None and config.get("dim") is not None


def family_of(config):
    family = config.get("model_type")
    return "llama" if family is None and is_meta(config) else family


def refuse_unless(path, key, value, known):
    if value not in known:
        raise Failure(f"{path}: {key} is {json.dumps(value)[:60]}, which nibble does not run; "
                      f"it runs {', '.join(known)}")


def check_config(path, config):
    check_quantization(path, config)
    config = text_of(config)
    family = family_of(config)
    if family not in FAMILIES:
        raise Failure(f"{path} has the model_type {json.dumps(family)[:60]}, which nibble does not "
                      f"run; it runs {', '.join(FAMILIES)}")
    for key in ACTIVATION_KEYS:
        if config.get(key) is not None:
            refuse_unless(path, key, config[key], ACTIVATIONS)
    check_rope(path, config)


def check_rope(path, config):
    for group in ("rope_scaling", "rope_parameters"):
        if not isinstance(config.get(group, {}), (dict, type(None))):
            raise Failure(f"{path}: {group} should be an object or null")
    for key in ROPE_TYPE_KEYS:
        kind = find(config, key)
        if kind is not None:
            refuse_unless(path, key, kind, ROPE_KINDS)
    scaling = config.get("rope_scaling")
    if scaling is not None and scaling.get("rope_type") is None and scaling.get("type") is None:
        raise Failure(f"{path}: rope_scaling does not say its rope_type; nibble runs "
                      f"{', '.join(ROPE_KINDS)}")
    local = "rope_parameters.sliding_attention.rope_type"
    if find(config, local) is not None:
        refuse_unless(path, local, find(config, local), ROPE_KINDS[:1])


def check_quantization(path, config):
    """MLX repeats its own "quantization" as "quantization_config"; any other is foreign, but for
    the one of gpt-oss, whose matrices carry all that there is to know."""
    mlx = config.get("quantization") or {}
    modules = [mlx, *(mlx.values() if isinstance(mlx, dict) else ())]
    modes = [m.get("mode", "affine") for m in modules if isinstance(m, dict)] or [mlx]
    for mode in modes:
        if mode not in MODES:
            raise Failure(f"{path} has the quantization mode {json.dumps(mode)[:60]}; nibble reads "
                          f"{' and '.join(MODES)} only")
    for key in ("quantization_config", "compression_config"):
        foreign = config.get(key)
        if foreign and foreign != mlx and find(foreign, "quant_method") != "mxfp4":
            method = foreign.get("quant_method") if isinstance(foreign, dict) else foreign
            raise Failure(f"{path} has a {key} with quant_method {json.dumps(method)[:60]}, which "
                          "nibble does not read; convert the unquantized model, with --bits")


# ---- one spelling

def without_nulls(config):
    return {key: value for key, value in config.items() if value is not None}


def first(*values):
    return next((value for value in values if value is not None), None)


def take_text(config):
    """The model of text alone. It ends where either object says."""
    text, outer = text_of(config), without_nulls(config)
    if text is config:
        return outer
    kept = {key: outer[key] for key in ("quantization", "quantization_config", "bos_token_id")
            if key in outer}
    ends = [one for c in (text, outer) if c.get("eos_token_id") is not None
            for one in (c["eos_token_id"] if isinstance(c["eos_token_id"], list)
                        else [c["eos_token_id"]])]
    return {**without_nulls(text), **kept, **({"eos_token_id": sorted(set(ends))} if ends else {})}


def rename_meta(config):
    """Hugging Face's names for what Meta calls otherwise."""
    if not is_meta(config):
        return config
    return {"model_type": "llama", **{META.get(key, key): v for key, v in config.items()}}


def merge_rope(config):
    """All about RoPE in one object, as nibble would find it: the newer spelling has it in
    rope_parameters, or in one object for each kind of layer there, the older in rope_scaling."""
    kind = first(*(find(config, key) for key in ROPE_TYPE_KEYS))
    newer = config.pop("rope_parameters", {})
    full, local = (find(newer, key) if isinstance(find(newer, key), dict) else {}
                   for key in ("full_attention", "sliding_attention"))
    merged = {}
    for one in (config.pop("rope_scaling", {}), full, newer):
        merged.update(without_nulls(one))
    for key in ("type", "full_attention", "sliding_attention"):
        merged.pop(key, None)
    if kind is not None:
        merged["rope_type"] = "longrope" if kind == "su" else kind
    return merged, local


def respell_rope(config):
    """Into the spelling that most published checkpoints have: rope_theta, partial_rotary_factor,
    rope_local_base_freq and, with longrope, original_max_position_embeddings by themselves, the
    rest in rope_scaling if there is any."""
    scaling, local = merge_rope(config)
    context = "original_max_position_embeddings"
    if scaling.get("rope_type") == "longrope" and context in scaling:
        config[context] = scaling.pop(context)
    by_itself = {
        "rope_theta": (config.get("rope_theta"), config.pop("rotary_emb_base", None),
                       scaling.pop("rope_theta", None)),
        "partial_rotary_factor": (scaling.pop("partial_rotary_factor", None),
                                  config.get("partial_rotary_factor"),
                                  config.pop("rotary_pct", None)),
        "rope_local_base_freq": (config.get("rope_local_base_freq"), local.get("rope_theta")),
    }
    for key, values in by_itself.items():
        if first(*values) is not None:
            config[key] = first(*values)
    if set(scaling) - {"rope_type"} or scaling.get("rope_type", "default") != "default":
        config["rope_scaling"] = {"rope_type": "default", **scaling}


def respell(config):
    """The same model whatever its config looked like: what says nothing is left out."""
    config = rename_meta(take_text(copy.deepcopy(config)))
    respell_rope(config)
    if config.get("quantization") and config.get("quantization_config") == config["quantization"]:
        del config["quantization_config"]
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", str(config.get("_name_or_path", "a/b"))):
        del config["_name_or_path"]  # a path on the machine of whoever saved it
    return config


# ---- where it came from

def source_of(path, form):
    """The name of the input, without the folders it lies in, and of one that is split without the
    number of the part. A folder in Hugging Face's cache has a hash for a name, its own above."""
    path = Path(os.path.abspath(path))
    name = re.sub(r"-\d{5}-of-\d{5}(?=\.gguf$)", "", path.name)
    name = name.encode("utf-8", "replace").decode()
    cache = path.parent.parent.name
    if path.parent.name == "snapshots" and cache.startswith("models--"):
        owned = cache.removeprefix("models--").replace("--", "/", 1)
        return {"format": form, "name": owned, "revision": name}
    return {"format": form, "name": name}


def config_bytes(path, config, source):
    """config.json as it is written; source is for its note of where the model came from."""
    config = {**respell(config), "nibble": {"converter": CONVERTER, "source": source}}
    try:
        return (json.dumps(config, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()
    except ValueError as e:
        raise Failure(f"{path} holds a number beyond all floating types; correct it") from e
