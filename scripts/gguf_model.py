"""The config and the tensors of a model from the metadata and the tensors of its GGUF file."""
import math
import re

import numpy as np

from checkpoint import Failure
from gguf_arch import ARCHITECTURES
from gguf_blocks import all_values, minus_one, take_rows

MAX_FACTORS = 1 << 14   # of rope, one for each pair of a head's dimensions
MAX_FACTOR, MAX_CONTEXT = 1e6, 1 << 26  # as nibble has them
MAX_SIZES = {"block_count": 4096, "attention.head_count": 4096}  # as nibble has them
MAX_EXPERTS = 4096

# Keys that say nothing about the equations, or what is said elsewhere too.
NO_EFFECT = {"vocab_size", "tensor_data_layout", "attention.layer_norm_epsilon",
             "attention.layer_norm_rms_epsilon", "rope.scaling.finetuned",
             "rope.scaling.original_context_length", "pooling_type", "expert_feed_forward_length",
             "expert_shared_feed_forward_length"}


class Model:
    """The file while it is converted: what was asked for counts as understood."""

    def __init__(self, path, name, metadata, tensors):
        self.path, self.name, self.metadata, self.tensors = path, name, metadata, dict(tensors)
        self.config, self.asked = {}, set()

    def fail(self, why):
        raise Failure(f"{self.path} {why}")

    def get(self, key, absent=None):
        self.asked.add(key)
        return self.metadata.get(f"{self.name}.{key}", absent)

    def number(self, key, absent=None):
        """A finite number, or truth value; one for each layer will do if all are the same."""
        value = self.get(key, absent)
        if isinstance(value, np.ndarray) and value.size and (value == value[0]).all():
            value = value[0].item()
        if value is None and absent is None:
            return None
        if not isinstance(value, (bool, int, float)) or not math.isfinite(value):
            self.fail(f"has the metadata {self.name}.{key}, which should be one number for all "
                      "layers, so it has no converter here")
        return value

    def whole(self, key, absent=None):
        value = self.number(key, absent)
        if value is not None and (type(value) is not int or not 0 <= value < 1 << 31):
            self.fail(f"has the metadata {self.name}.{key} {value}, which should be a size")
        return value

    def needs(self, key):
        size = self.whole(key)
        if not size or size > MAX_SIZES.get(key, size):
            self.fail(f"should have a size as {self.name}.{key} in its metadata, where it has "
                      f"{size}; download it again")
        return size

    def text(self, key, absent):
        value = self.get(key, absent)
        if not isinstance(value, str):
            self.fail(f"has the metadata {self.name}.{key}, which should be text")
        return value

    def holds(self, part):
        return any(name.endswith(f".{part}") for name in self.tensors)

    def layers(self):
        return self.config["num_hidden_layers"]

    def head_dim(self):
        config = self.config
        return (self.whole("attention.key_length")
                or max(1, config["hidden_size"] // config["num_attention_heads"]))


# ---- rope

def factors(model, name):
    """The numbers of one of the tensors that scale frequencies; it is taken from the model."""
    array = model.tensors.pop(name, None)
    if array is None:
        return None
    if len(array.shape) != 1 or array.shape[0] > MAX_FACTORS:
        model.fail(f"has {name} of the shape {array.shape}, which should be one number for each "
                   "pair of dimensions")
    values = all_values(array).astype("f8")
    if not np.isfinite(values).all() or not (values > 0).all():
        model.fail(f"has numbers in {name} that scale nothing; download it again")
    return values


def llama3_factors(turns, factor, original):
    """By what rope_type llama3 divides frequencies that turn so often at each position: those that
    turn less than once in the original context by the factor, those that do more than four times
    by 1, and those in between by a blend of both."""
    smooth = np.clip((original * turns - 1) / (4 - 1), 0, 1)
    return 1 / ((1 - smooth) / factor + smooth)


def original_context(values, turns, factor):
    """What the file does not say, from the divisor that is the most even blend; 8192 in most."""
    smooth = (1 / values - 1 / factor) / (1 - 1 / factor)
    even = np.abs(smooth - 0.5).argmin()
    with np.errstate(over="ignore", divide="ignore"):
        return round(min((1 + 3 * smooth[even]) / turns[even], MAX_CONTEXT))


def llama3(model, values):
    factor, dim, theta = values.max(), model.head_dim(), model.config["rope_theta"]
    found = []
    if len(values) == dim // 2 and theta >= 1 and 1 < factor <= MAX_FACTOR:
        turns = theta ** (-np.arange(0, dim, 2) / dim) / (2 * math.pi)
        found = [context for context in (8192, original_context(values, turns, factor))
                 if np.allclose(values, llama3_factors(turns, factor, context), rtol=1e-4, atol=0)]
    if not found:
        model.fail("scales its frequencies (rope_freqs.weight) by other numbers than Llama 3 does, "
                   "so it has no converter here")
    return {"rope_type": "llama3", "factor": float(factor), "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": found[0]}


def longrope(model, long, short):
    pairs = model.whole("rope.dimension_count", model.head_dim()) // 2
    if short is None or long is None or len(long) != pairs or len(short) != pairs:
        model.fail(f"should have {pairs} numbers in rope_factors_long.weight and in "
                   "rope_factors_short.weight; download it again")
    model.get("rope.scaling.attn_factor")  # follows from the two contexts
    return {"rope_type": "longrope", "long_factor": [float(f"{v:.7g}") for v in long],
            "short_factor": [float(f"{v:.7g}") for v in short]}


def yarn(model, scaling):
    original = model.needs("rope.scaling.original_context_length")
    scaling["original_max_position_embeddings"] = original
    for key in ("beta_fast", "beta_slow"):
        if model.number(f"rope.scaling.yarn_{key}") is not None:
            scaling[key] = model.number(f"rope.scaling.yarn_{key}")
    return scaling


def scaling_of(model):
    """rope_scaling as config.json has it, or None."""
    kind, factor = model.text("rope.scaling.type", "none"), model.number("rope.scaling.factor", 0)
    linear = model.number("rope.scale_linear", 1)  # how files of 2023 say it
    freqs, long, short = (factors(model, f"{name}.weight") for name in (
        "rope_freqs", "rope_factors_long", "rope_factors_short"))
    if long is not None or short is not None or kind == "longrope":
        return longrope(model, long, short)
    if freqs is not None and (freqs != 1).any():
        return llama3(model, freqs)
    if kind == "yarn":
        return yarn(model, {"rope_type": "yarn", "factor": factor})
    if kind == "linear" and factor or linear != 1:
        return {"rope_type": "linear", "factor": float(factor or linear)}
    if kind not in ("none", "linear"):
        model.fail(f"scales its frequencies in a way ({kind[:60]}) that has no converter here")
    return None


def settle_rope(model, row):
    """The keys of config.json that say how positions turn into angles."""
    model.config.setdefault("rope_theta", 10000.0)
    scaling = scaling_of(model)
    if scaling:
        model.config["rope_scaling"] = scaling
    turned, head = model.whole("rope.dimension_count"), model.head_dim()
    if turned and turned > head:
        model.fail(f"turns {turned} of the {head} dimensions of a head; download it again")
    if turned and turned != head and model.name != "deepseek2":
        key = "rotary_pct" if "rotary_pct" in row.fixed else "partial_rotary_factor"
        part = turned / head
        model.config[key] = part if int(part * head) == turned else math.nextafter(part, 1)
    for key in ("attn_factor", "yarn_attn_factor", "yarn_ext_factor"):
        if f"rope.scaling.{key}" not in model.asked and model.number(f"rope.scaling.{key}", 1) != 1:
            model.fail(f"has the metadata {model.name}.rope.scaling.{key}, which has no converter "
                       "here")


# ---- the whole

def read_config(model, row):
    config = model.config
    config.update(model_type=row.model_type, **row.fixed)
    for key in ("embedding_length", "block_count", "attention.head_count"):
        model.needs(key)
    for key, name in row.keys.items():
        value = model.number(key)
        if value is not None:
            config[name] = value
    if "token_embd.weight" not in model.tensors or len(
            model.tensors["token_embd.weight"].shape) != 2:
        model.fail("has no embedding, token_embd.weight; download the whole model")
    config["vocab_size"] = model.tensors["token_embd.weight"].shape[0]
    config["tie_word_embeddings"] = "output.weight" not in model.tensors
    settle_rope(model, row)
    return row.settle(model) if row.settle else {}


def refuse_the_rest(model):
    """Whatever was not asked for changes nothing, or the result would be wrong without a word."""
    if model.get("attention.causal", True) is not True:
        model.fail("is no model that continues text: its attention is not causal")
    head = model.whole("attention.key_length")
    if model.name != "deepseek2" and model.whole("attention.value_length", head) != head:
        model.fail("has keys and values of different lengths, which has no converter here")
    if model.name != "deepseek2" and model.whole("expert_gating_func", 1) != 1:
        model.fail("chooses its experts in another way than by softmax, which has no converter "
                   "here")
    for key, value in model.metadata.items():
        name = key.removeprefix(f"{model.name}.")
        neutral = not isinstance(value, np.ndarray) and value in (0, False, "", "none") or (
            name.endswith("_scale") and value == 1)
        if name != key and not neutral and name not in model.asked | NO_EFFECT:
            model.fail(f"has the metadata {key}, which has no converter here")


def target_of(model, names, name, part, kind):
    """Hugging Face's name of a tensor, without the layer. Files of 2023 hold experts one by one."""
    expert = re.fullmatch(r"(ffn_(?:gate|up|down))\.(\d{1,4})", part)
    if f"{part}.{kind}" in names:
        return names[f"{part}.{kind}"]
    if kind and part in names:
        return f"{names[part]}.{kind}"
    if kind and expert and f"{expert[1]}_exps" in names:
        return names[f"{expert[1]}_exps"].replace("%d", expert[2]) + f".{kind}"
    return model.fail(f"has the tensor {name}, for which its architecture {model.name} has no "
                      "place")


def of_experts(model, array, targets):
    """A matrix for each expert from an array of all, cut into as many as there are targets."""
    if len(array.shape) != 3 or array.shape[0] > MAX_EXPERTS or array.shape[1] % len(targets):
        model.fail(f"has {array.name} of the shape {array.shape}, which should be one matrix for "
                   "each expert")
    experts, rows, cols = array.shape
    cut = array._replace(shape=(experts * len(targets), rows // len(targets), cols))
    return [take_rows(cut, target.replace("%d", str(i)), [(len(targets) * i + at, 1)],
                      cut.shape[1:])
            for i in range(experts) for at, target in enumerate(targets)]


def convert_tensor(model, row, names, array):
    """What becomes of one tensor: [Blocks or Made] under Hugging Face's names."""
    layer, part, kind = re.fullmatch(r"(?:blk\.(\d{1,9})\.)?(.*?)(?:\.(weight|bias))?",
                                     array.name).groups()
    if layer and int(layer) >= model.layers():
        model.fail(f"has the tensor {array.name}, but only {model.layers()} layers")
    prefix = row.layer % int(layer) if layer else ""
    if layer and part in row.rearrange:
        return row.rearrange[part](model, array, prefix)
    if layer and part == "ffn_gate_up_exps" and "%d" in names.get("ffn_gate_exps", ""):
        return of_experts(model, array, [f"{prefix}{names[f'ffn_{half}_exps']}.weight"
                                         for half in ("gate", "up")])
    target = prefix + target_of(model, names, array.name, part, kind)
    if "%d" in target:
        return of_experts(model, array, [target])
    array = array._replace(name=target)
    if row.minus_one and target.endswith("norm.weight"):
        return [minus_one(array)]
    return [array]


def convert(path, metadata, tensors):
    """The config, and all tensors under Hugging Face's names: [Blocks or Made]."""
    name, kind = (metadata.get(f"general.{key}") for key in ("architecture", "type"))
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise Failure(f"{path} has the architecture {str(name)[:60]!r}, which has no converter "
                      f"here; those that have one are {', '.join(sorted(ARCHITECTURES))}")
    if isinstance(kind, str) and kind != "model":
        raise Failure(f"{path} is of the type {kind[:60]!r}, not a model; download the model "
                      "itself")
    row, model = ARCHITECTURES[name], Model(path, name, metadata, tensors)
    more = read_config(model, row)
    refuse_the_rest(model)
    names = {**row.tensors, **(more or {})}
    kept = [new for array in model.tensors.values()
            for new in convert_tensor(model, row, names, array)]
    return model.config, kept
