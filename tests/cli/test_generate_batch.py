#!/usr/bin/python3
"""nibble generate --batch-file: many prompts in one load, each as if it were run alone."""
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np

from harness import FAIRYTALE, ROOT, main
from models import BYTE_0, PIECES, Tiny, byte_ids, chain
from test_chat_prompt import SEGMENTS, folder
from test_output import endless

LONGROPE = ROOT / "tests" / "golden" / "phi3-longrope-short"  # another table from 64 tokens on
OPTIONS = {"prompt": "-p", "ids": "--ids", "stop": "--stop"}


def batch(nibble, model, lines, *options, code=0):
    """The results of lines, objects or text."""
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n"
    result = nibble.run("generate", model, "--batch-file", "-", *options,
                        stdin=text.encode("utf-8", "surrogateescape"))
    assert result.code == code, result
    failed = [json.loads(line) for line in result.out.splitlines() if b'"error"' in line]
    assert bool(failed) == (code == 1) == bool(result.err), result
    return [json.loads(line) for line in result.out.decode("utf-8", "strict").splitlines()]


def words_of(line):
    """The same as options of a run of its own."""
    for key, value in line.items():
        for one in value if isinstance(value, list) and key != "ids" else [value]:
            if key == "ignore_eos":
                yield from ["--ignore-eos"] if one else []
            elif key != "id":
                text = " ".join(map(str, one)) if key == "ids" else str(one)
                yield from (OPTIONS.get(key, "--" + key), text)


def check_like_single_runs(nibble, model, lines, *options):
    """Gives the results, each of which is what a run of its own gives, log-probabilities too."""
    options = ("--logprobs", "2", *options)
    results = batch(nibble, model, lines, *options)
    for line, got in zip(lines, results, strict=True):
        want = nibble.json("generate", model, *options, *words_of(line))
        for key in ("text", "ids", "logprobs", "finish_reason", "prompt_tokens", "seed", "hash"):
            assert got[key] == want[key], (line, key, got[key], want[key])
        assert want["cached_tokens"] == 0 and set(got) - {"line", "id"} == set(want)
    return results


# ---- results

def test_like_single_runs(tmp, nibble):
    lines = [{"prompt": "Once upon a time", "seed": 3, "max_tokens": 20},
             {"prompt": "Once upon a time", "seed": 4, "n_predict": 20},
             {"prompt": "Once upon a time there was", "temp": 0, "n_predict": 8},
             {"prompt": "Once", "temperature": 1.5, "top_k": 5, "seed": 0},
             {"prompt": "", "seed": 9, "min_p": 0.2, "typical": 0.5},
             {"ids": [1, 1935, 675, 261, 526], "seed": 3, "stop": ["the", "a "]},
             {"prompt": "The \u00e9 \u4e2d", "seed": 5, "stop": "e", "ignore_eos": True},
             {"prompt": "Once upon a time", "seed": 3, "repeat_penalty": 1.5, "repeat_last_n": -1,
              "presence_penalty": 0.5, "frequency_penalty": 0.25, "top_p": 1}]
    results = check_like_single_runs(nibble, FAIRYTALE, lines, "-n", "12", "-s", "2")
    assert [got["line"] for got in results] == list(range(1, 9)) and "id" not in results[0]
    assert results[0]["cached_tokens"] == 0 and results[1]["cached_tokens"] == 4, results[1]
    assert len(results[0]["ids"]) == 20 and len(results[3]["ids"]) <= 12


def test_beginnings_are_shared(tmp, nibble):
    """At most all but the last token; what was generated is shared as well."""
    ids = [5, 6, 7, 8, 9, 10]
    told = nibble.json("generate", FAIRYTALE, "--ids", "5 6 7 8 9 10", "--temp", "0", "-n", "5")
    lines = [{"ids": ids}, {"ids": ids}, {"ids": ids + told["ids"][:3] + [99]}, {"ids": ids[:2]},
             {"ids": ids[:2] + [50, 60]}, {"ids": [99]}, {"ids": ids}]
    results = check_like_single_runs(nibble, FAIRYTALE, lines, "--temp", "0", "-n", "5", "-s", "1")
    assert [got["cached_tokens"] for got in results] == [0, 5, 9, 1, 2, 0, 0], results


