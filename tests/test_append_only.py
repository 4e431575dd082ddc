"""The audit trail takes events at its end and nothing else, whoever asks in whatever SQL; edits show in the chain."""

# ruff: noqa: S608, ISC004 # SQL of constants is what this module is about

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from lifecycle import audit
from tests import support, trail
from tests.support import ACTOR

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lifecycle import Lifecycle, ZocdocClient
    from lifecycle.sandbox import Sandbox

TABLE = "lifecycle_audit_events"
COLUMNS = (
    "appointment_id, appointment_seq, event, command, from_status, from_status_since, to_status, conforming, outcome, "
    "reason_code, reason_type, actor, source, provider_location_id, command_id, delivery_id, zocdoc_request_id, "
    "http_status, duration_ms, chart_version, occurred_at, recorded_at, details, hash_version, prev_hash, hash"
)
OTHERS = COLUMNS.removeprefix("appointment_id, appointment_seq, ")
LAST = f"SELECT max(appointment_seq) FROM {TABLE}"
FORGED = COLUMNS.replace("actor,", "'forger',")

BOTH = (
    f"UPDATE {TABLE} SET actor = 'forger'",
    f"UPDATE {TABLE} SET actor = actor",
    f"UPDATE {TABLE} SET actor = 'forger' WHERE appointment_seq = 1",
    f"UPDATE {TABLE} SET seq = seq + 1000",
    f"UPDATE {TABLE} SET actor = a.status FROM lifecycle_appointments a "
    f"WHERE a.appointment_id = {TABLE}.appointment_id",
    f"DELETE FROM {TABLE}",
    f"DELETE FROM {TABLE} WHERE appointment_seq = ({LAST})",
    f"DELETE FROM {TABLE} WHERE seq IN (SELECT max(seq) FROM {TABLE})",
    # The next number left out, a number taken, the first one again, zero, and a negative one.
    *(
        f"INSERT INTO {TABLE} ({COLUMNS}) SELECT appointment_id, {number}, {OTHERS} FROM {TABLE} "
        "WHERE appointment_seq = 2"
        for number in (f"({LAST}) + 2", f"({LAST})", "1", "0", "-1")
    ),
    f"INSERT INTO {TABLE} (seq, {COLUMNS}) SELECT seq, {COLUMNS} FROM {TABLE} WHERE appointment_seq = 2",
    f"INSERT INTO {TABLE} ({COLUMNS}) SELECT {FORGED} FROM {TABLE} WHERE appointment_seq = 2 "
    "ON CONFLICT (appointment_id, appointment_seq) DO UPDATE SET actor = 'forger'",
    f"INSERT INTO {TABLE} (seq, {COLUMNS}) SELECT seq, {FORGED} FROM {TABLE} WHERE appointment_seq = 2 "
    "ON CONFLICT (seq) DO UPDATE SET actor = 'forger'",
)
SQLITE = (
    *(
        f"{verb} INTO {TABLE} ({columns}) SELECT {forged} FROM {TABLE} WHERE appointment_seq = 2"
        for verb in ("INSERT OR REPLACE", "REPLACE", "INSERT OR IGNORE", "INSERT OR FAIL", "INSERT OR ROLLBACK")
        for columns, forged in (
            (COLUMNS, FORGED),
            (f"seq, {COLUMNS}", f"seq, {FORGED}"),
            (f"rowid, {COLUMNS}", f"rowid, {FORGED}"),
            (f"_rowid_, {COLUMNS}", f"_rowid_, {FORGED}"),
            # A fresh number of the chain on the primary key of an old row.
            (f"seq, {COLUMNS}", f"seq, {FORGED}".replace("appointment_seq", f"({LAST}) + 1")),
        )
    ),
    f"UPDATE OR REPLACE {TABLE} SET appointment_seq = 1 WHERE appointment_seq = 2",
    f"UPDATE OR IGNORE {TABLE} SET actor = 'forger'",
    f"WITH x AS (SELECT 1) DELETE FROM {TABLE} WHERE EXISTS (SELECT 1 FROM x) RETURNING seq",
)
POSTGRES = (
    f"TRUNCATE {TABLE}",
    f"TRUNCATE {TABLE} RESTART IDENTITY CASCADE",
    "TRUNCATE lifecycle_appointments CASCADE",
    f"UPDATE ONLY {TABLE} SET actor = 'forger'",
    f"UPDATE {TABLE} SET actor = 'forger' WHERE false",
    f"DELETE FROM {TABLE} WHERE false",
    f"DELETE FROM {TABLE} USING lifecycle_appointments a WHERE a.appointment_id = {TABLE}.appointment_id",
    f"WITH gone AS (DELETE FROM {TABLE} RETURNING seq) SELECT count(*) FROM gone",
    f"MERGE INTO {TABLE} t USING (SELECT 2 AS n) s ON t.appointment_seq = s.n WHEN MATCHED THEN UPDATE SET actor = 'f'",
    f"MERGE INTO {TABLE} t USING (SELECT 2 AS n) s ON t.appointment_seq = s.n WHEN MATCHED THEN DELETE",
    f"MERGE INTO {TABLE} t USING (SELECT * FROM {TABLE} WHERE appointment_seq = 2) s ON false "
    f"WHEN NOT MATCHED THEN INSERT ({COLUMNS}) VALUES ({', '.join('s.' + name for name in COLUMNS.split(', '))})",
)
REPLICA = (
    f"UPDATE {TABLE} SET actor = 'forger'",
    f"DELETE FROM {TABLE}",
    f"TRUNCATE {TABLE}",
    f"INSERT INTO {TABLE} ({COLUMNS}) SELECT appointment_id, ({LAST}) + 2, {OTHERS} FROM {TABLE} "
    "WHERE appointment_seq = 2",
)


