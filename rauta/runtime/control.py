"""What supervisor and workers say to each other, over one socket pair per worker.

A frame is one byte (the kind of its payload), four bytes (the length, network order) and the payload.

* Supervisor to worker: first one Setup, pickled; then messages, JSON, and Changes, pickled. Setup and Change hold the
  keys of certificates; nothing else does. The agent gets AgentSetups and Readings, pickled too, with no key but those
  that backends ask for in health checks.
* Worker to supervisor: messages, JSON only. A worker parses what strangers send; should it be taken over, it
  must not be able to run code in the supervisor, so the supervisor never unpickles what comes from there.
* A program that embeds the gateway has started the supervisor, and sends it Wanted, pickled, and messages; it gets
  messages (see `program`).

The life of a worker, as messages:  Setup -> Prepared -> Commit -> Ready -> (Drain | Draining) -> Drained.
Failed takes the place of Prepared or Ready. A reload, any number of them between Ready and the end:
Change -> Built -> Apply -> Applied, or Drop. Descriptors that a worker gets while it runs come over a second socket
pair, as SCM_RIGHTS, before the message that tells of them. Either side takes the end of the stream for the other's
death.
"""

from __future__ import annotations

import asyncio
import json
import pickle
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from rauta.routing.errors import RautaError
from rauta.runtime.errors import StartError

if TYPE_CHECKING:
    import socket

    from rauta.config.revocation import RevocationList
    from rauta.config.x509 import Facts
    from rauta.offload import Counters
    from rauta.routing.model import Configuration
    from rauta.routing.settings import Address
    from rauta.runtime.backend_credentials import BackendCredentials
    from rauta.runtime.credentials import Credentials

T = TypeVar("T")
_HEADER: Final = struct.Struct("!cI")
_JSON: Final = b"J"
_PICKLE: Final = b"P"
MESSAGE_LIMIT: Final = 1024 * 1024  # the longest message names all backends of a service
MESSAGE_TEXT_LIMIT: Final = 8 * 1024  # characters of each text of a Failed; JSON escapes make at most 6 bytes of one
MESSAGE_ROUTES_LIMIT: Final = 8  # texts of routes; the others are counted
MESSAGE_WARNINGS_LIMIT: Final = 50  # texts of a Result, as many as errors of a file; the others are counted
MESSAGE_WARNING_LIMIT: Final = 2 * 1024  # characters of each


class ControlError(RautaError):
    """The peer sent something that is no message. The connection is of no use any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What every worker is built from. `access_log` is the descriptor that it inherits for its lines."""

    configuration: Configuration
    access_log: int | None
    credentials: Credentials = field(default_factory=dict)
    backend_credentials: BackendCredentials = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What a worker that serves is to serve from now on: a generation of the configuration.

    `opened` are the addresses that it has no socket for: these come as descriptors, in that order, and behind them one
    for the access log if `access_log` is true. Generations rise; the number of one that failed does not come again.

    The configuration is pickled by itself: unpickling it imports plugins, which may fail, and the rest must be known
    even then.
    """

    generation: int
    configuration: bytes
    opened: tuple[Address, ...]
    access_log: bool
    credentials: Credentials = field(default_factory=dict)
    backend_credentials: BackendCredentials = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Program that embeds a gateway: serve this from now on. Answered by a Result with the same number; the first, by a
    Status that says ready. `configuration` is pickled by itself, as that of a Change; `name` is for people; `sockets`,
    of the first, are inherited descriptors by the name of their listener."""

    number: int
    configuration: bytes
    name: str
    sockets: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """Program that embeds a gateway: nobody waits for this Wanted any more. One that waits for its turn is not served;
    one that has begun is. Its Result comes in any case."""

    number: int


@dataclass(frozen=True, slots=True)
class Built:
    """Worker: the generation can be applied; or not, and why (the text is for the operator, or one for each of several
    `routes`)."""

    generation: int
    problem: str
    routes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Apply:
    """Supervisor: all workers have built the generation; serve it."""

    generation: int


@dataclass(frozen=True, slots=True)
class Drop:
    """Supervisor: forget the generation, another worker could not build it."""

    generation: int


