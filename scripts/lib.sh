# shellcheck shell=bash
#
# What the scripts share: a machine made ready, step by step, with nothing done twice.
#
#   prepare PROGRAM...   the programs and .venv with rauta and its tools
#
# * What is there is left alone, also an nginx of the machine. What is missing comes by apt as root or by sudo;
#   if neither is possible, the line to type is printed, and the script ends with code 1.
# * nginx is unpacked into .venv, not installed: Debian's package would start a web server on port 80, now and at
#   every boot. The package is fetched and verified by apt all the same; libraries that it needs are installed.
# * .venv is complete once .venv/.rauta-ready holds the fingerprint of what it was made from.
#
# Meant to be sourced by scripts that run with `set -eu -o pipefail`.

RAUTA_ROOT="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)"
# Compiled kernel programs stay in the checkout.
export CACHE_DIRECTORY="$RAUTA_ROOT/build/cache"
_VENV="$RAUTA_ROOT/.venv"
_READY="$_VENV/.rauta-ready"
_apt_lists_are_new=""

# Debian has servers (nginx) where ordinary users do not look; what .venv has goes first.
PATH="$_VENV/bin:$PATH:/usr/sbin:/sbin"
export PATH

# --- telling ------------------------------------------------------------------------------------------------

say() { printf '%s\n' "$*" >&2; }

fail() {
    say ""
    say "cannot go on: $1"
    shift
    for line in "$@"; do say "  $line"; done
    exit 1
}

# step TEXT COMMAND...: one line of progress; the command's output is shown only if it fails. Returns its code.
step() {
    local text="$1" log started=$SECONDS code=0
    shift
    log="$(mktemp)"
    printf '  %s ... ' "$text" >&2
    # In a shell of its own: a `cd` in there stays there. After `||` bash ignores `set -e`, so steps chain with `&&`.
    ("$@") >"$log" 2>&1 </dev/null 9<&- || code=$?
    if [ "$code" = 0 ]; then
        say "done ($((SECONDS - started)) s)"
    else
        say "failed"
        tail -n 25 "$log" | sed 's/^/    | /' >&2
    fi
    rm -f "$log"
    return "$code"
}

# --- packages of the system ---------------------------------------------------------------------------------

_as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -- "$@"; fi
}

# Whether root can be had; with a terminal sudo may ask for the password, once and before the progress lines.
_may_install() {
    if [ "$(id -u)" = 0 ]; then return 0; fi
    command -v sudo >/dev/null || return 1
    if sudo -n true 2>/dev/null; then return 0; fi
    if [ -t 0 ] && [ -t 2 ]; then
        say "  missing on this machine: $*; sudo may ask for your password to install it"
        sudo -v
    else
        return 1
    fi
}

_apt_get() {
    _as_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 \
        apt-get -q -y -o DPkg::Lock::Timeout=120 -o APT::Sandbox::User=root "$@"
}

_apt_update() {
    if [ -n "$_apt_lists_are_new" ]; then return 0; fi
    step "reading the lists of packages (apt-get update)" _apt_get update ||
        fail "apt-get update failed" "is there a network, and are the sources of /etc/apt right?"
    _apt_lists_are_new=yes
}

# Ends the script unless packages can be installed. Arguments: the packages.
_need_apt() {
    command -v apt-get >/dev/null ||
        fail "this machine has no apt; please install what these packages of Debian hold:" "$*"
    _may_install "$@" ||
        fail "not root, and something is missing. As root:" \
            "apt-get update && apt-get install --no-install-recommends $*"
}

# The package of Debian and Ubuntu that holds a program.
_package_of() {
    case "$1" in
        cc) printf 'gcc libc6-dev\n' ;;
        bcc) printf 'python3-bpfcc linux-libc-dev\n' ;;
        ip) printf 'iproute2\n' ;;
        nsenter) printf 'util-linux\n' ;;
        h2load) printf 'nghttp2-client\n' ;;
        nghttpd) printf 'nghttp2-server\n' ;;
        *) printf '%s\n' "$1" ;;
    esac
}

# Whether a program need not be installed. What only the kernel tiers need is of use to root alone: without root their
# tests say that they are skipped. bcc is a Python package of the system's.
_is_there() {
    case "$1" in ip | nsenter | ethtool | wrk | bcc) if [ "$(id -u)" != 0 ]; then return 0; fi ;; esac
    case "$1" in
        nginx) ;;
        bcc) ! command -v apt-get >/dev/null || [ -d /usr/lib/python3/dist-packages/bcc ] ;;
        *) command -v "$1" >/dev/null ;;
    esac
}

