"""Command lines that cannot be read: what was probably meant, and how it is written."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from typing import Final, NoReturn

# What people try, from other tools or by what they look for, and no spelling leads to.
MEANT: Final[Mapping[str, str]] = {
    **dict.fromkeys(("config", "effective", "show"), "dump"),
    **dict.fromkeys(("configtest", "lint", "test", "validate"), "check"),
    **dict.fromkeys(("backends", "health", "upstreams"), "services"),
    **dict.fromkeys(("cert", "certificate", "certificates", "tls"), "certs"),
    **dict.fromkeys(("counters", "metrics"), "stats"),
    **dict.fromkeys(("quit", "shutdown", "stop"), "drain"),
    **dict.fromkeys(("match", "trace", "why"), "explain"),
    "hup": "reload",
    "restart": "reload",
    "rotate": "reopen",
    "info": "status",
}
ELSEWHERE: Final[Mapping[str, str]] = {
    **dict.fromkeys(("run", "serve", "start", "up"), "a gateway is started by `rauta --config FILE`"),
    "help": "`rautactl --help` lists the commands",
    "version": "`rautactl --version` prints it, `rautactl status` that of a gateway that runs",
}
"""What people try that no command does, and what does it."""
_OPTION: Final = re.compile(r"--[a-z-]+")


class Parser(argparse.ArgumentParser):
    """That of rautactl, or of a command; `example` is a use of it that works. `commands` are those below it."""

    example = ""
    commands: Mapping[str, Parser]

    def error(self, message: str) -> NoReturn:
        """See argparse, which calls it where something is missing, or is none of the choices."""
        self.refuse(f"{message}\nfor example: {self.example}" if self.example else message)

    def refuse(self, message: str) -> NoReturn:
        """Say it, and exit."""
        super().error(message)

    def read(self, argv: Sequence[str]) -> argparse.Namespace:
        """The arguments of one of the commands. Raises SystemExit when what is wrong has been said."""
        if argv:
            self._check_first(argv)
        arguments, left = self.parse_known_args(argv)
        if left:
            command = self.commands[argv[0]]
            command.refuse(_unknown(command, arguments, left))
        return arguments

    def _check_first(self, argv: Sequence[str]) -> None:
        first = argv[0]
        if first in self.commands or first in ("-h", "--help", "--version"):
            return
        if first.startswith("-"):
            command = next((word for word in argv if word in self.commands), "COMMAND")
            self.refuse(
                f"{first} is no option of rautactl itself; those of a command come behind it: {command} {first}"
            )
        guess = MEANT.get(first.lower()) or _nearest(first.lower(), self.commands)
        meant = f"did you mean {guess!r}?" if guess else f"known: {', '.join(self.commands)}"
        self.refuse(f"there is no command {first!r}; {ELSEWHERE.get(first.lower(), meant)}")


def _unknown(command: Parser, arguments: argparse.Namespace, left: Sequence[str]) -> str:
    """What is wrong with what no argument of a command takes."""
    first = left[0]
    text = f"unrecognized arguments: {' '.join(left)}"
    if first.startswith("-"):
        guess = _nearest(first.partition("=")[0], _OPTION.findall(command.format_usage()))
        return f"{text}; did you mean {guess}?" if guess else text
    if "socket" in arguments and "file" not in arguments:
        return f"{text}; this asks a gateway that runs: `{command.prog} --config {first}` asks the one of that file"
    return text


def _nearest(word: str, known: Sequence[str] | Mapping[str, object]) -> str | None:
    """The known one that was most likely meant; first of all one with the same letters, some of which were swapped."""
    from rauta.routing.model import nearest

    swapped = [one for one in known if sorted(one) == sorted(word)]
    return swapped[0] if swapped else nearest(word, known)
