"""What a round plays on: a fresh database, a stand-in that answers late, a batch, and two workers."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from lifecycle import Lifecycle
from lifecycle.engines import tables
from tests.crashes import grounds, parts
from tests.crashes.standin import Standin
from tests.crashes.wishes import start_number

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.crashes.grounds import PostgresGround

COMMANDS: Final = {"confirm": "pending_booking", "cancel": "confirmed", "reschedule": "confirmed"}
"""What is asked for, and the status that it is asked in."""

WORKERS, CONCURRENCY = 2, 16
LATENCY: Final = 0.2
"""Seconds of each command at the stand-in, before or after it has its effect: most of a command's life."""

MISFORTUNES: Final[tuple[dict[str, Any], ...]] = (
    {"kind": "reset", "when": "before"},
    {"kind": "reset", "when": "after"},
    {"kind": "answer", "status": 429},
)
EACH: Final = 100
"""One command in so many meets each misfortune: what is lost besides must not confuse what a kill has cut off."""

_ENDED: Final = "SELECT count(*) AS n FROM lifecycle_commands WHERE ended_at IS NOT NULL"
_PRESENT: Final = "SELECT count(*) / 2 AS n FROM procrastinate_workers"
"""Each worker is there once for each queue, and carries commands out by then."""


class Scene:
    """A context manager; `ids` are the appointments in the order of the batch's rows, each in one row."""

    def __init__(self, ground: PostgresGround, *, commands: int, seed: str, is_quick: bool, is_lucky: bool) -> None:
        self.ground, self.is_quick = ground, is_quick
        self.dice = random.Random(seed)  # noqa: S311 # no secret
        self.started = 0
        self._commands, self._is_lucky = commands, is_lucky
        self._stack = ExitStack()
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.ground.reset()
            self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lifecycle-chaos-")))
            self.standin = stack.enter_context(Standin())
            stack.callback(self._end)
            kinds = [*COMMANDS] * self._commands
            self.wanted = {self._add(command): command for command in kinds[: self._commands]}
            self.ids = list(self.wanted)
            self._arm()
            self._track()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(self) -> subprocess.Popen[bytes]:
        """Start a worker, as a supervisor would."""
        self.started += 1
        with (self.folder / f"worker-{self.started}.log").open("wb") as log:
            process = subprocess.Popen(self._words(), env=self.environment(), stderr=log)  # noqa: S603 # our own
        self._running.append(process)
        return process

    def environment(self) -> dict[str, str]:
        """Give what the command line is set up with."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("LIFECYCLE_")}
        return clean | {
            "LIFECYCLE_DATABASE_URL": self.ground.url,
            "LIFECYCLE_DISPATCH": "procrastinate",
            "LIFECYCLE_ZOCDOC_BASE_URL": self.standin.base_url,
            "LIFECYCLE_ZOCDOC_TOKEN_URL": self.standin.token_url,
            "LIFECYCLE_ZOCDOC_AUDIENCE": self.standin.audience,
            "LIFECYCLE_ZOCDOC_CLIENT_ID": "sandbox-client",
            "LIFECYCLE_ZOCDOC_CLIENT_SECRET": "sandbox-secret",
        }

    def begin(self) -> list[subprocess.Popen[bytes]]:
        """Start the workers, submit the batch once they are there, and give them when they are in the middle of it."""
        workers = [self.start() for _ in range(WORKERS)]
        if not parts.until(lambda: self._count(_PRESENT) >= WORKERS, seconds=60, pause=0.1):
            raise TimeoutError("the workers did not begin")
        with self._product() as product:
            self.batch_id = product.submit_many(self._wishes(), actor="job:chaos").id
        self._reach_the_middle()
        return workers

    def _reach_the_middle(self) -> None:
        """Wait until some of the batch has ended, a random part of it, and a little longer."""
        ended = self.dice.uniform(0.1, 0.6) * self._commands
        if not parts.until(lambda: self.ended() >= ended, seconds=120, pause=0.02):
            raise TimeoutError("the workers did not get to the middle of the batch")
        time.sleep(self.dice.uniform(0, LATENCY))

    def ended(self) -> int:
        """Count the commands that have ended."""
        return self._count(_ENDED)

    def is_over(self) -> bool:
        """Tell whether all have ended."""
        return self.ended() >= self._commands

    def finish(self, seconds: float) -> None:
        """Wait until all have ended, at most so long; what has not is for the judge."""
        parts.until(self.is_over, seconds=seconds, pause=0.1)

    def logs(self) -> str:
        """Give what the workers have written so far."""
        return "".join(file.read_text(encoding="utf-8") for file in sorted(self.folder.glob("*.log")))

    def _count(self, query: str) -> int:
        return int(grounds.rows(self.ground.raw(), query)[0]["n"])

    def _wishes(self) -> list[dict[str, str]]:
        return [
            {"appointment_id": each, "command": command}
            | ({"start_time": start_number(number)} if command == "reschedule" else {})
            for number, (each, command) in enumerate(self.wanted.items())
        ]

    def _add(self, command: str) -> str:
        [appointment_id] = self.standin.add(1, status=COMMANDS[command])
        return appointment_id

    def _arm(self) -> None:
        struck = [] if self._is_lucky else self.dice.sample(self.ids, self._commands * len(MISFORTUNES) // EACH)
        for number, appointment_id in enumerate(struck):
            where = {"operation": self.wanted[appointment_id], "appointment_id": appointment_id}
            self.standin.arm(MISFORTUNES[number % len(MISFORTUNES)] | where)
        for command, when in (("confirm", "before"), ("cancel", "after"), ("reschedule", "before")):
            late = {"kind": "delay", "operation": command, "when": when, "seconds": LATENCY, "times": 10**9}
            self.standin.arm(late)

    def _track(self) -> None:
        with self._product() as product:
            tables.set_up(product.database)
            product.sync()

    @contextmanager
    def _product(self) -> Iterator[Lifecycle]:
        with (
            self.standin.client() as client,
            Lifecycle(self.ground.url, zocdoc=client, dispatch="procrastinate") as product,
        ):
            yield product

    def _words(self) -> list[str]:
        if not self.is_quick:
            return [sys.executable, "-m", "lifecycle", "worker", "--concurrency", str(CONCURRENCY)]
        places = (self.standin.base_url, self.standin.token_url, self.standin.audience)
        return [sys.executable, "-m", "tests.chaos.quick", self.ground.url, *places, str(CONCURRENCY)]

    def _end(self) -> None:
        for process in self._running:
            process.kill()
            process.wait()
