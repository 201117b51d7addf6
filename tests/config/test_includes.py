"""Files that include others."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from rauta.config import ConfigError, includes, load

MAIN = "version: 1\nlisteners: {{web: {{address: ':8080'}}}}\ninclude: {}\nroutes: [{{name: main, respond: {{}}}}]\n"


def part(name: str) -> str:
    return (
        f"services: {{{name}: {{backends: [{{address: '{name}:80'}}]}}}}\nroutes: [{{name: {name}, service: {name}}}]\n"
    )


def routes(path: Path) -> list[str]:
    return [route.name for route in load(path).configuration.routes]


def refused(path: Path, directory: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(path)
    return str(caught.value).replace(f"{directory}/", "").splitlines()


def test_order_is_that_of_the_list_then_of_the_names(write: Any, tmp_path: Path) -> None:
    for name in ("c.d/20.yaml", "c.d/10.yaml", "z.yaml", "a.yaml"):
        write(part(Path(name).stem + "x"), name)
    path = write(MAIN.format("[z.yaml, 'c.d/*.yaml', a.yaml]"))
    assert routes(path) == ["main", "zx", "10x", "20x", "ax"]
    assert load(path).files == tuple(
        tmp_path / name for name in ("rauta.yaml", "z.yaml", "c.d/10.yaml", "c.d/20.yaml", "a.yaml")
    )


def test_relative_to_the_including_file_whatever_its_name(write: Any) -> None:
    write(part("one"), "odd [dir]*/conf.d/one.yaml")
    assert routes(write(MAIN.format("[conf.d/*]"), "odd [dir]*/rauta.yaml")) == ["main", "one"]


def test_a_file_is_read_once_where_it_comes_first(write: Any, tmp_path: Path) -> None:
    write(part("a"), "a.yaml")
    (tmp_path / "b.yaml").symlink_to("a.yaml")
    # The glob matches the main file as well: that is no cycle.
    assert routes(write(MAIN.format("[a.yaml, '*.yaml', a.yaml, rauta.yaml]"))) == ["main", "a"]


def test_absolute_paths_and_directories_in_globs(write: Any, tmp_path: Path) -> None:
    write(part("a"), "x/a.yaml")
    write("not: read", "x/sub.yaml/inner")
    assert routes(write(MAIN.format(f"['{tmp_path}/x/*.yaml']"))) == ["main", "a"]


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("'none/*.yaml'", None),
        ("absent.yaml", "there is no file 'absent.yaml'"),
        ("dir", "'dir' is a directory: write 'dir/*.yaml'"),
        ("'**/x.yaml'", "'**/x.yaml': '**' is not supported; name each directory, as in conf.d/*.yaml"),
        ("''", "an empty entry includes nothing"),
        ("fifo", "'fifo' is not a regular file"),
    ],
)
def test_entries(entry: str, problem: str | None, write: Any, tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    os.mkfifo(tmp_path / "fifo")
    path = write(MAIN.format(f"[{entry}]"))
    if problem is None:
        assert routes(path) == ["main"]
    else:
        assert refused(path, tmp_path) == [f"rauta.yaml:3: include[0]: {problem}"]


def test_problems_of_all_files_are_shown_in_their_order(write: Any, tmp_path: Path) -> None:
    write("listeners: {x: {address: ':1', limts: {}}}\nversion: 1\ninclude: []\n", "a.yaml")
    write("a: [", "b.yaml")
    write("", "c.yaml")
    lines = refused(write(MAIN.format("['[abc].yaml']") + "workers: x\n"), tmp_path)
    assert lines[0] == "rauta.yaml:5: workers: expected auto or an integer, not the text 'x'"
    assert lines[1:4] == [
        "a.yaml:1: listeners.x.limts: unknown key; did you mean 'limits'?",
        "a.yaml:2: version: unknown key; it belongs into the file that includes this one",
        "a.yaml:3: include: unknown key; it belongs into the file that includes this one",
    ]
    assert lines[4].startswith("b.yaml:2: not YAML: ")
    assert lines[5:] == ["c.yaml: the file is empty"]


def test_a_name_used_in_two_files_names_both_places(write: Any, tmp_path: Path) -> None:
    write("services: {s: {backends: [{address: 'a:1'}]}}\nroutes: [{name: main, service: s}]", "a.yaml")
    write("services: {s: {backends: [{address: 'a:1'}]}}", "b.yaml")
    assert refused(write(MAIN.format("[a.yaml, b.yaml]")), tmp_path) == [
        "a.yaml:2: routes[0].name: the name 'main' is already used in rauta.yaml:4",
        "b.yaml:1: services.s: the name 's' is already used in a.yaml:1",
    ]


def test_problems_of_the_whole_are_in_the_included_file(write: Any, tmp_path: Path) -> None:
    write("\nroutes:\n- {name: a, service: s}\n", "a.yaml")
    write("\nlisteners:\n  twin: {address: ':8080'}\n", "b.yaml")
    assert refused(write(MAIN.format("['?.yaml']")), tmp_path) == [
        "a.yaml:3: routes[0].service: there is no service 's'",
        "b.yaml:3: listeners.twin.address: 0.0.0.0:8080 is taken by 'web'",
    ]


def test_the_number_of_files_is_bounded(write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rauta.config.loading.MAX_FILES", 3)
    for i in range(5):
        write(part(f"s{i}"), f"x{i}.yaml")
    assert refused(write(MAIN.format("['x*.yaml']")), tmp_path) == [
        "rauta.yaml:3: include[0]: more than 3 files are included"
    ]
    assert len(includes.matches("x*.yaml", tmp_path)) == 5


def test_the_size_of_all_files_is_bounded(write: Any, tmp_path: Path) -> None:
    for i in range(3):
        write("#" * (3 << 20), f"x{i}.yaml")
    lines = refused(write(MAIN.format("['x*.yaml']")), tmp_path)
    assert lines[-1] == "x2.yaml: the file and those included before it are larger than 8 MiB together"
