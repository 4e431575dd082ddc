"""The figures as tables for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.table import Table
from rich.text import Text

from lifecycle.cli import tables
from lifecycle.cli import words as terminal
from lifecycle.reports import report, words
from lifecycle.reports.sections import cancellations, confirmations, headline, moves, outcomes, refusals, standing

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import tzinfo

    from lifecycle.reports.facts import Figures

_LISTED: Final = 10
"""Rows of each table; the report and JSON have more."""

_GAP: Final = (0, 2, 0, 0)


def of(figures: Figures, zone: tzinfo) -> str:
    """Lay the figures out, a table for each question, under the sentence that says the most important."""
    parts = (
        _part("At a glance", headline.said(figures), _headline(figures)),
        _part("Moves", moves.said(figures), _moves(figures)),
        _part("Time to confirm", confirmations.said(figures.confirmations), _weeks(figures)),
        _part("Cancellations", cancellations.said(figures), _cancellations(figures)),
        _part("Tried and not done", refusals.said(figures), _refusals(figures)),
        _part("Outcomes", outcomes.said(figures), _outcomes(figures)),
        _part("In doubt", standing.said(figures), _doubts(figures, zone)),
    )
    return f"{terminal.printable(report.described(figures, zone))}\n\n" + "\n".join(parts)


def _part(title: str, said: str, table: Table) -> str:
    heading = tables.rendered(Text(f"{title}: {terminal.printable(said)}", style="bold"))
    return heading + (tables.rendered(table) if table.row_count else "")


def _table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """Lay rows out; a head that ends with `#` is of numbers, which stand on the right."""
    table = Table(box=None, padding=_GAP, pad_edge=False, header_style="dim")
    for head in heads:
        table.add_column(head.rstrip("#"), justify="right" if head.endswith("#") else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(terminal.printable("" if cell is None else str(cell))) for cell in row))
    return table


def _headline(figures: Figures) -> Table:
    rows = [
        (name, words.number(value), words.change(value, getattr(figures.before, count)) if figures.before else "")
        for name, count in headline.COUNTS
        for value in [getattr(figures.headline, count)]
    ]
    return _table(("", "count#", "compared with the window before"), rows)


def _moves(figures: Figures) -> Table:
    rows = [
        (
            move.from_status,
            move.to_status,
            move.command or "Zocdoc or the provider",
            words.number(move.count),
            words.length(move.median_seconds),
            words.length(move.p90_seconds),
            "" if move.conforming else "not in the chart",
        )
        for move in figures.moves[:_LISTED]
    ]
    return _table(("from", "to", "by", "moves#", "median before#", "90% within#", ""), rows)


def _weeks(figures: Figures) -> Table:
    rows = [
        (week.week, words.number(week.seconds.count), words.length(week.seconds.median), words.length(week.seconds.p90))
        for week in figures.confirmations.weeks[-_LISTED:]
        if figures.confirmations.seconds.count
    ]
    return _table(("week of", "confirmations#", "median#", "90% within#"), rows)


def _cancellations(figures: Figures) -> Table:
    ranked = cancellations.by_reason(figures).most_common(_LISTED)
    return _table(("reason", "cancellations#"), [(reason, words.number(count)) for reason, count in ranked])


def _refusals(figures: Figures) -> Table:
    rows = [
        (each.command, each.status, refusals.by(each), each.reason_code, words.number(each.tries))
        for each in figures.refusals[:_LISTED]
    ]
    return _table(("tried", "of one that was", "refused by", "why", "tries#"), rows)


def _outcomes(figures: Figures) -> Table:
    heads = ("accepted#", "applied#", "rejected#", "not sent#", "refused#", "lost#", "recovered#", "median#", "90%#")
    rows = [
        (
            each.command,
            *map(words.number, (each.accepted, each.applied, each.rejected, each.not_sent, each.refused)),
            *map(words.number, (each.lost, each.recovered)),
            words.milliseconds(each.call_ms.median),
            words.milliseconds(each.call_ms.p90),
        )
        for each in figures.outcomes
    ]
    return _table(("command", *heads), rows)


def _doubts(figures: Figures, zone: tzinfo) -> Table:
    rows = [
        (each.appointment_id, each.command, each.state, words.instant(each.since, zone), words.length(each.seconds))
        for each in figures.now.doubts[:_LISTED]
    ]
    return _table(("appointment", "command", "state", "since", "for#"), rows)
