#!/usr/bin/python3
"""Long runs in rough weather: the same generations in one process, alone, beside another process on
the same models, under nice, with its processor time cut, with cores taken away and given back.

    tests/soak/soak.py --build build/release --count 1000

Whatever the weather the results are the same, bit for bit, and memory does not grow after the first
hundred generations.
"""
import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "cli"))
from models import META, Tiny  # noqa: E402

GROWTH_MOST = 1 << 20


def make_models(build, tmp):
    """Of several kinds: plain and quantized, of two families' names, the one that ships."""
    plain = Tiny(seed=2).save(tmp / "plain.npz")
    paths = [plain, Tiny(META, seed=3, layers=1).save(tmp / "meta.npz", "<f2"),
             Tiny(seed=4, tied=True).save(tmp / "tied.npz"), tmp / "four.npz",
             ROOT / "models" / "fairytale-4bit.npz"]
    subprocess.run([build / "nibble", "quantize", plain, paths[3], "-q"], check=True)
    return paths


class Soak:
    def __init__(self, build, count, models):
        self.words = [build / "tests/soak/soak", str(count), "1", *models]

    def start(self, *before, **options):
        return subprocess.Popen([*before, *self.words], stdout=subprocess.PIPE, text=True,
                                **options)

    @staticmethod
    def end(process):
        """(hash, memory early, memory late)"""
        out, _ = process.communicate()
        if process.returncode:
            raise AssertionError(f"exit status {process.returncode}: {out}")
        digest, early, late = out.split()
        return digest, int(early), int(late)


# ---- weathers: each gives the results of one or two runs

def alone(soak):
    return [soak.end(soak.start())]


def two_at_once(soak):
    return [soak.end(p) for p in [soak.start(), soak.start()]]


def nice(soak):
    return [soak.end(soak.start("nice", "-n", "19"))]


def disturbed(soak, act):
    """One run; act(pid) is called again and again until it ends."""
    process = soak.start()

    def loop():
        while process.poll() is None:
            try:
                act(process.pid)
            except ProcessLookupError:
                return
    thread = threading.Thread(target=loop)
    thread.start()
    result = soak.end(process)
    thread.join()
    return [result]


def processor_time_cut(soak):
    """Stopped for 30 ms of every 40, as a quota does."""
    def act(pid):
        os.kill(pid, signal.SIGSTOP)
        time.sleep(0.03)
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.01)
    return disturbed(soak, act)


def cores_taken_away(soak):
    """All its threads on one core or on any, as it comes."""
    cores, rng = sorted(os.sched_getaffinity(0)), random.Random(1)

    def act(pid):
        some = rng.sample(cores, rng.randint(1, len(cores)))
        for task in os.listdir(f"/proc/{pid}/task"):
            try:
                os.sched_setaffinity(int(task), some)
            except OSError:
                pass  # it has ended
        time.sleep(0.02)
    return disturbed(soak, act)


def one_core(soak):
    core = min(os.sched_getaffinity(0))
    return [soak.end(soak.start(preexec_fn=lambda: os.sched_setaffinity(0, {core})))]


def main():
    parser = argparse.ArgumentParser(description="Long runs in rough weather.")
    parser.add_argument("--build", type=Path, default=Path("build/release"))
    parser.add_argument("--count", type=int, default=1000, help="generations of each run")
    args = parser.parse_args()
    digests, failed = set(), 0
    with tempfile.TemporaryDirectory() as tmp:
        soak = Soak(args.build.resolve(), args.count, make_models(args.build.resolve(), Path(tmp)))
        for weather in (alone, two_at_once, nice, one_core, processor_time_cut, cores_taken_away):
            begin = time.monotonic()
            for digest, early, late in weather(soak):
                digests.add(digest)
                wrong = late > early + GROWTH_MOST or len(digests) > 1
                failed += wrong
                print(f"{weather.__name__:20} {time.monotonic() - begin:6.1f} s  hash {digest}  "
                      f"memory {early / 1e6:.2f} MB, then {late / 1e6:.2f} MB"
                      f"{'  WRONG' if wrong else ''}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
