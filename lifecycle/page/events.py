"""The list of events: a table, newest first, each with the way to its appointment's story."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from lifecycle.page import story
from lifecycle.page.html import Html, element, escaped, joined
from lifecycle.page.layout import moment
from lifecycle.reports import pages

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lifecycle.database import Database
    from lifecycle.page.asked import Asked
    from lifecycle.records import AuditEvent

ROWS: Final = 100
"""Events on a page."""

_HEADS: Final = ("Recorded", "Appointment", "What happened", "Status after", "Why", "By", "Location")


def content(database: Database, asked: Asked) -> Html:
    """Read a page of events and write it, with the ways to the next and to all of them as CSV."""
    found = pages.page(database, asked.filters, cursor=asked.cursor, limit=ROWS)
    if not found.events:
        return element("p", "No event matches these filters.", class_="empty")
    steps = [
        _step("Newer", asked, found.previous, rel="prev"),
        _step("Older", asked, found.next, rel="next"),
        element("a", "Download as CSV", href=asked.link("/events.csv"), download="events.csv"),
    ]
    return joined(table(found.events, asked), element("nav", *steps, class_="paging", aria_label="Events"))


def table(events: Sequence[AuditEvent], asked: Asked) -> Html:
    """Write the events as a table; on a phone its rows stand as cards, so that the roles have to be said."""
    heads = (element("th", head, scope="col", role="columnheader") for head in _HEADS)
    head = element("thead", element("tr", *heads, role="row"), role="rowgroup")
    body = element("tbody", *(_row(event, asked) for event in events), role="rowgroup")
    caption = element("caption", f"Newest first; times in {asked.zone.key}")
    written = element("table", caption, head, body, class_="events", role="table")
    return element("div", written, class_="scroll", tabindex="0", role="region", aria_label="Events")


def address(appointment_id: str, asked: Asked) -> str:
    """Give the address of an appointment's story, with the time zone as it is."""
    zone = asked.given.get("time_zone")
    return asked.bare(f"/appointments/{appointment_id}", time_zone=zone)


def _step(name: str, asked: Asked, cursor: str | None, *, rel: str) -> Html:
    if cursor is None:
        return element("span", name, aria_disabled="true")
    return element("a", name, href=asked.link("/events", cursor=cursor), rel=rel)


def _row(event: AuditEvent, asked: Asked) -> Html:
    link = element("a", story.short(event.appointment_id), href=address(event.appointment_id, asked))
    cells = (
        moment(event.recorded_at, asked.zone),
        link,
        joined(story.sentence(event, asked.zone)),
        story.status(event.to_status),
        joined(_breakable(event.reason_code), " ", _breakable(event.reason_type)),
        joined(event.actor, " ", element("small", event.source)),
        _breakable(event.provider_location_id),
    )
    return element("tr", *(_cell(head, cell) for head, cell in zip(_HEADS, cells, strict=True)), role="row")


def _cell(head: str, content: Html) -> Html:
    written = element("span", content) if content.strip() else None
    if head == "Appointment":
        return element("th", written, scope="row", role="rowheader", data_head=head)
    return element("td", written, role="cell", data_head=head)


def _breakable(code: str | None) -> Html:
    """Let a long code go on in the next line after an underscore or a bar."""
    return Html(re.sub(r"([_|])", r"\1<wbr>", escaped(code)))
