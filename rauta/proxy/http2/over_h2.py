"""Frames by `h2`, in plain Python: the reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from h2.config import H2Configuration
from h2.connection import ConnectionInputs, ConnectionState, H2Connection, H2ConnectionStateMachine
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    InformationalResponseReceived,
    PingReceived,
    RemoteSettingsChanged,
    RequestReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)
from h2.exceptions import FlowControlError, ProtocolError, StreamClosedError
from h2.settings import SettingCodes, Settings

from rauta.proxy.http2.frames import (
    CONNECTION_WINDOW,
    FRAME,
    FRAME_SIZE_ERROR,
    STREAMS,
    BrokenError,
    Control,
    Data,
    End,
    Event,
    Frames,
    Goodbye,
    Head,
    Interim,
    Reset,
    Room,
    goaway_frame,
)
from rauta.proxy.http2.heads import Raw

_TRANSLATIONS: Final[dict[type, Callable[[Any], tuple[Event, ...]]]] = {
    RequestReceived: lambda event: (Head(event.stream_id, event.headers, event.stream_ended is not None),),
    ResponseReceived: lambda event: (Head(event.stream_id, event.headers, event.stream_ended is not None),),
    InformationalResponseReceived: lambda event: (Interim(event.stream_id, event.headers),),
    DataReceived: lambda event: (Data(event.stream_id, event.data, event.flow_controlled_length),),
    StreamReset: lambda event: (Reset(event.stream_id, int(event.error_code)),),
    WindowUpdated: lambda event: (Room(event.stream_id or 0),),
    RemoteSettingsChanged: lambda _: (Control("SETTINGS"), Room(0)),  # perhaps another initial window
    PingReceived: lambda _: (Control("PING"),),
    ConnectionTerminated: lambda event: (Goodbye(int(event.error_code or 0), event.last_stream_id or 0),),
}


class _Machine(H2ConnectionStateMachine):
    """That of h2, but that GOAWAY is not the end: RFC 9113 6.8 lets streams up to its number go on."""

    _transitions = {  # noqa: RUF012 - as in the class
        **H2ConnectionStateMachine._transitions,  # noqa: SLF001
        **{
            (state, ConnectionInputs.RECV_GOAWAY): (None, state)
            for state in (ConnectionState.IDLE, ConnectionState.CLIENT_OPEN, ConnectionState.SERVER_OPEN)
        },
    }


class Connection(Frames):
    """One side of one connection."""

    __slots__ = ("_goaway", "_h2", "_last")

    def __init__(self, *, head_limit: int, window: int, client: bool) -> None:
        config = H2Configuration(client_side=client, header_encoding=None, validate_outbound_headers=False)
        self._h2 = H2Connection(config)
        self._h2.state_machine = _Machine()
        values = {SettingCodes.INITIAL_WINDOW_SIZE: window, SettingCodes.MAX_HEADER_LIST_SIZE: head_limit}
        if client:
            values[SettingCodes.ENABLE_PUSH] = 0
        else:
            values[SettingCodes.MAX_CONCURRENT_STREAMS] = STREAMS
        self._h2.local_settings = Settings(client=client, initial_values=values)
        self._h2.decoder.max_header_list_size = head_limit
        self._h2.max_inbound_frame_size = FRAME  # else h2 takes 16 MiB until its settings are acknowledged
        self._h2.initiate_connection()
        self._goaway = b""
        self._last = 0
        # Slow streams hold their own windows, so the connection's has room for all of them and some more.
        self._h2.increment_flow_control_window(STREAMS * window + CONNECTION_WINDOW - 65_535)

    @property
    def streams(self) -> int:
        return min(self._h2.remote_settings.max_concurrent_streams, STREAMS)

    def open(self) -> int:
        try:
            return self._h2.get_next_available_stream_id()
        except ProtocolError:  # NoAvailableStreamIDError
            return 0

    def receive(self, data: bytes) -> list[Event]:
        try:
            events = self._h2.receive_data(data)
        except ProtocolError as error:
            raise BrokenError(f"{type(error).__name__}: {error}") from None
        except Exception as error:  # noqa: BLE001 - a defect of the library must not take other connections down
            raise BrokenError(f"{type(error).__name__}: {error}") from None
        # h2 looks at a frame's length when all of it has come: 16 MiB, for a length that means "GET".
        begun = self._h2.incoming_buffer._data[:3]  # noqa: SLF001 - nothing else tells
        if len(begun) == 3 and int.from_bytes(begun, "big") > FRAME:
            self.goaway(FRAME_SIZE_ERROR)
            raise BrokenError(f"a frame of {int.from_bytes(begun, 'big')} bytes")
        found: list[Event] = []
        trailers: dict[int, list[Raw]] = {}
        for event in events:
            if isinstance(event, TrailersReceived):
                trailers[event.stream_id] = event.headers
            elif isinstance(event, StreamEnded):
                found.append(End(event.stream_id, trailers.pop(event.stream_id, [])))
            elif (translate := _TRANSLATIONS.get(type(event))) is not None:
                found += translate(event)
                if isinstance(event, RequestReceived):
                    self._last = event.stream_id
        return found

    def take(self) -> bytes:
        goaway, self._goaway = self._goaway, b""
        return self._h2.data_to_send() + goaway

    def send_head(self, stream: int, fields: list[Raw], *, end: bool) -> bool:
        try:
            self._h2.send_headers(stream, fields, end_stream=end)
        except (StreamClosedError, ProtocolError):
            return False
        return True

    def room(self, stream: int) -> int:
        try:
            return max(0, min(self._h2.local_flow_control_window(stream), self._h2.max_outbound_frame_size))
        except (StreamClosedError, ProtocolError):
            return 0

    def send_data(self, stream: int, data: bytes, *, end: bool) -> bool:
        try:
            self._h2.send_data(stream, data, end_stream=end)
        except (StreamClosedError, FlowControlError, ProtocolError):
            return False
        return True

    def credit(self, size: int, stream: int | None) -> None:
        try:
            self._h2.increment_flow_control_window(size, stream)
        except (StreamClosedError, ProtocolError, ValueError, KeyError):  # KeyError: h2 has dropped the stream
            return  # it has ended meanwhile

    def reset(self, stream: int, code: int) -> None:
        try:
            self._h2.reset_stream(stream, code)
        except (StreamClosedError, ProtocolError):
            return

    def goaway(self, code: int) -> None:
        # Not by h2, which takes the connection for closed then.
        self._goaway += goaway_frame(self._last, code)
