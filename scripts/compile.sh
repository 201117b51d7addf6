#!/usr/bin/env bash
# Compiles the data plane (docs/compiled.md) in a copy of the sources, so that a checkout stays plain Python:
#
#   ./scripts/compile.sh [PYTHON [TARGET]]
#
# TARGET (build/compiled) becomes the copy, for PYTHON (that of .venv; it needs what setup.cfg lists, and mypy). With
# PYTHONPATH=TARGET, `python -P -m rauta.proxy` runs it (-P: the working directory does not go first).
#
# Nothing is done if the copy was made of these sources already.
set -eu -o pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

prepare cc
cd "$RAUTA_ROOT"
python="${1:-$RAUTA_ROOT/.venv/bin/python}"
target="${2:-$RAUTA_ROOT/build/compiled}"

# What git knows and what it does not ignore, as it is now.
files() { git ls-files -z --cached --others --exclude-standard | while IFS= read -r -d '' file; do
    if [ -e "$file" ]; then printf '%s\0' "$file"; fi
done; }
# The version of the interpreter counts: the result is for that one alone.
fingerprint="$({ "$python" -VV && files | xargs -0 sha256sum; } | sha256sum)"

if [ -f "$target/.made-of" ] && [ "$(cat "$target/.made-of")" = "$fingerprint" ]; then exit 0; fi
build() {
    rm -rf "$target" && mkdir -p "$target" && files | xargs -0 cp --parents -t "$target" &&
        ln -s "$RAUTA_ROOT/.venv" "$target/.venv" && cd "$target" &&
        RAUTA_COMPILE=1 "$python" setup.py -q build_ext --inplace &&
        printf '%s\n' "$fingerprint" >"$target/.made-of"
}
step "compiling the data plane" build
