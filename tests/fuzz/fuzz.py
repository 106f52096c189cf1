#!/usr/bin/python3
"""Runs every fuzz target for a while, two at a time, and says what came of it.

    tests/fuzz/fuzz.py --build build/fuzz --seconds 600 [TARGET...]

Targets are the programs in build/fuzz/fuzz, driven by libFuzzer from the seeds in corpus/TARGET;
what it learns is kept in build/fuzz/corpus/TARGET for the next run. `converter` is a loop in
Python, see converter.py. An input that crashes, hangs or takes too much memory is written to
build/fuzz/findings; the exit status is then 1.
"""
import argparse
import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
MAX_BYTES = {"model": 1 << 18, "kv_file": 1 << 16, "sentencepiece": 1 << 16, "tokenizer": 1 << 16}
SANITIZERS = {"ASAN_OPTIONS": "allocator_may_return_null=1:detect_leaks=1:"
                              "detect_stack_use_after_return=1",
              "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1"}


class Run:
    """What one target did."""

    def __init__(self, name, status, text, seconds, findings):
        self.name, self.status, self.text, self.seconds = name, status, text, seconds
        self.findings = findings
        self.executions = self.last(r"stat::number_of_executed_units:\s*(\d+)")
        self.edges = self.last(r"\bcov: (\d+)")
        self.inputs = self.last(r"\bcorp: (\d+)")

    def last(self, pattern):
        found = re.findall(pattern, self.text)
        return int(found[-1]) if found else 0

    def line(self):
        good = "none" if self.status == 0 and not self.findings else " ".join(
            [*(path.name for path in self.findings), f"exit status {self.status}"])
        return (f"{self.name:14} {self.executions:12,} {self.seconds:8.0f} s {self.edges:9} "
                f"{self.inputs:8}  {good}")


def command(build, name, seconds, corpus):
    if name == "converter":
        return [sys.executable, HERE / "converter.py", "--seconds", str(seconds), "--findings",
                build / "findings"]
    return [build / "fuzz" / name, corpus, HERE / "corpus" / name, f"-max_total_time={seconds}",
            "-print_final_stats=1", "-timeout=20", "-rss_limit_mb=2500", "-malloc_limit_mb=1500",
            f"-max_len={MAX_BYTES.get(name, 1 << 14)}", "-reload=0",
            f"-artifact_prefix={build}/findings/{name}-"]


def run(build, name, seconds):
    corpus, findings = build / "corpus" / name, build / "findings"
    corpus.mkdir(parents=True, exist_ok=True)
    findings.mkdir(exist_ok=True)
    before, begin = set(findings.iterdir()), time.monotonic()
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    tmp = tempfile.mkdtemp(prefix="nibble-fuzz-", dir=memory)
    try:
        done = subprocess.run(command(build, name, seconds, corpus), text=True, errors="replace",
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, env={**os.environ, **SANITIZERS,
                                                             "TMPDIR": tmp})
    finally:
        shutil.rmtree(tmp, ignore_errors=True)
    (build / f"{name}.log").write_text(done.stdout)
    found = [p for p in findings.iterdir() if p.name.startswith(name) and p not in before]
    return Run(name, done.returncode, done.stdout, time.monotonic() - begin, sorted(found))


def main():
    parser = argparse.ArgumentParser(description="Runs the fuzz targets.")
    parser.add_argument("--build", type=Path, default=Path("build/fuzz"))
    parser.add_argument("--seconds", type=int, default=600, help="for each target")
    parser.add_argument("targets", nargs="*", help="only these")
    args = parser.parse_args()
    build = args.build.resolve()
    every = sorted(p.stem for p in HERE.glob("*.c") if p.stem != "replay") + ["converter"]
    os.nice(10)
    print(f"{'target':14} {'executions':>12} {'time':>10} {'edges':>9} {'inputs':>8}  findings")
    runs = []
    with concurrent.futures.ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        for done in pool.map(lambda name: run(build, name, args.seconds), args.targets or every):
            runs.append(done)
            print(done.line(), flush=True)
    failed = [done for done in runs if done.status or done.findings]
    for done in failed:
        print(f"\n{done.name}, from {build / (done.name + '.log')}:")
        print("\n".join(done.text.splitlines()[-40:]))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
