"""`lifecycle events`: the feed, once or for ever."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Final

import click

from lifecycle import errors
from lifecycle.cli import opening, options, output, words
from lifecycle.cli.options import Form

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lifecycle import Lifecycle
    from lifecycle.feed import FeedEvent

_NOW: Final = "now"
_ENDLESS: Final = (Form.JSONL, Form.CSV)
"""The forms that need no end."""


@click.command()
@click.option(
    "--after",
    show_envvar=True,
    metavar="CURSOR",
    help="Go on after the event with this cursor; now: with what is recorded from now on. Without: from the first.",
)
@click.option("--follow", is_flag=True, show_envvar=True, help="Go on with what comes, until Ctrl-C.")
@click.option(
    "--interval",
    type=click.FloatRange(min=0.05, max=3600),
    default=1.0,
    show_default=True,
    show_envvar=True,
    metavar="SECONDS",
    help="With --follow: how often to look.",
)
@click.option("--limit", type=click.IntRange(min=1), show_envvar=True, metavar="N", help="End after so many events.")
@click.option(
    "--format",
    "form",
    envvar="LIFECYCLE_FORMAT",
    show_envvar=True,
    type=click.Choice(Form, case_sensitive=False),
    show_default="table; with --follow jsonl",
    help="How the data on stdout is written; with --follow jsonl or csv.",
)
@options.database_url
def events(
    *, after: str | None, follow: bool, interval: float, limit: int | None, form: Form | None, database_url: str
) -> None:
    """Print the audit events of all appointments in the order of their recording, each with its cursor.

    Keep the last cursor and pass it as --after to go on: no event is left out.
    """
    if follow and form not in (None, *_ENDLESS):
        raise click.UsageError(f"--format {form} needs an end, which --follow has not; use jsonl or csv")
    with opening.reading(database_url) as lifecycle:
        start = lifecycle.feed_cursor() if after == _NOW else after
        if follow:
            found = _flushed(_followed(lifecycle, start, limit, interval))
        else:
            found = lifecycle.events(after=start, limit=limit)
        output.many(found, kind="FeedEvent", form=form or (Form.JSONL if follow else Form.TABLE))


def _followed(lifecycle: Lifecycle, after: str | None, limit: int | None, interval: float) -> Iterator[FeedEvent]:
    """Iterate for ever, or until the limit; while the database is away say so, and try again."""
    while True:
        try:
            for event in lifecycle.events(after=after, limit=limit):
                after = event.cursor
                limit = None if limit is None else limit - 1
                yield event
        except errors.DatabaseUnavailable as error:
            words.say(f"Error: {error}; trying again in {interval:g} s")
        if limit == 0:
            return
        time.sleep(interval)


def _flushed(found: Iterator[FeedEvent]) -> Iterator[FeedEvent]:
    """Hand on one at a time; the one before is written when the next is asked for, and goes out at once."""
    for event in found:
        yield event
        sys.stdout.flush()
