"""The request that `explain` is about, from the command line to what routing sees of it.

It is the request that curl would send with the same arguments: a full URL gives the listener's scheme and port,
the target in origin form, and the Host field unless -H has one.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

from rauta.ctl.errors import ControlError
from rauta.routing.errors import RequestError
from rauta.routing.hosts import is_address
from rauta.routing.model import Configuration
from rauta.routing.request import FieldList, RequestView, host_of, parse_target
from rauta.routing.settings import EncodedSlash, Listener

_URL: Final = re.compile(r"(?P<scheme>[Hh][Tt][Tt][Pp][Ss]?)://(?P<authority>[^/?#]*)(?P<target>.*)", re.DOTALL)
_WEBSOCKET: Final = re.compile(r"[Ww][Ss]([Ss]?)://")  # RFC 6455 3
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 5.6.2
_PORT: Final = re.compile(r":([0-9]{1,5})\Z")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
DEFAULT_CLIENT: Final = ("127.0.0.1", 0)
DEFAULT_HOST: Final = "localhost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A request by its parts. `scheme`, `authority` and `port` are those of the URL, None where it was a path (a
    port that nobody gave is the scheme's); a `host` that nobody gave is DEFAULT_HOST."""

    method: str
    target: str
    hosts: tuple[str, ...]
    host_given: bool
    headers: tuple[tuple[str, str], ...]
    client: tuple[str, int]
    client_given: bool
    scheme: str | None
    authority: str | None
    port: int | None
    port_given: bool
    listener: str | None

    @classmethod
    def parse(
        cls, method: str, url: str, headers: list[str], *, client: str | None = None, listener: str | None = None
    ) -> Probe:
        """From the arguments of the command line. Raises ControlError for what no client could send."""
        if not _TOKEN.fullmatch(method):
            raise ControlError(f"{method!r} is not a method: write GET, POST, ...")
        fields = tuple(_header(text) for text in headers)
        hosts = tuple(value for name, value in fields if name.lower() == "host")
        scheme = authority = port = explicit = None
        target = url
        found = _URL.fullmatch(url)
        if found is not None:
            scheme, authority = found["scheme"].lower(), found["authority"]
            if not authority or "@" in authority:
                raise ControlError(f"{url!r}: write a URL with a host and without a user, like http://127.0.0.1:8080/")
            explicit = _PORT.search(authority)
            port = int(explicit[1]) if explicit else _DEFAULT_PORTS[scheme]
            hosts = hosts or (authority,)
            target = found["target"] if found["target"].startswith("/") else f"/{found['target']}"
        elif websocket := _WEBSOCKET.match(url):
            scheme = "https" if websocket[1] else "http"
            raise ControlError(f"{url!r}: a WebSocket begins as a request: write {scheme}://{url[websocket.end() :]}")
        elif not url.startswith("/") and url != "*":
            raise ControlError(f"{url!r} is neither a path like /users nor a URL like http://127.0.0.1:8080/users")
        return cls(
            method=method,
            target=target,
            hosts=hosts or (DEFAULT_HOST,),
            host_given=bool(hosts),
            headers=fields,
            client=DEFAULT_CLIENT if client is None else _client(client),
            client_given=client is not None,
            scheme=scheme,
            authority=authority,
            port=port,
            port_given=explicit is not None,
            listener=listener,
        )

    @property
    def server_name(self) -> str:
        """What the client asks for where there is TLS (SNI): the URL's host, whatever -H says, or of a path that of
        Host. "": for nothing, since it is an address (RFC 6066 3), or no host at all."""
        try:
            host = host_of(None, self.hosts if self.authority is None else (self.authority,))
        except RequestError:
            return ""
        return "" if is_address(host) else host

    def is_tls(self, listener: Listener) -> bool:
        """Whether the client speaks TLS to a listener. One that does as the listener wants is taken to, unless the URL
        says by its port that it is this listener, and by its scheme that the client does not."""
        if self.scheme is None or not self.names_port(listener):
            return listener.scheme != "http"
        return self.scheme == "https"

    def names_port(self, listener: Listener) -> bool:
        """Whether the URL has the listener's port, written out."""
        return self.port_given and listener.address.port == self.port

    def request(self, listener: Listener) -> RequestView:
        """What routing sees of the request. Raises RequestError where a client is answered 400 instead."""
        host = host_of(None, self.hosts)
        reject = listener.encoded_slash is EncodedSlash.REJECT
        target = parse_target(self.method, self.target, reject_encoded_slash=reject)
        return RequestView(
            method=self.method,
            host=host,
            path=target.path,
            query=target.query,
            headers=FieldList(self.headers or (("host", self.hosts[0]),)),
            client=self.client,
        )


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not _TOKEN.fullmatch(name):
        raise ControlError(f"-H {text!r}: write 'Name: value'")
    # A client sends bytes, and fields are compared as Latin-1; the terminal's bytes are most often UTF-8.
    return name, value.strip(" \t").encode("utf-8", "surrogateescape").decode("latin-1")


def _client(text: str) -> tuple[str, int]:
    """`ADDR`, `ADDR:PORT`, `[IPv6]` or `[IPv6]:PORT`; without a port it is 0."""
    host, port = text, 0
    found = _PORT.search(text)
    if found is not None and (text.count(":") == 1 or text.startswith("[")):
        host, port = text[: found.start()], int(found[1])
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise ControlError(f"--client {text!r}: write an IP address and a port, like 192.0.2.7:40000") from None
    if port > 65535:
        raise ControlError(f"--client {text!r}: port {port} is out of range: 0 to 65535")
    return str(address), port


def choose_listener(configuration: Configuration, probe: Probe) -> tuple[Listener, str]:
    """The listener that the request would reach, and by what it was chosen. Raises ControlError if it is not clear."""
    listeners = configuration.listeners
    if probe.listener is not None:
        for listener in listeners:
            if listener.name == probe.listener:
                return listener, "as asked"
        known = ", ".join(listener.name for listener in listeners)
        raise ControlError(f"there is no listener {probe.listener!r}; known: {known}")
    if len(listeners) == 1:
        return listeners[0], "the only one"
    if probe.scheme is None:
        return _by_host_field(listeners, probe)
    named = [listener for listener in listeners if probe.names_port(listener)]
    if len(named) == 1:
        return named[0], f"by port {probe.port}"
    fitting = [listener for listener in listeners if (listener.scheme != "http") == (probe.scheme == "https")]
    with_port = [listener for listener in fitting if listener.address.port == probe.port]
    if len(with_port) == 1:
        return with_port[0], f"by scheme {probe.scheme} and port {probe.port}"
    if len(fitting) == 1:
        return fitting[0], f"the only one for {probe.scheme}"
    choices = with_port or fitting or listeners
    names = ", ".join(f"{listener.name} ({listener.address})" for listener in choices)
    raise ControlError(f"--listener is needed: {probe.scheme} on port {probe.port} could be for {names}")


def _by_host_field(listeners: tuple[Listener, ...], probe: Probe) -> tuple[Listener, str]:
    found = _PORT.search(probe.hosts[0])
    if found is not None:
        with_port = [listener for listener in listeners if listener.address.port == int(found[1])]
        if len(with_port) == 1:
            return with_port[0], f"by the port of Host, {found[1]}"
    return listeners[0], f"the first of {len(listeners)}; --listener names another"


__all__ = ["DEFAULT_CLIENT", "DEFAULT_HOST", "Probe", "RequestError", "choose_listener"]
