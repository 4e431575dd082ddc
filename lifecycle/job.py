"""A thread that does the same work again and again, with pauses that the work decides.

A failure is logged by its type and tried again with growing pauses; it ends neither the thread nor the process.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_LONGEST_PAUSE: Final = 60.0

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

    def join(self, seconds: float | None) -> None:
        """Wait for the work at hand, which may be cut off at any point; None: for as long as it takes."""
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
