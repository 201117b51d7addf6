"""rautactl as a program: exit codes, what it imports, terminals, and outputs that go away."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rauta.ctl import cli, usage

MODULE = ("-W", "error", "-m", "rauta.ctl.cli")
Program = Callable[..., subprocess.CompletedProcess[str]]
Terminal = Callable[..., str]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--help",), 0),
        (("--version",), 0),
        (("check", "--help"), 0),
        (("check",), 0),
        (("plugins",), 0),
        (("explain", "GET", "/users", "-H", "Host: api.example.com"), 0),
        (("explain", "GET", "/nothing"), 3),
        (("explain", "GET", "/%00"), 3),
        ((), 2),
        (("chekc",), 2),
        (("check", "--stric"), 2),
        (("check", "absent.yaml"), 2),
        (("explain", "GET"), 2),
        (("explain", "GET", "nothing"), 2),
        (("explain", "GET", "/", "--listener", "absent"), 2),
    ],
)
def test_exit_codes(rautactl: Callable[..., Any], example: Path, arguments: tuple[str, ...], code: int) -> None:
    ended = rautactl(*arguments)
    assert ended.code == code
    assert bool(ended.err) is (code == 2)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("chekc", "there is no command 'chekc'; did you mean 'check'?"),
        ("effective", "there is no command 'effective'; did you mean 'dump'?"),  # by its meaning
        ("certificates", "there is no command 'certificates'; did you mean 'certs'?"),
        ("stauts", "there is no command 'stauts'; did you mean 'status'?"),  # its letters, and not those of stats
        ("start", "there is no command 'start'; a gateway is started by `rauta --config FILE`"),
        ("Version", "there is no command 'Version'; `rautactl --version` prints it, `rautactl status` that of a"),
        ("zzz", "there is no command 'zzz'; known: check, schema, explain, routes, "),
        (
            "--config x dump",
            "--config is no option of rautactl itself; those of a command come behind it: dump --config",
        ),
        ("--jsn", "--jsn is no option of rautactl itself; those of a command come behind it: COMMAND --jsn"),
        ("dump a.yaml", "a.yaml; this asks a gateway that runs: `rautactl dump --config a.yaml` asks the one of that"),
        ("reload --conf=x", "unrecognized arguments: --conf=x; did you mean --config?"),
        ("check --stric", "unrecognized arguments: --stric; did you mean --strict?"),
        ("check a b", "unrecognized arguments: b\n"),
        ("certs a b", "unrecognized arguments: b\n"),  # it takes a file
        ("top -1", "unrecognized arguments: -1\n"),
        ("explain https://a/", "required: URL\nfor example: rautactl explain GET https://"),
        ("", "required: COMMAND\nfor example: rautactl check rauta.yaml; `rautactl --help` lists the commands\n"),
    ],
)
def test_a_wrong_line_is_told_what_was_meant(rautactl: Callable[..., Any], line: str, told: str) -> None:
    ended = rautactl(*line.split())
    assert (ended.code, ended.out) == (2, "")
    assert told in ended.err
    assert ended.err.startswith("usage: rautactl ")


def test_what_people_may_have_meant_is_a_command() -> None:
    commands = cli.parser().commands
    assert set(usage.MEANT.values()) <= commands.keys()
    assert not usage.MEANT.keys() & commands.keys()
    assert not usage.ELSEWHERE.keys() & (commands.keys() | usage.MEANT.keys())


@pytest.mark.parametrize("command", ["check", "routes"])
def test_a_file_is_named_either_way(rautactl: Callable[..., Any], example: Path, command: str) -> None:
    other = example.with_name("other.yaml")
    example.rename(other)
    by_place = rautactl(command, "other.yaml", "--json")
    assert by_place.code == 0
    assert rautactl(command, "--config", "other.yaml", "--json").document == by_place.document
    ended = rautactl(command, "other.yaml", "--config", "rauta.yaml")
    assert (ended.code, ended.out) == (2, "")
    assert "there are two files, other.yaml and --config rauta.yaml: name one" in ended.err


def test_the_help_states_every_exit_code(rautactl: Callable[..., Any]) -> None:
    told = rautactl("--help").out
    assert re.findall(r"^  (\d)  ", told, re.MULTILINE) == ["0", "1", "2", "3"]


def test_a_failure_under_json_is_json(rautactl: Callable[..., Any], example: Path) -> None:
    ended = rautactl("explain", "GET", "/", "--listener", "absent", "--json")
    assert (ended.code, ended.err) == (2, "")
    assert ended.document == {
        "version": 1,
        "error": {"message": "there is no listener 'absent'; known: web", "problems": [], "more_problems": 0},
    }


@pytest.mark.parametrize(
    ("arguments", "absent"),
    [
        (("--help",), ["rauta.config", "rauta.routing.model", "rauta.offload", "yaml", "regex", "importlib.metadata"]),
        (("plugins",), ["rauta.config", "yaml", "rauta.offload"]),
        (("explain", "GET", "/users", "-H", "Host: api.example.com"), ["difflib", "rauta.ctl.routes"]),
        (("routes",), ["rauta.routing.table"]),
    ],
)
def test_only_what_is_needed_is_imported(
    environment: dict[str, str], example: Path, arguments: tuple[str, ...], absent: list[str]
) -> None:
    never = ["aiohttp", "uvloop", "httptools", "asyncio", "rauta.proxy", "rauta.runtime", "bcc"]
    script = (
        "import sys; from rauta.ctl import cli; cli.main(sys.argv[2:]); "
        "bad = [name for name in sys.argv[1].split(',') if name in sys.modules]; "
        "sys.exit(f'imported: {bad}' if bad else 0)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, ",".join([*never, *absent]), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=30,
    )
    assert ended.returncode == 0, ended.stderr


def test_a_reader_that_goes_away_is_no_failure_to_talk_about(environment: dict[str, str], example: Path) -> None:
    routes = "".join(f"  - {{name: r{i}, match: {{path: {{exact: /p/{i}}}}}, service: users}}\n" for i in range(3000))
    example.write_text(example.read_text() + routes)
    with subprocess.Popen(
        [sys.executable, *MODULE, "routes"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b"ROUTE")
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == 141


def test_an_output_that_cannot_be_written(environment: dict[str, str], example: Path) -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, *MODULE, "routes"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            env=environment,
        )
    assert ended.returncode == 1
    assert ended.stderr == "rautactl: cannot write the output: No space left on device\n"


def test_a_locale_that_lacks_a_character(program: Program, example: Path) -> None:
    named = example.rename(example.with_name("räuta.yaml"))
    ended = program("check", str(named), PYTHONIOENCODING="ascii")
    assert ended.returncode == 0
    assert r"r\xe4uta.yaml: good" in ended.stdout


@pytest.mark.parametrize("columns", [60, 80, 100])
def test_tables_keep_to_a_real_terminal(on_a_terminal: Terminal, example: Path, columns: int) -> None:
    lines = on_a_terminal(columns, "routes", NO_COLOR="1").splitlines()
    table = lines[: lines.index("")]
    assert table[0].startswith("ROUTE")
    assert max(map(len, table)) <= columns
    assert len(table) > 9


def test_a_narrow_terminal_gets_records(on_a_terminal: Terminal, example: Path) -> None:
    lines = on_a_terminal(30, "routes", NO_COLOR="1").splitlines()
    assert lines[0].split() == ["route", "exact"]


def test_colours_on_a_real_terminal_only(on_a_terminal: Terminal, program: Program, example: Path) -> None:
    arguments = ("explain", "GET", "/users", "-H", "Host: api.example.com")
    assert "\x1b[32m" in on_a_terminal(80, *arguments)
    assert "\x1b" not in on_a_terminal(80, *arguments, NO_COLOR="1")
    assert "\x1b" not in program(*arguments).stdout


def test_a_request_cannot_drive_the_terminal(program: Program, example: Path) -> None:
    written = program("explain", "GET", "/\x1b[2J").stdout
    assert "\x1b" not in written
    assert r"/\x1b[2J" in written
