"""docs/backends.md: its examples load, and its table has every time-out and limit with the value of the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rauta.config import load
from rauta.proxy import clienthello, flow, limits, pool, proxyprotocol
from rauta.proxy.asgi import frames as websockets
from rauta.proxy.exchange import IDEMPOTENT
from rauta.proxy.http1 import chunked
from rauta.proxy.http2 import client, frames, h2_inspection, streams
from rauta.proxy.reasons import REASONS
from rauta.proxy.wheel import TICK
from rauta.routing import defaults
from rauta.routing.balancers import BUILT_IN
from rauta.routing.units import duration, size
from rauta.runtime.agent.health import AT_ONCE, JITTER

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "backends.md").read_text()
EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)

# Constants in the order of the table's rows, by what they count.
DURATIONS = [
    "CONNECT_TIMEOUT",
    "RESPONSE_TIMEOUT",
    "BACKEND_IDLE_TIMEOUT",
    "REQUEST_TIMEOUT",
    "HEAD_TIMEOUT",
    "KEEP_ALIVE_TIMEOUT",
    "POOL_IDLE_TIMEOUT",
    "POOL_SHARED_IDLE_TIMEOUT",
    "HEALTH_INTERVAL",
    "HEALTH_TIMEOUT",
    "DNS_INTERVAL",
    "DNS_TIMEOUT",
    "REGEX_BUDGET",
    "DRAIN_DELAY",
    "DRAIN_TIMEOUT",
    "DRAIN_IDLE",
    "HANG_TIMEOUT",
]
SIZES = ("HEAD_LIMIT", "BODY_LIMIT", "REPLAY_LIMIT")
LIMITS = [
    "HEAD_LIMIT",
    "MAX_HEADER_FIELDS",
    "MAX_HOST_LENGTH",
    "CLIENT_CONNECTIONS",
    "BODY_LIMIT",
    "BACKEND_CONNECTIONS",
    "BACKEND_WAITING",
    "POOL_MAX_IDLE_PER_BACKEND",
    "CONNECT_ATTEMPTS",
    "REPLAY_LIMIT",
    "MAX_WEIGHT",
]
ELSEWHERE = {"ADMIN_SOCKET", "KERNEL_MAX_BACKENDS"}  # a path; a limit of tiers that do not work yet

# What one connection may have, in the order of that table's rows.
OF_A_CONNECTION = [
    size(defaults.HEAD_LIMIT),
    str(limits.MAX_INTERIM),
    size(chunked._MAX_SIZE_LINE),
    size(chunked._MAX_EXTENSIONS),
    size(chunked._MAX_TRAILERS),
    str(chunked.CHUNKS_PER_TURN),
    size(flow.HIGH_WATER),
    str(frames.STREAMS),
    size(frames.STREAM_WINDOW),
    size(client.WINDOW),
    size(frames.CONNECTION_WINDOW),
    size(frames.WIDER),
    str(streams.FREE_FRAMES),
    size(streams.UNREAD_LIMIT),
    str(h2_inspection.MAX_SETTINGS),
    size(limits.HELD_LIMIT),
    str(limits.HEADS_PER_TURN),
    duration(limits.DRAIN_GRACE),
    size(limits.DISCARD_LIMIT),
    size(limits.LINGER_LIMIT),
    size(proxyprotocol.MAX_V1),
    size(proxyprotocol.MAX_V2),
    size(clienthello.MAX_HELLO),
    size(websockets.MESSAGE_LIMIT),
    duration(pool.KEPT_MARGIN),
]


def rows(title: str) -> list[list[str]]:
    lines = PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("|")][2:]


ROWS = rows("Time-outs and limits")


def shown(name: str) -> str:
    value = getattr(defaults, name)
    return duration(value) if name in DURATIONS else size(value) if name in SIZES else str(value)


def test_the_table_has_all_that_there_are() -> None:
    assert {*DURATIONS, *LIMITS, *ELSEWHERE} == {name for name in vars(defaults) if name.isupper()}
    assert [row[2] for row in ROWS] == [shown(name) for name in (*DURATIONS, *LIMITS)]


def test_the_table_of_one_connection() -> None:
    found = rows("Limits of one connection")
    assert [row[2] for row in found] == OF_A_CONNECTION
    assert f"until {size(flow.LOW_WATER)} are left" in found[6][3]
    assert f"in {streams._FREE_FOR:g} s" in found[12][0]
    assert f"within {limits.LINGER_TIME:g} s" in found[19][0]
    shown = {name for name in vars(limits) if name.isupper()}
    assert shown == {
        "MAX_INTERIM",
        "HELD_LIMIT",
        "HEADS_PER_TURN",
        "DRAIN_GRACE",
        "DISCARD_LIMIT",
        "LINGER_LIMIT",
        "LINGER_TIME",
    }


@pytest.mark.parametrize(("key", "default"), [(row[1], row[2]) for row in ROWS if row[1] != "fixed"])
def test_keys_are_those_of_the_format(key: str, default: str) -> None:
    """The key's row in the generated reference has that default; a weight's default is not its limit."""
    *_, section, name = re.sub(r"\.\*|\[\]", "", key.strip("`")).split(".")
    title = {"services": "", "listeners": "client "}.get(key.strip("`").split(".", maxsplit=1)[0], "")
    title += {"backends": "backend", "health": "health", "shutdown": "shutdown"}.get(section, section)
    (row,) = re.findall(
        rf"^\| `{name}` \| [^|]* \| ([^|]*) \|",
        (DOCS / "config.md").read_text().split(f"\n## {title}\n")[1].split("\n## ")[0],
        re.MULTILINE,
    )
    plain = row.strip("`").replace("1m15s", "75s").replace("1m", "60s")
    assert plain == ("1" if name == "weight" else default)


def test_reasons_have_these_statuses() -> None:
    told = re.findall(r"\b([45][0-9]{2}) `(\w+)`", PAGE) + re.findall(r"\b([45][0-9]{2}) \(`(\w+)`\)", PAGE)
    assert len(told) > 10
    assert [(status, REASONS[reason].status) for status, reason in told if str(REASONS[reason].status) != status] == []


def test_figures_and_names_in_the_text() -> None:
    assert re.findall(r"^\| `(\w+)` \|", PAGE.split("\n## Which backend\n")[1].split("\n## ")[0], re.MULTILINE)[1:] == [
        *BUILT_IN
    ]
    assert set(re.findall(r"\b(?:[A-Z]{3,7})\b", PAGE.split("sends it again")[1].split("|")[0])) == IDEMPOTENT
    assert f"{AT_ONCE} at most go on at once" in PAGE
    assert JITTER == 0.1
    assert f"up to {2 * TICK:g} s late" in PAGE


@pytest.mark.parametrize("example", EXAMPLES)
def test_example_loads(example: str, tmp_path: Path) -> None:
    file = tmp_path / "rauta.yaml"
    routes = (
        ""
        if "routes:" in example
        else "routes: [{name: r, service: " + re.findall(r"^  (\w+):", example, re.M)[0] + "}]\n"
    )
    file.write_text(f'version: 1\nlisteners: {{web: {{address: ":8080"}}}}\n{example}{routes}')
    assert load(file).configuration.services
