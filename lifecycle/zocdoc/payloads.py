"""What Zocdoc's answers hold, read with distrust.

An answer's text ends in databases, logs and pages of others. So identifiers are bounded and printable, and patient
data is hidden from every repr. Unknown fields are ignored, unknown enum values are kept as text, and null is absent.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import pydantic_core
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StringConstraints,
    ValidationError,
    WrapValidator,
)

if TYPE_CHECKING:
    from pydantic import ValidatorFunctionWrapHandler

_REQUEST_ID = re.compile(r"[!-~]{1,200}")
_CODE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
# A field's name or path, such as `data.patient.address[0]`; never a sentence, which might repeat what was sent.
_FIELD = re.compile(r"[A-Za-z0-9_.$\[\]-]{1,100}")
_MOST_FIELDS = 20


class UnreadableBody(Exception):
    """The body is not one JSON object as this API sends it."""


def decode(body: bytes) -> dict[str, Any]:
    """Return the JSON object of a body, or raise `UnreadableBody`.

    Refused: text that is not UTF-8, NaN and infinities, lone surrogates, nesting deeper than jiter allows (200), and
    an object with two equal names, since it contradicts itself.
    """
    value: Any = None
    try:
        pydantic_core.from_json(body, allow_inf_nan=False)
        # jiter keeps the last of two equal names. It goes first because it bounds the depth whatever the
        # interpreter's recursion limit is.
        value = json.loads(body, object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        pass
    if not isinstance(value, dict):
        raise UnreadableBody
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def request_id_of(envelope: dict[str, Any]) -> str | None:
    """Return Zocdoc's request id, the only handle for their support, if the body has a usable one."""
    return _matching(_REQUEST_ID, envelope.get("request_id"))


def error_type_of(envelope: dict[str, Any]) -> str | None:
    """Return `invalid_request`, `api_error`, or whatever code stands there."""
    return _matching(_CODE, envelope.get("error_type"))


def fields_of(envelope: dict[str, Any]) -> tuple[str, ...]:
    """Return the names of the fields that an error body complains about."""
    found = envelope.get("errors")
    entries = found[:_MOST_FIELDS] if isinstance(found, list) else []
    names = (_matching(_FIELD, each.get("field")) for each in entries if isinstance(each, dict))
    return tuple(name for name in names if name)


def _matching(pattern: re.Pattern[str], value: object) -> str | None:
    return value if isinstance(value, str) and pattern.fullmatch(value) else None


def _printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("not printable")
    return value


def _without_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("holds a NUL")
    return value


def _aware(value: object) -> datetime:
    """Read ISO 8601 with an offset; refuse what cannot be told in UTC."""
    instant = _parsed(value)
    if instant.utcoffset() is None:
        raise ValueError("no offset")
    _in_utc(instant)
    return instant


def _utc(value: object) -> datetime:
    """Read a `_utc` field: an offset is honoured, and no offset means UTC."""
    instant = _parsed(value)
    return _in_utc(instant if instant.utcoffset() is not None else instant.replace(tzinfo=UTC))


def _parsed(value: object) -> datetime:
    if isinstance(value, datetime):
        return value
    if not isinstance(value, str):
        raise ValueError("not text")  # noqa: TRY004  pydantic turns a ValueError into a finding
    return datetime.fromisoformat(value)


def _in_utc(instant: datetime) -> datetime:
    try:
        return instant.astimezone(UTC)
    except OverflowError:
        pass
    raise ValueError("outside the calendar")


def _or_none(value: object, read: ValidatorFunctionWrapHandler) -> Any:  # noqa: ANN401  pydantic's own signature
    try:
        return read(value)
    except ValidationError:
        return None


_Lenient = WrapValidator(_or_none)
_Name = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=200), AfterValidator(_printable)]
_Text = Annotated[str, StringConstraints(strict=True, max_length=10_000), AfterValidator(_without_nul)]
_Status = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=64), AfterValidator(_printable)]
_OptionalName = Annotated[_Name | None, _Lenient]
_OptionalText = Annotated[_Text | None, _Lenient, Field(repr=False)]
_OptionalUtc = Annotated[Annotated[datetime, BeforeValidator(_utc)] | None, _Lenient]


class Transition(BaseModel):
    """The two facts that an answer to a command must hold."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    appointment_id: _Name
    appointment_status: _Status


class AppointmentData(Transition):
    """An appointment as Zocdoc shows it.

    Id, status and start time must be sound, or there is no reading. Everything else is optional here, documented as
    required or not: what is absent, null or malformed is None, so that one odd value cannot hide a status.

    `start_time` is aware and keeps its offset, `start_time_text` is the same as it came; the `_utc` times are aware
    and in UTC. Statuses and other enum values are kept as they came, known or not. Patient data (free text, phone
    numbers, the waiting room, the developer's patient id) does not show in the repr.
    """

    start_time: Annotated[datetime, BeforeValidator(_aware)]
    start_time_text: Annotated[_Name, Field(validation_alias="start_time")]
    provider_location_id: _OptionalName = None
    visit_reason_id: _OptionalName = None
    practice_id: _OptionalName = None
    confirmation_type: _OptionalName = None
    visit_type: _OptionalName = None
    patient_type: _OptionalName = None
    source: _OptionalName = None
    is_provider_resource: Annotated[StrictBool | None, _Lenient] = None
    created_time_utc: _OptionalUtc = None
    last_modified_time_utc: _OptionalUtc = None
    developer_patient_id: Annotated[_Name | None, _Lenient, Field(repr=False)] = None
    notes: _OptionalText = None
    cancellation_reason: _OptionalText = None
    waiting_room_path: _OptionalText = None
    location_phone_number: _OptionalText = None
    location_phone_extension: _OptionalText = None
