"""What needs a human, and what the human decides. Every decision is in the trail, with a reason code."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from lifecycle import (
    audit,
    chart,
    errors,
    guards,
    models,
    observations,
    refusals,
    sending,
    settlement,
    tracing,
    wishes,
    zocdoc,
)
from lifecycle.pending import Pending, baseline
from lifecycle.resources import check_name

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from lifecycle.database import Database
    from lifecycle.outcomes import Done
    from lifecycle.resources import Resources

SOURCE: Final = "operator"

State = models.CommandState


class Resolution(StrEnum):
    """What an operator found out, or wants."""

    APPLIED = "applied"
    REJECTED = "rejected"
    RETRY = "retry"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """A command that reading could not settle, with the evidence. Instants are UTC.

    `baseline_*` is what the appointment was like before the command, `target_*` what would show that it was applied
    (None: nothing would), `remote_*` what was last read about it (None: nothing could be read), `status` what the
    appointment is now.
    """

    command_id: str
    appointment_id: str
    command: str
    actor: str
    reason_code: str
    since: datetime
    created_at: datetime
    zocdoc_request_id: str | None
    http_status: int | None
    status: str
    baseline_status: str
    baseline_start_time: datetime
    target_status: str | None
    target_start_time: datetime | None
    remote_status: str | None
    remote_start_time: str | None


def attention(database: Database) -> list[Attention]:
    """List the commands that need a human, oldest first. Database only."""
    with database.read() as connection:
        rows = connection.execute(_ATTENTION).mappings().all()
    return [_attention(row) for row in rows]


def resolve(resources: Resources, command_id: str, *, resolution: str, reason_code: str, actor: str) -> Done | None:
    """Settle a command that needs attention as an operator says; the decision and its reason code are in the trail.

    `applied`: it had happened; the appointment follows, unless something else has changed it since. `rejected`: it had
    not. `retry`: read the appointment, run the checks again, and send the command once more (a cancel without its free
    text, which is gone); gives what `commands.run` gives and raises what it raises. The two others call nobody.

    Raises `NothingToResolve`, `InvalidArgument`; a retry also `TransitionRefused`, `CommandInProgress`, `ReadFailed`.
    """
    check_name("actor", actor)
    check_name("command_id", command_id)
    if not isinstance(reason_code, str) or not _REASON_CODE.fullmatch(reason_code):
        problem = "a code of lower-case letters, digits and _ is needed, such as seen_in_portal; no free text"
        raise errors.InvalidArgument(argument="reason_code", problem=problem)
    if not isinstance(resolution, str) or resolution not in set(Resolution):
        raise errors.InvalidArgument(argument="resolution", problem=f"use one of {', '.join(Resolution)}")
    row = _find(resources.database, command_id)
    if resolution == Resolution.RETRY:
        return _retry(resources, row, reason_code=reason_code, actor=actor)
    facts = {"reason_code": reason_code, "actor": actor, "given_up_at": row["ended_at"]}
    _close(resources.database, Pending.of(row), State(resolution), **facts)
    return None


def _attention(row: Mapping[Any, Any]) -> Attention:
    remote = row["details"].get("remote", {})
    values = {name: row[name] for name in Attention.__slots__ if not name.startswith("remote_")}
    return Attention(**values, remote_status=remote.get("status"), remote_start_time=remote.get("start_time"))


def _find(database: Database, command_id: str) -> Mapping[Any, Any]:
    with database.read() as connection:
        row = connection.execute(_COMMAND, {"id": command_id}).mappings().one_or_none()
    if row is None or row["state"] != State.NEEDS_ATTENTION:
        raise errors.NothingToResolve(command_id=command_id, state=None if row is None else row["state"])
    return dict(row)


def _close(
    database: Database,
    command: Pending,
    state: models.CommandState,
    *,
    reason_code: str,
    actor: str,
    given_up_at: datetime,
) -> None:
    with database.write() as connection:
        locked = audit.hold(database, connection, command.appointment_id)
        close(connection, locked, command, state, reason_code=reason_code, actor=actor, given_up_at=given_up_at)


def close(
    connection: sa.Connection,
    locked: audit.Locked,
    command: Pending,
    state: models.CommandState,
    *,
    reason_code: str,
    actor: str,
    given_up_at: datetime,
) -> None:
    """Settle a command that needs attention as the operator says, in the caller's transaction.

    Raises `NothingToResolve` if another operator was faster.
    """
    values = {"state": state, "outcome": str(state), "reason_code": reason_code, "ended_at": locked.now}
    _take(connection, locked, command, values)
    changes: dict[str, Any] = settlement.doubt_left(connection, locked, uncertain=False)
    to_status, conforming = locked.status, True
    if state is State.APPLIED and command.command is chart.Command.MARK_ARRIVED:
        changes["arrived_at"] = locked.now
    elif state is State.APPLIED and _is_untouched(locked, command, since=given_up_at):
        to_status = command.target_status or locked.status
        conforming = chart.move(status=locked.status, event=command.command, answer=to_status).conforming
        changes |= _new_start(command)
    entry = audit.Entry(
        event=audit.Event.COMMAND_RESOLVED,
        actor=actor,
        source=SOURCE,
        command=command.command,
        command_id=command.command_id,
        reason_type=command.payload.get("reason_type"),
        to_status=to_status,
        conforming=conforming,
        outcome=str(state),
        reason_code=reason_code,
    )
    audit.record(connection, locked, entry, **changes)


def _take(connection: sa.Connection, locked: audit.Locked, command: Pending, values: dict[str, Any]) -> None:
    """Change the command's row, unless another operator was faster."""
    if not settlement.change(connection, locked, command, values, settlement.WHILE_NEEDING_ATTENTION):
        row = connection.execute(_COMMAND, {"id": command.command_id}).mappings().one()
        raise errors.NothingToResolve(command_id=command.command_id, state=row["state"])


