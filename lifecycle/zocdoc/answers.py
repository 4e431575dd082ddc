"""From an HTTP answer to an outcome or a reading: the tables first. Pure functions, no network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from lifecycle.zocdoc import errors, payloads
from lifecycle.zocdoc.outcomes import Applied, NotSent, Outcome, Reason, Rejected, Unknown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lifecycle.zocdoc.transport import Answer

OK = 200
TOO_MANY_REQUESTS = 429

# Zocdoc's "no". Branching is on the status alone: there are no stable error codes.
REFUSALS: Mapping[int, Reason] = {
    400: Reason.BAD_REQUEST,
    401: Reason.UNAUTHORIZED,
    403: Reason.FORBIDDEN,
    404: Reason.NOT_FOUND,
    409: Reason.CONFLICT,
    422: Reason.UNPROCESSABLE,
}
# Neither yes nor no, by the hundred: 408, 201 and all the rest are "unexpected".
SILENCES: Mapping[int, Reason] = {3: Reason.REDIRECTED, 5: Reason.SERVER_ERROR}


@dataclass(frozen=True, slots=True)
class Reading:
    """An appointment as Zocdoc showed it in one answer."""

    appointment: payloads.AppointmentData
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list; `unreadable` counts rows without a sound id, status or start time."""

    appointments: tuple[payloads.AppointmentData, ...]
    unreadable: int
    has_next: bool
    total_count: int | None
    request_id: str | None


def outcome(answer: Answer, appointment_id: str) -> Outcome:
    """Classify the answer to a command. What no table lists is Unknown."""
    status = answer.http_status
    if status == OK:
        return _applied(answer, appointment_id)
    envelope = _envelope(answer)
    request_id = payloads.request_id_of(envelope)
    if status in REFUSALS:
        fields, error_type = payloads.fields_of(envelope), payloads.error_type_of(envelope)
        return Rejected(status, REFUSALS[status], request_id, fields, error_type)
    if status == TOO_MANY_REQUESTS:
        return NotSent(Reason.RATE_LIMITED, status, request_id)
    return Unknown(_silence(status), status, request_id)


def reading(answer: Answer, appointment_id: str) -> Reading:
    """Return the reading, or raise `ReadRefused`, `AppointmentMissing` or `ReadFailed`."""
    envelope = _success(answer)
    request_id = payloads.request_id_of(envelope)
    found = _appointment(envelope.get("data"))
    if found is None:
        raise errors.ReadFailed(Reason.ANSWER_UNREADABLE, OK, request_id)
    if found.appointment_id != appointment_id:
        raise errors.ReadFailed(Reason.ANSWER_FOREIGN, OK, request_id)
    return Reading(found, request_id)


def page(answer: Answer) -> Page:
    """Return one page of a list, or raise as `reading` does. `next_url` counts by its truthiness alone."""
    envelope = _success(answer)
    request_id = payloads.request_id_of(envelope)
    rows = envelope.get("data")
    if not isinstance(rows, list):
        raise errors.ReadFailed(Reason.ANSWER_UNREADABLE, OK, request_id)
    read = [_appointment(row) for row in rows]
    sound = tuple(each for each in read if each is not None)
    total = envelope.get("total_count")
    return Page(
        appointments=sound,
        unreadable=len(read) - len(sound),
        has_next=bool(envelope.get("next_url")),
        total_count=total if isinstance(total, int) and not isinstance(total, bool) else None,
        request_id=request_id,
    )


def _applied(answer: Answer, appointment_id: str) -> Applied | Unknown:
    if answer.fault is not None:
        return Unknown(answer.fault, OK)
    envelope = _envelope(answer)
    request_id = payloads.request_id_of(envelope)
    try:
        found = payloads.Transition.model_validate(envelope.get("data"))
    except ValidationError:
        return Unknown(Reason.ANSWER_UNREADABLE, OK, request_id)
    if found.appointment_id != appointment_id:
        return Unknown(Reason.ANSWER_FOREIGN, OK, request_id)
    if envelope.get("errors"):  # a success that lists errors contradicts itself
        return Unknown(Reason.ANSWER_UNREADABLE, OK, request_id)
    return Applied(found.appointment_status, OK, request_id)


def _success(answer: Answer) -> dict[str, Any]:
    """Return the envelope of a 200, or raise what the answer means for a read."""
    status = answer.http_status
    if answer.fault is not None and status == OK:
        raise errors.ReadFailed(answer.fault, status)
    envelope = _envelope(answer)
    request_id = payloads.request_id_of(envelope)
    if status == OK:
        if envelope.get("errors"):  # a success that lists errors contradicts itself
            raise errors.ReadFailed(Reason.ANSWER_UNREADABLE, OK, request_id)
        return envelope
    if status not in REFUSALS:
        reason = Reason.RATE_LIMITED if status == TOO_MANY_REQUESTS else _silence(status)
        raise errors.ReadFailed(reason, status, request_id)
    kind = errors.AppointmentMissing if REFUSALS[status] is Reason.NOT_FOUND else errors.ReadRefused
    raise kind(REFUSALS[status], status, request_id, payloads.fields_of(envelope))


def _envelope(answer: Answer) -> dict[str, Any]:
    """Return the body's object; an unusable body is an empty one, since the status alone may say enough."""
    try:
        return payloads.decode(answer.body)
    except payloads.UnreadableBody:
        return {}


def _appointment(data: object) -> payloads.AppointmentData | None:
    try:
        return payloads.AppointmentData.model_validate(data)
    except ValidationError:
        return None


def _silence(status: int) -> Reason:
    return SILENCES.get(status // 100, Reason.UNEXPECTED_STATUS)
