"""HTML as text: the one place that escapes, and tables. Pure."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lifecycle.reports.pictures import Picture


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table; numbers stand on the right."""

    head: str
    is_number: bool = False


def escape(value: object) -> str:
    """Write a value so that HTML and SVG show it as text, in elements and in quoted attributes."""
    return html.escape(printable(value), quote=True)


def printable(value: object) -> str:
    """Show control characters, which no document may have, as escapes."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in str(value))


def table(caption: str, columns: Sequence[Column], rows: Iterable[Sequence[object]], *, empty: str) -> str:
    """Write a table whose first column heads its rows; without rows, a sentence that says so."""
    body = "".join(_row(columns, row) for row in rows)
    if not body:
        return f'<p class="lc-empty">{escape(empty)}</p>'
    heads = "".join(f'<th scope="col"{_kind(column)}>{escape(column.head)}</th>' for column in columns)
    return (
        f'<div class="lc-scroll"><table class="lc-table"><caption>{escape(caption)}</caption>'
        f"<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def details(summary: str, content: str) -> str:
    """Write what is folded away until somebody asks for it."""
    return f'<details class="lc-details"><summary>{escape(summary)}</summary>{content}</details>'


def figure(picture: Picture, *, is_wide: bool = False) -> str:
    """Put a picture into a figure, which scrolls by itself where the screen is narrow."""
    kind = "lc-wide" if is_wide else "lc-chart"
    label = escape(picture.title)
    return f'<figure class="lc-figure {kind}" tabindex="0" role="group" aria-label="{label}">{picture.svg}</figure>'


def paragraph(text: str, *, kind: str = "lc-says") -> str:
    """Write a paragraph of text."""
    return f'<p class="{kind}">{escape(text)}</p>'


def _row(columns: Sequence[Column], cells: Sequence[object]) -> str:
    first, *rest = (escape("" if cell is None else cell) for cell in cells)
    others = "".join(f"<td{_kind(column)}>{cell}</td>" for column, cell in zip(columns[1:], rest, strict=True))
    return f'<tr><th scope="row">{first}</th>{others}</tr>'


def _kind(column: Column) -> str:
    return ' class="lc-number"' if column.is_number else ""
