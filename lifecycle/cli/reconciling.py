"""Commands that compare with Zocdoc: sync reads its list and follows it, drift tells where the two parted."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import click

from lifecycle.cli import filtering, opening, options, output, watching, words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lifecycle import Lifecycle
    from lifecycle.cli.options import Form
    from lifecycle.drift import Drift
    from lifecycle.reconciliation import SyncReport

DRIFTED: Final = 7
"""Exit code of `lifecycle drift` when there is any: a finding, not a failure."""

UNREADABLE: Final = 5
"""Exit code of a sync that had to leave rows out: Zocdoc's answers were not sound, as with any remote failure."""


@click.command()
@click.option(
    "--full",
    is_flag=True,
    show_envvar=True,
    help="Read everything again, from the beginning; with --watch the first time only.",
)
@watching.option
@click.option(
    "--overlap",
    type=click.FloatRange(min=0),
    default=600.0,
    show_default=True,
    show_envvar=True,
    metavar="SECONDS",
    help="Begin so long before the end of the last sync.",
)
@click.option(
    "--actor",
    envvar="LIFECYCLE_ACTOR",
    show_envvar=True,
    default="job:sync",
    show_default=True,
    metavar="NAME",
    help="Who asks, for the audit trail.",
)
@options.form
@options.database_url
@click.pass_context
def sync(
    context: click.Context,
    *,
    full: bool,
    watch: float | None,
    overlap: float,
    actor: str,
    form: Form,
    database_url: str,
) -> None:
    """Read from Zocdoc what was modified since the last sync, the first time everything, and record it."""
    with opening.opened(database_url) as lifecycle:
        unreadable = 0

        def act() -> None:
            nonlocal full, unreadable
            report = _sync(lifecycle, form, full=full, overlap=overlap, actor=actor, is_quiet=watch is not None)
            full, unreadable = False, report.unreadable

        watching.run(act, every=watch)
    if unreadable:
        context.exit(UNREADABLE)


@click.command()
@click.option("--since", show_envvar=True, metavar="INSTANT", help="Only what was recorded at or after: see `audit`.")
@filtering.time_zone
@options.form
@options.database_url
@click.pass_context
def drift(context: click.Context, *, since: str | None, time_zone: str, form: Form, database_url: str) -> None:
    """Tell where Zocdoc and this database parted; ends with 7 if there is anything to tell. Calls nobody."""
    count, start = 0, filtering.instant(since, time_zone, "--since")

    def counted(found: Iterator[Drift]) -> Iterator[Drift]:
        nonlocal count
        for each in found:
            count += 1
            yield each

    with opening.reading(database_url) as lifecycle:
        output.many(counted(iter(lifecycle.drift(since=start))), kind="Drift", form=form)
    if count:
        sys.stdout.flush()
        context.exit(DRIFTED)


def _sync(lifecycle: Lifecycle, form: Form, *, full: bool, overlap: float, actor: str, is_quiet: bool) -> SyncReport:
    with _progress() as tell:
        report = lifecycle.sync(full=full, overlap=overlap, actor=actor, on_progress=tell)
    if not is_quiet or report.tracked or report.changed or report.busy or report.unreadable:
        output.one(report, form=form)
        words.say(*words.synced(report))
    return report


@contextmanager
def _progress() -> Iterator[Callable[[int, int | None], object] | None]:
    """Show a bar on a terminal; in a log it would be noise."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console  # noqa: PLC0415 # loads rich
    from rich.progress import Progress  # noqa: PLC0415 # loads rich

    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("reading the list", total=None)
        yield lambda rows, total: progress.update(bar, completed=rows, total=total)
