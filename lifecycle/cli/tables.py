"""Tables for people. On a terminal they fit its width; in a pipe every row is one line, and nothing is cut off.

Cells are plain text: no markup in the data is interpreted, no control character reaches the terminal.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from lifecycle.cli import words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from lifecycle.reports.dictionary import Described

_ENDLESS: Final = 100_000
"""The width of a pipe: wider than any row."""

_GAP: Final = (0, 2, 0, 0)
"""Two blanks after each column."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column. `whole`: never wrapped, because people copy it. `narrow`: its width where space is short."""

    head: str
    value: Callable[[Any], object]
    whole: bool = False
    narrow: int | None = None


def listing(records: Iterable[object], *, kind: str) -> str:
    """Lay records out as rows, with the columns of their kind."""
    rows = [[_text(column.value(record)) for column in COLUMNS[kind]] for record in records]
    table = _table(COLUMNS[kind], rows, is_narrow=False)
    console = _console()
    if console.measure(table, options=console.options.update(max_width=_ENDLESS)).maximum > console.width:
        table = _table(COLUMNS[kind], rows, is_narrow=True)
    return rendered(table)


def sheet(values: Mapping[str, object]) -> str:
    """Lay one record out as a sheet: a line for each field."""
    table = Table(box=None, show_header=False, padding=_GAP)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in values.items():
        table.add_row(name, _text(value))
    return rendered(table)


def dictionary(described: Iterable[Described]) -> str:
    """Lay tables and views out one after the other, each with a heading and its columns."""
    parts: list[RenderableType] = []
    for (relation, kind, about), found in groupby(described, key=lambda each: (each.relation, each.kind, each.about)):
        parts.append(Text.assemble((relation, "bold cyan"), (f"  {kind}: {about}", "")))
        table = Table(box=None, show_header=False, padding=_GAP)
        table.add_column(no_wrap=True)
        table.add_column(style="dim", no_wrap=True)
        table.add_column(overflow="fold")
        for each in found:
            table.add_row(
                f"  {each.column}",
                each.type if each.is_nullable is not False else f"{each.type} not null",
                each.comment,
            )
        parts.append(table)
    return rendered(Group(*parts))


def rendered(item: RenderableType, *, is_whole: bool = False) -> str:
    """Render for stdout as it is now, a terminal or not, without trailing blanks. `is_whole`: wrap no line."""
    console = _console()
    with console.capture() as captured:
        console.print(item, soft_wrap=is_whole)
    lines = captured.get().splitlines()
    return "".join(f"{line.rstrip()}\n" for line in lines if line.strip())


def _console() -> Console:
    console = Console(file=sys.stdout, highlight=False)
    if not console.is_terminal:
        console.width = _ENDLESS
    return console


