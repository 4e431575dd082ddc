"""What a request asks for: the query's words become `Filters`, a time zone and a place in the list, or a plain no."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from lifecycle import errors
from lifecycle.reports import instants
from lifecycle.reports.filters import Filters

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime
    from zoneinfo import ZoneInfo

WINDOW: Final = timedelta(days=30)
"""What is shown when nobody says since when: of all appointments; of one everything."""

ZONE: Final = "time_zone"
CURSOR: Final = "cursor"
INSTANTS: Final = ("since", "until")
CHOICES: Final = tuple(each.name for each in fields(Filters) if each.name not in {*INSTANTS, "as_of"})
"""The filters that are words."""

_KNOWN: Final = frozenset({*CHOICES, *INSTANTS, ZONE, CURSOR})
LONGEST: Final = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request that can be answered. `given` are the words as typed, `cursor` is where a page of events begins."""

    filters: Filters
    zone: ZoneInfo
    given: Mapping[str, str] = field(default_factory=dict)
    cursor: str | None = None

    def link(self, path: str, **changes: str | None) -> str:
        """Write an address that asks for the same but for the changes; None takes a word out. Never the place."""
        words = {name: value for name, value in self.given.items() if name != CURSOR} | changes
        return self.bare(path, **words)

    def bare(self, path: str, **words: str | None) -> str:
        """Write an address that asks for these words only; None is no word."""
        return path + query({name: value for name, value in words.items() if value is not None})


def query(words: Mapping[str, str]) -> str:
    """Write words as the query of an address, with its question mark; nothing for none."""
    return f"?{urlencode(words)}" if words else ""


def words(items: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Collect a query's words; what is empty is not given. Raises `InvalidArgument` for one unknown or told twice."""
    found: dict[str, str] = {}
    for name, value in items:
        if name not in _KNOWN:
            problem = f"no such filter; there are {', '.join(sorted(_KNOWN))}"
            raise errors.InvalidArgument(argument=name[:LONGEST], problem=problem)
        if name in found:
            raise errors.InvalidArgument(argument=name, problem="it is given twice")
        if len(value) > LONGEST:
            raise errors.InvalidArgument(argument=name, problem=f"at most {LONGEST} characters")
        if value.strip():
            found[name] = value.strip()
    return found


def understood(given: Mapping[str, str], *, zone: str, now: datetime) -> Asked:
    """Make sense of the words; `zone` is the time zone if they name none. Raises `InvalidArgument`."""
    chosen = instants.zone(given.get(ZONE, zone))
    times = {name: instants.read(given[name], zone=chosen, argument=name) for name in INSTANTS if name in given}
    if "since" not in times and "appointment_id" not in given:
        times["since"] = _before(min(times.get("until", now), now))
    conditions: dict[str, Any] = {name: given[name] for name in CHOICES if name in given} | times
    filters = Filters(**conditions)
    return Asked(filters=filters, zone=chosen, given=dict(given), cursor=given.get(CURSOR))


def _before(end: datetime) -> datetime:
    try:
        return end - WINDOW
    except OverflowError:  # the calendar begins there
        return end
