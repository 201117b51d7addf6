"""docs/protocols.md, "Everything over HTTPS": the example is served, and curl meets what its table says."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.process import PATIENCE, Backend, free_port, gateway
from support.tls import make_pair

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "protocols.md").read_text()
SECTION = PAGE.partition("\n## Everything over HTTPS\n")[2].partition("\n## ")[0]
HSTS = "max-age=31536000"
DOWN = ", and the backend is down"


def rows() -> list[tuple[str, bool, list[str], bool]]:
    """URL, whether the backend is down, what is answered, whether there is HSTS."""
    lines = [line.strip("| ").split(" | ") for line in SECTION.splitlines() if line.startswith("| `")]
    return [
        (cells[0].removesuffix(DOWN).strip("`"), cells[0].endswith(DOWN), re.findall("`([^`]+)`", cells[1]), hsts)
        for cells in lines
        for hsts in [{"yes": True, "no": False}[cells[2]]]
    ]


class Site:
    """The page's example, on ports of this machine."""

    def __init__(self, folder: Path, backend: Backend) -> None:
        self.folder = folder
        self.ports = {"8080": free_port(), "8443": free_port(), "9001": backend.port, "9080": backend.port}
        self.pair = make_pair(folder, "example.com", names="DNS:example.com")

    def write(self, *, down: bool = False) -> Path:
        """The file; with `down` nothing listens where the app should be."""
        (text,) = re.findall(r"```yaml\n(.*?)```", SECTION, re.DOTALL)
        ports = self.ports | ({"9001": free_port()} if down else {})
        path = self.folder / "rauta.yaml"
        path.write_text(
            self.here(text, ports).replace("0.0.0.0", "127.0.0.1") + "workers: 1\naccess_log: {to: 'off'}\n"
        )
        return path

    def here(self, text: str, ports: dict[str, int] | None = None) -> str:
        """With ports of this machine."""
        return re.sub(
            "(?<=:)([0-9]{4})|(?<=port: )([0-9]{4})", lambda found: str((ports or self.ports)[found[0]]), text
        )

    def curl(self, url: str, *words: str) -> str:
        """Head and body, the certificate verified."""
        resolve = [
            word for port in ("8080", "8443") for word in ("--resolve", f"example.com:{self.ports[port]}:127.0.0.1")
        ]
        command = [
            "curl",
            "-sS",
            "-i",
            "--max-time",
            "30",
            "--http1.1",
            "--cacert",
            str(self.pair.cert),
            *resolve,
            *words,
        ]
        done = subprocess.run([*command, url], capture_output=True, text=True, check=True, timeout=PATIENCE)
        return done.stdout


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    backend = Backend()
    try:
        yield Site(tmp_path, backend)
    finally:
        backend.close()


@pytest.mark.parametrize("down", [False, True])
def test_the_table(site: Site, down: bool) -> None:
    assert [url for url, *_ in rows()].count("https://example.com:8443/app") == 2
    with gateway("--config", str(site.write(down=down))):
        for url, wants_down, (status, *location), hsts in rows():
            if wants_down is not down and "/app" in url and url.startswith("https:"):
                continue
            head, _, _ = site.curl(site.here(url)).partition("\n\n")
            fields = [line.split(": ", 1) for line in head.splitlines()[1:] if line]
            assert head.split()[1] == status, (url, head)
            assert [value for name, value in fields if name == "Location"] == [site.here(one) for one in location]
            assert [value for name, value in fields if name == "Strict-Transport-Security"] == [HSTS] * hsts, (
                url,
                head,
            )


def test_a_client_that_follows_arrives_with_its_method(site: Site) -> None:
    with gateway("--config", str(site.write())):
        answer = site.curl(site.here("http://example.com:8080/app/x?a=b"), "-L")
        assert re.findall(r"^HTTP/1.1 ([0-9]+)", answer, re.MULTILINE) == ["308", "200"]
        assert answer.endswith("/app/x?a=b")


def test_a_client_that_knows_hsts_goes_there_by_itself(site: Site) -> None:
    """curl keeps what it was told in a file, as browsers do, and then sends nothing over plain HTTP."""
    memory = site.folder / "hsts"
    with gateway("--config", str(site.write())):
        site.curl(site.here("https://example.com:8443/app"), "--hsts", str(memory))
        assert "example.com" in memory.read_text()
        answer = site.curl(f"http://example.com:{site.ports['8443']}/app", "--hsts", str(memory))
        assert answer.startswith("HTTP/1.1 200 ")


def test_where_no_route_claims_there_is_no_hsts(site: Site) -> None:
    """The page says so; the route `nothing` is there for it."""
    path = site.write()
    path.write_text("".join(line for line in path.read_text().splitlines(keepends=True) if "name: nothing" not in line))
    with gateway("--config", str(path)):
        answer = site.curl(site.here("https://example.com:8443/other"))
        assert answer.startswith("HTTP/1.1 404 ")
        assert HSTS not in answer
