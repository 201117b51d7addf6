"""docs/architecture.md: it has every folder, and says of packages what their contracts say."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]


def rows(title: str) -> dict[str, list[str]]:
    """The cells of a table's rows, by the first one."""
    section = PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")][1:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0].strip("`"): row[1:] for row in cells}


def allowed() -> dict[str, set[str]]:
    """What each package may import of rauta, by the contracts."""
    (layers,) = (contract["layers"] for contract in CONTRACTS if contract["type"] == "layers")
    names = [[name.strip(" ()").removeprefix("rauta.") for name in layer.split("|")] for layer in layers]
    found: dict[str, set[str]] = {}
    for position, layer in enumerate(names):
        below = {name for lower in names[position + 1 :] for name in lower}
        found.update((name, set(below)) for name in layer)
    for contract in CONTRACTS:
        if contract["type"] == "protected":
            (protected,) = (module.removeprefix("rauta.") for module in contract["protected_modules"])
            users = {module.removeprefix("rauta.") for module in contract["allowed_importers"]}
            for name, imports in found.items():
                if name not in users:
                    imports.discard(protected)
        elif contract["type"] == "forbidden":
            for module in contract["source_modules"]:
                found[module.removeprefix("rauta.")] -= {
                    other.removeprefix("rauta.") for other in contract["forbidden_modules"]
                }
    there = {path.stem for path in (ROOT / "rauta").iterdir()}
    return {name: imports & there for name, imports in found.items() if name in there}


def test_each_package_is_there_with_what_it_may_import() -> None:
    table = rows("Packages")
    packages = {str(path.parent.relative_to(ROOT)) for path in (ROOT / "rauta").rglob("*/__init__.py")}
    assert set(table) == {*packages, "rauta/api.py"}
    for name, imports in allowed().items():
        row = table["rauta/api.py" if name == "api" else f"rauta/{name}"]
        assert re.findall(r"`(\w+)`", row[1]) == sorted(imports), name


def test_each_other_folder_is_there() -> None:
    ignored = {"rauta", "build", "dist", "rauta.egg-info"}
    there = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith((".", "_"))}
    assert set(rows("Other folders")) == there - ignored
