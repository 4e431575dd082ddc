"""Each view's numbers, against a computation in plain Python over the raw rows that shares nothing with its SQL."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa

from lifecycle import audit, database, errors, models, views
from lifecycle.reports import selection
from lifecycle.reports.filters import Filters
from tests import support

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from lifecycle import Lifecycle, ZocdocClient
    from lifecycle.sandbox import Sandbox

Row = dict[str, Any]
VISIT = datetime(2027, 6, 1, 14, tzinfo=UTC)
NEW_YORK = ZoneInfo("America/New_York")
LOCATIONS = ("pr_a|lo_a", "pr_b|lo_b", None)
PATHS = (
    ("pending_booking", "confirmed", "rescheduled", "rescheduled", "cancelled"),
    ("pending_booking", "cancelled"),
    ("pending_booking", "confirmed", "no_show"),
    ("confirmed",),
    ("pending_booking", "waitlisted", "confirmed"),
    ("cancelled",),
    ("booking_failed", "cancelled"),
)
"""Statuses one after the other; the same twice: the visit was moved."""

READ = ("appointments", "commands", "audit_events", "batches", "batch_errors")

EDGES = (
    datetime(2026, 10, 31, 23, 59, 59, 999999, tzinfo=NEW_YORK),
    datetime(2026, 11, 1, 1, 30, tzinfo=NEW_YORK),
    datetime(2026, 11, 1, 1, 30, fold=1, tzinfo=NEW_YORK),
    datetime(2026, 11, 1, 23, 59, 59, 999999, tzinfo=UTC),
    datetime(2026, 11, 2, 0, 0, tzinfo=UTC),
    datetime(2026, 11, 2, 0, 0, 0, 1, tzinfo=UTC),
    datetime(2026, 12, 31, 23, 59, 59, 999500, tzinfo=UTC),
    datetime(2027, 1, 1, 0, 0, tzinfo=UTC),
    datetime(2027, 3, 14, 1, 59, 59, 999999, tzinfo=NEW_YORK),
    datetime(2027, 3, 14, 3, 0, tzinfo=NEW_YORK),
)
"""Instants at which weeks, years and daylight saving turn; the last two are one microsecond apart."""

WINDOWS: tuple[dict[str, Any], ...] = (
    {},
    {"since": EDGES[1], "until": EDGES[2]},
    {"since": EDGES[3], "until": EDGES[4]},
    {"since": EDGES[4]},
    {"as_of": EDGES[8]},
    {"until": EDGES[9]},
    {"since": EDGES[8], "until": EDGES[9], "provider_location_id": "pr_a|lo_a"},
    {"actor": "user:1"},
    {"status": "cancelled"},
    {"source": "webhook", "until": EDGES[6]},
    {"outcome": "refused", "command": "confirm"},
    {"actor": "nobody"},
)


@pytest.fixture
def engine(database_url: str, lifecycle: Lifecycle, sandbox: Sandbox, client: ZocdocClient) -> Iterator[sa.Engine]:
    """A database with stories that the product played, and others at chosen instants, all through the one door."""
    _play(lifecycle, sandbox)
    ids = [support.tracked(lifecycle, sandbox, status="confirmed") for _ in range(10)]
    with support.opened(database_url, client) as sender:
        _play_batches(sender, sandbox, ids)
    with support.opened(database_url, None) as idle:  # it has no credential: what it queues stays queued
        idle.submit_many([{"appointment_id": ids[6]}], actor="user:3", command="cancel")
        cancelled = idle.submit_many([{"appointment_id": ids[7]}], actor="user:3", command="cancel")
        assert cancelled.cancel(actor="user:4") == 1
        assert idle.submit("cancel", ids[8], actor="user:2").withdraw(actor="user:4")
    own = database.Database(database_url)
    for number in range(len(PATHS) * len(EDGES)):
        with own.write() as connection:
            _tell(connection, number)
    own.close()
    made = sa.create_engine(database_url)
    yield made
    made.dispose()


@pytest.fixture
def raw(engine: sa.Engine) -> dict[str, list[Row]]:
    """The raw rows of the tables, instants as datetimes, JSON as dictionaries."""
    tables = {name: models.metadata.tables[f"lifecycle_{name}"] for name in READ}
    with engine.connect() as connection:
        return {
            name: [_read(row) for row in connection.exec_driver_sql(f"SELECT * FROM {table.name}").mappings()]  # noqa: S608 # ours
            for name, table in tables.items()
        }


def test_the_last_edges_are_a_microsecond_apart() -> None:
    """The two half past ones are an hour apart, and nothing lies between the last two: else they are no edges."""
    instants = [each.astimezone(UTC) for each in EDGES]
    assert instants[2] - instants[1] == timedelta(hours=1)
    assert instants[9] - instants[8] == timedelta(microseconds=1)


def test_every_view_agrees_with_plain_python(engine: sa.Engine, raw: dict[str, list[Row]]) -> None:
    """The same rows, for the whole trail and for every window and filter, where weeks and daylight saving turn."""
    for given in WINDOWS:
        chosen = [event for event in raw["audit_events"] if _is_meant(event, given)]
        for view, computed in COMPUTED.items():
            expected = computed(chosen, raw)
            found = _selected(engine, view, Filters(**given))
            assert _normal(found) == _normal(expected), (view.name, given)


def test_current_status_is_the_fold_of_the_trail(engine: sa.Engine, raw: dict[str, list[Row]]) -> None:
    """Each appointment as its events leave it, and the facts of its row."""
    expected = [_current(appointment, _of(raw, appointment["appointment_id"])) for appointment in raw["appointments"]]
    assert _normal(_selected(engine, views.current_status, Filters())) == _normal(expected)
    located = [row for row in expected if row["provider_location_id"] == "pr_b|lo_b" and row["status"] == "cancelled"]
    filters = Filters(provider_location_id="pr_b|lo_b", status="cancelled")
    assert located
    assert _normal(_selected(engine, views.current_status, filters)) == _normal(located)


def test_batches_are_the_sums_of_their_rows(engine: sa.Engine, raw: dict[str, list[Row]]) -> None:
    """Each batch with a count of its commands, row by row; it is finished when no more come and all have ended."""
    found = _selected(engine, views.batch_outcomes, Filters())
    assert _normal(found) == _normal(_batch(batch, raw) for batch in raw["batches"])
    states = [str(state) for state in models.CommandState]
    shown = {name for name in states if any(row[name] for row in found)}
    assert shown == set(states) - {"sending", "uncertain", "not_sent"}
    assert {row["is_finished"] for row in found} == {True, False}


def test_the_rows_of_batches_are_commands_and_errors(engine: sa.Engine, raw: dict[str, list[Row]]) -> None:
    """Every row of every input is there once: as the command it became, or with the reason why it became none."""
    commands = [_batch_row(row) for row in raw["commands"] if row["batch_id"] is not None]
    invalid = [_batch_row(row) for row in raw["batch_errors"]]
    found = _selected(engine, views.batch_rows, Filters())
    assert commands
    assert invalid
    assert _normal(found) == _normal([*commands, *invalid])
    for batch in raw["batches"]:
        numbers = [row["batch_row"] for row in found if row["batch_id"] == batch["batch_id"]]
        assert numbers == [*range(1, batch["total"] + 1)]


def test_nothing_of_what_is_compared_is_empty(engine: sa.Engine, raw: dict[str, list[Row]]) -> None:
    """The stories hold what the views count: moves, lost answers, refusals, rejections, unknown statuses."""
    assert all(computed(raw["audit_events"], raw) for computed in COMPUTED.values())
    [outcomes] = [_selected(engine, views.command_outcomes, Filters())]
    assert {(row["was_unknown"], row["was_recovered"], row["needed_attention"]) for row in outcomes} == {
        (False, False, False),
        (True, True, False),
        (True, False, True),
    }
    assert {row["refused_by"] for row in _selected(engine, views.refusals, Filters())} == {"guard", "zocdoc"}
    assert any(not row["conforming"] for row in _selected(engine, views.transitions, Filters()))
    assert {(row["queued_at"] is None, row["batch_id"] is None) for row in outcomes} == {
        (True, True),
        (False, True),
        (False, False),
    }
    assert any(row["queued_at"] is None and row["batch_id"] is not None for row in raw["commands"])
    assert min(row["queue_seconds"] for row in outcomes if row["queue_seconds"] is not None) > 0


def _play(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """Have commands applied, refused, rejected by Zocdoc, lost and recovered, and lost for good."""
    first = support.tracked(lifecycle, sandbox, status="pending_booking")
    lifecycle.confirm(first, actor="user:1")
    for _ in range(2):
        with pytest.raises(errors.TransitionRefused):
            lifecycle.confirm(first, actor="user:2")
    lifecycle.reschedule(first, actor="user:2", start_time=support.LATER)
    lost = support.tracked(lifecycle, sandbox, status="confirmed")
    support.lose_answer(sandbox, "cancel", when="after")
    with pytest.raises(errors.OutcomeUnknown):
        lifecycle.cancel(lost, actor="user:1", reason_type="provider_not_available")
    arriving = support.tracked(lifecycle, sandbox, status="confirmed")
    support.lose_answer(sandbox, "update_status")
    with pytest.raises(errors.OutcomeUnknown):
        lifecycle.mark_arrived(arriving, actor="user:1")
    lifecycle.recover(wait=5)
    changed = support.tracked(lifecycle, sandbox, status="confirmed")
    sandbox.change(changed, status="cancelled")
    with pytest.raises(errors.CommandRejected):
        lifecycle.reschedule(changed, actor="user:1", start_time=support.LATER)
    lifecycle.mark_arrived(support.tracked(lifecycle, sandbox, status="confirmed"), actor="user:3")


def _play_batches(lifecycle: Lifecycle, sandbox: Sandbox, ids: list[str]) -> None:
    """Have submitted commands carried out, alone and in batches, of which some cannot be."""
    support.arm(sandbox, kind="answer", operation="cancel", appointment_id=ids[2], status=422)
    for each in (ids[3], ids[9]):
        support.lose_answer(sandbox, "update_status", appointment_id=each)
    given: list[Row] = [
        {"appointment_id": ids[0], "command": "cancel", "reason_type": "provider_not_available"},
        {"appointment_id": ids[1], "command": "confirm"},
        {"appointment_id": ids[2], "command": "cancel"},
        {"appointment_id": "no id at all", "command": "cancel"},
        {"appointment_id": ids[3], "command": "mark_arrived"},
        {"appointment_id": "not-tracked", "command": "cancel"},
        {"appointment_id": ids[9], "command": "mark_arrived"},
        {"appointment_id": ids[4], "command": "cancel", "expires_at": datetime(2026, 1, 1, tzinfo=UTC)},
    ]
    mixed = lifecycle.submit_many(given, actor="user:1", name="several")
    support.until(lambda: mixed.progress().uncertain == 2)
    lifecycle.recover(wait=5)
    assert mixed.wait(timeout=9)
    [retried] = [each.command_id for each in lifecycle.attention() if each.appointment_id == ids[9]]
    lifecycle.resolve(retried, resolution="retry", reason_code="seen_in_portal", actor="user:4")
    assert lifecycle.submit("reschedule", ids[5], actor="user:2", start_time=support.LATER).wait(timeout=9)
    lifecycle.submit_many([], actor="user:3", command="cancel")


def _tell(connection: sa.Connection, number: int) -> None:
    """Write a path of statuses, a step at each edge from one on, through the door."""
    path, first = PATHS[number % len(PATHS)], number // len(PATHS)
    moments = [each.astimezone(UTC) for each in (EDGES + EDGES[-1:] * len(path))[first : first + len(path)]]
    row = {
        "appointment_id": f"story-{number:04}",
        "status": path[0],
        "start_time": VISIT,
        "start_time_offset_minutes": -240,
        "provider_location_id": LOCATIONS[number % 3],
        "booked_with": "machine",
    }
    entry = audit.Entry(event=audit.Event.APPOINTMENT_TRACKED, actor="job:sync", source="sync")
    locked = audit.begin(connection, row, entry, now=moments[0])
    assert locked is not None
    for step, (status, moment) in enumerate(zip(path[1:], moments[1:], strict=True)):
        ours = number % 2 == 0 and status != "waitlisted"
        changes = {"start_time": VISIT + timedelta(days=step)} if status == path[step] else {}
        entry = audit.Entry(
            event=audit.Event.COMMAND_APPLIED if ours else audit.Event.APPOINTMENT_OBSERVED,
            actor=f"user:{number % 5}" if ours else "webhook",
            source="api" if ours else "webhook",
            command={"confirmed": "confirm", "cancelled": "cancel", "no_show": "mark_no_show"}.get(status, "reschedule")
            if ours
            else None,
            to_status=status,
            conforming=status != "waitlisted",
            outcome="applied" if ours else None,
            reason_type="other_patient_reason" if ours and status == "cancelled" else None,
        )
        locked = audit.record(connection, replace(locked, now=moment), entry, **changes)


def _read(row: sa.RowMapping) -> Row:
    return {name: _value(name, value) for name, value in row.items()}


def _value(name: str, value: Any) -> Any:
    if isinstance(value, str) and name in INSTANTS:
        return datetime.fromisoformat(value)
    if isinstance(value, str) and name in {"details", "payload"}:
        return json.loads(value)
    if name in {"conforming", "in_doubt", "status_known"}:
        return bool(value)
    return value.astimezone(UTC) if isinstance(value, datetime) else value


INSTANTS = {
    column.name
    for table in models.metadata.tables.values()
    for column in table.columns
    if column.name.endswith(("_at", "_since", "start_time", "_until", "_modified"))
}


def _selected(engine: sa.Engine, view: views.View, filters: Filters) -> list[Row]:
    with engine.connect() as connection:
        made = selection.rows(view, filters, dialect=engine.dialect.name)
        return [dict(row) for row in connection.execute(made).mappings()]


def _normal(rows: Iterable[Row]) -> list[str]:
    """Make rows comparable: in one order, fractions to the microsecond, off the ties that a last bit could turn."""
    plain = (
        {name: round(value + 3e-8, 6) if isinstance(value, float) else value for name, value in row.items()}
        for row in rows
    )
    return sorted(repr(sorted(row.items())) for row in plain)


def _is_meant(event: Row, given: dict[str, Any]) -> bool:
    recorded = event["recorded_at"]
    if "since" in given and recorded < given["since"]:
        return False
    if "until" in given and recorded >= given["until"]:
        return False
    if "as_of" in given and recorded > given["as_of"]:
        return False
    names = {"status": "to_status"}
    return all(
        event[names.get(name, name)] == value
        for name, value in given.items()
        if name not in {"since", "until", "as_of"}
    )


def _of(raw: dict[str, list[Row]], appointment_id: str) -> list[Row]:
    events = (event for event in raw["audit_events"] if event["appointment_id"] == appointment_id)
    return sorted(events, key=lambda event: event["appointment_seq"])


def _monday(instant: datetime) -> date:
    day = instant.astimezone(UTC).date()
    return day - timedelta(days=day.weekday())


def _has_moved(event: Row) -> bool:
    changed = event["from_status"] != event["to_status"] or "start_time" in event["details"]
    return event["from_status"] is not None and changed


def _stays(events: list[Row]) -> list[tuple[Row, Row | None]]:
    """Pair each event that entered a status with the one that left it."""
    entries = [event for event in events if event["from_status"] != event["to_status"]]
    return list(zip(entries, [*entries[1:], None], strict=True))


def _percentile(values: list[float], part: float) -> float:
    """Interpolate between neighbours, as `percentile_cont` of the SQL standard does."""
    values = sorted(values)
    place = part * (len(values) - 1)
    below = int(place)
    above = min(below + 1, len(values) - 1)
    return values[below] + (values[above] - values[below]) * (place - below)


def _event_log(chosen: list[Row], raw: dict[str, list[Row]]) -> list[Row]:
    appointments = {row["appointment_id"]: row for row in raw["appointments"]}
    names = [column.name for column in views.event_log.table.columns]
    found = []
    for event in chosen:
        known = appointments[event["appointment_id"]]
        facts = {name: known[name] for name in ("practice_id", "visit_reason_id", "booked_with")}
        merged = {**event, **facts, "moved": _has_moved(event)}
        found.append({name: merged[name] for name in names})
    return found


def _current(appointment: Row, events: list[Row]) -> Row:
    last, entered = events[-1], _stays(events)[-1][0]
    names = [column.name for column in views.current_status.table.columns]
    folded = {
        "status": last["to_status"],
        "status_since": entered["recorded_at"],
        "events": len(events),
        "last_event": last["event"],
        "last_event_at": last["recorded_at"],
        "last_actor": last["actor"],
    }
    return {name: (appointment | folded)[name] for name in names}


def _time_in_status(chosen: list[Row], raw: dict[str, list[Row]]) -> list[Row]:
    meant = {event["seq"] for event in chosen}
    found = []
    for appointment in raw["appointments"]:
        for entered, left in _stays(_of(raw, appointment["appointment_id"])):
            if entered["seq"] in meant:
                found.append(
                    {
                        "seq": entered["seq"],
                        "appointment_id": entered["appointment_id"],
                        "status": entered["to_status"],
                        "entered_at": entered["recorded_at"],
                        "left_at": left and left["recorded_at"],
                        "seconds": left and (left["recorded_at"] - entered["recorded_at"]).total_seconds(),
                        "entered_by": entered["command"],
                        "left_to": left and left["to_status"],
                        "left_by": left and left["command"],
                        "provider_location_id": entered["provider_location_id"],
                    }
                )
    return found


def _transitions(chosen: list[Row], raw: dict[str, list[Row]]) -> list[Row]:
    meant = {event["seq"] for event in chosen}
    stood: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    for appointment in raw["appointments"]:
        events = _of(raw, appointment["appointment_id"])
        entered = events[0]["recorded_at"]
        for before, event in pairwise(events):
            assert before["to_status"] == event["from_status"]
            if _has_moved(event) and event["seq"] in meant:
                kind = event["from_status"], event["to_status"], event["command"], event["conforming"]
                stood[kind].append((event["recorded_at"] - entered).total_seconds())
            if event["from_status"] != event["to_status"]:
                entered = event["recorded_at"]
    return [
        {
            **dict(zip(("from_status", "to_status", "command", "conforming"), kind, strict=True)),
            "transitions": len(seconds),
            "median_seconds": _percentile(seconds, 0.5),
            "p90_seconds": _percentile(seconds, 0.9),
        }
        for kind, seconds in stood.items()
    ]


def _funnel(chosen: list[Row], raw: dict[str, list[Row]]) -> list[Row]:
    reached: dict[date, Counter[str]] = defaultdict(Counter)
    for first in chosen:
        if first["appointment_seq"] != 1:
            continue
        events = _of(raw, first["appointment_id"])
        week = reached[_monday(first["recorded_at"])]
        week["tracked"] += 1
        for status in {event["to_status"] for event in events} & set(STEPS):
            week[status] += status != "rescheduled"
        week["rescheduled"] += any("start_time" in event["details"] for event in events[1:])
        week["arrived"] += any(event["event"] == "arrival_marked" for event in events)
    return [
        {"week": week, "position": place, "step": step, "appointments": n[step], "share": n[step] / n["tracked"]}
        for week, n in reached.items()
        for place, step in enumerate(STEPS, 1)
    ]


STEPS = ("tracked", "confirmed", "rescheduled", "arrived", "no_show", "cancelled", "booking_failed")


def _cancellations(chosen: list[Row], _raw: dict[str, list[Row]]) -> list[Row]:
    counts = Counter(
        (_monday(event["recorded_at"]), event["reason_type"], event["actor"], event["source"], event["command"])
        for event in chosen
        if event["to_status"] == "cancelled" and event["from_status"] not in {None, "cancelled"}
    )
    names = ("week", "reason_type", "actor", "source", "command")
    return [{**dict(zip(names, key, strict=True)), "cancellations": count} for key, count in counts.items()]


def _refusals(chosen: list[Row], _raw: dict[str, list[Row]]) -> list[Row]:
    groups: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for event in chosen:
        by = {"command_refused": "guard", "command_rejected": "zocdoc"}.get(event["event"])
        if by is not None:
            key = event["command"], event["from_status"], by, event["reason_code"], event["http_status"]
            groups[key].append(event)
    names = ("command", "status", "refused_by", "reason_code", "http_status")
    return [
        {
            **dict(zip(names, key, strict=True)),
            "tries": len(events),
            "appointments": len({event["appointment_id"] for event in events}),
            "actors": len({event["actor"] for event in events}),
            "first_at": min(event["recorded_at"] for event in events),
            "last_at": max(event["recorded_at"] for event in events),
        }
        for key, events in groups.items()
    ]


def _command_outcomes(chosen: list[Row], raw: dict[str, list[Row]]) -> list[Row]:
    commands = {row["command_id"]: row for row in raw["commands"]}
    found = []
    for accepted in (event for event in chosen if event["event"] == "command_accepted"):
        command = commands[accepted["command_id"]]
        events = [event for event in raw["audit_events"] if event["command_id"] == command["command_id"]]
        happened = {event["event"] for event in events}
        durations = [event["duration_ms"] for event in events if event["duration_ms"] is not None]
        # An operator who has it sent once more takes it out of the queue for good; the trail remembers.
        queued = command["queued_at"] or (command["created_at"] if command["batch_id"] else None)
        assert queued or command["created_at"] == accepted["recorded_at"]
        ended, settled = command["ended_at"], command["state"] in {"applied", "rejected", "not_sent"}
        merged = {
            **{name: command[name] for name in command if name in views.command_outcomes.table.columns},
            "provider_location_id": accepted["provider_location_id"],
            "reason_type": command["payload"].get("reason_type"),
            "attempts": command["attempt"],
            "call_ms": sum(durations) if durations else None,
            "queued_at": queued,
            "queue_seconds": queued and (accepted["recorded_at"] - queued).total_seconds(),
            "accepted_at": accepted["recorded_at"],
            "seconds": ended and (ended - accepted["recorded_at"]).total_seconds(),
            "was_unknown": "outcome_lost" in happened,
            "was_recovered": "outcome_lost" in happened and settled and "attention_needed" not in happened,
            "needed_attention": "attention_needed" in happened,
        }
        found.append({column.name: merged[column.name] for column in views.command_outcomes.table.columns})
    return found


def _batch(batch: Row, raw: dict[str, list[Row]]) -> Row:
    commands = [row for row in raw["commands"] if row["batch_id"] == batch["batch_id"]]
    counts = Counter(row["state"] for row in commands)
    is_open = bool(counts["queued"] or counts["sending"] or counts["uncertain"])
    assert batch["invalid"] == sum(row["batch_id"] == batch["batch_id"] for row in raw["batch_errors"])
    return batch | {
        **{str(state): counts[state] for state in models.CommandState},
        "is_finished": not is_open and bool(batch["submitted_at"] or batch["cancelled_at"]),
    }


def _batch_row(row: Row) -> Row:
    """Give what a command and an error of a batch have in common; of an error there is little to tell."""
    names = [column.name for column in views.batch_rows.table.columns]
    told = {"state": "invalid", **row, "attempts": row.get("attempt", 0)}
    return {name: told.get(name) for name in names}


def _process_log(chosen: list[Row], _raw: dict[str, list[Row]]) -> list[Row]:
    return [
        {
            "seq": event["seq"],
            "case:concept:name": event["appointment_id"],
            "concept:name": _activity(event),
            "time:timestamp": event["recorded_at"],
            "org:resource": event["actor"],
            "source": event["source"],
            "status": event["to_status"],
            "provider_location_id": event["provider_location_id"],
        }
        for event in chosen
    ]


def _activity(event: Row) -> str:
    if event["command"] is not None:
        return f"{event['command']}: {event['event'].replace('command_', '')}"
    if event["from_status"] is None:
        return f"tracked: {event['to_status']}"
    if event["from_status"] != event["to_status"]:
        return f"zocdoc: {event['to_status']}"
    return "zocdoc: visit moved" if "start_time" in event["details"] else "zocdoc: details changed"


COMPUTED: dict[views.View, Callable[[list[Row], dict[str, list[Row]]], list[Row]]] = {
    views.event_log: _event_log,
    views.time_in_status: _time_in_status,
    views.transitions: _transitions,
    views.funnel: _funnel,
    views.cancellations: _cancellations,
    views.refusals: _refusals,
    views.command_outcomes: _command_outcomes,
    views.process_log: _process_log,
}
