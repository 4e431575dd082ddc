"""Judging a part of the audit trail: whole chains, each against its appointment's row and commands, in one snapshot.

Rows come as the driver gives them, in the order of the chains; nothing in them is trusted to be well-formed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from lifecycle import audit, chart, encoding, models
from lifecycle import database as db
from lifecycle.findings import FindingKind, Findings, text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import sqlalchemy as sa

_PART: Final = 5_000
"""Appointments of a part: under a second of work, so that no snapshot stays open for long and memory stays small."""

_ROWS: Final = 2_000
"""Rows fetched at a time."""


@dataclass(frozen=True, slots=True)
class Part:
    """The chains whose appointment ids lie after one and up to another, in the database's own order; None: no end."""

    after: str | None = None
    through: str | None = None


@dataclass(slots=True)
class Tally:
    """What was seen and found."""

    events: int = 0
    chains: int = 0
    findings: Findings = field(default_factory=Findings)


def parts(database: db.Database, *, size: int = _PART) -> Iterator[Part]:
    """Divide the trail into parts of whole chains, of `size` appointments each, found while others are worked on.

    By the appointments' ids; events of an appointment that is not there lie between two of them.
    """
    after: str | None = None
    while (through := _boundary(database, after, size)) is not None:
        yield Part(after, through)
        after = through
    yield Part(after)


def judge(database: db.Database, part: Part) -> Tally:
    """Walk the chains of a part. Opens one transaction, which only reads. Raises `DatabaseUnavailable`."""
    with database.snapshot() as connection:
        _settle(database, connection)
        try:
            return _Walk(connection, part).over()
        except db.UndecodableText:
            with db.any_text(connection):
                return _Walk(connection, part).over()


def _boundary(database: db.Database, after: str | None, size: int) -> str | None:
    with database.snapshot() as connection:
        _settle(database, connection)
        (condition, values), *_ = _conditions(Part(after))
        query = _BOUNDARY.format(condition=condition)
        try:
            found = list(db.stored_rows(connection, query, {**values, "before": size - 1}, size=1))
        except db.UndecodableText:
            return None
    # A damaged id (bytes, a text that is none) is no place to divide at: the rest is one part.
    return found[0][0][0] if found and isinstance(found[0][0][0], str) else None


def _settle(database: db.Database, connection: sa.Connection) -> None:
    """Make a PostgreSQL session write instants in one way, and walk the index.

    Sorting the whole trail would take disk and, before the first row, minutes.
    """
    if database.is_postgres:
        for setting in _SETTINGS:
            connection.exec_driver_sql(f"SET LOCAL {setting}")


def _conditions(part: Part) -> list[tuple[str, dict[str, object]]]:
    """Give the conditions, each with its values, that cover a part."""
    bounds = {"appointment_id > :after": ("after", part.after), "appointment_id <= :through": ("through", part.through)}
    given = {condition: bound for condition, bound in bounds.items() if bound[1] is not None}
    values: dict[str, object] = dict(given.values())
    ordinary = (" AND ".join(given) or "TRUE", values)
    # No id is NULL, but in a database that somebody has changed; the first part has those too.
    is_open = part.after is None and part.through is not None
    return [("appointment_id IS NULL", {}), ordinary] if is_open else [ordinary]


@dataclass(frozen=True, slots=True)
class _End:
    """Where a chain ends. `judged_by` is the chart of the event that last moved the status."""

    status: Any
    judged_by: Any
    appointment_seq: Any
    seq: Any


