#!/usr/bin/env bash
# Shows rauta at work: installs what is missing, starts two nginx backends and rauta with examples/rauta.yaml, sends
# real requests with curl and prints what happened. As root on Linux 6.9 or newer it then shows the kernel tiers, between
# network namespaces. --keep leaves all of it running, with URLs to try.
set -eu -o pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

prepare curl nginx ip nsenter ethtool bcc
exec "$RAUTA_ROOT/.venv/bin/python" "$RAUTA_ROOT/scripts/demo" --kernel "$@"
