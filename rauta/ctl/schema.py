"""`rautactl schema`: the JSON Schema of the configuration file, for editors and other tools."""

from __future__ import annotations

from rauta.ctl.errors import EXIT_OK
from rauta.ctl.output import Output


def run(output: Output) -> int:
    """Always JSON; the schema as it is, without the frame of other documents, since editors read it."""
    from rauta.config.generate import json_schema

    output.raw_json(json_schema())
    return EXIT_OK
