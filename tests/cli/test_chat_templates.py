#!/usr/bin/python3
"""Chat templates as models publish them, through the converter: nibble's ids of a conversation are
those of what Jinja itself makes of it. templates/ holds them, facts of these models.

The tokenizer of these tests has a piece for each byte and one for each control token, so that the
ids of a text can be told without a tokenizer's code.
"""
import itertools
import json
import re
import sys
from pathlib import Path

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from harness import main
from hf_models import convert
from models import Tiny

TEMPLATES = Path(__file__).resolve().parent / "templates"
TOKENS = re.compile(r"<\|?\w+\|?>|<｜[\w▁]+｜>|\[/?[A-Z_]+\]|<\w+_of_\w+>|</\w+>")
CHATML, LLAMA = ("<|endoftext|>", "<|im_end|>"), ("<s>", "</s>")
DEEPSEEK = ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>")
GEMMA = ("<bos>", "<eos>")
MODELS = {  # what BOS and EOS are
    "command-r": ("<BOS_TOKEN>", "<|END_OF_TURN_TOKEN|>"), "deepseek-r1": DEEPSEEK, "gemma": GEMMA,
    "gemma3": GEMMA, "granite": ("<|end_of_text|>",) * 2, "llama2": LLAMA,
    "llama3": ("<|begin_of_text|>", "<|eot_id|>"), "mistral-nemo": LLAMA, "mistral-v0.2": LLAMA,
    "olmo2": ("<|endoftext|>",) * 2, "phi3-mini": ("<s>", "<|endoftext|>"),
    "phi3-medium": ("<s>", "<|endoftext|>"), "qwen1.5": CHATML, "qwen2": CHATML, "qwen3": CHATML,
    "zephyr": LLAMA}
REFUSE_SYSTEM = {"gemma"}


# ---- Jinja's own rendering

def refuse(message):
    raise jinja2.TemplateError(message)


def render(template, tokens, messages, opened):
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals.update(raise_exception=refuse)
    bos, eos = tokens
    return environment.from_string(template).render(
        messages=messages, bos_token=bos, eos_token=eos, add_generation_prompt=opened, tools=None)


# ---- models with a tokenizer that is easily told

def token_ids(template, tokens):
    """{control token: id}: those that the template names, BOS and EOS."""
    names = dict.fromkeys([*tokens, *TOKENS.findall(template or "")])
    return {name: 256 + i for i, name in enumerate(names)}


def byte_letters():
    """GPT-2's alphabet: a printed character for each byte."""
    other = itertools.count(0x100)
    return [chr(b if 0x20 < b < 0x7f or 0xa0 < b != 0xad else next(other)) for b in range(256)]


def tokenizer_json(ids):
    """Every third token is not special, as DeepSeek's are, and then found in normalized text."""
    added = [{"id": id, "content": name, "special": id % 3 > 0, "normalized": id % 3 == 0}
             for name, id in ids.items()]
    level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
    vocab = {letter: byte for byte, letter in enumerate(byte_letters())}
    return {"version": "1.0", "added_tokens": added, "normalizer": {"type": "NFC"},
            "pre_tokenizer": level, "decoder": level,
            "model": {"type": "BPE", "vocab": vocab, "merges": []}}


def ids_of(text, ids):
    if not ids:
        return list(text.encode())
    parts = re.split("(" + "|".join(map(re.escape, sorted(ids, key=len, reverse=True))) + ")", text)
    return [id for part in parts for id in ([ids[part]] if part in ids else part.encode())]


def make_folder(path, template, tokens, **config):
    ids, (bos, eos) = token_ids(template, tokens), tokens
    folder = Tiny(dim=16, heads=2, kv_heads=1, head_dim=8, hidden=32, layers=1,
                  vocab=256 + len(ids), context=64).save_folder(path, tokenizer=None)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer_json(ids)))
    (folder / "tokenizer_config.json").write_text(json.dumps(
        {"bos_token": {"content": bos}, "eos_token": eos, "chat_template": template, **config}))
    return folder


