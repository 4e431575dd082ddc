"""What a simulated world leaves behind for the checker: Zocdoc's log, the callers' memories, and raw rows."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.simulation.remote import Intent, Witness

if TYPE_CHECKING:
    from pathlib import Path

    from tests.simulation.remote import Remote

Row = dict[str, Any]
Entry = tuple[float, str, str, str, object]
"""When, who, about which appointment, what, and with which facts."""


@dataclass(slots=True)
class Call:
    """One call of the public interface and what its caller was told: `Done`, or the error and its facts."""

    actor: str
    kind: str
    appointment_id: str
    command: str
    key: str | None
    command_id: str
    result: str = ""
    told: Row = field(default_factory=dict)
    batch_id: str = ""
    transaction: str = ""
    rows: int = 0


@dataclass(slots=True)
class Evidence:
    """All of it. `before_sync` is the appointments' rows before the last sync, `after_sync` after it."""

    seed: int
    remote: Remote
    calls: list[Call] = field(default_factory=list)
    log: list[Entry] = field(default_factory=list)
    surprises: list[str] = field(default_factory=list)
    cells: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    kills: int = 0
    settled_in: float = 0.0
    is_settled: bool = False
    before_sync: dict[str, Row] = field(default_factory=dict)
    after_sync: dict[str, Row] = field(default_factory=dict)
    appointments: dict[str, Row] = field(default_factory=dict)
    commands: dict[str, Row] = field(default_factory=dict)
    events: list[Row] = field(default_factory=list)
    deliveries: dict[str, Row] = field(default_factory=dict)
    batches: dict[str, Row] = field(default_factory=dict)
    batch_counts: list[Row] = field(default_factory=list)
    batch_errors: list[Row] = field(default_factory=list)
    integrity: str = ""


def collect(evidence: Evidence, path: Path) -> None:
    """Read the rows as they are stored."""
    with closing(sqlite3.connect(path)) as connection:
        evidence.appointments = appointments(connection)
        evidence.commands = {row["command_id"]: row for row in _rows(connection, "SELECT * FROM lifecycle_commands")}
        evidence.events = _rows(connection, "SELECT * FROM lifecycle_audit_events ORDER BY seq")
        query = "SELECT * FROM lifecycle_webhook_deliveries"
        evidence.deliveries = {row["delivery_id"]: row for row in _rows(connection, query)}
        evidence.batches = {row["batch_id"]: row for row in _rows(connection, "SELECT * FROM lifecycle_batches")}
        evidence.batch_counts = _rows(connection, "SELECT * FROM lifecycle_batch_counts")
        evidence.batch_errors = _rows(connection, "SELECT * FROM lifecycle_batch_errors")
        evidence.integrity = connection.execute("PRAGMA integrity_check").fetchone()[0]


def appointments(connection: sqlite3.Connection) -> dict[str, Row]:
    """Read the appointments' rows."""
    return {row["appointment_id"]: row for row in _rows(connection, "SELECT * FROM lifecycle_appointments")}


def witness(connection: sqlite3.Connection, appointment_id: str) -> Witness:
    """Look at the database as another process does while a request arrives at Zocdoc."""
    active = connection.execute(
        "SELECT command_id, state, attempt, actor, baseline_status, baseline_start_time, baseline_last_modified"
        " FROM lifecycle_commands"
        " WHERE appointment_id = ? AND state IN ('queued', 'sending', 'uncertain')",
        (appointment_id,),
    ).fetchall()
    head = connection.execute(
        "SELECT appointment_seq, hash FROM lifecycle_audit_events WHERE appointment_id = ?"
        " ORDER BY appointment_seq DESC LIMIT 1",
        (appointment_id,),
    ).fetchone()
    rows = connection.execute("SELECT max(seq) FROM lifecycle_audit_events").fetchone()[0]
    return Witness(is_locked(connection), tuple(Intent(*row) for row in active), head, rows or 0)


def is_locked(connection: sqlite3.Connection) -> bool:
    """Tell whether somebody holds the write lock, which nobody may while HTTP is in the air."""
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError:
        return True
    connection.execute("ROLLBACK")
    return False


def _rows(connection: sqlite3.Connection, query: str) -> list[Row]:
    cursor = connection.execute(query)
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]
