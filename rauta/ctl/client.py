"""Talking to a gateway that runs: HTTP over its admin socket (docs/admin.md)."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rauta.ctl.errors import EXIT_FAILURE, EXIT_USAGE, ControlError
from rauta.routing.defaults import ADMIN_SOCKET

TIMEOUT: Final = 150.0  # seconds; a reload may build for a minute
VARIABLE: Final = "RAUTA_SOCKET"
_NAME_IT: Final = f"name the socket by --socket PATH or {VARIABLE}, or the gateway's file by --config FILE"


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT)
        self.sock.connect(self._path)


@dataclass(frozen=True, slots=True)
class AdminSocket:
    """Where a gateway takes commands, and who says so (`the default`, `as --socket says`); `guessed`: a file that
    nobody named."""

    path: str
    why: str
    guessed: bool = False

    def __str__(self) -> str:
        return f"{self.path} ({self.why})"

    def not_understood(self, error: Exception) -> ControlError:
        """For an answer in which something is not what rauta would say."""
        what = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) and error.args else str(error)
        text = f"what answers at {self} is no rauta, or one of another version: {what}"
        return ControlError(text, code=EXIT_FAILURE)


def admin_socket(named: str | None, config: str | None, environ: Mapping[str, str]) -> AdminSocket:
    """The gateway that is meant: as --socket says, as the file of --config, as RAUTA_SOCKET; else the default, or where
    that is not there the socket of a file in one of the usual places (docs/decisions/063). Raises ControlError."""
    if named is not None:
        return AdminSocket(named, "as --socket says")
    if config is not None:
        return AdminSocket(_socket_in(config), f"as {config} says")
    if told := environ.get(VARIABLE):
        return AdminSocket(told, f"as {VARIABLE} says")
    return _usual()


def _usual() -> AdminSocket:
    from rauta.ctl import files

    if files.is_there(Path(ADMIN_SOCKET)):
        return AdminSocket(ADMIN_SOCKET, "the default")
    file = next((str(path) for path in files.DEFAULT_FILES if files.is_there(path)), None)
    if file is None:
        here, system = files.DEFAULT_FILES
        return AdminSocket(ADMIN_SOCKET, f"the default; neither {here} here nor {system} is there to name another")
    try:
        path = _socket_in(file)
    except ControlError as error:
        text = f"{error}\n{file} was read since there is no {ADMIN_SOCKET}: {_NAME_IT}"
        raise ControlError(text, code=EXIT_FAILURE, problems=error.problems, more=error.more) from None
    if path == ADMIN_SOCKET:
        return AdminSocket(path, f"the default, and that of {file}")
    shown = file if file.startswith("/") else f"./{file}"
    return AdminSocket(path, f"as {shown} says; there is no {ADMIN_SOCKET}", guessed=True)


def _socket_in(file: str) -> str:
    from rauta.ctl import files

    admin = files.load(file).configuration.admin
    if admin is None:
        raise ControlError(f"{file} has no `admin` section, so its gateway takes no commands: add `admin: {{}}`")
    return admin.socket


def ask(socket: AdminSocket, method: str, target: str) -> dict[str, Any]:
    """The answer of the gateway. Raises ControlError: there is none, or it says no."""
    connection = _UnixConnection(socket.path)
    try:
        headers = {"Content-Type": "application/json"} if method == "POST" else {}
        connection.request(method, target, headers=headers)
        response = connection.getresponse()
        answer = json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ControlError(_no_answer(socket, error), code=EXIT_FAILURE) from error
    finally:
        connection.close()
    if not isinstance(answer, dict):
        raise socket.not_understood(TypeError(f"{method} {target} has an answer that is no JSON object"))
    if response.status != 200:
        # A reload that was refused is a bad configuration, as `check` would say.
        code = EXIT_USAGE if response.status == 409 and target == "/v1/reload" else EXIT_FAILURE
        told = answer.get("error")
        raise ControlError(str(told.get("text", answer) if isinstance(told, dict) else answer), code=code)
    return answer


def _no_answer(socket: AdminSocket, error: Exception) -> str:
    path = str(socket)
    if isinstance(error, FileNotFoundError | ConnectionRefusedError):
        return (
            f"no gateway listens at {path}: is it running, and does its file have an `admin` section? If it listens "
            f"elsewhere, {_NAME_IT}"
        )
    if isinstance(error, PermissionError):
        return f"no permission to use {path}: it belongs to the user that started the gateway"
    if isinstance(error, TimeoutError):
        return f"the gateway at {path} did not answer within {TIMEOUT:g} s"
    return f"the gateway at {path} does not answer as one: {error}"
