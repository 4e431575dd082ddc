"""Exports: the rows of a view in a file, streamed, whole or not at all."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from typing import IO, TYPE_CHECKING, Final

import sqlalchemy as sa

from lifecycle import errors, files, models
from lifecycle.reports import arrow, cloudevents, csvs, jsonl, sources

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from lifecycle.database import Database
    from lifecycle.reports.chunks import Chunk
    from lifecycle.reports.filters import Filters
    from lifecycle.views import View

    Progress = Callable[[int, int | None], object]
    Target = str | os.PathLike[str] | IO[bytes]


class Format(StrEnum):
    """How an export is written. In all of them instants are UTC, and text is UTF-8."""

    CSV = "csv"  # RFC 4180 quoting, a head, lines that end with LF; NULL is an empty cell
    JSONL = "jsonl"  # a JSON object a line; NULL is null
    PARQUET = "parquet"  # types and comments kept
    CLOUDEVENTS = "cloudevents"  # CloudEvents 1.0, structured JSON, one a line; views that have one row for each event


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What was exported: the view by its full name, the format, and how many rows."""

    view: str
    format: str
    rows: int


def export(
    database: Database,
    view: str,
    target: Target,
    *,
    form: str,
    filters: Filters,
    guard: bool = True,
    on_progress: Progress | None = None,
) -> Exported:
    """Write the rows of a view, in its order, into a file that appears whole or not at all, or into an open one.

    `guard`: CSV cells that a spreadsheet would run get an apostrophe. One statement, so one snapshot of the database;
    memory stays flat. Raises `InvalidArgument`, `ConfigurationError` (Parquet without pyarrow), `OSError`, and as a
    read does.
    """
    source = sources.named(view)
    chosen = _format(form, source)
    total = None if on_progress is None else _total(database, source, filters)
    with closing(_chunks(database, source, filters, form=chosen, guard=guard)) as chunks:
        if isinstance(target, str | os.PathLike):
            with files.written(target) as file:
                rows = _copy(chunks, file, total, on_progress)
        else:
            rows = _copy(chunks, target, total, on_progress)
    return Exported(view=source.name, format=chosen, rows=rows)


def _format(form: str, source: View) -> Format:
    if form not in set(Format):
        raise errors.InvalidArgument(argument="format", problem=f"use one of {', '.join(Format)}")
    if form == Format.PARQUET:
        arrow.check()
    if form == Format.CLOUDEVENTS:
        cloudevents.check(source)
    return Format(form)


def _chunks(
    database: Database, source: View, filters: Filters, *, form: Format, guard: bool
) -> Generator[Chunk, None, None]:
    match form:
        case Format.CSV:
            return csvs.chunks(database, source, filters, guard=guard)
        case Format.JSONL:
            return jsonl.chunks(database, source, filters)
        case Format.PARQUET:
            return arrow.chunks(database, source, filters)
        case Format.CLOUDEVENTS:
            return cloudevents.chunks(database, source, filters)


def _copy(chunks: Iterator[Chunk], file: IO[bytes], total: int | None, on_progress: Progress | None) -> int:
    rows = 0
    for chunk in chunks:
        file.write(chunk.data)
        rows += chunk.rows
        if on_progress is not None:
            on_progress(rows, total)
    return rows


def _total(database: Database, source: View, filters: Filters) -> int | None:
    """Tell about how many rows will come, where an index knows: `seq` counts the events, but for a few gaps."""
    if source.name not in sources.EVENTS or filters.given:
        return None
    with database.read() as connection:
        found: int | None = connection.execute(_NEWEST).scalar()
    return found


_NEWEST: Final = sa.select(sa.func.max(models.audit_events.c.seq))
