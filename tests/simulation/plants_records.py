"""Planted bugs of the record: rows, the trail, and what is taken over from Zocdoc."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lifecycle import (
    audit,
    chart,
    models,
    observations,
    operators,
    pending,
    refusals,
    settlement,
)
from lifecycle.database import Database
from tests.simulation import faults
from tests.simulation.planting import Patch, Plant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import sqlalchemy as sa


def _events_without(*events: str, keep_row: bool) -> Callable[[], list[Patch]]:
    """Move the row without the event, or append the event without moving the row."""

    def patches() -> list[Patch]:
        original = audit.record

        def record(connection: Any, locked: audit.Locked, entry: audit.Entry, **changes: Any) -> audit.Locked:
            if entry.event not in events:
                return original(connection, locked, entry, **changes)
            if keep_row:
                moved = {"status": entry.to_status, "status_since": locked.now} if entry.to_status else {}
                row = audit._change(connection, locked, {**changes, **moved})
                return replace(locked, row=row)
            event = _event(locked, entry)
            connection.execute(audit._APPEND, event)
            return replace(locked, seq=locked.seq + 1, hash=event["hash"])

        return [(audit, "record", record)]

    return patches


def _event(locked: audit.Locked, entry: audit.Entry) -> dict[str, Any]:
    after = {**locked.row, "status": entry.to_status or locked.status}
    return audit._event(after, locked.row, entry, seq=locked.seq + 1, prev_hash=locked.hash, now=locked.now)


def _row_changes(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[], list[Patch]]:
    """Change what is written to an appointment's row beside an event."""

    def patches() -> list[Patch]:
        original = audit.record

        def record(connection: Any, locked: audit.Locked, entry: audit.Entry, **changes: Any) -> audit.Locked:
            return original(connection, locked, entry, **change(changes))

        return [(audit, "record", record)]

    return patches


def _audit_after_commit() -> list[Patch]:
    late: list[dict[str, Any]] = []
    transaction = Database.transaction

    def record(connection: Any, locked: audit.Locked, entry: audit.Entry, **changes: Any) -> audit.Locked:
        event = _event(locked, entry)
        if event["to_status"] != locked.status:
            changes |= {"status": event["to_status"], "status_since": locked.now}
        row = audit._change(connection, locked, changes) if changes else locked.row
        late.append(event)
        return replace(locked, row=row, seq=locked.seq + 1, hash=event["hash"])

    @contextmanager
    def twice(self: Database) -> Iterator[sa.Connection]:
        late.clear()
        with transaction(self) as connection:
            yield connection
            events = list(late)
        if events:
            with transaction(self) as connection:
                for event in events:
                    connection.execute(audit._APPEND, event)

    return [(audit, "record", record), (Database, "transaction", twice)]


def _unchained() -> list[Patch]:
    original = audit._event
    return [(audit, "_event", lambda *a, **k: original(*a, **{**k, "prev_hash": audit.GENESIS}))]


def _doubt_kept() -> list[Patch]:
    original = settlement.doubt_left

    def doubt_left(connection: Any, locked: Any, *, uncertain: bool) -> dict[str, bool]:
        found = original(connection, locked, uncertain=uncertain)
        return {"in_doubt": True} if found else found

    return [(settlement, "doubt_left", doubt_left)]


def _older_wins() -> list[Patch]:
    original = observations.apply

    def apply(connection: Any, locked: audit.Locked, reading: Any, **facts: Any) -> audit.Locked:
        return original(connection, replace(locked, row={**locked.row, "remote_last_modified": None}), reading, **facts)

    return [(observations, "apply", apply)]


def _stored_while_active() -> list[Patch]:
    original = observations.follow

    def follow(place: Any, client: Any, appointment_id: str, *, actor: str, source: str) -> Any:
        reading = observations.read(client, appointment_id)
        with place.database.write() as connection:
            locked = audit.hold(place.database, connection, appointment_id)
            observations.apply(connection, locked, reading, actor=actor, source=source)
        return original(place, client, appointment_id, actor=actor, source=source)

    return [(observations, "follow", follow)]


def _observations_dropped() -> list[Patch]:
    original = observations.apply

    def apply(connection: Any, locked: audit.Locked, reading: Any, **facts: Any) -> audit.Locked:
        if reading.appointment.appointment_status != locked.status:
            return locked
        return original(connection, locked, reading, **facts)

    return [(observations, "apply", apply)]


def _always_conforming() -> list[Patch]:
    original = chart.move
    return [(chart, "move", lambda **facts: replace(original(**facts), conforming=True))]


