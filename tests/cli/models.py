"""Tiny models for the tests of the command line, and numpy's view of them.

Nothing here uses nibble's own code to write, read, decode or run a model.
"""
import json

import numpy as np

from harness import TOKENIZER

# One layer has these; Hugging Face's name, Meta's name.
LAYER = {
    "attn_norm": ("model.layers.%d.input_layernorm", "layers.%d.attention_norm"),
    "wq": ("model.layers.%d.self_attn.q_proj", "layers.%d.attention.wq"),
    "wk": ("model.layers.%d.self_attn.k_proj", "layers.%d.attention.wk"),
    "wv": ("model.layers.%d.self_attn.v_proj", "layers.%d.attention.wv"),
    "wo": ("model.layers.%d.self_attn.o_proj", "layers.%d.attention.wo"),
    "ffn_norm": ("model.layers.%d.post_attention_layernorm", "layers.%d.ffn_norm"),
    "gate": ("model.layers.%d.mlp.gate_proj", "layers.%d.feed_forward.w1"),
    "down": ("model.layers.%d.mlp.down_proj", "layers.%d.feed_forward.w2"),
    "up": ("model.layers.%d.mlp.up_proj", "layers.%d.feed_forward.w3"),
}
MODEL = {"embed": ("model.embed_tokens", "tok_embeddings"), "norm": ("model.norm", "norm"),
         "output": ("lm_head", "output")}
HF, META = 0, 1
EOS, BYTE_0 = 2, 3  # of tests/text/bpe_bytes.model: </s>, and the first of its 256 byte pieces
PIECES = 400        # it has so many


class Tiny:
    """A random llama. weights: what LAYER and MODEL name, those of a layer as (name, layer)."""

    def __init__(self, names=HF, seed=1, tied=False, **sizes):
        self.names, self.tied = names, tied
        self.size = {"dim": 64, "layers": 2, "heads": 4, "kv_heads": 2, "head_dim": 16,
                     "hidden": 128, "vocab": PIECES, "context": 256, **sizes}
        rng, s = np.random.default_rng(seed), self.size
        self.weights = {}
        for name, (rows, cols) in self.shapes().items():
            values = rng.standard_normal((rows, cols) if rows else cols)
            scale = 0.1 if not rows else 1 if name == "embed" else cols ** -0.5
            self.weights[name] = (values * scale + (rows == 0)).astype("<f4")
        self.config = self.make_config(s)

    def shapes(self):
        """(rows, cols) of each; a vector has no rows."""
        s = self.size
        queries, keys = s["heads"] * s["head_dim"], s["kv_heads"] * s["head_dim"]
        layer = {"attn_norm": (0, s["dim"]), "wq": (queries, s["dim"]), "wk": (keys, s["dim"]),
                 "wv": (keys, s["dim"]), "wo": (s["dim"], queries), "ffn_norm": (0, s["dim"]),
                 "gate": (s["hidden"], s["dim"]), "down": (s["dim"], s["hidden"]),
                 "up": (s["hidden"], s["dim"])}
        shapes = {"embed": (s["vocab"], s["dim"]), "norm": (0, s["dim"])}
        if not self.tied:
            shapes["output"] = (s["vocab"], s["dim"])
        shapes.update({(name, i): layer[name] for i in range(s["layers"]) for name in LAYER})
        return shapes

    def make_config(self, s):
        if self.names == META:
            return {"dim": s["dim"], "n_layers": s["layers"], "n_heads": s["heads"],
                    "n_kv_heads": s["kv_heads"], "head_dim": s["head_dim"], "norm_eps": 1e-5,
                    "hidden_dim": s["hidden"], "vocab_size": s["vocab"],
                    "max_seq_len": s["context"], "model_type": "llama"}
        return {"model_type": "llama", "hidden_size": s["dim"], "num_hidden_layers": s["layers"],
                "num_attention_heads": s["heads"], "num_key_value_heads": s["kv_heads"],
                "head_dim": s["head_dim"], "intermediate_size": s["hidden"], "eos_token_id": EOS,
                "vocab_size": s["vocab"], "max_position_embeddings": s["context"],
                "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": self.tied}

    def name(self, key):
        """The array's name of a weight."""
        pair = MODEL[key] if isinstance(key, str) else LAYER[key[0]]
        base = pair[self.names] if isinstance(key, str) else pair[self.names] % key[1]
        return base + ".weight"

    def arrays(self, dtype="<f4"):
        return {self.name(key): w.astype(dtype) for key, w in self.weights.items()}

    def save(self, path, dtype="<f4", tokenizer=TOKENIZER, arrays=None, config=None):
        """The single file; config may be text."""
        return save_npz(path, self.arrays(dtype) if arrays is None else arrays,
                        self.config if config is None else config, tokenizer)

    def save_folder(self, path, dtype="<f4", tokenizer=TOKENIZER):
        path.mkdir()
        np.savez(path / "weights.npz", **self.arrays(dtype))
        (path / "config.json").write_text(json.dumps(self.config))
        if tokenizer:
            (path / "tokenizer.model").write_bytes(tokenizer.read_bytes())
        return path


