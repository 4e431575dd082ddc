"""Commands for whoever looks after what went wrong: settle by reading, list what reading cannot settle, decide."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lifecycle.cli import opening, options, output, watching, words

if TYPE_CHECKING:
    from lifecycle import Lifecycle
    from lifecycle.cli.options import Form


@click.command()
@click.option(
    "--wait",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    show_envvar=True,
    metavar="SECONDS",
    help="Go on for so long for what becomes due later.",
)
@watching.option
@options.form
@options.database_url
def recover(*, wait: int, watch: float | None, form: Form, database_url: str) -> None:
    """Settle commands whose answer was lost, by reading from Zocdoc; sends nothing."""
    with opening.opened(database_url) as lifecycle:
        watching.run(lambda: _recover(lifecycle, wait, form, is_quiet=watch is not None), every=watch)


@click.command()
@options.form
@options.database_url
def attention(*, form: Form, database_url: str) -> None:
    """List the commands that need a human, with the evidence: what was before, what was wanted, what was read."""
    with opening.reading(database_url) as lifecycle:
        found = lifecycle.attention()
    output.many(found, kind="Attention", form=form)
    if found:
        words.say("look each up at Zocdoc, then: lifecycle resolve COMMAND_ID --as applied|rejected|retry")


@click.command()
@click.argument("command_id", metavar="COMMAND_ID")
@click.option(
    "--as",
    "resolution",
    type=click.Choice(["applied", "rejected", "retry"]),
    required=True,
    show_envvar=True,
    help="What you found out: it had happened, or it had not; or send it once more.",
)
@click.option(
    "--reason-code",
    required=True,
    show_envvar=True,
    metavar="CODE",
    help="Why, as a code such as seen_in_portal; it goes into the audit trail, so no names and no text.",
)
@options.actor
@options.database_url
def resolve(command_id: str, *, resolution: str, reason_code: str, actor: str, database_url: str) -> None:
    """Settle a command that needs attention. A retry reads the appointment and runs the checks again first."""
    with opening.opened(database_url, needs_zocdoc=resolution == "retry") as lifecycle:
        done = lifecycle.resolve(command_id, resolution=resolution, reason_code=reason_code, actor=actor)
    words.say(*(words.done(done) if done else [f"command {command_id} is resolved as {resolution}"]))


def _recover(lifecycle: Lifecycle, wait: int, form: Form, *, is_quiet: bool) -> None:
    recovery = lifecycle.recover(wait=wait)
    if recovery.settled or not is_quiet:
        output.many(recovery.settled, kind="Recovered", form=form)
        words.say(words.recovered(recovery))
