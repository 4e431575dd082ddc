"""The practice group that the samples are about: its locations, their hours, and when patients book. Pure and seeded.

No patients: an appointment is an id, a provider location and times.
"""

from __future__ import annotations

import zoneinfo
from bisect import bisect
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from lifecycle import errors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

VISITS_A_DAY: Final = 8
"""Bookings of one provider at one location in a day: by this the number of locations follows from the volume."""

NOTICE: Final = timedelta(hours=2)
"""No visit is booked at shorter notice."""

_SYNC_AT: Final = time(7, tzinfo=UTC)
"""When the nightly sync reads Zocdoc's list: it is night in every zone of the group."""

_DAY: Final = timedelta(days=1)
_HOUR: Final = timedelta(hours=1)
_ZONES: Final = ("America/New_York", "America/Chicago", "America/Denver", "America/Phoenix", "America/Los_Angeles")
_PER_PRACTICE: Final = 4
_ILL_EVERY: Final = 45
"""Days from one illness of a provider to the next."""

_EARLIEST: Final = 6 * 60 + 30
"""When an illness is known, in minutes of the local day: before anybody opens."""

_FEWEST: Final = 3
_MOST: Final = 500

_MORNING, _AFTERNOON = (9 * 60, 12 * 60), (13 * 60, 17 * 60)
_EARLY, _LATE = (8 * 60, 12 * 60), (13 * 60, 19 * 60)
_WEEKS: Final = (
    ((_MORNING, _AFTERNOON),) * 5 + ((), ()),
    ((_EARLY, _AFTERNOON),) * 4 + ((_EARLY,), (), ()),
    ((_MORNING, _LATE), (_MORNING, _AFTERNOON)) * 2 + ((_MORNING, _AFTERNOON), (_MORNING,), ()),
)
"""Open from and to, in minutes of the local day, Monday first; lunch lies between the two."""

_BY_HOUR: Final = (2, 1, 1, 1, 1, 2, 5, 9, 14, 17, 17, 15, 14, 14, 13, 13, 13, 12, 12, 13, 14, 13, 9, 5)
_BY_WEEKDAY: Final = (1.3, 1.2, 1.1, 1.0, 0.9, 0.55, 0.6)
"""When patients book, by the hour and weekday of the group's middle zone: in breaks, in the evening, on Mondays."""


def found(rng: Random, *, appointments: int, days: int) -> Practice:
    """Found a group that is large enough for so many bookings in so many days. Raises `ConfigurationError`."""
    count = min(max(round(appointments / days / VISITS_A_DAY), _FEWEST), _MOST)
    locations = tuple(_location(rng, number) for number in range(count))
    return Practice(locations, tuple(accumulate(rng.lognormvariate(0, 0.5) for _ in locations)))