def save_npz(path, arrays, config, tokenizer=None, save=np.savez):
    """The single file: arrays and, as bytes, config (an object, text, or None) and tokenizer."""
    files = {}
    if config is not None:
        text = config if isinstance(config, (str, bytes)) else json.dumps(config)
        files["config.json"] = text.encode() if isinstance(text, str) else text
    if tokenizer:
        files["tokenizer.model"] = tokenizer.read_bytes()
    save(path, **{name: np.frombuffer(data, "u1") for name, data in files.items()}, **arrays)
    return path


def chain(path, ids, context=256, vocab=PIECES, layers=1, **config):
    """A model that says what it is told: each of ids (all different) is followed by the next, the
    last and every other token by EOS; a list that ends with its first id goes round for ever."""
    m = Tiny(dim=512, layers=layers, heads=2, kv_heads=1, head_dim=8, hidden=32, vocab=vocab,
             context=context)
    for key, w in m.weights.items():
        w[:] = 1 if w.ndim == 1 else 0
    following = {**dict(zip(ids, ids[1:])), **({} if ids[0] == ids[-1] else {ids[-1]: EOS})}
    for id in range(min(vocab, 512)):
        m.weights["embed"][id, id] = 1
        m.weights["output"][following.get(id, EOS), id] = 1
    m.config.update(config)
    return m.save(path)


def byte_ids(data):
    """The byte pieces of data."""
    return [BYTE_0 + byte for byte in data]


# ---- numpy's view

def rotate(x, interleaved, theta=10000.0):
    """RoPE of x [n, heads, head_dim]."""
    n, _, d = x.shape
    angles = np.arange(n)[:, None, None] * theta ** (-np.arange(0, d, 2) / d)
    a, b = (x[..., 0::2], x[..., 1::2]) if interleaved else (x[..., :d // 2], x[..., d // 2:])
    pairs = a * np.cos(angles) - b * np.sin(angles), b * np.cos(angles) + a * np.sin(angles)
    return np.stack(pairs, -1).reshape(x.shape) if interleaved else np.concatenate(pairs, -1)


def forward(model, ids):
    """Logits [n, vocab] in float64, straight from the paper."""
    s, w = model.size, {key: value.astype("f8") for key, value in model.weights.items()}
    norm = lambda x, g: x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * g
    x, n = w["embed"][ids], len(ids)
    for i in range(s["layers"]):
        h = norm(x, w["attn_norm", i])
        q, k, v = ((h @ w[name, i].T).reshape(n, -1, s["head_dim"]) for name in ("wq", "wk", "wv"))
        q, k = rotate(q, model.names == META), rotate(k, model.names == META)
        k, v = (np.repeat(a, s["heads"] // s["kv_heads"], axis=1) for a in (k, v))
        scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(s["head_dim"])
        scores = np.where(np.tri(n, dtype=bool), scores, -np.inf)
        p = np.exp(scores - scores.max(-1, keepdims=True))
        out = np.einsum("hqk,khd->qhd", p / p.sum(-1, keepdims=True), v).reshape(n, -1)
        x = x + out @ w["wo", i].T
        h = norm(x, w["ffn_norm", i])
        g = h @ w["gate", i].T
        x = x + (g / (1 + np.exp(-g)) * (h @ w["up", i].T)) @ w["down", i].T
    return norm(x, w["norm"]) @ w.get("output", w["embed"]).T


def unpack(arrays, name, bits, group):
    """A quantized matrix decoded, and the step of each value: the codes are one bit stream a row,
    lowest bits first."""
    base = name[:-len("weight")]
    bytes_of_rows = arrays[name].view("u1")
    stream = np.unpackbits(bytes_of_rows, axis=1, bitorder="little")
    codes = (stream.reshape(len(stream), -1, bits) << np.arange(bits)).sum(-1, dtype="i8")
    scales, biases = (np.repeat(arrays[base + part].astype("f8"), group, axis=1)
                      for part in ("scales", "biases"))
    return scales * codes + biases, np.abs(scales)
