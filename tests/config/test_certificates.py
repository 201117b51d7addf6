"""Certificates and keys: what is wrong with them is said at their line."""

# ruff: noqa: E501 - tables of messages read better with one a line

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rauta.config import ConfigError, load
from support.tls import DAY, Authority, make_dated

TEXT = """\
version: 1
listeners:
  web:
    address: ":8443"
    tls:
      certificates:
      - cert: {cert}
        key: {{{key}}}
services: {{s: {{backends: [{{address: "a:1"}}]}}}}
routes: [{{name: r, service: s}}]
"""


@pytest.fixture(scope="module")
def pems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("pems")
    for name in ("one", "two"):
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
             "-days", "30", "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.crt"],
            cwd=directory, check=True, capture_output=True,
        )  # fmt: skip
        (directory / f"{name}.key").chmod(0o600)
    subprocess.run(
        ["openssl", "pkey", "-in", "one.key", "-aes256", "-passout", "pass:x", "-out", "encrypted.key"],
        cwd=directory, check=True, capture_output=True,
    )  # fmt: skip
    (directory / "text.txt").write_text("hello")
    (directory / "broken.crt").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    (directory / "broken.key").write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    (directory / "directory").mkdir()
    return directory


Check = Callable[[str, str], list[str]]


@pytest.fixture
def check(pems: Path) -> Check:
    """Load with a certificate and a key: problems or warnings, one a line."""

    def check(cert: str, key: str) -> list[str]:
        path = pems / "rauta.yaml"
        path.write_text(TEXT.format(cert=cert, key=key))
        try:
            lines = [str(warning) for warning in load(path).warnings]
        except ConfigError as error:
            lines = str(error).splitlines()
        return [line.replace(f"{pems}/", "").replace("listeners.web.tls.certificates[0].", "") for line in lines]

    return check


def test_a_pair_that_belongs_together(check: Check) -> None:
    assert check("one.crt", "file: one.key") == []


