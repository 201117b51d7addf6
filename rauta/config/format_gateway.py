"""The file format: listeners, TLS, kernel tiers, access log, admin interface, shutdown."""

from __future__ import annotations

from typing import Final

from rauta.config.addresses import AddressText, NetworkText
from rauta.config.composite import Either, ListOf
from rauta.config.format_common import FORWARDED, NAME
from rauta.config.format_filters import FILTERS
from rauta.config.format_tls import CERTIFICATE, SECRET
from rauta.config.paths import FilePath, LogTarget
from rauta.config.scalars import Boolean, Choice, Duration, Integer, Size, Text, Word
from rauta.config.schema import Field, Object, switched
from rauta.routing import settings

_LISTEN: Final = r"^(?:\[[0-9A-Fa-f:.]+\]|[0-9.]*):[0-9]{1,5}$"
_ADMIN_ADDRESS: Final = r"^(?:\[[0-9A-Fa-f:.]+\]|[0-9.]+):[0-9]{1,5}$"


def _listen_address(text: str) -> settings.Address:
    return settings.Address.parse(text, any_host="0.0.0.0")


_clients = Object(
    name="client certificates",
    doc="Certificates that clients have to show, whatever name they ask for.",
    fields=(
        Field(
            key="ca",
            type=FilePath(),
            doc="PEM file with the certificates of those who sign clients' ones; relative to this file.",
            example="clients-ca.crt",
        ),
        Field(
            key="mode",
            type=Choice(settings.Requirement),
            doc="`require`, or `optional`: who has none is served all the same. A bad one is always refused.",
            example="optional",
        ),
        Field(
            key="crl",
            type=FilePath(meant=switched("FILE")),
            doc="PEM file with the lists of what these have revoked (CRL), one of each CA; relative to this file.",
            example="clients.crl",
            absent="whatever was revoked counts",
        ),
    ),
    model=settings.ClientCertificates,
    hints={"crl_file": "write crl"},
    instead="{ca: %s}",
    meant=switched("{ca: FILE}"),
)

_CERTIFICATES: Final = "[{cert: FILE, key: {file: FILE}}]"

_tls = Object(
    name="tls",
    doc="TLS termination.",
    fields=(
        Field(
            key="certificates",
            type=ListOf(
                CERTIFICATE,
                empty="TLS needs a certificate",
                instead={"{}": _CERTIFICATES, "%s": "[{cert: %s, key: {file: FILE}}]"},
            ),
            doc="The certificates. A client gets the first that covers the name it asks for (SNI), else the first.",
            example="[{cert: tls.crt, key: {file: tls.key}}]",
        ),
        Field(
            key="clients",
            type=_clients,
            doc="Ask clients for certificates.",
            example="{ca: clients-ca.crt}",
            absent="clients are not asked",
        ),
    ),
    model=settings.TlsSettings,
    instead="{certificates: [{cert: %s, key: {file: FILE}}]}",
    meant=switched(f"{{certificates: {_CERTIFICATES}}}", **{"[]": f"{{certificates: {_CERTIFICATES}}}"}),
    hints=dict.fromkeys(
        ("cert", "key", "certificate", "cert_file", "key_file", "private_key"), f"write certificates: {_CERTIFICATES}"
    ),
)

_client_timeouts = Object(
    name="client timeouts",
    doc="Time-outs towards clients: 1 ms to 24 h.",
    fields=(
        Field(key="head", type=Duration(), doc="From the first byte of a request's head to its end.", example="15s"),
        Field(key="idle", type=Duration(), doc="Without a request on a kept-alive connection.", example="1m15s"),
    ),
    model=settings.ClientTimeouts,
    share=True,
)

_client_limits = Object(
    name="client limits",
    doc="Limits on clients.",
    fields=(
        Field(key="head", type=Size(), doc="Request line and header fields together: 1 KiB to 1 MiB.", example="32KiB"),
        Field(
            key="connections",
            type=Integer(least=1, most=1_000_000),
            doc="Connections at a time, in each worker; more are closed at once.",
            example="10000",
        ),
    ),
    model=settings.ClientLimits,
    share=True,
)

