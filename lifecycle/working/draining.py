"""One thread of a worker that carries commands out: when it is woken, when one falls due, and every few seconds anyway.

So an engine that is dead or forgets a wake-up costs a few seconds, never a command.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from lifecycle import models
from lifecycle.columns import UtcDateTime

if TYPE_CHECKING:
    from collections.abc import Callable

    from lifecycle.database import Database
    from lifecycle.dispatching import Dispatcher

POLL: Final = 2.0
"""Seconds after which the commands are looked at without being woken: one small query."""

_LONGEST_PAUSE: Final = 15.0
_SHORTEST_PAUSE: Final = 0.01

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pulse:
    """What the thread knew when it last got anywhere. `beat` is a moment of `time.monotonic`.

    `is_reachable`: whether the database answered. `oldest_due_seconds`: how long the oldest command that is due has
    waited; None: none is due, or nobody knows.
    """

    beat: float
    is_reachable: bool = False
    oldest_due_seconds: float | None = None


class Draining:
    """Drains a dispatcher in a thread of its own. `on_backlog` is called when there is more than it can take at once."""

    def __init__(
        self,
        database: Database,
        dispatcher: Dispatcher,
        *,
        on_backlog: Callable[[], None] | None = None,
        poll: float = POLL,
    ) -> None:
        self._database = database
        self._dispatcher = dispatcher
        self._on_backlog = on_backlog
        self._poll = poll
        self._stop = threading.Event()
        self._turn = threading.Condition()
        self._asked = 0
        self._done = 0
        self._failures = 0
        self._pulse = Pulse(time.monotonic())
        self._thread = threading.Thread(target=self._run, name="lifecycle-draining", daemon=True)

    @property
    def pulse(self) -> Pulse:
        """What it knew when it last got anywhere."""
        return self._pulse

    def start(self) -> None:
        """Begin, at once."""
        self._thread.start()

    def through(self) -> None:
        """Wake the thread, and wait until it has looked at all that is queued now, or has ended."""
        with self._turn:
            self._asked += 1
            ticket = self._asked
            self._turn.notify_all()
            self._turn.wait_for(lambda: self._done >= ticket or not self._thread.is_alive())

    def stop(self) -> None:
        """Claim nothing more; what is in the air is finished."""
        self._stop.set()
        with self._turn:
            self._turn.notify_all()

    def join(self, seconds: float) -> bool:
        """Wait for what is in the air; tell whether all of it has ended."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        pause = 0.0
        while True:
            with self._turn:
                self._turn.wait_for(lambda: self._asked > self._done or self._stop.is_set(), timeout=pause)
                ticket = self._asked
            if not self._stop.is_set():
                pause = self._once()
            with self._turn:
                # Whoever still waits at the end is let go: another worker takes what is left.
                self._done = self._asked if self._stop.is_set() else ticket
                self._turn.notify_all()
            if self._stop.is_set():
                return

    def _once(self) -> float:
        try:
            self._look()
            drained = self._dispatcher.drain(self._stop, self._on_backlog)
            self._look()
        except Exception as error:  # noqa: BLE001 # whatever it is, the worker goes on
            self._failures += 1
            self._beat(is_reachable=False, oldest_due_seconds=None)
            _log.warning("job_failed", extra={"job": "dispatch", "error": type(error).__name__})
            return min(2.0 ** min(self._failures, 10) / 4, _LONGEST_PAUSE)
        self._failures = 0
        if drained.taken:
            _log.info("dispatched", extra={"commands": drained.taken})
        return self._poll

