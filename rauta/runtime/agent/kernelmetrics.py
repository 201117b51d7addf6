"""The kernel's counters as Prometheus wants them. The names are public (docs/metrics.md)."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from rauta.offload import Counters, Gauges, RequestKey, Traffic
from rauta.proxy import metrics
from rauta.proxy.counters import Kind, Series
from rauta.runtime.agent.kernel import added

PLACE = ("route", "service", "tier", "hook")
REQUEST = (*PLACE, "method", "code")


def requests(counters: Counters) -> dict[Series, list[int]]:
    """The kernel's share of `rauta_requests_total`, as the workers count theirs."""
    found: dict[Series, list[int]] = {}
    for key, traffic in counters.requests.items():
        series = Series(Kind.COUNTER, metrics.REQUESTS, _values(key, metrics.LABELS[metrics.REQUESTS]))
        cells = found.setdefault(series, [0])
        cells[0] += traffic.requests
    return found


def families(counters: Counters) -> Iterator[Metric]:
    """What is the kernel's alone."""
    yield _requests(counters)
    yield from _traffic(counters)
    events = CounterMetricFamily("rauta_offload_events", "What the kernel programs did.", labels=("event",))
    for event, count in counters.events.items():
        events.add_metric((event,), count)
    yield events
    yield from _gauges(counters.gauges)


def _requests(counters: Counters) -> Metric:
    family = CounterMetricFamily("rauta_offload_requests", "Requests that the kernel tiers answered.", labels=REQUEST)
    for labels, traffic in sorted(_by(counters, REQUEST).items()):
        family.add_metric(labels, traffic.requests)
    return family


def _traffic(counters: Counters) -> Iterator[Metric]:
    packets = CounterMetricFamily("rauta_offload_packets", "Packets of these requests, both directions.", labels=PLACE)
    octets = CounterMetricFamily("rauta_offload_bytes", "Bytes of their IP packets, both directions.", labels=PLACE)
    for labels, traffic in sorted(_by(counters, PLACE).items()):
        packets.add_metric(labels, traffic.packets)
        octets.add_metric(labels, traffic.bytes)
    yield packets
    yield octets


def _gauges(gauges: Gauges) -> Iterator[Metric]:
    yield GaugeMetricFamily("rauta_offload_flows", "Connections that the kernel has bound to a backend.", gauges.flows)
    used = GaugeMetricFamily("rauta_offload_map_entries", "Entries of a map that are in use.", labels=("map",))
    size = GaugeMetricFamily("rauta_offload_map_size", "Entries that a map has room for.", labels=("map",))
    for name, use in sorted(gauges.maps.items()):
        used.add_metric((name,), use.used)
        size.add_metric((name,), use.size)
    yield used
    yield size
    attached = GaugeMetricFamily(
        "rauta_offload_interface_info",
        "Interfaces that carry a program, and how.",
        labels=("interface", "hook", "mode"),
    )
    for name, how in sorted(gauges.interfaces.items()):
        attached.add_metric((name, how.hook, how.mode), 1)
    yield attached


def _by(counters: Counters, labels: tuple[str, ...]) -> dict[tuple[str, ...], Traffic]:
    """Sums by some of the labels."""
    sums: dict[tuple[str, ...], Traffic] = {}
    for key, traffic in counters.requests.items():
        values = _values(key, labels)
        sums[values] = added(sums.get(values), traffic)
    return sums


def _values(key: RequestKey, labels: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(str(getattr(key, label)) for label in labels)
