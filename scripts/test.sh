#!/usr/bin/env bash
# Installs what is missing and runs the tests. Arguments go to pytest: ./scripts/test.sh -k maglev
# Without arguments all tests run, in two halves at the same time: most of them wait for processes most of the time, and
# those of the kernel share its tables.
set -eu -o pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

prepare curl nginx cc openssl ip nsenter ethtool wrk h2load nghttpd bcc
cd "$RAUTA_ROOT"
pytest=("$RAUTA_ROOT/.venv/bin/python" -m pytest)
if [ "$#" -gt 0 ]; then exec "${pytest[@]}" "$@"; fi

kernel=(tests/net tests/offload tests/project)
told=$(mktemp)
"${pytest[@]}" -p no:cacheprovider "${kernel[@]}" >"$told" 2>&1 &
half=$!
trap 'kill "$half" 2>/dev/null || true; rm -f "$told"' EXIT
failed=0
"${pytest[@]}" tests "${kernel[@]/#/--ignore=}" || failed=$?
say "--- tests of the kernel tiers and of the project (at the same time)"
wait "$half" || failed=$?
cat "$told"
exit "$failed"
