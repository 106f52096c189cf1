#!/usr/bin/python3
"""nibble chat on a terminal: what is typed, what is shown, what is kept of it."""
import errno
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
from pathlib import Path

from chats import ANSWER, said, talker
from harness import FAIRYTALE, main
from test_output import has_terminals

WAIT_S = 60
UP, DOWN, RIGHT, LEFT, DELETE = b"\x1b[A", b"\x1b[B", b"\x1b[C", b"\x1b[D", b"\x1b[3~"
HOME, END, BACKSPACE, ENTER = b"\x01", b"\x05", b"\x7f", b"\r"
INTERRUPT, EOF = b"\x03", b"\x04"
PROMPT = b"> "


class Terminal:
    """A chat in a terminal of its own, whose controlling process it is, so that Ctrl-C is one."""

    def __init__(self, nibble, *words, rows=50, cols=200, before=lambda: None, **environment):
        self.controller, terminal = pty.openpty()
        self.resize(rows, cols)
        grab = lambda: (fcntl.ioctl(0, termios.TIOCSCTTY, 0), before())
        env = {"TERM": "xterm", "NO_COLOR": "1", **environment}
        self.process = nibble.start("chat", *words, stdin=terminal, stdout=terminal,
                                    stderr=terminal, env=env, preexec_fn=grab,
                                    start_new_session=True)
        os.close(terminal)
        self.shown, self.seen = b"", 0  # all, and up to where it was waited for

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self.controller)
        self.process.kill()
        self.process.wait()

    def resize(self, rows, cols):
        fcntl.ioctl(self.controller, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    def read(self, end):
        """More of what is shown, before the time `end`; False at the end."""
        left = end - time.monotonic()
        if left <= 0 or not select.select([self.controller], [], [], left)[0]:
            raise AssertionError(f"waited in vain, got {self.shown[-600:]!r}")
        try:
            more = os.read(self.controller, 1 << 16)
        except OSError as e:
            assert e.errno == errno.EIO, e
            more = b""
        self.shown += more
        return bool(more)

    def wait(self, *texts):
        """Until all of them have been shown, one after the other; gives what came before the end
        of the last."""
        start, end = self.seen, time.monotonic() + WAIT_S
        for text in texts:
            text = text.encode() if isinstance(text, str) else text
            while (at := self.shown.find(text, self.seen)) < 0:
                assert self.read(end), f"ended before {text!r}: {self.shown[start:]!r}"
            self.seen = at + len(text)
        return self.shown[start:self.seen]

    def type(self, *keys):
        for key in keys:
            data = key.encode() if isinstance(key, str) else key
            while data:
                data = data[os.write(self.controller, data):]

    def rest(self):
        """Until it sleeps: gcc's thread sanitizer holds a signal back that comes just before poll()
        until that ends."""
        end = time.monotonic() + WAIT_S
        while Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")")[-1].split()[0] != "S":
            assert time.monotonic() < end, f"does not rest, shows {self.shown[-600:]!r}"
            time.sleep(0.01)
        return self

    def say(self, text, *shown):
        """A line, then what is shown, then the prompt."""
        self.type(text, ENTER)
        return self.wait(*shown, b"\n" + PROMPT)

    def ready(self):
        self.wait("/help lists", PROMPT)
        return self

    def leave(self):
        """Ctrl-D; the exit code."""
        self.type(EOF)
        return self.end()

    def end(self):
        end = time.monotonic() + WAIT_S
        while self.read(end):
            pass
        return self.process.wait(timeout=WAIT_S)


def start(nibble, tmp, *words, endless=False, **options):
    """A chat that saves in tmp."""
    model = talker(tmp / "m.npz", endless=endless)
    return Terminal(nibble, model, "--template", "zephyr", "--save-dir", tmp, *words, **options)


def saved(t, tmp, name="kept"):
    """The messages, by way of /save, as (role, content)."""
    t.say(f"/save {name}", "messages are in")
    return said(json.loads((tmp / name).read_text()))


# ---- turns and lines

def test_turns(tmp, nibble):
    with start(nibble, tmp) as t:
        t.ready()
        t.say("hello", ANSWER)
        t.say("again", ANSWER)
        assert saved(t, tmp) == [("user", "hello"), ("assistant", ANSWER), ("user", "again"),
                                 ("assistant", ANSWER)]
        assert t.leave() == 0, t.shown


def test_editing(tmp, nibble):
    with start(nibble, tmp) as t:
        t.ready()
        t.type("abxd", LEFT, BACKSPACE, "c", END, "f", LEFT, "e", HOME, DELETE, "A")
        t.say("", ANSWER)
        t.say("grün \U0001f600 中" + "\x7f文", ANSWER)
        t.type("all of this goes", b"\x15")  # Ctrl-U
        t.say("w\xf6rter", ANSWER)
        assert [text for role, text in saved(t, tmp) if role == "user"] == [
            "Abcdef", "grün \U0001f600 文", "wörter"]


