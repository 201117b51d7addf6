"""Revoked client certificates: who is refused, and from when on, over reloads too."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.process import PATIENCE, Gateway, free_port, gateway
from support.tls import DAY, Authority, Pair, client_context, make_pair, part

VERSIONS = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
REVOKED = "SSLV3_ALERT_CERTIFICATE_REVOKED"


class Site:
    """A gateway's file with a listener that demands certificates which are not revoked, and clients."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.path = home / "rauta.yaml"
        self.log = home / "log"
        self.port = free_port()
        self.ca = Authority(home, "clients")
        self.one, self.two = self.ca.issue("one"), self.ca.issue("two")
        self.crl = self.ca.revoke(self.one)
        self.servers = [make_pair(home, "web", names="DNS:web.test")]
        self.write()

    def write(self, mode: str = "require") -> None:
        tls = {
            "certificates": [{"cert": str(pair.cert), "key": {"file": str(pair.key)}} for pair in self.servers],
            "clients": {"ca": "clients.crt", "crl": "clients.crl", "mode": mode},
        }
        document = {
            "version": 1,
            "workers": 1,
            "listeners": {"web": {"address": f"127.0.0.1:{self.port}", "tls": tls}},
            "admin": {"socket": str(self.home / "admin.sock")},
            "routes": [{"name": "all", "respond": {"body": "here"}}],
        }
        lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in document.items())
        self.path.write_text(f"{{\n{lines}\n}}\n")

    @contextlib.contextmanager
    def connection(
        self, context: ssl.SSLContext, session: ssl.SSLSession | None = None, name: str = "web.test"
    ) -> Iterator[ssl.SSLSocket]:
        raw = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        with raw, context.wrap_socket(raw, server_hostname=name, session=session) as sock:
            yield sock

    def status(
        self, pair: Pair | None, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3, name: str = "web.test"
    ) -> int | str:
        """Of a request on a connection of its own; why the handshake failed."""
        try:
            with self.connection(client_context(pair, version), name=name) as sock:
                return ask(sock, name)
        except ssl.SSLError as error:
            return error.reason

    def with_chain(self, name: str, pair: Pair, *above: Authority) -> Pair:
        """The pair, with the certificates of those above in its file."""
        cert = self.home / f"{name}.chain"
        cert.write_bytes(b"".join(path.read_bytes() for path in (pair.cert, *(one.cert for one in above))))
        return Pair(cert, pair.key)

    def metric(self) -> dict[str, float]:
        """When lists expire, by issuer, as Prometheus gets it."""
        command = ["curl", "-sS", "--unix-socket", str(self.home / "admin.sock"), "http://x/metrics"]
        text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE).stdout
        name = r'rauta_tls_crl_next_update_timestamp_seconds\{issuer="(.*)",listener="web",service=""\} (.*)'
        return {issuer: float(end) for issuer, end in re.findall(name, text)}


def ask(sock: ssl.SSLSocket, name: str = "web.test") -> int:
    sock.sendall(f"GET / HTTP/1.1\r\nHost: {name}\r\n\r\n".encode())
    with contextlib.closing(http.client.HTTPResponse(sock)) as response:
        response.begin()
        response.read()
    return response.status


def reload(running: Gateway, count: int = 1) -> None:
    running.signal(signal.SIGHUP)
    running.wait_for("reloaded", count)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
def running(site: Site) -> Iterator[Gateway]:
    with gateway("--config", str(site.path), stdout=site.log) as started:
        yield started


# --- who gets through -----------------------------------------------------------------------------------


