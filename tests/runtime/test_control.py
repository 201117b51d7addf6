from __future__ import annotations

import asyncio
import pickle
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rauta.offload import Counters, RequestKey, Traffic
from rauta.routing.model import (
    Configuration,
    Forward,
    Match,
    Route,
    WeightedService,
)
from rauta.routing.services import Backend, Plugin, Service
from rauta.routing.settings import Address, Listener
from rauta.runtime import control
from rauta.runtime.control import (
    MESSAGE_LIMIT,
    Applied,
    Apply,
    Built,
    Channel,
    Command,
    Commit,
    ControlError,
    Counted,
    Decoder,
    Drain,
    Drained,
    Draining,
    Drop,
    Failed,
    Health,
    Look,
    Names,
    Prepared,
    Reading,
    Ready,
    Reopen,
    Result,
    Setup,
    Status,
    Withdrawn,
    encode,
    encode_reading,
    encode_setup,
    for_the_agent,
    receive_setup,
)

MESSAGES = [
    Prepared(),
    Commit(),
    Ready(),
    Failed("no\nsuch \N{SNOWMAN}"),
    Failed("", {"r": "no\nsuch \N{SNOWMAN}"}),
    Drain(2.5, 0.5),
    Draining(),
    Drained(True),
    Built(7, "why not"),
    Built(7, "", {"r": "why not", "s": "nor that"}),
    Apply(7),
    Drop(8),
    Applied(7),
    Reopen(),
    Health("users", ["10.0.2.2:80", "unix:/run/app.sock"]),
    Names("app.example.com", []),
    Command(1, "reload"),
    Look(),
    Result(1, False, "rauta.yaml:3: no"),
    Result(1, True, "SIGHUP: generation 2 is live", ["rauta.yaml:3: yes, but"]),
    Status({"generation": 2, "ready": True, "workers": [{"slot": 0}], "reloads": {"last": None}}),
    Counted({"web route  200 1": 7}),
    Withdrawn(7),
]


KEY = {
    "listener": "web",
    "service": "s",
    "code": 200,
    "method": "GET",
    "protocol": "HTTP/1.1",
    "tier": 1,
    "hook": "tc",
}


def configuration() -> Configuration:
    return Configuration(
        listeners=(Listener(name="web", address=Address("127.0.0.1", 8080)),),
        services=(Service(name="s", backends=(Backend(address=Address("127.0.0.1", 9000)),)),),
        routes=(Route(name="r", action=Forward(services=(WeightedService(name="s"),))),),
    )


@given(st.lists(st.integers(1, 40), max_size=200))
def test_messages_survive_any_fragmentation(cuts: list[int]) -> None:
    data = b"".join(map(encode, MESSAGES))
    decoder, seen = Decoder(), []
    for cut in [*cuts, len(data)]:
        seen += decoder.feed(data[:cut])
        data = data[cut:]
    assert seen == MESSAGES


def test_a_connection_knows_what_its_peer_has_not_taken() -> None:
    async def play() -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            channel = Channel(lambda message: None, lambda error: None)
            assert channel.backlog == 0
            await channel.open(asyncio.get_running_loop(), ours)
            channel.send_frame(b"x" * (1 << 22))  # more than a socket holds
            assert 0 < channel.backlog < 1 << 22
            channel.close()

    asyncio.run(play())


def test_a_reading_of_many_rows_reaches_the_agent() -> None:
    """It is longer than a message may be."""
    keys = (RequestKey(route=f"a-route-with-a-name-{number}", **KEY) for number in range(20_000))
    reading = Reading(1.5, Counters(requests={key: Traffic(requests=1) for key in keys}))
    frame = encode_reading(reading)
    assert len(frame) > MESSAGE_LIMIT
    (payload,) = Decoder(pickles=True).feed(frame)
    assert isinstance(payload, bytes)
    assert for_the_agent(payload) == reading
    with pytest.raises(ControlError, match="holds a str"):
        for_the_agent(pickle.dumps("text"))


def test_a_result_names_so_many_warnings_and_counts_the_rest() -> None:
    frame = encode(Result(1, True, "", ["\u20ac" * 10_000] * 60))
    assert len(frame) < MESSAGE_LIMIT
    (message,) = Decoder().feed(frame)
    assert isinstance(message, Result)
    assert message.warnings[-1] == "and 10 more"
    assert [*map(len, message.warnings[:-1])] == [2048] * 50


def test_all_messages_have_a_shape() -> None:
    assert {type(message) for message in MESSAGES} == set(control._FIELDS)


def frame(payload: bytes, kind: bytes = b"J") -> bytes:
    return struct.pack("!cI", kind, len(payload)) + payload


