"""What a gateway has to know of gRPC, without calls; these are in `http2`."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from rauta.proxy.grpc import STATUSES, is_grpc, status_of, timeout_of
from rauta.proxy.messages import CHUNKED, RequestHead
from rauta.proxy.reasons import REASONS


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


def test_every_reason_has_a_status_and_the_page_says_which() -> None:
    page = (Path(__file__).parents[2] / "docs/grpc.md").read_text()
    table = page.partition("## Errors")[2].partition("\n## ")[0]
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
