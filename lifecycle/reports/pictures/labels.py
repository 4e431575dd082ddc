"""How much room text takes, before any browser has drawn it: widths by letter, boxes, shortening. Pure.

The widths are those of DejaVu Sans Bold, the widest of the usual system fonts, so that others leave room.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Final

_WIDTHS: Final = {
    **dict.fromkeys("ijl|'", 0.37),
    **dict.fromkeys(" .,:;!fIt()[]/-r`", 0.5),
    **dict.fromkeys("MWm%@", 1.11),
    **dict.fromkeys("w→+<>=–", 0.93),  # noqa: RUF001 # the dash is meant
    "…": 1.0,
}
_LOWER: Final = 0.72
_UPPER: Final = 0.84
_WIDE: Final = 1.3
ASCENT: Final = 0.95
DESCENT: Final = 0.3
"""Above and below the baseline, in parts of the size of the letters."""


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle: left, top, right, bottom, in the picture's units."""

    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: Box, *, gap: float = 0.0) -> bool:
        """Tell whether two boxes have a point in common, or less than `gap` between them."""
        return (
            self.left < other.right + gap
            and other.left < self.right + gap
            and self.top < other.bottom + gap
            and other.top < self.bottom + gap
        )

    def is_within(self, width: float, height: float) -> bool:
        """Tell whether it is inside of a picture of this size."""
        return self.left >= 0 and self.top >= 0 and self.right <= width and self.bottom <= height


def width(text: str, size: float) -> float:
    """Estimate how wide text of this size is; rather too much than too little."""
    return size * sum(map(_width, text))


def shortened(text: str, room: float, size: float) -> str:
    """Cut text that is wider than the room, with an ellipsis at its end."""
    if width(text, size) <= room:
        return text
    kept = text
    while kept and width(f"{kept}…", size) > room:
        kept = kept[:-1]
    return f"{kept}…"


def box(text: str, x: float, y: float, *, size: float, anchor: str) -> Box:
    """Give the box of text whose baseline begins, ends or has its middle at a point."""
    wide = width(text, size)
    left = {"start": x, "middle": x - wide / 2, "end": x - wide}[anchor]
    return Box(left, y - ASCENT * size, left + wide, y + DESCENT * size)


def _width(letter: str) -> float:
    if letter in _WIDTHS:
        return _WIDTHS[letter]
    if letter.isascii():
        return _UPPER if letter.isupper() else _LOWER
    return 0.0 if unicodedata.combining(letter) else _WIDE
