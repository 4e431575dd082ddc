"""Workers as threads that hand one baton on, so that exactly one runs at a time and the seed decides which."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from tests.simulation.clock import Clock

STAYS = 0.65
"""How often a worker goes on when it could hand the baton on: saves switches, loses no interleaving."""


class Killed(BaseException):
    """The worker's process is gone: nothing of it runs any more, handlers included."""


class Interrupted(BaseException):
    """Ctrl-C: the process is asked to stop and its handlers run."""


@dataclass(eq=False, slots=True)
class Worker:
    """One simulated process. `dead` from a kill until its stack is unwound; then another process takes its place.

    `sends`: the submitted command, and its attempt, that it is sending as a worker.
    """

    number: int
    baton: threading.Lock = field(default_factory=threading.Lock)
    wake_at: float = 0.0
    is_dead: bool = False
    is_done: bool = False
    actor: str = ""
    stage: str = ""
    command: str = "-"
    sends: tuple[str, int] | None = None
    database_down_until: float = 0.0


class Scheduler:
    """Runs the workers to their ends, one step at a time."""

    def __init__(self, rng: Random, clock: Clock, tick: Callable[[], None]) -> None:
        self._rng, self._clock, self._tick = rng, clock, tick
        self._workers: list[Worker] = []
        self._all_done = threading.Lock()
        self.current: Worker | None = None
        self.is_held = False

    def run(self, count: int, body: Callable[[Worker], None]) -> None:
        """Start so many workers and wait until each one's body has returned."""
        self._workers = [Worker(number) for number in range(count)]
        self._all_done.acquire()
        threads = [threading.Thread(target=self._live, args=(worker, body), daemon=True) for worker in self._workers]
        for worker, thread in zip(self._workers, threads, strict=True):
            worker.baton.acquire()
            thread.start()
        self._hand_on()
        self._all_done.acquire()
        for thread in threads:
            thread.join()
        self.current = None

    def pause(self, worker: Worker, seconds: float = 0.0) -> None:
        """Let others run; come back at the earliest after so many seconds."""
        if self.is_held:
            self._clock.advance(seconds)
            return
        if self._rng.random() < STAYS and not seconds:
            return
        worker.wake_at = round(self._clock.elapsed + seconds, 6)
        chosen = self._choose()
        if chosen is not worker:
            self.current = chosen
            chosen.baton.release()
            worker.baton.acquire()

    def _live(self, worker: Worker, body: Callable[[Worker], None]) -> None:
        worker.baton.acquire()
        try:
            body(worker)
        finally:
            worker.is_done = True
            self._hand_on()

    def _hand_on(self) -> None:
        if all(worker.is_done for worker in self._workers):
            self.current = None
            self._all_done.release()
            return
        self.current = self._choose()
        self.current.baton.release()

    def _choose(self) -> Worker:
        """Draw one of those that may go on; when all wait, time passes until the first need not."""
        self._clock.advance(self._rng.random() * 0.05)
        self._tick()
        waiting = [worker for worker in self._workers if not worker.is_done]
        self._clock.reach(min(worker.wake_at for worker in waiting))
        ready = [worker for worker in waiting if worker.wake_at <= self._clock.elapsed]
        return self._rng.choice(ready)
