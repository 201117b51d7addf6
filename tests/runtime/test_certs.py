"""The certificates of a running gateway, as rautactl, Prometheus and clients see them."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from support.process import PATIENCE, ROOT, Gateway, children, free_port, gateway
from support.tls import make_dated, make_pair

DAY = 86_400.0
METRIC = re.compile(
    r'^rauta_tls_certificate_not_after_timestamp_seconds\{certificate="(.*)",listener="(.*)",service="(.*)"\} (.*)$',
    re.MULTILINE,
)


class Site:
    """A gateway's file with TLS listeners, whose certificates and keys lie beside it, and ways to ask about them."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.path = home / "rauta.yaml"
        self.socket = home / "admin.sock"
        self.ports = {"web": free_port(), "other": free_port()}

    def write(self, *, shown: dict[str, str] | None = None, **listeners: list[str]) -> None:
        """Each listener with the pairs of these names; `shown`: services, and the pair that backends are shown."""
        document = {
            "version": 1,
            "workers": 1,
            "listeners": {
                name: {
                    "address": f"127.0.0.1:{self.ports[name]}",
                    "tls": {"certificates": [{"cert": f"{one}.crt", "key": {"file": f"{one}.key"}} for one in pairs]},
                }
                for name, pairs in listeners.items()
            },
            "services": {
                name: {
                    "backends": [{"address": "127.0.0.1:1"}],
                    "tls": {"certificate": {"cert": f"{one}.crt", "key": {"file": f"{one}.key"}}},
                }
                for name, one in (shown or {}).items()
            },
            "admin": {"socket": str(self.socket)},
            "access_log": {"to": "off"},
            "routes": [{"name": "all", "respond": {"body": "here"}}],
        }
        self.path.write_text(json.dumps(document))

    def put(self, source: str, target: str) -> None:
        """Another pair in the place of one."""
        for kind in ("crt", "key"):
            shutil.copyfile(self.home / f"{source}.{kind}", self.home / f"{target}.{kind}")

    def ctl(self, *words: str) -> tuple[int, str]:
        """Exit code and stdout. A reload that has returned has reached the agent."""
        command = [sys.executable, "-m", "rauta.ctl.cli", *words, "--socket", str(self.socket)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=PATIENCE)
        return done.returncode, done.stdout

    def listed(self) -> dict[str, list[str]]:
        """The fingerprints of each listener, by rautactl."""
        code, shown = self.ctl("certs", "--json")
        assert code == 0
        found = json.loads(shown)["listeners"]
        return {row["name"]: [one["fingerprint"] for one in row["certificates"]] for row in found}

    def ends(self) -> dict[tuple[str, str], float]:
        """What Prometheus gets, by listener or service, and file."""
        command = ["curl", "-sS", "--unix-socket", str(self.socket), "http://x/metrics"]
        text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE).stdout
        found = [
            ((f"{listener}{service}", Path(file).name), float(value))
            for file, listener, service, value in METRIC.findall(text)
        ]
        assert len(dict(found)) == len(found)
        return dict(found)

    def met(self, listener: str = "web") -> str:
        """The fingerprint of what a client without SNI meets."""
        pem = ssl.get_server_certificate(("127.0.0.1", self.ports[listener]), timeout=PATIENCE)
        return _fingerprint(pem)

    def held(self, name: str) -> str:
        """The fingerprint of a file."""
        return _fingerprint((self.home / f"{name}.crt").read_text())


def _fingerprint(pem: str) -> str:
    return sha256(ssl.PEM_cert_to_DER_cert(pem.strip())).digest().hex(":").upper()


@pytest.fixture
def site(tmp_path: Path) -> Site:
    now = time.time()
    make_pair(tmp_path, "a", rsa=True)
    make_dated(tmp_path, "b", ("b.test",), now - DAY, now + 3.5 * DAY)
    make_dated(tmp_path, "c", ("b.test",), now - DAY, now + 90.5 * DAY)
    return Site(tmp_path)


@pytest.fixture
def running(site: Site) -> Iterator[Gateway]:
    site.write(web=["b", "a"], other=["a"])
    with gateway("--config", str(site.path)) as started:
        yield started


