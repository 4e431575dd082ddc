"""Wishes from a file: CSV or JSON lines, read twice, so that a file that is not what it seems is refused as a whole.

What is wrong with the file (unknown columns, a quote that never ends) is an error before the first row is given, so
nothing of it is queued. What is wrong with a row (an id that is none, too few cells, the same appointment again) is
told in that row, and the rest goes on. Neither ever quotes a cell, which may be patient data.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from lifecycle import chart, errors, rowfiles, wishes, zocdoc

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ID: Final = "appointment_id"

_EVERY: Final = (ID, "request_key", "expires_at")
_OF_COMMAND: Final[Mapping[str, tuple[str, ...]]] = {
    chart.Command.CANCEL: ("reason_type", "reason"),
    chart.Command.RESCHEDULE: ("start_time",),
}
COLUMNS: Final = (ID, "command", "start_time", "reason_type", "reason", "request_key", "expires_at")
"""All columns that a file may have; `id` will do for `appointment_id`."""

_CACHE: Final = -16_000
"""KiB of the index of ids that stay in memory; the rest is in a file that has no name."""


class Form(StrEnum):
    """How a file of wishes is written. Both are UTF-8."""

    CSV = "csv"  # a head, then a row a wish; commas, semicolons or tabs; quoted cells may have line breaks
    JSONL = "jsonl"  # a JSON object a line, the columns as its keys, texts as its values


def read(
    path: str | os.PathLike[str],
    *,
    command: str | None = None,
    form: str | None = None,
    defaults: Mapping[str, str] | None = None,
) -> Wishlist:
    """Check a file of wishes as a whole, and give what iterates over its rows. Database and Zocdoc are not asked.

    `command` is what all rows want; then there is no such column, and columns of other commands are refused, so that a
    list of moves cannot be cancelled by a slip. `form` is `csv` or `jsonl`, None: the file's suffix tells. `defaults`
    are values for rows that have none of their own. Raises `InvalidArgument` for a file that cannot be used, named by
    its line, `OSError`. Memory stays flat.
    """
    place = os.fspath(path)
    found = Wishlist(path=place, form=_form(place, form), columns=_columns(command), defaults=dict(defaults or {}))
    digest, rows = hashlib.sha256(), 0
    for _ in found.lines(digest):
        rows += 1
    if not rows:
        raise errors.InvalidArgument(argument=place, problem="there is no row in it")
    return replace(found, rows=rows, digest=digest.hexdigest())


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row: `values` to be wished for, or the `problem` that it has, as a code.

    `number` counts the rows from 1 (no head, no empty lines), `line` the lines of the file. `column` is where the
    problem is, if it is in one. `appointment_id` is there if it has the form of one. `first_row` is the row that
    a `duplicate_of_row` repeats.
    """

    number: int
    line: int
    values: dict[str, Any] | None = field(default=None, repr=False)
    problem: str | None = None
    column: str | None = None
    appointment_id: str | None = None
    first_row: int | None = None


def rows(
    wanted: str | os.PathLike[str] | Iterable[Mapping[str, Any]] | Wishlist, *, command: str | None = None
) -> Iterator[Row]:
    """Iterate over rows wherever they come from: a file, one that was read, or mappings, numbered from 1.

    Raises `InvalidArgument` for a file that cannot be used, `OSError`.
    """
    if isinstance(wanted, str | os.PathLike):
        wanted = read(wanted, command=command)
    return iter(wanted) if isinstance(wanted, Wishlist) else _numbered(wanted)


def wish(values: Mapping[str, Any], *, actor: str, source: str, command: str | None = None) -> wishes.Wish:
    """Make a wish of a row's values and check its form. Raises `InvalidArgument` that names the column.

    `command` is for rows that name none. A value that is None counts as not given.
    """
    values = {name: value for name, value in values.items() if value is not None}
    if not values.keys() <= set(COLUMNS):
        raise errors.InvalidArgument(argument="column", problem=f"the columns are {', '.join(COLUMNS)}")
    if "expires_at" in values:
        wishes.instant_of("expires_at", values["expires_at"])
    return wishes.of(
        values.get("command", command),
        values.get(ID),
        actor=actor,
        source=source,
        request_key=values.get("request_key"),
        start_time=values.get("start_time"),
        reason_type=values.get("reason_type"),
        reason=values.get("reason"),
    )


