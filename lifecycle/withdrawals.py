"""Taking back what was submitted and has not been sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from lifecycle import audit, endings, models

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lifecycle.resources import Resources

State = models.CommandState

WITHDRAWN: Final = "withdrawn"
BATCH_CANCELLED: Final = "batch_cancelled"

_MOST: Final = 500
"""Commands that are withdrawn in one transaction."""


def withdraw(resources: Resources, command_id: str, *, actor: str) -> bool:
    """Take a queued command back; False if it is no longer queued, or never was. Opens one transaction."""
    with resources.database.write() as connection:
        rows = connection.execute(_THIS, {"id": command_id}).mappings().all()
        ends = _withdraw(resources, connection, rows, actor=actor, reason_code=WITHDRAWN)
    ends.tell(resources.telemetry)
    return len(ends.rows) == 1


def withdraw_batch(resources: Resources, batch_id: str, *, actor: str) -> None:
    """Take back what of a batch is still queued. Opens a transaction for every few hundred."""
    after = 0
    while True:
        with resources.database.write() as connection:
            values = {"batch_id": batch_id, "after": after, "most": _MOST}
            rows = connection.execute(_OF_BATCH, values).mappings().all()
            ends = _withdraw(resources, connection, rows, actor=actor, reason_code=BATCH_CANCELLED)
        ends.tell(resources.telemetry)
        if len(rows) < _MOST:
            return
        after = rows[-1]["batch_row"]


def _withdraw(
    resources: Resources,
    connection: sa.Connection,
    rows: Sequence[Mapping[Any, Any]],
    *,
    actor: str,
    reason_code: str,
) -> endings.Endings:
    queued = [row for row in rows if row["state"] == State.QUEUED]
    locks = audit.lock_all(resources.database, connection, sorted(row["appointment_id"] for row in queued))
    ends = endings.Endings()
    for row in queued:
        locked = locks[row["appointment_id"]]
        if endings.is_queued(row, locked):
            ends.add(row, locked, State.WITHDRAWN, reason_code, actor=actor)
    ends.write(connection)
    return ends


_commands = models.commands
_THIS: Final = sa.select(_commands).where(_commands.c.command_id == sa.bindparam("id"))
_OF_BATCH: Final = (
    sa.select(_commands)
    .where(
        _commands.c.batch_id == sa.bindparam("batch_id"),
        _commands.c.batch_row > sa.bindparam("after"),
        models.state_in(State.QUEUED),
    )
    .order_by(_commands.c.batch_row)
    .limit(sa.bindparam("most"))
)
