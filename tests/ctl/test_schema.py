from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator, ValidationError


@pytest.mark.parametrize("arguments", [("schema",), ("schema", "--json")])
def test_the_schema_takes_the_example_and_refuses_a_mistake(
    rautactl: Callable[..., Any], example: Path, arguments: tuple[str, ...]
) -> None:
    ended = rautactl(*arguments)
    assert (ended.code, ended.err) == (0, "")
    schema = json.loads(ended.out)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    validator = Draft202012Validator(schema)
    content = yaml.safe_load(example.read_text())
    validator.validate(content)
    content["routes"][0]["mach"] = content["routes"][0].pop("match")
    with pytest.raises(ValidationError):
        validator.validate(content)
