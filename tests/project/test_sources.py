"""Rules for every file of the repository, whatever it holds."""

from __future__ import annotations

import ast
import configparser
import re
from pathlib import Path

import pytest

MAX_LINES = 600
MAX_DECISION = 14  # lines with text, outside of tables: a decision that needs more has not been understood
CODE = {".py", ".c", ".h", ".sh"}
# Home and work folders of somebody's machine.
_PRIVATE = re.compile(r"(?<![\w.])/(?:home|root|work)(?:/[\w.-]+)+")
# A markdown link to a file of the repository, with its fragment.
_LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)(?:#[^)]*)?\)")


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None


def test_no_module_is_longer_than_a_person_can_hold(sources: list[Path], checkout: Path) -> None:
    lengths = {path: len(path.read_bytes().splitlines()) for path in sources if path.suffix in CODE}
    assert lengths
    assert not {str(path.relative_to(checkout)): lines for path, lines in lengths.items() if lines > MAX_LINES}


def test_no_file_names_a_place_on_somebodys_machine(sources: list[Path], checkout: Path) -> None:
    found = [
        f"{path.relative_to(checkout)}: {match[0]}"
        for path in sources
        if (text := _text(path)) is not None
        for match in _PRIVATE.finditer(text)
    ]
    assert not found


@pytest.mark.parametrize("folder", ["home", "root", "work"])
def test_private_places_are_seen(folder: str) -> None:
    assert _PRIVATE.search(f"see `/{folder}/kaisa/rauta.yaml`")


def test_links_of_the_documentation_lead_somewhere(sources: list[Path], checkout: Path) -> None:
    pages = [path for path in sources if path.suffix == ".md"]
    assert pages
    broken = [
        f"{page.relative_to(checkout)}: {target}"
        for page in pages
        for target in _LINK.findall(page.read_text(encoding="utf-8"))
        if not (page.parent / target).exists()
    ]
    assert not broken


def test_no_run_time_check_is_an_assert(checkout: Path) -> None:
    # `python -O` removes them.
    found = [
        f"{path.relative_to(checkout)}:{node.lineno}"
        for path in (checkout / "rauta").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Assert)
    ]
    assert not found


def test_decisions_are_numbered_once_and_short(checkout: Path) -> None:
    pages = sorted((checkout / "docs" / "decisions").glob("*.md"))
    numbers = [page.name[:3] for page in pages]
    assert numbers
    assert all(number.isdigit() for number in numbers)
    assert len(numbers) == len(set(numbers))
    lengths = {page.name: _length(page.read_text(encoding="utf-8")) for page in pages}
    assert not {name: lines for name, lines in lengths.items() if lines > MAX_DECISION}


def test_every_decision_is_in_the_list_of_numbers(checkout: Path) -> None:
    page = (checkout / "docs" / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d{3}) to (\d{3}) \|", page, re.MULTILINE)
    tens = {path.name[:2] for path in (checkout / "docs" / "decisions").glob("*.md")}
    listed = {f"{ten:02}" for first, last in rows for ten in range(int(first) // 10, int(last) // 10 + 1)}
    assert not tens - listed


def _length(text: str) -> int:
    return sum(1 for line in text.splitlines() if line.strip() and not line.startswith("|"))


def test_the_length_of_a_decision_leaves_tables_out() -> None:
    assert _length("# 001: a title\n\ntext\n\n| a | b |\n|---|---|\n| c | d |\nmore\n") == 3


def test_changelog_speaks_of_this_version(checkout: Path) -> None:
    settings = configparser.ConfigParser()
    settings.read(checkout / "setup.cfg")
    heading = re.search(r"^## \[(.+?)\]", (checkout / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert heading is not None
    version = settings["metadata"]["version"]
    assert heading[1] == ("Unreleased" if "dev" in version else version)


def test_constraints_pin_every_dependency(checkout: Path) -> None:
    settings = configparser.ConfigParser()
    settings.read(checkout / "setup.cfg")
    wanted = settings["options"]["install_requires"] + settings["options.extras_require"]["dev"]
    names = {_canonical(re.split(r"[ <>=!~\[;]", line, maxsplit=1)[0]) for line in wanted.splitlines() if line}
    lines = (checkout / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    assert names <= {_canonical(name) for name in pins}


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