def test_bytes_that_are_no_text_are_passed_over(tmp, nibble):
    with start(nibble, tmp) as t:
        t.ready()
        t.type(b"a\xffb\xe4\xb8")
        t.say("c", ANSWER)
        text = saved(t, tmp)[0][1]
        assert text[0] == "a" and text[-1] == "c" and "b" in text, text


def test_history(tmp, nibble):
    with start(nibble, tmp) as t:
        t.ready()
        for text in ("first", "second"):
            t.say(text, ANSWER)
        t.type(UP, UP, DOWN, UP, " more")
        t.say("", ANSWER)
        assert saved(t, tmp)[-2] == ("user", "first more")


def test_several_lines(tmp, nibble):
    with start(nibble, tmp) as t:
        t.ready()
        t.type("one \\", ENTER, "two\\", ENTER)
        t.say("three", ANSWER)
        t.type('"""', ENTER, "a", ENTER, ENTER, "  b\\", ENTER)
        t.say('"""', ANSWER)
        t.type('"""x', ENTER)
        t.say('y"""', ANSWER)
        t.say('"""in one"""', ANSWER)
        assert [text for role, text in saved(t, tmp) if role == "user"] == [
            "one \ntwo\nthree", "a\n\n  b\\", "x\ny", "in one"]


def test_quoted_lines_are_no_command(tmp, nibble):
    with start(nibble, tmp) as t:
        t.ready()
        t.type('"""', ENTER, "// a comment", ENTER, "int x;", ENTER)
        t.say('"""', ANSWER)
        t.say('"""/reset"""', ANSWER)
        assert [text for role, text in saved(t, tmp) if role == "user"] == [
            "// a comment\nint x;", "/reset"]


def test_interrupt_drops_what_is_typed(tmp, nibble):
    with start(nibble, tmp) as t:
        t.ready()
        t.type("garbage", INTERRUPT)
        t.wait("^C", PROMPT)
        t.type(INTERRUPT)
        t.wait("^C", PROMPT)
        t.type('"""', ENTER, "more garbage", ENTER)
        t.wait("... ", "... ")
        t.type(INTERRUPT)
        t.wait("^C", PROMPT)
        t.type("half \\", ENTER)
        t.wait("... ")
        t.type(EOF)
        t.wait(PROMPT)
        t.say("kept", ANSWER)
        assert saved(t, tmp)[0] == ("user", "kept")
        assert t.leave() == 0


def test_interrupt_keeps_its_place(tmp, nibble):
    """Of what is pasted it drops the line it stands in, whichever key the terminal has for it."""
    for key in (INTERRUPT, b"\x18"):
        with start(nibble, tmp) as t:
            mode = termios.tcgetattr(t.controller)
            mode[6][termios.VINTR] = key
            termios.tcsetattr(t.controller, termios.TCSANOW, mode)
            t.ready()
            t.type(b"first\rgarbage" + key + b"second\r")
            t.wait(ANSWER, PROMPT, "^C", PROMPT, ANSWER, PROMPT)
            texts = [text for role, text in saved(t, tmp) if role == "user"]
            assert texts == ["first", "second"], texts


def test_the_terminal_is_left_as_it_was(tmp, nibble):
    """Also what Ctrl-C means to it, after each way out; and while an answer is made."""
    for leave in ("end", "command", "signal", "answer"):
        with start(nibble, tmp, endless=leave == "answer") as t:
            before = termios.tcgetattr(t.controller)
            t.ready()
            assert termios.tcgetattr(t.controller) != before
            if leave == "answer":
                t.type("go", ENTER)
                t.wait(ANSWER)
                assert termios.tcgetattr(t.controller) == before
                continue
            if leave == "command":
                t.type("/quit", ENTER)
            if leave == "signal":
                t.rest().process.send_signal(signal.SIGTERM)
            t.end() if leave != "end" else t.leave()
            assert termios.tcgetattr(t.controller) == before, leave


def test_interrupt_from_elsewhere(tmp, nibble):
    with start(nibble, tmp) as t:
        t.ready()
        t.type("garbage")
        t.wait("garbage")
        t.rest().process.send_signal(signal.SIGINT)
        t.wait("^C", PROMPT)
        t.say("kept", ANSWER)
        assert saved(t, tmp)[0] == ("user", "kept")


