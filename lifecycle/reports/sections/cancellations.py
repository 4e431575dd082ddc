"""Cancellations by reason by week."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from lifecycle.reports import facts, markup, pictures, words
from lifecycle.reports.markup import Column

if TYPE_CHECKING:
    from datetime import date, tzinfo

    from lifecycle.reports.facts import Cancellations, Figures

_EMPTY: Final = "No appointment was cancelled in this window."
_BY_PROVIDER: Final = "by Zocdoc or the provider"
_NOT_TOLD: Final = "by us, no reason given"
_REST: Final = "by us, other reasons"
_DRAWN: Final = 5
"""So many reasons have a colour of their own; the others are put together."""

_KINDS: Final = ("lc-1", "lc-2", "lc-3", "lc-4", "lc-5", "lc-6", "lc-7", "lc-8")


def content(figures: Figures, _zone: tzinfo) -> str:
    """Write the section."""
    text = said(figures)
    if not figures.cancellations:
        return markup.paragraph(text, kind="lc-empty")
    names = _names(figures.cancellations)
    weeks = [week.week for week in figures.weeks]
    counts: Counter[tuple[str, date]] = Counter()
    for each in figures.cancellations:
        counts[_name(each, names), each.week] += each.count
    series = [
        pictures.Series(_kind(name, index), name, [counts[name, week] for week in weeks])
        for index, name in enumerate(names)
    ]
    picture = pictures.stacked(
        "lc-cancelled",
        [words.day(week) for week in weeks],
        series,
        title="Cancellations by week and reason",
        description=text,
    )
    folded = markup.details("The same as a table", _by_week(weeks, series))
    return f"{markup.paragraph(text)}{markup.figure(picture)}{_reasons(figures)}{folded}"


def said(figures: Figures) -> str:
    """Say the most important in a sentence or two."""
    total = sum(each.count for each in figures.cancellations)
    if not total:
        return _EMPTY
    ours = sum(each.count for each in figures.cancellations if each.by == facts.OURS)
    text = f"{words.plural(total, 'appointment was', 'appointments were')} cancelled, {words.number(ours)} of them by "
    text += "commands of ours"
    reason, count = by_reason(figures).most_common(1)[0]
    return f"{text}. The most frequent: {reason}, {words.plural(count, 'time')} ({words.share(count / total)})."


def _reasons(figures: Figures) -> str:
    total = sum(each.count for each in figures.cancellations)
    ranked = sorted(by_reason(figures).items(), key=lambda it: (-it[1], it[0]))
    rows = [(reason, words.number(count), words.share(count / total)) for reason, count in ranked]
    columns = (Column("reason"), Column("cancellations", is_number=True), Column("share", is_number=True))
    return markup.table("By reason, in the whole window", columns, rows, empty=_EMPTY)


def _by_week(weeks: list[date], series: list[pictures.Series]) -> str:
    rows = [
        (
            week,
            *(words.number(each.values[index]) for each in series),
            words.number(sum(e.values[index] for e in series)),
        )
        for index, week in enumerate(weeks)
    ]
    columns = (
        Column("week of"),
        *(Column(each.words, is_number=True) for each in series),
        Column("all", is_number=True),
    )
    return markup.table("By week (Monday, UTC)", columns, rows, empty=_EMPTY)


def by_reason(figures: Figures) -> Counter[str]:
    """Count the cancellations of the whole window by reason, in words."""
    found: Counter[str] = Counter()
    for each in figures.cancellations:
        found[_reason(each)] += each.count
    return found


def _names(found: tuple[Cancellations, ...]) -> list[str]:
    """Choose what is drawn apart: our most frequent reasons, the others together, no reason, and the provider last."""
    counts: Counter[str] = Counter()
    for each in found:
        counts[_reason(each)] += each.count
    ends = [name for name in (_NOT_TOLD, _BY_PROVIDER) if counts.pop(name, 0)]
    ranked = sorted(counts, key=lambda name: (-counts[name], name))
    rest = [_REST] if len(ranked) > _DRAWN else []
    return [*ranked[:_DRAWN], *rest, *ends]


def _name(each: Cancellations, names: list[str]) -> str:
    reason = _reason(each)
    return reason if reason in names else _REST


def _reason(each: Cancellations) -> str:
    if each.by == facts.PROVIDER:
        return _BY_PROVIDER
    return _NOT_TOLD if each.reason_type is None else each.reason_type.replace("_", " ")


def _kind(name: str, index: int) -> str:
    fixed = {_BY_PROVIDER: "lc-8", _NOT_TOLD: "lc-7", _REST: "lc-6"}
    return fixed.get(name, _KINDS[index])
