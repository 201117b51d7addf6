"""The accept stage: connections are looked at before anybody speaks on them, on listeners that want that (the PROXY
protocol of load balancers in front, TLS that goes through by its name). Others take the loop's own way, and pay
nothing.

Theory of operation. A Door accepts; each connection is an Arrival, on its raw socket, in one phase:

    HEADER --PROXY header, or none--> HELLO --name (SNI)--> LEFT: a Tunnel, TLS, HTTP, or a word of refusal
       |   \\--nothing is passed through--------------------^
       +--broken, not trusted, too slow, gone--> LEFT: closed

What is looked at stays in the kernel's buffer (MSG_PEEK), but for the header, which is taken to the byte: so whoever
gets the connection finds all of it from its beginning, and nobody has to be handed bytes. To be woken only when there
is more than what has been seen, the socket's low-water mark is set (SO_RCVLOWAT, socket(7)).

An Arrival is among its listener's connections until it has left, counts against their limit, and has the time of a head
for all of it. It holds the socket and at most a header.
"""

from __future__ import annotations

import asyncio
import errno
import select
import socket
from collections.abc import Callable
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final, cast

from rauta.proxy import clienthello, proxyprotocol
from rauta.proxy.clienthello import HANDSHAKE, ClientHelloError
from rauta.proxy.farewell import ALERT_UNRECOGNIZED_NAME, Farewell, is_plain_http, plain_on_tls
from rauta.proxy.handshake import Handshake
from rauta.proxy.http1.server import ServerConnection
from rauta.proxy.passthrough import Tunnel
from rauta.proxy.proxyprotocol import Origin, ProxyHeaderError
from rauta.proxy.reasons import BODIES
from rauta.proxy.wheel import Expiring
from rauta.routing.settings import Listener, PassedNames, ProxySources, Requirement

if TYPE_CHECKING:
    from rauta.proxy.dispatch import Dispatcher
    from rauta.proxy.handshake import Entry
    from rauta.proxy.proxyprotocol import Peer
    from rauta.proxy.shared import Shared

HEADER, HELLO, LEFT = range(3)

# Connections that one turn of the loop accepts, before those that are there already have theirs (some 50 us each).
ACCEPTS_PER_TURN: Final = 64
# Seconds without accepting once there are no descriptors or no memory; as asyncio's own servers.
OUT_OF_RESOURCES_PAUSE: Final = 1.0
# Where the low-water mark does not help (unix sockets), what is incomplete is looked at again in so many seconds.
LOOK_AGAIN: Final = 0.02

_MUST, _MAY, _MUST_NOT = range(3)


class Stage:
    """The rules of one listener, as they are at each moment, and what all its arrivals share."""

    __slots__ = ("dispatcher", "entry", "passed", "proxies", "shared")

    def __init__(self, dispatcher: Dispatcher, shared: Shared) -> None:
        self.dispatcher = dispatcher
        self.shared = shared
        self.swap(dispatcher.listener, None)

    @staticmethod
    def wanted(listener: Listener) -> bool:
        """Whether a listener's connections have to be looked at."""
        return listener.proxy_protocol is not None or bool(listener.passthrough)

    def swap(self, listener: Listener, entry: Entry | None) -> None:
        """Judge by these from now on. `entry` is the one to TLS."""
        self.entry = entry
        self.proxies: ProxySources | None = listener.proxy_protocol
        self.passed = PassedNames(listener.passthrough) if listener.passthrough else None

    def owes(self, peer: Peer) -> int:
        """Whether who has connected must, may or must not begin with a PROXY header."""
        proxies = self.proxies
        if proxies is None:
            return _MUST_NOT
        if peer[0]:
            address = ip_address(peer[0].partition("%")[0])
            if not any(address in network for network in proxies.sources):
                return _MUST_NOT
        return _MAY if proxies.mode is Requirement.OPTIONAL else _MUST


class Door:
    """Accepts at one listening socket."""

    def __init__(self, stage: Stage, sock: socket.socket, backlog: int) -> None:
        self._stage = stage
        self._sock = sock
        self._loop = stage.shared.loop
        self._pause: asyncio.TimerHandle | None = None
        sock.setblocking(False)
        sock.listen(backlog)
        self._loop.add_reader(sock, self._ready)

    def close(self) -> None:
        """Stop accepting; what has arrived goes on."""
        if self._pause is not None:
            self._pause.cancel()
        elif self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock)
        self._sock.close()

    def _ready(self) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            try:
                sock, peer = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return  # another worker was quicker, or the client has left
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    raise
                self._out_of_resources(error)
                return
            self._take(sock, peer)

    def _take(self, sock: socket.socket, peer: Any) -> None:
        dispatcher = self._stage.dispatcher
        client = (str(peer[0]), int(peer[1])) if isinstance(peer, tuple) else ("", 0)  # of a unix socket: a path
        if dispatcher.full:
            dispatcher.refused(client, "too_many_connections", "the listener's limits.connections is reached")
            sock.close()
            return
        if dispatcher.metrics is not None:
            dispatcher.metrics.accepted(dispatcher.listener.name)
        sock.setblocking(False)
        Arrival(self._stage, sock, client).begin()

    def _out_of_resources(self, error: OSError) -> None:
        self._loop.call_exception_handler({"message": "no connection can be accepted", "exception": error})
        self._loop.remove_reader(self._sock)
        self._pause = self._loop.call_later(OUT_OF_RESOURCES_PAUSE, self._resume)

    def _resume(self) -> None:
        self._pause = None
        self._loop.add_reader(self._sock, self._ready)


