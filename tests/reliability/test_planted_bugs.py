"""The checker is not blind: deliberate defects, switched on one at a time, are each caught, and soon."""

from __future__ import annotations

import statistics

import pytest

from tests.simulation import planted


@pytest.mark.timeout(1800)
def test_every_planted_bug_is_caught(capsys: pytest.CaptureFixture[str]) -> None:
    """Each defect is found by the simulator and its checker; the product without it passes the same worlds."""
    catches = planted.hunt_all(processes=2)
    needed = [catch.commands for catch in catches]
    with capsys.disabled():
        print(f"\n{planted.table(catches)}\nplanted {len(needed)}, median {statistics.median(needed)}")  # noqa: T201 # the table is the point
    assert [catch.name for catch in catches if catch.violation is None] == []
    assert len(catches) >= 40
    assert statistics.median(needed) < 1_000
    assert planted.violations_without(catches, processes=2) == []


def test_planted_bugs_are_told_apart() -> None:
    """Names are unique, and each says in words what is wrong."""
    assert len({plant.name for plant in planted.PLANTS}) == len(planted.PLANTS)
    assert all(len(plant.what) > 10 for plant in planted.PLANTS)
