"""What a gateway has to know of gRPC, without calls; these are in `http2`."""

from __future__ import annotations

import re
from pathlib import Path

import grpc
import pytest

from rauta.config import load
from rauta.config.format_matches import GrpcMatch
from rauta.proxy.grpc import STATUSES, is_grpc, status_of, timeout_of
from rauta.proxy.messages import CHUNKED, RequestHead
from rauta.proxy.reasons import REASONS
from rauta.routing.model import PathMatch
from rauta.routing.services import BackendProtocol

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "grpc.md"


def head(name: str, value: str) -> RequestHead:
    found = RequestHead("POST", "/", None, "", None, "2.0", CHUNKED)
    found.fields.append((name, value))
    return found


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("1H", 3600.0), ("2M", 120), ("3S", 3), ("4m", 0.004), ("5u", 5e-6), ("6n", 6e-9), ("0S", 0),
        ("99999999H", 99999999 * 3600.0), ("", None), ("1", None), ("S", None),
        ("-1S", None), ("1.5S", None), ("1s", None), ("1S ", None),
        ("123456789S", None), ("1S,2S", None), ("\u0661S", None),
    ],
)  # fmt: skip
def test_what_is_a_timeout(value: str, seconds: float | None) -> None:
    found = timeout_of(head("Grpc-Timeout", value))
    assert found == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("value", "is_one"),
    [
        ("application/grpc", True), ("application/grpc+proto", True), ("Application/GRPC;x=y", True),
        ("text/grpc", False), ("application/grpc-web", False), ("application/grpc-web+proto", False),
        ("application/json", False),
        ("", False),
    ],
)  # fmt: skip
def test_what_is_grpc(value: str, is_one: bool) -> None:
    assert is_grpc(head("Content-Type", value)) is is_one


def test_all_statuses_are_known() -> None:
    assert {str(code.value[0]) for code in grpc.StatusCode} == STATUSES


def test_the_examples_are_good(tmp_path: Path) -> None:
    example = load(ROOT / "examples/grpc.yaml").configuration
    assert [route.matches[0].path for route in example.routes[:2]] == [
        PathMatch.exact("/helloworld.Greeter/MakeReport"),
        PathMatch.prefix("/helloworld.Greeter"),
    ]
    block = re.search(r"^```yaml\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert block is not None
    page = tmp_path / "rauta.yaml"
    page.write_text(block[1])
    assert load(page, check_files=False).configuration.services[0].protocol is BackendProtocol.HTTP2


def test_the_page_says_what_a_match_is() -> None:
    rows = re.findall(r"^\| `(\{.*?\})` \| `path: (.*), methods: \[POST\]` \|", PAGE.read_text(), re.MULTILINE)
    assert len(rows) == 3
    for match, path in rows:
        values = dict(re.findall(r"(service|method): ([A-Za-z.]+)", match))
        kind, value = path.strip("{}").split(": ")
        assert GrpcMatch(**values).path == getattr(PathMatch, kind)(value.strip('"'))


def test_every_reason_has_a_status_and_the_page_says_which() -> None:
    table = PAGE.read_text().partition("## Errors")[2].partition("\n## ")[0]
    told: dict[str, int] = {}
    for row in table.splitlines():
        cells = [cell.strip() for cell in row.split("|")[1:-1]]
        if len(cells) == 3 and cells[1][:1].isdigit():
            told |= dict.fromkeys(cells[0].replace("`", "").split(", "), int(cells[1].split()[0]))
            assert grpc.StatusCode[cells[1].split()[1].strip("`")].value[0] == int(cells[1].split()[0])
    others = {name: status for name in REASONS if (status := status_of(name)) != 2 and name not in told}
    assert {name: status_of(name) for name in told} == told
    assert set(others.values()) <= {13}  # the requests that are malformed: "any other 400"
    assert all(REASONS[name].status == 400 for name in others)
