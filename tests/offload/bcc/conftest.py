"""The programs, loaded once for all tests of this folder into a BPF file system of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rauta.offload.bcc import BccOffload, syscalls
from rauta.routing.settings import OffloadSettings

LOADER = "import sys; from rauta.offload.bcc import loader; sys.exit(loader.main(sys.argv))"
SIZES = {
    "FLOWS": 1024,
    "HOSTS": 1024,
    "PATHS": 4096,
    "ROUTES": 1024,
    "SERVICES": 128,
    "TABLES": 128,
    "REQUESTS": 256,
    "TESTING": 1,
}


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder with everything pinned."""
    missing = BccOffload().missing(OffloadSettings())
    if missing is not None:
        pytest.skip(missing)
    mounted = tmp_path_factory.mktemp("bpf") / "fs"
    folder = mounted / "pins"
    syscalls.mount_bpffs(mounted)
    folder.mkdir()
    try:
        sizes = {**SIZES, "CPUS": os.cpu_count() or 1, "SLOTS": 16}
        command = [sys.executable, "-c", LOADER, "tc", folder, *(f"{k}={v}" for k, v in sizes.items())]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        yield folder
    finally:
        syscalls.remove(folder)
        syscalls.unmount_if_empty(mounted)
        assert not mounted.is_mount()
