"""Settling what was left half-way, by reading. Sends no command; what was lost stays lost until reading proves it.

A command whose answer was lost is read after a settle time. Its target in sight: applied. The state from before still
there on several spaced reads: proved not applied, and the caller may call again. Anything else: a human must look.
"""

from __future__ import annotations

import logging
import math
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from lifecycle import audit, chart, claiming, doubt, errors, models, settlement, telemetry, zocdoc
from lifecycle.attempts import Attempt
from lifecycle.columns import UtcDateTime
from lifecycle.pending import Finding, Pending, judge
from lifecycle.points import Point, reach

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime

    from lifecycle.resources import Resources

SOURCE: Final = "recovery"
RECOVERED: Final = "recovered"
LEASE_EXPIRED: Final = "lease_expired"
PROVED_NOT_APPLIED: Final = "proved_not_applied"
NO_CREDENTIAL: Final = "no_credential"
UNEXPLAINED: Final = "unexplained_change"
UNTELLABLE: Final = "cannot_be_told_apart"
NOT_FOUND: Final = "not_found"

State = models.CommandState

_log = logging.getLogger(__name__)


def recover(resources: Resources, *, wait: float = 0.0, sleep: Callable[[float], None] = time.sleep) -> Recovery:
    """Settle all that is due; with `wait`, go on for so many seconds for what is due later.

    Calls Zocdoc once for each due command and opens two transactions for it. Several processes may recover at once:
    each due read is made by one of them. An unchanged status needs 3 spaced reads (`Timing`), so one call without
    `wait` may leave commands waiting: `waiting` counts them, `next_at` tells when the first is due.
    """
    if not isinstance(wait, int | float) or not 0 <= wait < math.inf:
        raise errors.InvalidArgument(argument="wait", problem="a number of seconds, 0 or more, is needed")
    until = time.monotonic() + wait
    settled: list[Recovered] = []
    while True:
        _expire_leases(resources)
        due = _select(resources, _DUE)
        reach(Point.RECOVERY_SCANNED)
        for found in filter(None, (_look(resources, row) for row in due)):
            settled.append(found)
            resources.telemetry.count(telemetry.RECOVERED, 1, {"command": found.command, "outcome": found.state})
        waiting, next_at, pause = _outlook(resources)
        if not waiting or time.monotonic() + pause > until:
            return Recovery(settled=settled, waiting=waiting, next_at=next_at, queued=claiming.count(resources))
        sleep(pause)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """A command that recovery has settled: as `applied`, `not_sent` or `needs_attention`; or it is `queued` again."""

    command_id: str
    appointment_id: str
    command: str
    state: str
    reason_code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """What a recovery run settled, and how many commands have not ended: in doubt, or still being sent; or queued."""

    settled: list[Recovered]
    waiting: int
    next_at: datetime | None
    queued: int


def _expire_leases(resources: Resources) -> None:
    """Take commands over whose sender is gone: killed, or stopped for longer than its lease.

    A sender may have been stopped while it held the lock of one: the others must not wait for that.
    """
    for row in _select(resources, _EXPIRED):
        command = Pending.of(row)
        with resources.database.write() as connection:
            if not audit.try_lock(resources.database, connection, command.appointment_id):
                continue
            locked = audit.hold(resources.database, connection, command.appointment_id)
            reach(Point.SETTLEMENT_OPEN)
            doubt.lose(connection, locked, command, reason_code=LEASE_EXPIRED, source=SOURCE)
        reach(Point.SETTLEMENT_COMMITTED)


def _look(resources: Resources, row: Mapping[Any, Any]) -> Recovered | None:
    """Read the appointment of one command and settle it if that tells; None: not yet, or another process does it."""
    command = Pending.of(row)
    client = resources.clients.find(row["booked_with"])
    if client is None and row["booked_with"] == chart.MACHINE:
        # This process acts for a user only; the machine's commands wait for one that has the machine's credential.
        return None
    if not _claim(resources, row, client):
        return None
    reach(Point.READ_CLAIMED)
    if client is None:
        return _note_failure(resources, row, command, NO_CREDENTIAL)
    try:
        reading = client.get(command.appointment_id)
    except zocdoc.AppointmentMissing:
        return _give_up(resources, command, NOT_FOUND)
    except (zocdoc.ReadRefused, zocdoc.ReadFailed) as error:
        return _note_failure(resources, row, command, str(error.reason_code))
    reach(Point.READ_RETURNED)
    return _conclude(resources, row, command, reading)


def _conclude(
    resources: Resources, row: Mapping[Any, Any], command: Pending, reading: zocdoc.Reading
) -> Recovered | None:
    match judge(command, reading.appointment):
        case Finding.REACHED:
            outcome = zocdoc.Applied(reading.appointment.appointment_status, _OK, reading.request_id)
            return _settle(resources, command, Attempt(outcome=outcome, reading=reading, note=RECOVERED))
        case Finding.UNCHANGED:
            return _note_unchanged(resources, row, command, reading)
        case Finding.UNTELLABLE:
            same = reading.appointment.appointment_status == command.baseline_status
            return _give_up(resources, command, UNTELLABLE if same else UNEXPLAINED, reading)


