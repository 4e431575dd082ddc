"""A client with the product's interface and no network: draws faults, and hands requests to the simulated Zocdoc."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lifecycle import points, zocdoc
from lifecycle.zocdoc.answers import Page
from tests.simulation import faults, remote
from tests.simulation.scheduler import Interrupted

if TYPE_CHECKING:
    from datetime import datetime

    from tests.simulation.world import World

DEADLINE = 25.0
ENVIRONMENT = "simulated"

Outcome = zocdoc.Outcome
Reason = zocdoc.Reason

_REFUSALS = {
    "unauthorized_twice": (401, Reason.UNAUTHORIZED),
    "forbidden": (403, Reason.FORBIDDEN),
    "missing": (404, Reason.NOT_FOUND),
    "bad_request": (400, Reason.BAD_REQUEST),
    "unprocessable": (422, Reason.UNPROCESSABLE),
    "conflict": (409, Reason.CONFLICT),
}
"""Answered with a no that has nothing to do with the appointment's state."""

_SILENCES = {
    "server_error": (500, Reason.SERVER_ERROR),
    "lost": (None, Reason.CONNECTION_LOST),
    "timeout": (None, Reason.TIMED_OUT),
    "zombie": (None, Reason.TIMED_OUT),
    "late_zombie": (None, Reason.CONNECTION_LOST),
    "foreign_answer": (200, Reason.ANSWER_FOREIGN),
    "unreadable_answer": (200, Reason.ANSWER_UNREADABLE),
}
"""No answer that says anything."""

_BY_STATE = {400: Reason.BAD_REQUEST, 409: Reason.CONFLICT}
_UNPROCESSED = {"connection_refused": Reason.CONNECTION_FAILED, "no_token": Reason.TOKEN_UNAVAILABLE}


