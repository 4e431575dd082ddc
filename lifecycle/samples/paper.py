"""Paper: takes what the engine writes about one appointment in place of a database's connection.

So the bulk generator needs no second telling of what a command, a lost answer or a read does to the rows: the engine's
own functions write, and what they would have sent as SQL is kept as rows. It knows the few statements that they use,
by kind and table, and refuses any other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from lifecycle import audit, models

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

_OPEN: Final = frozenset({models.CommandState.UNCERTAIN, models.CommandState.NEEDS_ATTENTION})
_NO_COMMAND: Final = dict.fromkeys(column.name for column in models.commands.columns)


class Paper:
    """The rows of one appointment while its story is told; values are what the columns' types take."""

    dialect: Final = postgresql.dialect()  # type: ignore[no-untyped-call] # SQLAlchemy leaves it untyped

    def __init__(self) -> None:
        self.appointment: dict[str, Any] = {}
        self.commands: dict[str, dict[str, Any]] = {}
        self.events: list[dict[str, Any]] = []

    def locked(self, now: datetime) -> audit.Locked:
        """Give what `audit.lock` reads of a tracked appointment."""
        head = self.events[-1]
        active = next((row for row in self.commands.values() if row["state"] in models.ACTIVE_STATES), None)
        command_id, state = (None, None) if active is None else (active["command_id"], str(active["state"]))
        return audit.Locked(dict(self.appointment), head["appointment_seq"], head["hash"], command_id, state, now)

    def execute(
        self,
        statement: sa.Executable,
        values: Mapping[str, Any] | list[dict[str, Any]] | None = None,
        **_options: object,
    ) -> Written:
        """Keep what a statement of the engine writes, or answer the one question that it asks."""
        if isinstance(values, list):
            return Written(sum(self.execute(statement, each).rowcount for each in values))
        given = dict(values or {})
        if isinstance(statement, sa.Insert):
            return self._insert(statement.table, given)
        if isinstance(statement, sa.Update):
            return self._update(statement.table, given)
        # What `settlement.doubt_left` asks: how many commands are in doubt.
        return Written(sum(row["state"] in _OPEN for row in self.commands.values()))

    def _insert(self, table: object, row: dict[str, Any]) -> Written:
        if table is models.audit_events:
            self.events.append(row)
        elif table is models.commands:
            self.commands[row["command_id"]] = {**_NO_COMMAND, **row}
        elif table is models.appointments:
            self.appointment = row
        else:
            raise AssertionError(table)
        return Written(1)

    def _update(self, table: object, changes: dict[str, Any]) -> Written:
        if table is models.commands:
            row = self.commands[changes.pop("of_command")]
            changes.pop("of_attempt", None)
        elif table is models.appointments:
            row = self.appointment
            del changes["of_appointment"], changes["of_version"]
        else:
            raise AssertionError(table)
        row.update(changes)
        return Written(1)


class Written:
    """What a statement came to: rows written, or the number that was asked for."""

    __slots__ = ("rowcount",)

    def __init__(self, count: int) -> None:
        self.rowcount = count

    def scalar_one(self) -> int:
        """Give the number."""
        return self.rowcount
