#!/bin/sh
# Installs rauta on Debian 12, as root: what packaging/Dockerfile does, in two parts, so that the image holds neither
# sources nor tools.
#
#   install.sh build      in the folder of the sources: /opt/rauta, an environment with rauta and what it needs
#   install.sh runtime    Python, the user `rauta` (10001), and the folders of its configuration and its admin socket
set -eu

PLACE=/opt/rauta
ID=10001

packages() {
    apt-get -q update
    DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends "$@"
    rm -rf /var/lib/apt/lists/*
}

build() {
    tools="$(mktemp -d)"
    packages python3 python3-venv
    python3 -m venv "$tools/venv"
    # Pinned, setuptools too: an isolated build would take no notice of constraints.
    "$tools/venv/bin/pip" install -q -c constraints.txt setuptools
    "$tools/venv/bin/pip" wheel -q --no-deps --no-build-isolation --wheel-dir "$tools/wheels" .
    python3 -m venv --without-pip "$PLACE"
    # Wheels only: what has none needs a compiler, and fails here instead of at the start.
    "$tools/venv/bin/pip" --python "$PLACE/bin/python" install -q --no-cache-dir --only-binary :all: \
        -c constraints.txt "$tools"/wheels/*.whl
    rm -rf "$tools"
    "$PLACE/bin/rauta" --version
}

runtime() {
    packages python3
    groupadd --gid "$ID" rauta
    useradd --uid "$ID" --gid "$ID" --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin rauta
    install -d -m 0755 /etc/rauta
    install -d -m 0750 -o "$ID" -g "$ID" /run/rauta
}

case "${1:-}" in
build | runtime) "$1" ;;
*)
    echo "install.sh: which part? usage: install.sh build|runtime" >&2
    exit 2
    ;;
esac
