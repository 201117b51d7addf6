"""The command line of rautactl. Each command's module is imported when that command runs: start-up counts."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from rauta.ctl import errors
from rauta.ctl.errors import ControlError
from rauta.ctl.output import Output
from rauta.ctl.usage import Parser

if TYPE_CHECKING:
    from rauta.ctl.client import AdminSocket

_DESCRIPTION: Final = "Look at a configuration of rauta without running it, or at a gateway that runs."
_FILES: Final = "./rauta.yaml, then /etc/rauta/rauta.yaml"
_SOCKETS: Final = "RAUTA_SOCKET, then /run/rauta/admin.sock, then that of ./rauta.yaml or /etc/rauta/rauta.yaml"
_EXITS: Final = """\
exit codes:
  0  done; check: the file is good; explain: a route claims the request, or its connection goes through
  1  failed at run time: the output cannot be written, no gateway answers
  2  a bad configuration or command line; check --strict: a warning; reload: the new file is not served
  3  explain: no route claims the request, and its connection does not go through
"""

Command = Callable[[argparse.Namespace, Output], int]


def _file(arguments: argparse.Namespace) -> str | None:
    """Of a command that takes it both ways. Raises ControlError for two."""
    if None not in (arguments.file, arguments.config):
        raise ControlError(f"there are two files, {arguments.file} and --config {arguments.config}: name one")
    named: str | None = arguments.file if arguments.config is None else arguments.config
    return named


def _check(arguments: argparse.Namespace, output: Output) -> int:
    from rauta.ctl import check

    return check.run(output, file=_file(arguments), strict=arguments.strict)


def _schema(arguments: argparse.Namespace, output: Output) -> int:
    from rauta.ctl import schema

    del arguments
    return schema.run(output)


def _explain(arguments: argparse.Namespace, output: Output) -> int:
    from rauta.ctl import explain
    from rauta.ctl.probe import Probe

    probe = Probe.parse(
        arguments.method, arguments.url, arguments.header, client=arguments.client, listener=arguments.listener
    )
    return explain.run(output, file=arguments.config, probe=probe, everything=arguments.all)


def _routes(arguments: argparse.Namespace, output: Output) -> int:
    from rauta.ctl import routes

    return routes.run(output, file=_file(arguments))


def _plugins(arguments: argparse.Namespace, output: Output) -> int:
    from rauta.ctl import plugins

    del arguments
    return plugins.run(output)


@contextmanager
def _gateway(arguments: argparse.Namespace) -> Iterator[AdminSocket]:
    """The one that is asked. What is not understood of its answers is told in words: it may be anybody's socket."""
    from rauta.ctl.client import admin_socket

    socket = admin_socket(arguments.socket, arguments.config, os.environ)
    try:
        yield socket
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise socket.not_understood(error) from error


def _act(name: str) -> Command:
    def command(arguments: argparse.Namespace, output: Output) -> int:
        from rauta.ctl import live

        with _gateway(arguments) as socket:
            return live.command(output, socket=socket, name=name)

    return command


def _show(name: str) -> Command:
    def command(arguments: argparse.Namespace, output: Output) -> int:
        from rauta.ctl import live

        shows = {"status": live.status, "services": live.services, "stats": live.stats, "dump": live.dump}
        with _gateway(arguments) as socket:
            return shows[name](output, socket=socket)

    return command


def _offload(arguments: argparse.Namespace, output: Output) -> int:
    from rauta.ctl import flows, live, offload

    if arguments.action == "flows":
        return flows.run(output)
    with _gateway(arguments) as socket:
        if arguments.action == "detach":
            return live.command(output, socket=socket, name="offload/detach")
        return offload.run(output, socket=socket)


def _certs(arguments: argparse.Namespace, output: Output) -> int:
    from rauta.ctl import certs

    if arguments.file is None:
        with _gateway(arguments) as socket:
            return certs.served(output, socket=socket)
    if arguments.socket is not None or arguments.config is not None:
        raise ControlError("FILE asks no gateway, and --socket and --config are for asking one: give FILE, or these")
    return certs.held(output, file=arguments.file)


def _top(arguments: argparse.Namespace, output: Output) -> int:
    from rauta.ctl import top

    with _gateway(arguments) as socket:
        return top.run(output, socket=socket, once=arguments.once)


def _version() -> str:
    import rauta

    return f"rautactl {rauta.__version__}"


