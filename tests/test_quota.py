"""A quota is written as people write it, and its spacing gives away little and never exceeds it."""

from __future__ import annotations

import pytest

from lifecycle.quota import Quota


@pytest.mark.parametrize(
    ("text", "expected"),
    [("20/s", Quota(20, 1_000)), (" 600/min ", Quota(600, 60_000)), ("10000/h", Quota(10_000, 3_600_000))],
)
def test_a_quota_is_a_number_and_a_unit(text: str, expected: Quota) -> None:
    """Seconds, minutes and hours are understood."""
    assert Quota.parse(text) == expected


@pytest.mark.parametrize("text", ["", "20", "/s", "0/s", "-1/s", "2.5/s", "20/sec", "20 / s", "1e3/s", "²/s", "20/s/s"])
def test_anything_else_is_refused_with_what_to_write(text: str) -> None:
    """What is not a quota is refused, and the text shows three that are."""
    with pytest.raises(ValueError, match="20/s, 600/min or 10000/h"):
        Quota.parse(text)


@pytest.mark.parametrize("period_ms", [1_000, 60_000, 3_600_000])
def test_spacing_keeps_to_the_quota_and_uses_it(period_ms: int) -> None:
    """Evenly spaced requests are never more than the quota, and at least 95% of it; ticks are 51 ms or longer."""
    for requests in (*range(1, 500), 999, 1_000, 4_321, 20_000):
        quota = Quota(requests, period_ms)
        share = quota.at_once / quota.tick_ms * period_ms / requests
        assert 0.95 <= share <= 1.0, quota
        assert quota.tick_ms > 50, quota
        assert quota.at_once == 1 or requests * 50 > period_ms, quota
