"""Query conditions against the standard library's reading of a query."""

from __future__ import annotations

from urllib.parse import parse_qsl, quote, quote_plus

from hypothesis import given
from hypothesis import strategies as st

from rauta.routing.conditions import ParameterFits
from rauta.routing.model import ValueKind, ValueMatch
from rauta.routing.regexes import Budget
from rauta.routing.request import RequestView

NAMES = st.text("ab&=%+ \u00e9\u20ac.*(", min_size=1, max_size=3)
PAIRS = st.lists(st.tuples(NAMES, st.text("ab&=%+ \u00e9", max_size=3), st.integers(0, 3)), max_size=5)


def encoded(text: str, how: int) -> str:
    if how == 0:
        return quote_plus(text)
    if how == 1:
        return quote(text, safe="")
    digits = "".join(f"%{byte:02x}" for byte in text.encode())
    return digits if how == 2 else digits.upper()


@given(PAIRS, NAMES)
def test_the_first_of_a_name_counts_however_it_is_encoded(pairs: list[tuple[str, str, int]], name: str) -> None:
    query = "&".join(f"{encoded(field, how)}={encoded(value, how)}" for field, value, how in pairs)
    values = [value for field, value in parse_qsl(query, keep_blank_values=True) if field == name]
    request = RequestView(method="GET", host="", path="/", query=query)
    assert ParameterFits(ValueMatch(name, ValueKind.PRESENT)).holds(request, Budget()) == bool(values)
    if values:
        assert ParameterFits(ValueMatch(name, ValueKind.EXACT, values[0])).holds(request, Budget())