def test_blank_lines_are_no_messages(tmp, nibble):
    with start(nibble, tmp) as t:
        t.ready()
        for blank in ("", "   ", "\t"):
            t.type(blank, ENTER)
            t.wait(PROMPT)
        t.say("/tokens", "0 tokens of 256 in 0 messages")


# ---- answers

def test_interrupted_answer(tmp, nibble):
    with start(nibble, tmp, "-c", "200000", endless=True) as t:
        t.ready()
        for i in range(3):
            t.type("go on", ENTER)
            t.wait(ANSWER, ANSWER)
            t.type(INTERRUPT)
            t.wait("\n" + PROMPT.decode())
            t.say("/stats", "finish: interrupted")
        messages = saved(t, tmp)
        assert len(messages) == 6, messages
        for role, text in messages[1::2]:  # of what was shown the terminal dropped some at Ctrl-C
            lines = text.split("\n")
            assert len(lines) >= 2 and set(lines[:-1]) == {ANSWER}, text
            assert ANSWER.startswith(lines[-1]), text
        assert t.leave() == 0


def test_undo_regen_reset(tmp, nibble):
    with start(nibble, tmp, "--system", "be good") as t:
        t.ready()
        for command in ("/undo", "/regen", "/stats"):
            t.say(command, "there is no turn yet")
        for text in ("one", "two", "three"):
            t.say(text, ANSWER)
        t.say("/undo", "2 are left")
        t.say("/regen", ANSWER)
        system, turn = ("system", "be good"), ("assistant", ANSWER)
        assert saved(t, tmp) == [system, ("user", "one"), turn, ("user", "two"), turn]
        t.say("/reset", "begins anew")
        assert saved(t, tmp) == [system]
        t.say("after", ANSWER)
        t.say("/system be bad", "is set")
        t.say("/system", "be bad")
        assert saved(t, tmp) == [("system", "be bad"), ("user", "after"), turn]
        t.say("/system -", "is gone")
        assert saved(t, tmp) == [("user", "after"), turn]


def test_a_turn_reads_its_new_tokens_only(tmp, nibble):
    with start(nibble, tmp, "--stats") as t:
        t.ready()
        counts = []
        for text in ("one", "two", "three"):
            shown = t.say(text, "seed").decode()
            counts.append([int(n) for n in re.search(
                r"prompt +(\d+) tokens: (\d+) in the cache, (\d+) read", shown).groups()])
            answer = int(re.search(r"answer +(\d+) tokens", shown)[1])
        prompts, cached, read = zip(*counts)
        assert cached[0] == 0 and read[0] == prompts[0], counts
        for i in (1, 2):  # the token that ended the answer was chosen and not read
            assert cached[i] == prompts[i - 1] + answer - 1, (counts, answer)
        t.say("/undo", "2 are left")
        shown = t.say("three", "seed").decode()
        assert f"{prompts[2] - 1} in the cache, 1 read" in shown, "it is all still there"


def answers(t, tmp):
    """What a chat without a terminal would print."""
    texts = [text.lstrip() for role, text in saved(t, tmp) if role == "assistant"]
    return "".join(text + "\n" * (not text.endswith("\n")) for text in texts).encode()


def test_answers_are_those_of_what_is_left(tmp, nibble):
    """The cache holds what was taken back: the answers must not."""
    words = (FAIRYTALE, "--template", "zephyr", "--temp", "0", "-n", "12", "-q")
    with Terminal(nibble, *words, "--save-dir", tmp) as t:
        t.wait(PROMPT)
        for text in ("Once there was a king", "And then?", "/undo", "Who said so?"):
            t.say(text)
        lines = b"Once there was a king\nWho said so?\n"
        assert answers(t, tmp) == nibble("chat", *words, stdin=lines)
        for text in ("/reset", "/system be good", "Once there was a king"):
            t.say(text)
        lines = lines.splitlines(keepends=True)[0]
        assert answers(t, tmp) == nibble("chat", *words, "--system", "be good", stdin=lines)


def test_commands_that_are_none(tmp, nibble):
    with start(nibble, tmp) as t:
        t.ready()
        t.say("/nothing", "/nothing is no command; /help")
        t.say("/undo it", "/undo takes nothing")
        t.say("/help", *(f"/{name}" for name in (
            "system", "reset", "undo", "regen", "stats", "tokens", "save", "load", "help")))
        t.say("//etc/passwd", ANSWER)
        assert saved(t, tmp)[0] == ("user", "/etc/passwd")
        t.type("/quit", ENTER)
        assert t.end() == 0


# ---- a full context

