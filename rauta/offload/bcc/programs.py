"""Has the programs compiled, loaded and pinned, by short-lived processes: see `loader`. Raises OffloadError."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

from rauta.offload.bcc.tables import possible_cpus
from rauta.offload.protocol import OffloadError

# Half of the entries of each serve one generation. All maps take about 60 MB with two CPUs, those of flows 40.
SIZES: Final = {
    "FLOWS": 64_000,
    "HOSTS": 4_096,
    "PATHS": 32_768,
    "ROUTES": 20_480,
    "SERVICES": 1_024,
    "TABLES": 1_024,
    "REQUESTS": 16_384,
}
TIMEOUT: Final = 60.0  # seconds; two to four are usual
_LOADER: Final = "import sys; from rauta.offload.bcc import loader; sys.exit(loader.main(sys.argv))"


def sizes() -> dict[str, int]:
    """What the programs are compiled with. `SLOTS`: requests of a CPU that wait for backends to accept, 33 KB each."""
    cpus = possible_cpus()
    return {**SIZES, "CPUS": cpus, "SLOTS": max(16, 256 // cpus)}


def _start(hook: str, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _LOADER, hook, str(folder), *(f"{name}={n}" for name, n in sizes().items())]
    return subprocess.Popen(  # noqa: S603 - this interpreter and our own module
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def _finish(process: subprocess.Popen[str], line: str) -> str:
    """What it complains of; empty: nothing."""
    try:
        _, told = process.communicate(line, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return f"it took longer than {TIMEOUT:g} s"
    return told.strip() or str(process.returncode) if process.returncode else ""


def load(folder: Path, *, xdp: bool) -> None:
    """Those at TC; with `xdp` also that at XDP, whose failure those tell who attach it: TC does everything."""
    second = _start("xdp", folder) if xdp else None  # both compilers at the same time
    failed = "the other one did not start"
    try:
        failed = _finish(_start("tc", folder), "")
    finally:
        if second is not None:
            _finish(second, "" if failed else "\n")
    if failed:
        raise OffloadError(f"the programs cannot be loaded: {failed}")


def load_xdp(folder: Path) -> None:
    """That at XDP, beside those at TC."""
    failed = _finish(_start("xdp", folder), "\n")
    if failed:
        raise OffloadError(f"the XDP program cannot be loaded: {failed}")
