"""Medians and percentiles of many numbers, interpolated as the views do it. Pure."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Spread:
    """How many numbers there were, their median and their 90th percentile; None: there were none."""

    count: int
    median: float | None
    p90: float | None


@dataclass(frozen=True, slots=True)
class Bin:
    """How many numbers are below `below`, and not below the bin before; None: everything above."""

    below: float | None
    count: int


def spread(numbers: Iterable[float]) -> Spread:
    """Tell count, median and 90th percentile, interpolated between neighbours."""
    ordered = sorted(array("d", numbers))
    return Spread(len(ordered), _at(ordered, 0.5), _at(ordered, 0.9))


def spread_of_counts(counts: Mapping[int, int]) -> Spread:
    """Do as `spread` for numbers that are given with how often each occurs."""
    return spread(number for number, count in counts.items() for _ in range(count))


def bins(numbers: Sequence[float], edges: Sequence[float]) -> tuple[Bin, ...]:
    """Count the numbers below each edge, and last those at or above all of them."""
    ordered = sorted(numbers)
    places = [0, *(bisect_left(ordered, edge) for edge in edges), len(ordered)]
    counts = [after - before for before, after in pairwise(places)]
    return tuple(Bin(below, count) for below, count in zip((*edges, None), counts, strict=True))


def _at(ordered: Sequence[float], share: float) -> float | None:
    if not ordered:
        return None
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)
