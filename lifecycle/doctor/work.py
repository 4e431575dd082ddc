"""Checks of what should be going on: recovery, the inbox, sync, and what is left for a human. All by bounded reads."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from lifecycle import chart, models
from lifecycle.columns import UtcDateTime
from lifecycle.doctor.checks import AT_MOST, Check, Severity, found, instant, many, minute, well

if TYPE_CHECKING:
    from datetime import datetime

    from lifecycle.doctor.checks import Installation

OVERDUE: Final = timedelta(seconds=60)
"""What runs every few seconds has not run for so long."""

SYNC_AGE: Final = timedelta(days=1)
SYNC_SILENCE: Final = timedelta(minutes=10)
"""A run that stores no page for so long is not under way any more: each call of Zocdoc ends within its deadline."""

_STATUSES_AT_MOST: Final = 100


def statuses(_installation: Installation, connection: sa.Connection) -> Check:
    """Look for stored statuses that the chart does not have, stepping from one status to the next in the index."""
    stored = [row.status for row in connection.execute(_STATUSES)]
    odd = {status: _count(connection, _OF_STATUS, status=status) for status in stored if status not in chart.STATUSES}
    if not odd:
        return well("statuses", statuses=len(stored))
    told = ", ".join(f"{status} ({many(count)})" for status, count in odd.items())
    problem = f"appointments have statuses that this version does not know: {told}; no command is allowed from them"
    remedy = "upgrade this package, or ask Zocdoc what they mean"
    return found("statuses", Severity.WARNING, problem, remedy, unknown=tuple(odd), appointments=sum(odd.values()))


def recovery(installation: Installation, connection: sa.Connection) -> Check:
    """Look for commands that recovery should have taken up long ago."""
    now = installation.database.now(connection)
    rows = {row.state: row for row in connection.execute(_STUCK, {"before": now - OVERDUE, "most": AT_MOST})}
    if not rows:
        return well("recovery")
    counts = {state: row.number for state, row in rows.items()}
    since = min(row.since for row in rows.values())
    told = " and ".join(f"{many(count)} {state}" for state, count in sorted(counts.items()))
    problem = f"commands wait for recovery since {minute(since)}: {told}; it does not run, or has not the credential"
    remedy = "run `lifecycle recover --watch 5`, or call recover() every few seconds"
    return found("recovery", Severity.ERROR, problem, remedy, **counts, since=instant(since))


def attention(_installation: Installation, connection: sa.Connection) -> Check:
    """Count the commands that only a human can settle."""
    count, since = _count_since(connection, _ATTENTION)
    if not count:
        return well("attention")
    problem = f"{many(count)} commands need a human, the oldest since {minute(since)}"
    remedy = "`lifecycle attention` lists them with the evidence, `lifecycle resolve` settles each"
    return found("attention", Severity.WARNING, problem, remedy, commands=count, since=instant(since))


def inbox(installation: Installation, connection: sa.Connection) -> Check:
    """Look for webhook calls that nobody processes; those of an appointment with an active command have to wait."""
    now = installation.database.now(connection)
    due_at = connection.execute(_INBOX, {"before": now - OVERDUE}).scalar()
    waiting, oldest = _count_since(connection, _WAITING)
    lag = 0.0 if oldest is None else round((now - oldest).total_seconds(), 1)
    facts = {"waiting": waiting, "lag_seconds": lag}
    if due_at is None:
        return well("inbox", **facts)
    problem = f"stored webhook calls should have been processed since {minute(due_at)}; {many(waiting)} wait"
    remedy = "run `lifecycle serve` or `lifecycle inbox process`, with the credentials of who booked"
    return found("inbox", Severity.ERROR, problem, remedy, **facts)


def deliveries(_installation: Installation, connection: sa.Connection) -> Check:
    """Count the webhook calls that were given up."""
    count, since = _count_since(connection, _FAILED)
    if not count:
        return well("deliveries")
    problem = f"{many(count)} webhook calls were given up, the oldest of {minute(since)}"
    remedy = "`lifecycle inbox list --state failed` tells why, `lifecycle inbox retry --all-failed` takes them up again"
    return found("deliveries", Severity.WARNING, problem, remedy, failed=count, since=instant(since))


def sync(installation: Installation, connection: sa.Connection) -> Check:
    """Tell how old the last sync is."""
    now = installation.database.now(connection)
    runs = connection.execute(_RUNS).all()
    ended = max((run.finished_at for run in runs if run.finished_at is not None), default=None)
    cut_off = [run for run in runs if run.finished_at is None and run.updated_at < now - SYNC_SILENCE]
    facts = {"finished_at": None if ended is None else instant(ended)}
    remedy = "run `lifecycle sync` every few minutes: it finds what no webhook call told"
    if cut_off:
        problem = f"a sync that began at {minute(cut_off[0].started_at)} was cut off; the next one goes on with it"
        return found("sync", Severity.ADVICE, problem, remedy, **facts)
    if ended is None and not runs:
        return found("sync", Severity.ADVICE, "Zocdoc's list was never synced", remedy, **facts)
    if ended is not None and ended < now - SYNC_AGE:
        return found("sync", Severity.ADVICE, f"the last sync ended at {minute(ended)}", remedy, **facts)
    return well("sync", **facts)


def _count(connection: sa.Connection, query: sa.Select[Any], **values: object) -> int:
    number: int = connection.execute(query, {"most": AT_MOST, **values}).scalar_one()
    return number


def _count_since(connection: sa.Connection, query: sa.Select[int, Any]) -> tuple[int, datetime]:
    number, since = connection.execute(query, {"most": AT_MOST}).one()
    return number, since


_appointments, _commands, _deliveries = models.appointments, models.commands, models.webhook_deliveries
State = models.CommandState
_before: Final = sa.bindparam("before", type_=UtcDateTime())
_most: Final = sa.bindparam("most", type_=sa.Integer())


def _bounded(column: sa.Column[Any], condition: sa.ColumnElement[bool]) -> sa.Select[int, Any]:
    """Count the oldest rows, up to a bound, and tell the oldest instant."""
    oldest = sa.select(column.label("since")).where(condition).order_by(column).limit(_most).subquery()
    return sa.select(sa.func.count(), sa.func.min(oldest.c.since)).select_from(oldest)


def _steps() -> sa.Select[Any]:
    """List the distinct statuses by one look into the index for each, however many appointments there are."""
    first = sa.select(sa.func.min(_appointments.c.status).label("status")).cte("steps", recursive=True)
    following = (
        sa.select(sa.func.min(_appointments.c.status)).where(_appointments.c.status > first.c.status).scalar_subquery()
    )
    steps = first.union_all(sa.select(following).where(first.c.status.is_not(None)))
    return sa.select(steps.c.status).where(steps.c.status.is_not(None)).limit(_STATUSES_AT_MOST)


_STATUSES: Final = _steps()
_OF_STATUS: Final = sa.select(sa.func.count()).select_from(
    sa.select(_appointments.c.appointment_id)
    .where(_appointments.c.status == sa.bindparam("status"))
    .limit(_most)
    .subquery()
)
_stuck: Final = (
    sa.select(_commands.c.state, _commands.c.run_at)
    .where(models.state_in(State.SENDING, State.UNCERTAIN), _commands.c.run_at < _before)
    .order_by(_commands.c.run_at)
    .limit(_most)
    .subquery()
)
_STUCK: Final = sa.select(
    _stuck.c.state, sa.func.count().label("number"), sa.func.min(_stuck.c.run_at).label("since")
).group_by(_stuck.c.state)
_ATTENTION: Final = _bounded(_commands.c.ended_at, models.state_in(State.NEEDS_ATTENTION))
# Constants in the statements, so that the databases see that a partial index covers them.
_is_waiting: Final = _deliveries.c.state.in_([sa.literal_column(f"'{models.DeliveryState.RECEIVED}'")])
_INBOX: Final = (
    sa.select(_deliveries.c.run_at)
    .where(
        _is_waiting,
        _deliveries.c.run_at < _before,
        ~sa.exists().where(_commands.c.appointment_id == _deliveries.c.appointment_id, models.is_under_way()),
    )
    # In the order of an index on both databases; which of those that are overdue is told matters little.
    .order_by(_deliveries.c.received_at)
    .limit(1)
)
_WAITING: Final = _bounded(_deliveries.c.received_at, _deliveries.c.state == str(models.DeliveryState.RECEIVED))
_FAILED: Final = _bounded(_deliveries.c.received_at, _deliveries.c.state == str(models.DeliveryState.FAILED))
_RUNS: Final = sa.select(models.sync_cursors)
