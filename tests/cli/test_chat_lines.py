#!/usr/bin/python3
"""nibble chat without a terminal, templates, and what /save and /load take."""
import json
import os
import pty
import re
import resource
import signal
import subprocess
import sys

from chats import ANSWER, said, talker
from harness import FAIRYTALE, interrupt, main
from models import chain
from test_chat import Terminal
from test_chat_prompt import folder
from test_output import has_terminals

ZEPHYR = ("--template", "zephyr")


def chat(nibble, model, text, *words, **options):
    return nibble("chat", model, *ZEPHYR, *words, stdin=text, **options)


# ---- a line is a message

def test_a_line_a_message(tmp, nibble):
    model = talker(tmp / "m.npz")
    line = ANSWER.encode() + b"\n"
    for text, answers in ((b"one\ntwo\nthree\n", 3), (b"one\n\n\ntwo", 2), (b"", 0), (b"\n", 0),
                          (b"/quit\n//x\n/reset\n", 3), (b"\"\"\"\na\\\n", 2),
                          (b"a\0b\n\xff\n", 2)):
        assert chat(nibble, model, text) == line * answers, text


def test_answers_are_those_of_the_whole_conversation(tmp, nibble):
    """With the cache's help a turn says what generate says to all of the conversation."""
    messages, text = ["Once there was", "And then?", "Who said so?"], ""
    greedy = ("--temp", "0", "-n", "12", "--repeat-penalty", "1.2", "-q")
    got = nibble.run("chat", FAIRYTALE, *ZEPHYR, *greedy, stdin="\n".join(messages).encode())
    assert got.code == 0 and got.err == "", got
    for message in messages:
        text += f"<|user|>\n{message}</s>\n<|assistant|>\n"
        answer = nibble("generate", FAIRYTALE, "--special", "--no-bos", *greedy, "-p", text)
        assert answer.strip(), "it says something"
        text += answer.decode() + "</s>\n"
        shown = answer.lstrip()
        shown += b"" if shown.endswith(b"\n") else b"\n"
        assert got.out.startswith(shown), (got.out, shown)
        got.out = got.out[len(shown):]
    assert got.out == b""


def test_an_answer_is_kept_as_its_tokens_are_written(tmp, nibble):
    """A first space of an answer may be the model's, or the template's already."""
    ids = lambda text: [int(id) for id in nibble("tokenize", talker(tmp / "t.npz"), "--no-bos",
                                                 "-p", text).split()]
    for template, before, answer in (("mistral", "x [/INST]", " fish"),
                                     ("zephyr", "x\n", " fish"), ("zephyr", "x\n", "fish")):
        said = ids(before + answer)[len(ids(before)) - 1:]
        assert len(set(said)) == len(said) and said[0] == ids(before)[-1], said
        model = chain(tmp / "m.npz", said)
        result = nibble.run("chat", model, "--template", template, "--stats", stdin=b"x\nx\n")
        assert result.out == b"fish\n" * 2, (template, result)
        prompt, cached = re.search(r"prompt +(\d+) .*prompt +\d+ tokens: (\d+)", result.err,
                                   re.S).groups()
        assert int(cached) == int(prompt) + len(said) - 1, (template, answer, result)


def test_system_message(tmp, nibble):
    model = talker(tmp / "m.npz")
    read = lambda *words: int(re.search(r"prompt +(\d+)", nibble.run(
        "chat", model, *ZEPHYR, "--stats", *words, stdin=b"x\n").err)[1])
    assert read("--system", "be good") > read()
    nibble.refuses("chat", model, "--template", "chatml", stdin=b"x\n", says="<|im_end|>")


def test_limits_of_an_answer(tmp, nibble):
    model = talker(tmp / "m.npz")
    result = nibble.run("chat", model, *ZEPHYR, "-n", "2", stdin=b"x\n")
    assert result.code == 0 and result.out == b"fi\n" and "-n" in result.err, result
    assert chat(nibble, model, b"x\n", "--stop", "sh") == b"fi\n"
    assert chat(nibble, model, b"x\n", "--stop", "fish") == b"\n"


def test_stats_tell_the_seed(tmp, nibble):
    result = nibble.run("chat", FAIRYTALE, *ZEPHYR, "-n", "4", "-s", "5", "--stats",
                        stdin=b"Hi\nThere\n")
    assert re.findall(r"seed (\d+)", result.err) == ["5", "6"], result


def test_same_seed_same_answers(tmp, nibble):
    talk = lambda seed: nibble.run("chat", FAIRYTALE, *ZEPHYR, "-n", "20", "-s", seed,
                                   stdin=b"Hello\nHello\n").out
    assert talk(1) == talk(1) != talk(2)


