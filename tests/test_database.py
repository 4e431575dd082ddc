"""Connections keep their promises, writers wait in turn, and every failure of a database is one named line."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from lifecycle import ConfigurationError, DatabaseUnavailable, Lifecycle, TransitionRefused, database, models, schema
from tests import support
from tests.support import ACTOR

if TYPE_CHECKING:
    from lifecycle import ZocdocClient
    from lifecycle.sandbox import Sandbox

PRAGMAS = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 10_000}


def path_of(url: str) -> Path:
    """Give the file of an SQLite URL."""
    return Path(sa.make_url(url).database or "")


def test_every_sqlite_connection_has_its_pragmas(sqlite_url: str) -> None:
    """WAL, full synchronisation, foreign keys and patience hold on each of many connections, not only on the first."""
    made = database.Database(sqlite_url)
    connections = [made.engine.connect() for _ in range(5)]
    for connection in connections:
        found = {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in PRAGMAS}
        assert found == PRAGMAS
        assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
    for connection in connections:
        connection.close()
    made.close()


def test_a_new_file_that_another_process_is_making_is_waited_for(tmp_path: Path) -> None:
    """SQLite refuses to switch its log over at once while somebody writes, whatever the time-out."""
    other = sqlite3.connect(tmp_path / "new.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    threading.Timer(0.2, other.rollback).start()
    made = database.Database(f"sqlite:///{tmp_path}/new.db")
    assert schema.upgrade(made) == models.REVISION
    made.close()
    other.close()


def test_postgres_connections_do_not_wait_for_ever(postgres_url: str) -> None:
    """A lock is waited for 10 s, and a process that stops inside a transaction is cut off after 30 s."""
    made = database.Database(postgres_url)
    with made.read() as connection:
        for name, value in (("lock_timeout", "10s"), ("idle_in_transaction_session_timeout", "30s")):
            assert connection.exec_driver_sql(f"SHOW {name}").scalar() == value
    made.close()


def test_readers_do_not_wait_for_writers(lifecycle: Lifecycle, sandbox: Sandbox, database_url: str) -> None:
    """While a transaction writes, everything can be read, as it was before."""
    appointment_id = support.tracked(lifecycle, sandbox)
    made = database.Database(database_url)
    with made.write() as connection:
        connection.exec_driver_sql("UPDATE lifecycle_appointments SET status = 'cancelled'")
        started = time.monotonic()
        assert lifecycle.get(appointment_id).status == "pending_booking"
        assert len(lifecycle.history(appointment_id)) == 1
        assert lifecycle.explain(appointment_id, "confirm")
        assert len(list(lifecycle.appointments())) == 1
        assert time.monotonic() - started < 5  # a lock is waited for 10 s
        connection.rollback()
    made.close()


def test_a_transaction_ends_with_its_block(database_url: str) -> None:
    """What was written is there after the block, and gone after an exception in it, Ctrl-C included."""
    made = database.Database(database_url)
    add = "INSERT INTO lifecycle_installation VALUES (1, 'local', 'k', '2026-01-01T00:00:00.000000Z')"
    count = "SELECT count(*) AS n FROM lifecycle_installation"
    for error in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(error), made.write() as connection:  # noqa: PT012 # what is raised inside is the test
            connection.exec_driver_sql(add)
            raise error
        assert support.query(database_url, count) == [{"n": 0}]
    with made.write() as connection:
        connection.exec_driver_sql(add)
    assert support.query(database_url, count) == [{"n": 1}]
    made.close()


def in_one_line(error: DatabaseUnavailable) -> str:
    """Give the text, which must be one line without SQL."""
    text = str(error)
    assert text.splitlines() == [text]
    assert "SELECT" not in text.upper().split()
    assert "[SQL" not in text
    assert "sqlalche.me" not in text
    return text


def test_a_locked_database_is_named(lifecycle: Lifecycle, sandbox: Sandbox, database_url: str) -> None:
    """A writer that waited in vain hears of the lock; nothing was sent, and later it works."""
    appointment_id = support.tracked(lifecycle, sandbox)
    if database_url.startswith("sqlite"):
        impatient = sa.create_engine(database_url, connect_args={"timeout": 0.1})
        sa.event.listen(impatient, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=FULL"))
        lock = "BEGIN IMMEDIATE"
    else:
        impatient = sa.create_engine(database_url, connect_args={"options": "-c lock_timeout=100ms"})
        lock = "SELECT 1 FROM lifecycle_appointments FOR UPDATE"
    blocker = sa.create_engine(database_url)
    client = lifecycle._resources.clients.default
    with Lifecycle(impatient, zocdoc=client) as product, blocker.connect() as connection:
        connection.exec_driver_sql(lock)
        with pytest.raises(DatabaseUnavailable) as caught:
            product.confirm(appointment_id, actor=ACTOR)
        connection.rollback()
        expected = "SQLITE_BUSY" if database_url.startswith("sqlite") else "55P03"
        assert expected in in_one_line(caught.value)
        assert caught.value.is_transient
        assert support.posts(sandbox, appointment_id) == 0
        assert product.confirm(appointment_id, actor=ACTOR).to_status == "confirmed"
    impatient.dispose()
    blocker.dispose()


def unavailable(url: str) -> str:
    """Open a database that cannot be used, and give the text of the error."""
    with Lifecycle(url) as product, pytest.raises(DatabaseUnavailable) as caught:
        product.get("a")
    return in_one_line(caught.value)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """SQLite makes files, not folders."""
    assert "SQLITE_CANTOPEN; check that the folder exists" in unavailable(f"sqlite:///{tmp_path / 'no' / 'a.db'}")


def test_a_folder_is_no_database(tmp_path: Path) -> None:
    """A path that is a folder cannot be opened."""
    assert "SQLITE_CANTOPEN" in unavailable(f"sqlite:///{tmp_path}")


def test_another_file_is_no_database(tmp_path: Path) -> None:
    """A file with other content is named, and stays as it was."""
    path = tmp_path / "letter.txt"
    path.write_text("Dear Sir or Madam, " * 100)
    assert "the file is not an SQLite database" in unavailable(f"sqlite:///{path}")
    assert path.read_text().startswith("Dear Sir")


def test_a_read_only_file_is_named(sqlite_url: str, sandbox: Sandbox, client: ZocdocClient) -> None:
    """A database that may not be written to is named as such before anything is sent."""
    with support.opened(sqlite_url, client) as product:
        appointment_id = support.tracked(product, sandbox)
    url = f"sqlite:///file:{path_of(sqlite_url)}?mode=ro&uri=true"
    with support.opened(url, client) as product, pytest.raises(DatabaseUnavailable) as caught:
        product.confirm(appointment_id, actor=ACTOR)
    assert "SQLITE_READONLY" in in_one_line(caught.value)
    assert not caught.value.is_transient
    assert support.posts(sandbox, appointment_id) == 0


def test_a_full_disk_is_named(sqlite_url: str, sandbox: Sandbox, client: ZocdocClient) -> None:
    """When SQLite cannot grow the transaction is rolled back and the trail stays whole."""

    def narrow(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA synchronous=FULL")
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count={pages}")

    with support.opened(sqlite_url, client) as product:
        appointment_id = support.tracked(product, sandbox, start_time="2031-03-01T09:00:00Z")
    engine = sa.create_engine(sqlite_url)
    sa.event.listen(engine, "connect", narrow)
    with Lifecycle(engine, zocdoc=client) as product, pytest.raises(DatabaseUnavailable) as caught:  # noqa: PT012
        for _ in range(2000):
            with suppress(TransitionRefused):  # which is an event in the trail
                product.confirm(appointment_id, actor="a" * 200)
    engine.dispose()
    assert "the disk is full" in in_one_line(caught.value)
    assert caught.value.is_transient


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "sqlite:///file::memory:?uri=true"])
def test_a_database_in_memory_is_refused(url: str) -> None:
    """What would be lost with the process is no place for a trail."""
    with pytest.raises(ConfigurationError, match="in memory"):
        Lifecycle(url)


@pytest.mark.parametrize("url", ["", "nonsense", "mysql://a@b/c", "oracle://x", "no-such-dialect://a/b", "mssql://a/b"])
def test_other_databases_are_refused(url: str) -> None:
    """Only SQLite and PostgreSQL are supported, and the error says what a URL looks like, without repeating it."""
    with pytest.raises(ConfigurationError) as caught:
        Lifecycle(url)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("url", ["postgresql+pg8000://a@b/c", "mysql://a@b/c", "sqlite+aiosqlite:///x.db"])
def test_another_driver_is_refused(url: str) -> None:
    """A database or driver that this was not made for is refused with those that it was made for."""
    with pytest.raises(ConfigurationError, match=r"is not supported; use sqlite:///file\.db or postgresql://"):
        Lifecycle(url)


def test_another_dialects_engine_is_refused() -> None:
    """A host's engine of another database is refused at once."""
    engine = sa.create_engine("mysql+mysqldb://a@b/c", module=sqlite3)
    with pytest.raises(ConfigurationError, match="is not supported"):
        Lifecycle(engine)