@pytest.fixture
def attacked(lifecycle: Lifecycle, sandbox: Sandbox, database_url: str) -> Iterator[sa.Engine]:
    """Open a trail of five events to raw SQL; every row must be as it was when the test is over."""
    appointment_id = support.tracked(lifecycle, sandbox)
    lifecycle.confirm(appointment_id, actor=ACTOR)
    lifecycle.cancel(appointment_id, actor="user:Zoë")
    engine = sa.create_engine(database_url)
    before = trail.rows_of(engine)
    assert len(before) == 5
    yield engine
    assert trail.rows_of(engine) == before
    engine.dispose()


def refused(engine: sa.Engine, *statements: str) -> list[str]:
    """Run each in a transaction of its own, and give those that the database let pass."""
    passed = []
    for statement in statements:
        try:
            with engine.begin() as connection:
                connection.exec_driver_sql(statement)
        except sa.exc.DBAPIError as error:
            assert "lifecycle_audit_events" in str(error.orig), statement  # noqa: PT017 # each of many
        else:
            passed.append(statement)
    return passed


def test_no_statement_changes_or_removes_an_event(attacked: sa.Engine) -> None:
    """UPDATE, DELETE, gaps, duplicates and upserts are refused by the database itself, not by our code."""
    own = SQLITE if attacked.dialect.name == "sqlite" else POSTGRES
    assert refused(attacked, *BOTH, *own) == []


@pytest.mark.parametrize(
    "pragma", ["recursive_triggers = OFF", "recursive_triggers = ON", "foreign_keys = OFF", "defer_foreign_keys = ON"]
)
def test_sqlite_switches_do_not_open_the_trail(
    sqlite_url: str, sandbox: Sandbox, client: ZocdocClient, pragma: str
) -> None:
    """Neither recursive triggers nor foreign keys decide whether REPLACE and DELETE are refused."""
    with support.opened(sqlite_url, client) as product:
        support.tracked(product, sandbox)
    engine = sa.create_engine(sqlite_url)
    before = trail.rows_of(engine)
    sa.event.listen(engine, "connect", lambda connection, _: connection.execute(f"PRAGMA {pragma}"))
    engine.dispose()
    assert refused(engine, f"REPLACE INTO {TABLE} SELECT * FROM {TABLE}", f"DELETE FROM {TABLE}") == []
    assert trail.rows_of(engine) == before
    engine.dispose()


def test_replication_mode_does_not_open_the_trail(attacked: sa.Engine) -> None:
    """PostgreSQL's triggers are ENABLE ALWAYS: session_replication_role=replica does not switch them off."""
    if attacked.dialect.name == "sqlite":
        pytest.skip("PostgreSQL has this switch")
    replica = sa.create_engine(attacked.url, connect_args={"options": "-c session_replication_role=replica"})
    assert refused(replica, *REPLICA) == []
    replica.dispose()


def test_rows_of_the_appointment_cannot_be_removed_from_under_the_trail(
    lifecycle: Lifecycle, sandbox: Sandbox, database_url: str
) -> None:
    """An appointment or a command that has events cannot be deleted: the trail refers to it."""
    appointment_id = support.tracked(lifecycle, sandbox)
    lifecycle.confirm(appointment_id, actor=ACTOR)
    engine = lifecycle._resources.database.engine
    for table in ("lifecycle_commands", "lifecycle_appointments"):
        with pytest.raises(sa.exc.IntegrityError), engine.begin() as connection:
            connection.exec_driver_sql(f"DELETE FROM {table}")
    assert support.states(database_url) == ["applied"]


def test_a_second_active_command_is_refused_by_the_database(
    lifecycle: Lifecycle, sandbox: Sandbox, database_url: str
) -> None:
    """At most one active command per appointment holds even for whoever writes raw SQL."""
    appointment_id = support.tracked(lifecycle, sandbox)
    lifecycle.confirm(appointment_id, actor=ACTOR)
    lifecycle.cancel(appointment_id, actor=ACTOR)
    with pytest.raises(sa.exc.IntegrityError):
        support.query(database_url, "UPDATE lifecycle_commands SET state = 'sending', ended_at = NULL")
    assert support.states(database_url) == ["applied", "applied"]


def drop_triggers(engine: sa.Engine) -> None:
    """Take the guards away, as an owner of the database can."""
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql(f"ALTER TABLE {TABLE} DISABLE TRIGGER USER")
            return
        for name in connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'trigger'").scalars().all():
            connection.exec_driver_sql(f"DROP TRIGGER {name}")