_BALANCERS: Final = '{from: ["10.0.0.0/8"]}'

_sources = Object(
    name="proxy sources",
    doc="Who says by a header of the PROXY protocol, version 1 or 2, whose connection it is.",
    fields=(
        Field(
            key="from",
            attribute="sources",
            type=ListOf(NetworkText(), empty="nobody would be believed", unique=True, share=True),
            doc="Load balancers, by network or address. They must send a header; one from anybody else is refused. Not "
            "for unix sockets: who may connect is believed.",
            example='["10.0.0.0/8", "2001:db8::7"]',
            absent="required, unless the address is a unix socket",
        ),
        Field(
            key="mode",
            type=Choice(settings.Requirement),
            doc="`require`, or `optional`: they may also connect without a header, as for themselves. A bad one is "
            "always refused.",
            example="optional",
        ),
    ),
    model=settings.ProxySources,
    instead="{from: [%s]}",
    meant=switched(_BALANCERS, v1=_BALANCERS, v2=_BALANCERS, **{"[]": "{from: [...]}"}),
)

_passthrough = Object(
    name="passthrough",
    doc="TLS that is not terminated, by the name that the client asks for (SNI).",
    fields=(
        Field(
            key="names",
            type=ListOf(Text("a host name"), empty="nothing would go through"),
            doc="`db.example.com`; `*.example.com`, which stands for one label; `*` for what nothing else claims, also "
            "without a name. They come before the names of certificates.",
            example='[db.example.com, "*.internal.example.com"]',
        ),
        Field(key="service", type=NAME, doc="The service that gets the connection as it is.", example="db"),
    ),
    model=settings.Passthrough,
)

_PASSED: Final = "[{names: [db.example.com], service: db}]"

LISTENER: Final = Object(
    name="listener",
    doc="An address where clients are accepted.",
    fields=(
        Field(
            key="address",
            type=AddressText("an address such as 0.0.0.0:8080", _listen_address, pattern=_LISTEN),
            doc='IP address and port. `:8080` means all IPv4 addresses, `"[::]:8080"` all IPv6 ones. `unix:PATH` is a '
            "unix socket, relative to this file.",
            example='"0.0.0.0:8080"',
        ),
        Field(
            key="tls",
            type=_tls,
            doc="TLS termination.",
            example="{certificates: [{cert: tls.crt, key: {env: KEY}}]}",
            absent="plain HTTP",
        ),
        Field(
            key="forwarded",
            type=FORWARDED,
            doc="Fields that tell backends about the client. `[]` adds none; those "
            "that clients send are always removed.",
            example="[x-forwarded-for, x-forwarded-proto]",
            absent="the three x-forwarded fields; none on plain listeners of a file with offload",
        ),
        Field(
            key="trusted_proxies",
            type=ListOf(NetworkText(), unique=True, share=True),
            doc="Clients that are proxies of ours, by network or address: what their X-Forwarded-For, -Proto and -Host "
            "say of the client before them is believed. With any, so are clients on a unix socket.",
            example='["10.0.0.0/8", "2001:db8::7"]',
            absent="none",
        ),
        Field(
            key="proxy_protocol",
            type=_sources,
            doc="Load balancers that tell the client's address before TLS and HTTP.",
            example='{from: ["10.0.0.0/8"]}',
            absent="none",
        ),
        Field(
            key="passthrough",
            type=ListOf(
                _passthrough, instead=switched(_PASSED, **{"{}": _PASSED, "%s": "[{names: [HOST], service: %s}]"})
            ),
            doc="Connections of TLS that go to a service as they are. Without `tls` the others are refused.",
            example=_PASSED,
            absent="none",
        ),
        Field(
            key="filters",
            type=FILTERS,
            doc="Changes of the requests and responses of all its routes, in order, before the filters of the route. "
            "No rewrite.",
            example="[{request_id: {}}]",
            absent="none",
        ),
        Field(
            key="encoded_slash",
            type=Choice(settings.EncodedSlash),
            doc="Paths with `%2F` or `%5C`: keep them, encoded and opaque, or reject them with 400.",
            example="reject",
        ),
        Field(key="timeouts", type=_client_timeouts, doc="Time-outs towards clients.", example="{head: 10s}"),
        Field(key="limits", type=_client_limits, doc="Limits on clients.", example="{head: 32KiB}"),
    ),
    model=settings.Listener,
    hints={
        **dict.fromkeys(
            ("http2", "h2", "alpn"), "HTTP/2 needs no key: with tls it is offered, without it is understood"
        ),
        **dict.fromkeys(("certificates", "certificate", "ssl"), f"write tls: {{certificates: {_CERTIFICATES}}}"),
        **dict.fromkeys(
            ("protocol", "protocols"),
            f"every listener speaks HTTP/1.1 and HTTP/2; for HTTPS write tls: {{certificates: {_CERTIFICATES}}}",
        ),
        "rewrite": "write filters: [{rewrite: ...}] on the route",
        "request_id": "write filters: [{request_id: {}}]",
    },
    instead="{address: '%s'}",
)

