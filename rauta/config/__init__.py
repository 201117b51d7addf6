"""The file format: YAML to `rauta.routing.model.Configuration`, with problems as `file:line: key: message`."""

from rauta.config.errors import ConfigError, ConfigProblem
from rauta.config.loading import Loaded, load

__all__ = ["ConfigError", "ConfigProblem", "Loaded", "load"]
