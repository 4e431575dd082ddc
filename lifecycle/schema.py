"""The database schema's migrations: where they are, and bringing a database up to them.

The folder `migrations` lies at the top of the source tree and travels inside the wheel as `lifecycle/migrations`.
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import alembic.autogenerate
import alembic.command
import alembic.config
import alembic.migration
import alembic.script

from lifecycle import database as db
from lifecycle import errors, models, triggers

if TYPE_CHECKING:
    from collections.abc import Iterator

    import sqlalchemy as sa

_ADVISORY_LOCK: Final = 7_306_021
"""Any number of our own: two processes that migrate one PostgreSQL database must wait for each other."""


def upgrade(database: db.Database, *, to: str = "head") -> str:
    """Bring the database to the newest schema and return its revision. Safe to repeat and to run in parallel.

    One transaction on both databases: a migration that is killed midway leaves nothing behind.
    """
    with migrating(database) as connection:
        if db.revision(connection) not in {None, *_revisions()}:
            raise errors.SchemaMismatch(found=db.revision(connection), expected=models.REVISION)
        alembic.command.upgrade(_config(connection), to)
        return db.revision(connection) or "base"


def downgrade(database: db.Database, *, to: str) -> None:
    """Take the database back to a revision; `base` removes every table and with it the whole trail."""
    with migrating(database) as connection:
        alembic.command.downgrade(_config(connection), to)


def current(database: db.Database) -> str | None:
    """Tell the revision that the database is at, None when it has no lifecycle tables."""
    try:
        with database.look() as connection:
            return db.revision(connection)
    except errors.SchemaMismatch:
        return None


def check(database: db.Database) -> list[str]:
    """List the differences between the database and the tables and triggers of this code; empty when there are none.

    Raises `SchemaMismatch` when the revision differs, because then the differences are known already.
    """
    with database.look() as connection:
        found = db.revision(connection)
        if found != models.REVISION:
            raise errors.SchemaMismatch(found=found, expected=models.REVISION)
        context = alembic.migration.MigrationContext.configure(connection, opts=comparison())
        differences = alembic.autogenerate.compare_metadata(context, models.metadata)
        told = (str(difference) for difference in differences)
        return [*told, *triggers.changes(connection), *triggers.uncounted(connection)]


def comparison() -> dict[str, Any]:
    """Give the options by which Alembic compares: our tables only, since a host application may own the rest."""
    return {
        "target_metadata": models.metadata,
        "version_table": models.VERSION_TABLE,
        "include_object": _is_ours,
        "compare_type": True,
        "compare_server_default": True,
    }


@contextmanager
def migrating(database: db.Database) -> Iterator[sa.Connection]:
    """Open the one transaction of a migration run, alone among all processes of this database."""
    with database.transaction() as connection:
        if database.is_postgres:
            connection.exec_driver_sql("SET LOCAL lock_timeout = '30s'")
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})")
        yield connection


def folder() -> Path:
    """Tell where the migrations are: inside the installed package, or at the top of the source tree."""
    inside = Path(__file__).parent / "migrations"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "migrations"


def _config(connection: sa.Connection) -> alembic.config.Config:
    config = alembic.config.Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(folder()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _revisions() -> set[str]:
    config = alembic.config.Config()
    config.set_main_option("script_location", str(folder()).replace("%", "%%"))
    return {script.revision for script in alembic.script.ScriptDirectory.from_config(config).walk_revisions()}


def _is_ours(item: object, name: str | None, kind: str, _reflected: object, _compare_to: object) -> bool:
    del item
    return kind != "table" or (name or "").startswith("lifecycle_")
