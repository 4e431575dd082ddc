"""`lifecycle audit`, `history` and `as-of`: filters, pages, time zones, and a story that people can read."""

from __future__ import annotations

import csv
import json
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

import lifecycle
from lifecycle import Lifecycle, audit, chart, settlement
from lifecycle.cli import filtering, timeline
from lifecycle.reports import instants, telling
from tests import support
from tests.conftest import FAST
from tests.test_cli import assert_error, invoke

if TYPE_CHECKING:
    from lifecycle import AuditEvent, ZocdocClient
    from lifecycle.sandbox import Sandbox

ID = "story-1"
WORDS = 'user:[b]"; DROP TABLE x'


@pytest.fixture
def events(sandbox: Sandbox, client: ZocdocClient, sqlite_url: str) -> list[AuditEvent]:
    """One appointment: tracked, confirmed, refused, lost and recovered, cancelled by the provider."""
    sandbox.add(ID, status="pending_booking", provider_location_id="pr_1|lo_1")
    with Lifecycle(sqlite_url, zocdoc=client, timing=FAST) as it:
        it.track(ID, actor=WORDS)
        it.confirm(ID, actor="user:1")
        with pytest.raises(lifecycle.TransitionRefused):
            it.confirm(ID, actor="user:2")
        support.lose_answer(sandbox, "reschedule", when="after")
        with pytest.raises(lifecycle.OutcomeUnknown):
            support.send(it, "reschedule", ID)
        support.until(lambda: it.recover().settled)
        sandbox.change(ID, status="cancelled")
        it.sync()
        sandbox.add("other-1")
        it.track("other-1", actor="user:1")
        return list(it.audit())


@pytest.fixture
def environ(events: list[AuditEvent], sqlite_url: str) -> dict[str, str]:
    """Settings for the database with that story; no settings of Zocdoc."""
    assert events
    return {"LIFECYCLE_DATABASE_URL": sqlite_url}


def seqs(printed: str) -> list[int]:
    """Read JSON lines."""
    return [json.loads(line)["seq"] for line in printed.splitlines()]


def test_audit_prints_what_the_library_gives(environ: dict[str, str], events: list[AuditEvent]) -> None:
    """Newest first, in each form, with every column; nothing on stderr when that is all."""
    forms = {form: invoke("audit", "--format", form, **environ) for form in ("json", "jsonl", "csv", "table")}
    expected = [each.seq for each in events]
    assert {form: (done.exit_code, done.stderr) for form, done in forms.items()} == dict.fromkeys(forms, (0, ""))
    assert [row["seq"] for row in json.loads(forms["json"].stdout)] == expected
    assert seqs(forms["jsonl"].stdout) == expected
    rows = list(csv.DictReader(forms["csv"].stdout.splitlines()))
    assert list(rows[0]) == [field.name for field in fields(lifecycle.AuditEvent)]
    assert len(forms["table"].stdout.splitlines()) == len(events) + 1
    assert WORDS in forms["table"].stdout


@pytest.mark.parametrize(
    ("option", "value", "field"),
    [
        ("--appointment", ID, "appointment_id"),
        ("--status", "confirmed", "to_status"),
        ("--event", "outcome_lost", "event"),
        ("--command", "confirm", "command"),
        ("--actor", WORDS, "actor"),
        ("--source", "recovery", "source"),
        ("--outcome", "refused", "outcome"),
        ("--provider-location", "pr_1|lo_1", "provider_location_id"),
    ],
)
def test_each_filter_has_an_option_and_a_variable(
    environ: dict[str, str], events: list[AuditEvent], option: str, value: str, field: str
) -> None:
    """And each of them chooses some events, not all; the actor of commands is not the actor looked for."""
    expected = [each.seq for each in events if getattr(each, field) == value]
    assert 0 < len(expected) < len(events)
    assert seqs(invoke("audit", option, value, "--format", "jsonl", **environ).stdout) == expected
    variable = f"LIFECYCLE_AUDIT_{option.removeprefix('--').replace('-', '_').upper()}"
    more = {variable: value, "LIFECYCLE_ACTOR": "nobody"}
    assert seqs(invoke("audit", "--format", "jsonl", **environ, **more).stdout) == expected


def test_pages_go_on_where_the_cursor_says(environ: dict[str, str], events: list[AuditEvent]) -> None:
    """The cursor is told on stderr while there are more; --all needs none."""
    first = invoke("audit", "--limit", "4", "--format", "jsonl", **environ)
    told = first.stderr.split()
    assert told[:-1] == ["there", "are", "more;", "go", "on", "with", "--after"]
    rest = invoke("audit", "--limit", "1000", "--after", told[-1], "--format", "jsonl", **environ)
    assert seqs(first.stdout) + seqs(rest.stdout) == [each.seq for each in events]
    assert len(seqs(first.stdout)) == 4
    assert rest.stderr == ""
    assert seqs(invoke("audit", "--all", "--format", "jsonl", **environ).stdout) == [each.seq for each in events]
    assert invoke("audit", "--all", "--after", told[-1], **environ).exit_code == 2
    assert_error(invoke("audit", "--after", "x", **environ), 2, "no cursor of a page")


