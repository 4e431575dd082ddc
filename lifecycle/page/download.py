"""CSV of what is shown: all events that the filters choose, and the tables behind the figures.

RFC 4180, instants in UTC, lines that end with LF; a cell that a spreadsheet would run gets an apostrophe. Events are
read a page at a time, so no transaction is open while a slow reader takes them.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import fields
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, Final

from lifecycle import columns, views
from lifecycle.records import AuditEvent
from lifecycle.reports import formulas, pages, selection

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lifecycle.database import Database
    from lifecycle.reports.filters import Filters

TABLES: Final = {
    "transitions": (views.transitions, "Moves, how often and after how long"),
    "funnel": (views.funnel, "How far appointments came, by week"),
    "cancellations": (views.cancellations, "Cancellations by week, reason and actor"),
    "refusals": (views.refusals, "What was refused or rejected"),
}
"""Views that count: few rows, however many events."""

_AT_ONCE: Final = 1_000
_NAMES: Final = tuple(field.name for field in fields(AuditEvent))


def events(database: Database, filters: Filters, cursor: str | None) -> tuple[str, str | None]:
    """Read the next thousand events, newest first, as CSV; the head comes with the first. Give the cursor to go on."""
    found = pages.page(database, filters, cursor=cursor, limit=_AT_ONCE)
    rows = ([getattr(event, name) for name in _NAMES] for event in found.events)
    return _written(rows, head=_NAMES if cursor is None else None), found.next


def table(database: Database, name: str, filters: Filters) -> str:
    """Read the table of a figure as CSV. Its numbers are those of the view, made of the chosen events only."""
    view = TABLES[name][0]
    statement = selection.rows(view, filters, dialect=database.engine.dialect.name)
    with database.read() as connection:
        return _written(connection.execute(statement), head=[column.name for column in view.table.columns])


def _written(rows: Iterable[Iterable[Any]], *, head: Sequence[str] | None) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    if head is not None:
        writer.writerow(head)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue()


def _cell(value: object) -> object:
    match value:
        case bool():
            return "true" if value else "false"
        case datetime():
            return columns.utc_text(value)
        case date():
            return value.isoformat()
        case Mapping():
            return json.dumps(value)
        case str():
            return formulas.guarded(value)
        case _:
            return value
