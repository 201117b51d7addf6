"""`rautactl check`: whether a configuration file is good, and if not, where and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rauta.ctl import files
from rauta.ctl.describe import problem_document
from rauta.ctl.errors import EXIT_OK, EXIT_USAGE, ControlError
from rauta.ctl.output import Output
from rauta.ctl.tables import Style

if TYPE_CHECKING:
    from rauta.config import Loaded


def run(output: Output, *, file: str | None, strict: bool) -> int:
    """Everything that can be known without starting: the file, what it names, and that plugins can be built."""
    path = files.configuration_file(file)
    try:
        loaded = files.load(str(path), thorough=True)
        files.table_of(loaded.configuration).close()
    except ControlError as error:
        if not output.json:
            raise
        problems = [problem_document(problem) for problem in error.problems]
        if not problems:
            problems = [_whole(str(path), str(error))]
        output.document({"file": str(path), "good": False, "problems": problems, "more_problems": error.more})
        return error.code
    good = not (strict and loaded.warnings)
    if output.json:
        output.document(_document(str(path), loaded, good))
    else:
        _tell(output, str(path), loaded, good)
    return EXIT_OK if good else EXIT_USAGE


def _whole(file: str, message: str) -> dict[str, Any]:
    return {"severity": "error", "file": file, "line": None, "column": None, "key": "", "message": message}


def _counts(loaded: Loaded) -> dict[str, int]:
    configuration = loaded.configuration
    return {
        "listeners": len(configuration.listeners),
        "services": len(configuration.services),
        "routes": len(configuration.routes),
    }


def _document(file: str, loaded: Loaded, good: bool) -> dict[str, Any]:
    return {
        "file": file,
        "good": good,
        "files": [str(path) for path in loaded.files],
        "counts": _counts(loaded),
        "problems": [problem_document(warning, "warning") for warning in loaded.warnings],
        "more_problems": 0,
    }


def _tell(output: Output, file: str, loaded: Loaded, good: bool) -> None:
    for warning in loaded.warnings:
        output.line(f"warning: {warning}", Style.WARN)
    parts = [_plural(count, name.removesuffix("s")) for name, count in _counts(loaded).items()]
    if len(loaded.files) > 1:
        parts.append(_plural(len(loaded.files), "file"))
    if loaded.warnings:
        parts.append(_plural(len(loaded.warnings), "warning"))
    verdict = "good" if good else "refused: --strict allows no warnings"
    output.line(f"{file}: {verdict} ({', '.join(parts)})", Style.GOOD if good else Style.BAD)


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
