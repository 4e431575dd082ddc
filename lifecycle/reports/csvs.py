"""CSV: the database formats the cells, and C code of the driver or of Python's csv module writes them.

Cells are quoted as RFC 4180 says, lines end with LF, NULL is an empty cell, Booleans are true and false.
"""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from lifecycle.reports import cells, formulas, selection, streams
from lifecycle.reports.chunks import Chunk

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from lifecycle.database import Database
    from lifecycle.reports.filters import Filters
    from lifecycle.views import View


def chunks(database: Database, view: View, filters: Filters, *, guard: bool = True) -> Generator[Chunk, None, None]:
    """Iterate over a view as pieces of CSV, the head first. `guard`: no cell begins like a formula.

    The read ends with the iterator: exhaust or close it.
    """
    dialect = database.engine.dialect.name
    chosen = cells.as_csv(view, dialect=dialect, guard=guard)
    statement = selection.statement(view, filters, dialect=dialect, cells=chosen)
    names = [column.name for column in view.table.columns]
    yield Chunk(_written([[formulas.guarded(name) if guard else name for name in names]]), 0)
    if database.is_postgres:
        yield from (Chunk(b"".join(block), len(block)) for block in streams.copied(database, statement))
    else:
        yield from (Chunk(_written(block), len(block)) for block in streams.blocks(database, statement))


def _written(rows: Iterable[Iterable[object]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
