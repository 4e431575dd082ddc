"""Reading JSON request bodies: every member that does not fit is a 400 that names its field."""

from __future__ import annotations

import json
import re
import zlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Self

from lifecycle.sandbox.messages import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_BODY: Final = 1 << 20  # one MiB, unpacked: a thousand times the largest documented request

_GZIP: Final = 31  # zlib's window size that expects a gzip header
_INSTANT: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,9})?)?(Z|[+-][0-9]{2}:[0-9]{2})"
)


def parse_instant(text: str) -> datetime:
    """Return the UTC instant of an ISO 8601 text; raises `ValueError` without date, time and offset."""
    if not _INSTANT.fullmatch(text):
        raise ValueError(text)
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except OverflowError:
        raise ValueError(text) from None


def aware(instant: datetime) -> datetime:
    """Return an instant in UTC; raises `ValueError` for one without an offset."""
    if instant.tzinfo is None:
        raise ValueError("a time needs an offset")
    return instant.astimezone(UTC)


def unpack(raw: bytes, content_encoding: str) -> bytes:
    """Return a body without its gzip coating, which is accepted as documented; broken gzip is no body."""
    if content_encoding.lower() != "gzip":
        return raw
    try:
        return zlib.decompressobj(_GZIP).decompress(raw, MAX_BODY)
    except zlib.error:
        return b""


def parse(raw: bytes) -> object:
    """Return the JSON value of a body, or `None` when it is none."""
    try:
        return json.loads(raw) if raw else None
    except (ValueError, RecursionError):
        return None


class Body:
    """A JSON object whose members are read one by one; `None` counts as left out."""

    def __init__(self, document: object, prefix: str = "") -> None:
        if not isinstance(document, dict):
            raise Refusal(400, "A JSON object is required.", field=prefix.rstrip(".") or None)
        self._members = document
        self._prefix = prefix

    def text(self, name: str) -> str:
        """Return a required, non-empty string."""
        value = self.optional_text(name)
        if not value:
            raise self._wrong(name, "is required")
        return value

    def optional_text(self, name: str, *, longest: int | None = None) -> str | None:
        """Return a string or `None`; `longest` limits its characters."""
        value = self._members.get(name)
        if value is None:
            return None
        if not isinstance(value, str):
            raise self._wrong(name, "must be a string")
        if longest is not None and len(value) > longest:
            raise self._wrong(name, f"may have {longest} characters at most")
        return value

    def choice(self, name: str, options: Iterable[str]) -> str:
        """Return a required string that is one of `options`."""
        self.text(name)
        return self.optional_choice(name, options) or ""

    def optional_choice(self, name: str, options: Iterable[str]) -> str | None:
        """Return a string that is one of `options`, or `None`."""
        value = self.optional_text(name)
        if value is not None and value not in list(options):
            raise self._wrong(name, "is not one of the documented values")
        return value

    def instant(self, name: str) -> str:
        """Return a required ISO 8601 text with an offset, as it was written."""
        value = self.text(name)
        try:
            parse_instant(value)
        except ValueError:
            raise self._wrong(name, "must be an ISO 8601 date and time with an offset") from None
        return value

    def nested(self, name: str) -> Self:
        """Return a required object; its members are named `name.member` in errors."""
        return type(self)(self._members.get(name), f"{self._prefix}{name}.")

    def _wrong(self, name: str, why: str) -> Refusal:
        field = self._prefix + name
        return Refusal(400, f"{field} {why}.", field=field)
