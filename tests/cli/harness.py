"""What the tests of the command line share: running nibble, what a refusal looks like, the runner.

A test is a function test_...; what it names among its parameters it is given: tmp (a folder of its
own), nibble (the program, see Nibble), reference (the folder of --reference).
"""
import argparse
import json
import os
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FAIRYTALE = ROOT / "models" / "fairytale-4bit.npz"
TOKENIZER = ROOT / "tests" / "text" / "bpe_bytes.model"
HANG_S = 60  # whatever takes longer has hung, or four times as long in slower builds


@dataclass
class Result:
    code: int
    out: bytes
    err: str
    cpu_s: float

    def __str__(self):
        return f"exit {self.code}, stdout {self.out[:200]!r}, stderr {self.err[:600]!r}"


def cpu_seconds():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def word_of(value):
    return value if isinstance(value, bytes) else str(value)


class Nibble:
    """The program: called with words it gives its stdout and must succeed without a complaint."""

    def __init__(self, path):
        self.path = path
        quick = path.parent.name == "release"
        self.refusal_s, self.hang_s = (2, HANG_S) if quick else (20, 4 * HANG_S)
        self.sanitized = path.parent.name in ("asan", "tsan", "fuzz")  # and want much memory
        self.counted = path.parent.name == "cover"  # and writes counts when it ends

    def __fspath__(self):
        return str(self.path)

    __str__ = __fspath__

    def run(self, *words, stdin=b"", **options):
        """stdin: bytes, or a file. options are those of subprocess.run."""
        before = cpu_seconds()
        given = {"input": stdin} if isinstance(stdin, bytes) else {"stdin": stdin}
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "timeout": self.hang_s,
                   **given, **options}
        p = subprocess.run([self.path, *map(word_of, words)], **options)
        err = (p.stderr or b"").decode("utf-8", "replace")
        return Result(p.returncode, p.stdout or b"", err, cpu_seconds() - before)

    def __call__(self, *words, **options):
        result = self.run(*words, **options)
        assert result.code == 0 and result.err == "", f"{words}: {result}"
        return result.out

    def start(self, *words, **options):
        """A Popen with pipes."""
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen([self.path, *map(word_of, words)], **{**pipes, **options})

    def json(self, *words, **options):
        return json.loads(self(*words, "--json", **options).decode("utf-8", "strict"))

    def refuses(self, *words, says=(), code=1, out=b"", **options):
        """One sentence on stderr that begins with the program's name and holds each of says, at
        most an indented list after it, and nothing on stdout. Gives stderr."""
        result = self.run(*words, **options)
        first, *rest = result.err.splitlines() or [""]
        assert result.code == code, f"{words}: {result}"
        assert result.out == out, f"{words}: {result}"
        assert first.startswith("nibble: ") and first.isprintable(), f"{words}: {result}"
        assert all(line.startswith("  ") for line in rest), f"{words}: {result}"
        for word in [says] if isinstance(says, str) else says:
            assert word in result.err, f"{words}: '{word}' is not in {result}"
        assert result.cpu_s < self.refusal_s, f"{words}: took {result.cpu_s:.1f} s"
        return result.err


class Skip(Exception):
    """Raised by a test that lacks something on this machine: it is named and not counted."""


def need(program):
    """The path of another program, or the test is left out."""
    path = shutil.which(program)
    if not path:
        raise Skip(f"no {program}")
    return path


# ---- the runner

def interrupt(p):
    """Ends a Popen by SIGINT: by more than one if the first comes before or behind what it is to
    interrupt."""
    for _ in range(60):
        p.send_signal(signal.SIGINT)
        try:
            return p.wait(timeout=1)
        except subprocess.TimeoutExpired:
            pass
    p.kill()
    raise AssertionError("it does not end")


def run_test(name, test, given):
    """In a folder of its own; true if it passed, None if it was left out."""
    wanted = test.__code__.co_varnames[:test.__code__.co_argcount]
    with tempfile.TemporaryDirectory() as tmp:
        try:
            test(**{key: {"tmp": Path(tmp), **given}[key] for key in wanted})
            return True
        except Skip as e:
            print(f"skip {name}: {e}")
            return None
        except Exception as e:
            trace, lines = e.__traceback__, []
            while trace:  # the lines of the test and of its helpers
                lines.append(str(trace.tb_lineno))
                trace = trace.tb_next
            print(f"FAIL {name} (line {'/'.join(lines[1:])}): {type(e).__name__} {str(e)[:1500]}")
            return False


def lacks(test, given):
    """What the test names that is not there, or None."""
    wanted = test.__code__.co_varnames[:test.__code__.co_argcount]
    return next((name for name in wanted if name != "tmp" and name not in given), None)


def main(tests):
    """Runs what begins with test_; the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", default="build/release", help="folder of the nibble binary")
    parser.add_argument("--reference", help="folder of reference data, for the tests that want it")
    parser.add_argument("--slow", action="store_true", help="print how long each test takes")
    parser.add_argument("words", nargs="*", help="only tests with one of these in their names")
    args = parser.parse_args()
    given, results = {}, []
    path = Path(args.build).resolve() / "nibble"
    if path.exists():
        given["nibble"] = Nibble(path)
    if args.reference:
        given["reference"] = Path(args.reference).resolve()
    for name, test in list(tests.items()):
        if not name.startswith("test_") or not any(word in name for word in args.words or [""]):
            continue
        lacking = lacks(test, given)
        if lacking:
            print(f"skip {name}: no {path if lacking == 'nibble' else '--reference'}")
            continue
        begin = time.monotonic()
        results.append(run_test(name, test, given))
        if args.slow:
            print(f"{time.monotonic() - begin:6.2f} s {name}")
    print(f"{results.count(True)} passed, {results.count(False)} failed")
    return 1 if False in results else 0
