"""The story of a command: decide and record the intent, call Zocdoc, record the outcome.

Two transactions, and none is open while HTTP is in the air. The intent is committed before anything is sent, so that
whatever happens in between, the database knows that something may have happened.
"""

from __future__ import annotations

import contextlib
import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, assert_never

import sqlalchemy as sa

from lifecycle import (
    attempts,
    audit,
    chart,
    errors,
    guards,
    models,
    observations,
    outcomes,
    settlement,
    wishes,
    zocdoc,
)
from lifecycle.outcomes import Done
from lifecycle.pending import TARGET_STATUS, Pending
from lifecycle.points import Point, reach

if TYPE_CHECKING:
    from lifecycle.resources import Resources
    from lifecycle.wishes import Wish

State = models.CommandState

INTERRUPTED: Final = "interrupted"
"""The process was asked to stop while the call was in the air."""

NOT_RECORDED: Final = "not_recorded"
"""The call ended, but the database could not be written; recovery will find out by reading."""


def run(resources: Resources, wish: Wish) -> Done:
    """Carry out a wish: guard it, record it, call Zocdoc at most once, record what came of it.

    Raises `TransitionRefused` (and `CommandInProgress`), `CommandRejected`, `NotSent`, `OutcomeUnknown`,
    `RequestKeyReused`, `AppointmentNotFound`, `ReadFailed` (an appointment that needs attention is read first, and
    could not be), `DatabaseUnavailable`.
    """
    client = resources.clients.default
    if client is None:
        raise errors.ConfigurationError(problem="no Zocdoc client was given; pass zocdoc=ZocdocClient(...)")
    resolved, is_read, raced = False, False, False
    while True:
        claimed_at = zocdoc.clock()
        reach(Point.BEFORE_INTENT)
        try:
            step = _claim(resources, wish, client, resolved=resolved, is_read=is_read)
        except sa.exc.IntegrityError:
            # Another command took the same request key in this moment; the next look finds it.
            if raced or wish.request_key is None:
                raise
            raced = True
            continue
        match step:
            case Claim() as claim:
                return _carry_out(resources, claim, client, wish.source, claimed_at)
            case Done() as done:
                return done
            case _WantsClient(identity):
                client, resolved = resources.clients.of(identity) or client, True
            case _WantsReading():
                observations.follow(resources, client, wish.appointment_id, actor=wish.actor, source=wish.source)
                is_read = True


@dataclass(frozen=True, slots=True)
class Claim:
    """A committed intent: this process may send it, until its lease runs out."""

    command: Pending
    advice: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _WantsClient:
    """The appointment was booked with another identity than the client at hand has."""

    identity: str


@dataclass(frozen=True, slots=True)
class _WantsReading:
    """An earlier command needs attention: what is known of the appointment may be wrong, so read it first."""


def _claim(
    resources: Resources, wish: Wish, client: zocdoc.ZocdocClient, *, resolved: bool, is_read: bool
) -> Claim | Done | _WantsClient | _WantsReading:
    """Open transaction 1: lock the row, decide, and record the intent or the refusal."""
    database = resources.database
    with database.write() as connection:
        locked = audit.lock(database, connection, wish.appointment_id)
        if locked is None:
            raise errors.AppointmentNotFound(appointment_id=wish.appointment_id)
        digest = outcomes.digest_of(wish, resources.digest_key(connection, environment=client.environment))
        if first := outcomes.first(connection, wish, digest):
            return first
        if client.identity != locked.row["booked_with"] and not resolved:
            return _WantsClient(locked.row["booked_with"])
        if locked.row["in_doubt"] and locked.active_state is None and not is_read:
            return _WantsReading()
        decision = guards.decide(wishes.situation(locked, wish, credential=client.identity))
        if not decision.reasons:
            lease = timedelta(seconds=resources.timing.lease(client.deadline))
            command = _accept(connection, locked, wish, digest=digest, lease=lease, advice=decision.advice)
            return Claim(command, decision.advice)
        _record_refusal(connection, locked, wish, decision.reasons)
    raise _refusal(locked, wish, decision.reasons)


def _accept(
    connection: sa.Connection,
    locked: audit.Locked,
    wish: Wish,
    *,
    digest: str | None,
    lease: timedelta,
    advice: tuple[str, ...],
) -> Pending:
    command = Pending(
        command_id=str(uuid.uuid4()),
        appointment_id=wish.appointment_id,
        command=wish.command,
        payload=wish.payload,
        actor=wish.actor,
        attempt=1,
        baseline_status=locked.status,
        baseline_start_time=locked.row["start_time"],
        baseline_last_modified=locked.row["remote_last_modified"],
        target_status=TARGET_STATUS.get(wish.command),
        target_start_time=wish.requested_start,
    )
    row = {name: getattr(command, name) for name in Pending.__slots__}
    connection.execute(
        _INSERT,
        {
            **row,
            "payload_digest": digest,
            "source": wish.source,
            "request_key": wish.request_key,
            "state": State.SENDING,
            "lease_until": locked.now + lease,
            "run_at": locked.now + lease,
            "unchanged_reads": 0,
            "failed_reads": 0,
            "created_at": locked.now,
            "updated_at": locked.now,
        },
    )
    reach(Point.INTENT_UNCOMMITTED)
    details = {"advice": list(advice)} if advice else {}
    entry = settlement.entry_for(command, audit.Event.COMMAND_ACCEPTED, wish.source, details=details)
    audit.record(connection, locked, entry)
    return command


