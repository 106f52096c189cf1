#!/usr/bin/python3
"""nibble bench, and the drawing of what it measures."""
import csv
import io
import json
import signal
import statistics
import subprocess
import sys
import time

from harness import FAIRYTALE, ROOT, main
from models import Tiny

QUICK = ("bench", FAIRYTALE, "-p", "20", "-n", "5", "-r", "3")
FAIRYTALE_PARAMETERS = 7688960
WEIGHT_BYTES = 4866048  # that one token of it reads


def close(a, b, tolerance=1e-6):
    return abs(a - b) <= tolerance * max(abs(a), abs(b))


def table_rows(text):
    """The lines of a table as {name: cell}; names of two words are joined."""
    lines = text.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("threads "))
    names = lines[at].replace(", ms", "").split()
    rows = lines[at + 1:lines.index("", at)]
    assert all(len(row) <= 100 for row in rows), rows
    return [dict(zip(names, row.split(), strict=True)) for row in rows]


def csv_rows(out):
    rows = list(csv.DictReader(io.StringIO(out.decode())))
    assert rows and all(None not in row and None not in row.values() for row in rows), out
    return rows


# ---- what is measured

def check_test(test, kv_bytes, repeats):
    """One entry of "tests" agrees with itself."""
    seconds, tokens = test["seconds"], test["tokens"]
    rates = [tokens / s for s in seconds]
    assert len(seconds) == test["repeats"] == repeats and min(seconds) > 0, test
    assert close(test["tokens_per_s"], statistics.mean(rates)), test
    assert close(test["deviation"], statistics.stdev(rates) if repeats > 1 else 0), test
    assert close(test["median_s"], statistics.median(seconds)), test
    assert close(test["median_tokens_per_s"], tokens / test["median_s"]), test
    assert close(test["read_bytes_per_s"], test["bytes_per_token"] * test["median_tokens_per_s"])
    assert test["int8_ops_per_token"] > 0 and test["f32_ops_per_token"] >= 0
    if test["test"] == "generation":
        depth = test["depth"] + (tokens + 1) / 2
        assert close(test["bytes_per_token"], WEIGHT_BYTES + kv_bytes * depth), test
        latencies = [test[f"latency_p{p}_s"] for p in (50, 90, 99)]
        assert 0 < latencies[0] <= latencies[1] <= latencies[2] <= sum(seconds), test
        assert "first_token_s" not in test
    else:
        assert close(test["bytes_per_token"], WEIGHT_BYTES / tokens), "one batch"
        assert test["first_token_s"] == test["median_s"] and "latency_p50_s" not in test


def check_share(test, peaks):
    """Defined as the documentation says, and of a size that makes sense even if something else kept
    the machine busy while its limits were measured."""
    names = [name for name in peaks if name.startswith("peak_")]
    assert len(peaks["rounds"]) == test["repeats"] and len(names) == 3
    for name in names:
        assert close(peaks[name], statistics.median(r[name] for r in peaks["rounds"])), peaks
    per_token = {"peak_read_bytes_per_s": test["bytes_per_token"]} if (
        test["test"] == "generation") else {
        "peak_int8_ops_per_s": test["int8_ops_per_token"],
        "peak_f32_ops_per_s": test["f32_ops_per_token"]}
    share = statistics.median(
        test["tokens"] / seconds * sum(work / limits[name] for name, work in per_token.items())
        for seconds, limits in zip(test["seconds"], peaks["rounds"], strict=True))
    assert close(test["share_of_limit"], share) and 0 < share < 5, (test, peaks)


def test_json(tmp, nibble):
    got = nibble.json(*QUICK, "-t", "2")
    assert got["model"]["path"] == str(FAIRYTALE) and got["model"]["family"] == "llama"
    assert got["model"]["format"] == "affine 4 bits, group 64"
    assert got["model"]["parameters"] == FAIRYTALE_PARAMETERS
    assert got["model"]["weight_bytes_per_token"] == WEIGHT_BYTES
    version = nibble("--version").decode().splitlines()
    build = got["build"]
    assert version[0] == f"nibble {build['version']} (commit {build['commit']})", build
    assert version[1].split(None, 1)[1] == build["compiler"], build
    assert got["machine"]["cpu"] in nibble("info").decode()
    assert got["machine"]["levels"].split()[-1] == got["run"]["level"], "the best"
    now = time.strftime("%Y-%m-%dT%H", time.gmtime(time.time() - 60)), time.strftime(
        "%Y-%m-%dT%H", time.gmtime())
    assert got["run"]["date"].startswith(now) and got["run"]["date"].endswith("Z"), got["run"]
    for field in ("load_s", "cold_first_token_s", "private_bytes", "peak_bytes"):
        assert got["run"][field] > 0, field
    assert got["run"]["context"] == 20 and got["run"]["kv_type"] == "f16"
    assert [(p["threads"], len(p)) for p in got["peaks"]] == [(2, 5)]
    assert [test["test"] for test in got["tests"]] == ["prompt", "generation"]
    for test in got["tests"]:
        check_test(test, kv_bytes_of(got), repeats=3)
        check_share(test, got["peaks"][0])


