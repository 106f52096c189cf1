#!/usr/bin/python3
"""nibble generate --chat, --messages, --show-prompt, --model-defaults; what ends an answer."""
import json
import sys

from harness import FAIRYTALE, main
from models import PIECES, Tiny

TURN = PIECES  # the id of <|turn|>, which is added
SEGMENTS = {"nibble_chat": 1, "texts": {
    "start_user": "<s>Q: ", "user_assistant": "\nA: ", "assistant_user": "<|turn|>\nQ: ",
    "user_open": "\nA:", "user_end": "\n", "assistant_end": "<|turn|>"}}


def folder(path, segments=SEGMENTS, **files):
    model = Tiny(vocab=PIECES + 1).save_folder(path)
    (model / "added_tokens.json").write_text(json.dumps({"<|turn|>": TURN}))
    files = {"chat_segments": segments, **files}
    for name, content in files.items():
        if content is not None:
            (model / f"{name}.json").write_text(json.dumps(content))
    return model


def shown(nibble, *words, **options):
    got = nibble.json("generate", *words, "--show-prompt", **options)
    lines = nibble("generate", *words, "--show-prompt", **options)
    text, ids = lines[:-1].rsplit(b"\n", 1)
    assert text.decode() == got["text"] and list(map(int, ids.split())) == got["ids"], got
    return got


def test_chat(tmp, nibble):
    model = folder(tmp / "m")
    got = shown(nibble, model, "--chat", "-p", "Why?")
    assert got["text"] == "<s>Q: Why?\nA:" and got["ids"][0] == 1, got
    (tmp / "p").write_text("Why?\n")
    assert shown(nibble, model, "--chat", "-f", tmp / "p") == got
    assert shown(nibble, model, "--chat", stdin=b"Why?") == got
    spelled = shown(nibble, model, "--chat", "-p", "<s></s><|turn|>")
    assert spelled["text"] == "<s>Q: <s></s><|turn|>\nA:"
    assert spelled["ids"].count(1) == 1 and not {2, TURN} & set(spelled["ids"])
    assert shown(nibble, model, "--chat", "-p", "Why?", "--no-bos")["ids"] == got["ids"][1:]
    assert shown(nibble, model, "--chat", "-p", "Why?", "--bos") == got
    named = shown(nibble, model, "--chat", "-p", "Why?", "--template", "zephyr", "--system", "s")
    assert named["text"] == "<|system|>\ns</s>\n<|user|>\nWhy?</s>\n<|assistant|>\n"
    assert named["ids"][0] != 1 and named["ids"].count(2) == 2
    again = shown(nibble, model, "--chat", "-p", "Why?", "--template", "zephyr", "--system", "s",
                  "--bos")
    assert again["ids"] == [1, *named["ids"]]
    out = nibble.json("generate", model, "--chat", "-p", "Why?", "-n", "3", "--echo", "-s", "1")
    assert out["prompt_tokens"] == len(got["ids"]) and out["text"].startswith(got["text"])


def test_messages(tmp, nibble):
    model = folder(tmp / "m")
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b\u00e9"},
            {"role": "user", "content": "c"}]
    got = shown(nibble, model, "--messages", "-", stdin=json.dumps(talk).encode())
    assert got["text"] == "<s>Q: a\nA: b\u00e9<|turn|>\nQ: c\nA:" and got["ids"].count(TURN) == 1
    (tmp / "talk.json").write_text(json.dumps(talk[:2]))
    closed = shown(nibble, model, "--messages", tmp / "talk.json")
    assert got["ids"][:len(closed["ids"])] == closed["ids"], "a beginning"
    talk = [{"role": "user", "content": r"\u0000"}]  # a backslash, and what is no NUL
    assert r"Q: \u0000" in shown(nibble, model, "--messages", "-",
                                 stdin=json.dumps(talk).encode())["text"]
    for text, says in ((b"{}", "no list"), (b"[", "no list"), (b"[1]", "no role"), (b"", "no list"),
                       (b'[{"role": "user"}]', "no role"), (b'[{"content": "x"}]', "no role"),
                       (b'[{"role": "user", "content": "\\u0000"}]', "NUL")):
        nibble.refuses("generate", model, "--messages", "-", stdin=text, says=says)
    for talk, says in (([], "no message of the user"),
                       ([{"role": "system", "content": "x"}], "takes no system message"),
                       ([{"role": "assistant", "content": "x"}], "where 'user' is due"),
                       ([{"role": "user", "content": "x"}] * 2, "where 'assistant' is due"),
                       ([{"role": "tool", "content": "x"}], "'tool'")):
        nibble.refuses("generate", model, "--messages", "-", stdin=json.dumps(talk).encode(),
                       says=says, code=2)


