"""Drift: where Zocdoc's truth and ours parted, from the audit trail and the tables. Database only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from lifecycle import audit, errors, models, reconciliation
from lifecycle.columns import UtcDateTime

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lifecycle.database import Database

_PAGE: Final = 500
"""Rows read at a time while iterating: no transaction stays open while the caller works on them."""

TOLD: Final = "webhook_told"
UNTOLD: Final = "no_webhook"


class Kind(StrEnum):
    """How they parted."""

    NOT_CONFORMING = "not_conforming"  # Zocdoc reported a status that the chart does not have there
    IN_DOUBT = "in_doubt"  # a command's outcome is not known now
    FOUND_BY_SYNC = "found_by_sync"  # Zocdoc had changed, and only sync noticed


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """One time that we and Zocdoc were, or are, apart. Instants are UTC.

    `not_conforming`: from and to are the reported move, until the status moved on; `reason` is the event. `in_doubt`:
    from the status at intent to the one that was wanted (None: several may do), since the answer was lost; `reason`
    is why. `found_by_sync`: since the change at Zocdoc until it was recorded here; `reason` is `webhook_told` if a
    webhook call of that appointment came in between, or `no_webhook`. `until` is None while it lasts, and
    `lasted_seconds` counts up to now then.
    """

    kind: str
    appointment_id: str
    from_status: str | None
    to_status: str | None
    since: datetime
    until: datetime | None
    lasted_seconds: float
    reason: str | None
    command_id: str | None


def drift(database: Database, *, since: datetime | None) -> Iterator[Drift]:
    """Iterate over what has drifted, kind by kind; `since`: recorded at or after that instant.

    What is in doubt is in doubt now, so it is given whatever `since` says. Raises `InvalidArgument` for an instant
    without an offset. Memory stays flat.
    """
    if since is not None and (not isinstance(since, datetime) or since.utcoffset() is None):
        raise errors.InvalidArgument(argument="since", problem="an instant with an offset from UTC is needed")
    return _all(database, since or _EPOCH)


def _all(database: Database, since: datetime) -> Iterator[Drift]:
    for kind, (query, key) in _QUERIES.items():
        after: Any = "" if key == "command_id" else 0
        while True:
            with database.read() as connection:
                now = database.now(connection)
                rows = connection.execute(query, {"after": after, "recorded": since}).mappings().all()
            yield from (_drift(kind, row, now) for row in rows)
            if len(rows) < _PAGE:
                break
            after = rows[-1][key]


def _drift(kind: Kind, row: Mapping[Any, Any], now: datetime) -> Drift:
    since, until = row["since"], row["until"]
    return Drift(
        kind=str(kind),
        appointment_id=row["appointment_id"],
        from_status=row["from_status"],
        to_status=row["to_status"],
        since=since,
        until=until,
        lasted_seconds=max(0.0, round(((until or now) - since).total_seconds(), 3)),
        reason=row["reason"],
        command_id=row["command_id"],
    )


_EPOCH: Final = datetime.fromisoformat("0001-01-02T00:00:00+00:00")

_events, _appointments, _commands = models.audit_events, models.appointments, models.commands
_deliveries = models.webhook_deliveries
_later = _events.alias("later")
_lost = _events.alias("lost")
_UNSETTLED: Final = (models.CommandState.UNCERTAIN, models.CommandState.NEEDS_ATTENTION)

_moved_on = (
    sa.select(sa.func.min(_later.c.recorded_at))
    .where(
        _later.c.appointment_id == _events.c.appointment_id,
        _later.c.appointment_seq > _events.c.appointment_seq,
        _later.c.to_status != _events.c.to_status,
    )
    .correlate(_events)
    .scalar_subquery()
)
_occurred = sa.func.coalesce(_events.c.occurred_at, _events.c.recorded_at, type_=UtcDateTime())
_was_told = (
    sa.exists()
    .where(
        _deliveries.c.appointment_id == _events.c.appointment_id,
        _deliveries.c.last_received_at >= _occurred,
        _deliveries.c.received_at <= _events.c.recorded_at,
    )
    .correlate(_events)
)
_last_loss = (
    sa.select(sa.func.max(_lost.c.recorded_at))
    # SQLite would take the index of all lost outcomes instead of that of the command's few events.
    .where(
        _lost.c.command_id == _commands.c.command_id,
        sa.func.coalesce(_lost.c.event, "") == str(audit.Event.OUTCOME_LOST),
    )
    .correlate(_commands)
    .scalar_subquery()
)
_page = sa.select(_events.c.seq, _events.c.appointment_id, _events.c.from_status, _events.c.to_status)
_is_next = sa.and_(
    _events.c.seq > sa.bindparam("after"),
    _events.c.recorded_at >= sa.bindparam("recorded", type_=UtcDateTime()),
)
_QUERIES: Final[Mapping[Kind, tuple[sa.Select[Any], str]]] = {
    Kind.NOT_CONFORMING: (
        _page.add_columns(
            _events.c.recorded_at.label("since"),
            sa.type_coerce(_moved_on, UtcDateTime()).label("until"),
            _events.c.event.label("reason"),
            _events.c.command_id,
        )
        .where(~_events.c.conforming, _is_next)
        .order_by(_events.c.seq)
        .limit(_PAGE),
        "seq",
    ),
    Kind.IN_DOUBT: (
        sa.select(
            _appointments.c.appointment_id,
            _commands.c.baseline_status.label("from_status"),
            _commands.c.target_status.label("to_status"),
            sa.func.coalesce(_last_loss, _commands.c.created_at, type_=UtcDateTime()).label("since"),
            sa.null().label("until"),
            _commands.c.reason_code.label("reason"),
            _commands.c.command_id,
        )
        .join_from(_appointments, _commands)
        .where(
            _appointments.c.in_doubt,
            models.state_in(*_UNSETTLED),
            _commands.c.command_id > sa.bindparam("after"),
        )
        .order_by(_commands.c.command_id)
        .limit(_PAGE),
        "command_id",
    ),
    Kind.FOUND_BY_SYNC: (
        _page.add_columns(
            _occurred.label("since"),
            _events.c.recorded_at.label("until"),
            sa.case((_was_told, TOLD), else_=UNTOLD).label("reason"),
            _events.c.command_id,
        )
        .where(
            _events.c.source == reconciliation.SOURCE,
            _events.c.event == str(audit.Event.APPOINTMENT_OBSERVED),
            _is_next,
        )
        .order_by(_events.c.seq)
        .limit(_PAGE),
        "seq",
    ),
}
