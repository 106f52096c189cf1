#!/usr/bin/python3
"""What is made of the option tables: completion in bash, zsh and fish, and the manual page."""
import re
import shlex
import subprocess
import sys

from harness import FAIRYTALE, ROOT, main, need

SHELLS = ("bash", "zsh", "fish")
# ask calls the function as bash does when Tab is pressed behind the last word, and prints on one
# line whether paths are offered where no word is, then the words.
ASK = """
compopt() { [[ "$*" == "+o default" ]] && paths=no; }
ask() {
    COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) paths=yes
    _nibble
    echo "$paths" "${COMPREPLY[@]}"
}
"""


def options_of(help_text):
    """The names and the value of each option that a command's --help lists."""
    for line in help_text.splitlines():
        m = re.match(r"  (-[^\s,]+(?:, -[^\s,]+)*)(?: (\S+))?(?:  | |$)", line)
        if m:
            yield m[1].split(", "), m[2]


def helps(nibble):
    """--help of each command."""
    listed = re.findall(r"^  (\S+)  ", nibble("--help").decode(), re.M)
    assert "generate" in listed and "man" in listed, listed
    return {command: nibble(command, "--help").decode() for command in listed}


def complete(nibble, *questions):
    """Of each question, which is the words behind "nibble": whether paths are offered, and the
    set of words that are."""
    calls = "".join(f"ask nibble {shlex.join(words)}\n" for words in questions)
    script = nibble("completion", "bash").decode() + ASK + calls
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == "", done.stderr
    answers = [line.split() for line in done.stdout.splitlines()]
    assert len(answers) == len(questions), answers
    return [(paths == "yes", set(words)) for paths, *words in answers]


def expect(nibble, answers):
    """answers: of each question the words offered, or PATHS."""
    for words, got in zip(answers, complete(nibble, *answers)):
        want = answers[words]
        assert got == ((True, set()) if want is PATHS else (False, set(want))), (words, got)


PATHS = object()


def test_bash_offers_commands(tmp, nibble):
    expect(nibble, {("",): {*helps(nibble), "-h", "--help", "--version"}, ("gen",): {"generate"},
                    ("--v",): {"--version"}, ("nothing",): ()})


def test_bash_offers_every_option_of_help(tmp, nibble):
    answers = {}
    for command, text in helps(nibble).items():
        rows = list(options_of(text))
        assert rows[-1][0] == ["--version"], rows
        answers[command, "-"] = [name for names, _ in rows for name in names]
    expect(nibble, answers)
    expect(nibble, {("generate", "m.npz", "-n", "3", "--kv"): ["--kv-type"]})


def test_bash_offers_values(tmp, nibble):
    answers = {}
    for command, text in helps(nibble).items():
        for name, value in ((name, value) for names, value in options_of(text) for name in names):
            if value and "|" in value:
                answers[command, name, ""] = value.split("|")
            if value in ("N", "X", "TEXT", "ID=X", "N,..."):
                answers[command, name, ""] = answers[command, name, "-"] = ()
            if value == "FILE":
                answers[command, name, ""] = PATHS
    assert answers["generate", "-n", ""] == () and answers["tokenize", "-f", ""] is PATHS
    types = ["f16", "f32", "q8"]
    assert answers["generate", "--kv-type", ""] == types
    answers["generate", "m", "--kv-type", "="] = types  # readline takes --kv-type=q apart
    answers["generate", "m", "--kv-type", "=", "q"] = ["q8"]
    answers["completion", ""] = SHELLS
    expect(nibble, answers)
    (_, levels), = complete(nibble, ("verify", "m", "--level", ""))
    known = re.findall("^levels: *([^(\n]*)", nibble("info").decode(), re.M)[-1].split()
    assert levels == set(known) and "scalar" in levels, levels


def templates(nibble):
    """As the answer to an unknown one lists them."""
    told = nibble.refuses("generate", FAIRYTALE, "--chat", "-p", "x", "--template", "x", code=2)
    names = told.split("there are ")[1].strip().split(", ")
    assert "chatml" in names and "zephyr" in names, told
    return names


def test_templates_are_offered(tmp, nibble):
    names = templates(nibble)
    expect(nibble, {("generate", "m", "--template", ""): names,
                    ("chat", "m", "--template", "=", ""): names,
                    ("chat", "m", "--template", "llam"): [x for x in names if x[:4] == "llam"]})
    zsh = nibble("completion", "zsh").decode()
    assert zsh.count(f":TEMPLATE:({' '.join(names)})'") == 2, "of generate and chat"
    fish = nibble("completion", "fish").decode().splitlines()
    assert sum(f" -l template -x -a '{' '.join(names)}'" in line for line in fish) == 2


def test_bash_offers_paths(tmp, nibble):
    expect(nibble, {("generate", ""): PATHS, ("bench", "-q", "mod"): PATHS,
                    ("list", "a", ""): PATHS, ("quantize", "a.npz", ""): PATHS,
                    ("generate", "--file", "=", "x"): PATHS,
                    ("generate", "x", "-q", "-"): complete(nibble, ("generate", "-"))[0][1],
                    ("man", ""): ()})
    script = nibble("completion", "bash").decode()
    registered = subprocess.run(["bash", "-c", f"{script}\ncomplete -p nibble"], text=True,
                                capture_output=True, check=True).stdout
    assert registered == "complete -o default -F _nibble nibble\n"


def test_every_choice_is_taken_and_others_are_refused(tmp, nibble):
    found = {(names[-1], value): command for command, text in helps(nibble).items()
             for names, value in options_of(text) if value and "|" in value}
    assert len(found) >= 2, found
    for (name, value), command in found.items():
        choices = value.split("|")
        says = "is not " + ", ".join(choices[:-1]) + " or " + choices[-1]
        for wrong in ("", value, choices[0] + " ", choices[0][:-1]):
            nibble.refuses(command, "m", name, wrong, says=[name, says], code=2)
        nibble(command, "m", *[word for right in choices for word in (name, right)], "--help")


