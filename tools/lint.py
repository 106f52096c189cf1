#!/usr/bin/python3
"""Keeps the rules of the house that a compiler does not: layers, names, sizes.

    tools/lint.py --build build/release    one line a finding, then 'N passed, N failed'

A rule is a function at the end of the RULES list; it yields (path, line, what). What a rule allows
stands in a table right below, with the reason. tests/unit/test_lint.py shows each rule bad text.
"""

import argparse
import ast
import fnmatch
import os
import platform
import re
import shlex
import shutil
import statistics
import subprocess
import sys

# --- The house -----------------------------------------------------------------------------------

# A folder of src may include itself and the folders named here.
LAYERS = {
    "base": [],
    "store": ["base"],
    "num": ["base"],
    "kern": ["base", "num"],
    "ops": ["base", "num", "kern"],
    "model": ["base", "store", "num", "ops"],
    "text": ["base"],
    "gen": ["base", "model", "text"],
    "api": ["base", "store", "num", "kern", "ops", "model", "text", "gen"],
    "cli": [],
}

# Headers without a folder, and where they may be included.
ROOT_HEADERS = {"nibble.h": ["src/api/*", "src/cli/*"], "version.h": ["src/api/*"]}

# System and library headers, and where they may be included. A header named nowhere is a finding.
C11 = """ctype.h errno.h fenv.h float.h inttypes.h limits.h math.h stdalign.h stdarg.h stdatomic.h
stdbool.h stddef.h stdint.h stdio.h stdlib.h stdnoreturn.h string.h time.h"""
CPP = """climits cstddef cstdint cstdio cstdlib cstring algorithm exception limits memory new string
string_view utility vector absl/strings/string_view.h"""
POSIX = "dirent.h fcntl.h libgen.h strings.h sys/stat.h sys/time.h sys/types.h unistd.h"
TERMINAL = """assert.h getopt.h glob.h locale.h poll.h pwd.h setjmp.h signal.h sys/ioctl.h
sys/prctl.h sys/resource.h sys/wait.h termios.h wchar.h wordexp.h"""
SYSTEM_HEADERS = [
    (C11, ["src/*", "include/*"]),
    (CPP, ["src/text/spm.cc"]),
    (POSIX, ["src/base/*", "src/store/*", "src/cli/*"]),
    ("strings.h", ["src/ops/blas.c"]),
    ("sys/random.h", ["src/cli/*"]),
    (TERMINAL, ["src/cli/*"]),
    ("sys/mman.h", ["src/base/map.c", "src/base/arena.c"]),
    ("pthread.h", ["src/base/pool.c"]),
    ("sched.h", ["src/base/cpu.c", "src/base/pool.c"]),
    ("cpuid.h sys/auxv.h asm/hwcap.h", ["src/base/cpu.c"]),
    ("sys/resource.h", ["src/base/memory.c"]),
    ("immintrin.h", ["src/kern/avx*", "src/kern/ymm.inc"]),
    ("arm_neon.h", ["src/kern/neon*"]),
    ("zip.h", ["src/store/*"]),
    ("cjson/cJSON.h", ["src/base/json.*", "src/store/*", "src/model/*", "src/text/*", "src/cli/*"]),
    ("sentencepiece_processor.h", ["src/text/spm.cc"]),
    ("pcre2.h", ["src/text/regex.c"]),
    ("utf8proc.h", ["src/text/unicode.c"]),
    ("cblas.h", ["src/ops/blas.c"]),
    ("histedit.h", ["src/cli/chat_line.c"]),
    ("linux/* sys/syscall.h", ["src/cli/sandbox*.c"]),
]

# Files that may allocate, and what for: nothing is allocated per token.
ALLOCATES = {
    "src/base/arena.c": "the one block a context lives in",
    "src/base/pool.c": "threads, when a pool is opened",
    "src/base/json.c": "keys, while they are compared",
    "src/store/*.c": "tables of arrays, inflated members, the writer",
    "src/model/kv_file.c": "one layer at a time, when a cache is saved",
    "src/model/model.c": "the model, when it is opened",
    "src/model/weights.c": "tables of tensors, when a model is opened",
    "src/model/encode.c": "one tensor at a time, when a model is converted",
    "src/model/calibrate.c": "what is measured of a layer, when a model is converted",
    "src/model/quantize.c": "one tensor at a time, when a model is converted",
    "src/text/*.c": "vocabularies, and lists of tokens that the caller frees",
    "src/text/spm.cc": "the C++ object, and lists of tokens that the caller frees",
    "src/gen/sampler.c": "candidates, when a sampler is opened",
    "src/gen/generate.c": "buffers, when a generation begins",
    "src/api/*.c": "the public handles",
    "src/cli/*.c": "the program around the library",
}

