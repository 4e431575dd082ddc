"""kill -9 of the real command line: `python -m lifecycle confirm ID`, as a shell or cron would have started it.

A third of the processes die at a random moment of their life, a third when their intent shows in the database, a third
when their request shows in the ledger and its answer is held back.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from lifecycle import Lifecycle
from tests.crashes import grounds, parts
from tests.crashes.grounds import SqliteGround
from tests.crashes.parts import AT_ONCE, Orders, Report
from tests.crashes.standin import Standin
from tests.crashes.wishes import LATER, OPERATIONS, YESTERDAY

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.crashes.grounds import Ground

WORDS: Final = {
    "confirm": ("confirm",),
    "cancel": ("cancel", "--reason-type", "provider_not_available"),
    "reschedule": ("reschedule", "--start-time", LATER),
    "mark_arrived": ("arrived",),
    "mark_no_show": ("no-show",),
}
METHODS: Final = ("random", "intent", "request")
AT_ONCE_ALIVE: Final = 2
"""Processes at a time: most of the life of each is spent importing."""

HELD_BACK: Final = {"kind": "drip_headers", "seconds": 0.2}
"""An answer that takes half a minute, the process is dead long before; the stand-in ends it when nobody listens."""

CHUNK: Final = 12
"""Kills between two recoveries."""

EXIT_CODES: Final = {0, 5}
"""What a process that was faster than its killer may have ended with."""


def run(orders: Orders) -> Report:
    """Kill so many processes, recover, judge."""
    report = Report()
    ground = SqliteGround(orders.folder)
    with (
        Standin() as standin,
        standin.client() as client,
        Lifecycle(ground.url, zocdoc=client, timing=AT_ONCE) as product,
    ):
        killer = _Killer(orders, report, ground, standin)
        report.figures["lifetime_of_a_process"] = round(killer.measure(_tracked(product, standin)), 2)
        cases = zip(range(orders.cold), itertools.cycle(WORDS), itertools.cycle(METHODS), strict=False)
        while chunk := list(itertools.islice(cases, CHUNK)):
            killer.kill_all([Case(*case, _tracked(product, standin)) for case in chunk])
            standin.quiet()
            parts.end(report, "after cold kills", product, ground, standin)
    return report


@dataclass(frozen=True)
class Case:
    """One process to be killed."""

    number: int
    command: str
    method: str
    appointment_id: str

    def __str__(self) -> str:
        return f"cold {self.command}, killed at {self.method}"


def _tracked(product: Lifecycle, standin: Standin) -> str:
    [appointment_id] = standin.add(1, start_time=YESTERDAY)
    product.track(appointment_id, actor="job:cold")
    return appointment_id


class _Killer:
    """Starts processes, some at a time, and kills each in its way."""

    def __init__(self, orders: Orders, report: Report, ground: Ground, standin: Standin) -> None:
        self.orders, self.report, self.ground, self.standin = orders, report, ground, standin
        self.lifetime = 0.0

    def measure(self, appointment_id: str) -> float:
        """Let one process live, to know how long it takes."""
        started = time.monotonic()
        process = self._start("confirm", appointment_id)
        _, words = process.communicate(timeout=60)
        self.report.expect(f"the first process: {words}", found=process.returncode, expected=0)
        self.lifetime = time.monotonic() - started
        return self.lifetime

    def kill_all(self, cases: list[Case]) -> None:
        """Kill all of them, `AT_ONCE_ALIVE` at a time."""
        left, lock = iter(cases), threading.Lock()

        def work() -> None:
            while True:
                with lock:
                    case = next(left, None)
                if case is None:
                    return
                self._kill(case)

        threads = [threading.Thread(target=work) for _ in range(AT_ONCE_ALIVE)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _kill(self, case: Case) -> None:
        if case.method == "request":
            where = {"operation": OPERATIONS[case.command], "appointment_id": case.appointment_id}
            self.standin.arm(HELD_BACK | where)
        process = self._start(case.command, case.appointment_id)
        signs: dict[str, Callable[[], object]] = {
            "random": lambda: False,
            "intent": lambda: self._commands(case),
            "request": lambda: self.standin.posts()[case.appointment_id],
        }
        moment = parts.dice(self.orders, "cold", case.number).uniform(0.3, 1.05) * self.lifetime
        parts.until(
            lambda: process.poll() is not None or signs[case.method](),
            seconds=moment if case.method == "random" else 30.0,
            pause=0.001,
        )
        process.kill()
        _, words = process.communicate()
        self._judge(case, process.returncode, words)

    def _judge(self, case: Case, code: int, words: str) -> None:
        if code < 0:
            self.report.counts["cold_kills"] += 1
            self.report.counts[f"killed at {case.method}"] += 1
        elif code not in EXIT_CODES or "Traceback" in words:
            self.report.violations.append(f"{case}: exit code {code}: {words}")
        else:
            self.report.counts["ended before the kill"] += 1
        commands = self._commands(case)
        if self.standin.posts()[case.appointment_id] > len(commands):
            self.report.violations.append(f"{case}: a request without a committed intent")
        for row in commands:
            self.report.counts[f"left {row['state']}"] += 1

    def _commands(self, case: Case) -> list[dict[str, Any]]:
        query = "SELECT state FROM lifecycle_commands WHERE appointment_id = :id"
        return grounds.rows(self.ground.raw(), query, id=case.appointment_id)

    def _start(self, command: str, appointment_id: str) -> subprocess.Popen[str]:
        settings = {
            "LIFECYCLE_DATABASE_URL": self.ground.url,
            "LIFECYCLE_ZOCDOC_BASE_URL": self.standin.base_url,
            "LIFECYCLE_ZOCDOC_TOKEN_URL": self.standin.token_url,
            "LIFECYCLE_ZOCDOC_AUDIENCE": self.standin.audience,
            "LIFECYCLE_ZOCDOC_CLIENT_ID": "sandbox-client",
            "LIFECYCLE_ZOCDOC_CLIENT_SECRET": "sandbox-secret",
            "LIFECYCLE_ACTOR": "job:cold",
        }
        kept = {name: value for name, value in os.environ.items() if not name.startswith("LIFECYCLE_")}
        name, *options = WORDS[command]
        return subprocess.Popen(  # noqa: S603 # our own program
            [sys.executable, "-m", "lifecycle", name, appointment_id, *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=kept | settings,
        )
