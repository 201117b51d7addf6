"""The command line of the gateway: `python -m rauta.proxy`, installed also as `rauta`."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rauta.routing.errors import ModelError
from rauta.routing.settings import Address
from rauta.runtime.errors import EXIT_OK, StartError
from rauta.runtime.log import EventLog

if TYPE_CHECKING:
    from rauta.config import Loaded
    from rauta.routing.model import Configuration
    from rauta.routing.services import BackendTls
    from rauta.runtime.start import Source

_EPILOG: Final = """\
examples:
  python -m rauta.proxy --config rauta.yaml
  python -m rauta.proxy --listen :8080 --to http://127.0.0.1:9000
  python -m rauta.proxy --listen :8443 --self-signed --to http://127.0.0.1:9000
  python -m rauta.proxy --listen :8080 --to https://users.internal --ca backends-ca.pem

signals: SIGTERM or SIGINT stops when the requests in flight are done; a second one stops at once.
         SIGHUP reads the file again, SIGUSR1 opens the access log again,
         SIGUSR2 starts what is installed now, which takes over.
exit codes: 0 success, 1 failure at run time, 2 bad configuration or usage."""


class UsageError(StartError):
    """The command line does not say what to do; told with the usage, exit code 2."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the gateway; the exit code. Every expected failure is told on stderr, without a traceback."""
    parser = _parser()
    arguments, left = parser.parse_known_args(argv)
    if left:
        parser.error(f"unrecognized arguments: {' '.join(left)}{_meant(left)}")
    events = EventLog()
    try:
        source = _source(arguments, events)
        from rauta.runtime import start  # asyncio, which a wrong file does not need

        if arguments.check:
            events.text(f"rauta: {start.check(source)}")
            return EXIT_OK
        identity = None
        if arguments.user is not None:
            from rauta.runtime.privileges import identity_of

            identity = identity_of(arguments.user)
        return start.run(source, events, identity, takeover=arguments.takeover, watch=arguments.watch)
    except UsageError as error:
        parser.error(str(error))
    except StartError as error:
        events.text(f"rauta: {error}")
        return error.code
    except KeyboardInterrupt:
        return 130  # before there was a loop to take the signal: as shells report it


def _meant(left: Sequence[str]) -> str:
    """What somebody probably wants that wrote these words, which are no arguments."""
    word = next((word for word in left if not word.startswith("-")), None)
    if word is None or word != left[0]:
        return ""
    if "." in word or "/" in word:
        return f"; a configuration file is named by --config {word}"
    return f"; this starts a gateway, by --config FILE, and commands are those of rautactl: `rautactl {' '.join(left)}`"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rauta",
        description="An HTTP gateway whose plain routes the Linux kernel is to serve.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", metavar="FILE", help="the configuration file")
    parser.add_argument("--listen", metavar="ADDRESS", help="without a file: where to listen, HOST:PORT or :PORT")
    parser.add_argument(
        "--to", metavar="URL", help="without a file: the backend, http://HOST[:PORT] or https://HOST[:PORT]"
    )
    parser.add_argument(
        "--ca", metavar="FILE", help="with --to https://...: who signs its certificate (default: the system's CAs)"
    )
    parser.add_argument(
        "--self-signed",
        metavar="DIR",
        nargs="?",
        const="",
        help="without a file: serve HTTPS with a certificate made for it, kept in DIR or in memory only",
    )
    parser.add_argument("--workers", metavar="N", type=int, help="worker processes (default: one per CPU)")
    parser.add_argument("--user", metavar="USER[:GROUP]", help="run workers and agent as this user (needs root)")
    parser.add_argument("--watch", action="store_true", help="reload when the configuration's files change")
    parser.add_argument("--takeover", action="store_true", help="take the sockets of the gateway that runs; it ends")
    parser.add_argument("--check", action="store_true", help="only check the configuration")
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    return parser


