"""Finding and loading the configuration that a command is about."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from rauta.ctl.errors import ControlError

if TYPE_CHECKING:
    from rauta.config import Loaded
    from rauta.routing.model import Configuration
    from rauta.routing.table import Table

DEFAULT_FILES: Final = (Path("rauta.yaml"), Path("/etc/rauta/rauta.yaml"))


def configuration_file(named: str | None) -> Path:
    """The file that was named, or the first default that exists. Raises ControlError if there is none."""
    if named is not None:
        return Path(named)
    for path in DEFAULT_FILES:
        if is_there(path):
            return path
    here, system = DEFAULT_FILES
    raise ControlError(f"there is neither {here} here nor {system}: name the file by --config FILE")


def is_there(path: Path) -> bool:
    """Whether a file is there; also if it cannot be looked at, so that whoever opens it says why."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def load(named: str | None, *, thorough: bool = False) -> Loaded:
    """Load a configuration; if `thorough`, read its certificates and keys too, and look for what deserves a warning.

    Raises ControlError with the problems of the file, one a line.
    """
    from rauta import config

    try:
        return config.load(configuration_file(named), check_files=thorough, warn=thorough)
    except config.ConfigError as error:
        raise ControlError(str(error), problems=error.problems, more=error.more) from None


def table_of(configuration: Configuration) -> Table:
    """The routing table. Building it is what finds plugins that cannot be built. Raises ControlError."""
    from rauta.routing.errors import ModelError
    from rauta.routing.plugins import PluginError
    from rauta.routing.table import Table

    try:
        return Table(configuration)
    except (ModelError, PluginError) as error:
        raise ControlError(str(error)) from None
