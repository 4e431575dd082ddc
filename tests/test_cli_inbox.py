"""The inbox on the command line: what is stored, processing it, and taking it up again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from lifecycle import Lifecycle
from tests.test_cli import GUIDE, assert_error, invoke, settings_for
from tests.test_inbox import KEY, body, signed

if TYPE_CHECKING:
    from lifecycle.sandbox import Server


@pytest.fixture
def environ(server: Server, sqlite_url: str) -> dict[str, str]:
    """Give settings for the stand-in; one call about an appointment of the guide is stored."""
    content = body(GUIDE, update="cancelled")
    with Lifecycle(sqlite_url, webhook_keys=[KEY]) as lifecycle:
        lifecycle.receive_webhook(signed(content), content)
    return settings_for(server, sqlite_url)


def test_a_stored_call_is_listed_in_every_form(environ: dict[str, str]) -> None:
    """All fields for programs, and the state in words for people."""
    table = invoke("inbox", "list", **environ)
    assert table.exit_code == 0
    assert "received" in table.stdout
    assert GUIDE in table.stdout
    [row] = json.loads(invoke("inbox", "list", "--format", "json", **environ).stdout)
    assert (row["state"], row["update_type"], row["copies"]) == ("received", "cancelled", 1)
    assert json.loads(invoke("inbox", "list", "--state", "failed", "--format", "json", **environ).stdout) == []


def test_process_and_retry(environ: dict[str, str]) -> None:
    """Untracked first; taken up again with the option it is tracked."""
    result = invoke("inbox", "process", **environ)
    assert result.exit_code == 0
    assert "untracked 1" in result.stderr
    assert invoke("inbox", "retry", "--all-untracked", **environ).exit_code == 0
    result = invoke("inbox", "process", "--track-unknown", **environ)
    assert "followed 1" in result.stderr
    assert json.loads(invoke("show", GUIDE, "--format", "json", **environ).stdout)["status"] == "pending_booking"


def test_retry_needs_something_that_can_be_retried(environ: dict[str, str]) -> None:
    """Nothing named, no id at all, an unknown one, and one that still waits."""
    unnamed = invoke("inbox", "retry", **environ)
    assert unnamed.exit_code == 2
    assert "--all-failed" in unnamed.stderr
    assert_error(invoke("inbox", "retry", "no-id", **environ), 2, "64 hexadecimal digits")
    assert_error(invoke("inbox", "retry", "0" * 64, **environ), 4, "no delivery")
    [row] = json.loads(invoke("inbox", "list", "--format", "json", **environ).stdout)
    assert_error(invoke("inbox", "retry", row["delivery_id"], **environ), 4, "is received")
