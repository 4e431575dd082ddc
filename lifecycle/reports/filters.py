"""Which audit events are meant: one set of conditions for pages, exports, figures, the report and the page."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Final, TypedDict

import sqlalchemy as sa

from lifecycle import errors, models
from lifecycle.resources import check_appointment_id, check_instant, check_name

if TYPE_CHECKING:
    from datetime import datetime, timedelta

_LONGEST: Final = {"provider_location_id": 255}
_LENGTH: Final = 200


class Given(TypedDict, total=False):
    """The conditions as keyword arguments, for functions that make `Filters` of them."""

    appointment_id: str | None
    status: str | None
    event: str | None
    command: str | None
    actor: str | None
    source: str | None
    outcome: str | None
    provider_location_id: str | None
    since: datetime | None
    until: datetime | None
    as_of: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Conditions on audit events, all of which must hold; None: any.

    `status` is the one after the event. `since` is inclusive, `until` exclusive, `as_of` inclusive; they are aware
    instants, compared with `recorded_at`. Raises `InvalidArgument` for a value that no event could have, and for a
    window that ends before it begins. Values only ever travel as bound parameters.
    """

    appointment_id: str | None = None
    status: str | None = None
    event: str | None = None
    command: str | None = None
    actor: str | None = None
    source: str | None = None
    outcome: str | None = None
    provider_location_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    as_of: datetime | None = None

    def __post_init__(self) -> None:
        if self.appointment_id is not None:
            check_appointment_id(self.appointment_id)
        for name, value in self.given.items():
            if name in _INSTANTS:
                check_instant(name, value)
            elif name != "appointment_id":
                check_name(name, value, at_most=_LONGEST.get(name, _LENGTH))
        if self.since is not None and self.until is not None and self.until < self.since:
            raise errors.InvalidArgument(argument="until", problem="the window ends before it begins")

    @property
    def given(self) -> dict[str, Any]:
        """The conditions that there are, by name."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    def before(self, length: timedelta) -> Filters:
        """Give the same conditions for the window of this length that ends where this one begins."""
        return replace(self, since=None if self.since is None else self.since - length, until=self.since)


COMPARISONS: Final = {
    "appointment_id": ("appointment_id", "="),
    "status": ("to_status", "="),
    "event": ("event", "="),
    "command": ("command", "="),
    "actor": ("actor", "="),
    "source": ("source", "="),
    "outcome": ("outcome", "="),
    "provider_location_id": ("provider_location_id", "="),
    "since": ("recorded_at", ">="),
    "until": ("recorded_at", "<"),
    "as_of": ("recorded_at", "<="),
}
"""Each filter, the column of `lifecycle_audit_events` that it compares, and how."""

_INSTANTS: Final = ("since", "until", "as_of")


def where(filters: Filters) -> tuple[list[str], list[sa.BindParameter[Any]]]:
    """Write the conditions as SQL on the columns of `lifecycle_audit_events`, with their values as bound parameters."""
    texts: list[str] = []
    bound: list[sa.BindParameter[Any]] = []
    for name, value in filters.given.items():
        column, operator = COMPARISONS[name]
        texts.append(f"{column} {operator} :{name}")
        bound.append(sa.bindparam(name, value, models.audit_events.c[column].type))
    return texts, bound
