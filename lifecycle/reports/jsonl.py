"""JSON lines: an object for each row, NULL as null, instants as `2026-12-01T14:00:00.000000Z`, details as an object."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from lifecycle.reports import cells, selection, streams
from lifecycle.reports.chunks import Chunk

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from lifecycle.database import Database
    from lifecycle.reports.filters import Filters
    from lifecycle.views import View


def chunks(database: Database, view: View, filters: Filters) -> Generator[Chunk, None, None]:
    """Iterate over a view as pieces of JSON lines. The read ends with the iterator: exhaust or close it."""
    for block in objects(database, view, filters):
        yield Chunk(lines(block), len(block))


def objects(database: Database, view: View, filters: Filters) -> Iterator[list[dict[str, Any]]]:
    """Iterate over a view as lists of what JSON can hold, by the names of the columns."""
    dialect = database.engine.dialect
    chosen = cells.as_json(view, dialect=dialect.name)
    statement = selection.statement(view, filters, dialect=dialect.name, cells=chosen)
    columns = tuple(view.table.columns)
    names = [column.name for column in columns]
    converters = {
        column.name: convert
        for column in columns
        if isinstance(column.type, _CONVERTED) and (convert := streams.converter(column.type, dialect)) is not None
    }
    for block in streams.blocks(database, statement):
        found = [dict(zip(names, row, strict=True)) for row in block]
        for name, convert in converters.items():
            for each in found:
                each[name] = convert(each[name])
        yield found


def lines(objects: list[dict[str, Any]]) -> bytes:
    """Write each object as a line."""
    return "".join(f"{_ENCODE(each)}\n" for each in objects).encode()


_CONVERTED: Final = (sa.Boolean, sa.JSON)
_ENCODE: Final = json.JSONEncoder(separators=(",", ":")).encode
