"""rautactl certs FILE: what the files of a configuration hold, and what speaks against it."""

from __future__ import annotations

import re
import ssl
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rauta.config.certificate_warnings import CertificateWarning
from support.adminsocket import AdminSocket
from support.tls import Authority, Pair, make_dated, make_pair, part

DAY = 86_400.0
Control = Callable[..., Any]


def write(folder: Path, *pairs: Pair) -> Path:
    """A file with one listener that has these certificates."""
    certificates = "".join(f"        - {{cert: {pair.cert}, key: {{file: {pair.key}}}}}\n" for pair in pairs)
    path = folder / "rauta.yaml"
    path.write_text(
        "version: 1\nlisteners:\n  plain: {address: ':8080'}\n"
        f"  web:\n    address: ':8443'\n    tls:\n      certificates:\n{certificates}"
        "routes: [{name: r, match: {path: {prefix: /}}, respond: {body: hi}}]\n"
    )
    return path


def openssl(pair: Pair, *what: str) -> str:
    """What another program says of it."""
    command = ["openssl", "x509", "-noout", "-in", str(pair.cert), *what]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_it_says_what_openssl_says(rautactl: Control, tmp_path: Path) -> None:
    pairs = [make_pair(tmp_path, "a"), make_pair(tmp_path, "b", names="DNS:*.Other.test", rsa=True)]
    now = time.time()
    ended = rautactl("certs", str(write(tmp_path, *pairs)), "--json")
    assert ended.code == 0
    (web,) = ended.document["listeners"]  # a listener without TLS has none
    assert (web["name"], web["address"]) == ("web", "0.0.0.0:8443")
    first, second = web["certificates"]
    assert [first["file"], second["file"]] == [str(pair.cert) for pair in pairs]
    assert [first["names"], second["names"]] == [["localhost", "127.0.0.1"], ["*.other.test"]]
    assert [first["key"], second["key"]] == [{"kind": "ECDSA", "bits": 256}, {"kind": "RSA", "bits": 2048}]
    for pair, one in zip(pairs, web["certificates"], strict=True):
        assert openssl(pair, "-fingerprint", "-sha256").partition("=")[2] == one["fingerprint"]
        assert openssl(pair, "-issuer", "-nameopt", "RFC2253") == f"issuer={one['issuer']}"
        assert now - 60 < one["not_before"] <= now + 1
        assert one["not_after"] - one["not_before"] == 30 * DAY
        assert (one["days_left"], one["warnings"]) == (29, [])


@pytest.mark.parametrize(
    ("begins", "ends", "days", "warnings", "state"),
    [
        (-50, 14.5, 14, [], "good, 14 days left"),
        (-50, 13.9, 13, ["expires_soon"], "EXPIRES SOON, 13 days left"),
        (-50, 1.5, 1, ["expires_soon"], "EXPIRES SOON, 1 day left"),
        (-50, -0.1, -1, ["expired"], "EXPIRED 0 days ago"),
        (-50, -3.5, -4, ["expired"], "EXPIRED 3 days ago"),
        (1, 60.5, 60, ["not_yet_valid"], "NOT YET VALID, 60 days left"),
        (1, 3.5, 3, ["expires_soon", "not_yet_valid"], "EXPIRES SOON, NOT YET VALID, 3 days left"),
    ],
)
def test_dates(
    rautactl: Control, tmp_path: Path, begins: float, ends: float, days: int, warnings: list[str], state: str
) -> None:
    now = time.time()
    pair = make_dated(tmp_path, "a", ("a.test",), now + begins * DAY, now + ends * DAY)
    path = str(write(tmp_path, pair))
    (one,) = rautactl("certs", path, "--json").document["listeners"][0]["certificates"]
    assert (one["days_left"], one["warnings"]) == (days, warnings)
    assert f"  {state}  " in rautactl("certs", path).out


def test_those_that_no_client_gets(rautactl: Control, tmp_path: Path) -> None:
    names = {"a": "DNS:a.test,DNS:b.test", "b": "DNS:b.test", "c": "DNS:b.test,DNS:c.test"}
    pairs = [make_pair(tmp_path, name, names=of_it) for name, of_it in names.items()]
    other_kind = make_pair(tmp_path, "d", names="DNS:b.test", rsa=True)
    path = str(write(tmp_path, *pairs, other_kind))
    (web,) = rautactl("certs", path, "--json").document["listeners"]
    assert [one["warnings"] for one in web["certificates"]] == [[], ["shadowed"], [], []]
    assert "  SHADOWED, 29 days left  " in rautactl("certs", path).out


