"""Dispatch: carrying out what is queued, with so many threads of this process. Many processes may work on one queue.

The queue is the table of commands; whatever wakes a dispatcher up says only that there may be something to do.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from lifecycle import claiming, errors, observations, sending, tracing, zocdoc
from lifecycle.resources import USER_PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from lifecycle.decisions import Order, ToRead
    from lifecycle.resources import Resources

_log = logging.getLogger(__name__)

MOST: Final = 256
"""Threads of one process; beyond that more processes do more."""

_AHEAD: Final = 2
"""Commands taken for each thread: one on the way and one waiting, so that a thread never waits for the database."""

_LOOK_AGAIN: Final = 0.25
"""Seconds after which the queue is looked at although nothing has ended: somebody may have submitted something."""

_KNOWN_FOR: Final = 2.0
"""Seconds for which the clients of users are not looked up again."""

_HOLD: Final = (5.0, 10.0, 20.0, 40.0, 60.0)
"""Seconds for which nothing is taken while Zocdoc refuses the credential, each time longer."""

_FORBIDDEN_IN_A_ROW: Final = 3
"""403 answers without any other in between: one may be about an appointment, so many are about the credential."""

_TOO_SLOW: Final = {zocdoc.Reason.CLAIM_EXPIRED, zocdoc.Reason.RATE_LIMITED}


@dataclass(slots=True)
class _Credential:
    """What Zocdoc has said of a credential lately: until when it is left alone, how often so, and 403s in a row."""

    held_until: float = 0.0
    holds: int = 0
    forbidden: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Drained:
    """What a run came to: commands taken, and when the next one is due (None: nothing is queued)."""

    taken: int
    next_at: datetime | None


def check_concurrency(concurrency: object) -> int:
    """Accept a number of threads. Raises `InvalidArgument`."""
    if not isinstance(concurrency, int) or not 1 <= concurrency <= MOST:
        raise errors.InvalidArgument(argument="concurrency", problem=f"a whole number from 1 to {MOST} is needed")
    return concurrency


class Dispatcher:
    """Carries out queued commands with `concurrency` threads. Thread-safe; opens nothing until it is used.

    Raises `InvalidArgument`.
    """

    def __init__(self, resources: Resources, *, concurrency: int) -> None:
        self.concurrency: Final = check_concurrency(concurrency)
        self._resources = resources
        self._pool = ThreadPoolExecutor(concurrency, thread_name_prefix="lifecycle-dispatch")
        self._waiting: deque[Callable[[], None]] = deque()
        self._running = threading.Lock()
        self._changed = threading.Condition()
        self._outstanding = 0
        self._window = concurrency
        self._credentials: dict[str, _Credential] = {}
        self._known: dict[str, zocdoc.ZocdocClient | None] = {}
        self._known_until = 0.0
        self._beat = time.monotonic()

    @property
    def beat(self) -> float:
        """When it last looked at the queue, or a command ended: a moment of `time.monotonic`."""
        return self._beat

    @property
    def in_flight(self) -> int:
        """How many commands this process has taken that have not ended."""
        return self._outstanding

    def drain(self, stop: threading.Event, *, on_backlog: Callable[[], None] | None = None) -> Drained:
        """Carry out what is due until there is nothing more, or `stop` is set; finish what was taken.

        `on_backlog` is called when more is due than this process takes at once: others could help. If another thread
        is at it already, this one returns at once. Raises `DatabaseUnavailable`; what was taken is finished even then.
        """
        taken = 0
        if self._running.acquire(blocking=False):
            try:
                taken = self._drain(stop, on_backlog)
            finally:
                self._wait_until(lambda: self._outstanding == 0)
                self._running.release()
        return Drained(taken=taken, next_at=claiming.next_due(self._resources))

    def wake(self) -> None:
        """Look at the queue now, if a run is waiting for something to end."""
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        """End the threads, once they are done. A run must have been stopped before."""
        self._pool.shutdown(wait=True)

    def _drain(self, stop: threading.Event, on_backlog: Callable[[], None] | None) -> int:
        taken = 0
        while not stop.is_set():
            room = self._window - self._outstanding
            # A handful at a time: one transaction for many intents costs little more than for one.
            if room < min(self._window, max(1, self._window // 4)):
                self._wait_for_change(stop)
                continue
            found = self._take(room)
            taken += found
            if found >= room and on_backlog is not None:
                on_backlog()
            if found == 0 and self._outstanding == 0:
                break
            if found == 0:
                self._wait_for_change(stop)
        return taken

    def _take(self, most: int) -> int:
        found = claiming.take(self._resources, most=most, clients=self._not_held(self._clients()))
        with self._changed:
            self._beat = time.monotonic()
            self._outstanding += len(found.orders) + len(found.to_read)
        self._waiting.extend(partial(self._send, order) for order in found.orders)
        self._waiting.extend(partial(self._read_and_send, each) for each in found.to_read)
        self._hand_out(len(found.orders) + len(found.to_read))
        return found.scanned

    def _hand_out(self, number: int) -> None:
        """Have the threads carry out what was taken; if there are none, because the process ends, this one does."""
        try:
            for _ in range(number):
                self._pool.submit(self._carry_out_next)
        except RuntimeError as error:
            _log.info("dispatch_without_threads", extra={"error": type(error).__name__})
            while self._carry_out_next():
                pass

    def _not_held(self, clients: dict[str, zocdoc.ZocdocClient | None]) -> dict[str, zocdoc.ZocdocClient | None]:
        """Leave the clients out whose credentials Zocdoc refuses for the time being."""
        now = time.monotonic()
        with self._changed:
            held = {identity for identity, each in self._credentials.items() if now < each.held_until}
        return {identity: client for identity, client in clients.items() if identity not in held}

    def _clients(self) -> dict[str, zocdoc.ZocdocClient | None]:
        """Give the clients by the identities whose commands this process may take."""
        if time.monotonic() < self._known_until:
            return self._known
        clients = self._resources.clients
        known: dict[str, zocdoc.ZocdocClient | None] = {}
        if clients.default is not None:
            known[clients.default.identity] = clients.default
        if clients.resolve is not None:
            for identity in claiming.waiting_identities(self._resources, but=list(known)):
                known |= self._resolved(identity)
        self._known, self._known_until = known, time.monotonic() + _KNOWN_FOR
        return known

    def _resolved(self, identity: str) -> dict[str, zocdoc.ZocdocClient | None]:
        """Find a user's client. None if there is none, which refuses; nothing if that cannot be told now."""
        if not identity.startswith(USER_PREFIX):
            return {}
        try:
            return {identity: self._resources.clients.of(identity)}
        except Exception as error:  # noqa: BLE001 # the caller's own function; its commands wait
            _log.warning("user_client_failed", extra={"error": type(error).__name__})
            return {}

    def _carry_out_next(self) -> bool:
        """Carry one command out, unless another thread has; whatever that raises, the others go on."""
        try:
            work = self._waiting.popleft()
        except IndexError:
            return False
        try:
            work()
        except Exception as error:  # noqa: BLE001 # the command's lease runs out, and recovery settles it
            _log.warning("dispatch_failed", extra={"error": type(error).__name__})
        finally:
            with self._changed:
                self._beat = time.monotonic()
                self._outstanding -= 1
                self._changed.notify_all()
        return True

    def _send(self, order: Order) -> None:
        command = order.claim.command
        names = {"command": str(command.command), "appointment_id": command.appointment_id, "source": order.source}
        with (
            zocdoc.background(when=order.is_background),
            tracing.command(self._resources.telemetry, **names) as span,
        ):
            span.claimed(command.command_id, command.attempt)
            attempt, settled = sending.perform(self._resources, order.claim, source=order.source)
            span.ended(attempt.outcome)
        self._learn(order.claim.client.identity, attempt.outcome)
        if settled is None:
            with zocdoc.background(when=order.is_background):
                sending.follow_late(self._resources, order.claim.client, command, source=order.source)

    def _read_and_send(self, given: ToRead) -> None:
        """Read the appointment of an earlier command that needs attention, then take this one."""
        try:
            with zocdoc.background(when=given.is_background):
                observations.follow(
                    self._resources, given.client, given.appointment_id, actor=given.actor, source=given.source
                )
        except (errors.ReadFailed, errors.AppointmentNotFound) as error:
            _log.warning("read_before_dispatch_failed", extra={"error": type(error).__name__})
            return
        clients: dict[str, zocdoc.ZocdocClient | None] = {given.client.identity: given.client}
        found = claiming.take(self._resources, most=1, clients=clients, command_id=given.command_id)
        for order in found.orders:
            self._send(order)

    def _learn(self, identity: str, outcome: zocdoc.Outcome) -> None:
        """Take less at once where commands wait too long to be sent, and none for a credential that is refused."""
        with self._changed:
            if isinstance(outcome, zocdoc.NotSent) and outcome.reason_code in _TOO_SLOW:
                self._window = max(1, self._window // 2)
            else:
                self._window = min(self._window + 1, _AHEAD * self.concurrency)
            seconds = self._hold(identity, outcome.http_status)
        if seconds is not None:
            _log.warning("dispatch_held", extra={"http_status": outcome.http_status, "seconds": seconds})

    def _hold(self, identity: str, status: int | None) -> float | None:
        """Leave a credential alone that is refused, and tell for how many seconds; None: it is not, or is already."""
        credential = self._credentials.setdefault(identity, _Credential())
        credential.forbidden = credential.forbidden + 1 if status == _FORBIDDEN else 0
        if status != sending.UNAUTHORISED and credential.forbidden < _FORBIDDEN_IN_A_ROW:
            credential.holds = 0
            return None
        default = self._resources.clients.default
        if default is not None and default.identity == identity:
            self._window = 1  # so after each pause one command tries the credential, and no more are rejected
        if time.monotonic() < credential.held_until:
            return None
        seconds = _HOLD[min(credential.holds, len(_HOLD) - 1)]
        credential.holds += 1
        credential.held_until = time.monotonic() + seconds
        return seconds

    def _wait_for_change(self, stop: threading.Event) -> None:
        with self._changed:
            if not stop.is_set():
                self._changed.wait(_LOOK_AGAIN)

    def _wait_until(self, condition: Callable[[], bool]) -> None:
        with self._changed:
            self._changed.wait_for(condition)


_FORBIDDEN: Final = 403
