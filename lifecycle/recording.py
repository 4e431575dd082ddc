"""Recording an answer: the second transaction of a command, whenever the answer comes."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, assert_never

import sqlalchemy as sa

from lifecycle import audit, chart, models, settlement, zocdoc
from lifecycle.points import Point, reach

if TYPE_CHECKING:
    from lifecycle.attempts import Attempt
    from lifecycle.database import Database
    from lifecycle.pending import Pending
    from lifecycle.resources import Timing

State = models.CommandState

_log = logging.getLogger(__name__)

ANSWERED_LATE: Final = "answered_late"
"""The answer came after recovery had settled the command without it."""


def settle(
    database: Database, command: Pending, attempt: Attempt, *, source: str, timing: Timing, is_repeated: bool = False
) -> settlement.Settled | None:
    """Record what came of an attempt, and tell where that leaves the command; opens one transaction.

    None: the command was settled by somebody else meanwhile, and the answer was only noted in the trail. Or it
    `is_repeated`, and this very outcome is there: the reply to COMMIT was what was lost. Only under the lock is that
    known, since such a COMMIT may still be going on.
    """
    with database.write() as connection:
        locked = audit.hold(database, connection, command.appointment_id)
        reach(Point.OUTCOME_OPEN)
        if is_repeated and _is_recorded(connection, command, attempt):
            return None
        settled = settlement.settle_locked(connection, locked, command, attempt, source=source, timing=timing)
        if settled is None:
            _note_late(connection, locked, command, attempt, source=source)
    reach(Point.OUTCOME_COMMITTED)
    _log_ended(command, attempt, late=settled is None)
    return settled


def _is_recorded(connection: sa.Connection, command: Pending, attempt: Attempt) -> bool:
    """Tell whether this very outcome is in the database already."""
    outcome = attempt.outcome
    row = connection.execute(_RECORDED, {"id": command.command_id}).one()
    # Not the state: a submitted command that was not sent is in the queue again.
    return tuple(row) == (command.attempt, settlement.OUTCOMES[type(outcome)], outcome.request_id, outcome.http_status)


def _log_ended(command: Pending, attempt: Attempt, *, late: bool) -> None:
    outcome = attempt.outcome
    facts = {
        "appointment_id": command.appointment_id,
        "command": str(command.command),
        "command_id": command.command_id,
        "outcome": settlement.OUTCOMES[type(outcome)],
        "reason_code": attempt.note if isinstance(outcome, zocdoc.Applied) else outcome.reason_code,
        "zocdoc_request_id": outcome.request_id,
        "duration_ms": attempt.duration_ms,
    }
    _log.info("late_answer_received" if late else "command_ended", extra=facts)


def _note_late(
    connection: sa.Connection, locked: audit.Locked, command: Pending, attempt: Attempt, *, source: str
) -> None:
    """Note an answer that came after the command was settled without it.

    An answer is better evidence than what reading inferred: it settles a command that was given up, and a yes also one
    that was thought to have had no effect, though it was refused or withdrawn before it was sent again. The status is
    left to the read that follows, which is newer than the answer.
    """
    outcome = attempt.outcome
    attempts, settled = connection.execute(_STATE, {"id": command.command_id}).one()
    answered = {"answered": outcome.status} if isinstance(outcome, zocdoc.Applied) else {}
    changes = _overrule(connection, locked, replace(command, attempt=attempts), outcome, settled)
    entry = settlement.entry_for(
        command,
        audit.Event.LATE_ANSWER_RECEIVED,
        source,
        outcome=settlement.OUTCOMES[type(outcome)],
        zocdoc_request_id=outcome.request_id,
        http_status=outcome.http_status,
        duration_ms=attempt.duration_ms,
        details={"settled_as": settled, **answered},
    )
    audit.record(connection, locked, entry, **changes)


def _overrule(
    connection: sa.Connection, locked: audit.Locked, command: Pending, outcome: zocdoc.Outcome, settled: str
) -> dict[str, Any]:
    """Settle the command by its answer after all, if that is better evidence; give what changes of the appointment."""
    has_rival = connection.execute(_RIVALS, {"id": command.command_id}).scalar_one() > 0
    if settled not in _overruled_by(outcome) or has_rival:
        return {}
    values = {
        "state": settlement.STATES[type(outcome)],
        "outcome": settlement.OUTCOMES[type(outcome)],
        "reason_code": ANSWERED_LATE,
        "zocdoc_request_id": outcome.request_id,
        "http_status": outcome.http_status,
        "ended_at": locked.now,
        "payload": settlement.without_text(command),
        "lease_until": None,
        "run_at": None,
        "due_at": None,
    }
    if not settlement.change(connection, locked, command, values, settlement.while_in(State(settled))):
        return {}
    is_arrival = isinstance(outcome, zocdoc.Applied) and command.command is chart.Command.MARK_ARRIVED
    arrival = {"arrived_at": locked.now} if is_arrival else {}
    return {**settlement.doubt_left(connection, locked, uncertain=False), **arrival}


def _overruled_by(outcome: zocdoc.Outcome) -> set[str]:
    """Tell the states that an answer overrules. A yes also stops a further attempt, queued or under way."""
    match outcome:
        case zocdoc.Applied():
            return {*models.WITHOUT_EFFECT, *models.ACTIVE_STATES, State.NEEDS_ATTENTION}
        case zocdoc.Rejected():
            return {State.NEEDS_ATTENTION, State.QUEUED}
        case zocdoc.NotSent():
            return {State.NEEDS_ATTENTION}
        case zocdoc.Unknown():
            return set()
        case _:
            assert_never(outcome)


_commands = models.commands
_STATE: Final = sa.select(_commands.c.attempt, _commands.c.state).where(_commands.c.command_id == sa.bindparam("id"))
_RECORDED: Final = sa.select(
    _commands.c.attempt, _commands.c.outcome, _commands.c.zocdoc_request_id, _commands.c.http_status
).where(_commands.c.command_id == sa.bindparam("id"))
_rivals = _commands.alias("rivals")
_RIVALS: Final = (  # other commands that hold the same request key: then this one cannot have it back
    sa.select(sa.func.count())
    .select_from(_commands.join(_rivals, _rivals.c.request_key == _commands.c.request_key))
    .where(
        _commands.c.command_id == sa.bindparam("id"),
        _rivals.c.command_id != _commands.c.command_id,
        models.holds_key(_rivals),
    )
)
