"""Checks of what carries submitted commands out: dispatch, and the workers of an engine."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from lifecycle import models, submissions
from lifecycle.audit import Event
from lifecycle.columns import UtcDateTime
from lifecycle.doctor.checks import AT_MOST, Check, Severity, found, instant, many, minute, well

if TYPE_CHECKING:
    from datetime import datetime

    from lifecycle.doctor.checks import Installation

OVERDUE: Final = timedelta(seconds=60)
"""What is looked at every second has waited for so long."""

BACKLOG: Final = timedelta(hours=1)
"""Longer waiting is rarely a mere backlog."""

SILENCE: Final = 30.0
"""Seconds after which Procrastinate takes a worker for dead; it gives a sign every ten."""

PROCRASTINATE: Final = "procrastinate"


def dispatch(installation: Installation, connection: sa.Connection) -> Check:
    """Look for queued commands that are due and that nobody takes."""
    now = installation.database.now(connection)
    due_at = _first_due(connection)
    queued: int = connection.execute(_QUEUED, {"most": AT_MOST}).scalar_one()
    lag = 0.0 if due_at is None else max(0.0, round((now - due_at).total_seconds(), 1))
    facts = {"queued": queued, "lag_seconds": lag}
    if due_at is None or due_at >= now - OVERDUE:
        return well("dispatch", **facts)
    remedy = "run `lifecycle worker` with the credentials of who booked"
    if connection.execute(_TAKEN, {"since": now - OVERDUE}).first() is None:
        problem = f"queued commands should have been sent since {minute(due_at)} and nobody does; {many(queued)} wait"
        return found("dispatch", Severity.ERROR, problem, remedy, **facts)
    if due_at >= now - BACKLOG:
        return well("dispatch", **facts)
    problem = f"queued commands are being sent, yet some wait since {minute(due_at)}; {many(queued)} wait"
    remedy = "run more of `lifecycle worker`, or one with the credentials of who booked those"
    return found("dispatch", Severity.WARNING, problem, remedy, **facts)


def workers(installation: Installation, connection: sa.Connection) -> Check:
    """Look at the signs of life of Procrastinate's workers, if its tables are there."""
    is_used = installation.dispatch == PROCRASTINATE
    missing = [name for name in _TABLES if connection.execute(_VISIBLE, {"name": name}).scalar_one() is None]
    if missing and is_used:
        problem, remedy = f"tables of Procrastinate are missing: {', '.join(missing)}", "run `lifecycle recover`"
        return found("workers", Severity.ERROR, problem, remedy, missing=tuple(missing))
    if missing:
        return well("workers", dispatch=installation.dispatch)
    row = connection.execute(_WORKERS, {"silence": SILENCE}).one()
    facts = {
        "dispatch": installation.dispatch,
        "beating": row.beating,
        "silent": row.silent,
        "last_heartbeat": None if row.last_heartbeat is None else instant(row.last_heartbeat),
    }
    return _judged(facts, needs_one=is_used, is_waiting=_first_due(connection) is not None)


def _judged(facts: dict[str, Any], *, needs_one: bool, is_waiting: bool) -> Check:
    if needs_one and not facts["beating"] and is_waiting:
        problem = "commands are queued and no worker is alive"
        return found("workers", Severity.ERROR, problem, "run `lifecycle worker`", **facts)
    if facts["silent"]:
        problem = f"{facts['silent']} workers have given no sign of life for {SILENCE:.0f} s"
        remedy = "look after those machines; what they had begun is taken up by recovery"
        return found("workers", Severity.WARNING, problem, remedy, **facts)
    if needs_one and not facts["beating"]:
        return found("workers", Severity.WARNING, "no worker is alive", "run `lifecycle worker`", **facts)
    return well("workers", **facts)


def _first_due(connection: sa.Connection) -> datetime | None:
    found_due = [connection.execute(_NEXT, {"priority": each}).scalar() for each in _PRIORITIES]
    return min(filter(None, found_due), default=None)


_PRIORITIES: Final = (submissions.ALONE, submissions.IN_BATCH)
_TABLES: Final = ("procrastinate_jobs", "procrastinate_workers")

_commands, _events = models.commands, models.audit_events
# Word for word the condition of the index of queued commands.
_is_queued: Final = _commands.c.due_at.is_not(None)
_NEXT: Final = (
    sa.select(_commands.c.due_at)
    .where(_is_queued, _commands.c.priority == sa.bindparam("priority"))
    .order_by(_commands.c.due_at)
    .limit(1)
)
_QUEUED: Final = sa.select(sa.func.count()).select_from(
    sa.select(_commands.c.due_at).where(_is_queued).limit(sa.bindparam("most", type_=sa.Integer())).subquery()
)
_TAKEN: Final = (  # whether a submitted command was taken from the queue lately
    sa.select(_events.c.seq)
    .join_from(_events, _commands, _commands.c.command_id == _events.c.command_id)
    .where(
        _events.c.event.in_(
            [
                str(each)
                for each in (
                    Event.COMMAND_ACCEPTED,
                    Event.COMMAND_RESENT,
                    Event.COMMAND_REFUSED,
                    Event.COMMAND_EXPIRED,
                )
            ]
        ),
        _events.c.recorded_at >= sa.bindparam("since", type_=UtcDateTime()),
        _commands.c.queued_at.is_not(None),
    )
    .limit(1)
)
_VISIBLE: Final = sa.text("SELECT to_regclass(:name)::text")
_WORKERS: Final = sa.text("""
    SELECT count(*) FILTER (WHERE last_heartbeat >= clock_timestamp() - make_interval(secs => :silence)) AS beating,
      count(*) FILTER (WHERE last_heartbeat < clock_timestamp() - make_interval(secs => :silence)) AS silent,
      max(last_heartbeat) AS last_heartbeat
    FROM procrastinate_workers
""")
