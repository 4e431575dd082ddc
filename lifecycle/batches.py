"""Batches: many wishes submitted together, and how far they are. All of it is in the database, whatever the engine.

Rows of the input are taken in their order, a thousand in one transaction, and the batch's row counts them: so a
submission that was killed is gone on with after the last row that was taken.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import uuid
from dataclasses import dataclass, fields
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from lifecycle import audit, chart, columns, errors, models, submissions, wishes, withdrawals
from lifecycle.resources import check_appointment_id, check_instant, check_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from lifecycle.database import Database
    from lifecycle.resources import Resources
    from lifecycle.submissions import Queued

State = models.CommandState

INVALID: Final = "invalid"
"""State of a row of the input that could not become a command."""

NOT_TRACKED: Final = "not_tracked"
KEY_TAKEN: Final = "request_key_taken"

_CHUNK: Final = 1000
"""Rows taken in one transaction: a tenth of a second, so that nobody waits long for what they lock."""

_PAGE: Final = 1000
_NAMESPACE: Final = uuid.UUID("5d0f3c63-6b6f-4f43-9b21-0c8a4a4e5a6e")
_COLUMNS: Final = frozenset(
    {"appointment_id", "command", "start_time", "reason_type", "reason", "request_key", "expires_at"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """A row of a batch's input: its number, from 1, its values, and a code of what is wrong with it, if anything."""

    row: int
    values: Mapping[str, Any]
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How many rows of a batch are in each state. `invalid`: they could not become commands.

    `is_submitted`: all rows were taken, or no more will be, because the batch was cancelled.
    """

    total: int
    queued: int
    sending: int
    uncertain: int
    applied: int
    rejected: int
    not_sent: int
    refused: int
    withdrawn: int
    expired: int
    needs_attention: int
    invalid: int
    is_submitted: bool

    @property
    def ended(self) -> int:
        """How many rows will not change any more by themselves."""
        return self.total - self.queued - self.sending - self.uncertain

    @property
    def is_finished(self) -> bool:
        """Tell whether all rows were taken and all of them have ended."""
        return self.is_submitted and self.ended == self.total


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchInfo:
    """A batch. `submitted_at` None: its submission goes on, or was cut off. Instants are UTC."""

    batch_id: str
    name: str | None
    command: str | None
    actor: str
    source: str
    total: int
    created_at: datetime
    submitted_at: datetime | None
    cancelled_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRow:
    """A row of a batch and what became of it. `state` is `invalid` if it could not become a command. UTC."""

    row: int
    appointment_id: str | None
    command: str | None
    command_id: str | None
    state: str
    reason_code: str | None
    http_status: int | None
    zocdoc_request_id: str | None
    attempt: int
    ended_at: datetime | None


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
    rows: Iterable[Given],
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
        chunk_left = [each for each in chunk if each.row > taken]
        if chunk_left or not chunk:
            taken, is_open = _take(resources, batch_id, order, chunk_left, announce=announce, is_last=not chunk)
            if on_progress is not None:
                on_progress(taken)
    return batch_id


def identity(resources: Resources, *parts: str) -> str:
    """Make the id of a batch out of what is wanted, so that the same wish finds the batch again. Database only.

    The id tells nothing of the parts to who has not the database's own key.
    """
    with resources.database.read() as connection:
        key = resources.digest_key(connection) or b""
    digest = hmac.new(key, json.dumps(parts).encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()
    return str(uuid.uuid5(_NAMESPACE, digest))


def progress(database: Database, batch_id: str) -> Progress:
    """Count the rows of a batch by state. Raises `BatchNotFound`. Database only, one small query."""
    with database.read() as connection:
        row = connection.execute(_PROGRESS, {"id": batch_id}).mappings().one_or_none()
    if row is None:
        raise errors.BatchNotFound(batch_id=batch_id)
    return Progress(**row)


def info(database: Database, batch_id: str) -> BatchInfo:
    """Read a batch. Raises `BatchNotFound`. Database only."""
    with database.read() as connection:
        row = connection.execute(_INFO.where(_batches.c.batch_id == batch_id)).mappings().one_or_none()
    if row is None:
        raise errors.BatchNotFound(batch_id=batch_id)
    return BatchInfo(**row)


def infos(database: Database, *, limit: int | None) -> Iterator[BatchInfo]:
    """Iterate over the batches, newest first. Database only."""
    newest_first = _INFO.order_by(_batches.c.created_at.desc(), _batches.c.batch_id).limit(limit)
    with database.read() as connection:
        rows = connection.execute(newest_first).mappings().all()
    return (BatchInfo(**row) for row in rows)


def rows(database: Database, batch_id: str, *, failures_only: bool = False) -> Iterator[BatchRow]:
    """Iterate over the rows of a batch in their order; a page at a time, so that memory stays flat. Database only.

    `failures_only`: those that ended otherwise than applied. Raises `BatchNotFound`.
    """
    info(database, batch_id)
    return _pages(database, batch_id, failures_only=failures_only)


def cancel(resources: Resources, batch_id: str, *, actor: str) -> int:
    """Withdraw what of a batch is still queued, and tell how many commands that were. Raises `BatchNotFound`.

    What is being sent ends as it does, but is not sent again.
    """
    check_name("actor", actor)
    with resources.database.write() as connection:
        values = {"of_batch": batch_id, "at": resources.database.now(connection)}
        if connection.execute(_CANCEL, values).rowcount == 0:
            raise errors.BatchNotFound(batch_id=batch_id)
    return withdrawals.withdraw_batch(resources, batch_id, actor=actor)


def _begin(resources: Resources, batch_id: str, order: Order) -> tuple[int, bool]:
    """Make the batch's row, or find it; tell how many rows were taken, and whether it takes more."""
    with resources.database.write() as connection:
        _check_environment(resources, connection)
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