def test_what_is_shared_counts_as_recent(tmp, nibble):
    prompt = "the fox and the fox and the fox and the"
    lines = [{"prompt": prompt}, {"prompt": prompt, "presence_penalty": 1e6},
             {"prompt": prompt, "presence_penalty": 1e6, "repeat_last_n": 2}]
    plain, penalized, _ = check_like_single_runs(nibble, FAIRYTALE, lines, "--temp", "0", "-n",
                                                 "1", "-s", "1")
    assert plain["text"] == " fox" != penalized["text"] and penalized["cached_tokens"] > 5


def test_bit_for_bit_in_every_kind_of_model(tmp, nibble):
    """Plain weights, each type of cache, windows, a table of rope for long texts."""
    rng = np.random.default_rng(8)
    stem = rng.integers(3, PIECES, 150).tolist()
    lines = [{"ids": stem[:n] + [7], "seed": n} for n in (140, 100, 63, 64, 65, 101, 150, 3, 128)]
    model = Tiny(context=300, dim=160, heads=10).save(tmp / "m.npz", dtype="<f2")
    for kv in ("f16", "f32", "q8"):
        check_like_single_runs(nibble, model, lines, "-n", "4", "--kv-type", kv, "-b", "32")
    for name in ("gemma2", "gpt-oss", "deepseek-v3"):
        golden = ROOT / "tests" / "golden" / name
        config = json.loads((golden / "config.json").read_text())
        vocab = config["vocab_size"]
        few = [{"ids": [id % vocab for id in line["ids"]], "seed": 1} for line in lines[:5]]
        check_like_single_runs(nibble, golden, few, "-n", "4")


def test_rope_for_long_texts(tmp, nibble):
    """A beginning that another table turned is not the same beginning."""
    stem = [i * 7 % 90 + 3 for i in range(120)]
    lines = [{"ids": stem[:n]} for n in (40, 60, 70, 90, 50, 64, 65)]
    options = ("--temp", "0", "-s", "1", "-n", "8", "--ignore-eos")
    results = check_like_single_runs(nibble, LONGROPE, lines, *options)
    assert [got["cached_tokens"] for got in results] == [0, 40, 0, 70, 0, 50, 0], results


def test_blas_shares_nothing(tmp, nibble):
    model = Tiny(context=300).save(tmp / "m.npz")
    lines = [{"ids": list(range(5, 50)), "seed": 1}, {"ids": list(range(5, 60)), "seed": 1}]
    results = check_like_single_runs(nibble, model, lines, "-n", "4", "--blas")
    assert [got["cached_tokens"] for got in results] == [0, 0]


def test_full_contexts(tmp, nibble):
    lines = [{"prompt": "Once upon a time"}, {"prompt": "Once upon a time there"}]
    for options in (("-c", "8"), ("-c", "12", "--overflow", "slide", "-n", "40")):
        check_like_single_runs(nibble, FAIRYTALE, lines, "-s", "3", "--ignore-eos", *options)


def test_options_hold_for_all_lines(tmp, nibble):
    lines = [{"prompt": "Once"}, {"prompt": "Once", "stop": []}, {"prompt": "Once", "seed": 5}]
    results = batch(nibble, FAIRYTALE, lines, "--stop", "e", "-s", "4", "--echo", "-n", "30")
    assert [got["seed"] for got in results] == [4, 4, 5]
    assert all(got["text"].startswith("Once") for got in results)
    assert "e" not in results[0]["text"][4:] and "e" in results[1]["text"][4:], results
    seeds = [got["seed"] for got in batch(nibble, FAIRYTALE, lines[:2], "-n", "1")]
    assert seeds[0] != seeds[1], "random ones"


def test_ids_of_lines(tmp, nibble):
    for id in ("a", "\u4e2d \"\\", 0, -7, 1.5, 2 ** 53, ""):
        got, = batch(nibble, FAIRYTALE, [{"id": id, "prompt": "x", "n_predict": 0}])
        assert got["id"] == id, (id, got)
    got, = batch(nibble, FAIRYTALE, [{"id": 7, "prompt": "x", "top_k": -1}], code=1)
    assert got["id"] == 7 and got["line"] == 1 and "top_k" in got["error"], got


