"""The state diagram: the statuses at their places, and an arrow with its count for each kind of move.

Statuses that this version does not know stand in a lane of their own below. An arrow whose count finds no room without
covering another label is drawn without it; the table beside the picture has every count.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from lifecycle import chart
from lifecycle.reports import words
from lifecycle.reports.pictures import canvas as drawing
from lifecycle.reports.pictures import curves, labels
from lifecycle.reports.pictures.curves import Field
from lifecycle.reports.pictures.labels import Box

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lifecycle.reports.pictures.canvas import Canvas, Picture

PLACES: Final[Mapping[str, tuple[float, float]]] = {
    chart.Status.PENDING_BOOKING: (118, 290),
    chart.Status.CONFIRMED: (420, 110),
    chart.Status.BOOKING_FAILED: (118, 600),
    chart.Status.PENDING_RESCHEDULE: (420, 460),
    chart.Status.RESCHEDULED: (730, 290),
    chart.Status.RESCHEDULE_FAILED: (730, 600),
    chart.Status.CANCELLED: (1030, 440),
    chart.Status.NO_SHOW: (1030, 110),
}
"""The middle of each status of the chart; bookings come from the left, ends are on the right."""

_WIDTH: Final = 1150.0
_LANE: Final = 680.0
_LANE_HEIGHT: Final = 130.0
_BOX: Final = (184.0, 54.0)
_IN_LANE: Final = 5
_LOOPS: Final = (0, -62, 62, -31, 31)
_ABOVE: Final = frozenset({chart.Status.PENDING_BOOKING, chart.Status.CONFIRMED, chart.Status.NO_SHOW})
"""Statuses whose arrows to themselves are above the box; those of the others are below."""

_OTHERS: Final = "other unknown statuses"
_KINDS: Final = {"ours": "lc-arrow-ours", "provider": "lc-arrow-provider", "odd": "lc-arrow-odd"}
_LEGEND: Final = (
    ("ours", "solid: our commands"),
    ("provider", "dashed: Zocdoc or the provider"),
    ("odd", "dotted, with !: not in the chart"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrow:
    """So many moves from one status to another. `by` is `ours`, `provider`, or `odd`: the chart does not have it."""

    source: str
    target: str
    by: str
    count: int


def states(name: str, arrows: Sequence[Arrow], entries: Mapping[str, int], *, title: str, description: str) -> Picture:
    """Draw the diagram. `entries`: how many appointments were tracked in each status."""
    lane = _lane(arrows, entries)
    merged = _merged(arrows, lane)
    height = _LANE + (_LANE_HEIGHT if lane else 0) + 34
    canvas = drawing.Canvas(_WIDTH, height)
    boxes = _boxes(lane)
    if lane:
        _draw_lane(canvas)
    _draw_arrows(canvas, merged, boxes)
    for status, box in boxes.items():
        tracked = sum(number for key, number in entries.items() if _shown(key, lane) == status)
        _draw_status(canvas, status, box, tracked)
    _draw_legend(canvas, height - 14)
    return canvas.finish(name=name, title=title, description=description)


def _lane(arrows: Sequence[Arrow], entries: Mapping[str, int]) -> list[str]:
    """Choose the unknown statuses that get a box: the most frequent; the rest share one."""
    seen: Counter[str] = Counter({status: number for status, number in entries.items() if status not in PLACES})
    for arrow in arrows:
        for status in {arrow.source, arrow.target} - PLACES.keys():
            seen[status] += arrow.count
    ranked = [status for status, _ in sorted(seen.items(), key=lambda it: (-it[1], it[0]))]
    return ranked if len(ranked) <= _IN_LANE else [*ranked[: _IN_LANE - 1], _OTHERS]


def _shown(status: str, lane: Sequence[str]) -> str:
    return status if status in PLACES or status in lane else _OTHERS


def _merged(arrows: Sequence[Arrow], lane: Sequence[str]) -> list[Arrow]:
    """Put arrows together that are drawn as one, the heaviest first."""
    found: Counter[tuple[str, str, str]] = Counter()
    for arrow in arrows:
        found[_shown(arrow.source, lane), _shown(arrow.target, lane), arrow.by] += arrow.count
    made = [Arrow(source=source, target=target, by=by, count=n) for (source, target, by), n in found.items() if n]
    return sorted(made, key=lambda it: (-it.count, it.source, it.target, it.by))


def _boxes(lane: Sequence[str]) -> dict[str, Box]:
    middles = {str(status): place for status, place in PLACES.items()}
    step = _WIDTH / max(len(lane), 1)
    for index, status in enumerate(lane):
        middles[status] = (step * (index + 0.5), _LANE + 78)
    wide, high = _BOX
    return {status: Box(x - wide / 2, y - high / 2, x + wide / 2, y + high / 2) for status, (x, y) in middles.items()}


def _draw_arrows(canvas: Canvas, arrows: Sequence[Arrow], boxes: Mapping[str, Box]) -> None:
    """Route all, heaviest first, and then place the labels, so that each knows of every line."""
    taken = Field(canvas.width, canvas.height - 34, [*boxes.values(), *canvas.boxes])
    heaviest = max((arrow.count for arrow in arrows), default=1)
    loops: Counter[str] = Counter()
    routed = []
    for arrow in arrows:
        width = 1.3 + 7.2 * math.sqrt(arrow.count / heaviest)
        if arrow.source == arrow.target:
            at = _LOOPS[loops[arrow.source] % len(_LOOPS)]
            curve = curves.loop(boxes[arrow.source], at=at, is_above=arrow.source in _ABOVE, width=min(width, 5))
            loops[arrow.source] += 1
            taken.take(curve)
        else:
            curve = taken.route(boxes[arrow.source], boxes[arrow.target], width=width)
        routed.append((arrow, curve))
    for arrow, curve in reversed(routed):
        kind, told = _KINDS[arrow.by], f"{arrow.source} → {arrow.target}: {words.number(arrow.count)}"
        canvas.path(curve.line(), kind=f"lc-arrow {kind}", stroke=curve.width, title=told)
        canvas.path(curve.arrowhead(), kind=f"lc-head {kind}", title=told)
    for arrow, curve in routed:
        _label(canvas, taken, arrow, curve)


def _label(canvas: Canvas, taken: Field, arrow: Arrow, curve: curves.Curve) -> None:
    text = f"{'! ' if arrow.by == 'odd' else ''}{words.number(arrow.count)}"
    size = drawing.SIZE
    high = (labels.ASCENT + labels.DESCENT) * size
    middle = taken.place(curve, (labels.width(text, size) + 4, high))
    if middle is not None:
        x, y = middle
        canvas.text(text, x, y - high / 2 + labels.ASCENT * size, anchor="middle", kind=f"lc-count lc-{arrow.by}-count")


def _draw_status(canvas: Canvas, status: str, box: Box, tracked: int) -> None:
    known = status in PLACES
    final = any(state.final for state in chart.AppointmentChart.states if state.value == status)
    canvas.rectangle(box, kind=f"lc-status{' lc-final' if final else ''}{'' if known else ' lc-unknown'}", radius=10)
    middle, room = (box.left + box.right) / 2, box.right - box.left - 12
    canvas.text(
        status, middle, box.top + (24 if tracked else 32), size=14, anchor="middle", kind="lc-strong", room=room
    )
    if tracked:
        note = f"first seen so: {words.number(tracked)}"
        canvas.text(note, middle, box.top + 43, size=11, anchor="middle", kind="lc-quiet", room=room)


def _draw_lane(canvas: Canvas) -> None:
    place = Box(6, _LANE + 8, canvas.width - 6, _LANE + _LANE_HEIGHT - 8)
    canvas.rectangle(place, kind="lc-lane", radius=8)
    canvas.text("statuses that this version does not know", 20, _LANE + 28, size=12, kind="lc-quiet")


def _draw_legend(canvas: Canvas, y: float) -> None:
    x = 20.0
    for by, text in _LEGEND:
        canvas.path(f"M{x:.0f},{y - 4:.0f} h34", kind=f"lc-arrow {_KINDS[by]}", stroke=3)
        x = canvas.text(text, x + 42, y, size=12, kind="lc-quiet").right + 28
    canvas.text("wider: more often", x, y, size=12, kind="lc-quiet")
