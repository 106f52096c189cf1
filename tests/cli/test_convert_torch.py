#!/usr/bin/python3
"""scripts/convert.py on PyTorch's files: pytorch_model.bin, and Meta's consolidated.NN.pth.

    tests/cli/test_convert_torch.py [--build DIR] [WORD...]   tests that run models need DIR/nibble
"""
import collections
import io
import json
import pickle
import sys
import types

import numpy as np

from harness import TOKENIZER, main
import hf_models
from hf_models import check_refused, config_of, convert, model, rng
from models import META, Tiny
from torch_models import (make_folder, make_meta_folder, members_of, pickle_of, storage, view,
                          views, write_torch, zip_of)


def some(*shape):
    return rng.standard_normal(shape).astype("<f4")


# ---- what comes out

def test_types(tmp):
    table = {"f32.weight": ("F32", "<f4", some(3, 4)),
             "f16.weight": ("F16", "<f2", some(5).astype("<f2")),
             "bf16.weight": ("BF16", "V2", np.arange(6, dtype="<u2").reshape(2, 3)),
             "scalar": ("F32", "<f4", some())}
    folder = make_folder(tmp / "m", {name: view(storage(i, dtype, data), data.shape)
                                     for i, (name, (dtype, _, data)) in enumerate(table.items())})
    arrays, stderr = convert(folder)
    assert set(arrays) == set(table) | {"config.json", "tokenizer.model"} and "note" not in stderr
    assert config_of(arrays) == json.loads((folder / "config.json").read_text())
    for name, (_, kind, data) in table.items():
        assert arrays[name].dtype == np.dtype(kind) and arrays[name].shape == data.shape, name
        assert arrays[name].tobytes() == data.tobytes(), name
    assert arrays["tokenizer.model"].tobytes() == (folder / "tokenizer.model").read_bytes()


def test_other_types(tmp):
    wide = some(3).astype("<f8")
    table = {"x.weight": view(storage(0, "F64", wide), (3,)),
             "x.attn.bias": view(storage(1, "BOOL", bytes(4)), (1, 2, 2))}
    arrays, stderr = convert(make_folder(tmp / "m", table))
    assert arrays["x.weight"].tolist() == wide.astype("<f4").tolist() and "x.attn.bias" in stderr
    table = {"x.ids": view(storage(2, "I64", bytes(16)), (2,))}
    check_refused(make_folder(tmp / "n", table), "tensor x.ids has the type I64")


