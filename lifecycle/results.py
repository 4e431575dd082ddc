"""The result file of a batch: one line for each row of its input, in order, whatever became of it."""

from __future__ import annotations

import csv
import io
from typing import IO, TYPE_CHECKING, Final

from lifecycle import columns, files
from lifecycle.reports import formulas

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

    from lifecycle.batches import BatchRow

HEAD: Final = (
    "row",
    "appointment_id",
    "command",
    "state",
    "reason_code",
    "http_status",
    "zocdoc_request_id",
    "command_id",
    "attempts",
    "ended_at",
)


def write(rows: Iterable[BatchRow], path: str | os.PathLike[str]) -> int:
    """Write the rows as CSV into a file that appears whole or not at all, readable for its owner; give their number.

    Instants are UTC, and text that a spreadsheet would run gets an apostrophe. Memory stays flat. Raises
    `InvalidArgument` for a place that holds something else than a file, `OSError`.
    """
    with files.written(path, is_private=True) as file:
        return _write(rows, file)


def _write(rows: Iterable[BatchRow], file: IO[bytes]) -> int:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEAD)
    number = 0
    for number, row in enumerate(rows, start=1):  # noqa: B007 # it is what is given
        writer.writerow(_cells(row))
    text.detach()
    return number


def _cells(row: BatchRow) -> tuple[object, ...]:
    return (
        row.row,
        _guarded(row.appointment_id),
        row.command,
        row.state,
        _guarded(row.reason_code),
        row.http_status,
        _guarded(row.zocdoc_request_id),
        row.command_id,
        row.attempt,
        None if row.ended_at is None else columns.utc_text(row.ended_at),
    )


def _guarded(text: str | None) -> str | None:
    return None if text is None else formulas.guarded(text)