class Arrival(Expiring):
    """A connection that nobody speaks on yet. See the module's text."""

    __slots__ = ("_again", "_grace", "_header", "_owes", "_origin", "_phase", "_seen", "_sock", "_spoke", "_stage",
                 "_started", "_task", "_wanted", "_watched", "client")  # fmt: skip

    def __init__(self, stage: Stage, sock: socket.socket, peer: Peer) -> None:
        super().__init__()
        self.client = peer
        self._stage = stage
        self._sock = sock
        self._owes = stage.owes(peer)
        self._phase = HEADER if stage.proxies is not None else HELLO
        self._header = b""  # what has been taken of it
        self._spoke = False  # a header, or a part of it, was taken
        self._origin: Origin | None = None
        self._seen = 0  # bytes that wait in the kernel
        self._wanted = 1  # the low-water mark
        self._watched = False
        self._again: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._started = False
        self._grace: float | None = None  # draining

    def begin(self) -> None:
        """Look at what has come, and at what will."""
        dispatcher = self._stage.dispatcher
        dispatcher.connections.add(self)
        dispatcher.wheel.arm(self, dispatcher.listener.timeouts.head)
        self._look()

    # --- FromClient ---

    def drain(self, grace: float) -> None:
        """What has begun goes on, and is told by whoever gets it; who has said nothing is given `grace` seconds."""
        self._grace = grace
        if self._phase != LEFT and not self._begun:
            if grace:
                self._stage.dispatcher.wheel.arm(self, grace)
            else:
                self._close()

    def kill(self) -> None:
        """The time to drain is over."""
        if self._task is not None:
            self._task.cancel()
        else:
            self._close()

    # --- wheel.Expiring ---

    def expired(self) -> None:
        if self._begun:
            seconds = self._stage.dispatcher.listener.timeouts.head
            what = "PROXY header" if self._phase == HEADER else "ClientHello"
            self._refuse("head_timeout", f"no complete {what} within {seconds:g} s")
        else:
            self._close()

    # --- looking ---

    @property
    def _begun(self) -> bool:
        return self._spoke or self._seen > 0

    def _look(self) -> None:
        """Go as far as what has come leads."""
        self._again = None
        ended_at = -1
        while self._phase != LEFT:
            try:
                data = self._sock.recv(clienthello.MAX_HELLO, socket.MSG_PEEK)
            except (BlockingIOError, InterruptedError):
                self._seen = 0
                self._wait(1)
                return
            except OSError:  # reset
                self._close()
                return
            self._seen = len(data)
            if not data or len(data) == ended_at:
                self._cut_short()
                return
            try:
                wanted = self._take_header(data) if self._phase == HEADER else self._take_hello(data)
            except ProxyHeaderError as error:
                self._refuse("bad_proxy_header", str(error))
                return
            except ClientHelloError as error:
                self._refuse("bad_client_hello", str(error))
                return
            if wanted:
                if not _at_end(self._sock):
                    self._wait(wanted)
                    return
                ended_at = len(data)  # unless more has come with the end: look once more

    def _cut_short(self) -> None:
        if not self._begun:
            self._close()
        elif self._phase == HEADER:
            self._refuse("bad_proxy_header", "the connection ended in the header")
        else:
            self._refuse("bad_client_hello", "the connection ended in the ClientHello")

    def _take_header(self, data: bytes) -> int:
        """Take what there is of the header; how many bytes there must be for more to be known, or 0: look again."""
        whole = self._header + data
        if self._owes != _MUST:
            known = proxyprotocol.begins(whole)
            if known is None:
                return len(data) + 1
            if not known:
                self._next()
                return 0
            if self._owes == _MUST_NOT:
                raise ProxyHeaderError("a PROXY header of a client that proxy_protocol.from does not list")
        found = proxyprotocol.decode(whole)
        if found is None:
            self._sock.recv(len(data))
            self._header, self._spoke, self._seen = whole, True, 0
            return 0
        self._sock.recv(found.size - len(self._header))
        self._header, self._spoke, self._seen = b"", True, 0
        if found.origin is not None:
            self._origin = found.origin
            self.client = found.origin.client
        self._next()
        return 0

    def _next(self) -> None:
        if self._stage.passed is not None:
            self._phase = HELLO
        else:
            self._admit()

    def _take_hello(self, data: bytes) -> int:
        """See where the connection is meant to go; as `_take_header`."""
        stage = self._stage
        if data[0] != HANDSHAKE:
            if is_plain_http(data):
                size = len(BODIES["plain_on_tls"])
                stage.dispatcher.refused(self.client, "plain_on_tls", "the connection began with HTTP", bytes_sent=size)
                self._bid_farewell(plain_on_tls())
            elif stage.entry is not None:
                self._admit()  # OpenSSL knows what to say to it
            else:
                raise ClientHelloError("not a TLS handshake")
            return 0
        name = clienthello.read(data)
        if isinstance(name, int):
            return name
        service = None if stage.passed is None else stage.passed.service_of(name)
        if service is not None:
            self._leave()
            tunnel = Tunnel(stage.dispatcher, stage.shared, self._sock, self.client, self._origin, name, service)
            stage.dispatcher.connections.discard(self)
            tunnel.begin()
        elif stage.entry is not None:
            self._admit()
        else:
            detail = f"nothing is passed through for {name!r}" if name else "the client asks for no name (SNI)"
            stage.dispatcher.refused(self.client, "unknown_host", detail)
            self._bid_farewell(ALERT_UNRECOGNIZED_NAME)
        return 0

    # --- waiting ---

    def _wait(self, wanted: int) -> None:
        """Look again when so many bytes have come, or the end."""
        loop = self._stage.dispatcher.loop
        if wanted > 1 and wanted == self._wanted:
            self._unwatch()  # woken too early: it would be so again at once
            self._again = loop.call_later(LOOK_AGAIN, self._look)
            return
        if wanted != self._wanted:
            self._wanted = wanted
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, wanted)
        if not self._watched:
            self._watched = True
            loop.add_reader(self._sock, self._look)

    def _unwatch(self) -> None:
        if self._watched:
            self._watched = False
            self._stage.dispatcher.loop.remove_reader(self._sock)
        if self._again is not None:
            self._again.cancel()
            self._again = None

    # --- leaving ---

    def _admit(self) -> None:
        """To TLS, or to HTTP."""
        stage = self._stage
        dispatcher, entry = stage.dispatcher, stage.entry
        scheme, shake = ("http", None) if entry is None else ("https", Handshake())
        connection = ServerConnection(dispatcher, dispatcher.connections, scheme, shake, self._origin)
        self._pass_to(lambda: cast(asyncio.Protocol, connection), entry)  # one by its methods

    def _bid_farewell(self, words: bytes) -> None:
        farewell = Farewell(self._stage.dispatcher, words)
        self._pass_to(lambda: cast(asyncio.Protocol, farewell), None)

    def _pass_to(self, protocol: Callable[[], asyncio.Protocol], entry: Entry | None) -> None:
        self._leave()
        self._task = self._stage.shared.tasks.start(self._connect(protocol, entry), name="arrival")
        self._task.add_done_callback(self._gone)

    async def _connect(self, protocol: Callable[[], asyncio.Protocol], entry: Entry | None) -> None:
        self._started = True
        timeout = None if entry is None else self._stage.dispatcher.listener.timeouts.head
        try:
            transport, _ = await self._stage.dispatcher.loop.connect_accepted_socket(
                protocol, self._sock, ssl=entry, ssl_handshake_timeout=timeout
            )
        except OSError:  # of TLS, too: a handshake that failed is told by who knows why
            self._sock.close()
            return
        if self._grace is not None:
            cast(Any, transport.get_protocol()).drain(self._grace)

    def _gone(self, _: asyncio.Task[None]) -> None:
        self._stage.dispatcher.connections.discard(self)
        if not self._started:  # cancelled before its first step
            self._sock.close()

    def _leave(self) -> None:
        """Nothing is looked at any more; the socket is as it was accepted."""
        self._phase = LEFT
        self._unwatch()
        self._stage.dispatcher.wheel.forget(self)
        if self._wanted > 1:
            self._wanted = 1
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)

    def _refuse(self, reason: str, detail: str) -> None:
        self._stage.dispatcher.refused(self.client, reason, detail)
        self._close()

    def _close(self) -> None:
        self._leave()
        self._stage.dispatcher.connections.discard(self)
        self._sock.close()


def _at_end(sock: socket.socket) -> bool:
    """Whether the client sends no more; what has come may be unread."""
    poll = select.poll()
    poll.register(sock, select.POLLRDHUP)
    return bool(poll.poll(0))
