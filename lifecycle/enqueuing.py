"""Taking the rows of a batch: each becomes a queued command, or an error of the batch with a code.

Rows are taken in their order, a thousand in one transaction, and the batch's row counts them: so a submission that was
killed is gone on with after the last row that was taken.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from lifecycle import audit, chart, endings, errors, models, submissions, wishes, wishlists
from lifecycle.resources import check_appointment_id, check_instant, check_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

    from lifecycle.resources import Resources
    from lifecycle.submissions import Queued
    from lifecycle.wishlists import Row

NOT_TRACKED: Final = "not_tracked"
KEY_TAKEN: Final = "request_key_taken"

_CHUNK: Final = 1000
"""Rows taken in one transaction: a tenth of a second, so that nobody waits long for what they lock."""

_TRIES: Final = 5
"""Commands may get in the way between two looks; in practice the second one locks all that are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a batch is to be: who asks, its id, and what its rows have if they do not say otherwise."""

    actor: str
    source: str
    command: chart.Command | None = None
    batch_id: str | None = None
    name: str | None = None
    expires_at: datetime | None = None

    def __post_init__(self) -> None:
        """Check it. Raises `InvalidArgument`."""
        check_name("actor", self.actor)
        if self.name is not None:
            check_name("name", self.name)
        if self.batch_id is not None:
            check_name("batch_id", self.batch_id, at_most=36)
        if self.expires_at is not None:
            check_instant("expires_at", self.expires_at)


def submit(
    resources: Resources,
    order: Order,
    rows: Iterable[Row],
    *,
    announce: Callable[[sa.Connection], None],
    on_progress: Callable[[int], object] | None = None,
) -> str:
    """Queue the rows as a batch and give its id; with the id of a batch that there is, go on after its last row.

    `announce` is called in each transaction that queues something, `on_progress` after it with the rows so far. A row
    that cannot be queued is recorded as one: as an error of the batch, or, if another command is in the way, as a
    refused command. A batch that was cancelled takes no more. Raises `InvalidArgument` if the batch is another one's,
    `EnvironmentMismatch`.
    """
    batch_id = order.batch_id or str(uuid.uuid4())
    taken, is_open = _begin(resources, batch_id, order)
    remaining = iter(rows)
    while is_open:
        chunk = list(islice(remaining, _CHUNK))
        chunk_left = [each for each in chunk if each.number > taken]
        if chunk_left or not chunk:
            taken, is_open = _take(resources, batch_id, order, chunk_left, announce=announce, is_last=not chunk)
            if on_progress is not None:
                on_progress(taken)
    return batch_id


def _begin(resources: Resources, batch_id: str, order: Order) -> tuple[int, bool]:
    """Make the batch's row, or find it; tell how many rows were taken, and whether it takes more."""
    with resources.database.write() as connection:
        resources.check_own_environment(connection)  # what its client would never send is not queued
        insert = postgresql.insert if resources.database.is_postgres else sqlite.insert
        values = {
            "batch_id": batch_id,
            "name": order.name,
            "command": order.command,
            "actor": order.actor,
            "source": order.source,
            "total": 0,
            "invalid": 0,
            "created_at": resources.database.now(connection),
        }
        connection.execute(insert(_batches).values(values).on_conflict_do_nothing())
        row = connection.execute(_BATCH, {"id": batch_id}).mappings().one()
        if row["command"] != order.command:
            problem = (
                f"batch {batch_id} is one of {row['command'] or 'several commands'}; leave the id out for a new one"
            )
            raise errors.InvalidArgument(argument="batch_id", problem=problem)
        return row["total"], row["submitted_at"] is None and row["cancelled_at"] is None


def _take(
    resources: Resources,
    batch_id: str,
    order: Order,
    chunk: Sequence[Row],
    *,
    announce: Callable[[sa.Connection], None],
    is_last: bool,
) -> tuple[int, bool]:
    """Take a chunk of rows in one transaction; tell how many were taken in all, and whether the batch takes more."""
    with resources.database.write() as connection:
        row = connection.execute(_BATCH_FOR_UPDATE, {"id": batch_id}).mappings().one()
        if row["cancelled_at"] is not None or row["submitted_at"] is not None:
            return row["total"], False
        # Another process may be submitting the same batch.
        new = [each for each in chunk if each.number > row["total"]]
        problems = _queue(resources, connection, batch_id, order, new)
        total = max((each.number for each in new), default=row["total"])
        values = {
            "of_batch": batch_id,
            "total": total,
            "invalid": row["invalid"] + len(problems),
            "submitted_at": resources.database.now(connection) if is_last else None,
        }
        if problems:
            connection.execute(_INSERT_ERRORS, problems)
        connection.execute(_UPDATE, values)
        if new:
            announce(connection)
    return total, not is_last


