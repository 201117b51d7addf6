"""A Debian system in a folder, and commands in it.

Mounts are made in mount namespaces and processes run in PID namespaces: both end with the command that made them,
however it ends, so that only a folder is left to be removed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

RELEASE = "bookworm"
# Whom this machine trusts, lent to pip in there; not in its own place, which the system's own package fills.
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_LENT = "/lent-certificates.crt"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# So that pip and apt find what they find on this machine.
_PASSED = ("http_proxy", "https_proxy", "no_proxy", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL")


def bootstrap(root: Path) -> None:
    """A minimal system by debootstrap, from the mirror that this machine's apt uses, if it is one of this release."""
    sources = [line for line in _targets() if f" {RELEASE}" in line]
    mirrors = [line.split()[1] for line in sources if line.split()[2] == RELEASE]
    _run("debootstrap", "--variant=minbase", RELEASE, str(root), *mirrors[:1])
    if sources:
        (root / "etc/apt/sources.list").write_text("".join(sources))
    proxies = [line for line in _output("apt-config", "dump") if "Acquire::http" in line and "Proxy" in line]
    (root / "etc/apt/apt.conf.d/90proxy").write_text("".join(proxies))
    shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")


def copy(root: Path, other: Path) -> None:
    """The same system once more."""
    _run("cp", "-a", "--reflink=auto", str(root), str(other))


class System:
    """The system in `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, inside: str) -> Path:
        """Where a path of the system is for us."""
        return self.root / inside.lstrip("/")

    def run(self, command: list[str], folder: str = "/") -> None:
        """As root, with this machine's network. Raises CalledProcessError."""
        passed = {name: os.environ[name] for name in _PASSED if name in os.environ}
        lent = self.path(_LENT)
        if _CERTIFICATES.exists():
            shutil.copy(_CERTIFICATES, lent)
            passed["PIP_CERT"] = _LENT
        enter = 'mount -t proc proc "$1/proc" && exec chroot "$1" sh -c \'cd "$1" && shift && exec "$@"\' sh "${@:2}"'
        try:
            _run(
                *("unshare", "--mount", "--pid", "--fork", "--kill-child", "bash", "-c", enter, "bash", str(self.root)),
                *(folder, "env", "-i", f"PATH={_PATH}", *(f"{name}={value}" for name, value in passed.items())),
                *command,
            )
        finally:
            lent.unlink(missing_ok=True)

    def argv(self, command: list[str], environment: dict[str, str], user: str) -> list[str]:
        """The words that start a command as that user, from where /proc is mounted already."""
        variables = [f"{name}={value}" for name, value in environment.items()]
        return ["chroot", f"--userspec={user}", str(self.root), "env", "-i", *variables, *command]


def _targets() -> list[str]:
    form = "deb $(REPO_URI) $(RELEASE) $(COMPONENT)"
    return sorted(set(_output("apt-get", "indextargets", "--format", form, "Created-By: Packages")))


def _output(*command: str) -> list[str]:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines(keepends=True)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
