"""What runs beside the door: the inbox soon after each delivery, recovery and sync every so many seconds.

Each job has a thread of its own, so that a long sync holds up nothing. A failure is logged by its type and tried again
with growing pauses; it ends neither the job nor the server. Several processes may run the same jobs.
"""

from __future__ import annotations

import logging
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from lifecycle.api import Lifecycle

POLL: Final = 1.0
"""Seconds after which the inbox is looked at without being woken: another process may have stored something."""

_GATHER: Final = 0.1
"""Seconds. Several deliveries of one appointment need one read, and a burst is stored before it is worked off."""

_AT_ONCE: Final = 4
"""Appointments between two pauses, in which the door gets at an SQLite database, whose waiters do not queue."""

_LONGEST_PAUSE: Final = 60.0
_SHORTEST_PAUSE: Final = 0.01

_log = logging.getLogger(__name__)


class Job:
    """A thread that works, pauses for as long as the work said, and works again; `wake` ends a pause.

    `delay` is before the first work, `gather` between being woken and working, so that a burst is worked off at once.
    """

    def __init__(self, name: str, work: Callable[[], float], *, delay: float = 0.0, gather: float = 0.0) -> None:
        self.name = name
        self._work = work
        self._delay = delay
        self._gather = gather
        self._woken = threading.Event()
        self._stopping = False
        self._failures = 0
        self._thread = threading.Thread(target=self._run, name=f"lifecycle-{name}", daemon=True)

    def start(self) -> None:
        """Begin, after the delay."""
        self._thread.start()

    def wake(self) -> None:
        """Work now, or again as soon as the work at hand is done."""
        self._woken.set()

    def stop(self) -> None:
        """Begin nothing more; what is at hand is finished."""
        self._stopping = True
        self._woken.set()

    def join(self, seconds: float) -> None:
        """Wait for the work at hand. All work may be cut off at any point, so a process need not wait for long."""
        self._thread.join(seconds)

    def _run(self) -> None:
        pause = self._delay
        while True:
            if self._woken.wait(pause) and not self._stopping:
                time.sleep(self._gather)
            self._woken.clear()
            if self._stopping:
                return
            pause = self._once()

    def _once(self) -> float:
        try:
            pause = self._work()
        except Exception as error:  # noqa: BLE001 # whatever it is, the job goes on
            self._failures += 1
            _log.warning("job_failed", extra={"job": self.name, "error": type(error).__name__})
            return min(2.0 ** min(self._failures, 10) / 2, _LONGEST_PAUSE)
        self._failures = 0
        return pause


def inbox(lifecycle: Lifecycle, *, track_unknown: bool) -> Job:
    """Process what has been delivered."""

    def work() -> float:
        done = lifecycle.process_inbox(track_unknown=track_unknown, limit=_AT_ONCE)
        ended = {"followed": done.followed, "untracked": done.untracked, "failed": done.failed}
        if any(ended.values()):
            _log.info("inbox_processed", extra=ended | {"reads": done.reads, "waiting": done.waiting})
        if done.next_at is None:
            return POLL
        due_in = (done.next_at - datetime.now(UTC)).total_seconds()
        if due_in <= 0:
            # What is due and was not taken is another's to take.
            return _SHORTEST_PAUSE if any(ended.values()) or done.reads else POLL
        return max(_SHORTEST_PAUSE, min(due_in, POLL))

    return Job("inbox", work, gather=_GATHER)


def recovery(lifecycle: Lifecycle, every: float) -> Job:
    """Settle what is in doubt, at once and then every so many seconds."""

    def work() -> float:
        found = lifecycle.recover()
        if found.settled:
            _log.info("recovered", extra={"settled": len(found.settled), "waiting": found.waiting})
        return every

    return Job("recovery", work)


def sync(lifecycle: Lifecycle, every: float) -> Job:
    """Read Zocdoc's list of what has changed, at once and then every so many seconds."""

    def work() -> float:
        begun = time.monotonic()
        lifecycle.sync()
        _log.info("synchronised", extra={"seconds": round(time.monotonic() - begun, 1)})
        return every

    return Job("sync", work)
