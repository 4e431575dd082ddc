"""Zocdoc in memory: our model of the contract, with a log of every call. Shares no code with the product."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.simulation import clock as clocks

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from tests.simulation import postbox

CANCELLABLE = {
    "pending_booking",
    "booking_failed",
    "confirmed",
    "pending_reschedule",
    "reschedule_failed",
    "rescheduled",
}
MOVABLE = {"pending_booking", "confirmed", "pending_reschedule", "rescheduled"}
OVER = {"cancelled", "booking_failed", "no_show"}
OPEN = CANCELLABLE - {"booking_failed"}
STATUSES = sorted(CANCELLABLE | OVER)
NO_SHOW_WINDOW = timedelta(days=2)


@dataclass(frozen=True, slots=True)
class Change:
    """A state of an appointment, since when, and whose doing it was: a request's number, or None for the provider's."""

    at: float
    request: int | None
    status: str
    start: datetime


@dataclass(slots=True)
class Booking:
    """An appointment at Zocdoc: its states, the newest last. Some tell no modification time, some a coarse one."""

    appointment_id: str
    booked_with: str
    tells_modified: bool
    is_coarse: bool
    changes: list[Change]

    @property
    def now(self) -> Change:
        """The state as it is."""
        return self.changes[-1]

    def modified(self, change: Change) -> str | None:
        """Tell `last_modified_time_utc` of a state."""
        moment = clocks.at(int(change.at) if self.is_coarse else change.at)
        return clocks.text(moment) if self.tells_modified else None


@dataclass(slots=True)
class Request:
    """A call that wants a change, as it was received, and what came of it. `caller` is the simulated process's task.

    `sends`: the submitted command, and its attempt, that a worker sent it for.
    """

    number: int
    at: float
    caller: str
    identity: str
    operation: str
    appointment_id: str
    start_time: str | None
    fault: str
    witness: Witness
    sends: tuple[str, int] | None = None
    before_processing: bool = False
    due: float | None = None
    processed_at: float | None = None
    http_status: int | None = None
    status: str | None = None
    answered: str = ""
    answered_at: float | None = None

    @property
    def has_effect(self) -> bool:
        """Tell whether it changed the appointment."""
        return self.processed_at is not None and self.http_status == 200


@dataclass(slots=True)
class Read:
    """A GET: who asked, with whose credential, in which story (`site`), and what it told when (if it did not fail)."""

    number: int
    at: float
    caller: str
    appointment_id: str
    fault: str
    is_locked: bool
    site: str
    identity: str
    status: str | None = None
    start: datetime | None = None
    modified: str | None = None
    returned_at: float | None = None


class Intent(NamedTuple):
    """An active command as another process sees it; the baseline is that of this attempt."""

    command_id: str
    state: str
    attempt: int
    actor: str
    baseline_status: str
    baseline_start: str
    baseline_modified: str | None


@dataclass(frozen=True, slots=True)
class Witness:
    """What another process sees in the database at the moment when a request arrives."""

    is_locked: bool
    active: tuple[Intent, ...]
    head: tuple[int, str] | None
    rows: int


@dataclass
class Remote:
    """The bookings, and what is under way to them. `lists`: what each page of a list told, by appointment."""

    rng: Random
    clock: clocks.Clock
    note: Callable[[str, str, object], None]
    webhooks: postbox.Postbox
    bookings: dict[str, Booking] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    lists: list[dict[str, tuple[str, str | None]]] = field(default_factory=list)
    _in_transit: list[tuple[float, int]] = field(default_factory=list)

    def book(self, appointment_id: str, *, status: str, start: datetime, booked_with: str) -> None:
        """Make an appointment."""
        tells, coarse = self.rng.random() < 0.85, self.rng.random() < 0.15
        change = Change(self.clock.elapsed, None, status, start)
        self.bookings[appointment_id] = Booking(appointment_id, booked_with, tells, coarse, [change])

    def provide(self, appointment_id: str, *, status: str, start: datetime | None = None) -> None:
        """Change an appointment as the provider or Zocdoc does."""
        self.advance()
        booking = self.bookings[appointment_id]
        booking.changes.append(Change(self.clock.elapsed, None, status, start or booking.now.start))
        self.note(appointment_id, "provider", (status, str(booking.now.start)))
        self.webhooks.tell(appointment_id, status)

    def send(self, request: Request, *, after: float | None) -> None:
        """Take a request in; it is processed after so many seconds, or never (None)."""
        self.advance()
        self.requests.append(request)
        if after is not None:
            request.due = round(self.clock.elapsed + after, 6)
            heapq.heappush(self._in_transit, (request.due, request.number))
            self.advance()

    def listed(self, booked_with: str) -> list[tuple[Booking, datetime]]:
        """List who was booked with a credential, in the order of modification, and when each was modified."""
        self.advance()
        found = [
            (booking, clocks.at(int(booking.now.at) if booking.is_coarse else booking.now.at))
            for booking in self.bookings.values()
            if booking.booked_with == booked_with
        ]
        return sorted(found, key=lambda entry: (entry[1], entry[0].appointment_id))

    def is_under_way(self, appointment_id: str) -> bool:
        """Tell whether a request for the appointment has not been processed yet."""
        return any(self.requests[number].appointment_id == appointment_id for _, number in self._in_transit)

    def had_effect(self, command_id: str) -> bool:
        """Tell whether a request of a command changed its appointment."""
        return any(
            request.has_effect and any(row[0] == command_id for row in request.witness.active)
            for request in self.requests
        )

    def last_due(self) -> float:
        """Tell when the last request under way is processed."""
        return max((due for due, _ in self._in_transit), default=0.0)

    def advance(self) -> None:
        """Process what has arrived by now, in the order of arrival."""
        while self._in_transit and self._in_transit[0][0] <= self.clock.elapsed:
            due, number = heapq.heappop(self._in_transit)
            self._process(self.requests[number], due)

    def _process(self, request: Request, due: float) -> None:
        booking = self.bookings[request.appointment_id]
        request.processed_at = due
        request.http_status = _judge(request, booking.now, clocks.at(due))
        if request.http_status == 200:
            self._apply(request, booking, due)
        request.status = booking.now.status
        self.note(request.appointment_id, "processed", (request.number, request.http_status, request.status))

    def _apply(self, request: Request, booking: Booking, due: float) -> None:
        before = booking.now
        status, start = self._answer(request, before.status), before.start
        if request.start_time is not None and status != "reschedule_failed":
            start = datetime.fromisoformat(request.start_time)
        booking.changes.append(Change(due, request.number, status, start))

    def _answer(self, request: Request, status: str) -> str:
        if request.fault == "unknown_status":
            return "waitlisted"
        if request.fault == "odd_status":
            return self.rng.choice([other for other in STATUSES if other not in {status, "reschedule_failed"}])
        if request.operation == "reschedule":
            failed = "reschedule_failed"
            return self.rng.choices(["rescheduled", "pending_reschedule", failed, status], [50, 20, 15, 15])[0]
        return {"confirm": "confirmed", "cancel": "cancelled", "mark_no_show": "no_show"}.get(request.operation, status)


def _judge(request: Request, now: Change, moment: datetime) -> int:
    """Apply the documented preconditions."""
    if request.operation == "confirm":
        return 200 if now.status == "pending_booking" else 409
    if request.operation == "cancel":
        return 200 if now.status in CANCELLABLE else 409
    if request.operation == "reschedule":
        return 200 if now.status in MOVABLE else 400
    if now.status in OVER:
        return 409
    if request.operation == "mark_no_show" and not now.start < moment <= now.start + NO_SHOW_WINDOW:
        return 400
    return 200


def payload(booking: Booking, change: Change) -> dict[str, Any]:
    """Write the body of a read."""
    return {
        "appointment_id": booking.appointment_id,
        "appointment_status": change.status,
        "start_time": change.start.isoformat(),
        "provider_location_id": "pr_1|lo_1",
        "visit_reason_id": "pc_1",
        "last_modified_time_utc": booking.modified(change),
    }


def local(start: datetime, zone: timedelta) -> datetime:
    """Write an instant in another zone."""
    return start.astimezone(timezone(zone))
