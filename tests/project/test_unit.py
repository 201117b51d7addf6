"""packaging/rauta.service and rauta.socket, as systemd reads them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "packaging" / "rauta.service"
SOCKET = ROOT / "packaging" / "rauta.socket"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_finds_nothing_wrong(tmp_path: Path) -> None:
    # It also looks whether the programs are there; these are, and any will do.
    text = UNIT.read_text()
    for program in ("rautactl", "rauta"):
        text = text.replace(f"/opt/rauta/bin/{program} ", "/bin/true ")
    assert "/opt" not in text
    unit = tmp_path / "rauta.service"
    unit.write_text(text)
    with_socket = shutil.copy(SOCKET, tmp_path)
    words = ["systemd-analyze", "verify", str(unit), str(with_socket)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_commands_in_it_exist() -> None:
    from rauta.ctl.cli import parser

    lines = dict(line.split("=", 1) for line in UNIT.read_text().splitlines() if line.startswith("Exec"))
    for key in ("ExecStartPre", "ExecReload"):
        program, *arguments = lines[key].split()
        assert program.endswith("/rautactl")
        parser().parse_args(arguments)
    assert " --user rauta" in lines["ExecStart"]
