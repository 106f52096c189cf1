#!/usr/bin/python3
"""Which commands enter the sandbox, what info says of it, and that results are the same without.
What it refuses is tried by test_sandbox.c."""
import resource
import sys
import time
from pathlib import Path

from harness import FAIRYTALE, Skip, main

LONG = {  # commands that run long enough to be looked at
    "generate": ["generate", FAIRYTALE, "-p", "a", "-n", "-1", "--ignore-eos"],
    "bench": ["bench", FAIRYTALE, "-p", "64", "-n", "64", "-r", "50", "-t", "2", "-q"],
    "logits": ["logits", FAIRYTALE, "--ids", "1 " * 500, "-t", "2"],
}


def line_of_info(nibble):
    return next(line for line in nibble("info").decode().splitlines()
                if line.startswith("sandbox:")).split(":", 1)[1].strip()


def confined(pid):
    """Whether each thread of a process has a filter; None once it has ended."""
    try:
        texts = [p.read_text() for p in Path(f"/proc/{pid}/task").glob("*/status")]
    except OSError:
        return None
    return all("Seccomp:\t2" in text for text in texts) if texts else None


def gets_confined(nibble, words, seconds):
    """Whether a run is seen with all threads confined before it ends or the time is over."""
    p = nibble.start(*words)
    try:
        limit = time.monotonic() + seconds
        while time.monotonic() < limit and p.poll() is None:
            if confined(p.pid):
                return True
        return False
    finally:
        p.kill()
        p.communicate()


def test_info_says_what_there_is(nibble):
    line = line_of_info(nibble)
    assert line.startswith(("seccomp", "landlock", "none:", "off:")), line
    assert line.startswith("off:") == nibble.sanitized or nibble.counted, line


def test_commands_are_confined(nibble, tmp):
    if not line_of_info(nibble).startswith("seccomp"):
        print("skip: no seccomp in this build or kernel")
        return
    for name, words in LONG.items():
        words = words + (["-o", tmp / "out.npy"] if name == "logits" else [])
        tries = 5  # a short run may end between two looks at it
        assert any(gets_confined(nibble, words, 20) for _ in range(tries)), name
        assert not gets_confined(nibble, [*words, "--no-sandbox"], 1), name


def test_no_descriptor_is_left(nibble, tmp):
    """What that leaves of the sandbox is said; the run goes on."""
    if "landlock (" not in line_of_info(nibble):
        raise Skip("no landlock")
    four = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (4, 4))
    done = nibble.run("generate", FAIRYTALE, "-p", "Once", "-n", "1", preexec_fn=four)
    assert done.code == 0 and done.out, done
    assert "note: the sandbox keeps more shut than it should: Too many open" in done.err, done
    assert nibble("generate", FAIRYTALE, "-p", "Once", "-n", "1") == done.out


def test_the_same_result_without(nibble, tmp):
    words = ["generate", FAIRYTALE, "-p", "Once", "-n", "20", "-s", "3"]
    assert nibble(*words) == nibble(*words, "--no-sandbox")
    nibble("logits", FAIRYTALE, "--ids", "1 2 3", "-o", tmp / "a.npy")
    nibble("logits", FAIRYTALE, "--ids", "1 2 3", "-o", tmp / "b.npy", "--no-sandbox")
    assert (tmp / "a.npy").read_bytes() == (tmp / "b.npy").read_bytes()


def test_logits_beside_nothing(nibble, tmp):
    """The folder of the output is not there: the sentence is that of the file."""
    nibble.refuses("logits", FAIRYTALE, "--ids", "1", "-o", tmp / "no" / "out.npy",
                   says="No such file or directory")


def test_logits_through_a_link(nibble, tmp):
    """A link to a file elsewhere is written through only where the sandbox lets it."""
    (tmp / "here").mkdir()
    (tmp / "there").mkdir()
    (tmp / "here" / "out.npy").symlink_to(tmp / "there" / "out.npy")
    words = ["logits", FAIRYTALE, "--ids", "1", "-o", tmp / "here" / "out.npy"]
    result = nibble.run(*words)
    assert result.code == 0 or "cannot be" in result.err, str(result)
    nibble(*words, "--no-sandbox")


if __name__ == "__main__":
    sys.exit(main(globals()))
