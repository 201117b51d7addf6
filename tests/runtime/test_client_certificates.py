"""Client certificates: who gets through, what a reload changes, what backends and the log are told."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import shutil
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from support.process import PATIENCE, Gateway, free_port, gateway, get
from support.tls import Authority, Pair, client_context, make_pair

VERSIONS = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])


class Clients:
    """Certificates of clients, good and bad."""

    def __init__(self, folder: Path) -> None:
        self.ca = Authority(folder, "ca")
        self.stranger = Authority(folder, "stranger")
        self.good = self.ca.issue("good")
        self.bad = {
            "unknown": self.stranger.issue("unknown"),
            "expired": self.ca.issue("expired", begins=-9, ends=-1),
            "server": self.ca.issue("server", server=True),
        }
        self.servers = [make_pair(folder, name, names=f"DNS:{name}.test") for name in ("first", "second")]


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Clients:
    return Clients(tmp_path_factory.mktemp("clients"))


@pytest.fixture(scope="module")
def backend() -> Iterator[int]:
    """Answers with the request's fields that tell of certificates, as JSON."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            told = [[name.lower(), value] for name, value in self.headers.items() if "cert" in name.lower()]
            body = json.dumps(told).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield int(server.server_address[1])
    server.shutdown()
    server.server_close()
    thread.join(PATIENCE)


class Site:
    """A gateway's file with a listener for first.test and second.test, and one that asks for no certificates."""

    def __init__(self, home: Path, clients: Clients, backend: int) -> None:
        self.home = home
        self.path = home / "rauta.yaml"
        self.ca = home / "live-ca.crt"
        self.log = home / "log"
        self.port, self.open_port = free_port(), free_port()
        self._clients = clients
        self._backend = backend
        shutil.copyfile(clients.ca.cert, self.ca)
        self.write({"ca": "live-ca.crt"})

    def write(self, asked: dict[str, str] | None, forwarded: list[str] | None = None) -> None:
        pairs = [{"cert": str(pair.cert), "key": {"file": str(pair.key)}} for pair in self._clients.servers]
        tls: dict[str, Any] = {"certificates": pairs}
        web = {"address": f"127.0.0.1:{self.port}", "tls": tls if asked is None else {**tls, "clients": asked}}
        if asked is not None:
            web["forwarded"] = ["client-cert"] if forwarded is None else forwarded
        document = {
            "version": 1,
            "workers": 1,
            "listeners": {"web": web, "open": {"address": f"127.0.0.1:{self.open_port}", "tls": tls}},
            "services": {"s": {"backends": [{"address": f"127.0.0.1:{self._backend}"}]}},
            "routes": [{"name": "all", "service": "s"}],
        }
        lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in document.items())
        self.path.write_text(f"{{\n{lines}\n}}\n")

    @contextlib.contextmanager
    def connection(
        self, context: ssl.SSLContext, name: str | None, session: ssl.SSLSession | None = None, port: int | None = None
    ) -> Iterator[ssl.SSLSocket]:
        raw = socket.create_connection(("127.0.0.1", port or self.port), timeout=PATIENCE)
        with raw, context.wrap_socket(raw, server_hostname=name, session=session) as sock:
            yield sock

    def status(
        self,
        pair: Pair | None,
        name: str | None = "first.test",
        host: str | None = None,
        version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
    ) -> int | str:
        """Of a request on a connection of its own; why the handshake failed."""
        try:
            with self.connection(client_context(pair, version), name) as sock:
                return ask(sock, host or name or "127.0.0.1")[0]
        except ssl.SSLError as error:
            return error.reason


def ask(sock: ssl.SSLSocket, host: str | None, *fields: str) -> tuple[int, Any]:
    """A request and its answer: the status, and what the backend has said. `host` None: HTTP/1.0 without Host."""
    lines = ["GET / HTTP/1.0", *fields] if host is None else ["GET / HTTP/1.1", f"Host: {host}", *fields]
    sock.sendall("".join(f"{line}\r\n" for line in [*lines, ""]).encode())
    with contextlib.closing(http.client.HTTPResponse(sock)) as response:
        response.begin()
        body = response.read()
    return response.status, json.loads(body) if response.status == 200 else body.decode()


@pytest.fixture
def site(tmp_path: Path, clients: Clients, backend: int) -> Site:
    return Site(tmp_path, clients, backend)


@pytest.fixture
def running(site: Site) -> Iterator[Gateway]:
    with gateway("--config", str(site.path), stdout=site.log) as started:
        yield started


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory, clients: Clients, backend: int) -> Iterator[Site]:
    """One that demands certificates, for what changes nothing."""
    site = Site(tmp_path_factory.mktemp("settled"), clients, backend)
    with gateway("--config", str(site.path), stdout=site.log):
        yield site


