"""Commands that end in the queue, unsent: refused, withdrawn, expired.

A queued command is changed only under its appointment's lock, like every other.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from lifecycle import audit, models, settlement, telemetry
from lifecycle.pending import Pending

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from lifecycle.telemetry import Telemetry

State = models.CommandState


def is_queued(row: Mapping[Any, Any], locked: audit.Locked) -> bool:
    """Tell whether the command is still queued, now that its appointment is locked."""
    return locked.active_command_id == row["command_id"] and locked.active_state == State.QUEUED


def change(connection: sa.Connection, rows: list[dict[str, Any]]) -> None:
    """Change queued commands, all the same columns, in the order of their ids.

    The order keeps two that do this from waiting for each other in a circle: at the counts of a batch.
    """
    if rows:
        connection.execute(_WHILE_QUEUED, sorted(rows, key=_by_command))


def hold_counts(connection: sa.Connection, commands: Iterable[tuple[str | None, str]]) -> None:
    """Lock the counts that changes of these commands will touch, each by its batch (None: it is in none) and its id.

    All at once and in one order, for a transaction that changes them in several statements: else two of these could
    wait for each other in a circle. On SQLite the writing transaction itself is the lock.
    """
    slots = {(batch_id, command_id[:_SLOT]) for batch_id, command_id in commands if batch_id is not None}
    if slots and connection.dialect.name == "postgresql":
        batch_ids, names = zip(*slots, strict=True)
        connection.execute(_HOLD_COUNTS, {"batch_ids": list(batch_ids), "slots": list(names)})


class Endings:
    """Commands that end in the queue, with their events, written in a few statements."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self._entries: list[tuple[audit.Locked, audit.Entry]] = []
        self._ended: list[tuple[str, str]] = []

    def add(
        self,
        row: Mapping[Any, Any],
        locked: audit.Locked,
        state: models.CommandState,
        reason_code: str,
        *,
        actor: str | None = None,
        entry: audit.Entry | None = None,
    ) -> None:
        """End a command; its event is `entry`, or that of its state, by `actor` or by whose command it is."""
        command = Pending.of(row)
        self.rows.append(
            {
                "of_command": row["command_id"],
                "state": state,
                "reason_code": reason_code,
                "payload": settlement.without_text(command),
                "due_at": None,
                "ended_at": locked.now,
                "updated_at": locked.now,
            }
        )
        if entry is None:
            entry = settlement.entry_for(command, _EVENTS[state], row["source"], reason_code=reason_code)
            entry = replace(entry, actor=actor or row["actor"])
        self._entries.append((locked, entry))
        self._ended.append((row["command"], str(state)))

    def write(self, connection: sa.Connection) -> None:
        """Write them."""
        change(connection, self.rows)
        audit.record_all(connection, self._entries)

    def tell(self, hook: Telemetry) -> None:
        """Count them, once they are committed."""
        for command, outcome in self._ended:
            hook.count(telemetry.COMMANDS, 1, {"command": command, "outcome": outcome})


def _by_command(row: Mapping[str, Any]) -> str:
    return str(row["of_command"])


_EVENTS: Final = {State.WITHDRAWN: audit.Event.COMMAND_WITHDRAWN, State.EXPIRED: audit.Event.COMMAND_EXPIRED}
_SLOT: Final = 2
"""Letters of a command's id that name its slot: as the triggers have it."""

_counts: Final = models.batch_counts
_HOLD_COUNTS: Final = sa.text(
    f"INSERT INTO {_counts.name} AS counts (batch_id, slot, {', '.join(State)}) "  # noqa: S608 # ours
    f"SELECT batch_id, slot, {', '.join('0' for _ in State)} "
    "FROM unnest(CAST(:batch_ids AS text[]), CAST(:slots AS text[])) AS held (batch_id, slot) ORDER BY 1, 2 "
    "ON CONFLICT (batch_id, slot) DO UPDATE SET queued = counts.queued"
)
_WHILE_QUEUED: Final = sa.update(models.commands).where(
    models.commands.c.command_id == sa.bindparam("of_command"), models.state_in(State.QUEUED)
)
