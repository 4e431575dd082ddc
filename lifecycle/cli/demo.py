"""`lifecycle demo`: the declaration of the command; what it does is in `story` and `samples`, which load all."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lifecycle.cli import filtering, options

if TYPE_CHECKING:
    from collections.abc import Iterator


@click.command()
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(),
    show_default="the current one",
    show_envvar=True,
    help="Where the database file is made.",
)
@click.option("--keep/--no-keep", default=True, show_default=True, show_envvar=True, help="Keep the database file.")
@click.option(
    "--appointments",
    type=click.IntRange(min=1),
    show_envvar=True,
    metavar="N",
    help="Fill the database with so many appointments of a simulated practice group instead of telling the story.",
)
@click.option("--seed", type=int, default=1, show_default=True, show_envvar=True, help="Another one, other samples.")
@click.option(
    "--days",
    type=click.IntRange(min=1, max=3660),
    default=90,
    show_default=True,
    show_envvar=True,
    help="How far back the samples go.",
)
@click.option(
    "--until",
    show_envvar=True,
    show_default="now",
    metavar="TIME",
    help="When the samples end: ISO 8601 with an offset.",
)
@click.option(
    "--database-url",
    show_envvar=True,
    callback=options.checked_url,
    metavar="URL",
    help="Put the samples into this empty database instead of a new file; never into one with appointments.",
)
def demo(
    *,
    directory: Path,
    keep: bool,
    appointments: int | None,
    seed: int,
    days: int,
    until: str | None,
    database_url: str | None,
) -> None:
    """See it work: the calls of Zocdoc's guide, a refusal, and a lost answer that is settled. Takes four seconds.

    Needs no account and no network: it starts a local stand-in of Zocdoc and makes a new SQLite file.

    With --appointments it plays months of a practice group instead, to look at: up to 5,000 appointments by the real
    engine in simulated time, more of them, or on PostgreSQL, by a generator that writes the same rows at once. The same
    --seed, --days and --until tell the same stories.
    """
    if appointments is None:
        _tell(directory, keep=keep)
        return
    end = filtering.instant(until, "UTC", "--until") or datetime.now(UTC)
    with _target(directory, database_url, keep=keep) as target:
        from lifecycle.cli import samples  # noqa: PLC0415 # loads everything

        samples.make(target, appointments=appointments, seed=seed, days=days, until=end)
        if keep:
            samples.tell_what_next(target)


def _tell(directory: Path, *, keep: bool) -> None:
    path = _new_file(directory)
    try:
        from lifecycle.cli import story  # noqa: PLC0415 # loads everything

        story.tell(path)
        if keep:
            story.tell_what_next(path)
    finally:
        if not keep:
            path.unlink(missing_ok=True)


@contextmanager
def _target(directory: Path, database_url: str | None, *, keep: bool) -> Iterator[str]:
    """Give the URL of the database; a new file does not stay if it is not to be kept, or only half made."""
    if database_url is not None:
        yield database_url
        return
    path = _new_file(directory)
    is_done = False
    try:
        yield f"sqlite:///{path}"
        is_done = True
    finally:
        if not keep or not is_done:
            for leftover in path.parent.glob(f"{path.name}*"):
                leftover.unlink(missing_ok=True)


def _new_file(directory: Path) -> Path:
    """Make an empty file under a name that was free: the demo never touches what is there already."""
    name = f"lifecycle-demo-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    for suffix in ("", *(f"-{number}" for number in range(2, 100))):
        path = directory / f"{name}{suffix}.db"
        try:
            path.open("xb").close()
        except FileExistsError:
            continue
        except OSError as error:
            problem = f"cannot make {path}: {error.strerror}; name another folder with --directory"
            raise click.ClickException(problem) from None
        return path
    raise click.ClickException(f"{directory} is full of demos of this very second; try again")