# All that is missing at once: apt runs once, and who is not root gets one line to type. nginx has a way of its own.
_ensure_packages() {
    local program python package wants_python="" missing=()
    for program in "$@"; do
        if _is_there "$program"; then continue; fi
        # shellcheck disable=SC2207 # words of a package list
        missing+=($(_package_of "$program"))
    done
    if _venv_is_good; then
        :
    elif python="$(_find_python)"; then
        package="$(_venv_package_for "$python")"
        if [ -n "$package" ]; then missing+=("$package"); fi
    else
        wants_python=yes
        missing+=(python3 python3-venv)
    fi
    if [ "${#missing[@]}" = 0 ]; then return 0; fi
    _need_apt "${missing[@]}"
    _apt_update
    if [ -n "$wants_python" ]; then
        package="$(_python_package)"
        missing=("${missing[@]/#python3/$package}")
    fi
    _install "${missing[@]}"
}

_install() {
    step "installing $* (apt-get install)" _apt_get install --no-install-recommends "$@" ||
        fail "apt could not install: $*"
    hash -r
}

# --- Python -------------------------------------------------------------------------------------------------

_is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

# The first Python that is new enough: $PYTHON and no other if it is set, else by name. Prints its path.
_find_python() {
    local name path
    if [ -n "${PYTHON:-}" ]; then
        path="$(command -v -- "$PYTHON")" || fail "there is no program '$PYTHON' (\$PYTHON)"
        _is_new_enough "$path" ||
            fail "$PYTHON (\$PYTHON) is $("$path" --version 2>&1 || true); rauta needs Python 3.11 or newer"
        printf '%s\n' "$path"
        return 0
    fi
    for name in python3 python3.14 python3.13 python3.12 python3.11; do
        # Not the one of .venv: an environment is not made from itself.
        path="$(PATH="${PATH#"$_VENV/bin:"}" command -v "$name")" || continue
        if _is_new_enough "$path"; then
            printf '%s\n' "$path"
            return 0
        fi
    done
    return 1
}

# The package of this machine's apt that holds a Python that is new enough; ends the script if there is none.
_python_package() {
    local name version
    for name in python3 python3.14 python3.13 python3.12 python3.11; do
        version="$(apt-cache policy "$name" 2>/dev/null | sed -n 's/^ *Candidate: *\([0-9][0-9.]*\).*/\1/p')"
        case "$version" in 3.[0-9] | 3.[0-9].* | 3.10 | 3.10.* | "") continue ;; esac
        printf '%s\n' "$name"
        return 0
    done
    fail "rauta needs Python 3.11 or newer; here is $(python3 --version 2>&1 || echo none), and apt has no newer one" \
        "install one (for example from https://www.python.org/downloads/), then:" \
        "PYTHON=/path/to/python3.11 $0"
}

# `python -m venv` needs ensurepip, which Debian keeps in a package of its own. Prints that, or nothing if it is there.
_venv_package_for() {
    if "$1" -c 'import ensurepip, venv' 2>/dev/null; then return 0; fi
    case "$("$1" -c 'import sys; print(sys.base_prefix)')" in
        /usr) "$1" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])' ;;
        *) fail "$1 has no module ensurepip: it was built without it" "use another: PYTHON=... $0" ;;
    esac
}

# --- nginx --------------------------------------------------------------------------------------------------

