"""Reading Zocdoc's list of appointments to its end, in the order of modification, whatever moves meanwhile.

Zocdoc lists 1,000 rows at most, by page numbers, which shift while rows change. So the next page is asked for by the
last modification that was seen: there is no end to that, and a row that changes moves ahead and is seen again. Whether
`..._min` and `..._max` include their instants, and how finely they are read, is not documented: nothing rests on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from itertools import pairwise
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, Literal

from lifecycle import chart, columns, errors, zocdoc

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping

    from lifecycle.zocdoc import AppointmentData, Page, ZocdocClient

PAGE_SIZE: Final = 100
"""The most that Zocdoc gives in one answer."""

_MOST_PAGES: Final = 10
_MOST_ROWS: Final = 1_000

_STEPS: Final = (timedelta(microseconds=1), timedelta(milliseconds=1), timedelta(seconds=1))
"""How finely Zocdoc may tell instants apart: the finest that Python can write first, coarser if it turns out so."""

_PASSES: Final = 5
"""Readings of the rows of one instant while they keep moving; in practice the first one is calm."""

_Key = Literal["last_modified_time_utc", "start_time_utc"]
_KEYS: Final[tuple[_Key, ...]] = ("last_modified_time_utc", "start_time_utc")
_READ: Final[Mapping[_Key, Callable[[AppointmentData], datetime | None]]] = {
    "last_modified_time_utc": attrgetter("last_modified_time_utc"),
    "start_time_utc": attrgetter("start_time"),
}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NONE: Final[Mapping[str, AppointmentData]] = {}

CROWDED: Final = "instant_too_crowded"
UNORDERED: Final = "list_not_in_order"
UNSTEADY: Final = "list_not_steady"


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one page that the page before had not. Everything that Zocdoc modified before `through` was given.

    `total` is Zocdoc's count of what was asked for, None if it told none; `unreadable` counts rows without a sound id,
    status or start.
    """

    rows: tuple[AppointmentData, ...]
    unreadable: int
    through: datetime | None
    total: int | None
    request_id: str | None


def walk(client: ZocdocClient, *, since: datetime | None) -> Iterator[Batch]:
    """Yield what Zocdoc modified since an instant, oldest modification first; None: everything.

    Calls Zocdoc once for each batch. A row may come more than once. Raises `SyncFailed`. Memory stays flat, but for the
    ids of an instant with more than 1,000 rows. Where those cannot be told apart, the rest is read before the error.
    """
    reader = _Reader(client)
    yield from _along(reader, _KEYS, {}, None if since is None else earlier(since, _STEPS[0]))
    if reader.crowded is not None:
        raise reader.crowded


def earlier(instant: datetime, by: timedelta) -> datetime:
    """Step back; the calendar's first instant stays."""
    try:
        return instant - by
    except OverflowError:
        return instant


def _later(instant: datetime, by: timedelta) -> datetime:
    try:
        return instant + by
    except OverflowError:
        return instant


class _Reader:
    """Asks for pages. `crowded`: the first instant whose rows could not be told apart."""

    def __init__(self, client: ZocdocClient) -> None:
        self._client = client
        self.crowded: errors.SyncFailed | None = None

    def ask(self, key: _Key, filters: Mapping[str, Any], number: int) -> Page:
        """Read one page. Raises `SyncFailed`."""
        order: dict[str, Any] = {"sort_by": key, "sort_direction": "ascending"}
        try:
            return self._client.list_page(page=number, page_size=PAGE_SIZE, **order, **filters)
        except (zocdoc.ReadRefused, zocdoc.ReadFailed) as error:
            raise errors.SyncFailed(
                reason_code=str(error.reason_code), http_status=error.http_status, zocdoc_request_id=error.request_id
            ) from None


def _along(
    reader: _Reader,
    keys: tuple[_Key, ...],
    filters: Mapping[str, Any],
    low: datetime | None,
    through: datetime | None = None,
) -> Iterator[Batch]:
    """Follow the first of the keys upwards. `through`, if given, is what the batches tell, whatever this key says."""
    key, step, number = keys[0], _STEPS[0], 0
    before: dict[str, AppointmentData] = {}
    while True:
        page = reader.ask(key, {**filters, f"{key}_min": low}, number)
        newest = _newest(page, key)
        yield _batch(page, through or newest, before)
        before = {row.appointment_id: row for row in page.appointments}
        if not page.has_next:
            return
        if newest is None:
            number = _onwards(page, number)
            continue
        number = 0
        if low is None or earlier(newest, step) > low:
            low = earlier(newest, step)
            continue
        if newest < low:
            step = _coarser(step, page)
        low, step = yield from _through_crowd(reader, keys, filters, page, step=step, through=through)


def _onwards(page: Page, number: int) -> int:
    """Go on by the page's number where no row tells the key."""
    if number + 1 == _MOST_PAGES:
        raise errors.SyncFailed(reason_code=UNORDERED, zocdoc_request_id=page.request_id)
    return number + 1


