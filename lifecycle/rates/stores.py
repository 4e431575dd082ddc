"""Where the slots of a shared rate are kept: pyrate-limiter's buckets in SQLite, PostgreSQL or this process's memory.

A store is used by one thread at a time; processes exclude each other through the database. Every failure of it is
raised as it comes: whoever asks must do without. None of it matters after a crash, so no commit waits for a disk.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, Self, cast

import pyrate_limiter as pyrate

from lifecycle.database import use_wal
from lifecycle.zocdoc import timing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    import sqlalchemy as sa

    from lifecycle.quota import Quota

_SENDS: Final = "lifecycle_zocdoc"
_PAUSES: Final = "lifecycle_zocdoc_pause"
_PATIENCE: Final = 1.0
"""Seconds to wait for other processes, which hold a file for milliseconds: one that was stopped must not stop all."""

_OFFSET_SECONDS: Final = 30.0
"""How long a reading of the database's clock counts: quartz drifts by a millisecond in that time."""


class Buckets(NamedTuple):
    """`sends` holds the booked slots; `pauses` the ends of the pauses that Zocdoc asked for."""

    sends: pyrate.AbstractBucket
    pauses: pyrate.AbstractBucket


class Store(Protocol):
    """The buckets, and the clock that all who share them go by."""

    def now(self) -> float:
        """Tell the time in milliseconds since 1970."""

    def opened(self) -> AbstractContextManager[Buckets]:
        """Give the buckets until the block ends; makes their tables if they are missing. Raises whatever happens."""

    def close(self) -> None:
        """Let go of connections; the store may be used again."""

    def forget(self) -> None:
        """Forget connections without closing them, in a forked child."""


class MemoryStore:
    """A store of this process alone."""

    def __init__(self, quota: Quota) -> None:
        self._buckets = Buckets(pyrate.InMemoryBucket(_rates(quota)), pyrate.InMemoryBucket(_no_rates()))

    def now(self) -> float:
        """Tell the time of this machine, which no one sets."""
        return timing.clock() * 1000

    def opened(self) -> AbstractContextManager[Buckets]:
        """Give the buckets."""
        return nullcontext(self._buckets)

    def close(self) -> None:
        """Do nothing."""

    def forget(self) -> None:
        """Do nothing."""


class SQLiteStore:
    """A store in a file of its own, so that it never waits for those who write the database."""

    def __init__(self, path: Path, quota: Quota) -> None:
        self._path = path
        self._quota = quota
        self._connection: sqlite3.Connection | None = None
        self._inherited: sqlite3.Connection | None = None
        self._buckets: Buckets | None = None

    def now(self) -> float:
        """Tell the time of this machine, as its other processes see it."""
        return time.time() * 1000

    @contextmanager
    def opened(self) -> Iterator[Buckets]:
        """Give the buckets; each use of one is a transaction."""
        if self._buckets is None:
            self._buckets = self._connect()
        try:
            yield self._buckets
        except sqlite3.Error:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection."""
        self._buckets = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def forget(self) -> None:
        """Forget the connection, but keep it from being closed: the file's locks are the parent's."""
        self._inherited, self._connection, self._buckets = self._connection, None, None

    def _connect(self) -> Buckets:
        connection = sqlite3.connect(self._path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
        self._connection = connection
        use_wal(connection, patience=_PATIENCE)
        connection.execute("PRAGMA synchronous=NORMAL")
        exclusive = _Exclusive(connection)
        with exclusive:
            for table in (_SENDS, _PAUSES):
                connection.execute(pyrate.SQLiteQueries.CREATE_BUCKET_TABLE.format(table=table))
                connection.execute(
                    pyrate.SQLiteQueries.CREATE_INDEX_ON_TIMESTAMP.format(index_name=f"idx_{table}", table_name=table)
                )
        return Buckets(
            pyrate.SQLiteBucket(_rates(self._quota), connection, _SENDS, lock=exclusive),
            pyrate.SQLiteBucket(_no_rates(), connection, _PAUSES, lock=exclusive),
        )


class PostgresStore:
    """A store in two tables of the database, `ratelimit___lifecycle_zocdoc` and `..._pause`, by the server's clock."""

    def __init__(self, engine: sa.Engine, quota: Quota) -> None:
        self._quota = quota
        self._pool = _Pool(engine)
        self._buckets: Buckets | None = None

    def now(self) -> float:
        """Tell the server's time, as it was last read."""
        return (timing.clock() + self._pool.offset) * 1000

    @contextmanager
    def opened(self) -> Iterator[Buckets]:
        """Give the buckets; all that is done with them in the block is one transaction."""
        try:
            if self._buckets is None:
                self._buckets = self._make()
            with self._pool.transaction():
                self._pool.shut()
                yield self._buckets
        except BaseException:
            self._buckets = None  # the tables may have gone with the database
            raise

    def close(self) -> None:
        """Do nothing: connections belong to the engine."""

    def forget(self) -> None:
        """Forget the buckets; the engine's owner sees to its connections."""
        self._buckets = None

    def _make(self) -> Buckets:
        with self._pool.transaction():
            return _postgres_buckets(self._pool, _rates(self._quota))


