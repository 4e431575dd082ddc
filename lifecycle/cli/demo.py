"""`lifecycle demo`: the declaration of the command; the story itself is in `story`, which loads the whole library."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click


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
def demo(*, directory: Path, keep: bool) -> None:
    """See it work: the calls of Zocdoc's guide, a refusal, and a lost answer that is settled. Takes four seconds.

    Needs no account and no network: it starts a local stand-in of Zocdoc and makes a new SQLite file.
    """
    path = _new_file(directory)
    try:
        from lifecycle.cli import story  # noqa: PLC0415 # loads everything

        story.tell(path)
        if keep:
            story.tell_what_next(path)
    finally:
        if not keep:
            path.unlink(missing_ok=True)


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
