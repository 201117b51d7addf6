#!/usr/bin/env bash
# Follows packaging/Dockerfile without a container engine, and lets the gateway that it makes answer requests. As root
# and with a network; two to three minutes and 1 GB of /var/tmp, which is empty again afterwards. Takes no arguments.
set -eu -o pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

if [ "$#" -gt 0 ]; then fail "container.sh takes no arguments, but was given: $*"; fi
if [ "$(id -u)" != 0 ]; then fail "container.sh needs root: it mounts, and makes systems with debootstrap"; fi
prepare curl debootstrap
unshare --mount --pid --net --fork true || fail "this machine does not allow namespaces (unshare)"
exec "$RAUTA_ROOT/.venv/bin/python" "$RAUTA_ROOT/scripts/container"
