"""Whole files: what is wrong with them, and where."""

# ruff: noqa: E501 - tables of messages read better with one a line

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rauta.config import ConfigError, Loaded, load
from rauta.config.errors import MAX_PROBLEMS
from rauta.config.nodes import Mapping
from rauta.config.source import MAX_FILE_SIZE
from rauta.routing.model import Redirect
from rauta.routing.settings import Address

Bad = Callable[[str | bytes], list[str]]
Good = Callable[[str], Loaded]
GOLDEN = Path(__file__).parent / "golden" / "v1.yaml"

BASE = """\
version: 1
listeners: {web: {address: ":8080"}}
services:
  users: {backends: [{address: "10.0.0.1:80"}]}
"""


def table(name: str) -> list[Any]:
    """The rows of a table of wrong pieces: the piece, then `=> ` and what is said of it."""
    rows = [row.rsplit("\n=> ", 1) for row in (Path(__file__).parent / name).read_text().strip().split("\n\n")]
    return [pytest.param(*row, id=row[0]) for row in rows]


# --- files ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "rauta.yaml: the file is empty: it needs 'version: 1' and a listener"),
        (b"# nothing\n", "rauta.yaml: the file is empty: it needs 'version: 1' and a listener"),
        (b"~", "rauta.yaml: the file is empty: it needs 'version: 1' and a listener"),
        (
            b"\xef\xbb\xbfversion: 1",
            "rauta.yaml:1: the file starts with a byte order mark: save it as UTF-8 without BOM",
        ),
        ("version: 1".encode("utf-16"), "rauta.yaml:1: the file is UTF-16: save it as UTF-8"),
        (b"version: 1\n# caf\xe9\n", "rauta.yaml:2: byte 0xe9 is not UTF-8: save the file as UTF-8"),
        (b"version: 1\n#\x00", "rauta.yaml:2: the character U+0000 is not allowed in YAML"),
        (b"- a", "rauta.yaml:1: expected an object with keys such as version, listeners, services, routes, not a list"),
        (
            b"text",
            "rauta.yaml:1: expected an object with keys such as version, listeners, services, routes, not the text 'text'",
        ),
        (
            b"version: 1\nlisteners:\n\tweb: {}",
            "rauta.yaml:3: a tab stands where YAML allows only spaces: indent with spaces",
        ),
        (b"a: 1\n---\nb: 1", "rauta.yaml:2: a second document starts here: write one per file and use 'include'"),
        (b"#" * (MAX_FILE_SIZE + 1), "rauta.yaml: the file is larger than 4 MiB"),
        (
            b"version: 2\nwhatever: 1",
            "rauta.yaml:1: version: this rauta reads version 1 of the format, not 2: a newer rauta is needed",
        ),
        (b"version: 0", "rauta.yaml:1: version: this rauta reads version 1 of the format, not 0: write version: 1"),
    ],
)
def test_a_file_that_is_none_is_one_clear_message(content: bytes, problem: str, bad: Bad) -> None:
    assert bad(content) == [problem]


def test_ten_mebibytes_are_refused_at_once(bad: Bad) -> None:
    started = time.monotonic()
    assert bad(b"a: [" + b"1," * (5 << 20) + b"]") == ["rauta.yaml: the file is larger than 4 MiB"]
    assert time.monotonic() - started < 2


def test_missing_directory_and_unreadable(tmp_path: Path) -> None:
    for path, message in [
        (tmp_path / "absent.yaml", "there is no such file"),
        (tmp_path, "this is a directory: name a file in it"),
        (tmp_path / "a\0b", "the file cannot be read: embedded null byte"),
        (Path("/proc/self/mem"), "the file cannot be read: Input/output error"),
    ]:
        with pytest.raises(ConfigError) as caught:
            load(path)
        assert str(caught.value) == f"{path}: {message}"
        assert caught.value.problems[0].line is None


def test_no_permission(tmp_path: Path) -> None:
    path = tmp_path / "rauta.yaml"
    path.write_text("version: 1")
    path.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # root may read everything
    try:
        with pytest.raises(ConfigError, match=r"no permission to read the file \(user id \d+\)"):
            load(path)
    finally:
        os.seteuid(user)


