#!/usr/bin/python3
"""Where output goes: readers that leave, full disks, signals, terminals."""
import errno
import os
import pty
import select
import signal
import subprocess
import sys
import time

from harness import FAIRYTALE, interrupt, main
from models import byte_ids, chain

STORY = ("generate", FAIRYTALE, "-p", "Once", "--temp", "0", "-n", "20")
PRINTING = (STORY, (*STORY, "--json"), ("info",), ("info", FAIRYTALE), ("--version",), ("--help",),
            ("generate", "--help"), ("tokenize", FAIRYTALE, "-p", "x"),
            ("detokenize", FAIRYTALE, "300"),
            ("bench", FAIRYTALE, "-p", "2", "-n", "2", "-r", "1"),
            ("bench", FAIRYTALE, "-p", "2", "-n", "2", "-r", "1", "--json"))


def endless(tmp, layers=1):
    """Words of a run that ends only when it is stopped."""
    x, y = byte_ids(b"xy")
    model = chain(tmp / "m.npz", [x, y, x], context=1 << 20, layers=layers)
    return "generate", model, "-n", "-1", "-c", "200000", "--ids", x


def long_prompt(tmp):
    """Words of a run that reads its prompt for many seconds. Of the last layer little is done."""
    (tmp / "p").write_bytes(b"x y" * 60000)
    return *endless(tmp, layers=2)[:-2], "-f", tmp / "p", "-b", "8"


def wait_until_ready(p):
    """Until the program catches SIGINT, so that one does not simply end it."""
    status = f"/proc/{p.pid}/status"
    for _ in range(3000):
        caught = next(line for line in open(status) if line.startswith("SigCgt:"))
        if int(caught.split()[1], 16) >> (signal.SIGINT - 1) & 1:
            return
        time.sleep(0.01)
    raise AssertionError("it never catches SIGINT")


def read_some(fd, enough, limit_s=30):
    """Reads until enough(bytes) or the end."""
    data, end = b"", time.monotonic() + limit_s
    while not enough(data):
        assert time.monotonic() < end, f"waited in vain, got {data[-200:]!r}"
        if not select.select([fd], [], [], 0.5)[0]:
            continue
        try:
            more = os.read(fd, 4096)
        except OSError as e:  # how a terminal says that nobody is at the other end
            assert e.errno == errno.EIO, e
            more = b""
        if not more:
            break
        data += more
    return data


def read_all(fd):
    return read_some(fd, lambda data: False)


# ---- readers and disks

def test_reader_that_leaves(tmp, nibble):
    with nibble.start(*endless(tmp)) as p:
        assert os.read(p.stdout.fileno(), 1) == b"y"
        p.stdout.close()
        assert p.wait(timeout=30) == 0
        assert p.stderr.read() == b""
    words = " ".join(f"'{word}'" for word in (nibble, *endless(tmp)))
    shell = subprocess.run(["bash", "-c", f"{words} | head -c 5; echo ${{PIPESTATUS[0]}}"],
                           capture_output=True, timeout=60)
    assert shell.stdout == b"yxyxy0\n" and shell.stderr == b"", shell


def test_reader_that_never_was(tmp, nibble):
    for words in PRINTING:
        read, write = os.pipe()
        os.close(read)
        result = nibble.run(*words, stdout=write)
        os.close(write)
        assert result.code == 0 and result.err == "", (words, result)


def test_full_disk(tmp, nibble):
    with open("/dev/full", "wb") as full:
        for words in PRINTING:
            nibble.refuses(*words, says="No space left", stdout=full)


def test_closed_stdout(tmp, nibble):
    closed = lambda: os.close(1)
    for words in PRINTING:
        nibble.refuses(*words, says="stdout", stdout=None, preexec_fn=closed)
    out = tmp / "q.npz"
    result = nibble.run("quantize", FAIRYTALE, out, "-q", stdout=None, preexec_fn=closed)
    assert result.code == 0 and out.read_bytes()[:2] == b"PK", "no output took stdout's place"


def test_all_closed(tmp, nibble):
    closed = lambda: [os.close(fd) for fd in range(3)]
    for words, code in ((STORY, 1), (("logits", FAIRYTALE, "--ids", "1", "-o", tmp / "x"), 0)):
        result = nibble.run(*words, preexec_fn=closed, stdout=None, stderr=None, stdin=None)
        assert result.code == code, result


