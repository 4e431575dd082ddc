"""`lifecycle sync` and `lifecycle drift`: what they print, and how they end."""

from __future__ import annotations

import csv
import json
import os
import pty
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import fields
from typing import TYPE_CHECKING

import pytest

import lifecycle
from tests.support import arm
from tests.test_cli import assert_error, invoke, settings_for

if TYPE_CHECKING:
    from lifecycle.sandbox import Sandbox, Server

FIXTURES = 10


@pytest.fixture
def environ(server: Server, sqlite_url: str) -> dict[str, str]:
    """Give settings for the stand-in and an empty database."""
    return settings_for(server, sqlite_url)


def test_sync_prints_its_report(environ: dict[str, str]) -> None:
    """The record on stdout, a sentence and notes on stderr."""
    first = invoke("sync", "--format", "json", **environ)
    assert first.exit_code == 0
    report = json.loads(first.stdout)
    assert list(report) == [field.name for field in fields(lifecycle.SyncReport)]
    assert (report["tracked"], report["missed"], report["resumed"]) == (FIXTURES, FIXTURES, False)
    sentence, note = first.stderr.splitlines()
    assert sentence.startswith("10 rows, 10 tracked, 0 changed, 0 unchanged in ")
    assert note == "Note: 10 of them no webhook call had told of"
    [row] = csv.DictReader(invoke("sync", "--full", "--format", "csv", **environ).stdout.splitlines())
    assert (row["rows"], row["unchanged"]) == ("10", "10")
    assert "unchanged   10" in invoke("sync", **environ).stdout


def test_the_actor_is_a_job_unless_told(environ: dict[str, str], sandbox: Sandbox) -> None:
    """A sync is usually nobody's wish."""
    invoke("sync", **environ)
    sandbox.add("x-1")
    invoke("sync", "--actor", "user:1", **environ)
    with lifecycle.Lifecycle(environ["LIFECYCLE_DATABASE_URL"]) as it:
        actors = [it.history(each)[0].actor for each in ("2b29f79b-6d7f-472a-9603-d0c378bc9531", "x-1")]
    assert actors == ["job:sync", "user:1"]


def test_a_failed_sync_is_a_remote_failure(environ: dict[str, str], sandbox: Sandbox) -> None:
    """One line with the reason and Zocdoc's request id; rows that could not be read end it so, too."""
    arm(sandbox, kind="answer", status=400, operation="list")
    assert_error(invoke("sync", **environ), 5, "bad_request", "HTTP 400", "Zocdoc request id")
    sandbox.add("odd-1", status="\n")
    result = invoke("sync", **environ)
    assert result.exit_code == 5
    assert "Note: 1 were not readable and are left out" in result.stderr


def test_sync_needs_settings_of_zocdoc(sqlite_url: str) -> None:
    """And a machine-to-machine credential."""
    assert_error(invoke("sync", LIFECYCLE_DATABASE_URL=sqlite_url), 2, "LIFECYCLE_ZOCDOC_ENVIRONMENT")


def test_watch_survives_failures(environ: dict[str, str], sandbox: Sandbox) -> None:
    """It goes on when Zocdoc fails, says what it found, and stops with Ctrl-C."""
    command = [sys.executable, "-m", "lifecycle", "sync", "--watch", "0.1", "--format", "jsonl"]
    base = {name: value for name, value in os.environ.items() if not name.startswith("LIFECYCLE_")}
    child = subprocess.Popen(  # noqa: S603 # our own program
        command, env=base | environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    watchdog = threading.Timer(60, child.kill)
    watchdog.start()
    assert child.stdout is not None
    assert child.stderr is not None
    assert json.loads(child.stdout.readline())["tracked"] == FIXTURES
    arm(sandbox, kind="answer", status=400, operation="list")
    lines = iter(child.stderr.readline, "")
    assert any("bad_request" in line and "trying again in 0.1 s" in line for line in lines)
    sandbox.add("new-1")
    assert json.loads(child.stdout.readline())["tracked"] == 1
    child.send_signal(signal.SIGINT)
    child.communicate()
    watchdog.cancel()
    assert child.returncode == 130


def test_a_bar_is_shown_on_a_terminal_only(environ: dict[str, str]) -> None:
    """In a pipe stderr has words and nothing else."""
    ours, theirs = pty.openpty()
    base = {name: value for name, value in os.environ.items() if not name.startswith("LIFECYCLE_")}
    child = subprocess.Popen(
        [sys.executable, "-m", "lifecycle", "sync", "--format", "json"],
        env=base | environ | {"TERM": "xterm"},
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    with suppress(OSError):  # the other end is closed
        while True:  # a terminal holds a few kilobytes, and whoever writes more waits for a reader
            shown += os.read(ours, 65536)
    os.close(ours)
    done, _ = child.communicate(timeout=60)
    assert (child.returncode, json.loads(done)["tracked"]) == (0, FIXTURES)
    assert b"reading the list" in shown
    assert "\x1b" not in invoke("sync", **environ).stderr


def test_drift_ends_with_7_if_there_is_any(environ: dict[str, str], sandbox: Sandbox) -> None:
    """Nothing: 0 and the form's own nothing."""
    invoke("sync", **environ)
    none = invoke("drift", "--format", "json", **environ)
    assert (none.exit_code, none.stdout) == (0, "[]\n")
    moved = "21990114-ea71-4d7d-9d1e-00c43ae44bcd"
    sandbox.change(moved, status="confirmed")
    invoke("sync", **environ)
    found = invoke("drift", "--format", "jsonl", **environ)
    assert found.exit_code == 7
    rows = [json.loads(line) for line in found.stdout.splitlines()]
    assert [(row["kind"], row["appointment_id"]) for row in rows] == [
        ("not_conforming", moved),
        ("found_by_sync", moved),
    ]
    assert list(rows[0]) == [field.name for field in fields(lifecycle.Drift)]
    table = invoke("drift", **environ)
    assert table.exit_code == 7
    assert "no_webhook" in table.stdout
    assert invoke("drift", "--since", "2100-01-01T00:00:00Z", **environ).exit_code == 0
    assert invoke("drift", "--since", "2100-01-01", "--time-zone", "America/New_York", **environ).exit_code == 0
    assert_error(invoke("drift", "--since", "yesterday", **environ), 2, "--since: use ISO 8601")
    assert_error(invoke("drift", "--since", "2026-01-01", "--time-zone", "Mars", **environ), 2, "--time-zone: ")