class _Walk:
    """One walk over a part: the end of the chain that it is in, the ends of those that it has passed, and commands."""

    def __init__(self, connection: sa.Connection, part: Part) -> None:
        self._connection = connection
        self._part = part
        self._is_postgres = connection.dialect.name == "postgresql"
        self._tally = Tally()
        self._add = self._tally.findings.add
        self._ends: dict[Any, _End] = {}
        self._commands: dict[tuple[Any, Any], tuple[Any, Any]] = {}
        self._begin(_NO_CHAIN)

    def over(self) -> Tally:
        """Walk the chains, then compare their ends with the appointments and their commands with the commands."""
        events = _EVENTS["postgresql" if self._is_postgres else "sqlite"]
        for rows in self._read(events):
            for row in rows:
                self._take(row)
            self._tally.events += len(rows)
        self._pass()
        self._tally.chains = len(self._ends)
        self._compare_appointments()
        self._compare_commands()
        return self._tally

    def _read(self, query: str) -> Iterator[Sequence[tuple[Any, ...]]]:
        for condition, values in _conditions(self._part):
            yield from db.stored_rows(self._connection, query.format(condition=condition), values, size=_ROWS)

    def _begin(self, appointment_id: object) -> None:
        self._appointment_id = appointment_id
        self._appointment_seq = 0
        self._hash = audit.GENESIS
        self._status = self._judged_by = None
        self._seq = 0

    def _pass(self) -> None:
        if self._appointment_id is not _NO_CHAIN:
            self._ends[self._appointment_id] = _End(self._status, self._judged_by, self._appointment_seq, self._seq)

    def _take(self, row: tuple[Any, ...]) -> None:
        """Judge a row by itself and by the one before it in its chain."""
        seq, stored, *values = row
        appointment_id, appointment_seq = values[_APPOINTMENT_ID], values[_APPOINTMENT_SEQ]
        if appointment_id != self._appointment_id:
            self._pass()
            self._begin(appointment_id)
        if self._is_postgres:
            for place in encoding.INSTANTS:
                values[place] = encoding.instant(values[place])
        follows = (
            appointment_seq == self._appointment_seq + 1
            and values[_PREV_HASH] == self._hash
            and values[_FROM_STATUS] == self._status
            and seq.__class__ is int
            and seq > self._seq
        )
        if not follows:
            self._name_breaks(seq, values)
        self._judge_content(seq, stored, values)
        if values[_TO_STATUS] != self._status:
            self._status, self._judged_by = values[_TO_STATUS], values[_CHART_VERSION]
        self._hash = stored
        self._appointment_seq = appointment_seq if appointment_seq.__class__ is int else self._appointment_seq + 1
        self._seq = seq if seq.__class__ is int else self._seq
        if values[_COMMAND_ID] is not None:
            self._commands.setdefault((appointment_id, values[_COMMAND_ID]), (appointment_seq, seq))

    def _name_breaks(self, seq: object, values: list[Any]) -> None:
        place = {"appointment_id": self._appointment_id, "appointment_seq": values[_APPOINTMENT_SEQ], "seq": seq}
        if values[_APPOINTMENT_SEQ] != self._appointment_seq + 1:
            found = text(values[_APPOINTMENT_SEQ])
            self._add(FindingKind.GAP, f"event {self._appointment_seq + 1} was to follow, here is {found}", **place)
        if values[_PREV_HASH] != self._hash:
            self._add(FindingKind.UNLINKED, "prev_hash is not the hash of the event before", **place)
        if values[_FROM_STATUS] != self._status:
            found, status = text(values[_FROM_STATUS]), text(self._status)
            self._add(FindingKind.STATUS_BREAK, f"from_status is {found}, the event before ended at {status}", **place)
        if seq.__class__ is not int or seq <= self._seq:
            self._add(FindingKind.OUT_OF_ORDER, f"seq is not above {self._seq}, that of the event before", **place)

    def _judge_content(self, seq: object, stored: object, values: list[Any]) -> None:
        kind, what = FindingKind.EDITED, "the hash does not fit what the row says"
        if values[_HASH_VERSION] == audit.HASH_VERSION:
            try:
                if encoding.digest(values) == stored:
                    return
            except encoding.Malformed as malformed:
                kind, what = FindingKind.MALFORMED, str(malformed)
        else:
            kind = FindingKind.UNKNOWN_HASH_VERSION
            what = f"hash_version {text(values[_HASH_VERSION])} is not known to this version"
        place = {"appointment_id": self._appointment_id, "appointment_seq": values[_APPOINTMENT_SEQ], "seq": seq}
        self._add(kind, what, **place)

    def _compare_appointments(self) -> None:
        """Compare each appointment's row with the end of its chain; what has no partner is a finding too."""
        for rows in self._read(_APPOINTMENTS):
            for appointment_id, status, is_known in rows:
                end = self._ends.pop(appointment_id, None)
                if end is None:
                    what = "the appointment has no event of its own"
                    self._add(FindingKind.EVENTS_MISSING, what, appointment_id=appointment_id)
                else:
                    self._compare(appointment_id, status, is_known, end)
        for appointment_id, end in self._ends.items():
            place = {"appointment_id": appointment_id, "appointment_seq": end.appointment_seq, "seq": end.seq}
            self._add(FindingKind.APPOINTMENT_MISSING, "the events' appointment is not there", **place)

    def _compare(self, appointment_id: object, status: object, is_known: object, end: _End) -> None:
        place = {"appointment_id": appointment_id, "appointment_seq": end.appointment_seq, "seq": end.seq}
        if status != end.status:
            what = f"the appointment's status is {text(status)}, its last event ended at {text(end.status)}"
            self._add(FindingKind.STATUS_DIFFERS, what, **place)
        elif end.judged_by == chart.VERSION and is_known != (status in chart.STATUSES):
            what = f"status_known is {text(is_known)}, which is not what the chart says of {text(status)}"
            self._add(FindingKind.STATUS_KNOWN_DIFFERS, what, **place)

    def _compare_commands(self) -> None:
        """Compare the commands with those that the events name."""
        for rows in self._read(_COMMANDS):
            for appointment_id, command_id, state in rows:
                # What waits in the queue has no event yet.
                is_unknown = self._commands.pop((appointment_id, command_id), None) is None
                if is_unknown and state != models.CommandState.QUEUED:
                    what = f"no event of the appointment knows its command {text(command_id)}"
                    self._add(FindingKind.COMMAND_UNRECORDED, what, appointment_id=appointment_id)
        for (appointment_id, command_id), (appointment_seq, seq) in self._commands.items():
            place = {"appointment_id": appointment_id, "appointment_seq": appointment_seq, "seq": seq}
            what = f"the appointment has no command {text(command_id)}, which the event names"
            self._add(FindingKind.COMMAND_MISSING, what, **place)


