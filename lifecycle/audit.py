"""The one door: the only code that writes an appointment's row and appends to the audit trail.

Both happen in the caller's transaction, under the lock of the appointment's row, so the row's status is always the fold
of its events. Every event carries the hash of the one before it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from lifecycle import chart, columns, models
from lifecycle.points import Point, reach

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lifecycle.database import Database

HASH_VERSION: Final = 1
"""The canonical encoding that new events are hashed with; see `digest`."""

GENESIS: Final = "0" * 64
"""`prev_hash` of an appointment's first event."""


class Event(StrEnum):
    """What an audit event tells, in the past tense. Retired words stay here for as long as rows use them."""

    APPOINTMENT_TRACKED = "appointment_tracked"  # first read from Zocdoc
    APPOINTMENT_OBSERVED = "appointment_observed"  # Zocdoc reported a change that was not our command
    COMMAND_REFUSED = "command_refused"  # a check said no; nothing was sent. queued -> refused, if it was submitted
    COMMAND_WITHDRAWN = "command_withdrawn"  # queued -> withdrawn: somebody thought better of it
    COMMAND_EXPIRED = "command_expired"  # queued -> expired: its time was over before it could be sent
    COMMAND_ACCEPTED = "command_accepted"  # queued, none -> sending: the intent, committed before the call
    COMMAND_REQUEUED = "command_requeued"  # sending, uncertain -> queued: it had no effect and will be sent again
    COMMAND_RESENT = "command_resent"  # queued -> sending, of one that was requeued
    COMMAND_APPLIED = "command_applied"  # sending, uncertain -> applied
    ARRIVAL_MARKED = "arrival_marked"  # sending -> applied, of mark_arrived: no status moves
    COMMAND_REJECTED = "command_rejected"  # sending -> rejected: Zocdoc said no
    COMMAND_NOT_SENT = "command_not_sent"  # sending, uncertain -> not_sent
    OUTCOME_LOST = "outcome_lost"  # sending -> uncertain
    OUTCOME_CHECKED = "outcome_checked"  # a read after a lost answer that did not settle it
    ATTENTION_NEEDED = "attention_needed"  # uncertain -> needs_attention
    COMMAND_RESOLVED = "command_resolved"  # needs_attention -> applied, rejected: an operator looked
    COMMAND_RETRIED = "command_retried"  # needs_attention -> sending: an operator wants it sent again
    LATE_ANSWER_RECEIVED = "late_answer_received"  # an answer for a command that was settled without it