@pytest.mark.parametrize("password", ["", ":CANARY"])
def test_an_unreachable_postgres_is_named(password: str) -> None:
    """No server there: one line, without the password."""
    text = unavailable(f"postgresql://nobody{password}@127.0.0.1:9/none")
    assert "PostgreSQL cannot be reached" in text
    assert "CANARY" not in text


def test_a_wrong_database_name_is_named(postgres_server: sa.URL) -> None:
    """A server that refuses is named too, in one line."""
    url = postgres_server.set(database="lifecycle_no_such").render_as_string(hide_password=False)
    assert unavailable(url)


def test_a_connection_that_the_server_closed_is_replaced(
    lifecycle: Lifecycle, sandbox: Sandbox, postgres_url: str, client: ZocdocClient
) -> None:
    """After the server has cut the idle connections the next call works: connections are tested before use."""
    del lifecycle
    with support.opened(postgres_url, client) as product:
        appointment_id = support.tracked(product, sandbox)
        support.query(
            postgres_url,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        assert product.confirm(appointment_id, actor=ACTOR).to_status == "confirmed"


INSTANTS = (
    datetime(2026, 12, 1, 14, tzinfo=UTC),
    datetime(2026, 12, 1, 9, 0, 0, 123456, tzinfo=timezone(timedelta(hours=-5))),
    datetime(2026, 11, 1, 1, 30, fold=1, tzinfo=timezone(timedelta(hours=5, minutes=45))),
    datetime(1999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
)


@pytest.mark.parametrize("instant", INSTANTS)
def test_an_instant_survives_both_databases(lifecycle: Lifecycle, instant: datetime) -> None:
    """Every aware instant comes back as the same instant, aware and in UTC, to the microsecond."""
    made = lifecycle._resources.database
    table = models.installation
    values = {"installation_id": 1, "zocdoc_environment": "x", "digest_key": "k", "created_at": instant}
    with made.write() as connection:
        connection.execute(sa.insert(table), values)
    with made.read() as connection:
        found = connection.execute(sa.select(table.c.created_at)).scalar_one()
    assert found == instant
    assert found.utcoffset() == timedelta(0)


@pytest.mark.parametrize("dialect", [sqlite.dialect(), postgresql.dialect()])  # type: ignore[no-untyped-call] # theirs
def test_an_instant_without_an_offset_is_refused(dialect: sa.Dialect) -> None:
    """A naive value would mean another moment on another machine; neither database takes it."""
    kind: Any = models.installation.c.created_at.type
    with pytest.raises(ValueError, match="offset"):
        kind.process_bind_param(datetime(2026, 12, 1, 9), dialect)  # noqa: DTZ001 # the point of the test


def test_texts_of_instants_sort_as_the_instants_do(sqlite_url: str) -> None:
    """SQLite compares text, so every instant has the same width."""
    del sqlite_url
    kind: Any = models.installation.c.created_at.type
    texts = [kind.process_bind_param(each, sqlite.dialect()) for each in sorted(INSTANTS)]
    assert texts == sorted(texts)
    assert {len(text) for text in texts} == {27}
    assert all(text.endswith("Z") for text in texts)


def test_the_clock_is_the_databases(database_url: str) -> None:
    """PostgreSQL's server tells the time for all its clients, SQLite's process for itself; both in UTC and now."""
    made = database.Database(database_url)
    with made.read() as connection:
        now = made.now(connection)
    made.close()
    assert abs(now - datetime.now(UTC)) < timedelta(seconds=5)
    assert now.utcoffset() == timedelta(0)


def test_what_sqlalchemy_logs_is_for_the_host_to_choose(sqlite_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """No statement for a host that wants warnings only, and no row even for one that wants everything."""

    def logged(level: int) -> set[str]:
        caplog.clear()
        with caplog.at_level(level, logger="sqlalchemy.engine"), Lifecycle(sqlite_url) as product:
            caplog.handler.setLevel(logging.NOTSET)  # a host's handler takes whatever a logger lets through
            assert list(product.appointments()) == []
        return {record.levelname for record in caplog.records if record.name.startswith("sqlalchemy.engine")}

    assert (logged(logging.WARNING), logged(logging.DEBUG)) == (set(), {"INFO"})


def test_the_files_are_only_those_of_sqlite(lifecycle: Lifecycle, sandbox: Sandbox, sqlite_url: str) -> None:
    """A closed database leaves its one file behind, complete without its companions."""
    del lifecycle
    path = path_of(sqlite_url)
    with Lifecycle(sqlite_url) as product:
        assert list(product.appointments()) == []
    assert sandbox.ledger.entries() == []
    assert [each.name for each in path.parent.iterdir() if each.suffix == ".db"] == [path.name]
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
    assert os.access(path, os.W_OK)