@pytest.mark.parametrize(
    "data",
    [
        frame(pickle.dumps(Prepared()), b"P"),
        frame(b'{"is": "Ready"}', b"P"),
        frame(b"x" * (MESSAGE_LIMIT + 1)),
        struct.pack("!cI", b"J", 1 << 31),
        frame(b""),
        frame(b"\xff"),
        frame(b"[]"),
        frame(b"7"),
        frame(b"{}"),
        frame(b"[" * 20000),
        frame(b'{"is": "Setup"}'),
        frame(b'{"is": ["Ready"]}'),
        frame(b'{"is": "Ready", "more": 1}'),
        frame(b'{"is": "Failed"}'),
        frame(b'{"is": "Failed", "message": "no"}'),
        frame(b'{"is": "Failed", "message": 7, "routes": {}}'),
        frame(b'{"is": "Failed", "message": "", "routes": []}'),
        frame(b'{"is": "Built", "generation": 1, "problem": "", "routes": {"r": 7}}'),
        frame(b'{"is": "Drained", "complete": 1}'),
        frame(b'{"is": "Health", "service": "s", "down": "all"}'),
        frame(b'{"is": "Names", "host": "h", "addresses": ["10.0.0.1", 7]}'),
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_the_supervisor_takes_nothing_but_messages(data: bytes) -> None:
    with pytest.raises(ControlError):
        list(Decoder().feed(data))


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    try:
        list(Decoder().feed(data))
        list(Decoder().feed(frame(data)))
    except ControlError:
        pass


def test_a_long_failure_is_cut_to_what_a_frame_may_hold() -> None:
    (message,) = Decoder().feed(encode(Failed("\N{SNOWMAN}" * 100_000)))
    assert isinstance(message, Failed)
    assert len(message.message) == control.MESSAGE_TEXT_LIMIT
    routes = {str(number): "\N{SNOWMAN}" * 100_000 for number in range(100)}
    frame = encode(Failed("", routes))
    assert len(frame) < control.MESSAGE_LIMIT
    (message,) = Decoder().feed(frame)
    assert isinstance(message, Failed)
    assert (len(message.routes), message.message) == (8, "and 92 more")
    assert {len(text) for text in message.routes.values()} == {control.MESSAGE_TEXT_LIMIT}


def test_setup_arrives_whole_and_equal() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        setup = Setup(configuration=configuration(), access_log=1)
        ours.sendall(encode_setup(setup))
        assert receive_setup(theirs) == setup


@pytest.mark.parametrize("sent", [b"", b"P", encode_setup(Setup(configuration=configuration(), access_log=None))[:-1]])
def test_a_supervisor_that_dies_early_is_no_error(sent: bytes) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        with ours:
            ours.sendall(sent)
        assert receive_setup(theirs) is None


def refuse_import() -> None:
    raise ImportError("no module named 'gone'")


class Settings:
    def __reduce__(self) -> tuple[object, tuple[()]]:
        return refuse_import, ()


@pytest.mark.parametrize(
    ("sent", "complaint"),
    [
        (encode(Ready()), "kind b'J'"),
        (frame(pickle.dumps("text"), b"P"), "holds a str"),
        (frame(b"junk", b"P"), "cannot be taken over"),
    ],
)
def test_a_worker_takes_nothing_but_a_setup_first(sent: bytes, complaint: str) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(sent)
        with pytest.raises(ControlError, match=complaint):
            receive_setup(theirs)


def test_plugin_settings_that_cannot_be_imported_are_told() -> None:
    plugin = Plugin(name="odd", settings=Settings())
    route = Route(name="r", action=Forward(services=(WeightedService(name="s"),)), matches=(Match(plugins=(plugin,)),))
    broken = Configuration(listeners=configuration().listeners, services=configuration().services, routes=(route,))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(encode_setup(Setup(configuration=broken, access_log=None)))
        with pytest.raises(ControlError, match=r"cannot be taken over: ImportError.*gone"):
            receive_setup(theirs)


def test_channel_tells_messages_and_then_the_end() -> None:
    async def scenario() -> list[object]:
        loop = asyncio.get_running_loop()
        seen: list[object] = []
        gone: asyncio.Future[ControlError | None] = loop.create_future()
        channel = Channel(seen.append, gone.set_result)
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        await channel.open(loop, ours)
        with theirs:
            channel.send(Drain(1.0, 0.0))
            theirs.sendall(encode(Prepared()) + encode(Drained(False)))
            theirs.settimeout(5)
            seen += await asyncio.to_thread(lambda: list(Decoder().feed(theirs.recv(1000))))
        assert await gone is None
        channel.send(Commit())  # to nobody: no error
        channel.close()
        return seen

    seen = asyncio.run(scenario())
    assert set(map(repr, seen)) == set(map(repr, [Drain(1.0, 0.0), Prepared(), Drained(False)]))


def test_channel_gives_up_on_a_peer_that_talks_nonsense() -> None:
    async def scenario() -> ControlError | None:
        loop = asyncio.get_running_loop()
        gone: asyncio.Future[ControlError | None] = loop.create_future()
        channel = Channel(lambda _: None, gone.set_result)
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            await channel.open(loop, ours)
            theirs.sendall(b"GET / HTTP/1.1\r\n")
            return await gone

    assert "no message" in str(asyncio.run(scenario()))
