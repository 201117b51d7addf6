"""The examples of docs/embedding.md are run as they are, on other ports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from websockets.sync.client import connect

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
