"""TLS, HTTP/2 and gRPC: rauta beside nginx, HAProxy, Envoy, Caddy, and hypercorn with aiohttp's client.

    sudo ./scripts/benchmark.sh protocols [--rounds 5] [--seconds 2] [--only CASE,...] [--peers NAME,...] [--out FILE]
    ./scripts/benchmark.sh protocols --print FILE

As `throughput`: the same namespaces, backends, two workers for every gateway, interleaved rounds. A certificate with an
ECDSA key on P-256, TLS 1.3 (asked of each gateway before, and of each run by h2load). New TLS connections resume no
session (`lab/first_visits.c`; looked at before). Gateways speak HTTP/1.1 to the backends, and HTTP/2 to those of gRPC,
which are nghttpd, with trailers. `direct` is the backend by the client's protocol.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lab.download import SIZE, measure_download
from lab.load import GRPC_FRAME, Case, measure
from lab.namespaces import Lab, lab
from lab.peers import GRPC_PREFIX, HYPERCORN, PEERS, PLAIN_H2, PRIOR_KNOWLEDGE, TLS, Doors, Peer
from lab.report import Goal, Limit, downloads, goals, grouped, tables
from throughput import running, start, wait_for

GRPC_PORT = 90
GRPC_PATH = f"{GRPC_PREFIX}/Unary.grpc"  # the ending tells nghttpd the media type

KEPT = Case(name="TLS, 30 B, 32 connections", path="/small", connections=32, tls=True)
NEW = Case(name="TLS, a new connection per request, 32 at a time", path="/small", connections=32, tls=True, close=True)
OVER_TLS = Case(name="HTTP/2 over TLS, 30 B, 8 x 16", path="/small", connections=8, tls=True, streams=16)
PRIOR = Case(name="HTTP/2 without TLS, 30 B, 8 x 16", path="/small", connections=8, streams=16)
GRPC = Case(name="gRPC, unary, 8 x 16", path=GRPC_PATH, connections=8, streams=16, grpc=True)
CASES = (KEPT, NEW, OVER_TLS, PRIOR, GRPC)
DOWNLOADS = {"download of 1 GiB, HTTP/2 over TLS": True, "download of 1 GiB, HTTP/2 without TLS": False}

GOALS: tuple[Goal | Limit, ...] = (
    Goal(KEPT.name, "envoy", 1.0),
    Goal(NEW.name, "envoy", 0.7),
    Goal(OVER_TLS.name, "hypercorn", 3.0, " with plain h2", of="rauta-h2"),
    Goal(OVER_TLS.name, "envoy", 0.5, " with ngh2"),
    Goal(PRIOR.name, "hypercorn", 3.0, " with plain h2", of="rauta-h2"),
    Goal(PRIOR.name, "envoy", 0.5, " with ngh2"),
    Goal(GRPC.name, "envoy", 0.4),
    *(Limit(name, "p99", 50, "ms", "p99 of 100 small requests/s") for name in DOWNLOADS),
    *(Limit(name, "memory", 64, "MiB", "memory more") for name in DOWNLOADS),
)
# hypercorn is there for HTTP/2 towards clients; aiohttp's client has none towards backends. Downloads compare with the
# best alone.
WITHOUT = {KEPT.name: {"hypercorn", "rauta-h2"}, NEW.name: {"hypercorn", "rauta-h2"}, GRPC.name: {"hypercorn"}}
WITHOUT |= {name: {"hypercorn", "rauta-h2"} for name in DOWNLOADS}

Targets = dict[str, tuple[str, int | None]]


def certificate(home: Path) -> Doors:
    """A certificate for the lab's hosts, with an ECDSA key on P-256, and its key."""
    made = Doors(certificate=home / "cert.pem", key=home / "key.pem")
    names = ",".join(
        [
            "DNS:bench.test",
            *(f"IP:{host}" for host in (Lab.gateway_address, Lab.kernel_address, *Lab.backend_addresses)),
        ]
    )
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"]
    words += ["-subj", "/CN=bench.test", "-addext", f"subjectAltName={names}"]
    subprocess.run([*words, "-out", str(made.certificate), "-keyout", str(made.key)], check=True, capture_output=True)
    made.key.chmod(0o644)  # gateways read it as whom they run as
    return made


def first_visits(home: Path) -> str:
    """The environment of a client that resumes no TLS session."""
    library = home / "first_visits.so"
    source = Path(__file__).parent / "lab" / "first_visits.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", str(library), str(source)], check=True)
    return f"LD_PRELOAD={library}"


def grpc_backends(place: Lab, stack: ExitStack, home: Path) -> tuple[str, ...]:
    """Two nghttpd that answer every call with one frame and trailers."""
    answer = home / "grpc" / GRPC_PATH[1:]
    answer.parent.mkdir(parents=True)
    answer.write_bytes(GRPC_FRAME)
    types = home / "grpc.types"
    types.write_text("application/grpc grpc\n")
    found = []
    for namespace, address in zip(place.backends, place.backend_addresses, strict=True):
        words = ["nghttpd", "--no-tls", "-d", str(home / "grpc"), "--trailer", "grpc-status: 0"]
        words += [f"--mime-types-file={types}", "-a", address, str(GRPC_PORT)]
        stack.enter_context(running(place.command(namespace, *words), "nghttpd"))
        found.append(f"{address}:{GRPC_PORT}")
        wait_for(place, f"http://{found[-1]}{GRPC_PATH}", "nghttpd", "--http2-prior-knowledge")
    return tuple(found)


