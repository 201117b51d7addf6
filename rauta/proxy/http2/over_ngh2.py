"""Frames by `ngh2`, a binding of the C library nghttp2.

What differs from h2, and is made the same here: a stream's credit is the connection's too, so what a stream has not
given back is given back when it ends; streams that the library resets by itself are told only once that has been
written; and a reset overtakes what is queued before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import ngh2
from ngh2 import events

from rauta.proxy.http2.frames import (
    CONNECTION_WINDOW,
    ENHANCE_YOUR_CALM,
    EVERY,
    FRAME,
    NO_ERROR,
    NOTICE_PING,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
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
from rauta.proxy.http2.heads import Raw

# RFC 9113 6.5.2
_ENABLE_PUSH: Final = 2
_MAX_CONCURRENT_STREAMS: Final = 3
_INITIAL_WINDOW_SIZE: Final = 4
_MAX_HEADER_LIST_SIZE: Final = 6
_ENABLE_CONNECT_PROTOCOL: Final = 8  # RFC 8441 3
_MAX_CONTINUATIONS: Final = 64  # of one head, which has its limit in bytes as well


class Connection(Frames):
    """One side of one connection."""

    __slots__ = (
        "_broken",
        "_client",
        "_headed",
        "_last",
        "_leaving",
        "_left",
        "_library",
        "_out",
        "_owed",
        "_reset_here",
    )

    def __init__(self, *, head_limit: int, window: int, client: bool) -> None:
        config = ngh2.Configuration(
            auto_window_update=False, max_inbound_header_list_size=head_limit, max_continuations=_MAX_CONTINUATIONS
        )
        self._library = ngh2.Connection(ngh2.Role.CLIENT if client else ngh2.Role.SERVER, config)
        ours = {_ENABLE_PUSH: 0} if client else {_MAX_CONCURRENT_STREAMS: STREAMS, _ENABLE_CONNECT_PROTOCOL: 1}
        self._library.initiate_connection({_INITIAL_WINDOW_SIZE: window, _MAX_HEADER_LIST_SIZE: head_limit, **ours})
        # Slow streams hold their own windows, so the connection's has room for all of them and some more; the library
        # gives back half of it at a time.
        self._library.set_local_window_size(2 * (STREAMS * window + WIDER) + CONNECTION_WINDOW)
        self._client = client
        self._last = 0  # stream of the peer
        self._leaving = False  # GOAWAY has been sent
        self._out: list[bytes] = []
        self._owed: dict[int, int] = {}  # bytes of streams that came and are not credited
        self._headed: set[int] = set()  # streams whose final head is sent: what follows are trailers
        self._reset_here: set[int] = set()
        self._broken = False  # nothing more can come of the library
        self._left = False  # the peer has said that it leaves

    @property
    def streams(self) -> int:
        peer = self._peer()
        return 0 if peer is None else min(peer.get(_MAX_CONCURRENT_STREAMS, STREAMS), STREAMS)

    @property
    def connects(self) -> bool:
        peer = self._peer()
        return peer is not None and bool(peer.get(_ENABLE_CONNECT_PROTOCOL, 0))

    def _peer(self) -> Mapping[int, int] | None:
        """The peer's settings; None: it has left, and the last stream is closed."""
        try:
            return self._library.remote_settings
        except ngh2.NGH2Error:
            return None

    def open(self) -> int:
        try:
            return self._library.next_stream_id if self._library.can_send_request else 0
        except ngh2.NGH2Error:
            return 0

    def receive(self, data: bytes) -> list[Event]:
        found: list[Event] = []
        if self._broken:
            return found
        try:
            self._library.receive_data(data)
            self._translate(found)
            self._out.append(self._library.data_to_send())
            self._translate(found)
        except ngh2.NGH2Error as error:
            self._broken = True
            flood = isinstance(error, ngh2.DenialOfServiceError)
            self._out.append(goaway_frame(self._last, ENHANCE_YOUR_CALM if flood else PROTOCOL_ERROR))
            raise BrokenError(f"{type(error).__name__}: {error}") from None
        return found

    def take(self) -> bytes:
        if not self._broken:
            try:
                self._out.append(self._library.data_to_send())
            except ngh2.NGH2Error:
                self._broken = True
        data = b"".join(self._out)
        self._out.clear()
        return data

    def send_head(self, stream: int, fields: list[Raw], *, end: bool) -> bool:
        library = self._library
        try:
            if stream in self._headed:
                library.send_trailers(stream, fields)
                return True
            if self._client:
                if library.next_stream_id != stream or library.send_request(fields, end_stream=end) != stream:
                    return False
            elif fields[0][1].startswith(b"1"):
                library.send_informational_response(stream, fields)
                return True
            else:
                library.send_response(stream, fields, end_stream=end)
        except ngh2.NGH2Error:
            return False
        if not end:
            self._headed.add(stream)
            if self._client:
                self._out.append(library.data_to_send())  # a stream has no window before
        return True

    def room(self, stream: int) -> int:
        library = self._library
        try:
            own = library.stream_remote_window_size(stream) - library.queued_body_size(stream)
            return max(0, min(own, library.remote_window_size - library.queued_body_size(), FRAME))
        except ngh2.NGH2Error:
            return 0

    @property
    def shared_room(self) -> int:
        try:
            return self._library.remote_window_size - self._library.queued_body_size()
        except ngh2.NGH2Error:
            return 0

    def send_data(self, stream: int, data: bytes, *, end: bool) -> bool:
        try:
            if data:
                self._library.send_data(stream, data, end_stream=end)
            elif end:
                self._library.end_stream(stream)
        except (ngh2.NGH2Error, ValueError):  # ValueError: one that was never opened
            return False
        return True

    def credit(self, size: int, stream: int | None) -> None:
        if stream is None or stream not in self._owed:
            return
        size = min(size, self._owed[stream])
        self._owed[stream] -= size
        with suppress(ngh2.NGH2Error, ValueError):
            self._library.acknowledge_received_data(size, stream)

    def widen(self, stream: int, window: int, by: int) -> None:
        with suppress(ngh2.NGH2Error, ValueError):
            self._library.set_local_window_size(window, stream_id=stream)

    def reset(self, stream: int, code: int) -> None:
        try:
            self._out.append(self._library.data_to_send())
            self._library.reset_stream(stream, code)
        except ngh2.NGH2Error:
            return
        self._reset_here.add(stream)

    def notice(self) -> None:
        self._behind(notice_frames())

    def goaway(self, code: int) -> None:
        if self._leaving and code == NO_ERROR:
            return
        self._leaving = True
        # Not by the library, which ends the connection by itself once the last stream is closed.
        self._behind(goaway_frame(self._last, code))

    def _behind(self, frames: bytes) -> None:
        """Send these behind what the library has made."""
        if not self._broken:
            with suppress(ngh2.NGH2Error):
                self._out.append(self._library.data_to_send())
        self._out.append(frames)

    # --- events ---

    def _translate(self, found: list[Event]) -> None:
        for event in self._library.events():
            translate = _TRANSLATIONS.get(type(event))
            if translate is not None:
                translate(self, event, found)

    def _begun(self, event: Any, found: list[Event]) -> None:
        if not self._client and not self._leaving:
            self._last = event.stream_id  # RFC 9113 6.8: it MUST NOT rise, once told
        found.append(Head(event.stream_id, event.headers, event.end_stream))
        if event.end_stream:
            found.append(End(event.stream_id, []))

    def _data(self, event: Any, found: list[Event]) -> None:
        size = len(event.data)
        if size:
            self._owed[event.stream_id] = self._owed.get(event.stream_id, 0) + size
        if size or not event.end_stream:
            found.append(Data(event.stream_id, event.data, size))
        if event.end_stream:
            found.append(End(event.stream_id, []))

    def _interim(self, event: Any, found: list[Event]) -> None:
        found.append(Interim(event.stream_id, event.headers))

    def _trailers(self, event: Any, found: list[Event]) -> None:
        found.append(End(event.stream_id, event.headers))

    def _room(self, event: Any, found: list[Event]) -> None:
        found.append(Room(event.stream_id))

    def _reset(self, event: Any, found: list[Event]) -> None:
        self._reset_here.add(event.stream_id)  # told here, so not again when it is closed
        found.append(Reset(event.stream_id, event.error_code))

    def _stream_closed(self, event: Any, found: list[Event]) -> None:
        stream = event.stream_id
        self._headed.discard(stream)
        owed = self._owed.pop(stream, 0)
        if owed:
            with suppress(ngh2.NGH2Error, ValueError):
                self._library.acknowledge_received_data(owed, stream)
        if stream in self._reset_here:
            self._reset_here.discard(stream)
        elif event.error_code == REFUSED_STREAM:
            found.append(Reset(stream, event.error_code))  # beyond the number of a GOAWAY
        elif event.error_code:
            found.append(Fault(stream, code_name(event.error_code)))

    def _settings(self, _: Any, found: list[Event]) -> None:
        found += (Control("SETTINGS"), Room(EVERY))  # perhaps another initial window

    def _ping(self, _: Any, found: list[Event]) -> None:
        found.append(Control("PING"))

    def _pong(self, event: Any, found: list[Event]) -> None:
        if event.opaque_data == NOTICE_PING:
            found.append(Noticed())

    def _goodbye(self, event: Any, found: list[Event]) -> None:
        self._left = True
        found.append(Goodbye(event.error_code, event.last_stream_id))

    def _closed(self, event: Any, _: list[Event]) -> None:
        self._broken = True
        if event.error_code and not self._left:
            raise BrokenError(f"the library ended the connection ({code_name(event.error_code)})")


_TRANSLATIONS: Final[dict[type, Callable[[Connection, Any, list[Event]], None]]] = {
    events.RequestReceived: Connection._begun,  # noqa: SLF001 - of this module
    events.ResponseReceived: Connection._begun,  # noqa: SLF001
    events.DataReceived: Connection._data,  # noqa: SLF001
    events.InformationalResponseReceived: Connection._interim,  # noqa: SLF001
    events.TrailersReceived: Connection._trailers,  # noqa: SLF001
    events.WindowUpdated: Connection._room,  # noqa: SLF001
    events.StreamReset: Connection._reset,  # noqa: SLF001
    events.StreamClosed: Connection._stream_closed,  # noqa: SLF001
    events.SettingsReceived: Connection._settings,  # noqa: SLF001
    events.PingReceived: Connection._ping,  # noqa: SLF001
    events.PingAcknowledged: Connection._pong,  # noqa: SLF001
    events.GoAwayReceived: Connection._goodbye,  # noqa: SLF001
    events.ConnectionClosed: Connection._closed,  # noqa: SLF001
}