def test_slow_reader_on_a_pipe_that_does_not_block(tmp, nibble):
    read, write = os.pipe()
    os.set_blocking(write, False)
    (tmp / "p").write_bytes(b"word " * 40000)
    with nibble.start("tokenize", FAIRYTALE, "-f", tmp / "p", stdout=write) as p:
        os.close(write)
        time.sleep(0.2)
        got = read_all(read)
        assert p.wait() == 0, p.stderr.read()
    assert len(got.split()) >= 40000


def test_bare_environment(tmp, nibble):
    want = nibble(*STORY)
    for options in ({"env": {}}, {"cwd": "/"}, {"start_new_session": True},
                    {"env": {"LC_ALL": "de_DE.UTF-8", "TERM": "dumb", "HOME": "/nowhere"}}):
        assert nibble(*STORY, **options) == want, options


# ---- signals

def test_interrupted_generation(tmp, nibble):
    for number in (signal.SIGINT, signal.SIGTERM):
        with nibble.start(*endless(tmp), "--stats") as p:
            first = os.read(p.stdout.fileno(), 1)
            p.send_signal(number)
            out, err = p.communicate(timeout=30)
        assert p.returncode == 128 + number, (p.returncode, err)
        text = first + out
        assert text == (b"yx" * len(text))[:len(text)] and b"finish: interrupted" in err, err
        assert f"generation {len(text)} tokens".encode() in err, (len(text), err)


def test_interrupted_json(tmp, nibble):
    with nibble.start(*endless(tmp), "--json") as p:
        wait_until_ready(p)
        time.sleep(0.2)
        p.send_signal(signal.SIGINT)
        out, err = p.communicate(timeout=30)
    assert p.returncode == 130 and err == b"", err
    assert b'"finish_reason":"interrupted"' in out and out.endswith(b"}\n"), out[-300:]


def test_interrupted_prompt(tmp, nibble):
    with nibble.start(*long_prompt(tmp), "--stats") as p:
        wait_until_ready(p)
        time.sleep(0.2)
        p.send_signal(signal.SIGINT)
        out, err = p.communicate(timeout=30)
    assert (p.returncode, out) == (130, b"") and b"finish: interrupted" in err, (p.returncode, err)


def test_interrupted_while_opening_or_reading_a_file(tmp, nibble):
    """A FIFO that nobody writes to, and a file without an end."""
    os.mkfifo(tmp / "fifo")
    for words in (("generate", FAIRYTALE, "-f"), ("generate", FAIRYTALE, "--batch-file"),
                  ("generate", FAIRYTALE, "--messages"), ("perplexity", FAIRYTALE, "-f")):
        for path in (tmp / "fifo", "/dev/zero"):
            if path == "/dev/zero" and words[-1] == "--batch-file":
                continue  # one line: it ends when memory does
            with nibble.start(*words, path, stderr=subprocess.PIPE) as p:
                wait_until_ready(p)
                time.sleep(0.02)
                code, out, err = interrupt(p), p.stdout.read(), p.stderr.read()
            # By the second signal at once; and a gigabyte of zeros may have been read by then.
            known = {130: b"", -signal.SIGINT: b"", 1: err if b"larger than 1 GiB" in err else b""}
            assert code in known and err == known[code] and out == b"", (words, path, code, err)


def test_interrupted_while_waiting_for_the_prompt(tmp, nibble):
    for words in (("generate", FAIRYTALE), ("generate", FAIRYTALE, "-f", "-"),
                  ("tokenize", FAIRYTALE)):
        with nibble.start(*words, stdin=subprocess.PIPE) as p:
            if words[0] == "generate":
                wait_until_ready(p)
            time.sleep(0.3)
            p.send_signal(signal.SIGINT)
            p.wait(timeout=30)
            code = 130 if words[0] == "generate" else -signal.SIGINT
            assert p.returncode == code and p.stdout.read() == b"", p.returncode
            err = p.stderr.read()
            assert err == b"", err


def test_interrupted_bench(tmp, nibble):
    with nibble.start("bench", FAIRYTALE, "-p", "512", "-n", "512", "-r", "1000") as p:
        wait_until_ready(p)
        p.send_signal(signal.SIGINT)
        out, err = p.communicate(timeout=30)
    assert (p.returncode, out) == (130, b""), (p.returncode, out, err)


def test_interrupted_logits(tmp, nibble):
    model, out = endless(tmp)[1], tmp / "l.npy"
    with nibble.start("logits", model, "--ids", "104 105 " * 15000, "-o", out, "-b", "8") as p:
        wait_until_ready(p)
        time.sleep(0.1)
        p.send_signal(signal.SIGINT)
        err = p.communicate(timeout=30)[1]
    assert p.returncode == 130 and err == b"" and not out.exists(), (p.returncode, err)


