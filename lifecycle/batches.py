"""Batches: how far many wishes are that were submitted together. All of it is in the database, whatever the engine."""

from __future__ import annotations

import hashlib
import hmac
import json
import uuid
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from lifecycle import columns, errors, models, withdrawals
from lifecycle.resources import check_name

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from lifecycle.database import Database
    from lifecycle.resources import Resources

State = models.CommandState

INVALID: Final = "invalid"
"""State of a row of the input that could not become a command."""

_PAGE: Final = 1000
_NAMESPACE: Final = uuid.UUID("5d0f3c63-6b6f-4f43-9b21-0c8a4a4e5a6e")


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

    What is being sent ends as it does, but is not sent again. Whoever was about to send others withdraws them as well.
    """
    check_name("actor", actor)
    withdrawn_before = progress(resources.database, batch_id).withdrawn
    with resources.database.write() as connection:
        values = {"of_batch": batch_id, "at": resources.database.now(connection)}
        connection.execute(_CANCEL, values)
    withdrawals.withdraw_batch(resources, batch_id, actor=actor)
    return progress(resources.database, batch_id).withdrawn - withdrawn_before


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
_INFO: Final = sa.select(*(_batches.c[field.name] for field in fields(BatchInfo)))
_CANCEL: Final = (
    sa.update(_batches)
    .where(_batches.c.batch_id == sa.bindparam("of_batch"))
    .values(cancelled_at=sa.func.coalesce(_batches.c.cancelled_at, sa.bindparam("at", type_=columns.UtcDateTime())))
)
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