def _table(columns: tuple[Column, ...], rows: list[list[Text]], *, is_narrow: bool) -> Table:
    table = Table(box=None, padding=_GAP, pad_edge=False, header_style="bold")
    for column in columns:
        width = column.narrow if is_narrow else None
        table.add_column(column.head, no_wrap=column.whole, width=width, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _text(value: object) -> Text:
    return Text(words.printable(_words(value)))


def _words(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case datetime():
            return value.isoformat(sep=" ", timespec="seconds").replace("+00:00", "Z")
        case tuple() | list():
            return ", ".join(map(str, value))
        case Mapping():
            return json.dumps(value) if value else ""
        case _:
            return str(value)


def _status_then(event: Any) -> str:  # noqa: ANN401 # an audit event; naming its type would load the tables
    return str(event.to_status) if event.conforming else f"{event.to_status} (not conforming)"


def _last_read(attention: Any) -> str:  # noqa: ANN401 # as above
    if attention.remote_status is None:
        return "nothing could be read"
    return f"{attention.remote_status}, {attention.remote_start_time[:16]}Z"


def _verdict(check: Any) -> str:  # noqa: ANN401 # as above
    if check.ok is None:
        return "not looked at"
    return "well" if check.ok else str(check.severity)


def _facts(check: Any) -> str:  # noqa: ANN401 # as above
    return check.problem or ", ".join(
        f"{name} {_words(value)}" for name, value in check.facts.items() if value is not None
    )


COLUMNS: Final[Mapping[str, tuple[Column, ...]]] = {
    "Appointment": (
        Column("appointment", lambda it: it.appointment_id, whole=True),
        Column("status", lambda it: f"{it.status} (in doubt)" if it.in_doubt else it.status, narrow=18),
        Column("start", lambda it: it.start_time.isoformat(" ", "minutes"), narrow=11),
        Column("booked with", lambda it: it.booked_with),
    ),
    "Attention": (
        Column("command", lambda it: it.command_id, whole=True),
        Column("wish", lambda it: f"{it.command} of {it.appointment_id}", narrow=36),
        Column("why", lambda it: it.reason_code, narrow=16),
        Column("since", lambda it: it.since, narrow=10),
        Column("before", lambda it: f"{it.baseline_status}, {it.baseline_start_time:%Y-%m-%dT%H:%MZ}", narrow=18),
        Column("wanted", lambda it: it.target_status or it.target_start_time, narrow=18),
        Column("read", _last_read, narrow=18),
    ),
    "AuditEvent": (
        Column("recorded", lambda it: it.recorded_at, narrow=10),
        Column("appointment", lambda it: it.appointment_id, whole=True),
        Column("event", lambda it: f"{it.event} {it.command or ''}", narrow=20),
        Column("status then", _status_then, narrow=18),
        Column("outcome", lambda it: it.reason_code or it.outcome, narrow=12),
        Column("actor", lambda it: it.actor),
    ),
    "BatchInfo": (
        Column("batch", lambda it: it.batch_id, whole=True),
        Column("name", lambda it: it.name, narrow=16),
        Column("command", lambda it: it.command or "several", narrow=12),
        Column("rows", lambda it: it.total),
        Column("began", lambda it: it.created_at, narrow=10),
        Column("submitted", lambda it: it.submitted_at or "not to its end", narrow=10),
        Column("cancelled", lambda it: it.cancelled_at, narrow=10),
        Column("actor", lambda it: it.actor),
    ),
    "BatchRow": (
        Column("row", lambda it: it.row, whole=True),
        Column("appointment", lambda it: it.appointment_id, whole=True),
        Column("command", lambda it: it.command, narrow=12),
        Column("state", lambda it: it.state, whole=True),
        Column("why", lambda it: it.reason_code, narrow=18),
        Column("HTTP", lambda it: it.http_status),
        Column("ended", lambda it: it.ended_at, narrow=10),
    ),
    "Check": (
        Column("check", lambda it: it.name, whole=True),
        Column("", _verdict, whole=True),
        Column("what", _facts),
        Column("what to do", lambda it: it.remedy),
    ),
    "Delivery": (
        Column("delivery", lambda it: it.delivery_id, narrow=16),
        Column("state", lambda it: it.state, whole=True),
        Column("appointment", lambda it: it.appointment_id, narrow=18),
        Column("update", lambda it: it.update_type),
        Column("received", lambda it: it.received_at, narrow=10),
        Column("copies", lambda it: it.copies),
        Column("why", lambda it: it.reason_code, narrow=14),
    ),
    "Drift": (
        Column("kind", lambda it: it.kind, narrow=14),
        Column("appointment", lambda it: it.appointment_id, whole=True),
        Column("from", lambda it: it.from_status, narrow=18),
        Column("to", lambda it: it.to_status, narrow=18),
        Column("since", lambda it: it.since, narrow=10),
        Column("until", lambda it: it.until or "now", narrow=10),
        Column("seconds", lambda it: f"{it.lasted_seconds:.0f}"),
        Column("why", lambda it: it.reason, narrow=16),
        Column("command", lambda it: it.command_id, narrow=36),
    ),
    "Explanation": (
        Column("check", lambda it: it.check, whole=True),
        Column("passed", lambda it: "not judged" if it.passed is None else it.passed, narrow=6),
        Column("code", lambda it: it.code, narrow=22),
        Column("rule", lambda it: it.rule if it.required else f"(advice) {it.rule}"),
    ),
    "FeedEvent": (
        Column("cursor", lambda it: it.cursor, whole=True),
        Column("recorded", lambda it: it.recorded_at, narrow=10),
        Column("appointment", lambda it: it.appointment_id, narrow=18),
        Column("event", lambda it: f"{it.event} {it.command or ''}", narrow=20),
        Column("status then", _status_then, narrow=18),
        Column("actor", lambda it: it.actor),
    ),
    "Finding": (
        Column("seq", lambda it: it.seq, whole=True),
        Column("kind", lambda it: it.kind, whole=True),
        Column("appointment", lambda it: it.appointment_id, narrow=36),
        Column("#", lambda it: it.appointment_seq, whole=True),
        Column("what", lambda it: it.what),
    ),
    "Recovered": (
        Column("appointment", lambda it: it.appointment_id, whole=True),
        Column("command", lambda it: it.command, narrow=12),
        Column("state", lambda it: it.state, whole=True),
        Column("reason", lambda it: it.reason_code),
    ),
    "Verdict": (
        Column("row", lambda it: it.row, whole=True),
        Column("appointment", lambda it: it.appointment_id, whole=True),
        Column("status", lambda it: it.status, narrow=18),
        Column("verdict", lambda it: it.verdict, whole=True),
        Column("why", lambda it: it.codes, narrow=22),
        Column("rule", lambda it: " ".join(it.rules)),
    ),
}
"""The columns of each kind of record; JSON and CSV have every field."""