def curl(
    site: Site, *arguments: str, port: int | None = None, name: str = "first.test"
) -> subprocess.CompletedProcess[str]:
    """A request to a name; its status is the last line of stdout."""
    port = port or site.port
    return subprocess.run(
        [
            *("curl", "-sSk", "--max-time", "20", "-w", "\n%{http_version} %{http_code}"),
            *("--resolve", f"*:{port}:127.0.0.1", *arguments, f"https://{name}:{port}/"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )


# --- who gets through -----------------------------------------------------------------------------------


@VERSIONS
@pytest.mark.parametrize("name", ["first.test", "second.test", "unknown.test", None])
def test_no_name_lets_a_client_through_without_a_certificate(
    name: str | None, version: ssl.TLSVersion, settled: Site, clients: Clients
) -> None:
    missing = {
        ssl.TLSVersion.TLSv1_2: "SSLV3_ALERT_HANDSHAKE_FAILURE",
        ssl.TLSVersion.TLSv1_3: "TLSV13_ALERT_CERTIFICATE_REQUIRED",
    }
    assert settled.status(None, name, version=version) == missing[version]
    assert settled.status(clients.good, name, version=version) == 200
    assert settled.status(clients.bad["unknown"], name, version=version) == "TLSV1_ALERT_UNKNOWN_CA"


@VERSIONS
def test_where_it_is_optional_a_bad_one_is_refused_all_the_same(
    version: ssl.TLSVersion, site: Site, clients: Clients
) -> None:
    site.write({"ca": "live-ca.crt", "mode": "optional"})
    with gateway("--config", str(site.path), stdout=site.log):
        for name in ("first.test", "second.test"):
            assert site.status(None, name, version=version) == 200
            assert site.status(clients.good, name, version=version) == 200
            assert site.status(clients.bad["unknown"], name, version=version) == "TLSV1_ALERT_UNKNOWN_CA"
            assert site.status(clients.bad["expired"], name, version=version) == "SSLV3_ALERT_CERTIFICATE_EXPIRED"


def test_why_a_handshake_was_refused_is_logged(site: Site, running: Gateway, clients: Clients) -> None:
    for pair in (None, *clients.bad.values()):
        assert isinstance(site.status(pair), str)
    assert site.status(clients.good) == 200
    assert running.stop() == 0
    *refused, served = site.log.read_text().splitlines()
    assert " 200 " in served
    details = [line.partition(" detail=")[2].strip('"') for line in refused if " reason=client_certificate " in line]
    assert details == [
        "the client sent no certificate",
        "the client's certificate: unable to get local issuer certificate",
        "the client's certificate: certificate has expired",
        "the client's certificate: unsuitable certificate purpose",
    ]


@pytest.mark.parametrize("protocol", ["--http1.1", "--http2"])
def test_what_curl_sees(protocol: str, settled: Site, clients: Clients) -> None:
    done = curl(settled, protocol)
    assert done.returncode != 0
    assert "certificate required" in done.stderr
    shown = curl(settled, protocol, "--cert", str(clients.good.cert), "--key", str(clients.good.key))
    assert shown.stdout.splitlines()[-1] == f"{protocol[6:]} 200", shown


def test_an_intermediate_is_trusted_without_its_root_and_its_sisters(
    site: Site, clients: Clients, tmp_path: Path
) -> None:
    ours, sister = (Authority(tmp_path, name, parent=clients.ca) for name in ("ours", "sister"))
    text = "# Zertifikate für Clients\n".encode() + ours.cert.read_bytes() + clients.stranger.cert.read_bytes()
    site.ca.write_bytes(text)
    with gateway("--config", str(site.path), stdout=site.log):
        assert site.status(ours.issue("of-ours")) == 200
        assert site.status(clients.bad["unknown"]) == 200  # the second of the file
        assert site.status(sister.issue("of-sister")) == "TLSV1_ALERT_UNKNOWN_CA"
        assert site.status(clients.good) == "TLSV1_ALERT_UNKNOWN_CA"


# --- resumption and reload ------------------------------------------------------------------------------


def session_of(site: Site, context: ssl.SSLContext, name: str) -> ssl.SSLSession:
    """One that can be resumed: tickets of TLS 1.3 come behind the handshake."""
    with site.connection(context, name) as sock:
        assert ask(sock, name)[0] == 200
        session = sock.session
    assert session is not None
    assert session.has_ticket
    return session


def resumed(site: Site, context: ssl.SSLContext, name: str, session: ssl.SSLSession) -> tuple[bool, int] | str:
    try:
        with site.connection(context, name, session) as sock:
            return sock.session_reused or False, ask(sock, name)[0]
    except ssl.SSLError as error:
        return error.reason


@VERSIONS
def test_a_session_from_before_nobody_was_asked_is_not_resumed(
    version: ssl.TLSVersion, site: Site, clients: Clients
) -> None:
    site.write(None)
    with gateway("--config", str(site.path), stdout=site.log) as running:
        context = client_context(version=version)
        before = {name: session_of(site, context, name) for name in ("first.test", "second.test")}
        assert resumed(site, context, "second.test", before["second.test"]) == (True, 200)
        site.write({"ca": "live-ca.crt"})
        running.signal(signal.SIGHUP)
        running.wait_for("reloaded")
        for session in before.values():
            for name in before:
                assert "ALERT" in str(resumed(site, context, name, session))
        assert site.status(clients.good, version=version) == 200


@VERSIONS
def test_a_session_by_another_authority_is_not_resumed(version: ssl.TLSVersion, site: Site, clients: Clients) -> None:
    with gateway("--config", str(site.path), stdout=site.log) as running:
        context = client_context(clients.good, version)
        session = session_of(site, context, "first.test")
        # One rule for all names. In TLS 1.2 OpenSSL takes the session's name for the one that was asked for.
        status = 200 if version is ssl.TLSVersion.TLSv1_3 else 421
        assert resumed(site, context, "second.test", session) == (True, status)
        shutil.copyfile(clients.stranger.cert, site.ca)
        running.signal(signal.SIGHUP)
        running.wait_for("reloaded")
        assert resumed(site, context, "first.test", session) == "TLSV1_ALERT_UNKNOWN_CA"


@VERSIONS
def test_a_session_of_another_listener_is_not_resumed(version: ssl.TLSVersion, settled: Site, clients: Clients) -> None:
    context = client_context(version=version)
    with settled.connection(context, "first.test", port=settled.open_port) as sock:
        assert ask(sock, "first.test")[0] == 200
        session = sock.session
    assert session is not None
    assert "ALERT" in str(resumed(settled, context, "first.test", session))


def test_connections_from_before_are_not_served_when_certificates_are_demanded(site: Site, clients: Clients) -> None:
    site.write({"ca": "live-ca.crt", "mode": "optional"})
    with gateway("--config", str(site.path), stdout=site.log) as running:
        with site.connection(client_context(), "first.test") as sock:
            assert ask(sock, "first.test")[0] == 200
            site.write({"ca": "live-ca.crt"})
            running.signal(signal.SIGHUP)
            running.wait_for("reloaded")
            status, text = ask(sock, "first.test")
            assert (status, "misdirected: " in text) == (421, True)
            assert sock.recv(1) == b""  # for the client to make a new one
        assert site.status(None) == "TLSV13_ALERT_CERTIFICATE_REQUIRED"


def test_a_handshake_that_a_reload_has_overtaken_leads_nowhere(site: Site, clients: Clients) -> None:
    site.write(None)
    with (
        gateway("--config", str(site.path), stdout=site.log) as running,
        socket.create_connection(("127.0.0.1", site.port), timeout=PATIENCE) as raw,
    ):
        site.write({"ca": "live-ca.crt"})
        running.signal(signal.SIGHUP)
        running.wait_for("reloaded")
        with client_context().wrap_socket(raw, server_hostname="first.test") as sock:
            assert ask(sock, "first.test")[0] == 421


def test_a_listener_that_was_plain_answers_nothing_in_the_clear(site: Site, clients: Clients) -> None:
    good = site.path.read_text()
    document = json.loads(good)
    for listener in document["listeners"].values():
        del listener["tls"]
    document["listeners"]["web"]["forwarded"] = []
    site.path.write_text(json.dumps(document))
    with gateway("--config", str(site.path), stdout=site.log) as running:
        assert get(site.port)[0] == 200
        site.path.write_text(good)
        running.signal(signal.SIGHUP)
        running.wait_for("reloaded")
        status, body = get(site.port)
        assert (status, b"plain_on_tls" in body) == (400, True)
        assert site.status(clients.good) == 200
        assert site.status(None) == "TLSV13_ALERT_CERTIFICATE_REQUIRED"


def test_a_reload_that_changes_nothing_of_it_leaves_connections_alone(
    site: Site, running: Gateway, clients: Clients
) -> None:
    with site.connection(client_context(clients.good), "first.test") as sock:
        assert ask(sock, "first.test")[0] == 200
        running.signal(signal.SIGHUP)
        running.wait_for("reloaded")
        assert ask(sock, "first.test")[0] == 200


def test_a_broken_file_is_told_and_the_old_one_goes_on(site: Site, running: Gateway, clients: Clients) -> None:
    site.ca.write_text("nothing")
    running.signal(signal.SIGHUP)
    told = running.wait_for("reload_failed")["message"]
    assert f"{site.path}:4: listeners.web.tls.clients.ca: '{site.ca}' holds no PEM certificate" in told
    assert site.status(clients.good) == 200
    assert site.status(None) == "TLSV13_ALERT_CERTIFICATE_REQUIRED"


def test_a_new_file_is_noticed(site: Site, clients: Clients) -> None:
    with gateway("--config", str(site.path), "--watch", stdout=site.log) as running:
        assert site.status(clients.bad["unknown"]) == "TLSV1_ALERT_UNKNOWN_CA"
        shutil.copyfile(clients.stranger.cert, site.ca)
        running.wait_for("reloaded")
        assert site.status(clients.bad["unknown"]) == 200
        assert site.status(clients.good) == "TLSV1_ALERT_UNKNOWN_CA"


# --- 421 ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "host", "status"),
    [
        ("first.test", "first.test", 200),
        ("first.test", "FIRST.test.:443", 200),
        ("First.Test", "first.test:8443", 200),
        ("first.test", "second.test", 421),
        ("second.test", "first.test", 421),
        ("first.test", "127.0.0.1", 421),
        ("first.test", None, 421),
        (None, "127.0.0.1:443", 200),
        (None, "[::1]", 200),
        (None, None, 200),
        (None, "first.test", 421),
    ],
)
def test_a_request_is_for_the_name_of_the_handshake(
    name: str | None, host: str | None, status: int, settled: Site, clients: Clients
) -> None:
    with settled.connection(client_context(clients.good), name) as sock:
        found, text = ask(sock, host)
    assert found == status
    assert status == 200 or "misdirected" in text
    with settled.connection(client_context(), name, port=settled.open_port) as sock:
        assert ask(sock, host)[0] == 200  # where nobody is asked for certificates


def test_so_is_one_of_http_2(settled: Site, clients: Clients) -> None:
    shown = ("--http2", "--cert", str(clients.good.cert), "--key", str(clients.good.key))
    for name, host, status in (
        ("first.test", "First.test:8443", 200),
        ("first.test", "second.test", 421),
        ("second.test", "first.test", 421),
        ("127.0.0.1", "127.0.0.1", 200),
        ("127.0.0.1", "first.test", 421),
    ):
        done = curl(settled, *shown, "-H", f"Host: {host}", name=name)
        assert done.stdout.splitlines()[-1] == f"2 {status}", (name, host, done)
    elsewhere = curl(settled, "--http2", "-H", "Host: second.test", port=settled.open_port)
    assert elsewhere.stdout.splitlines()[-1] == "2 200"


# --- what the backend is told ---------------------------------------------------------------------------

FORGED = ("Client-Cert: :QUJD:", "Client-Cert-Chain: :QUJD:", "Client_Cert: :QUJD:", "Client.Cert: :QUJD:")


def client_cert(pair: Pair) -> list[str]:
    """RFC 9440 2.2: the DER encoded certificate as a byte sequence of RFC 8941."""
    der = ssl.PEM_cert_to_DER_cert(pair.cert.read_text())
    return ["client-cert", f":{base64.b64encode(der).decode()}:"]


@VERSIONS
def test_backends_get_the_certificate_that_was_verified_and_no_other(
    version: ssl.TLSVersion, settled: Site, clients: Clients
) -> None:
    context = client_context(clients.good, version)
    with settled.connection(context, "first.test") as sock:
        assert ask(sock, "first.test", *FORGED) == (200, [client_cert(clients.good)])
        session = sock.session
    with settled.connection(context, "first.test", session) as sock:
        assert ask(sock, "first.test", *FORGED) == (200, [client_cert(clients.good)])
        assert sock.session_reused
    with settled.connection(client_context(), "first.test", port=settled.open_port) as sock:
        assert ask(sock, "first.test", *FORGED) == (200, [])


def test_so_do_they_from_clients_that_speak_http_2(settled: Site, clients: Clients) -> None:
    forged = [word for field in FORGED for word in ("-H", field)]
    done = curl(settled, "--http2", *forged, "--cert", str(clients.good.cert), "--key", str(clients.good.key))
    body, last = done.stdout.splitlines()
    assert (json.loads(body), last) == ([client_cert(clients.good)], "2 200")


@pytest.mark.parametrize("forwarded", [["client-cert"], ["x-forwarded-for"], []])
def test_who_shows_none_is_told_of_as_such(forwarded: list[str], site: Site, clients: Clients) -> None:
    site.write({"ca": "live-ca.crt", "mode": "optional"}, forwarded)
    with gateway("--config", str(site.path), stdout=site.log):
        with site.connection(client_context(), "first.test") as sock:
            assert ask(sock, "first.test", *FORGED) == (200, [])
        with site.connection(client_context(clients.good), "first.test") as sock:
            told = [client_cert(clients.good)] if forwarded == ["client-cert"] else []
            assert ask(sock, "first.test", *FORGED) == (200, told)