def _coarser(step: timedelta, page: Page) -> timedelta:
    """Zocdoc reads instants less finely than was thought."""
    coarser = next((each for each in _STEPS if each > step), None)
    if coarser is None:
        raise errors.SyncFailed(reason_code=UNORDERED, zocdoc_request_id=page.request_id)
    return coarser


def _through_crowd(
    reader: _Reader,
    keys: tuple[_Key, ...],
    filters: Mapping[str, Any],
    page: Page,
    *,
    step: timedelta,
    through: datetime | None,
) -> Generator[Batch, None, tuple[datetime, timedelta]]:
    """Read the instant whose rows fill a page; give the instant to go on from, and the step that was fine enough.

    The bounds reach a step beyond the instant on either side, so that it is inside whether they are inclusive or not.
    """
    key, known = keys[0], {row.appointment_id for row in page.appointments}
    at = max(filter(None, map(_READ[key], page.appointments)))
    while True:
        start = at - (at - _EPOCH) % step
        end = _later(start, step)
        bounds = {f"{key}_min": earlier(start, step), f"{key}_max": _later(end, step)}
        crowd = _Crowd(reader, keys)
        try:
            yield from crowd.read({**filters, **bounds}, through or start)
        except errors.SyncFailed as failure:
            if failure.reason_code != CROWDED:
                raise
            reader.crowded = reader.crowded or failure
            return end, step
        if crowd.seen & known:
            return end, step
        step = _coarser(step, page)


class _Crowd:
    """The rows of one instant: read by the page's number, or, if Zocdoc lists not all of them, by further filters."""

    def __init__(self, reader: _Reader, keys: tuple[_Key, ...]) -> None:
        self._reader, self._keys = reader, keys
        self.seen: set[str] = set()

    def read(self, filters: Mapping[str, Any], through: datetime) -> Iterator[Batch]:
        """Read all pages; again if rows moved meanwhile, because then one may have slipped from page to page."""
        for _ in range(_PASSES):
            result = yield from self._pass(filters, through)
            if result is _Result.WIDE:
                yield from self._narrowed(filters, through)
            if result is not _Result.MOVED:
                return
        raise errors.SyncFailed(reason_code=UNSTEADY, instant=columns.utc_text(through))

    def _pass(self, filters: Mapping[str, Any], through: datetime) -> Generator[Batch, None, _Result]:
        totals: set[int | None] = set()
        ids: set[str] = set()
        unreadable = 0
        for number in range(_MOST_PAGES):
            page = self._reader.ask(self._keys[0], filters, number)
            totals.add(page.total_count)
            if (page.total_count or 0) > _MOST_ROWS:
                return _Result.WIDE
            yield _batch(page, through)
            ids.update(row.appointment_id for row in page.appointments)
            unreadable += page.unreadable
            if not page.has_next:
                break
        self.seen |= ids
        given = len(ids) + unreadable
        if given >= _MOST_ROWS:
            return _Result.WIDE
        is_calm = len(totals) == 1 and (page.total_count is None or page.total_count <= given)
        return _Result.READ if is_calm else _Result.MOVED

    def _narrowed(self, filters: Mapping[str, Any], through: datetime) -> Iterator[Batch]:
        """Read what Zocdoc does not list as a whole, then ask for its count, to see that none fell between filters."""
        unreadable = 0
        for batch in self._parts(filters, through):
            self.seen.update(row.appointment_id for row in batch.rows)
            unreadable += batch.unreadable
            yield batch
        page = self._reader.ask(self._keys[0], filters, 0)
        if (page.total_count or 0) > len(self.seen) + unreadable:
            raise _too_crowded(through, page.request_id)

    def _parts(self, filters: Mapping[str, Any], through: datetime) -> Iterator[Batch]:
        if len(self._keys) > 1:
            yield from _along(self._reader, self._keys[1:], filters, None, through)
        elif "statuses" in filters:
            raise _too_crowded(through)
        else:
            for status in chart.Status:
                part = _Crowd(self._reader, self._keys)
                yield from part.read({**filters, "statuses": str(status)}, through)


def _too_crowded(modified: datetime, request_id: str | None = None) -> errors.SyncFailed:
    instant = columns.utc_text(modified)
    return errors.SyncFailed(reason_code=CROWDED, instant=instant, zocdoc_request_id=request_id)


class _Result(Enum):
    READ = auto()
    MOVED = auto()
    WIDE = auto()


def _batch(page: Page, through: datetime | None, before: Mapping[str, AppointmentData] = _NONE) -> Batch:
    rows = tuple(row for row in page.appointments if before.get(row.appointment_id) != row)
    return Batch(rows, page.unreadable, through, page.total_count, page.request_id)


def _newest(page: Page, key: _Key) -> datetime | None:
    """Give the last instant of a page; an answer that is not in order cannot be relied on for going on from there."""
    instants = [instant for instant in map(_READ[key], page.appointments) if instant is not None]
    if any(earlier > later for earlier, later in pairwise(instants)):
        raise errors.SyncFailed(reason_code=UNORDERED, zocdoc_request_id=page.request_id)
    return instants[-1] if instants else None
