"""Field blocks: what the encoder writes means what it was given, to a decoder that is not ours."""

from __future__ import annotations

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.settings import SettingCodes
from hpack import Decoder
from hypothesis import given
from hypothesis import strategies as st

from rauta.proxy.http2.h2_compression import MOST, FieldEncoder
from rauta.proxy.http2.over_h2 import Connection
from support.h2wire import BEGIN, TABLE_SIZE, get, settings

Field = tuple[bytes, bytes]
REQUEST = [(":method", "GET"), (":scheme", "http"), (":path", "/")]

NAMES = st.sampled_from(
    [b":status", b":path", b"date", b"etag", b"cookie", b"authorization", b"x-a", b"x-b", b"x-" + b"c" * 60]
)
VALUES = st.one_of(
    st.sampled_from([b"", b"200", b"/", b"a", b"session=0123456789abcdef", b"v" * 900, b"w" * 3500, b"y" * 5000]),
    st.binary(max_size=200),
)
BLOCKS = st.lists(st.tuples(NAMES, VALUES), max_size=12)
SIZES = st.sampled_from([0, 1, 33, 100, 1000, 4095, 4096, 65_536, 2**32 - 1])


@given(st.lists(st.one_of(BLOCKS, SIZES), max_size=40))
def test_a_decoder_finds_what_was_encoded(steps: list[list[Field] | int]) -> None:
    encoder, decoder = FieldEncoder(), Decoder(max_header_list_size=1 << 20)
    for step in steps:
        if isinstance(step, int):
            encoder.header_table_size = step
            decoder.max_allowed_table_size = step
        else:
            assert decoder.decode(encoder.encode(step), raw=True) == step
            assert decoder.header_table._current_size == encoder._size <= min(MOST, encoder.header_table_size)


def test_what_is_said_again_takes_a_byte_or_two() -> None:
    encoder = FieldEncoder()
    fields = [(b":status", b"200"), (b"server", b"nginx"), (b"x-request-id", b"1"), (b"x-request-id", b"2")]
    first, second = encoder.encode(fields), encoder.encode(fields)
    assert (len(first), len(second)) == (1 + 7 + 1 + 13 + 2 + 3, 4)
    assert encoder.encode([(b"x-%d" % number, b"") for number in range(70)] + fields[1:2])[-2:] == b"\xff\x07"


@pytest.mark.parametrize(
    "field",
    [(b"authorization", b"Basic eDp5"), (b"proxy-authorization", b"Basic eDp5"), (b"cookie", b"id=1234567890123456")],
)
def test_secrets_are_in_no_table(field: Field) -> None:
    encoder = FieldEncoder()
    blocks = [encoder.encode([field]) for _ in range(2)]
    assert blocks[0] == blocks[1]
    (found,) = Decoder().decode(blocks[0], raw=True)
    assert (tuple(found), found.indexable) == (field, False)
    assert encoder.encode([(b"cookie", b"id=12345678901234567")])[0] & 0xC0 == 0x40  # long enough


def test_what_is_seen_once_pushes_nothing_out() -> None:
    encoder = FieldEncoder()
    encoder.encode([(b"server", b"nginx")])
    for number in range(200):
        encoder.encode([(b":path", b"/%d" % number), (b"etag", b'"%d"' % number), (b"set-cookie", b"id=%d" % number)])
    assert encoder.encode([(b"server", b"nginx")]) == b"\xbe"


def test_a_peer_cannot_make_the_table_grow() -> None:
    """h2 takes its word for it: a client would have the fields of all its responses kept, and searched."""
    client = H2Connection(H2Configuration(header_encoding=None))
    client.local_settings[SettingCodes.HEADER_TABLE_SIZE] = 2**32 - 1
    client.initiate_connection()
    client.update_settings({SettingCodes.HEADER_TABLE_SIZE: 2**32 - 1})
    frames = Connection(head_limit=65_536, window=65_536, client=False)
    frames.receive(client.data_to_send())
    client.receive_data(frames.take())
    for number in range(100):
        stream = client.get_next_available_stream_id()
        client.send_headers(stream, [*REQUEST, (":authority", "a")], end_stream=True)
        frames.receive(client.data_to_send())
        frames.send_head(stream, [(b":status", b"200"), (b"x-%d" % number, b"v" * 200)], end=True)
        client.receive_data(frames.take())
    assert frames._h2.encoder._size <= MOST


def test_of_several_sizes_in_one_frame_the_least_is_told() -> None:
    """RFC 7541 4.2: "the smallest maximum table size that occurs in that interval MUST be signaled"."""
    frames = Connection(head_limit=65_536, window=65_536, client=False)
    frames.receive(BEGIN + get(1))
    frames.send_head(1, [(b":status", b"200"), (b"server", b"nginx")], end=True)
    frames.take()
    frames.receive(settings((TABLE_SIZE, 0), (TABLE_SIZE, 4096)) + get(3))
    frames.take()
    frames.send_head(3, [(b":status", b"200"), (b"server", b"nginx")], end=True)
    assert frames.take()[9:].startswith(b"\x20\x3f\xe1\x1f\x88\x76")  # of nothing, of 4,096 bytes; the table is empty
