"""One rate for all senders: a sender books the next free slot and sleeps until it comes."""

from __future__ import annotations

import logging
import threading
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TypeVar

from lifecycle.rates import stores, timetable
from lifecycle.zocdoc import pacing, timing, transport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lifecycle.quota import Quota
    from lifecycle.rates.stores import Store
    from lifecycle.rates.timetable import Slot, Timetable
    from lifecycle.zocdoc.timing import Budget

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

_AHEAD: Final = 0.1
"""Seconds ahead for which background work books: enough to wake up and ask in time, and all that a call which somebody
waits for ever finds before it."""

_PATIENCE: Final = 1.0
"""Seconds to wait for this process's other threads at the store, before going on without it."""

_BATCHES: Final = 5
"""Parts of what may leave at one instant, of which a process books one at a time while threads wait for it: so at high
rates a slow way to the database does not become the limit."""

_FIRST_RETRY: Final = 0.5
_LONGEST_RETRY: Final = 10.0
"""Seconds after which a store that failed is tried again, doubling."""

_ROUNDING: Final = 0.001
"""Slots are whole milliseconds, so the first one that is free is up to one away."""

_MOST_MISSED: Final = 3
"""Slots given up because the machine woke up a whole tick late, when a send would crowd with later ones; a machine that
does so again and again sends late rather than never."""


class SharedPace:
    """Spaces the requests of all processes that share a store; a `Pace` for `ZocdocClient`. Thread-safe.

    A slot that would come too late for a call is not booked. Calls in the background book a tenth of a second ahead at
    most, the others as far as their budget goes (a minute at most). While the store fails, this process keeps to the
    same rate by itself.
    """

    def __init__(self, store: Store, quota: Quota, *, close: Callable[[], None] = lambda: None) -> None:
        self._quota = quota
        self._close = close
        self._shared = timetable.Timetable(store, quota)
        self._most = max(1, quota.at_once // _BATCHES)
        self._late = quota.tick_ms / 1000
        self._retry = 0.0
        self._retry_at = 0.0
        self._resumes = 0.0
        self._looked_at = 0.0
        self.after_fork()
        transport.renew_after_fork(self)

    def wait(self, budget: Budget) -> bool:
        """Sleep until a request may leave, and return True; False when that would be too late for the budget."""
        missed = 0
        while True:
            with self._counted():
                slot = self._slot(budget)
            wait = slot.at - timing.clock()
            if not slot.booked or (wait > _ROUNDING and not budget.sleep(wait)):
                return False
            if self._paused(slot, slept=wait):
                continue
            missed += 1
            if timing.clock() - slot.at <= self._late or missed > _MOST_MISSED:
                return True

    def hold(self, seconds: float) -> None:
        """Make all senders of all processes wait, for at most a few seconds."""
        pause = min(seconds, timing.LONGEST_SHARED_PAUSE)
        until = timing.clock() + pause
        if until > self._resumes:
            self._resumes = until
            self._ask(lambda table: table.hold(pause))

    def close(self) -> None:
        """Close the connections to the store."""
        with self._door:
            self._shared.store.close()
        self._close()

    def after_fork(self) -> None:
        """Start with free locks and no connections, as a forked child must: those it inherited are its parent's."""
        self._door = threading.Lock()
        self._own_door = threading.Lock()
        self._turn = threading.Lock()
        self._count = threading.Lock()
        self._waiting = 0
        self._spare: deque[Slot] = deque()
        self._own = timetable.Timetable(stores.MemoryStore(self._quota), self._quota)
        self._shared.store.forget()

    def _slot(self, budget: Budget) -> Slot:
        if not pacing.is_background():
            return self._book(timing.clock() + budget.slack())
        # Background threads of this process stand in line here, and only the first of them asks the store.
        if not self._turn.acquire(timeout=max(0.0, budget.slack())):
            return timetable.Slot(timing.clock(), booked=False)
        try:
            return self._slot_soon(budget)
        finally:
            self._turn.release()

    def _slot_soon(self, budget: Budget) -> Slot:
        while True:
            slot = self._book(timing.clock() + min(_AHEAD, max(0.0, budget.slack())))
            if slot.booked or not budget.sleep(
                max(0.0, slot.at - _AHEAD - timing.clock()) + timing.jitter(_AHEAD / 10)
            ):
                return slot

    def _book(self, latest: float) -> Slot:
        return self._ask(lambda table: self._spare_slot(latest) or self._book_in(table, latest))

    def _book_in(self, table: Timetable, latest: float) -> Slot:
        count = min(self._most, max(1, self._waiting))
        slot, resumes = table.book(count, earliest=self._resumes, latest=latest)
        self._learn(resumes)
        if slot.booked:
            self._spare.extend([slot] * (count - 1))
        return slot

    def _spare_slot(self, latest: float) -> Slot | None:
        """Take a slot that this process has booked for whoever comes next."""
        while self._spare:
            slot = self._spare.popleft()
            if timing.clock() - self._late <= slot.at <= latest and slot.at >= self._resumes:
                return slot
        return None

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with self._count:
            self._waiting += 1
        try:
            yield
        finally:
            with self._count:
                self._waiting -= 1

    def _paused(self, slot: Slot, *, slept: float) -> bool:
        """Tell whether a 429 has come since the slot was booked: to another process, too, if that is long ago."""
        if slept > _AHEAD and timing.clock() - self._looked_at > _AHEAD:
            self._learn(self._ask(lambda table: table.resumes()))
        return self._resumes > max(slot.at, timing.clock())

    def _learn(self, resumes: float) -> None:
        self._looked_at = timing.clock()
        self._resumes = max(self._resumes, resumes)

    def _ask(self, ask: Callable[[Timetable], _T]) -> _T:
        """Ask the shared timetable, or this process's own one while the store fails."""
        if timing.clock() >= self._retry_at and self._door.acquire(timeout=_PATIENCE):
            try:
                if timing.clock() >= self._retry_at:
                    return self._ask_shared(ask)
            except Exception as error:  # noqa: BLE001 # whatever a database can raise: a send must neither crash nor burst
                self._failed(error)
            finally:
                self._door.release()
        with self._own_door:
            return ask(self._own)

    def _ask_shared(self, ask: Callable[[Timetable], _T]) -> _T:
        if self._retry:  # other threads do not wait for this attempt
            self._retry_at = timing.clock() + self._retry
        result = ask(self._shared)
        if self._retry:
            self._retry = self._retry_at = 0.0
            _log.info("rate_store_back")
        return result

    def _failed(self, error: Exception) -> None:
        if not self._retry:
            _log.warning("rate_store_failed", extra={"error": type(error).__name__})
        self._retry = min(_LONGEST_RETRY, self._retry * 2 or _FIRST_RETRY)
        self._retry_at = timing.clock() + self._retry
