"""The example package in use: found, configured, matching, balancing, and what a failing plugin does."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
SOURCE = CHECKOUT / "examples" / "plugins"

Run = Callable[..., subprocess.CompletedProcess[str]]
Rautactl = Callable[..., tuple[int, Any]]


@pytest.fixture
def example(tmp_path: Path) -> Path:
    path = tmp_path / "rauta.yaml"
    path.write_text((SOURCE / "example.yaml").read_text())
    return path


def place_of(path: Path, text: str) -> int:
    return 1 + next(i for i, line in enumerate(path.read_text().splitlines()) if text in line)


# --- found and checked ----------------------------------------------------------------------------------


def test_they_are_listed(rautactl: Rautactl) -> None:
    _, document = rautactl("plugins")
    found = {(one["kind"], one["name"]): one for one in document["plugins"]}
    matcher, balancer = found["matcher", "client-network"], found["balancer", "rendezvous"]
    assert matcher["package"] == balancer["package"] == "rauta-example-plugins"
    assert matcher["version"] == "1.0.0"
    assert matcher["value"] == "rauta_example_plugins.networks:ClientNetwork"


def test_the_example_file_is_good(rautactl: Rautactl, example: Path) -> None:
    code, document = rautactl("check", "--strict", str(example))
    assert (code, document["good"], document["problems"]) == (0, True, [])


@pytest.mark.parametrize(
    ("right", "wrong", "key", "text"),
    [
        ("10.0.0.0/8,", "10.0.0.1/8,", "networks[0]", "has host bits set"),
        ("networks:", "netwroks:", "netwroks", "networks"),
        ("exclude: [10.9.0.0/16]", "exclude: 10.9.0.0/16", "exclude", "list"),
        ("[10.9.0.0/16]", "[10.9.0.0/16, 7]", "exclude[1]", "7"),
        ("bound: 1.25", "bound: 0.5", "settings", "out of range: above 1"),
        ("bound: 1.25", "bound: many", "bound", "many"),
        ("name: client-network", "name: client-netwrok", "name", "client-network"),
        ("name: rendezvous", "name: rendez-vous", "balancer", "rendezvous"),
    ],
)
def test_a_wrong_setting_is_told_with_its_line(
    rautactl: Rautactl, example: Path, right: str, wrong: str, key: str, text: str
) -> None:
    example.write_text(example.read_text().replace(right, wrong))
    code, document = rautactl("check", str(example))
    assert code == 2
    problems = [one for one in document["problems"] if one["severity"] == "error"]
    told = [(one["line"], one["key"], one["message"]) for one in problems]
    assert any(line == place_of(example, wrong) and key in where and text in what for line, where, what in told), told


def test_a_missing_setting_is_told(rautactl: Rautactl, example: Path) -> None:
    example.write_text(example.read_text().replace('networks: [10.0.0.0/8, "fd00::/8"], ', ""))
    code, document = rautactl("check", str(example))
    assert code == 2
    (problem,) = document["problems"]
    assert "networks" in problem["message"]
    assert problem["line"] in (place_of(example, "settings: {exclude"), place_of(example, "name: client-network"))


def test_a_plugin_that_is_not_installed(example: Path) -> None:
    from rauta.config import ConfigError, load

    with pytest.raises(ConfigError) as caught:
        load(example)
    lines = {problem.line for problem in caught.value.problems}
    assert {place_of(example, "name: client-network"), place_of(example, "name: rendezvous")} <= lines
    assert "client-network" in str(caught.value)


# --- used -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("client", "route"),
    [
        ("10.1.2.3:1", "admin"),
        ("10.9.2.3:1", "admin-denied"),
        ("192.0.2.1:1", "admin-denied"),
        ("[fd00::1]:1", "admin"),
    ],
)
def test_the_matcher_decides(rautactl: Rautactl, example: Path, client: str, route: str) -> None:
    code, document = rautactl("explain", "GET", "/admin/x", "--client", client, "--config", str(example))
    assert code == 0
    assert document["route"]["name"] == route
    assert document["rules"][0]["route"] == "admin"
    assert document["tier"] == 3
    if route != "admin":
        assert document["rules"][0]["verdict"] == "needs plugin client-network to accept"


SPREAD = """
import json, sys
from collections import Counter
from rauta.api import Hit, RequestView, Table, load

table = Table(load(sys.argv[1]).configuration)
counts, moved = Counter(), set()
for number in range(3000):
    address = f"10.0.{number >> 8}.{number & 255}"
    backends = set()
    for port in (1, 2):
        request = RequestView(method="GET", host="a", path="/", client=(address, port))
        hit = table.match("web", request)
        assert isinstance(hit, Hit) and hit.service is not None
        backends.add(str(table.pick(hit.service, request.client, lambda backend: 0).address))
    counts.update(backends)
    moved.update(backends if len(backends) > 1 else ())