@dataclass(frozen=True, slots=True)
class Applied:
    """Worker: every request from here on obeys the generation."""

    generation: int


@dataclass(frozen=True, slots=True)
class Reopen:
    """Supervisor: a new descriptor for the access log has been sent; the old one is to be closed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSetup:
    """What the agent works for; a new one with each generation. `token` is that of the admin interface, for which also
    what the certificates say is there, by listener and in order, and the revocation lists for its clients;
    `backend_credentials` are for health checks by TLS."""

    generation: int
    configuration: Configuration
    token: str | None = None
    backend_credentials: BackendCredentials = field(default_factory=dict)
    certificates: Mapping[str, tuple[Facts, ...]] = field(default_factory=dict)
    revocation_lists: Mapping[str, tuple[RevocationList, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Health:
    """Agent, passed on to the workers: these backends of a service (addresses as configured) must get no requests."""

    service: str
    down: list[str]


@dataclass(frozen=True, slots=True)
class Names:
    """Agent, passed on to the workers: the literal addresses that the host of a backend has now."""

    host: str
    addresses: list[str]


@dataclass(frozen=True, slots=True)
class Command:
    """Agent: somebody who may do so wants `reload`, `reopen`, `drain` or `detach`. Answered by a Result with the same
    number."""

    number: int
    name: str


@dataclass(frozen=True, slots=True)
class Result:
    """Supervisor: how a Command ended; the text is for the operator. `warnings` are those of the file, of a reload."""

    number: int
    ok: bool
    text: str
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Status:
    """Supervisor: the state of the processes, whenever it changes; the keys are those of /v1/status."""

    status: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Counted:
    """Supervisor, to the program that embeds the gateway: requests that the kernel has answered since it started. Keys
    are names of listener, route and service, status and tier, separated by spaces; those that are not there have not
    changed."""

    requests: dict[str, int]


@dataclass(frozen=True, slots=True)
class Look:
    """Agent: what does the offload count and hold? Answered by a Reading; those that come while one is made, by that
    one."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Supervisor: what the offload had counted and held at `time` (Unix). Pickled: it may have thousands of rows."""

    time: float
    counters: Counters


@dataclass(frozen=True, slots=True)
class Prepared:
    """Worker: everything is built, nothing is served yet."""


@dataclass(frozen=True, slots=True)
class Commit:
    """Supervisor: all workers are prepared and the sockets listen; serve."""


@dataclass(frozen=True, slots=True)
class Ready:
    """Worker: accepting connections."""


@dataclass(frozen=True, slots=True)
class Failed:
    """Worker: this cannot be served; the text is for the operator, or one for each of several `routes`. The worker
    exits."""

    message: str
    routes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Drain:
    """Supervisor: stop accepting, finish what is in flight within `timeout` seconds (0: at once), exit. Connections
    that are idle are kept for `idle` seconds, for a request that may be on its way."""

    timeout: float
    idle: float


@dataclass(frozen=True, slots=True)
class Draining:
    """Worker: it was told by a signal to leave, so its successor can start."""


@dataclass(frozen=True, slots=True)
class Drained:
    """Worker: about to exit. `complete`: every exchange had ended."""

    complete: bool


OfWorkers = Prepared | Commit | Ready | Failed | Drain | Draining | Drained | Built | Apply | Drop | Applied | Reopen
OfTheAgent = Health | Names | Command | Look | Result | Status
OfPrograms = Counted | Withdrawn
Message = OfWorkers | OfTheAgent | OfPrograms

_FIELDS: Final[dict[type[Message], dict[str, type]]] = {
    Prepared: {},
    Commit: {},
    Ready: {},
    Failed: {"message": str, "routes": dict},
    Drain: {"timeout": float, "idle": float},
    Draining: {},
    Drained: {"complete": bool},
    Built: {"generation": int, "problem": str, "routes": dict},
    Apply: {"generation": int},
    Drop: {"generation": int},
    Applied: {"generation": int},
    Reopen: {},
    Health: {"service": str, "down": list},
    Names: {"host": str, "addresses": list},
    Command: {"number": int, "name": str},
    Look: {},
    Result: {"number": int, "ok": bool, "text": str, "warnings": list},
    Status: {"status": dict},
    Counted: {"requests": dict},
    Withdrawn: {"number": int},
}
_BY_NAME: Final = {cls.__name__: cls for cls in _FIELDS}