@VERSIONS
@pytest.mark.parametrize("mode", ["require", "optional"])
def test_one_that_is_revoked_is_refused_and_others_are_served(mode: str, version: ssl.TLSVersion, site: Site) -> None:
    site.write(mode)
    with gateway("--config", str(site.path), stdout=site.log) as running:
        assert site.status(site.one, version) == REVOKED
        assert site.status(site.two, version) == 200
        assert (site.status(None, version) == 200) is (mode == "optional")
        assert running.stop() == 0
    assert 'detail="the client\'s certificate: certificate revoked"' in site.log.read_text()


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_what_openssl_sees(version: str, site: Site, running: Gateway) -> None:
    for pair, alert in ((site.one, True), (site.two, False)):
        told = subprocess.run(
            [
                *("openssl", "s_client", version, "-connect", f"127.0.0.1:{site.port}", "-servername", "web.test"),
                *("-cert", str(pair.cert), "-key", str(pair.key), "-ign_eof"),
            ],
            input="GET / HTTP/1.1\r\nHost: web.test\r\nConnection: close\r\n\r\n",
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        assert ("SSL alert number 44" in told.stderr) is alert, told.stderr  # certificate_revoked, RFC 8446 6.2
        assert ("HTTP/1.1 200" in told.stdout) is not alert, told.stdout


@pytest.mark.parametrize("protocol", ["--http1.1", "--http2"])
def test_what_curl_sees(protocol: str, site: Site, running: Gateway) -> None:
    command = ["curl", "-sSk", protocol, "--max-time", "20", "-o", "/dev/null", "-w", "%{http_version} %{http_code}"]
    place = ["--resolve", f"web.test:{site.port}:127.0.0.1", f"https://web.test:{site.port}/"]
    for pair, shown in ((site.one, f"{protocol[6:]} 000"), (site.two, f"{protocol[6:]} 200")):
        key = ["--cert", str(pair.cert), "--key", str(pair.key)]
        done = subprocess.run([*command, *key, *place], capture_output=True, text=True, check=False)
        assert ("certificate revoked" in done.stderr) is (done.returncode != 0), done
        assert done.stdout.endswith(shown.split()[1]), done
    assert done.stdout == f"{protocol[6:]} 200"


def test_an_intermediate_that_its_root_has_revoked_is_refused_with_all_that_it_signed(site: Site) -> None:
    good, bad = (Authority(site.home, name, parent=site.ca) for name in ("good", "bad"))
    listless = Authority(site.home, "listless", parent=site.ca)
    lists = [site.ca.revoke(site.one, Pair(bad.cert, bad.cert)), good.revoke(), bad.revoke()]
    text = b"".join(path.read_bytes() for path in lists)
    site.crl.write_bytes(text)
    with gateway("--config", str(site.path), stdout=site.log) as running:
        assert site.status(site.with_chain("of-good", good.issue("of-good"), good)) == 200
        assert site.status(site.with_chain("of-bad", bad.issue("of-bad"), bad)) == REVOKED
        refused = site.status(site.with_chain("of-listless", listless.issue("of-listless"), listless))
        assert refused == "TLSV1_ALERT_UNKNOWN_CA"
        assert running.stop() == 0
    assert "unable to get certificate CRL" in site.log.read_text()


def test_where_an_intermediate_alone_is_trusted_what_it_signed_is_looked_up(site: Site) -> None:
    between = Authority(site.home, "between", parent=site.ca)
    good, bad = between.issue("good"), between.issue("bad")
    between.revoke(bad, file="clients.crl")
    shutil.copyfile(between.cert, site.ca.cert)
    with gateway("--config", str(site.path), stdout=site.log):
        assert (site.status(good), site.status(bad)) == (200, REVOKED)
        assert site.status(site.two) == "TLSV1_ALERT_UNKNOWN_CA"  # of the root


def test_lists_in_parts_count_for_those_that_name_them(site: Site) -> None:
    places = ["http://c.test/1", "http://c.test/2"]
    good, bad = ([site.ca.issue(f"{kind}{place[-1]}", listed_at=place) for place in places] for kind in ("good", "bad"))
    lists = [site.ca.revoke(file="cas", about=part(cas=True), ends=9)]
    lists += [
        site.ca.revoke(pair, file=f"part{place[-1]}", about=part(place), ends=days)
        for pair, place, days in zip(bad, places, (3, 6), strict=True)
    ]
    site.crl.write_bytes(b"".join(path.read_bytes() for path in lists))
    with gateway("--config", str(site.path), stdout=site.log) as running:
        assert [site.status(pair) for pair in good] == [200, 200]
        assert [site.status(pair) for pair in bad] == [REVOKED, REVOKED]
        assert "ALERT" in str(site.status(site.two))  # names none
        assert site.metric() == {"CN=clients": pytest.approx(time.time() + 3 * DAY, abs=600)}
        assert running.stop() == 0
    assert "different CRL scope" in site.log.read_text()


def test_a_list_that_has_expired_refuses_all(site: Site) -> None:
    site.ca.revoke(site.one, begins=-9, ends=-1)
    with gateway("--config", str(site.path), stdout=site.log) as running:
        assert site.status(site.two) == "SSLV3_ALERT_CERTIFICATE_EXPIRED"
        assert running.stop() == 0
    assert "CRL has expired" in site.log.read_text()


# --- reload ---------------------------------------------------------------------------------------------


@VERSIONS
def test_a_session_from_before_the_revocation_is_not_resumed(
    version: ssl.TLSVersion, site: Site, running: Gateway
) -> None:
    context = client_context(site.two, version)
    with site.connection(context) as sock:
        assert ask(sock) == 200
        session = sock.session
    assert session is not None
    assert session.has_ticket
    with site.connection(context, session) as sock:
        assert (sock.session_reused, ask(sock)) == (True, 200)
    site.ca.revoke(site.one, site.two)
    reload(running)
    with pytest.raises(ssl.SSLError, match="certificate revoked"), site.connection(context, session) as sock:
        ask(sock)
    assert site.status(site.two, version) == REVOKED
    site.ca.revoke(site.one)
    reload(running, 2)
    assert site.status(site.two, version) == 200


def test_a_connection_from_before_the_revocation_is_not_served(site: Site, running: Gateway) -> None:
    with site.connection(client_context(site.two)) as sock:
        assert ask(sock) == 200
        site.ca.revoke(site.one, site.two)
        reload(running)
        assert ask(sock) == 421
        assert sock.recv(1) == b""


def test_a_newer_list_of_the_same_leaves_connections_alone(site: Site, running: Gateway) -> None:
    before = site.metric()["CN=clients"]
    with site.connection(client_context(site.two)) as sock:
        assert ask(sock) == 200
        site.ca.revoke(site.one, ends=9)
        reload(running)
        assert ask(sock) == 200
    assert site.status(site.one) == REVOKED
    assert site.metric()["CN=clients"] == pytest.approx(before + 2 * DAY, abs=60)


def test_a_broken_list_is_told_and_the_old_one_goes_on(site: Site, running: Gateway) -> None:
    site.crl.write_text("nothing")
    running.signal(signal.SIGHUP)
    told = running.wait_for("reload_failed")["message"]
    assert f"{site.path}:4: listeners.web.tls.clients.crl: '{site.crl}' holds no PEM revocation list" in told
    assert (site.status(site.one), site.status(site.two)) == (REVOKED, 200)


def test_a_new_list_is_noticed(site: Site) -> None:
    with gateway("--config", str(site.path), "--watch", stdout=site.log) as running:
        assert (site.status(site.one), site.status(site.two)) == (REVOKED, 200)
        site.ca.revoke(site.two, file="next.crl").replace(site.crl)
        running.wait_for("reloaded")
        assert (site.status(site.one), site.status(site.two)) == (200, REVOKED)


def test_a_long_list_is_in_memory_once_for_all_names_and_reloads_do_not_add_to_it(site: Site) -> None:
    site.servers += [make_pair(site.home, f"web{number}", names=f"DNS:web{number}.test") for number in range(11)]
    site.write()
    site.ca.revoke(site.one)
    with gateway("--config", str(site.path), stdout=site.log) as running:
        (worker,) = running.wait_for("ready")["workers"]
        before = memory(worker)
        site.ca.revoke(site.one, others=80_000)  # 16 MiB in memory
        for count in range(1, 5):
            reload(running, count)
        for name in ("web.test", "web7.test"):
            assert (site.status(site.one, name=name), site.status(site.two, name=name)) == (REVOKED, 200)
        assert memory(worker) - before < 32  # MiB; two generations alone have as much, and 200 if each name had its own


def memory(pid: int) -> int:
    """What the process has for itself, in MiB."""
    found = re.search(r"^Pss: +([0-9]+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) >> 10
