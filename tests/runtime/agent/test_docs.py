"""docs/metrics.md and docs/admin.md say what there is."""

from __future__ import annotations

import re
from pathlib import Path

from rauta.proxy import metrics
from rauta.runtime import segment
from rauta.runtime.agent.admin import COMMANDS
from rauta.runtime.agent.health import HealthChecks, State
from rauta.runtime.agent.metrics import Metrics

DOCS = Path(__file__).resolve().parents[3] / "docs"

STATUS = {
    "generation": 1,
    "started": 0.0,
    "restarts": 0,
    "reloads": {"succeeded": 0, "failed": 0, "last": None},
    "workers": [{"slot": 0, "pid": 1, "stage": "ready"}],
}


def rows(page: str) -> dict[str, list[str]]:
    """Metrics of the page's table, with their labels."""
    found = {}
    for line in (DOCS / page).read_text().splitlines():
        if match := re.match(r"\| `(rauta_\w+)` \| (.*?)\s?\| ", line):
            found[match[1]] = re.findall(r"`(\w+)`", match[2])
    return found


class Healthy(HealthChecks):
    """One backend that is checked."""

    def __init__(self) -> None:
        pass

    def states(self, service: str) -> dict[str, State]:
        return {"192.0.2.1:80": State()}


def test_all_metrics_are_on_the_page_with_their_labels() -> None:
    shown = rows("metrics.md")
    assert {name: list(labels) for name, labels in metrics.LABELS.items()}.items() <= shown.items()
    fd = segment.create(1)
    view = Metrics(fd)
    view.status, view.health, view.services = dict(STATUS), Healthy(), ["s"]
    text = view.text().decode()
    others = set(re.findall(r"^(rauta_\w+)(?:\{| )", text, re.MULTILINE))
    assert others == shown.keys() - metrics.LABELS.keys()
    for name in others:
        (labels,) = {
            tuple(re.findall(r'(\w+)="', line)) for line in text.splitlines() if re.match(rf"{name}[{{ ]", line)
        }
        assert sorted(labels) == sorted(shown[name])


def test_all_commands_are_on_the_page() -> None:
    page = (DOCS / "admin.md").read_text()
    assert re.findall(r"`POST /v1/(\w+)`", page) == list(COMMANDS)
