"""Reading what may be very long: one statement, one snapshot, a block of rows at a time, so that memory stays flat.

The driver reads, past SQLAlchemy, whose handling of each row would cost more than the database itself. On SQLite an
open read in WAL mode blocks nobody, but the WAL file cannot be reset until it ends; without WAL (a host's engine)
writers wait for it. On PostgreSQL the settings of the session that would cut a long read, or change how values are
written, are put aside for this transaction.
"""

from __future__ import annotations

from contextlib import closing, contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from lifecycle.columns import UtcDateTime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from lifecycle.database import Database

BLOCK: Final = 1_000
"""Rows in memory at once: a few megabytes, and few enough calls that their cost does not show."""

_SETTINGS: Final = {
    "timezone": "UTC",
    "datestyle": "ISO, YMD",
    "extra_float_digits": "1",
    "client_encoding": "UTF8",
    "cursor_tuple_fraction": "1",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "transaction_timeout": "0",
}


@contextmanager
def connection(database: Database) -> Iterator[Any]:
    """Give a connection of the driver to read with, in no transaction on SQLite, in a prepared one on PostgreSQL.

    Raises as `Database.read` does, for the driver's errors too.
    """
    with database.read() as opened:
        # A host's engine may begin every transaction by taking SQLite's write lock: that is not for long reads.
        opened.rollback()
        if database.is_postgres:
            opened.execute(_PREPARE, _SETTINGS)
        with _as_sqlalchemy(database.engine.dialect):
            yield opened.connection.driver_connection


def blocks(database: Database, statement: sa.TextClause) -> Iterator[list[tuple[Any, ...]]]:
    """Iterate over lists of rows as the driver gives them. The read ends with the iterator: exhaust or close it."""
    text, values = compiled(statement, database.engine.dialect)
    with connection(database) as driver:
        cursor = driver.cursor("lifecycle_rows") if database.is_postgres else driver.cursor()
        with closing(cursor):
            cursor.execute(text, values)
            while rows := cursor.fetchmany(BLOCK):
                yield rows


def copied(database: Database, statement: sa.TextClause) -> Iterator[list[bytes]]:
    """Iterate over the rows as PostgreSQL's COPY writes them as CSV, in lists; NULL is an empty cell. As `blocks`."""
    text, values = compiled(statement, database.engine.dialect)
    with (
        connection(database) as driver,
        driver.cursor() as cursor,
        cursor.copy(f"COPY ({text}) TO STDOUT (FORMAT csv)", values) as copy,
    ):
        rows = iter(copy)
        while block := list(islice(rows, BLOCK)):
            yield block


def converter(kind: sa.types.TypeEngine[Any], dialect: sa.Dialect) -> Callable[[Any], Any] | None:
    """Give what makes a Python value of what the driver gives for a column type; None: it is one already."""
    if not isinstance(kind, _STORED_OTHERWISE):
        return None
    return kind.dialect_impl(dialect).result_processor(dialect, None)


def compiled(statement: sa.TextClause, dialect: sa.Dialect) -> tuple[str, Mapping[str, Any] | tuple[Any, ...]]:
    """Write a statement as the driver takes it, with the values to bind."""
    made = statement.compile(dialect=dialect)
    values = {name: _bound(made.binds[name].type, value, dialect) for name, value in made.params.items()}
    if made.positiontup is not None:
        return made.string, tuple(values[name] for name in made.positiontup)
    return made.string, values


def _bound(kind: sa.types.TypeEngine[Any], value: object, dialect: sa.Dialect) -> object:
    convert = kind.dialect_impl(dialect).bind_processor(dialect)
    return value if convert is None else convert(value)


@contextmanager
def _as_sqlalchemy(dialect: sa.Dialect) -> Iterator[None]:
    """Raise the driver's errors as SQLAlchemy does, so that `Database` finds words for them."""
    try:
        yield
    except dialect.loaded_dbapi.Error as error:
        raise sa.exc.DBAPIError(None, None, error) from None


_STORED_OTHERWISE: Final = (UtcDateTime, sa.Boolean, sa.Date, sa.JSON)
_PREPARE: Final = sa.text(
    # Those that this server knows: transaction_timeout came with PostgreSQL 17.
    "SELECT "
    + ", ".join(
        f"CASE WHEN current_setting('{name}', true) IS NOT NULL THEN set_config('{name}', :{name}, true) END"
        for name in _SETTINGS
    )
)
