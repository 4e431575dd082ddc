"""Settling a command: the second transaction. Its outcome, the move it made, and the events, all at once.

Written by compare-and-set on command id, attempt and state, so that an answer that comes after recovery has settled the
command changes nothing but the trail.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, assert_never

import sqlalchemy as sa

from lifecycle import audit, chart, guards, models, observations, pending, zocdoc

if TYPE_CHECKING:
    from lifecycle.attempts import Attempt
    from lifecycle.pending import Pending
    from lifecycle.resources import Timing

State = models.CommandState

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Settled:
    """Where an outcome has left its command, and the move that it made of the appointment's status."""

    state: models.CommandState
    move: chart.Move


def settle_locked(
    connection: sa.Connection,
    locked: audit.Locked,
    command: Pending,
    attempt: Attempt,
    *,
    source: str,
    timing: Timing,
) -> Settled | None:
    """Do what `settle` does inside the caller's transaction; None, and nothing written, if it was settled before."""
    values = _where_to(locked, command, attempt.outcome, timing)
    if not _move_command(connection, locked, command, attempt, values):
        return None
    settled = Settled(values["state"], _move(locked, command, attempt.outcome))
    locked = _record(connection, locked, command, attempt, settled, source=source)
    if attempt.reading is not None and not isinstance(attempt.outcome, zocdoc.Applied):
        observations.apply(connection, locked, attempt.reading, actor=command.actor, source=source)
    return settled


def _where_to(locked: audit.Locked, command: Pending, outcome: zocdoc.Outcome, timing: Timing) -> dict[str, Any]:
    """Tell the columns that say where a command goes: to its end, to recovery, or back into the queue."""
    state = STATES[type(outcome)]
    if state is State.UNCERTAIN:
        return {"state": state, "run_at": locked.now + timedelta(seconds=timing.settle)}
    if state is State.NOT_SENT and command.is_submitted:
        pause = timing.resend_after(command.attempt)
        if pause is not None:
            due_at = locked.now + pause
            if command.expires_at is not None:
                due_at = min(due_at, command.expires_at)  # then it is ended: nobody is to wait for longer
            return {"state": State.QUEUED, "run_at": None, "due_at": due_at}
    return {"state": state, "run_at": None, "ended_at": locked.now, "payload": without_text(command)}


def entry_for(command: Pending, event: audit.Event, source: str, **facts: Any) -> audit.Entry:  # noqa: ANN401 # columns
    """Begin an audit entry about a command."""
    return audit.Entry(
        event=event,
        actor=command.actor,
        source=source,
        command=command.command,
        command_id=command.command_id,
        reason_type=command.payload.get("reason_type"),
        **facts,
    )


def _move_command(
    connection: sa.Connection,
    locked: audit.Locked,
    command: Pending,
    attempt: Attempt,
    values: dict[str, Any],
) -> bool:
    outcome = attempt.outcome
    values = {
        **values,
        "outcome": OUTCOMES[type(outcome)],
        "reason_code": attempt.note if isinstance(outcome, zocdoc.Applied) else outcome.reason_code,
        "zocdoc_request_id": outcome.request_id,
        "http_status": outcome.http_status,
        "lease_until": None,
    }
    return change(connection, locked, command, values, WHILE_UNSETTLED)


def _move(locked: audit.Locked, command: Pending, outcome: zocdoc.Outcome) -> chart.Move:
    """Tell what the outcome moved: only an applied command moves anything, and to whatever Zocdoc answered."""
    if isinstance(outcome, zocdoc.Applied):
        return chart.move(status=locked.status, event=command.command, answer=outcome.status)
    return chart.Move(locked.status, locked.status, conforming=True)


