#!/usr/bin/env bash
# The long set: bodies of 10 MiB between peers of all kinds, 100,000 connections of few ports, a million decisions of
# the kernel against those of tier 3. An hour or so, as root. Arguments go to pytest.
set -eu -o pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

if [ "$(id -u)" != 0 ]; then fail "test-long.sh needs root: the tests load programs into the kernel"; fi
prepare curl nginx cc wrk ip nsenter ethtool bcc
cd "$RAUTA_ROOT"
python="$RAUTA_ROOT/.venv/bin/python"
failed=0
"$python" -m pytest --long -m long tests/net "$@" || failed=1
RAUTA_SOUNDNESS="${RAUTA_SOUNDNESS:-50000}" "$python" -m pytest tests/offload/bcc/test_soundness.py "$@" || failed=1
exit "$failed"
