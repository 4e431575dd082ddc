"""The form of the filters: plain GET, so that an address is all that a colleague needs to see the same."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from lifecycle import audit, chart
from lifecycle.page import asked as asking
from lifecycle.page.html import Html, element, joined

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from lifecycle.page.asked import Asked

OUTCOMES: Final = ("applied", "rejected", "not_sent", "unknown", "refused")
SOURCES: Final = ("api", "cli", "webhook", "sync", "recovery", "operator")
ZONES: Final = (
    "UTC",
    "America/New_York",
    "America/Chicago",
    "America/Denver",
    "America/Phoenix",
    "America/Los_Angeles",
    "America/Anchorage",
    "Pacific/Honolulu",
    "America/Puerto_Rico",
)
"""Suggested; any other of the IANA database may be typed."""

_CHOSEN: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "event": ("Event", tuple(map(str, audit.Event))),
    "command": ("Command", tuple(map(str, chart.Command))),
    "outcome": ("Outcome", OUTCOMES),
}
_USUAL: Final = {"provider_location_id": "Provider location", "actor": "Actor"}
_TYPED: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "appointment_id": ("Appointment", ()),
    "status": ("Status after the event", tuple(map(str, chart.Status))),
    "source": ("Source", SOURCES),
}
_WINDOWS: Final = ((1, "24 hours"), (7, "7 days"), (30, "30 days"), (90, "90 days"), (365, "a year"))


def filters(given: Mapping[str, str], *, path: str, zone: str, wrong: str | None = None) -> Html:
    """Write the form with the words as they were typed; `wrong` is the field that cannot be understood."""
    shown = {asking.ZONE: zone} | dict(given)
    usual = [
        _typed("since", "Since", shown, wrong, hint="Such as 2026-12-01; empty: 30 days ago"),
        _typed("until", "Until, not included", shown, wrong, hint="Such as 2026-12-31; empty: now"),
        *(_typed(name, label, shown, wrong) for name, label in _USUAL.items()),
    ]
    more = [
        *(_typed(name, label, shown, wrong, suggested=words) for name, (label, words) in _TYPED.items()),
        *(_chosen(name, label, words, shown) for name, (label, words) in _CHOSEN.items()),
        _typed(asking.ZONE, "Time zone", shown, wrong, suggested=ZONES),
    ]
    is_used = any(name in given or name == wrong for name in (*_TYPED, *_CHOSEN, asking.ZONE))
    buttons = element("p", element("button", "Show", type="submit"), " ", element("a", "Clear all", href=path))
    return element(
        "form",
        element("div", *usual, class_="fields"),
        element("details", element("summary", "More filters"), element("div", *more, class_="fields"), open=is_used),
        buttons,
        method="get",
        action=path,
        class_="filters",
        role="search",
        aria_label="Filters",
    )


def windows(asked: Asked, *, path: str, now: datetime) -> Html:
    """Write links to the usual lengths of time, with the other filters as they are."""
    links = []
    for days, name in _WINDOWS:
        since = (now - timedelta(days=days)).astimezone(asked.zone).isoformat(timespec="minutes")
        links.append(element("li", element("a", name, href=asked.link(path, since=since, until=None))))
    return element("ul", *links, class_="windows", aria_label="The last")


def _typed(  # a field and what belongs to it
    name: str,
    label: str,
    shown: Mapping[str, str],
    wrong: str | None,
    *,
    suggested: Iterable[str] = (),
    hint: str = "",
) -> Html:
    offered = [element("option", value=word) for word in suggested]
    field = element(
        "input",
        type="text",
        id=name,
        name=name,
        value=shown.get(name),
        list=f"{name}-words" if offered else None,
        aria_describedby=f"{name}-hint" if hint else None,
        aria_invalid="true" if name == wrong else None,
        spellcheck="false",
        autocapitalize="none",
        autocomplete="off",
        maxlength=asking.LONGEST,
    )
    return element(
        "div",
        element("label", label, for_=name),
        field,
        element("datalist", *offered, id=f"{name}-words") if offered else None,
        element("small", hint, id=f"{name}-hint") if hint else None,
    )


def _chosen(name: str, label: str, words: Iterable[str], shown: Mapping[str, str]) -> Html:
    options = [element("option", "any", value="")]
    options += [element("option", word, value=word, selected=shown.get(name) == word) for word in words]
    return element("div", element("label", label, for_=name), joined(element("select", *options, id=name, name=name)))
