"""The story of a command: decide and record the intent, call Zocdoc, record the outcome.

Two transactions, and none is open while HTTP is in the air. The intent is committed before anything is sent, so that
whatever happens in between, the database knows that something may have happened.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from lifecycle import (
    audit,
    errors,
    guards,
    models,
    observations,
    outcomes,
    refusals,
    sending,
    settlement,
    tracing,
    wishes,
    zocdoc,
)
from lifecycle.outcomes import Done
from lifecycle.pending import TARGET_STATUS, Pending, baseline
from lifecycle.points import Point, reach
from lifecycle.sending import Claim

if TYPE_CHECKING:
    from lifecycle.resources import Resources
    from lifecycle.wishes import Wish

State = models.CommandState


def run(resources: Resources, wish: Wish) -> Done:
    """Carry out a wish: guard it, record it, call Zocdoc at most once, record what came of it.

    Raises `TransitionRefused` (and `CommandInProgress`), `CommandRejected`, `NotSent`, `OutcomeUnknown`,
    `RequestKeyReused`, `AppointmentNotFound`, `ReadFailed` (an appointment that needs attention is read first, and
    could not be), `DatabaseUnavailable`.
    """
    names = {"command": str(wish.command), "appointment_id": wish.appointment_id, "source": wish.source}
    with tracing.command(resources.telemetry, **names) as span:
        return span.done(_run(resources, wish, span))


def _run(resources: Resources, wish: Wish, span: tracing.CommandSpan) -> Done:
    client = resources.clients.default
    if client is None and resources.clients.resolve is None:
        raise errors.ConfigurationError(problem="no Zocdoc client was given; pass zocdoc=ZocdocClient(...)")
    resolved, is_read = False, False
    while True:
        reach(Point.BEFORE_INTENT)
        match _claim_or_find(resources, wish, client, resolved=resolved, is_read=is_read):
            case Claim() as claim:
                span.claimed(claim.command.command_id, claim.command.attempt)
                return sending.carry_out(resources, claim, source=wish.source)
            case Done() as done:
                return done
            case _WantsClient(identity):
                client, resolved = resources.clients.of(identity) or client, True
            case _WantsReading(fitting):
                observations.follow(resources, fitting, wish.appointment_id, actor=wish.actor, source=wish.source)
                is_read = True


def _claim_or_find(
    resources: Resources, wish: Wish, client: zocdoc.ZocdocClient | None, *, resolved: bool, is_read: bool
) -> Claim | Done | _WantsClient | _WantsReading:
    command_id, claimed_at, is_again = str(uuid.uuid4()), zocdoc.clock(), False
    while True:
        try:
            return _claim(resources, wish, client, command_id, claimed_at, resolved=resolved, is_read=is_read)
        except errors.ConstraintViolated:
            # Another command may have taken the request key, or been submitted, in this moment; a second look finds it.
            if is_again:
                raise
            is_again = True
        except errors.DatabaseUnavailable:
            # The reply to COMMIT may be what was lost; then the intent is there, and this process holds its lease.
            found = None if client is None else sending.find_claim(resources, command_id, client, claimed_at)
            if found is None:
                raise
            return found


@dataclass(frozen=True, slots=True)
class _WantsClient:
    """The appointment was booked with another identity than the client at hand has."""

    identity: str


@dataclass(frozen=True, slots=True)
class _WantsReading:
    """An earlier command needs attention: what is known of the appointment may be wrong, so read it first."""

    client: zocdoc.ZocdocClient


def _claim(
    resources: Resources,
    wish: Wish,
    client: zocdoc.ZocdocClient | None,
    command_id: str,
    claimed_at: float,
    *,
    resolved: bool,
    is_read: bool,
) -> Claim | Done | _WantsClient | _WantsReading:
    """Open transaction 1: lock the row, decide, and record the intent or the refusal."""
    database = resources.database
    with database.write() as connection:
        locked = audit.lock(database, connection, wish.appointment_id)
        if locked is None:
            raise errors.AppointmentNotFound(appointment_id=wish.appointment_id)
        environment = None if client is None else client.environment
        digest = outcomes.digest_of(wish, resources.check_environment(connection, environment=environment))
        if first := outcomes.first(connection, wish, digest):
            return first
        credential = None if client is None else client.identity
        if credential != locked.row["booked_with"]:
            if not resolved:
                return _WantsClient(locked.row["booked_with"])
        elif client and locked.row["in_doubt"] and not locked.is_busy and not is_read:
            return _WantsReading(client)
        decision = guards.decide(wishes.situation(locked, wish, credential=credential))
        if client and not decision.reasons:
            lease = timedelta(seconds=resources.timing.lease(client.deadline))
            command = pending_of(locked, wish, command_id)
            accept(connection, locked, command, wish, digest=digest, lease=lease, advice=decision.advice)
            return Claim(command, client, claimed_at, decision.advice)
        refusals.record(connection, locked, wish, decision.reasons)
    raise refusals.error(locked, wish, decision.reasons)


def pending_of(locked: audit.Locked, wish: Wish, command_id: str) -> Pending:
    """Make the command of a wish, with the appointment as it is now as its baseline. Pure."""
    return Pending(
        command_id=command_id,
        appointment_id=wish.appointment_id,
        command=wish.command,
        payload=wish.payload,
        actor=wish.actor,
        attempt=1,
        **baseline(locked.row),
        target_status=TARGET_STATUS.get(wish.command),
        target_start_time=wish.requested_start,
    )


def accept(
    connection: sa.Connection,
    locked: audit.Locked,
    command: Pending,
    wish: Wish,
    *,
    digest: str | None,
    lease: timedelta,
    advice: tuple[str, ...],
) -> None:
    """Record the intent in the caller's transaction: the command's row, claimed for `lease`, and its event."""
    row = {name: getattr(command, name) for name in Pending.__slots__}
    connection.execute(
        _INSERT,
        {
            **row,
            "payload_digest": digest,
            "source": wish.source,
            "request_key": wish.request_key,
            "priority": 0,
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


_INSERT: Final = sa.insert(models.commands)
