"""`lifecycle schema`: the tables and views, for whoever writes queries or describes them to a tool."""

from __future__ import annotations

from enum import StrEnum

import click

from lifecycle.cli import output
from lifecycle.cli.options import Form


class SchemaForm(StrEnum):
    """How the schema is printed: as other data, or as a sources file of dbt."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"
    DBT = "dbt"


@click.command()
@click.option(
    "--format",
    "form",
    envvar="LIFECYCLE_SCHEMA_FORMAT",
    show_envvar=True,
    type=click.Choice(SchemaForm, case_sensitive=False),
    default=SchemaForm.TABLE,
    show_default=True,
    help="How the data on stdout is written; dbt: a sources file.",
)
def schema(*, form: SchemaForm) -> None:
    """List every table and view with its columns, their types and what they mean. Reads no database."""
    from lifecycle.reports import dictionary  # noqa: PLC0415 # loads SQLAlchemy

    match form:
        case SchemaForm.DBT:
            click.echo(dictionary.dbt(), nl=False)
        case SchemaForm.TABLE:
            from lifecycle.cli import tables  # noqa: PLC0415 # loads rich

            click.echo(tables.dictionary(dictionary.described()), nl=False)
        case _:
            output.many(dictionary.described(), kind="Described", form=Form(form))
