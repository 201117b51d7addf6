"""RFC 9113 and RFC 7541, sentence by sentence, frame by frame: see the tables in `support`."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from support import h2framing, h2kinds, h2messages
from support.h2case import Case, Ends, Resets, Serves
from support.h2client import ERRORS
from support.h2mirror import mirrored
from support.h2nghttp2 import OTHERWISE
from support.h2wire import GREATEST, LATER, ConnectionEndedError, Wire, data, get, post, wire

CASES = [*h2framing.CASES, *h2kinds.CASES, *h2messages.CASES]


# --- what is expected ---------------------------------------------------------------------------------------


async def check_end(peer: Wire, expected: Ends) -> None:
    """A connection error, or the end."""
    if not expected.codes:
        await peer.rest()  # of HTTP/1.1, if it is anything
        return
    for stream in expected.streams:
        assert (await peer.answered(stream)).status == 200
    await peer.ended()
    assert len(peer.seen.goaways) == 1
    last, code = peer.seen.goaways[0]
    assert code in {ERRORS[name] for name in expected.codes}
    # RFC 9113 5.4.1: "with the stream identifier of the last stream that it successfully received".
    assert max((stream for stream, answer in peer.streams.items() if answer.status), default=0) <= last <= GREATEST


async def check_reset(peer: Wire, expected: Resets) -> None:
    """A stream error."""
    answer = peer.streams[expected.stream]
    await peer.until(lambda: answer.reset is not None or (answer.ended and expected.may_answer))
    if expected.may_answer and answer.status:
        assert 400 <= answer.status < 500
    else:
        assert answer.reset == ERRORS[expected.code]


async def check_service(peer: Wire, expected: Resets | Serves) -> None:
    """The connection goes on, and no other stream was reset but those whose body nobody wanted."""
    for stream in expected.streams:
        assert (await peer.answered(stream)).status == 200
    if GREATEST not in peer.streams:
        peer.send(get(LATER))
        assert (await peer.answered(LATER)).status == 200
    assert not peer.seen.goaways
    mine = expected.stream if isinstance(expected, Resets) else None
    assert not {stream for stream, answer in peer.streams.items() if answer.reset and stream != mine}


def check_log(lines: list[dict[str, Any]], case: Case) -> None:
    """Why, and nothing where all is well."""
    told = {line["reason"]: line.get("detail") for line in lines}
    told.pop(None, None)
    told.pop("client_gone", None)  # by RST_STREAM, or because the connection has ended
    match case.expected:
        case Ends(_, str(reason)):
            assert told.get(reason), told
        case Resets():
            assert told
            assert all(told.values()), told
        case _:
            assert not told


@pytest.mark.parametrize("case", CASES, ids=[case.title for case in CASES])
async def test_what_the_rfc_says(case: Case, library: str) -> None:
    if library == "ngh2":
        case = replace(case, expected=OTHERWISE.get(case.title, case.expected))
    served: list[bytes] = []
    async with (
        mirrored(served) as rauta,
        wire(rauta.port) as other,
        wire(rauta.port, case.begin) as peer,
    ):
        other.send(post(1, "/other"))
        await other.settled()
        for step in case.steps:
            if isinstance(step, bytes):
                peer.send(step)
                continue
            try:
                await step(peer)
            except ConnectionEndedError:
                assert isinstance(case.expected, Ends)
        match case.expected:
            case Ends():
                await check_end(peer, case.expected)
            case Resets():
                await check_reset(peer, case.expected)
                await check_service(peer, case.expected)
            case Serves():
                await check_service(peer, case.expected)
        other.send(data(1, b"mine"))
        answer = await other.answered(1)
        assert (answer.status, answer.body, other.seen.goaways) == (200, b"mine", [])
        # RFC 9113 8.1.1: intermediaries "MUST NOT forward a malformed request".
        assert len(served) == 1 + sum(answer.status == 200 for answer in peer.streams.values())
        check_log([json.loads(line) for line in rauta.log_lines()], case)


async def test_there_are_as_many_cases_as_there_should_be() -> None:
    assert len(CASES) >= 110
    assert len({case.title for case in CASES}) == len(CASES)
    assert OTHERWISE.keys() <= {case.title for case in CASES}
    sent = [(case.begin, tuple(step if isinstance(step, bytes) else None for step in case.steps)) for case in CASES]
    assert len(set(sent)) == len(sent)
