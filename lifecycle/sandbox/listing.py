"""The list operation: documented filters, order and paging."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, urlencode

from lifecycle.sandbox import documents
from lifecycle.sandbox.appointments import TIMES
from lifecycle.sandbox.messages import Json, Refusal
from lifecycle.sandbox.vocabulary import Status

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from lifecycle.sandbox.appointments import Appointment, Appointments

LAST_PAGE: Final = 10
LARGEST_PAGE: Final = 100
DEFAULT_PAGE: Final = 10  # the contract names no default
MOST_ROWS: Final = 1_000  # over all pages of one query, as documented

_Test = Callable[["Appointment"], bool]
_KNOWN: Final = frozenset(
    {"page", "page_size", "statuses", "developer_patient_id", "sort_by", "sort_direction"}
    | {"practice_ids", "provider_ids", "location_ids"}
    | {f"{name}_{end}" for name in TIMES for end in ("min", "max")}
)


@dataclass(frozen=True, slots=True)
class Page:
    """One page of answers; `next_url` is absolute, and empty on the last page."""

    number: int
    size: int
    total: int
    next_url: str
    data: list[Json]

    def document(self, request_id: str) -> Json:
        """Return the documented paged envelope."""
        return {
            "request_id": request_id,
            "page": self.number,
            "page_size": self.size,
            "total_count": self.total,
            "next_url": self.next_url,
            "data": self.data,
        }


def page(appointments: Appointments, *, booked_by: str, query: str, url: str) -> Page:
    """Return the page that `query` asks for, of what this subject booked; `url` is the list's own, without a query.

    Raises `Refusal` (400) that names the parameter which does not fit. At most 1,000 rows are served
    over all pages; `total_count` still counts every match, so a reader can see that some are missing.
    Rows of the same time are ordered by their id.
    """
    wanted = dict(parse_qsl(query))
    number = _integer(wanted, "page", default=0, least=0, most=LAST_PAGE)
    size = _integer(wanted, "page_size", default=DEFAULT_PAGE, least=1, most=LARGEST_PAGE)
    order = _choice(wanted, "sort_by", TIMES, "start_time_utc")
    direction = _choice(wanted, "sort_direction", ("ascending", "descending"), "descending")
    tests = [_membership(attrgetter("booked_by"), frozenset({booked_by})), *_tests(wanted, but=order)]
    found = _in_order(appointments, order, wanted)
    for test in tests:
        found = list(filter(test, found))
    if direction == "descending":
        found.reverse()
    end = min((number + 1) * size, MOST_ROWS)
    more = end < min(len(found), MOST_ROWS) and number < LAST_PAGE
    return Page(
        number,
        size,
        len(found),
        f"{url}?{urlencode(_onward(wanted, number + 1))}" if more else "",
        [documents.status_data(row) for row in found[number * size : end]],
    )


def _in_order(appointments: Appointments, order: str, wanted: Mapping[str, str]) -> list[Appointment]:
    """Return the rows within the bounds of the time that orders the list, ascending, without a look at the others."""
    pairs = appointments.by_time(order)
    low, high = 0, len(pairs)
    if f"{order}_min" in wanted:
        low = bisect_left(pairs, _instant(wanted, f"{order}_min"), key=itemgetter(0))
    if f"{order}_max" in wanted:
        high = bisect_right(pairs, _instant(wanted, f"{order}_max"), key=itemgetter(0))
    return [appointments.row(appointment_id) for _, appointment_id in pairs[low:high]]


def _onward(wanted: Mapping[str, str], number: int) -> dict[str, str]:
    return {name: text for name, text in wanted.items() if name in _KNOWN} | {"page": str(number)}


def _tests(wanted: Mapping[str, str], *, but: str) -> Iterable[_Test]:
    if "statuses" in wanted:
        yield _status_test(wanted["statuses"].split(","))
    if "developer_patient_id" in wanted:
        patient = wanted["developer_patient_id"]
        yield lambda row: row.developer_patient_id == patient
    for name, identify in _IDS.items():
        if name in wanted:
            yield _membership(identify, frozenset(wanted[name].split(",")))
    for name, read in TIMES.items():
        if name == but:
            continue
        if f"{name}_min" in wanted:
            yield _not_before(read, _instant(wanted, f"{name}_min"))
        if f"{name}_max" in wanted:
            yield _not_after(read, _instant(wanted, f"{name}_max"))


def _status_test(statuses: list[str]) -> _Test:
    if not set(statuses) <= set(Status):
        raise _wrong("statuses")
    return _membership(attrgetter("status"), frozenset(statuses))


def _membership(read: Callable[[Appointment], str | None], values: frozenset[str]) -> _Test:
    return lambda row: read(row) in values


def _not_before(read: Callable[[Appointment], datetime], least: datetime) -> _Test:
    return lambda row: read(row) >= least


def _not_after(read: Callable[[Appointment], datetime], most: datetime) -> _Test:
    return lambda row: read(row) <= most


def _provider(row: Appointment) -> str:
    return row.provider_location_id.partition("|")[0]


def _location(row: Appointment) -> str:
    return row.provider_location_id.partition("|")[2]


_IDS: Final[Mapping[str, Callable[[Appointment], str | None]]] = {
    "provider_ids": _provider,
    "location_ids": _location,
    "practice_ids": attrgetter("practice_id"),
}


def _integer(wanted: Mapping[str, str], name: str, *, default: int, least: int, most: int) -> int:
    text = wanted.get(name, str(default))
    if not re.fullmatch("[0-9]{1,4}", text) or not least <= int(text) <= most:
        raise _wrong(name)
    return int(text)


def _choice(wanted: Mapping[str, str], name: str, options: Iterable[str], default: str) -> str:
    text = wanted.get(name, default)
    if text not in options:
        raise _wrong(name)
    return text


def _instant(wanted: Mapping[str, str], name: str) -> datetime:
    try:
        instant = datetime.fromisoformat(wanted[name])
        return instant.replace(tzinfo=instant.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        raise _wrong(name) from None


def _wrong(name: str) -> Refusal:
    return Refusal(400, f"{name} does not fit.", field=name)