# Model families: named in arch.c alone, and in chat.def, whose templates go by their names. A digit
# or a capital may follow (qwen2, GemmaForCausalLM).
FAMILIES = """baichuan bloom chatglm cohere deepseek exaone falcon gemma glm gpt granite internlm
llama mamba minicpm ministral mistral mixtral nemotron olmo olmoe phi pythia qwen smollm stablelm
starcoder tinyllama vicuna"""
FAMILY_FILES = ["src/model/arch.c", "src/text/chat.def"]
# What looks like a family and is none, and where.
NOT_A_FAMILY = {
    "src/*": ["llama.cpp", "llama2.c"],  # other programs
    "src/model/spec.c": ['"llama3"'],  # a rope_type of config.json: a way of scaling frequencies
    "src/model/*": ["ROPE_LLAMA3"],  # its enumerator
    "src/model/rotary.c": ["llama3("],  # and the function that does it
    "src/model/spec.def": ['"llama_4_scaling_beta"'],  # a number in config.json
    "src/model/tensors.c": ['"gpt_neox.', '"gpt_neox.layers.'],  # what tensors' names begin with
    "src/cli/cmd_perplexity.c": ['"llama|all"', '"llama"'],  # a way of cutting windows
}

LEVEL_NAMES = "avx neon sse"  # and what begins with them: avx2, avx512, avxvnni
# cpu: what this machine has; blas: which of OpenBLAS's cores that calls for.
LEVEL_FILES = ["src/kern/*", "src/base/cpu.c", "src/base/cpu.h", "src/ops/blas.c"]

# Functions that do not begin with their file's name: path, pattern, reason.
FUNCTION_NAMES = [
    ("src/base/error.c", "fail", "the one word every layer says"),
    ("src/num/plain.c", "format_plain", "declared with the formats"),
    ("src/kern/select.c", "kern_.*", "the functions of kern.h"),
    ("src/api/*.c", "nibble_.*", "the public functions"),
    ("src/cli/main.c", "main", "C's own name"),
]

LINE_MAX, FUNCTION_MAX, FILE_MAX = 100, 80, 500
# Files that may be longer, and why.
LONG_FILES = {
    "include/nibble.h": 800,  # the whole interface, which programs include as one
}

# --- Reading -------------------------------------------------------------------------------------

