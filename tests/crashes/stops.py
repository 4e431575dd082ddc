"""PostgreSQL stopped with `immediate` under load, again and again: a crash of the server, its log replayed afterwards.

Some processes with some threads each issue commands without a pause while the server goes down and comes up; one
process recovers all the time, with the leases and the settle time that it would have in use, only shorter. Nothing is
moved by hand here: leases run out by the server's own clock.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import queue
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from lifecycle import Lifecycle, LifecycleError, Timing
from tests.crashes import evidence, forks, grounds, parts
from tests.crashes.grounds import PostgresGround
from tests.crashes.parts import Orders, Report
from tests.crashes.standin import Standin
from tests.crashes.wishes import YESTERDAY, send, start_number

if TYPE_CHECKING:
    import random
    from multiprocessing.synchronize import Event

TIMING: Final = Timing(
    send_window=1.0,
    lease_margin=0.5,
    settle=0.2,
    spacing=(0.2, 0.2),
    read_backoff=0.2,
    failed_reads=20,
    record_again=(0.05, 0.2, 0.5),
)
DEADLINE: Final = 2.0

PROCESSES: Final = 2
THREADS: Final = 3
APPOINTMENTS: Final = 24
"""For each process: enough that the commands in doubt, which wait for their lease, do not stop the load."""

FRESH: Final = 400
"""Appointments for each process that get one confirm, cancel or no-show; when they are used up, only the others do."""

NUMBERS: Final = 1_000_000
"""Starts for each thread, so that every reschedule has its own."""

WHILE_AWAY: Final = 0.01
"""Seconds that a caller waits before it tries a database again that was away."""

EXPECTED: Final = {
    "Done",
    "CommandInProgress",
    "DatabaseUnavailable",
    "NotSent",
    "OutcomeUnknown",
    "ReadFailed",
    "TransitionRefused",
}
"""What a caller may see while the database goes down and up, and the machine lets an answer come too late."""


def run(orders: Orders) -> Report:
    """Stop and start so many times under load, then recover and judge."""
    report = Report()
    with PostgresGround() as ground, Standin() as standin:
        load = _Load(ground.url, standin, report)
        load.start()
        _stop_and_start(orders, ground, report)
        load.end()
        with (
            standin.client(deadline=DEADLINE) as client,
            Lifecycle(ground.url, zocdoc=client, timing=TIMING) as product,
        ):
            settled = product.recover(wait=120.0)
        report.figures["commands"] = len(grounds.rows(ground.raw(), "SELECT 1 FROM lifecycle_commands"))
        report.figures["settled_at_the_end"] = len(settled.settled)
        report.expect("recovery came to an end", found=settled.waiting, expected=0)
        report.check("after the stops", evidence.end_faults(ground.raw(), standin))
        for row in grounds.rows(ground.raw(), "SELECT state, count(*) AS n FROM lifecycle_commands GROUP BY state"):
            report.counts[f"ended {row['state']}"] += row["n"]
    return report


def _stop_and_start(orders: Orders, ground: PostgresGround, report: Report) -> None:
    dice = parts.dice(orders, "stops")
    ends = None if orders.seconds is None else time.monotonic() + orders.seconds
    while (report.counts["stops"] < orders.stops) if ends is None else (time.monotonic() < ends):
        time.sleep(dice.uniform(0.1, 0.9))
        ground.stop()
        time.sleep(dice.choice((0.0, 0.0, 0.3, 1.0)))
        ground.start()
        report.counts["stops"] += 1
    time.sleep(1.0)


class _Load:
    """The processes that issue commands, and the one that recovers."""

    def __init__(self, url: str, standin: Standin, report: Report) -> None:
        self.standin, self.report = standin, report
        forked = multiprocessing.get_context("fork")
        self.over, self.told = forked.Event(), forked.Queue()
        with standin.client() as client, Lifecycle(url, zocdoc=client) as product:
            work = [self._work(product, number) for number in range(PROCESSES)]
        works = [(_issue, one) for one in work] + [(_recover, work[0])]
        self.processes = [
            forked.Process(target=_guarded, args=(act, (url, standin), one, self.over, self.told)) for act, one in works
        ]

    def start(self) -> None:
        """Begin."""
        for process in self.processes:
            process.start()

    def end(self) -> None:
        """Stop issuing, and collect what the callers have seen."""
        self.over.set()
        for _ in self.processes:
            try:
                counts, strange = self.told.get(timeout=120)
            except queue.Empty:
                self.report.violations.append("a process of the load hangs")
                continue
            self.report.counts += counts
            self.report.check("a caller saw", strange)
        for process in self.processes:
            process.join(10)
            process.kill()

    def _work(self, product: Lifecycle, number: int) -> _Work:
        again = [
            appointment_id
            for status, answer in (
                ("confirmed", "rescheduled"),
                ("confirmed", "unchanged"),
                ("rescheduled", "pending_reschedule"),
            )
            for appointment_id in self.standin.add(
                APPOINTMENTS // 3, status=status, on_reschedule=answer, start_time=YESTERDAY
            )
        ]
        for appointment_id in again:
            product.track(appointment_id, actor="job:load")
        return _Work(number, again, self.standin.add(FRESH, start_time=YESTERDAY))


@dataclass(frozen=True)
class _Work:
    """What one process works on: appointments that are rescheduled again and again, and fresh ones."""

    number: int
    again: list[str]
    fresh: list[str]


class _Seen:
    """What the callers of one process have seen. Thread-safe enough: each thread has its own."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.strange: list[str] = []

    def of(self, act: Any) -> bool:
        """Call, and note what came of it; False if the database was away."""
        try:
            act()
            name = "Done"
        except LifecycleError as error:
            name = type(error).__name__
            if name not in EXPECTED:
                self.strange.append(repr(error))
        except Exception as error:  # noqa: BLE001 # that is what is looked for
            name = "strange"
            self.strange.append(repr(error))
        self.counts[f"callers saw {name}"] += 1
        return name != "DatabaseUnavailable"


