"""Commands that tell whether the audit trail can be trusted: verify it, write a checkpoint, hold it against one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from lifecycle import settings
from lifecycle.cli import opening, options, output, words

if TYPE_CHECKING:
    from lifecycle import Verification
    from lifecycle.cli.options import Form

BROKEN: Final = 6
"""The exit code of a trail in which something was found."""

_file = click.argument("path", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path))
_processes = click.option(
    "--processes",
    type=click.IntRange(1, 64),
    show_default="2, or the number of processors",
    show_envvar=True,
    metavar="N",
    help="How many parts of a large trail are judged at once.",
)


@click.command()
@_processes
@options.form
@options.database_url
@click.pass_context
def verify(ctx: click.Context, *, processes: int | None, form: Form, database_url: str) -> None:
    """Recompute every chain of the audit trail and print what is wrong; ends with 6 if anything is.

    Reads only, and may run beside writers.
    """
    with opening.reading(database_url) as lifecycle:
        found = lifecycle.verify(processes=processes)
    _print(ctx, found, form)


@click.group()
def checkpoint() -> None:
    """Write the newest hashes to a signed file, to be kept away from the database, or verify against one."""


@checkpoint.command()
@click.option(
    "-o",
    "--output",
    "path",
    required=True,
    show_envvar=True,
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file to write; only its owner may read it.",
)
@click.option("--force", is_flag=True, show_envvar=True, help="Replace the file if it is there already.")
@options.optional_form
@options.database_url
def create(*, path: Path, force: bool, form: Form | None, database_url: str) -> None:
    """Write the last event of every chain to FILE, signed with LIFECYCLE_CHECKPOINT_KEY.

    It does not verify the chains; `lifecycle verify` does.
    """
    key = settings.checkpoint_key(os.environ)
    with opening.reading(database_url) as lifecycle:
        made = lifecycle.checkpoint(path, key=key, replace=force)
    words.say(
        f"{made.events} events of {made.appointments} appointments as of {made.as_of:%Y-%m-%dT%H:%M:%S.%fZ}; "
        f"keep {made.path} and the key away from the database"
    )
    if form is not None:
        output.one(made, form=form)


@checkpoint.command("verify")
@_file
@_processes
@options.form
@options.database_url
@click.pass_context
def verify_against(ctx: click.Context, path: Path, *, processes: int | None, form: Form, database_url: str) -> None:
    """Verify the trail as `lifecycle verify` does, and against a checkpoint; ends with 6 if anything is wrong.

    Finds also what was cut off, deleted, rebuilt or backdated since FILE was written.
    """
    key = settings.checkpoint_key(os.environ)
    with opening.reading(database_url) as lifecycle:
        found = lifecycle.verify_checkpoint(path, key=key, processes=processes)
    _print(ctx, found, form)


def _print(ctx: click.Context, found: Verification, form: Form) -> None:
    output.many(found.findings, kind="Finding", form=form)
    words.say(*words.verified(found))
    ctx.exit(0 if found.is_sound else BROKEN)