class _Version(argparse.Action):
    """Looked up only when asked for: reading package metadata takes as long as everything else here."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        sys.stdout.write(_version() + "\n")  # parser.exit would write it to stderr
        parser.exit()


def parser() -> Parser:
    """The whole command line."""
    top = Parser(
        prog="rautactl",
        description=_DESCRIPTION,
        epilog=_EXITS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    top.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    top.example = "rautactl check rauta.yaml; `rautactl --help` lists the commands"
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    top.commands = commands.choices

    def add(name: str, command: Command, text: str) -> Parser:
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", allow_abbrev=False)
        sub.set_defaults(command=command)
        sub.add_argument("--json", action="store_true", help="write one JSON document (docs/rautactl.md)")
        return sub

    def add_file(sub: Parser) -> None:
        sub.add_argument("file", metavar="FILE", nargs="?", help=f"default: {_FILES}")
        sub.add_argument("--config", metavar="FILE", help="the same, as with other commands")

    check = add("check", _check, "say whether a configuration file is good, and if not, where and why")
    add_file(check)
    check.add_argument("--strict", action="store_true", help="a warning is an error (exit code 2)")

    add("schema", _schema, "print the JSON Schema of the configuration file, for editors")

    explain = add("explain", _explain, "say what happens to a request: route, tier, service, backend, and why")
    explain.example = "rautactl explain GET https://www.example.com/users -H 'X-Canary: yes'"
    explain.add_argument("method", metavar="METHOD")
    explain.add_argument("url", metavar="URL", help="http://host:port/path, or a path")
    explain.add_argument(
        "-H", "--header", metavar="'NAME: VALUE'", action="append", default=[], help="a header field; may be repeated"
    )
    explain.add_argument("--client", metavar="ADDR[:PORT]", help="the client's address; default: 127.0.0.1:0")
    explain.add_argument("--config", metavar="FILE", help=f"default: {_FILES}")
    explain.add_argument("--listener", metavar="NAME", help="default: by the URL's scheme and port")
    explain.add_argument("--all", action="store_true", help="list every rule of the host, also those of other paths")

    add_file(add("routes", _routes, "list the routes with their tiers, and why they are in no lower one"))

    add("plugins", _plugins, "list the matchers, balancers and offloads that are installed")

    running = {
        "status": (_show("status"), "say what runs: version, generation, workers, the last reload"),
        "services": (_show("services"), "list the backends of a running gateway, with their health"),
        "stats": (_show("stats"), "count the requests of a running gateway by route and service"),
        "certs": (
            _certs,
            "list a running gateway's certificates, to clients and to backends: names, key, dates, what is wrong",
        ),
        "offload": (_offload, "say what the kernel does: interfaces, maps, hits, misses and why, hand-overs, drops"),
        "top": (_top, "show the rates of requests by route and tier, as they are now"),
        "dump": (_show("dump"), "print the configuration that a running gateway serves"),
        "reload": (
            _act("reload"),
            "let a running gateway read its file again: all of it is served, or nothing",
        ),
        "reopen": (_act("reopen"), "let a running gateway open its access log again, after it was renamed"),
        "drain": (_act("drain"), "let a running gateway finish what is in flight, and stop"),
    }
    added = {name: add(name, command, text) for name, (command, text) in running.items()}
    for sub in added.values():
        sub.add_argument("--socket", metavar="PATH", help=f"the gateway's admin socket; default: {_SOCKETS}")
        sub.add_argument("--config", metavar="FILE", help="take the socket from the gateway's file")
    text = (
        "flows: list the connections that the kernel has, from its maps (as root, in the gateway's network namespace); "
        "detach: take the kernel programs away, tier 3 serves all until the next reload"
    )
    added["offload"].add_argument("action", nargs="?", choices=("flows", "detach"), help=text)
    text = "list what this configuration's files hold now, and ask no gateway"
    added["certs"].add_argument("file", metavar="FILE", nargs="?", help=text)
    added["top"].add_argument("--once", action="store_true", help="one interval of a second, then end; so does --json")
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run rautactl; the return value is its exit code (see `errors`)."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a locale without a character must not end in a traceback
    try:
        code = _run(argv)
        sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()
        return errors.EXIT_BROKEN_PIPE
    except KeyboardInterrupt:
        return errors.EXIT_INTERRUPTED
    except OSError as error:  # of the output: commands turn those of files into ControlError
        _discard_output()
        _complain(f"cannot write the output: {error.strerror or error}")
        return errors.EXIT_FAILURE
    return code


def _run(argv: Sequence[str] | None) -> int:
    try:
        arguments = parser().read(sys.argv[1:] if argv is None else argv)
    except SystemExit as end:  # argparse has said what is wrong, or printed the help
        return end.code if isinstance(end.code, int) else errors.EXIT_OK
    output = Output(sys.stdout, os.environ, json=arguments.json)
    command: Command = arguments.command
    try:
        return command(arguments, output)
    except ControlError as error:
        if output.json:
            from rauta.ctl.describe import failure_document

            output.document(failure_document(error))
        else:
            _complain(str(error))
        return error.code


def _complain(message: str) -> None:
    from rauta.ctl.tables import printable

    for line in message.splitlines():
        sys.stderr.write(f"rautactl: {printable(line)}\n")


def _discard_output() -> None:
    """What is still buffered cannot be written; without this the interpreter would complain when it exits."""
    sink = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, sys.stdout.fileno())
    finally:
        os.close(sink)


if __name__ == "__main__":
    sys.exit(main())