@dataclass(frozen=True, slots=True)
class Locked:
    """An appointment's row, its last event and its active command, as they are while its lock is held.

    `now` is the database's time, UTC, taken after the lock was granted.
    """

    row: Mapping[Any, Any]
    seq: int
    hash: str
    active_command_id: str | None
    active_state: str | None
    now: datetime

    @property
    def is_busy(self) -> bool:
        """Tell whether a command may be changing it at Zocdoc. One that is merely queued is not."""
        return self.active_state not in {None, models.CommandState.QUEUED}

    @property
    def appointment_id(self) -> str:
        """Whose row it is."""
        return str(self.row["appointment_id"])

    @property
    def status(self) -> str:
        """The status as it stands."""
        return str(self.row["status"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An audit event to be appended. `to_status` None: the status stays. `details` holds codes, times and names."""

    event: Event
    actor: str
    source: str
    to_status: str | None = None
    conforming: bool = True
    command: str | None = None
    command_id: str | None = None
    delivery_id: str | None = None
    outcome: str | None = None
    reason_code: str | None = None
    reason_type: str | None = None
    zocdoc_request_id: str | None = None
    http_status: int | None = None
    duration_ms: int | None = None
    occurred_at: datetime | None = None
    details: dict[str, Any] = field(default_factory=dict)


def lock(database: Database, connection: sa.Connection, appointment_id: str) -> Locked | None:
    """Lock an appointment until the transaction ends and read what it stands on; None if it is not tracked."""
    if not database.is_postgres:
        return peek(database, connection, appointment_id)
    # NO KEY: a wish that somebody submits in a transaction of their own refers to the row, and must not wait for it.
    row = connection.execute(_ROW_FOR_UPDATE, {"id": appointment_id}).mappings().one_or_none()
    if row is None:
        return None
    # A second statement, because its snapshot must be newer than the moment when the lock was granted.
    head = connection.execute(_HEAD, {"id": appointment_id}).mappings().one()
    return _locked(row, head, head["now"])


def try_lock(database: Database, connection: sa.Connection, appointment_id: str) -> bool:
    """Lock an appointment until the transaction ends, unless somebody else holds it: then False, and nobody waits."""
    if not database.is_postgres:
        return True  # the writing transaction itself is the lock
    return connection.execute(_ROW_IF_FREE, {"id": appointment_id}).first() is not None


def peek(database: Database, connection: sa.Connection, appointment_id: str) -> Locked | None:
    """Read what `lock` reads, without taking the lock (on SQLite the writing transaction itself is the lock)."""
    row = connection.execute(_ROW_AND_HEAD, {"id": appointment_id}).mappings().one_or_none()
    return None if row is None else _locked(row, row, database.now(connection))


def lock_all(database: Database, connection: sa.Connection, appointment_ids: Sequence[str]) -> dict[str, Locked]:
    """Do as `lock` for many, in the order of their ids, so that two of this cannot wait for each other in a circle.

    Gives those that are tracked, by id.
    """
    if database.is_postgres:
        connection.execute(_ROWS_FOR_UPDATE, {"ids": appointment_ids})
    return read_all(database, connection, appointment_ids)


def read_all(database: Database, connection: sa.Connection, appointment_ids: Sequence[str]) -> dict[str, Locked]:
    """Read what `lock` reads of many whose locks are held already, by id."""
    rows = connection.execute(_ROWS_AND_HEADS, {"ids": appointment_ids}).mappings().all()
    now = database.now(connection)
    return {row["appointment_id"]: _locked(row, row, now) for row in rows}


def hold(database: Database, connection: sa.Connection, appointment_id: str) -> Locked:
    """Lock an appointment that is known to be there, because a command refers to it."""
    locked = lock(database, connection, appointment_id)
    if locked is None:
        msg = f"appointment {appointment_id} has a command but no row"
        raise AssertionError(msg)
    return locked


def begin(connection: sa.Connection, values: Mapping[Any, Any], entry: Entry, *, now: datetime) -> Locked | None:
    """Create an appointment's row with its first event; None if another transaction was faster."""
    row = _first_row(values, now)
    insert = _INSERT_POSTGRES if connection.dialect.name == "postgresql" else _INSERT_SQLITE
    if connection.execute(insert, row, execution_options={"preserve_rowcount": True}).rowcount == 0:
        return None
    event = _event(row, {}, entry, seq=1, prev_hash=GENESIS, now=now)
    connection.execute(_APPEND, event)
    return Locked(row, 1, event["hash"], None, None, now)


def begin_all(
    connection: sa.Connection, beginnings: Sequence[tuple[Mapping[Any, Any], Entry]], *, now: datetime
) -> set[str]:
    """Do as `begin` for many appointments, each with another id, in a few statements; give the ids that were new.

    They are written in the order of their ids, so that two transactions that do this wait for each other, at most.
    """
    rows = {values["appointment_id"]: _first_row(values, now) for values, _ in beginnings}
    made = _make_rows(connection, [rows[each] for each in sorted(rows)]) if rows else set()
    events = []
    for values, entry in beginnings:
        if values["appointment_id"] in made:
            row = rows[values["appointment_id"]]
            events.append(_event(row, {}, entry, seq=1, prev_hash=GENESIS, now=now))
    _insert_many(connection, _events, events)
    return made


def _make_rows(connection: sa.Connection, rows: list[dict[str, Any]]) -> set[str]:
    """Insert the rows that are not there yet, and give their ids."""
    if connection.dialect.name == "postgresql":
        returning = _INSERT_POSTGRES.returning(_appointments.c.appointment_id)
        return set(connection.execute(returning, rows).scalars())
    known = set(connection.execute(_THOSE, {"ids": [row["appointment_id"] for row in rows]}).scalars())
    new = [row for row in rows if row["appointment_id"] not in known]
    _insert_many(connection, _appointments, new)
    return {row["appointment_id"] for row in new}


def _insert_many(connection: sa.Connection, table: sa.Table, rows: list[dict[str, Any]]) -> None:
    """Insert rows that have the same columns.

    For SQLite past SQLAlchemy, whose handling of each value takes three times as long as the database itself.
    """
    if not rows:
        return
    if connection.dialect.name == "postgresql":
        connection.execute(sa.insert(table).inline(), rows)
        return
    names = ", ".join(rows[0])
    marks = ", ".join("?" * len(rows[0]))
    values = [tuple(map(_stored, row.values())) for row in rows]
    connection.exec_driver_sql(f"INSERT INTO {table.name} ({names}) VALUES ({marks})", values)  # noqa: S608 # our columns


def _stored(value: object) -> object:
    """Give a value as the types of `models` store it in SQLite."""
    if isinstance(value, datetime):
        return columns.utc_text(value)
    return json.dumps(value) if isinstance(value, dict) else value


def record(connection: sa.Connection, locked: Locked, entry: Entry, **changes: Any) -> Locked:  # noqa: ANN401 # columns
    """Append an event, and with it move the status and change other columns of the row. Needs the row's lock.

    A new start of the visit is told in the event's details, as `start_time`.
    """
    if entry.to_status not in {None, locked.status}:
        known = entry.to_status in chart.STATUSES
        changes |= {"status": entry.to_status, "status_known": known, "status_since": locked.now}
    row = locked.row
    if changes:
        row = _change(connection, locked, changes)
        reach(Point.STATUS_UPDATED)
    if "start_time" in changes:
        entry = replace(entry, details=entry.details | {"start_time": columns.utc_text(changes["start_time"])})
    event = _event(row, locked.row, entry, seq=locked.seq + 1, prev_hash=locked.hash, now=locked.now)
    connection.execute(_APPEND, event)
    reach(Point.AUDIT_INSERTED)
    return replace(locked, row=row, seq=event["appointment_seq"], hash=event["hash"])


def record_all(connection: sa.Connection, entries: Sequence[tuple[Locked, Entry]]) -> None:
    """Append an event for each of many appointments whose locks are held; none of them changes a row's status."""
    _insert_many(
        connection,
        _events,
        [
            _event(locked.row, locked.row, entry, seq=locked.seq + 1, prev_hash=locked.hash, now=locked.now)
            for locked, entry in entries
        ],
    )
    reach(Point.AUDIT_INSERTED)


def seen(connection: sa.Connection, locked: Locked, *, last_modified: datetime | None) -> None:
    """Note that Zocdoc was read and nothing had changed. No event: nothing happened."""
    version = locked.row["version"]
    values = {"observed_at": locked.now, "observed_version": version, "remote_last_modified": last_modified}
    connection.execute(_UPDATE, {**values, "of_appointment": locked.appointment_id, "of_version": version})


def seen_all(connection: sa.Connection, rows: Sequence[tuple[str, int, datetime]], *, now: datetime) -> None:
    """Do as `seen` for many: id, version and last modification of each. One that is at another version stays."""
    if rows:
        values = [
            {
                "observed_at": now,
                "observed_version": version,
                "remote_last_modified": last_modified,
                "of_appointment": appointment_id,
                "of_version": version,
            }
            for appointment_id, version, last_modified in sorted(rows)
        ]
        connection.execute(_UPDATE, values)


def digest(event: Mapping[Any, Any]) -> str:
    """Compute the hash of an audit event, from its columns as stored.

    SHA-256 over the UTF-8 bytes of `lifecycle-audit-1`, a line feed, and a JSON object of every column but `seq` and
    `hash`: keys sorted, no white space, non-ASCII characters as they are, NULL as null, Booleans as true and false,
    instants as `2026-12-01T14:00:00.000000Z`. A verifier in another language needs nothing else.
    """
    content = {name: _plain(event[name]) for name in _HASHED}
    text = _canonical(content)
    return hashlib.sha256(f"lifecycle-audit-{HASH_VERSION}\n{text}".encode()).hexdigest()


def _plain(value: object) -> object:
    return columns.utc_text(value) if isinstance(value, datetime) else value


def _first_row(values: Mapping[Any, Any], now: datetime) -> dict[str, Any]:
    return {
        **dict.fromkeys(_OPTIONAL),
        **values,
        "status_known": values["status"] in chart.STATUSES,
        "status_since": now,
        "version": 1,
        "observed_version": 1,
        "in_doubt": False,
        "observed_at": now,
        "tracked_at": now,
        "updated_at": now,
    }


def _locked(row: Mapping[Any, Any], head: Mapping[Any, Any], now: datetime) -> Locked:
    return Locked(row, head["head_seq"], head["head_hash"], head["active_command_id"], head["active_state"], now)


def _change(connection: sa.Connection, locked: Locked, changes: dict[str, Any]) -> dict[str, Any]:
    version = locked.row["version"]
    changes |= {"version": version + 1, "updated_at": locked.now}
    updated = connection.execute(_UPDATE, {**changes, "of_appointment": locked.appointment_id, "of_version": version})
    if updated.rowcount != 1:
        msg = f"appointment {locked.appointment_id} changed although its lock was held"
        raise AssertionError(msg)
    return {**locked.row, **changes}


def _event(
    row: Mapping[Any, Any], before: Mapping[Any, Any], entry: Entry, *, seq: int, prev_hash: str, now: datetime
) -> dict[str, Any]:
    """Make an event of the appointment whose row it leaves so; `before` is what the row was, empty: it is new."""
    event = {
        "appointment_id": row["appointment_id"],
        "appointment_seq": seq,
        "event": str(entry.event),
        "command": entry.command,
        "from_status": before.get("status"),
        "from_status_since": before.get("status_since"),
        "to_status": row["status"],
        "conforming": entry.conforming,
        "outcome": entry.outcome,
        "reason_code": entry.reason_code,
        "reason_type": entry.reason_type,
        "actor": entry.actor,
        "source": entry.source,
        "provider_location_id": row["provider_location_id"],
        "command_id": entry.command_id,
        "delivery_id": entry.delivery_id,
        "zocdoc_request_id": entry.zocdoc_request_id,
        "http_status": entry.http_status,
        "duration_ms": entry.duration_ms,
        "chart_version": chart.VERSION,
        "occurred_at": entry.occurred_at,
        "recorded_at": now,
        "details": entry.details,
        "hash_version": HASH_VERSION,
        "prev_hash": prev_hash,
    }
    return {**event, "hash": digest(event)}


_canonical: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode
_appointments, _events, _commands = models.appointments, models.audit_events, models.commands
_newest = _events.alias("newest")
_OPTIONAL: Final = tuple(column.name for column in _appointments.columns if column.nullable)
_HASHED: Final = tuple(column.name for column in _events.columns if column.name not in {"seq", "hash"})
_APPEND: Final = sa.insert(_events).inline()
_INSERT_POSTGRES: Final = postgresql.insert(_appointments).on_conflict_do_nothing()
_INSERT_SQLITE: Final = sqlite.insert(_appointments).on_conflict_do_nothing()
_UPDATE: Final = sa.update(_appointments).where(
    _appointments.c.appointment_id == sa.bindparam("of_appointment"),
    _appointments.c.version == sa.bindparam("of_version"),
)
_HEAD_COLUMNS: Final = (
    _events.c.appointment_seq.label("head_seq"),
    _events.c.hash.label("head_hash"),
    _commands.c.command_id.label("active_command_id"),
    _commands.c.state.label("active_state"),
)
_IS_HEAD: Final = sa.and_(
    _events.c.appointment_id == _appointments.c.appointment_id,
    _events.c.appointment_seq
    == sa.select(sa.func.max(_newest.c.appointment_seq))
    .where(_newest.c.appointment_id == _appointments.c.appointment_id)
    .correlate(_appointments)
    .scalar_subquery(),
)
_IS_ACTIVE: Final = sa.and_(
    _commands.c.appointment_id == _appointments.c.appointment_id, models.state_in(*models.ACTIVE_STATES)
)
_WITH_HEAD: Final = _appointments.join(_events, _IS_HEAD).outerjoin(_commands, _IS_ACTIVE)
_THOSE: Final = sa.select(_appointments.c.appointment_id).where(
    _appointments.c.appointment_id.in_(sa.bindparam("ids", expanding=True))
)
_THIS: Final = _appointments.c.appointment_id == sa.bindparam("id")
_THAT: Final = sa.select(_appointments.c.appointment_id).where(_THIS)
_ROW_AND_HEAD: Final = sa.select(_appointments, *_HEAD_COLUMNS).select_from(_WITH_HEAD).where(_THIS)
_ROW_FOR_UPDATE: Final = sa.select(_appointments).where(_THIS).with_for_update(key_share=True)
_ROW_IF_FREE: Final = _THAT.with_for_update(key_share=True, skip_locked=True)
_ROWS_FOR_UPDATE: Final = _THOSE.order_by(_appointments.c.appointment_id).with_for_update(key_share=True)
_ROWS_AND_HEADS: Final = (
    sa.select(_appointments, *_HEAD_COLUMNS)
    .select_from(_WITH_HEAD)
    .where(_appointments.c.appointment_id.in_(sa.bindparam("ids", expanding=True)))
)
_HEAD: Final = sa.select(*_HEAD_COLUMNS, sa.func.clock_timestamp().label("now")).select_from(_WITH_HEAD).where(_THIS)
