"""Commands that compute figures: the report as a file, and the same numbers in the terminal."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Unpack

import click

from lifecycle.cli import filtering, opening, options, words

if TYPE_CHECKING:
    from lifecycle.reports.facts import Figures

_DAYS: Final = 90
_WINDOW: Final = "Without --since the window is the 90 days before --until, and that is now."


@click.command(epilog=_WINDOW)
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False),
    default="report.html",
    show_default=True,
    show_envvar=True,
    metavar="FILE",
    help="The file; it appears when it is whole, and one that is there stays until then.",
)
@click.option("--title", default="Appointment lifecycle", show_default=True, show_envvar=True, help="The heading.")
@filtering.options
@options.database_url
def report(*, output: str, title: str, database_url: str, **given: Unpack[filtering.Given]) -> None:
    """Write the report: one HTML file with figures and pictures, which needs no network and no JavaScript."""
    zone = filtering.zone(given["time_zone"])
    found = _figures(database_url, given)
    from lifecycle.reports import report as writing  # noqa: PLC0415 # loads SQLAlchemy

    writing.write(found, output, title=title, zone=zone)
    words.say(f"{output}: {writing.described(found, zone)}")


@click.command(epilog=_WINDOW)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    show_envvar=True,
    help="Tables for people, or one JSON object for programs.",
)
@filtering.options
@options.database_url
def stats(*, form: str, database_url: str, **given: Unpack[filtering.Given]) -> None:
    """Print the figures of the report: counts, times, cancellations, refusals, outcomes, what is in doubt."""
    zone = filtering.zone(given["time_zone"])
    found = _figures(database_url, given)
    if form == "json":
        from lifecycle.reports import encoding  # noqa: PLC0415 # loads SQLAlchemy

        click.echo(encoding.encoded(found))
        return
    from lifecycle.cli import sheets  # noqa: PLC0415 # loads rich

    click.echo(sheets.of(found, zone), nl=False)


def _figures(database_url: str, given: filtering.Given) -> Figures:
    filters = filtering.made(**given)
    if filters.since is None:
        end = filters.until or filters.as_of or datetime.now(UTC)
        filters = replace(filters, since=end - timedelta(days=_DAYS))
    with opening.reading(database_url) as lifecycle:
        return lifecycle.figures(**filters.given)
