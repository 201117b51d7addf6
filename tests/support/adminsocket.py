"""What answers on an admin socket as it is told to, for commands of rautactl."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any


class AdminSocket:
    """Answers each path with the next of its answers, the last one again and again: a document, or a status and one."""

    def __init__(self, path: Path, **answers: Iterable[Any]) -> None:
        self.path = str(path)
        self.asked: list[str] = []
        self._answers = {f"/v1/{name}": [*given] for name, given in answers.items()}
        admin = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                admin.asked.append(f"{self.command} {self.path}")
                left = admin._answers[self.path.replace("/offload/detach", "/detach")]
                found = left.pop(0) if len(left) > 1 else left[0]
                status, document = found if isinstance(found, tuple) else (200, found)
                body = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = answer  # noqa: N815 - names of the standard library

            def address_string(self) -> str:
                return "unix"

            def log_message(self, *args: object) -> None:
                pass

        self._server = socketserver.UnixStreamServer(self.path, Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def __enter__(self) -> AdminSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(20)