def _is_untouched(locked: audit.Locked, command: Pending, *, since: datetime) -> bool:
    """Tell whether the operator's word moves the appointment: it is as before the command, and was not read since.

    What Zocdoc told later says more: the effect that the operator saw may have been undone meanwhile.
    """
    before = (command.baseline_status, command.baseline_start_time)
    return (locked.status, locked.row["start_time"]) == before and locked.row["observed_at"] <= since


def _new_start(command: Pending) -> dict[str, Any]:
    if command.target_start_time is None:
        return {}
    return observations.start_columns(guards.parse_start(command.payload["start_time"]))


def _retry(resources: Resources, row: Mapping[Any, Any], *, reason_code: str, actor: str) -> Done:
    client = resources.clients.of(row["booked_with"])
    if client is None:
        raise errors.CredentialNotAllowed(appointment_id=row["appointment_id"], booked_with=row["booked_with"])
    observations.follow(resources, client, row["appointment_id"], actor=actor, source=SOURCE)
    claimed_at = zocdoc.clock()
    wish = wishes.Wish(
        appointment_id=row["appointment_id"],
        command=chart.Command(row["command"]),
        actor=row["actor"],
        source=SOURCE,
        payload=row["payload"],
    )
    with resources.database.write() as connection:
        locked = audit.hold(resources.database, connection, wish.appointment_id)
        decision = guards.decide(wishes.situation(locked, wish, credential=client.identity))
        if decision.reasons:
            refusals.record(connection, locked, wish, decision.reasons, actor=actor)
        else:
            lease = locked.now + timedelta(seconds=resources.timing.lease(client.deadline))
            command = _claim_again(connection, locked, Pending.of(row), lease, reason_code=reason_code, actor=actor)
    if decision.reasons:
        raise refusals.error(locked, wish, decision.reasons)
    claim = sending.Claim(command, client, claimed_at, decision.advice)
    names = {"command": str(wish.command), "appointment_id": wish.appointment_id, "source": SOURCE}
    with tracing.command(resources.telemetry, **names) as span:
        span.claimed(command.command_id, command.attempt)
        return span.done(sending.carry_out(resources, claim, source=SOURCE))


def _claim_again(
    connection: sa.Connection,
    locked: audit.Locked,
    command: Pending,
    lease: datetime,
    *,
    reason_code: str,
    actor: str,
) -> Pending:
    again = replace(
        command,
        attempt=command.attempt + 1,
        queued_at=None,
        **baseline(locked.row),
    )
    values = {
        **baseline(locked.row),
        "attempt": again.attempt,
        "queued_at": None,
        "state": State.SENDING,
        "lease_until": lease,
        "run_at": lease,
        "unchanged_reads": 0,
        "failed_reads": 0,
        # Of this attempt nothing is known yet: what is there of the one before must not be taken for its outcome.
        "outcome": None,
        "reason_code": None,
        "zocdoc_request_id": None,
        "http_status": None,
        "ended_at": None,
    }
    _take(connection, locked, command, values)
    entry = audit.Entry(
        event=audit.Event.COMMAND_RETRIED,
        actor=actor,
        source=SOURCE,
        command=command.command,
        command_id=command.command_id,
        reason_code=reason_code,
        reason_type=command.payload.get("reason_type"),
        details={"attempt": again.attempt},
    )
    audit.record(connection, locked, entry, **settlement.doubt_left(connection, locked, uncertain=False))
    return again


_REASON_CODE: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")

_commands, _events, _appointments = models.commands, models.audit_events, models.appointments
_COMMAND: Final = (
    sa.select(_commands, _appointments.c.booked_with)
    .join_from(_commands, _appointments)
    .where(_commands.c.command_id == sa.bindparam("id"))
)
_newest = _events.alias("newest")
_IS_EVIDENCE: Final = _events.c.seq == (
    sa.select(sa.func.max(_newest.c.seq))
    .where(_newest.c.command_id == _commands.c.command_id, _newest.c.event == str(audit.Event.ATTENTION_NEEDED))
    .correlate(_commands)
    .scalar_subquery()
)
_ATTENTION: Final = (
    sa.select(_commands, _appointments.c.status, _events.c.details, _commands.c.ended_at.label("since"))
    .join_from(_commands, _appointments)
    .join(_events, _IS_EVIDENCE)
    .where(models.state_in(State.NEEDS_ATTENTION))
    .order_by(_commands.c.ended_at)
)
