"""How a column is written in SQL, so that the database does the formatting of an export, row by row, in C.

Instants become `2026-12-01T14:00:00.000000Z` (SQLite stores them so). On PostgreSQL this needs the settings of
`streams`: a session in UTC, dates in ISO form.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from lifecycle.columns import UtcDateTime
from lifecycle.reports import formulas, selection

if TYPE_CHECKING:
    from lifecycle.views import View

_STARTS: Final = ", ".join(str(ord(start)) for start in formulas.STARTS)
_INSTANT: Final = """to_char({0}, 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""


def plain(view: View) -> list[str]:
    """Select the columns as they are."""
    return [_name(column) for column in view.table.columns]


def as_csv(view: View, *, dialect: str, guard: bool) -> list[str]:
    """Select text of CSV cells, numbers as they are. `guard`: no text begins like a formula."""
    return [_named(column, _csv(column, dialect, guard=guard)) for column in view.table.columns]


def as_json(view: View, *, dialect: str) -> list[str]:
    """Select the columns as they are, but instants and dates as text."""
    return [_named(column, _json(column, dialect)) for column in view.table.columns]


def as_arrow(view: View, *, dialect: str) -> list[str]:
    """Select the columns as they are, but JSON as text."""
    return [_named(column, _arrow(column, dialect)) for column in view.table.columns]


def _csv(column: sa.Column[Any], dialect: str, *, guard: bool) -> str:
    name = _name(column)
    if isinstance(column.type, sa.Boolean):
        return f"CASE WHEN {name} THEN 'true' WHEN NOT {name} THEN 'false' END"
    if guard and isinstance(column.type, sa.String):
        first = "ascii" if dialect == "postgresql" else "unicode"
        return f"CASE WHEN {first}({name}) IN ({_STARTS}) THEN '''' || {name} ELSE {name} END"
    return _json(column, dialect)


def _json(column: sa.Column[Any], dialect: str) -> str:
    name = _name(column)
    if dialect == "postgresql" and isinstance(column.type, UtcDateTime):
        return _INSTANT.format(name)
    if dialect == "postgresql" and isinstance(column.type, sa.Date):
        return f"CAST({name} AS text)"
    return name


def _arrow(column: sa.Column[Any], dialect: str) -> str:
    name = _name(column)
    return f"CAST({name} AS text)" if dialect == "postgresql" and isinstance(column.type, sa.JSON) else name


def _name(column: sa.Column[Any]) -> str:
    return f'{selection.ALIAS}."{column.name}"'


def _named(column: sa.Column[Any], expression: str) -> str:
    return f'{expression} AS "{column.name}"'