def test_a_pipe_is_read_to_its_end() -> None:
    reading, writing = os.pipe()
    try:
        os.write(writing, BASE.encode())
        os.close(writing)
        assert load(f"/dev/fd/{reading}").configuration.services[0].name == "users"
    finally:
        os.close(reading)


# --- values ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rest", "problem"), table("wrong_values.txt"))
def test_wrong_values_are_named_with_their_line(rest: str, problem: str, bad: Bad) -> None:
    assert bad(BASE + rest) == [f"rauta.yaml:{problem}"]


@pytest.mark.parametrize(("listener", "problem"), table("wrong_listeners.txt"))
def test_wrong_listeners(listener: str, problem: str, bad: Bad) -> None:
    problems = bad(f"version: 1\nlisteners:\n  web: {listener}\n")
    assert problems == [f"rauta.yaml:3: listeners.web{problem}"]


def test_a_certificate_that_is_not_in_a_list(bad: Bad) -> None:
    write = "write certificates: [{cert: FILE, key: {file: FILE}}]"
    assert bad("version: 1\nlisteners:\n  web: {address: ':80', tls: {cert: a.crt, key: {file: a.key}}}\n") == [
        f"rauta.yaml:3: listeners.web.tls.cert: unknown key; {write}",
        f"rauta.yaml:3: listeners.web.tls.key: unknown key; {write}",
        "rauta.yaml:3: listeners.web.tls: the key 'certificates' is missing in a tls object",
    ]


@pytest.mark.parametrize(("service", "problem"), table("wrong_services.txt"))
def test_wrong_services(service: str, problem: str, bad: Bad) -> None:
    problems = bad(f"version: 1\nlisteners: {{web: {{address: ':80'}}}}\nservices:\n  s: {service}\n")
    assert problems == [f"rauta.yaml:4: services.s{problem}"]


def test_a_socket_in_an_included_file_is_relative_to_that_file(write: Callable[..., Path], good: Good) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as short:  # the path of a socket holds 107 bytes
        folder = Path(short)
        (folder / "conf.d").mkdir()
        (folder / "conf.d" / "more.yaml").write_text("services: {s: {backends: [{address: 'unix:app.sock'}]}}")
        (folder / "rauta.yaml").write_text(
            "version: 1\ninclude: [conf.d/*.yaml]\nlisteners: {web: {address: 'unix:web.sock'}}\nadmin: {socket: a.sock}"
        )
        found = load(folder / "rauta.yaml").configuration
        assert found.services[0].backends[0].address == Address.unix(f"{folder}/conf.d/app.sock")
        assert found.listeners[0].address == Address.unix(f"{folder}/web.sock")
        assert found.admin is not None
        assert found.admin.socket == f"{folder}/a.sock"


def test_a_path_that_no_socket_can_have(bad: Bad) -> None:
    (problem,) = bad("version: 1\nlisteners: {web: {address: 'unix:/" + "a" * 107 + "'}}")
    assert problem.endswith("is not the path of a socket: 1 to 107 bytes, none of them NUL")


def test_a_filter_of_a_likely_name(bad: Bad) -> None:
    unknown, missing = bad(BASE + "routes: [{name: a, service: users, filters: [{headers: {}}]}]")
    assert (
        unknown == "rauta.yaml:5: routes[0].filters[0].headers: unknown key; write request_headers or response_headers"
    )
    assert missing.endswith("it has none")


def test_equal_filters_are_one_object(good: Good) -> None:
    text = (
        BASE
        + "routes:\n"
        + "".join(
            f"- {{name: r{i}, service: users, filters: [{{request_headers: {{set: {{X-Env: a}}}}}}]}}\n"
            for i in range(3)
        )
    )
    first, *others = good(text).configuration.routes
    assert all(other.filters[0] is first.filters[0] for other in others)


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("http://10.0.2.2:80", "'http://10.0.2.2:80' is a URL: write '10.0.2.2:80'"),
        ("HTTP://users/api", "'HTTP://users/api' is a URL: write 'users:80'"),
        ("https://users", "'https://users' is a URL: write 'users:443', and in the service tls: {}"),
        ("HTTPS://users:8443/api", "'HTTPS://users:8443/api' is a URL: write 'users:8443', and in the service tls: {}"),
        (":80", "':80' has no host: write host:port, for example 127.0.0.1:80"),
        ("users", "'users' is not an address: write host:port, for example 127.0.0.1:8080"),
    ],
)
def test_wrong_backend_addresses(address: str, problem: str, bad: Bad) -> None:
    text = "version: 1\nlisteners: {web: {address: ':80'}}\n"
    text += f"services:\n  s:\n    backends:\n    - address: '{address}'\n"
    assert bad(text) == [f"rauta.yaml:6: services.s.backends[0].address: {problem}"]


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("version: 1", ["rauta.yaml:1: there is no listener: nothing would be served"]),
        ("listeners: {web: {address: ':1'}}", ["rauta.yaml:1: the key 'version' is missing in a file object"]),
        (
            "version: '1'\nlisteners: {web: {address: ':1'}}",
            ["rauta.yaml:1: version: expected the version of the format, 1, not the text '1'"],
        ),
        (
            "version: 1\nlisteners: {a: {address: ':1'}, b: {address: '0.0.0.0:1'}}",
            ["rauta.yaml:2: listeners.b.address: 0.0.0.0:1 is taken by 'a'"],
        ),
        (
            "version: 1\nlisteners: {a: {address: 'unix:/run/a.sock'}}\nadmin:\n  socket: /run/./a.sock",
            ["rauta.yaml:4: admin.socket: unix:/run/a.sock is taken by listener 'a'"],
        ),
        (
            "version: 1\nlisteners: {a: {address: 'unix:/run/rauta/admin.sock'}}\nadmin: {}",
            ["rauta.yaml:3: admin: unix:/run/rauta/admin.sock is taken by listener 'a'"],
        ),
        (
            "version: 1\nlisteners: {a: {address: ':1'}}\nservices: {s: {backends: [{address: 'a:1'}, {address: 'a:1'}]}}",
            ["rauta.yaml:3: services.s.backends[1].address: a:1 is already backend 1; use weight"],
        ),
        (
            "version: 1\nlisteners:\n  'a b':\n    address: ':1'",
            [
                "rauta.yaml:3: listeners.a b: 'a b' is not a name: 1 to 128 letters, digits, '.', '_' or '-', no punctuation at the ends"
            ],
        ),
    ],
)
def test_problems_of_the_whole(text: str, problems: list[str], bad: Bad) -> None:
    assert bad(text) == problems


def test_all_problems_are_reported_at_once_and_in_order(bad: Bad) -> None:
    text = BASE.replace("users:", "users: {}\n  other:") + (
        "workers: x\nroutes:\n- {name: a, service: nope}\n- {name: b, service: users}\n- {name: c}\nx: 1\n"
    )
    assert bad(text) == [
        "rauta.yaml:4: services.users: the key 'backends' is missing in a service object",
        "rauta.yaml:6: workers: expected auto or an integer, not the text 'x'",
        "rauta.yaml:8: routes[0].service: there is no service 'nope'; known: users, other",
        "rauta.yaml:10: routes[2]: exactly one of 'service', 'services', 'redirect', 'respond' and 'asgi' is needed here; it has none",
        "rauta.yaml:11: x: unknown key; known: version, include, listeners, services, routes, offload, access_log, workers, admin, shutdown",
    ]


def test_references_are_not_reported_when_what_they_name_could_not_be_read(bad: Bad) -> None:
    text = "version: 1\nlisteners: {w: {address: ':1'}}\nservices: []\nroutes: [{name: a, service: users}]"
    assert bad(text) == ["rauta.yaml:3: services: expected an object of names and service objects, not a list"]


