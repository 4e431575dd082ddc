"""Time to confirm: how long bookings waited, in all and week by week."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lifecycle.reports import markup, pictures, words
from lifecycle.reports.markup import Column

if TYPE_CHECKING:
    from datetime import tzinfo

    from lifecycle.reports.facts import Confirmations, Figures
    from lifecycle.reports.pictures import Picture

_EMPTY: Final = "No booking was confirmed in this window."
_HOUR: Final = 3600.0
_DAY: Final = 86400.0
_IN_DAYS: Final = 3 * _DAY
"""An axis that reaches further is written in days."""

_CLASSES: Final = (Column("time to confirm, below"), Column("confirmations", is_number=True))
_WEEKS: Final = (
    Column("week of"),
    Column("confirmations", is_number=True),
    Column("median", is_number=True),
    Column("90% within", is_number=True),
)
_NOTE: Final = (
    "From the booking at Zocdoc (from the first read here, where Zocdoc told no time) until confirmed was recorded "
    "here for the first time. Each column: below that, and not below the one before."
)


def content(figures: Figures, _zone: tzinfo) -> str:
    """Write the section."""
    found = figures.confirmations
    text = said(found)
    if not found.seconds.count:
        return markup.paragraph(text, kind="lc-empty")
    drawn = f'<div class="lc-pair">{markup.figure(_spread(found, text))}{markup.figure(_by_week(found))}</div>'
    note = markup.paragraph(_NOTE, kind="lc-note")
    return f"{markup.paragraph(text)}{drawn}{note}{markup.details('The same as tables', _tables(found))}"


def said(found: Confirmations) -> str:
    """Say the most important in a sentence."""
    if not found.seconds.count:
        return _EMPTY
    number = words.plural(found.seconds.count, "booking was", "bookings were")
    median, p90 = words.length(found.seconds.median), words.length(found.seconds.p90)
    return f"{number} confirmed: half of them within {median}, nine in ten within {p90}."


def _spread(found: Confirmations, text: str) -> Picture:
    places = [_class_name(each.below) for each in found.classes]
    counts = pictures.Series("lc-1", "confirmations", [each.count for each in found.classes])
    return pictures.stacked(
        "lc-confirm-spread", places, [counts], title="Time to confirm", description=text, with_totals=True
    )


def _by_week(found: Confirmations) -> Picture:
    longest = max((each.seconds.p90 or 0.0 for each in found.weeks), default=0.0)
    unit, sign = (_DAY, "d") if longest > _IN_DAYS else (_HOUR, "h")
    return pictures.lines(
        "lc-confirm-weeks",
        [words.day(each.week) for each in found.weeks],
        [
            pictures.Line("lc-ours", "half within (median)", [each.seconds.median for each in found.weeks]),
            pictures.Line("lc-provider", "nine in ten within", [each.seconds.p90 for each in found.weeks]),
        ],
        form=lambda value: f"{value / unit:.3g} {sign}",
        unit=unit,
        title="Time to confirm, by week",
        description="The median and the 90th percentile of the confirmations that were recorded in each week.",
    )


def _tables(found: Confirmations) -> str:
    classes = [(_class_name(each.below), words.number(each.count)) for each in found.classes]
    weeks = [
        (week.week, words.number(week.seconds.count), words.length(week.seconds.median), words.length(week.seconds.p90))
        for week in found.weeks
    ]
    first = markup.table("From booked to confirmed", _CLASSES, classes, empty=_EMPTY)
    return first + markup.table("By week of the confirmation (Monday, UTC)", _WEEKS, weeks, empty=_EMPTY)


def _class_name(below: float | None) -> str:
    if below is None:
        return "longer"
    if below < _HOUR:
        return f"{below / 60:g} min"
    return f"{below / _HOUR:g} h" if below < _DAY else f"{below / _DAY:g} d"