def _queue(
    resources: Resources, connection: sa.Connection, batch_id: str, order: Order, chunk: Sequence[Row]
) -> list[dict[str, Any]]:
    """Queue the rows of a chunk, and give those that could not become commands."""
    problems, wanted = [], []
    for given in chunk:
        try:
            wanted.append(_wanted(given, batch_id, order))
        except _Unusable as unusable:
            known = {wishlists.ID: given.appointment_id} if given.values is None else given.values
            problems.append(_problem(batch_id, given.number, known, order, str(unusable)))
    inserted = _insert(resources, connection, wanted) if wanted else set()
    left = sorted((each for each in wanted if each.command_id not in inserted), key=_by_command)
    if not left:
        return problems
    locks = audit.read_all(resources.database, connection, sorted({each.wish.appointment_id for each in left}))
    for each in left:
        code = _refuse(resources, connection, each, locks)
        if code is not None:
            values = {"appointment_id": each.wish.appointment_id, "command": each.wish.command}
            problems.append(_problem(batch_id, each.batch_row, values, order, code))
    return problems


def _insert(resources: Resources, connection: sa.Connection, wanted: Sequence[Queued]) -> set[str]:
    """Insert what can be queued, and give the ids; the appointments of the others are locked then.

    What was in the way may have ended since; what ends now is held up by the locks. They are taken before the counts
    of the batch, as by everybody: so the first try, which knows no locks to take, is undone if it left anything.
    """
    held: set[str] = set()
    for _ in range(_TRIES):
        point = connection.begin_nested()
        if held:
            audit.lock_all(resources.database, connection, sorted(held))
            endings.hold_counts(connection, [(each.batch_id, each.command_id) for each in wanted])
        inserted = submissions.insert(resources, connection, wanted)
        left = {each.wish.appointment_id for each in wanted if each.command_id not in inserted}
        if left <= held:
            point.commit()
            return inserted
        point.rollback()
        held |= left
    problem = "other commands on the appointments come and go; submit again"
    raise errors.DatabaseUnavailable(problem=problem, is_transient=True)


def _by_command(given: Queued) -> str:
    return given.command_id


def _refuse(
    resources: Resources, connection: sa.Connection, given: Queued, locks: dict[str, audit.Locked]
) -> str | None:
    """Record why a row is not queued: as a refused command, or, if there can be none, by giving a code.

    The locks follow: the next row may be about the same appointment.
    """
    appointment_id = given.wish.appointment_id
    if appointment_id not in locks:
        return NOT_TRACKED
    try:
        if submissions.of_same_key(resources, connection, given.wish) is not None:
            return KEY_TAKEN
    except errors.RequestKeyReused:
        return KEY_TAKEN
    locked = locks[appointment_id]
    locks[appointment_id] = submissions.refuse(connection, given, locked, submissions.in_the_way(locked))
    return None


class _Unusable(Exception):
    """A row cannot become a command; the text is the code."""


def _wanted(row: Row, batch_id: str, order: Order) -> Queued:
    """Make the wish of a row. Raises `_Unusable`."""
    if row.values is None:
        raise _Unusable(row.problem or "invalid_row")
    try:
        until = row.values.get("expires_at")
        expires_at = order.expires_at if until is None else wishes.instant_of("expires_at", until)
        wish = wishlists.wish(row.values, actor=order.actor, source=order.source, command=order.command)
    except errors.InvalidArgument as error:
        raise _Unusable(f"invalid_{error.argument}") from None
    return submissions.queued(wish, expires_at=expires_at, batch_id=batch_id, batch_row=row.number)


def _problem(batch_id: str, row: int | None, given: Mapping[str, Any], order: Order, code: str) -> dict[str, Any]:
    """Make the record of a row that could not become a command; of its values only those that are well-formed."""
    command = given.get("command", order.command)
    return {
        "batch_id": batch_id,
        "batch_row": row,
        "appointment_id": _well_formed(given.get("appointment_id")),
        "command": command if isinstance(command, str) and command in set(chart.Command) else None,
        "reason_code": code,
    }


def _well_formed(appointment_id: object) -> str | None:
    try:
        return check_appointment_id(appointment_id)
    except errors.InvalidArgument:
        return None


_batches = models.batches
_BATCH: Final = sa.select(_batches).where(_batches.c.batch_id == sa.bindparam("id"))
_BATCH_FOR_UPDATE: Final = _BATCH.with_for_update(key_share=True)
_UPDATE: Final = sa.update(_batches).where(_batches.c.batch_id == sa.bindparam("of_batch"))
_INSERT_ERRORS: Final = sa.insert(models.batch_errors)
