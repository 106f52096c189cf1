#!/usr/bin/python3
"""Commands and options: spelling, ranges, what is missing, help and version."""
import sys

from harness import FAIRYTALE, main

COMMANDS = {"generate": 1, "bench": 1, "tokenize": 1, "detokenize": 1, "logits": 1, "quantize": 2,
            "info": 0}  # with how many words at least
ONCE = ("generate", FAIRYTALE, "-p", "Once", "-n", "2", "-c", "40")
NUMBERS = {  # options of generate: what is just inside, what is just outside
    "-n": (["-1", "0", "3", "1e0"], ["-2", "1.5", "2000000000"]),
    "-c": (["0", "8", "512"], ["-1", "67108865"]),
    "-b": (["0", "1048576"], ["-1", "1048577"]),
    "-t": (["1", "3"], ["0", "-1", "257", "1.5"]),
    "--keep": (["-1", "0", "40"], ["-2"]),
    "-s": (["-1", "0", "4294967295"], ["-2", "4294967296"]),
    "--temp": (["0", "0.8", "1e6", ".5"], ["-0.1", "1e7", "nan", "inf"]),
    "--top-k": (["0", "1000000000"], ["-1", "1000000001"]),
    "--top-p": (["0", "1"], ["-0.1", "1.1", "nan"]),
    "--min-p": (["0", "1"], ["-1", "2"]),
    "--typical": (["0", "1"], ["-1", "2"]),
    "--repeat-penalty": (["0.5", "1.1"], ["0", "-1", "inf"]),
    "--repeat-last-n": (["-1", "0", "64"], ["-2"]),
    "--presence-penalty": (["-2", "2"], ["1e7"]),
    "--frequency-penalty": (["-2", "2"], ["-1e7"]),
}


def test_missing_and_unknown_commands(tmp, nibble):
    for words in ((), ("generat",), ("",), ("-x",), (FAIRYTALE,), ("Generate", FAIRYTALE)):
        nibble.refuses(*words, says="--help", code=2)


def test_names_of_files_that_are_empty(tmp, nibble):
    for words in ((*ONCE, "--prompt-cache"), ("generate", FAIRYTALE, "-f"),
                  ("generate", FAIRYTALE, "--batch-file"),
                  ("logits", FAIRYTALE, "--ids", "1", "-o"), ("chat", FAIRYTALE, "--save-dir")):
        nibble.refuses(*words, "", says=[words[-1], "'' names no"], code=2)


def test_missing_words(tmp, nibble):
    for command, words in COMMANDS.items():
        for n in range(words):
            nibble.refuses(command, *["x"] * n, says=["missing", f"nibble {command}"], code=2)
        if command != "detokenize":
            nibble.refuses(command, *["x"] * (words + 2), says="too much", code=2)
    for words in (("-o", tmp / "x"), ("--ids", "1"), ("--ids", "", "-o", tmp / "x")):
        nibble.refuses("logits", FAIRYTALE, *words, says="--ids", code=2)
    assert not (tmp / "x").exists()


def test_unknown_options(tmp, nibble):
    for command in COMMANDS:
        for bad in ("--bogus", "-z", "--bogus=3", "-", "---", "--n_predict_"):
            if bad != "-":
                nibble.refuses(command, "m", bad, says=["unknown option", f"{command} --help"],
                               code=2)
    nibble.refuses("generate", FAIRYTALE, "-pOnce", says="unknown option", code=2)
    nibble.refuses("generate", FAIRYTALE, "--" + "x" * 1000, says="unknown option", code=2)
    nibble.refuses("quantize", FAIRYTALE, "x.npz", "--temp", "1", says="unknown option", code=2)


def test_missing_values(tmp, nibble):
    for option in [*NUMBERS, "-p", "-f", "--ids", "--level", "--stop", "--logit-bias"]:
        nibble.refuses("generate", FAIRYTALE, option, says=f"{option} needs a value", code=2)
    for option in ("--json", "--echo", "--stats", "--no-bos"):
        nibble.refuses("generate", FAIRYTALE, f"{option}=1", says="takes no value", code=2)