def test_full_context_stops(tmp, nibble):
    with start(nibble, tmp, "-c", "80") as t:
        t.ready()
        for _ in range(20):
            t.type("more", ENTER)
            if b"--overflow slide" in t.wait("\n" + PROMPT.decode()):
                break
        else:
            raise AssertionError("80 tokens were never full")
        before = saved(t, tmp, "full")
        t.say("and more", "do not fit the context of 80", "/reset")
        assert saved(t, tmp) == before, "the message that did not fit is not kept"
        t.say("/reset", "anew")
        t.say("short", ANSWER)
        assert t.leave() == 0


def test_full_context_slides(tmp, nibble):
    with start(nibble, tmp, "-c", "200", "--overflow", "slide", "--system", "sys") as t:
        t.ready()
        slid = 0
        for i in range(12):
            slid += b"slid out of it" in t.say(f"turn {i}", ANSWER)
        assert 2 <= slid < 8, t.shown
        messages = saved(t, tmp)
        assert messages[0] == ("system", "sys") and messages[1][0] == "user", messages
        assert messages[-2:] == [("user", "turn 11"), ("assistant", ANSWER)], messages
        assert 3 <= len(messages) < 25, messages


def test_full_context_slides_within_an_answer(tmp, nibble):
    with start(nibble, tmp, "-c", "120", "--overflow", "slide", endless=True) as t:
        t.ready()
        for i in range(2):
            shown = t.say(f"turn {i}", "the context of 120 tokens is full")
        assert b"oldest 1 turn slid" in shown, "the first turn made room for the second's answer"
        messages = saved(t, tmp)
        assert len(messages) == 2 and messages[0] == ("user", "turn 1"), messages
        assert messages[1][1].count(ANSWER) > 5, messages


def test_message_longer_than_the_context(tmp, nibble):
    for overflow in ("stop", "slide"):
        with start(nibble, tmp, "-c", "40", "--overflow", overflow) as t:
            t.ready()
            t.say("word " * 30, "do not fit the context of 40", "shorten the message")
            assert saved(t, tmp, overflow) == []


def test_message_too_long_drops_no_turn(tmp, nibble):
    with start(nibble, tmp, "-c", "120", "--overflow", "slide") as t:
        t.ready()
        t.say("first", ANSWER)
        before = saved(t, tmp, "before")
        assert len(before) == 2
        t.say("word " * 100, "do not fit the context of 120", "shorten the message")
        assert saved(t, tmp, "after") == before


# ---- the end, signals, the window

def test_ends(tmp, nibble):
    with start(nibble, tmp) as t:
        t.ready()
        t.type("no message", EOF)  # not at the start of a line: nothing happens
        t.type(INTERRUPT)
        t.wait("^C", PROMPT)
        assert t.leave() == 0
    with start(nibble, tmp) as t:
        t.ready().rest().process.send_signal(signal.SIGTERM)
        assert t.end() == 128 + signal.SIGTERM, t.shown
    with start(nibble, tmp, "-c", "200000", endless=True) as t:
        t.ready()
        t.type("go", ENTER)
        t.wait(ANSWER)
        t.process.send_signal(signal.SIGTERM)
        assert t.end() == 128 + signal.SIGTERM, t.shown[-300:]


def test_terminal_is_left_as_it_was(tmp, nibble):
    with start(nibble, tmp) as t:
        before = termios.tcgetattr(t.controller)
        t.ready()
        assert termios.tcgetattr(t.controller) != before
        keep = os.open(f"/proc/{t.process.pid}/fd/0",
                       os.O_RDWR | os.O_NOCTTY)
        t.type(EOF)
        assert t.process.wait(timeout=WAIT_S) == 0
        assert termios.tcgetattr(keep) == before
        os.close(keep)


def test_another_window_size_redraws_the_line(tmp, nibble):
    with start(nibble, tmp) as t:
        t.ready()
        t.type("some words")
        t.wait("some words")
        t.rest().resize(30, 60)
        t.wait("\n", PROMPT, "some words")
        t.rest().process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, t.process.pid, os.WSTOPPED | os.WNOWAIT)
        t.process.send_signal(signal.SIGCONT)
        t.wait("\n", PROMPT, "some words")
        t.say("!", ANSWER)
        assert saved(t, tmp)[0] == ("user", "some words!")


def test_colour(tmp, nibble):
    with start(nibble, tmp, NO_COLOR="") as t:
        t.wait("\x1b[1m> ")
    for environment in ({}, {"NO_COLOR": "", "TERM": "dumb"}):
        with start(nibble, tmp, **environment) as t:
            t.ready()
            t.say("x", ANSWER)
            assert b"\x1b[1m" not in t.shown, environment


if __name__ == "__main__":
    if has_terminals():
        sys.exit(main(globals()))
    print("0 passed, 0 failed")
