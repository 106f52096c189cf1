#!/usr/bin/python3
"""Runs every test suite and adds up what they say.

    tests/run.py --build build/release --config release [--reference DIR] [--under COMMAND]
                 [--suites WORDS]

A suite is a program built from tests/*/*.c, a Python file tests/*/test_*.py, or (for the release
build) the lint. Each closes with a line 'N passed, N failed'; so does this, with the sum of all.
A suite that crashes, runs out of time or closes without that line counts as one failed.
"""

import argparse
import concurrent.futures
import glob
import os
import re
import shlex
import signal
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PYTHON = "/usr/bin/python3"  # where the system's packages, numpy among them, are found
TIMEOUT_S = 300
SLOWER = {"release": 1, "debug": 2}  # every other build watches what it runs: 4 times
CLOSING = re.compile(r"^(\d+) passed, (\d+) failed$", re.M)
SANITIZERS = {
    # A size beyond all memory is refused by malloc here as it is without the sanitizer.
    "ASAN_OPTIONS": "detect_leaks=1:detect_stack_use_after_return=1:strict_string_checks=1:"
                    "allocator_may_return_null=1:halt_on_error=1",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1:"
                    f"suppressions={ROOT}/tests/tsan.supp",
}
COVERAGE = {"GCOV_ERROR_FILE": os.devnull}  # counts that a test leaves no room for are no message


def find_suites(build, config, reference, under):
    """(name, command) of every suite, quick ones first; with `under` those of C only, run by it."""
    arguments = ["--build", build] + (["--reference", reference] if reference else [])
    suites = []
    if config == "release" and not under:
        suites.append(("lint", [PYTHON, "tools/lint.py", "--build", build]))
    for path in sorted(glob.glob(os.path.join(build, "tests", "*", "*"))):
        if path.endswith("soak/soak"):
            continue  # built lest it rot; tests/soak/soak.py runs it
        name = os.path.relpath(path, os.path.join(build, "tests"))
        program = os.path.isfile(path) and os.access(path, os.X_OK) and "." not in name
        has_source = os.path.exists(os.path.join(ROOT, "tests", name + ".c"))
        if program and has_source:  # without a source it is a leftover
            suites.append((name, [*under, path]))
    for path in sorted(glob.glob(os.path.join(ROOT, "tests", "*", "test_*.py"))):
        if under:
            break
        path = os.path.relpath(path, ROOT)
        suites.append((os.path.relpath(path, "tests"), [PYTHON, path, *arguments]))
    return suites


def environment():
    """Ours, with sanitizers set to stop at the first finding; what the user sets goes last."""
    env = COVERAGE | dict(os.environ)
    for name, options in SANITIZERS.items():
        env[name] = ":".join(filter(None, [options, env.get(name)]))
    return env


class Result:
    """How a suite ended: its counts, its output, and why it failed beyond what it counts."""

    def __init__(self, name, output, seconds, status, timed_out):
        self.name, self.output, self.seconds = name, output, seconds
        closing = CLOSING.findall(output)
        self.passed, self.failed = map(int, closing[-1]) if closing else (0, 0)
        self.why = None
        if timed_out:
            self.why = f"ran out of time after {seconds:.0f} s"
        elif status < 0:
            self.why = f"killed by {signal_name(-status)}"
        elif not closing:
            self.why = f"no closing line, exit status {status}"
        elif status != 0 and self.failed == 0:
            self.why = f"exit status {status}"
        if self.why:
            self.failed += 1


def signal_name(number):
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class Runner:
    """Runs suites, each in a process group of its own so that nothing outlives it."""

    def __init__(self, timeout):
        self.timeout, self.env, self.running = timeout, environment(), set()

    def run(self, suite):
        name, command = suite
        begin, timed_out = time.monotonic(), False
        try:
            process = subprocess.Popen(command, cwd=ROOT, env=self.env, stdin=subprocess.DEVNULL,
                                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                       start_new_session=True)
        except OSError as e:
            return Result(name, f"{e}\n", 0, 127, False)
        self.running.add(process)
        try:
            output, _ = process.communicate(timeout=self.timeout)
        except subprocess.TimeoutExpired:
            timed_out = True
            kill(process)
            output, _ = process.communicate()
        self.running.discard(process)
        kill(process)
        output = output.decode("utf-8", "replace")
        return Result(name, output, time.monotonic() - begin, process.returncode, timed_out)

    def stop(self):
        for process in list(self.running):
            kill(process)


def kill(process):
    """Ends what is left of the process group."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def report(result):
    counts = f"{result.passed:5} passed {result.failed:4} failed {result.seconds:7.1f} s"
    print(f"{counts}  {result.name}" + (f": {result.why}" if result.why else ""), flush=True)
    if result.failed:
        for line in result.output.splitlines():
            print("    " + line)
        sys.stdout.flush()


def main():
    parser = argparse.ArgumentParser(description="Runs every test suite.")
    parser.add_argument("--build", required=True, metavar="DIR", help="such as build/release")
    parser.add_argument("--config", required=True, metavar="NAME", help="such as release")
    parser.add_argument("--reference", metavar="DIR", help="adds the tests on reference data")
    parser.add_argument("--under", metavar="COMMAND", default="", help="such as valgrind")
    parser.add_argument("--suites", metavar="WORDS", default="",
                        help="only suites with one of these words in their names")
    args = parser.parse_args()
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # tests of Ctrl-C inherit what we have
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if args.reference and not os.path.isdir(args.reference):
        print(f"run.py: the reference folder {args.reference} does not exist; give the path of one"
              " that does, or leave it out", file=sys.stderr)
        return 2
    reference = os.path.abspath(args.reference) if args.reference else None
    under = shlex.split(args.under)
    suites = find_suites(os.path.abspath(args.build), args.config, reference, under)
    if words := args.suites.split():
        suites = [suite for suite in suites if any(word in suite[0] for word in words)]
        if not suites:
            print(f"run.py: no suite has {' or '.join(words)} in its name", file=sys.stderr)
            return 2
    runner = Runner(TIMEOUT_S * (SLOWER.get(args.config, 4) if not under else 12))
    passed = failed = 0
    with concurrent.futures.ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        try:
            for result in pool.map(runner.run, suites):
                report(result)
                passed += result.passed
                failed += result.failed
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            runner.stop()
            return 130
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