def test_a_page_is_filled_although_conditions_rarely_meet(
    environ: dict[str, str], events: list[AuditEvent], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library's pages may be short; the command goes on."""
    monkeypatch.setattr("lifecycle.reports.pages.LOOKED_AT", 1)
    done = invoke("audit", "--source", "api", "--status", "pending_booking", "--format", "jsonl", **environ)
    assert seqs(done.stdout) == [
        each.seq for each in events if (each.source, each.to_status) == ("api", "pending_booking")
    ]


def test_windows_are_read_in_the_time_zone(environ: dict[str, str], events: list[AuditEvent]) -> None:
    """With an offset, or as local time of --time-zone; a day begins when it begins there."""
    middle = events[3].recorded_at
    expected = [each.seq for each in events if each.recorded_at >= middle]
    local = middle.astimezone(instants.zone("Asia/Kathmandu")).replace(tzinfo=None).isoformat()
    jsonl = ("audit", "--format", "jsonl")
    assert seqs(invoke(*jsonl, "--since", middle.isoformat(), **environ).stdout) == expected
    assert seqs(invoke(*jsonl, "--since", local, "--time-zone", "Asia/Kathmandu", **environ).stdout) == expected
    named = {"LIFECYCLE_TIME_ZONE": "Asia/Kathmandu"}
    assert seqs(invoke(*jsonl, "--since", local, **environ, **named).stdout) == expected
    assert seqs(invoke(*jsonl, "--until", local, **environ, **named).stdout) == [
        each.seq for each in events if each.recorded_at < middle
    ]
    assert seqs(invoke(*jsonl, "--as-of", local, **environ, **named).stdout) == [
        each.seq for each in events if each.recorded_at <= middle
    ]
    tomorrow = (datetime.now(UTC) + timedelta(days=2)).date().isoformat()
    assert seqs(invoke(*jsonl, "--until", tomorrow, **environ, **named).stdout) == [each.seq for each in events]
    assert seqs(invoke(*jsonl, "--since", tomorrow, **environ, **named).stdout) == []
    assert "+05:45" in invoke("audit", **environ, **named).stdout


def test_what_cannot_match_is_told(environ: dict[str, str]) -> None:
    """A word that the trail does not have is refused with the list; a status or source may be new, so it is a note."""
    for option, listed in (("--event", "outcome_lost"), ("--command", "mark_arrived"), ("--outcome", "not_sent")):
        done = invoke("audit", option, "cancle", **environ)
        assert (done.exit_code, done.stdout) == (2, "")
        assert listed in done.stderr
    assert "none of Zocdoc's statuses" in invoke("audit", "--status", "waitlisted", **environ).stderr
    assert "portal is no source but one of" in invoke("audit", "--source", "portal", **environ).stderr
    assert_error(invoke("audit", "--actor", "a\x1b[31m", **environ), 2, "actor: a printable text")
    assert_error(invoke("audit", "--appointment", "../x", **environ), 2, "--appointment: ")
    assert_error(invoke("audit", "--since", "noon", **environ), 2, "--since: use ISO 8601")
    assert_error(invoke("audit", "--time-zone", "Mars", **environ), 2, "--time-zone: ")
    twice = invoke("audit", "--since", "2026-11-01T01:30", "--time-zone", "America/New_York", **environ)
    assert_error(twice, 2, "-04:00", "-05:00")
    assert_error(invoke("audit", "--since", "2026-01-02", "--until", "2026-01-01", **environ), 2, "ends before")


def test_the_words_of_the_options_are_those_of_the_trail() -> None:
    """They are written down twice, so that help loads nothing; both are the same."""
    assert tuple(audit.Event) == filtering.EVENTS
    assert tuple(chart.Command) == filtering.COMMANDS
    assert set(filtering.OUTCOMES) == {*settlement.OUTCOMES.values(), "refused"}


def test_history_tells_a_story(environ: dict[str, str], events: list[AuditEvent]) -> None:
    """Headings for days, times of the zone, what happened in words, who, and Zocdoc's request id."""
    printed = invoke("history", ID, "--time-zone", "Pacific/Auckland", **environ).stdout
    first = next(each for each in reversed(events) if each.appointment_id == ID)
    local = first.recorded_at.astimezone(instants.zone("Pacific/Auckland"))
    lines = printed.splitlines()
    assert lines[0].startswith(f"{ID} is cancelled; the last event was ")
    assert lines[0].endswith("times are Pacific/Auckland")
    assert lines[1].startswith(f"{local:%A} {local.day} {local:%B %Y}  ")
    assert lines[2].startswith(f"  {local:%H:%M:%S}  ")
    assert "first read from Zocdoc: pending_booking, visit at " in lines[2]
    assert WORDS in lines[3]
    for words in (
        "confirm was accepted and goes to Zocdoc",
        "confirm was applied: pending_booking -> confirmed",
        "user:1 (api); applied, HTTP 200, ",
        f"Zocdoc request id {first.zocdoc_request_id}",
        "confirm was refused, nothing was sent",
        "user:2 (api); refused, status_not_allowed",
        "the answer to reschedule was lost: in doubt",
        "reschedule was applied: confirmed -> rescheduled, visit moved to 2031-03-02 03:00+13:00",
        "Zocdoc reported a change: rescheduled -> cancelled",
        "  +",
    ):
        assert words in printed


def test_history_stops_at_an_instant(environ: dict[str, str], events: list[AuditEvent]) -> None:
    """--as-of, in the table and in the others; before the first event nothing was known."""
    own = [each for each in reversed(events) if each.appointment_id == ID]
    at = own[2].recorded_at
    done = invoke("history", ID, "--as-of", at.isoformat(), "--format", "jsonl", **environ)
    assert seqs(done.stdout) == [each.seq for each in own[:3]]
    assert (
        f"{ID} is confirmed; the last event was 0 ms ago" in invoke("history", ID, "--as-of", str(at), **environ).stdout
    )
    before = invoke("history", ID, "--as-of", "2020-01-01", **environ)
    assert (before.exit_code, before.stdout, before.stderr) == (4, "", f"{ID} was not tracked yet at 2020-01-01\n")


def test_as_of_prints_how_it_stood(environ: dict[str, str], events: list[AuditEvent]) -> None:
    """Each form; exit 4 for an instant before it was tracked, and for an appointment that is not there."""
    lost = next(each for each in events if each.event == "outcome_lost")
    done = invoke("as-of", ID, lost.recorded_at.isoformat(), "--format", "json", **environ)
    found = json.loads(done.stdout)
    assert list(found) == [field.name for field in fields(lifecycle.AsOf)]
    assert (found["status"], found["in_doubt"], found["event"]) == ("confirmed", True, "outcome_lost")
    assert "in_doubt              yes" in invoke("as-of", ID, lost.recorded_at.isoformat(), **environ).stdout
    before = invoke("as-of", ID, "2020-01-01", **environ)
    assert (before.exit_code, before.stdout, before.stderr) == (4, "", f"{ID} was not tracked yet at 2020-01-01\n")
    assert_error(invoke("as-of", "nobody", "2020-01-01", **environ), 4, "track it first")
    assert_error(invoke("as-of", ID, "noon", **environ), 2, "INSTANT: use ISO 8601")


def test_every_event_has_a_sentence() -> None:
    """A new word of the trail needs one; a word of a newer version is shown as it is."""
    assert set(telling._SENTENCES) == set(audit.Event)


def test_a_timeline_shows_data_as_it_is(events: list[AuditEvent]) -> None:
    """Events of a later version, control characters, brackets, days in between."""
    from dataclasses import replace  # noqa: PLC0415 # only here

    own = [each for each in reversed(events) if each.appointment_id == ID][:2]
    later = own[1].recorded_at + timedelta(days=3, hours=4, minutes=1)
    odd: Any = replace(own[1], event="visit_[red]rated", actor="a\x1b[31m\n", conforming=False, recorded_at=later)
    zone = instants.zone("UTC")
    printed = timeline.rendered([own[0], odd], zone=zone, now=later + timedelta(days=1))
    assert "visit_[red]rated, unexpectedly" in printed
    assert r"a\x1b[31m\n" in printed
    assert "+3 d 4 h" in printed
    assert "  yesterday" in printed
    assert "days ago" in printed


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        (timedelta(0), "0 ms"),
        (timedelta(milliseconds=12), "12 ms"),
        (timedelta(seconds=1.25), "1.25 s"),
        (timedelta(seconds=59.9), "59.9 s"),
        (timedelta(seconds=60), "1 min"),
        (timedelta(seconds=65), "1 min 5 s"),
        (timedelta(hours=3, seconds=9), "3 h"),
        (timedelta(days=3, hours=4, minutes=5), "3 d 4 h"),
        (timedelta(seconds=-2), "-2 s"),
    ],
)
def test_a_length_of_time_has_two_units(time: timedelta, expected: str) -> None:
    """The two largest; a clock that was set back shows."""
    assert telling.lasted(time) == expected
