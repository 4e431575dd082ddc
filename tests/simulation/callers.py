"""What the people and programs around the product do: wish, repeat, track, recover, resolve."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from tests.simulation import clock as clocks
from tests.simulation import postbox, remote, submitters

if TYPE_CHECKING:
    import sqlite3
    from random import Random

    from tests.simulation.faults import Rates

OPEN_AT_MOST = 28
"""Appointments that are worked on at a time: few enough that stories meet on one."""

UNTRACKED_AT_MOST = 4
"""Appointments that are booked and not tracked yet, which webhooks tell of all the same."""

CALLS_PER_COMMAND = 8
"""A world in which so few calls are accepted ends all the same."""

CANARY = "patient tells of a canary"
"""Free text that must be gone from the database when its command has ended."""

_NEW_STATUSES = {
    "pending_booking": 40,
    "confirmed": 30,
    "rescheduled": 10,
    "pending_reschedule": 8,
    "reschedule_failed": 6,
    "booking_failed": 3,
    "cancelled": 1,
    "no_show": 1,
}
_PROVIDED = {
    "pending_booking": 25,
    "confirmed": 15,
    "rescheduled": 12,
    "pending_reschedule": 12,
    "reschedule_failed": 10,
    "booking_failed": 8,
    "cancelled": 10,
    "no_show": 8,
}
"""What the provider or Zocdoc makes of an appointment, from whatever it was."""

_WISHES = {"confirm": 24, "reschedule": 32, "mark_arrived": 18, "cancel": 14, "mark_no_show": 14}
_REPEATED = {
    "NotSent": 0.6,
    "OutcomeUnknown": 0.35,
    "DatabaseUnavailable": 0.7,
    "Killed": 0.6,
    "Interrupted": 0.6,
    "CommandInProgress": 0.15,
    "CommandRejected": 0.15,
    "Done": 0.1,
    "RolledBackError": 0.5,
}
"""What a caller was told -> how often it calls again with the same key."""

_DOUBTFUL = frozenset({"OutcomeUnknown", "Killed", "Interrupted", "CommandInProgress"})
"""What makes most callers turn to another appointment for a while."""

WISHING = ("command", "submit")
"""Kinds of tasks that want a command."""

SUBMITTED_FOR = 40.0
"""Seconds, at most, for which callers leave an appointment alone for which something was submitted."""

_ANSWERED = frozenset({"Done", "WebhookRefused"})
"""What the door answers to a webhook call; to anything else it gives no answer."""

_ZONES = (timedelta(hours=-5), timedelta(0), timedelta(hours=5, minutes=30))


@dataclass(slots=True, kw_only=True)
class Task:
    """What a worker does next. `arguments` are the command's; `command_id` is what an operator resolves.

    `transaction` of a submit: its own (empty), the caller's, or the caller's that is rolled back.
    """

    kind: str
    actor: str
    appointment_id: str = ""
    command: str = ""
    key: str | None = None
    arguments: tuple[tuple[str, str], ...] = ()
    command_id: str = ""
    resolution: str = ""
    letter: postbox.Letter | None = None
    expires_in: float | None = None
    transaction: str = ""
    rows: tuple[submitters.Row, ...] = ()
    batch_id: str = ""


class Callers:
    """Draws the tasks of a world of so many commands, and behaves as callers do when they are told something."""

    def __init__(self, rng: Random, clock: clocks.Clock, zocdoc: remote.Remote, rates: Rates, commands: int) -> None:
        self._rng, self._clock, self._zocdoc, self._rates = rng, clock, zocdoc, rates
        self._commands = commands
        self._open_at_most = min(OPEN_AT_MOST, 5 + commands // 4)
        self._numbers = Counter[str]()
        self._untracked: list[str] = []
        self._repeats: list[Task] = []
        self._busy_until: dict[str, float] = {}
        self._submitters = submitters.Submitters(rng, clock)
        self.open: list[str] = []
        self.wished: dict[str, str] = {}

    @property
    def booked(self) -> list[str]:
        """Name the appointments that a provider may change: those worked on, and those not tracked yet."""
        return self.open + self._untracked

    def draw(self, accepted: int, peephole: sqlite3.Connection) -> Task | None:
        """Draw the next task; None when enough commands were accepted."""
        if accepted >= self._commands or self._numbers.total() > CALLS_PER_COMMAND * self._commands + 100:
            return None
        if self._repeats and self._rng.random() < 0.4:
            return self._repeats.pop(self._rng.randrange(len(self._repeats)))
        letter = self._zocdoc.webhooks.take()
        if letter is not None:
            return self.delivery(letter)
        return self._queue(peephole) or self._upkeep(peephole) or self._wish()

    def delivery(self, letter: postbox.Letter) -> Task:
        """Make the task of a webhook call that arrives."""
        return Task(kind="deliver", actor=self._new("door"), appointment_id=letter.appointment_id, letter=letter)

    def told(self, task: Task, result: str) -> None:
        """Behave as callers do: go on with what is tracked now, repeat what failed, keep away from what is busy."""
        if task.letter is not None and result not in _ANSWERED:
            self._zocdoc.webhooks.unanswered(task.letter)
        if task.kind == "track" and result == "Done" and task.appointment_id in self._untracked:
            self._untracked.remove(task.appointment_id)
            self.open.append(task.appointment_id)
        if result in _DOUBTFUL:
            self._busy_until[task.appointment_id] = self._clock.elapsed + 60.0
        if task.kind == "submit" and result == "Done":
            self._busy_until[task.appointment_id] = self._clock.elapsed + self._rng.random() * SUBMITTED_FOR
        if self._rng.random() > _REPEATED.get(result, 0.0):
            return
        if task.kind == "submit_many":
            if result != "Done":
                self._repeats.append(replace(task, actor=self._new("submitter")))
        elif task.kind in WISHING and (task.key is not None or result == "NotSent"):
            self._repeats.append(self._again(task))

    def provided(self) -> str:
        """Draw what the provider makes of an appointment."""
        return self._rng.choices(list(_PROVIDED), list(_PROVIDED.values()))[0]

    def _again(self, task: Task) -> Task:
        command, arguments = task.command, task.arguments
        if task.key is not None and self._rng.random() < 0.04:
            # Misuse: the same key for another wish.
            command, arguments = "mark_no_show" if command == "cancel" else "cancel", ()
        kind = task.kind if self._rng.random() < 0.7 else self._rng.choice(WISHING)
        return Task(
            kind=kind,
            actor=self._new("caller"),
            appointment_id=task.appointment_id,
            command=command,
            key=task.key,
            arguments=arguments,
        )

    def _queue(self, peephole: sqlite3.Connection) -> Task | None:
        """Draw what is done with what was submitted; None: nothing this time."""
        kind, what = self._submitters.upkeep(peephole)
        command_id, batch_id = (what, "") if kind == "withdraw" else ("", what)
        return Task(kind=kind, actor=self._new(kind), command_id=command_id, batch_id=batch_id) if kind else None

    def _upkeep(self, peephole: sqlite3.Connection) -> Task | None:
        """Draw what is done besides wishing; None: nothing this time."""
        drawn = self._rng.random()
        if drawn < 0.05:
            return Task(kind="recover", actor=self._new("recover"))
        if drawn < 0.07:
            return self._resolution(peephole)
        if drawn < 0.09:
            return Task(kind="process", actor=self._new("inbox"))
        if drawn < 0.095:
            return Task(kind="sync", actor=self._new("nightly"))
        if drawn < 0.095 + self._rates.sync and self.open:
            return self._reading(self._rng.choice(self.open))
        return None

    def _wish(self) -> Task:
        if len(self.open) < self._open_at_most:
            if len(self._untracked) < UNTRACKED_AT_MOST:
                self._book()
            return self._reading(self._rng.choice(self._untracked))
        task = self._command()
        if self._rng.random() >= submitters.SHARE:
            return task
        if self._rng.random() < submitters.IN_BATCHES:
            return self._batch()
        expires_in, transaction = self._submitters.terms()
        return replace(task, kind="submit", expires_in=expires_in, transaction=transaction)

    def _command(self) -> Task:
        appointment_id = self._some_open()
        command = self._rng.choices(list(_WISHES), list(_WISHES.values()))[0]
        if self._rng.random() < 0.95:
            command = self._legal(appointment_id, command)
        self.wished[appointment_id] = command
        return Task(
            kind="command",
            actor=self._new("caller"),
            appointment_id=appointment_id,
            command=command,
            key=self._new("key") if self._rng.random() < 0.5 else None,
            arguments=self._arguments(appointment_id, command),
        )

    def _batch(self) -> Task:
        """Draw a batch of wishes, some of which cannot become commands."""
        wishes = [self._command() for _ in range(self._rng.randint(2, 5))]
        rows = [(each.appointment_id, each.command, each.key, each.arguments) for each in wishes]
        batch_id = self._new("batch")
        return Task(
            kind="submit_many",
            actor=self._new("submitter"),
            rows=self._submitters.rows(batch_id, rows, untracked=self._untracked),
            batch_id=batch_id,
        )

    def _reading(self, appointment_id: str) -> Task:
        return Task(kind="track", actor=self._new("sync"), appointment_id=appointment_id)

    def _some_open(self) -> str:
        """Draw an appointment; mostly one that is neither over nor known to be busy."""
        for _ in range(4):
            appointment_id = self._rng.choice(self.open)
            if self._rng.random() < 0.15:
                break
            if self._zocdoc.bookings[appointment_id].now.status not in remote.OPEN and len(self.open) > 1:
                self.open.remove(appointment_id)
            elif self._busy_until.get(appointment_id, 0.0) <= self._clock.elapsed:
                break
        return appointment_id

    def _legal(self, appointment_id: str, command: str) -> str:
        """Prefer a command that Zocdoc would allow."""
        now = self._zocdoc.bookings[appointment_id].now
        if now.status == "pending_booking" and self._rng.random() < 0.5:
            return "confirm"
        if command == "confirm" or (command == "reschedule" and now.status not in remote.MOVABLE):
            return "reschedule" if now.status in remote.MOVABLE else "cancel"
        if command == "mark_no_show" and not now.start < self._clock.now() <= now.start + remote.NO_SHOW_WINDOW:
            return "mark_arrived"
        return command

    def _arguments(self, appointment_id: str, command: str) -> tuple[tuple[str, str], ...]:
        if command == "cancel" and self._rng.random() < 0.5:
            return (("reason_type", "other_patient_reason"), ("reason", CANARY))
        if command != "reschedule":
            return ()
        start = self._zocdoc.bookings[appointment_id].now.start
        start = self._start() if self._rng.random() < 0.93 else remote.local(start, self._rng.choice(_ZONES))
        return (("start_time", start.isoformat(timespec="seconds")),)

    def _start(self) -> datetime:
        start = clocks.BEGINNING + timedelta(hours=self._rng.randint(-40, 40))
        return remote.local(start, self._rng.choice(_ZONES))

    def _book(self) -> None:
        appointment_id = f"appointment-{len(self._zocdoc.bookings) + 1}"
        booked_with = "user:7" if self._rng.random() < 0.1 else "machine"
        status = self._rng.choices(list(_NEW_STATUSES), list(_NEW_STATUSES.values()))[0]
        self._zocdoc.book(appointment_id, status=status, start=self._start(), booked_with=booked_with)
        self._untracked.append(appointment_id)

    def _resolution(self, peephole: sqlite3.Connection) -> Task | None:
        """Let an operator look a command up at Zocdoc and say what is true, or have it sent again."""
        query = "SELECT command_id, appointment_id, command FROM lifecycle_commands WHERE state = 'needs_attention'"
        rows = [row for row in peephole.execute(query) if not self._zocdoc.is_under_way(row[1])]
        if not rows:
            return None
        command_id, appointment_id, command = self._rng.choice(rows)
        had_effect = self._zocdoc.had_effect(command_id)
        return Task(
            kind="resolve",
            actor=self._new("operator"),
            appointment_id=appointment_id,
            command=command,
            command_id=command_id,
            resolution="applied" if had_effect else self._rng.choice(("rejected", "retry")),
        )

    def _new(self, kind: str) -> str:
        self._numbers[kind] += 1
        return f"{kind}:{self._numbers[kind]}"
