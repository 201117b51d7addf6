#!/usr/bin/env bash
# Makes this machine ready to work on rauta: programs by apt, and .venv. Quick when all is there. Takes no arguments.
set -eu -o pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

if [ "$#" -gt 0 ]; then fail "setup.sh takes no arguments, but was given: $*"; fi
prepare curl nginx cc ip nsenter ethtool bcc
say "ready: $RAUTA_ROOT/.venv"
