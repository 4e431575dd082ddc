"""Choosing tracked appointments by conditions such as `status=confirmed` and `start_time>=2026-12-01T00:00:00-05:00`.

Values only ever travel as bound parameters; fields and comparisons are words of a fixed list.
"""

from __future__ import annotations

import operator
import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from lifecycle import errors, models
from lifecycle.reports import instants
from lifecycle.resources import check_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from datetime import datetime
    from zoneinfo import ZoneInfo

    from lifecycle.database import Database

_WORDS: Final = ("status", "provider_location_id", "practice_id", "visit_reason_id", "booked_with")
_INSTANTS: Final = ("start_time",)

_EQUALITIES: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "=": operator.eq,
    "!=": lambda column, value: column.is_distinct_from(value),
}
_ORDERS: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}

_PAGE: Final = 5_000
"""Ids read at a time: no transaction stays open while the caller works on them."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One comparison of a column of `lifecycle_appointments`. An instant is aware."""

    field: str
    comparison: str
    value: str | datetime


def parse(text: str, *, zone: ZoneInfo, argument: str = "where") -> Condition:
    """Read a condition. Words take `=` and `!=`, instants `>=`, `>`, `<=` and `<`.

    `zone` gives the offset of an instant that has none. Raises `InvalidArgument` that names what there is.
    """
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise _refusal(argument, "it is no condition")
    field, comparison, value = match.groups()
    if field in _INSTANTS and comparison in _ORDERS:
        return Condition(field, comparison, instants.read(value, zone=zone, argument=argument))
    if field in _WORDS and comparison in _EQUALITIES:
        return Condition(field, comparison, check_name(argument, value, at_most=_LONGEST))
    known = field in _INSTANTS or field in _WORDS
    raise _refusal(argument, f"{field} cannot be compared by {comparison}" if known else f"there is no field {field}")


def appointments(database: Database, conditions: Iterable[Condition]) -> Iterator[str]:
    """Iterate over the ids of the tracked appointments that meet the conditions, by id.

    All of them must hold; of several `=` on one field, one. Database only; memory stays flat.
    """
    query = sa.select(_appointments.c.appointment_id).where(*_clauses(conditions))
    query = query.order_by(_appointments.c.appointment_id).limit(_PAGE)
    last = ""
    while True:
        with database.read() as connection:
            found = connection.execute(query.where(_appointments.c.appointment_id > last)).scalars().all()
        yield from found
        if len(found) < _PAGE:
            return
        last = found[-1]


def _clauses(conditions: Iterable[Condition]) -> list[sa.ColumnElement[bool]]:
    clauses, wanted = [], defaultdict(list)
    for each in conditions:
        if each.comparison == "=":
            wanted[each.field].append(each.value)
        else:
            compare = _ORDERS.get(each.comparison) or _EQUALITIES[each.comparison]
            clauses.append(compare(_appointments.c[each.field], each.value))
    return clauses + [_appointments.c[name].in_(values) for name, values in wanted.items()]


def _refusal(argument: str, problem: str) -> errors.InvalidArgument:
    fields = f"{', '.join(_WORDS)} take = and !=, {', '.join(_INSTANTS)} takes >=, >, <= and <"
    return errors.InvalidArgument(argument=argument, problem=f"{problem}; {fields}, such as status=confirmed")


_appointments: Final = models.appointments
_CONDITION: Final = re.compile(r"\s*([a-z_]{1,40})\s*(>=|<=|!=|=|>|<)\s*(\S(?:.*\S)?)\s*")
_LONGEST: Final = 255
