#!/usr/bin/python3
"""Finds out what a chat template in Jinja writes around messages: segments, as nibble stores them.

stdin: {"template": TEXT, "tokens": {"bos_token": TEXT, ...}} in JSON. stdout: {"segments": {...},
"date": whether the template asked for the date}, or {"reason": why there are none}. A process of
its own, with limits, since a template is a program: it runs in Jinja's sandbox, as in transformers.

The template is rendered for a few probe conversations whose messages are words that occur nowhere
else, and cut at these. What is then expected of other conversations, of one to five turns, is
compared with what it renders for them. docs/model-files.md describes the segments.
"""
import datetime
import itertools
import json
import re
import resource
import sys

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

MEMORY, SECONDS = 1 << 30, 3   # a template takes some 0.1 seconds
DATE = datetime.datetime(2024, 7, 26)   # what Llama 3's templates say where there is no clock
THOUGHT_ENDS = ("</think>", "[/THINK]", "</seed:think>", "<|END_THINKING|>")
SYSTEM, USER, ANSWER = "system", "user", "assistant"


class Inexpressible(Exception):
    """Why segments cannot stand for the template."""


class Refused(Exception):
    """The template raised an exception, or broke."""


# ---- rendering, as transformers does

class Generation(jinja2.ext.Extension):
    """{% generation %} marks what a model says when it is trained; here it marks nothing."""
    tags = {"generation"}

    def parse(self, parser):
        next(parser.stream)
        return parser.parse_statements(["name:endgeneration"], drop_needle=True)


class Renderer:
    def __init__(self, template, tokens):
        self.source, self.tokens, self.dated = template, tokens, False
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True,
            extensions=[Generation, jinja2.ext.loopcontrols])
        environment.filters["tojson"] = self.tojson
        environment.globals.update(raise_exception=self.refuse, strftime_now=self.date)
        self.template = environment.from_string(template)

    def tojson(self, value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators,
                          sort_keys=sort_keys)

    def refuse(self, message):
        raise jinja2.TemplateError(message)

    def date(self, form):
        self.dated = True
        return DATE.strftime(form)

    def render(self, messages, opened):
        """Of [(role, text)]; opened: an answer is to begin."""
        try:
            return self.template.render(
                messages=[{"role": role, "content": text} for role, text in messages], tools=None,
                documents=None, add_generation_prompt=opened, **self.tokens)
        except (jinja2.TemplateError, ArithmeticError, AttributeError, LookupError, TypeError,
                ValueError, RecursionError) as e:
            raise Refused(str(e) or type(e).__name__) from e


# ---- what segments make of a conversation: src/text/chat.c once more

def trim(text, how):
    side, _, lines = how.partition(" ")
    strip = {"left": text.lstrip, "right": text.rstrip, "both": text.strip}.get(side)
    return strip("\n" if lines else None) if strip else text


def without_thought(segments, text):
    end = segments.get("thought_end")
    if not end or end not in text:
        return text
    return trim(text.rpartition(end)[2], segments["trim"].get("thought", ""))


def expected(segments, messages, opened):
    """The text; KeyError if the segments have no place for the conversation."""
    texts, trims = segments["texts"], segments["trim"]
    system = messages[0][1] if messages[0][0] == SYSTEM else None
    turns = messages[system is not None:]
    last, ignored = segments.get("system_last"), segments.get("system_ignored")
    out = []
    for i, (role, text) in enumerate(turns):
        ends = i + 1 == len(turns)
        here = system is not None and not ignored and (ends if last else i == 0)
        if role == USER:
            first = "start_user" if last or not here else "start_system"
            out.append(texts["assistant_user" if i else first])
            if here:
                out += [trim(system, trims.get("system", "")), texts["system_user"]]
            out.append(trim(text, trims.get("first_user" if here else "user", "")))
        elif ends:
            out += [texts.get("user_last_assistant", texts["user_assistant"]),
                    trim(text, trims.get("last_assistant", ""))]
        else:
            out += [texts["user_assistant"],
                    trim(without_thought(segments, text), trims.get("assistant", ""))]
    answered = turns[-1][0] == ANSWER
    out.append(texts["assistant_end" if answered else "user_open" if opened else "user_end"])
    return "".join(out)