TOKEN = re.compile(r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'", re.S)
DIRECTIVE = re.compile(r"^[ \t]*#(?:\\.|[^\\\n])*", re.M | re.S)
INCLUDE = re.compile(r"^[ \t]*#[ \t]*include[ \t]*(?:<([^>\n]+)>|\"([^\"\n]+)\")", re.M)
ATTRIBUTE = re.compile(r"__attribute__\s*\(\((?:[^()]|\([^()]*\))*\)\)")


def blank(text):
    """As many characters and lines, all of them spaces."""
    return re.sub(r"[^\n]", " ", text)


def without_comments(text):
    return TOKEN.sub(lambda m: m[0] if m[0][0] in "\"'" else blank(m[0]), text)


def without_strings(text):
    return TOKEN.sub(lambda m: m[0][0] + blank(m[0][1:-1]) + m[0][-1], text)


class Source:
    """One file: text as written, code without comments, bare without strings either."""

    def __init__(self, path, text):
        self.path, self.text = path, text
        self.lines = text.splitlines()
        self.is_c = path.endswith((".c", ".cc", ".h", ".def", ".inc"))
        self.code = without_comments(text) if self.is_c else text
        self.bare = without_strings(self.code) if self.is_c else text

    def find(self, pattern, text):
        """Yields (line, match) of pattern in text, which is one of ours."""
        for m in re.finditer(pattern, text):
            yield text.count("\n", 0, m.start()) + 1, m


def list_files(root):
    """What git tracks or would; without git, all that is no build output."""
    if shutil.which("git") and os.path.exists(os.path.join(root, ".git")):
        command = ["git", "-C", root, "ls-files", "-z", "-co", "--exclude-standard"]
        done = subprocess.run(command, capture_output=True)
        if done.returncode == 0:
            return sorted(set(filter(None, os.fsdecode(done.stdout).split("\0"))))
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = [f for f in folders if f not in ("build", ".git", "__pycache__")]
        found += [os.path.relpath(os.path.join(folder, name), root) for name in names]
    return sorted(found)


class Tree:
    """The text files of the project under root, and its build folder (or None)."""

    def __init__(self, root, build=None):
        self.root, self.build = root, build
        self.files = {}
        for path in list_files(root):
            full = os.path.join(root, path)
            if not os.path.isfile(full) or os.path.getsize(full) > 1 << 20:
                continue
            with open(full, "rb") as f:
                data = f.read()
            if b"\0" not in data:
                self.files[path] = Source(path, data.decode("utf-8", "replace"))

    def matching(self, *globs):
        return [s for path, s in self.files.items() if any(fnmatch.fnmatch(path, g) for g in globs)]

    def c(self):
        """C and C++ of the program, headers and lists included."""
        return [s for s in self.matching("src/*", "include/*") if s.is_c]


def allowed(path, globs):
    return any(fnmatch.fnmatch(path, g) for g in globs)


def c_functions(source):
    """Yields (name, first line, last line, static) of each function defined at file level.

    House style puts a function's closing brace at column 0; that resets the count of braces, so
    that an #if around half a statement does no harm."""
    text = ATTRIBUTE.sub(lambda m: blank(m[0]), DIRECTIVE.sub(lambda m: blank(m[0]), source.bare))
    depth, start, head, scopes = 0, 0, (0, 0), []
    for m in re.finditer(r"[{};]", text):
        if m[0] == "{":
            if depth == 0 and re.search(r"(extern\s*\"\s*\"|\bnamespace\b[\s\w:]*)\s*$",
                                        text[start:m.start()]):
                scopes.append("namespace" in text[start:m.start()])
                start = m.end()
                continue
            if depth == 0:
                head = (start, m.start())
            depth += 1
        elif m[0] == "}" and depth > 0:
            depth = 0 if text[m.start() - 1] == "\n" else depth - 1
            if depth == 0:
                start = m.end()
                found = function_head(text[head[0]:head[1]])
                if found:
                    name, offset, static = found
                    first = text.count("\n", 0, head[0] + offset) + 1
                    yield name, first, text.count("\n", 0, m.start()) + 1, static or any(scopes)
        elif depth == 0:
            start = m.end()
            if m[0] == "}" and scopes:
                scopes.pop()


def function_head(head):
    """(name, offset of its first line, static) if what stands before a brace heads a function."""
    end = re.search(r"\)\s*(?:const|noexcept|override|\s)*$", head)
    if not end or "=" in head:
        return None
    depth, at = 0, end.start()
    while at >= 0:
        depth += {")": 1, "(": -1}.get(head[at], 0)
        if depth == 0:
            break
        at -= 1
    name = re.search(r"(\w+)\s*$", head[:max(at, 0)])
    if not name:  # a function that returns a function
        name = re.search(r"\(\s*\*\s*(\w+)\s*(?=\()", head)
    if not name:
        return None
    before = head[:name.start()]
    gap = [m.end() for m in re.finditer(r"\n[ \t]*(?=\n)", before)]
    offset = gap[-1] if gap else 0
    offset += len(head[offset:]) - len(head[offset:].lstrip())
    return name[1], offset, bool(re.search(r"\bstatic\b", before[offset:]))


# --- Rules ---------------------------------------------------------------------------------------


def include_order(tree):
    """Includes point down: LAYERS, ROOT_HEADERS and SYSTEM_HEADERS."""
    for s in tree.c():
        folder = s.path.split("/")[1] if s.path.startswith("src/") else None
        for line, m in s.find(INCLUDE, s.code):
            if m[1]:
                places = [p for names, where in SYSTEM_HEADERS if allowed(m[1], names.split())
                          for p in where]
                if not places:
                    yield s.path, line, f"<{m[1]}> is not in the table of headers"
                elif not allowed(s.path, places):
                    yield s.path, line, f"<{m[1]}> belongs in {', '.join(places)}"
            elif "/" not in m[2]:
                if not allowed(s.path, ROOT_HEADERS.get(m[2], [])):
                    yield s.path, line, f'"{m[2]}" may not be included here, or lacks its folder'
            elif folder is None or m[2].split("/")[0] not in [folder, *LAYERS.get(folder, [])]:
                yield s.path, line, f'"{m[2]}" is not below {folder or "include"}'


def headers_alone(tree):
    """Every header compiles alone."""
    command = shlex.split(os.environ.get("CC", "cc")) + [
        "-std=c11", "-fsyntax-only", "-D_GNU_SOURCE", "-Isrc", "-Iinclude", "-x", "c"]
    levels = r"src/kern/avx" if platform.machine() != "x86_64" else r"src/kern/neon"
    for s in tree.matching("src/*.h", "include/*.h"):
        if s.path.startswith(levels):
            continue
        done = subprocess.run([*command, s.path], cwd=tree.root, capture_output=True, text=True)
        if done.returncode != 0:
            first = re.search(r"^[^:\n]+:(\d+):.*?error: (.*)", done.stderr, re.M)
            line, what = (int(first[1]), first[2]) if first else (1, done.stderr.strip())
            yield s.path, line, f"does not compile alone: {what}"


def family_names(tree):
    """Model families are named in arch.c only (comments may say what they like)."""
    names = "|".join(re.escape(name) for name in FAMILIES.split())
    for s in tree.c():
        if allowed(s.path, FAMILY_FILES):
            continue
        code = s.code
        for glob, literals in NOT_A_FAMILY.items():
            for literal in literals if fnmatch.fnmatch(s.path, glob) else []:
                code = code.replace(literal, " " * len(literal))
        for line, m in s.find(rf"(?<![A-Za-z])(?i:{names})(?![a-z])", code):
            yield s.path, line, f"names a model family: {m[0]}"


def level_names(tree):
    """CPU levels and intrinsics stay in src/kern."""
    names = "|".join(LEVEL_NAMES.split())
    pattern = rf"\b_mm\d*_\w+|\b__m(?:128|256|512|mask)\w*|(?<![A-Za-z])(?i:{names})\w*"
    for s in tree.c():
        if not allowed(s.path, LEVEL_FILES):
            for line, m in s.find(pattern, INCLUDE.sub(lambda d: blank(d[0]), s.code)):
                yield s.path, line, f"'{m[0]}' belongs in src/kern"


def silent_library(tree):
    """The library never prints, exits, aborts or reads the environment."""
    calls = """printf fprintf vprintf vfprintf dprintf puts fputs putchar putc fputc perror psignal
    syslog exit _exit _Exit quick_exit abort assert getenv secure_getenv setenv putenv system"""
    for s in tree.c():
        if s.path.startswith("src/cli/"):
            continue
        for line, m in s.find(rf"\b({'|'.join(calls.split())})\s*\(", s.bare):
            yield s.path, line, f"{m[1]}() belongs in src/cli"
        for line, m in s.find(r"\b(stdout|stderr|stdin|environ|cout|cerr)\b", s.bare):
            yield s.path, line, f"{m[1]} belongs in src/cli"


def allocation(tree):
    """Memory comes from the arena or from a file in the table ALLOCATES."""
    calls = """malloc calloc realloc reallocarray strdup strndup asprintf vasprintf getline
    aligned_alloc posix_memalign alloca"""
    for s in tree.c():
        if not allowed(s.path, ALLOCATES):
            for line, m in s.find(rf"\b({'|'.join(calls.split())})\s*\(", s.bare):
                yield s.path, line, f"{m[1]}() in a file that the table ALLOCATES does not name"


def function_names(tree):
    """A function that other files see begins with its file's name."""
    for s in tree.matching("src/*.c", "src/*.cc", "src/*.h"):
        stem = os.path.basename(s.path).rsplit(".", 1)[0]
        in_header = s.path.endswith(".h")
        if in_header and s.path.startswith("src/kern/"):
            continue  # helpers of one level
        for name, line, _, static in c_functions(s):
            if static and not in_header or name == stem or name.startswith(stem + "_"):
                continue
            if not any(fnmatch.fnmatch(s.path, glob) and re.fullmatch(pattern, name)
                       for glob, pattern, _ in FUNCTION_NAMES):
                yield s.path, line, f"{name}() should be static, or begin with {stem}_"


CODE = [f"{folder}/*.{end}" for folder in ("src", "include", "tests", "tools", "scripts")
        for end in ("c", "cc", "h", "py")]


def function_sizes(tree):
    """A function has at most FUNCTION_MAX lines."""
    for s in tree.matching(*CODE):
        try:
            spans = py_functions(s) if s.path.endswith(".py") else c_functions(s)
            for name, first, last, _ in spans:
                if last - first + 1 > FUNCTION_MAX:
                    what = f"{name}() has {last - first + 1} lines, over {FUNCTION_MAX}"
                    yield s.path, first, what
        except SyntaxError as e:
            yield s.path, e.lineno or 1, f"does not parse: {e.msg}"


def py_functions(source):
    for node in ast.walk(ast.parse(source.text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.name, node.lineno, node.end_lineno, False


def file_sizes(tree):
    """A file has at most FILE_MAX lines, or as many as LONG_FILES says."""
    for s in tree.matching(*CODE, "scripts/*.sh"):
        most = LONG_FILES.get(s.path, FILE_MAX)
        if len(s.lines) > most:
            yield s.path, most + 1, f"the file has {len(s.lines)} lines, over {most}"


def line_lengths(tree):
    """A line has at most LINE_MAX characters."""
    for s in tree.matching(*CODE, "src/*.def", "src/*.inc", "scripts/*.sh"):
        for number, line in enumerate(s.lines, 1):
            if len(line) > LINE_MAX:
                yield s.path, number, f"{len(line)} columns, over {LINE_MAX}"


def white_space(tree):
    """No tabs, no carriage returns, no blanks at the end of a line, a newline at the end."""
    for s in tree.matching(*CODE, "src/*.def", "src/*.inc", "scripts/*.sh"):
        for line, m in s.find(r"\t|\r|[ ]+(?=\n)", s.text):
            kind = {"\t": "a tab", "\r": "a carriage return"}.get(m[0], "blanks at the end")
            yield s.path, line, kind
        if s.text and not s.text.endswith("\n"):
            yield s.path, len(s.lines), "no newline at the end of the file"


def machine_paths(tree):
    """No path of one machine in any file."""
    for s in tree.files.values():
        for line, m in s.find(r"(?<![\w.~$}/*-])/(?:work|home|root|Users|mnt)/", s.text):
            yield s.path, line, f"{m[0]} is a path of one machine"


def exported_symbols(tree):
    """libnibble.a exports nibble_* and nothing else. Returns None while it is not built."""
    library = os.path.join(tree.build or "", "libnibble.a")
    if not tree.build or not os.path.exists(library):
        return None
    out = subprocess.run(["nm", "-g", "--defined-only", library], capture_output=True, text=True,
                         check=True).stdout
    names = re.findall(r"^[0-9a-f]+ \w (\S+)$", out, re.M)
    found = [(library, 1, f"exports {n}") for n in names if not n.startswith("nibble_")]
    return found if names else [(library, 1, "exports nothing")]


RULES = [include_order, headers_alone, family_names, level_names, silent_library, allocation,
         function_names, function_sizes, file_sizes, line_lengths, white_space, machine_paths,
         exported_symbols]


def describe_sizes(tree):
    sizes = sorted(last - first + 1 for s in tree.matching("src/*.c", "src/*.cc", "src/*.h")
                   for _, first, last, _ in c_functions(s))
    if sizes:
        print(f"functions in src: {len(sizes)}, median {statistics.median(sizes):g} lines, "
              f"nine in ten at most {sizes[(len(sizes) - 1) * 9 // 10]}, longest {sizes[-1]}")


def main():
    parser = argparse.ArgumentParser(description="Checks the rules of the house.")
    parser.add_argument("--build", metavar="DIR", help="where libnibble.a lies: build/release")
    args = parser.parse_args()
    tree = Tree(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), args.build)
    passed = failed = 0
    for rule in RULES:
        findings = rule(tree)
        if findings is None:
            print(f"{rule.__name__} left out: nothing is built")
            continue
        findings = list(findings)
        for path, line, what in findings:
            print(f"{path}:{line}: {what} [{rule.__name__}]")
        passed += not findings
        failed += bool(findings)
    describe_sizes(tree)
    print(f"{passed} passed, {failed} failed")
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
