"""Rows of text out of CSV and JSON lines, by line, with bounded memory. Pure but for the file that is handed over.

A file whose rows cannot be told apart for certain is refused, because a guess could take a part of a cell for a row.
"""

from __future__ import annotations

import csv
import json
import re
from dataclasses import dataclass, field
from itertools import chain
from typing import IO, TYPE_CHECKING, Final, NoReturn, Protocol

from lifecycle import errors

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_LONGEST_LINE: Final = 1 << 20
"""Bytes. Zocdoc's longest argument is far shorter; a file without line breaks must not fill the memory."""

_DELIMITERS: Final = (",", ";", "\t")
_ID: Final = "appointment_id"
_SECOND_NAMES: Final = {"id": _ID}
_FREE_TEXT: Final = "reason"
"""The one column whose blanks at the ends are somebody's words."""

_UTF16: Final = (b"\xff\xfe", b"\xfe\xff")
_MARK: Final = "\ufeff"


class Digest(Protocol):
    """What takes the bytes of the file."""

    def update(self, data: bytes, /) -> None:
        """Take the next bytes."""


@dataclass(frozen=True, slots=True)
class Line:
    """The cells of a row by their columns, without the empty ones; `number` is the line on which it ends.

    With a `problem` (a code) and the `column` that it is in, if it is in one, the cells may be incomplete.
    """

    number: int
    cells: dict[str, str] = field(default_factory=dict, repr=False)
    problem: str | None = None
    column: str | None = None


class Lines:
    """The lines of a file as text; bytes that are not UTF-8 come as lone surrogates, for the row to be refused."""

    def __init__(self, file: IO[bytes], digest: Digest, *, name: str) -> None:
        self.number = 0
        self._file = file
        self._digest = digest
        self._name = name

    def __iter__(self) -> Iterator[str]:
        while raw := self._file.readline(_LONGEST_LINE + 1):
            self.number += 1
            self._digest.update(raw)
            if len(raw) > _LONGEST_LINE:
                self.refuse(f"it is longer than {_LONGEST_LINE:,} bytes")
            if self.number == 1 and raw.startswith(_UTF16):
                self.refuse("it is UTF-16; save the file as UTF-8")
            text = raw.decode("utf-8", "surrogateescape")
            yield text.removeprefix(_MARK) if self.number == 1 else text

    def refuse(self, problem: str) -> NoReturn:
        """Raise `InvalidArgument` that names the file and the line that was read last."""
        raise errors.InvalidArgument(argument=self._name, problem=f"line {self.number}: {problem}")


def from_csv(lines: Lines, columns: Sequence[str]) -> Iterator[Line]:
    """Read CSV with a head of these columns, in any order. Raises `InvalidArgument` for a file that cannot be used."""
    texts = iter(lines)
    head = next(texts, "")
    reader = csv.reader(chain([head], texts), delimiter=_delimiter(head), strict=True)
    try:
        names = _names(next(reader, []), columns, lines)
        for cells in reader:
            if any(cells):
                yield _line(reader.line_num, names, cells)
    except csv.Error:
        # Not the text of the error: it may quote. Where one row ends and the next begins is not known from here on.
        lines.refuse("the row around here cannot be read: a quote that is not closed, or a cell that is far too long")


def from_jsonl(lines: Lines, columns: Sequence[str]) -> Iterator[Line]:
    """Read an object a line, with these keys. Raises `InvalidArgument` for a file that cannot be used."""
    for text in lines:
        if text.strip():
            yield _object(text, columns, lines)


def _delimiter(head: str) -> str:
    return max(_DELIMITERS, key=head.count)


def _names(head: Sequence[str], columns: Sequence[str], lines: Lines) -> list[str]:
    names = [_name(each) for each in head]
    if not set(names) & set(columns):
        lines.refuse(f"the first line must name the columns, of {', '.join(columns)}")
    _check_known(names, columns, lines)
    if len(set(names)) < len(names):
        lines.refuse("a column is there twice")
    if _ID not in names:
        lines.refuse(f"the column {_ID} is missing")
    return names


def _check_known(names: Sequence[str], columns: Sequence[str], lines: Lines) -> None:
    unknown = [(place, name) for place, name in enumerate(names, start=1) if name not in columns]
    if unknown:
        # What does not look like a name may be somebody's data in a file without a head.
        shown = (name if _NAME.fullmatch(name) else f"number {place}" for place, name in unknown[:_MOST_SHOWN])
        lines.refuse(f"unknown columns: {', '.join(shown)}; the columns here are {', '.join(columns)}")


def _name(text: str) -> str:
    plain = text.strip().lower()
    return _SECOND_NAMES.get(plain, plain)


def _line(number: int, names: Sequence[str], cells: Sequence[str]) -> Line:
    found = {name: text for name, cell in zip(names, cells, strict=False) if (text := _cell(name, cell))}
    if len(cells) != len(names):
        return Line(number, found, "wrong_number_of_cells")
    return _decoded(number, found)


def _decoded(number: int, cells: dict[str, str]) -> Line:
    for name, cell in cells.items():
        if not cell.isascii() and any("\ud800" <= letter <= "\udfff" for letter in cell):
            return Line(number, cells, "not_utf8", name)
    return Line(number, cells)


def _cell(name: str, text: str) -> str:
    return text if name == _FREE_TEXT and text.strip() else text.strip()


def _object(text: str, columns: Sequence[str], lines: Lines) -> Line:
    try:
        pairs = json.loads(text, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError):
        return Line(lines.number, problem="not_json")
    if not isinstance(pairs, _Pairs):
        return Line(lines.number, problem="not_an_object")
    names = [_name(name) for name, _ in pairs]
    _check_known(names, columns, lines)
    if len(set(names)) < len(names):
        return Line(lines.number, problem="doubled_key")
    return _typed(lines.number, dict(zip(names, (value for _, value in pairs), strict=True)))


def _typed(number: int, values: dict[str, object]) -> Line:
    cells = {}
    for name, value in values.items():
        if isinstance(value, str):
            cells[name] = _cell(name, value)
        elif value is not None:
            return Line(number, cells, "not_text", name)
    return _decoded(number, {name: cell for name, cell in cells.items() if cell})


class _Pairs(list[tuple[str, object]]):
    """The members of a JSON object as written, doubled ones too."""


_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,39}")
_MOST_SHOWN: Final = 10
