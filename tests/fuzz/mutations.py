"""Valid answers and what is done to them: trees, texts, bytes."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

OWN: Final = "d04b049a-41b1-4aba-9268-d8973cf72cdd"
OTHER: Final = "63f995c2-49c4-40c8-a93a-140fb32e913b"
STATUSES: Final = (*[200] * 40, 201, 204, 299, 302, 307, 400, 401, 404, 408, 409, 422, 429, 500, 503, 599)
_WORDS: Final = ("pending_booking", "confirmed", "cancelled", "rescheduled", "no_show", "waitlisted", "CONFIRMED")
_SCALARS: Final[tuple[Any, ...]] = (
    None,
    True,
    False,
    0,
    -1,
    2**63,
    10**400,
    1.5,
    1e308,
    "",
    "0",
    "null",
    "\x00",
    "\x7f",
    "\u202e",
    "\u2028",
    "\ud800",
    "é" * 70,
    "x" * 65,
    "x" * 20_000,
    " ",
    OWN,
    OTHER,
    OWN.upper(),
    OWN + " ",
    [],
    {},
    [[]],
    {"a": {"b": []}},
    "2026-12-01T09:00:00-05:00",
    "2026-12-01T09:00:00",
    "9999-12-31T23:59:59-14:00",
    "0001-01-01T00:00:00+14:00",
    "2026-13-01T09:00:00Z",
    "2026-W01-1",
    "20261201T090000Z",
    1764579600,
)
_BYTES: Final = (
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\x00",
    b"NaN",
    b"-Infinity",
    b"1e999",
    b"\\ud800",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b'"',
    b"\\",
    b"\r\n",
    b"//",
    b"\xc3",
    b"\xed\xa0\x80",
    b"[" * 3000,
    b'{"a":' * 500,
)


def body_of(draw: random.Random) -> dict[str, Any]:
    """Make a valid success or error envelope."""
    if draw.random() < 0.1:
        error = {
            "message": "not possible",
            "field": draw.choice(["start_time", "data.patient[0].name", "a b", "é", ""]),
        }
        return {"request_id": "rq-1", "error_type": "invalid_request", "errors": [error]}
    data: dict[str, Any] = {"appointment_id": OWN, "appointment_status": draw.choice(_WORDS)}
    if draw.random() < 0.7:
        data |= {
            "developer_patient_id": draw.choice([None, "patient-7"]),
            "confirmation_type": "auto",
            "visit_type": "in_person",
            "is_provider_resource": False,
            "start_time": "2026-12-01T09:00:00-05:00",
            "last_modified_time_utc": "2026-08-01T10:00:00.123456Z",
            "provider_location_id": "pr_a|lo_b",
            "notes": "some notes",
        }
    envelope: dict[str, Any] = {"request_id": "rq-1", "data": data}
    if draw.random() < 0.15:
        envelope |= {"data": [data, dict(data)], "page": 0, "page_size": 2, "total_count": 2, "next_url": None}
    return envelope


def mutated(draw: random.Random) -> bytes:
    """Make the bytes of a body: a valid one, its tree changed no time or a few, then its text."""
    tree: Any = body_of(draw)
    for _ in range(draw.choice((0, 0, 0, 1, 1, 1, 2, 3))):
        tree = draw.choice(_TREES)(draw, tree)
    text = json.dumps(tree, ensure_ascii=draw.random() < 0.5, indent=draw.choice((None, None, 1)))
    raw = text.encode("utf-8", "surrogatepass")
    for _ in range(draw.choice((0, 0, 0, 0, 1, 1, 2, 5))):
        raw = draw.choice(_TEXTS)(draw, raw)
    return raw


def paths_of(tree: Any) -> list[tuple[Any, Any]]:
    """Give every place in a tree that holds a value: its container and its key."""
    found: list[tuple[Any, Any]] = []
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        found.append((tree, key))
        found += paths_of(value)
    return found


def _odd(draw: random.Random) -> Any:
    return copy.deepcopy(draw.choice(_SCALARS))


def _replace(draw: random.Random, tree: Any) -> Any:
    places = paths_of(tree)
    if not places or draw.random() < 0.02:
        return _odd(draw)
    where, key = draw.choice(places)
    where[key] = _odd(draw)
    return tree


def _remove(draw: random.Random, tree: Any) -> Any:
    places = paths_of(tree)
    if places:
        where, key = draw.choice(places)
        del where[key]
    return tree


def _wrap(draw: random.Random, tree: Any) -> Any:
    places = paths_of(tree)
    if not places or draw.random() < 0.1:
        return [tree]
    where, key = draw.choice(places)
    for _ in range(draw.choice((*[1] * 40, 150, 195, 199))):
        where[key] = [where[key]]
    return tree


def _rename(draw: random.Random, tree: Any) -> Any:
    named = [(where, key) for where, key in paths_of(tree) if isinstance(where, dict)]
    if named:
        where, key = draw.choice(named)
        where[draw.choice([str(key).upper(), f"{key} ", "errors", "data", "appointment_id", ""])] = where.pop(key)
    return tree


def _add(draw: random.Random, tree: Any) -> Any:
    if isinstance(tree, dict):
        tree[draw.choice(["errors", "error", "data ", "appointment_id", "appointment_status", "ok"])] = _odd(draw)
    return tree


_TREES: Final[tuple[Callable[[random.Random, Any], Any], ...]] = (
    _replace,
    _replace,
    _replace,
    _remove,
    _wrap,
    _rename,
    _add,
)


def _flip(draw: random.Random, raw: bytes) -> bytes:
    if not raw:
        return raw
    where = draw.randrange(len(raw))
    return raw[:where] + bytes([raw[where] ^ (1 << draw.randrange(8))]) + raw[where + 1 :]


def _cut(draw: random.Random, raw: bytes) -> bytes:
    return raw[: draw.randrange(len(raw) + 1)]


def _insert(draw: random.Random, raw: bytes) -> bytes:
    where = draw.choice((0, len(raw), draw.randrange(len(raw) + 1)))
    return raw[:where] + draw.choice(_BYTES) + raw[where:]


def _repeat(draw: random.Random, raw: bytes) -> bytes:
    """Say part of it twice: equal names in one object, two objects in a row."""
    begin = draw.randrange(len(raw) + 1)
    end = min(len(raw), begin + draw.randrange(80))
    return raw[:end] + raw[begin:end] + raw[end:]


def _member_twice(draw: random.Random, raw: bytes) -> bytes:
    member = draw.choice(
        (b'"appointment_id": "%b", ' % OTHER.encode(), b'"appointment_status": "cancelled", ', b'"data": {}, ')
    )
    where = raw.find(b"{", draw.randrange(len(raw) + 1))
    return raw if where < 0 else raw[: where + 1] + member + raw[where + 1 :]


def _recode(draw: random.Random, raw: bytes) -> bytes:
    text = raw.decode("utf-8", "replace")
    return text.encode(draw.choice(("utf-16", "utf-32", "latin-1", "utf-8-sig", "cp500")), "replace")


def _nothing(_: random.Random, raw: bytes) -> bytes:
    return raw


_TEXTS: Final[tuple[Callable[[random.Random, bytes], bytes], ...]] = (
    _flip,
    _flip,
    _flip,
    _cut,
    _insert,
    _insert,
    _repeat,
    _member_twice,
    _recode,
    _nothing,
)
