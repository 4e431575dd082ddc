"""At a glance: counts of the window, compared with the window before, and over the weeks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lifecycle.reports import markup, pictures, words
from lifecycle.reports.markup import Column

if TYPE_CHECKING:
    from datetime import tzinfo

    from lifecycle.reports.facts import Figures

_TILES: Final = (
    ("appointments tracked", "tracked", "tracked"),
    ("commands accepted", "accepted", None),
    ("commands applied", "applied", "applied"),
    ("refused here", "refused", "refused"),
    ("rejected by Zocdoc", "rejected", "rejected"),
    ("commands not sent", "not_sent", None),
    ("answers lost", "lost", "answers_lost"),
    ("cancelled", "cancelled", "cancelled"),
    ("no-shows", "no_shows", "no_shows"),
    ("arrivals marked", "arrivals", None),
)
"""Words, the count of the headline, and the count of the weeks that belongs to it, if there is one."""

COUNTS: Final = tuple((name, count) for name, count, _ in _TILES)
"""The counts of the headline: words and name."""

_COLUMNS: Final = (
    Column("week of"),
    *(
        Column(head, is_number=True)
        for head in ("tracked", "applied", "refused", "rejected", "answers lost", "cancelled", "no-shows")
    ),
)


def content(figures: Figures, _zone: tzinfo) -> str:
    """Write the section."""
    tiles = "".join(_tile(figures, name, count, weekly) for name, count, weekly in _TILES)
    return (
        f'{markup.paragraph(said(figures))}<ul class="lc-tiles">{tiles}{_odd(figures)}{_doubt(figures)}</ul>'
        f"{markup.details('Week by week', _weeks(figures))}"
    )


def said(figures: Figures) -> str:
    """Say the most important in a sentence or two."""
    now = figures.headline
    text = f"{words.plural(now.tracked, 'appointment was', 'appointments were')} tracked and "
    text += f"{words.plural(now.accepted, 'command')} accepted; {words.number(now.applied)} were applied. "
    text += f"{words.plural(now.cancelled, 'appointment was', 'appointments were')} cancelled. "
    if not figures.now.in_doubt:
        return f"{text}No appointment is in doubt now."
    doubt = words.plural(figures.now.in_doubt, "appointment is", "appointments are")
    human = words.plural(figures.now.attention, "command waits", "commands wait")
    return f"{text}{doubt} in doubt now, and {human} for a human."


def _tile(figures: Figures, name: str, count: str, weekly: str | None) -> str:
    value = getattr(figures.headline, count)
    more = words.change(value, getattr(figures.before, count)) if figures.before else ""
    if count == "lost":
        more = f"{words.number(figures.headline.recovered)} recovered; {more}" if more else ""
    spark = ""
    if weekly and len(figures.weeks) > 1:
        values = [getattr(week, weekly) for week in figures.weeks]
        told = f"From {words.number(min(values))} to {words.number(max(values))} a week; the last: "
        told += f"{words.number(values[-1])}."
        spark = pictures.spark(f"lc-spark-{count}", values, title=f"{name}, by week", description=told).svg
    return _item(name, words.number(value), more, spark)


def _odd(figures: Figures) -> str:
    return _item("moves not in the chart", words.number(figures.not_conforming), "recorded all the same")


def _doubt(figures: Figures) -> str:
    human = words.plural(figures.now.attention, "command waits", "commands wait")
    return _item(
        "in doubt now", words.number(figures.now.in_doubt), f"{human} for a human", is_alert=bool(figures.now.in_doubt)
    )


def _item(name: str, value: str, more: str, spark: str = "", *, is_alert: bool = False) -> str:
    kind = "lc-tile lc-alert" if is_alert else "lc-tile"
    return (
        f'<li class="{kind}"><span class="lc-tile-name">{markup.escape(name)}</span> '
        f'<span class="lc-tile-value">{markup.escape(value)}</span> '
        f'<span class="lc-tile-more">{markup.escape(more)}</span>{spark}</li>'
    )


def _weeks(figures: Figures) -> str:
    rows = [
        (
            week.week,
            *map(words.number, (week.tracked, week.applied, week.refused, week.rejected, week.answers_lost)),
            *map(words.number, (week.cancelled, week.no_shows)),
        )
        for week in figures.weeks
    ]
    caption = "Weeks begin on Monday, UTC; the first and the last may be partly outside the window"
    return markup.table(caption, _COLUMNS, rows, empty="There are no events.")
