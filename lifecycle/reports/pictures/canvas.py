"""A canvas that collects shapes and labels, and the SVG that becomes of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from lifecycle.reports.markup import escape, printable
from lifecycle.reports.pictures import labels
from lifecycle.reports.pictures.labels import Box

SIZE = 13.0
"""The usual size of letters, in the picture's units."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A finished picture. `name` is unique in a document: it begins the ids of title and description."""

    name: str
    title: str
    description: str
    width: float
    height: float
    svg: str


@dataclass(slots=True)
class Canvas:
    """What is drawn so far. `boxes` are the places of the labels."""

    width: float
    height: float
    shapes: list[str] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)

    def text(
        self,
        text: str,
        x: float,
        y: float,
        *,
        size: float = SIZE,
        anchor: str = "start",
        kind: str = "",
        room: float | None = None,
    ) -> Box:
        """Write text with its baseline at a point; what is wider than the room is cut, and the whole is its title."""
        text = printable(text)
        shown = text if room is None else labels.shortened(text, room, size)
        full = "" if shown == text else f"<title>{escape(text)}</title>"
        classes = f"lc-text {kind}".strip()
        self.shapes.append(
            f'<text class="{classes}" x="{x:.1f}" y="{y:.1f}" font-size="{size:g}" text-anchor="{anchor}">'
            f"{full}{escape(shown)}</text>"
        )
        place = labels.box(shown, x, y, size=size, anchor=anchor)
        self.boxes.append(place)
        return place

    def rectangle(self, box: Box, *, kind: str, radius: float = 0.0, title: str = "") -> None:
        """Draw a rectangle."""
        place = f'x="{box.left:.1f}" y="{box.top:.1f}" width="{box.right - box.left:.1f}"'
        rest = f'height="{box.bottom - box.top:.1f}" rx="{radius:g}"'
        self.shapes.append(f'<rect class="{kind}" {place} {rest}>{_title(title)}</rect>')

    def path(self, data: str, *, kind: str, stroke: float | None = None, title: str = "") -> None:
        """Draw a path; `stroke` is the width of its line."""
        line = "" if stroke is None else f' stroke-width="{stroke:.1f}"'
        self.shapes.append(f'<path class="{kind}" d="{data}"{line}>{_title(title)}</path>')

    def finish(self, *, name: str, title: str, description: str) -> Picture:
        """Make the SVG, with title and description for those who do not see it."""
        head = (
            f'<svg class="lc-svg" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width:g} {self.height:g}" '
            f'width="{self.width:g}" height="{self.height:g}" role="img" '
            f'aria-labelledby="{name}-title {name}-desc" font-family="system-ui, sans-serif">'
            f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-desc">{escape(description)}</desc>'
        )
        return Picture(
            name=name,
            title=title,
            description=description,
            width=self.width,
            height=self.height,
            svg=f"{head}{''.join(self.shapes)}</svg>",
        )


def legend(canvas: Canvas, entries: list[tuple[str, str]], *, left: float, top: float, right: float) -> float:
    """Draw swatches with their words, in as many lines as they need; give the height. `entries`: class and words.

    What is drawn as a line, of the class `lc-line`, has a piece of it for a swatch.
    """
    x, line = left, 0
    for kind, words in entries:
        shown = labels.shortened(words, right - left - 22, 12)
        wide = 22 + labels.width(shown, 12) + 18
        if x > left and x + wide > right:
            x, line = left, line + 1
        y = top + 20 * line
        if kind.startswith("lc-line"):
            canvas.path(f"M{x:.1f},{y + 7:.1f} h16", kind=kind, stroke=2.5)
        else:
            canvas.rectangle(Box(x, y, x + 14, y + 12), kind=kind, radius=2)
        canvas.text(words, x + 20, y + 11, size=12, room=right - left - 22)
        x += wide
    return 20.0 * (line + 1) if entries else 0.0


def _title(text: str) -> str:
    return f"<title>{escape(text)}</title>" if text else ""
