"""Connections, transactions and the clock, for SQLite and PostgreSQL.

Writers are serialised before they read: `BEGIN IMMEDIATE` on SQLite, a row lock on PostgreSQL (taken by `audit.lock`).
Every failure of the database itself surfaces as `DatabaseUnavailable`, without SQL parameters in its text.
"""

from __future__ import annotations

import itertools
import logging
import os
import re
import sqlite3
import threading
import time
import weakref
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import sqlalchemy as sa

from lifecycle import errors, models
from lifecycle.points import Point, reach

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry

_BUSY_SECONDS: Final = 10.0
"""How long a writer waits for another: many transactions of a few milliseconds, far below a caller's patience."""

_POSTGRES_OPTIONS: Final = "-c lock_timeout=10s -c idle_in_transaction_session_timeout=30s -c timezone=UTC"
"""A process that stops inside a transaction must not hold the row of an appointment for ever; instants come as UTC,
because a session's own zone may not be able to hold the last ones of the calendar."""

_PATIENCE: Final = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
"""Of connections to PostgreSQL: one whose other end has vanished fails within about a minute, instead of never."""

_DRIVERS: Final = {"sqlite", "sqlite+pysqlite", "postgresql", "postgresql+psycopg"}
_NOT_SUPPORTED: Final = "this database or driver is not supported; use sqlite:///file.db or postgresql:// (psycopg 3)"

_SYNCHRONOUS_FULL: Final = 2

_LOGGING_NAME: Final = "lifecycle"


def _utc_now() -> datetime:
    return datetime.now(UTC)


_fork_aware: Final[weakref.WeakSet[Database]] = weakref.WeakSet()


