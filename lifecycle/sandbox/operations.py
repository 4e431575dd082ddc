"""Each documented operation: who may ask, from which status, what changes and what is answered."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from lifecycle.sandbox import documents, fixtures, listing
from lifecycle.sandbox.appointments import UNCHANGED, Appointment, Appointments
from lifecycle.sandbox.bodies import Body
from lifecycle.sandbox.callbacks import Target, UpdateType, decode_key
from lifecycle.sandbox.messages import Json, Outcome, Refusal, Request, failure, success
from lifecycle.sandbox.vocabulary import (
    ALLOWED_FROM,
    READ_SCOPE,
    READS,
    WRITE_SCOPE,
    CancellationReason,
    Operation,
    Status,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lifecycle.sandbox.tokens import Token
    from lifecycle.sandbox.webhooks import Webhooks

_COLLECTION: Final = "/v1/appointments"
_MEMBER: Final = "/v1/appointments/"
_OLDEST_NO_SHOW: Final = timedelta(days=2)
_LONGEST_NOTES: Final = 100

_ROUTES: Final[Mapping[tuple[str, str], Operation]] = {
    ("POST", "/oauth/token"): Operation.TOKEN,
    ("POST", _COLLECTION): Operation.BOOK,
    ("GET", _COLLECTION): Operation.LIST,
    ("POST", "/v1/appointments/confirm"): Operation.CONFIRM,
    ("POST", "/v1/appointments/cancel"): Operation.CANCEL,
    ("POST", "/v1/appointments/reschedule"): Operation.RESCHEDULE,
    ("PUT", "/v1/appointments/update-status"): Operation.UPDATE_STATUS,
    ("POST", "/v1/webhook/mock-request"): Operation.MOCK_WEBHOOK,
}
_PATHS: Final = frozenset(path for _, path in _ROUTES)


@dataclass(frozen=True, slots=True)
class Call:
    """A request with everything that was found out about it before it is carried out."""

    request: Request
    request_id: str
    operation: Operation
    raw: bytes
    document: object
    appointment_id: str | None
    token: Token | None


def operation_of(method: str, path: str) -> Operation:
    """Return the operation of a request line; `UNKNOWN` for one that is not documented."""
    found = _ROUTES.get((method, path))
    if found is not None:
        return found
    member = path.startswith(_MEMBER) and "/" not in path[len(_MEMBER) :] and path != _MEMBER
    return Operation.GET if member and method == "GET" else Operation.UNKNOWN


def run(appointments: Appointments, webhooks: Webhooks, call: Call) -> Outcome:
    """Carry out one request, all or nothing. The caller holds the stand-in's lock."""
    try:
        _authorise(call)
        if call.operation is Operation.MOCK_WEBHOOK:
            return _mock_webhook(webhooks, call)
        return _ACTS[call.operation](appointments, call)
    except Refusal as refused:
        if refused.bare:
            return Outcome(refused.status)
        document = failure(call.request_id, refused.status, refused.message, refused.field)
        return Outcome(refused.status, document)


def _authorise(call: Call) -> None:
    if call.token is None:
        raise Refusal(401)
    if (READ_SCOPE if call.operation in READS else WRITE_SCOPE) not in call.token.scopes:
        raise Refusal(403)


def _book(appointments: Appointments, call: Call) -> Outcome:
    body = Body(call.document)
    body.choice("appointment_type", ("providers",))
    data = body.nested("data")
    patient_id = _check_patient(data.nested("patient"))
    location = data.text("provider_location_id")
    patient_type = data.choice("patient_type", ("existing", "new"))
    start_time = data.instant("start_time")
    visit_reason_id = data.text("visit_reason_id")
    notes = data.optional_text("notes", longest=_LONGEST_NOTES)
    _refuse_location(location)
    fixture = fixtures.at(location, patient_type)
    row = appointments.put(
        fixture.appointment_id if fixture else str(uuid.uuid4()),
        status=fixture.status if fixture else Status.CONFIRMED,
        start_time=start_time,
        booked_by=_subject(call),
        provider_location_id=location,
        visit_reason_id=visit_reason_id,
        patient_type=patient_type,
        developer_patient_id=patient_id,
        notes=notes,
    )
    return _done(call, row, documents.full(row))


def _check_patient(patient: Body) -> str | None:
    for name in ("first_name", "last_name", "date_of_birth", "phone_number", "email_address"):
        patient.text(name)
    patient.choice("sex_at_birth", ("male", "female"))
    address = patient.nested("patient_address")
    for name in ("address1", "city", "state", "zip_code"):
        address.text(name)
    return patient.optional_text("developer_patient_id")


def _refuse_location(location: str) -> None:
    if location == fixtures.FAILING_LOCATION:
        raise Refusal(500, "Something went wrong.")
    if location == fixtures.MISSING_LOCATION:
        raise Refusal(404, "No such provider location.", field="data.provider_location_id")