def kv_bytes_of(got):
    """Of one token of the model that ships: keys and values of 9 layers, 4 heads of 32."""
    return 2 * 9 * 4 * 32 * {"f16": 2, "f32": 4}[got["run"]["kv_type"]]


def test_hash(tmp, nibble):
    hash = nibble.json(*QUICK)["model"]["hash"]
    assert len(hash) == 16 and int(hash, 16) != 0
    assert nibble.json(*QUICK, "-t", "1")["model"]["hash"] == hash
    assert f"hash {hash}" in nibble(*QUICK).decode()
    other = Tiny().save(tmp / "m.npz")
    assert nibble.json("bench", other, "-p", "1", "-n", "1", "-r", "1")["model"]["hash"] != hash


def test_lists(tmp, nibble):
    got = nibble.json("bench", FAIRYTALE, "-p", "8,3", "-n", "2,0", "-d", "0,30,10", "-t", "1,2",
                      "-r", "2")
    want = [(threads, depth, name, tokens) for threads in (1, 2) for depth in (0, 30, 10)
            for name, tokens in (("prompt", 8), ("prompt", 3), ("generation", 2))]
    assert [(test["threads"], test["depth"], test["test"], test["tokens"])
            for test in got["tests"]] == want
    assert got["run"]["context"] == 38, "the greatest depth and the longest test"
    assert [peaks["threads"] for peaks in got["peaks"]] == [1, 2]
    for test in got["tests"]:
        check_test(test, kv_bytes_of(got), repeats=2)
        check_share(test, got["peaks"][test["threads"] - 1])


def test_the_longest_list(tmp, nibble):
    path = Tiny().save(tmp / "m.npz")
    sixteen = list(range(1, 17))
    got = nibble.json("bench", path, "-p", ",".join(map(str, sixteen)), "-n", "0", "-r", "1")
    assert [test["tokens"] for test in got["tests"]] == sixteen


def test_percentiles(tmp, nibble):
    """Of runs of one token the latencies are the times of the runs."""
    got = nibble.json("bench", FAIRYTALE, "-p", "0", "-n", "1", "-r", "4", "-t", "1")
    test = got["tests"][0]
    _, second, _, last = sorted(test["seconds"])
    for percent, want in ((50, second), (90, last), (99, last)):
        assert close(test[f"latency_p{percent}_s"], want, 0.02), (percent, test)


def test_batches_of_a_prompt(tmp, nibble):
    got = nibble.json("bench", FAIRYTALE, "-p", "20", "-n", "0", "-r", "1", "-b", "8")
    assert close(got["tests"][0]["bytes_per_token"], 3 * WEIGHT_BYTES / 20), "three batches"
    assert got["run"]["batch"] == 8


def test_kv_type_and_level(tmp, nibble):
    half, full = (nibble.json("bench", FAIRYTALE, "-p", "2", "-n", "2", "-r", "1", "-d", "20",
                              "--kv-type", kind, "--level", "scalar")
                  for kind in ("f16", "f32"))
    assert half["run"]["level"] == full["run"]["level"] == "scalar"
    assert full["run"]["kv_type"] == "f32"
    kv = [got["tests"][1]["bytes_per_token"] - WEIGHT_BYTES for got in (half, full)]
    assert kv[0] > 0 and close(kv[1], 2 * kv[0]), kv


def test_plain_weights(tmp, nibble):
    path = Tiny().save(tmp / "m.npz", "<f2")
    got = nibble.json("bench", path, "-p", "9", "-n", "3", "-r", "1")
    assert got["model"]["format"] == "f16"
    prompt, generation = got["tests"]
    assert prompt["int8_ops_per_token"] == 0 == generation["int8_ops_per_token"]
    layers = 2 * (64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 128)
    assert generation["f32_ops_per_token"] == layers + 400 * 64, generation
    last = 64 * 64 + 3 * 64 * 128  # of the last layer what only a token with logits needs
    want = layers - last + (last + 400 * 64) / 9
    assert close(prompt["f32_ops_per_token"], want), "logits of the last only"


