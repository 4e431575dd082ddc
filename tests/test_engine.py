"""Wake-ups by Procrastinate: in the caller's own transaction, set up when missing, worth nothing when lost."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

import pytest

from lifecycle import Lifecycle, database, errors, schema
from lifecycle.engines import tables
from lifecycle.engines.postgres import PostgresEngine
from tests import support
from tests.test_cli import invoke

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lifecycle import ZocdocClient
    from lifecycle.sandbox import Sandbox

WAITING = "SELECT task_name, queue_name, args, status::text FROM procrastinate_jobs"


@pytest.fixture
def made(postgres_url: str) -> Iterator[database.Database]:
    """A migrated PostgreSQL database with Procrastinate's tables."""
    made = database.Database(postgres_url)
    tables.set_up(made)
    yield made
    made.close()


def test_the_tables_are_made_once(postgres_url: str) -> None:
    """What is there is left alone, whoever else sets up at the same moment; Alembic does not see it."""
    made = database.Database(postgres_url)
    assert tables.missing(made)
    assert sorted(support.together(4, lambda _: tables.set_up(made))) == [False, False, False, True]
    assert tables.missing(made) == []
    assert schema.check(made) == []
    made.close()


@pytest.mark.parametrize(
    "damage",
    [
        f"DROP TABLE {', '.join(support.ENGINE_TABLES)} CASCADE",
        "DROP TABLE procrastinate_jobs CASCADE",
        "DROP TABLE procrastinate_events CASCADE",
        "DROP FUNCTION procrastinate_fetch_job_v2",
        "DROP INDEX procrastinate_jobs_queueing_lock_idx_v1",
        "DROP TRIGGER procrastinate_jobs_notify_queue_job_inserted_v1 ON procrastinate_jobs",
        "DROP TYPE procrastinate_job_to_defer_v1 CASCADE",
    ],
)
def test_whatever_is_lost_is_made_again(made: database.Database, postgres_url: str, damage: str) -> None:
    """All tables or a part of them: nothing of ours is in them."""
    support.query(postgres_url, damage)
    assert tables.missing(made)
    assert tables.set_up(made)
    assert tables.missing(made) == []
    engine = PostgresEngine(made)
    with made.write() as connection:
        engine.announce(connection)
    assert support.query(postgres_url, WAITING) == [
        {"task_name": "lifecycle.dispatch", "queue_name": "lifecycle", "args": {}, "status": "todo"}
    ]


def test_jobs_of_another_application_are_never_removed(made: database.Database, postgres_url: str) -> None:
    """Tables of another version that hold them are refused, and left as they are."""
    support.query(postgres_url, "INSERT INTO procrastinate_jobs (queue_name, task_name) VALUES ('mail', 'send')")
    support.query(postgres_url, "DROP FUNCTION procrastinate_fetch_job_v2")
    with pytest.raises(errors.ConfigurationError, match="jobs of another application"):
        tables.set_up(made)
    assert len(support.query(postgres_url, WAITING)) == 1


@pytest.mark.parametrize("commits", [True, False])
def test_a_wake_up_shares_the_fate_of_the_transaction(
    made: database.Database, postgres_url: str, *, commits: bool
) -> None:
    """Committed with it, or rolled back with it."""
    engine = PostgresEngine(made)
    with made.engine.connect() as connection:
        engine.announce(connection)
        connection.commit() if commits else connection.rollback()
    assert len(support.query(postgres_url, WAITING)) == int(commits)


def test_a_dead_engine_does_not_harm_the_transaction(
    made: database.Database, postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Without its tables the caller's transaction goes on and commits; a warning tells the type, nothing more."""
    support.drop_engine(postgres_url)
    support.query(postgres_url, "CREATE TABLE hosts (id INTEGER)")
    engine = PostgresEngine(made)
    with caplog.at_level(logging.DEBUG, logger="lifecycle"), made.engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO hosts VALUES (1)")
        engine.announce(connection)
        connection.exec_driver_sql("INSERT INTO hosts VALUES (2)")
    assert support.query(postgres_url, "SELECT count(*) AS n FROM hosts") == [{"n": 2}]
    told = [(each.message, vars(each)["error"]) for each in caplog.records if each.name.startswith("lifecycle")]
    assert told == [("engine_unavailable", "UndefinedTable")]


def test_a_lost_connection_is_told(made: database.Database, postgres_url: str) -> None:
    """Then the transaction is lost too, and the caller must not take it for queued."""
    engine = PostgresEngine(made)
    with made.engine.connect() as connection:
        backend = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        support.query(postgres_url, "SELECT pg_terminate_backend(:pid)", pid=backend)
        with pytest.raises(errors.DatabaseUnavailable):
            engine.announce(connection)


def test_another_is_woken_once(made: database.Database, postgres_url: str) -> None:
    """However often a busy worker asks for help: while a wake-up waits, another would say the same."""
    moments = iter(range(100))
    engine = PostgresEngine(made, clock=lambda: float(next(moments)))
    for _ in range(3):
        engine.pass_on()
    assert len(support.query(postgres_url, WAITING)) == 1
    slow = PostgresEngine(made, clock=lambda: 7.0)
    slow.pass_on()
    support.query(postgres_url, "DELETE FROM procrastinate_jobs")
    slow.pass_on()
    assert support.query(postgres_url, WAITING) == []


@pytest.mark.usefixtures("made")
def test_recovery_wakes_once(postgres_url: str, client: ZocdocClient, sandbox: Sandbox) -> None:
    """While commands are queued that are due; a wake-up that waits already is enough."""
    with support.opened(postgres_url, client, dispatch="procrastinate") as lifecycle:
        appointment_id = support.tracked(lifecycle, sandbox)
        lifecycle.recover()
        assert support.query(postgres_url, WAITING) == []
        lifecycle.submit("confirm", appointment_id, actor=support.ACTOR)
        support.query(postgres_url, "DELETE FROM procrastinate_jobs")
        for _ in range(2):
            lifecycle.recover()
        assert len(support.query(postgres_url, WAITING)) == 1


def test_without_the_extra_it_is_told(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library and the command line say what to install; the product without workers needs none of it."""
    for module in ("lifecycle.engines.postgres", "lifecycle.engines.tables"):
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delattr("lifecycle.engines.tables")
    with pytest.raises(errors.ConfigurationError, match=r"pip install 'zocdoc-lifecycle\[postgres\]'"):
        Lifecycle(postgres_url, dispatch="procrastinate")
    told = invoke("db", "upgrade", LIFECYCLE_DATABASE_URL=postgres_url, LIFECYCLE_DISPATCH="procrastinate")
    assert (told.exit_code, "zocdoc-lifecycle[postgres]" in told.stderr) == (2, True)
    assert invoke("db", "upgrade", LIFECYCLE_DATABASE_URL=postgres_url).exit_code == 0


def test_sqlite_and_other_drivers_are_refused(sqlite_url: str) -> None:
    """The error says what to use instead."""
    made = database.Database(sqlite_url)
    with pytest.raises(errors.ConfigurationError, match="on SQLite use inline"):
        PostgresEngine(made)
    made.close()
