"""What a simulated world leaves behind for the checker: Zocdoc's log, the callers' memories, and raw rows."""

from __future__ import annotations

import sqlite3
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from tests.simulation.remote import Remote

Row = dict[str, Any]
Entry = tuple[float, str, str, str, object]
"""When, who, about which appointment, what, and with which facts."""


@dataclass(slots=True)
class Call:
    """One call of the public interface and what its caller was told."""

    actor: str
    kind: str
    appointment_id: str
    command: str = ""
    key: str | None = None
    command_id: str | None = None
    began_at: float = 0.0
    ended_at: float = 0.0
    result: str = ""
    told: Row = field(default_factory=dict)


@dataclass(slots=True)
class Evidence:
    """All of it. `before_sync` is the database before the last reads, `rows` after them."""

    seed: int
    remote: Remote
    calls: list[Call] = field(default_factory=list)
    log: list[Entry] = field(default_factory=list)
    surprises: list[str] = field(default_factory=list)
    cells: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    kills: int = 0
    ended_at: float = 0.0
    settled_in: float = 0.0
    is_settled: bool = False
    before_sync: dict[str, Row] = field(default_factory=dict)
    appointments: dict[str, Row] = field(default_factory=dict)
    commands: dict[str, Row] = field(default_factory=dict)
    events: list[Row] = field(default_factory=list)
    integrity: str = ""


def collect(evidence: Evidence, path: Path) -> None:
    """Read the rows as they are stored."""
    connection = sqlite3.connect(path)
    connection.row_factory = sqlite3.Row
    evidence.appointments = appointments(connection)
    evidence.commands = {row["command_id"]: row for row in _rows(connection, "SELECT * FROM lifecycle_commands")}
    evidence.events = _rows(connection, "SELECT * FROM lifecycle_audit_events ORDER BY seq")
    evidence.integrity = connection.execute("PRAGMA integrity_check").fetchone()[0]
    connection.close()


def appointments(connection: sqlite3.Connection) -> dict[str, Row]:
    """Read the appointments' rows."""
    return {row["appointment_id"]: row for row in _rows(connection, "SELECT * FROM lifecycle_appointments")}


def _rows(connection: sqlite3.Connection, query: str) -> list[Row]:
    connection.row_factory = sqlite3.Row
    return [dict(row) for row in connection.execute(query)]
