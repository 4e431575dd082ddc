"""Settings come from the environment; contradictions are named, secrets are not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lifecycle import settings
from lifecycle.quota import Quota
from lifecycle.settings import SettingsError, ZocdocSettings
from lifecycle.zocdoc import environments

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "s3cr3t-value"
PLACE = {"LIFECYCLE_ZOCDOC_ENVIRONMENT": "sandbox"}
PAIR = {"LIFECYCLE_ZOCDOC_CLIENT_ID": "id", "LIFECYCLE_ZOCDOC_CLIENT_SECRET": SECRET}
TOKEN = {"LIFECYCLE_ZOCDOC_ACCESS_TOKEN": SECRET}
USER = {"LIFECYCLE_ZOCDOC_IDENTITY": "user:7"}
BASE_URL = {"LIFECYCLE_ZOCDOC_BASE_URL": "http://127.0.0.1:1"}


def test_who_dispatches() -> None:
    """This process unless told otherwise; there are two ways."""
    assert settings.dispatch({}) == settings.dispatch({"LIFECYCLE_DISPATCH": ""}) == "inline"
    assert settings.dispatch({"LIFECYCLE_DISPATCH": "procrastinate"}) == "procrastinate"
    with pytest.raises(SettingsError, match="LIFECYCLE_DISPATCH is neither"):
        settings.dispatch({"LIFECYCLE_DISPATCH": "celery"})


def test_nothing_set_is_the_default_database_and_no_zocdoc() -> None:
    """An empty environment is a file in the current folder and no client; an empty variable counts as not set."""
    assert (
        settings.database_url({})
        == settings.database_url({"LIFECYCLE_DATABASE_URL": ""})
        == "sqlite:///appointments.db"
    )
    assert settings.zocdoc({}) is None
    assert settings.zocdoc({"LIFECYCLE_ZOCDOC_CLIENT_ID": "", "LIFECYCLE_ZOCDOC_IDENTITY": "machine"}) is None


def test_credentials_of_an_environment() -> None:
    """An environment and a client id with its secret are enough."""
    expected = ZocdocSettings(environment="sandbox", client_id="id", client_secret=SECRET)
    assert settings.zocdoc(PLACE | PAIR) == expected


def test_a_users_token_at_an_address() -> None:
    """A user's credential is an access token."""
    expected = ZocdocSettings(base_url="http://127.0.0.1:1", access_token=SECRET, identity="user:7")
    assert settings.zocdoc(BASE_URL | TOKEN | USER) == expected


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        (PAIR, "set LIFECYCLE_ZOCDOC_ENVIRONMENT"),
        (PLACE, "set LIFECYCLE_ZOCDOC_CLIENT_ID and LIFECYCLE_ZOCDOC_CLIENT_SECRET"),
        (PAIR | {"LIFECYCLE_ZOCDOC_ENVIRONMENT": "staging"}, "neither sandbox nor production"),
        (PLACE | BASE_URL | PAIR, "LIFECYCLE_ZOCDOC_ENVIRONMENT and LIFECYCLE_ZOCDOC_BASE_URL contradict"),
        (PLACE | PAIR | {"LIFECYCLE_ZOCDOC_AUDIENCE": "x"}, "LIFECYCLE_ZOCDOC_AUDIENCE contradict"),
        (PLACE | PAIR | TOKEN, "not both"),
        (PLACE | {"LIFECYCLE_ZOCDOC_CLIENT_ID": "id"}, "without LIFECYCLE_ZOCDOC_CLIENT_SECRET"),
        (PLACE | {"LIFECYCLE_ZOCDOC_CLIENT_SECRET": SECRET}, "without LIFECYCLE_ZOCDOC_CLIENT_ID"),
        (BASE_URL | PAIR, "set LIFECYCLE_ZOCDOC_TOKEN_URL"),
        (PLACE | PAIR | USER, "set that user's LIFECYCLE_ZOCDOC_ACCESS_TOKEN"),
        (PLACE | TOKEN | {"LIFECYCLE_ZOCDOC_IDENTITY": "user:"}, "LIFECYCLE_ZOCDOC_IDENTITY must be"),
    ],
)
def test_a_contradiction_or_a_missing_half_is_one_line_without_the_secret(environ: dict[str, str], wanted: str) -> None:
    """The text says what to set and never shows a secret."""
    with pytest.raises(SettingsError) as caught:
        settings.zocdoc(environ)
    assert wanted in str(caught.value)
    assert "\n" not in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("name", ["LIFECYCLE_ZOCDOC_CLIENT_SECRET", "LIFECYCLE_ZOCDOC_ACCESS_TOKEN"])
def test_a_secret_may_come_from_a_file_without_its_last_newline(tmp_path: Path, name: str) -> None:
    """Files are how containers hand secrets over; editors end them with a newline."""
    (tmp_path / "secret").write_text(f"{SECRET}\n", encoding="utf-8")
    pair = {"LIFECYCLE_ZOCDOC_CLIENT_ID": "id"} if name.endswith("SECRET") else {}
    found = settings.zocdoc(PLACE | pair | {f"{name}_FILE": str(tmp_path / "secret")})
    assert found is not None
    assert SECRET in (found.client_secret, found.access_token)


