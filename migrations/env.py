"""Alembic's entry: run the migrations on the connection that was handed over, or on LIFECYCLE_DATABASE_URL."""

from __future__ import annotations

import os

from alembic import context

from lifecycle import database as db
from lifecycle import schema, settings


def _url() -> str:
    given: dict[str, str] = context.get_x_argument(as_dictionary=True)
    return given.get("url") or settings.database_url(os.environ)


def _print_sql() -> None:
    context.configure(url=_url(), literal_binds=True, dialect_opts={"paramstyle": "named"}, **schema.comparison())
    with context.begin_transaction():
        context.run_migrations()


def _migrate() -> None:
    connection = context.config.attributes.get("connection")
    if connection is not None:
        context.configure(connection=connection, **schema.comparison())
        context.run_migrations()
        return
    database = db.Database(_url())
    with schema.migrating(database) as own:
        context.configure(connection=own, **schema.comparison())
        context.run_migrations()
    database.close()


if context.is_offline_mode():
    _print_sql()
else:
    _migrate()
