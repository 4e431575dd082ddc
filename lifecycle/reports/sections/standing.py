"""Slowest, and in doubt: single commands and appointments that somebody may want to look at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lifecycle.reports import markup, words
from lifecycle.reports.markup import Column

if TYPE_CHECKING:
    from datetime import tzinfo

    from lifecycle.reports.facts import Figures

_DOUBTS: Final = (
    Column("appointment"),
    Column("command"),
    Column("status"),
    Column("waits for"),
    Column("why"),
    Column("since"),
    Column("for", is_number=True),
)
_WAITING: Final = (Column("appointment"), Column("location"), Column("booked"), Column("for", is_number=True))
_LOST: Final = (
    Column("appointment"),
    Column("command"),
    Column("ended as"),
    Column("why"),
    Column("accepted"),
    Column("until it ended", is_number=True),
)
_CALLS: Final = (
    Column("appointment"),
    Column("command"),
    Column("ended as"),
    Column("why"),
    Column("recorded"),
    Column("call", is_number=True),
)


def content(figures: Figures, zone: tzinfo) -> str:
    """Write the section."""
    tables = (_doubts(figures, zone), _waiting(figures, zone), _lost(figures, zone), _calls(figures, zone))
    return f"{markup.paragraph(said(figures))}{''.join(tables)}"


def said(figures: Figures) -> str:
    """Say the most important in a sentence or two."""
    now = figures.now
    if now.doubts:
        text = f"{words.plural(now.in_doubt, 'appointment is', 'appointments are')} in doubt now, the longest for "
        text += f"{words.length(now.doubts[0].seconds)}."
    else:
        text = "No appointment is in doubt now."
    if not now.longest_waiting:
        return f"{text} None waits for its confirmation."
    waiting = words.plural(now.waiting, "waits", "wait")
    return f"{text} {waiting} for the confirmation, the longest for {words.length(now.longest_waiting[0].seconds)}."


def _doubts(figures: Figures, zone: tzinfo) -> str:
    rows = [
        (
            each.appointment_id,
            each.command,
            each.status,
            "a human" if each.state == "needs_attention" else "recovery",
            each.reason_code,
            words.instant(each.since, zone),
            words.length(each.seconds),
        )
        for each in figures.now.doubts
    ]
    caption = _caption(len(rows), figures.now.in_doubt)
    table = markup.table(caption, _DOUBTS, rows, empty="No appointment is in doubt.")
    return f"<h3>In doubt now</h3>{table}"


def _waiting(figures: Figures, zone: tzinfo) -> str:
    rows = [
        (each.appointment_id, each.provider_location_id, words.instant(each.since, zone), words.length(each.seconds))
        for each in figures.now.longest_waiting
    ]
    caption = _caption(len(rows), figures.now.waiting)
    table = markup.table(caption, _WAITING, rows, empty="No appointment waits for its confirmation.")
    return f"<h3>Waiting for confirmation now</h3>{table}"


def _lost(figures: Figures, zone: tzinfo) -> str:
    rows = [
        (
            each.appointment_id,
            each.command,
            each.state,
            each.reason_code,
            words.instant(each.accepted_at, zone),
            words.length(each.seconds),
        )
        for each in figures.longest_lost
    ]
    caption = _caption(len(rows), figures.headline.recovered)
    table = markup.table(caption, _LOST, rows, empty="No command lost an answer in this window.")
    return f"<h3>Lost answers that took longest to settle</h3>{table}"


def _calls(figures: Figures, zone: tzinfo) -> str:
    rows = [
        (
            each.appointment_id,
            each.command,
            each.event,
            each.reason_code,
            words.instant(each.recorded_at, zone),
            words.milliseconds(each.duration_ms),
        )
        for each in figures.slowest_calls
    ]
    calls = sum(each.call_ms.count for each in figures.outcomes)
    table = markup.table(_caption(len(rows), calls), _CALLS, rows, empty="Zocdoc was not called in this window.")
    return f"<h3>Slowest calls</h3>{table}"


def _caption(shown: int, total: int) -> str:
    return f"The longest {shown} of {words.number(total)}" if total > shown else "All, the longest first"
