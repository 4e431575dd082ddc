"""Eight processes on one appointment, on both databases; in every second round some of them are killed.

They start at one moment. At most one command is active at any time, the effects at the stand-in are the commands that
were applied, and whoever loses is told so by name.
"""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections import Counter
from typing import TYPE_CHECKING, Final

from lifecycle import CommandInProgress, DatabaseUnavailable, Done, Lifecycle, LifecycleError, TransitionRefused
from tests.crashes import forks, grounds, parts
from tests.crashes.grounds import PostgresGround, SqliteGround
from tests.crashes.parts import AT_ONCE, Orders, Report
from tests.crashes.standin import Standin
from tests.crashes.wishes import YESTERDAY, send, start_number

if TYPE_CHECKING:
    from pathlib import Path

    from tests.crashes.grounds import Ground

PROCESSES: Final = 8
WISHES: Final = ("confirm", "cancel", "mark_no_show", "mark_arrived", "reschedule", "reschedule")
EACH: Final = 3
"""Commands that each process issues in a round, one after the other."""

CODES: Final[dict[type[Exception], int]] = {CommandInProgress: 11, TransitionRefused: 12}
"""Exit codes by which a child tells what its last command came to; 10: done."""


def run(orders: Orders) -> Report:
    """Go through the rounds on SQLite, then on PostgreSQL."""
    report = Report()
    with parts.in_memory(orders) as folder, Standin() as standin:
        _rounds(report, orders, SqliteGround(folder), standin, folder)
        with PostgresGround() as ground:
            _rounds(report, orders, ground, standin, folder)
    return report


def _rounds(report: Report, orders: Orders, ground: Ground, standin: Standin, folder: Path) -> None:
    ends = None if orders.seconds is None else time.monotonic() + orders.seconds / 2
    with standin.client() as client, Lifecycle(ground.url, zocdoc=client, timing=AT_ONCE) as product:
        for number in itertools.count():
            if (number >= orders.rounds) if ends is None else (time.monotonic() > ends):
                return
            _Round(report, orders, (ground, standin), product, number).run(folder)


class _Round:
    """One appointment, eight processes."""

    def __init__(
        self, report: Report, orders: Orders, place: tuple[Ground, Standin], product: Lifecycle, number: int
    ) -> None:
        self.report, self.product = report, product
        self.ground, self.standin = ground, _ = place
        self.dice = parts.dice(orders, "crowd", ground.name, number)
        self.story = f"{ground.name}, round {number}"
        self.first = number == 0
        self.murders = self.dice.choice((1, 2, 3)) if number % 2 else 0

    def run(self, folder: Path) -> None:
        """Start them, kill some, recover, judge."""
        if self.ground.name == "sqlite" or self.first or self.dice.random() < 0.1:
            self.ground.reset()
            self.standin.forget()
        [appointment_id] = self.standin.add(1, start_time=YESTERDAY)
        self.product.track(appointment_id, actor="job:crowd")
        self.product.close()
        plans = [[self.dice.choice(WISHES) for _ in range(EACH)] for _ in range(PROCESSES)]
        endings = self._crowd(appointment_id, plans, folder)
        killed = sum(ending.killed for ending in endings)
        strange = [str(ending) for ending in endings if not ending.killed and ending.code not in {10, *CODES.values()}]
        self.report.check(self.story, strange)
        self.report.counts["kills"] += killed
        self.report.counts[f"rounds on {self.ground.name}"] += 1
        self.standin.quiet()
        parts.end(self.report, self.story, self.product, self.ground, self.standin)
        self._judge(appointment_id, killed)
        self.product.close()

    def _crowd(self, appointment_id: str, plans: list[list[str]], folder: Path) -> list[forks.Ending]:
        gate, opener = os.pipe()
        logs = [folder / f"child-{index}.log" for index in range(PROCESSES)]
        children = [
            forks.start(lambda: self._act(index, plan, appointment_id, gate, opener), logs[index])  # noqa: B023 # at once
            for index, plan in enumerate(plans)
        ]
        os.close(gate)
        os.close(opener)
        for victim in self.dice.sample(children, self.murders):
            time.sleep(self.dice.uniform(0.0, 0.06))
            os.kill(victim, signal.SIGKILL)
        return [forks.wait(pid, log) for pid, log in zip(children, logs, strict=True)]

    def _act(self, index: int, plan: list[str], appointment_id: str, gate: int, opener: int) -> None:
        """Wait at the gate, then issue the commands; runs in a child and ends it."""
        os.close(opener)
        os.read(gate, 1)  # opens when the last writer has closed its end
        code = 10
        for turn, command in enumerate(plan):
            start = start_number(index * EACH + turn)
            try:
                done = self._send(command, appointment_id, f"job:{index}", start)
                code = 10 if isinstance(done, Done) else 99
            except LifecycleError as error:
                code = CODES.get(type(error), 0)
                if not code:
                    raise
        os._exit(code)

    def _send(self, command: str, appointment_id: str, actor: str, start: str) -> Done:
        """Issue a command; again while whoever holds the lock is stopped by the machine for longer than one waits."""
        while True:
            try:
                return send(self.product, command, appointment_id, actor=actor, start=start)
            except DatabaseUnavailable as error:
                if not error.is_transient:
                    raise

    def _judge(self, appointment_id: str, killed: int) -> None:
        rows = grounds.rows(
            self.ground.raw(),
            "SELECT command, state FROM lifecycle_commands WHERE appointment_id = :id",
            id=appointment_id,
        )
        states = Counter(row["state"] for row in rows)
        effects = sum(entry.effect for entry in self.standin.calls() if entry.appointment_id == appointment_id)
        self.report.counts["applied"] += states["applied"]
        if not killed:
            self.report.expect(f"{self.story}: effects", found=effects, expected=states["applied"])
            self.report.expect(f"{self.story}: states", found=set(states), expected={"applied"})
            events = grounds.rows(
                self.ground.raw(),
                "SELECT event, count(*) AS n FROM lifecycle_audit_events WHERE appointment_id = :id GROUP BY event",
                id=appointment_id,
            )
            counted = {row["event"]: row["n"] for row in events}
            asked = counted["command_accepted"] + counted.get("command_refused", 0)
            self.report.expect(f"{self.story}: each wish is in the trail", found=asked, expected=PROCESSES * EACH)
            self.report.counts["refused"] += counted.get("command_refused", 0)
