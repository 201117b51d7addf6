"""curl in front, nginx behind, rauta between."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.http import gateway, run
from support.nginx import Nginx, nginx

SERVER = """
location = /hello { return 200 "hello from nginx\\n"; }
location = /echo { add_header X-Host "$http_host" always; add_header X-For "$http_x_forwarded_for" always;
                   add_header X-Proto "$http_x_forwarded_proto" always; return 200 "$request_method $request_uri"; }
location = /empty { return 204; }
location = /teapot { return 418 "short and stout"; }
location /upload { proxy_pass http://127.0.0.1:$server_port/sink; }
location = /sink { client_body_buffer_size 8m; proxy_pass http://127.0.0.1:$server_port/count; }
location = /count { return 200 "$http_content_length"; }
location /gz { gzip on; gzip_min_length 1; gzip_types text/plain; default_type text/plain; alias %s/www/; }
"""


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    home: Path = tmp_path_factory.mktemp("nginx")
    with nginx(home, SERVER % home) as server:
        (server.www / "file").write_bytes(bytes(range(256)) * 4096)  # 1 MiB
        (server.www / "text").write_text("many words\n" * 10_000)
        yield server


async def curl(*arguments: str, data: bytes | None = None) -> bytes:
    process = await asyncio.create_subprocess_exec(
        "curl", "-sS", "--max-time", "20", *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate(data)
    assert process.returncode == 0, (process.returncode, out)
    return out


def test_get(web: Nginx) -> None:
    async def main() -> None:
        async with gateway(web.port) as rauta:
            answer = await curl("-i", f"http://127.0.0.1:{rauta.port}/hello")
            assert answer.startswith(b"HTTP/1.1 200 OK\r\nServer: nginx")
            assert answer.endswith(b"\r\n\r\nhello from nginx\n")

    run(main())


def test_what_the_backend_sees(web: Nginx) -> None:
    async def main() -> None:
        async with gateway(web.port) as rauta:
            url = f"http://127.0.0.1:{rauta.port}/a/../echo?q=%41%2f"
            answer = await curl(
                "-i", "--path-as-is", "-H", "Host: Example.COM:80", "-H", "X-Forwarded-For: 6.6.6.6",
                "-H", "X_Forwarded_Proto: evil", url,
            )  # fmt: skip
            assert b"\r\nX-Host: Example.COM:80\r\n" in answer
            assert b"\r\nX-For: 127.0.0.1\r\n" in answer
            assert b"\r\nX-Proto: http\r\n" in answer
            assert answer.endswith(b"\r\n\r\nGET /echo?q=%41%2f")

    run(main())


def test_head_empty_and_error(web: Nginx) -> None:
    async def main() -> None:
        async with gateway(web.port) as rauta:
            base = f"http://127.0.0.1:{rauta.port}"
            # One curl, one connection: a body that is wrongly expected or sent would break what follows.
            answer = await curl("-i", "-I", f"{base}/file", "--next", "-i", f"{base}/empty", f"{base}/teapot")
            assert b"Content-Length: 1048576\r\n" in answer
            assert b"HTTP/1.1 204 No Content\r\n" in answer
            assert b"HTTP/1.1 418 " in answer
            assert answer.endswith(b"short and stout")
            assert rauta.plane.open_connections <= 1

    run(main())


def test_not_modified(web: Nginx) -> None:
    async def main() -> None:
        async with gateway(web.port) as rauta:
            base = f"http://127.0.0.1:{rauta.port}"
            head = await curl("-I", f"{base}/file")
            etag = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"etag:")).split(b" ")[1]
            answer = await curl("-i", "-H", f"If-None-Match: {etag.decode()}", f"{base}/file", f"{base}/hello")
            assert answer.startswith(b"HTTP/1.1 304 Not Modified\r\n")
            assert answer.endswith(b"hello from nginx\n")

    run(main())


def test_a_file_arrives_whole(web: Nginx) -> None:
    async def main() -> None:
        async with gateway(web.port) as rauta:
            url = f"http://127.0.0.1:{rauta.port}/file"
            bodies = await asyncio.gather(*(curl(url) for _ in range(5)))
            expected = hashlib.sha256((web.www / "file").read_bytes()).digest()
            assert {hashlib.sha256(body).digest() for body in bodies} == {expected}
            part = await curl("-i", "-r", "1000-1009", url)
            assert b"HTTP/1.1 206 " in part
            assert part.endswith(bytes(i % 256 for i in range(1000, 1010)))

    run(main())


def test_chunked_from_nginx(web: Nginx) -> None:
    async def main() -> None:
        async with gateway(web.port) as rauta:
            url = f"http://127.0.0.1:{rauta.port}/gz/text"
            raw = await curl("-i", "--raw", "-H", "Accept-Encoding: gzip", url)
            assert b"Transfer-Encoding: chunked\r\n" in raw
            assert raw.endswith(b"\r\n0\r\n\r\n")
            assert await curl("--compressed", url) == (web.www / "text").read_bytes()
            # HTTP/1.0 cannot have chunks; the end of the body is the end of the stream.
            old = await curl("-i", "--http1.0", "-H", "Accept-Encoding: gzip", "--compressed", url)
            assert b"Transfer-Encoding" not in old
            assert b"Connection: close\r\n" in old
            assert old.endswith((web.www / "text").read_bytes())

    run(main())


@pytest.mark.parametrize("chunked", [False, True], ids=["counted", "chunked"])
def test_upload(web: Nginx, chunked: bool) -> None:
    async def main() -> None:
        async with gateway(web.port) as rauta:
            body = bytes(range(256)) * 20_000  # 5 MB; above 1 MiB curl asks with Expect: 100-continue
            extra = ["-H", "Transfer-Encoding: chunked"] if chunked else []
            answer = await curl(
                "-i", *extra, "--data-binary", "@-", f"http://127.0.0.1:{rauta.port}/upload", data=body
            )  # fmt: skip
            assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\n") or chunked
            assert answer.endswith(b"%d" % len(body))

    run(main())


def test_many_requests_over_few_connections(web: Nginx) -> None:
    async def main() -> None:
        async with gateway(web.port) as rauta:
            url = f"http://127.0.0.1:{rauta.port}/hello?[1-200]"
            before = web.access_log.read_bytes().count(b"\n")
            answers = await asyncio.gather(*(curl(url) for _ in range(4)))
            assert answers == [b"hello from nginx\n" * 200] * 4
            assert rauta.plane.open_connections <= 4
            while web.access_log.read_bytes().count(b"\n") - before < 800:  # nginx logs behind the response
                await asyncio.sleep(0.01)

    run(main())
