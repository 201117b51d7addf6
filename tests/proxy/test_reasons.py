"""The one table of reasons, and that nothing speaks of a reason that is not in it."""

from __future__ import annotations

import re
from pathlib import Path

import rauta.proxy
import rauta.routing
from rauta.proxy.reasons import BODIES, REASONS

# The statuses that the gateway answers with by itself, and 499 for the log.
STATUSES = {101, 400, 404, 405, 408, 413, 414, 417, 421, 431, 499, 500, 501, 502, 503, 504, 505}


def test_names_and_statuses() -> None:
    for name, reason in REASONS.items():
        assert re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)*", name)
        assert reason.name == name
        assert reason.status in STATUSES
        assert reason.text
        assert BODIES[name].startswith(str(reason.status).encode())


def test_every_reason_in_the_sources_is_in_the_table() -> None:
    raised = re.compile(
        r"""(?:MalformedError|PathError|HostError|ConnectError|\.fail|_fail|_refuse|upstream_failed)\(\s*f?"([a-z0-9_]+)","""
    )
    used = set()
    for package in (rauta.proxy, rauta.routing):
        for source in Path(next(iter(package.__path__))).rglob("*.py"):
            used |= set(raised.findall(source.read_text()))
    assert len(used) > 15
    assert used <= set(REASONS)
