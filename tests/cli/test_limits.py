#!/usr/bin/python3
"""Little memory, small limits, full disks, killed runs: a sentence before anything is half done, no
half file under a name that was asked for."""
import os
import resource
import shutil
import signal
import subprocess
import sys
import time

import numpy as np

from harness import FAIRYTALE, main
from hf_models import SCRIPT, make_folder, model
from models import Tiny

ALONE = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # its threads wait for memory for ever


def limit(kind, megabytes):
    return lambda: resource.setrlimit(kind, (megabytes << 20, megabytes << 20))


# ---- memory

def test_a_smaller_context_where_memory_is_limited(tmp, nibble):
    """The default follows the limits of the process, not only the machine."""
    if nibble.sanitized:
        return
    path = Tiny(dim=512, layers=4, heads=8, kv_heads=8, head_dim=64, context=1 << 20).save(
        tmp / "m.npz")
    words = ("generate", path, "-p", "x", "-n", "1")
    for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        got = nibble.json(*words, "-t", "1", preexec_fn=limit(kind, 400), env=ALONE)
        assert 1000 < got["versions"]["context"] < 40000, got["versions"]
        nibble.refuses(*words, "-t", "1", "-c", "100000", preexec_fn=limit(kind, 400), env=ALONE,
                       says=["a context of 100000 tokens needs", "MB are available"])


def test_a_model_larger_than_the_limit(tmp, nibble):
    if nibble.sanitized:
        return
    path = tmp / "m.npz"
    Tiny().save(path)
    with open(path, "r+b") as f:
        f.truncate(2 << 30)
    nibble.refuses("info", path, preexec_fn=limit(resource.RLIMIT_AS, 700), env=ALONE,
                   says=["2048 MB of addresses are needed", "are left", "ulimit -v"])


def test_no_memory_for_openblas(tmp, nibble):
    """Its threads wait for memory then; whether there is enough for us or not, we do not."""
    if nibble.sanitized or nibble.counted:  # those end as programs do, and so wait
        return
    for megabytes in (80, 120, 160, 200):
        result = nibble.run("generate", FAIRYTALE, "-p", "Once", "-n", "2", "-t", "1", timeout=20,
                            preexec_fn=limit(resource.RLIMIT_AS, megabytes))
        assert result.code in (0, 1), f"{megabytes} MB: {result}"


def test_no_more_files(tmp, nibble):
    limits = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
    result = nibble.run("generate", FAIRYTALE, "-p", "x", preexec_fn=limits)
    assert result.code in (1, 127), str(result)  # the loader of libraries may be the first


# ---- files

def check_whole_or_absent(nibble, out):
    """What is there opens; how it ended does not matter."""
    if out.exists():
        nibble("info", out)


def test_killed_quantizer(tmp, nibble):
    """Killed at any time: OUT is not there, or whole. Ended by a signal: nothing else is left."""
    out = tmp / "out.npz"
    whole = 0
    for i in range(24):
        p = nibble.start("quantize", FAIRYTALE, out, "--bits", "32", "-q")
        time.sleep(i * 0.01)
        p.send_signal((signal.SIGKILL, signal.SIGTERM, signal.SIGINT)[i % 3])
        p.communicate(timeout=60)
        whole += out.exists()
        check_whole_or_absent(nibble, out)
        left = [f for f in os.listdir(tmp) if f != "out.npz"]
        assert i % 3 == 0 or p.returncode < 0 or left == [], (i, p.returncode, left)
        for name in os.listdir(tmp):
            os.unlink(tmp / name)
    print(f"{whole} of 24 were done before")


def test_killed_converter(tmp):
    folder, out = make_folder(tmp / "in", model()), tmp / "out.npz"
    for i in range(8):
        p = subprocess.Popen([sys.executable, SCRIPT, folder, "-o", out, "--no-reference"],
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        time.sleep(0.1 + i * 0.04)
        p.send_signal(signal.SIGKILL if i % 2 else signal.SIGTERM)
        p.communicate(timeout=60)
        if out.exists():
            np.load(out)["model.norm.weight"]
            out.unlink()


def test_full_disk_everywhere(tmp, nibble):
    """Files may not grow beyond some size: every command that writes says so and leaves nothing."""
    shutil.copy(FAIRYTALE, tmp / "in.npz")
    def small():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100 << 10, 100 << 10))
    for words in (("quantize", tmp / "in.npz", tmp / "out.npz"),
                  ("logits", tmp / "in.npz", "--ids", "1 " * 100, "-o", tmp / "out.npy")):
        nibble.refuses(*words, says=["out.np", "too large"], preexec_fn=small)
        assert sorted(os.listdir(tmp)) == ["in.npz"], os.listdir(tmp)
    before = (tmp / "in.npz").read_bytes()
    result = nibble.run("verify", tmp / "in.npz", "--write-reference", "-q", preexec_fn=small)
    assert result.code == 1 and "too large" in result.err, str(result)
    assert (tmp / "in.npz").read_bytes() == before and os.listdir(tmp) == ["in.npz"]
    folder = make_folder(tmp / "hf", {**model(), "big": ("F32", [200, 200], bytes(160000))})
    p = subprocess.run([sys.executable, SCRIPT, folder, "-o", tmp / "o.npz", "--no-reference"],
                       capture_output=True, text=True, preexec_fn=small)
    assert p.returncode == 1 and len(p.stderr.splitlines()) == 1, p.stderr
    assert sorted(os.listdir(tmp)) == ["hf", "in.npz"], os.listdir(tmp)


def test_read_only_folder(tmp, nibble):
    if os.geteuid() == 0:
        return  # who may write everywhere cannot see this
    (tmp / "closed").mkdir(mode=0o500)
    nibble.refuses("quantize", FAIRYTALE, tmp / "closed" / "out.npz", says="Permission denied")
    nibble.refuses("logits", FAIRYTALE, "--ids", "1", "-o", tmp / "closed" / "o.npy",
                   says="Permission denied")


if __name__ == "__main__":
    sys.exit(main(globals()))