def test_interrupted_before_anyone_reads(tmp, nibble):
    """A FIFO is open when someone reads it, which may be never."""
    os.mkfifo(tmp / "pipe")
    with nibble.start("logits", FAIRYTALE, "--ids", "1", "-o", tmp / "pipe") as p:
        time.sleep(0.5)
        assert p.poll() is None and interrupt(p) == 130
        assert b"pipe: interrupted" in p.stderr.read()


def test_interrupted_quantize(tmp, nibble):
    (tmp / "old.npz").write_bytes(b"old")
    with nibble.start("quantize", FAIRYTALE, tmp / "old.npz", "-t", "1") as p:
        wait_until_ready(p)
        p.send_signal(signal.SIGINT)
        err = p.communicate(timeout=30)[1].decode()
    names = [path.name for path in tmp.iterdir()]
    assert p.returncode in (0, 130) and names == ["old.npz"], (p.returncode, names)
    if p.returncode == 130:
        assert err.startswith("nibble: ") and (tmp / "old.npz").read_bytes() == b"old", err


# ---- terminals

def has_terminals():
    """A container may have no /dev/pts: then these tests have nothing to stand on."""
    try:
        for end in pty.openpty():
            os.close(end)
    except OSError:
        print("no terminals here (/dev/pts): the tests of terminals are left out")
        return False
    return True


def on_terminal(nibble, *words, streams, **options):
    """(exit code, what the terminal showed, stdout, stderr), for streams such as ("stderr",)."""
    controller, terminal = pty.openpty()
    given = {stream: terminal for stream in streams}
    with nibble.start(*words, **{**given, **options}) as p:
        os.close(terminal)
        shown = read_all(controller).replace(b"\r\n", b"\n")
        os.close(controller)
        out = p.stdout.read() if p.stdout else None
        err = p.stderr.read() if p.stderr else None
        p.wait(timeout=30)
    return p.returncode, shown, out, err


def test_statistics_on_a_terminal(tmp, nibble):
    if not has_terminals():
        return
    want = nibble(*STORY)
    code, shown, out, _ = on_terminal(nibble, *STORY, streams=["stderr"])
    assert (code, out) == (0, want) and b"finish: length" in shown, shown
    code, shown, out, _ = on_terminal(nibble, *STORY, "--quiet", streams=["stderr"])
    assert (code, out, shown) == (0, want, b"")
    assert nibble.run(*STORY).err == "", "and none without"


def test_final_newline_on_stderr(tmp, nibble):
    if not has_terminals():
        return
    want = nibble(*STORY)
    code, shown, _, err = on_terminal(nibble, *STORY, streams=["stdout"])
    assert (code, shown, err) == (0, want, b"\n"), (shown, err)
    code, shown, _, err = on_terminal(nibble, *STORY, "--json", streams=["stdout"])
    assert code == 0 and shown.count(b"\n") == 1 and err == b"", (shown, err)
    code, shown, _, _ = on_terminal(nibble, *STORY, streams=["stdout", "stderr"])
    assert code == 0 and shown.startswith(want + b"\nload "), shown


def test_no_prompt_on_a_terminal(tmp, nibble):
    if not has_terminals():
        return
    for command in ("generate", "tokenize"):
        controller, terminal = pty.openpty()
        nibble.refuses(command, FAIRYTALE, stdin=terminal, says="-p TEXT", code=2)
        os.close(terminal), os.close(controller)


def test_progress_stays_off_stdout(tmp, nibble):
    if not has_terminals():
        return
    controller, terminal = pty.openpty()
    with nibble.start(*long_prompt(tmp), stderr=terminal) as p:
        os.close(terminal)
        shown = read_some(controller, lambda data: data.count(b"\r") >= 3)
        p.send_signal(signal.SIGINT)
        shown += read_all(controller)
        out = p.communicate(timeout=30)[0]
    os.close(controller)
    assert p.returncode == 130 and out == b"", (p.returncode, out)
    assert b"reading the prompt" in shown and b"%" in shown, shown
    before, after = shown.rsplit(b"\r\x1b[K", 1)
    assert after.startswith(b"load ") and b"\r" not in after.replace(b"\r\n", b""), after


if __name__ == "__main__":
    sys.exit(main(globals()))
