"""The engine that needs nothing: a thread of this process dispatches what is queued, from the first submit on."""

from __future__ import annotations

import atexit
import os
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from lifecycle import claiming
from lifecycle.dispatching import Dispatcher
from lifecycle.job import Job

if TYPE_CHECKING:
    import sqlalchemy as sa

    from lifecycle.resources import Resources

POLL: Final = 1.0
"""Seconds after which the queue is looked at without being woken: another process may have submitted something."""

_SHORTEST_PAUSE: Final = 0.01


class InlineEngine:
    """Dispatches in this process, with `concurrency` threads. Starts none before it is needed.

    When it is closed, or the process ends, what is being sent is finished. What is queued then stays queued: `ensure`,
    or another process, goes on.
    """

    def __init__(self, resources: Resources, *, concurrency: int) -> None:
        self._resources = resources
        self._concurrency = concurrency
        self._lock = threading.Lock()
        self._run: _Run | None = None
        self._is_closed = False

    def announce(self, connection: sa.Connection) -> None:  # noqa: ARG002 # the port's
        """Open again what was closed, because it is used; who commits will tell."""
        self._open()

    def committed(self, *_session: object) -> None:
        """Look at the queue now, unless it is closed: a session may be committed later than that."""
        with self._lock:
            if self._is_closed:
                return
            # A forked child has no threads of its parent.
            if self._run is None or self._run.process != os.getpid():
                self._run = _Run(self._resources, self._concurrency)
            self._run.wake()

    def ensure(self) -> None:
        """Go on with what another process has left in the queue; what was closed is open again."""
        self._open()
        if claiming.count(self._resources):
            self.committed()

    def close(self) -> None:
        """Take nothing more, and finish what was taken."""
        with self._lock:
            run, self._run, self._is_closed = self._run, None, True
        if run is not None:
            run.stop()

    def _open(self) -> None:
        with self._lock:
            self._is_closed = False


class _Run:
    """A thread that dispatches, from its making until `stop`."""

    def __init__(self, resources: Resources, concurrency: int) -> None:
        self.process: Final = os.getpid()
        self._stop = threading.Event()
        self._dispatcher = Dispatcher(resources, concurrency=concurrency)
        self._job = Job("dispatch", self._work)
        self._job.start()
        atexit.register(self.stop)

    def wake(self) -> None:
        self._dispatcher.wake()
        self._job.wake()

    def stop(self) -> None:
        atexit.unregister(self.stop)
        if self.process != os.getpid():
            return
        self._stop.set()
        self._dispatcher.wake()
        self._job.stop()
        self._job.join(None)
        self._dispatcher.close()

    def _work(self) -> float:
        drained = self._dispatcher.drain(self._stop)
        due_in = 0.0 if drained.next_at is None else (drained.next_at - datetime.now(UTC)).total_seconds()
        # What is due and was not taken is another's to take: somebody else's credential, or it is locked.
        return min(POLL, max(due_in, _SHORTEST_PAUSE)) if due_in > 0 else POLL
