"""The appointments that the stand-in keeps, and the one function that changes them."""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from operator import attrgetter
from typing import TYPE_CHECKING, Final, TypedDict, Unpack

from lifecycle.sandbox.bodies import parse_instant
from lifecycle.sandbox.vocabulary import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

MACHINE: Final = "machine"
UNCHANGED: Final = "unchanged"

_LEAST_STEP: Final = timedelta(microseconds=1)  # so that a frozen clock still shows every change
_NEXT_WEEK: Final = timedelta(days=7)
_BULK: Final = 1_000  # changes from which sorting anew is quicker than putting each in its place

_start_of: Final = lru_cache(maxsize=1 << 16)(parse_instant)  # lists compare the same starts again and again


class Details(TypedDict, total=False):
    """The fields of an appointment that a test may choose; all are optional."""

    status: str
    start_time: str
    booked_by: str
    provider_location_id: str
    visit_reason_id: str
    confirmation_type: str
    visit_type: str
    patient_type: str
    practice_id: str | None
    developer_patient_id: str | None
    notes: str | None
    cancellation_reason: str | None
    source: str | None
    on_reschedule: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Appointment:
    """One appointment.

    `start_time` keeps the offset it was written with; `created` and `modified` are UTC. `booked_by` is
    `machine` or `user:ID`. `on_reschedule` is the status that a reschedule answers with, `unchanged`
    keeps the status, `None` follows the whole stand-in's choice. `status` may be a value that is not
    documented, as the contract says that values may be added.
    """

    appointment_id: str
    created: datetime
    modified: datetime
    start_time: str
    status: str = Status.PENDING_BOOKING
    booked_by: str = MACHINE
    provider_location_id: str = "pr_sandbox|lo_sandbox"
    visit_reason_id: str = "pc_sandbox"
    confirmation_type: str = "auto"
    visit_type: str = "in_person"
    patient_type: str = "new"
    practice_id: str | None = None
    developer_patient_id: str | None = None
    notes: str | None = None
    cancellation_reason: str | None = None
    source: str | None = None
    on_reschedule: str | None = None

    @property
    def start(self) -> datetime:
        """The start as a UTC instant."""
        return _start_of(self.start_time)


TIMES: Final[Mapping[str, Callable[[Appointment], datetime]]] = {
    "start_time_utc": attrgetter("start"),
    "created_time_utc": attrgetter("created"),
    "last_modified_time_utc": attrgetter("modified"),
}
"""The times that a list can be ordered and narrowed by."""


class Appointments:
    """The table of appointments. It locks nothing: whoever calls holds the stand-in's lock."""

    def __init__(self, *, now: Callable[[], datetime], on_reschedule: str) -> None:
        self.now = now
        self.on_reschedule = on_reschedule
        self._rows: dict[str, Appointment] = {}
        self._indexes = {name: _Index(read) for name, read in TIMES.items()}

    def find(self, appointment_id: str) -> Appointment | None:
        """Return the appointment of that id, or `None`."""
        return self._rows.get(appointment_id)

    def row(self, appointment_id: str) -> Appointment:
        """Return an appointment that is known to exist."""
        return self._rows[appointment_id]

    def by_time(self, name: str) -> Sequence[tuple[datetime, str]]:
        """Return one of the `TIMES` and the id of every appointment, in ascending order. Not to be kept."""
        return self._indexes[name].pairs(self._rows)

    def put(self, appointment_id: str, at: datetime | None = None, **details: Unpack[Details]) -> Appointment:
        """Create or overwrite an appointment, `at` some instant (UTC) or now; by default it starts in a week.

        Raises `ValueError` for a start time without an offset.
        """
        now = at or self.now()
        chosen: Details = {"start_time": whole_hour(now + _NEXT_WEEK), **details}
        parse_instant(chosen["start_time"])
        row = Appointment(appointment_id=appointment_id, created=now, modified=now, **chosen)
        self._keep(row)
        return row

    def change(self, row: Appointment, **details: Unpack[Details]) -> Appointment:
        """Replace fields of an appointment and move its modification time forward."""
        modified = max(self.now(), row.modified + _LEAST_STEP)
        changed = replace(row, modified=modified, **details)
        self._keep(changed)
        return changed

    def _keep(self, row: Appointment) -> None:
        self._rows[row.appointment_id] = row
        for index in self._indexes.values():
            index.stale.add(row.appointment_id)


class _Index:
    """The appointments in the order of one time. It is brought up to date by who reads it, so writing stays cheap."""

    def __init__(self, read: Callable[[Appointment], datetime]) -> None:
        self.stale: set[str] = set()
        self._read = read
        self._pairs: list[tuple[datetime, str]] = []
        self._known: dict[str, tuple[datetime, str]] = {}

    def pairs(self, rows: Mapping[str, Appointment]) -> Sequence[tuple[datetime, str]]:
        in_bulk = len(self.stale) > _BULK
        for appointment_id in self.stale:
            before = self._known.get(appointment_id)
            now = self._known[appointment_id] = (self._read(rows[appointment_id]), appointment_id)
            if not in_bulk:
                if before is not None:
                    del self._pairs[bisect_left(self._pairs, before)]
                insort(self._pairs, now)
        if in_bulk:
            self._pairs = sorted(self._known.values())
        self.stale.clear()
        return self._pairs


def whole_hour(instant: datetime) -> str:
    """Return a UTC instant as ISO 8601 text, cut to the hour."""
    return instant.astimezone(UTC).replace(minute=0, second=0, microsecond=0).isoformat()
