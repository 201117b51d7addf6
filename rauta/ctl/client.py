"""Talking to a gateway that runs: HTTP over its admin socket (docs/admin.md)."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any, Final

from rauta.ctl.errors import EXIT_FAILURE, EXIT_USAGE, ControlError
from rauta.routing.defaults import ADMIN_SOCKET

TIMEOUT: Final = 150.0  # seconds; a reload may build for a minute


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT)
        self.sock.connect(self._path)


def socket_path(named: str | None, config: str | None) -> str:
    """Where the gateway is: as named, as the configuration file says, or the default. Raises ControlError."""
    if named is not None:
        return named
    if config is None:
        return ADMIN_SOCKET
    from rauta.ctl import files

    admin = files.load(config).configuration.admin
    if admin is None:
        raise ControlError(f"{config} has no `admin` section, so its gateway takes no commands: add `admin: {{}}`")
    return admin.socket


def ask(path: str, method: str, target: str) -> dict[str, Any]:
    """The answer of the gateway. Raises ControlError: there is none, or it says no."""
    connection = _UnixConnection(path)
    try:
        headers = {"Content-Type": "application/json"} if method == "POST" else {}
        connection.request(method, target, headers=headers)
        response = connection.getresponse()
        answer = json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ControlError(_no_answer(path, error), code=EXIT_FAILURE) from error
    finally:
        connection.close()
    if response.status != 200:
        # A reload that was refused is a bad configuration, as `check` would say.
        code = EXIT_USAGE if response.status == 409 and target == "/v1/reload" else EXIT_FAILURE
        raise ControlError(str(answer.get("error", {}).get("text", answer)), code=code)
    return dict(answer)


def _no_answer(path: str, error: Exception) -> str:
    if isinstance(error, FileNotFoundError | ConnectionRefusedError):
        return (
            f"no gateway listens at {path}: is it running, and does its file have an `admin` section? "
            "--socket PATH or --config FILE says where"
        )
    if isinstance(error, PermissionError):
        return f"no permission to use {path}: it belongs to the user that started the gateway"
    if isinstance(error, TimeoutError):
        return f"the gateway at {path} did not answer within {TIMEOUT:g} s"
    return f"the gateway at {path} does not answer as one: {error}"
