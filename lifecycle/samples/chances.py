"""Drawing from shares, and ids that look like Zocdoc's. Pure: the generator is the caller's."""

from __future__ import annotations

from bisect import bisect
from itertools import accumulate
from random import Random
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping

_T = TypeVar("_T")


def generator(seed: int | str) -> Random:
    """Make a generator of plausible numbers, not of secrets."""
    return Random(seed)  # noqa: S311 # samples


class Shares(Generic[_T]):
    """Values with their shares, which need not add up to anything."""

    def __init__(self, shares: Mapping[_T, float]) -> None:
        self._values = tuple(shares)
        self._sums = tuple(accumulate(shares.values()))

    def draw(self, rng: Random) -> _T:
        """Draw a value."""
        return self._values[bisect(self._sums, rng.random() * self._sums[-1])]


def uuid_text(rng: Random) -> str:
    """Draw a UUID of version 4."""
    text = f"{rng.getrandbits(128):032x}"
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-{'89ab'[int(text[16], 16) % 4]}{text[17:20]}-{text[20:]}"
