"""Settling a command: the second transaction. Its outcome, the move it made, and the events, all at once.

Written by compare-and-set on command id, attempt and state, so that an answer that comes after recovery has settled the
command changes nothing but the trail.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, assert_never

import sqlalchemy as sa

from lifecycle import audit, chart, guards, models, observations, pending, zocdoc

if TYPE_CHECKING:
    from lifecycle.attempts import Attempt
    from lifecycle.database import Database
    from lifecycle.pending import Pending

State = models.CommandState


def settle(
    database: Database, command: Pending, attempt: Attempt, *, source: str, read_after: timedelta
) -> chart.Move | None:
    """Record how a command ended and give the move it made; opens one transaction.

    `read_after` is the pause before the first read of an outcome that is unknown. None: the command was settled by
    somebody else meanwhile, and the answer was only noted in the trail.
    """
    with database.write() as connection:
        locked = audit.hold(database, connection, command.appointment_id)
        move = settle_locked(connection, locked, command, attempt, source=source, read_after=read_after)
        if move is None:
            _note_late(connection, locked, command, attempt, source=source)
        return move


def settle_locked(
    connection: sa.Connection,
    locked: audit.Locked,
    command: Pending,
    attempt: Attempt,
    *,
    source: str,
    read_after: timedelta = timedelta(0),
) -> chart.Move | None:
    """Do what `settle` does inside the caller's transaction; None, and nothing written, if it was settled before."""
    state = _STATES[type(attempt.outcome)]
    run_at = locked.now + read_after if state is State.UNCERTAIN else None
    if not _move_command(connection, locked, command, attempt, state=state, run_at=run_at):
        return None
    move = _move(locked, command, attempt.outcome)
    locked = _record(connection, locked, command, attempt, move, source=source)
    if attempt.reading is not None and not isinstance(attempt.outcome, zocdoc.Applied):
        observations.apply(connection, locked, attempt.reading, actor=command.actor, source=source)
    return move


def postpone(
    connection: sa.Connection,
    locked: audit.Locked,
    command: Pending,
    counts: dict[str, int],
    *,
    pause: timedelta,
    source: str,
    **facts: Any,  # noqa: ANN401 # columns
) -> None:
    """Note a read that did not settle an uncertain command, and when to read again."""
    values = {**counts, "run_at": locked.now + pause, "lease_until": None}
    if _move_uncertain(connection, locked, command, values):
        audit.record(connection, locked, entry_for(command, audit.Event.OUTCOME_CHECKED, source, **facts))


def give_up(
    connection: sa.Connection,
    locked: audit.Locked,
    command: Pending,
    *,
    reason_code: str,
    source: str,
    reading: zocdoc.Reading | None = None,
) -> bool:
    """Leave an uncertain command to a human: reading cannot settle it. What was read is recorded all the same.

    False, and nothing written, if it was settled meanwhile.
    """
    values = {"state": State.NEEDS_ATTENTION, "reason_code": reason_code, "run_at": None, "lease_until": None}
    ended = {"ended_at": locked.now, "payload": _without_text(command)}
    if not _move_uncertain(connection, locked, command, {**values, **ended}):
        return False
    entry = entry_for(command, audit.Event.ATTENTION_NEEDED, source, outcome="unknown", reason_code=reason_code)
    if reading is not None:
        entry = replace(entry, zocdoc_request_id=reading.request_id, details={"remote": remote_facts(reading)})
    locked = audit.record(connection, locked, entry, in_doubt=True)
    if reading is not None:
        observations.apply(connection, locked, reading, actor=command.actor, source=source)
    return True


def lose(connection: sa.Connection, locked: audit.Locked, command: Pending, *, reason_code: str, source: str) -> bool:
    """Mark a command whose sender is gone as uncertain; False if its sender has just settled it."""
    values = {"state": State.UNCERTAIN, "outcome": "unknown", "reason_code": reason_code, "run_at": locked.now}
    statement = _update(command, locked, {**values, "lease_until": None}).where(_commands.c.state == State.SENDING)
    if connection.execute(statement).rowcount != 1:
        return False
    entry = entry_for(command, audit.Event.OUTCOME_LOST, source, outcome="unknown", reason_code=reason_code)
    audit.record(connection, locked, entry, in_doubt=True)
    return True


def entry_for(command: Pending, event: audit.Event, source: str, **facts: Any) -> audit.Entry:  # noqa: ANN401 # columns
    """Begin an audit entry about a command."""
    return audit.Entry(
        event=event,
        actor=command.actor,
        source=source,
        command=command.command,
        command_id=command.command_id,
        **facts,
    )


def remote_facts(reading: zocdoc.Reading) -> dict[str, Any]:
    """Give what a read showed, as evidence for the trail: status and start, no text."""
    remote = reading.appointment
    return {"status": remote.appointment_status, "start_time": models.utc_text(remote.start_time)}


