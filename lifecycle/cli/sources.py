"""Where the wishes of a bulk command come from, and the batch that they belong to.

The batch's id is made of what is wanted, so the same command again finds what was begun. Appointments that conditions
chose are kept in a file beside the results until all of them are submitted: chosen again, they would be others.
"""

from __future__ import annotations

import csv
import io
import shutil
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

import click

from lifecycle import columns, errors, files, selecting, wishlists
from lifecycle.cli import filtering

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lifecycle import Batch, Lifecycle
    from lifecycle.cli.bulking import Asked
    from lifecycle.selecting import Condition
    from lifecycle.wishlists import Wishlist

STDIN: Final = "-"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A bulk command as it was asked for. The defaults may hold patient data."""

    command: str
    defaults: dict[str, str] = field(repr=False)
    asked: Asked = field(repr=False)


@dataclass(frozen=True, slots=True)
class Source:
    """The wishes and their batch, which is there if it was begun before.

    `wishlist` is None if all wishes are in the batch. `selection` is the file of what conditions chose.
    """

    batch_id: str
    batch: Batch | None
    wishlist: Wishlist | None
    selection: Path | None = None


@contextmanager
def opened(lifecycle: Lifecycle, wanted: Wanted) -> Iterator[Source]:
    """Read the file, or choose the appointments, and find the batch that was begun with them."""
    if wanted.asked["file"] is None:
        yield _chosen(lifecycle, wanted)
        return
    with _file(wanted.asked["file"]) as path:
        wishlist = _read(wanted, path)
        parts = [wanted.command, "file", wishlist.digest, *_told(wanted)]
        batch_id, batch = _batch(lifecycle, parts, is_over=lambda _: wanted.asked["again"])
        yield Source(batch_id, batch, wishlist)


@contextmanager
def previewed(lifecycle: Lifecycle, wanted: Wanted) -> Iterator[Wishlist]:
    """Read the file, or choose the appointments, only to be judged."""
    if wanted.asked["file"] is not None:
        with _file(wanted.asked["file"]) as path:
            yield _read(wanted, path)
        return
    with tempfile.TemporaryDirectory() as folder:
        yield _choose(lifecycle, wanted, Path(folder) / "chosen.csv")


def drop_selection(source: Source) -> None:
    """Remove the file of what conditions chose, if there is one: the batch has it all, or nobody wants it."""
    if source.selection is not None:
        source.selection.unlink(missing_ok=True)


@contextmanager
def dropped_if_unwanted(source: Source) -> Iterator[None]:
    """Remove what conditions chose if it is not agreed to; what was begun before is kept."""
    try:
        yield
    except BaseException:
        if source.batch is None:
            drop_selection(source)
        raise


def result_of(wanted: Wanted, batch_id: str) -> Path:
    """Tell where the results go."""
    return Path(wanted.asked["result"] or f"{batch_id}.results.csv")


def _chosen(lifecycle: Lifecycle, wanted: Wanted) -> Source:
    meant = sorted({_text(each) for each in _conditions(wanted)})
    parts = [wanted.command, "where", *meant, *_told(wanted)]
    batch_id, batch = _batch(lifecycle, parts, is_over=lambda it: wanted.asked["again"] or it.progress().is_finished)
    selection = result_of(wanted, batch_id).parent / f"{batch_id}.chosen.csv"
    if batch is None:
        return Source(batch_id, None, _choose(lifecycle, wanted, selection), selection)
    if batch.progress().is_submitted:
        return Source(batch_id, batch, None, selection)
    if not selection.exists():
        problem = f"{selection}, which tells the rest of the unfinished batch {batch_id}, is not there"
        raise click.ClickException(f"{problem}; run this in its folder, or begin anew with --again")
    return Source(batch_id, batch, _read(wanted, selection), selection)


def _batch(lifecycle: Lifecycle, parts: list[str], *, is_over: Callable[[Batch], bool]) -> tuple[str, Batch | None]:
    """Find the newest batch of this wish if it is not over, or the id of a new one.

    The newest, so that what --again began is gone on with by the command without it.
    """
    newest: tuple[str, Batch] | None = None
    for number in count(1):
        batch_id = lifecycle.batch_id(*parts, str(number))
        try:
            found = lifecycle.batch(batch_id)
        except errors.BatchNotFound:
            return (batch_id, None) if newest is None or is_over(newest[1]) else newest
        newest = batch_id, found
    raise AssertionError


def _choose(lifecycle: Lifecycle, wanted: Wanted, path: Path) -> Wishlist:
    conditions = _conditions(wanted)
    with files.written(path, is_private=True) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
        writer = csv.writer(text)
        writer.writerow([wishlists.ID])
        found = 0
        for found, appointment_id in enumerate(lifecycle.chosen(conditions), start=1):  # noqa: B007 # counted
            writer.writerow([appointment_id])
        text.detach()
        if not found:
            raise errors.InvalidArgument(argument="--where", problem="no tracked appointment meets the conditions")
    return _read(wanted, path)


def _conditions(wanted: Wanted) -> list[Condition]:
    zone = filtering.zone(wanted.asked["time_zone"])
    return [selecting.parse(each, zone=zone, argument="--where") for each in wanted.asked["where"]]


def _text(condition: Condition) -> str:
    """Write a condition in one form, however it was written: instants in UTC, as another zone's are other ones."""
    value = condition.value if isinstance(condition.value, str) else columns.utc_text(condition.value)
    return f"{condition.field}{condition.comparison}{value}"


def _read(wanted: Wanted, path: Path) -> Wishlist:
    form = wanted.asked["input_format"] if wanted.asked["file"] is not None else None
    return wishlists.read(path, command=wanted.command, form=form, defaults=wanted.defaults)


@contextmanager
def _file(given: str) -> Iterator[Path]:
    """Give the file; of stdin or a pipe a copy, because it is read twice, which is gone afterwards."""
    if given != STDIN and Path(given).is_file():
        yield Path(given)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("stdin" if given == STDIN else Path(given).name)
        with path.open("wb") as file:
            _copy(given, file)
        try:
            yield path
        except errors.InvalidArgument as error:
            if error.argument != str(path):
                raise
            raise errors.InvalidArgument(argument=f"--file {given}", problem=error.problem) from None


def _copy(given: str, file: IO[bytes]) -> None:
    if given == STDIN:
        shutil.copyfileobj(sys.stdin.buffer, file)
        return
    with Path(given).open("rb") as pipe:
        shutil.copyfileobj(pipe, file)


def _told(wanted: Wanted) -> list[str]:
    return [f"{name}={value}" for name, value in sorted(wanted.defaults.items())]
