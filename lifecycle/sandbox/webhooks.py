"""Webhooks as Zocdoc sends them: who is called about which change, and the documented rule of retries."""

from __future__ import annotations

import heapq
import itertools
import random
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from lifecycle.sandbox import callbacks
from lifecycle.sandbox.callbacks import Target, Trouble, UpdateType
from lifecycle.sandbox.deliveries import Attempt, Delivery, Ended, Knobs, Order, Subscription
from lifecycle.sandbox.documents import utc_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from lifecycle.sandbox.messages import Json

_SEED: Final = 1  # the same losses and orders in every run


class Webhooks:
    """Every subscription and delivery of a stand-in. Thread-safe; calls are made by daemon threads.

    `now` returns an aware UTC datetime and rules the timestamps; pauses follow the monotonic clock.
    """

    def __init__(self, *, now: Callable[[], datetime]) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._due = threading.Condition(self._lock)
        self._done = threading.Condition(self._lock)
        self._knobs = Knobs()
        self._random = random.Random(_SEED)  # noqa: S311 - weather, not a secret
        self._numbers = itertools.count(1)
        self._subscriptions: dict[str, Subscription] = {}
        self._log: dict[str, Delivery] = {}
        self._queue: list[tuple[float, int, str]] = []
        self._held: list[str] = []
        self._open = 0
        self._threads = 0
        self._waiting = 0

    def subscribe(self, url: str, key: str) -> Subscription:
        """Call `url` from now on, signing with `key` (base64). Every subscription gets every event.

        Raises `ValueError` for a URL that is not plain HTTP on this machine and for a key that is not base64.
        """
        made = Subscription(subscription_id=f"w{next(self._numbers)}", url=url, key=key)
        with self._lock:
            self._subscriptions[made.subscription_id] = made
        return made

    def unsubscribe(self, subscription_id: str | None = None) -> None:
        """End one subscription, or all; what is on its way still goes. Raises `KeyError` for an unknown one."""
        with self._lock:
            if subscription_id is None:
                self._subscriptions.clear()
            else:
                del self._subscriptions[subscription_id]

    @property
    def subscriptions(self) -> list[Subscription]:
        """The subscriptions, oldest first."""
        with self._lock:
            return list(self._subscriptions.values())

    @property
    def knobs(self) -> Knobs:
        """How webhooks are delivered at present."""
        return self._knobs

    def configure(self, /, **changes: Any) -> Knobs:  # noqa: ANN401 - the knobs check their types
        """Turn some of the `Knobs`, for what is announced or retried from now on; `hold=False` releases.

        Raises `ValueError` for an unknown knob, a wrong type or a number out of range.
        """
        with self._lock:
            self._knobs = self._knobs.changed(changes)
            held = not self._knobs.hold and self._held
        if held:
            self.release()
        return self._knobs

    def announce(
        self, appointment_id: str, update_type: UpdateType, *, at: datetime, changed: Iterable[str] = ()
    ) -> None:
        """Tell every subscription of one change that the provider made `at` that instant. Returns at once."""
        if self._subscriptions:
            document = self._event(appointment_id, update_type, at, changed)
            self._send(self.subscriptions, appointment_id, update_type, callbacks.encode(document))

    def mock(self, url: str, key: str, update_type: UpdateType) -> Json:
        """Call `url` with the published example's appointment and return the event. Returns at once.

        The knobs apply to it as to every call. Raises `ValueError` as `subscribe` does.
        """
        asked = Subscription(subscription_id="mock", url=url, key=key)
        document = self._event(callbacks.EXAMPLE_ID, update_type, self._now(), ())
        self._send([asked], callbacks.EXAMPLE_ID, update_type, callbacks.encode(document))
        return document

    def repeat(self, delivery_id: str) -> Delivery:
        """Deliver an event again, word for word, with a signature of its own; raises `KeyError`."""
        with self._lock:
            known = self._log[delivery_id]
            return self._enqueue(replace(known, delivery_id=self._name(), attempts=(), ended=None), self._knobs)

    def release(self, order: Order = Order.GIVEN) -> int:
        """Let go, in this order, what the knob `hold` kept back, and return how many those are."""
        with self._lock:
            leaving, self._held = self._held, []
            if order is Order.REVERSED:
                leaving.reverse()
            elif order is Order.SHUFFLED:
                self._random.shuffle(leaving)
            for delivery_id in leaving:
                self._push(delivery_id, 0.0)
        return len(leaving)

    def log(self, appointment_id: str | None = None) -> list[Delivery]:
        """Return the deliveries so far, oldest first, of one appointment if given."""
        with self._lock:
            found = list(self._log.values())
        return [delivery for delivery in found if appointment_id in (None, delivery.appointment_id)]

    def forget(self) -> None:
        """Drop the deliveries that have ended from the log."""
        with self._lock:
            self._log = {name: delivery for name, delivery in self._log.items() if delivery.ended is None}

    @property
    def idle(self) -> bool:
        """True when no delivery is on its way, held back or waiting for a retry."""
        return not self._open

    def wait_idle(self, timeout: float) -> bool:
        """Wait until every delivery has ended, `timeout` seconds at most, and tell whether that is so."""
        with self._lock:
            return self._done.wait_for(lambda: not self._open, timeout)

    def stop(self) -> None:
        """End what has not ended: no call begins after this, until the next change is announced."""
        with self._lock:
            self._queue.clear()
            self._held.clear()
            for delivery in list(self._log.values()):
                if delivery.ended is None:
                    self._end(replace(delivery, ended=Ended.STOPPED))
            self._due.notify_all()

    def _event(self, appointment_id: str, update_type: str, at: datetime, changed: Iterable[str]) -> Json:
        sent = utc_text(self._now())
        return callbacks.event(appointment_id, update_type, at=utc_text(at), sent=sent, changed=changed)

    def _send(self, to: Iterable[Subscription], appointment_id: str, update_type: str, body: bytes) -> None:
        with self._lock:
            knobs = self._knobs
            for subscription in to:
                for _ in range(knobs.copies):
                    made = Delivery(
                        delivery_id=self._name(),
                        to=subscription,
                        appointment_id=appointment_id,
                        update_type=update_type,
                        body=body,
                    )
                    self._enqueue(made, knobs)

    def _name(self) -> str:
        return f"d{next(self._numbers)}"

    def _enqueue(self, delivery: Delivery, knobs: Knobs) -> Delivery:
        self._log[delivery.delivery_id] = delivery
        self._open += 1
        if self._random.random() < knobs.loss:
            self._end(replace(delivery, ended=Ended.LOST))
        elif knobs.hold:
            self._held.append(delivery.delivery_id)
        else:
            self._push(delivery.delivery_id, knobs.delay + self._random.uniform(0.0, knobs.spread))
        return delivery

    def _push(self, delivery_id: str, seconds: float) -> None:
        heapq.heappush(self._queue, (time.monotonic() + seconds, next(self._numbers), delivery_id))
        self._due.notify()
        if self._threads < self._knobs.workers and self._waiting < len(self._queue):
            self._threads += 1
            threading.Thread(target=self._work, name="sandbox-webhooks", daemon=True).start()

    def _end(self, delivery: Delivery) -> None:
        self._log[delivery.delivery_id] = delivery
        self._open -= 1
        self._done.notify_all()

    def _work(self) -> None:
        while (delivery := self._next()) is not None:
            attempt = self._call(delivery)
            with self._lock:
                self._settle(delivery, attempt)

    def _next(self) -> Delivery | None:
        """Wait for the next delivery that is due; None when there is no work, and the thread ends."""
        with self._lock:
            while self._queue and self._threads <= self._knobs.workers:
                seconds = self._queue[0][0] - time.monotonic()
                if seconds <= 0:
                    return self._log[heapq.heappop(self._queue)[2]]
                self._waiting += 1
                self._due.wait(seconds)
                self._waiting -= 1
            self._threads -= 1
            self._due.notify()  # a wake-up that was meant for work must not end with this thread
            return None

    def _call(self, delivery: Delivery) -> Attempt:
        knobs, begun = self._knobs, time.monotonic()
        if delivery.attempts and not knobs.resign:
            signed_at = delivery.attempts[0].signed_at
        else:
            signed_at = int(self._now().timestamp() + knobs.clock_offset)
        headers = callbacks.sign(
            callbacks.decode_key(delivery.to.key), delivery.body, signed_at, second_version=knobs.second_version
        )
        got = callbacks.post(Target.parse(delivery.to.url), delivery.body, headers, within=knobs.answer_within)
        return Attempt(begun, signed_at, got)

    def _settle(self, delivery: Delivery, attempt: Attempt) -> None:
        called = replace(delivery, attempts=(*delivery.attempts, attempt))
        known = self._log.get(delivery.delivery_id)
        if known is None or known.ended is not None:  # stopped while it was called
            self._log[delivery.delivery_id] = replace(called, ended=Ended.STOPPED)
        elif not isinstance(attempt.got, Trouble):
            self._end(replace(called, ended=Ended.ANSWERED))
        else:
            self._retry(called)

    def _retry(self, called: Delivery) -> None:
        pause = self._knobs.first_retry * 2.0 ** (len(called.attempts) - 1)
        if time.monotonic() + pause > called.attempts[0].at + self._knobs.give_up_after:
            self._end(replace(called, ended=Ended.GAVE_UP))
            return
        self._log[called.delivery_id] = called
        self._push(called.delivery_id, pause)
