"""Plugins: found by name, and their settings decoded by their own types."""

# ruff: noqa: E501 - tables of messages read better with one a line

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from rauta.config import Loaded
from rauta.config.plugins import settings_type

pytestmark = pytest.mark.usefixtures("plugins")

HEAD = "version: 1\nlisteners: {web: {address: ':8080'}}\nservices:\n  s:\n    backends: [{address: 'a:1'}]\n"
MATCH = HEAD + "routes:\n- name: r\n  service: s\n  match:\n    plugins:\n    - "


@pytest.mark.parametrize(
    ("balancer", "problem"),
    [
        ("maglve", "6: services.s.balancer: there is no balancer 'maglve'; did you mean 'maglev'?"),
        ("zzz", "6: services.s.balancer: there is no balancer 'zzz'; known: absent, least_requests, maglev, random_two, round_robin, sample"),
        ("12", "6: services.s.balancer: expected a balancer object, not the integer 12"),
        ("{name: zzz}", "6: services.s.balancer.name: there is no balancer 'zzz'; known: absent, least_requests, maglev, random_two, round_robin, sample"),
        ("{name: maglev, settings: {}}", "6: services.s.balancer.settings: 'maglev' takes no settings: remove the key"),
        ("{name: maglev, key: addres}", "6: services.s.balancer.key: 'addres' is not one of address_port, address; did you mean 'address'?"),
        ("sample", "6: services.s.balancer: the key 'cookie' is missing in a settings object"),
        ("{name: sample}", "6: services.s.balancer.name: the key 'cookie' is missing in a settings object"),
        ("{name: sample, settings: {cookie: 1}}", '6: services.s.balancer.settings.cookie: expected text, not the integer 1: write "1" in quotes if text is meant'),
        ("{name: sample, settings: {cookie: a, ration: 1}}", "6: services.s.balancer.settings.ration: unknown key; did you mean 'ratio'?"),
        ("\n      name: sample\n      settings:\n        cookie: a\n        ratio: 2", "8: services.s.balancer.settings: ratio 2.0 is out of range: 0 to 1"),
        ("\n      name: sample\n      settings:\n        cookie: a\n        nested:\n          dept: 2", "11: services.s.balancer.settings.nested.dept: unknown key; did you mean 'depth'?"),
        ("{name: sample, settings: {cookie: a, tags: [a, 1]}}", '6: services.s.balancer.settings.tags[1]: expected text, not the integer 1: write "1" in quotes if text is meant'),
        ("{name: sample, settings: {cookie: a, mode: slwo}}", "6: services.s.balancer.settings.mode: 'slwo' is not one of fast, slow; did you mean 'slow'?"),
        ("absent", "6: services.s.balancer: plugin 'absent' (no_such_module_anywhere:Class) cannot be imported: ModuleNotFoundError(\"No module named 'no_such_module_anywhere'\")"),
    ],
)  # fmt: skip
def test_wrong_balancers(balancer: str, problem: str, bad: Callable[[str], list[str]]) -> None:
    assert bad(f"{HEAD}    balancer: {balancer}\n") == [f"rauta.yaml:{problem}"]


@pytest.mark.parametrize(
    ("plugin", "problem"),
    [
        ("sample", "[0]: expected a matcher object, not the text 'sample'"),
        ("{name: sampel}", "[0].name: there is no matcher 'sampel'; did you mean 'sample'?"),
        ("{name: plain, settings: {a: 1}}", "[0].settings: 'plain' takes no settings: remove the key"),
        ("{name: raising}", "[0].name: the plugin refuses these settings: RuntimeError('out of order')"),
        ("{name: endless}", "[0].name: plugin 'endless': Endless contains itself"),
        ("{name: unreadable}", "[0].name: plugin 'unreadable': Unreadable.callback has the type dict[str, int] | list[int], which a file cannot hold"),
    ],
)  # fmt: skip
def test_wrong_matchers(plugin: str, problem: str, bad: Callable[[str], list[str]]) -> None:
    assert bad(MATCH + plugin) == [f"rauta.yaml:11: routes[0].match.plugins{problem}"]


def test_settings_default_where_the_class_says_so(good: Callable[[str], Loaded]) -> None:
    matchers = good(MATCH + "{name: sample}").configuration.routes[0].matches[0].plugins
    assert [(matcher.name, matcher.settings.level) for matcher in matchers] == [("sample", 3)]


def test_keys_of_a_plugin_can_be_shown() -> None:
    import sample_plugins

    declared = settings_type(sample_plugins.BalancerSettings)
    assert [field.key for field in declared.fields] == ["cookie", "ratio", "nested", "tags", "mode", "optional", "on"]
    assert declared.fields[0].doc == "The cookie's name."
    assert declared.required == ("cookie",)
    properties: dict[str, Any] = {}
    assert declared.schema(properties) == {"$ref": "#/$defs/settings"}
    assert properties["settings"]["properties"]["optional"]["anyOf"] == [{"type": "integer"}, {"type": "null"}]
