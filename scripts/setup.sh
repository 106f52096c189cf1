#!/bin/sh
# Sets up nibble on Debian or Ubuntu in one command and goes on from there.
#
#   sh scripts/setup.sh demo    install what is missing, build, stream a story
#   sh scripts/setup.sh test    install what is missing, build, run every test
#   sh scripts/setup.sh fuzz    install what is missing, clang too, run every fuzz target
#   sh scripts/setup.sh lint    install what is missing, both checkers too, build, run the lint
#   sh scripts/setup.sh         install what is missing, build
#
# Needs a shell and apt, as root or with sudo. Run again it installs nothing that is there already.
# Words after the goal go to make: sh scripts/setup.sh test REFERENCE=DIR
set -eu

packages="build-essential libopenblas-dev libzip-dev libcjson-dev libsentencepiece-dev
libpcre2-dev libutf8proc-dev libedit-dev python3 python3-numpy python3-jinja2"

die() { echo "setup.sh: $*" >&2; exit 1; }

missing_packages() {
    for package in $packages; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' ||
            printf '%s ' "$package"
    done
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif command -v sudo >/dev/null 2>&1; then sudo "$@"
    else die "installing needs root or sudo; run as root: apt-get install $missing"
    fi
}

install_packages() {
    missing=$(missing_packages)
    [ -n "$missing" ] || return 0
    echo "setup.sh: installing $missing" >&2
    as_root env DEBIAN_FRONTEND=noninteractive apt-get update -q ||
        die "apt-get update failed; check the network and /etc/apt/sources.list"
    # shellcheck disable=SC2086
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -q -y --no-install-recommends $missing ||
        die "apt-get install failed; its message is above"
}

# Without apt: say what is needed, then see whether it is there under other names.
probe_libraries() {
    echo "setup.sh: no apt-get here; nibble needs what Debian calls" $packages >&2
    command -v make >/dev/null 2>&1 || die "make is not installed"
    dir=$(mktemp -d)
    trap 'rm -rf "$dir"' EXIT
    printf '%s\n' '#define PCRE2_CODE_UNIT_WIDTH 8' '#include <pcre2.h>' '#include <utf8proc.h>' \
        '#include <cblas.h>' '#include <zip.h>' '#include <cjson/cJSON.h>' \
        '#include <sentencepiece_processor.h>' '#include <histedit.h>' \
        'int main() { return 0; }' > "$dir/probe.cc"
    "${CXX:-c++}" -std=c++17 "$dir/probe.cc" -o "$dir/probe" \
        -lopenblas -lzip -lcjson -lsentencepiece -lpcre2-8 -lutf8proc -ledit ||
        die "a compiler or one of the libraries is missing (see above); install it and try again"
    /usr/bin/python3 -c 'import numpy' ||
        die "numpy for /usr/bin/python3 is missing; install it and try again"
    echo "setup.sh: compiler and libraries are there" >&2
}

goal=${1:-build}
[ $# -eq 0 ] || shift
case $goal in
    build) target=all ;;
    demo | test) target=$goal ;;
    fuzz) target=fuzz packages="$packages clang libclang-rt-14-dev" ;;
    lint) target=$goal packages="$packages cppcheck clang-tidy" ;;
    *) die "unknown goal '$goal'; use demo, test, lint, fuzz or build" ;;
esac

cd "$(dirname "$0")/.."
if command -v apt-get >/dev/null 2>&1; then install_packages; else probe_libraries; fi
jobs=$(nproc 2>/dev/null || echo 1)
exec make -s -j"$jobs" "$target" "$@"
