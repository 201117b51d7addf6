#!/usr/bin/env bash
# Breaks each law of the kernel path once and expects its test to go red: ./scripts/mutants.sh [WORD OF A LAW]. As root.
set -eu -o pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

if [ "$(id -u)" != 0 ]; then fail "mutants.sh needs root: the tests load programs into the kernel"; fi
prepare curl nginx cc ip nsenter ethtool bcc
exec "$RAUTA_ROOT/.venv/bin/python" "$RAUTA_ROOT/tests/mutants" "$@"