def _check_environment(resources: Resources, connection: sa.Connection) -> None:
    """Refuse what a client of another environment would never send. Raises `EnvironmentMismatch`."""
    client = resources.clients.default
    if client is not None and resources.digest_key(connection) is not None:
        resources.check_environment(connection, environment=client.environment)


def _take(
    resources: Resources,
    batch_id: str,
    order: Order,
    chunk: Sequence[Given],
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
        new = [each for each in chunk if each.row > row["total"]]
        problems = _queue(resources, connection, batch_id, order, new)
        total = max((each.row for each in new), default=row["total"])
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
    resources: Resources, connection: sa.Connection, batch_id: str, order: Order, chunk: Sequence[Given]
) -> list[dict[str, Any]]:
    """Queue the rows of a chunk, and give those that could not become commands."""
    problems, wanted = [], []
    for given in chunk:
        try:
            wanted.append(_wanted(given, batch_id, order))
        except _Problem as problem:
            problems.append(_problem(batch_id, given.row, given.values, order, str(problem)))
    inserted = submissions.insert(resources, connection, wanted) if wanted else set()
    left = [each for each in wanted if each.command_id not in inserted]
    if not left:
        return problems
    ids = sorted({each.wish.appointment_id for each in left})
    audit.lock_all(resources.database, connection, ids)
    # What was in the way may have ended since; what ends now is held up by the locks.
    inserted = submissions.insert(resources, connection, left)
    locks = audit.read_all(resources.database, connection, ids)
    for each in left:
        if each.command_id in inserted:
            continue
        code = _refuse(resources, connection, each, locks)
        if code is not None:
            values = {"appointment_id": each.wish.appointment_id, "command": each.wish.command}
            problems.append(_problem(batch_id, each.batch_row, values, order, code))
    return problems


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


class _Problem(Exception):
    """A row cannot become a command; the text is the code."""


