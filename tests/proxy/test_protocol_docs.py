"""docs/protocols.md: its examples load, and its figures are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rauta.config import load
from rauta.proxy.flow import HIGH_WATER
from rauta.proxy.http2 import client, frames, library, streams
from rauta.proxy.reasons import REASONS
from rauta.routing import defaults
from rauta.routing.services import BackendProtocol
from rauta.routing.units import duration, size
from support.h2framing import CASES as FRAMING
from support.h2kinds import CASES as KINDS
from support.h2messages import CASES as MESSAGES
from support.h2nghttp2 import OTHERWISE

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "protocols.md").read_text()
EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_load(example: str, tmp_path: Path) -> None:
    text = example if "version:" in example else f"version: 1\n{example}"
    if "listeners:" not in text:
        text += 'listeners: {web: {address: ":8080"}}\n'
    if "routes:" not in text:
        text += "routes: [{name: r, respond: {}}]\n"
    file = tmp_path / "rauta.yaml"
    file.write_text(text)
    load(file, check_files=False)


def test_every_protocol_has_a_row() -> None:
    table = section("HTTP/2 to backends").split("| `protocol` |")[1].split("\n\n")[0]
    assert re.findall(r"^\| `(\w+)`", table, re.MULTILINE) == [one.value for one in BackendProtocol]


def test_figures_of_clients() -> None:
    text = section("HTTP/2")
    assert f"| {frames.STREAMS} of a connection |" in text
    assert f"| {streams.FREE_FRAMES} resets, pings" in text
    assert round(frames.STREAM_WINDOW / 1024) == 64 == HIGH_WATER // 1024


def test_figures_of_backends() -> None:
    text = section("HTTP/2 to backends")
    assert f"streams are taken: {frames.STREAMS}, or fewer" in text
    assert f"closed after {duration(defaults.POOL_SHARED_IDLE_TIMEOUT)}".replace("60s", "60 s") in text
    assert f"| {client.WINDOW // 1024} KiB, credited" in text
    assert f"| {HIGH_WATER // 1024} KiB of each stream" in text
    assert f"| head of a response | {defaults.HEAD_LIMIT // 1024} KiB |" in text
    assert f"body is held ({size(defaults.REPLAY_LIMIT)})".replace("KiB", " KiB") in text


def test_reasons_have_these_statuses() -> None:
    told = re.findall(r"\b([45][0-9]{2}) `(\w+)`", PAGE) + re.findall(r"\b([45][0-9]{2}) \(`(\w+)`\)", PAGE)
    assert {"upstream_malformed", "upstream_reset", "no_tunnel"} <= {reason for _, reason in told}
    assert [pair for pair in told if str(REASONS[pair[1]].status) != pair[0]] == []


def test_libraries_are_those_that_there_are() -> None:
    text = section("Libraries of frames")
    (header,) = re.findall(r"^\| \| (.*) \|$", text, re.MULTILINE)
    assert sorted(re.findall(r"`(\w+)`", header)) == sorted(library.LIBRARIES)
    assert f"{len(OTHERWISE)} of {len([*FRAMING, *KINDS, *MESSAGES])} cases" in text