def _record(
    connection: sa.Connection,
    locked: audit.Locked,
    command: Pending,
    attempt: Attempt,
    settled: Settled,
    *,
    source: str,
) -> audit.Locked:
    outcome = attempt.outcome
    facts: dict[str, Any] = {
        "outcome": OUTCOMES[type(outcome)],
        "zocdoc_request_id": outcome.request_id,
        "http_status": outcome.http_status,
        "duration_ms": attempt.duration_ms,
    }
    match outcome:
        case zocdoc.Applied():
            return _record_applied(connection, locked, command, attempt, settled.move, source=source, facts=facts)
        case zocdoc.Rejected():
            event, details = audit.Event.COMMAND_REJECTED, {"fields": list(outcome.fields)} if outcome.fields else {}
        case zocdoc.NotSent():
            is_over = settled.state is State.NOT_SENT
            event, details = audit.Event.COMMAND_NOT_SENT if is_over else audit.Event.COMMAND_REQUEUED, {}
        case zocdoc.Unknown():
            event, details = audit.Event.OUTCOME_LOST, {}
        case _:
            assert_never(outcome)
    entry = entry_for(command, event, source, reason_code=outcome.reason_code, details=details, **facts)
    return audit.record(connection, locked, entry, **doubt_left(connection, locked, uncertain=event == "outcome_lost"))


def _record_applied(
    connection: sa.Connection,
    locked: audit.Locked,
    command: Pending,
    attempt: Attempt,
    move: chart.Move,
    *,
    source: str,
    facts: dict[str, Any],
) -> audit.Locked:
    changes: dict[str, Any] = {"in_doubt": False, **doubt_left(connection, locked, uncertain=False)}
    event = audit.Event.COMMAND_APPLIED
    if command.command is chart.Command.MARK_ARRIVED:
        event = audit.Event.ARRIVAL_MARKED
        changes["arrived_at"] = locked.now
    if pending.moves_time(command, from_status=move.from_status, answer=move.to_status):
        changes |= observations.start_columns(guards.parse_start(command.payload["start_time"]))
    if attempt.reading is not None:
        remote = attempt.reading.appointment
        changes |= observations.differences(locked, remote) | observations.observed(locked, remote)
    entry = entry_for(
        command,
        event,
        source,
        to_status=move.to_status,
        conforming=move.conforming,
        reason_code=attempt.note,
        **facts,
    )
    return audit.record(connection, locked, entry, **changes)


def doubt_left(connection: sa.Connection, locked: audit.Locked, *, uncertain: bool) -> dict[str, bool]:
    """Tell the new value of `in_doubt` after a change, if it may differ: another command may be in doubt too."""
    if uncertain:
        return {"in_doubt": True}
    if not locked.row["in_doubt"]:
        return {}
    return {"in_doubt": connection.execute(_UNATTENDED, {"id": locked.appointment_id}).scalar_one() > 0}


def without_text(command: Pending) -> dict[str, Any]:
    """Give the arguments without the free text, which is kept only until the command ends."""
    return {name: value for name, value in command.payload.items() if name != "reason"}


def change(
    connection: sa.Connection, locked: audit.Locked, command: Pending, values: dict[str, Any], statement: sa.Update
) -> bool:
    """Change a command's row by compare-and-set; False if it is not in the state that the statement asks for."""
    of = {"of_command": command.command_id, "of_attempt": command.attempt}
    return connection.execute(statement, {**values, **of, "updated_at": locked.now}).rowcount == 1


_commands = models.commands


def while_in(*states: models.CommandState) -> sa.Update:
    """Make the statement that changes a command's row only while it is in one of the states."""
    return sa.update(_commands).where(
        _commands.c.command_id == sa.bindparam("of_command"),
        _commands.c.attempt == sa.bindparam("of_attempt"),
        models.state_in(*states),
    )


WHILE_SENDING: Final = while_in(State.SENDING)
WHILE_UNCERTAIN: Final = while_in(State.UNCERTAIN)
WHILE_NEEDING_ATTENTION: Final = while_in(State.NEEDS_ATTENTION)
WHILE_UNSETTLED: Final = while_in(State.SENDING, State.UNCERTAIN)
_UNATTENDED: Final = (
    sa.select(sa.func.count())
    .select_from(_commands)
    .where(_commands.c.appointment_id == sa.bindparam("id"), models.state_in(State.UNCERTAIN, State.NEEDS_ATTENTION))
)
STATES: Final[dict[type, models.CommandState]] = {
    zocdoc.Applied: State.APPLIED,
    zocdoc.Rejected: State.REJECTED,
    zocdoc.NotSent: State.NOT_SENT,
    zocdoc.Unknown: State.UNCERTAIN,
}
OUTCOMES: Final[dict[type, str]] = {
    zocdoc.Applied: "applied",
    zocdoc.Rejected: "rejected",
    zocdoc.NotSent: "not_sent",
    zocdoc.Unknown: "unknown",
}
