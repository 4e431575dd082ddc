"""The canonical encoding of an audit event, made of the values as the databases store them; fast, for verifying.

`audit.digest` defines the encoding over an event's columns; this gives the same bytes for a row that was fetched as it
lies in the database, without trusting it: a value of a kind that no event has makes another text, or `Malformed`.
"""

from __future__ import annotations

import hashlib
import json
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, Any, Final, Never

from lifecycle import audit, columns, models

if TYPE_CHECKING:
    from collections.abc import Sequence

COLUMNS: Final = tuple(sorted({column.name for column in models.audit_events.columns} - {"seq", "hash"}))
"""The columns that the hash covers, in the order of the encoding."""

INSTANTS: Final = tuple(
    place for place, name in enumerate(COLUMNS) if isinstance(models.audit_events.c[name].type, columns.UtcDateTime)
)
"""The places of the instants among `COLUMNS`."""


class Malformed(ValueError):
    """A value that no event can have; the text names what is wrong with it."""


def digest(stored: Sequence[Any]) -> str:
    """Compute the hash of a row from its values, in the order of `COLUMNS`.

    Instants and `details` are text, `conforming` is a Boolean or 0 and 1. Raises `Malformed`.
    """
    values = [_escaped(each) if each.__class__ is str else "null" if each is None else each for each in stored]
    # Anything else is none that was hashed: the column is never NULL.
    values[_CONFORMING] = _BOOLEANS.get(stored[_CONFORMING], "null")
    details = stored[_DETAILS]
    values[_DETAILS] = details if details == "{}" else _details(details)
    try:
        return hashlib.sha256((_SKELETON % tuple(values)).encode()).hexdigest()
    except UnicodeEncodeError:
        raise Malformed("a text is not valid Unicode") from None


def instant(text: str | None) -> str | None:
    """Write an instant as the encoding has it, from the text of a PostgreSQL session in UTC with ISO dates.

    What the encoding cannot hold (infinity, years before Christ or of five digits) stays as it is, and fits no hash.
    """
    if text is None or not text.endswith("+00"):
        return text
    whole, _, fraction = text[:-3].partition(".")
    return f"{whole.replace(' ', 'T', 1)}.{fraction:0<6}Z"


def _details(text: object) -> str:
    if not isinstance(text, str):
        raise Malformed("details are no JSON text")
    try:
        return _canonical(_parsed(text))
    except Malformed:
        raise
    except (ValueError, RecursionError):
        raise Malformed("details are no JSON that an event can have") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object; of a key that is there twice readers see one value or the other, so none is right."""
    made = dict(pairs)
    if len(made) != len(pairs):
        raise Malformed("details have a key twice")
    return made


def _no_constant(_name: str) -> Never:
    raise Malformed("details hold a number that JSON does not have")


_escaped = encode_basestring
_parsed: Final = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_no_constant).decode
_canonical: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode
_BOOLEANS: Final[dict[object, str]] = {1: "true", 0: "false"}
_CONFORMING: Final = COLUMNS.index("conforming")
_DETAILS: Final = COLUMNS.index("details")
_MEMBERS: Final = ",".join(f'"{name}":%s' for name in COLUMNS)
_SKELETON: Final = f"lifecycle-audit-{audit.HASH_VERSION}\n{{{_MEMBERS}}}"