def test_revocation_lists(rautactl: Control, tmp_path: Path) -> None:
    ca = Authority(tmp_path, "clients")
    path = write(tmp_path, make_pair(tmp_path, "a"))
    text = path.read_text()
    (none,) = rautactl("certs", str(path), "--json").document["listeners"]
    assert none["revocation_lists"] == []
    path.write_text(text.replace("routes:", "      clients: {ca: clients.crt, crl: clients.crl}\nroutes:"))
    for begins, ends, warnings, state in (
        (-1.0, 7.0, [], "good"),
        (-9.0, -1.0, ["expired"], "EXPIRED"),
        (1.0, 7.0, ["not_yet_valid"], "NOT YET VALID"),
    ):
        ca.revoke(ca.issue("one"), ca.issue("two"), begins=begins, ends=ends)
        command = ["openssl", "crl", "-noout", "-nextupdate", "-in", str(tmp_path / "clients.crl")]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip().partition("=")[2]
        (web,) = rautactl("certs", str(path), "--json").document["listeners"]
        (found,) = web["revocation_lists"]
        assert found["next_update"] == ssl.cert_time_to_seconds(said)
        assert (found["issuer"], found["revoked"], found["warnings"]) == ("CN=clients", 2, warnings)
        assert re.search(rf"clients\.crl +{state} +CN=clients +2 ", rautactl("certs", str(path)).out)
    lists = [ca.revoke(file=f"{kind}", about=part(cas=kind == "cas", others=kind != "cas")) for kind in ("cas", "rest")]
    (tmp_path / "clients.crl").write_bytes(b"".join(one.read_bytes() for one in lists))
    (web,) = rautactl("certs", str(path), "--json").document["listeners"]
    assert [one["scope"] for one in web["revocation_lists"]] == ["CAs", "all but CAs"]
    assert re.search(r"clients\.crl +good +CN=clients +all but CAs +0 ", rautactl("certs", str(path)).out)
    (tmp_path / "clients.crl").write_text("nothing")
    ended = rautactl("certs", str(path))
    assert (ended.code, "tls.clients.crl: " in ended.err) == (2, True)


def test_revocation_lists_for_backends(rautactl: Control, tmp_path: Path) -> None:
    ca = Authority(tmp_path, "backends")
    ca.revoke(ca.issue("one"), begins=-9.0, ends=-1.0)
    path = tmp_path / "rauta.yaml"
    path.write_text(
        "version: 1\nlisteners: {web: {address: ':8080'}}\n"
        "services: {s: {backends: [{address: 'b.test:443'}], tls: {ca: backends.crt, crl: backends.crl}}}\n"
        "routes: [{name: r, service: s}]\n"
    )
    (service,) = rautactl("certs", str(path), "--json").document["services"]
    (found,) = service["revocation_lists"]
    assert (service["name"], service["certificates"]) == ("s", [])
    assert (found["issuer"], found["revoked"], found["warnings"]) == ("CN=backends", 1, ["expired"])
    assert re.search(r"s +\S+backends\.crl +EXPIRED +CN=backends +1 ", rautactl("certs", str(path)).out)


def test_keys_are_not_read(rautactl: Control, tmp_path: Path) -> None:
    pair = make_pair(tmp_path, "a")
    pair.key.unlink()
    assert rautactl("certs", str(write(tmp_path, pair))).code == 0


def test_a_file_that_cannot_be_read_is_told_at_its_line(rautactl: Control, tmp_path: Path) -> None:
    pairs = [make_pair(tmp_path, "a"), make_pair(tmp_path, "b")]
    path = write(tmp_path, *pairs)
    pairs[1].cert.unlink()
    ended = rautactl("certs", str(path), "--json")
    assert ended.code == 2
    (problem,) = ended.document["error"]["problems"]
    assert (problem["line"], problem["key"]) == (9, "listeners.web.tls.certificates[1].cert")
    pairs[1].cert.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    ended = rautactl("certs", str(path))
    assert (ended.code, ":9: " in ended.err) == (2, True)


def write_services(folder: Path, **pairs: Pair) -> str:
    """A file with a service for each, which shows it to its backends, and one that shows none."""
    path = folder / "services.yaml"
    shown = "".join(
        f"  {name}: {{backends: [{{address: 'b.test:443'}}], "
        f"tls: {{certificate: {{cert: {pair.cert}, key: {{file: {pair.key}}}}}}}}}\n"
        for name, pair in pairs.items()
    )
    path.write_text(
        "version: 1\nlisteners: {plain: {address: ':8080'}}\n"
        f"services:\n  without: {{backends: [{{address: 'b.test:443'}}], tls: {{}}}}\n{shown}"
        "routes: [{name: r, respond: {}}]\n"
    )
    return str(path)


