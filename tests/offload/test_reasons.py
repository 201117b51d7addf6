"""The names of reasons are public: the document has all of them and no other."""

from __future__ import annotations

import re
from pathlib import Path

from rauta.offload import Passed, Reason, Refusal

DOCUMENT = Path(__file__).parents[2] / "docs" / "offload-plan.md"


def names_in(table: str) -> set[str]:
    """The code spans of the first column of the table under this heading row."""
    rows = DOCUMENT.read_text().split(table)[1].split("\n\n")[0].splitlines()[2:]
    return {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}


def test_the_document_has_the_reasons() -> None:
    assert names_in("| reason | concerns | because |") == {reason.value for reason in Reason}
    assert names_in("| passed as | when |") == {passed.value for passed in Passed}


def test_a_refusal_names_its_route() -> None:
    refusal = Refusal(route="users", reason=Reason.TLS, message="TLS is terminated by tier 3")
    assert str(refusal) == "route 'users': TLS is terminated by tier 3"
