"""The appointment state chart: statuses, commands, and the moves between statuses. No SQL, no HTTP, no clock.

Observations are recorded, not judged: whatever Zocdoc reports has happened, so `move` never refuses, it only tells
whether the chart has such a move (`conforming`). What guards a command before it is sent is in `guards`.

The statuses that allow confirm, cancel and reschedule are those of Zocdoc's API reference (document version 1.177).
Zocdoc documents none for arrived and no-show, and no moves of its own: those are ours.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from statemachine import State, StateMachine
from statemachine.exceptions import TransitionNotAllowed

if TYPE_CHECKING:
    from collections.abc import Callable

VERSION: Final = "1.177-1"
"""Stamped on audit rows: Zocdoc's document version, then our revision of the chart. A test pins it to the topology."""

MACHINE: Final = "machine"
"""The identity of every machine-to-machine credential; a Zocdoc user's is `user:ID`."""

OBSERVED: Final = "observed"
"""The event of a status that Zocdoc reported outside our own command."""


class Status(StrEnum):
    """Zocdoc's appointment statuses. Others may be added by Zocdoc and are kept as plain strings."""

    PENDING_BOOKING = "pending_booking"
    CONFIRMED = "confirmed"
    BOOKING_FAILED = "booking_failed"
    CANCELLED = "cancelled"
    NO_SHOW = "no_show"
    PENDING_RESCHEDULE = "pending_reschedule"
    RESCHEDULED = "rescheduled"
    RESCHEDULE_FAILED = "reschedule_failed"


STATUSES: Final = frozenset(map(str, Status))
"""The statuses that this version knows."""


class Command(StrEnum):
    """A wish to change an appointment."""

    CONFIRM = "confirm"
    CANCEL = "cancel"
    RESCHEDULE = "reschedule"
    MARK_ARRIVED = "mark_arrived"
    MARK_NO_SHOW = "mark_no_show"


class CancellationReason(StrEnum):
    """Zocdoc's `cancellation_reason_type` values. Optional on a cancel, but recommended."""

    PATIENT_NO_LONGER_NEEDS_APPOINTMENT = "patient_no_longer_needs_appointment"
    PATIENT_NO_LONGER_AVAILABLE = "patient_no_longer_available"
    OTHER_PATIENT_REASON = "other_patient_reason"
    MISSING_NEEDED_PATIENT_INFORMATION = "missing_needed_patient_information"
    PAYMENT_OR_INSURANCE_ISSUE = "payment_or_insurance_issue"
    PATIENT_OR_VISIT_TYPE_NOT_ACCEPTED = "patient_or_visit_type_not_accepted"
    PROVIDER_NOT_AVAILABLE = "provider_not_available"
    RESCHEDULING_PATIENT = "rescheduling_patient"
    OTHER_PROVIDER_REASON = "other_provider_reason"


@lru_cache(maxsize=1024)  # three words decide, and the machine takes longer than the rest of a command's bookkeeping
def move(*, status: str, event: str, answer: str) -> Move:
    """Tell the move that an answer or observation made, and whether the chart has such a move.

    `event` is a command, or `OBSERVED`. The status in the answer is the truth (Zocdoc's reference), so the target is
    always `answer`; a move that the chart does not have, unknown statuses included, has `conforming=False`.
    """
    if status not in AppointmentChart.states_map or answer not in AppointmentChart.states_map:
        return Move(status, answer, conforming=False)
    machine, holder = _machine()
    holder.state = status
    try:
        machine.send(event, answer=answer)
    except TransitionNotAllowed:
        return Move(status, answer, conforming=False)
    if machine.is_terminated:
        # The library stops a machine in a final state for good; the next move on this thread needs another one.
        del _local.bound
    return Move(status, answer, conforming=True)


@dataclass(frozen=True, slots=True)
class Move:
    """A change of status. `from_status` and `to_status` may be equal: a rescheduled visit may be moved again."""

    from_status: str
    to_status: str
    conforming: bool


def _answered(target: str) -> Callable[[str], bool]:
    """Condition of a transition: Zocdoc's answer names its target."""

    def answered(answer: str) -> bool:
        return answer == target

    answered.__name__ = f"answered_{target}"
    return answered


