"""The README's promises, run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import lifecycle as package
from lifecycle import Lifecycle, ZocdocClient, errors
from lifecycle.audit import Event
from tests.conftest import machine_client

if TYPE_CHECKING:
    import pytest

    from lifecycle.sandbox import Server

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
GUIDE = "d04b049a-41b1-4aba-9268-d8973cf72cdd"


def blocks(language: str) -> list[str]:
    """Give the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)


def test_python_block_runs(sqlite_url: str, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's example runs word for word, but for where Zocdoc and the database are."""
    monkeypatch.setattr(ZocdocClient, "for_environment", lambda _name, **_credentials: machine_client(server))
    (code,) = blocks("python")
    exec(compile(code.replace("sqlite:///appointments.db", sqlite_url), "README.md", "exec"), {})  # noqa: S102 # ours
    with Lifecycle(sqlite_url) as reader:
        assert [event.event for event in reader.history(GUIDE)] == [
            "appointment_tracked",
            "command_accepted",
            "command_applied",
            "command_accepted",
            "command_applied",
        ]


def test_every_error_is_listed() -> None:
    """Every error that can be raised stands in the table of errors, with the exit code of its kind."""
    listed = set(re.findall(r"^\| `(\w+)` \| .* \| \d \|$", README, flags=re.MULTILINE))
    public = {name for name in package.__all__ if isinstance(getattr(package, name), type)}
    raised = {name for name in public if issubclass(getattr(package, name), errors.LifecycleError)}
    assert listed == raised - {"LifecycleError"}


def test_every_event_is_listed() -> None:
    """Every word that the trail uses stands in the README."""
    assert [event for event in Event if f"`{event}`" not in README] == []
