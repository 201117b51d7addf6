"""`--self-signed`: a certificate for a start without a file, which clients can be told to trust."""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import signal
import socket
import ssl
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from rauta.config.x509 import facts_of
from rauta.routing.settings import Address
from rauta.runtime import selfsigned
from rauta.runtime.credentials import Pair
from rauta.runtime.errors import StartError
from rauta.runtime.revision import Reloaded
from support.process import PATIENCE, ROOT, Backend, free_port, gateway, run_rauta
from support.tls import make_pair

NAMES = ["localhost", "127.0.0.1", "::1"]


@pytest.fixture
def backend() -> Iterator[Backend]:
    made = Backend()
    yield made
    made.close()


def curl(port: int, *words: str) -> tuple[int, str]:
    """Exit code and body; the name in the URL is localhost."""
    command = ["curl", "-sS", "--max-time", "30", *words, f"https://localhost:{port}/here"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    return done.returncode, done.stdout


def start(backend: Backend, port: int, *words: str) -> Any:
    """A gateway on that port."""
    return gateway("--listen", f"127.0.0.1:{port}", "--to", backend.url, "--workers", "1", "--self-signed", *words)


def openssl(file: Path) -> str:
    """The certificate, as openssl reads it."""
    command = ["openssl", "x509", "-in", str(file), "-noout", "-text"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_in_memory_it_is_https_for_those_who_do_not_verify(backend: Backend) -> None:
    port = free_port()
    with start(backend, port) as running:
        ready = running.wait_for("ready")
        assert ready["listeners"] == {"https": f"https://127.0.0.1:{port}"}
        told = ready["self_signed"]
        assert told["file"] is None
        assert curl(port, "-k") == (0, "/here")
        assert curl(port)[0] == 60  # CURLE_PEER_FAILED_VERIFICATION
        seen = ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", port), timeout=PATIENCE))
        assert told["fingerprint"] == sha256(seen).digest().hex(":").upper()


def test_a_person_sees_what_to_trust(backend: Backend, tmp_path: Path) -> None:
    port, folder = free_port(), tmp_path / "folder"
    master, slave = os.openpty()
    words = ["--listen", f"127.0.0.1:{port}", "--to", backend.url, "--workers", "1", "--self-signed", str(folder)]
    command = [sys.executable, "-m", "rauta.proxy", *words]
    with subprocess.Popen(command, stderr=slave, stdout=subprocess.DEVNULL, cwd=ROOT) as running:
        os.close(slave)
        try:
            said = b""
            while b"access log" not in said:
                said += os.read(master, 10_000)
        finally:
            running.terminate()
            running.wait(PATIENCE)
            os.close(master)
    lines = said.decode().splitlines()
    facts, file = facts_of((folder / "self-signed.crt").read_bytes()), folder / "self-signed.crt"
    until = time.strftime("%Y-%m-%d", time.gmtime(facts.not_after))
    assert any(line.startswith(f"  https        https://127.0.0.1:{port}  ") for line in lines)
    assert f"  certificate  self-signed, in {file}, until {until}, for {', '.join(facts.names)}" in lines
    assert f"  SHA-256      {facts.fingerprint}" in lines


def test_one_that_is_kept_can_be_trusted_and_is_the_same_again(backend: Backend, tmp_path: Path) -> None:
    port, folder = free_port(), tmp_path / "new" / "folder"
    fingerprints = []
    for _ in range(2):
        with start(backend, port, str(folder)) as running:
            told = running.wait_for("ready")["self_signed"]
            assert told["file"] == str(folder / "self-signed.crt")
            fingerprints.append(told["fingerprint"])
            assert curl(port, "--cacert", told["file"]) == (0, "/here")
            command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-verify_ip", "127.0.0.1"]
            verified = subprocess.run(
                [*command, "-CAfile", told["file"], "-verify_return_error", "-purpose", "sslserver"],
                input="",
                capture_output=True,
                text=True,
                check=False,
                timeout=PATIENCE,
            )
            assert "Verify return code: 0 (ok)" in verified.stdout
            assert running.stop() == 0
    assert fingerprints[0] == fingerprints[1]
    assert stat.S_IMODE((folder / "self-signed.key").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_what_it_says(tmp_path: Path) -> None:
    made = selfsigned.kept(tmp_path, [*NAMES, "box.example", "192.0.2.7"])
    assert made.file is not None
    text = openssl(made.file)
    for wanted in (
        "CA:FALSE",
        "TLS Web Server Authentication",
        "NIST CURVE: P-256",
        "DNS:localhost, IP Address:127.0.0.1, IP Address:0:0:0:0:0:0:0:1, DNS:box.example, IP Address:192.0.2.7",
    ):
        assert wanted in text
    assert re.search(r"Key Usage: critical\s+Digital Signature\n", text)
    facts, now = made.pair.facts, time.time()
    assert now + 29.9 * 86_400 < facts.not_after <= now + 30 * 86_400
    assert facts.not_before < now - 3000


@pytest.mark.parametrize(
    ("listen", "machine", "more"),
    [
        (":8443", "Box", ["box"]),
        ("[::]:8443", "box.example", ["box.example"]),
        ("192.0.2.7:8443", "not_a_name", ["192.0.2.7"]),
        ("[2001:db8::7]:8443", "-", ["2001:db8::7"]),
        ("127.0.0.1:8443", "localhost", []),
        ("unix:/run/web.sock", "x" * 64, []),
    ],
)
def test_the_names_that_it_is_for(listen: str, machine: str, more: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: machine)
    assert selfsigned.names_for(Address.parse(listen, any_host="0.0.0.0")) == [*NAMES, *more]


def test_it_is_made_anew_when_it_does_not_serve_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = selfsigned.kept(tmp_path, NAMES)
    assert selfsigned.kept(tmp_path, NAMES) == first
    other = selfsigned.kept(tmp_path, [*NAMES, "other.example"])
    assert other.pair.facts.names == ("localhost", "other.example", "127.0.0.1", "::1")
    later = time.time() + 16.1 * 86_400  # 13.9 days before the end
    monkeypatch.setattr(time, "time", lambda: later - 86_400)
    assert selfsigned.kept(tmp_path, [*NAMES, "other.example"]) == other
    monkeypatch.setattr(time, "time", lambda: later)
    assert selfsigned.kept(tmp_path, [*NAMES, "other.example"]) != other


def test_a_gateway_that_runs_renews_it(backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As at a start; and it serves what another start has renewed."""
    port = free_port()
    names = selfsigned.names_for(Address("127.0.0.1", port))
    with start(backend, port, str(tmp_path)) as running:
        first = running.wait_for("ready")["self_signed"]["fingerprint"]
        assert served(port) == first
        with monkeypatch.context() as patch:
            patch.setattr(selfsigned, "DAYS", 13)
            for file in tmp_path.iterdir():
                file.unlink()
            dying = selfsigned.kept(tmp_path, names)
        running.signal(signal.SIGHUP)
        running.wait_for("reloaded")
        second = served(port)
        assert second not in (first, dying.pair.facts.fingerprint)
        assert second == selfsigned.kept(tmp_path, names).pair.facts.fingerprint
        assert curl(port, "--cacert", str(tmp_path / selfsigned.CERT)) == (0, "/here")


def served(port: int) -> str:
    seen = ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", port), timeout=PATIENCE))
    return sha256(seen).digest().hex(":").upper()


def test_it_looks_by_itself_whether_it_is_to_be_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selfsigned, "LOOK", 0.01)
    with monkeypatch.context() as patch:
        patch.setattr(selfsigned, "DAYS", 20)
        first = selfsigned.kept(tmp_path, NAMES).pair
    reloads: list[str] = []
    looks = 0
    usable = selfsigned._usable

    def counted(folder: Path, names: list[str]) -> Pair | None:
        nonlocal looks
        looks += 1
        return usable(folder, names)

    monkeypatch.setattr(selfsigned, "_usable", counted)

    async def seen(wanted: int) -> None:
        before = looks
        while looks < before + wanted:
            await asyncio.sleep(0.005)

    async def main() -> None:
        succeeds = False
        reloaded = asyncio.Event()

        async def reload(cause: str) -> Reloaded:
            reloads.append(cause)
            if succeeds:
                selfsigned.kept(tmp_path, NAMES)
            reloaded.set()
            return Reloaded(ok=succeeds, text="")

        async with asyncio.TaskGroup() as group:
            task = group.create_task(selfsigned.renew(tmp_path, NAMES, first, reload))
            await seen(3)
            assert reloads == []
            later = time.time() + 7 * 86_400
            monkeypatch.setattr(time, "time", lambda: later)
            await reloaded.wait()
            reloaded.clear()
            await reloaded.wait()  # one that fails is tried again
            succeeds = True
            reloaded.clear()
            await reloaded.wait()
            await seen(3)
            count = len(reloads)
            await seen(3)
            assert len(reloads) == count
            task.cancel()

    asyncio.run(asyncio.wait_for(main(), PATIENCE))
    assert {*reloads} == {"self-signed"}


@pytest.mark.parametrize("broken", ["absent", "another", "text"])
def test_a_key_that_does_not_fit_is_replaced(tmp_path: Path, broken: str) -> None:
    first = selfsigned.kept(tmp_path, NAMES)
    key = tmp_path / "self-signed.key"
    key.unlink()
    if broken != "absent":
        key.write_bytes(selfsigned.made(NAMES).pair.key if broken == "another" else b"text")
    second = selfsigned.kept(tmp_path, NAMES)
    assert second.pair.facts != first.pair.facts
    assert key.read_bytes() == second.pair.key
    assert [*tmp_path.glob(".*")] == []


@pytest.mark.parametrize("which", ["crt", "key", "text"])
def test_what_is_not_of_its_making_stays(tmp_path: Path, which: str) -> None:
    theirs = make_pair(tmp_path, "self-signed")
    if which == "key":
        theirs.cert.unlink()
    elif which == "text":
        theirs.cert.write_text("text")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(StartError, match=r"self-signed\.\w+ is not of its making: name another folder"):
        selfsigned.kept(tmp_path, NAMES)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def given_away(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It belongs to neither root nor the user that starts the gateway."""
    if os.geteuid() == 0:
        os.chown(path, 65534, 65534)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 65534)


@pytest.mark.parametrize("which", ["", "self-signed.crt", "self-signed.key"])
def test_what_somebody_else_made_is_not_served(tmp_path: Path, which: str, monkeypatch: pytest.MonkeyPatch) -> None:
    selfsigned.kept(tmp_path, NAMES)
    given_away(tmp_path / which, monkeypatch)
    with pytest.raises(StartError, match=rf"{re.escape(str(tmp_path))}/?{which} belongs to user \d+, not to user \d+"):
        selfsigned.kept(tmp_path, NAMES)


@pytest.mark.parametrize("which", ["", "self-signed.crt", "self-signed.key"])
@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_what_others_can_write_is_not_served(tmp_path: Path, which: str, mode: int) -> None:
    selfsigned.kept(tmp_path, NAMES)
    (tmp_path / which).chmod(mode)
    with pytest.raises(StartError, match=rf"{which} can be written by others \(mode 0{mode:o}\)"):
        selfsigned.kept(tmp_path, NAMES)


def test_a_folder_of_others_gets_no_key(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    with pytest.raises(StartError, match="can be written by others"):
        selfsigned.kept(tmp_path, NAMES)
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("which", ["self-signed.crt", "self-signed.key"])
def test_a_pipe_is_not_waited_for(tmp_path: Path, which: str) -> None:
    selfsigned.kept(tmp_path, NAMES)
    (tmp_path / which).unlink()
    os.mkfifo(tmp_path / which)
    with pytest.raises(StartError, match=rf"{which} is no regular file"):
        selfsigned.kept(tmp_path, NAMES)


def test_a_lock_that_is_held_is_not_waited_for_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        with monkeypatch.context() as patch:
            patch.setattr(selfsigned, "HELD", 0.1)
            with pytest.raises(StartError, match="is locked by another process"):
                selfsigned.kept(tmp_path, NAMES)
        release = threading.Timer(0.2, fcntl.flock, (fd, fcntl.LOCK_UN))
        release.start()
        assert selfsigned.kept(tmp_path, NAMES).pair.facts.names  # it is waited for while it is held
        release.join()
    finally:
        os.close(fd)


TO = ("--to", "http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (
            ("--config", "x.yaml", "--self-signed"),
            "--self-signed needs --listen: in a file, a listener has certificates",
        ),
        (("--self-signed",), "give --config FILE, or --listen ADDRESS and --to URL"),
        (("--listen", ":8443", *TO, "--self-signed", "/dev/null/x"), "--self-signed: /dev/null/x is no folder"),
        (("--listen", ":8443", *TO, "--self-signed", "/proc/x"), "--self-signed: /proc/x: No such file or directory"),
        (("--listen", ":8443", *TO, "--self-signed", "/dev/null"), "--self-signed: /dev/null is no folder"),
    ],
)
def test_bad_usage(arguments: tuple[str, ...], complaint: str) -> None:
    code, said = run_rauta(*arguments)
    assert (code, complaint in said, "Traceback" in said) == (2, True, False), said


def test_a_check_leaves_nothing_behind(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    code, said = run_rauta("--check", "--listen", ":8443", *TO, "--self-signed", str(folder))
    assert (code, "is good: 1 listener" in said) == (0, True)
    assert not folder.exists()
    assert [*tmp_path.iterdir()] == []