# ---- probing

def talk(texts):
    """[(role, text)] of the user and the assistant in turn."""
    return list(zip(itertools.cycle((USER, ANSWER)), texts))


WORDS = ["zqFirstAskedqz", "zqFirstSaidqz", "zqThenAskedqz", "zqThenSaidqz"]
TOLD = "zqToldBeforeqz"


def cut(text, words):
    """What stands between words, which must all be there in order, once each."""
    parts = []
    for word in words:
        before, found, text = text.partition(word)
        if not found or word in text:
            raise Inexpressible("it leaves a message out, changes it or says it twice")
        parts.append(before)
    return [*parts, text]


def probe_turns(renderer):
    """The texts for conversations without a system message."""
    texts = dict(zip(("start_user", "user_assistant", "assistant_user", "user_open"),
                     cut(renderer.render(talk(WORDS[:3]), True), WORDS[:3])))
    try:
        texts["user_end"] = cut(renderer.render(talk(WORDS[:1]), False), WORDS[:1])[1]
    except Refused:
        pass
    try:
        _, before, end = cut(renderer.render(talk(WORDS[:2]), False), WORDS[:2])
    except (Refused, Inexpressible):
        return texts
    texts["assistant_end"] = end
    if before != texts["user_assistant"]:
        texts["user_last_assistant"] = before
    return texts


def probe_system(renderer, segments):
    """Adds what becomes of a system message."""
    texts = segments["texts"]
    try:
        text = renderer.render([(SYSTEM, TOLD), *talk(WORDS[:3])], True)
        short = renderer.render([(SYSTEM, TOLD), *talk(WORDS[:1])], True)
    except Refused:
        return
    if TOLD not in text and TOLD not in short:
        segments["system_ignored"] = True
    elif text.find(TOLD) < text.find(WORDS[0]):
        parts = cut(text, [TOLD, *WORDS[:3]])
        texts["start_system"], texts["system_user"] = parts[:2]
    else:
        segments["system_last"] = True
        texts["system_user"] = cut(short, [TOLD, WORDS[0]])[1]


LEFT, RIGHT = "\n\n \t", " \t\n\n"
KEPT = {(LEFT, RIGHT): "", ("", ""): "both", ("", RIGHT): "left", (LEFT, ""): "right",
        (" \t", RIGHT): "left lines", (LEFT, " \t"): "right lines", (" \t", " \t"): "both lines"}


def probe_trim(renderer, segments, messages, which, opened):
    """What is left of the spaces around one of the messages; '' if all is."""
    role, word = messages[which]
    padded = [*messages[:which], (role, LEFT + word + RIGHT), *messages[which + 1:]]
    plain = expected(segments, messages, opened)
    before, _, behind = renderer.render(padded, opened).partition(word)
    outside, _, after = plain.partition(word)
    if not before.startswith(outside) or not behind.endswith(after):
        raise Inexpressible(f"spaces around a message of the {role} change what is around it")
    kept = before[len(outside):], behind[:len(behind) - len(after)]
    if kept not in KEPT:
        raise Inexpressible(f"it changes spaces in a message of the {role}")
    return KEPT[kept]


def probe_trims(renderer, segments):
    turns, told = talk(WORDS), [(SYSTEM, TOLD), *talk(WORDS[:1])]
    texts, trims = segments["texts"], segments["trim"]
    probes = [("user", turns[:3], 2, True), ("assistant", turns[:3], 1, True)]
    if "assistant_end" in texts:
        probes.append(("last_assistant", turns, 3, False))
    if "system_user" in texts:
        probes += [("system", told, 0, True), ("first_user", told, 1, True)]
    for part, messages, which, opened in probes:
        how = probe_trim(renderer, segments, messages, which, opened)
        if how:
            trims[part] = how