TAMPERINGS = (
    "UPDATE lifecycle_audit_events SET actor = 'forger' WHERE appointment_seq = 2",
    "UPDATE lifecycle_audit_events SET to_status = 'no_show', from_status = 'no_show' WHERE appointment_seq = 2",
    "UPDATE lifecycle_audit_events SET conforming = NOT conforming WHERE appointment_seq = 3",
    "UPDATE lifecycle_audit_events SET details = '{\"a\": 1}' WHERE appointment_seq = 1",
    "UPDATE lifecycle_audit_events SET recorded_at = '2020-01-01T00:00:00.000000Z' WHERE appointment_seq = 1",
    "UPDATE lifecycle_audit_events SET http_status = NULL WHERE appointment_seq = 3",
    "DELETE FROM lifecycle_audit_events WHERE appointment_seq = 2",
    "UPDATE lifecycle_audit_events SET prev_hash = hash WHERE appointment_seq = 3",
    "UPDATE lifecycle_audit_events SET appointment_seq = appointment_seq + 1 WHERE appointment_seq = 5",
)


@pytest.mark.parametrize("tampering", TAMPERINGS)
def test_what_the_owner_edits_without_the_triggers_shows_in_the_chain(
    lifecycle: Lifecycle, sandbox: Sandbox, database_url: str, tampering: str
) -> None:
    """An edit, a removal or a renumbering breaks the chain of hashes, and an independent reader names it."""
    appointment_id = support.tracked(lifecycle, sandbox)
    lifecycle.confirm(appointment_id, actor=ACTOR)
    lifecycle.cancel(appointment_id, actor=ACTOR)
    engine = sa.create_engine(database_url)
    assert trail.faults(engine) == []
    drop_triggers(engine)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE TABLE kept AS SELECT * FROM {TABLE}")
        connection.exec_driver_sql(tampering)
    assert trail.faults(engine) != []
    with engine.begin() as connection:
        # Put everything back, since every test's trail must be sound in the end.
        connection.exec_driver_sql(f"DELETE FROM {TABLE}")
        connection.exec_driver_sql(f"INSERT INTO {TABLE} SELECT * FROM kept")
    engine.dispose()


def test_the_digest_is_what_its_description_says(lifecycle: Lifecycle, sandbox: Sandbox, database_url: str) -> None:
    """A verifier written from the description alone computes the same hashes, non-ASCII actors included."""
    appointment_id = support.tracked(lifecycle, sandbox)
    actors = ("user:Zoë", "用户:17", 'job:"quoted" \\ back', "ops:🩺", "user:é")
    for actor in actors:
        lifecycle.reschedule(appointment_id, actor=actor, start_time="2031-03-01T09:00:00.123456+05:45")
    with lifecycle._resources.database.read() as connection:
        stored = connection.execute(sa.select(audit._events).order_by(audit._events.c.seq)).mappings().all()
    engine = sa.create_engine(database_url)
    raw = trail.rows_of(engine)
    engine.dispose()
    assert {row["actor"] for row in raw} == {ACTOR, *actors}
    assert len(stored) == len(raw) == 1 + 2 * len(actors)
    for ours, theirs in zip(stored, raw, strict=True):
        assert audit.digest(ours) == trail.hash_of(theirs) == theirs["hash"]
    heads = [row["prev_hash"] for row in raw]
    assert heads == ["0" * 64, *(row["hash"] for row in raw[:-1])]


def test_a_known_row_has_a_known_hash() -> None:
    """The encoding is an interface: this row hashes to this value for ever, on every database and in every language."""
    row: dict[str, Any] = {
        **dict.fromkeys(trail.COLUMNS),
        "appointment_id": "a-1",
        "appointment_seq": 1,
        "event": "appointment_tracked",
        "to_status": "confirmed",
        "conforming": True,
        "actor": "user:Zoë",
        "source": "api",
        "chart_version": "1.177-1",
        "provider_location_id": "pr_1|lo_2",
        "recorded_at": "2026-12-01T14:00:00.000000Z",
        "details": {"b": 1, "a": None},
        "hash_version": 1,
        "prev_hash": "0" * 64,
    }
    expected = "d2019ac9620dab74646263f2aca466fdc3eafb1bc402559a08362a5be17ef9f1"
    assert (audit.digest(row), trail.hash_of(row)) == (expected, expected)


def test_both_databases_store_the_same_trail(
    sandbox: Sandbox, client: ZocdocClient, sqlite_url: str, postgres_url: str
) -> None:
    """A row that is moved from one database to the other keeps its hash: both store what was hashed."""
    for url in (sqlite_url, postgres_url):
        with support.opened(url, client) as product:
            appointment_id = support.tracked(product, sandbox, start_time="2031-03-01T09:00:00.5-05:00")
            product.reschedule(appointment_id, actor="user:Zoë", start_time=support.LATER)
            for event in product.history(appointment_id):
                values = {name: getattr(event, name) for name in trail.COLUMNS}
                assert trail.hash_of(values) == event.hash == audit.digest(values)
