"""One appointment's story: how it stands, and its steps in the order in which they happened."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from lifecycle import records
from lifecycle.page.html import Html, element, joined
from lifecycle.page.layout import moment
from lifecycle.reports import pages, telling
from lifecycle.reports.filters import Filters

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from zoneinfo import ZoneInfo

    from lifecycle.database import Database
    from lifecycle.page.asked import Asked
    from lifecycle.records import Appointment, AuditEvent


STEPS: Final = 200
"""Steps on a page; hardly an appointment has more."""

_IN_SENTENCE: Final = "start_time"
_SHOWN: Final = 8
"""Characters of an id."""


def content(database: Database, appointment_id: str, asked: Asked) -> Html:
    """Read an appointment and its newest steps, and write them. Raises `AppointmentNotFound`, `InvalidArgument`."""
    appointment = records.get(database, appointment_id)
    found = pages.page(database, Filters(appointment_id=appointment_id), cursor=asked.cursor, limit=STEPS)
    return joined(
        element("h1", "Appointment ", element("span", appointment_id, class_="id")),
        element("h2", "As it stands"),
        standing(appointment, asked.zone),
        element("h2", "What happened"),
        element("p", f"Oldest first; times in {asked.zone.key}.", class_="note"),
        _further("Earlier steps", asked, appointment_id, found.next),
        timeline(found.events[::-1], asked.zone),
        _further("Later steps", asked, appointment_id, found.previous),
    )


def standing(appointment: Appointment, zone: ZoneInfo) -> Html:
    """Write how the appointment stands now."""
    facts: list[tuple[str, object]] = [
        ("Status", status(appointment.status)),
        ("Since", moment(appointment.status_since, zone)),
        ("Visit begins", _with_offset(appointment.start_time)),
        ("In doubt", element("strong", "yes") if appointment.in_doubt else "no"),
        ("Provider location", appointment.provider_location_id),
        ("Practice", appointment.practice_id),
        ("Visit reason", appointment.visit_reason_id),
        ("Booked with", appointment.booked_with),
        ("Booked", moment(appointment.booked_at, zone)),
        ("Arrived", moment(appointment.arrived_at, zone)),
        ("Followed since", moment(appointment.tracked_at, zone)),
    ]
    return element("dl", *(_fact(name, value) for name, value in facts if value), class_="facts")


def timeline(events: Sequence[AuditEvent], zone: ZoneInfo) -> Html:
    """Write the events, oldest first, as a list; each tells how long after the one before it came."""
    before: list[AuditEvent | None] = [None, *events[:-1]]
    return element(
        "ol", *(_step(event, last, zone) for event, last in zip(events, before, strict=False)), class_="timeline"
    )


def sentence(event: AuditEvent, zone: ZoneInfo) -> str:
    """Say what happened."""
    text = telling.what(event, zone=zone).replace("_", " ").replace(" -> ", " \N{RIGHTWARDS ARROW} ")
    return text[:1].upper() + text[1:]


def status(name: str) -> Html:
    """Write a status."""
    return element("span", name, class_="status")


def short(identifier: str) -> Html:
    """Write the beginning of a long id, which tells it from its neighbours; the whole is in the tooltip."""
    if len(identifier) <= _SHOWN:
        return element("span", identifier, class_="id")
    shown = f"{identifier[:_SHOWN]}\N{HORIZONTAL ELLIPSIS}"
    return element("span", shown, class_="id", title=identifier)


def _further(name: str, asked: Asked, appointment_id: str, cursor: str | None) -> Html:
    if cursor is None:
        return Html("")
    return element("p", element("a", name, href=asked.link(f"/appointments/{appointment_id}", cursor=cursor)))


def _step(event: AuditEvent, last: AuditEvent | None, zone: ZoneInfo) -> Html:
    head = element("p", moment(event.recorded_at, zone), _gap(event, last), class_="when")
    told = _facts(event, zone)
    if last is None or last.provider_location_id != event.provider_location_id:
        told.append(("Location", event.provider_location_id))
    facts = element("dl", *(_fact(name, value) for name, value in told if value is not None))
    return element("li", head, element("h3", sentence(event, zone)), facts, class_=_kind(event))


def _gap(event: AuditEvent, last: AuditEvent | None) -> Html:
    if last is None:
        return Html("")
    return element("span", f" {telling.lasted(event.recorded_at - last.recorded_at)} later", class_="gap")


def _facts(event: AuditEvent, zone: ZoneInfo) -> list[tuple[str, object]]:
    answer = None if event.http_status is None else f"HTTP {event.http_status}"
    took = None if event.duration_ms is None else f"{event.duration_ms:,} ms"
    told: list[tuple[str, object]] = [
        ("By", event.actor),
        ("Through", event.source),
        ("Outcome", event.outcome),
        ("Reason", event.reason_code),
        ("Reason for cancelling", event.reason_type),
        ("Happened at Zocdoc", moment(event.occurred_at, zone) if event.occurred_at else None),
        ("Answer", answer),
        ("Call took", took),
        ("Zocdoc request", event.zocdoc_request_id),
        ("Command", None if event.command_id is None else short(event.command_id)),
    ]
    return told + [(name, _plain(value)) for name, value in sorted(event.details.items()) if name != _IN_SENTENCE]


def _plain(value: object) -> str:
    """Write a value of an event's details: text as it is, all else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _kind(event: AuditEvent) -> str:
    """Give the class of a step; what it says is in the words too, never in colour alone."""
    if event.outcome in {"refused", "rejected", "not_sent"}:
        return "step no"
    if event.outcome == "unknown" or event.event in {"outcome_lost", "outcome_checked", "attention_needed"}:
        return "step doubt"
    is_moved = event.from_status not in {None, event.to_status}
    return "step moved" if is_moved else "step"


def _fact(name: str, value: object) -> Html:
    return element("div", element("dt", name), element("dd", value))


def _with_offset(start: datetime) -> Html:
    return element("time", start.isoformat(sep=" ", timespec="minutes"), datetime=start.isoformat())
