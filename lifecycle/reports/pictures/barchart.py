"""Horizontal bars, one for each name, of one or several parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from lifecycle.reports import words
from lifecycle.reports.pictures import canvas as drawing
from lifecycle.reports.pictures import labels
from lifecycle.reports.pictures.labels import Box

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lifecycle.reports.pictures.canvas import Canvas, Picture

_WIDTH: Final = 660.0
_LINE: Final = 30.0
_NAMES: Final = 320.0
"""Room for the names at most."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar: its name and the count of each part."""

    name: str
    parts: Sequence[int]

    @property
    def total(self) -> int:
        """The length of the whole bar."""
        return sum(self.parts)


def bars(name: str, rows: Sequence[Bar], *, parts: Sequence[tuple[str, str]], title: str, description: str) -> Picture:
    """Draw a bar for each row. `parts`: the class and the words of each part; one part alone needs no legend."""
    is_split = len(parts) > 1
    top = 34.0 if is_split else 8.0
    canvas = drawing.Canvas(_WIDTH, top + _LINE * max(len(rows), 1) + 6)
    if is_split:
        drawing.legend(canvas, list(parts), left=8, top=6, right=_WIDTH)
    if not any(row.total for row in rows):
        canvas.text("nothing in this window", _WIDTH / 2, top + 20, anchor="middle", kind="lc-quiet")
        return canvas.finish(name=name, title=title, description=description)
    names = min(max(labels.width(row.name, drawing.SIZE) for row in rows), _NAMES)
    numbers = max(labels.width(words.number(row.total), drawing.SIZE) for row in rows)
    left = names + 20
    scale = (_WIDTH - left - numbers - 20) / max(row.total for row in rows)
    for index, row in enumerate(rows):
        _bar(canvas, row, parts, left=left, top=top + _LINE * index, scale=scale)
    return canvas.finish(name=name, title=title, description=description)


def _bar(canvas: Canvas, row: Bar, parts: Sequence[tuple[str, str]], *, left: float, top: float, scale: float) -> None:
    canvas.text(row.name, left - 10, top + 19, anchor="end", room=_NAMES)
    x = left
    for (kind, label), count in zip(parts, row.parts, strict=True):
        if count:
            place = Box(x, top + 4, x + max(count * scale, 1.5), top + _LINE - 5)
            canvas.rectangle(place, kind=f"{kind} lc-part", title=f"{row.name}, {label}: {words.number(count)}")
            x = place.right
    canvas.text(words.number(row.total), x + 8, top + 19, kind="lc-strong")
