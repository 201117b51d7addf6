"""The counters of all workers, summed, and those of the kernel, as Prometheus wants them; and as plain numbers for
`rautactl stats`."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

import rauta
from rauta.proxy import metrics
from rauta.proxy.counters import BUCKETS, Kind, Series, read
from rauta.proxy.http2.library import library
from rauta.runtime.agent import kernelmetrics
from rauta.runtime.agent.health import HealthChecks
from rauta.runtime.agent.kernel import Kernel
from rauta.runtime.control import Reading
from rauta.runtime.segment import columns

KERNEL_TIERS: Final = ("1", "2")

Sums = dict[Series, list[int]]


def totals(columns: Iterable[memoryview]) -> Sums:
    """All series of all workers, cell by cell."""
    sums: Sums = {}
    for column in columns:
        for series, cells in read(column):
            known = sums.get(series)
            sums[series] = cells if known is None else [a + b for a, b in zip(known, cells, strict=False)]
    return sums


class Metrics(Collector):
    """Reads the columns of all workers (their descriptors) each time it is asked; `kernel` is asked by others."""

    def __init__(self, memory: Sequence[int], kernel: Kernel) -> None:
        self._columns = columns(memory)
        self._kernel = kernel
        self.status: dict[str, Any] = {}
        self.health: HealthChecks | None = None
        self.services: Iterable[str] = ()
        # Their ends, by listener, service (one of the two is empty), and file or issuer.
        self.certificates: Mapping[tuple[str, str, str], float] = {}
        self.revocation_lists: Mapping[tuple[str, str, str], float] = {}
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def text(self) -> bytes:
        """All metrics in the text format of Prometheus."""
        return generate_latest(self._registry)

    def totals(self, reading: Reading | None) -> Sums:
        """The sums of now, and what the kernel has counted."""
        sums = totals(self._columns)
        return sums if reading is None else sums | kernelmetrics.requests(reading.counters)

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client."""
        families: dict[str, Metric] = {}
        reading = self._kernel.reading
        for series, cells in sorted(self.totals(reading).items(), key=lambda item: (item[0].name, item[0].labels)):
            family = families.get(series.name)
            if family is None:
                family = families[series.name] = _family(series)
            if isinstance(family, HistogramMetricFamily):
                family.add_metric(series.labels, _buckets(cells), sum_value=cells[-1] / 1e6)
            elif isinstance(family, CounterMetricFamily | GaugeMetricFamily):
                family.add_metric(series.labels, cells[0])
        yield from families.values()
        yield from self._of_processes()
        yield from self._of_health()
        yield from self._of_certificates()
        yield GaugeMetricFamily("rauta_offload_live", "Whether a kernel offload answers.", float(self._kernel.live))
        if reading is not None:
            yield from kernelmetrics.families(reading.counters)

    def _of_processes(self) -> Iterator[Metric]:
        build = GaugeMetricFamily("rauta_build_info", "The version, as labels.", labels=("version", "python", "http2"))
        build.add_metric((rauta.__version__, platform.python_version(), library()), 1)
        yield build
        status = self.status
        if not status:
            return
        yield GaugeMetricFamily("rauta_generation", "The configuration that is served.", status["generation"])
        yield GaugeMetricFamily("rauta_start_time_seconds", "When the gateway started.", status["started"])
        reloads = CounterMetricFamily("rauta_reloads", "Reloads by their end.", labels=("outcome",))
        for outcome in ("succeeded", "failed"):
            reloads.add_metric((outcome,), status["reloads"][outcome])
        yield reloads
        ready = GaugeMetricFamily("rauta_worker_ready", "Whether the worker of a slot serves.", labels=("slot",))
        for worker in status["workers"]:
            ready.add_metric((str(worker["slot"]),), float(worker["stage"] == "ready"))
        yield ready
        yield CounterMetricFamily("rauta_worker_restarts", "Workers that were replaced.", status["restarts"])

    def _of_health(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(
            "rauta_backend_healthy",
            "Whether a backend that is checked may get requests.",
            labels=("service", "backend"),
        )
        for service in self.services:
            for backend, state in (self.health.states(service) if self.health else {}).items():
                family.add_metric((service, backend), float(state.healthy))
        yield family

    def _of_certificates(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(
            "rauta_tls_certificate_not_after_timestamp_seconds",
            "When a certificate expires that a listener serves, or that a service's backends are shown.",
            labels=("listener", "service", "certificate"),
        )
        for labels, end in self.certificates.items():
            family.add_metric(labels, end)
        yield family
        family = GaugeMetricFamily(
            "rauta_tls_crl_next_update_timestamp_seconds",
            "When a revocation list expires for the clients of a listener, or for the backends of a service.",
            labels=("listener", "service", "issuer"),
        )
        for labels, end in self.revocation_lists.items():
            family.add_metric(labels, end)
        yield family


def _family(series: Series) -> Metric:
    labels, text = metrics.LABELS[series.name], metrics.HELP[series.name]
    if series.kind is Kind.HISTOGRAM:
        return HistogramMetricFamily(series.name, text, labels=labels)
    if series.kind is Kind.GAUGE:
        return GaugeMetricFamily(series.name, text, labels=labels)
    return CounterMetricFamily(series.name.removesuffix("_total"), text, labels=labels)


def _buckets(cells: list[int]) -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    so_far = 0
    for bound, count in zip((*map(str, BUCKETS), "+Inf"), cells, strict=False):
        so_far += count
        found.append((bound, so_far))
    return found


def summary(sums: Sums) -> dict[str, Any]:
    """For people: requests by route and service, by class of status and by tier, with the median and 99th percentile of
    the time that those of tier 3 took (upper bounds of the buckets, in seconds)."""
    routes: dict[tuple[str, str, str], dict[str, Any]] = {}
    for series, cells in sums.items():
        if series.name == metrics.REQUESTS:
            listener, route, service, code, *_, tier = series.labels
            row = routes.setdefault((listener, route, service), {"requests": 0, "classes": {}, "tiers": {}})
            row["requests"] += cells[0]
            tier = tier if tier in KERNEL_TIERS else "3"  # a full column counts as `other`
            row["tiers"][tier] = row["tiers"].get(tier, 0) + cells[0]
            row["classes"][f"{code[:1]}xx"] = row["classes"].get(f"{code[:1]}xx", 0) + cells[0]
    for (listener, route, service), row in routes.items():
        cells = sums.get(Series(Kind.HISTOGRAM, metrics.DURATION, (listener, route, service)), [])
        row["p50"], row["p99"] = _quantile(cells, 0.5), _quantile(cells, 0.99)
    gauge = [(series, cells[0]) for series, cells in sums.items() if series.kind is Kind.GAUGE]
    return {
        "routes": [
            {"listener": listener, "route": route, "service": service, **row}
            for (listener, route, service), row in sorted(routes.items())
        ],
        "failures": {
            "/".join(filter(None, series.labels)): cells[0]
            for series, cells in sorted(sums.items(), key=lambda item: item[0].labels)
            if series.name == metrics.FAILURES
        },
        "connections": {series.labels[0]: value for series, value in gauge if series.name == metrics.OPEN},
    }


def _quantile(cells: list[int], share: float) -> float | None:
    counts = cells[: len(BUCKETS) + 1]
    wanted = sum(counts) * share
    if not wanted:
        return None
    so_far = 0
    for bound, count in zip(BUCKETS, counts, strict=False):
        so_far += count
        if so_far >= wanted:
            return bound
    return None