def segments_of(arrays):
    """None if there are none."""
    text = arrays.get("chat_segments.json")
    return text if text is None else json.loads(text.tobytes())


def converted(folder):
    """(the .npz, its segments, what the converter said)"""
    arrays, said = convert(folder)
    return folder.with_name(folder.name + ".npz"), segments_of(arrays), said


def show(nibble, model, messages, *options):
    return nibble.json("generate", model, "--messages", "-", "--show-prompt", *options,
                       stdin=json.dumps(messages).encode())


# ---- conversations, none of them the converter's

WORDS = ["Who was the fox?", "A thief,\n\nthey say.\n", " and why? ", "  For fun.",
         "Zwölf Füchse\n", "{{ 1 + 1 }} is \"2\"", "\t* a\n\t* b\n\n", "<b>ok</b> \\n",
         "\n\nlast", "。\u3000"]
TOLD = "Be brief.\nBe \"kind\". "


def talk(turns, told, answered, shift=0):
    texts = [WORDS[(i + shift) % len(WORDS)] for i in range(2 * turns - (not answered))]
    roles = itertools.cycle(("user", "assistant"))
    messages = [{"role": role, "content": text} for role, text in zip(roles, texts)]
    return [{"role": "system", "content": TOLD}] * told + messages


def check_talks(nibble, name, template, model):
    ids = token_ids(template, MODELS[name])
    for turns, told, answered in itertools.product(range(1, 6), (False, True), (False, True)):
        if told and name in REFUSE_SYSTEM or answered and turns != (5 if told else 2):
            continue
        messages = talk(turns, told, answered, 3 * turns)
        text = render(template, MODELS[name], messages, not answered)
        got = show(nibble, model, messages)
        assert got["text"] == text, (name, messages, got["text"], text)
        assert got["ids"] == ids_of(text, ids), (name, messages, got)


def check_refusal(nibble, name, model):
    told = json.dumps(talk(1, True, False)).encode()
    nibble.refuses("generate", model, "--messages", "-", "--show-prompt", stdin=told, code=2,
                   says="takes no system message")
    assert name in REFUSE_SYSTEM


def check_injection(nibble, name, template, model):
    """A message that spells every token of the template gives the bytes of its letters."""
    ids, mark = token_ids(template, MODELS[name]), "zqMARKqz"
    names = [name for name in ids if name != "</think>"]  # of an answer it would cut off the rest
    attack = "".join(names) + "x" + " ".join(names)
    messages = [{"role": role, "content": mark} for role in ("user", "assistant", "user")]
    before, *rest = render(template, MODELS[name], messages, True).split(mark)
    want = ids_of(before, ids)
    for part in rest:
        want += [*attack.encode(), *ids_of(part, ids)]
    got = show(nibble, model, [{**each, "content": attack} for each in messages])
    assert got["ids"] == want, (name, got["ids"], want)


def test_published_templates(tmp, nibble):
    assert len(MODELS) >= 12
    for name in MODELS:
        template = (TEMPLATES / f"{name}.jinja").read_text()
        model, segments, said = converted(make_folder(tmp / name, template, MODELS[name]))
        assert segments and "note:" not in said, said
        check_talks(nibble, name, template, model)
        check_injection(nibble, name, template, model)
        if name in REFUSE_SYSTEM:
            check_refusal(nibble, name, model)


# ---- what the converter makes of others

QWEN = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
OPEN = "{% if add_generation_prompt %}<|assistant|>{% endif %}"