def _carry_out(resources: Resources, claim: Claim, client: zocdoc.ZocdocClient, source: str, claimed_at: float) -> Done:
    """Call Zocdoc, then open transaction 2."""
    command = claim.command
    reach(Point.INTENT_COMMITTED)
    try:
        attempt = attempts.make(client, command, send_before=claimed_at + resources.timing.send_window)
    except BaseException:
        # Ctrl-C, or a defect: the request may have left, so the appointment must not look untouched.
        lost = attempts.Attempt(outcome=zocdoc.Unknown(INTERRUPTED))
        _settle(resources, command, lost, source)
        raise
    reach(Point.ANSWER_CLASSIFIED)
    settled = _settle(resources, command, attempt, source)
    if settled is None:
        return _settled_by_others(resources, client, command, source)
    return _end(command, attempt, settled, claim.advice)


def _settle(resources: Resources, command: Pending, attempt: attempts.Attempt, source: str) -> chart.Move | None:
    read_after = timedelta(seconds=resources.timing.settle)
    try:
        return settlement.settle(resources.database, command, attempt, source=source, read_after=read_after)
    except errors.DatabaseUnavailable as error:
        raise errors.OutcomeUnknown(
            **_facts(command, attempt.outcome), reason_code=NOT_RECORDED, state=State.SENDING
        ) from error


def _end(command: Pending, attempt: attempts.Attempt, move: chart.Move, advice: tuple[str, ...]) -> Done:
    outcome = attempt.outcome
    match outcome:
        case zocdoc.Applied():
            return Done(
                appointment_id=command.appointment_id,
                command=str(command.command),
                command_id=command.command_id,
                from_status=move.from_status,
                to_status=move.to_status,
                conforming=move.conforming,
                zocdoc_request_id=outcome.request_id,
                reason_code=attempt.note,
                advice=advice,
            )
        case zocdoc.Rejected():
            facts = _facts(command, outcome)
            raise errors.CommandRejected(**facts, reason_code=outcome.reason_code, fields=outcome.fields)
        case zocdoc.NotSent():
            raise errors.NotSent(**_facts(command, outcome), reason_code=outcome.reason_code)
        case zocdoc.Unknown():
            raise errors.OutcomeUnknown(**_facts(command, outcome), reason_code=outcome.reason_code)
        case _:
            assert_never(outcome)


def _facts(command: Pending, outcome: zocdoc.Outcome) -> dict[str, Any]:
    return {
        "appointment_id": command.appointment_id,
        "command": str(command.command),
        "command_id": command.command_id,
        "http_status": outcome.http_status,
        "zocdoc_request_id": outcome.request_id,
    }


def _settled_by_others(resources: Resources, client: zocdoc.ZocdocClient, command: Pending, source: str) -> Done:
    """Follow Zocdoc once more after a late answer, then give the outcome that the others recorded."""
    with contextlib.suppress(errors.ReadFailed, errors.AppointmentNotFound):
        observations.follow(resources, client, command.appointment_id, actor=command.actor, source=source)
    with resources.database.read() as connection:
        return outcomes.of_command(connection, command.command_id)


def _record_refusal(connection: sa.Connection, locked: audit.Locked, wish: Wish, reasons: tuple[str, ...]) -> None:
    entry = audit.Entry(
        event=audit.Event.COMMAND_REFUSED,
        actor=wish.actor,
        source=wish.source,
        command=wish.command,
        outcome="refused",
        reason_code=reasons[0],
        details={"reasons": list(reasons)},
    )
    audit.record(connection, locked, entry)


def _refusal(locked: audit.Locked, wish: Wish, reasons: tuple[str, ...]) -> errors.TransitionRefused:
    facts: dict[str, Any] = {
        "appointment_id": wish.appointment_id,
        "command": str(wish.command),
        "status": locked.status,
        "reasons": reasons,
    }
    if locked.active_state is None or locked.active_command_id is None:
        return errors.TransitionRefused(**facts)
    return errors.CommandInProgress(
        **facts, active_command_id=locked.active_command_id, active_state=locked.active_state
    )


_INSERT: Final = sa.insert(models.commands)
