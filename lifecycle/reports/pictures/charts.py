"""Columns that stand on each other, lines, and sparklines, over weeks or classes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from lifecycle.reports import words
from lifecycle.reports.pictures import canvas as drawing
from lifecycle.reports.pictures import labels
from lifecycle.reports.pictures.labels import Box

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lifecycle.reports.pictures.canvas import Canvas, Picture

_WIDTH: Final = 600.0
_PLOT: Final = 200.0
_SMALL: Final = 12.0
_STEPS: Final = (1, 2, 2.5, 5, 10)


@dataclass(frozen=True, slots=True)
class Series:
    """A part of each column: its class, its words, and a count for each place."""

    kind: str
    words: str
    values: Sequence[int]


@dataclass(frozen=True, slots=True)
class Line:
    """A line: its class, its words, and a number for each place; None: there is none, and the line has a gap."""

    kind: str
    words: str
    values: Sequence[float | None]


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where the plot is: its left and bottom edge, the width of a place, and units for one of what is counted."""

    left: float
    bottom: float
    step: float
    scale: float


def stacked(
    name: str,
    places: Sequence[str],
    series: Sequence[Series],
    *,
    title: str,
    description: str,
    with_totals: bool = False,
) -> Picture:
    """Draw a column for each place, of one part for each series. `with_totals` writes its sum on each, if all fit."""
    totals = [sum(values) for values in zip(*(each.values for each in series), strict=True)] or [0]
    entries = [(each.kind, each.words) for each in series] if len(series) > 1 else []
    canvas, frame = _framed(places, max(totals), entries, form=lambda value: words.number(round(value)), is_whole=True)
    for index, place in enumerate(places):
        y = frame.bottom
        for each in series:
            if each.values[index]:
                height = each.values[index] * frame.scale
                box = _column(frame, index, y, height)
                told = f"{place}, {each.words}: {words.number(each.values[index])}"
                canvas.rectangle(box, kind=f"{each.kind} lc-part", title=told)
                y -= height
    if with_totals and _fit(totals, frame.step):
        for index, total in enumerate(totals[: len(places)]):
            middle = frame.left + frame.step * (index + 0.5)
            at = frame.bottom - total * frame.scale - 5
            canvas.text(words.number(total), middle, at, size=_SMALL, anchor="middle", kind="lc-strong")
    return canvas.finish(name=name, title=title, description=description)


def lines(
    name: str,
    places: Sequence[str],
    drawn: Sequence[Line],
    *,
    form: Callable[[float], str],
    unit: float,
    title: str,
    description: str,
) -> Picture:
    """Draw lines over the places; the axis is in steps of `unit`, written by `form`."""
    highest = max((value for line in drawn for value in line.values if value is not None), default=0.0)
    entries = [(f"lc-line {line.kind}", line.words) for line in drawn]
    canvas, frame = _framed(places, highest / unit, entries, form=lambda value: form(value * unit), is_whole=False)
    for line in drawn:
        _line(canvas, frame, line, places, form=form, unit=unit)
    return canvas.finish(name=name, title=title, description=description)


def spark(name: str, values: Sequence[int], *, title: str, description: str) -> Picture:
    """Draw a small line without axes, from zero."""
    canvas = drawing.Canvas(132, 34)
    highest = max(values, default=0) or 1
    step = 124 / max(len(values) - 1, 1)
    points = [(4 + step * index, 29 - 24 * value / highest) for index, value in enumerate(values)]
    if points:
        path = " L".join(f"{x:.1f},{y:.1f}" for x, y in points)
        canvas.path(f"M4,30 L{path} L{points[-1][0]:.1f},30 Z", kind="lc-under")
        canvas.path(f"M{path}", kind="lc-line lc-ours", stroke=1.6)
        x, y = points[-1]
        canvas.path(_dot(x, y, 2.6), kind="lc-dot lc-ours")
    return canvas.finish(name=name, title=title, description=description)


def _framed(
    places: Sequence[str],
    highest: float,
    entries: list[tuple[str, str]],
    *,
    form: Callable[[float], str],
    is_whole: bool,
) -> tuple[Canvas, _Frame]:
    """Draw legend, grid and the words of both axes."""
    ticks = _ticks(highest, is_whole=is_whole)
    left = max(labels.width(form(tick), _SMALL) for tick in ticks) + 14
    canvas = drawing.Canvas(_WIDTH, 0)
    top = drawing.legend(canvas, entries, left=left, top=6, right=_WIDTH) + 24
    bottom = top + _PLOT
    canvas.height = bottom + 30
    frame = _Frame(left, bottom, (_WIDTH - left - 8) / max(len(places), 1), _PLOT / (ticks[-1] or 1))
    for tick in ticks:
        y = bottom - tick * frame.scale
        canvas.path(f"M{left:.1f},{y:.1f} H{_WIDTH - 8:.1f}", kind="lc-grid")
        canvas.text(form(tick), left - 8, y + 4, size=_SMALL, anchor="end", kind="lc-quiet")
    _name_places(canvas, places, frame)
    return canvas, frame


def _name_places(canvas: Canvas, places: Sequence[str], frame: _Frame) -> None:
    """Write under the axis as many of the names as have room, at equal distances."""
    widest = max((labels.width(place, _SMALL) for place in places), default=0.0) + 8
    every = max(math.ceil(widest / frame.step), 1)
    for index in range(0, len(places), every):
        middle = frame.left + frame.step * (index + 0.5)
        half = labels.width(places[index], _SMALL) / 2
        if middle + half <= _WIDTH:
            canvas.text(places[index], middle, frame.bottom + 21, size=_SMALL, anchor="middle", kind="lc-quiet")


def _ticks(highest: float, *, is_whole: bool) -> list[float]:
    """Choose three to six round numbers from zero to at least the highest."""
    rough = max(highest, 1e-9) / 4
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in _STEPS if power * factor >= rough)
    if is_whole:
        step = max(math.ceil(step), 1)
    count = max(math.ceil(highest / step - 1e-9), 1)
    return [step * index for index in range(count + 1)]


def _column(frame: _Frame, index: int, y: float, height: float) -> Box:
    gap = min(frame.step * 0.14, 6)
    left = frame.left + frame.step * index
    return Box(left + gap, y - height, left + frame.step - gap, y)


def _fit(totals: Sequence[int], step: float) -> bool:
    return all(labels.width(words.number(total), _SMALL) + 2 <= step for total in totals)


def _line(
    canvas: Canvas, frame: _Frame, line: Line, places: Sequence[str], *, form: Callable[[float], str], unit: float
) -> None:
    data, is_drawn = [], False
    for index, value in enumerate(line.values):
        if value is None:
            is_drawn = False
            continue
        x, y = frame.left + frame.step * (index + 0.5), frame.bottom - value / unit * frame.scale
        data.append(f"{'L' if is_drawn else 'M'}{x:.1f},{y:.1f}")
        is_drawn = True
    if data:
        canvas.path(" ".join(data), kind=f"lc-line {line.kind}", stroke=2.2)
    for index, value in enumerate(line.values):
        if value is not None:
            x, y = frame.left + frame.step * (index + 0.5), frame.bottom - value / unit * frame.scale
            told = f"{places[index]}, {line.words}: {form(value)}"
            canvas.path(_dot(x, y, 3.2), kind=f"lc-dot {line.kind}", title=told)


def _dot(x: float, y: float, radius: float) -> str:
    half = f"a{radius},{radius} 0 1 0"
    return f"M{x - radius:.1f},{y:.1f} {half} {2 * radius:g},0 {half} {-2 * radius:g},0"
