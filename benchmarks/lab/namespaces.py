"""Hosts on one machine: network namespaces joined by veth pairs. Needs root; everything is removed at the end.

client 10.201.1.2  --- 10.201.1.1  gateway 10.201.2.1  --- 10.201.2.2  backend 1
                                           10.201.3.1  --- 10.201.3.2  backend 2
client 10.201.11.2 --- 10.201.11.1 kernel  10.201.12.1 --- 10.201.12.2 backend 1, the same
                                           10.201.13.1 --- 10.201.13.2 backend 2, the same

`kernel` is where rauta's kernel tiers are measured, so that nothing of them is on the way of the others.
"""

from __future__ import annotations

import os
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pyroute2 import netns

from rauta.offload.bcc import syscalls


@dataclass(frozen=True, slots=True, kw_only=True)
class Lab:
    """The names of the namespaces."""

    client: str
    gateway: str
    kernel: str
    backends: tuple[str, str]

    gateway_address = "10.201.1.1"
    kernel_address = "10.201.11.1"
    backend_addresses = ("10.201.2.2", "10.201.3.2")
    kernel_backends = ("10.201.12.2", "10.201.13.2")

    def command(self, namespace: str, *words: str) -> list[str]:
        """A command line that runs in a namespace."""
        # Not `ip netns exec`, which gives mounts of its own: rauta's pins would end with the process.
        return ["nsenter", f"--net=/run/netns/{namespace}", "--", *words]

    @contextmanager
    def lossy(self) -> Iterator[None]:
        """One of 100 packets that come to the client, and to the backends, is lost meanwhile."""
        links: list[int] = []
        try:
            for namespace in (self.client, *self.backends):
                netns.pushns(namespace)
                try:
                    program = syscalls.load_program(_LOSES, "loses")
                    found = [index for index, name in socket.if_nameindex() if name != "lo"]
                    links += [syscalls.attach(program, index) for index in found]
                    os.close(program)
                finally:
                    netns.popns()
            yield
        finally:
            for link in links:
                os.close(link)


# TC: bpf_get_prandom_u32() % 100 ? TC_ACT_OK : TC_ACT_SHOT.
_LOSES = b"".join(
    struct.pack("=BBhi", *instruction)
    for instruction in (
        (0x85, 0, 0, 7),
        (0x97, 0, 0, 100),
        (0x15, 0, 2, 0),
        (0xB7, 0, 0, 0),
        (0x95, 0, 0, 0),
        (0xB7, 0, 0, 2),
        (0x95, 0, 0, 0),
    )
)


def run(*words: str) -> None:
    """Run a command; its output is shown if it fails."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}")


_ROUTES = {"c": "10.201.1.1", "1": "10.201.2.1", "2": "10.201.3.1"}  # of hosts, by the end of their names


@contextmanager
def lab() -> Iterator[Lab]:
    """The namespaces, for as long as they are used."""
    tag = f"rb{os.getpid() % 10000}"
    names = Lab(client=f"{tag}-c", gateway=f"{tag}-g", kernel=f"{tag}-k", backends=(f"{tag}-1", f"{tag}-2"))
    everyone = (names.client, names.gateway, names.kernel, *names.backends)
    try:
        for name in everyone:
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        for first, gateway in ((1, names.gateway), (11, names.kernel)):
            for number, other in enumerate((names.client, *names.backends), start=first):
                _join(gateway, other, number)
            run("ip", "netns", "exec", gateway, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        for other in (names.client, *names.backends):
            run("ip", "-n", other, "route", "add", "default", "via", _ROUTES[other[-1]])
        for name in everyone:
            # A connection per request: without this the client runs out of ports after 28,000 of them. The kernel tiers
            # want ports of their own, beside those of the host.
            ports = "32768 60999" if name == names.kernel else "1024 65535"
            run("ip", "netns", "exec", name, "sysctl", "-qw", f"net.ipv4.ip_local_port_range={ports}")
            run("ip", "netns", "exec", name, "sysctl", "-qw", "net.ipv4.tcp_tw_reuse=1")
        yield names
    finally:
        for name in everyone:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def _join(gateway: str, other: str, number: int) -> None:
    near, far = f"v{number}g", f"v{number}o"
    run("ip", "link", "add", near, "netns", gateway, "type", "veth", "peer", "name", far, "netns", other)
    run("ip", "-n", gateway, "addr", "add", f"10.201.{number}.1/24", "dev", near)
    run("ip", "-n", other, "addr", "add", f"10.201.{number}.2/24", "dev", far)
    run("ip", "-n", gateway, "link", "set", near, "up")
    run("ip", "-n", other, "link", "set", far, "up")