def test_numbers_are_in_range(tmp, nibble):
    for option, (inside, outside) in NUMBERS.items():
        for value in inside:
            assert nibble.run(*ONCE, option, value).code == 0, (option, value)
        for value in [*outside, "", "x", "1x", "1 ", " 1", "--json", "1e999", "0x"]:
            says = [option, "from"] if value.isprintable() else option
            nibble.refuses("generate", FAIRYTALE, option, value, says=says, code=2)
    for option, values in {"--bits": ("1", "7", "9", "x"), "--group-size": ("16", "48", "256"),
                           "--embed-bits": ("1", "7", "9")}.items():
        for value in values:
            nibble.refuses("quantize", FAIRYTALE, tmp / "x.npz", option, value, code=2)
    assert list(tmp.iterdir()) == []


def test_spellings(tmp, nibble):
    want = nibble(*ONCE, "--temp", "0", "--top-k", "3", "-c", "100")
    for words in (("--temp=0", "--top-k=3", "--ctx-size=100"),
                  ("--temperature", "0", "--top_k", "3", "--ctx_size", "100"),
                  ("--temperature=0", "--top_k=3", "--ctx_size=100"),
                  ("--temp", "1", "--temp", "0", "--top-k", "3")):
        assert nibble(*ONCE, *words) == want, words
    assert nibble("generate", "--temp", "0", FAIRYTALE, "-p", "Once", "-n", "2") == want
    assert nibble("generate", "--prompt=Once", "-n", "2", "--temp=0", "--", FAIRYTALE) == want
    eq = nibble("tokenize", FAIRYTALE, "-p", "a=b")
    assert nibble("tokenize", FAIRYTALE, "--prompt=a=b") == eq, "the first = ends the name"
    assert nibble("tokenize", FAIRYTALE, "-p", "--json") != b"", "a value may look like an option"
    nibble.refuses("generate", FAIRYTALE, "__prompt", "x", says="too much", code=2)


def test_a_model_that_looks_like_an_option(tmp, nibble):
    nibble.refuses("info", "--", "-absent.npz", says="-absent.npz")
    (tmp / "-m.npz").symlink_to(FAIRYTALE)
    assert nibble("info", "--", "-m.npz", cwd=tmp).startswith(b"-m.npz: llama")


def test_what_excludes_what(tmp, nibble):
    (tmp / "p").write_text("x")
    for words in (("-p", "x", "-f", tmp / "p"), ("-p", "x", "--ids", "1"),
                  ("-f", tmp / "p", "--ids", "1"), ("-p", "x", "--bos", "--no-bos")):
        nibble.refuses("generate", FAIRYTALE, *words, says="both given", code=2)


def test_unreadable_prompt_files(tmp, nibble):
    for command in ("generate", "tokenize"):
        nibble.refuses(command, FAIRYTALE, "-f", tmp / "absent", says=["absent", "No such file"])
        nibble.refuses(command, FAIRYTALE, "-f", tmp, says="directory")


def test_help(tmp, nibble):
    overview = nibble("--help").decode()
    assert nibble("-h").decode() == overview == nibble("help").decode()
    for command in COMMANDS:
        assert f"  {command}" in overview, command
        text = nibble(command, "--help").decode()
        assert text.startswith(f"usage: nibble {command} ") and "--help" in text
        assert nibble(command, "-h").decode() == text == nibble(command, "x", "-h").decode()
    text = nibble("generate", "--help").decode()
    for option in [*NUMBERS, "--prompt", "--file", "--n-predict", "--max-tokens", "--temperature",
                   "--ctx-size", "--batch-size", "--threads", "--seed", "--level", "--kv-type",
                   "--logit-bias", "--stop", "--ignore-eos", "--stats", "--quiet", "--json",
                   "--echo", "--bos", "--no-bos", "--ids", "--special", "--escape"]:
        assert f" {option} " in text or f" {option}," in text, option
    for default in ("default 256", "default 0.8", "default 40", "default 0.95", "default 0.05",
                    "0: 512", "default 64", "default: f16"):
        assert default in text, default


def test_version(tmp, nibble):
    lines = nibble("--version").decode().splitlines()
    assert lines[0].startswith("nibble ") and lines[0].split()[1].count(".") == 2, lines
    for word in ("compiler", "levels", "libzip", "BLAS", "cJSON", "sentencepiece"):
        assert any(line.startswith(word) for line in lines), word
    level_line = next(line for line in lines if line.startswith("levels"))
    assert "scalar" in level_line
    for command in COMMANDS:
        assert nibble(command, "--version").decode().splitlines()[0] == lines[0], command


if __name__ == "__main__":
    sys.exit(main(globals()))