def check_window(nibble, path, weights, window, full=0):
    """Depths before the window is full, at its edge and beyond it; runs that cross the edge. Of the
    layers so many, from 0 to 1, have no window."""
    got = nibble.json("bench", path, "-p", "0", "-n", "1,6", "-d", "0,5,7,8,9,40", "-r", "1",
                      "-t", "1", "--kv-type", "f32")
    kv_bytes = 2 * 2 * 2 * 16 * 4  # keys and values of 2 layers, 2 heads of 16
    assert len(got["tests"]) == 12
    for test in got["tests"]:
        seen = [test["depth"] + i for i in range(1, test["tokens"] + 1)]
        seen = [full * positions + (1 - full) * min(positions, window or positions)
                for positions in seen]
        want = weights + kv_bytes * statistics.mean(seen)
        assert close(test["bytes_per_token"], want), (test, window, want)
        assert close(test["read_bytes_per_s"], want * test["median_tokens_per_s"]), test
        check_share(test, got["peaks"][0])
        if window and not full and test["depth"] >= window:
            assert close(test["bytes_per_token"], weights + kv_bytes * window), test


def test_sliding_window(tmp, nibble):
    """Of the cache a token reads no more than the window."""
    model = Tiny()
    weights = sum(4 * (64 if key == "embed" else w.size) for key, w in model.weights.items())
    check_window(nibble, model.save(tmp / "all.npz"), weights, 0)
    for window in (1, 8, 9, 1000):
        model.config.update(model_type="mistral", sliding_window=window)
        check_window(nibble, model.save(tmp / f"{window}.npz"), weights, window)


def test_windows_on_some_layers(tmp, nibble):
    model = Tiny()
    weights = sum(4 * (64 if key == "embed" else w.size) for key, w in model.weights.items())
    model.config.update(model_type="smollm3", use_sliding_window=True, sliding_window=8)
    for kinds, full in (("sf", 0.5), ("fs", 0.5), ("ff", 1), ("ss", 0)):
        names = {"s": "sliding_attention", "f": "full_attention"}
        model.config["layer_types"] = [names[kind] for kind in kinds]
        check_window(nibble, model.save(tmp / f"{kinds}.npz"), weights, 8, full)


def test_parts(tmp, nibble):
    kinds = lambda *words: [test["test"] for test in nibble.json(
        "bench", FAIRYTALE, "-r", "1", *words)["tests"]]
    assert kinds("-p", "0", "-n", "2") == ["generation"]
    assert kinds("-p", "2", "-n", "0") == ["prompt"]
    assert kinds("-p", "0", "-n", "0") == []
    got = nibble.json("bench", FAIRYTALE, "-p", "0", "-n", "2", "-r", "1")
    assert got["tests"][0]["deviation"] == 0 and "cold_first_token_s" not in got["run"]


def test_without_a_tokenizer_and_beyond_the_context(tmp, nibble):
    path = Tiny(context=16).save(tmp / "m.npz", tokenizer=None)
    got = nibble.json("bench", path, "-p", "100", "-n", "50", "-d", "7", "-r", "1")
    assert got["run"]["context"] == 107, "as long as the longer test, behind the depth"


# ---- how it is told

def test_table(tmp, nibble):
    text = nibble("bench", FAIRYTALE, "-p", "20", "-n", "5", "-r", "2", "-t", "1", "-d", "0,9",
                  "--level", "scalar").decode()
    for word in ("7.69 M parameters", "affine 4 bits, group 64", "4.9 MB a token", ", scalar\n",
                 "2 repeats", "with 1 thread\n", "load ", "first token while cold", "MB private"):
        assert word in text, word
    rows = table_rows(text)
    assert [(row["test"], row["depth"], row["tokens"]) for row in rows] == [
        ("prompt", "0", "20"), ("generation", "0", "5"), ("prompt", "9", "20"),
        ("generation", "9", "5")]
    for row in rows:
        assert float(row["tok/s"]) > 1 and float(row["median"]) > 1 and row["threads"] == "1"
        assert row["limit"].endswith("%") and 0 <= int(row["limit"][:-1]) < 150, row
        assert len(row["latency"].split("/")) == (3 if row["test"] == "generation" else 1), row


def test_markdown(tmp, nibble):
    text = nibble(*QUICK, "--format", "markdown", "-t", "1,2").decode()
    head, table, foot = text.split("\n\n")
    assert all(line.startswith("- ") for line in head.splitlines() + foot.splitlines()), text
    rows = [line.strip("|").split("|") for line in table.splitlines()]
    assert {len(row) for row in rows} == {11} and len(rows) == 6, table
    assert all(set(cell.strip()) == {":", "-"} for cell in rows[1]), table
    assert head.count("- limits: ") == 2, head


