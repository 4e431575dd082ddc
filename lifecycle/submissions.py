"""Submitting: recording a wish that somebody carries out later, in our own transaction or in the caller's.

A wish is a command in state `queued`. It is written without the appointment's lock, so that a caller's long transaction
holds nobody up; whether the command is allowed is decided when it is dispatched. That it is queued is no event of the
trail: what comes of it is.
"""

from __future__ import annotations

import json
import uuid
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from lifecycle import audit, columns, errors, models, outcomes, refusals
from lifecycle.points import Point, reach

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from lifecycle.resources import Resources
    from lifecycle.wishes import Wish

State = models.CommandState

ALONE: Final = 0
IN_BATCH: Final = 10
"""Priorities: what somebody submits alone does not wait behind a batch."""

_TRIES: Final = 3
"""An active command in the way may end between two looks; in practice the second one tells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued:
    """A wish that is to be queued. `expires_at` is aware, None: never; the batch and its row go together."""

    wish: Wish
    command_id: str
    expires_at: datetime | None = None
    batch_id: str | None = None
    batch_row: int | None = None


def queued(wish: Wish, **facts: Any) -> Queued:  # noqa: ANN401 # fields
    """Make a wish ready for the queue, with a new command id."""
    return Queued(wish=wish, command_id=str(uuid.uuid4()), **facts)


def submit(
    resources: Resources,
    wish: Wish,
    *,
    expires_at: datetime | None,
    announce: Callable[[sa.Connection], None],
    connection: sa.Connection | None = None,
) -> str:
    """Queue a wish and give its command's id; if its request key has a command already, that one's.

    `announce` is called in the transaction. That is one of its own, or the caller's on `connection`: then the command
    is there once that is committed, and a wish that cannot be queued leaves the transaction usable. Raises
    `AppointmentNotFound`, `EnvironmentMismatch`, `RequestKeyReused`, `CommandInProgress` (in the trail only if the
    transaction is our own: a caller's would have to lock the appointment).
    """
    given = queued(wish, expires_at=expires_at)
    with resources.database.write() if connection is None else nullcontext(connection) as used:
        resources.check_own_environment(used)  # what its client would never send is not queued
        for _ in range(_TRIES):
            if insert(resources, used, [given]):
                reach(Point.WISH_QUEUED)
                announce(used)
                return given.command_id
            first = of_same_key(resources, used, wish)
            if first is not None:
                return first
            refusal = _obstacle(resources, used, wish, is_own=connection is None)
            if refusal is not None:
                break
        else:
            problem = "other commands on the appointment come and go; submit again"
            raise errors.DatabaseUnavailable(problem=problem, is_transient=True)
    raise refusal


def insert(resources: Resources, connection: sa.Connection, wanted: Sequence[Queued]) -> set[str]:
    """Insert wishes as queued commands, in one statement, and give the ids of those that went in.

    The others name an appointment that is not tracked or has an active command, or a request key that is taken. The
    baseline is the appointment as it stands; dispatch takes another.
    """
    now = resources.database.now(connection)
    rows = json.dumps([_row(resources, connection, each) for each in wanted])
    statement = _INSERT_POSTGRES if resources.database.is_postgres else _INSERT_SQLITE
    return set(connection.execute(statement, {"rows": rows, "now": columns.utc_text(now)}).scalars())


def of_same_key(resources: Resources, connection: sa.Connection, wish: Wish) -> str | None:
    """Give the id of the command that holds the wish's request key. Raises `RequestKeyReused` for another wish."""
    if wish.request_key is None:
        return None
    row = connection.execute(outcomes.BY_KEY, {"key": wish.request_key}).mappings().one_or_none()
    if row is None:
        return None
    outcomes.check_same(row, wish, _digest(resources, connection, wish))
    return str(row["command_id"])


def refuse(connection: sa.Connection, given: Queued, locked: audit.Locked, reasons: tuple[str, ...]) -> audit.Locked:
    """Record a wish of a batch that cannot be queued, as a command that has ended, with its event. Needs the lock."""
    values = {**row_of(given, locked), "state": State.REFUSED, "reason_code": reasons[0], "ended_at": locked.now}
    connection.execute(_INSERT_ENDED, values)
    return refusals.record(connection, locked, given.wish, reasons, command_id=given.command_id)


def row_of(given: Queued, locked: audit.Locked) -> dict[str, Any]:
    """Make the row of a wish of a batch, without its state and without free text. Pure."""
    wish = given.wish
    return {
        "command_id": given.command_id,
        "appointment_id": wish.appointment_id,
        "command": wish.command,
        "payload": {name: value for name, value in wish.payload.items() if name != "reason"},
        "actor": wish.actor,
        "source": wish.source,
        "attempt": 0,
        "queued_at": locked.now,
        "priority": IN_BATCH,
        "baseline_status": locked.status,
        "baseline_start_time": locked.row["start_time"],
        "unchanged_reads": 0,
        "failed_reads": 0,
        "batch_id": given.batch_id,
        "batch_row": given.batch_row,
        "created_at": locked.now,
        "updated_at": locked.now,
    }


def in_the_way(locked: audit.Locked) -> tuple[str, ...]:
    """Give the reasons for which an appointment's active command refuses another; none if there is no such command."""
    if locked.active_state is None:
        return ()
    return ("outcome_in_doubt" if locked.active_state == State.UNCERTAIN else "command_in_progress",)


def _obstacle(
    resources: Resources, connection: sa.Connection, wish: Wish, *, is_own: bool
) -> errors.LifecycleError | None:
    """Tell why a wish cannot be queued; None: what was in the way is gone."""
    look = audit.lock if is_own else audit.peek
    locked = look(resources.database, connection, wish.appointment_id)
    if locked is None:
        return errors.AppointmentNotFound(appointment_id=wish.appointment_id)
    reasons = in_the_way(locked)
    if not reasons:
        return None
    if is_own:
        refusals.record(connection, locked, wish, reasons)
    return refusals.error(locked, wish, reasons)


def _row(resources: Resources, connection: sa.Connection, given: Queued) -> dict[str, Any]:
    wish = given.wish
    return {
        "command_id": given.command_id,
        "appointment_id": wish.appointment_id,
        "command": str(wish.command),
        "payload": wish.payload,
        "payload_digest": _digest(resources, connection, wish),
        "actor": wish.actor,
        "source": wish.source,
        "request_key": wish.request_key,
        "priority": ALONE if given.batch_id is None else IN_BATCH,
        "expires_at": None if given.expires_at is None else columns.utc_text(given.expires_at),
        "batch_id": given.batch_id,
        "batch_row": given.batch_row,
    }


def _digest(resources: Resources, connection: sa.Connection, wish: Wish) -> str | None:
    """Make the digest that a request key's second use is judged by; None without a key.

    None also before the database's first use: then no appointment is tracked, and nothing will be queued.
    """
    key = None if wish.request_key is None else resources.digest_key(connection)
    return None if key is None else outcomes.digest_of(wish, key)


_commands, _appointments = models.commands, models.appointments
_INSERT_ENDED: Final = sa.insert(_commands)
_TEXTS: Final = (
    *("command_id", "appointment_id", "command", "payload_digest", "actor", "source", "request_key", "expires_at"),
    "batch_id",
)
_NUMBERS: Final = ("priority", "batch_row")


def _insert(source: str, instant: str) -> sa.TextClause:
    """Write the statement, which takes its rows as JSON: one parameter, one plan, however many there are.

    In the order of the appointments' ids, so that two of them cannot wait for each other in a circle.
    """
    values = {
        "command_id": "r.command_id",
        "appointment_id": "a.appointment_id",
        "command": "r.command",
        "payload": "r.payload",
        "payload_digest": "r.payload_digest",
        "actor": "r.actor",
        "source": "r.source",
        "request_key": "r.request_key",
        "state": "'queued'",
        "attempt": "0",
        "queued_at": instant.format(":now"),
        "priority": "r.priority",
        "due_at": instant.format(":now"),
        "expires_at": instant.format("r.expires_at"),
        "baseline_status": "a.status",
        "baseline_start_time": "a.start_time",
        "unchanged_reads": "0",
        "failed_reads": "0",
        "batch_id": "r.batch_id",
        "batch_row": "r.batch_row",
        "created_at": instant.format(":now"),
        "updated_at": instant.format(":now"),
    }
    return sa.text(
        f"INSERT INTO {_commands.name} ({', '.join(values)}) SELECT {', '.join(values.values())} "  # noqa: S608 # ours
        f"FROM {source} JOIN {_appointments.name} a ON a.appointment_id = r.appointment_id WHERE TRUE "
        f"ORDER BY a.appointment_id, r.batch_row ON CONFLICT DO NOTHING RETURNING command_id"
    )


_INSERT_POSTGRES: Final = _insert(
    "jsonb_to_recordset(CAST(:rows AS jsonb)) AS r("
    + ", ".join([*(f"{name} text" for name in _TEXTS), *(f"{name} integer" for name in _NUMBERS), "payload jsonb"])
    + ")",
    "CAST({} AS timestamptz)",
)
_INSERT_SQLITE: Final = _insert(
    "(SELECT "  # noqa: S608 # constants
    + ", ".join(f"json_extract(value, '$.{name}') AS {name}" for name in (*_TEXTS, *_NUMBERS, "payload"))
    + " FROM json_each(:rows)) r",
    "{}",
)