def test_without_a_tokenizer(tmp, nibble):
    model = Tiny().save(tmp / "m.npz", tokenizer=None)
    results = batch(nibble, model, [{"ids": [5]}, {"prompt": "x"}], "-n", "2", code=1)
    assert results[0]["text"] is None and len(results[0]["ids"]) == 2
    assert "no tokenizer" in results[1]["error"]


# ---- conversations

def test_chat(tmp, nibble):
    """The template goes around the prompt of each line, and what they have in common is shared."""
    lines = [{"prompt": "Who was the fox?"}, {"prompt": "Who was the hare?"}, {"prompt": ""},
             {"prompt": "<s></s>"}]
    for options in (("--template", "llama2", "--system", "Be brief."), ("--template", "zephyr"),
                    ("--template", "vicuna", "--no-bos")):
        results = check_like_single_runs(nibble, FAIRYTALE, lines, "--chat", "-n", "6", "-s", "1",
                                         "--echo", *options)
        assert results[1]["cached_tokens"] > 5, results
    named = batch(nibble, FAIRYTALE, lines[:1], "--chat", "--template", "zephyr", "--echo")[0]
    assert named["text"].startswith("<|user|>\nWho was the fox?</s>\n<|assistant|>\n"), named


def test_messages(tmp, nibble):
    """A whole conversation, with --chat or without it; ids stay as they are."""
    model = folder(tmp / "m")
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
            {"role": "user", "content": "c"}]
    options = ("-n", "3", "-s", "1", "--echo")
    want = nibble.json("generate", model, *options, "--messages", "-",
                       stdin=json.dumps(talk).encode())
    lines = [{"messages": talk}, {"ids": [7]}, {"prompt": "a"}]
    for chat in ((), ("--chat",)):
        results = batch(nibble, model, lines, *options, *chat)
        assert (results[0]["text"], results[0]["ids"]) == (want["text"], want["ids"]), results
        assert results[1]["prompt_tokens"] == 1, results
        assert results[2]["text"].startswith("<s>Q: a\nA:" if chat else "a"), results
    for messages, says in ((7, "messages: it is no list"), ([{}], "no role"),
                           ([], "no message of the user"), (talk[1:], "'user' is due")):
        got, = batch(nibble, model, [{"messages": messages}], code=1)
        assert says in got["error"], (messages, got)
    got, = batch(nibble, model, [{"messages": talk, "prompt": "x"}], code=1)
    assert "either" in got["error"], got
    got, = batch(nibble, model, [{"messages": talk}], "--chat", "--template", "zephyr", "--system",
                 "x", code=1)
    assert "leave --system out" in got["error"], got


def test_an_answer_ends_as_the_template_says(tmp, nibble):
    model = folder(tmp / "m", segments=None)
    (model / "added_tokens.json").write_text(json.dumps({"<|im_end|>": PIECES}))
    ends = ("-n", "3", "--logit-bias", f"{PIECES}=999", "--template", "chatml", "--chat")
    got, = batch(nibble, model, [{"prompt": "x"}], *ends)
    assert got["finish_reason"] == "stop" and len(got["ids"]) == 1, got


def test_what_is_wrong_with_every_line_is_told_at_once(tmp, nibble):
    own, none = folder(tmp / "own"), folder(tmp / "none", segments=None)
    bare = Tiny().save(tmp / "bare.npz", tokenizer=None)
    for model, words, says, code in (
            (none, ("--chat",), "came without a chat template", 1),
            (own, ("--chat", "--template", "x"), "no built-in", 2),
            (own, ("--chat", "--system", "s"), "takes no system message", 2),
            (own, ("--chat", "--bos", "--no-bos"), "choose one", 2),
            (bare, ("--chat",), "has no tokenizer", 1), (own, ("--system", "s"), "--chat", 2),
            (own, ("--messages", "-"), "leave --messages", 2),
            (own, ("--chat", "--show-prompt"), "--show-prompt", 2),
            (own, ("--stop", ""), "--stop", 2), (own, ("--logit-bias", "x"), "--logit-bias", 2)):
        nibble.refuses("generate", model, "--batch-file", "-", *words, stdin=b'{"prompt":"x"}',
                       says=says, code=code)


