"""The file of a checkpoint: JSON lines, signed with HMAC-SHA256. Written and read line by line; knows no database.

The first line tells what it is of and when, then comes a line for each chain with its last event, then one of totals.
The last line is the signature of all bytes before it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import asdict, dataclass, fields
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from lifecycle import errors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SHORTEST_KEY: Final = 32
"""Bytes: as many as the digest has."""

_FORMAT: Final = "lifecycle-checkpoint"
_VERSION: Final = 1
_LONGEST_LINE: Final = 4_096
"""Bytes; an id has 64 characters, a hash 64."""

_T = TypeVar("_T", "Header", "Totals")


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a checkpoint is of. Instants are canonical UTC text; `environment` None: no client had used the database."""

    format: str = _FORMAT
    version: int = _VERSION
    environment: str | None
    schema_revision: str
    as_of: str
    created_at: str


class Head(NamedTuple):
    """The last event of a chain."""

    appointment_id: str
    appointment_seq: int
    hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """How much the heads stand for; `events_until_as_of` are those recorded at `as_of` or before."""

    appointments: int
    events: int
    events_until_as_of: int


class Writer:
    """Writes a checkpoint's lines to an open file and signs them."""

    def __init__(self, file: IO[bytes], key: bytes) -> None:
        self._file = file
        self._signature = hmac.new(key, digestmod=hashlib.sha256)

    def write(self, line: dict[str, Any]) -> None:
        """Write one line."""
        written = _line(line)
        self._signature.update(written)
        self._file.write(written)

    def sign(self) -> None:
        """Write the last line."""
        self._file.write(_line({"hmac_sha256": self._signature.hexdigest()}))


class Reader:
    """A checkpoint that was found authentic; `header` and `totals` tell what it holds, `heads` reads the rest."""

    def __init__(self, path: Path, key: bytes) -> None:
        """Read the whole file once. Raises `CheckpointRefused` unless this key has signed it, `OSError`."""
        self._path = path
        self._key = key
        first, last = b"", b""
        for last in self._authentic_lines():
            first = first or last
        self.header: Final = self._made(Header, json.loads(first))
        if (self.header.format, self.header.version) != (_FORMAT, _VERSION):
            raise self._refusal("unknown_version")
        self.totals: Final = self._made(Totals, json.loads(last))

    def heads(self) -> Iterator[Head]:
        """Iterate over the heads. Raises `CheckpointRefused` at the end if the file was changed meanwhile."""
        ahead = None
        for number, line in enumerate(self._authentic_lines()):
            if ahead is not None:
                yield Head(**json.loads(ahead))
            ahead = line if number else None

    def _authentic_lines(self) -> Iterator[bytes]:
        """Give all lines but the signature's, which is compared at the end."""
        signature = hmac.new(self._key, digestmod=hashlib.sha256)
        ahead = b""
        with self._path.open("rb") as file:
            while line := file.readline(_LONGEST_LINE):
                if not line.endswith(b"\n"):
                    raise self._refusal("not_a_checkpoint")
                signature.update(ahead)
                if ahead:
                    yield ahead
                ahead = line
        if not hmac.compare_digest(ahead, _line({"hmac_sha256": signature.hexdigest()})):
            raise self._refusal("bad_signature" if _is_signature(ahead) else "not_a_checkpoint")

    def _made(self, kind: type[_T], values: dict[str, Any]) -> _T:
        if values.keys() != {field.name for field in fields(kind)}:
            raise self._refusal("unknown_version")
        return kind(**values)

    def _refusal(self, reason_code: str) -> errors.CheckpointRefused:
        return errors.CheckpointRefused(path=str(self._path), reason_code=reason_code)


def check_key(key: bytes) -> bytes:
    """Refuse a key that could be guessed. Raises `InvalidArgument`."""
    if not isinstance(key, bytes) or len(key) < SHORTEST_KEY:
        raise errors.InvalidArgument(argument="key", problem=f"{SHORTEST_KEY} random bytes or more are needed")
    return key


def line_of(record: Header | Totals) -> dict[str, Any]:
    """Give a record as the line that holds it."""
    return asdict(record)


def _line(values: dict[str, Any]) -> bytes:
    return json.dumps(values, separators=(",", ":")).encode() + b"\n"


def _is_signature(line: bytes) -> bool:
    return line.startswith(b'{"hmac_sha256":')
