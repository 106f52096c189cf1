#!/usr/bin/python3
"""Draws what 'nibble bench --format json' measured, against depth and against threads.

    nibble bench MODEL -d 0,1024,2048 -t 1,2,4 --format json > a.json
    tools/plot_bench.py a.json [b.json ...] -o bench.svg      (or .png, .pdf)
    tools/plot_bench.py a.json --data                         the numbers it would draw, as text

A panel for generation and for prompts, against each of depth and threads that has more than one
value. Points are medians with the standard deviation; a dashed line is the limit, the rate at which
the machine's peak (read bandwidth, multiply-adds) would be reached. Several files are compared.
"""

import argparse
import json
import os
import sys

AXES = {"depth": "depth (tokens in the cache)", "threads": "threads"}
TESTS = ("generation", "prompt")


class Unusable(Exception):
    """A file that is no result of bench, or nothing to draw."""


# --- Reading -------------------------------------------------------------------------------------


def read_run(path):
    """One file: {"name", "cpu", "model", "tests"}."""
    try:
        with open(path, encoding="utf-8") as f:
            run = json.load(f)
        tests = [test for test in run["tests"] if test["test"] in TESTS]
        for test in tests:
            test["limit"] = limit_of(test)
        model = "{family}, {format}".format_map({"format": "", **run["model"]})
        return {"name": os.path.splitext(os.path.basename(path))[0], "tests": tests,
                "cpu": run["machine"].get("cpu", "unknown CPU"),
                "model": f"{os.path.basename(run['model']['path'])} ({model})"}
    except OSError as e:
        raise Unusable(f"{path} cannot be read: {e.strerror}") from e
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise Unusable(f"{path} is not what 'nibble bench MODEL --format json' prints ({e!r})"
                       ) from e


def limit_of(test):
    """Tokens a second at the machine's peak; None where it is unknown."""
    share = test["share_of_limit"]
    return test["median_tokens_per_s"] / share if share > 0 else None


# --- What to draw --------------------------------------------------------------------------------


def values_of(tests, key):
    return sorted({test[key] for test in tests})


def label_of(run, test, runs, panel_tests, axis):
    """What sets a line apart from the others of its panel."""
    other = next(key for key in AXES if key != axis)
    parts = [run["name"]] if len(runs) > 1 else []
    parts += [f"{test['tokens']} tokens"] if len(values_of(panel_tests, "tokens")) > 1 else []
    if len(values_of(panel_tests, other)) > 1:
        parts.append(f"{other} {test[other]}")
    return ", ".join(parts)


def lines_of(runs, name, axis):
    """{label: [test, ...]} of a panel, tests in the order of the axis."""
    panel_tests = [test for run in runs for test in run["tests"] if test["test"] == name]
    other = next(key for key in AXES if key != axis)
    lines = {}
    for number, run in enumerate(runs):
        for test in run["tests"]:
            if test["test"] == name:
                label = label_of(run, test, runs, panel_tests, axis)
                key = (number, test["tokens"], test[other], label)
                lines.setdefault(key, []).append(test)
    return [(key[-1], sorted(tests, key=lambda test: test[axis])) for key, tests in lines.items()]


def panels_of(runs):
    """[(test, axis, lines), ...]: only axes with more than one value."""
    panels = []
    for name in TESTS:
        tests = [test for run in runs for test in run["tests"] if test["test"] == name]
        panels += [(name, axis, lines_of(runs, name, axis)) for axis in AXES
                   if len(values_of(tests, axis)) > 1]
    if not panels:
        raise Unusable("there is one depth and one number of threads only; give bench a list, as "
                       "in -d 0,1024 or -t 1,2")
    return panels


def title_of(runs):
    parts = []
    for key in ("model", "cpu"):
        parts.append("; ".join(dict.fromkeys(run[key] for run in runs)))
    return "\n".join(parts)


# --- Drawing -------------------------------------------------------------------------------------


def print_data(runs, panels):
    print(title_of(runs))
    for name, axis, lines in panels:
        print(f"\n{name} against {axis}")
        for label, tests in lines:
            print(f"  {label or 'all'}: {axis}, tok/s, stddev, limit")
            for test in tests:
                limit = "unknown" if test["limit"] is None else f"{test['limit']:.2f}"
                print(f"    {test[axis]} {test['median_tokens_per_s']:.2f} {test['deviation']:.2f} "
                      f"{limit}")


def draw_panel(plot, name, axis, lines):
    for label, tests in lines:
        bars = plot.errorbar([test[axis] for test in tests],
                             [test["median_tokens_per_s"] for test in tests],
                             yerr=[test["deviation"] for test in tests], marker="o", capsize=3,
                             label=label or "measured")
        known = [test for test in tests if test["limit"] is not None]
        plot.plot([test[axis] for test in known], [test["limit"] for test in known], "--",
                  linewidth=1, color=bars.lines[0].get_color())
    plot.plot([], [], "--", linewidth=1, color="gray", label="limit")
    plot.set_xticks(values_of([test for _, tests in lines for test in tests], axis))
    plot.set_xlabel(AXES[axis])
    plot.set_ylabel(f"{name}, tokens per second")
    plot.set_ylim(bottom=0)
    plot.grid(alpha=0.3)
    plot.legend(fontsize="small")


def draw(runs, panels, path):
    """Writes the picture."""
    try:
        import matplotlib
    except ImportError as e:
        raise Unusable("matplotlib is missing; install Debian's python3-matplotlib, or print the "
                       "numbers with --data") from e
    matplotlib.use("Agg")
    from matplotlib import pyplot
    columns = min(len(panels), 2)
    rows = -(-len(panels) // columns)
    figure, plots = pyplot.subplots(rows, columns, figsize=(6 * columns, 4.5 * rows),
                                    squeeze=False, constrained_layout=True)
    for plot in plots.flat[len(panels):]:
        plot.set_visible(False)
    for plot, (name, axis, lines) in zip(plots.flat, panels):
        draw_panel(plot, name, axis, lines)
    figure.suptitle(title_of(runs), fontsize="medium")
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as e:
        raise Unusable(f"{path} cannot be written: {e}") from e


def main():
    parser = argparse.ArgumentParser(description="Draws what nibble bench --format json measured.")
    parser.add_argument("files", nargs="+", metavar="FILE.json")
    parser.add_argument("-o", "--out", metavar="FILE", help="picture to write: .svg, .png, .pdf")
    parser.add_argument("--data", action="store_true", help="print the numbers instead")
    args = parser.parse_args()
    if bool(args.out) == args.data:
        parser.error("give either -o FILE or --data")
    try:
        runs = [read_run(path) for path in args.files]
        panels = panels_of(runs)
        if args.data:
            print_data(runs, panels)
        else:
            draw(runs, panels, args.out)
    except Unusable as e:
        print(f"plot_bench: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