def test_what_makes_no_sense(tmp, nibble):
    model = folder(tmp / "m", segments=None)
    nibble.refuses("generate", model, "--chat", "-p", "x",
                   says=["came without", "chatml", "vicuna"])
    for words, says in ((["--template", "llama2", "-p", "x"], "belong to --chat"),
                        (["--system", "x", "-p", "x"], "belong to --chat"),
                        (["--chat", "--messages", "-"], "choose one"),
                        (["--chat", "--ids", "1"], "--ids"),
                        (["--chat", "--special", "-p", "x"], "--special"),
                        (["--messages", "-", "-p", "x"], "whole conversation"),
                        (["--chat", "-p", "x", "--template", "llama"], "chatml, "),
                        (["--chat", "-p", "x", "--template", "zephyr", "--bos", "--no-bos"],
                         "choose one")):
        nibble.refuses("generate", model, *words, says=says, code=2)
    bare = Tiny().save(tmp / "bare.npz", tokenizer=None)
    nibble.refuses("generate", bare, "--chat", "-p", "x", says="has no tokenizer")
    for wrong, says in (({}, "version 0"), ({**SEGMENTS, "texts": {}}, "lacks the text"),
                        ({**SEGMENTS, "more": 1}, "more")):
        model = folder(tmp / says.replace(" ", ""), segments=wrong)
        nibble.refuses("generate", model, "-p", "x", says=["chat_segments.json", says])


def test_show_prompt(nibble):
    assert shown(nibble, FAIRYTALE, "-p", "Once upon a time") == {
        "text": "Once upon a time", "ids": [1, 1935, 675, 261, 526]}
    assert shown(nibble, FAIRYTALE, "--ids", "1 1935") == {"text": "<s> Once", "ids": [1, 1935]}
    assert nibble("generate", FAIRYTALE, "-p", "a\n\n", "--show-prompt", "--no-bos").startswith(
        b"a\n\n\n")


def test_what_ends_an_answer(tmp, nibble):
    def ends(model, *words):
        got = nibble.json("generate", model, "-p", "x", "-n", "3", "--logit-bias", f"{TURN}=999",
                          *words)
        return got["finish_reason"] == "stop" and got["ids"] == [TURN]

    own = folder(tmp / "own")
    assert ends(own) and ends(own, "--chat") and not ends(own, "--ignore-eos")
    assert not ends(folder(tmp / "none", segments=None))
    assert ends(folder(tmp / "config", segments=None, generation_config={"eos_token_id": TURN}))
    assert ends(folder(tmp / "list", segments=None, generation_config={"eos_token_id": [2, TURN]}))
    assert ends(folder(tmp / "tokens", segments=None, tokenizer_config={"eos_token": "<|turn|>"}))
    named = folder(tmp / "named", segments=None)
    (named / "added_tokens.json").write_text(json.dumps({"<|im_end|>": TURN}))
    assert ends(named, "--chat", "--template", "chatml") and not ends(named)
    assert not ends(named, "--chat", "--template", "zephyr")


def test_model_defaults(tmp, nibble):
    def run(model, *words):
        return nibble.json("generate", model, "-p", "the", "-n", "12", "-s", "7", "--ignore-eos",
                           *words)["ids"]

    said = {"do_sample": True, "temperature": 1.7, "top_k": 5, "top_p": 0.6, "min_p": 0.01,
            "typical_p": 0.9, "repetition_penalty": 1.3}
    model = folder(tmp / "m", generation_config=said)
    options = ["--temp", "1.7", "--top-k", "5", "--top-p", "0.6", "--min-p", "0.01", "--typical",
               "0.9", "--repeat-penalty", "1.3"]
    assert run(model, "--model-defaults") == run(model, *options) != run(model)
    assert run(model, "--model-defaults", "--top-k", "40") == run(model, *options, "--top-k", "40")
    assert run(model, "--model-defaults", "--temp", "0") == run(model, *options, "--temp", "0")
    greedy = folder(tmp / "greedy", generation_config={"do_sample": False, "temperature": 0.6})
    assert run(greedy, "--model-defaults") == run(greedy, "--temp", "0") != run(greedy)
    result = nibble.run("generate", folder(tmp / "none"), "-p", "x", "-n", "1", "--model-defaults")
    assert result.code == 0 and "says nothing of sampling" in result.err, result
    wrong = folder(tmp / "wrong", generation_config={"temperature": "hot"})
    nibble.refuses("generate", wrong, "-p", "x", "--model-defaults", says=["temperature"])
    assert run(wrong), "not looked at otherwise"


if __name__ == "__main__":
    sys.exit(main(globals()))