def _list(appointments: Appointments, call: Call) -> Outcome:
    url = call.request.base_url + _COLLECTION
    page = listing.page(appointments, booked_by=_subject(call), query=call.request.query, url=url)
    return Outcome(200, page.document(call.request_id))


def _get(appointments: Appointments, call: Call) -> Outcome:
    row = _own(appointments, call, call.appointment_id or "")
    return Outcome(200, success(call.request_id, documents.status_data(row)))


def _confirm(appointments: Appointments, call: Call) -> Outcome:
    row = _own(appointments, call, Body(call.document).text("appointment_id"))
    _require_status(row, call)
    changed = appointments.change(row, status=Status.CONFIRMED)
    return _done(call, changed, documents.base(changed))


def _cancel(appointments: Appointments, call: Call) -> Outcome:
    body = Body(call.document)
    appointment_id = body.text("appointment_id")
    body.optional_choice("cancellation_reason_type", CancellationReason)
    reason = body.optional_text("cancellation_reason")
    row = _own(appointments, call, appointment_id)
    _require_status(row, call)
    changed = appointments.change(row, status=Status.CANCELLED, cancellation_reason=reason)
    return _done(call, changed, documents.base(changed))


def _reschedule(appointments: Appointments, call: Call) -> Outcome:
    body = Body(call.document)
    appointment_id = body.text("appointment_id")
    start_time = body.instant("start_time")
    row = _own(appointments, call, appointment_id)
    if row.status not in ALLOWED_FROM[Operation.RESCHEDULE]:
        # The reference lists no 409 for this call, so a status that forbids it can only be a 400.
        raise Refusal(400, "The status does not permit a reschedule.", field="appointment_id")
    status = row.on_reschedule or appointments.on_reschedule
    changed = appointments.change(
        row,
        status=row.status if status == UNCHANGED else status,
        start_time=row.start_time if status == Status.RESCHEDULE_FAILED else start_time,
    )
    return _done(call, changed, documents.full(changed))


def _update_status(appointments: Appointments, call: Call) -> Outcome:
    body = Body(call.document)
    appointment_id = body.text("appointment_id")
    wanted = body.choice("appointment_status", ("arrived", Status.NO_SHOW))
    row = _own(appointments, call, appointment_id)
    _require_status(row, call)
    if wanted != Status.NO_SHOW:
        # No answer ever carries `arrived`: only the modification time shows that it was taken.
        changed = appointments.change(row)
        return _done(call, changed, documents.base(changed))
    age = appointments.now() - row.start
    if not timedelta(0) < age <= _OLDEST_NO_SHOW:
        raise Refusal(400, "The start is not within the past two days.", field="appointment_status")
    changed = appointments.change(row, status=Status.NO_SHOW)
    return _done(call, changed, documents.base(changed))


def _mock_webhook(webhooks: Webhooks, call: Call) -> Outcome:
    body = Body(call.document)
    url = body.text("webhook_url")
    key = body.text("webhook_key")
    wanted = body.optional_choice("appointment_update_type", UpdateType)
    for name, check, text in (("webhook_url", Target.parse, url), ("webhook_key", decode_key, key)):
        try:
            check(text)
        except ValueError as wrong:
            raise Refusal(400, f"{name} {wrong}.", field=name) from None
    return Outcome(200, webhooks.mock(url, key, UpdateType(wanted or UpdateType.UPDATED)))


def _unknown(_appointments: Appointments, call: Call) -> Outcome:
    if call.request.path in _PATHS:
        raise Refusal(405, "This method is not documented here.")
    raise Refusal(404, "No such path.")


def _own(appointments: Appointments, call: Call, appointment_id: str) -> Appointment:
    if appointment_id == fixtures.FAILING:
        # The reference declares the 500 of update-status without a body.
        raise Refusal(500, "" if call.operation is Operation.UPDATE_STATUS else "Something went wrong.")
    row = appointments.find(appointment_id)
    if row is None:
        raise Refusal(404, "No such appointment.", field="appointment_id")
    if row.booked_by != _subject(call):
        raise Refusal(403)
    return row


def _require_status(row: Appointment, call: Call) -> None:
    if row.status not in ALLOWED_FROM[call.operation]:
        raise Refusal(409, f"An appointment that is {row.status} does not permit this.")


def _subject(call: Call) -> str:
    return call.token.subject if call.token else ""


def _done(call: Call, row: Appointment, data: Json) -> Outcome:
    return Outcome(200, success(call.request_id, data), effect=True, appointment_id=row.appointment_id)


_ACTS: Final[Mapping[Operation, Callable[[Appointments, Call], Outcome]]] = {
    Operation.BOOK: _book,
    Operation.LIST: _list,
    Operation.GET: _get,
    Operation.CONFIRM: _confirm,
    Operation.CANCEL: _cancel,
    Operation.RESCHEDULE: _reschedule,
    Operation.UPDATE_STATUS: _update_status,
    Operation.UNKNOWN: _unknown,
}