def test_those_that_backends_are_shown(rautactl: Control, tmp_path: Path) -> None:
    now = time.time()
    soon = make_dated(tmp_path, "a", ("a.test",), now - DAY, now + 3.5 * DAY)
    good, nameless = make_pair(tmp_path, "b"), make_dated(tmp_path, "c", (), now - DAY, now + 50.5 * DAY)
    path = write_services(tmp_path, first=soon, again=soon, good=good, nameless=nameless)
    found = rautactl("certs", path, "--json").document
    assert found["listeners"] == []
    told = [(service["name"], one) for service in found["services"] for one in service["certificates"]]
    assert [(name, one["file"], one["warnings"]) for name, one in told] == [
        ("first", str(soon.cert), ["expires_soon"]),
        ("again", str(soon.cert), ["expires_soon"]),  # nothing is shadowed
        ("good", str(good.cert), []),
        ("nameless", str(nameless.cert), []),  # backends ask for no names
    ]
    fingerprint = openssl(good, "-fingerprint", "-sha256").partition("=")[2]
    assert told[2][1]["fingerprint"] == fingerprint
    head, row, *_ = rautactl("certs", path).out.splitlines()
    assert head.startswith("SERVICE ")
    assert re.split(r"  +", row)[:4] == ["first", str(soon.cert), "EXPIRES SOON, 3 days left", "a.test"]


def test_one_for_backends_that_cannot_be_read_is_told_at_its_line(rautactl: Control, tmp_path: Path) -> None:
    pair = make_pair(tmp_path, "a")
    path = write_services(tmp_path, first=pair)
    pair.cert.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    ended = rautactl("certs", path)
    assert (ended.code, ":5: services.first.tls.certificate.cert: " in ended.err) == (2, True)


ANSWER = {
    "time": 1_796_000_000.0,
    "listeners": [
        {
            "name": "websecure",
            "address": "0.0.0.0:8443",
            "certificates": [
                {
                    "file": "/etc/rauta/example.com.crt",
                    "names": ["example.com", "*.example.com"],
                    "key": {"kind": "ECDSA", "bits": 256},
                    "issuer": "CN=Example CA,O=Example",
                    "fingerprint": ":".join(["F9", "26", "71", "AC"] * 8),
                    "not_before": 1_789_034_400.0,
                    "not_after": 1_796_810_400.0,
                    "days_left": 9,
                    "warnings": ["expires_soon"],
                }
            ],
            "revocation_lists": [
                {
                    "file": "/etc/rauta/clients.crl",
                    "issuer": "CN=Example Clients",
                    "scope": None,
                    "revoked": 2,
                    "this_update": 1_795_860_000.0,
                    "next_update": 1_796_464_800.0,
                    "warnings": [],
                }
            ],
        }
    ],
    "services": [],
}


def test_the_page_shows_what_it_writes(rautactl: Control, on_a_terminal: Callable[..., str], tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "rautactl.md").read_text()
    found = re.search(r"```text\n\$ rautactl certs\n(.*?)```", page, re.DOTALL)
    assert found is not None
    with AdminSocket(tmp_path / "admin", certificates=[ANSWER]) as admin:
        written = on_a_terminal(118, "certs", "--socket", admin.path, NO_COLOR="1")
        assert rautactl("certs", "--json", "--socket", admin.path).document == {"version": 1, **ANSWER}
    assert written.splitlines() == found[1].splitlines()


def test_every_warning_is_on_the_page() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "rautactl.md").read_text()
    for warning in CertificateWarning:
        assert f"| `{warning.value.replace('_', ' ').upper()}` | `{warning.value}` | " in page


def test_without_tls_there_is_nothing_to_list(rautactl: Control, example: Path) -> None:
    told = "no listener terminates TLS, and no service has a certificate for its backends\n"
    assert rautactl("certs", "rauta.yaml").out == told


@pytest.mark.parametrize("more", [("--socket", "/nowhere"), ("--config", "rauta.yaml")])
def test_a_file_or_a_gateway(rautactl: Control, example: Path, more: tuple[str, ...]) -> None:
    ended = rautactl("certs", "rauta.yaml", *more)
    assert ended.code == 2
    assert "FILE asks no gateway" in ended.err