def test_the_key_may_be_in_the_environment(check: Check, pems: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLS_KEY", (pems / "one.key").read_text())
    assert check("one.crt", "env: TLS_KEY") == []
    assert check("two.crt", "env: TLS_KEY") == [
        "rauta.yaml:8: key.env: the key in the environment variable 'TLS_KEY' does not belong to the certificate in 'two.crt'"
    ]


@pytest.mark.parametrize(
    ("cert", "key", "problem"),
    [
        ("absent.crt", "file: one.key", "7: cert: there is no file 'absent.crt'"),
        ("directory", "file: one.key", "7: cert: 'directory' is a directory"),
        ("/dev/null", "file: one.key", "7: cert: '/dev/null' is not a regular file"),
        ("text.txt", "file: one.key", "7: cert: 'text.txt' holds no PEM certificate: it needs '-----BEGIN CERTIFICATE-----'"),
        ("one.key", "file: one.key", "7: cert: 'one.key' holds a private key: it needs '-----BEGIN CERTIFICATE-----'"),
        ("one.crt", "file: absent.key", "8: key.file: there is no file 'absent.key'"),
        ("one.crt", "file: one.crt", "8: key.file: 'one.crt' holds a certificate: it needs '-----BEGIN PRIVATE KEY-----'"),
        ("one.crt", "file: text.txt", "8: key.file: 'text.txt' holds no PEM private key: it needs '-----BEGIN PRIVATE KEY-----'"),
        ("one.crt", "file: two.key", "8: key.file: the key in 'two.key' does not belong to the certificate in 'one.crt'"),
        ("one.crt", "file: encrypted.key", "8: key.file: the key in 'encrypted.key' is encrypted: decrypt it (openssl pkey), nobody is there to type a password"),
        ("one.crt", "env: RAUTA_NO_SUCH", "8: key.env: the environment variable 'RAUTA_NO_SUCH' is not set: it must hold the key, PEM"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_at_its_line(cert: str, key: str, problem: str, check: Check) -> None:
    assert check(cert, key) == [f"rauta.yaml:{problem}"]


def test_broken_pem(check: Check) -> None:
    assert check("broken.crt", "file: one.key")[0].startswith(
        "rauta.yaml:7: cert: the certificate in 'broken.crt' is broken: "
    )
    assert check("one.crt", "file: broken.key")[0].startswith(
        "rauta.yaml:8: key.file: the key in 'broken.key' cannot be used: "
    )


def test_an_empty_variable(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLS_KEY", "")
    assert check("one.crt", "env: TLS_KEY") == [
        "rauta.yaml:8: key.env: the environment variable 'TLS_KEY' is empty: it must hold the key, PEM"
    ]


def test_an_unreadable_key(check: Check, pems: Path) -> None:
    user = os.geteuid()
    if user == 0:  # root may read everything
        for path in (pems, pems.parent, pems.parent.parent, pems / "rauta.yaml", pems / "one.crt"):
            path.chmod(path.stat().st_mode | 0o055)
    check("one.crt", "file: one.key")
    (pems / "one.key").chmod(0)
    try:
        os.seteuid(65534 if user == 0 else user)
        with pytest.raises(ConfigError, match=r"rauta.yaml:8: .*key.file: no permission to read '.*one.key' \(user id"):
            load(pems / "rauta.yaml")
    finally:
        os.seteuid(user)
        (pems / "one.key").chmod(0o600)


def test_a_key_that_everybody_can_read_is_a_warning(check: Check, pems: Path) -> None:
    (pems / "one.key").chmod(0o644)
    try:
        assert check("one.crt", "file: one.key") == [
            "rauta.yaml:8: key.file: every user of this machine can read the key in 'one.key': chmod o-r"
        ]
    finally:
        (pems / "one.key").chmod(0o600)


def test_files_are_not_touched_unless_asked(pems: Path) -> None:
    path = pems / "other.yaml"
    path.write_text(TEXT.format(cert="absent.crt", key="file: absent.key"))
    assert load(path, check_files=False).warnings == ()


# --- of those who sign clients' ones --------------------------------------------------------------------


@pytest.fixture
def check_ca(pems: Path) -> Callable[[str], list[str]]:
    """Load with such a file: problems and warnings, one a line."""

    def check(name: str) -> list[str]:
        path = pems / "rauta.yaml"
        clients = f"clients: {{ca: {name}}}"
        text = TEXT.format(cert="one.crt", key="file: one.key").replace("services:", f"      {clients}\nservices:")
        path.write_text(text)
        try:
            lines = [str(warning) for warning in load(path, warn=True).warnings]
        except ConfigError as error:
            lines = str(error).splitlines()
        return [line.replace(f"{pems}/", "") for line in lines if ".tls.clients" in line]

    return check


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("absent.crt", "there is no file 'absent.crt'"),
        ("directory", "'directory' is a directory"),
        ("text.txt", "'text.txt' holds no PEM certificate: it needs '-----BEGIN CERTIFICATE-----'"),
        ("one.key", "'one.key' holds a private key: only certificates belong there, keep their keys away"),
        ("both.pem", "'both.pem' holds a private key: only certificates belong there, keep their keys away"),
        ("encrypted.key", "'encrypted.key' holds a private key: only certificates belong there, keep their keys away"),
        ("broken.crt", "a certificate in 'broken.crt' is broken: "),
        ("half.pem", "a certificate in 'half.pem' is broken: "),
    ],
)
def test_what_is_wrong_with_authorities(
    name: str, problem: str, check_ca: Callable[[str], list[str]], pems: Path
) -> None:
    good = (pems / "two.crt").read_text()
    (pems / "both.pem").write_text(good + (pems / "two.key").read_text())
    (pems / "half.pem").write_text(good + (pems / "broken.crt").read_text())
    (told,) = check_ca(name)
    assert told.startswith(f"rauta.yaml:9: listeners.web.tls.clients.ca: {problem}")


def test_authorities_that_sign_nothing_valid_are_warned_about(
    check_ca: Callable[[str], list[str]], pems: Path, tmp_path: Path
) -> None:
    made = [
        Authority(tmp_path, "good"),
        Authority(tmp_path, "old", begins=-9, ends=-1),
        Authority(tmp_path, "soon", ends=10.2),
        Authority(tmp_path, "later", begins=5),
    ]
    text = "# für Clients\n".encode() + b"".join(one.cert.read_bytes() for one in made)
    (pems / "several.pem").write_bytes(text)

    def date(days: float) -> str:
        return time.strftime("%Y-%m-%d", time.gmtime(time.time() + days * DAY))

    where = "rauta.yaml:9: listeners.web.tls.clients.ca: 'several.pem': "
    told = [line.replace(f"{pems}/", "") for line in check_ca("several.pem")]
    assert told == [
        f"{where}'CN=old' has expired on {date(-1)}: whom it signed is refused",
        f"{where}'CN=soon' expires on {date(10.2)}, in 10 days",
        f"{where}'CN=later' is not valid before {date(5)}: whom it signed is refused",
    ]
    assert check_ca("two.crt") == []


SEVERAL = """\
version: 1
listeners:
  web:
    address: ":8443"
    tls:
      certificates:
{certificates}
routes: [{{name: r, match: {{path: {{prefix: /}}}}, respond: {{body: hi}}}}]
"""


def test_certificates_that_clients_do_not_take_are_warned_about(tmp_path: Path) -> None:
    now, day = time.time(), 86_400.0
    made = {
        "good": (("a.test", "*.b.test"), now - day, now + 60 * day),
        "expired": (("c.test",), now - 9 * day, now - day),
        "soon": (("d.test",), now - day, now + 10.2 * day),
        "later": (("e.test",), now + 30 * day, now + 60 * day),
        "never": (("a.test",), now - day, now + 60 * day),
        "nameless": ((), now - day, now + 60 * day),
    }
    for name, (names, begins, ends) in made.items():
        make_dated(tmp_path, name, names, begins, ends)
    lines = "\n".join(f"        - {{cert: {name}.crt, key: {{file: {name}.key}}}}" for name in made)
    path = tmp_path / "rauta.yaml"
    path.write_text(SEVERAL.format(certificates=lines))
    told = [str(warning).partition("listeners.")[2] for warning in load(path, warn=True).warnings]

    def date(seconds: float) -> str:
        return time.strftime("%Y-%m-%d", time.gmtime(seconds))

    where = f"web.tls.certificates[{{}}].cert: '{tmp_path}/{{}}.crt' "
    assert told == [
        where.format(1, "expired") + f"has expired on {date(now - day)}: clients refuse it",
        where.format(2, "soon") + f"expires on {date(now + 10.2 * day)}, in 10 days",
        where.format(3, "later") + f"is not valid before {date(now + 30 * day)}: clients refuse it",
        where.format(4, "never") + "is never used: certificates before it cover a.test with the same kind of key",
        where.format(5, "nameless") + "names no host: clients refuse it",
    ]


# --- towards backends -----------------------------------------------------------------------------------

BACKENDS = """\
version: 1
listeners: {{web: {{address: ":8080"}}}}
services:
  s:
    backends: [{{address: "a.test:443"}}]
    tls:
{lines}
routes: [{{name: r, service: s}}]
"""

OURS = "      certificate:\n        cert: {}\n        key: {{{}}}"


@pytest.fixture
def check_backends(pems: Path) -> Check:
    """Load with that below a service's `tls`: problems and warnings, one a line."""

    def check(lines: str) -> list[str]:
        path = pems / "backends.yaml"
        path.write_text(BACKENDS.format(lines=lines))
        try:
            told = [str(warning) for warning in load(path, warn=True).warnings]
        except ConfigError as error:
            told = str(error).splitlines()
        return [line.replace(f"{pems}/", "").removeprefix("backends.yaml:") for line in told]

    return check


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ("      ca: absent.crt", "7: services.s.tls.ca: there is no file 'absent.crt'"),
        ("      ca: text.txt", "7: services.s.tls.ca: 'text.txt' holds no PEM certificate: it needs '-----BEGIN CERTIFICATE-----'"),
        ("      name: b.test\n      ca: one.key", "8: services.s.tls.ca: 'one.key' holds a private key: only certificates belong there, keep their keys away"),
        (OURS.format("absent.crt", "file: one.key"), "8: services.s.tls.certificate.cert: there is no file 'absent.crt'"),
        (OURS.format("one.crt", "file: two.key"), "9: services.s.tls.certificate.key.file: the key in 'two.key' does not belong to the certificate in 'one.crt'"),
        (OURS.format("one.crt", "env: RAUTA_NO_SUCH"), "9: services.s.tls.certificate.key.env: the environment variable 'RAUTA_NO_SUCH' is not set: it must hold the key, PEM"),
    ],
)  # fmt: skip
def test_what_is_wrong_towards_backends(lines: str, problem: str, check_backends: Callable[[str], list[str]]) -> None:
    assert check_backends(lines) == [problem]


def test_tls_of_checks_alone_is_looked_at_too(pems: Path) -> None:
    path = pems / "checks.yaml"
    path.write_text(
        'version: 1\nlisteners: {web: {address: ":8443", passthrough: [{names: [a.test], service: s}]}}\nservices:\n  s:\n'
        '    backends: [{address: "a.test:443"}]\n    health:\n      tls:\n        ca: one.key\nroutes: []\n'
    )
    with pytest.raises(ConfigError, match=r":8: services\.s\.health\.tls\.ca: .* holds a private key"):
        load(path)


def test_all_that_is_wrong_towards_backends_is_told_at_once(check_backends: Callable[[str], list[str]]) -> None:
    told = check_backends("      ca: absent.crt\n" + OURS.format("text.txt", "file: one.key"))
    assert [line.split(":")[0] for line in told] == ["7", "9"]


def test_what_is_dubious_towards_backends(
    check_backends: Callable[[str], list[str]], pems: Path, tmp_path: Path
) -> None:
    now = time.time()
    old = Authority(tmp_path, "old", begins=-9, ends=-1)
    ours = {
        "past": (now - 9 * DAY, now - DAY),
        "near": (now - DAY, now + 10.2 * DAY),
        "far": (now + 5 * DAY, now + 60 * DAY),
    }
    for name, dates in ours.items():
        make_dated(tmp_path, name, (), *dates)

    def date(seconds: float) -> str:
        return time.strftime("%Y-%m-%d", time.gmtime(seconds))

    def told(lines: str) -> list[str]:
        return [line.replace(f"{tmp_path}/", "") for line in check_backends(lines)]

    def of_ours(name: str) -> list[str]:
        return told(OURS.format(tmp_path / f"{name}.crt", f"file: {tmp_path / name}.key"))

    assert told(f"      ca: {old.cert}") == [
        f"7: services.s.tls.ca: 'old.crt': 'CN=old' has expired on {date(now - DAY)}: whom it signed is refused"
    ]
    where = "8: services.s.tls.certificate.cert: "
    assert of_ours("past") == [f"{where}'past.crt' has expired on {date(now - DAY)}: backends refuse it"]
    assert of_ours("near") == [f"{where}'near.crt' expires on {date(now + 10.2 * DAY)}, in 10 days"]
    assert of_ours("far") == [f"{where}'far.crt' is not valid before {date(now + 5 * DAY)}: backends refuse it"]
    assert told(OURS.format("one.crt", "file: one.key")) == []
    (tmp_path / "near.key").chmod(0o644)
    assert of_ours("near")[0] == (
        "9: services.s.tls.certificate.key.file: every user of this machine can read the key in 'near.key': chmod o-r"
    )
