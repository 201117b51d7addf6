from __future__ import annotations

import gc
import ssl
import weakref
from pathlib import Path
from typing import Any

import pytest

from rauta.proxy.handshake import Entry
from rauta.proxy.tls import ServerContexts
from rauta.routing.settings import Address, Certificate, Listener, Secret, TlsSettings
from rauta.runtime.credentials import read_credentials
from rauta.runtime.errors import StartError
from rauta.runtime.tls import server_contexts
from support.tls import Pair, encrypt, make_pair


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("tls"))


def context(cert: Path, key: Secret) -> ssl.SSLContext:
    settings = TlsSettings(certificates=(Certificate(cert=str(cert), key=key),))
    credentials = read_credentials([Listener(name="web", address=Address("127.0.0.1", 8443), tls=settings)])
    return server_contexts(settings, credentials["web"], listener="web").default


def handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> ssl.SSLObject:
    """A handshake in memory; the client's end."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname="localhost"),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    waiting = [*ends]
    for _ in range(10):
        for end in [*waiting]:
            try:
                end.do_handshake()
                waiting.remove(end)
            except ssl.SSLWantReadError:
                pass
    assert not waiting
    return ends[0]


def client_of(pair: Pair) -> ssl.SSLContext:
    client = ssl.create_default_context(cafile=str(pair.cert))
    client.set_alpn_protocols(["h2", "http/1.1"])
    return client


@pytest.mark.parametrize(
    ("offered", "spoken"),
    [(["h2", "http/1.1"], "h2"), (["http/1.1", "h2"], "h2"), (["http/1.1"], "http/1.1"), ([], None)],
)
def test_clients_get_http_2_if_they_speak_it_over_a_modern_version(
    pair: Pair, offered: list[str], spoken: str | None
) -> None:
    client = client_of(pair)
    client.set_alpn_protocols(offered)
    end = handshake(context(pair.cert, Secret(file=str(pair.key))), client)
    assert end.version() == "TLSv1.3"
    assert end.selected_alpn_protocol() == spoken


def several(*pairs: Pair) -> ServerContexts:
    """The contexts of a listener with these certificates."""
    settings = TlsSettings(
        certificates=tuple(Certificate(cert=str(pair.cert), key=Secret(file=str(pair.key))) for pair in pairs)
    )
    credentials = read_credentials([Listener(name="web", address=Address("127.0.0.1", 8443), tls=settings)])
    return server_contexts(settings, credentials["web"], listener="web")


def test_a_client_gets_the_certificate_for_the_name_it_asks_for(tmp_path: Path) -> None:
    names = (
        "DNS:First.test",
        "DNS:*.wild.test",
        "DNS:exact.wild.test,DNS:other.test",
        "DNS:first.test",
        "IP:192.0.2.1",
    )
    contexts = several(*(make_pair(tmp_path, f"c{number}", names=text) for number, text in enumerate(names)))
    known = [contexts.of(name) for name in ("first.test", "a.wild.test", "exact.wild.test", "192.0.2.1")]
    assert len({*map(id, known)}) == 4
    first, wild, exact, address = known
    for name, expected in {
        "FIRST.test": first,
        "other.test.": exact,
        "other.test": exact,
        "b.WILD.test": wild,
        "b.a.wild.test": first,  # a wildcard stands for one label
        "wild.test": first,
        "unknown.test": first,
        None: first,
        "": first,
        "192.0.2.1": address,
    }.items():
        assert contexts.of(name) is expected, name


def test_keys_of_two_kinds_for_the_same_names_share_a_context(tmp_path: Path) -> None:
    pairs = [make_pair(tmp_path, "ec"), make_pair(tmp_path, "rsa", rsa=True)]
    server = several(*pairs)
    assert server.of("localhost") is server.default
    for pair, signed in zip(pairs, ("ECDSA", "RSA"), strict=True):
        client = ssl.create_default_context(cafile=str(pair.cert))
        client.maximum_version = ssl.TLSVersion.TLSv1_2
        client.set_ciphers(f"ECDHE-{signed}-AES128-GCM-SHA256")
        assert handshake(server.default, client).version() == "TLSv1.2"


def test_contexts_and_connections_need_no_collector(pair: Pair) -> None:
    """What a worker has built is frozen (decision 043): a cycle would stay for ever."""
    gc.disable()
    try:
        entry = Entry(several(pair), lambda *_: None)
        refused = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        refused.check_hostname = False
        refused.verify_mode = ssl.CERT_NONE
        entry.contexts.default.verify_mode = ssl.CERT_REQUIRED
        made = [weakref.ref(entry.contexts.default)]

        class Noted(Entry):
            def wrap_bio(self, *args: Any, **named: Any) -> ssl.SSLObject:
                one = super().wrap_bio(*args, **named)
                made.append(weakref.ref(one))
                return one

        door = Noted(entry.contexts, entry.failed)
        with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
            handshake(door, refused)
        assert len(made) == 2
        del entry, door
        assert [one() for one in made] == [None, None]
    finally:
        gc.enable()


def test_versions_below_1_2_are_refused(pair: Pair) -> None:
    assert context(pair.cert, Secret(file=str(pair.key))).minimum_version is ssl.TLSVersion.TLSv1_2


def test_a_key_from_the_environment_leaves_no_descriptor(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEB_KEY", pair.key.read_text())
    before = sorted(Path("/proc/self/fd").iterdir())
    server = context(pair.cert, Secret(env="WEB_KEY"))
    assert sorted(Path("/proc/self/fd").iterdir()) == before
    assert handshake(server, client_of(pair)).version() == "TLSv1.3"


@pytest.mark.parametrize("how", ["missing", "no cert", "other", "encrypted", "junk", "swapped"])
def test_each_wrong_file_is_named(how: str, pair: Pair, tmp_path: Path) -> None:
    cert, key = pair.cert, pair.key
    expected = {
        "missing": rf"listener 'web': there is no file '{tmp_path}/none.key'",
        "no cert": rf"listener 'web': there is no file '{tmp_path}/none.crt'",
        "other": rf"listener 'web': certificate {cert} with the key in {tmp_path}/other.key: the key does not belong",
        "encrypted": rf"the key in {tmp_path}/encrypted.key is encrypted: store it without a pass phrase",
        "junk": r"junk.key: one of the two is not valid PEM",
        "swapped": rf"listener 'web': {key} is no PEM certificate, or a broken one",
    }[how]
    if how == "missing":
        key = tmp_path / "none.key"
    elif how == "no cert":
        cert = tmp_path / "none.crt"
    elif how == "other":
        key = make_pair(tmp_path, "other").key
    elif how == "encrypted":
        encrypt(key, key := tmp_path / "encrypted.key")
    elif how == "junk":
        key = tmp_path / "junk.key"
        key.write_text("no key")
    else:
        cert, key = key, cert
    with pytest.raises(StartError, match=expected):
        context(cert, Secret(file=str(key)))


def test_a_variable_that_is_not_set(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WEB_KEY", raising=False)
    with pytest.raises(StartError, match=r"listener 'web': the environment variable 'WEB_KEY' is not set"):
        context(pair.cert, Secret(env="WEB_KEY"))


def test_the_text_of_a_bad_key_is_never_shown(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEB_KEY", "s3cret")
    with pytest.raises(StartError) as caught:
        context(pair.cert, Secret(env="WEB_KEY"))
    assert "the environment variable WEB_KEY" in str(caught.value)
    assert "s3cret" not in str(caught.value)
