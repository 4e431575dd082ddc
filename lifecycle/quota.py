"""A quota as people write it, `20/s`, and the even spacing that keeps to it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final, Self

_PERIODS: Final = {"s": 1_000, "min": 60_000, "h": 3_600_000}
_TEXT: Final = re.compile(r"([1-9][0-9]{0,6})/(s|min|h)")
_SHORTEST_TICK: Final = 50
"""Milliseconds. Spacing is counted in whole ones, rounded up: shorter ticks would give away more than 2% of a quota."""

_HEADROOM: Final = 1.02
"""Requests do not arrive as evenly as they leave: spaced this much wider, 20/s stays within any one second at Zocdoc
while none is late by more than 20 ms, and 21 arrive while none is late by more than 70 ms."""


@dataclass(frozen=True, slots=True)
class Quota:
    """So many requests in so many milliseconds."""

    requests: int
    period_ms: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `20/s`, `600/min` or `10000/h`. Raises `ValueError`, whose text tells what to write."""
        found = _TEXT.fullmatch(text.strip()) if isinstance(text, str) else None
        if found is None:
            raise ValueError("a number of requests and a unit are needed, s, min or h: 20/s, 600/min or 10000/h")
        return cls(int(found[1]), _PERIODS[found[2]])

    @property
    def at_once(self) -> int:
        """How many requests may leave at one instant, once a tick: 1 up to 20 a second."""
        return math.ceil(self.requests * _SHORTEST_TICK / self.period_ms)

    @property
    def tick_ms(self) -> int:
        """How many milliseconds after them the next may leave: 51 or more."""
        return math.ceil(self.at_once * self.period_ms * _HEADROOM / self.requests)
