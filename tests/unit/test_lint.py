#!/usr/bin/python3
"""Shows every rule of tools/lint.py a text that breaks it, and one beside it that does not."""

import os
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tools"))
sys.dont_write_bytecode = True
import lint  # noqa: E402

ALONE = "#include <stddef.h>\nsize_t n(void);\n"
LONG = "int f(void) {\n" + "    g();\n" * 79 + "}\n"
LONG_PY = "def f():\n" + "    g()\n" * 80

# rule, path, text, the lines that must be found
CASES = [
    ("include_order", "src/num/a.c", '#include "store/npz.h"\n', [1]),
    ("include_order", "src/num/a.c", '\n# include "ops/norm.h"\n#include "base/map.h"\n', [2]),
    ("include_order", "src/kern/a.c", '#include "num/half.h"\n#include "kern/kern.h"\n', []),
    ("include_order", "src/ops/a.c", '#include "norm.h"\n', [1]),
    ("include_order", "src/model/a.c", '#include "nibble.h"\n', [1]),
    ("include_order", "src/api/a.c", '#include "nibble.h"\n#include "version.h"\n', []),
    ("include_order", "src/cli/a.c", '#include "nibble.h"\n#include "base/map.h"\n', [2]),
    ("include_order", "src/cli/a.c", '#include "cli/options.h"\n#include <cjson/cJSON.h>\n', []),
    ("include_order", "include/nibble.h", '#include <stddef.h>\n#include "base/map.h"\n', [2]),
    ("include_order", "src/ops/linear.c", "#include <cblas.h>\n", [1]),
    ("include_order", "src/ops/blas.c", "#include <cblas.h>\n", []),
    ("include_order", "src/store/npz.c", "#include <zip.h>\n#include <sys/mman.h>\n", [2]),
    ("include_order", "src/base/map.c", "#include <sys/mman.h>\n#include <pthread.h>\n", [2]),
    ("include_order", "src/text/bpe.c", "#include <sentencepiece_processor.h>\n", [1]),
    ("include_order", "src/ops/norm.c", "#include <immintrin.h>\n#include <unistd.h>\n", [1, 2]),
    ("include_order", "src/kern/avx2.c", "#include <immintrin.h>\n", []),
    ("include_order", "src/base/a.c", "#include <boost/any.hpp>\n", [1]),
    ("include_order", "src/base/a.c", '/* #include "ops/norm.h" */\n', []),
    ("headers_alone", "src/base/a.h", "\nsize_t n(void);\n", [2]),
    ("headers_alone", "src/base/a.h", ALONE, []),
    ("headers_alone", "include/nibble.h", "bool b(void);\n", [1]),
    ("family_names", "src/model/model.c", 'int i;\nbool b = is(name, "mistral");\n', [2]),
    ("family_names", "src/model/model.c", "int qwen2_bias, is_LLAMA, Gemma3, GptNeoX;\n", [1] * 4),
    ("family_names", "src/model/model.c", "int graphite, gemmas; /* as Llama does */ // phi\n", []),
    ("family_names", "src/model/arch.c", 'const char *f = "mixtral";\n', []),
    ("family_names", "src/model/spec.c", 'f("llama3", SPEC_ROPE_LLAMA3);\nf("llama");\n', [2]),
    ("family_names", "src/ops/rope.c", 'f("llama3");\n', [1]),
    ("level_names", "src/ops/norm.c", "x = _mm256_add_ps(x, y);\n__m512 z;\n", [1, 2]),
    ("level_names", "src/ops/norm.c", '#if __AVX2__\nf("avx512");\nint avxvnni_row;\n', [1, 2, 3]),
    ("level_names", "src/kern/avx2.c", "x = _mm256_add_ps(x, y);\n", []),
    ("level_names", "src/ops/norm.c", '#include "kern/avx2.h"\n/* AVX2 */ int assess, pass;\n', []),
    ("silent_library", "src/store/a.c", 'snprintf(b, n, "x");\nprintf("x");\n', [2]),
    ("silent_library", "src/store/a.c", "exit(1);\nabort();\ngetenv(s);\nassert(x);", [1, 2, 3, 4]),
    ("silent_library", "src/store/a.c", 'f("exit(1)"); // abort()\n_Static_assert(1, "");\n', []),
    ("silent_library", "src/store/a.c", "fwrite(p, 1, n, stderr);\n", [1]),
    ("silent_library", "src/base/e.h", "int f(int) __attribute__((format(printf, 1, 2)));\n", []),
    ("silent_library", "src/cli/main.c", 'printf("x");\nexit(1);\n', []),
    ("allocation", "src/kern/ref.c", "void *p = malloc(n);\n", [1]),
    ("allocation", "src/ops/linear.c", "p = calloc(1, n);\nq = realloc (p, n);\n", [1, 2]),
    ("allocation", "src/model/forward.c", "char *s = strdup(t);\n", [1]),
    ("allocation", "src/model/run.c", "int *p = malloc(n);\n", [1]),
    ("allocation", "src/base/arena.c", "int *p = malloc(n);\n", []),
    ("allocation", "src/ops/linear.c", "/* malloc(n) */ my_malloc(n);\n", []),
    ("function_names", "src/ops/norm.c", "void scale(float *x) {\n}\n", [1]),
    ("function_names", "src/ops/norm.c", "/* y */\n\nfloat *\nmax(\n    int n) {\n}\n", [3]),
    ("function_names", "src/ops/norm.c", "static int max(int n) {\n    if (n) {\n    }\n}\n", []),
    ("function_names", "src/ops/norm.c", "void norm_rms(int n) {\n}\nvoid norm(void) {\n}\n", []),
    ("function_names", "src/ops/norm.c", "int max(int);\nint t[] = {\n    F(1),\n};\n", []),
    ("function_names", "src/num/half.h", "static inline int f(int n) {\n    return n;\n}\n", [1]),
    ("function_names", "src/base/error.c", "bool fail(struct error *e) {\n}\n", []),
    ("function_names", "src/api/nibble.c", "int nibble_open(void) {\n}\nint f(void) {\n}\n", [3]),
    ("function_names", "src/text/spm.cc",
     'extern "C" {\nint spm_bos(S *s) noexcept {\n}\nint bos(S *s) noexcept {\n}\n}\n', [4]),
    ("function_names", "src/text/spm.cc",
     "namespace {\nint bos(S *s) {\n}\n}\nint f() {\n}\n", [5]),
    ("function_names", "src/ops/norm.c",
     "#define M(x) {\n#if A\nint norm(int a) {\n#else\nint norm(void) {\n#endif\n}\n"
     "int f(void) {\n}\n", [8]),
    ("function_sizes", "src/ops/norm.c", LONG, [1]),
    ("function_sizes", "src/ops/norm.c", LONG.replace("    g();\n", "", 1), []),
    ("function_sizes", "tools/a.py", LONG_PY, [1]),
    ("function_sizes", "tools/a.py", LONG_PY.replace("    g()\n", "", 1), []),
    ("function_sizes", "tools/a.py", "\ndef f(:\n", [2]),
    ("file_sizes", "src/ops/norm.c", "\n" * 501, [501]),
    ("file_sizes", "tests/a.py", "\n" * 500, []),
    ("line_lengths", "src/ops/norm.c", "x" * 100 + "\n" + "x" * 101 + "\n", [2]),
    ("line_lengths", "src/ops/norm.c", "\u00e9" * 100 + "\n", []),
    ("white_space", "src/ops/norm.c", "\tint x;\nint y; \nint z;\r\n", [1, 2, 3]),
    ("white_space", "src/ops/norm.c", "int x;", [1]),
    ("white_space", "src/ops/norm.c", "int x;\n\nint y;\n", []),
    ("machine_paths", "docs/a.md", "see /ho" "me/me/models\n", [1]),
    ("machine_paths", "docs/a.md", "~/ho" "me/x, $D/wo" "rk/, a/wo" "rk/b, x.org/wo" "rk/\n", []),
]


