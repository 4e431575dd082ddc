"""`lifecycle batches` and `lifecycle batch`: what was submitted together, and what became of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lifecycle.cli import opening, options, output, words

if TYPE_CHECKING:
    from lifecycle import Batch, BatchInfo, Lifecycle
    from lifecycle.cli.options import Form


@click.command()
@click.option(
    "--limit", type=click.IntRange(min=1), default=50, show_default=True, show_envvar=True, help="At most so many."
)
@options.form
@options.database_url
def batches(*, limit: int, form: Form, database_url: str) -> None:
    """List the batches, newest first."""
    with opening.reading(database_url) as lifecycle:
        output.many(lifecycle.batches(limit=limit), kind="BatchInfo", form=form)


@click.command()
@click.argument("batch_id", metavar="BATCH_ID")
@click.option("--rows", is_flag=True, show_envvar=True, help="Print every row, in order.")
@click.option("--failures", is_flag=True, show_envvar=True, help="Print the rows that were not applied.")
@click.option("--cancel", is_flag=True, show_envvar=True, help="Withdraw what is still queued.")
@click.option("--watch", is_flag=True, show_envvar=True, help="Carry it on, and stay until it has ended.")
@options.concurrency
@options.settle_for
@click.option(
    "--result",
    type=click.Path(dir_okay=False, path_type=Path),
    show_envvar=True,
    metavar="FILE",
    help="Write what became of each row, as CSV; replaced if it is there.",
)
@options.actor
@options.form
@options.database_url
@click.pass_context
def batch(
    context: click.Context,
    batch_id: str,
    *,
    rows: bool,
    failures: bool,
    cancel: bool,
    watch: bool,
    concurrency: int,
    settle_for: float,
    result: Path | None,
    actor: str,
    form: Form,
    database_url: str,
) -> None:
    """Tell how far a batch is, what became of its rows; withdraw what is queued, or go on with it.

    With --watch the exit code is that of `lifecycle bulk`: 0 all applied, 5 something is in doubt, 9 the others.
    """
    with opening.opened(database_url, needs_zocdoc=watch, concurrency=concurrency) as lifecycle:
        found = lifecycle.batch(batch_id)
        if cancel:
            words.say(f"{found.cancel(actor=actor)} commands were withdrawn")
        code = _watched(lifecycle, found, settle_for) if watch else 0
        if result is not None:
            _write(found, result)
        with output.unread():
            _print(found, form, rows=rows, failures=failures)
    context.exit(code)


def _watched(lifecycle: Lifecycle, batch: Batch, settle_for: float) -> int:
    from lifecycle.cli import attending, bulking  # noqa: PLC0415 # loads the library

    with attending.interruptible(batch.id):
        return bulking.ended(attending.attend(lifecycle, batch, settle_for=settle_for))


def _write(batch: Batch, result: Path) -> None:
    from lifecycle import results  # noqa: PLC0415 # loads the library

    words.say(f"{results.write(batch.rows(), result)} rows in {result}")


def _print(batch: Batch, form: Form, *, rows: bool, failures: bool) -> None:
    if rows or failures:
        output.many(batch.rows() if rows else batch.failures(), kind="BatchRow", form=form)
        return
    output.one(batch.progress(), form=form)
    words.say(_described(batch.info))


def _described(info: BatchInfo) -> str:
    name = f" ({info.name})" if info.name else ""
    cancelled = f", cancelled {info.cancelled_at:%Y-%m-%dT%H:%M:%SZ}" if info.cancelled_at else ""
    return (
        f"batch {info.batch_id}{name}: {info.command or 'several commands'}, asked for by {info.actor}, "
        f"began {info.created_at:%Y-%m-%dT%H:%M:%SZ}{cancelled}"
    )
