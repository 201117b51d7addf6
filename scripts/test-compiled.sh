#!/usr/bin/env bash
# Compiles the data plane (docs/compiled.md) and runs the tests of all that is compiled, or that runs it, against the
# result. Arguments go to pytest.
set -eu -o pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

prepare curl nginx cc openssl ip nsenter ethtool h2load nghttpd bcc
"$RAUTA_ROOT/scripts/compile.sh"
cd "$RAUTA_ROOT/build/compiled"
export PYTHONPATH="$PWD"
pytest=("$RAUTA_ROOT/.venv/bin/python" -m pytest)
# Two halves at the same time, as in test.sh.
told=$(mktemp)
# Health checks, keys and lists are read by processes that have nothing compiled.
"${pytest[@]}" -p no:cacheprovider tests/runtime --ignore=tests/runtime/agent --ignore=tests/runtime/test_revocation.py \
    --ignore=tests/runtime/test_selfsigned.py "$@" >"$told" 2>&1 &
half=$!
trap 'kill "$half" 2>/dev/null || true; rm -f "$told"' EXIT
failed=0
"${pytest[@]}" tests/routing tests/proxy "$@" || failed=$?
wait "$half" || failed=$?
cat "$told"
exit "$failed"
