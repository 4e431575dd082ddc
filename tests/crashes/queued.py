"""kill -9 of whoever submits and dispatches, at every labelled point; and many processes on one queue.

Workers take what is due, whoever has left it behind. Each dies at a point of its own; in between, recoveries read what
the dead have sent. In the end nothing is lost, and nothing was sent twice without reads that prove why.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import time
from typing import TYPE_CHECKING, Any, Final

from lifecycle import DatabaseUnavailable, Lifecycle, LifecycleError, claiming
from lifecycle.points import Point
from tests import inthread
from tests.crashes import evidence, forks, grounds, parts
from tests.crashes.cells import RECOVERY_POINTS
from tests.crashes.grounds import PostgresGround, SqliteGround
from tests.crashes.parts import AT_ONCE, Orders, Report
from tests.crashes.standin import Standin
from tests.crashes.wishes import COMMANDS, OPERATIONS, YESTERDAY, given_to

if TYPE_CHECKING:
    from pathlib import Path

    from tests.crashes.grounds import Ground

SUBMIT_POINTS: Final = (Point.TRANSACTION_OPEN, Point.WISH_QUEUED, Point.BEFORE_COMMIT, Point.AFTER_COMMIT)
DISPATCH_POINTS: Final = (
    Point.QUEUE_SCANNED,
    Point.QUEUE_CLAIMED,
    Point.INTENT_COMMITTED,
    Point.REQUEST_SENT,
    Point.ANSWER_UNREAD,
    Point.ANSWER_CLASSIFIED,
    Point.OUTCOME_OPEN,
    Point.STATUS_UPDATED,
    Point.OUTCOME_COMMITTED,
    Point.AUDIT_INSERTED,
    Point.BEFORE_COMMIT,
    Point.AFTER_COMMIT,
    Point.TRANSACTION_OPEN,
)

WHERE: Final = {"worker": DISPATCH_POINTS, "recovery": RECOVERY_POINTS}

FAULTS: Final[tuple[dict[str, Any] | None, ...]] = (
    None,
    {"kind": "reset"},
    {"kind": "reset", "when": "after"},
    {"kind": "answer", "status": 502, "when": "after"},
    {"kind": "answer", "status": 401, "times": 2},
    {"kind": "answer", "status": 409},
    None,
)
"""What the remote does to the commands of a round, by turns."""

EACH: Final = 25
"""Commands in a round: five of each kind."""

CROWD: Final = 8
IN_THE_QUEUE: Final = 50


def run(orders: Orders) -> Report:
    """Do it on SQLite, then on PostgreSQL with a third as many kills, then let the crowds in."""
    report = Report()
    with parts.in_memory(orders) as folder, Standin() as standin:
        kills = orders.kills // 16
        sqlite = SqliteGround(folder)
        _Queue(report, orders, sqlite, standin, folder).kill(kills)
        with PostgresGround() as postgres:
            _Queue(report, orders, postgres, standin, folder).kill(kills // 3)
            for ground in (sqlite, postgres):
                _Queue(report, orders, ground, standin, folder).crowds(max(1, orders.rounds // 5))
    missed = [point for point in DISPATCH_POINTS if not report.counts[f"worker at {point}"]]
    missed += [point for point in SUBMIT_POINTS if not report.counts[f"submit at {point}"]]
    report.check("coverage", [f"nobody was killed at {point}" for point in missed])
    return report


class _Queue:
    """One queue, and those who work on it."""

    def __init__(self, report: Report, orders: Orders, ground: Ground, standin: Standin, folder: Path) -> None:
        self.report, self.ground, self.standin, self.folder = report, ground, standin, folder
        self.dice = parts.dice(orders, "queued", ground.name)
        self.log, self.passed = folder / "worker.log", forks.Passed()
        self.product = Lifecycle(ground.url, zocdoc=standin.client(), timing=AT_ONCE)
        self.product._engine = inthread.Idle()

    def kill(self, kills: int) -> None:
        """Go through rounds until so many were killed."""
        before = self.report.counts["kills"]
        for number in itertools.count():
            if self.report.counts["kills"] - before >= kills:
                return
            self._round(f"{self.ground.name}, round {number}", FAULTS[number % len(FAULTS)])

    def crowds(self, rounds: int) -> None:
        """Let eight processes work on one queue of fifty commands; in every second round some of them are killed."""
        for number in range(rounds):
            self._crowd(f"{self.ground.name}, crowd {number}", murders=3 if number % 2 else 0)
            self.report.counts[f"crowds on {self.ground.name}"] += 1

    def _round(self, story: str, fault: dict[str, Any] | None) -> None:
        wishes = list(zip(self._tracked(EACH), itertools.cycle(COMMANDS), strict=False))
        if fault is not None:
            self.standin.arm(
                *({**fault, "appointment_id": who, "operation": OPERATIONS[command]} for who, command in wishes)
            )
        self._submit(story, wishes)
        while self._killed(story, "worker", self._work, self._least("worker"), self.dice.choice((1, 1, 1, 2, 3, 5))):
            self._killed(story, "recovery", self._recover, self._least("recovery"), self.dice.choice((1, 2, 3)))
        self._through(story)

    def _least(self, who: str) -> Point:
        """Choose the point at which the fewest have died."""
        return min(WHERE[who], key=lambda point: self.report.counts[f"{who} at {point}"])

    def _submit(self, story: str, wishes: list[tuple[str, str]]) -> None:
        """Submit all; some processes are killed while they do: what was not committed is not there."""
        points = itertools.cycle(SUBMIT_POINTS)
        for number, (who, command) in enumerate(wishes):
            if number % 3:
                self._wish(who, command)
                self.product.close()
                continue
            point = next(points)
            ending = forks.killed_at(lambda: self._wish(who, command), self.passed, point, 1, self.log)  # noqa: B023
            self._count(story, "submit", ending, point)
            query = "SELECT state FROM lifecycle_commands WHERE appointment_id = :id"
            there = [row["state"] for row in grounds.rows(self.ground.raw(), query, id=who)]
            expected = ["queued"] if Point.AFTER_COMMIT in self.passed.points() else []
            self.report.expect(f"{story}: submit killed at {point}", found=there, expected=expected)

    def _wish(self, who: str, command: str) -> None:
        self.product.submit(command, who, actor="job:crash", **given_to(command))

    def _killed(self, story: str, who: str, work: Any, point: Point, nth: int) -> bool:
        """Let a process work until it dies at a point; judge what it has left. False: there was too little to do."""
        ending = forks.killed_at(work, self.passed, point, nth, self.log)
        self._count(story, who, ending, point)
        self.standin.quiet()
        grounds.hasten(self.ground.raw())
        seen = evidence.gather(self.ground.raw(), self.standin)
        found = evidence.trail_faults(self.ground.raw()) + evidence.intent_faults(seen) + evidence.doubt_faults(seen)
        self.report.check(f"{story}: {who} killed at {point}#{nth}", found + evidence.blind_faults(seen))
        return ending.killed

    def _count(self, story: str, who: str, ending: forks.Ending, point: Point) -> None:
        if ending.killed:
            self.report.counts["kills"] += 1
            self.report.counts[f"{who} at {point}"] += 1
        elif ending.code:
            self.report.violations.append(f"{story}: {who}: {ending}")

    def _work(self) -> None:
        sender = inthread.Sender(self.product._resources)
        while sender.look(self.dice.choice((1, 2, 4))):
            pass

    def _work_in_a_crowd(self) -> None:
        """Work; again while whoever holds a lock is stopped by the machine for longer than one waits for it."""
        while True:
            try:
                return self._work()
            except DatabaseUnavailable as error:
                if not error.is_transient:
                    raise

    def _recover(self) -> None:
        with contextlib.suppress(LifecycleError):
            self.product.recover()

    def _through(self, story: str) -> None:
        """Recover and dispatch to the end, and judge everything."""
        for _ in range(40):
            grounds.hasten(self.ground.raw())
            self._work()
            if not self.product.recover().waiting and not claiming.count(self.product._resources):
                break
        self._judge(story)

    def _judge(self, story: str) -> None:
        self.report.check(story, evidence.end_faults(self.ground.raw(), self.standin))
        seen = evidence.gather(self.ground.raw(), self.standin)
        self.report.check(story, evidence.blind_faults(seen))
        for row in seen.commands:
            self.report.counts[f"ended {row['state']}"] += 1
        self.product.close()

    def _crowd(self, story: str, *, murders: int) -> None:
        for who, command in zip(self._tracked(IN_THE_QUEUE), itertools.cycle(COMMANDS), strict=False):
            self._wish(who, command)
        self.product.close()
        logs = [self.folder / f"crowd-{index}.log" for index in range(CROWD)]
        children = [forks.start(self._work_in_a_crowd, log) for log in logs]
        for victim in self.dice.sample(children, murders):
            time.sleep(self.dice.uniform(0.0, 0.06))
            os.kill(victim, signal.SIGKILL)
        endings = [forks.wait(pid, log) for pid, log in zip(children, logs, strict=True)]
        self.report.check(story, [str(ending) for ending in endings if ending.code])
        killed = sum(ending.killed for ending in endings)
        self.report.counts["kills"] += killed
        if not killed:
            sent = sorted(self.standin.posts().values())
            self.report.expect(f"{story}: requests of each command", found=sent, expected=[1] * IN_THE_QUEUE)
        self.standin.quiet()
        self._through(story)

    def _tracked(self, count: int) -> list[str]:
        self.ground.reset()
        self.standin.forget()
        found = self.standin.add(count, start_time=YESTERDAY)
        for each in found:
            self.product.track(each, actor="job:crash")
        self.product.close()
        return found
