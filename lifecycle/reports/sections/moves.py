"""How appointments moved: the state diagram with counts on the arrows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lifecycle.reports import facts, markup, pictures, words
from lifecycle.reports.markup import Column

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import tzinfo

    from lifecycle.reports.facts import Figures, Transition
    from lifecycle.reports.pictures import Arrow

_COLUMNS: Final = (
    Column("from"),
    Column("to"),
    Column("by"),
    Column("in the chart"),
    Column("moves", is_number=True),
    Column("median before", is_number=True),
    Column("90% within", is_number=True),
)
_NOTE: Final = (
    "An arrow back to its own status: the visit was moved to another time. In the table: how long the status before "
    "had stood. A count that finds no room in the picture is in the table."
)


def content(figures: Figures, _zone: tzinfo) -> str:
    """Write the section."""
    text = said(figures)
    picture = pictures.states(
        "lc-states", arrows(figures.moves), figures.entries, title="Moves between statuses", description=text
    )
    rows = [
        (
            move.from_status,
            move.to_status,
            move.command or "Zocdoc or the provider",
            "yes" if move.conforming else "no",
            words.number(move.count),
            words.length(move.median_seconds),
            words.length(move.p90_seconds),
        )
        for move in figures.moves
    ]
    table = markup.table("Each kind of move", _COLUMNS, rows, empty="No appointment moved in this window.")
    note = markup.paragraph(_NOTE, kind="lc-note")
    folded = markup.details("The same as a table", table)
    return f"{markup.paragraph(text)}{markup.figure(picture, is_wide=True)}{note}{folded}"


def arrows(moves: Iterable[Transition]) -> list[Arrow]:
    """Give the arrows of the moves."""
    return [
        pictures.Arrow(
            source=move.from_status,
            target=move.to_status,
            by=move.by if move.conforming else "odd",
            count=move.count,
        )
        for move in moves
    ]


def said(figures: Figures) -> str:
    """Say the most important in a sentence or two."""
    total = sum(move.count for move in figures.moves)
    if not total:
        return "No appointment moved in this window."
    ours = sum(move.count for move in figures.moves if move.by == facts.OURS)
    first = figures.moves[0]
    by = first.command or "Zocdoc or the provider"
    text = f"{words.plural(total, 'move')}, {words.share(ours / total)} of them by our commands. The most frequent: "
    text += f"{first.from_status} to {first.to_status} by {by}, {words.plural(first.count, 'time')}. "
    odd = words.plural(figures.not_conforming, "move is", "moves are")
    return f"{text}{odd} not in the chart." if figures.not_conforming else f"{text}All are in the chart."
