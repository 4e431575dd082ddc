"""What `lifecycle demo --appointments` does: fill a database with samples, and say what to look at."""

from __future__ import annotations

import shlex
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from lifecycle.cli import story
from lifecycle.samples import filling

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime


def make(target: str, *, appointments: int, seed: int, days: int, until: datetime) -> None:
    """Make the samples and tell on stdout what was made. Raises what `filling.fill` does."""
    with _progress(appointments) as on_progress:
        made = filling.fill(
            target, appointments=appointments, seed=seed, days=days, until=until, on_progress=on_progress
        )
    click.echo(
        f"{made.appointments:,} appointments, {made.commands:,} commands and {made.events:,} audit events "
        f"of the {days} days before {until:%Y-%m-%dT%H:%M:%SZ}, seed {seed}, in {made.seconds:.1f} s."
    )


def tell_what_next(target: str) -> None:
    """Print commands that look at the samples."""
    story.title("Look around", f"the database is {target}")
    story.code(f"export LIFECYCLE_DATABASE_URL={shlex.quote(target)}")
    called = story.program()
    for line in ("report -o report.html", "audit --limit 20", "verify"):
        story.code(f"{called} {line}")


@contextmanager
def _progress(appointments: int) -> Iterator[Callable[[int, int], object] | None]:
    """Show a bar on a terminal; in a log it would be noise."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console  # noqa: PLC0415 # loads rich
    from rich.progress import Progress  # noqa: PLC0415 # loads rich

    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("appointments", total=appointments)
        yield lambda done, _: progress.update(bar, completed=done)