def findings(rule, files, build=None):
    """What rule says about a project of these files, {path: text}."""
    with tempfile.TemporaryDirectory() as root:
        for path, text in files.items():
            full = os.path.join(root, path)
            os.makedirs(os.path.dirname(full), exist_ok=True)
            with open(full, "w", encoding="utf-8", newline="") as f:
                f.write(text)
        found = getattr(lint, rule)(lint.Tree(root, build))
        return found if found is None else list(found)


def exported(symbol):
    """The findings about a library that defines this one symbol."""
    with tempfile.TemporaryDirectory() as build:
        source = os.path.join(build, "a.s")
        with open(source, "w", encoding="utf-8") as f:
            f.write(f".globl {symbol}\n.data\n{symbol}: .byte 0\n")
        subprocess.run(["as", "-o", source + ".o", source], check=True)
        library = os.path.join(build, "libnibble.a")
        subprocess.run(["ar", "rc", library, source + ".o"], check=True)
        return findings("exported_symbols", {}, build)


def main():
    results = []
    for rule, path, text, lines in CASES:
        got = [line for _, line, _ in findings(rule, {path: text})]
        results.append((f"{rule} on {path} {text[:60]!r}: lines {got}, not {lines}", got == lines))
    results.append(("exported_symbols lets nibble_open pass", exported("nibble_open") == []))
    results.append(("exported_symbols finds arena_open", len(exported("arena_open")) == 1))
    results.append(("no library, no verdict", findings("exported_symbols", {}) is None))
    for rule in lint.RULES:
        shown = rule is lint.exported_symbols or any(
            name == rule.__name__ and lines for name, _, _, lines in CASES)
        results.append((f"{rule.__name__} is shown a bad text", shown))
    failed = [what for what, ok in results if not ok]
    for what in failed:
        print("FAIL", what)
    print(f"{len(results) - len(failed)} passed, {len(failed)} failed")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
