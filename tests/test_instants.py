"""Instants as people write them: offsets, local times, days; clocks that skip and clocks that repeat."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from lifecycle import errors
from lifecycle.reports import instants


def read(text: str, zone: str = "UTC") -> str:
    """Read an instant and write it as UTC."""
    found = instants.read(text, zone=instants.zone(zone), argument="--since")
    assert found.tzinfo is UTC
    return found.strftime("%Y-%m-%dT%H:%M:%S.%fZ").replace(".000000Z", "Z")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-12-01T09:00:00Z", "2026-12-01T09:00:00Z"),
        ("2026-12-01t09:00z", "2026-12-01T09:00:00Z"),
        (" 2026-12-01 09:00:00.25-05:00 ", "2026-12-01T14:00:00.250000Z"),
        ("2026-12-01T09:00:00,123456+0545", "2026-12-01T03:15:00.123456Z"),
        ("2026-12-01T09:00+05", "2026-12-01T04:00:00Z"),
    ],
)
def test_an_offset_needs_no_zone(text: str, expected: str) -> None:
    """What has an offset means the same in every zone."""
    assert read(text) == read(text, "America/New_York") == read(text, "Asia/Kathmandu") == expected


@pytest.mark.parametrize(
    ("text", "zone", "expected"),
    [
        ("2026-12-01T09:00", "America/New_York", "2026-12-01T14:00:00Z"),
        ("2026-07-01 09:00:30.5", "America/New_York", "2026-07-01T13:00:30.500000Z"),
        ("2026-07-01T09:00", "Asia/Kathmandu", "2026-07-01T03:15:00Z"),
        ("2026-07-01T09:00", "UTC", "2026-07-01T09:00:00Z"),
        ("2026-03-08T01:59:59.999999", "America/New_York", "2026-03-08T06:59:59.999999Z"),
        ("2026-03-08T03:00", "America/New_York", "2026-03-08T07:00:00Z"),
        ("2026-11-01T00:59:59", "America/New_York", "2026-11-01T04:59:59Z"),
        ("2026-11-01T02:00", "America/New_York", "2026-11-01T07:00:00Z"),
        ("2026-10-04T02:30", "Australia/Lord_Howe", "2026-10-03T15:30:00Z"),
        ("2011-12-29T23:59", "Pacific/Apia", "2011-12-30T09:59:00Z"),
    ],
)
def test_a_local_time_is_read_in_the_zone(text: str, zone: str, expected: str) -> None:
    """Summer and winter, up to the last moment before the clocks change and from the first one after it."""
    assert read(text, zone) == expected


@pytest.mark.parametrize(
    ("text", "zone", "before", "after"),
    [
        ("2026-03-08T02:00", "America/New_York", "-05:00", "-04:00"),
        ("2026-03-08T02:59:59.999999", "America/New_York", "-05:00", "-04:00"),
        ("2026-10-04T02:15", "Australia/Lord_Howe", "+10:30", "+11:00"),
        ("2024-03-10T00:30", "America/Havana", "-05:00", "-04:00"),
        ("2024-03-31T00:00", "Asia/Beirut", "+02:00", "+03:00"),
        ("2011-12-30T12:00", "Pacific/Apia", "-10:00", "+14:00"),
    ],
)
def test_a_local_time_that_does_not_exist_is_refused(text: str, zone: str, before: str, after: str) -> None:
    """The text names the offsets on both sides, and what is written with one of them is accepted."""
    with pytest.raises(errors.InvalidArgument, match="does not exist") as refused:
        read(text, zone)
    assert refused.value.argument == "--since"
    for offset in (before, after):
        assert f"{text}{offset}" in refused.value.problem
        read(f"{text}{offset}", zone)


@pytest.mark.parametrize(
    ("text", "zone", "first", "second"),
    [
        ("2026-11-01T01:00", "America/New_York", "-04:00", "-05:00"),
        ("2026-11-01T01:59:59.999999", "America/New_York", "-04:00", "-05:00"),
        ("2026-04-05T01:45", "Australia/Lord_Howe", "+11:00", "+10:30"),
        ("2024-11-03T00:00", "America/Havana", "-04:00", "-05:00"),
        ("2024-10-26T23:30", "Asia/Beirut", "+03:00", "+02:00"),
    ],
)
def test_a_local_time_that_exists_twice_is_refused(text: str, zone: str, first: str, second: str) -> None:
    """The text names both in their order."""
    with pytest.raises(errors.InvalidArgument, match="exists twice") as refused:
        read(text, zone)
    assert refused.value.problem.index(f"{text}{first}") < refused.value.problem.index(f"{text}{second}")
    assert read(f"{text}{first}") < read(f"{text}{second}")


@pytest.mark.parametrize(
    ("text", "zone", "expected"),
    [
        ("2026-03-08", "America/New_York", "2026-03-08T05:00:00Z"),
        ("2026-11-01", "America/New_York", "2026-11-01T04:00:00Z"),
        ("2026-11-02", "America/New_York", "2026-11-02T05:00:00Z"),
        ("2026-01-01", "Asia/Kathmandu", "2025-12-31T18:15:00Z"),
        ("2024-03-10", "America/Havana", "2024-03-10T05:00:00Z"),  # begins at 01:00
        ("2024-11-03", "America/Havana", "2024-11-03T04:00:00Z"),  # has two midnights
        ("2024-03-31", "Asia/Beirut", "2024-03-30T22:00:00Z"),  # begins at 01:00
        ("2024-10-27", "Asia/Beirut", "2024-10-26T22:00:00Z"),  # after a second 23:00
        ("1919-03-31", "America/Toronto", "1919-03-31T04:30:00Z"),  # begins at 00:30: skipped since 23:30
        ("2011-12-29", "Pacific/Apia", "2011-12-29T10:00:00Z"),
        ("2011-12-31", "Pacific/Apia", "2011-12-30T10:00:00Z"),
    ],
)
def test_a_date_is_the_first_instant_of_its_day(text: str, zone: str, expected: str) -> None:
    """Where the clocks skip midnight it is later than 00:00; where they repeat it, it is the first one."""
    assert read(text, zone) == expected


@pytest.mark.parametrize("zone", ["America/Havana", "Asia/Beirut", "America/St_Johns", "Africa/Cairo", "Asia/Gaza"])
def test_a_first_instant_has_the_date_and_the_microsecond_before_it_has_not(zone: str) -> None:
    """For each day of years in which the clocks change at midnight, or a minute after it."""
    found = instants.zone(zone)
    for number in range(date(2009, 1, 1).toordinal(), date(2012, 1, 1).toordinal()):
        day = date.fromordinal(number)
        first = instants.read(str(day), zone=found, argument="day")
        assert first.astimezone(found).date() == day
        assert (first - timedelta(microseconds=1)).astimezone(found).date() < day


def test_a_day_that_was_skipped_is_refused() -> None:
    """Samoa went from the 29th to the 31st."""
    with pytest.raises(errors.InvalidArgument, match="the day 2011-12-30 does not exist in Pacific/Apia"):
        read("2011-12-30", "Pacific/Apia")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "2026",
        "2026-02-30",
        "2026-13-01T00:00Z",
        "2026-12-01T25:00",
        "2026-12-01Z",
        "2026-W10-1",
        "20261201",
        "2026-12-01T09",
        "2026-12-01T09:00:00.1234567Z",
        "2026-12-01T09:00 America/New_York",
        "1764579600",
        "２０２６-12-01",  # noqa: RUF001 # the point
        "2026-12-01\x00",
        "2026-12-01'; DROP TABLE lifecycle_audit_events; --",
    ],
)
def test_other_text_is_refused_with_the_forms_that_there_are(text: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(errors.InvalidArgument, match="use ISO 8601: 2026-12-01T09:00:00Z"):
        read(text)


@pytest.mark.parametrize(
    ("text", "zone"),
    [
        ("0001-01-01T00:00+14:00", "UTC"),
        ("0001-01-01", "Pacific/Auckland"),
        ("0001-01-01T00:00", "Pacific/Auckland"),
        ("9999-12-31T23:00", "America/New_York"),
        ("9999-12-31T23:00-05:00", "UTC"),
    ],
)
def test_the_ends_of_the_calendar_are_told(text: str, zone: str) -> None:
    """What UTC cannot write is refused, not raised from inside."""
    with pytest.raises(errors.InvalidArgument, match="beyond the calendar"):
        read(text, zone)


@pytest.mark.parametrize("name", ["", "Mars", "America", "../../etc/passwd", "/etc/passwd", "x\x00y", "UTC\n"])
def test_a_zone_that_there_is_not_is_refused(name: str) -> None:
    """Neither folders nor files nor control characters are zones."""
    with pytest.raises(errors.InvalidArgument, match="there is no such time zone") as refused:
        instants.zone(name)
    assert refused.value.argument == "time_zone"


def test_a_misspelt_zone_is_answered_with_similar_names() -> None:
    """A blank for an underscore, a forgotten one."""
    for name in ("America/New York", "America/NewYork"):
        with pytest.raises(errors.InvalidArgument, match="did you mean America/New_York"):
            instants.zone(name)


def test_a_gap_ends_when_the_clocks_have_gone_on() -> None:
    """Between the two offsets of a skipped time lies the instant at which the next day begins."""
    havana = instants.zone("America/Havana")
    first = instants.read("2024-03-10", zone=havana, argument="day").astimezone(havana)
    assert first.replace(tzinfo=None) == datetime(2024, 3, 10, 1)  # noqa: DTZ001 # local