def test_the_same_as_from_safetensors(tmp):
    tensors = model("F16")
    table = {name: view(storage(i, dtype, data), shape)
             for i, (name, (dtype, shape, data)) in enumerate(tensors.items())}
    hf_models.make_folder(tmp / "st", tensors)
    folders = [make_folder(tmp / "pt", table, hf_models.LLAMA), tmp / "st"]
    (tmp / "shards").mkdir()
    for name in ("config.json", "tokenizer.model"):
        (tmp / "shards" / name).write_bytes((tmp / "pt" / name).read_bytes())
    index, names = {}, list(table)
    for i in range(3):
        file = f"pytorch_model-{i + 1:05}-of-00003.bin"
        write_torch(tmp / "shards" / file, {name: table[name] for name in names[i::3]},
                    root=file.removesuffix(".bin"))
        index.update({name: file for name in names[i::3]})
    (tmp / "shards" / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": index}))
    want, *others = [convert(folder)[0] for folder in (*folders, tmp / "shards")]
    for arrays in others:
        assert list(arrays) == list(want), "their order"
        assert config_of(arrays) == config_of(want)
        for name in arrays.keys() - {"config.json"}:
            assert arrays[name].dtype == want[name].dtype and (arrays[name] == want[name]).all()
    for arrays, form in zip((want, *others), ("pytorch", "safetensors", "pytorch")):
        assert json.loads(arrays["config.json"].tobytes())["nibble"]["source"]["format"] == form


def test_safetensors_go_first(tmp):
    folder = hf_models.make_folder(tmp / "m")
    (folder / "pytorch_model.bin").write_bytes(b"no matter")
    (folder / "consolidated.00.pth").write_bytes(b"no matter")
    assert set(model()) < set(convert(folder)[0])


def test_views_of_one_storage(tmp):
    values = some(40)
    whole = storage("7", "F32", values)
    table = {"a": view(whole, (4, 5)), "b": view(whole, (2, 3), 20), "c": view(whole, (), 39),
             "none": view(whole, (0, 3), 40), "many": view(whole, (1, 4, 1), 2, strides=(9, 1, 77))}
    arrays, _ = convert(make_folder(tmp / "m", table))
    assert arrays["a"].tobytes() == values[:20].tobytes() and arrays["none"].shape == (0, 3)
    assert arrays["b"].tobytes() == values[20:26].tobytes() and arrays["b"].shape == (2, 3)
    assert arrays["c"] == values[39] and arrays["many"].ravel().tolist() == values[2:6].tolist()


def test_tied_output_shares_its_storage(tmp):
    shared, norm = storage(0, "F32", some(16, 8)), storage(1, "F32", some(8))
    table = {"model.embed_tokens.weight": view(shared, (16, 8)),
             "lm_head.weight": view(shared, (16, 8)), "model.norm.weight": view(norm, (8,))}
    arrays, stderr = convert(make_folder(tmp / "m", table, dict(hf_models.LLAMA,
                                                                tie_word_embeddings=True)))
    assert "lm_head.weight" not in arrays and "equals the embedding" in stderr


def test_transposed(tmp):
    table, wanted = {}, {}
    for i, (dtype, kind) in enumerate((("F32", "<f4"), ("F16", "<f2"), ("BF16", "<u2"),
                                       ("F64", "<f8"))):
        values = np.arange(3 + 7 * 5, dtype=kind)
        table[dtype] = view(storage(i, dtype, values), (5, 7), 3, strides=(1, 5))
        wanted[dtype] = values[3:].reshape(7, 5).T
    large = np.arange(1500 * 1000, dtype="<f4")  # more than is read at a time
    table["large"] = view(storage(9, "F32", large), (1000, 1500), strides=(1, 1000))
    arrays, _ = convert(make_folder(tmp / "m", table))
    for name in ("F32", "F16", "F64"):
        assert (arrays[name] == wanted[name]).all() and arrays[name].shape == (5, 7), name
    assert (arrays["BF16"].view("<u2") == wanted["BF16"]).all()
    assert (arrays["large"] == large.reshape(1500, 1000).T).all()


def test_parameters_and_metadata(tmp):
    arrays = {"a.weight": some(2, 3), "b.weight": some(3)}
    folder = make_folder(tmp / "m", views(arrays, parameter=True), state={"_metadata": METADATA})
    got, _ = convert(folder)
    for name, array in arrays.items():
        assert got[name].tobytes() == array.tobytes()


def test_archives_of_other_kinds(tmp):
    arrays = {"a.weight": some(20, 3)}
    for i, how in enumerate(({"order": None}, {"root": "pytorch_model"}, {"root": "a b-c.d"})):
        got, _ = convert(make_folder(tmp / f"m{i}", views(arrays), **how))
        assert got["a.weight"].tobytes() == arrays["a.weight"].tobytes()
    folder = make_folder(tmp / "zip64", views(arrays))
    (folder / "pytorch_model.bin").write_bytes(zip_of(members_of(views(arrays)), zip64=True))
    assert convert(folder)[0]["a.weight"].tobytes() == arrays["a.weight"].tobytes()
    plain = [m._replace(flags=0) for m in members_of(views(arrays))]
    (folder / "pytorch_model.bin").write_bytes(zip_of(plain))
    assert convert(folder)[0]["a.weight"].tobytes() == arrays["a.weight"].tobytes()


METADATA = {"": {"version": 1}, "layers": {"version": 2, "more": [None, True, (1, -1)]}}


class StandIn:
    """A tensor that pickles as torch's do, by Python's own pickler."""

    def __init__(self, v):
        self.view = v

    def __reduce__(self):
        module = sys.modules["torch._utils"]
        fresh = (tuple(list(part)) for part in self.view[2:4])
        return module._rebuild_tensor_v2, (self.view.storage, self.view.offset, *fresh, False,
                                           collections.OrderedDict())


def standard_pickle(table):
    """What Python's pickler writes; torch's names are given to functions that do nothing."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    exec("def _rebuild_tensor_v2(*arguments): pass", utils.__dict__)
    utils._rebuild_tensor_v2.__module__ = "torch._utils"
    torch.FloatStorage = type("FloatStorage", (), {"__module__": "torch"})

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            if hasattr(value, "dtype") and hasattr(value, "key"):
                return "storage", torch.FloatStorage, value.key, "cpu", value.count
            return None

    kept = {name: sys.modules.get(name) for name in ("torch", "torch._utils")}
    sys.modules.update({"torch": torch, "torch._utils": utils})
    try:
        out, ordered = io.BytesIO(), collections.OrderedDict()
        ordered.update({name: StandIn(v) for name, v in table.items()})
        ordered._metadata = METADATA
        Pickler(out, protocol=2).dump(ordered)
        return out.getvalue()
    finally:
        for name, module in kept.items():
            sys.modules.pop(name)
            sys.modules.update({name: module} if module else {})


def test_pickles_of_python(tmp):
    values = some(2500, 4)
    table = {f"layers.{i}.weight": view(storage(i, "F32", row), (2, 2))
             for i, row in enumerate(values)}
    data = standard_pickle(table)
    assert len(data) > 200_000 and data.count(b"_rebuild_tensor_v2") == 1
    arrays, _ = convert(make_folder(tmp / "m", table, pickle=data))
    for i, row in enumerate(values):
        assert arrays[f"layers.{i}.weight"].tobytes() == row.tobytes(), i
    assert data == pickle_of(table, {"_metadata": METADATA}), "the tests' own writes another one"


# ---- Meta's folders

PARAMS = {"dim": 64, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "norm_eps": 1e-5,
          "vocab_size": -1, "multiple_of": 256, "ffn_dim_multiplier": 1.3}
BY_ROWS = ("wq", "wk", "wv", "w1", "w3", "output")


def cut(arrays, count, embedding):
    """The shards of a model; embedding: the axis along which that is cut."""
    shards = [{} for _ in range(count)]
    for name, array in arrays.items():
        module = name.split(".")[-2]
        axis = embedding if module == "tok_embeddings" else 0 if module in BY_ROWS else 1
        parts = [array] * count if array.ndim == 1 else np.split(array, count, axis)
        for shard, part in zip(shards, parts):
            shard[name] = np.ascontiguousarray(part)
    for shard in shards:
        shard["rope.freqs"] = np.ones(8, "<f4")
    return shards


def test_meta_shards_are_joined(tmp):
    m = Tiny(META)
    for i, (count, embedding) in enumerate(((1, 0), (2, 1), (2, 0), (4, 1), (8, 0))):
        params = dict(PARAMS, vocab_size=400 if embedding == 0 else -1)
        shards = cut(m.arrays(), count, embedding)
        folder = make_meta_folder(tmp / f"m{i}" / "llama", shards, params)
        got, stderr = convert(folder)
        assert set(got) == set(m.arrays()) | {"config.json", "tokenizer.model"}, stderr
        for name, array in m.arrays().items():
            assert got[name].shape == array.shape and (got[name] == array).all(), (count, name)


def test_meta_shards_of_other_types(tmp):
    m = Tiny(META)
    for kind, dtype in (("<f2", "<f2"), ("<u2", "|V2")):
        arrays = {name: (array.astype("<f2") if kind == "<f2" else array.view("<u2")[..., 1::2])
                  for name, array in m.arrays().items()}
        got, _ = convert(make_meta_folder(tmp / kind[1:] / "m", cut(arrays, 2, 1), PARAMS))
        for name, array in arrays.items():
            assert got[name].dtype == np.dtype(dtype) and got[name].tobytes() == array.tobytes()


def test_large_parts_go_in_pieces(tmp):
    wide = np.arange(64 * 70000, dtype="<f4").reshape(64, 70000)
    arrays = {"layers.0.feed_forward.w2.weight": wide, "norm.weight": some(64)}
    got, _ = convert(make_meta_folder(tmp / "d" / "m", cut(arrays, 2, 1), PARAMS))
    assert (got["layers.0.feed_forward.w2.weight"] == wide).all()


def test_meta_models_run(tmp, nibble):
    m, ids = Tiny(META), "1 17 300 5 9 254 31"
    for count, embedding in ((1, 0), (2, 1)):
        folder = make_meta_folder(tmp / str(count) / "m", cut(m.arrays(), count, embedding), PARAMS,
                                  TOKENIZER.read_bytes())
        convert(folder)
        nibble("logits", folder.parent / "m.npz", "--ids", ids, "--kv-type", "f32", "-o",
               tmp / "got.npy")
        nibble("logits", m.save(tmp / "want.npz"), "--ids", ids, "--kv-type", "f32", "-o",
               tmp / "want.npy")
        assert (np.load(tmp / "got.npy") == np.load(tmp / "want.npy")).all()
        assert nibble("generate", folder.parent / "m.npz", "-p", "a", "-n", "4", "--temp", "0")


def test_meta_config(tmp):
    shard = cut(Tiny(META).arrays(), 1, 0)
    always = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
              "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "vocab_size": -1, "multiple_of": 256,
              "ffn_dim_multiplier": 1.3, "model_type": "llama"}
    cases = [({}, {"rope_theta": 10000.0}), ({"rope_theta": 500000.0}, {"rope_theta": 500000.0}),
             ({"use_scaled_rope": False}, {"rope_theta": 10000.0}),
             ({"n_kv_heads": 2, "head_dim": 16}, {"rope_theta": 10000.0, "head_dim": 16})]
    for i, (changes, wanted) in enumerate(cases):
        folder = make_meta_folder(tmp / f"m{i}" / "m", shard, {**PARAMS, **changes})
        assert config_of(convert(folder)[0]) == {**always, **wanted}
    folder = make_meta_folder(tmp / "inner" / "m", shard, {"model": PARAMS, "more": 1})
    assert config_of(convert(folder)[0])["hidden_size"] == 64


def test_meta_scaled_rope(tmp):
    for i, (dim, changes, factor) in enumerate(((64, {}, 32), (4096, {}, 8),
                                                (4096, {"rope_scaling_factor": 32}, 32))):
        arrays = {"norm.weight": some(dim)}
        params = dict(PARAMS, dim=dim, use_scaled_rope=True, **changes)
        config = config_of(convert(make_meta_folder(tmp / f"m{i}" / "m", [arrays], params))[0])
        assert config["rope_scaling"] == {
            "rope_type": "llama3", "factor": factor, "low_freq_factor": 1, "high_freq_factor": 4,
            "original_max_position_embeddings": 8192}, config
        assert config["max_position_embeddings"] == 131072 and "use_scaled_rope" not in config


def test_meta_same_bytes_twice(tmp):
    shards = cut(Tiny(META).arrays(), 2, 1)
    for name in ("a", "b"):
        convert(make_meta_folder(tmp / name / "m", shards, PARAMS))
    assert (tmp / "a" / "m.npz").read_bytes() == (tmp / "b" / "m.npz").read_bytes()


def test_meta_tokenizers(tmp):
    shard, text = cut(Tiny(META).arrays(), 1, 0), b"IQ== 0\nIg== 1\n"
    folder = make_meta_folder(tmp / "a" / "m", shard, PARAMS, tokenizer=None)
    assert "no tokenizer" in convert(folder)[1]
    (tmp / "a" / "tokenizer.model").write_bytes(b"\nbeside the folder")
    assert convert(folder)[0]["tokenizer.model"].tobytes() == b"\nbeside the folder"
    (tmp / "other").write_bytes(b"\ngiven")
    arrays, _ = convert(folder, "--tokenizer", tmp / "other")
    assert arrays["tokenizer.model"].tobytes() == b"\ngiven"
    for wrong in (b"", b"IQ==\n", b"I Q 0\n", b"{}"):
        (tmp / "other").write_bytes(wrong)
        check_refused(folder, "is not a tokenizer.model of Sente", "--tokenizer", tmp / "other")
    check_refused(folder, "cannot read", "--tokenizer", tmp / "absent")
    folder = make_meta_folder(tmp / "b" / "m", shard, PARAMS, tokenizer=text)  # as since Llama 3
    assert convert(folder)[0]["tokenizer.model"].tobytes() == text
    (folder / "tokenizer.json").write_text("{}")
    arrays, stderr = convert(folder)
    assert arrays["tokenizer.json"].tobytes() == b"{}" and "no tokenizer" not in stderr


def test_meta_refusals(tmp):
    arrays = Tiny(META).arrays()

    def refuse(words, shards, params=PARAMS, change=None):
        refuse.count = getattr(refuse, "count", 0) + 1
        folder = make_meta_folder(tmp / f"m{refuse.count}", shards, params)
        if change:
            change(folder)
        check_refused(folder, words)

    two = cut(arrays, 2, 1)
    refuse("no params.json", two, change=lambda f: (f / "params.json").unlink())
    refuse("has the shape", two, change=lambda f: (f / "consolidated.01.pth").unlink())
    refuse("where consolidated.00.pth should come", two,
           change=lambda f: (f / "consolidated.00.pth").unlink())
    refuse("where consolidated.01.pth should come", cut(arrays, 4, 1),
           change=lambda f: (f / "consolidated.01.pth").unlink())
    refuse("copy every", cut(arrays, 2, 0), dict(PARAMS, vocab_size=200))
    for key, value in (("dim", None), ("dim", "64"), ("n_heads", 0), ("n_kv_heads", 1.5),
                       ("head_dim", True), ("dim", 1 << 40)):
        refuse(f"{key} is {json.dumps(value)}", two, dict(PARAMS, **{key: value}))
    refuse("asks for 64 x 64", cut(arrays, 1, 0), dict(PARAMS, n_kv_heads=4))
    odd = [dict(shard) for shard in two]
    odd[1]["more.weight"] = some(3)
    refuse("do not both hold tensor more.weight", odd)
    odd[0]["more.weight"] = some(3)
    refuse("no rule joins the parts of tensor more.weight", odd)
    odd = [dict(shard) for shard in two]
    odd[1]["norm.weight"] = some(63)
    refuse("another shape or type", odd)
    odd = [dict(shard, **{"output.weight": some(3)}) for shard in two]
    refuse("should be a matrix", odd)
    odd = [dict(shard, **{"output.weight": some(0, 64)}) for shard in two]
    refuse("should be a matrix", odd)
    check_refused(make_folder(tmp / "hf", views(arrays)), "which --tokenizer is for", "--tokenizer",
                  TOKENIZER)


if __name__ == "__main__":
    sys.exit(main(globals()))
