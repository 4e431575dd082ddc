"""Booking slots: which instant is free next, under the quota and after the pause that Zocdoc asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

import pyrate_limiter as pyrate

from lifecycle.zocdoc import timing

if TYPE_CHECKING:
    from lifecycle.quota import Quota
    from lifecycle.rates.stores import Buckets, Store

FARTHEST: Final = 60.0
"""Seconds ahead for which slots are booked at most, so that one that lies farther shows a clock that was set back."""

_LEAK_MS: Final = 1_000
"""How often past slots are deleted: the bucket in PostgreSQL looks at all it has."""


class StoreBusy(Exception):
    """Another process holds the store for too long."""


@dataclass(frozen=True, slots=True)
class Slot:
    """An instant of `clock()`; `booked` tells whether it is ours, or only the next one that is free."""

    at: float
    booked: bool


class Timetable:
    """The slots of one store. For one thread at a time; every method may raise what the store raises."""

    def __init__(self, store: Store, quota: Quota) -> None:
        self.store: Final = store
        self._tick_ms = quota.tick_ms
        self._leak_at = 0.0

    def book(self, count: int, *, earliest: float, latest: float) -> tuple[Slot, float]:
        """Book `count` sends at the next free instant, or nothing if that is after `latest`.

        Also tells until when all senders pause or paused. All instants are of `clock()`; nothing is booked for more
        than a minute ahead.
        """
        with self.store.opened() as buckets:
            now = self.store.now()
            base = timing.clock() - now / 1000
            resumes = self._resumes(buckets, now)
            first = math.ceil(max(now, (earliest - base) * 1000, resumes))
            last = max(math.ceil(now), (min(latest, timing.clock() + FARTHEST) - base) * 1000)
            at, is_booked = self._put(buckets, count, first, last)
            self._leak(buckets, now)
        return Slot(at / 1000 + base, is_booked), resumes / 1000 + base

    def hold(self, seconds: float) -> None:
        """Store a pause of so many seconds."""
        with self.store.opened() as buckets:
            buckets.pauses.put(pyrate.RateItem("pause", math.ceil(self.store.now() + seconds * 1000)))

    def resumes(self) -> float:
        """Tell until when all senders pause or paused, as an instant of `clock()`."""
        with self.store.opened() as buckets:
            now = self.store.now()
            return timing.clock() + (self._resumes(buckets, now) - now) / 1000

    def _put(self, buckets: Buckets, count: int, first: int, last: float) -> tuple[int, bool]:
        at = first
        while at <= last:
            decision = cast("pyrate.Decision", buckets.sends.put_decision(pyrate.RateItem("send", at, count)))
            if decision.allowed:
                return at, True
            if decision.retry_after_ms is None:
                raise StoreBusy
            at += max(1, decision.retry_after_ms)
            if at - first > FARTHEST * 1000 + self._tick_ms:
                buckets.sends.flush()
                at = first
        return at, False

    def _resumes(self, buckets: Buckets, now: float) -> float:
        newest = cast("pyrate.RateItem | None", buckets.pauses.peek(0))
        if newest is None:
            return 0.0
        if newest.timestamp - now > 2 * timing.LONGEST_SHARED_PAUSE * 1000:
            buckets.pauses.flush()
            return 0.0
        return newest.timestamp

    def _leak(self, buckets: Buckets, now: float) -> None:
        if abs(now - self._leak_at) >= _LEAK_MS:
            self._leak_at = now
            buckets.sends.leak(int(now))
            buckets.pauses.leak(int(now))
