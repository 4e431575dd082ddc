"""Data on stdout in four forms: a table for people; JSON, JSON lines and CSV for programs.

In the forms for programs every instant is UTC in one fixed form, `2026-12-01T14:00:00.000000Z`, and rows are written
one by one, so that memory stays flat.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import click

import lifecycle
from lifecycle.cli import words
from lifecycle.cli.options import Form
from lifecycle.reports import formulas

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from _typeshed import DataclassInstance

    Kind = Literal[
        "Appointment",
        "Attention",
        "AuditEvent",
        "BatchInfo",
        "BatchRow",
        "Check",
        "Delivery",
        "Described",
        "Drift",
        "Explanation",
        "FeedEvent",
        "Finding",
        "Recovered",
        "Verdict",
    ]


@contextmanager
def unread() -> Iterator[None]:
    """Print, and go on though whoever read stdout has gone: what is being done is not done for its words."""
    try:
        yield
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        words.drop(sys.stdout)


def one(record: DataclassInstance, *, form: Form) -> None:
    """Print one record: a sheet of its fields, a JSON object, or a CSV file of one row."""
    match form:
        case Form.TABLE:
            from lifecycle.cli import tables  # noqa: PLC0415 # loads rich

            click.echo(tables.sheet(_values(record)), nl=False)
        case Form.JSON:
            click.echo(json.dumps(_plain(record), indent=2))
        case Form.JSONL:
            _print_lines([record])
        case Form.CSV:
            _print_csv([record], _names(type(record)))


def many(records: Iterable[DataclassInstance], *, kind: Kind, form: Form) -> None:
    """Print records of a kind, none at all included: then CSV has its head and JSON an empty list."""
    match form:
        case Form.TABLE:
            from lifecycle.cli import tables  # noqa: PLC0415 # loads rich

            click.echo(tables.listing(records, kind=kind), nl=False)
        case Form.JSON:
            _print_array(records)
        case Form.JSONL:
            _print_lines(records)
        case Form.CSV:
            _print_csv(records, _names(getattr(lifecycle, kind)))


def _print_array(records: Iterable[DataclassInstance]) -> None:
    separator = "[\n"
    for record in records:
        sys.stdout.write(f"{separator}  {json.dumps(_plain(record))}")
        separator = ",\n"
    sys.stdout.write("[]\n" if separator == "[\n" else "\n]\n")


def _print_lines(records: Iterable[DataclassInstance]) -> None:
    for record in records:
        sys.stdout.write(f"{json.dumps(_plain(record))}\n")


def _print_csv(records: Iterable[DataclassInstance], names: tuple[str, ...]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(names)
    for record in records:
        writer.writerow([_cell(value) for value in _plain(record).values()])


def _names(kind: type[DataclassInstance]) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))


def _values(record: DataclassInstance) -> dict[str, Any]:
    return {name: getattr(record, name) for name in _names(type(record))}


def _plain(record: DataclassInstance) -> dict[str, Any]:
    return {name: _utc(value) for name, value in _values(record).items()}


def _utc(value: object) -> object:
    if not isinstance(value, datetime):
        return value
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _cell(value: object) -> object:
    """Give a value as a CSV cell: nothing for None, true and false, JSON for what has parts."""
    match value:
        case bool():
            return "true" if value else "false"
        case Mapping() | list() | tuple():
            return json.dumps(value)
        case str():
            return formulas.guarded(value)
        case _:
            return value