def _move_command(
    connection: sa.Connection,
    locked: audit.Locked,
    command: Pending,
    attempt: Attempt,
    *,
    state: models.CommandState,
    run_at: datetime | None,
) -> bool:
    outcome = attempt.outcome
    values: dict[str, Any] = {
        "state": state,
        "outcome": _OUTCOMES[type(outcome)],
        "reason_code": attempt.note if isinstance(outcome, zocdoc.Applied) else outcome.reason_code,
        "zocdoc_request_id": outcome.request_id,
        "http_status": outcome.http_status,
        "lease_until": None,
        "run_at": run_at,
    }
    if state is not State.UNCERTAIN:
        values |= {"ended_at": locked.now, "payload": _without_text(command)}
    statement = _update(command, locked, values).where(_commands.c.state.in_((State.SENDING, State.UNCERTAIN)))
    return connection.execute(statement).rowcount == 1


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
    move: chart.Move,
    *,
    source: str,
) -> audit.Locked:
    outcome = attempt.outcome
    facts: dict[str, Any] = {
        "outcome": _OUTCOMES[type(outcome)],
        "zocdoc_request_id": outcome.request_id,
        "http_status": outcome.http_status,
        "duration_ms": attempt.duration_ms,
    }
    match outcome:
        case zocdoc.Applied():
            return _record_applied(connection, locked, command, attempt, move, source=source, facts=facts)
        case zocdoc.Rejected():
            event, details = audit.Event.COMMAND_REJECTED, {"fields": list(outcome.fields)} if outcome.fields else {}
        case zocdoc.NotSent():
            event, details = audit.Event.COMMAND_NOT_SENT, {}
        case zocdoc.Unknown():
            event, details = audit.Event.OUTCOME_LOST, {}
        case _:
            assert_never(outcome)
    entry = entry_for(command, event, source, reason_code=outcome.reason_code, details=details, **facts)
    return audit.record(connection, locked, entry, **_doubt(connection, locked, uncertain=event == "outcome_lost"))


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
    # Our own command has moved Zocdoc's modification time to a value that the answer does not tell.
    changes: dict[str, Any] = {"remote_last_modified": None, **_doubt(connection, locked, uncertain=False)}
    details: dict[str, Any] = {}
    event = audit.Event.COMMAND_APPLIED
    if command.command is chart.Command.MARK_ARRIVED:
        event = audit.Event.ARRIVAL_MARKED
        changes["arrived_at"] = locked.now
    if pending.moves_time(command, from_status=move.from_status, answer=move.to_status):
        changes |= observations.start_columns(guards.parse_start(command.payload["start_time"]))
        details["start_time"] = models.utc_text(changes["start_time"])
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
        details=details,
        **facts,
    )
    return audit.record(connection, locked, entry, **changes)


def _move_uncertain(connection: sa.Connection, locked: audit.Locked, command: Pending, values: dict[str, Any]) -> bool:
    statement = _update(command, locked, values).where(_commands.c.state == State.UNCERTAIN)
    return connection.execute(statement).rowcount == 1


def _note_late(
    connection: sa.Connection, locked: audit.Locked, command: Pending, attempt: Attempt, *, source: str
) -> None:
    outcome = attempt.outcome
    settled = connection.execute(_STATE, {"id": command.command_id}).scalar_one()
    answered = {"answered": outcome.status} if isinstance(outcome, zocdoc.Applied) else {}
    entry = entry_for(
        command,
        audit.Event.LATE_ANSWER_RECEIVED,
        source,
        outcome=_OUTCOMES[type(outcome)],
        zocdoc_request_id=outcome.request_id,
        http_status=outcome.http_status,
        duration_ms=attempt.duration_ms,
        details={"settled_as": settled, **answered},
    )
    audit.record(connection, locked, entry)


def _doubt(connection: sa.Connection, locked: audit.Locked, *, uncertain: bool) -> dict[str, bool]:
    """Tell the new value of `in_doubt`, if it may change: another command may still need attention."""
    if uncertain:
        return {"in_doubt": True}
    if not locked.row["in_doubt"]:
        return {}
    return {"in_doubt": connection.execute(_UNATTENDED, {"id": locked.appointment_id}).scalar_one() > 0}


def _without_text(command: Pending) -> dict[str, Any]:
    return {name: value for name, value in command.payload.items() if name != "reason"}


def _update(command: Pending, locked: audit.Locked, values: dict[str, Any]) -> sa.Update:
    return (
        sa.update(_commands)
        .where(_commands.c.command_id == command.command_id, _commands.c.attempt == command.attempt)
        .values(**values, updated_at=locked.now)
    )


_commands = models.commands
_STATE: Final = sa.select(_commands.c.state).where(_commands.c.command_id == sa.bindparam("id"))
_UNATTENDED: Final = (
    sa.select(sa.func.count())
    .select_from(_commands)
    .where(_commands.c.appointment_id == sa.bindparam("id"), _commands.c.state == State.NEEDS_ATTENTION)
)
_STATES: Final[dict[type, models.CommandState]] = {
    zocdoc.Applied: State.APPLIED,
    zocdoc.Rejected: State.REJECTED,
    zocdoc.NotSent: State.NOT_SENT,
    zocdoc.Unknown: State.UNCERTAIN,
}
_OUTCOMES: Final[dict[type, str]] = {
    zocdoc.Applied: "applied",
    zocdoc.Rejected: "rejected",
    zocdoc.NotSent: "not_sent",
    zocdoc.Unknown: "unknown",
}
