"""The schema of the database: bring it up to date, tell where it stands, compare it."""

from __future__ import annotations

import os
from contextlib import closing
from typing import TYPE_CHECKING, Final

import click

from lifecycle import settings
from lifecycle.cli import options, words

if TYPE_CHECKING:
    from types import ModuleType

    from lifecycle.database import Database

_NO_PROCRASTINATE: Final = "Procrastinate is not installed; pip install 'zocdoc-lifecycle[postgres]'"


@click.group()
def db() -> None:
    """Make or check the tables of the database, and who may do what with them."""


@db.command()
@options.dispatch
@options.database_url
def upgrade(*, dispatch: str, database_url: str) -> None:
    """Bring the database to the newest schema and print its revision. Safe to repeat.

    With --dispatch procrastinate, make Procrastinate's tables as well, unless they are there.
    Where LIFECYCLE_ZOCDOC_RATE is set, the tables of the shared rate as well.
    """
    from lifecycle import schema  # noqa: PLC0415 # loads Alembic

    with closing(_database(database_url)) as database:
        click.echo(schema.upgrade(database))
        words.say("the schema is up to date")
        if dispatch == settings.PROCRASTINATE:
            is_made = _tables().set_up(database)
            words.say(f"Procrastinate's tables {'were made' if is_made else 'are there'}")
        if settings.rate(os.environ) is not None:
            from lifecycle import rates  # noqa: PLC0415 # a tenth of a second that only those pay who have a rate

            rates.prepare(database)


@db.command()
@options.database_url
def current(*, database_url: str) -> None:
    """Print the revision that the database is at; nothing if it has no tables of ours."""
    from lifecycle import schema  # noqa: PLC0415 # loads Alembic

    with closing(_database(database_url)) as database:
        found = schema.current(database)
    if found is None:
        words.say("the database has no lifecycle tables yet; run `lifecycle db upgrade`")
    else:
        click.echo(found)


@db.command()
@options.dispatch
@options.database_url
@click.pass_context
def check(ctx: click.Context, *, dispatch: str, database_url: str) -> None:
    """Compare the tables with those this version works with; print the differences, exit 1 if there are any."""
    from lifecycle import schema  # noqa: PLC0415 # loads Alembic

    with closing(_database(database_url)) as database:
        differences = schema.check(database)
        if dispatch == settings.PROCRASTINATE:
            differences += [f"missing {name}" for name in _tables().missing(database)]
    for difference in differences:
        click.echo(words.printable(difference))
    words.say(f"{len(differences)} differences" if differences else "the schema is as it should be")
    ctx.exit(1 if differences else 0)


@db.command()
@click.option("--owner", default="lifecycle_owner", show_default=True, show_envvar=True, help="Owns and migrates.")
@click.option(
    "--application",
    default="lifecycle_app",
    show_default=True,
    show_envvar=True,
    help="Runs the product; appends to the audit trail and cannot change it.",
)
@click.option(
    "--analyst", default="lifecycle_analyst", show_default=True, show_envvar=True, help="Reads the views, no table."
)
@click.option("--schema", default="public", show_default=True, show_envvar=True, help="Where the tables are.")
@options.dispatch
@options.database_url
def grants(*, owner: str, application: str, analyst: str, schema: str, dispatch: str, database_url: str) -> None:
    """Print the SQL that gives each role in PostgreSQL the least it needs. Changes nothing.

    With --dispatch procrastinate the application may use Procrastinate's tables too, which must be there.
    Have an administrator read it and run it after each `lifecycle db upgrade`; passwords and logins stay yours.
    """
    from lifecycle import grants as rights  # noqa: PLC0415 # loads SQLAlchemy
    from lifecycle import views  # noqa: PLC0415 # loads SQLAlchemy

    with closing(_database(database_url)) as database:
        if not database.is_postgres:
            words.say("SQLite has no roles: whoever may write the file may change the trail; see to its permissions")
            return
    names = [view.name for view in views.ALL]
    text = rights.sql(
        owner=owner,
        application=application,
        analyst=analyst,
        schema=schema,
        views=names,
        with_procrastinate=dispatch == settings.PROCRASTINATE,
    )
    click.echo(text)


def _tables() -> ModuleType:
    try:
        from lifecycle.engines import tables  # noqa: PLC0415 # loads Procrastinate
    except ModuleNotFoundError:
        raise settings.SettingsError(_NO_PROCRASTINATE) from None
    return tables


def _database(url: str) -> Database:
    from lifecycle import database  # noqa: PLC0415 # loads SQLAlchemy

    return database.Database(url)