def _after_fork() -> None:
    for each in tuple(_fork_aware):
        each.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Database:
    """One engine, its transactions and its clock. Thread-safe; several processes may use one database.

    `target` is a SQLAlchemy URL (the engine is made here, with safe settings, and disposed of by `close`) or an
    existing Engine of a host application (left as it is; `close` does not touch it). `now` replaces the clock of an
    SQLite database, which runs in this process; PostgreSQL always uses the server's clock. `connections` are kept open
    once they were needed; in a rush there are more for a moment. Opens nothing by itself.
    """

    def __init__(
        self, target: str | sa.URL | sa.Engine, *, now: Callable[[], datetime] = _utc_now, connections: int = 8
    ) -> None:
        self._owned = not isinstance(target, sa.Engine)
        self.engine: Final = _adopt(target) if isinstance(target, sa.Engine) else _create_engine(target, connections)
        self._now = now
        self._usable = False
        self._writer = threading.Lock()
        if self.engine.dialect.name not in {"sqlite", "postgresql"}:
            raise errors.ConfigurationError(problem=_NOT_SUPPORTED)
        _fork_aware.add(self)

    @property
    def is_postgres(self) -> bool:
        """Tell which of the two it is."""
        return self.engine.dialect.name == "postgresql"

    @property
    def url(self) -> sa.URL | None:
        """By which another process can open it; None for the engine of a host, which may need more than a URL."""
        return self.engine.url if self._owned else None

    def now(self, connection: sa.Connection) -> datetime:
        """Tell the time by the clock that all processes of this database share. UTC."""
        if not self.is_postgres:
            return self._now()
        now: datetime = connection.execute(_CLOCK).scalar_one()
        return now.astimezone(UTC)

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """Open a transaction that may write; commits at the end, rolls back on any exception.

        Raises `SchemaMismatch` if the schema is not the one this code works with, `DatabaseUnavailable` otherwise.
        """
        self._check_exists()
        with self.transaction() as connection:
            self._check_usable(connection)
            yield connection

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """Open a transaction that only reads; on SQLite it blocks nobody. Raises as `write` does."""
        self._check_exists()
        with _translated(), self.engine.connect() as connection:
            self._check_usable(connection)
            yield connection

    @contextmanager
    def snapshot(self) -> Iterator[sa.Connection]:
        """Open a transaction that only reads and sees this one moment until it ends. Raises as `write` does.

        It blocks nobody, but keeps the database from cleaning up after writers (an SQLite log grows): keep it short.
        """
        self._check_exists()
        with _translated(), self.engine.connect() as connection:
            if self.is_postgres:
                connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
                connection.exec_driver_sql("SELECT 1")
            else:
                _begin(connection, "BEGIN")
                connection.exec_driver_sql("SELECT 1 FROM sqlite_master LIMIT 1")
            self._check_usable(connection)
            yield connection

    @contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """Open a writing transaction whatever the schema; for migrations."""
        with _translated():
            with self._turn(), self.engine.connect() as connection:
                if not self.is_postgres:
                    _begin(connection, "BEGIN IMMEDIATE")
                reach(Point.TRANSACTION_OPEN)
                yield connection
                reach(Point.BEFORE_COMMIT)
                self._commit(connection)
            reach(Point.AFTER_COMMIT)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Let this process's writers of an SQLite database go one by one: SQLite's own waiters sleep, and do not queue.

        Who waits too long goes on, and is told by SQLite who holds the lock.
        """
        has_turn = not self.is_postgres and self._writer.acquire(timeout=_BUSY_SECONDS)
        try:
            yield
        finally:
            if has_turn:
                self._writer.release()

    def _commit(self, connection: sa.Connection) -> None:
        """Commit; if that fails, make sure that nothing can go on in the open transaction.

        SQLAlchemy gives the connection back as it is: an SQLite COMMIT that was refused (a reader in a database
        without WAL) leaves the transaction open, and the next user of the connection would see what is not committed.
        """
        try:
            connection.commit()
        except BaseException:
            with suppress(sa.exc.SQLAlchemyError, sqlite3.Error):
                if self.is_postgres:
                    connection.invalidate()
                else:
                    connection.connection.rollback()
            raise

    @contextmanager
    def look(self) -> Iterator[sa.Connection]:
        """Open a transaction that only reads, whatever the schema. Raises `SchemaMismatch` if there is no database."""
        self._check_exists()
        with _translated(), self.engine.connect() as connection:
            yield connection

    def close(self) -> None:
        """Close the pooled connections, unless the engine is the host's."""
        if self._owned:
            self.engine.dispose()

    def after_fork(self) -> None:
        """Start with no connections, as a forked child must: those it inherited are its parent's."""
        self._writer = threading.Lock()
        if self._owned:
            self.engine.dispose(close=False)

    def _check_exists(self) -> None:
        """Refuse a file that is not there: SQLite would make an empty one of a mistyped name."""
        if self._usable or self.is_postgres or not self._owned:
            return
        file = Path(self.engine.url.database or "")
        if file.parent.is_dir() and not file.exists() and not str(file).startswith("file:"):
            raise errors.SchemaMismatch(found=None, expected=models.REVISION)

    def _check_usable(self, connection: sa.Connection) -> None:
        if self._usable:
            return
        found = revision(connection)
        if found != models.REVISION:
            raise errors.SchemaMismatch(found=found, expected=models.REVISION)
        if not self.is_postgres and connection.exec_driver_sql("PRAGMA synchronous").scalar_one() < _SYNCHRONOUS_FULL:
            raise errors.ConfigurationError(problem="this SQLite engine may lose commits; set PRAGMA synchronous=FULL")
        self._usable = True


def revision(connection: sa.Connection) -> str | None:
    """Tell the schema revision that the database is at, None when it has no lifecycle tables."""
    if not sa.inspect(connection).has_table(models.VERSION_TABLE):
        return None
    found: str | None = connection.exec_driver_sql(f"SELECT version_num FROM {models.VERSION_TABLE}").scalar()  # noqa: S608 # a constant
    return found


