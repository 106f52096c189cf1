"""A model's chat template: found in its files, run by chat_segments.py, stored as segments."""
import json
import os
import subprocess
import sys
from pathlib import Path

from checkpoint import Failure, Made, read_chunks, read_json, whole_file

SEGMENTS = "chat_segments.json"
TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token",
          "mask_token")
MAX_TEMPLATE = 1 << 20
SECONDS = 60            # the child has a limit of its own, of less
INSTALL = "install the package python3-jinja2, which runs it, and convert again"


def text_of(value):
    """A special token's text: a string, or an object with more about it."""
    return value.get("content") if isinstance(value, dict) else value


def special_tokens(*settings):
    """What a template may name, from the first of the files that says it."""
    tokens = {}
    for name in TOKENS:
        texts = [text_of(each.get(name)) for each in settings]
        tokens.update({name: text for text in texts[::-1] if isinstance(text, str)})
    for each in settings:
        more = each.get("additional_special_tokens")
        if isinstance(more, list):
            tokens.setdefault("additional_special_tokens", [text_of(text) for text in more])
    return tokens


def choose(template):
    """The template itself, or of several, in a list or an object, the one called default."""
    if isinstance(template, list):
        template = {each.get("name"): each.get("template") for each in template
                    if isinstance(each, dict)}
    if isinstance(template, dict):
        template = template.get("default")
    return template if isinstance(template, str) else None


def find(path, files):
    """(template, special tokens), the first None if there is none. files: those of the
    checkpoint by name; others lie in the folder path."""
    def settings(name):
        if name in files:
            return read_json(files[name])
        there = path.is_dir() and (path / name).is_file()
        return read_json(whole_file(path / name)) if there else {}

    config = settings("tokenizer_config.json")
    tokens = special_tokens(config, settings("special_tokens_map.json"))
    own = path / "chat_template.jinja"
    if path.is_dir() and own.is_file():
        source = whole_file(own)
        if source.size > MAX_TEMPLATE:
            raise Failure(f"{own} holds {source.size} bytes, more than any template has")
        return b"".join(read_chunks(source)).decode("utf-8", "replace"), tokens
    for config in (config, settings("chat_template.json")):
        if config.get("chat_template") is not None:
            return choose(config["chat_template"]), tokens
    return None, tokens


def ask(template, tokens):
    """What chat_segments.py answers; a reason if it does not."""
    command = [sys.executable, "-I", str(Path(__file__).resolve().parent / "chat_segments.py")]
    question = json.dumps({"template": template, "tokens": tokens})
    try:
        done = subprocess.run(command, input=question.encode(), capture_output=True,
                              timeout=SECONDS, check=False, env={"PATH": os.defpath})
        return json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        return {"reason": "it takes too long"}
    except ValueError:
        if b"No module named 'jinja2'" in done.stderr:
            return {"missing": True}
        return {"reason": "it takes too long or too much memory"}


def segments_file(path, files):
    """(the file to store with the model or None, [a sentence to say])."""
    template, tokens = find(path, {file.name: file for file in files})
    if template is None:
        return None, []
    answer = ask(template, tokens)
    if "missing" in answer:
        return None, [f"note: the chat template of {path} is left out: {INSTALL}"]
    if "segments" not in answer:
        return None, [f"note: the chat template of {path} is left out, as texts around messages "
                      f"cannot stand for it: {answer['reason']}"]
    data = json.dumps(answer["segments"], ensure_ascii=False, indent=1, sort_keys=True).encode()
    notes = [f"note: the chat template of {path} writes the date; it will always be that of 26 "
             "July 2024"] if answer["date"] else []
    return Made(SEGMENTS, path, "U8", (len(data),), len(data), lambda: iter((data,))), notes
