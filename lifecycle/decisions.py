"""What becomes of commands that were found due: each is sent, read first, or ended, by the checks as they stand now."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from lifecycle import (
    audit,
    chart,
    columns,
    endings,
    guards,
    models,
    refusals,
    settlement,
    telemetry,
    wishes,
    withdrawals,
    zocdoc,
)
from lifecycle.pending import TARGET_STATUS, Pending, baseline
from lifecycle.sending import Claim

if TYPE_CHECKING:
    from collections.abc import Mapping

    import sqlalchemy as sa

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
    is_background: bool


@dataclass(slots=True)
class Taken:
    """What one look at the queue came to. `scanned`: commands that were due and free, up to as many as asked for."""

    scanned: int = 0
    orders: list[Order] = field(default_factory=list)
    to_read: list[ToRead] = field(default_factory=list)
    ended: int = 0


class Decisions:
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
        self._judged: list[tuple[str | None, str]] = []

    def judge(self, row: Mapping[Any, Any], locked: audit.Locked) -> None:
        """Decide about one command, whose appointment is locked."""
        if not endings.is_queued(row, locked):
            return
        self._judged.append((row["batch_id"], row["command_id"]))
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
        if self._ends.rows or self._postponed or len({batch_id for batch_id, _ in self._judged}) > 1:
            endings.hold_counts(connection, self._judged)
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
                ToRead(
                    row["command_id"],
                    row["appointment_id"],
                    row["actor"],
                    row["source"],
                    client,
                    is_background=row["batch_id"] is not None,
                )
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
        claim = Claim(command, client, self._claimed_at, advice, self._expiry(row, locked))
        self.taken.orders.append(Order(claim, row["source"], is_background=row["batch_id"] is not None))

    def _expiry(self, row: Mapping[Any, Any], locked: audit.Locked) -> float | None:
        """Tell when the command expires, by the clock that calls are measured with: rather early than late."""
        if row["expires_at"] is None:
            return None
        return self._claimed_at + float((row["expires_at"] - locked.now).total_seconds())


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
