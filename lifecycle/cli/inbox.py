"""Commands for the inbox: what Zocdoc's webhook calls told, and what became of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lifecycle.cli import opening, options, output, watching, words

if TYPE_CHECKING:
    from lifecycle import Lifecycle
    from lifecycle.cli.options import Form

_STATES = ("received", "followed", "untracked", "failed", "ignored")


@click.group()
def inbox() -> None:
    """Look after Zocdoc's webhook calls, which `lifecycle serve` or your own server stores."""


@inbox.command("list")
@click.option("--state", type=click.Choice(_STATES), show_envvar=True, help="Only deliveries in this state.")
@options.form
@options.database_url
def list_(*, state: str | None, form: Form, database_url: str) -> None:
    """List the stored calls, newest first."""
    with opening.reading(database_url) as lifecycle:
        output.many(lifecycle.deliveries(state=state), kind="Delivery", form=form)


@inbox.command()
@click.option("--track-unknown", is_flag=True, show_envvar=True, help="Track appointments that are not tracked yet.")
@watching.option
@options.database_url
def process(*, track_unknown: bool, watch: float | None, database_url: str) -> None:
    """Read the appointments that stored calls tell of, and record what has changed."""
    with opening.opened(database_url) as lifecycle:
        is_quiet = watch is not None
        watching.run(lambda: _process(lifecycle, track_unknown=track_unknown, is_quiet=is_quiet), every=watch)


@inbox.command()
@click.argument("delivery_ids", metavar="DELIVERY_ID...", nargs=-1)
@click.option("--all-failed", is_flag=True, show_envvar=True, help="All that ended as failed.")
@click.option("--all-untracked", is_flag=True, show_envvar=True, help="All that ended as untracked.")
@options.database_url
def retry(*, delivery_ids: tuple[str, ...], all_failed: bool, all_untracked: bool, database_url: str) -> None:
    """Take deliveries up again that failed, or whose appointment was not tracked; then `lifecycle inbox process`."""
    if not delivery_ids and not all_failed and not all_untracked:
        raise click.UsageError("name deliveries, or give --all-failed or --all-untracked")
    with opening.reading(database_url) as lifecycle:
        states = [state for state, wanted in (("failed", all_failed), ("untracked", all_untracked)) if wanted]
        chosen = [*delivery_ids]
        for state in states:
            chosen += [delivery.delivery_id for delivery in lifecycle.deliveries(state=state)]
        for delivery_id in chosen:
            lifecycle.retry_delivery(delivery_id)
    words.say(f"{len(chosen)} deliveries are to be processed again")


def _process(lifecycle: Lifecycle, *, track_unknown: bool, is_quiet: bool) -> None:
    done = lifecycle.process_inbox(track_unknown=track_unknown)
    ended = done.followed + done.untracked + done.failed
    if ended or not is_quiet:
        words.say(
            f"followed {done.followed}, untracked {done.untracked}, failed {done.failed}, "
            f"with {done.reads} reads; {done.waiting} left"
        )
