"""What is built is what is needed: a wheel, by way of the sdist, installed elsewhere and run from there."""

from __future__ import annotations

import configparser
import email.parser
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture(scope="session")
def wheel(clone: Callable[[], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the sdist, built from a copy: nothing that lies about in the checkout gets in."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, clone()]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the wheel in it; it sees this one's packages for the dependencies, but after its own."""
    folder = tmp_path_factory.mktemp("installed") / "environment"
    venv.create(folder, symlinks=True, with_pip=False)
    place = {"base": str(folder), "platbase": str(folder)}
    packages = Path(sysconfig.get_path("purelib", vars=place))
    # A folder named in a .pth file is searched last, and .pth files in it (our own editable install) are not read.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = folder / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def _run(installed: Path, cwd: Path, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([installed / "bin" / program, *arguments], cwd=cwd, capture_output=True, text=True)


def test_every_folder_with_modules_is_listed(checkout: Path) -> None:
    settings = configparser.ConfigParser()
    settings.read(checkout / "setup.cfg")
    listed = set(settings["options"]["packages"].split())
    folders = {module.parent.relative_to(checkout) for module in (checkout / "rauta").rglob("*.py")}
    assert listed == {".".join(folder.parts) for folder in folders} | {"rauta.bpf"}


def test_wheel_holds_every_module_and_kernel_source_and_nothing_else(checkout: Path, wheel: Path) -> None:
    modules = {str(path.relative_to(checkout)) for path in (checkout / "rauta").rglob("*.py")}
    kernel = {f"rauta/{path.relative_to(checkout)}" for path in (checkout / "bpf").rglob("*") if path.is_file()}
    assert any(name.endswith(".h") for name in kernel)
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert modules | kernel <= names
    surplus = {name for name in names - modules - kernel if not name.endswith((".json", "/py.typed"))}
    assert not surplus


def test_sdist_holds_all_that_a_clone_holds(checkout: Path, sources: list[Path], wheel: Path) -> None:
    (sdist,) = wheel.parent.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {str(path.relative_to(checkout)) for path in sources} - names == {".gitignore"}


def test_wheel_carries_its_licences(checkout: Path, wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = email.parser.Parser().parsestr(archive.read(name).decode())
        for licence in ("LICENSE", "bpf/LICENSE", "bpf/LICENSE.GPL-2.0-only", "bpf/LICENSE.BSD-2-Clause"):
            packed = archive.read(name.replace("METADATA", f"licenses/{licence}"))
            assert packed == (checkout / licence).read_bytes()
    assert metadata["License-Expression"] == "Apache-2.0 AND (GPL-2.0-only OR BSD-2-Clause)"
    assert metadata["Requires-Python"] == ">=3.11"


def test_kernel_sources_are_found_where_they_were_installed(checkout: Path, installed: Path, tmp_path: Path) -> None:
    script = (
        "import importlib.resources as r, rauta, sys\n"
        "sys.stdout.write(rauta.__file__ + '\\n' + r.files('rauta.bpf').joinpath('hash.h').read_text())"
    )
    done = _run(installed, tmp_path, "python", "-c", script)
    assert done.returncode == 0, done.stderr
    module, header = done.stdout.split("\n", 1)
    assert Path(module).is_relative_to(installed)
    assert header == (checkout / "bpf" / "hash.h").read_text()


@pytest.mark.parametrize("command", ["rautactl", "rauta"])
def test_command_runs_outside_of_the_checkout(installed: Path, tmp_path: Path, command: str) -> None:
    done = _run(installed, tmp_path, command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert command in done.stdout


def test_rautactl_checks_the_example(checkout: Path, installed: Path, tmp_path: Path) -> None:
    done = _run(installed, tmp_path, "rautactl", "check", str(checkout / "examples" / "rauta.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr
