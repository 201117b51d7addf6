"""docs/filters.md: every example is a file that loads, and every row of its table is what happens."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rauta.config import load
from rauta.routing.model import Configuration
from support.http import Peer, backend, client, gateway, ok, run

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "filters.md").read_text()
SECTIONS = {part.partition("\n")[0]: part for part in PAGE.split("\n## ")[1:] if "```yaml" in part}
# Who is who in the text; in the test all of them are this machine.
PEOPLE = (("192.0.2.7", "127.0.0.1"), ("10.0.0.1", "127.0.0.1"), ("10.0.0.0/8", "127.0.0.0/8"))


def localised(text: str) -> str:
    for one, here in PEOPLE:
        text = text.replace(one, here)
    return text


def rows(section: str) -> list[tuple[str, str, str]]:
    lines = [line for line in section.splitlines() if line.startswith("|")]
    assert lines[0] == "| sent | the backend gets | the client gets |"
    found = [tuple(cell.strip() for cell in line.strip("|").split(" | ")) for line in lines[2:]]
    return [(sent, arrives, answered) for sent, arrives, answered in found]


ROWS = [(title, *row) for title, section in SECTIONS.items() for row in rows(section)]


def configuration(title: str, folder: Path, port: int) -> Configuration:
    (example,) = re.findall(r"```yaml\n(.*?)```", SECTIONS[title], re.DOTALL)
    text = f'version: 1\nservices: {{app: {{backends: [{{address: "127.0.0.1:{port}"}}]}}}}\n' + localised(example)
    if "\nlisteners:" not in f"\n{example}":
        text += 'listeners: {web: {address: ":8080"}}\n'
    file = folder / "rauta.yaml"
    file.write_text(text)
    return load(file).configuration


def items(cell: str) -> list[tuple[bool, str]]:
    """The things of a cell, each with whether it is there."""
    return [(not no, localised(text)) for no, text in re.findall(r"(no )?`([^`]+)`", cell)]


def request_of(cell: str) -> bytes:
    (_, line), *fields = items(cell)
    if not any(field.startswith("Host:") for _, field in fields):
        fields.append((True, "Host: example.com"))
    return "\r\n".join([f"{line} HTTP/1.1", *(field for _, field in fields), "", ""]).encode()


def check(cell: str, head: str) -> None:
    """Every field that a cell names, and none that it denies, is in a head."""
    first, _, fields = head.partition("\r\n")
    for there, text in items(cell):
        if re.fullmatch("[0-9]{3}", text):
            assert first.split()[1] == text
        elif text.startswith("GET "):
            assert first == f"{text} HTTP/1.1"
        else:
            pattern = "[^\r\n]+".join(map(re.escape, re.split("<[^>]*>", text)))
            if ":" not in text:
                pattern += ":[^\r\n]*"
            found = re.search(f"^{pattern}\r$", fields, re.MULTILINE | re.IGNORECASE)
            assert (found is not None) is there, (text, head)


def test_every_example_has_a_table() -> None:
    assert len(SECTIONS) == PAGE.count("```yaml") == PAGE.count("| sent |") == 8
    assert {title for title, *_ in ROWS} == set(SECTIONS)


@pytest.mark.parametrize(("title", "sent", "arrives", "answered"), ROWS)
def test_row(title: str, sent: str, arrives: str, answered: str, tmp_path: Path) -> None:
    received: list[str] = []

    async def script(peer: Peer) -> None:
        received.append((await peer.head()).decode())
        peer.send(ok(extra=b"X-Backend: 1\r\n"))
        await peer.closed()

    async def main() -> None:
        async with backend(script) as server:
            loaded = configuration(title, tmp_path, server.port)
            (listener,) = loaded.listeners
            async with (
                gateway(services=loaded.services, routes=loaded.routes, listener=listener) as rauta,
                client(rauta.port) as peer,
            ):
                peer.send(request_of(sent))
                check(answered, (await peer.head()).decode())
        if arrives == "nothing":
            assert not received
        else:
            check(arrives, received[0])

    run(main())
