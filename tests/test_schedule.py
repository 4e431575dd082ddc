"""Intervals as cron lines: even, and never rarer than asked for."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise

import croniter  # type: ignore[import-untyped]
import pytest

from lifecycle.working import schedule

NOON = datetime(2026, 12, 1, 12, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("seconds", "step"),
    [
        *((0.2, 1), (1, 1), (7, 6), (10, 10), (45, 30), (60, 60), (90, 60), (300, 300), (3599, 1800)),
        *((7200, 7200), (86_400, 86_400), (1e6, 86_400)),
    ],
)
def test_an_interval_becomes_the_next_shorter_even_one(seconds: float, step: int) -> None:
    """Each pause of the cron line, over an hour of a day or a whole week, is that long."""
    line = croniter.croniter(schedule.cron(seconds), NOON)
    moments = [line.get_next(float) for _ in range(70)]
    assert {round(after - before) for before, after in pairwise(moments)} == {step}
