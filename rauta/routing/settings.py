"""Settings of everything that is not a route: listeners, TLS, offload, access log. Plain data, validated.

They live beside the routes because one file describes both and the planner must see every field: what a
listener or a service asks for decides which tier can serve its routes.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from rauta.routing import defaults
from rauta.routing.errors import ModelError
from rauta.routing.filters import ON_LISTENERS, Filter
from rauta.routing.hosts import HostKind, HostPattern, is_address

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9])?")
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?"
_DNS_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?")


def check_name(name: str) -> None:
    """Names of listeners, services and routes become labels of metrics and keys of state. Raises ModelError."""
    if not _NAME.fullmatch(name):
        raise ModelError.at(
            "name", f"{name!r} is not a name: 1 to 128 letters, digits, '.', '_' or '-', no punctuation at the ends"
        )


def check_duration(name: str, seconds: float) -> None:
    """Time-outs are positive and finite. Raises ModelError."""
    if not 0.001 <= seconds <= 86400:
        raise ModelError.at(name, f"{seconds:g} s is out of range: 1 ms to 24 h")


# sockaddr_un.sun_path holds 108 bytes, the last of which is NUL.
_MAX_UNIX_PATH: Final = 107


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen or to connect: an IPv4 or IPv6 literal or a DNS name with a port; or the `path` of a unix socket,
    with neither."""

    host: str
    port: int
    path: str | None = None

    def __post_init__(self) -> None:
        if self.path is not None:
            if self.host or self.port:
                raise ModelError.at((), f"unix:{self.path} has a host or a port")
            if not self.path or "\0" in self.path or len(self.path.encode()) > _MAX_UNIX_PATH:
                raise ModelError.at(
                    (), f"{self.path!r} is not the path of a socket: 1 to {_MAX_UNIX_PATH} bytes, none of them NUL"
                )
            return
        if not 0 < self.port < 65536:
            raise ModelError.at((), f"port {self.port} is out of range: 1 to 65535")
        literal = self.ip
        if literal is not None:
            object.__setattr__(self, "host", str(literal))
        elif not _DNS_NAME.fullmatch(self.host) or len(self.host) > defaults.MAX_HOST_LENGTH:
            raise ModelError.at((), f"{self.host!r} is neither an IP address nor a host name")
        elif re.fullmatch(r"[0-9.]+", self.host):
            raise ModelError.at((), f"{self.host!r} is not a valid IPv4 address")

    @classmethod
    def parse(cls, text: str, *, any_host: str | None = None) -> Address:
        """`host:port`, `[IPv6]:port` or `unix:PATH`; with `any_host`, also `:port`, which means that host.

        Raises ModelError.
        """
        if text.startswith("unix:"):
            return cls.unix(text.removeprefix("unix:"))
        host, colon, port = text.rpartition(":")
        if not colon or not (port.isascii() and port.isdigit()) or len(port) > 5:
            raise ModelError.at((), f"{text!r} is not an address: write host:port, for example 127.0.0.1:8080")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
            if ":" not in host:
                raise ModelError.at((), f"{text!r}: only an IPv6 address stands in brackets")
        elif ":" in host:
            raise ModelError.at((), f"{text!r}: an IPv6 address needs brackets, for example [::1]:8080")
        if not host:
            if any_host is None:
                raise ModelError.at((), f"{text!r} has no host: write host:port, for example 127.0.0.1:{port}")
            host = any_host
        return cls(host, int(port))

    @property
    def ip(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
        """The literal address, or None for a DNS name or a unix socket."""
        try:
            return ipaddress.ip_address(self.host)
        except ValueError:
            return None

    @classmethod
    def unix(cls, path: str) -> Address:
        """The unix socket at a path. Raises ModelError."""
        return cls("", 0, path)

    @property
    def is_name(self) -> bool:
        """Whether it has to be looked up."""
        return self.path is None and self.ip is None

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """Where a secret is, never the secret itself: a file or an environment variable."""

    file: str | None = None
    env: str | None = None

    def __post_init__(self) -> None:
        if (self.file is None) == (self.env is None):
            raise ModelError.at((), "a secret has exactly one of 'file' and 'env'")


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A certificate chain (PEM file, leaf first) and its private key."""

    cert: str
    key: Secret


class Requirement(Enum):
    """Whether what tells who the client is has to be there. What is there and bad is always refused."""

    REQUIRE = "require"
    OPTIONAL = "optional"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientCertificates:
    """Certificates that clients have to show: signed by one of those in `ca`, a PEM file, and not in the lists of those
    that are revoked in `crl`, another."""

    ca: str
    mode: Requirement = Requirement.REQUIRE
    crl: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """TLS termination on a listener. A client that asks for a name (SNI) gets the first certificate that covers it; the
    first of all serves the others. `clients` holds for all names."""

    certificates: tuple[Certificate, ...]
    clients: ClientCertificates | None = None

    def __post_init__(self) -> None:
        if not self.certificates:
            raise ModelError.at("certificates", "TLS needs a certificate")


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class EncodedSlash(Enum):
    """What becomes of `%2F` and `%5C` in a path."""

    KEEP = "keep"
    REJECT = "reject"


class Forwarded(Enum):
    """Fields that tell a backend about the client (RFC 7239 and its predecessors; RFC 9440), and that a gateway was in
    between (Via, RFC 9110 7.6.3)."""

    X_FORWARDED_FOR = "x-forwarded-for"
    X_FORWARDED_PROTO = "x-forwarded-proto"
    X_FORWARDED_HOST = "x-forwarded-host"
    FORWARDED = "forwarded"
    VIA = "via"
    CLIENT_CERT = "client-cert"


X_FORWARDED = frozenset({Forwarded.X_FORWARDED_FOR, Forwarded.X_FORWARDED_PROTO, Forwarded.X_FORWARDED_HOST})


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTimeouts:
    """Time-outs towards clients, in seconds."""

    head: float = defaults.HEAD_TIMEOUT
    idle: float = defaults.KEEP_ALIVE_TIMEOUT

    def __post_init__(self) -> None:
        check_duration("head", self.head)
        check_duration("idle", self.idle)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientLimits:
    """Limits on clients: a request's head in bytes; per worker the connections, of which more are closed at once."""

    head: int = defaults.HEAD_LIMIT
    connections: int = defaults.CLIENT_CONNECTIONS

    def __post_init__(self) -> None:
        if not 1024 <= self.head <= 1024 * 1024:
            raise ModelError.at("head", f"{self.head} bytes is out of range: 1 KiB to 1 MiB")
        if not 1 <= self.connections <= 1_000_000:
            raise ModelError.at("connections", f"{self.connections} is out of range: 1 to 1000000")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxySources:
    """Who tells by a header of the PROXY protocol whose connection it is: load balancers in these networks. They have
    to, unless `mode` is OPTIONAL; a header of anybody else is refused. Clients on a unix socket are among them without
    being named: the mode of its file says who may connect."""

    sources: tuple[Network, ...] = ()
    mode: Requirement = Requirement.REQUIRE


ANY_NAME: Final = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Passthrough:
    """TLS that is not terminated: connections whose client asks for one of these names (SNI) go to a service as they
    are. `*.example.com` stands for one label, as in certificates; `*` for all that nothing else claims, also without a
    name. Names are lower case, without a trailing dot."""

    names: tuple[str, ...]
    service: str

    def __post_init__(self) -> None:
        if not self.names:
            raise ModelError.at("names", "the list is empty: nothing would go through")
        names = tuple(_server_name(name, position) for position, name in enumerate(self.names))
        object.__setattr__(self, "names", names)


def _server_name(name: str, position: int) -> str:
    if name == ANY_NAME:
        return name
    kind = HostKind.ONE_LABEL if name.startswith("*.") else HostKind.EXACT
    try:
        pattern = HostPattern(name.removeprefix("*."), kind)
    except ModelError as error:
        raise ModelError.at(("names", position), error.problems[0].message) from None
    if is_address(pattern.name):
        # RFC 6066 3: "Literal IPv4 and IPv6 addresses are not permitted in "HostName"."
        raise ModelError.at(("names", position), f"{name!r} is an address, and clients never ask for one by SNI")
    return str(pattern)


class PassedNames:
    """Where connections of TLS go as they are: exact names win over wildcards, both over `*`."""

    __slots__ = ("_exact", "_wildcard")

    def __init__(self, items: Iterable[Passthrough]) -> None:
        self._exact: dict[str, str] = {}
        self._wildcard: dict[str, str] = {}
        for item in items:
            for name in item.names:
                if name.startswith("*."):
                    self._wildcard[name[2:]] = item.service
                else:
                    self._exact[name] = item.service

    def service_of(self, name: str) -> str | None:
        """The service that gets the connections for a name ("": none was asked for), if one does."""
        found = self._exact.get(name)
        if found is None:
            found = self._wildcard.get(name.partition(".")[2]) or self._exact.get(ANY_NAME)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """A socket that accepts clients. `forwarded=None` stands for the default of the whole configuration.

    `trusted_proxies`: what clients with these addresses say of the client before them (X-Forwarded-For and its kin) is
    believed; `filters` run before those of the route. `proxy_protocol` and `passthrough` come before everything else,
    TLS included.
    """

    name: str
    address: Address
    tls: TlsSettings | None = None
    forwarded: frozenset[Forwarded] | None = None
    encoded_slash: EncodedSlash = EncodedSlash.KEEP
    timeouts: ClientTimeouts = field(default_factory=ClientTimeouts)
    limits: ClientLimits = field(default_factory=ClientLimits)
    trusted_proxies: tuple[Network, ...] = ()
    filters: tuple[Filter, ...] = ()
    proxy_protocol: ProxySources | None = None
    passthrough: tuple[Passthrough, ...] = ()

    def __post_init__(self) -> None:
        check_name(self.name)
        self._check_sources()
        self._check_passthrough()
        for position, item in enumerate(self.filters):
            if not isinstance(item, ON_LISTENERS):
                raise ModelError.at(("filters", position), "a rewrite needs the match of a route: write it there")
        if Forwarded.CLIENT_CERT in (self.forwarded or ()) and (self.tls is None or self.tls.clients is None):
            raise ModelError.at("forwarded", "client-cert needs tls.clients: nobody is asked for a certificate here")
        if self.address.is_name:
            raise ModelError.at(
                "address", f"{self.address.host!r} is a name: a listener needs an IP address, for example 0.0.0.0"
            )

    @property
    def scheme(self) -> str:
        """What is spoken there: `http`, `https`, or `tls` where nothing but passthrough is served."""
        if self.tls is not None:
            return "https"
        return "tls" if self.passthrough else "http"

    def _check_sources(self) -> None:
        accepted = self.proxy_protocol
        if accepted is None:
            return
        if self.address.path is None and not accepted.sources:
            message = "nobody would be believed: list the load balancers, for example from: [10.0.0.0/8]"
            raise ModelError.at(("proxy_protocol", "from"), message)
        if self.address.path is not None and accepted.sources:
            message = "clients on a unix socket have no address: remove it, the mode of the file says who may connect"
            raise ModelError.at(("proxy_protocol", "from"), message)

    def _check_passthrough(self) -> None:
        taken: dict[str, int] = {}
        for position, item in enumerate(self.passthrough):
            for index, name in enumerate(item.names):
                where = ("passthrough", position, "names", index)
                first = taken.setdefault(name, position)
                if first != position:
                    raise ModelError.at(where, f"{name!r} goes to {self.passthrough[first].service!r} already")
                if name == ANY_NAME and self.tls is not None:
                    raise ModelError.at(where, "'*' leaves nothing for tls: remove one of the two")


class OffloadMode(Enum):
    """Whether the kernel tiers are used."""

    AUTO = "auto"
    REQUIRE = "require"
    NONE = "none"


class Hook(Enum):
    """Where the kernel program runs; AUTO takes XDP where the driver has it natively."""

    AUTO = "auto"
    XDP = "xdp"
    TC = "tc"


class Sysctls(Enum):
    """Whether rauta may change sysctls of the host."""

    NEVER = "never"
    ALLOW = "allow"


@dataclass(frozen=True, slots=True, kw_only=True)
class OffloadSettings:
    """The kernel tiers. `interfaces=None` means all Ethernet interfaces that are up."""

    mode: OffloadMode = OffloadMode.AUTO
    interfaces: tuple[str, ...] | None = None
    hook: Hook = Hook.AUTO
    sysctls: Sysctls = Sysctls.NEVER

    def __post_init__(self) -> None:
        if self.interfaces is not None and not self.interfaces:
            raise ModelError.at("interfaces", "the list is empty: name an interface or write auto")
        for position, name in enumerate(self.interfaces or ()):
            if not re.fullmatch(r"[^/\s]{1,15}", name):
                raise ModelError.at(("interfaces", position), f"{name!r} is not the name of a network interface")


class LogFormat(Enum):
    """Form of an access-log line: Common Log Format with additions, or one JSON object."""

    COMMON = "common"
    JSON = "json"


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessLog:
    """Where each request is logged. `to` is `stdout`, `stderr`, `off` or a file's path.

    With `require`, routes stay in tier 3: the kernel tiers write no log lines.
    """

    to: str = "stdout"
    format: LogFormat = LogFormat.COMMON
    require: bool = False

    def __post_init__(self) -> None:
        if not self.to:
            raise ModelError.at("to", "write stdout, stderr, off or the path of a file")
        if self.require and self.to == "off":
            raise ModelError.at("require", "the access log cannot be required and off")


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminSettings:
    """The admin interface. `socket`: the path of a unix socket (mode 0600) that takes commands. `address`: a TCP
    address for reading only; beyond loopback, or for commands, it needs `token`."""

    socket: str = defaults.ADMIN_SOCKET
    address: Address | None = None
    token: Secret | None = None

    def __post_init__(self) -> None:
        try:
            Address.unix(self.socket)
        except ModelError as error:
            raise ModelError.at("socket", error.problems[0].message) from None
        if self.address is None:
            return
        ip = self.address.ip
        if ip is None:
            raise ModelError.at(
                "address", f"{self.address}: write an IP address and a port, for example 127.0.0.1:9901"
            )
        if not ip.is_loopback and self.token is None:
            raise ModelError.at("token", f"{self.address} can be reached from other machines: give a token")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shutdown:
    """How the gateway stops, in seconds: from the failing of /readyz to the closing of the listeners, and from there
    until what is still in flight is cut."""

    delay: float = defaults.DRAIN_DELAY
    timeout: float = defaults.DRAIN_TIMEOUT

    def __post_init__(self) -> None:
        if not 0 <= self.delay <= 3600:
            raise ModelError.at("delay", f"{self.delay:g} s is out of range: 0 s to 1 h")
        check_duration("timeout", self.timeout)