def encode(message: Message) -> bytes:
    """One frame."""
    if isinstance(message, Failed):
        message = Failed(*_cut(message.message, message.routes))
    elif isinstance(message, Built):
        message = Built(message.generation, *_cut(message.problem, message.routes))
    elif isinstance(message, Result):
        message = replace(message, warnings=_few(message.warnings))
    payload = json.dumps({"is": type(message).__name__, **asdict(message)}).encode()
    return _HEADER.pack(_JSON, len(payload)) + payload


def _cut(text: str, routes: dict[str, str]) -> tuple[str, dict[str, str]]:
    """To what a frame may hold."""
    first = {name: why[:MESSAGE_TEXT_LIMIT] for name, why in list(routes.items())[:MESSAGE_ROUTES_LIMIT]}
    if len(first) < len(routes):
        text = f"and {len(routes) - len(first)} more"
    return text[:MESSAGE_TEXT_LIMIT], first


def _few(warnings: list[str]) -> list[str]:
    """The same, of a Result."""
    first = [warning[:MESSAGE_WARNING_LIMIT] for warning in warnings[:MESSAGE_WARNINGS_LIMIT]]
    more = len(warnings) - len(first)
    return [*first, f"and {more} more"] if more else first


def encode_setup(setup: Setup) -> bytes:
    """One frame."""
    return _pickled(setup)


def encode_change(change: Change) -> bytes:
    """One frame."""
    return _pickled(change)


def encode_wanted(wanted: Wanted) -> bytes:
    """One frame."""
    return _pickled(wanted)


def pack(configuration: Configuration) -> bytes:
    """A configuration as it stands in a Change. Raises StartError (a plugin's settings cannot be passed on)."""
    return _dumped(configuration)


def unpack(packed: bytes) -> Configuration:
    """The other way. Raises ControlError if a plugin's settings in it cannot be imported."""
    return cast("Configuration", _unpickled(packed))


def encode_agent_setup(setup: AgentSetup) -> bytes:
    """One frame."""
    return _pickled(setup)


def encode_reading(reading: Reading) -> bytes:
    """One frame."""
    return _pickled(reading)


def for_the_agent(payload: bytes) -> AgentSetup | Reading:
    """What a pickled frame from the supervisor holds. Raises ControlError."""
    found = _unpickled(payload)
    if not isinstance(found, AgentSetup | Reading):
        raise ControlError(f"the frame holds a {type(found).__name__}")
    return found


def _pickled(what: Setup | Change | AgentSetup | Reading | Wanted) -> bytes:
    payload = _dumped(what)
    return _HEADER.pack(_PICKLE, len(payload)) + payload


def _dumped(what: object) -> bytes:
    try:
        return pickle.dumps(what, protocol=pickle.HIGHEST_PROTOCOL)
    except Exception as error:  # only plugins' settings can fail: foreign code
        raise StartError(f"the settings of a plugin cannot be passed to the workers (pickle): {error!r}") from error


def _message_of(payload: bytes) -> Message:
    try:
        fields: Any = json.loads(payload)
        cls = _BY_NAME[fields.pop("is")]
        expected = _FIELDS[cls]
        if fields.keys() != expected.keys() or any(type(fields[name]) is not kind for name, kind in expected.items()):
            raise TypeError
        if any(type(item) is not str for value in fields.values() if type(value) is list for item in value):
            raise TypeError
        if any(type(text) is not str for text in fields.get("routes", {}).values()):
            raise TypeError
        return cls(**fields)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise ControlError(f"no message: {payload[:80]!r}") from None


