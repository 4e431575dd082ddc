"""The data dictionary: every table and view with its columns, types and comments, from the definitions in the code."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from lifecycle import models, views

if TYPE_CHECKING:
    from collections.abc import Iterator

_SOURCE: Final = "lifecycle"
_ABOUT: Final = "Zocdoc appointments, the commands on them, and their append-only audit trail. Instants are UTC."
_POSTGRES: Final = postgresql.dialect()  # type: ignore[no-untyped-call] # SQLAlchemy leaves it untyped
_SQLITE: Final = sqlite.dialect()
_OF_VIEWS: Final = {"varchar": "text", "float": "double precision"}
"""Columns of views have types without a length, which have a plainer name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """A column of a table or view. `type` is PostgreSQL's. `is_nullable` None: a view does not tell.

    `is_unique`: alone it tells the rows of the table apart.
    """

    relation: str
    kind: str
    about: str
    position: int
    column: str
    type: str
    sqlite_type: str
    is_nullable: bool | None
    is_unique: bool
    comment: str


def described() -> Iterator[Described]:
    """Iterate over the columns, table by table, then view by view. Reads no database."""
    for table in models.metadata.tables.values():
        yield from _columns(table, "table", _unique(table))
    for view in views.ALL:
        yield from _columns(view.table, "view", set())


def dbt() -> str:
    """Write the tables and views as a sources file of dbt, with the tests that the tables' own rules are.

    Texts are JSON strings, which are YAML scalars whatever is in them.
    """
    lines = ["version: 2", "sources:", f"  - name: {_SOURCE}", f"    description: {json.dumps(_ABOUT)}", "    tables:"]
    relation = ""
    for each in described():
        if each.relation != relation:
            relation = each.relation
            lines += [f"      - name: {relation}", f"        description: {json.dumps(each.about)}", "        columns:"]
        lines += _dbt_column(each)
    return "\n".join(lines) + "\n"


def _dbt_column(each: Described) -> Iterator[str]:
    yield f"          - name: {json.dumps(each.column)}"
    yield f"            description: {json.dumps(each.comment)}"
    yield f"            data_type: {json.dumps(each.type)}"
    if not each.column.isidentifier():
        yield "            quote: true"
    rules = (("not_null", each.is_nullable is False), ("unique", each.is_unique))
    tests = [name for name, holds in rules if holds]
    if tests:
        yield f"            data_tests: [{', '.join(tests)}]"


def _columns(table: sa.Table, kind: str, unique: set[str]) -> Iterator[Described]:
    for position, column in enumerate(table.columns, 1):
        yield Described(
            relation=table.name,
            kind=kind,
            about=table.comment or "",
            position=position,
            column=column.name,
            type=_written(column, _POSTGRES),
            sqlite_type=_written(column, _SQLITE),
            is_nullable=bool(column.nullable) if kind == "table" else None,
            is_unique=column.name in unique,
            comment=column.comment or "",
        )


def _written(column: sa.Column[object], dialect: sa.Dialect) -> str:
    text = column.type.compile(dialect).lower()
    return _OF_VIEWS.get(text, text)


def _unique(table: sa.Table) -> set[str]:
    """Give the columns that are a key alone."""
    keys = [each for each in table.constraints if isinstance(each, sa.PrimaryKeyConstraint | sa.UniqueConstraint)]
    return {key.columns[0].name for key in keys if len(key.columns) == 1}