def test_other_shells_hold_every_option(tmp, nibble):
    zsh = nibble("completion", "zsh").decode()
    fish = nibble("completion", "fish").decode()
    for command, text in helps(nibble).items():
        in_zsh = zsh.split(f"\n  {command})\n")[1].split(";;\n")[0]
        in_fish = [line + " " for line in fish.splitlines()
                   if f"'__nibble_command {command}'" in line]
        for names, value in options_of(text):
            for name in names:
                assert re.search(rf"[({{'*,]{name}[=,}}\[]", in_zsh), (command, name)
                flag = f" -l {name[2:]} " if name[:2] == "--" else f" -s {name[1:]} "
                assert any(flag in line for line in in_fish), (command, name)
            if value and "|" in value:
                words = value.replace("|", " ")
                assert f":({words})'" in in_zsh and any(f"-a '{words}'" in x for x in in_fish)


def test_zsh_reads_its_script(tmp, nibble):
    check_syntax(need("zsh"), "-n", nibble("completion", "zsh"))


def test_fish_reads_its_script(tmp, nibble):
    fish = need("fish")
    script = nibble("completion", "fish")
    check_syntax(fish, "--no-execute", script)
    ask = script + b'\ncomplete -C "nibble generate --kv-type "'
    got = subprocess.run([fish, "--no-config"], input=ask, capture_output=True, cwd=tmp).stdout
    assert [line.split(b"\t")[0] for line in got.splitlines()] == [b"f16", b"f32", b"q8"], got


def check_syntax(shell, option, script):
    done = subprocess.run([shell, option], input=script, capture_output=True)
    assert done.returncode == 0 and not done.stderr, done.stderr


def test_unknown_shells(tmp, nibble):
    nibble.refuses("completion", "csh", says="is not bash, zsh or fish", code=2)
    nibble.refuses("completion", "bash", "zsh", says="too much", code=2)
    nibble.refuses("man", "generate", says="too much", code=2)


# ---- the manual page

def unescaped(page):
    for escape, character in {r"\-": "-", r"\(aq": "'", r"\(ga": "`", r"\(ha": "^", r"\(ti": "~",
                              r"\fB": "", r"\fI": "", r"\fR": "", r"\&": "", r"\e": "\\"}.items():
        page = page.replace(escape, character)
    return page


def test_the_page_holds_every_command_and_option(tmp, nibble):
    page = unescaped(nibble("man").decode())
    own, shared = page.split("\n.SH COMMANDS\n")[1].split("\n.SH EXIT STATUS\n")[0].split(
        "\n.SH OPTIONS\n")
    for command, text in helps(nibble).items():
        usage = re.match("usage: (.*)", text)[1]
        part = own.split(f".SS {command}\n")[1].split("\n.SS ")[0] + "\n"
        assert part.startswith(usage), (part, usage)
        part += "".join(group for group in (shared + "\n").split(".SS ")
                        if command in re.split(r"[ ,]+", group.splitlines()[0] if group else "")
                        or group.startswith("Of every command"))
        for names, value in options_of(text):
            row = ".TP\n" + ", ".join(names) + (f" {value}" if value else "") + "\n"
            assert row in part, (command, row)


def section(page, title):
    return page.split(f"\n.SH {title}\n")[1].split("\n.SH ")[0]


def test_the_page_names_what_is_read_and_written(tmp, nibble):
    """Variables as the sources ask for them; files as the library looks for them in a model."""
    page = unescaped(nibble("man").decode())
    cli = "".join(path.read_text() for path in (ROOT / "src" / "cli").glob("*.c"))
    asked = {*re.findall(r'getenv\("(\w+)"\)', cli), *re.findall(r'"(\w+_HOME|HF_\w+)"', cli),
             *re.findall(r'"(OPENBLAS_\w+)"', cli), "HOME"}
    assert {"NO_COLOR", "TERM", "HF_HOME", "OPENBLAS_CORETYPE"} <= asked, asked
    for name in asked:
        assert re.search(rf"\b{name}\b", section(page, "ENVIRONMENT")), name
    model = "".join((ROOT / "src" / path).read_text()
                    for path in ("api/handles.c", "model/model.c", "model/quantize.c"))
    named = {*re.findall(r'"(\w+\.(?:json|jinja|model))"', model), "--prompt-cache", "--save-dir",
             "--save-logits", "--write-reference"}
    assert {"generation_config.json", "chat_template.jinja", "tokenizer.model"} <= named, named
    for name in named:
        assert name in section(page, "FILES"), name


def test_the_page_is_clean_roff(tmp, nibble):
    page = nibble("man")
    assert max(map(len, page.decode("ascii").splitlines())) < 400
    done = subprocess.run([need("groff"), "-ww", "-man", "-z", "-Tascii"], input=page,
                          capture_output=True, check=True)
    assert done.stdout + done.stderr == b"", done.stderr


def test_the_page_is_clean_for_mandoc(tmp, nibble):
    mandoc = need("mandoc")
    (tmp / "nibble.1").write_bytes(nibble("man"))
    done = subprocess.run([mandoc, "-Tlint", "-Wwarning", "nibble.1"], cwd=tmp,
                          capture_output=True, text=True)
    assert not re.search("ERROR|UNSUPP", done.stdout), done.stdout
    assert [x for x in done.stdout.splitlines() if "missing date" not in x] == [], done.stdout


if __name__ == "__main__":
    sys.exit(main(globals()))
