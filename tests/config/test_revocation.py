"""Revocation lists: what is wrong with a file of them is said at its line, and what will be is warned about."""

# ruff: noqa: E501 - tables of messages read better with one a line

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509

from rauta.config import ConfigError, load
from rauta.config.revocation import Revocations, read_revocations
from rauta.config.secrets import SecretError
from support.tls import DAY, Authority, make_pair, part

LISTENER = """\
version: 1
listeners:
  web:
    address: ":8443"
    tls:
      certificates: [{{cert: web.crt, key: {{file: web.key}}}}]
      clients:
        ca: {ca}
        crl: {crl}
routes: [{{name: r, respond: {{body: hi}}}}]
"""
SERVICE = """\
version: 1
listeners: {{web: {{address: ":8080"}}}}
services:
  s:
    backends: [{{address: "a.test:443"}}]
    tls:
      name: a.test


      ca: {ca}
      crl: {crl}
routes: [{{name: r, service: s}}]
"""

NO_SIGNING = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)


class Folder:
    """Authorities and their lists, good ones and others."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.pair = make_pair(path, "web")
        self.pair.key.chmod(0o600)
        self.root = Authority(path, "root")
        self.other = Authority(path, "other")
        self.between = Authority(path, "between", parent=self.root)
        self.below = Authority(path, "below", parent=self.between)
        self.mute = Authority(path, "mute", usage=NO_SIGNING)
        for one in (self.root, self.other, self.between, self.below, self.mute):
            one.revoke()
        self.root.revoke(file="foreign.crl", others_key=self.other)
        self.root.revoke(file="delta.crl", delta=True)
        self.root.revoke(file="indirect.crl", about=part(indirect=True))
        self.root.revoke(file="reasons.crl", about=part(reasons=True))
        self.root.revoke(file="attributes.crl", about=part(attributes=True))
        self.root.revoke(file="one.crl", about=part("http://c.test/1"), begins=-9, ends=-2)
        self.root.revoke(self.root.issue("listed"), file="two.crl", about=part("http://c.test/2", "http://c.test/3"))
        self.root.revoke(file="cas.crl", about=part(cas=True))
        self.root.revoke(file="others.crl", about=part(others=True))
        self.root.revoke(file="old.crl", begins=-9, ends=-2)
        self.root.revoke(file="early.crl", begins=3, ends=9)
        form = ["-outform", "DER", "-out", "root.der"]
        subprocess.run(["openssl", "crl", "-in", "root.crl", *form], cwd=path, check=True, capture_output=True)
        (path / "text.txt").write_text("hello")
        (path / "broken.crl").write_text("-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n")
        self.join("root-other.crt", "root.crt", "other.crt")
        self.join("root-other.crl", "root.crl", "other.crl")
        self.join("root-between.crt", "between.crt", "root.crt")
        self.join("root-between.crl", "root.crl", "between.crl")
        self.join("other-between.crt", "other.crt", "between.crt")
        self.join("other-between.crl", "other.crl", "between.crl")
        self.join("renewed.crl", "old.crl", "root.crl")
        self.join("foreign-too.crl", "root.crl", "foreign.crl")
        self.join("parts.crl", "one.crl", "two.crl", "cas.crl")
        self.join("halves.crl", "others.crl", "cas.crl")
        self.join("less.crl", "others.crl", "two.crl")

    def join(self, name: str, *parts: str) -> None:
        (self.path / name).write_text("# für uns -----\n".join((self.path / part).read_text() for part in parts))

    def lists(self, ca: str, crl: str) -> Revocations:
        path = self.path / ca
        return read_revocations(str(self.path / crl), str(path), path.read_bytes())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return Folder(tmp_path_factory.mktemp("lists"))


Check = Callable[[str, str], list[str]]


@pytest.fixture(params=["listener", "service"])
def check(request: pytest.FixtureRequest, folder: Folder) -> Check:
    """Load with these files: problems or warnings, one a line, behind the line and the key."""

    def check(ca: str, crl: str) -> list[str]:
        path = folder.path / "rauta.yaml"
        listener = request.param == "listener"
        path.write_text((LISTENER if listener else SERVICE).format(ca=ca, crl=crl))
        try:
            lines = [str(warning) for warning in load(path, warn=True).warnings]
        except ConfigError as error:
            lines = str(error).splitlines()
        where = "listeners.web.tls.clients." if listener else "services.s.tls."
        told = [line.replace(f"{folder.path}/", "").replace(where, "") for line in lines]
        if not listener:  # three lines further down
            told = [line.replace(":11: ", ":9: ").replace(":10: ", ":8: ") for line in told]
        return [line.removeprefix("rauta.yaml:") for line in told]

    return check


@pytest.mark.parametrize(
    ("ca", "crl"),
    [
        ("root.crt", "root.crl"),
        ("root.crt", "root-between.crl"),
        ("root.crt", "halves.crl"),
        ("between.crt", "between.crl"),
        ("root-other.crt", "root-other.crl"),
        ("root-between.crt", "root-between.crl"),
    ],
)
def test_a_list_of_each_authority_is_good(ca: str, crl: str, check: Check) -> None:
    assert check(ca, crl) == []


@pytest.mark.parametrize(
    ("ca", "crl", "problem"),
    [
        ("root.crt", "absent.crl", "there is no file 'absent.crl'"),
        ("root.crt", "text.txt", "'text.txt' holds no PEM revocation list: it needs '-----BEGIN X509 CRL-----'"),
        ("root.crt", "root.crt", "'root.crt' holds certificates: it needs '-----BEGIN X509 CRL-----'"),
        ("root.crt", "web.key", "'web.key' holds a private key: it needs '-----BEGIN X509 CRL-----'"),
        ("root.crt", "root.der", "'root.der' holds no PEM: write it as such (openssl crl -inform DER -in root.der -out NEW_FILE)"),
        ("root.crt", "broken.crl", "a revocation list in 'broken.crl' is broken"),
        ("root.crt", "delta.crl", "'delta.crl': the list of 'CN=root' is a delta, which is not understood: give whole lists"),
        ("root.crt", "indirect.crl", "'indirect.crl': the list of 'CN=root' is indirect (about what others have signed), which is not understood: give whole lists"),
        ("root.crt", "reasons.crl", "'reasons.crl': the list of 'CN=root' is for some reasons of revocation alone, which is not understood: give whole lists"),
        ("root.crt", "attributes.crl", "'attributes.crl': the list of 'CN=root' is for attribute certificates, which is not understood: give whole lists"),
        ("root.crt", "less.crl", "'less.crl': no list of 'CN=root' is about the certificate of 'CN=root' itself, but about: all but CAs; http://c.test/2, http://c.test/3. OpenSSL looks that up, too, and would refuse everybody: add the list for CAs"),
        ("root.crt", "other.crl", "'other.crl': there is no list of 'CN=root', which 'root.crt' trusts: everybody it signed would be refused"),
        ("root-other.crt", "root.crl", "'root.crl': there is no list of 'CN=other', which 'root-other.crt' trusts: everybody it signed would be refused"),
        ("root.crt", "renewed.crl", "'renewed.crl': there are two lists of 'CN=root' about the same certificates: leave the newest alone"),
        ("root.crt", "foreign-too.crl", "'foreign-too.crl': a list of 'CN=root' is not signed with the key of its certificate in 'root.crt': everybody is refused"),
        ("root.crt", "foreign.crl", "'foreign.crl': the list of 'CN=root' is not signed with the key of its certificate in 'root.crt'"),
        ("mute.crt", "mute.crl", "'mute.crl': 'CN=mute' may not sign lists, says 'mute.crt' (key usage without cRLSign): OpenSSL refuses them"),
        ("other-between.crt", "other-between.crl", "'other-between.crl': 'other-between.crt' holds roots and, without its root, 'CN=between': for revocation lists it needs the roots of all, or none"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_at_its_line(ca: str, crl: str, problem: str, check: Check) -> None:
    assert check(ca, crl) == [f"9: crl: {problem}"]


def test_what_is_wrong_with_the_authorities_comes_first(check: Check) -> None:
    assert check("text.txt", "text.txt") == [
        "8: ca: 'text.txt' holds no PEM certificate: it needs '-----BEGIN CERTIFICATE-----'"
    ]


def test_lists_that_have_everybody_refused_are_warned_about(check: Check) -> None:
    def date(days: float) -> str:
        return time.strftime("%Y-%m-%d", time.gmtime(time.time() + days * DAY))

    assert check("root.crt", "old.crl") == [
        f"9: crl: 'old.crl': the list of 'CN=root' has expired on {date(-2)}: everybody it signed is refused, revoked or not"
    ]
    assert check("root.crt", "parts.crl") == [
        f"9: crl: 'parts.crl': the list of 'CN=root' for http://c.test/1 has expired on {date(-2)}: whatever that is about is refused, revoked or not"
    ]
    assert check("root.crt", "early.crl") == [
        f"9: crl: 'early.crl': the list of 'CN=root' does not count before {date(3)}: everybody it signed is refused"
    ]


def test_whole_chains_are_looked_up_where_they_end_in_a_root(folder: Folder) -> None:
    assert folder.lists("root.crt", "root.crl").whole_chain
    assert folder.lists("root-between.crt", "root-between.crl").whole_chain
    assert not folder.lists("between.crt", "between.crl").whole_chain


def test_parts_are_told_one_by_one(folder: Folder) -> None:
    found = folder.lists("root.crt", "parts.crl").lists
    told = [(one.issuer, one.scope, one.revoked) for one in found]
    assert told == [
        ("CN=root", "http://c.test/1", 0),
        ("CN=root", "http://c.test/2, http://c.test/3", 1),
        ("CN=root", "CAs", 0),
    ]


def test_files_that_revoke_the_same_are_equal_in_that(folder: Folder) -> None:
    pairs = [folder.root.issue("a"), folder.root.issue("b")]
    folder.root.revoke(*pairs, file="today.crl")
    folder.root.revoke(*reversed(pairs), file="tomorrow.crl", begins=-0.5, ends=8)
    folder.root.revoke(pairs[0], file="less.crl")
    folder.other.revoke(*pairs, file="others.crl")
    today, tomorrow, less = (folder.lists("root.crt", f"{name}.crl") for name in ("today", "tomorrow", "less"))
    assert (today.revoked == tomorrow.revoked, today.pem == tomorrow.pem) == (True, False)
    assert len({today.revoked, less.revoked, folder.lists("other.crt", "others.crl").revoked}) == 3
    assert [one.revoked for one in today.lists] == [2]


def test_nothing_but_the_lists_is_trusted_of_the_file(folder: Folder) -> None:
    folder.join("mixed.crl", "other.crt", "root.crl")
    assert b"CERTIFICATE" not in folder.lists("root.crt", "mixed.crl").pem


def test_a_list_may_be_larger_than_a_certificate(folder: Folder) -> None:
    padded = folder.path / "large.crl"
    padded.write_bytes(b"#" * (1 << 21) + b"\n" + (folder.path / "root.crl").read_bytes())
    assert len(folder.lists("root.crt", "large.crl").lists) == 1
    padded.write_bytes(b"#" * (33 << 20))
    with pytest.raises(SecretError, match="is larger than 32 MiB: this is no revocation list for a gateway"):
        folder.lists("root.crt", "large.crl")
