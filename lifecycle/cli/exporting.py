"""`lifecycle export`: a view as a file."""

from __future__ import annotations

import signal
import sys
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Final, Unpack

import click

from lifecycle.cli import filtering, opening, options, words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FORMATS: Final = ("csv", "jsonl", "parquet", "cloudevents")
"""Written here because to ask the library for them would load it; a test holds them equal."""

_STDOUT: Final = "-"
_TERMINATED: Final = 128 + signal.SIGTERM


@click.command()
@click.argument("view")
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS, case_sensitive=False),
    default="csv",
    show_default=True,
    show_envvar=True,
    help="How it is written; parquet needs the extra of that name, cloudevents is for event_log and audit_events.",
)
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False, allow_dash=True),
    default=_STDOUT,
    show_default="stdout",
    show_envvar=True,
    metavar="FILE",
    help="The file; it appears when it is whole, and one that is there stays until then.",
)
@click.option(
    "--guard/--raw",
    default=True,
    show_default=True,
    show_envvar=True,
    help="CSV: put an apostrophe before text that a spreadsheet would run as a formula, or leave it as it is.",
)
@filtering.options
@options.database_url
def export(
    view: str, *, form: str, output: str, guard: bool, database_url: str, **given: Unpack[filtering.Given]
) -> None:
    """Write the rows of VIEW into a file, or to stdout; the filters choose events before they are counted.

    VIEW is event_log, current_status, time_in_status, transitions, funnel, cancellations, refusals, command_outcomes,
    batch_outcomes, batch_rows, process_log, or audit_events: every column of the audit trail, hashes too. What is made
    of appointments (current_status) or of batches knows a few of the filters, and refuses the others.
    """
    target = _stdout(form) if output == _STDOUT else output
    with _orderly_end(), opening.reading(database_url) as lifecycle, _progress() as tell:
        done = lifecycle.export(
            view, target, format=form, guard=guard, on_progress=tell, **filtering.made(**given).given
        )
    place = "stdout" if output == _STDOUT else output
    words.say(f"{done.rows} rows of {done.view} as {done.format} to {place}")


def _stdout(form: str) -> IO[bytes]:
    if form == "parquet" and sys.stdout.isatty():
        raise click.UsageError("Parquet is not for a terminal; name a file with --output")
    return sys.stdout.buffer


@contextmanager
def _orderly_end() -> Iterator[None]:
    """Let SIGTERM end the command as Ctrl-C does: what was begun is taken away."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _progress() -> Iterator[Callable[[int, int | None], object] | None]:
    """Show a bar on a terminal; in a log it would be noise."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console  # noqa: PLC0415 # loads rich
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415 # loads rich

    looks = (TextColumn("{task.completed:,} rows"), BarColumn(), TimeRemainingColumn())
    with Progress(*looks, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("", total=None)
        yield lambda rows, total: progress.update(
            bar, completed=rows, total=None if total is None else max(rows, total)
        )