def _claim(resources: Resources, row: Mapping[Any, Any], client: zocdoc.ZocdocClient | None) -> bool:
    """Take a due read for this process, so that reads stay spaced however many processes recover.

    What somebody else holds is left for later: what is read now could not be recorded.
    """
    deadline = 0.0 if client is None else client.deadline
    with resources.database.write() as connection:
        if not audit.try_lock(resources.database, connection, row["appointment_id"]):
            return False
        resources.check_environment(connection, environment=None if client is None else client.environment)
        now = resources.database.now(connection)
        lease = now + timedelta(seconds=deadline + resources.timing.lease_margin)
        claimed = sa.update(_commands).where(
            _commands.c.command_id == row["command_id"],
            models.state_in(State.UNCERTAIN),
            _commands.c.run_at == row["run_at"],
        )
        values = {"lease_until": lease, "run_at": lease, "updated_at": now}
        return connection.execute(claimed.values(values)).rowcount == 1


@contextmanager
def _settling(resources: Resources, command: Pending) -> Iterator[tuple[sa.Connection, audit.Locked]]:
    """Open the transaction that settles a command, under its appointment's lock."""
    with resources.database.write() as connection:
        locked = audit.hold(resources.database, connection, command.appointment_id)
        reach(Point.SETTLEMENT_OPEN)
        yield connection, locked
    reach(Point.SETTLEMENT_COMMITTED)


def _settle(resources: Resources, command: Pending, attempt: Attempt) -> Recovered | None:
    with _settling(resources, command) as (connection, locked):
        settled = settlement.settle_locked(connection, locked, command, attempt, source=SOURCE, timing=resources.timing)
    if settled is None:
        return None
    is_applied = isinstance(attempt.outcome, zocdoc.Applied)
    return _recovered(command, settled.state, RECOVERED if is_applied else PROVED_NOT_APPLIED)


def _note_unchanged(
    resources: Resources, row: Mapping[Any, Any], command: Pending, reading: zocdoc.Reading
) -> Recovered | None:
    reads, spacing = row["unchanged_reads"] + 1, resources.timing.spacing
    if reads > len(spacing):
        outcome = zocdoc.NotSent(PROVED_NOT_APPLIED, _OK, reading.request_id)
        return _settle(resources, command, Attempt(outcome=outcome, reading=reading))
    details = {"unchanged_reads": reads, "remote": doubt.remote_facts(reading)}
    _wait(
        resources,
        command,
        {"unchanged_reads": reads},
        spacing[reads - 1],
        zocdoc_request_id=reading.request_id,
        details=details,
    )
    return None


def _note_failure(resources: Resources, row: Mapping[Any, Any], command: Pending, reason_code: str) -> Recovered | None:
    failures, timing = row["failed_reads"] + 1, resources.timing
    if failures >= timing.failed_reads:
        return _give_up(resources, command, reason_code)
    details = {"failed_reads": failures}
    _wait(
        resources,
        command,
        {"failed_reads": failures},
        timing.read_backoff * failures,
        reason_code=reason_code,
        details=details,
    )
    return None


def _wait(resources: Resources, command: Pending, counts: dict[str, int], seconds: float, **facts: Any) -> None:  # noqa: ANN401 # columns
    with _settling(resources, command) as (connection, locked):
        doubt.postpone(connection, locked, command, counts, pause=timedelta(seconds=seconds), source=SOURCE, **facts)


def _give_up(
    resources: Resources, command: Pending, reason_code: str, reading: zocdoc.Reading | None = None
) -> Recovered | None:
    with _settling(resources, command) as (connection, locked):
        gave_up = doubt.give_up(connection, locked, command, reason_code=reason_code, source=SOURCE, reading=reading)
    return _recovered(command, State.NEEDS_ATTENTION, reason_code) if gave_up else None


def _recovered(command: Pending, state: models.CommandState, reason_code: str) -> Recovered:
    facts = {"appointment_id": command.appointment_id, "command_id": command.command_id}
    _log.info("command_recovered", extra={**facts, "state": str(state), "reason_code": reason_code})
    return Recovered(
        command_id=command.command_id,
        appointment_id=command.appointment_id,
        command=str(command.command),
        state=str(state),
        reason_code=reason_code,
    )


def _select(resources: Resources, query: sa.Select[Any]) -> list[Mapping[Any, Any]]:
    with resources.database.read() as connection:
        now = resources.database.now(connection)
        return [dict(row) for row in connection.execute(query, {"now": now}).mappings()]


def _outlook(resources: Resources) -> tuple[int, datetime | None, float]:
    """Count the commands that have not ended; tell when the first is due, and in how many seconds."""
    with resources.database.read() as connection:
        now = resources.database.now(connection)
        waiting, next_at = connection.execute(_OUTLOOK).one()
    seconds = 0.0 if next_at is None else (next_at - now).total_seconds()
    return waiting, next_at, max(seconds, _SHORTEST_PAUSE)


_OK: Final = 200
_SHORTEST_PAUSE: Final = 0.1
"""What is due but claimed by another process is looked at again after this many seconds, not at once."""

_BATCH: Final = 1000
"""Commands taken up in one go; the rest is due at the next look."""

_commands = models.commands
_is_due: Final = _commands.c.run_at <= sa.bindparam("now", type_=UtcDateTime())
_EXPIRED: Final = sa.select(_commands).where(models.state_in(State.SENDING), _is_due).limit(_BATCH)
_DUE: Final = (
    sa.select(_commands, models.appointments.c.booked_with)
    .join_from(_commands, models.appointments)
    .where(models.state_in(State.UNCERTAIN), _is_due)
    .order_by(_commands.c.run_at)
    .limit(_BATCH)
)
_OUTLOOK: Final = sa.select(sa.func.count(), sa.func.min(_commands.c.run_at)).where(_commands.c.run_at.is_not(None))