class _Version(argparse.Action):
    """Looks the version up only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        import platform

        import rauta
        from rauta.runtime.about import compiled

        build = f"Python {platform.python_version()}, {platform.system()}{', compiled' if compiled() else ''}"
        sys.stdout.write(f"rauta {rauta.__version__} ({build})\n")
        parser.exit(EXIT_OK)


# --- configuration ------------------------------------------------------------------------------------------


def _source(arguments: argparse.Namespace, events: EventLog) -> Source:
    if arguments.config is not None:
        if arguments.listen is not None or arguments.to is not None:
            raise UsageError("--config and --listen/--to exclude each other")
        if arguments.self_signed is not None:
            raise UsageError(
                "--self-signed needs --listen: in a file, a listener has certificates in its `tls` section"
            )
        if arguments.ca is not None:
            raise UsageError("--ca needs --to https://HOST: in a file, a service has `ca` in its `tls` section")
        source = _from_file(arguments.config, arguments.workers, events)
    elif arguments.listen is None or arguments.to is None:
        raise UsageError("give --config FILE, or --listen ADDRESS and --to URL")
    elif arguments.watch:
        raise UsageError("--watch needs --config FILE: there is no file to watch")
    else:
        source = _from_addresses(arguments.listen, arguments.to, arguments.ca)
        if arguments.self_signed is not None:
            source = _secured(source, arguments.self_signed if not arguments.check else "", arguments.workers)
    return dataclasses.replace(source, configuration=_with_workers(source.configuration, arguments.workers))


def _with_workers(configuration: Configuration, workers: int | None) -> Configuration:
    """The command line overrides the file, also after a reload."""
    if workers is None:
        return configuration
    try:
        return dataclasses.replace(configuration, workers=workers)
    except ModelError as error:
        raise StartError(f"--{error}") from None


def _from_file(path: str, workers: int | None, events: EventLog) -> Source:
    from rauta.config import ConfigError, load
    from rauta.runtime.start import Source
    from rauta.runtime.watched import Watched

    watched = Watched(files=(Path(path),))
    warnings: list[str] = []

    def read() -> Loaded:
        nonlocal warnings, watched
        try:
            loaded = load(path)
        except ConfigError as error:
            watched = watched.and_files(problem.file for problem in error.problems)
            raise StartError(str(error)) from None
        watched = Watched.of(loaded)
        warnings = [*map(str, loaded.warnings)]
        for warning in loaded.warnings:
            events.warning("config_warning", str(warning), file=str(warning.file), line=warning.line, key=warning.key)
        return loaded

    loaded = read()
    return Source(
        configuration=loaded.configuration,
        name=path,
        files=loaded.files,
        load=lambda: _with_workers(read().configuration, workers),
        warnings=lambda: warnings,
        watched=lambda: watched,
    )


def _from_addresses(listen: str, to: str, ca: str | None) -> Source:
    from rauta.routing.model import (
        Configuration,
        Forward,
        Route,
        WeightedService,
    )
    from rauta.routing.services import Backend, Service
    from rauta.routing.settings import Listener
    from rauta.runtime.start import Source

    try:
        listener = Listener(name="http", address=Address.parse(listen, any_host="0.0.0.0"))
    except ModelError as error:
        raise StartError(f"--listen: {error}") from None
    secure, address = _backend(to)
    service = Service(name="backend", backends=(Backend(address=address),), tls=_towards(ca, secure=secure))
    route = Route(name="all", action=Forward(services=(WeightedService(name=service.name),)))
    configuration = Configuration(listeners=(listener,), services=(service,), routes=(route,))
    return Source(configuration=configuration, name=f"everything to {to}")


def _towards(ca: str | None, *, secure: bool) -> BackendTls | None:
    """TLS towards the backend, if any."""
    if not secure:
        if ca is not None:
            raise UsageError("--ca needs --to https://HOST")
        return None
    from rauta.routing.services import BackendTls

    if ca is not None:
        from rauta.config.certificates import check_authorities
        from rauta.config.secrets import SecretError

        ca = str(Path(ca).absolute())
        try:
            check_authorities(ca)
        except SecretError as error:
            raise StartError(f"--ca: {error.message}") from None
    return BackendTls(ca=ca)


def _secured(source: Source, folder: str, workers: int | None) -> Source:
    """The same over TLS, with a certificate of its own; it is in memory only if there is no folder. One in a folder is
    looked at again by a reload, and has reloads when it is to be renewed."""
    from rauta.routing.settings import TlsSettings
    from rauta.runtime.selfsigned import kept, made, names_for, renew

    (listener,) = source.configuration.listeners
    names = names_for(listener.address)
    own = kept(Path(folder), names) if folder else made(names)
    secure = dataclasses.replace(listener, name="https", tls=TlsSettings(certificates=(own.setting(),)))
    configuration = dataclasses.replace(source.configuration, listeners=(secure,))
    secured = dataclasses.replace(source, configuration=configuration, self_signed=own)
    if not folder:
        return secured
    whole = _with_workers(configuration, workers)

    def load() -> Configuration:
        kept(Path(folder), names)
        return whole

    return dataclasses.replace(secured, load=load, watch=partial(renew, Path(folder), names, own.pair))


def _backend(url: str) -> tuple[bool, Address]:
    """Whether it is spoken to by TLS, and where it is."""
    from urllib.parse import urlsplit

    scheme, separator, _ = url.partition("://")
    if not separator:
        raise StartError(f"--to: {url!r} is not a URL: write http://HOST:PORT, for example http://127.0.0.1:9000")
    secure = scheme.lower() == "https"
    if not secure and scheme.lower() != "http":
        raise StartError(f"--to: {scheme!r} is not supported: write http://HOST:PORT or https://HOST:PORT")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or (443 if secure else 80)
    except ValueError as error:
        raise StartError(f"--to: {url!r}: {error}") from None
    if parts.path not in ("", "/") or parts.query or parts.fragment or parts.username is not None:
        raise StartError(f"--to: {url!r} has more than host and port: paths are rewritten by routes, in a file")
    try:
        return secure, Address(host, port)
    except ModelError as error:
        raise StartError(f"--to: {url!r}: {error}") from None