def meaning(row: Row) -> str:
    """Tell in words what a row's problem is."""
    known = _MEANINGS.get(row.problem or "", "")
    return known.format(column=row.column, row=row.first_row)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishlist:
    """A file that was checked: how many rows it has, and the SHA-256 of its bytes, hex. Iterate as often as needed."""

    path: str
    form: Form
    columns: tuple[str, ...]
    defaults: dict[str, str] = field(default_factory=dict, repr=False)
    rows: int = 0
    digest: str = ""

    def __iter__(self) -> Iterator[Row]:
        """Iterate over the rows, sound and unsound. Raises `InvalidArgument` if the file is another one by now.

        Of a file that was changed since it was checked not one row is given; of one that is changed while this reads
        it, those before the end may have been.
        """
        digest = hashlib.sha256()
        with Path(self.path).open("rb") as file, closing(Seen()) as seen:
            if hashlib.file_digest(file, hashlib.sha256).hexdigest() != self.digest:
                raise errors.InvalidArgument(argument=self.path, problem="it was changed since it was checked")
            file.seek(0)
            for number, line in enumerate(self._lines(file, digest), start=1):
                yield _row(number, line, self.defaults, seen)
        if digest.hexdigest() != self.digest:
            raise errors.InvalidArgument(argument=self.path, problem="it was changed while it was read")

    def lines(self, digest: rowfiles.Digest) -> Iterator[rowfiles.Line]:
        """Iterate over the rows as they are written, and feed the file's bytes to the digest."""
        with Path(self.path).open("rb") as file:
            yield from self._lines(file, digest)

    def _lines(self, file: IO[bytes], digest: rowfiles.Digest) -> Iterator[rowfiles.Line]:
        lines = rowfiles.Lines(file, digest, name=self.path)
        written = rowfiles.from_csv if self.form is Form.CSV else rowfiles.from_jsonl
        yield from written(lines, self.columns)


def _numbered(wanted: Iterable[Mapping[str, Any]]) -> Iterator[Row]:
    for number, values in enumerate(wanted, start=1):
        if not isinstance(values, Mapping):
            yield Row(number=number, line=number, problem="invalid_row")
            continue
        given = {name: value for name, value in values.items() if value is not None}
        yield Row(number=number, line=number, values=given, appointment_id=_identified(rowfiles.Line(number, given))[0])


def _row(number: int, line: rowfiles.Line, defaults: Mapping[str, str], seen: Seen) -> Row:
    appointment_id, problem, column = _identified(line)
    first = seen.first(appointment_id, number) if appointment_id is not None and problem is None else number
    if first != number:
        problem, column = "duplicate_of_row", ID
    return Row(
        number=number,
        line=line.number,
        values={**defaults, **line.cells} if problem is None else None,
        problem=problem,
        column=column,
        appointment_id=appointment_id,
        first_row=None if first == number else first,
    )


def _identified(line: rowfiles.Line) -> tuple[str | None, str | None, str | None]:
    """Give the row's appointment id, if it has the form of one, and the row's first problem with its column."""
    given = line.cells.get(ID)
    if given is None:
        return None, line.problem or f"missing_{ID}", line.column if line.problem else ID
    try:
        return zocdoc.check_appointment_id(given), line.problem, line.column
    except zocdoc.MalformedAppointmentId:
        return None, line.problem or f"invalid_{ID}", line.column if line.problem else ID


class Seen:
    """Which names, such as ids, were in which row: exact, whatever the number, in little memory."""

    def __init__(self) -> None:
        # A database without a name is a file that is gone when it is closed, or when this process is.
        self._rows = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        for statement in (
            f"PRAGMA cache_size = {_CACHE}",
            "PRAGMA journal_mode = OFF",
            "CREATE TABLE seen (name TEXT PRIMARY KEY, row INTEGER NOT NULL) WITHOUT ROWID",
            "BEGIN",
        ):
            self._rows.execute(statement)

    def first(self, name: str, row: int) -> int:
        """Give the row in which the name came first, which may be this one."""
        made = self._rows.execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", (name, row))
        if made.rowcount:
            return row
        found: int = self._rows.execute("SELECT row FROM seen WHERE name = ?", (name,)).fetchone()[0]
        return found

    def close(self) -> None:
        """Drop it."""
        self._rows.close()


def _form(place: str, form: str | None) -> Form:
    wanted = form or Path(place).suffix.removeprefix(".").lower()
    if wanted not in set(Form):
        problem = f"the name ends with neither .csv nor .jsonl; say which format it has: {', '.join(Form)}"
        raise errors.InvalidArgument(argument=place, problem=problem)
    return Form(wanted)


def _columns(command: str | None) -> tuple[str, ...]:
    return COLUMNS if command is None else _in_order((*_EVERY, *_OF_COMMAND.get(command, ())))


def _in_order(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(names, key=COLUMNS.index))


_MEANINGS: Final = {
    "missing_appointment_id": "the row names no appointment",
    "invalid_appointment_id": "an appointment id is 1 to 64 letters, digits, hyphens and underscores",
    "duplicate_of_row": "row {row} names the same appointment; one wish for each",
    "wrong_number_of_cells": "the row has more or fewer cells than the head",
    "not_utf8": "{column} holds bytes that are not UTF-8",
    "not_json": "the line is not JSON",
    "not_an_object": "the line is not a JSON object",
    "doubled_key": "a key is there twice",
    "invalid_row": "it is no mapping",
    "not_text": "the value of {column} is not a text",
}
