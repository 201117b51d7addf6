"""The token of the admin interface: read, checked, and never shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rauta.config import ConfigError, load
from rauta.config.secrets import MIN_TOKEN, SecretError, token_of
from rauta.routing.settings import Secret

TEXT = """\
version: 1
listeners: {web: {address: ":8080"}}
routes: [{name: r, respond: {}}]
admin:
  token:
    %s
"""
GOOD = "c2VjcmV0LXNlY3JldA=="

Check = Callable[[str], list[str]]


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """Load with a token: problems or warnings, one a line."""

    def check(token: str) -> list[str]:
        path = tmp_path / "rauta.yaml"
        path.write_text(TEXT % token)
        try:
            lines = [str(warning) for warning in load(path).warnings]
        except ConfigError as error:
            lines = str(error).splitlines()
        return [line.replace(f"{tmp_path}/", "") for line in lines]

    return check


def keep(path: Path, text: str, mode: int = 0o600) -> None:
    path.write_text(text)
    path.chmod(mode)


def test_a_good_token_in_a_file(check: Check, tmp_path: Path) -> None:
    keep(tmp_path / "token", GOOD + "\n")
    assert check("file: token") == []
    assert token_of(Secret(file=str(tmp_path / "token"))) == GOOD


def test_a_good_token_in_the_environment(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAUTA_TEST_TOKEN", GOOD)
    assert check("env: RAUTA_TEST_TOKEN") == []
    assert token_of(Secret(env="RAUTA_TEST_TOKEN")) == GOOD


def test_a_token_that_everybody_can_read(check: Check, tmp_path: Path) -> None:
    keep(tmp_path / "token", GOOD, 0o644)
    assert check("file: token") == [
        "rauta.yaml:6: admin.token.file: every user of this machine can read the token in 'token': chmod o-r"
    ]


@pytest.mark.parametrize("text", ["", "two words here 123", "a" * 16 + "\r\nX: y", "sécret-sécret-sécret"])
def test_what_is_no_token(text: str, check: Check, tmp_path: Path) -> None:
    keep(tmp_path / "token", text)
    (problem,) = check("file: token")
    assert problem.startswith("rauta.yaml:6: admin.token.file: 'token' holds no token: letters, digits and -._~+/ only")


def test_a_short_token(check: Check, tmp_path: Path) -> None:
    keep(tmp_path / "token", "a" * (MIN_TOKEN - 1))
    assert check("file: token") == [
        "rauta.yaml:6: admin.token.file: the token in 'token' has 15 characters: 16 are the least"
    ]


def test_a_token_that_is_not_there(check: Check) -> None:
    assert check("file: absent") == ["rauta.yaml:6: admin.token.file: there is no file 'absent'"]
    assert check("env: RAUTA_NO_SUCH") == [
        "rauta.yaml:6: admin.token.env: the environment variable 'RAUTA_NO_SUCH' is not set: it must hold the token"
    ]


def test_no_message_shows_the_token(tmp_path: Path) -> None:
    keep(tmp_path / "token", "hush hush")
    with pytest.raises(SecretError) as caught:
        token_of(Secret(file=str(tmp_path / "token")))
    assert "hush" not in str(caught.value)
