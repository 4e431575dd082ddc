"""Arrows between boxes: curves that keep clear of other boxes and of each other. Pure geometry."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Final

from lifecycle.reports.pictures.labels import Box

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

Point = tuple[float, float]

_CELL: Final = 12.0
"""Side of the squares by which crossings are judged."""

_BULGES: Final = (26, -26, 58, -58, 92, -92, 130, -130, 175, -175, 225, -225, 280, -280)
"""How far a curve may bend from the straight line: a little to its left first."""

_PLACES: Final = (0.5, 0.44, 0.56, 0.38, 0.62, 0.32, 0.68, 0.26, 0.74, 0.2, 0.8, 0.15, 0.85)
_OFFSETS: Final = (0.0, 13.0, -13.0, 22.0, -22.0, 34.0, -34.0)


_ENOUGH: Final = 12
"""So many free places for a label are compared; further ones lie further off, and could hardly be better."""


@dataclass(frozen=True, slots=True)
class Curve:
    """A cubic curve, its line's width and the length of its arrow's head. It ends where the head begins."""

    start: Point
    first: Point
    second: Point
    tip: Point
    width: float

    @property
    def head(self) -> float:
        """The length of the head."""
        return 7.0 + 1.3 * self.width

    def at(self, share: float) -> Point:
        """Give the point at a share of the way."""
        rest = 1 - share
        a, b, c, d = rest * rest * rest, 3 * rest * rest * share, 3 * rest * share * share, share * share * share
        (sx, sy), (fx, fy), (cx, cy), (tx, ty) = self.start, self.first, self.second, self.tip
        return a * sx + b * fx + c * cx + d * tx, a * sy + b * fy + c * cy + d * ty

    def points(self, count: int = 30) -> Iterator[Point]:
        """Give points along the way."""
        return (self.at(index / count) for index in range(count + 1))

    def line(self) -> str:
        """Write the path of the line, up to the head."""
        x, y = self._back(self.head * 0.8)
        (ax, ay), (bx, by), (cx, cy) = self.start, self.first, self.second
        return f"M{ax:.1f},{ay:.1f} C{bx:.1f},{by:.1f} {cx:.1f},{cy:.1f} {x:.1f},{y:.1f}"

    def arrowhead(self) -> str:
        """Write the path of the head."""
        x, y = self._back(self.head)
        (tx, ty), half = self.tip, 3.4 + 0.75 * self.width
        dx, dy = (tx - x) / self.head, (ty - y) / self.head
        left, right = (x - dy * half, y + dx * half), (x + dy * half, y - dx * half)
        return f"M{tx:.1f},{ty:.1f} L{left[0]:.1f},{left[1]:.1f} L{right[0]:.1f},{right[1]:.1f} Z"

    def _back(self, length: float) -> Point:
        (sx, sy), (tx, ty) = self.second, self.tip
        distance = math.hypot(tx - sx, ty - sy) or 1.0
        return tx - (tx - sx) / distance * length, ty - (ty - sy) / distance * length


@dataclass(slots=True)
class Field:
    """What is taken: boxes that nothing may cross or cover, and how often curves passed through each small square."""

    width: float
    height: float
    boxes: list[Box]
    labels: list[Box] = field(default_factory=list)
    _passed: dict[tuple[int, int], int] = field(default_factory=dict)

    def route(self, source: Box, target: Box, *, width: float) -> Curve:
        """Find the curve from one box to another that bends and crosses least, and take it."""
        curves = [_bent(source, target, bulge, width) for bulge in _BULGES]
        best = min(curves, key=lambda curve: self._cost(curve, (source, target)))
        self.take(best)
        return best

    def take(self, curve: Curve) -> None:
        """Note where a curve passes."""
        for cell in set(map(_cell, curve.points())):
            self._passed[cell] = self._passed.get(cell, 0) + 1

    def place(self, curve: Curve, size: Point) -> Point | None:
        """Find the middle of a label of this width and height near a curve, away from other lines; None: no room."""
        found = min(islice(self._places(curve, size), _ENOUGH), default=None)
        if found is None:
            return None
        _, middle = found
        self.labels.append(_around(middle, size))
        return middle

    def _places(self, curve: Curve, size: Point) -> Iterator[tuple[float, Point]]:
        own = set(map(_cell, curve.points()))
        for rank, share in enumerate(_PLACES):
            (x, y), (nx, ny) = curve.at(share), _normal(curve, share)
            for offset in _OFFSETS:
                middle = (x + nx * offset, y + ny * offset)
                box = _around(middle, size)
                if self._is_free(box):
                    yield 1.2 * rank + 0.35 * abs(offset) + 3.0 * self._crossings(box, own), middle

    def _is_free(self, box: Box) -> bool:
        if not box.is_within(self.width, self.height):
            return False
        return not any(box.overlaps(other, gap=3) for other in (*self.boxes, *self.labels))

    def _crossings(self, box: Box, own: set[tuple[int, int]]) -> int:
        return sum(self._passed.get(cell, 0) - (cell in own) for cell in _cells(box))

    def _cost(self, curve: Curve, ends: Sequence[Box]) -> float:
        points = list(curve.points())
        left, right = min(x for x, _ in points) - 8, max(x for x, _ in points) + 8
        near = [box for box in self.boxes if box.left < right and left < box.right and box not in ends]
        hits = sum(_holds(box, point, gap=8) for box in near for point in points)
        outside = sum(not _holds(Box(0, 0, self.width, self.height), point, gap=-6) for point in points)
        crowded = sum(self._passed.get(cell, 0) ** 2 for cell in set(map(_cell, points)))
        middle = ((curve.start[0] + curve.tip[0]) / 2, (curve.start[1] + curve.tip[1]) / 2)
        bend = math.dist(curve.at(0.5), middle)
        return 400.0 * hits + 400.0 * outside + 14.0 * crowded + 0.5 * bend


def loop(box: Box, *, at: float, is_above: bool, width: float) -> Curve:
    """Draw an arrow from a box to itself, over its edge `at` so far from the middle."""
    x, y = (box.left + box.right) / 2 + at, box.top if is_above else box.bottom
    far = y - 52 if is_above else y + 52
    return Curve((x - 11, y), (x - 26, far), (x + 26, far), (x + 11, y), width)


def _bent(source: Box, target: Box, bulge: float, width: float) -> Curve:
    (ax, ay), (bx, by) = _middle(source), _middle(target)
    length = math.hypot(bx - ax, by - ay) or 1.0
    nx, ny = (by - ay) / length, -(bx - ax) / length
    first = (ax + (bx - ax) / 3 + nx * bulge * 4 / 3, ay + (by - ay) / 3 + ny * bulge * 4 / 3)
    second = (ax + (bx - ax) * 2 / 3 + nx * bulge * 4 / 3, ay + (by - ay) * 2 / 3 + ny * bulge * 4 / 3)
    return Curve(_border(source, first), first, second, _border(target, second, gap=3), width)


def _border(box: Box, towards: Point, *, gap: float = 0.0) -> Point:
    """Give the point where the line from a box's middle leaves it."""
    x, y = _middle(box)
    dx, dy = towards[0] - x, towards[1] - y
    half_width, half_height = (box.right - box.left) / 2 + gap, (box.bottom - box.top) / 2 + gap
    share = min(half_width / (abs(dx) or 1e-9), half_height / (abs(dy) or 1e-9))
    return x + dx * share, y + dy * share


def _normal(curve: Curve, share: float) -> Point:
    (ax, ay), (bx, by) = curve.at(max(share - 0.02, 0.0)), curve.at(min(share + 0.02, 1.0))
    length = math.hypot(bx - ax, by - ay) or 1.0
    return (by - ay) / length, -(bx - ax) / length


def _middle(box: Box) -> Point:
    return (box.left + box.right) / 2, (box.top + box.bottom) / 2


def _around(middle: Point, size: Point) -> Box:
    (x, y), (wide, high) = middle, size
    return Box(x - wide / 2, y - high / 2, x + wide / 2, y + high / 2)


def _holds(box: Box, point: Point, *, gap: float) -> bool:
    x, y = point
    return box.left - gap <= x <= box.right + gap and box.top - gap <= y <= box.bottom + gap


def _cell(point: Point) -> tuple[int, int]:
    return int(point[0] // _CELL), int(point[1] // _CELL)


def _cells(box: Box) -> Iterable[tuple[int, int]]:
    columns = range(int(box.left // _CELL), int(box.right // _CELL) + 1)
    rows = range(int(box.top // _CELL), int(box.bottom // _CELL) + 1)
    return ((column, row) for column in columns for row in rows)