PASSES = """\
version: 1
listeners:
  web:
    address: ":8443"
    passthrough: [{names: [a.example], service: users}]
"""


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        (
            PASSES + "services:\n  users: {backends: [{address: 'a:1'}], x: 1}",
            ["7: services.users.x: unknown key; known: "],
        ),
        (PASSES + "services: []", ["6: services: expected an object of names and service objects, not a list"]),
        (
            PASSES.replace("443", "443:") + "services:\n  users: {backends: [{address: 'a:1'}], health: {tls: {}}}",
            ["4: listeners.web.address: "],
        ),
        (
            PASSES + "services:\n  other: {backends: [{address: 'a:1'}], x: 1}",
            [
                "5: listeners.web.passthrough[0].service: there is no service 'users'",
                "7: services.other.x: unknown key; known: ",
            ],
        ),
        (
            PASSES + "services:\n  users: {backends: [{address: 'a:1'}], tls: {}}\n  other: {x: 1, backends: []}",
            [
                "5: listeners.web.passthrough[0].service: service 'users' has tls: ",
                "8: services.other.x: unknown key; ",
                "8: services.other.backends: ",
            ],
        ),
    ],
)
def test_what_passes_to_a_service_that_cannot_be_read_is_not_reported(text: str, problems: list[str], bad: Bad) -> None:
    said = bad(text)
    assert [*map(str.startswith, said, [f"rauta.yaml:{start}" for start in problems])] == [True] * len(problems), said
    assert len(said) == len(problems), said


def test_many_problems_are_counted_and_cost_little(bad: Bad) -> None:
    services = "".join(f"  service-{i}: {{backends: [{{address: 'a:1'}}]}}\n" for i in range(2000))
    routes = "".join(f"- {{name: r{i}, service: servise-{i}}}\n" for i in range(5000))
    started = time.monotonic()
    lines = bad(f"version: 1\nlisteners: {{w: {{address: ':1'}}}}\nservices:\n{services}routes:\n{routes}")
    assert len(lines) == MAX_PROBLEMS + 1
    assert lines[-1] == f"and {5000 - MAX_PROBLEMS} more"
    assert "did you mean 'service-0'?" in lines[0]
    assert time.monotonic() - started < 20


def test_problems_survive_pickling(write: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write("version: 1\nx: 1"))
    again = pickle.loads(pickle.dumps(caught.value))  # noqa: TID251 - our own bytes
    assert (str(again), again.problems) == (str(caught.value), caught.value.problems)


# --- what a file means ----------------------------------------------------------------------------------


def test_equal_parts_are_one_object(good: Good) -> None:
    text = (
        BASE
        + "routes:\n"
        + "".join(f"- {{name: r{i}, service: users, match: {{hosts: [a.example]}}}}\n" for i in range(2))
    )
    one, two = good(text).configuration.routes
    assert one.action is two.action
    assert one.timeouts is two.timeouts
    assert one.matches[0].hosts[0] is two.matches[0].hosts[0]
    assert one.matches[0].path is two.matches[0].path


def test_a_redirect_of_the_prefix(good: Good) -> None:
    text = BASE + "routes: [{name: r, match: {path: {prefix: /a}}, redirect: {path: {prefix: /b/}}}]"
    action = good(text).configuration.routes[0].action
    assert isinstance(action, Redirect)
    assert action.prefix is not None
    assert action.path is None


def test_files_are_relative_to_the_file(write: Any, tmp_path: Path) -> None:
    path = write(BASE + "access_log: {to: ../log/./a.log}", "etc/rauta.yaml")
    assert load(path).configuration.access_log.to == str(tmp_path / "log/a.log")


@pytest.mark.parametrize("word", ["stdout", "stderr", "off"])
def test_words_are_not_files(word: str, good: Good) -> None:
    assert good(BASE + f"access_log: {{to: {word}}}").configuration.access_log.to == word


# --- cost -----------------------------------------------------------------------------------------------


def many(routes: int, services: int = 100) -> str:
    lines = ["version: 1", "listeners: {web: {address: ':8080'}}", "services:"]
    lines += [
        f"  s{i}: {{backends: [{{address: '10.0.0.{i}:80'}}, {{address: '10.0.1.{i}:80'}}]}}" for i in range(services)
    ]
    lines += ["routes:"]
    for i in range(routes):
        match = f"{{hosts: [h{i % 100}.example.com], path: {{exact: /api/{i}}}}}"
        lines.append(f"  - {{name: r{i}, match: {match}, service: s{i % services}}}")
    return "\n".join(lines)


