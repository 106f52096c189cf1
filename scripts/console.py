"""What a script that writes a model says and hears: sentences and progress on stderr, signals."""
import contextlib
import os
import signal
import sys

from checkpoint import read_chunks


class Stopped(Exception):
    """A signal asked to stop."""


# ---- signals set a mark; what moves many bytes or waits looks at it

received = []


def catch_signals():
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda number, frame: received.append(number))


def stop_if_asked():
    if received:
        raise Stopped


def chunks(tensor):
    for data in read_chunks(tensor):
        stop_if_asked()
        yield data


# ---- stderr

def program():
    """The name of what runs: tools/random_model.py writes with the functions here too."""
    return os.path.basename(sys.argv[0])


def show_progress(text):
    with contextlib.suppress(OSError):
        if sys.stderr.isatty():
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def say(text):
    show_progress("")
    with contextlib.suppress(OSError):
        print(f"{program()}: {text}", file=sys.stderr, flush=True)


def megabytes(size):
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.2f} MB"