OFFLOAD: Final = Object(
    name="offload",
    doc="The kernel tiers. `{}` turns them on with the defaults; without the section they are off.",
    fields=(
        Field(
            key="mode",
            type=Choice(settings.OffloadMode),
            doc="`auto`: use the kernel if it can; `require`: fail if it cannot; `none`.",
            example="require",
        ),
        Field(
            key="interfaces",
            type=Either(Word("auto", None), ListOf(Text("an interface name"), empty="name an interface or write auto")),
            doc="Network interfaces. `auto`: all Ethernet interfaces that are up.",
            example="[eth0]",
            absent="auto",
        ),
        Field(
            key="hook",
            type=Choice(settings.Hook),
            doc="Where the program runs. `auto`: XDP where the driver has it natively, TC elsewhere.",
            example="tc",
        ),
        Field(
            key="sysctls",
            type=Choice(settings.Sysctls),
            doc="Whether rauta may change sysctls of the host.",
            example="allow",
        ),
    ),
    model=settings.OffloadSettings,
)

ACCESS_LOG: Final = Object(
    name="access log",
    doc="One line per request that tier 3 serves; the kernel tiers write none.",
    fields=(
        Field(
            key="to",
            type=LogTarget(),
            doc="`stdout`, `stderr`, `off`, or a file, relative to this one.",
            example="/var/log/rauta/access.log",
        ),
        Field(
            key="format",
            type=Choice(settings.LogFormat),
            doc="Common Log Format with additions, or a JSON object per line.",
            example="json",
        ),
        Field(
            key="require",
            type=Boolean(),
            doc="Keep all routes in tier 3, so that every request has a line.",
            example="true",
        ),
    ),
    model=settings.AccessLog,
)

ADMIN: Final = Object(
    name="admin",
    doc="The admin interface: commands, state and metrics. `{}` turns it on with the defaults; without the section "
    "there is none.",
    fields=(
        Field(
            key="socket",
            type=FilePath(),
            doc="A unix socket for the user that rauta runs as (mode 0600), relative to this file: it takes commands.",
            example="run/admin.sock",
        ),
        Field(
            key="address",
            type=AddressText("an address such as 127.0.0.1:9901", settings.Address.parse, pattern=_ADMIN_ADDRESS),
            doc="IP address and port, for reading. Beyond loopback it needs `token`.",
            example='"127.0.0.1:9901"',
            absent="none",
        ),
        Field(
            key="token",
            type=SECRET,
            doc="What a client on `address` shows (`Authorization: Bearer ...`) to give commands, and beyond loopback "
            "also to read: 16 characters or more.",
            example="{file: admin.token}",
            absent="no commands on `address`",
        ),
    ),
    model=settings.AdminSettings,
    meant=switched("{}"),
)

SHUTDOWN: Final = Object(
    name="shutdown",
    doc="How the gateway stops.",
    fields=(
        Field(
            key="delay",
            type=Duration(),
            doc="From the failing of `/readyz` until connections are refused, for load balancers in front to notice: "
            "0s to 1h.",
            example="5s",
        ),
        Field(
            key="timeout",
            type=Duration(),
            doc="From there until what is still in flight is cut: 1 ms to 24 h.",
            example="55s",
        ),
    ),
    model=settings.Shutdown,
)
