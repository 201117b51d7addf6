"""docs/running.md says what the code does: flags, exit codes, fields of the access log, reasons."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from rauta.proxy.accesslog import MAX_TARGET, AccessLogWriter, Entry
from rauta.proxy.reasons import REASONS
from rauta.routing.defaults import DRAIN_TIMEOUT
from rauta.routing.settings import LogFormat
from rauta.runtime import errors

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "running.md").read_text()
ENTRY = Entry(client="192.0.2.7", status=400, listener="web", grpc_status="0", detail="why")


def table(title: str) -> list[list[str]]:
    """The rows of the first table of a section, without its head."""
    section = PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def logged(form: LogFormat) -> str:
    fd = os.memfd_create("log")
    try:
        log = AccessLogWriter(fd, form)
        log.write(ENTRY)
        log.close()
        return os.pread(fd, 1 << 16, 0).decode()
    finally:
        os.close(fd)


def test_reasons() -> None:
    rows = [(f"`{reason.name}`", str(reason.status), reason.text) for reason in REASONS.values()]
    assert [tuple(row) for row in table("Reasons")] == rows


def test_fields_of_the_json_form() -> None:
    assert sorted(row[1].strip("`") for row in table("Access log")) == sorted(json.loads(logged(LogFormat.JSON)))


def test_fields_of_the_common_form() -> None:
    named = [row[0].strip("`") for row in table("Access log") if re.fullmatch(r"`[a-z]+`", row[0])]
    assert named == re.findall(r" ([a-z]+)=", logged(LogFormat.COMMON))


def test_the_example_line_has_them_all() -> None:
    (example,) = re.findall(r"```text\n(.*)\n```", PAGE)
    shown = [*re.findall(r" ([a-z]+)=", example), "grpc", "detail"]
    assert shown == re.findall(r" ([a-z]+)=", logged(LogFormat.COMMON))


def test_limits() -> None:
    assert f" {MAX_TARGET}\n" in PAGE
    assert f" ({DRAIN_TIMEOUT:g} s at most)" in PAGE


def test_flags() -> None:
    command = [sys.executable, "-m", "rauta.proxy", "--help"]
    told = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    flags = re.findall(r"^  (-.*?)(?:  |$)", told, re.MULTILINE)
    assert [row[0].replace("`", "") for row in table("Flags")] == flags


def test_exit_codes() -> None:
    codes = [row[0] for row in table("Exit codes")]
    assert codes == [*map(str, (errors.EXIT_OK, errors.EXIT_FAILURE, errors.EXIT_CONFIGURATION)), "130"]
