"""Frames by `h2`, in plain Python: the reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from h2.config import H2Configuration
from h2.connection import ConnectionInputs, ConnectionState, H2Connection, H2ConnectionStateMachine
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    InformationalResponseReceived,
    PingAckReceived,
    PingReceived,
    RemoteSettingsChanged,
    RequestReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)
from h2.exceptions import (
    DenialOfServiceError,
    FlowControlError,
    InvalidBodyLengthError,
    ProtocolError,
    StreamClosedError,
)
from h2.settings import SettingCodes, Settings
from hpack import HPACKError
from hyperframe.exceptions import HyperframeError
from hyperframe.frame import RstStreamFrame

from rauta.proxy.http2 import h2_inspection
from rauta.proxy.http2.frames import (
    COMPRESSION_ERROR,
    CONNECTION_WINDOW,
    EVERY,
    INTERNAL_ERROR,
    NO_ERROR,
    NOTICE_PING,
    PROTOCOL_ERROR,
    STREAMS,
    WIDER,
    BrokenError,
    Control,
    Data,
    End,
    Event,
    Fault,
    Frames,
    Goodbye,
    Head,
    Interim,
    Noticed,
    Reset,
    Room,
    code_name,
    goaway_frame,
    notice_frames,
)
from rauta.proxy.http2.h2_compression import FieldEncoder
from rauta.proxy.http2.h2_inspection import FRAME, Frame, InspectionError, Inspector
from rauta.proxy.http2.heads import Raw

_TRANSLATIONS: Final[dict[type, Callable[[Any], tuple[Event, ...]]]] = {
    RequestReceived: lambda event: (Head(event.stream_id, event.headers, event.stream_ended is not None),),
    ResponseReceived: lambda event: (Head(event.stream_id, event.headers, event.stream_ended is not None),),
    InformationalResponseReceived: lambda event: (Interim(event.stream_id, event.headers),),
    DataReceived: lambda event: (Data(event.stream_id, event.data, event.flow_controlled_length),),
    StreamReset: lambda event: (Reset(event.stream_id, int(event.error_code)),),
    WindowUpdated: lambda event: (Room(event.stream_id or 0),),
    RemoteSettingsChanged: lambda _: (Control("SETTINGS"), Room(EVERY)),  # perhaps another initial window
    PingReceived: lambda _: (Control("PING"),),
    PingAckReceived: lambda event: (Noticed(),) if event.ping_data == NOTICE_PING else (),
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


class _MalformedError(Exception):
    """A message is malformed (RFC 9113 8.1.1): an error of its stream."""


_OF_MESSAGES: Final = frozenset({h2_inspection.DATA, h2_inspection.HEADERS, h2_inspection.CONTINUATION})


class _Connection(H2Connection):
    """Whether an error ends the connection, and with which code, is decided here: see `Connection`."""

    # Of streams that are over it is known how they ended, which frames that were on their way are judged by. 65,536 of
    # them, as in h2, are 7.6 MB for each connection that lasts.
    MAX_CLOSED_STREAMS = 4096

    def _terminate_connection(self, error_code: ErrorCodes) -> None:
        """Neither send GOAWAY nor take the connection for closed."""


_FRAME_HEADER: Final = 9  # bytes
_RESET: Final = 13  # bytes of a RST_STREAM frame
_MAX_GIVEN_UP: Final = 1000  # streams that were reset here, whose last frames may be on their way


class Connection(Frames):
    """One side of one connection."""

    __slots__ = ("_client", "_given_up", "_goaway", "_h2", "_inspector", "_last", "_left", "_out")

    def __init__(self, *, head_limit: int, window: int, client: bool) -> None:
        config = H2Configuration(
            client_side=client,
            header_encoding=None,
            validate_outbound_headers=False,
            normalize_outbound_headers=False,  # `heads` makes them so, and `FieldEncoder` knows what is secret
            # A request is judged by `heads`, which answers it; here, one that is malformed would end the connection.
            validate_inbound_headers=client,
            normalize_inbound_headers=client,
        )
        self._h2 = _Connection(config)
        self._h2.encoder = FieldEncoder()  # type: ignore[assignment]  # as far as h2 uses one
        self._h2.state_machine = _Machine()
        self._inspector = Inspector(of_client=not client)
        self._client = client
        values = {SettingCodes.INITIAL_WINDOW_SIZE: window, SettingCodes.MAX_HEADER_LIST_SIZE: head_limit}
        if client:
            values[SettingCodes.ENABLE_PUSH] = 0
        else:
            values[SettingCodes.MAX_CONCURRENT_STREAMS] = STREAMS
            values[SettingCodes.ENABLE_CONNECT_PROTOCOL] = 1
        self._h2.local_settings = Settings(client=client, initial_values=values)
        self._h2.decoder.max_header_list_size = head_limit
        self._h2.max_inbound_frame_size = FRAME  # else h2 takes 16 MiB until its settings are acknowledged
        self._h2.initiate_connection()
        if not client:
            # RFC 9113 5.1.2: one stream too many is a stream error. To h2 it is the connection's, so h2 knows no limit:
            # the connection that uses this one counts.
            values[SettingCodes.MAX_CONCURRENT_STREAMS] = h2_inspection.GREATEST
            self._h2.local_settings = Settings(client=False, initial_values=values)
            self._h2.receive_data(h2_inspection.PREFACE)  # the inspector has seen it
        self._out = bytearray()
        self._given_up: dict[int, None] = {}
        self._goaway = b""
        self._last = 0
        self._left = False  # GOAWAY has been sent
        # Slow streams hold their own windows, so the connection's has room for all of them and some more.
        self._h2.increment_flow_control_window(STREAMS * window + WIDER + CONNECTION_WINDOW - 65_535)

    @property
    def streams(self) -> int:
        return min(self._h2.remote_settings.max_concurrent_streams, STREAMS)

    @property
    def connects(self) -> bool:
        return bool(self._h2.remote_settings.enable_connect_protocol)

    def open(self) -> int:
        try:
            return self._h2.get_next_available_stream_id()
        except ProtocolError:  # NoAvailableStreamIDError
            return 0

    def receive(self, data: bytes) -> list[Event]:
        found: list[Event] = []
        try:
            self._inspector.feed(data)
            while (frame := self._inspector.next()) is not None:
                found += self._received(frame)
        except InspectionError as error:
            self.goaway(error.code)
            raise BrokenError(str(error)) from None
        return found

    def _received(self, frame: Frame) -> list[Event]:
        if frame.kind == h2_inspection.GOAWAY:
            # Not by h2, which takes the connection for closed then, and drops what is still to be answered.
            last, code = (int.from_bytes(frame.octets[at : at + 4], "big") for at in (9, 13))
            return [Goodbye(code, last & h2_inspection.GREATEST)]
        if frame.wrong is not None:
            return self._fault(frame.stream, *frame.wrong)
        self._out += self._h2.data_to_send()
        if frame.kind == h2_inspection.SETTINGS:
            self._shrink(frame.octets)
        try:
            events = self._events(frame.octets)
        except _MalformedError as error:
            return self._fault(frame.stream, PROTOCOL_ERROR, str(error), malformed=True)
        found = self._translated(events)
        answer = self._h2.data_to_send()
        if (
            len(answer) >= _RESET
            and answer[3 - _RESET] == h2_inspection.RST_STREAM
            and frame.kind != h2_inspection.SETTINGS
        ):
            # h2 has reset the stream: it was closed, or its window is too large.
            if frame.stream in self._given_up:
                answer = answer[:-_RESET]  # RFC 9113 5.4.2: "SHOULD NOT send more than one RST_STREAM frame"
            else:
                name = code_name(int.from_bytes(answer[-4:], "big"))
                self._give_up(frame.stream)
                found = [Fault(frame.stream, f"{name} by a frame of type {frame.kind}")]
        self._out += answer
        return found

    def _shrink(self, octets: bytes) -> None:
        """RFC 7541 4.2: of several sizes of the encoder's table the least counts, too; h2 tells the last one alone."""
        for at in range(_FRAME_HEADER, len(octets) - 5, 6):
            if int.from_bytes(octets[at : at + 2], "big") == SettingCodes.HEADER_TABLE_SIZE:
                self._h2.encoder.header_table_size = int.from_bytes(octets[at + 2 : at + 6], "big")

    def _events(self, octets: bytes) -> list[Any]:
        """Of the library. Raises BrokenError, _MalformedError."""
        try:
            return self._h2.receive_data(octets)
        except ProtocolError as error:
            if self._is_malformed(octets, error):
                raise _MalformedError(str(error)) from None
            # RFC 9113 4.3: "A decoding error in a field block MUST be treated as a connection error of type
            # COMPRESSION_ERROR".
            undecoded = isinstance(error.__cause__, HPACKError) and not isinstance(error, DenialOfServiceError)
            self.goaway(COMPRESSION_ERROR if undecoded else int(error.error_code))
            raise BrokenError(f"{type(error).__name__}: {error}") from None
        except Exception as error:  # noqa: BLE001 - a defect of the library must not take other connections down
            self.goaway(INTERNAL_ERROR)
            raise BrokenError(f"{type(error).__name__}: {error}") from None

    def _is_malformed(self, octets: bytes, error: ProtocolError) -> bool:
        """Whether it is the message that is wrong, and no frame, no field block and no state of a stream."""
        if (
            octets[3] not in _OF_MESSAGES
            or int.from_bytes(octets[5:9], "big") & h2_inspection.GREATEST not in self._h2.streams
        ):
            return False
        if isinstance(error, InvalidBodyLengthError):
            return True
        return type(error) is ProtocolError and not isinstance(error.__cause__, HPACKError | HyperframeError)

    def _translated(self, events: list[Any]) -> list[Event]:
        found: list[Event] = []
        trailers: dict[int, list[Raw]] = {}
        for event in events:
            if isinstance(event, TrailersReceived):
                trailers[event.stream_id] = event.headers
            elif isinstance(event, StreamEnded):
                found.append(End(event.stream_id, trailers.pop(event.stream_id, [])))
            elif (translate := _TRANSLATIONS.get(type(event))) is not None:
                found += translate(event)
                if isinstance(event, RequestReceived) and not self._left:
                    self._last = event.stream_id  # RFC 9113 6.8: it MUST NOT rise, once told
        return found

    def _fault(self, stream: int, code: int, why: str, *, malformed: bool = False) -> list[Event]:
        """Reset a stream for what its peer did; nothing, if it was closed anyway."""
        try:
            self._h2.reset_stream(stream, code)
        except (StreamClosedError, ProtocolError):
            if not malformed:
                return []
            frame = RstStreamFrame(stream)
            frame.error_code = code
            self._out += frame.serialize()
        self._give_up(stream)
        return [Fault(stream, why)]

    def _give_up(self, stream: int) -> None:
        self._given_up[stream] = None
        if len(self._given_up) > _MAX_GIVEN_UP:
            del self._given_up[next(iter(self._given_up))]

    def take(self) -> bytes:
        goaway, self._goaway = self._goaway, b""
        out, self._out = self._out, bytearray()
        return bytes(out) + self._h2.data_to_send() + goaway

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

    @property
    def shared_room(self) -> int:
        return self._h2.outbound_flow_control_window

    def send_data(self, stream: int, data: bytes, *, end: bool) -> bool:
        try:
            self._h2.send_data(stream, data, end_stream=end)
        except (FlowControlError, ProtocolError, KeyError):  # KeyError: h2 has dropped the stream
            return False
        return True

    def credit(self, size: int, stream: int | None) -> None:
        try:
            self._h2.increment_flow_control_window(size, stream)
        except (StreamClosedError, ProtocolError, ValueError, KeyError):  # KeyError: h2 has dropped the stream
            return  # it has ended meanwhile

    def widen(self, stream: int, window: int, by: int) -> None:
        self.credit(by, stream)

    def reset(self, stream: int, code: int) -> None:
        try:
            self._h2.reset_stream(stream, code)
        except (StreamClosedError, ProtocolError):
            return
        self._give_up(stream)

    def notice(self) -> None:
        self._goaway += notice_frames()

    def goaway(self, code: int) -> None:
        if self._left and code == NO_ERROR:
            return
        # Not by h2, which takes the connection for closed then.
        self._left = True
        self._goaway += goaway_frame(self._last, code)