def test_they_are_listed_by_listener_and_in_order(site: Site, running: Gateway) -> None:
    assert site.listed() == {"web": [site.held("b"), site.held("a")], "other": [site.held("a")]}
    assert (site.met(), site.met("other")) == (site.held("b"), site.held("a"))
    _, shown = site.ctl("certs")
    rows = [re.split(r"  +", line) for line in shown.splitlines()]
    assert [(row[0], Path(row[1]).name, *row[2:5]) for row in rows[1:]] == [
        ("web", "b.crt", "EXPIRES SOON, 3 days left", "b.test", "ECDSA 256"),
        ("web", "a.crt", "good, 29 days left", "localhost, 127.0.0.1", "RSA 2048"),
        ("other", "a.crt", "good, 29 days left", "localhost, 127.0.0.1", "RSA 2048"),
    ]


def test_a_renewed_file_counts_when_it_is_served(site: Site, running: Gateway) -> None:
    old, new = site.held("b"), site.held("c")
    site.put("c", "b")
    before = site.ends()["web", "b.crt"]
    assert (site.met(), site.listed()["web"][0]) == (old, old)
    assert before == pytest.approx(time.time() + 3.5 * DAY, abs=3600)
    assert site.ctl("reload")[0] == 0
    assert (site.met(), site.listed()["web"][0]) == (new, new)
    assert site.ends()["web", "b.crt"] == before + 87 * DAY


def test_a_reload_that_is_refused_changes_nothing(site: Site, running: Gateway) -> None:
    """The first certificate is renewed and good, the key of the second is not its own: all old ones are served."""
    old, ends = site.held("b"), site.ends()
    site.put("c", "b")
    shutil.copyfile(site.home / "c.key", site.home / "a.key")
    assert site.ctl("reload")[0] == 2
    assert (site.met(), site.listed()["web"][0]) == (old, old)
    assert site.ends() == ends


def test_what_is_gone_leaves_no_series(site: Site, running: Gateway) -> None:
    assert site.ends().keys() == {("web", "b.crt"), ("web", "a.crt"), ("other", "a.crt")}
    site.write(web=["c", "c"])  # a file that is listed twice has one series: two of the same name are an error
    assert site.ctl("reload")[0] == 0
    assert site.ends().keys() == {("web", "c.crt")}
    assert site.listed() == {"web": [site.held("c")] * 2}


def test_those_that_backends_are_shown_are_told_of_as_well(site: Site, running: Gateway) -> None:
    def told() -> dict[str, tuple[str, list[str]]]:
        found = json.loads(site.ctl("certs", "--json")[1])["services"]
        return {
            service["name"]: (one["fingerprint"], one["warnings"])
            for service in found
            for one in service["certificates"]
        }

    assert told() == {}
    site.write(web=["a"], shown={"users": "b", "orders": "c"})
    assert site.ctl("reload")[0] == 0
    old = {"users": (site.held("b"), ["expires_soon"]), "orders": (site.held("c"), [])}
    assert told() == old
    assert site.ends().keys() == {("web", "a.crt"), ("users", "b.crt"), ("orders", "c.crt")}
    before = site.ends()["users", "b.crt"]
    assert before == pytest.approx(time.time() + 3.5 * DAY, abs=3600)
    site.put("c", "b")  # it counts when it is shown
    assert (told(), site.ends()["users", "b.crt"]) == (old, before)
    assert site.ctl("reload")[0] == 0
    assert told()["users"] == (site.held("c"), [])
    assert site.ends()["users", "b.crt"] == before + 87 * DAY
    (site.home / "b.crt").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    assert site.ctl("reload")[0] == 2
    assert told()["users"] == (site.held("c"), [])


def test_the_agent_is_told_again_when_it_is_replaced(site: Site, running: Gateway) -> None:
    listed = site.listed()
    site.put("c", "b")  # of what is served, not of what the files hold by now
    (agent,) = set(children(running.process.pid)) - set(running.wait_for("ready")["workers"])
    os.kill(agent, signal.SIGKILL)
    running.wait_for("agent_died")
    assert site.listed() == listed
