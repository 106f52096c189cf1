#!/bin/sh
# Writes the header that says what a binary was built from. The Makefile calls this every time:
#
#   sh scripts/version.sh build/release/gen/version.h "avx2 avx512"
#
# The file is touched only when its text changes, so nothing is rebuilt for it. Run it from the
# root of the project. The commit ends in '+' when what is built differs from it, and is
# "unknown" outside a git checkout.
set -eu

version=0.1.0

[ $# -eq 2 ] || { echo "usage: version.sh OUT.h LEVELS" >&2; exit 2; }
out=$1
levels=$2

# A .git of our own: an archive unpacked inside another project's checkout is not that project.
commit=unknown
if [ -e .git ] && hash=$(git rev-parse --short HEAD 2>/dev/null); then
    changed=$(git --no-optional-locks status --porcelain -- Makefile include src 2>/dev/null)
    commit=$hash${changed:++}
fi

# The library itself does not tell its version.
spm=$(sed -n 's/^Version: //p' /usr/lib/*/pkgconfig/sentencepiece.pc \
    /usr/lib/pkgconfig/sentencepiece.pc /usr/local/lib/pkgconfig/sentencepiece.pc 2>/dev/null |
    head -n 1)

text=$(cat <<END
/* Written by scripts/version.sh. */
#define NIBBLE_VERSION "$version"
#define NIBBLE_COMMIT "$commit"
#define NIBBLE_SENTENCEPIECE "${spm:-unknown}"
#define NIBBLE_BUILT_LEVELS "scalar${levels:+ $levels}"
END
)

if [ "$(cat "$out" 2>/dev/null)" != "$text" ]; then
    mkdir -p "$(dirname "$out")"
    printf '%s\n' "$text" > "$out.$$"
    mv "$out.$$" "$out"
fi