def test_the_database_url_may_come_from_a_file(tmp_path: Path) -> None:
    """It may hold a password."""
    (tmp_path / "url").write_text("postgresql://a:b@h/n\r\n", encoding="utf-8")
    assert settings.database_url({"LIFECYCLE_DATABASE_URL_FILE": str(tmp_path / "url")}) == "postgresql://a:b@h/n"


@pytest.mark.parametrize(
    ("content", "wanted"), [(None, "cannot be read"), (b"\n", "is empty"), (b"\xff", "not a text in UTF-8")]
)
def test_an_unusable_file_is_named(tmp_path: Path, content: bytes | None, wanted: str) -> None:
    """A missing, empty or binary file is an error that names variable and path."""
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match=wanted) as caught:
        settings.database_url({"LIFECYCLE_DATABASE_URL_FILE": str(path)})
    assert f"LIFECYCLE_DATABASE_URL_FILE names {path}" in str(caught.value)


def test_a_value_and_a_file_contradict_each_other(tmp_path: Path) -> None:
    """Nobody should have to guess which one wins."""
    environ = {"LIFECYCLE_DATABASE_URL": "sqlite:///a.db", "LIFECYCLE_DATABASE_URL_FILE": str(tmp_path / "url")}
    with pytest.raises(SettingsError, match="both set"):
        settings.database_url(environ)


def test_secrets_are_hidden_from_repr() -> None:
    """Settings end up in logs."""
    assert SECRET not in repr(settings.zocdoc(PLACE | PAIR))
    assert SECRET not in repr(settings.zocdoc(PLACE | TOKEN))


def test_the_environments_are_the_clients() -> None:
    """The list here repeats the client's, because the two do not know each other."""
    assert set(settings.ENVIRONMENTS) == set(environments.ENVIRONMENTS)


KEYS = "YQ==,Yg==, YWJj "


def test_webhook_keys_are_a_list(tmp_path: Path) -> None:
    """Several while they are rotated; a file may hold one a line; nothing set is no key."""
    assert settings.webhook_keys({}) == settings.webhook_keys({"LIFECYCLE_WEBHOOK_KEYS": ""}) == ()
    assert settings.webhook_keys({"LIFECYCLE_WEBHOOK_KEYS": KEYS}) == ("YQ==", "Yg==", "YWJj")
    (tmp_path / "keys").write_text("YQ==\nYg==\n", encoding="utf-8")
    assert settings.webhook_keys({"LIFECYCLE_WEBHOOK_KEYS_FILE": str(tmp_path / "keys")}) == ("YQ==", "Yg==")
    # Zocdoc's own example sets bits that no byte needs.
    example = "g9Y9hjTUk9KKH7ffBRbtRmJYo2OISsdMK4flbfDa3zR="
    assert settings.webhook_keys({"LIFECYCLE_WEBHOOK_KEYS": example}) == (example,)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [(",", "key 1 of 2 is empty"), ("YQ==,", "key 2 of 2 is empty"), ("YQ==,s3cr3t!", "key 2 of 2 is not base64")],
)
def test_an_unusable_webhook_key_is_named_by_its_number(given: str, wanted: str) -> None:
    """The text says which one, never what it is."""
    with pytest.raises(SettingsError, match=wanted) as caught:
        settings.webhook_keys({"LIFECYCLE_WEBHOOK_KEYS": given})
    assert "s3cr3t" not in str(caught.value)


def test_the_pages_token_is_long_and_may_come_from_a_file(tmp_path: Path) -> None:
    """At least 32 visible characters; a wrong one is named by its variable, not by its value."""
    file = tmp_path / "token"
    file.write_text("a" * 32 + "\n", encoding="utf-8")
    assert settings.page_token({}) is None
    assert settings.page_token({"LIFECYCLE_PAGE_TOKEN": ""}) is None
    assert settings.page_token({"LIFECYCLE_PAGE_TOKEN": "a" * 512}) == "a" * 512
    assert settings.page_token({"LIFECYCLE_PAGE_TOKEN_FILE": str(file)}) == "a" * 32
    for wrong in (SECRET, "a" * 513, f"{SECRET} " * 5, f"{SECRET}\xe9" * 5):
        with pytest.raises(SettingsError, match="LIFECYCLE_PAGE_TOKEN needs 32 to 512") as raised:
            settings.page_token({"LIFECYCLE_PAGE_TOKEN": wrong})
        assert SECRET not in str(raised.value)


def test_a_rate_is_read_or_there_is_none() -> None:
    """Not set means: no limit of ours. A wrong one is named with what to write."""
    assert settings.rate({}) is settings.rate({"LIFECYCLE_ZOCDOC_RATE": ""}) is None
    assert settings.rate({"LIFECYCLE_ZOCDOC_RATE": "20/s"}) == Quota(20, 1_000)
    with pytest.raises(SettingsError, match=r"LIFECYCLE_ZOCDOC_RATE cannot be read.*20/s"):
        settings.rate({"LIFECYCLE_ZOCDOC_RATE": "20 a second"})