def test_model_defaults(tmp, nibble):
    """Sampling as generation_config.json says, but for options that are given."""
    def talk(model, *words):
        return chat(nibble, model, b"a\nb\n", "-q", "-n", "12", "-s", "7", *words)

    model = folder(tmp / "m", generation_config={"temperature": 1.7, "top_k": 5})
    said = talk(model, "--model-defaults")
    assert said == talk(model, "--temp", "1.7", "--top-k", "5") != talk(model)
    assert talk(model, "--model-defaults", "--temp", "0") == talk(model, "--temp", "0") != said
    result = nibble.run("chat", folder(tmp / "none"), *ZEPHYR, "--model-defaults")
    assert result.code == 0 and "says nothing of sampling" in result.err, result
    wrong = folder(tmp / "wrong", generation_config={"top_k": "few"})
    nibble.refuses("chat", wrong, *ZEPHYR, "--model-defaults", says="top_k")


# ---- exit codes

def test_templates(tmp, nibble):
    nibble.refuses("chat", FAIRYTALE, stdin=b"x\n", says=["chat template", "--template", "chatml"])
    nibble.refuses("chat", FAIRYTALE, "--template", "none", stdin=b"x\n", code=2,
                   says=["'none'", "chatml", "zephyr"])
    for name, token in (("chatml", "<|im_end|>"), ("llama3", "<|eot_id|>"), ("glm4", "<|user|>")):
        nibble.refuses("chat", FAIRYTALE, "--template", name, stdin=b"x\n", says=[token, name])
    for name in ("llama2", "zephyr", "vicuna"):  # these end an answer with EOS
        result = nibble.run("chat", FAIRYTALE, "--template", name, "-n", "4", stdin=b"x\n")
        assert result.code == 0 and result.out, (name, result)
    silent = talker(tmp / "silent.npz")
    nibble.refuses("chat", silent, stdin=b"x\n", says="--template")


def test_refusals(tmp, nibble):
    model = talker(tmp / "m.npz")
    words = ("chat", model, *ZEPHYR)
    nibble.refuses(*words, "--overflow", "shift", code=2, says="stop or slide")
    nibble.refuses(*words, "--stop", "", code=2, says="--stop")
    nibble.refuses(*words, "--json", code=2, says="unknown option")
    nibble.refuses(*words, "--save-dir", tmp / "nowhere", says=["--save-dir", "nowhere"])
    nibble.refuses("chat", code=2, says="chat MODEL")
    nibble.refuses(*words, "-c", "40", stdin=b"word " * 30, code=3, says="context of 40")
    result = nibble.run(*words, "-c", "80", stdin=b"more\n" * 20)
    assert result.code == 3 and result.out.count(b"fish\n") > 1, result
    assert result.err.startswith("nibble: ") and "--overflow slide" in result.err, result
    result = nibble.run(*words, "-c", "80", "--overflow", "slide", stdin=b"more\n" * 20)
    assert result.code == 0 and result.out == b"fish\n" * 20 and "slid out" in result.err, result


def test_stdin_and_stdout(tmp, nibble):
    model = talker(tmp / "m.npz")
    words = ("chat", model, *ZEPHYR)
    result = nibble.run(*words, stdin=None, preexec_fn=lambda: os.close(0))
    assert (result.code, result.out, result.err) == (0, b"", ""), result
    with open("/dev/full", "wb") as full:
        nibble.refuses(*words, stdin=b"x\ny\n", stdout=full, says="No space left")
    with open("/proc/self/mem", "rb") as broken:
        result = nibble.run(*words, stdin=broken)
        assert result.code == 1 and "stdin cannot be read" in result.err, result


def test_reader_that_leaves(tmp, nibble):
    model = talker(tmp / "m.npz", endless=True)
    with nibble.start("chat", model, *ZEPHYR, "-c", "200000", stdin=subprocess.PIPE) as p:
        p.stdin.write(b"x\n")
        p.stdin.flush()
        assert p.stdout.read(4) == b"fish"
        p.stdout.close()
        assert p.wait(timeout=60) == 0 and p.stderr.read() == b""


def test_interrupted(tmp, nibble):
    model = talker(tmp / "m.npz", endless=True)
    for number in (signal.SIGINT, signal.SIGTERM):
        with nibble.start("chat", model, *ZEPHYR, "-c", "200000", stdin=subprocess.PIPE) as p:
            p.stdin.write(b"x\n")
            p.stdin.flush()
            assert p.stdout.read(4) == b"fish"
            p.send_signal(number)
            out = p.stdout.read()
            assert p.wait(timeout=60) == 128 + number and out.endswith(b"\n"), out[-20:]
    model = talker(tmp / "n.npz")
    with nibble.start("chat", model, *ZEPHYR, stdin=subprocess.PIPE) as p:
        p.stdin.write(b"x\n")
        p.stdin.flush()
        assert p.stdout.read(5) == b"fish\n"
        assert interrupt(p) == 130 and p.stderr.read() == b""


def test_half_a_terminal(tmp, nibble):
    """Only somebody who both types and reads is asked for lines."""
    if not has_terminals():
        return
    model = talker(tmp / "m.npz")
    controller, terminal = pty.openpty()
    with nibble.start("chat", model, *ZEPHYR, stdin=terminal) as p:
        os.write(controller, b"x\n\x04")
        assert p.stdout.read() == b"fish\n" and p.wait(timeout=60) == 0
    result = nibble.run("chat", model, *ZEPHYR, stdin=b"x\n", stderr=terminal)
    assert (result.code, result.out) == (0, b"fish\n")
    os.close(terminal), os.close(controller)