def probe_thought(renderer, segments):
    """Whether what a model thought before it answered is left out of earlier answers."""
    for end in THOUGHT_ENDS:
        text = f"zqThoughtqz{end}{LEFT}{WORDS[1]}"
        rendered = renderer.render(talk([WORDS[0], text, WORDS[2]]), True)
        before, found, _ = rendered.partition(WORDS[1])
        outside = segments["texts"]["start_user"] + WORDS[0] + segments["texts"]["user_assistant"]
        if "zqThoughtqz" in rendered or not found or not before.startswith(outside):
            continue
        kept = (before[len(outside):], RIGHT)
        if kept not in KEPT:
            raise Inexpressible("it changes what follows a thought")
        segments["thought_end"] = end
        if KEPT[kept]:
            segments["trim"]["thought"] = KEPT[kept]
        return


# ---- checking

TEXTS = ["What is the capital of France?", "Paris.", "  leading, and trailing \t",
         "\nA\n\n  list:\n- one\n- two\n", 'Say "it\'s" \\ {{ x }} {% y %} {# z #} <b>&amp;</b>',
         "\u4f60\u597d, \u00e9t\u00e9 \U0001f600", "1. first\r\n2. second", "\u00a0x\u2003",
         "\n\n\nthree", "end\n\n"]


def conversations():
    """[(messages, opened)]: one to five turns, with a system message and without, all texts in
    every place."""
    for turns, told, shift in itertools.product(range(1, 6), (None, *TEXTS), range(0, 10, 3)):
        texts = [TEXTS[(shift + 3 * i) % len(TEXTS)] for i in range(2 * turns)]
        system = [] if told is None else [(SYSTEM, told)]
        yield system + talk(texts[:-1]), True
        yield system + talk(texts[:-1]), False
        yield system + talk(texts), False


def place(messages, opened):
    system = messages[0][0] == SYSTEM
    turns = (len(messages) - system + 1) // 2
    return (f"{turns} turn{'s' * (turns > 1)} {'with' if system else 'without'} a system message, "
            + ("answered" if messages[-1][0] == ANSWER else "open" if opened else "closed"))


def check(renderer, segments):
    texts = segments["texts"]
    for messages, opened in conversations():
        if messages[0][0] == SYSTEM and not {"system_last", "system_ignored"} & segments.keys() \
                and "start_system" not in texts:
            continue
        answered = messages[-1][0] == ANSWER
        if ("assistant_end" if answered else "user_open" if opened else "user_end") not in texts:
            continue
        try:
            rendered = renderer.render(messages, opened)
        except Refused as e:
            raise Inexpressible(f"of {place(messages, opened)} it says: {e}") from e
        if rendered != expected(segments, messages, opened):
            raise Inexpressible(f"it writes {place(messages, opened)}, in another way than a few "
                                "texts around messages can tell")


# What looks like a token in the source of a template: <|user|>, [INST], </tool_call>.
MARK = re.compile(r"<[^<>\s'\"]{1,60}>|\[/?[A-Z0-9_]{2,60}\]")
MAX_MARKS = 1000


def segments_of(renderer):
    try:
        segments = {"nibble_chat": 1, "texts": probe_turns(renderer), "trim": {}}
        probe_system(renderer, segments)
        probe_trims(renderer, segments)
        probe_thought(renderer, segments)
    except Refused as e:
        raise Inexpressible(f"it fails: {e}") from e
    check(renderer, segments)
    marks = sorted(set(MARK.findall(renderer.source)))
    return {**segments, "marks": marks[:MAX_MARKS]} if marks else segments


def main():
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    given = json.load(sys.stdin)
    try:
        renderer = Renderer(given["template"], given["tokens"])
        answer = {"segments": segments_of(renderer), "date": renderer.dated}
    except Inexpressible as e:
        answer = {"reason": str(e)}
    except jinja2.TemplateError as e:
        answer = {"reason": f"it is no template in Jinja: {e}"}
    except (MemoryError, RecursionError):
        answer = {"reason": "it takes too much memory"}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
