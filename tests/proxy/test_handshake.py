"""Plain HTTP on a TLS port leaves a line in the log."""

from __future__ import annotations

import ssl
from contextlib import suppress
from pathlib import Path

from rauta.routing.model import Respond, Route
from rauta.routing.settings import LogFormat
from support.http import client, gateway, request, run
from support.tls import make_pair


def test_plain_http_on_a_tls_port_is_logged_and_tls_is_not(tmp_path: Path) -> None:
    pair = make_pair(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    trusting = ssl.create_default_context(cafile=pair.cert)

    async def main() -> None:
        route = Route(name="hello", action=Respond(body="hello"))
        async with gateway(routes=[route], ssl=context, log=LogFormat.COMMON) as rauta:
            async with client(rauta.port) as peer:
                peer.send(request("/?token=1"))
                with suppress(ConnectionResetError):  # as good as an end
                    assert not await peer.rest()
            async with client(rauta.port, ssl=trusting, server_hostname="localhost") as peer:
                peer.send(request("/"))
                assert (await peer.response())[1] == b"hello"
            async with client(rauta.port) as peer:  # neither: a probe
                peer.send(b"\x00\x01\x02\x03" * 8)
                with suppress(ConnectionResetError):
                    await peer.rest()
            refused, served = rauta.log_lines()
            assert refused.startswith("- - - [")
            assert ' "-" 400 0 listener=web ' in refused
            assert " reason=plain_on_tls " in refused
            assert " 200 5 listener=web " in served

    run(main())
