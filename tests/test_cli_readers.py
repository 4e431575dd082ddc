"""Readers on the command line: four forms, whole ids, no formulas, no markup, quiet pipes."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from dataclasses import fields
from typing import TYPE_CHECKING

import pytest

import lifecycle
from lifecycle import diagram
from tests.test_cli import GUIDE, assert_error, invoke, settings_for

if TYPE_CHECKING:
    from lifecycle.sandbox import Sandbox, Server

ODD = '=HYPERLINK("http://x")|[red]lo'


@pytest.fixture
def environ(sandbox: Sandbox, server: Server, sqlite_url: str) -> dict[str, str | None]:
    """Two appointments: the guide's, and one whose texts want to be more than text. No settings of Zocdoc remain."""
    found = settings_for(server, sqlite_url)
    sandbox.add("b-1", status="confirmed", start_time="2099-01-02T09:00:00-05:00", provider_location_id=ODD)
    for appointment_id in (GUIDE, "b-1"):
        assert invoke("track", appointment_id, "--actor", "user:[b]é", **found).exit_code == 0
    return {"LIFECYCLE_DATABASE_URL": sqlite_url}


def test_show_as_json_has_every_field_and_utc(environ: dict[str, str | None]) -> None:
    """Instants are UTC in one fixed form, whatever offset they came with."""
    shown = json.loads(invoke("show", "b-1", "--format", "json", **environ).stdout)
    assert list(shown) == [field.name for field in fields(lifecycle.Appointment)]
    assert shown["start_time"] == "2099-01-02T14:00:00.000000Z"
    assert (shown["status"], shown["in_doubt"], shown["arrived_at"]) == ("confirmed", False, None)


def test_list_in_each_form(environ: dict[str, str | None]) -> None:
    """The same rows in the same order; JSON lines and CSV have one a line."""
    forms = {form: invoke("list", "--format", form, **environ).stdout for form in ("json", "jsonl", "csv", "table")}
    expected = ["b-1", GUIDE]
    assert [row["appointment_id"] for row in json.loads(forms["json"])] == expected
    assert [json.loads(line)["appointment_id"] for line in forms["jsonl"].splitlines()] == expected
    assert [row["appointment_id"] for row in csv.DictReader(forms["csv"].splitlines())] == expected
    assert [line.split()[0] for line in forms["table"].splitlines()[1:]] == expected


def test_list_filters(environ: dict[str, str | None]) -> None:
    """By status and by doubt; a status that does not exist is pointed out."""
    confirmed = invoke("list", "--status", "confirmed", "--format", "jsonl", **environ)
    assert [json.loads(line)["appointment_id"] for line in confirmed.stdout.splitlines()] == ["b-1"]
    assert invoke("list", "--in-doubt", "--format", "json", **environ).stdout == "[]\n"
    assert len(invoke("list", "--not-in-doubt", "--format", "jsonl", **environ).stdout.splitlines()) == 2
    typo = invoke("list", "--status", "confirmd", "--format", "csv", **environ)
    assert len(typo.stdout.splitlines()) == 1
    assert "confirmd is none of Zocdoc's statuses" in typo.stderr


def test_a_spreadsheet_runs_nothing(environ: dict[str, str | None]) -> None:
    """A text cell that begins like a formula gets an apostrophe; other forms keep it as it is."""
    (row,) = csv.DictReader(invoke("show", "b-1", "--format", "csv", **environ).stdout.splitlines())
    assert row["provider_location_id"] == f"'{ODD}"
    assert (row["in_doubt"], row["arrived_at"]) == ("false", "")
    assert json.loads(invoke("show", "b-1", "--format", "json", **environ).stdout)["provider_location_id"] == ODD


def test_a_table_interprets_no_data(environ: dict[str, str | None]) -> None:
    """Brackets are not markup."""
    assert ODD in invoke("show", "b-1", **environ).stdout
    assert "user:[b]é" in invoke("history", GUIDE, **environ).stdout


def test_a_piped_table_cuts_nothing_off(environ: dict[str, str | None]) -> None:
    """Every row is one line with the whole id, however narrow the terminal says it is."""
    printed = invoke("list", COLUMNS="20", **environ).stdout
    assert GUIDE in printed
    assert "…" not in printed
    assert len(printed.splitlines()) == 3


def test_history_is_complete(environ: dict[str, str | None]) -> None:
    """All columns of the audit trail in JSON and CSV; `details` as JSON."""
    (event,) = json.loads(invoke("history", GUIDE, "--format", "json", **environ).stdout)
    (row,) = csv.DictReader(invoke("history", GUIDE, "--format", "csv", **environ).stdout.splitlines())
    assert list(event) == list(row) == [field.name for field in fields(lifecycle.AuditEvent)]
    assert json.loads(row["details"]) == event["details"]


def test_explain_tells_each_check(server: Server, environ: dict[str, str | None]) -> None:
    """The names of this command line are understood; without a credential a note tells that it was not judged."""
    alone = invoke("explain", "b-1", "no-show", "--format", "json", **environ)
    codes = {row["check"]: row["code"] for row in json.loads(alone.stdout)}
    assert codes["no_show_window"] == "no_show_before_start"
    assert codes["credential"] is None
    assert "Note: without the settings of Zocdoc" in alone.stderr
    full = settings_for(server, environ["LIFECYCLE_DATABASE_URL"] or "")
    assert invoke("explain", GUIDE, "confirm", **full).stderr == "confirm would pass\n"
    naive = invoke("explain", GUIDE, "reschedule", "--start-time", "2027-01-01T09:00:00", **full)
    assert naive.stderr == "reschedule would be refused: start_time_without_offset\n"
    assert_error(invoke("explain", GUIDE, "book", **full), 2, "use one of confirm, cancel")


@pytest.mark.parametrize("command", ["show", "history", "explain"])
def test_an_unknown_appointment_is_not_found(environ: dict[str, str | None], command: str) -> None:
    """Exit 4; an id that cannot be one is usage."""
    more = ("confirm",) if command == "explain" else ()
    assert_error(invoke(command, "nobody", *more, **environ), 4, "track it first")
    assert_error(invoke(command, "../x", *more, **environ), 2, "ID: ")


@pytest.mark.parametrize("kind", diagram.KINDS)
def test_diagram_prints_the_text(kind: str) -> None:
    """On stdout, as it goes into documents."""
    assert invoke("diagram", "--kind", kind).stdout == diagram.KINDS[kind]()


@pytest.mark.parametrize("form", ["jsonl", "table"])
def test_a_closed_pipe_is_quiet(environ: dict[str, str | None], form: str) -> None:
    """Whoever reads only the first line wants no complaint about the others."""
    reading, writing = os.pipe()
    os.close(reading)
    variables = {name: value for name, value in (os.environ | environ).items() if value is not None}
    command = [sys.executable, "-m", "lifecycle", "list", "--format", form]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, env=variables, check=False)  # noqa: S603 # fixed
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")
