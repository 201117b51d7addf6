"""ASGI applications in real workers: a start and a reload that fail say why, and each worker has a lifespan."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from support.process import ROOT, Gateway, free_port, gateway, get

APPLICATION = """
from pathlib import Path

HERE = Path(__file__).parent


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            with (HERE / "events").open("a") as file:
                file.write(message["type"] + "\\n")
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"served"})


async def broken(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})


async def failing(scope, receive, send):
    if scope["type"] != "lifespan":
        raise ValueError("on purpose")
"""


class Site:
    """A file with one route to an application."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        (folder / "hosted.py").write_text(APPLICATION)
        self.file = folder / "rauta.yaml"
        paths = [str(folder), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}

    def write(self, app: str, *, workers: int = 2) -> str:
        self.file.write_text(
            f'version: 1\nlisteners: {{web: {{address: "127.0.0.1:{self.port}"}}}}\n'
            f'routes: [{{name: r, asgi: "hosted:{app}"}}]\nworkers: {workers}\naccess_log: {{to: "off"}}\n'
        )
        return str(self.file)

    @property
    def events(self) -> list[str]:
        return (self.folder / "events").read_text().split()


def test_each_worker_has_a_lifespan(tmp_path: Path) -> None:
    site = Site(tmp_path)
    with gateway("--config", site.write("app"), env=site.env) as running:
        assert site.events == ["lifespan.startup"] * 2
        assert get(site.port) == (200, b"served")
        running.signal(signal.SIGHUP)
        running.wait_for("reloaded")
        assert site.events == ["lifespan.startup"] * 2  # it goes on
        assert running.stop() == 0
    assert sorted(site.events) == ["lifespan.shutdown"] * 2 + ["lifespan.startup"] * 2


def test_a_start_that_fails_says_why(tmp_path: Path) -> None:
    site = Site(tmp_path)
    for app, why in (("broken", " did not start: no database"), ("nowhere", ": there is no 'nowhere' in module ")):
        running = Gateway("--config", site.write(app), env=site.env)
        try:
            assert running.wait() == 2
            assert any(f"{site.file}:3: route 'r': asgi 'hosted:{app}'{why}" in line for line in running.lines)
        finally:
            running.destroy()


def test_a_start_tells_all_that_fail_each_with_its_place(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.write("app", workers=1)
    (tmp_path / "raising.py").write_text("def connect():\n    raise ValueError('on purpose')\n\n\nconnect()\n")
    (tmp_path / "more.yaml").write_text(
        "routes:\n"
        '- {name: x, match: {path: {prefix: /x}}, asgi: "absent_of_tests:app"}\n'
        "- name: y\n  match: {path: {prefix: /y}}\n"
        '  asgi: "raising:app"\n'
    )
    with site.file.open("a") as file:
        file.write("include: [more.yaml]\n")
    running = Gateway("--config", str(site.file), env=site.env)
    try:
        assert running.wait() == 2
        text = "\n".join(running.lines)
        assert f"rauta: {tmp_path}/more.yaml:2: route 'x': asgi 'absent_of_tests:app': there is no module" in text
        assert f"\n{tmp_path}/more.yaml:5: route 'y': asgi 'raising:app': the import of its module failed: " in text
        assert f"ValueError: on purpose ({tmp_path}/raising.py:2 in connect)" in text
        assert f'File \\"{tmp_path}/raising.py\\", line 5, in <module>' in text  # the traceback, in a line of JSON
    finally:
        running.destroy()
    assert site.events == ["lifespan.startup", "lifespan.shutdown"]  # of the one that could start


def test_a_reload_that_fails_leaves_what_is_served(tmp_path: Path) -> None:
    site = Site(tmp_path)
    with gateway("--config", site.write("app", workers=1), env=site.env) as running:
        site.write("broken", workers=1)
        running.signal(signal.SIGHUP)
        told = running.wait_for("reload_failed")["message"]
        assert told.endswith(f"{site.file}:3: route 'r': asgi 'hosted:broken' did not start: no database")
        assert get(site.port) == (200, b"served")


def test_the_traceback_is_in_the_log(tmp_path: Path) -> None:
    site = Site(tmp_path)
    with gateway("--config", site.write("failing", workers=1), env=site.env) as running:
        status, body = get(site.port)
        assert status == 500
        assert b"application_failed" in body
        running.wait_for_text("ValueError: on purpose")
