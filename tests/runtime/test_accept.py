"""docs/protocols.md, the accept stage: its examples are served by processes, also after reloads and by two workers."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.process import PATIENCE, Backend, Gateway, free_port, gateway
from support.tls import Pair, make_pair

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "protocols.md").read_text()


def example(title: str) -> str:
    """The YAML of a section."""
    section = PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    (text,) = re.findall(r"```yaml\n(.*?)```", section, re.DOTALL)
    return text


def curl(*words: str) -> tuple[str, int]:
    """What it writes, and its exit status."""
    command = ["curl", "-sS", "--max-time", "30", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    return done.stdout, done.returncode


class Site:
    """A file of two workers on one port."""

    def __init__(self, folder: Path, backend: Backend) -> None:
        self.path, self.log = folder / "rauta.yaml", folder / "access.log"
        self.port, self.backend = free_port(), backend
        self.pair: Pair = make_pair(folder, "example.com", names="DNS:example.com")

    def write(self, listeners: str, services: str = "") -> None:
        found = listeners.replace("0.0.0.0:443", f"127.0.0.1:{self.port}").replace("10.0.0.0/24", "127.0.0.9")
        self.path.write_text(
            f"version: 1\nworkers: 2\naccess_log: {{to: access.log, format: json}}\n{found}"
            f"{services or 'services:'}\n  s: {{backends: [{{address: '127.0.0.1:{self.backend.port}'}}]}}\n"
            "routes: [{name: all, service: s}]\n"
        )

    def url(self, scheme: str, name: str = "example.com") -> tuple[str, ...]:
        """To a name, at this port."""
        return ("--connect-to", f"::127.0.0.1:{self.port}", f"{scheme}://{name}/")

    @contextmanager
    def served(self) -> Iterator[Gateway]:
        with gateway("--config", str(self.path)) as started:
            yield started


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    backend = Backend()
    try:
        yield Site(tmp_path, backend)
    finally:
        backend.close()


def test_a_plain_listener_becomes_the_example_and_plain_again(site: Site) -> None:
    plain = "listeners:\n  websecure: {address: '0.0.0.0:443'}\n"
    secure = ("--cacert", str(site.pair.cert))
    header = ("--interface", "127.0.0.9", "--haproxy-protocol")
    site.write(plain)
    with site.served() as rauta:
        for round_ in range(1, 3):
            for _ in range(4):  # both workers
                assert curl("-o", "/dev/null", "-w", "%{http_code}", *site.url("http")) == ("200", 0)
                assert curl(*secure, *site.url("https"))[1] != 0
            site.write(example("PROXY protocol from load balancers"))
            rauta.signal(signal.SIGHUP)
            rauta.wait_for("reloaded", 2 * round_ - 1)
            for _ in range(4):
                assert curl(*header, *secure, "-o", "/dev/null", "-w", "%{http_code}", *site.url("https")) == ("200", 0)
                assert curl("--interface", "127.0.0.9", *secure, *site.url("https"))[1] != 0  # no header
                assert curl("--interface", "127.0.0.8", "--haproxy-protocol", *secure, *site.url("https"))[1] != 0
                assert curl(*secure, "-o", "/dev/null", "-w", "%{http_code}", *site.url("https")) == ("200", 0)
                answer, _ = curl(*site.url("http"))
                assert "plain_on_tls: received plain HTTP on a TLS port" in answer
            site.write(plain)
            rauta.signal(signal.SIGHUP)
            rauta.wait_for("reloaded", 2 * round_)
        assert rauta.stop() == 0
    lines = [json.loads(line) for line in site.log.read_text().splitlines()]
    assert {line["client"] for line in lines if line["status"] == 200} == {"127.0.0.1", "127.0.0.9"}
    refused = Counter((line["client"], line["detail"]) for line in lines if line["reason"] == "bad_proxy_header")
    assert refused == {
        ("127.0.0.9", "no PROXY header"): 8,
        ("127.0.0.8", "a PROXY header of a client that proxy_protocol.from does not list"): 8,
    }


def test_the_example_of_passthrough(site: Site, tmp_path: Path) -> None:
    behind = make_pair(tmp_path, "behind", names="DNS:db.example.com,DNS:a.internal.example.com")
    ports = free_port(), free_port()
    text = example("TLS that goes through")
    listeners, services = text.partition("services:\n")[0], "services:\n" + text.partition("services:\n")[2].rstrip()
    services = services.replace("10.0.7.1:443", f"127.0.0.1:{ports[0]}").replace(
        "10.0.7.2:443", f"127.0.0.1:{ports[1]}"
    )
    site.write(listeners, services)
    server = subprocess.Popen(
        [
            *("openssl", "s_server", "-accept", f"127.0.0.1:{ports[0]}", "-www", "-quiet"),
            *("-cert", str(behind.cert), "-key", str(behind.key)),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with site.served() as rauta:
            for name in ("db.example.com", "a.internal.example.com"):
                told, status = curl("--cacert", str(behind.cert), *site.url("https", name))
                assert status == 0
                assert "s_server" in told  # its page of what it was asked for
            assert curl("--cacert", str(site.pair.cert), *site.url("https"))[1] == 0
            assert rauta.stop() == 0
    finally:
        server.terminate()
        server.wait(PATIENCE)
    lines = [json.loads(line) for line in site.log.read_text().splitlines()]
    assert sorted((line["host"], line["service"], line["status"]) for line in lines) == [  # of two workers
        ("a.internal.example.com", "db", 200),
        ("db.example.com", "db", 200),
        ("example.com", "s", 200),
    ]


@contextmanager
def s_server(pair: Pair) -> Iterator[int]:
    """Another's server of TLS, which answers whatever it is asked for with a page; its port."""
    port = free_port()
    command = ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-www", "-quiet"]
    server = subprocess.Popen([*command, "-cert", str(pair.cert), "-key", str(pair.key)], stdout=subprocess.DEVNULL)
    try:
        yield port
    finally:
        server.terminate()
        server.wait(PATIENCE)


def test_backends_that_tls_goes_through_to_are_checked_by_tls(site: Site, tmp_path: Path) -> None:
    good, bad = (make_pair(tmp_path, name, names=f"DNS:{name}.example.com") for name in ("db", "other"))
    with s_server(good) as right, s_server(bad) as wrong:
        site.write(
            "listeners:\n  websecure:\n    address: '0.0.0.0:443'\n"
            "    passthrough: [{names: [db.example.com], service: db}]\n",
            "services:\n  db:\n"
            f"    backends: [{{address: '127.0.0.1:{right}'}}, {{address: '127.0.0.1:{wrong}'}}]\n"
            f"    health: {{tls: {{ca: '{good.cert}', name: db.example.com}}, interval: 200ms, unhealthy: 1}}",
        )
        with site.served() as rauta:
            down = rauta.wait_for("backend_down")
            assert down["backend"] == f"127.0.0.1:{wrong}"
            assert "its certificate is not accepted: self-signed certificate" in down["message"]
            for _ in range(8):
                told, status = curl("--cacert", str(good.cert), *site.url("https", "db.example.com"))
                assert (status, "s_server" in told) == (0, True)
            assert rauta.stop() == 0
        assert sum('"event": "backend_down"' in line for line in rauta.lines) == 1
