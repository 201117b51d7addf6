"""Numbers for names, kept for a successor, and whose the programs are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rauta.offload.bcc.identities import Known, is_elsewhere, this_process

OTHER = """
import sys
from pathlib import Path
from rauta.offload.bcc.identities import Known
Known(Path(sys.argv[1])).save()
print("saved", flush=True)
sys.stdin.read()
"""


def test_a_successor_has_the_same_numbers(tmp_path: Path) -> None:
    file = tmp_path / "known.json"
    known = Known(file)
    assert [known.routes.of(name) for name in ("a", "b", "a")] == [1, 2, 1]
    known.save()
    assert file.stat().st_mode & 0o777 == 0o600
    found = Known.load(file)
    assert found.routes.names() == {1: "a", 2: "b"}
    assert [found.routes.of("c"), found.services.of("a")] == [3, 1]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"listeners": {"a": 2}, "routes": {}, "services": {}}'])
def test_what_was_not_written_here_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "known.json").write_text(text)
    with pytest.raises(ValueError, match=r"known\.json|Expecting"):
        Known.load(tmp_path / "known.json")


def test_the_owner_is_the_last_that_saved_as_long_as_it_lives(tmp_path: Path) -> None:
    file = tmp_path / "known.json"
    assert not is_elsewhere(file)
    Known(file).save()
    assert not is_elsewhere(file)
    with subprocess.Popen(
        [sys.executable, "-c", OTHER, file], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "saved\n"
        assert is_elsewhere(file)
        other.communicate()
    assert not is_elsewhere(file)


def test_a_number_that_another_process_has_got_owns_nothing(tmp_path: Path) -> None:
    file = tmp_path / "known.json"
    Known(file).save()
    document = json.loads(file.read_text())
    assert document["owner"] == this_process()
    document["owner"] = f"{os.getppid()} 1"  # it lives, but did not start then
    file.write_text(json.dumps(document))
    assert not is_elsewhere(file)
