"""Procrastinate's tables: set up what is missing, so that losing them costs nothing but a moment.

Nothing of ours is kept in them but wake-ups. Procrastinate writes no version anywhere, so its schema is known by the
names in it: all there, it is left alone; some missing, it is another version's or damaged, and is made anew unless
somebody else's jobs are in it.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from procrastinate.schema import SchemaManager

from lifecycle import errors

if TYPE_CHECKING:
    from lifecycle.database import Database

QUEUE: Final = "lifecycle"
"""The queue of wake-ups."""

ERRANDS: Final = "lifecycle_errands"
"""The queue of what runs every so many seconds, once in all workers together."""

_ADVISORY_LOCK: Final = 7_306_022
"""Any number of our own, beside that of the migrations."""


def set_up(database: Database) -> bool:
    """Make Procrastinate's tables unless they are there; tell whether they had to be made. Safe to run in parallel.

    Opens one transaction. Raises `ConfigurationError` on SQLite, and if another version's tables hold somebody else's
    jobs; `DatabaseUnavailable`, also for a role that may not create tables.
    """
    if not missing(database):
        return False
    with database.transaction() as connection:
        connection.exec_driver_sql("SET LOCAL lock_timeout = '30s'")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})")
        if not _missing(connection):
            return False
        if _has_jobs_of_others(connection):
            raise errors.ConfigurationError(problem=_NOT_OURS)
        for statement in list(connection.execute(_REMNANTS, _names()).scalars()):
            connection.exec_driver_sql(statement)
        # Without parameters the driver takes many statements at once.
        connection.exec_driver_sql(SchemaManager.get_schema(), execution_options={"no_parameters": True})
    return True


def missing(database: Database) -> list[str]:
    """Name what this version of Procrastinate makes and is not there.

    Raises `ConfigurationError` for a database that it cannot use, `DatabaseUnavailable`.
    """
    check(database)
    with database.look() as connection:
        return _missing(connection)


def check(database: Database) -> None:
    """Refuse a database that Procrastinate cannot use. Raises `ConfigurationError`."""
    if not database.is_postgres or database.engine.driver != "psycopg":
        raise errors.ConfigurationError(problem=_NEEDS_POSTGRES)


def _missing(connection: sa.Connection) -> list[str]:
    present = set(connection.execute(_PRESENT, _names()).scalars())
    return sorted(set(_names()["names"]) - present)


def _has_jobs_of_others(connection: sa.Connection) -> bool:
    if connection.execute(_JOBS_TABLE).scalar_one() is None:
        return False
    return bool(connection.execute(_JOBS_OF_OTHERS, {"ours": [QUEUE, ERRANDS]}).scalar_one())


@functools.cache
def _names() -> dict[str, Any]:
    """List what the schema makes, as the parameters of the queries below."""
    return {"names": sorted(set(_CREATE.findall(SchemaManager.get_schema())))}


_CREATE: Final = re.compile(
    r"^CREATE (?:UNIQUE )?(?:TABLE|TYPE|FUNCTION|INDEX|TRIGGER) (\w*procrastinate\w*)", re.MULTILINE
)
_PRESENT: Final = sa.text("""
    SELECT relname FROM pg_class WHERE relname = ANY(:names) AND pg_table_is_visible(oid)
    UNION SELECT typname FROM pg_type WHERE typname = ANY(:names) AND pg_type_is_visible(oid)
    UNION SELECT proname FROM pg_proc WHERE proname = ANY(:names) AND pg_function_is_visible(oid)
    UNION SELECT tgname FROM pg_trigger WHERE tgname = ANY(:names) AND pg_table_is_visible(tgrelid)
""")
_REMNANTS: Final = sa.text("""
    SELECT statement FROM (
      SELECT 1, format('DROP FUNCTION IF EXISTS %s CASCADE', oid::regprocedure) AS statement
        FROM pg_proc WHERE proname = ANY(:names) AND pg_function_is_visible(oid)
      UNION ALL SELECT 2, format('DROP TABLE IF EXISTS %s CASCADE', oid::regclass)
        FROM pg_class WHERE relname = ANY(:names) AND relkind = 'r' AND pg_table_is_visible(oid)
      UNION ALL SELECT 3, format('DROP TYPE IF EXISTS %s CASCADE', t.oid::regtype)
        FROM pg_type t LEFT JOIN pg_class c ON c.oid = t.typrelid
        WHERE typname = ANY(:names) AND coalesce(relkind, 'c') = 'c' AND pg_type_is_visible(t.oid)
    ) AS remnants (rank, statement) ORDER BY rank
""")
_JOBS_TABLE: Final = sa.text("SELECT to_regclass('procrastinate_jobs')::text")
_JOBS_OF_OTHERS: Final = sa.text(
    "SELECT EXISTS (SELECT 1 FROM procrastinate_jobs WHERE queue_name::text <> ALL (:ours))"
)
_NEEDS_POSTGRES: Final = (
    "dispatch=procrastinate needs a PostgreSQL database through psycopg 3 (postgresql://...); on SQLite use inline"
)
_NOT_OURS: Final = (
    "Procrastinate's tables in this database are of another version and hold jobs of another application; bring them "
    "up to Procrastinate 3.10 with the SQL files that `procrastinate schema --migrations-path` names"
)
