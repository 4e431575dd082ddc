"""Whether the database answers, and for how long the queue has waited: looked at beside the work, for the probe."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from lifecycle import errors
from lifecycle.job import Job

if TYPE_CHECKING:
    from collections.abc import Callable

_EVERY: Final = 3.0
_REACHABLE_SECONDS: Final = 15.0
"""So long ago the database may have answered last, if a look still waits for it: it may hang."""


_NEVER: Final = float("-inf")


class Watch:
    """Looks every few seconds when the next queued command is due; `next_due` asks the database."""

    def __init__(self, next_due: Callable[[], datetime | None]) -> None:
        self._next_due = next_due
        self._answered = _NEVER
        self._oldest: float | None = None
        self.job: Final = Job("watch", self._look)

    @property
    def is_reachable(self) -> bool:
        """Tell whether the database answered lately."""
        return time.monotonic() - self._answered < _REACHABLE_SECONDS

    @property
    def oldest_due_seconds(self) -> float | None:
        """How long the oldest command that is due has waited; None: none is due, or nobody knows."""
        return self._oldest if self.is_reachable else None

    def _look(self) -> float:
        try:
            due = self._next_due()
        except errors.LifecycleError:  # whoever works on the commands tells why
            self._answered = _NEVER
            return _EVERY
        waited = None if due is None else (datetime.now(UTC) - due).total_seconds()
        self._oldest = None if waited is None or waited < 0 else round(waited, 1)
        self._answered = time.monotonic()
        return _EVERY
