"""The examples of docs/embedding.md are run as they are, on other ports."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from rauta.api import Gateway
from support.asgi import host
from support.process import PATIENCE, ROOT, Backend, free_port, gateway, get

EXAMPLES = ROOT / "examples"


@pytest.mark.parametrize("kind", ["hypercorn", "uvicorn"])
def test_the_gateway_behind_a_host(kind: str, tmp_path: Path) -> None:
    """As the page says; and once more on a file whose backend is there."""
    with host(kind, "examples.embedded:app", tmp_path) as running:
        status, body = get(running.port, "/broken")
        assert status == 502
        assert b"upstream_refused" in body
        running.stop()
        assert '"reason":"upstream_refused"' in running.log.read_text()  # the file logs to standard output


def test_the_model_of_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs" / "embedding.md").read_text()
    (text,) = (block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "Configuration(" in block)
    names: dict[str, Any] = {}
    port, backend = free_port(), Backend()

    async def serve() -> None:
        async with Gateway(names["configuration"]):
            assert await asyncio.to_thread(get, port, "/users/7") == (200, b"/users/7")
            assert await asyncio.to_thread(get, port, "/other") == (404, b"nothing here")

    try:
        exec(text.replace("8080", str(port)).replace("9001", str(backend.port)), names)
        assert capsys.readouterr().out.startswith("Hit(route=Route(name='users'")
        asyncio.run(names["main"]())
        assert capsys.readouterr().out.startswith("GatewayStats(")
        asyncio.run(serve())
    finally:
        backend.close()


@pytest.mark.parametrize("workers", [[], ["2"]])
def test_the_gateway_in_a_program(tmp_path: Path, workers: list[str]) -> None:
    port, backend = free_port(), Backend()
    file = tmp_path / "rauta.yaml"
    file.write_text(
        f'version: 1\nlisteners: {{web: {{address: "127.0.0.1:{port}"}}}}\n'
        f'services: {{s: {{backends: [{{address: "127.0.0.1:{backend.port}"}}]}}}}\n'
        "routes: [{name: all, service: s}]\naccess_log: {to: 'off'}\n"
    )
    program = subprocess.Popen(
        [sys.executable, str(EXAMPLES / "embedded_native.py"), str(file), *workers],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
        cwd=ROOT,
    )
    try:
        assert program.stdin is not None
        assert program.stdout is not None
        program.stdin.write("\n")
        assert program.stdout.readline() == "0 connections, 0 requests in flight\n"
        assert get(port, "/a") == (200, b"/a")
        program.stdin.write("\nq\n")
        program.stdin.close()
        assert program.stdout.read().splitlines()[-1].split() == ["1", "200", "all"]
        assert program.wait(PATIENCE) == 0
    finally:
        program.kill()
        program.wait()
        program.stdout.close()
        backend.close()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "usage: python examples/embedded_native.py FILE [PROCESSES], such as examples/rauta.yaml"),
        ("version: 1\nlisteners: 7\n", "{file}:2: listeners: expected "),
        ('version: 1\nlisteners: {{web: {{address: "192.0.2.1:80"}}}}\nroutes: []\n', "192.0.2.1"),
    ],
)
def test_a_program_that_cannot_begin(text: str | None, told: str, tmp_path: Path) -> None:
    file = tmp_path / "rauta.yaml"
    if text is not None:
        file.write_text(text.format())
    arguments = [] if text is None else [str(file)]
    program = subprocess.run(
        [sys.executable, str(EXAMPLES / "embedded_native.py"), *arguments], capture_output=True, text=True, cwd=ROOT
    )
    assert program.returncode == 2
    assert told.format(file=file) in program.stderr
    assert "Traceback" not in program.stderr


def test_a_program_goes_on_with_what_it_had(tmp_path: Path) -> None:
    port, file = free_port(), tmp_path / "rauta.yaml"
    file.write_text(
        f'version: 1\nlisteners: {{web: {{address: "127.0.0.1:{port}"}}}}\n'
        "routes: [{name: r, respond: {body: first}}]\naccess_log: {to: 'off'}\n"
    )
    with subprocess.Popen(
        [sys.executable, str(EXAMPLES / "embedded_native.py"), str(file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        bufsize=1,
        cwd=ROOT,
    ) as program:
        try:
            assert program.stdin is not None
            assert program.stdout is not None
            assert program.stderr is not None
            program.stdin.write("\n")
            assert program.stdout.readline() == "0 connections, 0 requests in flight\n"
            file.write_text("version: 1\nlisteners: 7\n")
            program.stdin.write("\n")
            assert f"{file}:2: listeners: " in program.stderr.readline()
            assert get(port, "/") == (200, b"first")
            program.stdin.write("q\n")
            assert program.wait(PATIENCE) == 0
        finally:
            program.kill()


def test_an_application_within_rauta(tmp_path: Path) -> None:
    port = free_port()
    file = tmp_path / "asgi.yaml"
    text = (EXAMPLES / "asgi.yaml").read_text().replace(":8080", f":{port}", 1).replace(":8080", f":{port}")
    file.write_text(f"{text}workers: 1\n")
    with gateway("--config", str(file)) as running:
        assert get(port, "/hello") == (200, b"hello, number 1 of this worker\n")
        assert get(port, "/hello") == (200, b"hello, number 2 of this worker\n")
        with connect(f"ws://127.0.0.1:{port}/hello") as peer:
            peer.send("hi")
            assert peer.recv() == "hi"
        assert running.stop() == 0
