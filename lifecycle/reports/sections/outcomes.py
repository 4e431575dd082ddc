"""Commands and their outcomes: what became of each, and of the answers that were lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lifecycle.reports import markup, pictures, words
from lifecycle.reports.markup import Column

if TYPE_CHECKING:
    from datetime import tzinfo

    from lifecycle.reports.facts import Figures

_EMPTY: Final = "No command was given in this window."
_PARTS: Final = (
    ("lc-1", "applied"),
    ("lc-8", "rejected by Zocdoc"),
    ("lc-5", "not sent"),
    ("lc-7", "refused here"),
)
_COLUMNS: Final = (
    Column("command"),
    *(Column(head, is_number=True) for head in ("accepted", "applied", "rejected", "not sent", "refused here")),
    *(Column(head, is_number=True) for head in ("lost an answer", "recovered", "by a human", "waiting", "for a human")),
    Column("median call", is_number=True),
    Column("90% within", is_number=True),
)
_NOTE: Final = (
    "A command that ends in this window may have been accepted before it, so the counts need not add up. Of those that "
    "lost an answer in this window: recovered, reading has settled it; by a human, somebody said what had happened; "
    "waiting, it is still being read; for a human, somebody must look."
)


def content(figures: Figures, _zone: tzinfo) -> str:
    """Write the section."""
    found = figures.outcomes
    text = said(figures)
    if not found:
        return markup.paragraph(text, kind="lc-empty")
    picture = pictures.bars(
        "lc-outcomes-bars",
        [pictures.Bar(each.command, (each.applied, each.rejected, each.not_sent, each.refused)) for each in found],
        parts=_PARTS,
        title="What became of commands",
        description=text,
    )
    rows = [
        (
            each.command,
            *map(words.number, (each.accepted, each.applied, each.rejected, each.not_sent, each.refused)),
            *map(words.number, (each.lost, each.recovered, each.resolved, each.waiting, each.attention)),
            words.milliseconds(each.call_ms.median),
            words.milliseconds(each.call_ms.p90),
        )
        for each in found
    ]
    table = markup.table("By command", _COLUMNS, rows, empty=_EMPTY)
    note = markup.paragraph(_NOTE, kind="lc-note")
    return f"{markup.paragraph(text)}{markup.figure(picture)}{table}{note}"


def said(figures: Figures) -> str:
    """Say the most important in a sentence or two."""
    now = figures.headline
    if not figures.outcomes:
        return _EMPTY
    text = f"{words.plural(now.accepted, 'command was', 'commands were')} accepted"
    if now.applied_share is not None:
        text += f"; of those that ended, {words.share(now.applied_share)} were applied"
    if not now.lost:
        return f"{text}. No answer was lost."
    lost = words.plural(now.lost, "command")
    return f"{text}. {lost} lost an answer; reading has settled {words.number(now.recovered)}."