def _wrong_actor() -> list[Patch]:
    original = settlement.entry_for
    return [(settlement, "entry_for", lambda *a, **k: replace(original(*a, **k), actor="system"))]


def _lease_kept() -> list[Patch]:
    original = settlement.change

    def change(connection: Any, locked: Any, command: Any, values: dict[str, Any], statement: Any) -> bool:
        kept = {name: value for name, value in values.items() if name != "lease_until" or value is not None}
        return original(connection, locked, command, kept, statement)

    return [(settlement, "change", change)]


def _trail_rewritten() -> list[Patch]:
    original = audit.record

    def record(connection: Any, locked: audit.Locked, entry: audit.Entry, **changes: Any) -> audit.Locked:
        if entry.event == "command_applied":
            connection.exec_driver_sql(
                "UPDATE lifecycle_audit_events SET actor = 'nobody' WHERE appointment_id = ? AND appointment_seq = ?",
                (locked.appointment_id, locked.seq),
            )
        return original(connection, locked, entry, **changes)

    return [(audit, "record", record)]


def _trail_cut() -> list[Patch]:
    original = audit.record

    def record(connection: Any, locked: audit.Locked, entry: audit.Entry, **changes: Any) -> audit.Locked:
        if entry.event != "command_refused" or locked.seq < 3:
            return original(connection, locked, entry, **changes)
        where = (locked.appointment_id, locked.seq)
        connection.exec_driver_sql(
            "DELETE FROM lifecycle_audit_events WHERE appointment_id = ? AND appointment_seq = ?", where
        )
        return locked

    return [(audit, "record", record)]


def _resolution_twisted() -> list[Patch]:
    original = operators._close

    def close(database: Any, command: Any, state: models.CommandState, **facts: Any) -> None:
        other = models.CommandState.REJECTED if state == "applied" else models.CommandState.APPLIED
        original(database, command, other, **facts)

    return [(operators, "_close", close)]


def _never_reached() -> list[Patch]:
    return [(pending, "moves_time", lambda *_a, **_k: False)]


_MANY_READS = faults.Rates(provider=0.1, sync=0.8, stall=0.02)
_DROP_UPDATES = "DROP TRIGGER lifecycle_audit_no_update;"
_DROP_DELETES = "DROP TRIGGER lifecycle_audit_no_delete;"

PLANTS = (
    Plant("audit_after_commit", "events are appended in a transaction of their own", _audit_after_commit),
    Plant("lease_kept", "leases are not released", _lease_kept),
    Plant(
        "status_without_audit",
        "an applied command moves the row without an event",
        _events_without("command_applied", keep_row=True),
    ),
    Plant(
        "audit_without_status",
        "an applied command leaves the row as it was",
        _events_without("command_applied", keep_row=False),
    ),
    Plant(
        "observation_silent",
        "what Zocdoc did is taken over without an event",
        _events_without("appointment_observed", keep_row=True),
    ),
    Plant("observation_dropped", "what Zocdoc did is not taken over", _observations_dropped),
    Plant(
        "observation_while_active",
        "a read is stored while a command is active",
        _stored_while_active,
        rates=_MANY_READS,
    ),
    Plant("older_wins", "an older modification overwrites a newer one", _older_wins, rates=_MANY_READS),
    Plant(
        "hash_leaves_out",
        "the hash does not cover the actor",
        lambda: [(audit, "_HASHED", tuple(name for name in audit._HASHED if name != "actor"))],
    ),
    Plant("unchained", "events do not carry the hash of the one before", _unchained),
    Plant("trail_rewritten", "an event is changed afterwards", _trail_rewritten, tamper=_DROP_UPDATES),
    Plant("trail_cut", "an event is deleted", _trail_cut, tamper=_DROP_DELETES),
    Plant("refusal_unrecorded", "a refusal leaves no row", lambda: [(refusals, "record", lambda *_a, **_k: None)]),
    Plant(
        "doubt_never_set",
        "an appointment in doubt looks settled",
        _row_changes(lambda changes: {name: value for name, value in changes.items() if name != "in_doubt"}),
    ),
    Plant("doubt_kept", "an appointment stays in doubt for ever", _doubt_kept),
    Plant("start_not_moved", "a rescheduled visit keeps its old start here", _never_reached),
    Plant(
        "text_kept",
        "free text stays in the database",
        lambda: [(settlement, "without_text", lambda command: command.payload)],
    ),
    Plant("always_conforming", "every move counts as documented", _always_conforming),
    Plant("wrong_actor", "events do not name who asked", _wrong_actor),
    Plant("resolution_twisted", "an operator's yes is recorded as a no", _resolution_twisted),
)
