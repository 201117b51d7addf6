"""The command line as its users see it: real processes, their exit code and what they say."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from rauta.routing.services import BackendTls
from rauta.runtime import cli, start
from support.process import ROOT, Backend, free_port, gateway, get, run_rauta

TO = ("--to", "http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((), "give --config FILE, or --listen ADDRESS and --to URL"),
        (("--listen", ":8080"), "give --config FILE, or --listen"),
        (("--config", "x.yaml", "--listen", ":8080"), "exclude each other"),
        (("--listen", "8080", *TO), "--listen: '8080' is not an address: write host:port"),
        (("--listen", "localhost:8080", *TO), "a listener needs an IP address"),
        (("--listen", ":8080", "--to", "https://"), "is neither an IP address nor a host name"),
        (("--listen", ":8080", "--to", "https://a/b"), "has more than host and port"),
        (("--listen", ":8080", "--to", "h2c://a"), "'h2c' is not supported: write http://HOST:PORT or https://HOST"),
        (("--listen", ":8080", *TO, "--ca", "ca.pem"), "--ca needs --to https://HOST"),
        (("--config", "x.yaml", "--ca", "ca.pem"), "--ca needs --to https://HOST: in a file, a service has `ca`"),
        (("--listen", ":8080", "--to", "https://a", "--ca", "absent.pem"), "--ca: there is no file '"),
        (("--listen", ":8080", "--to", "https://a", "--ca", "setup.py"), "setup.py' holds no PEM certificate"),
        (("--listen", ":8080", "--to", "ftp://127.0.0.1"), "'ftp' is not supported"),
        (("--listen", ":8080", "--to", "127.0.0.1:9000"), "is not a URL: write http://HOST:PORT"),
        (("--listen", ":8080", "--to", "http://a/b"), "has more than host and port"),
        (("--listen", ":8080", "--to", "http://u:p@a"), "has more than host and port"),
        (("--listen", ":8080", "--to", "http://a:0x10"), "--to: 'http://a:0x10'"),
        (("--listen", ":8080", "--to", "http://a:99999"), "out of range"),
        (("--listen", ":8080", "--to", "http://"), "is neither an IP address nor a host name"),
        (("--listen", ":8080", *TO, "--workers", "0"), "--workers: 0 is out of range"),
        (("--listen", ":8080", *TO, "--workers", "many"), "invalid int value"),
        (("--conf", "x.yaml"), "unrecognized arguments: --conf x.yaml\n"),
        (("rauta.yaml",), "unrecognized arguments: rauta.yaml; a configuration file is named by --config rauta.yaml"),
        (("status",), "unrecognized arguments: status; this starts a gateway, by --config FILE, and commands are"),
        (("check", "a.yaml"), "those of rautactl: `rautactl check a.yaml`"),
        (("--listen", ":8080", *TO, "--watch"), "--watch needs --config FILE"),
        (("--listen", ":8080", *TO, "--takeover"), "--takeover needs `admin: {}`"),
    ],
)
def test_bad_usage(arguments: tuple[str, ...], complaint: str) -> None:
    code, said = run_rauta(*arguments)
    assert code == 2
    assert complaint in said
    assert "Traceback" not in said


def test_version() -> None:
    command = [sys.executable, "-m", "rauta.proxy", "--version"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert said.startswith("rauta ")
    assert "(Python 3." in said


def test_check_serves_nothing() -> None:
    port = free_port()
    code, said = run_rauta("--check", "--listen", f"127.0.0.1:{port}", *TO)
    assert (code, said) == (0, f"rauta: everything to {TO[1]} is good: 1 listener, 1 service, 1 route\n")


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("https://a.test", "a.test:443"),
        ("HTTPS://a.test:8443/", "a.test:8443"),
        ("https://[::1]", "[::1]:443"),
        ("http://a.test", "a.test:80"),
    ],
)
def test_where_a_url_leads(url: str, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[start.Source] = []

    def run(source: start.Source, *_: object, **__: object) -> int:
        started.append(source)
        return 0

    monkeypatch.setattr(start, "run", run)
    assert cli.main(["--listen", ":8080", "--to", url]) == 0
    (service,) = started[0].configuration.services
    assert str(service.backends[0].address) == address
    assert service.tls == (BackendTls() if url.lower().startswith("https:") else None)


def test_a_backend_by_https(tmp_path: Path) -> None:
    """A gateway with a certificate of its own is the backend of others, which trust it, and do not."""
    plain = Backend()
    port, trusting, doubting = free_port(), free_port(), free_port()
    others = ("--to", f"https://localhost:{port}", "--workers", "1", "--listen")
    served = ("--listen", f"127.0.0.1:{port}", "--to", plain.url, "--self-signed", str(tmp_path), "--workers", "1")
    ca = ("--ca", str(tmp_path / "self-signed.crt"))
    log = tmp_path / "access.log"
    try:
        with (
            gateway(*served),
            gateway(*others, f"127.0.0.1:{trusting}", *ca),
            gateway(*others, f"127.0.0.1:{doubting}", stdout=log) as refusing,
        ):
            assert get(trusting, "/a") == (200, b"/a")
            status, body = get(doubting, "/a")
            assert (status, b"upstream_tls" in body) == (502, True)
            assert refusing.stop() == 0
        assert "its certificate is not accepted: self-signed certificate" in log.read_text()
    finally:
        plain.close()


def test_an_address_in_use_by_a_server_of_the_same_user() -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        code, said = run_rauta("--listen", f"127.0.0.1:{port}", *TO)
    assert code == 2
    assert said == (
        f"rauta: listener 'http': 127.0.0.1:{port} is in use: stop what listens there (`ss -ltnp` tells), "
        "or choose another port\n"
    )


def test_an_address_of_another_machine() -> None:
    code, said = run_rauta("--listen", "10.255.255.1:80", *TO)
    assert code == 2
    assert said.startswith("rauta: listener 'http': 10.255.255.1:80 is not an address of this machine")
    assert said.count("\n") == 1


def _without_privileged_ports() -> list[str]:
    """A prefix that takes that right from root, or nothing for an ordinary user. Root stays root, who alone may read a
    checkout in a private folder."""
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("setpriv is not installed, so root cannot give up a capability")
    return [setpriv, "--bounding-set=-net_bind_service"]


def test_a_privileged_port_without_privileges() -> None:
    with open("/proc/sys/net/ipv4/ip_unprivileged_port_start", encoding="ascii") as file:  # noqa: PTH123
        if int(file.read()) < 2:
            pytest.skip("this kernel has no privileged ports")
    code, said = run_rauta("--listen", "127.0.0.1:1", *TO, prefix=_without_privileged_ports())
    assert code == 2
    assert "listener 'http': 127.0.0.1:1 is not permitted: ports below 1024 need root" in said
    assert "Traceback" not in said