@dataclass(frozen=True, slots=True)
class Client:
    """What the product is given as its `ZocdocClient`."""

    world: World
    identity: str
    deadline: float = DEADLINE
    environment: str = ENVIRONMENT

    def confirm(self, appointment_id: str, *, send_before: float | None = None) -> Outcome:
        """Confirm."""
        return self._post("confirm", appointment_id, send_before)

    def cancel(
        self,
        appointment_id: str,
        *,
        reason_type: str | None = None,
        reason: str | None = None,
        send_before: float | None = None,
    ) -> Outcome:
        """Cancel."""
        del reason_type, reason
        return self._post("cancel", appointment_id, send_before)

    def reschedule(self, appointment_id: str, *, start_time: str, send_before: float | None = None) -> Outcome:
        """Reschedule."""
        return self._post("reschedule", appointment_id, send_before, start_time)

    def update_status(
        self, appointment_id: str, *, status: Literal["arrived", "no_show"], send_before: float | None = None
    ) -> Outcome:
        """Mark as arrived or not shown."""
        return self._post(f"mark_{status}", appointment_id, send_before)

    def get(self, appointment_id: str) -> zocdoc.Reading:
        """Read."""
        world, site = self.world, self.world.read_site(appointment_id)
        weights = faults.GET_FAULTS_IN_CONFLICT if site == "conflict" else faults.GET_FAULTS
        fault = world.draw(weights, f"{site}.read", "-" if site == "follow" else world.wished(appointment_id))
        world.pause(world.rng.random() * 0.2)
        read = world.receive_read(appointment_id, fault, site, self.identity)
        if fault == "read_failed":
            self._fail(zocdoc.ReadFailed(Reason.TIMED_OUT))
        if fault == "read_forbidden":
            self._fail(zocdoc.ReadRefused(Reason.FORBIDDEN, 403))
        if fault == "read_missing":
            self._fail(zocdoc.AppointmentMissing(Reason.NOT_FOUND, 404))
        booking = world.remote.bookings[appointment_id]
        if booking.booked_with != self.identity:
            self._fail(zocdoc.ReadRefused(Reason.FORBIDDEN, 403))
        told = _state(booking, world.clock.elapsed - (world.rng.random() * 5 if fault == "read_stale" else 0.0))
        world.pause(world.rng.uniform(1, DEADLINE - 1) if fault == "read_late" else world.rng.random() * 0.2)
        read.status, read.start, read.modified = told.status, told.start, booking.modified(told)
        read.returned_at = world.clock.elapsed
        world.note(appointment_id, "read", (read.number, told.status, str(told.start), fault))
        data = zocdoc.AppointmentData.model_validate(remote.payload(booking, told))
        return zocdoc.Reading(data, f"read-{read.number}")

    def list_page(
        self,
        *,
        page: int,
        page_size: int,
        sort_by: str,
        sort_direction: str,
        last_modified_time_utc_min: datetime | None = None,
        last_modified_time_utc_max: datetime | None = None,
    ) -> Page:
        """List those booked machine-to-machine, by modification; what the product asks besides is not modelled."""
        assert (sort_by, sort_direction) == ("last_modified_time_utc", "ascending")
        world = self.world
        world.pause(world.rng.random() * 0.2)
        world.receive_read("-", "none", "list", self.identity)
        if world.draw(faults.LIST_FAULTS, "sync.list", "-") == "list_failed":
            self._fail(zocdoc.ReadFailed(Reason.TIMED_OUT))
        wanted = [
            booking
            for booking, modified in world.remote.listed(self.identity)
            if (last_modified_time_utc_min is None or modified >= last_modified_time_utc_min)
            and (last_modified_time_utc_max is None or modified <= last_modified_time_utc_max)
        ]
        shown = [(booking, booking.now) for booking in wanted[page * page_size :][:page_size]]
        number = len(world.remote.lists)
        world.remote.lists.append(
            {booking.appointment_id: (now.status, booking.modified(now)) for booking, now in shown}
        )
        world.pause(world.rng.random() * 0.5)
        return Page(
            appointments=tuple(
                zocdoc.AppointmentData.model_validate(remote.payload(booking, now)) for booking, now in shown
            ),
            unreadable=0,
            has_next=len(wanted) > (page + 1) * page_size,
            total_count=len(wanted),
            request_id=f"list-{number}",
        )

    def _fail(self, error: Exception) -> None:
        self.world.pause(self.world.rng.random() * 5)
        self.world.read_failed()
        raise error

    def _post(
        self, operation: str, appointment_id: str, send_before: float | None, start_time: str | None = None
    ) -> Outcome:
        world = self.world
        started = world.clock.elapsed
        fault = world.draw(faults.POST_FAULTS, world.post_site(), operation, legal=faults.is_legal)
        if fault in _UNPROCESSED:
            world.pause(world.rng.random())
            return zocdoc.NotSent(_UNPROCESSED[fault])
        points.reach(points.Point.TOKEN_FETCHED)
        if fault == "interrupted_before":
            raise Interrupted
        if send_before is not None and world.clock.monotonic() >= send_before:
            return zocdoc.NotSent(Reason.CLAIM_EXPIRED)
        request = world.receive(operation, appointment_id, fault, start_time, self.identity)
        return self._await(request, started, send_before)

    def _await(self, request: remote.Request, started: float, send_before: float | None) -> Outcome:
        world, fault = self.world, request.fault
        if fault in {"rate_limited", "rate_limited_once", "unauthorized_once"}:
            again = self._answered_before_processing(request, send_before)
            if again is None:
                reason = Reason.RATE_LIMITED if fault == "rate_limited" else Reason.CLAIM_EXPIRED
                return _answered(world, request, zocdoc.NotSent(reason, 429 if "rate" in fault else None))
            request = again
        # Zocdoc answers a credential that it does not take before it processes anything.
        request.before_processing = fault == "unauthorized_twice"
        world.remote.send(request, after=_transit(world, fault))
        points.reach(points.Point.REQUEST_SENT)
        if fault == "interrupted_after":
            raise Interrupted
        latency = 20.0 * world.rng.random() if fault in {"slow", "timeout_applied", "zombie"} else 0.1
        due = request.due if request.due is not None and "zombie" not in fault else world.clock.elapsed
        world.pause(max(due - world.clock.elapsed, 0.0) + latency * world.rng.random())
        points.reach(points.Point.ANSWER_UNREAD)
        points.reach(points.Point.ANSWER_ARRIVING)
        world.remote.advance()
        return _answered(world, request, self._classified(request, started))

    def _answered_before_processing(self, request: remote.Request, send_before: float | None) -> remote.Request | None:
        """Let Zocdoc answer 401 or 429, which it does before processing; give the request that is sent once more."""
        world = self.world
        request.before_processing = True
        world.remote.send(request, after=None)
        points.reach(points.Point.REQUEST_SENT)
        world.pause(world.rng.random() * 2)
        if request.fault == "rate_limited" or (send_before is not None and world.clock.monotonic() >= send_before):
            return None
        return world.receive(request.operation, request.appointment_id, "none", request.start_time, self.identity)

    def _classified(self, request: remote.Request, started: float) -> Outcome:
        fault, request_id = request.fault, f"post-{request.number}"
        if fault in _REFUSALS:
            status, reason = _REFUSALS[fault]
            fields = ("start_time",) if status == 400 else ()
            return zocdoc.Rejected(status, reason, request_id, fields)
        kind = fault.removesuffix("_not_applied").removesuffix("_applied")
        if kind in _SILENCES:
            status_or_none, reason = _SILENCES[kind]
            return zocdoc.Unknown(reason, status_or_none)
        if self.world.clock.elapsed - started > self.deadline:
            return zocdoc.Unknown(Reason.TIMED_OUT)
        if request.http_status != 200:
            status = request.http_status or 0
            return zocdoc.Rejected(status, _BY_STATE[status], request_id)
        return zocdoc.Applied(request.status or "", 200, request_id)


def _answered(world: World, request: remote.Request, outcome: Outcome) -> Outcome:
    request.answered, request.answered_at = type(outcome).__name__, world.clock.elapsed
    world.note(request.appointment_id, "answered", (request.number, request.answered, request.fault))
    return outcome


def _transit(world: World, fault: str) -> float | None:
    """Tell after how many seconds a request is processed; None: never."""
    if fault in _REFUSALS or fault.endswith("_not_applied"):
        return None
    if fault == "zombie":
        return world.rng.uniform(0.5, 25.0)
    if fault == "late_zombie":
        return world.rng.uniform(40.0, 300.0)
    return 0.0 if world.rng.random() < 0.7 else world.rng.random() * 2


def _state(booking: remote.Booking, moment: float) -> remote.Change:
    """Give the state that an appointment had at a moment."""
    return next((change for change in reversed(booking.changes) if change.at <= moment), booking.changes[0])