class AppointmentChart(StateMachine):
    """Which moves exist. Commands first (their sources are Zocdoc's preconditions), then what Zocdoc does by itself.

    Every transition is conditional on the answer, because one command may be answered with several statuses. There is
    nothing in callbacks: what follows from a move is done by whoever asked, in its own transaction.
    """

    # Pinned, although they are this base class's defaults: with the other values an illegal event is ignored silently.
    allow_event_without_transition = False
    catch_errors_as_events = False
    atomic_configuration_update = True

    pending_booking = State(initial=True)
    confirmed = State()
    booking_failed = State()
    cancelled = State(final=True)
    no_show = State(final=True)
    pending_reschedule = State()
    rescheduled = State()
    reschedule_failed = State()

    confirm = confirmed.from_(pending_booking, cond=_answered("confirmed"))

    cancel = cancelled.from_(
        pending_booking,
        booking_failed,
        confirmed,
        pending_reschedule,
        reschedule_failed,
        rescheduled,
        cond=_answered("cancelled"),
    )

    reschedule = (
        rescheduled.from_(pending_booking, confirmed, pending_reschedule, cond=_answered("rescheduled"))
        | rescheduled.to(rescheduled, cond=_answered("rescheduled"))
        | pending_reschedule.from_(pending_booking, confirmed, rescheduled, cond=_answered("pending_reschedule"))
        | pending_reschedule.to(pending_reschedule, cond=_answered("pending_reschedule"))
        | reschedule_failed.from_(
            pending_booking, confirmed, pending_reschedule, rescheduled, cond=_answered("reschedule_failed")
        )
        | pending_booking.to(pending_booking, cond=_answered("pending_booking"))
        | confirmed.to(confirmed, cond=_answered("confirmed"))
    )

    mark_arrived = (
        pending_booking.to(pending_booking, cond=_answered("pending_booking"))
        | confirmed.to(confirmed, cond=_answered("confirmed"))
        | pending_reschedule.to(pending_reschedule, cond=_answered("pending_reschedule"))
        | rescheduled.to(rescheduled, cond=_answered("rescheduled"))
        | reschedule_failed.to(reschedule_failed, cond=_answered("reschedule_failed"))
    )

    mark_no_show = no_show.from_(
        pending_booking, confirmed, pending_reschedule, rescheduled, reschedule_failed, cond=_answered("no_show")
    )

    observed = (
        confirmed.from_(pending_booking, pending_reschedule, reschedule_failed, cond=_answered("confirmed"))
        | booking_failed.from_(pending_booking, cond=_answered("booking_failed"))
        | cancelled.from_(
            pending_booking,
            confirmed,
            pending_reschedule,
            rescheduled,
            reschedule_failed,
            booking_failed,
            cond=_answered("cancelled"),
        )
        | no_show.from_(confirmed, rescheduled, reschedule_failed, cond=_answered("no_show"))
        | pending_reschedule.from_(
            pending_booking, confirmed, rescheduled, reschedule_failed, cond=_answered("pending_reschedule")
        )
        | rescheduled.from_(
            pending_booking, confirmed, pending_reschedule, reschedule_failed, cond=_answered("rescheduled")
        )
        | rescheduled.to(rescheduled, cond=_answered("rescheduled"))
        | reschedule_failed.from_(pending_reschedule, cond=_answered("reschedule_failed"))
    )


def _topology() -> dict[str, dict[str, frozenset[str]]]:
    """Read event -> source -> targets back from the chart, the only place where they are written."""
    found: dict[str, dict[str, set[str]]] = {}
    for state in AppointmentChart.states:
        for transition in state.transitions:
            for event in transition.events:
                targets = found.setdefault(str(event), {}).setdefault(state.value, set())
                targets.update(target.value for target in transition.targets)
    return {event: {s: frozenset(t) for s, t in moves.items()} for event, moves in found.items()}


TOPOLOGY: Final = _topology()
"""Event -> source status -> target statuses, for commands and for `OBSERVED`."""


@dataclass(slots=True)
class _Holder:
    """The model that the machine is bound to: nothing but the field it reads and writes."""

    state: str


_local = threading.local()


def _machine() -> tuple[AppointmentChart, _Holder]:
    """One machine for each thread, used again: building one costs more than a move, sharing one is unsafe."""
    if not hasattr(_local, "bound"):
        holder = _Holder(Status.PENDING_BOOKING.value)
        _local.bound = AppointmentChart(model=holder), holder
    bound: tuple[AppointmentChart, _Holder] = _local.bound
    return bound
