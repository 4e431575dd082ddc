"""Claiming: taking from the queue what is due, and recording the intents before anything is sent.

The checks run now, on the appointment as it stands, whatever it was when the wish was submitted. Several processes may
claim at once: what one has locked the others pass over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from lifecycle import audit, columns, models, submissions, zocdoc
from lifecycle.decisions import Decisions, Taken
from lifecycle.points import Point, reach

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from lifecycle.resources import Resources

_IDENTITIES_AT_ONCE: Final = 100


def take(
    resources: Resources,
    *,
    most: int,
    clients: Mapping[str, zocdoc.ZocdocClient | None],
    command_id: str | None = None,
) -> Taken:
    """Take up to `most` commands that are due: record the intents of those that may be sent, end the others.

    `clients` has the clients by identity; a command of an identity that is not among them is left to others, and one
    whose client is None is refused. With `command_id` only that one, due or not, whose appointment was just read.
    Opens one transaction; calls nobody. Interactive commands come before those of batches, then by their time.
    """
    claimed_at = zocdoc.clock()
    with resources.database.write() as connection:
        found = _scan(resources, connection, most, list(clients), command_id)
        reach(Point.QUEUE_SCANNED)
        decisions = Decisions(resources, clients, claimed_at, is_read=command_id is not None)
        if found:
            for client in filter(None, clients.values()):
                resources.check_environment(connection, environment=client.environment)
            locks = audit.read_all(resources.database, connection, [each.appointment_id for each in found])
            for row in connection.execute(_THOSE, {"ids": [each.command_id for each in found]}).mappings():
                decisions.judge(row, locks[row["appointment_id"]])
            decisions.write(connection)
    reach(Point.QUEUE_CLAIMED)
    decisions.tell()
    decisions.taken.scanned = len(found)
    return decisions.taken


def next_due(resources: Resources) -> datetime | None:
    """Tell when the next queued command is due; None: nothing is queued. Database only."""
    with resources.database.read() as connection:
        found = [connection.execute(_NEXT, {"priority": each}).scalar() for each in _PRIORITIES]
    return min(filter(None, found), default=None)


def waiting_identities(resources: Resources, *, but: list[str], most: int = _IDENTITIES_AT_ONCE) -> list[str]:
    """List some identities, other than those, with whose credentials queued commands are to be sent. Database only.

    Others each time, if there are more: those whose clients are not to be had now must not keep others from their turn.
    """
    with resources.database.read() as connection:
        return list(connection.execute(_IDENTITIES, {"but": but, "most": most}).scalars())


def count(resources: Resources) -> int:
    """Count the queued commands. Database only."""
    with resources.database.read() as connection:
        return connection.execute(_COUNT).scalar_one()


def _scan(
    resources: Resources, connection: sa.Connection, most: int, identities: list[str], command_id: str | None
) -> Sequence[sa.Row[Any, Any]]:
    """Find what may be taken, and lock its appointments: those that somebody else holds are passed over."""
    if command_id is not None:
        return connection.execute(_THIS, {"id": command_id}).all()
    values: dict[str, Any] = {"most": most, "identities": identities}
    if not resources.database.is_postgres:
        values["now"] = resources.database.now(connection)
    return connection.execute(_DUE_POSTGRES if resources.database.is_postgres else _DUE_SQLITE, values).all()


_PRIORITIES: Final = (submissions.ALONE, submissions.IN_BATCH)

_commands, _appointments, _batches = models.commands, models.appointments, models.batches
_IS_QUEUED: Final = _commands.c.due_at.is_not(None)
_FREE: Final = (
    sa.select(_commands.c.command_id, _commands.c.appointment_id)
    .join_from(_commands, _appointments)
    .with_for_update(key_share=True, skip_locked=True, of=_appointments)
)
_HAS_CLIENT: Final = _appointments.c.booked_with.in_(sa.bindparam("identities", expanding=True))


def _due(now: sa.ColumnElement[Any]) -> sa.Select[Any]:
    """Select what is due and may be sent by this process, or ended: that its time is over needs no credential."""
    return (
        _FREE.where(_IS_QUEUED, _commands.c.due_at <= now, sa.or_(_HAS_CLIENT, _commands.c.expires_at <= now))
        .order_by(_commands.c.priority, _commands.c.due_at)
        .limit(sa.bindparam("most"))
    )


_DUE_POSTGRES: Final = _due(sa.func.now())
_DUE_SQLITE: Final = _due(sa.bindparam("now", type_=columns.UtcDateTime()))
_THIS: Final = _FREE.where(_IS_QUEUED, _commands.c.command_id == sa.bindparam("id"))
_THOSE: Final = (
    sa.select(_commands, _batches.c.cancelled_at)
    .outerjoin_from(_commands, _batches)
    .where(_commands.c.command_id.in_(sa.bindparam("ids", expanding=True)))
    .order_by(_commands.c.priority, _commands.c.due_at)
)
_NEXT: Final = (
    sa.select(_commands.c.due_at)
    .where(_IS_QUEUED, _commands.c.priority == sa.bindparam("priority"))
    .order_by(_commands.c.due_at)
    .limit(1)
)
_waiting = (
    sa.select(_appointments.c.booked_with)
    .join_from(_commands, _appointments)
    .where(_IS_QUEUED, _appointments.c.booked_with.not_in(sa.bindparam("but", expanding=True)))
    .distinct()
    .subquery()
)
_IDENTITIES: Final = sa.select(_waiting).order_by(sa.func.random()).limit(sa.bindparam("most"))
_COUNT: Final = sa.select(sa.func.count()).where(_IS_QUEUED)
