"""nginx as a backend: a generated configuration on an ephemeral port, ended by pid."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.http import free_port

_TEMPLATE = """
worker_processes 1; daemon off; master_process off; pid {home}/pid; error_log {home}/error.log;
events {{ worker_connections 512; }}
http {{
  access_log {home}/access.log; keepalive_requests 100000; client_max_body_size 0;
  client_body_temp_path {home}/t1; proxy_temp_path {home}/t2; fastcgi_temp_path {home}/t3;
  uwsgi_temp_path {home}/t4; scgi_temp_path {home}/t5;
  {http}
  server {{ listen 127.0.0.1:{port}; root {home}/www; {server} }}
}}
"""


class Nginx:
    """A running nginx. Files under `www` are served."""

    def __init__(self, port: int, home: Path) -> None:
        self.port = port
        self.www = home / "www"
        self.access_log = home / "access.log"
        self.error_log = home / "error.log"


@contextmanager
def nginx(home: Path, server: str = "", http: str = "") -> Iterator[Nginx]:
    """Run nginx in `home` with directives for its server and http blocks."""
    port = free_port()
    (home / "www").mkdir(parents=True)
    home.chmod(0o755)
    config = home / "nginx.conf"
    config.write_text(_TEMPLATE.format(home=home, port=port, server=server, http=http))
    process = subprocess.Popen(["nginx", "-c", str(config)], stderr=subprocess.PIPE)
    try:
        _wait(port, process)
        yield Nginx(port, home)
    finally:
        process.terminate()
        process.communicate(timeout=10)


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"nginx did not start: {process.communicate()[1].decode()}") from None
            time.sleep(0.01)