def stored_rows(
    connection: sa.Connection, query: str, values: Mapping[str, object], *, size: int
) -> Iterator[Sequence[tuple[Any, ...]]]:
    """Iterate over the rows of a query as the driver gives them, `size` at a time, with none of SQLAlchemy's types.

    Twice as fast as its rows, and instants that Python does not have can be text. `values` are bound to `:name` in the
    query. On PostgreSQL by a cursor of the server, so that memory stays flat. Raises `DatabaseUnavailable`,
    `UndecodableText`.
    """
    driver: Any = connection.connection.driver_connection
    is_sqlite = isinstance(driver, sqlite3.Connection)
    cursor = driver.cursor() if is_sqlite else driver.cursor(name=f"lifecycle_{next(_numbers)}")
    try:
        with closing(cursor):
            cursor.execute(query if is_sqlite else _NAME.sub(r"%(\1)s", query), values)
            while rows := cursor.fetchmany(size):
                yield rows
    except connection.dialect.loaded_dbapi.Error as error:
        # Python's own complaint about the text of a row has no code of SQLite's.
        if isinstance(error, sqlite3.OperationalError) and not hasattr(error, "sqlite_errorname"):
            raise UndecodableText from None
        raise _unavailable(error) from None


class UndecodableText(Exception):
    """SQLite holds a text that is not UTF-8; `any_text` reads it."""


@contextmanager
def any_text(connection: sa.Connection) -> Iterator[None]:
    """Read texts that are not UTF-8 as well, their bytes as lone surrogates. On PostgreSQL there are none."""
    driver: Any = connection.connection.driver_connection
    if not isinstance(driver, sqlite3.Connection):
        yield
        return
    before, driver.text_factory = driver.text_factory, lambda raw: raw.decode("utf-8", "surrogateescape")
    try:
        yield
    finally:
        driver.text_factory = before


_numbers: Final = itertools.count(1)
_NAME: Final = re.compile(r"(?<!:):([a-z_]+)")
_CLOCK: Final = sa.select(sa.func.clock_timestamp())


def _adopt(engine: sa.Engine) -> sa.Engine:
    """Share the pool of a host's engine; only our own transactions get the isolation level that `audit.lock` needs."""
    return engine.execution_options(isolation_level="READ COMMITTED") if engine.name == "postgresql" else engine


def _create_engine(target: str | sa.URL, connections: int) -> sa.Engine:
    try:
        url = sa.make_url(target)
        if url.drivername not in _DRIVERS:
            raise errors.ConfigurationError(problem=_NOT_SUPPORTED)
        if url.get_backend_name() == "sqlite":
            return _create_sqlite_engine(url, connections)
        return sa.create_engine(
            url,
            pool_pre_ping=True,
            pool_size=connections,
            connect_args={"options": _options(url), **_PATIENCE},
            **_quiet(),
        )
    except (sa.exc.ArgumentError, ValueError) as error:
        problem = "the database URL cannot be read; use sqlite:///file.db or postgresql://user@host/name"
        raise errors.ConfigurationError(problem=problem) from error
    except ModuleNotFoundError as error:
        problem = f"the database driver {error.name} is not installed; pip install 'zocdoc-lifecycle[postgres]'"
        raise errors.ConfigurationError(problem=problem) from error


def _options(url: sa.URL) -> str:
    """Put ours before those of the URL, which win."""
    given = url.query.get("options", ())
    return " ".join([_POSTGRES_OPTIONS, *([given] if isinstance(given, str) else given)])


def _create_sqlite_engine(url: sa.URL, connections: int) -> sa.Engine:
    name = url.database or ":memory:"
    if ":memory:" in name or url.query.get("mode") == "memory":
        problem = "an SQLite database in memory keeps nothing; name a file: sqlite:///file.db"
        raise errors.ConfigurationError(problem=problem)
    engine = sa.create_engine(url, connect_args={"timeout": _BUSY_SECONDS}, pool_size=connections, **_quiet())
    sa.event.listen(engine, "connect", _prepare_sqlite)
    return engine


def _quiet() -> dict[str, Any]:
    """Keep patient data out of SQLAlchemy's own logs: no parameters, and no rows, which it logs at DEBUG."""
    # A filter, no level: with one of its own the logger would tell every statement to a host that never asked for it.
    logging.getLogger(f"sqlalchemy.engine.Engine.{_LOGGING_NAME}").addFilter(_tells_no_rows)
    return {"hide_parameters": True, "logging_name": _LOGGING_NAME}


def _tells_no_rows(record: logging.LogRecord) -> bool:
    return record.levelno > logging.DEBUG