_NO_CHAIN: Final = object()
_APPOINTMENT_ID: Final = encoding.COLUMNS.index("appointment_id")
_APPOINTMENT_SEQ: Final = encoding.COLUMNS.index("appointment_seq")
_CHART_VERSION: Final = encoding.COLUMNS.index("chart_version")
_COMMAND_ID: Final = encoding.COLUMNS.index("command_id")
_FROM_STATUS: Final = encoding.COLUMNS.index("from_status")
_HASH_VERSION: Final = encoding.COLUMNS.index("hash_version")
_PREV_HASH: Final = encoding.COLUMNS.index("prev_hash")
_TO_STATUS: Final = encoding.COLUMNS.index("to_status")

_SETTINGS: Final = (
    *("timezone = 'UTC'", "datestyle = 'ISO'"),
    *("enable_sort = off", "enable_seqscan = off", "jit = off"),
)
_AS_TEXT: Final = ("details", *(encoding.COLUMNS[place] for place in encoding.INSTANTS))
_STORED: Final = {
    "sqlite": ", ".join(encoding.COLUMNS),
    "postgresql": ", ".join(f"{name}::text" if name in _AS_TEXT else name for name in encoding.COLUMNS),
}
_EVENTS: Final = {
    dialect: f"SELECT seq, hash, {stored} FROM {models.audit_events.name} WHERE {{condition}} "  # noqa: S608 # constants
    "ORDER BY appointment_id, appointment_seq"
    for dialect, stored in _STORED.items()
}
_BOUNDARY: Final = (
    f"SELECT appointment_id FROM {models.appointments.name} WHERE {{condition}} "  # noqa: S608 # constants
    "ORDER BY appointment_id LIMIT 1 OFFSET :before"
)
_APPOINTMENTS: Final = (
    f"SELECT appointment_id, status, status_known FROM {models.appointments.name} WHERE {{condition}}"  # noqa: S608 # constants
)
_COMMANDS: Final = f"SELECT appointment_id, command_id, state FROM {models.commands.name} WHERE {{condition}}"  # noqa: S608 # constants