usable = [backend for backend in hit.service.backends if backend.weight == 1]
left = {str(table.pick(hit.service, (f"10.0.1.{n}", 1), lambda backend: 0, usable).address) for n in range(200)}
table.close()
print(json.dumps({"counts": counts, "moved": sorted(moved), "left": sorted(left)}))
"""


def test_the_balancer_spreads_by_weight_and_keeps_clients(python: Run, example: Path) -> None:
    ended = python("-c", SPREAD, str(example))
    assert ended.returncode == 0, ended.stderr
    result = json.loads(ended.stdout)
    assert result["moved"] == []  # `key: address`: the port does not matter
    assert result["left"] == ["10.0.2.2:80", "10.0.4.2:80"]
    counts = Counter(result["counts"])
    assert sum(counts.values()) == 3000
    assert abs(counts["10.0.3.2:80"] - 1500) < 150
    assert abs(counts["10.0.2.2:80"] - 750) < 130


def test_a_worker_imports_no_file_format_for_them(python: Run) -> None:
    script = (
        "import sys, rauta.routing.table; "
        "from rauta.routing.plugins import build, load_class; "
        "cls = load_class('rauta.matchers', 'client-network'); "
        "build('rauta.matchers', 'client-network', cls.Settings(networks=('10.0.0.0/8',))); "
        "sys.exit(' '.join(name for name in ('yaml', 'rauta.config') if name in sys.modules) or None)"
    )
    ended = python("-c", script)
    assert (ended.returncode, ended.stderr) == (0, "")


# --- plugins that fail ----------------------------------------------------------------------------------

FAILING = """
class Raises:
    Settings = None
    def __init__(self, settings): pass
    def match(self, request): raise LookupError("no database")
    def pick(self, candidates, key, load): raise LookupError("no database")
    def close(self): pass

class Lies(Raises):
    def match(self, request): return "yes"
    def pick(self, candidates, key, load): return None

class Unbuildable(Raises):
    def __init__(self, settings): raise OSError("no licence")
"""

NAMES = ("Raises", "Lies", "Unbuildable")


@pytest.fixture
def failing(environment: dict[str, str], tmp_path: Path) -> None:
    """Plugins that break their contract, in the same processes."""
    folder = tmp_path / "failing"
    info = folder / "failing-1.dist-info"
    info.mkdir(parents=True)
    (folder / "failing.py").write_text(FAILING)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: failing\nVersion: 1\n")
    lines = [f"{name.lower()} = failing:{name}" for name in NAMES] + ["absent = failing:Absent"]
    groups = [f"[{group}]\n" + "\n".join(lines) for group in ("rauta.matchers", "rauta.balancers")]
    (info / "entry_points.txt").write_text("\n".join(groups) + "\n")
    environment["PYTHONPATH"] += f":{folder}"


def with_plugin(path: Path, matcher: str = "", balancer: str = "maglev") -> Path:
    match = f"match: {{plugins: [{{name: {matcher}}}]}}, " if matcher else ""
    path.write_text(
        'version: 1\nlisteners: {web: {address: ":80"}}\n'
        f'services: {{s: {{backends: [{{address: "10.0.0.1:80"}}], balancer: {balancer}}}}}\n'
        f"routes:\n  - {{name: guarded, {match}service: s}}\n  - {{name: open, priority: -1, service: s}}\n"
    )
    return path


@pytest.mark.parametrize(
    ("name", "text"), [("raises", "raised LookupError('no database')"), ("lies", "answered 'yes' instead of True or")]
)
def test_a_matcher_that_fails_is_a_500_and_no_fall_through(
    rautactl: Rautactl, failing: None, tmp_path: Path, name: str, text: str
) -> None:
    path = with_plugin(tmp_path / "rauta.yaml", matcher=name)
    code, document = rautactl("explain", "GET", "/", "-H", "Host: a", "--config", str(path))
    assert code == 3
    assert (document["answer"]["status"], document["answer"]["reason"]) == (500, "plugin_error")
    assert f"plugin {name!r}" in document["answer"]["message"]
    assert document["route"] is None
    assert text in document["rules"][0]["verdict"]


@pytest.mark.parametrize(("name", "text"), [("raises", "raised LookupError"), ("lies", "which is not a candidate")])
def test_a_balancer_that_fails_is_a_500(
    rautactl: Rautactl, failing: None, tmp_path: Path, name: str, text: str
) -> None:
    path = with_plugin(tmp_path / "rauta.yaml", balancer=name)
    code, document = rautactl("explain", "GET", "/", "-H", "Host: a", "--config", str(path))
    assert code == 0  # the route claims it all the same
    assert (document["answer"]["status"], document["answer"]["reason"]) == (500, "plugin_error")
    assert text in document["answer"]["message"]


@pytest.mark.parametrize(("name", "text"), [("unbuildable", "no licence"), ("absent", "cannot be imported")])
@pytest.mark.parametrize("point", ["matcher", "balancer"])
def test_check_finds_plugins_that_cannot_be_built(
    rautactl: Rautactl, failing: None, tmp_path: Path, name: str, text: str, point: str
) -> None:
    path = with_plugin(tmp_path / "rauta.yaml", **{point: name})
    code, document = rautactl("check", str(path))
    assert code == 2
    messages = [one["message"] for one in document["problems"] if one["severity"] == "error"]
    assert any(repr(name) in message and text in message for message in messages), messages


# --- the package's own tests ----------------------------------------------------------------------------


def test_its_own_tests_pass_on_what_is_installed(python: Run, tmp_path: Path) -> None:
    pytest_ = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", str(SOURCE / "pyproject.toml"))
    ended = python(*pytest_, str(SOURCE / "tests"), cwd=tmp_path)
    assert ended.returncode == 0, ended.stdout
    assert "passed" in ended.stdout
