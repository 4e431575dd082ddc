"""Writing down what the engine would have written for a plan: the rows of one appointment, with hashes. No SQL.

The engine's own functions check, judge and write, on `Paper`; what is told again here is Zocdoc's side and the order of
the steps. A test holds both ways equal, event by event.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, cast

import sqlalchemy as sa

from lifecycle import (
    attempts,
    audit,
    chart,
    commands,
    decisions,
    doubt,
    guards,
    inbox,
    models,
    observations,
    operators,
    pending,
    reconciliation,
    recovery,
    refusals,
    settlement,
    submissions,
    wishes,
    zocdoc,
)
from lifecycle.resources import Clients, Resources, Timing
from lifecycle.samples import plans, practice
from lifecycle.samples.chances import uuid_text
from lifecycle.samples.paper import Paper
from lifecycle.samples.remote import Remote

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from lifecycle.database import Database

State = models.CommandState

SYNC_ACTOR: Final = "job:sync"

_TIMING: Final = Timing()
_LEASE: Final = timedelta(seconds=_TIMING.lease(25.0))
_SETTLE: Final = timedelta(seconds=_TIMING.settle)
_PROCESSING: Final = timedelta(seconds=plans.PROCESSING_SECONDS)
_LEAST_STEP: Final = timedelta(microseconds=1)
_OK: Final = 200
_INSERT_COMMAND: Final = sa.insert(models.commands)
_NOWHERE: Final = Resources(cast("Database", None), Clients(None))
_NOBODY: Final = zocdoc.ZocdocClient(base_url="http://127.0.0.1", access_token="none")  # noqa: S106 # it calls nobody
"""What a decision is handed; it asks them for times and an identity only."""


@dataclass(frozen=True, slots=True)
class Life:
    """The rows of one appointment as they are at the end; events in order. Keys are column names."""

    appointment: dict[str, Any]
    commands: list[dict[str, Any]]
    deliveries: list[dict[str, Any]]
    events: list[dict[str, Any]]


def write_down(plan: plans.Plan, *, until: datetime, ids: Random) -> Life | None:
    """Give the rows of a plan that is carried out until an instant; None: it is not known here by then.

    `ids` gives the ids of commands, requests and deliveries: the same state gives the same rows, hash for hash.
    """
    return _Scribe(plan, ids).write(until)


class _Scribe:
    """One appointment: its side at Zocdoc (`remote`), its rows here (`paper`), and what is due when (`agenda`)."""

    def __init__(self, plan: plans.Plan, ids: Random) -> None:
        self.ids = ids
        self.now = plan.booked_at
        self.remote = Remote(plan, ids)
        self.paper = Paper()
        self.connection = cast("sa.Connection", self.paper)
        self.deliveries: list[dict[str, Any]] = []
        self.synced_at: datetime | None = None
        self.submitted: dict[str, plans.Asked] = {}
        self.agenda: list[tuple[datetime, int, Callable[[Any], None], Any]] = []
        self.order = 0
        acts: dict[type, Callable[[Any], None]] = {
            plans.Told: self.be_told,
            plans.Looked: self.look,
            plans.Changed: self.change,
            plans.Asked: self.ask,
            plans.Resolved: self.resolve,
        }
        self.expect_sync()
        for action in plan.actions:
            if isinstance(action, plans.Asked) and action.batch is not None:
                self.expect(action.batch.at, self.submit, (action, action.batch))
                self.expect(action.at, self.take, action)
            else:
                self.expect(action.at, acts[type(action)], action)

    def write(self, until: datetime) -> Life | None:
        """Carry the plan out, step by step."""
        while self.agenda and self.agenda[0][0] <= until:
            at, _, act, operand = heapq.heappop(self.agenda)
            self.now = max(at, self.now)
            act(operand)
        if not self.is_tracked:
            return None
        paper = self.paper
        return Life(paper.appointment, list(paper.commands.values()), self.deliveries, paper.events)

    @property
    def is_tracked(self) -> bool:
        """Tell whether there is a row."""
        return bool(self.paper.events)

    def expect(self, at: datetime, act: Callable[[Any], None], operand: object = None) -> None:
        """Put a step on the agenda."""
        self.order += 1
        heapq.heappush(self.agenda, (at, self.order, act, operand))

    def expect_sync(self) -> None:
        """Let the next nightly sync look at what has just changed at Zocdoc."""
        at = practice.next_sync(self.now)
        if at != self.synced_at:
            self.synced_at = at
            self.expect(at, self.sync)

    def change(self, action: plans.Changed) -> None:
        """Let the provider change the appointment at Zocdoc."""
        moved = {} if action.start is None else {"start_time": action.start}
        self.remote.modify(self.now, appointment_status=action.status, **moved)
        self.expect_sync()

    # What is read from Zocdoc.

    def be_told(self, action: plans.Told) -> None:
        """Receive a webhook call."""
        delivery = {
            "delivery_id": f"{self.ids.getrandbits(256):064x}",
            "state": models.DeliveryState.FOLLOWED,
            "copies": 1,
            "is_stale": False,
            "appointment_id": self.remote.data.appointment_id,
            "update_type": action.update_type,
            "occurred_at": self.remote.data.last_modified_time_utc,
            "signed_at": self.now.replace(microsecond=0),
            "received_at": self.now,
            "last_received_at": self.now,
            "attempts": 0,
            "run_at": None,
            "reason_code": None,
        }
        self.expect(self.now + _PROCESSING, self.process, delivery)

    def process(self, delivery: dict[str, Any]) -> None:
        """Process a webhook call; later, while a command is active."""
        if self.is_tracked and self.paper.locked(self.now).is_busy:
            self.expect(self.now + timedelta(seconds=_TIMING.read_backoff), self.process, delivery)
            return
        self.read(inbox.ACTOR, inbox.SOURCE, delivery["delivery_id"])
        self.deliveries.append({**delivery, "processed_at": self.now})

    def look(self, action: plans.Looked) -> None:
        """Track, or read again."""
        self.read(action.actor, action.source)

    def sync(self, _: None) -> None:
        """Read what the list of changes tells, unless it has been read already."""
        known = self.paper.appointment.get("remote_last_modified")
        if known is None or known < self.remote.data.last_modified_time_utc:
            self.read(SYNC_ACTOR, reconciliation.SOURCE)

    def read(self, actor: str, source: str, delivery_id: str | None = None) -> None:
        """Track the appointment, or follow what has changed; not while a command is active."""
        reading, who = self.reading(), {"actor": actor, "source": source}
        if not self.is_tracked:
            entry = observations.first_entry(reading, booked_with=chart.MACHINE, delivery_id=delivery_id, **who)
            row = observations.first_row(self.remote.data, booked_with=chart.MACHINE)
            audit.begin(self.connection, row, entry, now=self.now)
            return
        locked = self.paper.locked(self.now)
        if not locked.is_busy:
            observations.apply(self.connection, locked, reading, delivery_id=delivery_id, **who)

    def reading(self) -> zocdoc.Reading:
        """Read from Zocdoc."""
        return zocdoc.Reading(self.remote.data, uuid_text(self.ids))

    # Commands.

    def ask(self, asked: plans.Asked) -> None:
        """Do what `commands.run` does."""
        locked = self.paper.locked(self.now)
        if locked.row["in_doubt"] and not locked.is_busy:
            if asked.trouble is plans.Trouble.UNREACHABLE:
                return
            self.read(asked.actor, asked.source)
            locked = self.paper.locked(self.now)
        wish = asked.wish(self.remote.data.appointment_id)
        decision = guards.decide(wishes.situation(locked, wish, credential=chart.MACHINE))
        if decision.reasons:
            refusals.record(self.connection, locked, wish, decision.reasons)
            return
        command = commands.pending_of(locked, wish, uuid_text(self.ids))
        commands.accept(self.connection, locked, command, wish, digest=None, lease=_LEASE, advice=decision.advice)
        self.send(asked, command)

    def submit(self, due: tuple[plans.Asked, plans.Batch]) -> None:
        """Do what `enqueuing` does with a row of a batch; which row it is, is told later."""
        (asked, batch), locked = due, self.paper.locked(self.now)
        wish = asked.wish(self.remote.data.appointment_id)
        given = submissions.Queued(wish=wish, command_id=uuid_text(self.ids), batch_id=batch.batch_id)
        reasons = submissions.in_the_way(locked)
        if reasons:
            submissions.refuse(self.connection, given, locked, reasons)
            return
        row = {**submissions.row_of(given, locked), "state": State.QUEUED, "due_at": self.now}
        self.connection.execute(_INSERT_COMMAND, row)

    def take(self, asked: plans.Asked) -> None:
        """Do what `claiming` does with a queued command, then send it, if it may be sent."""
        row = next((row for row in self.paper.commands.values() if row["state"] == State.QUEUED), None)
        if row is None:
            return
        if self.paper.locked(self.now).row["in_doubt"]:
            self.read(asked.actor, asked.source)
        judged = decisions.Decisions(_NOWHERE, {chart.MACHINE: _NOBODY}, 0.0, is_read=True)
        judged.judge({**row, "cancelled_at": None}, self.paper.locked(self.now))
        judged.write(self.connection)
        for order in judged.taken.orders:
            self.submitted[row["command_id"]] = replace(asked, trouble=None)
            self.send(asked, order.claim.command)

    def expect_again(self, command: pending.Pending) -> None:
        """Expect the next turn of a command, if it was put back into the queue."""
        row = self.paper.commands[command.command_id]
        if row["state"] == State.QUEUED:
            self.expect(row["due_at"], self.take, self.submitted[command.command_id])

    def send(self, asked: plans.Asked, command: pending.Pending) -> None:
        """Do what `sending.carry_out` does: the call, and what comes of it; an unknown outcome is read for."""
        before, after = asked.pauses
        self.now += timedelta(milliseconds=before)
        outcome = self.remote.outcome(asked, self.now)
        self.expect_sync()
        self.now += timedelta(milliseconds=after)
        attempt = attempts.Attempt(outcome=outcome, duration_ms=asked.milliseconds)
        if isinstance(outcome, zocdoc.Rejected) and attempts.is_stale(command, outcome):
            attempt = attempts.after_reading(command, outcome, self.reading(), asked.milliseconds)
        locked = self.paper.locked(self.now)
        settlement.settle_locked(self.connection, locked, command, attempt, source=asked.source, timing=_TIMING)
        self.expect_again(command)
        if isinstance(outcome, zocdoc.Unknown):
            self.expect(self.now + _SETTLE, self.recover, command)

    def recover(self, command: pending.Pending) -> None:
        """Do what `recovery` does with a command that is due."""
        reading = self.reading()
        locked = self.paper.locked(self.now)
        match pending.judge(command, self.remote.data):
            case pending.Finding.REACHED:
                outcome = zocdoc.Applied(self.remote.data.appointment_status, _OK, reading.request_id)
                attempt = attempts.Attempt(outcome=outcome, reading=reading, note=recovery.RECOVERED)
                settlement.settle_locked(
                    self.connection, locked, command, attempt, source=recovery.SOURCE, timing=_TIMING
                )
            case pending.Finding.UNCHANGED:
                self.wait(locked, command, reading)
            case pending.Finding.UNTELLABLE:
                is_same = self.remote.data.appointment_status == command.baseline_status
                reason_code = recovery.UNTELLABLE if is_same else recovery.UNEXPLAINED
                doubt.give_up(
                    self.connection, locked, command, reason_code=reason_code, source=recovery.SOURCE, reading=reading
                )

    def wait(self, locked: audit.Locked, command: pending.Pending, reading: zocdoc.Reading) -> None:
        """Read again later, or take it as proved that nothing was applied."""
        reads = self.paper.commands[command.command_id]["unchanged_reads"] + 1
        if reads > len(_TIMING.spacing):
            outcome = zocdoc.NotSent(recovery.PROVED_NOT_APPLIED, _OK, reading.request_id)
            attempt = attempts.Attempt(outcome=outcome, reading=reading)
            settlement.settle_locked(self.connection, locked, command, attempt, source=recovery.SOURCE, timing=_TIMING)
            self.expect_again(command)
            return
        pause = timedelta(seconds=_TIMING.spacing[reads - 1])
        doubt.postpone(
            self.connection,
            locked,
            command,
            {"unchanged_reads": reads},
            pause=pause,
            source=recovery.SOURCE,
            zocdoc_request_id=reading.request_id,
            details={"unchanged_reads": reads, "remote": doubt.remote_facts(reading)},
        )
        self.expect(self.now + pause, self.recover, command)

    def resolve(self, action: plans.Resolved) -> None:
        """Let an operator settle what needs attention."""
        rows = (row for row in self.paper.commands.values() if row["state"] == State.NEEDS_ATTENTION)
        row = next(rows, None)
        if row is not None:
            operators.close(
                self.connection,
                self.paper.locked(self.now),
                pending.Pending.of(row),
                State(action.resolution),
                reason_code=action.reason_code,
                actor=action.actor,
                given_up_at=row["ended_at"],
            )