def test_csv(tmp, nibble):
    path = tmp / 'a "b", c.npz'
    path.symlink_to(FAIRYTALE)
    rows = csv_rows(nibble("bench", path, "-p", "20", "-n", "5", "-r", "2", "-t", "1,2", "-d",
                           "0,9", "--format", "csv", env={"LC_ALL": "de_DE.UTF-8"}))
    assert [(row["threads"], row["depth"], row["test"], row["tokens"]) for row in rows] == [
        (threads, depth, name, tokens) for threads in "12" for depth in "09"
        for name, tokens in (("prompt", "20"), ("generation", "5"))]
    got = nibble.json(*QUICK)
    fields = {key for part in ("machine", "model", "build", "run") for key in got[part]}
    fields |= {key for part in ("peaks", "tests") for entry in got[part] for key in entry}
    assert set(rows[0]) == fields - {"seconds", "rounds"}, set(rows[0]) ^ fields
    for row in rows:
        assert row["path"] == str(path) and row["format"] == "affine 4 bits, group 64"
        assert row["parameters"] == str(FAIRYTALE_PARAMETERS) and row["cpu"] and row["date"]
        rate = float(row["tokens"]) / float(row["median_s"])
        assert close(float(row["median_tokens_per_s"]), rate), row
        assert 0 < float(row["share_of_limit"]) < 5, row
        assert (row["latency_p99_s"] == "") == (row["test"] == "prompt"), row
    header = nibble("bench", FAIRYTALE, "-p", "0", "-n", "0", "--format", "csv").decode()
    assert header.count("\n") == 1 and header.strip().split(",") == list(rows[0])


def test_json_in_short(tmp, nibble):
    words = ("bench", FAIRYTALE, "-p", "2", "-n", "1", "-r", "1")
    for spelling in (["--json"], ["--format", "json"], ["--json", "--format=json"]):
        assert len(json.loads(nibble(*words, *spelling))["tests"]) == 2, spelling


# ---- kernels

def test_kernels(tmp, nibble):
    rows = csv_rows(nibble("bench", "--ops", "--level", "scalar", "--format", "csv"))
    assert {row["level"] for row in rows} == {"scalar"} and len({r["kernel"] for r in rows}) > 3
    for row in rows:
        ns = float(row["ns"])
        assert ns > 0 and close(float(row["gb_per_s"]), float(row["bytes"]) / ns, 1e-4), row
        assert close(float(row["gop_per_s"]), float(row["ops"]) / ns, 1e-4), row
        assert row["cpu"] and row["commit"] and row["date"], row
    got = nibble.json("bench", "--ops", "--level", "scalar")
    assert [k["kernel"] for k in got["kernels"]] == [row["kernel"] for row in rows]
    assert got["machine"]["cpu"] == rows[0]["cpu"]
    nibble.refuses("bench", "--ops", "--level", "nonsense", says="nonsense", code=2)


def test_kernels_for_people(tmp, nibble):
    text = nibble("bench", "--ops", "--level", "scalar").decode()
    table = text.split("\n\n")[1].splitlines()
    assert table[0].split()[:3] == ["kernel", "level", "format"] and len(table) > 4, text
    assert all(len(line) <= 100 for line in table), text
    text = nibble("bench", "--ops", "--level", "scalar", "--format", "markdown").decode()
    rows = text.split("\n\n")[1].splitlines()
    assert len(rows) == len(table) + 1 and {row.count("|") for row in rows} == {7}, text


def test_kernels_come_as_they_are_measured(tmp, nibble):
    with nibble.start("bench", "--ops") as p:
        for _ in range(6):
            line = p.stdout.readline()
        assert len(line.split()) >= 6, line
        p.send_signal(signal.SIGINT)
        p.communicate(timeout=30)
    assert p.returncode == 130, p.returncode


# ---- refusals and interruption

