"""The plan: what the maps of the kernel hold, as frozen data, and the pure reference of how they are read.

Per listener, a host's name leads to the host pattern that owns it, by one hash and one trie lookup; within that
host, a path leads to a row of verdicts, again by one hash and one trie lookup; the method selects the verdict.
All rules of precedence were worked out when the plan was made (`flatten`), so nothing is compared or skipped here:

* `exact` holds whole paths. `prefix` holds raw prefixes of the path with a slash behind it: the element-wise prefix
  /foo has the key "/foo/", a regex's literal prefix is a key as it is. The longest key decides.
* An entry that would say what is said without it is left out.
* A host whose routes all stay in tier 3 still owns its requests: they must not reach a wider host's routes.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from rauta.offload.capabilities import METHODS, Capabilities
from rauta.offload.lookup import is_plain, longest, plain_host
from rauta.offload.reasons import Passed, Refusal
from rauta.routing import maglev
from rauta.routing.hashing import SERVICE_SEED, client_hash
from rauta.routing.hosts import HostPattern
from rauta.routing.services import Backend
from rauta.routing.settings import Address

Verdicts = tuple[str | None, ...]
"""One column per method, in the order of METHODS: the name of the route that answers, None for tier 3."""

ALL_PASS: Final[Verdicts] = (None,) * len(METHODS)
COLUMN: Final = {method: column for column, method in enumerate(METHODS)}
TIER_1_COLUMNS: Final = frozenset({COLUMN["GET"], COLUMN["HEAD"]})


def tier_of(column: int, *, is_exact: bool) -> int:
    """Tier 1 (XDP's part) is GET and HEAD with an entry for the whole path; everything else is tier 2."""
    return 1 if is_exact and column in TIER_1_COLUMNS else 2


@lru_cache(maxsize=1024)  # 4 MB; a reload that leaves a set of backends as it was does not build it again
def _slot_table(backends: tuple[Backend, ...]) -> maglev.SlotTable:
    return maglev.build(backends)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedService:
    """A service as the kernel sees it. `backends` are those with weight, in the order of the Maglev table's indices.

    `number` is its position in the maps, valid within this plan only: identity is the name, by which an
    implementation keys what outlives the plan (flows, counters). With `by_address` the client's port counts as 0. If
    it is `proxied`, its backends get a header of the PROXY protocol, version 2, before the first request.
    """

    number: int
    name: str
    backends: tuple[Backend, ...]
    by_address: bool
    proxied: bool = False

    @property
    def table(self) -> maglev.SlotTable:
        """The slot table, built when first asked for; services with the same backends share it."""
        return _slot_table(self.backends)

    def pick(self, client: tuple[str, int]) -> Backend:
        """The backend of a client (address and port), as `Table.pick` chooses it while all are usable."""
        address, port = client
        return self.table.pick(client_hash(address, 0 if self.by_address else port))


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRoute:
    """A route that the kernel answers: its services and their cumulative weights, as `Answer` in tier 3 has them.

    `number` is its position in the maps, valid within this plan only: identity is the name, as with services.
    `tiers` are the kernel tiers (1, 2) whose entries name it.
    """

    number: int
    name: str
    services: tuple[PlannedService, ...]
    cumulative: tuple[int, ...]
    by_address: bool
    tiers: frozenset[int]

    def service_of(self, client: tuple[str, int]) -> PlannedService:
        """The service of a client's connection: a hash with a seed of its own, modulo the sum of the weights."""
        if len(self.services) == 1:
            return self.services[0]
        address, port = client
        key = client_hash(address, 0 if self.by_address else port, SERVICE_SEED)
        return self.services[bisect(self.cumulative, key % self.cumulative[-1])]


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPlan:
    """The entries of one host pattern (None: any host). Without entries it owns its requests and passes them all."""

    pattern: HostPattern | None
    exact: Mapping[str, Verdicts] = field(default_factory=dict)
    prefix: Mapping[str, Verdicts] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SuffixOwner:
    """Who owns the hosts under a suffix: those with one label in front of it, and those with more."""

    one_label: HostPlan | None
    deeper: HostPlan | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerPlan:
    """The hosts of a listener. `included` is False if the whole listener stays in tier 3. `owners` are all its host
    patterns in the order of the file: their numbers in the maps.

    Listeners that are not included are here all the same: a wildcard address must not take over their address.
    """

    name: str
    address: Address
    included: bool = False
    hosts: Mapping[str, HostPlan] = field(default_factory=dict)
    suffixes: Mapping[str, SuffixOwner] = field(default_factory=dict)
    other: HostPlan | None = None
    owners: tuple[HostPlan, ...] = ()

    def owner(self, host: str) -> HostPlan | None:
        """Who owns a plain host: itself, the longest suffix (behind its first label or a later one), or any."""
        found = self.hosts.get(host)
        if found is not None:
            return found
        _, dot, rest = host.partition(".")
        first = True
        while dot:
            suffix = self.suffixes.get(rest)
            if suffix is not None:
                return suffix.one_label if first else suffix.deeper
            _, dot, rest = rest.partition(".")
            first = False
        return self.other


@dataclass(frozen=True, slots=True)
class Decision:
    """The kernel answers: by this route, in this tier."""

    route: PlannedRoute
    tier: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Entries per map."""

    listeners: int
    hosts: int
    exact: int
    prefix: int
    routes: int
    services: int
    backends: int
    tables: int

    def __str__(self) -> str:
        def told(count: int, noun: str) -> str:
            return f"{count} {noun}" if count == 1 else f"{count} {noun}s"

        return (
            f"{told(self.routes, 'route')} on {told(self.listeners, 'listener')}: {told(self.hosts, 'host')}, "
            f"{self.exact} exact and {self.prefix} prefix entries, {told(self.services, 'service')} with "
            f"{told(self.backends, 'backend')}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the kernel answers, and for every route that it does not (or not wholly) answer, why.

    `routes` and `services` are by name, in the order of their numbers; `refusals` by route. The numbers are valid
    within this plan only: the next one may give them to others, so identity is the name.
    """

    capabilities: Capabilities
    listeners: Mapping[str, ListenerPlan]
    routes: Mapping[str, PlannedRoute]
    services: Mapping[str, PlannedService]
    refusals: Mapping[str, tuple[Refusal, ...]]
    size: Size

    def look(self, listener: str, host: str, method: str, path: str) -> Decision | Passed:
        """What the kernel does with a request whose head is otherwise plain, in the order in which C does it.

        `host` is the value of the Host field and `path` the raw path component, as they are on the wire.
        Raises KeyError for a listener that is not in the configuration.
        """
        entry = self.listeners[listener]
        if not entry.included:
            return Passed.LISTENER
        if method not in self.capabilities.methods:
            return Passed.METHOD
        if not is_plain(path, self.capabilities.path_length):
            return Passed.PATH
        name = plain_host(host, self.capabilities.host_length)
        if name is None:
            return Passed.HOST
        owner = entry.owner(name)
        if owner is None:
            return Passed.UNKNOWN_HOST
        column = COLUMN[method]
        verdicts = owner.exact.get(path)
        is_exact = verdicts is not None
        if verdicts is None:
            verdicts = longest(owner.prefix, path + "/") or ALL_PASS
        route = verdicts[column]
        return Passed.ROUTE if route is None else Decision(self.routes[route], tier_of(column, is_exact=is_exact))

    def decide(self, listener: str, host: str, method: str, path: str) -> Decision | None:
        """The kernel's answer, None if it passes the request to tier 3. See `look`."""
        found = self.look(listener, host, method, path)
        return found if isinstance(found, Decision) else None
