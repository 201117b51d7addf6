"""docs/metrics.md and docs/admin.md say what there is."""

from __future__ import annotations

import re
from pathlib import Path

from rauta.offload import Attachment, Counters, Gauges, MapUse, RequestKey, Traffic
from rauta.offload.bcc.events import TOLD
from rauta.proxy import metrics
from rauta.runtime import segment
from rauta.runtime.agent.admin import COMMANDS
from rauta.runtime.agent.health import HealthChecks, State
from rauta.runtime.agent.kernel import Kernel
from rauta.runtime.agent.metrics import Metrics
from rauta.runtime.control import Reading

DOCS = Path(__file__).resolve().parents[3] / "docs"

STATUS = {
    "generation": 1,
    "started": 0.0,
    "restarts": 0,
    "reloads": {"succeeded": 0, "failed": 0, "last": None},
    "workers": [{"slot": 0, "pid": 1, "stage": "ready"}],
}


REQUEST = RequestKey(
    listener="web", route="a", service="s", code=200, method="GET", protocol="HTTP/1.1", tier=1, hook="tc"
)
COUNTERS = Counters(
    requests={REQUEST: Traffic(requests=1, packets=4, bytes=400)},
    events={"hit_first": 1},
    gauges=Gauges(flows=1, maps={"flows": MapUse(1, 2)}, interfaces={"eth0": Attachment("tc", "tcx")}),
)


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
    kernel = Kernel(lambda: None)
    kernel.is_now({"name": "bcc", "reason": ""})
    kernel.tell(Reading(0.0, COUNTERS))
    view = Metrics(segment.create(1), kernel)
    view.status, view.health, view.services = dict(STATUS), Healthy(), ["s"]
    view.certificates = {("websecure", "", "/etc/rauta/a.crt"): 1.8e9}
    view.revocation_lists = {("websecure", "", "CN=Clients"): 1.8e9}
    text = view.text().decode()
    others = set(re.findall(r"^(rauta_\w+)(?:\{| )", text, re.MULTILINE)) - metrics.LABELS.keys()
    assert others == shown.keys() - metrics.LABELS.keys()
    for name in others:
        (labels,) = {
            tuple(re.findall(r'(\w+)="', line)) for line in text.splitlines() if re.match(rf"{name}[{{ ]", line)
        }
        assert sorted(labels) == sorted(shown[name])


def test_all_commands_are_on_the_page() -> None:
    page = (DOCS / "admin.md").read_text()
    assert re.findall(r"`POST (/v1/[\w/]+)`", page) == list(COMMANDS.values())


def test_all_events_are_on_the_page_with_what_they_mean() -> None:
    page = (DOCS / "metrics.md").read_text().partition("\n## Events\n")[2]
    assert dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", page, re.MULTILINE)) == dict(TOLD)