def _prepare_sqlite(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
    # Autocommit mode of the driver: transactions begin where this module says so, never implicitly.
    connection.isolation_level = None
    cursor = connection.cursor()
    use_wal(cursor, patience=_BUSY_SECONDS)
    for pragma in (
        "synchronous=FULL",
        "foreign_keys=ON",
        "secure_delete=ON",
        f"busy_timeout={int(_BUSY_SECONDS * 1000)}",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


class _Executes(Protocol):
    """A connection or a cursor of SQLite."""

    def execute(self, statement: str, /) -> object:
        """Run a statement."""


def use_wal(connection: _Executes, *, patience: float) -> None:
    """Switch an SQLite file to write-ahead logging, trying again for so many seconds.

    While somebody writes to a file that has none yet, SQLite refuses at once, whatever the time-out.
    """
    until = time.monotonic() + patience
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            if time.monotonic() >= until:
                raise
            time.sleep(0.01)
        else:
            return


def _begin(connection: sa.Connection, statement: str) -> None:
    connection.begin()
    driver: Any = connection.connection.driver_connection
    if driver.in_transaction:
        # A host engine that begins by itself. Nothing was done yet, so its transaction can give way to ours.
        connection.exec_driver_sql("ROLLBACK")
    connection.exec_driver_sql(statement)


@contextmanager
def _translated() -> Iterator[None]:
    """Turn failures of the database into our errors.

    The original is dropped, not chained: its text may quote the row that was to be written.
    """
    failure: errors.DatabaseUnavailable
    try:
        yield
    except sa.exc.IntegrityError as error:
        failure = errors.ConstraintViolated(problem=_problem(error))
    except sa.exc.DBAPIError as error:
        failure = _unavailable(error)
    except sa.exc.TimeoutError:
        problem = "no connection became free in time; enlarge the pool"
        failure = errors.DatabaseUnavailable(problem=problem, is_transient=True)
    else:
        return
    raise failure from None


def _unavailable(error: Exception) -> errors.DatabaseUnavailable:
    return errors.DatabaseUnavailable(problem=_problem(error), is_transient=_is_transient(error))


def _is_transient(error: Exception) -> bool:
    """Tell by the driver's code whether the failure may pass by itself. One without a code is a connection's end."""
    original = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    if isinstance(original, sqlite3.Error):
        return getattr(original, "sqlite_errorname", "").startswith(_SQLITE_TRANSIENT)
    state = getattr(original, "sqlstate", None)
    if state is None:
        return isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError)
    return str(state).startswith(_POSTGRES_TRANSIENT)


def _problem(error: Exception) -> str:
    """Name the failure in one line of our own words, from SQLAlchemy's error or the driver's own."""
    original = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    if isinstance(original, sqlite3.Error):
        code = getattr(original, "sqlite_errorname", "SQLITE_ERROR")
        known = (remedy for prefix, remedy in _SQLITE_REMEDIES.items() if code.startswith(prefix))
        return f"{code}; {next(known, 'check the file, its folder and the disk')}"
    state = getattr(original, "sqlstate", None)
    if state is not None:
        return f"PostgreSQL error {state} ({type(original).__name__})"
    if isinstance(error, sa.exc.DataError):
        return "a value cannot be stored or read (DataError)"
    return "PostgreSQL cannot be reached; check the URL and the server"


_SQLITE_TRANSIENT: Final = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_FULL", "SQLITE_IOERR")
_POSTGRES_TRANSIENT: Final = ("08", "40", "53", "55P03", "57", "58")
"""Connections, rollbacks, resources, locks, what an operator does, the system: classes of PostgreSQL's error codes."""

_SQLITE_REMEDIES: Final = {
    "SQLITE_BUSY": f"another process held the write lock for {_BUSY_SECONDS:.0f} s; call again",
    "SQLITE_CANTOPEN": "check that the folder exists and may be written to",
    "SQLITE_READONLY": "check that the file and its folder may be written to",
    "SQLITE_FULL": "the disk is full",
    "SQLITE_NOTADB": "the file is not an SQLite database",
}