def test_what_is_loaded_is_small_and_its_text_is_gone(write: Any) -> None:
    path = write(many(1000))
    load(path)  # imports and caches
    tracemalloc.start()
    try:
        loaded = load(path)
        gc.collect()
        held, _ = tracemalloc.get_traced_memory()
        nodes = [thing for thing in gc.get_objects() if isinstance(thing, Mapping)]
    finally:
        tracemalloc.stop()
    assert len(loaded.configuration.routes) == 1000
    assert held < 1_000_000
    assert nodes == []


def test_equal_values_are_one_object(good: Good) -> None:
    first, second = good(
        BASE
        + """
  - {name: a, listeners: [web], match: {hosts: [a.test, b.test], path: {prefix: /x}, methods: [GET, PUT]}, service: users}
  - {name: b, listeners: [web], match: {hosts: [a.test, b.test], path: {prefix: /x/}, methods: [GET, PUT]}, service: users}
""".replace("\n  -", "\nroutes:\n  -", 1)
    ).configuration.routes
    (a,), (b,) = first.matches, second.matches
    assert a.hosts is b.hosts
    assert a.methods is b.methods
    assert a.path == b.path
    assert first.listeners is second.listeners
    assert first.action is second.action


def test_a_wrong_list_is_reported_wherever_it_is(bad: Bad) -> None:
    match = "match: {hosts: [a.test, a.test], methods: [GET, 1]}, service: users}"
    problems = bad(f"{BASE}\nroutes:\n  - {{name: a, {match}\n  - {{name: b, {match}\n")
    assert [problem.split(": ")[1] for problem in problems] == [
        f"routes[{route}].match.{key}" for route in (0, 1) for key in ("hosts[1]", "methods[1]")
    ]


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("text", [BASE, "version: 1"])
def test_the_collector_goes_on_as_before(write: Any, enabled: bool, text: str) -> None:
    before = gc.isenabled()
    try:
        gc.enable() if enabled else gc.disable()
        with contextlib.suppress(ConfigError):
            load(write(text), check_files=False)
        assert gc.isenabled() is enabled
    finally:
        gc.enable() if before else gc.disable()


def test_ten_thousand_routes_load_in_seconds(write: Any) -> None:
    path = write(many(10_000))
    started = time.process_time()
    assert len(load(path).configuration.routes) == 10_000
    assert time.process_time() - started < 3  # 1.0 s; a busy machine counts more


# --- properties -----------------------------------------------------------------------------------------


def outcome(path: Path) -> Loaded | tuple[str, ...] | None:
    """What was loaded, or the problems, one line each; None if it was refused without a reason."""
    try:
        return load(path, check_files=False)
    except ConfigError as error:
        lines = tuple(str(problem) for problem in error.problems)
        return lines if lines and not any("\n" in line for line in lines) else None


_ANYTHING = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(text=st.text())
@_ANYTHING
def test_any_text_loads_or_is_a_configuration_error(text: str, write: Any) -> None:
    assert outcome(write(text.encode("utf-8", "surrogatepass"))) is not None


@given(data=st.data())
@_ANYTHING
def test_mutations_of_the_golden_file_load_or_are_configuration_errors(
    data: st.DataObject, write: Any, plugins: None
) -> None:
    text = GOLDEN.read_text()
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 12)))
        new = data.draw(
            st.sampled_from(
                [
                    "",
                    "\n",
                    " ",
                    ":",
                    "[",
                    "]",
                    "{",
                    "}",
                    "&a ",
                    "*a",
                    "-",
                    "0",
                    "~",
                    '"',
                    "!x ",
                    "a: ",
                    "99999999999",
                    "é",
                ]
            )
        )
        text = text[:start] + new + text[end:]
    assert outcome(write(text)) is not None


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("\n".join(f"k{i}: 1" for i in range(40_000)), id="unknown keys"),
        pytest.param("\n".join(f"k{i % 20_000}: 1" for i in range(40_000)), id="duplicate keys"),
        pytest.param("version: 1\nroutes:\n" + "- {}\n" * 40_000, id="routes without anything"),
    ],
)
def test_problems_cost_no_more_than_their_number(text: str, bad: Bad) -> None:
    started = time.process_time()
    assert len(bad(text)) == MAX_PROBLEMS + 1
    assert time.process_time() - started < 5  # 0.7 s; looking up each place took minutes
