"""Time as the client counts it: one clock, the budget of a call, and pauses between repeated sends."""

from __future__ import annotations

import email.utils
import random
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_BOOT_CLOCK: int | None = getattr(time, "CLOCK_BOOTTIME", None)

# Zocdoc publishes no limits and expects exponential backoff: half a second doubles to eight within one deadline.
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 8.0
# What a repeated send must have left of the deadline (at most a fifth of it): one that begins at the last moment would
# rather become an unknown outcome than an answer.
_ROOM = 2.0
# What one 429 may hold back the other senders; a hostile Retry-After must not stop them all.
LONGEST_SHARED_PAUSE = 5.0
_SECONDS = re.compile(r"[0-9]{1,18}")


def clock() -> float:
    """Return seconds on the clock that `send_before` is measured with.

    CLOCK_BOOTTIME where there is one, so that time in which the machine was suspended counts; else the monotonic
    clock. Only differences mean anything, and only on the same machine since the same boot.
    """
    return time.monotonic() if _BOOT_CLOCK is None else time.clock_gettime(_BOOT_CLOCK)


@dataclass(frozen=True, slots=True)
class Budget:
    """How long one call may take (`ends`), and until when its request may leave (`send_before`).

    `room` is what a pause must leave over for the send that follows it.
    """

    ends: float
    send_before: float | None = None
    room: float = 0.0

    @classmethod
    def of(cls, seconds: float, send_before: float | None = None) -> Budget:
        """Return the budget of a call that begins now."""
        return cls(clock() + seconds, send_before, min(_ROOM, seconds / 5))

    def remaining(self) -> float:
        """Return the seconds left, negative when the deadline has passed."""
        return self.ends - clock()

    def patience(self, longest: float) -> float:
        """Return how long one socket operation may wait. Raises `TimeoutError` when nothing is left."""
        left = self.ends - clock()
        if left <= 0:
            raise TimeoutError("the deadline of the call has passed")
        return min(longest, left)

    def claim_expired(self) -> bool:
        """Tell whether it is too late to send."""
        return self.send_before is not None and clock() >= self.send_before

    def sleep(self, seconds: float) -> bool:
        """Sleep and return True, or return False at once when a send after that sleep would come too late."""
        if seconds >= self.slack():
            return False
        time.sleep(seconds)
        return True

    def slack(self) -> float:
        """Return how many seconds from now a send would come too late, negative when it does already."""
        latest = self.ends - self.room
        return (latest if self.send_before is None else min(latest, self.send_before)) - clock()


class Pauses:
    """The pace of a client without a rate: only the pause that a 429 imposes on all its senders."""

    def __init__(self) -> None:
        self._resumes = 0.0

    def hold(self, seconds: float) -> None:
        """Ask all senders to wait, for at most a few seconds."""
        self._resumes = max(self._resumes, clock() + min(seconds, LONGEST_SHARED_PAUSE))

    def wait(self, budget: Budget) -> bool:
        """Sleep through the pause; False when it does not fit into the budget."""
        left = self._resumes - clock()
        return left <= 0 or budget.sleep(left + jitter(_FIRST_PAUSE))


def backoff(attempt: int, retry_after: str | None = None) -> float:
    """Return the pause before the next send: exponential with jitter, and never less than `Retry-After` asks."""
    longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(attempt, 10))
    return max(longest / 2 + jitter(longest / 2), _asked_for(retry_after))


def jitter(
    longest: float,
    uniform: Callable[[float, float], float] = random.uniform,
) -> float:
    """Return a random part of so many seconds, so that senders do not come back all at once."""
    return uniform(0.0, longest)


def _asked_for(retry_after: str | None) -> float:
    """Read both forms of the header (seconds, HTTP date); anything else asks for nothing."""
    if not retry_after:
        return 0.0
    if _SECONDS.fullmatch(retry_after.strip()):
        return float(retry_after)
    try:
        when = email.utils.parsedate_to_datetime(retry_after)
        return max(0.0, (when.astimezone(UTC) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, IndexError, OverflowError):
        return 0.0