def test_bad_lists(tmp, nibble):
    for option in ("-p", "-n", "-d", "-t"):
        for value in ("1,,2", "a", "", ",", "1,", ",1", "1, 2", "1.5", "-1", "1,x", "99999999999",
                      "1" * 50, "nan"):
            nibble.refuses("bench", FAIRYTALE, option, value, says=[f"{option}: ", "list"], code=2)
        seventeen = ",".join(["1"] * 17)
        nibble.refuses("bench", FAIRYTALE, option, seventeen, says=[f"{option}: ", "16"], code=2)
    nibble.refuses("bench", FAIRYTALE, "-t", "1,0", says="-t: ", code=2)
    nibble.refuses("bench", FAIRYTALE, "-t", "257", says="-t: ", code=2)
    nibble.refuses("bench", FAIRYTALE, "-r", "0", says="-r: ", code=2)
    nibble.refuses("bench", FAIRYTALE, "-p", says="-p needs a value", code=2)


def test_wrong_usage(tmp, nibble):
    nibble.refuses("bench", says=["missing", "--ops"], code=2)
    nibble.refuses("bench", "--ops", FAIRYTALE, says=["--ops", "MODEL"], code=2)
    nibble.refuses(*QUICK, "--format", "xml", says=["--format", "markdown"], code=2)
    nibble.refuses(*QUICK, "--format", "", says="--format", code=2)
    nibble.refuses(*QUICK, "--json", "--format", "csv", says="--json", code=2)
    nibble.refuses(*QUICK, "--level", "nonsense", says="nonsense", code=2)
    nibble.refuses(*QUICK, "--kv-type", "q3", says="q3", code=2)


def test_contexts_that_are_too_short(tmp, nibble):
    for words in (("-p", "30"), ("-n", "30"), ("-p", "2", "-n", "2", "-d", "1,19")):
        nibble.refuses("bench", FAIRYTALE, "-p", "1", "-n", "1", *words, "-c", "20", code=3,
                       says=["longest test", "20", "--ctx-size"])
    got = nibble.json("bench", FAIRYTALE, "-p", "2", "-n", "2", "-d", "18", "-c", "20", "-r", "1")
    assert got["run"]["context"] == 20


def test_interrupted(tmp, nibble):
    for words in (("-r", "1000"), ("--format", "csv", "-r", "1000", "-d", "64")):
        with nibble.start("bench", FAIRYTALE, *words) as p:
            time.sleep(1)
            p.send_signal(signal.SIGINT)
            out, err = p.communicate(timeout=30)
        assert (p.returncode, out, err) == (130, b"", b""), (p.returncode, out, err)


# ---- drawing

def plot(*words):
    return subprocess.run([ROOT / "tools" / "plot_bench.py", *words], capture_output=True,
                          timeout=60, text=True)


def test_what_is_drawn(tmp, nibble):
    files = tmp / "a.json", tmp / "b.json"
    for path in files:
        path.write_bytes(nibble(*QUICK, "-d", "0,30", "-t", "1,2", "--json"))
    result = plot(*files, "--data")
    assert result.returncode == 0 and result.stderr == "", result
    lines = result.stdout.splitlines()
    tests = json.loads(files[0].read_text())["tests"]
    for name in ("prompt", "generation"):
        assert f"{name} against depth" in lines and f"{name} against threads" in lines
    at = lines.index("  a, threads 2: depth, tok/s, stddev, limit",
                     lines.index("prompt against depth"))
    prompts = [t for t in tests if t["test"] == "prompt" and t["threads"] == 2]
    for line, test in zip(lines[at + 1:at + 3], prompts, strict=True):
        limit = test["median_tokens_per_s"] / test["share_of_limit"]
        assert line.split() == [str(test["depth"]), *(
            f"{x:.2f}" for x in (test["median_tokens_per_s"], test["deviation"], limit))], line


def test_what_cannot_be_drawn(tmp, nibble):
    flat, other = tmp / "a.json", tmp / "b.json"
    flat.write_bytes(nibble(*QUICK, "--json"))
    other.write_text("{}")
    for words, says in (((flat, "--data"), "-d 0,1024"), ((other, "--data"), "b.json"),
                        ((tmp / "c.json", "--data"), "c.json")):
        result = plot(*words)
        assert result.returncode == 1 and result.stderr.count("\n") == 1, result
        assert says in result.stderr and result.stdout == "", result
    assert plot(flat).returncode == 2 and plot(flat, "--data", "-o", "x.svg").returncode == 2


def test_picture(tmp, nibble):
    """Without matplotlib: one sentence that says what to install."""
    data, picture = tmp / "a.json", tmp / "a.svg"
    data.write_bytes(nibble(*QUICK, "-d", "0,9", "--json"))
    result = plot(data, "-o", picture)
    if result.returncode == 0:
        assert "<svg" in picture.read_text()
    else:
        assert "python3-matplotlib" in result.stderr and result.stderr.count("\n") == 1, result


if __name__ == "__main__":
    sys.exit(main(globals()))
