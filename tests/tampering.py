"""A sound database to tamper with, and raw SQL as an owner can run it: guards taken down, and put back afterwards."""

# ruff: noqa: S608 # SQL of constants is what this module is about

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from lifecycle import database, verification
from tests import trail

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lifecycle.verification import Verification

EVENTS = "lifecycle_audit_events"
LOOSE = (
    "ck_lifecycle_audit_events_first_has_no_from",
    "ck_lifecycle_audit_events_appointment_seq_positive",
    "ck_lifecycle_audit_events_seq_positive",
    "uq_lifecycle_audit_events_appointment_id_appointment_seq",
)


@dataclass(frozen=True)
class Scene:
    """A database of the test's own with three appointments: `a` and `b` have five events each, `c` has one."""

    url: str
    a: str
    b: str
    c: str

    @property
    def is_postgres(self) -> bool:
        """Which of the two it is."""
        return self.url.startswith("postgresql")

    def attack(self, *statements: str, **values: Any) -> None:
        """Run statements with the guards down and foreign keys off; `{a}`, `{b}`, `{c}` are the appointments' ids."""
        with attacked(self.url) as connection:
            for statement in statements:
                text = statement.format(a=f"'{self.a}'", b=f"'{self.b}'", c=f"'{self.c}'", events=EVENTS)
                used = {name: value for name, value in values.items() if f":{name}" in text}
                connection.execute(sa.text(text), used)

    def loosen(self) -> None:
        """Take the constraints of the trail away, as an owner can, so that rows may hold anything."""
        with attacked(self.url) as connection:
            if self.is_postgres:
                for name in LOOSE:
                    connection.exec_driver_sql(f"ALTER TABLE {EVENTS} DROP CONSTRAINT {name}")
                nullable = "SELECT column_name FROM information_schema.columns WHERE table_name = :table"
                query = sa.text(f"{nullable} AND is_nullable = 'NO' AND column_name <> 'seq'")
                for name in connection.execute(query, {"table": EVENTS}).scalars().all():
                    connection.exec_driver_sql(f"ALTER TABLE {EVENTS} ALTER COLUMN {name} DROP NOT NULL")
                return
            connection.exec_driver_sql("PRAGMA writable_schema = ON")
            connection.exec_driver_sql(
                "UPDATE sqlite_master SET sql = replace(replace(sql, ' NOT NULL', ''), 'CHECK (', 'CHECK (1 OR ') "
                f"WHERE name = '{EVENTS}'"
            )

    def rebuild(self) -> None:
        """Link and hash all chains anew, as the product would: whoever owns the database can."""
        rows = sorted(self._rows(), key=lambda row: (row["appointment_id"], row["appointment_seq"]))
        heads: dict[str, str] = {}
        for row in rows:
            row["prev_hash"] = heads.get(row["appointment_id"], "0" * 64)
            heads[row["appointment_id"]] = row["hash"] = trail.hash_of(row)
        with attacked(self.url) as connection:
            update = sa.text(f"UPDATE {EVENTS} SET prev_hash = :prev_hash, hash = :hash WHERE seq = :seq")
            connection.execute(update, [{name: row[name] for name in ("prev_hash", "hash", "seq")} for row in rows])

    def verify(self, **options: Any) -> Verification:
        """Verify as the product does."""
        made = database.Database(self.url)
        try:
            return verification.verify(made, **options)
        finally:
            made.close()

    def found(self) -> set[tuple[str, str | None, int | None]]:
        """Verify, and give kind, appointment and number of what was found."""
        return self.named(self.verify())

    def named(self, result: Verification) -> set[tuple[str, str | None, int | None]]:
        """Give kind, appointment (by its letter) and number of each finding."""
        letters = {self.a: "a", self.b: "b", self.c: "c"}
        assert sum(result.counts.values()) == len(result.findings)
        return {
            (str(each.kind), letters.get(each.appointment_id or "", each.appointment_id), each.appointment_seq)
            for each in result.findings
        }

    def row(self, appointment_id: str, number: int) -> dict[str, Any]:
        """Read one event as it is stored."""
        [found] = [r for r in self._rows() if (r["appointment_id"], r["appointment_seq"]) == (appointment_id, number)]
        return found

    def row_at(self, seq: int) -> dict[str, Any]:
        """Read one event by its place in the order of insertion."""
        [found] = [row for row in self._rows() if row["seq"] == seq]
        return found

    def forge(self, appointment_id: str, *, copied: str, first: int = 1, recorded_at: str) -> None:
        """Add a chain, or its continuation, out of another's events, in the end with hashes that fit."""
        numbers = range(first, 6)
        columns = [name for name in trail.COLUMNS if name not in {"appointment_id", "recorded_at", "command_id"}]
        listed = ", ".join(columns)
        self.attack(
            *(
                f"INSERT INTO {EVENTS} (seq, appointment_id, recorded_at, hash, {listed}) "
                f"SELECT 1000 + appointment_seq, :id, :at, hash, {listed} FROM {EVENTS} "
                f"WHERE appointment_id = '{copied}' AND appointment_seq = {number}"
                for number in numbers
            ),
            id=appointment_id,
            at=recorded_at,
        )
        self.rebuild()

    def adopt(self, appointment_id: str) -> None:
        """Make the row of an appointment like `a`'s."""
        names = ", ".join(self._names("lifecycle_appointments") - {"appointment_id"})
        self.attack(
            f"INSERT INTO lifecycle_appointments (appointment_id, {names}) SELECT :id, {names} "
            "FROM lifecycle_appointments WHERE appointment_id = {a}",
            id=appointment_id,
        )

    def _rows(self) -> list[dict[str, Any]]:
        engine = sa.create_engine(self.url)
        try:
            return trail.rows_of(engine)
        finally:
            engine.dispose()

    def _names(self, table: str) -> set[str]:
        engine = sa.create_engine(self.url)
        try:
            return {column["name"] for column in sa.inspect(engine).get_columns(table)}
        finally:
            engine.dispose()


@contextmanager
def attacked(url: str) -> Iterator[sa.Connection]:
    """Open a transaction of the owner: no trigger, no foreign key; the triggers are back when it is over."""
    engine = sa.create_engine(url)
    if engine.dialect.name == "postgresql":
        with engine.begin() as connection:
            connection.exec_driver_sql(f"ALTER TABLE {EVENTS} DISABLE TRIGGER ALL")
            connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
            yield connection
            connection.exec_driver_sql(f"ALTER TABLE {EVENTS} ENABLE TRIGGER ALL")
            for name in ("lifecycle_audit_no_change", "lifecycle_audit_gapless"):
                connection.exec_driver_sql(f"ALTER TABLE {EVENTS} ENABLE ALWAYS TRIGGER {name}")
    else:
        with engine.begin() as connection:
            query = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
            triggers = connection.exec_driver_sql(query).all()
            for name, _ in triggers:
                connection.exec_driver_sql(f"DROP TRIGGER {name}")
            yield connection
            for _, sql in triggers:
                connection.exec_driver_sql(sql)
    engine.dispose()
