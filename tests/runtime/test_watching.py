"""`--watch`: each way in which a file is changed, with a real gateway where it matters."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rauta.config import load
from rauta.runtime.log import EventLog
from rauta.runtime.watched import Watched
from rauta.runtime.watching import QUIET, Watching
from support.process import PATIENCE, Gateway, children, free_port, gateway, get
from support.tls import make_pair


def document(port: int, word: str, **sections: Any) -> str:
    return json.dumps(
        {
            "version": 1,
            "workers": 1,
            "access_log": {"to": "off"},
            "listeners": {"web": {"address": f"127.0.0.1:{port}"}},
            "routes": [{"name": "word", "respond": {"body": word}}],
            **sections,
        }
    )


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def file(tmp_path: Path, port: int) -> Path:
    path = tmp_path / "conf" / "rauta.yaml"
    path.parent.mkdir()
    path.write_text(document(port, "one"))
    return path


@pytest.fixture
def running(file: Path) -> Iterator[Gateway]:
    with gateway("--config", str(file), "--watch") as found:
        yield found


def replace(path: Path, text: str) -> None:
    """As most editors do."""
    new = path.with_name("new~")
    new.write_text(text)
    new.rename(path)


def test_written_in_place_and_renamed_over(file: Path, port: int, running: Gateway) -> None:
    file.write_text(document(port, "two"))
    assert running.wait_for("reloaded")["cause"] == "watch"
    assert get(port) == (200, b"two")
    replace(file, document(port, "three"))
    running.wait_for("reloaded", 2)
    assert get(port) == (200, b"three")


def test_a_broken_file_is_told_once_and_a_good_one_serves(file: Path, port: int, running: Gateway) -> None:
    replace(file, "version: 1\nroutes: 7\n")
    assert f"{file}:2" in running.wait_for("reload_failed")["message"]
    (file.parent / "other.txt").write_text("news of something else, so that it is looked at again")
    file.unlink()
    running.wait_for("reload_failed", 2)
    assert get(port) == (200, b"one")
    file.write_text(document(port, "two"))
    running.wait_for("reloaded")
    assert get(port) == (200, b"two")
    assert len(running.events("reload_failed")) == 2


def test_the_folder_goes_and_comes_back(file: Path, port: int, running: Gateway) -> None:
    away = file.parent.with_name("away")
    file.parent.rename(away)
    running.wait_for("reload_failed")
    replace(away / "rauta.yaml", document(port, "two"))
    away.rename(file.parent)
    running.wait_for("reloaded")
    assert get(port) == (200, b"two")
    replace(file, document(port, "three"))
    running.wait_for("reloaded", 2)
    assert get(port) == (200, b"three")


def test_a_configmap(tmp_path: Path, port: int) -> None:
    """As the kubelet does it: the file is a link through `..data`, which is replaced by another link."""
    mount = tmp_path / "mount"

    def publish(word: str) -> None:
        folder = mount / f"..{word}"
        folder.mkdir(parents=True)
        (folder / "rauta.yaml").write_text(document(port, word))
        (mount / "..data_tmp").symlink_to(folder.name)
        (mount / "..data_tmp").rename(mount / "..data")

    publish("one")
    (mount / "rauta.yaml").symlink_to("..data/rauta.yaml")
    with gateway("--config", str(mount / "rauta.yaml"), "--watch") as running:
        for number, word in enumerate(("two", "three"), 1):
            publish(word)
            running.wait_for("reloaded", number)
            assert get(port) == (200, word.encode())


def test_included_files_come_change_and_go(file: Path, port: int) -> None:
    folder = file.parent / "conf.d"
    folder.mkdir()
    file.write_text(document(port, "rest", include=["conf.d/*.yaml"]))
    route = 'routes: [{{name: more, priority: 1, match: {{path: {{exact: /more}}}}, respond: {{body: "{}"}}}}]\n'
    with gateway("--config", str(file), "--watch") as running:
        replace(folder / "a.yaml", route.format("first"))
        running.wait_for("reloaded")
        assert get(port, "/more") == (200, b"first")
        replace(folder / "a.yaml", "routes: 7\n")
        assert "a.yaml:1" in running.wait_for("reload_failed")["message"]
        replace(folder / "a.yaml", route.format("second"))
        running.wait_for("reloaded", 2)
        assert get(port, "/more") == (200, b"second")
        (folder / "a.yaml").unlink()
        running.wait_for("reloaded", 3)
        assert get(port, "/more") == (200, b"rest")


def test_certificates_are_files_too(file: Path, port: int, tmp_path: Path) -> None:
    pair = make_pair(tmp_path / "conf")
    tls = {"certificates": [{"cert": str(pair.cert), "key": {"file": str(pair.key)}}]}
    file.write_text(document(port, "x", listeners={"web": {"address": f"127.0.0.1:{port}", "tls": tls}}))
    with gateway("--config", str(file), "--watch") as running:
        other = make_pair(tmp_path)
        key, cert = Path(other.key).read_text(), Path(other.cert).read_text()
        replace(Path(pair.key), key)
        replace(Path(pair.cert), cert)  # within the pause: both are read together
        running.wait_for("reloaded")
        assert running.events("reload_failed") == []


def test_what_changes_nothing_reloads_nothing(file: Path, port: int, running: Gateway) -> None:
    for number in range(20):
        (file.parent / f"other{number}").write_text("x")
    replace(file, document(port, "two"))
    running.wait_for("reloaded")
    assert get(port) == (200, b"two")
    assert len(running.events("reloaded")) == 1


def test_a_change_during_the_start_is_not_missed(file: Path, port: int) -> None:
    starting = Gateway("--config", str(file), "--watch")
    try:
        while not children(starting.process.pid) and starting.process.poll() is None:
            pass
        replace(file, document(port, "two"))
        starting.wait_for("reloaded")
        assert get(port) == (200, b"two")
    finally:
        starting.destroy()


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        (lambda home: (home / "rauta.yaml").touch(), True),
        (lambda home: os.utime(home / "rauta.yaml", (1, 1)), True),
        (lambda home: (home / "sites" / "b").mkdir(), False),
        (lambda home: (home / "sites" / "a" / "x.yaml").write_text(""), True),
        (lambda home: (home / "sites" / "a" / "x.txt").write_text(""), False),
    ],
    ids=["touch", "time", "folder", "include", "other"],
)
def test_snapshots(change: Callable[[Path], object], differs: bool, tmp_path: Path) -> None:
    (tmp_path / "sites" / "a").mkdir(parents=True)
    (tmp_path / "rauta.yaml").write_text(document(1, "x", include=["sites/*/*.yaml"]))
    watched = Watched.of(load(tmp_path / "rauta.yaml"))
    assert watched.folders() == {tmp_path, tmp_path / "sites", tmp_path / "sites" / "a"}
    before = watched.snapshot()
    change(tmp_path)
    assert (watched.snapshot() != before) is differs


def test_the_folders_of_links_and_of_what_is_missing(tmp_path: Path) -> None:
    real = tmp_path / "releases" / "1" / "conf"
    real.mkdir(parents=True)
    (real / "rauta.yaml").write_text("")
    (tmp_path / "current").symlink_to("releases/1")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "rauta.yaml").symlink_to("../current/conf/rauta.yaml")
    (tmp_path / "etc" / "loop").symlink_to("loop")
    link, missing = tmp_path / "etc" / "rauta.yaml", tmp_path / "etc" / "no" / "such" / "file"
    assert Watched(files=(link,)).folders() == {tmp_path / "etc", tmp_path, real}
    assert Watched(files=(missing,)).folders() == {tmp_path / "etc"}
    assert Watched(files=(tmp_path / "etc" / "loop",)).folders() == {tmp_path / "etc"}


def test_what_has_been_read_is_not_read_again(file: Path) -> None:
    reloads: list[str] = []

    async def scenario() -> None:
        called = asyncio.Event()

        async def reload(cause: str) -> None:
            reloads.append(file.read_text())
            called.set()

        watching = Watching(lambda: Watched(files=(file,)), EventLog())
        task = asyncio.get_running_loop().create_task(watching.run(reload))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(called.wait(), 2 * QUIET)
        file.write_text("new")
        await asyncio.wait_for(called.wait(), PATIENCE)
        called.clear()
        (file.parent / "other").write_text("")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(called.wait(), 2 * QUIET)
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(scenario())
    assert reloads == ["new"]


@pytest.mark.parametrize("included", [True, False], ids=["include", "named by another file"])
def test_a_change_of_a_new_file_while_it_is_read_is_not_missed(file: Path, included: bool) -> None:
    new = file.parent / "conf.d" / "new.yaml"
    new.parent.mkdir()
    includes = ((new.parent, "*.yaml"),) if included else ()
    reloads: list[str] = []

    async def scenario() -> None:
        called = asyncio.Event()
        watched = Watched(files=(file,), includes=includes)

        async def reload(cause: str) -> None:
            nonlocal watched
            reloads.append(new.read_text())
            watched = Watched(files=(file, new), includes=includes)
            if len(reloads) == 1:
                replace(new, "second")
            else:
                called.set()

        watching = Watching(lambda: watched, EventLog())
        new.write_text("first")
        file.write_text("names the new one")
        task = asyncio.get_running_loop().create_task(watching.run(reload))
        await asyncio.wait_for(called.wait(), PATIENCE)
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(scenario())
    assert reloads == ["first", "second"]
