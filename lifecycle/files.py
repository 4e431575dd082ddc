"""A file that appears whole or not at all."""

from __future__ import annotations

import os
import secrets
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from lifecycle import errors

if TYPE_CHECKING:
    from collections.abc import Iterator

_OWNERS: Final = 0o600
_EVERYBODYS: Final = 0o666
"""As far as the umask lets them, like any new file."""

_DATABASE: Final = b"SQLite format 3\0"
"""What an SQLite file begins with: replaced by a slip, it would be lost with the whole trail."""


def check(path: str | os.PathLike[str], *, replace: bool = True) -> None:
    """Raise `InvalidArgument` for a place that holds what `written` does not replace; `OSError`."""
    place = Path(os.path.realpath(path))
    if not replace and place.exists():
        problem = f"{os.fspath(path)} is there already; name another file"
        raise errors.InvalidArgument(argument="path", problem=problem)
    if place.exists() and not place.is_file():
        raise errors.InvalidArgument(argument="path", problem=f"{os.fspath(path)} is not a file")
    if _is_database(place):
        raise errors.InvalidArgument(argument="path", problem=f"{os.fspath(path)} is a database; name another file")


@contextmanager
def written(path: str | os.PathLike[str], *, replace: bool = True, is_private: bool = False) -> Iterator[IO[bytes]]:
    """Write a file beside its place; put it there, on the disk for certain, when the block ends without an exception.

    Otherwise nothing is left behind and a file that was there is untouched. A symbolic link is followed. What
    `is_private` only its owner may read. Raises `InvalidArgument` for a place that holds something else than a file, an
    SQLite database, or anything and not `replace`; `OSError` as the operating system does.
    """
    check(path, replace=replace)
    place = Path(os.path.realpath(path))
    part = place.with_name(f".{place.name[:200]}.{secrets.token_hex(6)}.part")
    try:
        mode = _OWNERS if is_private else _EVERYBODYS
        with os.fdopen(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(place)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _sync_folder(place.parent)


def _is_database(place: Path) -> bool:
    with suppress(OSError), place.open("rb") as file:
        return file.read(len(_DATABASE)) == _DATABASE
    return False


def _sync_folder(folder: Path) -> None:
    """Make the new name durable, where folders can be opened for that."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