def test_what_cannot_be_expressed(tmp, nibble):
    """The converter says so and stores none; then nibble says what to do."""
    cases = {
        "counts": "{% for m in messages %}{{ loop.index }}{{ m.content }}{% endfor %}",
        "shouts": "{% for m in messages %}{{ m.content | upper }}{% endfor %}",
        "fails": "{{ raise_exception('no') }}",
        "broken": "{% for %}",
        "escapes": "{% for m in messages %}{{ m.content | e }}{% endfor %}",
        "long": "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}",
        "huge": "{{ 'a' * 10 ** 10 }}",
        "reads": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    }
    for name, template in cases.items():
        model, segments, said = converted(make_folder(tmp / name, template, LLAMA))
        assert "note: the chat template" in said and "left out" in said, (name, said)
        assert segments is None, name
        nibble.refuses("generate", model, "--chat", "-p", "x",
                       says=["tokenizer_config.json", "Jinja", "convert.py", "--template"])


def test_where_templates_are(tmp, nibble):
    plain, other = QWEN + OPEN, QWEN.replace("<|end|>", "<|stop|>") + OPEN
    listed = [{"name": "tool_use", "template": "{{ x }}"}, {"name": "default", "template": plain}]
    _, segments, _ = converted(make_folder(tmp / "list", "", LLAMA, chat_template=listed))
    assert segments["texts"]["assistant_end"] == "<|end|>"
    folder = make_folder(tmp / "jinja", plain, LLAMA)
    (folder / "chat_template.jinja").write_text(other)
    nibble.refuses("generate", folder, "--chat", "-p", "x",
                   says=["jinja/chat_template.jinja", "Jinja", "convert.py", "--template"])
    assert b"chat template: in Jinja, in chat_template.jinja" in nibble.run("info", folder).out
    _, segments, _ = converted(folder)
    assert segments["texts"]["assistant_end"] == "<|stop|>", "it goes first"
    segments["texts"]["user_open"] = "mine"
    (folder / "chat_segments.json").write_text(json.dumps(segments))
    assert converted(folder)[1] == segments, "and segments before that"
    assert show(nibble, folder, talk(1, False, False))["text"].endswith("mine")
    folder = make_folder(tmp / "apart", None, LLAMA)
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": plain}))
    for words in (("generate", folder, "--chat", "-p", "x"), ("chat", folder)):
        nibble.refuses(*words, says=["apart/chat_template.json", "Jinja", "convert.py MODEL -o",
                                     "chatml", "--template"])
    assert converted(folder)[1]["texts"]["assistant_end"] == "<|end|>"
    model, segments, said = converted(make_folder(tmp / "none", None, LLAMA))
    assert segments is None and "note" not in said
    nibble.refuses("generate", model, "--chat", "-p", "x", says=["came without", "--template"])


def test_date_and_marks(tmp, nibble):
    """strftime_now is fixed, {% generation %} marks nothing, and neither does a system message
    that a template passes over."""
    template = ("{{ bos_token }}Today is {{ strftime_now('%d %b %Y') }}.{% for m in messages %}"
                "{% if m.role == 'user' %}<|u|>{{ m.content }}{% elif m.role == 'assistant' %}"
                "<|a|>{% generation %}{{ m.content }}{{ eos_token }}{% endgeneration %}{% endif %}"
                "{% endfor %}{% if add_generation_prompt %}<|a|>{% endif %}")
    model, _, said = converted(make_folder(tmp / "dated", template, LLAMA))
    assert "26 July 2024" in said, said
    got = show(nibble, model, talk(2, True, False))["text"]
    assert got.startswith("<s>Today is 26 Jul 2024.<|u|>Who was the fox?<|a|>A thief"), got
    assert TOLD not in got
    result = nibble.run("generate", model, "--chat", "--system", "x", "-p", "y", "--show-prompt")
    assert result.code == 0 and "takes no notice" in result.err, result


def test_quantized_models_keep_it(tmp, nibble):
    model, _, _ = converted(make_folder(tmp / "m", QWEN + OPEN, LLAMA))
    nibble("quantize", model, tmp / "q.npz", "--group-size", "32", "--quiet")
    assert nibble.json("info", tmp / "q.npz")["text"]["chat_template"] is True
    messages = talk(3, True, False)
    assert show(nibble, tmp / "q.npz", messages) == show(nibble, model, messages)


if __name__ == "__main__":
    sys.exit(main(globals()))
