"""An appointment's story for people: a heading for each day, a line for each event."""

from __future__ import annotations

from itertools import groupby, pairwise
from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from lifecycle.cli import tables, words
from lifecycle.reports import telling

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import date, datetime
    from zoneinfo import ZoneInfo

    from lifecycle.records import AuditEvent


def rendered(events: Sequence[AuditEvent], *, zone: ZoneInfo, now: datetime) -> str:
    """Lay out events of one appointment, oldest first; times are those of the zone, `now` is when it is looked at."""
    last = events[-1]
    ago = telling.lasted(now - last.recorded_at)
    head = f"{last.appointment_id} is {last.to_status}; the last event was {ago} ago; times are {zone.key}"
    steps = ["", *(f"+{telling.lasted(after.recorded_at - each.recorded_at)}" for each, after in pairwise(events))]
    parts: list[Table | Text] = [_text(head)]
    today = now.astimezone(zone).date()
    for day, found in groupby(
        zip(events, steps, strict=True), key=lambda each: each[0].recorded_at.astimezone(zone).date()
    ):
        parts += [_heading(day, today), _lines(found, zone)]
    return tables.rendered(Group(*parts))


def _heading(day: date, today: date) -> Text:
    days = (today - day).days
    ago = {0: "today", 1: "yesterday"}.get(days, f"{days} days ago")
    return Text.assemble((f"{day:%A} {day.day} {day:%B %Y}", "bold"), (f"  {ago}", "dim"))


def _lines(found: Iterable[tuple[AuditEvent, str]], zone: ZoneInfo) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(style="dim", no_wrap=True, justify="right")
    table.add_column(overflow="fold")
    for event, after in found:
        at = event.recorded_at.astimezone(zone).strftime("  %H:%M:%S")
        table.add_row(at, after, _text(telling.what(event, zone=zone)))
        table.add_row("", "", _text("; ".join(_evidence(event)), style="dim"))
    return table


def _evidence(event: AuditEvent) -> list[str]:
    how = telling.how(event)
    request = f"Zocdoc request id {event.zocdoc_request_id}" if event.zocdoc_request_id else ""
    return [part for part in (f"{event.actor} ({event.source})", how, request) if part]


def _text(text: str, style: str = "") -> Text:
    return Text(words.printable(text), style=style)
