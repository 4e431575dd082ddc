"""The schema of the database: bring it up to date, tell where it stands, compare it."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import click

from lifecycle.cli import options, words

if TYPE_CHECKING:
    from lifecycle.database import Database


@click.group()
def db() -> None:
    """Make or check the tables of the database."""


@db.command()
@options.database_url
def upgrade(*, database_url: str) -> None:
    """Bring the database to the newest schema and print its revision. Safe to repeat."""
    from lifecycle import schema  # noqa: PLC0415 # loads Alembic

    with closing(_database(database_url)) as database:
        click.echo(schema.upgrade(database))
    words.say("the schema is up to date")


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
@options.database_url
@click.pass_context
def check(ctx: click.Context, *, database_url: str) -> None:
    """Compare the tables with those this version works with; print the differences, exit 1 if there are any."""
    from lifecycle import schema  # noqa: PLC0415 # loads Alembic

    with closing(_database(database_url)) as database:
        differences = schema.check(database)
    for difference in differences:
        click.echo(words.printable(difference))
    words.say(f"{len(differences)} differences" if differences else "the schema is as it should be")
    ctx.exit(1 if differences else 0)


def _database(url: str) -> Database:
    from lifecycle import database  # noqa: PLC0415 # loads SQLAlchemy

    return database.Database(url)
