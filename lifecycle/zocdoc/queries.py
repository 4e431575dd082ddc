"""The query of the list call, from Python values."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, TypedDict
from urllib.parse import quote, urlencode

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class ListFilters(TypedDict, total=False):
    """What narrows and orders a list. Names are comma-separated text; None is as left out."""

    statuses: str | None
    developer_patient_id: str | None
    provider_ids: str | None
    location_ids: str | None
    practice_ids: str | None
    start_time_utc_min: datetime | str | None
    start_time_utc_max: datetime | str | None
    created_time_utc_min: datetime | str | None
    created_time_utc_max: datetime | str | None
    last_modified_time_utc_min: datetime | str | None
    last_modified_time_utc_max: datetime | str | None
    sort_by: Literal["start_time_utc", "created_time_utc", "last_modified_time_utc"] | None
    sort_direction: Literal["ascending", "descending"] | None


def encode(parameters: Mapping[str, object]) -> str:
    """Return `?name=value&...` percent-encoded, without the parameters that are None."""
    given = {name: _text(name, value) for name, value in parameters.items() if value is not None}
    return "?" + urlencode(given, quote_via=quote, safe="") if given else ""


def joined(values: str | Iterable[str] | None) -> str | None:
    """Return a comma-separated list; a text is taken as it is."""
    return values if values is None or isinstance(values, str) else ",".join(values)


def _text(name: str, value: object) -> str:
    """Write instants in UTC. Raises `ValueError` for one without an offset, which would mean another hour elsewhere."""
    if not isinstance(value, datetime):
        return str(value)
    if value.utcoffset() is None:
        raise ValueError(f"{name} must have an offset from UTC")
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
