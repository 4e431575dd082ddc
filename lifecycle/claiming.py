"""Claiming: taking from the queue what is due, and recording the intents before anything is sent.

The checks run now, on the appointment as it stands, whatever it was when the wish was submitted. Several processes may
claim at once: what one has locked the others pass over.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from lifecycle import (
    audit,
    chart,
    columns,
    endings,
    guards,
    models,
    refusals,
    settlement,
    submissions,
    telemetry,
    wishes,
    withdrawals,
    zocdoc,
)
from lifecycle.pending import TARGET_STATUS, Pending, baseline
from lifecycle.points import Point, reach
from lifecycle.sending import Claim

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from lifecycle.resources import Resources

State = models.CommandState

EXPIRED: Final = "expired"
UNREADABLE: Final = "appointment_unreadable"

_READ_PAUSE: Final = timedelta(seconds=60)
"""How long others leave a command alone whose appointment is read first; a read that failed is tried again then."""


@dataclass(frozen=True, slots=True)
class Order:
    """A claim of a command that was submitted: how it came in, and whether it belongs to a batch."""

    claim: Claim
    source: str
    is_background: bool


@dataclass(frozen=True, slots=True)
class ToRead:
    """A command whose appointment is in doubt: it is read before the checks look at it."""

    command_id: str
    appointment_id: str
    actor: str
    source: str
    client: zocdoc.ZocdocClient


@dataclass(slots=True)
class Taken:
    """What one look at the queue came to. `scanned`: commands that were due and free, up to as many as asked for."""

    scanned: int = 0
    orders: list[Order] = field(default_factory=list)
    to_read: list[ToRead] = field(default_factory=list)
    ended: int = 0


def take(
    resources: Resources,
    *,
    most: int,
    clients: Mapping[str, zocdoc.ZocdocClient | None],
    command_id: str | None = None,
) -> Taken:
    """Take up to `most` commands that are due: record the intents of those that may be sent, end the others.

    `clients` has the clients by identity; a command of an identity that is not among them is left to others, and one
    whose client is None is refused. With `command_id` only that one, due or not, whose appointment was just read.
    Opens one transaction; calls nobody. Interactive commands come before those of batches, then by their time.
    """
    claimed_at = zocdoc.clock()
    with resources.database.write() as connection:
        found = _scan(resources, connection, most, list(clients), command_id)
        reach(Point.QUEUE_SCANNED)
        decisions = _Decisions(resources, clients, claimed_at, is_read=command_id is not None)
        if found:
            for client in filter(None, clients.values()):
                resources.check_environment(connection, environment=client.environment)
            locks = audit.read_all(resources.database, connection, [each.appointment_id for each in found])
            for row in connection.execute(_THOSE, {"ids": [each.command_id for each in found]}).mappings():
                decisions.judge(row, locks[row["appointment_id"]])
            decisions.write(connection)
    reach(Point.QUEUE_CLAIMED)
    decisions.tell()
    decisions.taken.scanned = len(found)
    return decisions.taken


def next_due(resources: Resources) -> datetime | None:
    """Tell when the next queued command is due; None: nothing is queued. Database only."""
    with resources.database.read() as connection:
        found = [connection.execute(_NEXT, {"priority": each}).scalar() for each in _PRIORITIES]
    return min(filter(None, found), default=None)


def waiting_identities(resources: Resources, *, but: list[str]) -> list[str]:
    """List some identities, other than those, with whose credentials queued commands are to be sent. Database only."""
    with resources.database.read() as connection:
        return list(connection.execute(_IDENTITIES, {"but": but}).scalars())


def count(resources: Resources) -> int:
    """Count the queued commands. Database only."""
    with resources.database.read() as connection:
        return connection.execute(_COUNT).scalar_one()


def _scan(
    resources: Resources, connection: sa.Connection, most: int, identities: list[str], command_id: str | None
) -> Sequence[sa.Row[Any, Any]]:
    """Find what may be taken, and lock its appointments: those that somebody else holds are passed over."""
    if command_id is not None:
        return connection.execute(_THIS, {"id": command_id}).all()
    values: dict[str, Any] = {"most": most, "identities": identities}
    if not resources.database.is_postgres:
        values["now"] = resources.database.now(connection)
    return connection.execute(_DUE_POSTGRES if resources.database.is_postgres else _DUE_SQLITE, values).all()


class _Decisions:
    """What becomes of the commands that were found due, in one transaction."""

    def __init__(
        self,
        resources: Resources,
        clients: Mapping[str, zocdoc.ZocdocClient | None],
        claimed_at: float,
        *,
        is_read: bool,
    ) -> None:
        self.taken = Taken()
        self._resources = resources
        self._clients = clients
        self._claimed_at = claimed_at
        self._is_read = is_read
        self._ends = endings.Endings()
        self._claims: list[dict[str, Any]] = []
        self._postponed: list[dict[str, Any]] = []
        self._entries: list[tuple[audit.Locked, audit.Entry]] = []
        self._waits: list[tuple[str, timedelta]] = []

    def judge(self, row: Mapping[Any, Any], locked: audit.Locked) -> None:
        """Decide about one command, whose appointment is locked."""
        if not endings.is_queued(row, locked):
            return
        if row["cancelled_at"] is not None:
            self._ends.add(row, locked, State.WITHDRAWN, withdrawals.BATCH_CANCELLED)
        elif row["expires_at"] is not None and row["expires_at"] <= locked.now:
            self._ends.add(row, locked, State.EXPIRED, EXPIRED)
        elif locked.row["in_doubt"] and not self._is_read:
            self._read_first(row, locked)
        else:
            self._decide(row, locked)

    def write(self, connection: sa.Connection) -> None:
        """Write what was decided."""
        self._ends.write(connection)
        self.taken.ended = len(self._ends.rows)
        endings.change(connection, self._postponed)
        # The commands last: their update holds the counts of a batch, which others wait for, until the commit.
        audit.record_all(connection, self._entries)
        endings.change(connection, self._claims)

    def tell(self) -> None:
        """Tell what was committed: how it ended, and how long the first attempts had waited."""
        hook = self._resources.telemetry
        self._ends.tell(hook)
        for command, wait in self._waits:
            hook.record(telemetry.QUEUE_WAIT, wait.total_seconds(), {"command": command})

    def _read_first(self, row: Mapping[Any, Any], locked: audit.Locked) -> None:
        client = self._clients.get(locked.row["booked_with"])
        if client is None:
            self._decide(row, locked)
        elif row["failed_reads"] >= self._resources.timing.failed_reads:
            self._refuse(row, locked, (UNREADABLE,))
        else:
            self._postponed.append(
                {
                    "of_command": row["command_id"],
                    "due_at": locked.now + _READ_PAUSE,
                    "failed_reads": row["failed_reads"] + 1,
                    "updated_at": locked.now,
                }
            )
            self.taken.to_read.append(
                ToRead(row["command_id"], row["appointment_id"], row["actor"], row["source"], client)
            )

    def _decide(self, row: Mapping[Any, Any], locked: audit.Locked) -> None:
        """Run the checks that a synchronous call runs; the command itself is the one that is active."""
        wish = _wish(row)
        client = self._clients.get(locked.row["booked_with"])
        credential = None if client is None else client.identity
        free = replace(locked, active_command_id=None, active_state=None)
        decision = guards.decide(wishes.situation(free, wish, credential=credential))
        if client is None or decision.reasons:
            self._refuse(row, locked, decision.reasons)
            return
        self._claim(row, locked, client, decision.advice)

    def _refuse(self, row: Mapping[Any, Any], locked: audit.Locked, reasons: tuple[str, ...]) -> None:
        entry = refusals.entry(_wish(row), reasons, command_id=row["command_id"])
        self._ends.add(row, locked, State.REFUSED, reasons[0], entry=entry)

    def _claim(
        self, row: Mapping[Any, Any], locked: audit.Locked, client: zocdoc.ZocdocClient, advice: tuple[str, ...]
    ) -> None:
        lease = locked.now + timedelta(seconds=self._resources.timing.lease(client.deadline))
        changes: dict[str, Any] = {
            **baseline(locked.row),
            "attempt": row["attempt"] + 1,
            "target_status": TARGET_STATUS.get(chart.Command(row["command"])),
            "target_start_time": _wish(row).requested_start,
        }
        command = Pending.of({**row, **changes})
        self._claims.append(
            {
                **changes,
                "of_command": row["command_id"],
                "state": State.SENDING,
                "due_at": None,
                "lease_until": lease,
                "run_at": lease,
                "unchanged_reads": 0,
                "failed_reads": 0,
                "outcome": None,
                "reason_code": None,
                "zocdoc_request_id": None,
                "http_status": None,
                "updated_at": locked.now,
            }
        )
        if command.attempt == 1:
            self._waits.append((row["command"], locked.now - row["queued_at"]))
        self._entries.append((locked, _accepted(row, command, advice)))
        claim = Claim(command, client, self._claimed_at, advice)
        self.taken.orders.append(Order(claim, row["source"], is_background=row["batch_id"] is not None))


def _accepted(row: Mapping[Any, Any], command: Pending, advice: tuple[str, ...]) -> audit.Entry:
    """Make the event of an intent. A command is accepted once; what is sent after that is sent again."""
    if command.attempt > 1:
        details: dict[str, Any] = {"attempt": command.attempt}
        return settlement.entry_for(command, audit.Event.COMMAND_RESENT, row["source"], details=details)
    details = {"queued_at": columns.utc_text(row["queued_at"])}
    if advice:
        details["advice"] = list(advice)
    return settlement.entry_for(command, audit.Event.COMMAND_ACCEPTED, row["source"], details=details)


def _wish(row: Mapping[Any, Any]) -> wishes.Wish:
    return wishes.Wish(
        appointment_id=row["appointment_id"],
        command=chart.Command(row["command"]),
        actor=row["actor"],
        source=row["source"],
        request_key=row["request_key"],
        payload=row["payload"],
    )


_PRIORITIES: Final = (submissions.ALONE, submissions.IN_BATCH)

_commands, _appointments, _batches = models.commands, models.appointments, models.batches
_IS_QUEUED: Final = _commands.c.due_at.is_not(None)
_FREE: Final = (
    sa.select(_commands.c.command_id, _commands.c.appointment_id)
    .join_from(_commands, _appointments)
    .with_for_update(key_share=True, skip_locked=True, of=_appointments)
)
_HAS_CLIENT: Final = _appointments.c.booked_with.in_(sa.bindparam("identities", expanding=True))


def _due(now: sa.ColumnElement[Any]) -> sa.Select[Any]:
    """Select what is due and may be sent by this process, or ended: that its time is over needs no credential."""
    return (
        _FREE.where(_IS_QUEUED, _commands.c.due_at <= now, sa.or_(_HAS_CLIENT, _commands.c.expires_at <= now))
        .order_by(_commands.c.priority, _commands.c.due_at)
        .limit(sa.bindparam("most"))
    )


_DUE_POSTGRES: Final = _due(sa.func.now())
_DUE_SQLITE: Final = _due(sa.bindparam("now", type_=columns.UtcDateTime()))
_THIS: Final = _FREE.where(_IS_QUEUED, _commands.c.command_id == sa.bindparam("id"))
_THOSE: Final = (
    sa.select(_commands, _batches.c.cancelled_at)
    .outerjoin_from(_commands, _batches)
    .where(_commands.c.command_id.in_(sa.bindparam("ids", expanding=True)))
    .order_by(_commands.c.priority, _commands.c.due_at)
)
_NEXT: Final = (
    sa.select(_commands.c.due_at)
    .where(_IS_QUEUED, _commands.c.priority == sa.bindparam("priority"))
    .order_by(_commands.c.due_at)
    .limit(1)
)
_IDENTITIES: Final = (
    sa.select(_appointments.c.booked_with)
    .join_from(_commands, _appointments)
    .where(_IS_QUEUED, _appointments.c.booked_with.not_in(sa.bindparam("but", expanding=True)))
    .distinct()
    .limit(100)
)
_COUNT: Final = sa.select(sa.func.count()).where(_IS_QUEUED)