def _guarded(act: Any, place: tuple[str, Standin], work: _Work, over: Event, told: Any) -> None:
    forks.die_with_parent()
    url, standin = place
    with standin.client(deadline=DEADLINE) as client, Lifecycle(url, zocdoc=client, timing=TIMING) as product:
        all_seen = act(product, work, over)
    told.put((sum((seen.counts for seen in all_seen), Counter()), [what for seen in all_seen for what in seen.strange]))


def _issue(product: Lifecycle, work: _Work, over: Event) -> list[_Seen]:
    all_seen = [_Seen() for _ in range(THREADS)]
    threads = [
        threading.Thread(target=_issue_one, args=(product, work, over, seen, index), daemon=True)
        for index, seen in enumerate(all_seen)
    ]
    for thread in threads:
        thread.start()
    over.wait()
    for thread in threads:
        thread.join(90)
        if thread.is_alive():
            faulthandler.dump_traceback(all_threads=True)
            all_seen[0].strange.append("a thread that hangs")
    return all_seen


def _issue_one(product: Lifecycle, work: _Work, over: Event, seen: _Seen, index: int) -> None:
    dice = parts.dice_of("load", work.number, index)
    number = (work.number * THREADS + index) * NUMBERS
    fresh = work.fresh[index::THREADS]
    while not over.is_set():
        number += 1
        if not seen.of(_choice(product, dice, work, fresh, number)):
            time.sleep(WHILE_AWAY)


def _choice(product: Lifecycle, dice: random.Random, work: _Work, fresh: list[str], number: int) -> Any:
    """Choose mostly a reschedule of any appointment, now and then something else."""
    kind = dice.random()
    if kind < 0.1 and fresh:
        return lambda: _fresh(product, fresh.pop(), dice.choice(("confirm", "cancel", "mark_no_show")))
    command = "mark_arrived" if kind < 0.15 else "reschedule"
    appointment_id = dice.choice(work.again)
    return lambda: send(product, command, appointment_id, actor="job:load", start=start_number(number))


def _fresh(product: Lifecycle, appointment_id: str, command: str) -> None:
    product.track(appointment_id, actor="job:load")
    send(product, command, appointment_id, actor="job:load")


def _recover(product: Lifecycle, _work: _Work, over: Event) -> list[_Seen]:
    seen = _Seen()
    while not over.is_set():
        seen.of(product.recover)
        time.sleep(0.1)
    seen.counts = Counter({f"recovery: {name}": count for name, count in seen.counts.items()})
    return [seen]