def make_tables(connection: object) -> None:
    """Make the tables in PostgreSQL that are missing, within the open transaction of a connection of psycopg."""
    _postgres_buckets(_Lender(connection), _no_rates())


class _Exclusive:
    """The lock that an SQLite bucket takes for each use: a transaction that excludes other processes from its start.

    The bucket's own lock would exclude this process's threads only, and its check and its insert are two statements.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> Self:
        self._connection.execute("BEGIN IMMEDIATE")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._connection.in_transaction:
            self._connection.execute("COMMIT" if kind is None else "ROLLBACK")


class _Lender:
    """Stands in for the pool of psycopg that the buckets ask for connections: it lends them the open transaction's."""

    closed = False

    def __init__(self, connection: object = None) -> None:
        self._lent: Any = connection

    @contextmanager
    def connection(self) -> Iterator[Any]:
        """Lend the connection of the open transaction."""
        yield self._lent


class _Pool(_Lender):
    """Opens the transactions, on connections of SQLAlchemy's pool, and reads the server's clock."""

    def __init__(self, engine: sa.Engine) -> None:
        super().__init__()
        self._engine = engine
        self._read_at = -_OFFSET_SECONDS
        self.offset = time.time() - timing.clock()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Open a transaction. Commits at the end, rolls back on any exception."""
        with self._engine.begin() as connection:
            self._lent = connection.connection.driver_connection
            try:
                yield
            except BaseException:
                connection.invalidate()  # whatever state it is in, nobody else gets it
                raise
            finally:
                self._lent = None

    def shut(self) -> None:
        """Exclude all other senders until the transaction ends, and read the clock."""
        cursor = self._lent.execute(_PRELUDE)
        while cursor.nextset():
            pass
        self._read_clock(float(cursor.fetchone()[0]))

    def _read_clock(self, seconds: float) -> None:
        """Take the reading that was least delayed on its way, and after a while a new one."""
        offset = seconds - timing.clock()
        if timing.clock() - self._read_at >= _OFFSET_SECONDS:
            self._read_at, self.offset = timing.clock(), offset
        self.offset = max(self.offset, offset)


class _PostgresBucket(pyrate.PostgresBucket):
    """A bucket that makes its table only if it is missing: a role that owns nothing cannot even try to."""

    def _create_table(self) -> None:
        with self._get_conn() as connection:
            if connection.execute("SELECT to_regclass(%s)", (self._full_tbl,)).fetchone()[0] is None:
                super()._create_table()  # type: ignore[no-untyped-call]


_PRELUDE: Final = """
SET LOCAL timezone = 'UTC';
SET LOCAL synchronous_commit = off;
SET LOCAL idle_in_transaction_session_timeout = '5s';
SET LOCAL lock_timeout = '2s';
LOCK TABLE ratelimit___lifecycle_zocdoc, ratelimit___lifecycle_zocdoc_pause IN EXCLUSIVE MODE;
SELECT extract(epoch FROM clock_timestamp())
"""
"""One trip to the server. The buckets write instants without a zone; and they refuse at once when somebody else holds
their table, be it only the vacuum, so that the lock is waited for beforehand: for longer than the second after which
the server sends its vacuum away, and not for a process that was stopped."""


def _postgres_buckets(lender: _Lender, rates: list[pyrate.Rate]) -> Buckets:
    pool = cast("Any", lender)
    return Buckets(_PostgresBucket(pool, _SENDS, rates), _PostgresBucket(pool, _PAUSES, _no_rates()))


def _rates(quota: Quota) -> list[pyrate.Rate]:
    # A bucket's window includes both its ends, so what may happen every 50 ms is once in 49.
    return [pyrate.Rate(quota.at_once, quota.tick_ms - 1)]


def _no_rates() -> list[pyrate.Rate]:
    """Hold everything that is put in."""
    return [pyrate.Rate(1_000_000, 1)]