class Decoder:
    """Bytes in, messages out. With `pickles`, of one who hears from the process that started it, it also
    takes pickled frames, and gives their payload."""

    __slots__ = ("_buffer", "_pickles")

    def __init__(self, *, pickles: bool = False) -> None:
        self._buffer = bytearray()
        self._pickles = pickles

    def feed(self, data: bytes) -> Iterator[Message | bytes]:
        """The messages that are complete now; of pickled frames the payload. Raises ControlError."""
        self._buffer += data
        while len(self._buffer) >= _HEADER.size:
            kind, length = _HEADER.unpack_from(self._buffer)
            pickled = kind == _PICKLE and self._pickles
            if not pickled and (kind != _JSON or length > MESSAGE_LIMIT):
                raise ControlError(f"no message: a frame of kind {kind!r} with {length} bytes")
            end = _HEADER.size + length
            if len(self._buffer) < end:
                return
            payload = bytes(self._buffer[_HEADER.size : end])
            del self._buffer[:end]
            yield payload if pickled else _message_of(payload)


def change_of(payload: bytes) -> Change:
    """The Change in a pickled frame from the supervisor. Raises ControlError if the frame holds anything else."""
    return _one(Change, payload)


def wanted_of(payload: bytes) -> Wanted:
    """The same of a frame from the program that embeds this gateway."""
    return _one(Wanted, payload)


def _one(kind: type[T], payload: bytes) -> T:
    found = _unpickled(payload)
    if not isinstance(found, kind):
        raise ControlError(f"the frame holds a {type(found).__name__}")
    return found


def _unpickled(payload: bytes) -> object:
    try:
        return pickle.loads(payload)  # noqa: S301, TID251 - sent by who started this process
    except Exception as error:  # it imports plugins' settings: foreign code, whose every failure is told as such
        raise ControlError(f"the configuration cannot be taken over: {error!r}") from error


def receive_setup(sock: socket.socket) -> Setup | None:
    """Wait for the Setup on a blocking socket; None if the supervisor is gone.

    Raises ControlError for anything else, or if a plugin whose settings it holds cannot be imported.
    """
    return _first(sock, Setup)


def receive_wanted(sock: socket.socket) -> Wanted | None:
    """The same for the first Wanted; None if the program is gone."""
    return _first(sock, Wanted)


def _first(sock: socket.socket, kind: type[T]) -> T | None:
    header = _receive(sock, _HEADER.size)
    if header is None:
        return None
    what, length = _HEADER.unpack(header)
    if what != _PICKLE:
        raise ControlError(f"the first frame is of kind {what!r}")
    payload = _receive(sock, length)
    return None if payload is None else _one(kind, payload)


def _receive(sock: socket.socket, size: int) -> bytes | None:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        count = sock.recv_into(view)
        if not count:
            return None
        view = view[count:]
    return bytes(data)


class Channel(asyncio.Protocol):
    """One end of the socket pair on an event loop.

    `on_message` gets each message; `on_gone` is called once, when the peer is gone (None) or sent what is no
    message (the error). `on_pickle`, of one who was started by the peer, gets the payload of each pickled frame.
    """

    __slots__ = ("_decoder", "_error", "_on_gone", "_on_message", "_on_pickle", "_transport")

    def __init__(
        self,
        on_message: Callable[[Message], None],
        on_gone: Callable[[ControlError | None], None],
        on_pickle: Callable[[bytes], None] | None = None,
    ) -> None:
        self._on_message = on_message
        self._on_gone = on_gone
        self._on_pickle = on_pickle
        self._decoder = Decoder(pickles=on_pickle is not None)
        self._error: ControlError | None = None
        self._transport: asyncio.Transport | None = None

    async def open(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        """Take over a connected socket."""
        await loop.create_unix_connection(lambda: self, sock=sock)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        try:
            for message in self._decoder.feed(data):
                if not isinstance(message, bytes):
                    self._on_message(message)
                elif self._on_pickle is not None:
                    self._on_pickle(message)
        except ControlError as error:
            self._error = error
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol. A reset is the death of the peer as much as an orderly end is."""
        self._transport = None
        self._on_gone(self._error)

    def send(self, message: Message) -> None:
        """Queue a message. To a peer that is gone nothing is sent: `on_gone` tells."""
        self.send_frame(encode(message))

    def send_frame(self, frame: bytes) -> None:
        """Queue a frame that is encoded already."""
        if self._transport is not None:
            self._transport.write(frame)

    @property
    def backlog(self) -> int:
        """Bytes that are queued: the peer does not take them."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def close(self) -> None:
        """Close this end once what is queued has been sent."""
        if self._transport is not None:
            self._transport.close()