def target_of(targets: Targets, peer: str, case: Case) -> str:
    """Where a peer's door for a case is."""
    host, _, port = targets[peer][0].partition(":")
    if peer == "direct" and case.grpc:
        return f"{host}:{GRPC_PORT}"
    return f"{host}:{int(port) + (TLS if case.tls else PRIOR_KNOWLEDGE)}"


def check(place: Lab, targets: Targets, home: Path, environment: str) -> None:
    """That all speak TLS 1.3 with the ECDSA key and HTTP/2, and that new connections resume nothing."""
    for name in targets:
        secure, prior = target_of(targets, name, OVER_TLS), target_of(targets, name, PRIOR)
        wait_for(place, f"https://{secure}/small", name, "-k")
        wait_for(place, f"http://{prior}/small", name, "--http2-prior-knowledge")
        words = ["openssl", "s_client", "-connect", secure, "-alpn", "h2"]
        command = place.command(place.client, *words)
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=20)
        said = done.stdout.decode("latin-1")  # with the first frames
        wanted = ("New, TLSv1.3", "Peer signature type: ECDSA", "ALPN protocol: h2", "Server public key is 256 bit")
        if missing := [text for text in wanted if text not in said]:
            raise SystemExit(f"{name} does not speak as the others: no {missing} in\n{said}")
    seen = home / "b1" / "handshakes"
    probe = Case(name="handshakes", path="/handshakes", connections=4, tls=True, close=True)
    measure(place, probe, "direct", target_of(targets, "direct", probe), None, 1, (environment,))
    kinds = set(seen.read_text().splitlines())
    if kinds != {"TLSv1.3 ."}:
        raise SystemExit(f"wrk's new connections are not what they should be: {kinds} (r: resumed)")


def measure_all(arguments: argparse.Namespace, peers: list[Peer], cases: list[str]) -> list[dict[str, Any]]:
    """All rounds, interleaved."""
    rounds: list[dict[str, Any]] = []

    def keep(number: int, done: dict[str, Any]) -> None:
        rounds.append({"round": number, **done})
        told = ", ".join(f"{key} {value:,}" for key, value in done.items() if not isinstance(value, str))
        print(f"{done['case']:50} {number} {done['peer']:9} {told}", file=sys.stderr)

    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rauta-bench-")))
        home.chmod(0o755)
        place = stack.enter_context(lab())
        doors, environment = certificate(home), first_visits(home)
        if GRPC.name in cases:
            grpc = grpc_backends(place, stack, home)
            doors = Doors(certificate=doors.certificate, key=doors.key, grpc=grpc)
        targets = start(place, stack, home, peers, doors=doors)
        for name in ("b1", "b2"):
            with (home / name / "gib").open("wb") as file:
                file.truncate(SIZE)
        check(place, targets, home, environment)
        for name in cases:
            present = [peer for peer in targets if peer not in WITHOUT.get(name, ())]
            for number in range(arguments.rounds):
                for peer in present:
                    pid = targets[peer][1]
                    if name in DOWNLOADS:
                        door = target_of(targets, peer, OVER_TLS if DOWNLOADS[name] else PRIOR)
                        fetched = measure_download(place, name, peer, door, pid, tls=DOWNLOADS[name])
                        keep(number, fetched.as_json())
                        continue
                    case = next(case for case in CASES if case.name == name)
                    settings = (environment,) if case is NEW else ()
                    door = target_of(targets, peer, case)
                    keep(number, measure(place, case, peer, door, pid, arguments.seconds, settings).as_json())
    return rounds


def report(rounds: list[dict[str, Any]]) -> str:
    """Goals and tables."""
    small = [item for item in rounds if item["case"] not in DOWNLOADS]
    large = [item for item in rounds if item["case"] in DOWNLOADS]
    parts = [goals(grouped(rounds), GOALS), tables(grouped(small)), downloads(grouped(large))]
    return "\n".join(part for part in parts if part)


def main() -> None:
    """Measure and print, or print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--only", metavar="CASES", help="cases whose name contains one of these, separated by commas")
    parser.add_argument("--peers", metavar="NAMES", help="only these, separated by commas")
    parser.add_argument("--out", metavar="FILE", help="where the raw rounds go")
    parser.add_argument("--print", metavar="FILE", help="measure nothing, print the tables of a file")
    arguments = parser.parse_args()
    if arguments.print:
        print(report(json.loads(Path(arguments.print).read_text())["rounds"]))
        return
    if os.geteuid():
        parser.error("network namespaces need root")
    peers = [peer for peer in (*PEERS, PLAIN_H2, HYPERCORN) if peer.name not in ("aiohttp", "pure")]
    if arguments.peers:
        peers = [peer for peer in peers if peer.name in arguments.peers.split(",")]
    wanted = arguments.only.split(",") if arguments.only else [""]
    names = [case.name for case in CASES] + list(DOWNLOADS)
    cases = [name for name in names if any(part in name for part in wanted)]
    own = [peer.name for peer in peers if peer.name not in ("rauta", "rauta-h2", "hypercorn")]
    for program in ("wrk", "h2load", "nghttpd", "openssl", "cc", "curl", "nginx", *own):
        if shutil.which(program) is None:
            parser.error(f"{program} is not installed: ./scripts/benchmark.sh installs what is needed")
    rounds = measure_all(arguments, peers, cases)
    machine = {"kernel": platform.release(), "python": platform.python_version(), "cpus": os.cpu_count()}
    if arguments.out:
        Path(arguments.out).write_text(json.dumps({"machine": machine, "rounds": rounds}, indent=0) + "\n")
    print(report(rounds))


if __name__ == "__main__":
    main()
