"""Instants as people write them: with an offset, or as a local date or time together with a time zone. Pure.

A local time that the zone's clocks skip, or show twice, is no instant: it is refused, with the offsets that there are.
"""

from __future__ import annotations

import difflib
import re
import zoneinfo
from datetime import UTC, date, datetime, timedelta
from typing import Final

from lifecycle import errors

_INSTANT: Final = re.compile(
    r"\d{4}-\d\d-\d\d(?P<time>[T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?(?P<offset>Z|[+-]\d\d(:?\d\d)?)?)?", re.ASCII
)
_FORM: Final = (
    "use ISO 8601: 2026-12-01T09:00:00Z, 2026-12-01T09:00:00-05:00, or 2026-12-01 or 2026-12-01T09:00 in the time zone"
)
_BEYOND: Final = "it is beyond the calendar in UTC"
_FURTHEST: Final = timedelta(days=2)
"""No zone's clocks are further from UTC, and none ever skipped more."""


def read(text: str, *, zone: zoneinfo.ZoneInfo, argument: str) -> datetime:
    """Read an instant; the result is UTC. `zone` gives the offset of a text that has none.

    A date alone is the first instant of that day in the zone, which is not everywhere 00:00. Raises `InvalidArgument`
    that names the argument, for text that is no instant, and for a local time that does not exist or exists twice.
    """
    plain = text.strip().upper().replace(",", ".")
    match = _INSTANT.fullmatch(plain)
    written = None if match is None else _parsed(plain)
    if match is None or written is None:
        raise errors.InvalidArgument(argument=argument, problem=_FORM)
    try:
        if match["offset"]:
            return written.astimezone(UTC)
        return _first_of(written.date(), zone, argument) if match["time"] is None else _local(written, zone, argument)
    except OverflowError:
        raise errors.InvalidArgument(argument=argument, problem=_BEYOND) from None


def zone(name: str, *, argument: str = "time_zone") -> zoneinfo.ZoneInfo:
    """Find a time zone by its IANA name, such as America/New_York. Raises `InvalidArgument` with similar names."""
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        similar = difflib.get_close_matches(name, sorted(zoneinfo.available_timezones()), n=3)
        hint = f"; did you mean {' or '.join(similar)}?" if similar else ", such as America/New_York"
        problem = f"there is no such time zone; use a name of the IANA database{hint}"
        raise errors.InvalidArgument(argument=argument, problem=problem) from None


def _parsed(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:  # February 30th
        return None


def _local(written: datetime, zone: zoneinfo.ZoneInfo, argument: str) -> datetime:
    found = _readings(written, zone)
    if len(found) == 1:
        return found[0]
    shown = written.isoformat(timespec="auto" if written.second or written.microsecond else "minutes")
    before, after = (_offset(written.replace(tzinfo=zone, fold=fold)) for fold in (0, 1))
    if found:
        problem = f"{shown} exists twice in {zone.key}; write which one: {shown}{before} or, later, {shown}{after}"
    else:
        problem = (
            f"{shown} does not exist in {zone.key}, whose clocks go from {before} to {after} there; "
            f"write which one is meant: {shown}{before} or, earlier, {shown}{after}"
        )
    raise errors.InvalidArgument(argument=argument, problem=problem)


def _first_of(day: date, zone: zoneinfo.ZoneInfo, argument: str) -> datetime:
    """Find the first instant of a day: midnight, the first of two, or when the clocks went on past midnight."""
    midnight = datetime(day.year, day.month, day.day)  # noqa: DTZ001 # local, and it may not exist
    found = _readings(midnight, zone)
    if found:
        return found[0]
    first = _end_of_gap(midnight, zone)
    if first.astimezone(zone).date() == day:
        return first
    problem = f"the day {day} does not exist in {zone.key}, whose clocks skipped it; name another one"
    raise errors.InvalidArgument(argument=argument, problem=problem)


def _readings(written: datetime, zone: zoneinfo.ZoneInfo) -> list[datetime]:
    """Give the instants at which the zone's clocks show this, earliest first: one, as a rule; none or two."""
    candidates = {written.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)}
    return sorted(each for each in candidates if each.astimezone(zone).replace(tzinfo=None) == written)


def _end_of_gap(skipped: datetime, zone: zoneinfo.ZoneInfo) -> datetime:
    """Find the instant at which the zone's clocks went on past a local time that they skip."""
    around = skipped.replace(tzinfo=UTC)
    low, high = -int(_FURTHEST.total_seconds()), int(_FURTHEST.total_seconds())
    while high - low > 1:
        middle = (low + high) // 2
        is_past = (around + timedelta(seconds=middle)).astimezone(zone).replace(tzinfo=None) > skipped
        low, high = (low, middle) if is_past else (middle, high)
    return around + timedelta(seconds=high)


def _offset(moment: datetime) -> str:
    return moment.isoformat()[len(moment.replace(tzinfo=None).isoformat()) :]