def _wanted(given: Given, batch_id: str, order: Order) -> Queued:
    """Make the wish of a row. Raises `_Problem`."""
    if given.problem is not None:
        raise _Problem(given.problem)
    values = {name: value for name, value in given.values.items() if value is not None}
    if not values.keys() <= _COLUMNS:
        raise _Problem("invalid_column")
    try:
        given_until = values.get("expires_at", order.expires_at)
        expires_at = None if given_until is None else wishes.instant_of("expires_at", given_until)
        wish = wishes.of(
            values.get("command", order.command),
            values.get("appointment_id"),
            actor=order.actor,
            source=order.source,
            request_key=values.get("request_key"),
            start_time=values.get("start_time"),
            reason_type=values.get("reason_type"),
            reason=values.get("reason"),
        )
    except errors.InvalidArgument as error:
        raise _Problem(f"invalid_{error.argument}") from None
    return submissions.queued(wish, expires_at=expires_at, batch_id=batch_id, batch_row=given.row)


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


def _pages(database: Database, batch_id: str, *, failures_only: bool) -> Iterator[BatchRow]:
    commands = _FAILED if failures_only else _ROWS
    after = 0
    while True:
        values = {"id": batch_id, "after": after, "most": _PAGE}
        with database.read() as connection:
            found = [dict(row) for row in connection.execute(commands, values).mappings()]
            found += [dict(row) for row in connection.execute(_ERRORS, values).mappings()]
        page = sorted(found, key=lambda row: row["row"])[:_PAGE]
        yield from (BatchRow(**row) for row in page)
        if len(page) < _PAGE:
            return
        after = page[-1]["row"]


_batches, _counts, _errors = models.batches, models.batch_counts, models.batch_errors
_commands = models.commands
_this = _batches.c.batch_id == sa.bindparam("id")
_BATCH: Final = sa.select(_batches).where(_this)
_BATCH_FOR_UPDATE: Final = _BATCH.with_for_update(key_share=True)
_INFO: Final = sa.select(*(_batches.c[field.name] for field in fields(BatchInfo)))
_UPDATE: Final = sa.update(_batches).where(_batches.c.batch_id == sa.bindparam("of_batch"))
_CANCEL: Final = _UPDATE.values(
    cancelled_at=sa.func.coalesce(_batches.c.cancelled_at, sa.bindparam("at", type_=columns.UtcDateTime()))
)
_INSERT_ERRORS: Final = sa.insert(_errors)
_PROGRESS: Final = (
    sa.select(
        _batches.c.total,
        _batches.c.invalid,
        sa.func.coalesce(_batches.c.submitted_at, _batches.c.cancelled_at).is_not(None).label("is_submitted"),
        *(sa.func.coalesce(sa.func.sum(_counts.c[str(state)]), 0).label(str(state)) for state in State),
    )
    .outerjoin_from(_batches, _counts)
    .where(_this)
    .group_by(_batches.c.batch_id)
)
_ROWS: Final = (
    sa.select(
        _commands.c.batch_row.label("row"),
        *(
            _commands.c[name]
            for name in ("appointment_id", "command", "command_id", "state", "reason_code", "http_status")
        ),
        *(_commands.c[name] for name in ("zocdoc_request_id", "attempt", "ended_at")),
    )
    .where(_commands.c.batch_id == sa.bindparam("id"), _commands.c.batch_row > sa.bindparam("after"))
    .order_by(_commands.c.batch_row)
    .limit(sa.bindparam("most"))
)
_FAILED: Final = _ROWS.where(_commands.c.state.not_in([str(state) for state in (State.APPLIED, *models.ACTIVE_STATES)]))
_ERRORS: Final = (
    sa.select(
        _errors.c.batch_row.label("row"),
        _errors.c.appointment_id,
        _errors.c.command,
        sa.null().label("command_id"),
        sa.literal(INVALID).label("state"),
        _errors.c.reason_code,
        sa.null().label("http_status"),
        sa.null().label("zocdoc_request_id"),
        sa.literal(0).label("attempt"),
        sa.null().label("ended_at"),
    )
    .where(_errors.c.batch_id == sa.bindparam("id"), _errors.c.batch_row > sa.bindparam("after"))
    .order_by(_errors.c.batch_row)
    .limit(sa.bindparam("most"))
)