def test_notes_are_told_once_and_hide_no_error(tmp, nibble):
    ignored = folder(tmp / "m", segments={**SEGMENTS, "system_ignored": True})
    lines = b'{"prompt":"x"}\n{"prompt":"y"}\n{"prompt":1}\n{"prompt":"%s"}\n' % (b"z" * 999)
    result = nibble.run("generate", ignored, "--batch-file", "-", "--chat", "--system", "s", "-n",
                        "1", "--model-defaults", stdin=lines)
    assert result.code == 1 and result.err.count("note: ") == 2, result
    assert "takes no notice" in result.err and "says nothing of sampling" in result.err, result
    errors = [json.loads(line).get("error", "") for line in result.out.splitlines()]
    assert errors[:2] == ["", ""] and "not a string" in errors[2] and "fit" in errors[3], errors


# ---- lines that fail

def test_a_line_that_fails_is_told_and_the_rest_done(tmp, nibble):
    good = {"prompt": "Once", "n_predict": 1}
    for bad, says in (("{", "byte"), ("", None), ("[1]", "object"), ("1", "object"),
                      ('{"prompt":"x"} x', "byte 16"), ("{}", "either"), ("nul", "byte"),
                      ('{"prompt":"x","ids":[1]}', "either"), ('{"prompt":1}', "prompt"),
                      ('{"prompt":"x","promt":"y"}', "'promt' is no key"),
                      ('{"prompt":"x","seed":-2}', "seed"), ('{"prompt":"x","seed":"1"}', "seed"),
                      ('{"prompt":"x","temp":true}', "temp"),
                      ('{"prompt":"x","top_k":1.5}', "top_k"),
                      ('{"prompt":"x","n_predict":1e99}', "n_predict"),
                      ('{"prompt":"x","top_p":1e999}', "top_p"), ('{"ids":[1,-1]}', "ids"),
                      ('{"ids":["1"]}', "ids"), ('{"ids":[4096]}', "4096"),
                      ('{"ids":[]}', "no tokens"),
                      ('{"ids":7}', "ids"), ('{"prompt":"x","stop":""}', "stop"),
                      ('{"prompt":"x","stop":[1]}', "stop"), ('{"prompt":"x","id":[]}', "id"),
                      ('{"prompt":"x","id":1e300}', "2^53"), ('{"prompt":"a\\u0000b"}', "NUL"),
                      ('{"prompt":"x","ignore_eos":1}', "ignore_eos"), ('{"\udcff":1}', "key"),
                      ('{"prompt":"a\0b"}', "NUL"), ('{"prompt":"' + "x\\n" * 600 + '"}', "fit"),
                      ('{"prompt":"x","stop":' + json.dumps(["s"] * 65) + "}", "64"),
                      ("[" * 100000, "byte"), ('{"prompt":"\\ud800"}', "byte")):
        results = batch(nibble, FAIRYTALE, [good, bad, good], code=1 if says else 0)
        assert len(results) == (3 if says else 2), (bad, results)
        assert len(results[0]["ids"]) == len(results[-1]["ids"]) == 1, (bad, results)
        if says:
            assert set(results[1]) - {"id"} == {"line", "error"}, (bad, results[1])
            assert results[1]["line"] == 2 and says in results[1]["error"], (bad, results[1])
    text = '{"prompt":"x\\\\u0000","n_predict":0}'
    assert batch(nibble, FAIRYTALE, [text])[0]["prompt_tokens"] > 3, "no NUL, only its spelling"


def test_damaged_logits_fail_each_line(tmp, nibble):
    m = Tiny()
    m.weights["output"][7] = np.nan
    results = batch(nibble, m.save(tmp / "m.npz"), [{"prompt": "x"}, {"prompt": "y"}], code=1)
    assert all("logit 7 is not a number" in got["error"] for got in results), results


# ---- the file

