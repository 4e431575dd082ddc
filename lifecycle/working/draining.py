"""One thread of a worker that carries commands out: when it is woken, when one falls due, and every few seconds anyway.

So an engine that is dead, or forgets a wake-up, costs a few seconds and never a command.
"""

from __future__ import annotations

import logging
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from lifecycle.dispatching import Dispatcher

POLL: Final = 2.0
"""Seconds after which the commands are looked at without being woken."""

_LONGEST_PAUSE: Final = 15.0
_SHORTEST_PAUSE: Final = 0.05

_FAILING: Final = 3
"""Failures in a row that are no accident."""

_log = logging.getLogger(__name__)


class Draining:
    """Drains a dispatcher in a thread of its own. `on_backlog` is called when more is due than it can take at once."""

    def __init__(
        self, dispatcher: Dispatcher, *, on_backlog: Callable[[], None] | None = None, poll: float = POLL
    ) -> None:
        self._dispatcher = dispatcher
        self._on_backlog = on_backlog
        self._poll = poll
        self._stop = threading.Event()
        self._turn = threading.Condition()
        self._asked = 0
        self._done = 0.0
        self._failures = 0
        self._beat = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="lifecycle-draining", daemon=True)

    @property
    def beat(self) -> float:
        """When it last finished a look, or failed to: a moment of `time.monotonic`."""
        return self._beat

    @property
    def is_failing(self) -> bool:
        """Whether its last looks have all failed: what is queued does not get anywhere."""
        return self._failures >= _FAILING

    def start(self) -> None:
        """Begin, at once."""
        self._thread.start()

    def through(self) -> None:
        """Wake the thread, and wait until it has looked at all that is queued now, or has ended."""
        with self._turn:
            self._asked += 1
            ticket = self._asked
            self._turn.notify_all()
            self._turn.wait_for(lambda: self._done >= ticket)

    def stop(self) -> None:
        """Claim nothing more; what is in the air is finished."""
        self._stop.set()
        with self._turn:
            self._turn.notify_all()
        self._dispatcher.wake()

    def join(self, seconds: float) -> bool:
        """Wait for what is in the air, at most so long; tell whether all of it has ended."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        pause = 0.0
        while not self._stop.is_set():
            with self._turn:
                self._turn.wait_for(lambda: self._asked > self._done or self._stop.is_set(), timeout=pause)
                ticket = self._asked
            pause = self._once()
            self._beat = time.monotonic()
            self._conclude(ticket)
        self._conclude(_FOR_EVER)  # nobody waits for a thread that has ended; other workers take what is left

    def _conclude(self, ticket: float) -> None:
        with self._turn:
            self._done = max(self._done, ticket)
            self._turn.notify_all()

    def _once(self) -> float:
        try:
            drained = self._dispatcher.drain(self._stop, on_backlog=self._on_backlog)
        except Exception as error:  # noqa: BLE001 # whatever it is, the worker goes on
            self._failures += 1
            _log.warning("job_failed", extra={"job": "dispatch", "error": type(error).__name__})
            return min(2.0 ** min(self._failures, 10) / 4, _LONGEST_PAUSE)
        self._failures = 0
        if drained.taken:
            _log.info("dispatched", extra={"commands": drained.taken})
        due_in = self._poll if drained.next_at is None else (drained.next_at - datetime.now(UTC)).total_seconds()
        # What is due and was not taken is another's to take: somebody else's credential, or it is locked.
        return min(self._poll, max(due_in, _SHORTEST_PAUSE)) if due_in > 0 else self._poll


_FOR_EVER: Final = float("inf")
