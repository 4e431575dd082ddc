"""Carrying a claimed command out: the call, then the second transaction, whatever happens to either."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, assert_never

import sqlalchemy as sa

from lifecycle import attempts, errors, models, observations, outcomes, recording, zocdoc
from lifecycle.outcomes import Done
from lifecycle.pending import Pending
from lifecycle.points import Point, reach

if TYPE_CHECKING:
    from lifecycle import chart, settlement
    from lifecycle.resources import Resources

State = models.CommandState

UNAUTHORISED: Final = 401

INTERRUPTED: Final = "interrupted"
"""The process was asked to stop while the call was in the air."""

NOT_RECORDED: Final = "not_recorded"
"""The call ended, but the database could not be written; recovery will find out by reading."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A committed intent: this process may send it, until its lease runs out.

    `claimed_at` is a moment of `zocdoc.clock()` before the intent was written, `expires_at` one after which the command
    is not to be sent any more; None: it does not expire.
    """

    command: Pending
    client: zocdoc.ZocdocClient
    claimed_at: float
    advice: tuple[str, ...] = ()
    expires_at: float | None = None

    def send_before(self, window: float) -> float:
        """Tell until when it may be sent: for so many seconds after it was claimed, and until it expires."""
        until = self.claimed_at + window
        return until if self.expires_at is None else min(until, self.expires_at)


def carry_out(resources: Resources, claim: Claim, *, source: str) -> Done:
    """Call Zocdoc, then open transaction 2. Raises `CommandRejected`, `NotSent`, `OutcomeUnknown`."""
    command, client = claim.command, claim.client
    attempt, settled = perform(resources, claim, source=source)
    if settled is None:
        try:
            return _settled_already(resources, client, command, attempt, source)
        except errors.DatabaseUnavailable as error:
            facts = _facts(command, attempt.outcome)
            raise errors.OutcomeUnknown(**facts, reason_code=NOT_RECORDED, state=State.SENDING) from error
    return _end(command, attempt, settled.move, claim.advice)


def perform(resources: Resources, claim: Claim, *, source: str) -> tuple[attempts.Attempt, settlement.Settled | None]:
    """Call Zocdoc, then open transaction 2; give what came of it, as an answer and in the database.

    None: the command was settled by somebody else meanwhile. Raises `OutcomeUnknown` (`not_recorded`) if the database
    cannot be written.
    """
    command, client = claim.command, claim.client
    reach(Point.INTENT_COMMITTED)
    try:
        attempt = attempts.make(
            client,
            command,
            send_before=claim.send_before(resources.timing.send_window),
            monotonic=resources.monotonic,
        )
    except BaseException:
        # Ctrl-C, or a defect: the request may have left, so the appointment must not look untouched.
        with contextlib.suppress(errors.LifecycleError):
            _settle(resources, command, attempts.Attempt(outcome=zocdoc.Unknown(INTERRUPTED)), source)
        raise
    if command.is_submitted:
        attempt = _unauthorised_is_not_sent(attempt)
    reach(Point.ANSWER_CLASSIFIED)
    return attempt, _settle(resources, command, attempt, source)


def follow_late(resources: Resources, client: zocdoc.ZocdocClient, command: Pending, *, source: str) -> None:
    """Read the appointment once more after an answer that came late; if that fails, sync will."""
    with contextlib.suppress(errors.ReadFailed, errors.AppointmentNotFound):
        observations.follow(resources, client, command.appointment_id, actor=command.actor, source=source)


def _unauthorised_is_not_sent(attempt: attempts.Attempt) -> attempts.Attempt:
    """Take a 401, which is answered before anything is processed, as not sent: a submitted command waits.

    It says that the credential is not good now, nothing about the command; else a batch would be rejected as a whole.
    """
    outcome = attempt.outcome
    if not isinstance(outcome, zocdoc.Rejected) or outcome.http_status != UNAUTHORISED:
        return attempt
    return replace(attempt, outcome=zocdoc.NotSent(outcome.reason_code, outcome.http_status, outcome.request_id))


def find_claim(resources: Resources, command_id: str, client: zocdoc.ZocdocClient, claimed_at: float) -> Claim | None:
    """Look for an intent whose COMMIT was not answered; None if it is not there or cannot be seen."""
    with contextlib.suppress(errors.DatabaseUnavailable), resources.database.read() as connection:
        row = connection.execute(_SENDING, {"id": command_id}).mappings().one_or_none()
        return None if row is None else Claim(Pending.of(row), client, claimed_at)
    return None


def _settle(
    resources: Resources, command: Pending, attempt: attempts.Attempt, source: str
) -> settlement.Settled | None:
    """Record the outcome; again after a pause if the database fails, since only this process knows it."""
    timing = resources.timing
    try:
        return recording.settle(resources.database, command, attempt, source=source, timing=timing)
    except errors.DatabaseUnavailable as error:
        failure = error
    for pause in timing.record_again:
        time.sleep(pause)
        with contextlib.suppress(errors.DatabaseUnavailable):
            return recording.settle(
                resources.database, command, attempt, source=source, timing=timing, is_repeated=True
            )
    facts = _facts(command, attempt.outcome)
    raise errors.OutcomeUnknown(**facts, reason_code=NOT_RECORDED, state=State.SENDING) from failure


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


def _settled_already(
    resources: Resources, client: zocdoc.ZocdocClient, command: Pending, attempt: attempts.Attempt, source: str
) -> Done:
    """Follow Zocdoc once more after a late answer, then give the outcome that is recorded."""
    follow_late(resources, client, command, source=source)
    try:
        with resources.database.read() as connection:
            return outcomes.of_command(connection, command.command_id)
    except errors.NotSent:
        if not isinstance(attempt.outcome, zocdoc.Applied):
            raise
    # Its key has gone to another command meanwhile, yet this one had an effect: that is not "safe to call again".
    facts = _facts(command, attempt.outcome)
    raise errors.OutcomeUnknown(**facts, reason_code=recording.ANSWERED_LATE, state=State.NOT_SENT)


_SENDING: Final = sa.select(models.commands).where(
    models.commands.c.command_id == sa.bindparam("id"), models.state_in(State.SENDING)
)