def test_files(tmp, nibble):
    path = tmp / "b.jsonl"
    path.write_text('{"prompt":"x","n_predict":1}\r\n\n  \n{"prompt":"y","n_predict":1}')
    out = nibble("generate", FAIRYTALE, "--batch-file", path)
    assert [json.loads(line)["line"] for line in out.splitlines()] == [1, 4], "the last is unended"
    path.write_text("")
    assert nibble("generate", FAIRYTALE, "--batch-file", path) == b""
    nibble.refuses("generate", FAIRYTALE, "--batch-file", tmp / "no", says="cannot be opened")
    nibble.refuses("generate", FAIRYTALE, "--batch-file", tmp, says="cannot be read")
    for words, says in ((("-p", "x"), "choose one"), (("--ids", "1"), "choose one"),
                        (("-f", path), "choose one"), (("--jsonl",), "--jsonl")):
        nibble.refuses("generate", FAIRYTALE, "--batch-file", path, *words, says=says, code=2)


def test_lines_of_any_length(tmp, nibble):
    """Blanks before an object make it as long as may be, and a byte longer; without an end too."""
    most, line = 64 << 20, b'{"prompt":"x","n_predict":0}'
    batch = lambda text: nibble.run("generate", FAIRYTALE, "--batch-file", "-", stdin=text)
    blanks = b" " * (most - len(line))
    lines = batch(blanks + line + b"\n\r\n" + line).out.splitlines()
    assert [json.loads(text)["line"] for text in lines] == [1, 3]
    for text in (line + b"\n " + blanks + line + b"\n", line + b"\n" + b"[" * (most + 1)):
        done = batch(text)
        assert done.code == 1 and json.loads(done.out)["line"] == 1, done
        assert done.err.startswith("nibble: stdin: line 2 is larger than 64 MiB"), done


def test_a_conversation(tmp, nibble):
    """Each line is answered before the next one is there."""
    with nibble.start("generate", FAIRYTALE, "--batch-file", "-", "-n", "1",
                      stdin=subprocess.PIPE) as p:
        for i in range(3):
            p.stdin.write(b'{"prompt":"x","id":%d}\n' % i)
            p.stdin.flush()
            assert json.loads(p.stdout.readline())["id"] == i
        p.stdin.close()
        assert p.wait(timeout=30) == 0


def wait_for_work(pid, seconds):
    """Until it has computed so long from now on, however busy the machine is."""
    def computed():
        fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    end = computed() + seconds
    while computed() < end:
        time.sleep(0.01)


def test_interrupted(tmp, nibble):
    """The line at hand is told with what there is, no other is begun."""
    _, model, *options = endless(tmp)
    x, = byte_ids(b"x")
    (tmp / "b").write_text(f'{{"ids":[{x}],"n_predict":2}}\n' + f'{{"ids":[{x}]}}\n' * 2)
    with nibble.start("generate", model, *options[:-2], "--batch-file", tmp / "b") as p:
        first = json.loads(p.stdout.readline())
        wait_for_work(p.pid, 0.2)
        p.send_signal(signal.SIGINT)
        out, err = p.communicate(timeout=30)
    assert first["finish_reason"] == "length" and (p.returncode, err) == (130, b""), err
    second, = map(json.loads, out.splitlines())
    assert second["finish_reason"] == "interrupted" and second["line"] == 2, second


def test_interrupted_while_waiting(tmp, nibble):
    with nibble.start("generate", FAIRYTALE, "--batch-file", "-", stdin=subprocess.PIPE) as p:
        p.stdin.write(b'{"prompt":"x","n_predict":1}\n')
        p.stdin.flush()
        assert json.loads(p.stdout.readline())["line"] == 1
        p.send_signal(signal.SIGINT)
        assert p.wait(timeout=30) == 130 and p.stderr.read() == b""


def test_reader_that_leaves(tmp, nibble):
    model = chain(tmp / "m.npz", byte_ids(b"xyx"), context=4096)
    (tmp / "b").write_text('{"ids":[%d],"n_predict":1}\n' % (BYTE_0 + ord("x")) * 20000)
    with nibble.start("generate", model, "--batch-file", tmp / "b") as p:
        assert os.read(p.stdout.fileno(), 1) == b"{"
        p.stdout.close()
        assert p.wait(timeout=30) == 0 and p.stderr.read() == b""
    with open("/dev/full", "wb") as full:
        nibble.refuses("generate", model, "--batch-file", tmp / "b", says="No space", stdout=full)


if __name__ == "__main__":
    sys.exit(main(globals()))
