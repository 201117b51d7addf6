"""Types of addresses: `host:port`, `unix:PATH`, and networks of clients."""

from __future__ import annotations

import ipaddress
import re
from typing import Any, Final

from rauta.config.nodes import Node
from rauta.config.paths import absolute
from rauta.config.reader import INVALID, Reader
from rauta.config.scalars import Parsed, quoted
from rauta.routing.errors import ModelError
from rauta.routing.settings import Address, Network

UNIX: Final = "unix:"
_UNIX_PATTERN: Final = r"^unix:[^@~]"  # what AddressText refuses at the start of a path


class AddressText(Parsed):
    """An address. The path of a unix socket is relative to the file that names it, as those of all files are."""

    def decode(self, node: Node, reader: Reader) -> Any:
        text = getattr(node, "value", None)
        if isinstance(text, str) and text.startswith(UNIX):
            return self._unix(text.removeprefix(UNIX), node, reader)
        return super().decode(node, reader)

    def _unix(self, path: str, node: Node, reader: Reader) -> Any:
        if path.startswith("//"):
            reader.problem(node, f"{UNIX + path!r} is a URL: write {UNIX}/{path.lstrip('/')}")
            return INVALID
        if path.startswith("@"):
            reader.problem(node, f"{UNIX + path!r}: abstract sockets are not supported, since they have no owner and "
                                 "no mode: write the path of a file")  # fmt: skip
            return INVALID
        whole = absolute(path, node, reader)
        if whole is INVALID:
            return INVALID
        try:
            return reader.memo.setdefault((UNIX, whole), Address.unix(whole))
        except ModelError as error:
            reader.model_error(node, error)
            return INVALID

    def schema(self, defs: dict[str, Any]) -> dict[str, Any]:
        return {"type": "string", "pattern": f"{self._pattern}|{_UNIX_PATTERN}"}


_NETWORK: Final = re.compile(r"(?P<address>[0-9A-Fa-f.:]+)(?:/(?P<length>[0-9]{1,3}))?")


def parse_network(text: str) -> Network:
    """`10.0.0.0/8`, `2001:db8::/32`, or one address. Raises ModelError."""
    found = _NETWORK.fullmatch(text)
    if found is None:
        hint = f": write {text.strip('[]')}" if text.startswith("[") else ""
        raise ModelError.at((), f"{text!r} is not a network such as 10.0.0.0/8 or 2001:db8::/32{hint}")
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ModelError.at((), f"{text!r} is not a network such as 10.0.0.0/8 or 2001:db8::/32") from None
    if network.network_address != ipaddress.ip_address(found["address"]):
        raise ModelError.at((), f"{text!r} has bits beyond its length: write {network}, or {found['address']} alone")
    return network


class NetworkText(Parsed):
    """A network of clients, or one address; shown as it would be written."""

    plural = "networks such as 10.0.0.0/8"

    def __init__(self) -> None:
        label = "a network such as 10.0.0.0/8"
        super().__init__(label, parse_network, pattern=r"^[0-9A-Fa-f.:]+(?:/[0-9]{1,3})?$")

    def show(self, value: Any) -> str:
        return quoted(str(value))