def bookings(rng: Random, *, count: int, days: int, until: datetime) -> Iterator[datetime]:
    """Give the instants, UTC and in order, at which patients booked in so many days before `until`."""
    begin, zone = until - days * _DAY, _zone(_ZONES[1])
    moods, weights = [rng.uniform(0.8, 1.2) for _ in range(days)], []
    for number in range(days * 24):
        local = (begin + number * _HOUR).astimezone(zone)
        weights.append(moods[number // 24] * _BY_HOUR[local.hour] * _BY_WEEKDAY[local.weekday()])
    total, before = sum(weights), 0
    for number, reached in enumerate(accumulate(weights)):
        upto = count if number == len(weights) - 1 else round(count * reached / total)
        hour = begin + number * _HOUR
        yield from (hour + each * _HOUR for each in sorted(rng.random() for _ in range(upto - before)))
        before = upto


def next_sync(after: datetime) -> datetime:
    """Tell when the next nightly sync runs after an instant, UTC."""
    at = datetime.combine(after.date(), _SYNC_AT)
    return at if at > after else at + _DAY


@dataclass(frozen=True, slots=True)
class Practice:
    """A group of locations; `_shares` are their cumulated shares of the bookings."""

    locations: tuple[Location, ...]
    _shares: tuple[float, ...]

    def choose(self, rng: Random) -> Location:
        """Choose the location of a booking: some are busier than others."""
        return self.locations[bisect(self._shares, rng.random() * self._shares[-1])]


@dataclass(frozen=True, slots=True)
class Location:
    """A provider at a location: its ids, time zone, opening hours, staff and habits.

    `week` is open from and to in minutes of the local day, `slots` the minutes at which visits start; Monday first.
    `confirms_itself`: the share of bookings that Zocdoc confirms at once. `ill_on`: the remainder of the days, as they
    are counted by `date.toordinal`, on which the provider falls ill.
    """

    provider_location_id: str
    practice_id: str
    zone: zoneinfo.ZoneInfo
    week: tuple[tuple[tuple[int, int], ...], ...]
    slots: tuple[tuple[int, ...], ...]
    staff: tuple[str, ...]
    visit_reasons: tuple[str, ...]
    confirms_itself: float
    ill_on: int

    def visit(self, rng: Random, *, after: datetime, lead: timedelta) -> datetime:
        """Find a free start about `lead` after an instant, in opening hours and with the offset of that local day."""
        day = (after + lead).astimezone(self.zone).date()
        while True:
            slots = self.slots[day.weekday()]
            if slots:
                start = self._at(day, slots[int(rng.random() * len(slots))])
                if start - after > NOTICE:
                    return start
            day += _DAY

    def office_hour(self, rng: Random, at: datetime) -> datetime:
        """Give the instant itself if the location is open then, or one soon after it opens next. UTC."""
        local = at.astimezone(self.zone)
        day, minute = local.date(), local.hour * 60 + local.minute
        while True:
            for opens, closes in self.week[day.weekday()]:
                if minute < opens:
                    return self._at(day, opens).astimezone(UTC) + timedelta(minutes=rng.uniform(1, 45))
                if minute < closes:
                    return at
            day, minute = day + _DAY, -1

    def called_off(self, start: datetime) -> datetime | None:
        """Tell when all visits of that day are called off, because the provider is ill, UTC; None: they are not."""
        day = start.astimezone(self.zone).date()
        return self._at(day, _EARLIEST).astimezone(UTC) if day.toordinal() % _ILL_EVERY == self.ill_on else None

    def _at(self, day: date, minute: int) -> datetime:
        return datetime.combine(day, time(minute // 60, minute % 60), self.zone)


def _location(rng: Random, number: int) -> Location:
    week = _WEEKS[number % len(_WEEKS)]
    step = rng.choice((15, 20, 30))
    practice = number // _PER_PRACTICE
    users = [17 + 10 * practice + each for each in range(6)]
    return Location(
        provider_location_id=f"pr_{_letters(rng)}|lo_{_letters(rng)}",
        practice_id=f"pt_sample-{practice + 1}",
        zone=_zone(_ZONES[practice % len(_ZONES)]),
        week=week,
        slots=tuple(tuple(m for opens, closes in day for m in range(opens, closes, step)) for day in week),
        staff=tuple(f"user:{each}" for each in rng.sample(users, 4)),
        visit_reasons=tuple(f"pc_{_letters(rng)}" for _ in range(5)),
        confirms_itself=rng.choice((0.15, 0.25, 0.6)),
        ill_on=rng.randrange(_ILL_EVERY),
    )


def _letters(rng: Random) -> str:
    return "".join(rng.choices("abcdefghijkmnopqrstuvwxyz0123456789", k=10))


def _zone(name: str) -> zoneinfo.ZoneInfo:
    try:
        return zoneinfo.ZoneInfo(name)
    except zoneinfo.ZoneInfoNotFoundError:
        problem = "this machine has no time zones, which the samples need; pip install tzdata"
        raise errors.ConfigurationError(problem=problem) from None
