"""Tried and not done: refused here before anything was sent, or rejected by Zocdoc."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lifecycle.reports import markup, pictures, words
from lifecycle.reports.markup import Column

if TYPE_CHECKING:
    from datetime import tzinfo

    from lifecycle.reports.facts import Figures, Refusal

_EMPTY: Final = "Nothing was refused in this window."
_LISTED: Final = 20
_DRAWN: Final = 10
_COLUMNS: Final = (
    Column("tried"),
    Column("of an appointment that was"),
    Column("refused by"),
    Column("why"),
    Column("tries", is_number=True),
)


def content(figures: Figures, _zone: tzinfo) -> str:
    """Write the section."""
    found = figures.refusals
    text = said(figures)
    if not found:
        return markup.paragraph(text, kind="lc-empty")
    picture = pictures.bars(
        "lc-refused",
        [pictures.Bar(_name(each), _parts(each)) for each in found[:_DRAWN]],
        parts=(("lc-1", "refused here"), ("lc-8", "rejected by Zocdoc")),
        title="Tried and not done",
        description=text,
    )
    rows = [
        (each.command, each.status, by(each), each.reason_code, words.number(each.tries)) for each in found[:_LISTED]
    ]
    caption = f"The {_LISTED} most frequent of {len(found)}" if len(found) > _LISTED else "Each kind"
    return f"{markup.paragraph(text)}{markup.figure(picture)}{markup.table(caption, _COLUMNS, rows, empty=_EMPTY)}"


def said(figures: Figures) -> str:
    """Say the most important in a sentence or two."""
    found = figures.refusals
    if not found:
        return _EMPTY
    here = sum(_parts(each)[0] for each in found)
    there = sum(_parts(each)[1] for each in found)
    text = f"{words.plural(here, 'try was', 'tries were')} refused here before anything was sent, and "
    text += f"{words.number(there)} by Zocdoc. The most frequent: {found[0].command} of an appointment that was "
    why = f" ({found[0].reason_code})" if found[0].reason_code else ""
    return f"{text}{found[0].status}, {words.plural(found[0].tries, 'time')}{why}."


def _name(each: Refusal) -> str:
    why = f" ({each.reason_code})" if each.reason_code else ""
    return f"{each.command} of {each.status}{why}"


def _parts(each: Refusal) -> tuple[int, int]:
    return (each.tries, 0) if each.refused_by == "guard" else (0, each.tries)


def by(each: Refusal) -> str:
    """Say who refused it."""
    return "a check here" if each.refused_by == "guard" else "Zocdoc"