# Fetch the package that holds the program (its name differs between releases) into the current folder. Prints it.
_download_nginx() {
    local package
    for package in nginx nginx-light nginx-core; do
        rm -f ./*.deb
        apt-get -q -o APT::Sandbox::User=root download "$package" >&2 || continue
        # Not `grep -q`: it would end the pipe early, and pipefail takes that for a failure.
        if dpkg-deb --contents ./*.deb | grep ' \./usr/sbin/nginx$' >&2; then
            printf '%s\n' "$package"
            return 0
        fi
    done
    return 1
}

# Libraries that a package depends on; they start nothing.
_libraries_of() {
    dpkg-deb --field "$1" Depends | tr ',' '\n' | sed 's/|.*//; s/(.*//; s/ //g' | grep '^lib' | grep -v '^libnginx'
}

_unpack_nginx() {
    local folder="$_VENV/nginx"
    rm -rf "$folder" && mkdir -p "$folder" && cd "$folder" && _download_nginx && dpkg-deb --extract ./*.deb .
}

_ensure_nginx() {
    local libraries=()
    if command -v nginx >/dev/null; then return 0; fi
    command -v apt-get >/dev/null || fail "nginx is missing, and this machine has no apt; please install nginx"
    if [ "$(id -u)" = 0 ]; then _apt_update; fi
    step "fetching nginx into .venv (unpacked, not installed: no service is started)" _unpack_nginx ||
        fail "nginx could not be fetched" "is there a network? Or as root: apt-get update && apt-get install nginx-light"
    if ldd "$_VENV/nginx/usr/sbin/nginx" | grep 'not found' >/dev/null; then
        mapfile -t libraries < <(_libraries_of "$_VENV"/nginx/*.deb)
        _need_apt "${libraries[@]}"
        _install "${libraries[@]}"
    fi
    ln -sfn ../nginx/usr/sbin/nginx "$_VENV/bin/nginx"
    hash -r
    nginx -v >/dev/null 2>&1 || fail "the nginx that was fetched does not run: $(nginx -v 2>&1 || true)"
}

# --- .venv --------------------------------------------------------------------------------------------------

# Of what the environment is made: a change of any of it makes it again. An environment cannot be moved, so the
# place counts too.
_fingerprint() {
    {
        cat "$RAUTA_ROOT/setup.cfg" "$RAUTA_ROOT/constraints.txt" "$RAUTA_ROOT/scripts/lib.sh"
        _identity "$_VENV/bin/python"
        printf '%s\n' "$RAUTA_ROOT"
    } | sha256sum | cut -d ' ' -f 1
}

# Whether .venv works here, and is of $PYTHON if that is set. Others are kept: they may be somebody's choice.
_venv_is_good() {
    [ -x "$_VENV/bin/python" ] && _is_new_enough "$_VENV/bin/python" || return 1
    local is_here='import os, sys; sys.exit(os.path.realpath(sys.prefix) != os.path.realpath(sys.argv[1]))'
    "$_VENV/bin/python" -c "$is_here" "$_VENV" || return 1
    [ -z "${PYTHON:-}" ] || [ "$(_identity "$_VENV/bin/python")" = "$(_identity "$(_find_python)")" ]
}

_identity() {
    "$1" -c 'import sys; print(sys.version, sys.base_prefix)'
}

_pip() {
    "$_VENV/bin/python" -m pip --disable-pip-version-check --no-input "$@"
}

_pip_install() {
    # The build uses the pinned setuptools too: isolated builds take no notice of constraints.
    cd "$RAUTA_ROOT" && _pip install -c constraints.txt setuptools &&
        _pip install -c constraints.txt --no-build-isolation -e '.[dev]' &&
        rm -rf rauta.egg-info # what the build leaves would hide the entry points of the next one
}

_ensure_venv() {
    local python
    if ! _venv_is_good; then
        python="$(_find_python)" || fail "no Python 3.11 or newer, although apt installed one"
        step "making .venv with $("$python" --version)" "$python" -m venv --clear "$_VENV" ||
            fail "$python could not make an environment in $_VENV"
    fi
    if [ -r "$_READY" ] && [ "$(cat "$_READY")" = "$(_fingerprint)" ]; then return 0; fi
    rm -f "$_READY"
    step "installing rauta and its tools into .venv (pip)" _pip_install ||
        fail "pip could not install the packages of constraints.txt" "is there a network?"
    _fingerprint >"$_READY"
}

# --- all of it ----------------------------------------------------------------------------------------------

prepare() {
    local started=$SECONDS
    if [ -n "${PYTHON:-}" ]; then _find_python >/dev/null || exit 1; fi # it says why
    # Two scripts at once in one checkout: the second waits. The lock goes with this process, and is not handed on.
    exec 9<"$RAUTA_ROOT"
    flock -n 9 || { say "  another script is preparing this checkout; waiting for it"; flock 9; }
    _ensure_packages "$@"
    _ensure_venv
    case " $* " in *" nginx "*) _ensure_nginx ;; esac
    exec 9<&-
    if [ $((SECONDS - started)) -gt 2 ]; then say "  ready after $((SECONDS - started)) s; the next time is quick"; fi
}
