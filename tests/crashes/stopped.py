"""SIGSTOP past the lease, then SIGCONT: a process that slept through its time must not send, and overwrites nothing.

Each child stops itself at a point of its command. Its lease runs out by the clock, recovery settles the command, the
child wakes: what it still does must show in the trail alone, as a late answer. Recoveries are stopped in the same way.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import time
from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from lifecycle import Lifecycle, LifecycleError, NotSent, OutcomeUnknown, ReadFailed, Timing
from lifecycle.points import Point
from tests.crashes import evidence, forks, grounds, parts
from tests.crashes.grounds import PostgresGround, SqliteGround
from tests.crashes.parts import Orders, Report
from tests.crashes.standin import Standin
from tests.crashes.wishes import COMMANDS, OPERATIONS, YESTERDAY, send

if TYPE_CHECKING:
    from pathlib import Path

    from lifecycle import ZocdocClient
    from tests.crashes.grounds import Ground

TIMING: Final = Timing(
    send_window=0.7, lease_margin=0.2, settle=0.05, spacing=(0.05, 0.05), read_backoff=0.02, failed_reads=100
)
DEADLINE: Final = 1.5
PATIENT: Final = 60.0
"""Deadline of calls that only the send window may end."""

TRIES: Final = 5

LONGEST_RECOVERY: Final = 100.0
"""Seconds after which a recovery that does not come to its end is judged as it stands."""

UNSENT: Final = (Point.INTENT_COMMITTED, Point.TOKEN_FETCHED)
SENT: Final = (Point.REQUEST_SENT, Point.ANSWER_ARRIVING, Point.ANSWER_UNREAD, Point.ANSWER_CLASSIFIED)
READ: Final = (Point.READ_CLAIMED, Point.READ_RETURNED)

DONE, NOT_SENT, UNKNOWN = 10, 11, 12


@dataclass(frozen=True)
class Sleeper:
    """A child that stands still."""

    command: str
    point: Point
    appointment_id: str
    pid: int
    log: Path

    @property
    def endings(self) -> set[tuple[str, int, int]]:
        """Tell in which state the command may end, what the child then tells, and how many requests there are.

        Nothing that can be read shows an arrival: it needs attention, until its late answer tells, if that can still
        be read so long after the deadline.
        """
        ending = ("applied", DONE, 1) if self.point in SENT else ("not_sent", NOT_SENT, 0)
        lost = ("needs_attention", UNKNOWN, 1)
        if self.command != "mark_arrived" or self.point in {*UNSENT, Point.ANSWER_CLASSIFIED}:
            return {ending}
        return {lost} if self.point is Point.REQUEST_SENT else {ending, lost}

    def wake(self) -> forks.Ending:
        """Let it go on to its end."""
        os.kill(self.pid, signal.SIGCONT)
        return forks.wait(self.pid, self.log)


def run(orders: Orders) -> Report:
    """Do it on both databases."""
    report = Report()
    with parts.in_memory(orders) as folder, Standin() as standin, PostgresGround() as postgres:
        both: list[Ground] = [SqliteGround(folder), postgres]
        for ground in both:
            with standin.client(deadline=DEADLINE) as client:
                _Bedroom(report, ground, standin, client, folder).run()
    return report


class _Bedroom:
    def __init__(self, report: Report, ground: Ground, standin: Standin, client: ZocdocClient, folder: Path) -> None:
        self.report, self.ground, self.standin, self.folder = report, ground, standin, folder
        self.product = Lifecycle(ground.url, zocdoc=client, timing=TIMING)
        patient = standin.client(deadline=PATIENT)
        self.patient = Lifecycle(ground.url, zocdoc=patient, timing=TIMING)
        self.calm = Lifecycle(ground.url, zocdoc=patient, timing=replace(TIMING, send_window=PATIENT))
        self.logs = (folder / f"{ground.name}-{number}.log" for number in itertools.count())

    def run(self) -> None:
        """First those that oversleep the send window only, then those that oversleep their lease, then recoveries."""
        self.standin.forget()
        self._oversleep_the_window()
        self._oversleep_the_lease()
        self._oversleep_a_recovery()
        self.report.check(self.ground.name, evidence.end_faults(self.ground.raw(), self.standin))
        self.product.close()

    def _sleep(self, product: Lifecycle, command: str, point: Point) -> Sleeper:
        """Put one to sleep; again if a busy machine let it miss its own send window on the way."""
        for _ in range(TRIES):
            appointment_id, log = self._tracked(), next(self.logs)
            with contextlib.suppress(forks.NotStopped):
                pid = forks.stopped_at(partial(self._act, product, command, appointment_id), forks.Passed(), point, log)
                self.report.counts["processes stopped"] += 1
                return Sleeper(command, point, appointment_id, pid, log)
            self.report.counts["too slow to be stopped"] += 1
        msg = f"no child came as far as {point}"
        raise AssertionError(msg)

    def _tracked(self) -> str:
        [appointment_id] = self.standin.add(1, start_time=YESTERDAY)
        if not parts.until(lambda: self._is_tracked(appointment_id), seconds=PATIENT):
            raise TimeoutError("the stand-in does not answer")
        self.product.close()
        return appointment_id

    def _is_tracked(self, appointment_id: str) -> bool:
        """Track it with the short deadline; False if the machine stood still for longer."""
        try:
            self.product.track(appointment_id, actor="job:sleeper")
        except ReadFailed:
            return False
        return True

    def _act(self, product: Lifecycle, command: str, appointment_id: str) -> None:
        code = DONE
        try:
            send(product, command, appointment_id, actor="job:sleeper")
        except NotSent:
            code = NOT_SENT
        except OutcomeUnknown:
            code = UNKNOWN
        os._exit(code)

    def _oversleep_the_window(self) -> None:
        sleepers = [self._sleep(self.patient, command, point) for command in COMMANDS for point in UNSENT]
        time.sleep(TIMING.send_window + 0.1)
        for sleeper in sleepers:
            story = f"{self.ground.name}: {sleeper.command} stopped at {sleeper.point} past the send window"
            self.report.expect(story, found=sleeper.wake().code, expected=NOT_SENT)
            [row] = self._commands(sleeper)
            self.report.expect(story, found=(row["state"], row["reason_code"]), expected=("not_sent", "claim_expired"))
            self.report.expect(story, found=self.standin.posts()[sleeper.appointment_id], expected=0)

    def _oversleep_the_lease(self) -> None:
        sleepers = [self._sleep(self.product, command, point) for command in COMMANDS for point in (*UNSENT, *SENT)]
        recovery = self.product.recover(wait=LONGEST_RECOVERY)
        # Those that were too slow to be stopped may have left something to be settled besides.
        missed = {each.appointment_id for each in sleepers} - {each.appointment_id for each in recovery.settled}
        self.report.expect(f"{self.ground.name}: not settled", found=(missed, recovery.waiting), expected=(set(), 0))
        self.product.close()
        before, posts = self._rows(), self.standin.posts()
        for sleeper in sleepers:
            story = f"{self.ground.name}: {sleeper.command} stopped at {sleeper.point} past its lease"
            ending = sleeper.wake()
            [row] = self._commands(sleeper)
            found = (row["state"], ending.code, self.standin.posts()[sleeper.appointment_id])
            if found not in sleeper.endings:
                self.report.violations.append(f"{story}: {found} and not one of {sleeper.endings}: {ending}")
        after = self._rows()
        self.report.expect(
            f"{self.ground.name}: who woke wrote to the trail alone", found=after[:2], expected=before[:2]
        )
        self.report.expect(f"{self.ground.name}: who woke sent nothing", found=self.standin.posts(), expected=posts)
        late = after[2] - before[2]
        self.report.expect(
            f"{self.ground.name}: noted", found=late, expected=Counter(late_answer_received=len(sleepers))
        )

    def _oversleep_a_recovery(self) -> None:
        """Lose answers of applied commands; stop a recovery that has read; let another settle; wake the first."""
        for point in READ:
            appointment_id = self._tracked()
            fault = {"kind": "reset", "when": "after", "operation": OPERATIONS["confirm"]}
            self.standin.arm({**fault, "appointment_id": appointment_id})
            try:
                send(self.calm, "confirm", appointment_id, actor="job:sleeper")
            except LifecycleError as error:
                self.report.expect("a lost answer", found=type(error), expected=OutcomeUnknown)
            self.calm.close()
            pid, log = self._recovering(point)
            recovery = self.product.recover(wait=LONGEST_RECOVERY)
            self.product.close()
            story = f"{self.ground.name}: a recovery stopped at {point}"
            states = [(each.appointment_id, each.state) for each in recovery.settled]
            self.report.expect(story, found=states, expected=[(appointment_id, "applied")])
            before = self._rows()
            sleeper = Sleeper("recover", point, appointment_id, pid, log)
            self.report.expect(story, found=str(sleeper.wake()), expected="exit code 0")
            self.report.expect(f"{story}: wrote nothing", found=self._rows(), expected=before)
            self.report.counts["recoveries stopped"] += 1

    def _recovering(self, point: Point) -> tuple[int, Path]:
        """Put a recovery to sleep; again if its read was not due yet, or failed because the machine stood still."""
        for _ in range(TRIES):
            time.sleep(TIMING.settle)
            log = next(self.logs)
            with contextlib.suppress(forks.NotStopped):
                return forks.stopped_at(self.product.recover, forks.Passed(), point, log), log
        msg = f"no recovery came as far as {point}"
        raise AssertionError(msg)

    def _commands(self, sleeper: Sleeper) -> list[dict[str, Any]]:
        query = "SELECT * FROM lifecycle_commands WHERE appointment_id = :id"
        return grounds.rows(self.ground.raw(), query, id=sleeper.appointment_id)

    def _rows(self) -> tuple[list[Any], list[Any], Counter[str]]:
        """Read what must not change any more, arrivals apart: commands and appointments; count the events by kind."""
        ask = self.ground.raw()
        known = (
            "SELECT appointment_id, status, start_time, in_doubt, arrived_at FROM lifecycle_appointments WHERE "
            "appointment_id NOT IN (SELECT appointment_id FROM lifecycle_commands WHERE command = 'mark_arrived') "
            "ORDER BY appointment_id"
        )
        commands = "SELECT * FROM lifecycle_commands WHERE command <> 'mark_arrived' ORDER BY command_id"
        events = grounds.rows(ask, "SELECT event, count(*) AS n FROM lifecycle_audit_events GROUP BY event")
        return (
            grounds.rows(ask, commands),
            grounds.rows(ask, known),
            Counter({row["event"]: row["n"] for row in events}),
        )
