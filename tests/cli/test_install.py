#!/usr/bin/python3
"""make install and uninstall, and README's program built against what was installed."""
import ctypes
import os
import re
import shlex
import subprocess
import sys

from harness import FAIRYTALE, ROOT, Skip, main, need

PREFIX = "/opt/nibble"
INSTALLED = {"bin/nibble": 0o755, "lib/libnibble.a": 0o644, "include/nibble.h": 0o644,
             "lib/pkgconfig/nibble.pc": 0o644, "share/man/man1/nibble.1": 0o644,
             "share/bash-completion/completions/nibble": 0o644,
             "share/zsh/site-functions/_nibble": 0o644,
             "share/fish/vendor_completions.d/nibble.fish": 0o644}
README = (ROOT / "README.md").read_text()


def make(nibble, goal, dest, *words):
    """Of what is built: nothing is compiled while other suites may be running it."""
    build = nibble.path.parent
    if build.parent.parent != ROOT:
        raise Skip(f"{build} is not in the build folder")
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    kept = [f"-o{build.relative_to(ROOT) / name}" for name in ("nibble", "libnibble.a")]
    done = subprocess.run(["make", "-s", *kept, goal, f"config={build.name}", f"DESTDIR={dest}",
                           f"PREFIX={PREFIX}", *words], cwd=ROOT, env=env, capture_output=True,
                          text=True)
    assert done.returncode == 0 and done.stderr == "", done


def files(folder):
    return {str(path.relative_to(folder)): path.stat().st_mode & 0o777
            for path in folder.rglob("*") if path.is_file()}


def test_the_tree(tmp, nibble):
    dest = tmp / "a b"
    top = dest / PREFIX[1:]
    make(nibble, "install", dest)
    assert files(dest) == {f"{PREFIX[1:]}/{name}": mode for name, mode in INSTALLED.items()}
    assert subprocess.run([top / "bin/nibble", "--version"], capture_output=True,
                          check=True).stdout == nibble("--version")
    for name, words in {"man/man1/nibble.1": ["man"],
                        "bash-completion/completions/nibble": ["completion", "bash"],
                        "zsh/site-functions/_nibble": ["completion", "zsh"],
                        "fish/vendor_completions.d/nibble.fish": ["completion", "fish"]}.items():
        assert (top / "share" / name).read_bytes() == nibble(*words), name
    assert str(tmp) not in (top / "lib/pkgconfig/nibble.pc").read_text()


def test_uninstall_takes_only_its_own(tmp, nibble):
    make(nibble, "install", tmp)
    other = tmp / PREFIX[1:] / "share/man/man1/other.1"
    other.write_text("")
    make(nibble, "uninstall", tmp)
    assert list(files(tmp)) == [str(other.relative_to(tmp))]
    make(nibble, "uninstall", tmp)  # nothing is there: no complaint


def test_folders_of_ones_own(tmp, nibble):
    where = ("LIBDIR=/opt/nibble/lib/x86", "MANDIR=/man", "BINDIR=/b", "INCLUDEDIR=/inc",
             "DATADIR=/data")
    make(nibble, "install", tmp, *where)
    names = set(files(tmp))
    assert {"b/nibble", "opt/nibble/lib/x86/libnibble.a", "man/man1/nibble.1", "inc/nibble.h",
            "data/zsh/site-functions/_nibble"} < names and len(names) == len(INSTALLED), names
    pc = (tmp / "opt/nibble/lib/x86/pkgconfig/nibble.pc").read_text()
    assert "\nlibdir=${prefix}/lib/x86\n" in pc and "\nincludedir=/inc\n" in pc, pc
    make(nibble, "uninstall", tmp, *where)
    assert files(tmp) == {}


# ---- the library

def story(tmp, nibble):
    """README's program, to be compiled in tmp, and what it must print."""
    if nibble.sanitized or nibble.counted:
        raise Skip("the library asks for a sanitizer's or gcov's")
    code = re.search(r"```c\n(.*?)```", README, re.S)[1]
    (tmp / "story.c").write_text(code)
    return nibble("generate", FAIRYTALE, "-p", "Once upon a time", "-n", "100", "-s", "0")


def tell(tmp):
    done = subprocess.run(["./story", FAIRYTALE, "Once upon a time"], cwd=tmp, capture_output=True)
    assert done.returncode == 0 and done.stderr == b"", done
    return done.stdout


def commands_of_readme(word):
    """Those in README that compile the program and hold a word."""
    lines = README.replace("\\\n", "")
    return [line for line in re.findall(r"^    (cc .*)$", lines, re.M) if word in line]


def test_pkg_config(tmp, nibble):
    need("pkg-config")
    want = story(tmp, nibble)
    make(nibble, "install", tmp)
    env = {**os.environ, "PKG_CONFIG_PATH": str(tmp / "opt/nibble/lib/pkgconfig"),
           "PKG_CONFIG_SYSROOT_DIR": str(tmp)}
    command, = commands_of_readme("pkg-config")
    for more in ("", "--static "):
        subprocess.run(["sh", "-ec", command.replace("--libs", more + "--libs")], cwd=tmp, env=env,
                       check=True)
        assert tell(tmp) == want
    version = subprocess.run(["pkg-config", "--modversion", "nibble"], env=env, check=True,
                             capture_output=True, text=True).stdout
    assert nibble("--version").decode().split()[1] == version.strip()


def test_without_installing(tmp, nibble):
    want = story(tmp, nibble)
    (tmp / "include").symlink_to(ROOT / "include")
    (tmp / "build").mkdir()
    (tmp / "build/release").symlink_to(nibble.path.parent)
    command, = commands_of_readme("libnibble.a")
    subprocess.run(shlex.split(command), cwd=tmp, check=True)
    assert tell(tmp) == want


def test_in_a_shared_library(tmp, nibble):
    if nibble.sanitized or nibble.counted:
        raise Skip("the library asks for a sanitizer's or gcov's")
    command, = commands_of_readme("libnibble.a")
    libs = [word for word in shlex.split(command) if word.startswith(("-l", "-pthread"))]
    library = nibble.path.parent / "libnibble.a"
    subprocess.run(["cc", "-shared", "-Wl,--whole-archive", library, "-Wl,--no-whole-archive",
                    *libs, "-o", tmp / "libnibble.so"], check=True)
    version = ctypes.CDLL(tmp / "libnibble.so").nibble_version
    version.restype = ctypes.c_char_p
    assert nibble("--version").startswith(b"nibble " + version() + b" "), version()


if __name__ == "__main__":
    sys.exit(main(globals()))