# ---- saving and loading

def conversation(*texts, **more):
    messages = [{"role": ("user", "assistant")[i % 2], "content": text}
                for i, text in enumerate(texts)]
    return {"format": "nibble chat 1", "messages": messages, **more}


def test_saving_and_loading(tmp, nibble):
    if not has_terminals():
        return
    model = talker(tmp / "m.npz")
    (tmp / "kept").mkdir()
    with Terminal(nibble, model, *ZEPHYR, "--save-dir", tmp / "kept", "--system", "sys") as t:
        t.ready()
        t.say('say "\\" \u00e9', ANSWER)
        t.say("/save one.json", "3 messages are in one.json")
        t.say("more", ANSWER)
        t.say("/save one.json", "5 messages are in one.json")  # in place of its own
        first = json.loads((tmp / "kept" / "one.json").read_text())
        assert said(first) == [("system", "sys"), ("user", 'say "\\" \u00e9'),
                               ("assistant", ANSWER), ("user", "more"), ("assistant", ANSWER)]
        assert first["template"] == "zephyr" and first["model"] == str(model), first
        t.say("/reset", "anew")
        t.say("/load one.json", "5 messages from one.json", ANSWER)
        t.say("/undo", "1 is left")
        t.say("/save two", "3 messages")
        assert sorted(p.name for p in (tmp / "kept").iterdir()) == ["one.json", "two"]


def test_names_that_are_refused(tmp, nibble):
    if not has_terminals():
        return
    model = talker(tmp / "m.npz")
    kept = tmp / "kept"
    kept.mkdir()
    (kept / "notes").write_text("mine")
    (kept / "folder").mkdir()
    (kept / "link").symlink_to(tmp / "outside")
    (tmp / "outside").write_text(json.dumps(conversation("a", "b")))
    os.mkfifo(kept / "pipe")
    with Terminal(nibble, model, *ZEPHYR, "--save-dir", kept) as t:
        t.ready()
        t.say("x", ANSWER)
        for command in ("/save", "/load"):
            for name in ("../outside", "/etc/passwd", "folder/x", "..", ".", "", "x" * 300):
                t.say(f"{command} {name}", "without folders")
            for name in ("notes", "folder", "link", "pipe"):
                t.say(f"{command} {name}", name, "cannot be" if name in ("link", "folder", "pipe")
                      else "is no conversation")
        t.say("/load nothing", "nothing cannot be opened")
    assert (kept / "notes").read_text() == "mine" and (tmp / "outside").exists()
    assert len(list(kept.iterdir())) == 4, "nothing is left behind"


def test_files_that_are_no_conversations(tmp, nibble):
    if not has_terminals():
        return
    good = conversation("a", "b")
    broken = {
        "empty": b"", "text": b"hello", "cut": json.dumps(good).encode()[:-3], "list": b"[]",
        "number": b"1", "deep": b"[" * 100000,
        "other": json.dumps({**good, "format": "x"}).encode(),
        "no_messages": b'{"format": "nibble chat 1"}',
        "odd": json.dumps(conversation("a")).encode(),
        "roles": json.dumps({**good, "messages": good["messages"][::-1]}).encode(),
        "system_late": json.dumps({**good, "messages": good["messages"] + [
            {"role": "system", "content": "x"}, good["messages"][1]]}).encode(),
        "not_text": json.dumps(conversation("a", 5)).encode(),
        "no_role": b'{"format": "nibble chat 1", "messages": [{"content": "x"}]}',
        "nul": json.dumps(conversation("a\0b", "c")).encode(),
        "bytes": json.dumps(good).encode().replace(b'"a"', b'"\xff"'),
        "raw_nul": json.dumps(good).encode().replace(b'"a"', b'"\0"'),
    }
    for name, data in broken.items():
        (tmp / name).write_bytes(data)
    (tmp / "good").write_text(json.dumps(conversation(r"no NUL: \u0000", "b")))
    with Terminal(nibble, talker(tmp / "m.npz"), *ZEPHYR, "--save-dir", tmp) as t:
        t.ready()
        t.say("before", ANSWER)
        for name in broken:
            t.say(f"/load {name}", f"{name} is no conversation that /save wrote: ")
        t.say("/save after", "2 messages")
        assert said(json.loads((tmp / "after").read_text()))[0] == ("user", "before")
        t.say("/load good", "2 messages from good", "b")


def test_a_full_disk_leaves_nothing(tmp, nibble):
    if not has_terminals():
        return
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
    with Terminal(nibble, talker(tmp / "m.npz"), *ZEPHYR, "--save-dir", tmp, before=limit) as t:
        t.ready()
        t.say("x", ANSWER)
        t.say("/save big", "big cannot be written: File too large")
        t.say("still here", ANSWER)
    assert [p.name for p in tmp.iterdir()] == ["m.npz"]


if __name__ == "__main__":
    sys.exit(main(globals()))
