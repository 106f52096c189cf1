#!/usr/bin/python3
"""Prints what share of the lines of each file the tests have run, from what a build with
config=cover has counted.

    tools/coverage.py --build build/cover [--missing]

--missing also names the lines that were not run. The groups at the end are what reads files and
text of strangers; see GROUPS.
"""

import argparse
import fnmatch
import gzip
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
GROUPS = {
    "store": ["src/store/*"],
    "text": ["src/text/*"],
    "model: config, spec, weights, tensors": [
        f"src/model/{name}.c" for name in ("config", "spec", "weights", "tensors")],
}


def read_counts(build):
    """{path: {line: times run}}; a line of several objects (a header's) is run if it is in any."""
    counts = {}
    objects = sorted(str(path.resolve()) for path in (build / "obj").rglob("*.gcno"))
    if not any((build / "obj").rglob("*.gcda")):
        return counts
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["gcov", "--json-format", "--preserve-paths", "--hash-filenames", *objects],
                       cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
        for path in Path(folder).glob("*.gcov.json.gz"):
            with gzip.open(path, "rt") as f:
                report = json.load(f)
            for source in report["files"]:
                lines = counts.setdefault(source["file"], {})
                for line in source["lines"]:
                    n = line["line_number"]
                    lines[n] = max(lines.get(n, 0), line["count"])
    return {path: lines for path, lines in sorted(counts.items()) if path.startswith("src/")}


def ranges(numbers):
    """[3, 4, 5, 9] as '3-5 9'."""
    spans = []
    for n in numbers:
        if spans and n == spans[-1][1] + 1:
            spans[-1][1] = n
        else:
            spans.append([n, n])
    return " ".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)


def row(name, files):
    lines = [count for counts in files for count in counts.values()]
    run = sum(count > 0 for count in lines)
    return f"{100 * run / max(len(lines), 1):6.1f}% {run:6} of {len(lines):6}  {name}"


def main():
    parser = argparse.ArgumentParser(description="Prints what share of the lines was run.")
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "cover", metavar="DIR")
    parser.add_argument("--missing", action="store_true", help="name the lines that were not run")
    args = parser.parse_args()
    counts = read_counts(args.build)
    if not counts:
        print(f"coverage.py: nothing was counted in {args.build}; run: make config=cover test",
              file=sys.stderr)
        return 1
    for path, lines in counts.items():
        print(row(path, [lines]))
        missing = [n for n, count in sorted(lines.items()) if not count]
        if args.missing and missing:
            print(f"{'':25}not run: {ranges(missing)}")
    print()
    for name, globs in {**GROUPS, "all of src": ["src/*"]}.items():
        print(row(name, [lines for path, lines in counts.items()
                         if any(fnmatch.fnmatch(path, glob) for glob in globs)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
