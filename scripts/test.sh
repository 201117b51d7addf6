#!/usr/bin/env bash
# Installs what is missing and runs the tests. Arguments go to pytest: ./scripts/test.sh -k maglev
set -eu -o pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

prepare curl nginx cc openssl ip nsenter ethtool wrk h2load bcc
cd "$RAUTA_ROOT"
exec "$RAUTA_ROOT/.venv/bin/python" -m pytest "$@"
