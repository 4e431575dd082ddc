"""What runs beside the door: the inbox soon after each delivery, recovery and sync every so many seconds.

Each job has a thread of its own, so that a long sync holds up nothing. Several processes may run the same jobs.
"""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from lifecycle.job import Job

if TYPE_CHECKING:
    from lifecycle.api import Lifecycle

POLL: Final = 1.0
"""Seconds after which the inbox is looked at without being woken: another process may have stored something."""

_GATHER: Final = 0.1
"""Seconds. Several deliveries of one appointment need one read, and a burst is stored before it is worked off."""

_AT_ONCE: Final = 4
"""Appointments between two pauses, in which the door gets at an SQLite database, whose waiters do not queue."""

_SHORTEST_PAUSE: Final = 0.01

_log = logging.getLogger(__name__)


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
