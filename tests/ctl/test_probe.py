from __future__ import annotations

import pytest

from rauta.ctl.errors import ControlError
from rauta.ctl.probe import Probe, choose_listener
from rauta.routing.errors import RequestError
from rauta.routing.model import Configuration
from rauta.routing.settings import Address, Certificate, EncodedSlash, Listener, Secret, TlsSettings

TLS = TlsSettings(certificates=(Certificate(cert="c", key=Secret(file="k")),))
WEB = Listener(name="web", address=Address("0.0.0.0", 8080))
ADMIN = Listener(name="admin", address=Address("127.0.0.1", 9090))
SECURE = Listener(name="secure", address=Address("0.0.0.0", 8443), tls=TLS)
TWIN = Listener(name="twin", address=Address("127.0.0.1", 8443))
STRICT = Listener(name="strict", address=Address("0.0.0.0", 81), encoded_slash=EncodedSlash.REJECT)


def chosen(url: str, *listeners: Listener, named: str | None = None, headers: tuple[str, ...] = ()) -> str:
    probe = Probe.parse("GET", url, list(headers), listener=named)
    return choose_listener(Configuration(listeners=listeners), probe)[0].name


@pytest.mark.parametrize(
    ("url", "listeners", "name"),
    [
        ("/x", (WEB,), "web"),
        ("https://a:1/x", (WEB,), "web"),  # the only one, whatever the URL
        ("http://a:8443/", (WEB, ADMIN, SECURE), "secure"),  # a port that is given says more than the scheme
        ("https://a:9090/", (WEB, ADMIN, SECURE), "admin"),
        ("http://a:8443/", (SECURE, TWIN, WEB), "twin"),
        ("https://a:8443/", (TWIN, SECURE, WEB), "secure"),
        ("http://a:8080/", (ADMIN, WEB, SECURE), "web"),
        ("http://a:9090/", (WEB, ADMIN, SECURE), "admin"),
        ("https://a:8443/", (WEB, ADMIN, SECURE), "secure"),
        ("https://a/", (WEB, ADMIN, SECURE), "secure"),  # the only one for the scheme
        ("/x", (WEB, ADMIN), "web"),  # the first
    ],
)
def test_the_listener_is_found_by_scheme_and_port(url: str, listeners: tuple[Listener, ...], name: str) -> None:
    assert chosen(url, *listeners) == name


def test_the_listener_is_found_by_the_port_of_host() -> None:
    assert chosen("/x", WEB, ADMIN, headers=("Host: a:9090",)) == "admin"


def test_a_named_listener_is_taken() -> None:
    assert chosen("http://a:8080/", WEB, ADMIN, named="admin") == "admin"


@pytest.mark.parametrize(
    ("url", "named", "text"),
    [
        ("http://a:1/", None, "--listener is needed: http on port 1 could be for web (0.0.0.0:8080), admin"),
        ("/", "wbe", "there is no listener 'wbe'; known: web, admin"),
    ],
)
def test_an_unclear_listener_is_an_error(url: str, named: str | None, text: str) -> None:
    with pytest.raises(ControlError, match=r".") as caught:
        chosen(url, WEB, ADMIN, named=named)
    assert text in str(caught.value)


def test_a_url_is_sent_as_curl_sends_it() -> None:
    request = Probe.parse("GET", "http://API.example.com:8080?q=1", []).request(WEB)
    assert (request.host, request.path, request.query) == ("api.example.com", "/", "q=1")
    assert request.headers.get("host") == "API.example.com:8080"
    request = Probe.parse("GET", "http://127.0.0.1:8080/x", ["Host: api.example.com"]).request(WEB)
    assert request.host == "api.example.com"


def test_fields_of_one_name_are_a_list() -> None:
    request = Probe.parse("GET", "/", ["X-A: 1", "x-a:  2 ", "X-B: ü"]).request(WEB)
    assert request.headers.get("x-a") == "1, 2"
    assert request.headers.get("x-b") == "ü".encode().decode("latin-1")


@pytest.mark.parametrize(
    ("text", "client"),
    [
        ("192.0.2.7:4000", ("192.0.2.7", 4000)),
        ("192.0.2.7", ("192.0.2.7", 0)),
        ("[2001:DB8::1]:443", ("2001:db8::1", 443)),
        ("[2001:db8::1]", ("2001:db8::1", 0)),
        ("2001:db8::1", ("2001:db8::1", 0)),
    ],
)
def test_clients(text: str, client: tuple[str, int]) -> None:
    assert Probe.parse("GET", "/", [], client=text).client == client


def test_defaults_are_known_as_such() -> None:
    probe = Probe.parse("GET", "/", [])
    assert (probe.client, probe.client_given, probe.hosts, probe.host_given) == (
        ("127.0.0.1", 0),
        False,
        ("localhost",),
        False,
    )


@pytest.mark.parametrize(
    ("method", "url", "headers", "client", "text"),
    [
        ("G ET", "/", [], None, "'G ET' is not a method"),
        ("", "/", [], None, "is not a method"),
        ("GET", "users", [], None, "'users' is neither a path"),
        ("GET", "ftp://a/", [], None, "is neither a path"),
        ("GET", "wss://a.test/x", [], None, "a WebSocket begins as a request: write https://a.test/x"),
        ("GET", "WS://a:1/", [], None, "a WebSocket begins as a request: write http://a:1/"),
        ("GET", "http:///x", [], None, "write a URL with a host"),
        ("GET", "http://me:secret@a/", [], None, "without a user"),
        ("GET", "/", ["no colon"], None, "write 'Name: value'"),
        ("GET", "/", ["bad name: x"], None, "write 'Name: value'"),
        ("GET", "/", [], "somewhere:80", "write an IP address and a port"),
        ("GET", "/", [], "192.0.2.7:66000", "out of range"),
        ("GET", "/", [], "192.0.2.7:", "write an IP address and a port"),
    ],
)
def test_what_cannot_be_sent_is_an_error(
    method: str, url: str, headers: list[str], client: str | None, text: str
) -> None:
    with pytest.raises(ControlError) as caught:
        Probe.parse(method, url, headers, client=client)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("url", "headers", "listener", "reason"),
    [
        ("/%00", [], WEB, "bad_path"),
        ("/a%2Fb", [], STRICT, "encoded_slash"),
        ("/?a b", [], WEB, "bad_query"),
        ("/", ["Host: a", "Host: b"], WEB, "bad_host"),
        ("http://a:99999/", [], WEB, "bad_host"),
        ("*", [], WEB, "bad_target"),
    ],
)
def test_what_is_answered_400(url: str, headers: list[str], listener: Listener, reason: str) -> None:
    with pytest.raises(RequestError) as caught:
        Probe.parse("GET", url, headers).request(listener)
    assert caught.value.reason == reason
