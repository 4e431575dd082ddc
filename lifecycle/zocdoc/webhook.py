"""Webhook calls of Zocdoc: whether one is authentic, and which appointment it is about. No I/O.

Zocdoc signs `<webhook-timestamp>.<raw body>` with HMAC-SHA256 under a shared, base64-encoded key. `webhook-signature`
lists signatures by version, `v1:<base64>;v2:<base64>`; this module knows v1. An authentic call says THAT an
appointment changed, never how it stands now: read it from Zocdoc. Duplicates and any order are normal.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import pydantic_core

from lifecycle.zocdoc import errors

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SIGNATURE: Final = "webhook-signature"
TIMESTAMP: Final = "webhook-timestamp"
TOLERANCE: Final = 300.0
"""Seconds, to both sides, that Zocdoc's documentation asks for."""

LONGEST_BODY: Final = 1024 * 1024
"""Bytes that `parse` reads; a documented event has a few hundred."""

_VERSION: Final = "v1"
_LONGEST_HEADER: Final = 4096
_MOST_ENTRIES: Final = 16
# Eleven digits reach the year 5138; twelve would leave the years that `datetime` knows.
_SECONDS: Final = re.compile(r"[0-9]{1,11}")
_BASE64: Final = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
_DIGEST: Final = re.compile(r"[A-Za-z0-9+/]{43}=")
_APPOINTMENT_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_UPDATE_TYPE: Final = re.compile(r"[A-Za-z0-9_.-]{1,32}")
_INSTANT: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:[Zz]|[+-]\d\d:\d\d)", re.ASCII)


class WebhookError(errors.ZocdocError):
    """A webhook call cannot be accepted as it is. `reason_code` says why; nothing that the caller sent is kept."""

    reason_code: str


class NotAuthentic(WebhookError):
    """The call is not shown to be Zocdoc's: forget it.

    `reason_code` is missing_signature, malformed_signature, unknown_version, bad_signature, missing_timestamp or
    malformed_timestamp; `header` is the header that it is about.
    """

    def __init__(self, reason_code: str, header: str) -> None:
        super().__init__(reason_code, header)
        self.reason_code = reason_code
        self.header = header

    def __str__(self) -> str:
        """Give the reason and the header's name, never its value."""
        return f"The webhook call is not shown to be Zocdoc's (reason {self.reason_code}; header {self.header})"


class OutOfTolerance(WebhookError):
    """The signature is right, but its time is not near: no news by itself, yet reading from Zocdoc is safe.

    `reason_code` is stale or future, `age_seconds` the clock's distance from the signed time (below 0: future).
    """

    def __init__(self, reason_code: str, call: Call, age_seconds: float) -> None:
        super().__init__(reason_code, call, age_seconds)
        self.reason_code = reason_code
        self.call = call
        self.age_seconds = age_seconds

    def __str__(self) -> str:
        """Give the reason and the age."""
        return (
            f"The webhook call is Zocdoc's, but it was signed at another time "
            f"(reason {self.reason_code}; age {self.age_seconds:.0f} s)"
        )


@dataclass(frozen=True, slots=True)
class Call:
    """An authentic call: the SHA-256 of its raw body in hex, the signed time (UTC), and which key fitted, from 0."""

    body_digest: str
    signed_at: datetime
    key_index: int


@dataclass(frozen=True, slots=True)
class Update:
    """What an `appointment_updated` event says. `updated_at` is UTC; None: not told, or not readably."""

    appointment_id: str
    update_type: str | None = None
    updated_at: datetime | None = None


def verify(
    *, body: bytes, headers: Mapping[str, str], keys: Sequence[str], now: float, tolerance: float = TOLERANCE
) -> Call:
    """Tell that Zocdoc signed this call, lately.

    `body` is the raw body, unchanged; `headers` in any case of letters; `keys` the base64 keys that may have signed
    it (several while keys are rotated); `now` Unix seconds. The signed time may be `tolerance` seconds off to either
    side, the boundary included.

    Any right v1 entry under any key counts. A signature counts in its canonical form only: what Zocdoc would have
    written is compared as text, in constant time, for every key and every v1 entry. Unknown versions are skipped.

    The signature is judged before the time. Raises `NotAuthentic`, or `OutOfTolerance` when only the time is wrong;
    `InvalidConfiguration` for unusable keys.
    """
    secrets = check_keys(keys)
    candidates = _candidates(_header(headers, SIGNATURE, "signature"))
    timestamp = _header(headers, TIMESTAMP, "timestamp")
    if not _SECONDS.fullmatch(timestamp):
        raise NotAuthentic("malformed_timestamp", TIMESTAMP)
    key_index = _fitting(secrets, candidates, timestamp.encode() + b"." + body)
    if key_index is None:
        raise NotAuthentic("bad_signature", SIGNATURE)
    seconds = int(timestamp)
    call = Call(hashlib.sha256(body).hexdigest(), datetime.fromtimestamp(seconds, UTC), key_index)
    age = now - seconds
    if not -tolerance <= age <= tolerance:
        raise OutOfTolerance("future" if age < 0 else "stale", call, age)
    return call


def check_keys(keys: Sequence[str]) -> tuple[bytes, ...]:
    """Decode the shared keys, or raise `InvalidConfiguration` for none, an empty one, or one that is not base64.

    The standard alphabet and its padding are required. Bits left over in the last letter may be set: Zocdoc's own
    example key is written so.
    """
    if isinstance(keys, str | bytes) or not keys:
        raise errors.InvalidConfiguration("webhook keys: pass a sequence of at least one base64 key")
    return tuple(_decoded(key, number) for number, key in enumerate(keys, start=1))


def parse(body: bytes) -> Update | None:
    """Read an `appointment_updated` event; None for every other event, and for what cannot be read. Never raises.

    Unknown fields are ignored. Only the event's type and a sound appointment id are needed; of equal names the last
    counts, since the worst that an odd event can cause is a read of that appointment.
    """
    if len(body) > LONGEST_BODY:
        return None
    try:
        # Bounds the depth by itself, whatever the interpreter's recursion limit is.
        event = pydantic_core.from_json(body, allow_inf_nan=False)
    except (ValueError, RecursionError):
        return None
    if not isinstance(event, dict) or event.get("event_type") != "appointment_updated":
        return None
    appointment = _member(_member(event, "data"), "appointment_data")
    appointment_id = _text(appointment, "appointment_id", _APPOINTMENT_ID)
    if appointment_id is None:
        return None
    update_type = _text(appointment, "appointment_update_type", _UPDATE_TYPE)
    return Update(appointment_id, update_type, _instant(appointment))


def _header(headers: Mapping[str, str], wanted: str, what: str) -> str:
    """Give the one value of a header, without the blanks around it that HTTP allows."""
    # Beyond ASCII there are letters, such as the Kelvin sign, that lower() turns into one of ASCII.
    found = [value for name, value in headers.items() if name.isascii() and name.lower() == wanted]
    if not found:
        raise NotAuthentic(f"missing_{what}", wanted)
    value: object = found[0]
    if len(found) > 1 or not isinstance(value, str) or len(value) > _LONGEST_HEADER or not value.isascii():
        raise NotAuthentic(f"malformed_{what}", wanted)
    if "," in value:  # how servers join a header that came twice
        raise NotAuthentic(f"malformed_{what}", wanted)
    value = value.strip(" \t")
    if not value:
        raise NotAuthentic(f"missing_{what}", wanted)
    return value


def _candidates(signature: str) -> list[bytes]:
    """Give the v1 entries that have a signature's form, at least one."""
    entries = [entry.strip(" \t") for entry in signature.split(";")]
    pairs = [entry.partition(":") for entry in entries if entry]
    if not pairs or len(pairs) > _MOST_ENTRIES or not all(version and colon for version, colon, _ in pairs):
        raise NotAuthentic("malformed_signature", SIGNATURE)
    ours = [value for version, _, value in pairs if version == _VERSION]
    if not ours:
        raise NotAuthentic("unknown_version", SIGNATURE)
    candidates = [value.encode() for value in ours if _DIGEST.fullmatch(value)]
    if not candidates:
        raise NotAuthentic("malformed_signature", SIGNATURE)
    return candidates


def _fitting(secrets: Sequence[bytes], candidates: Sequence[bytes], message: bytes) -> int | None:
    """Give the first key's number that signed it. Compares everything: the time taken tells nothing."""
    fitting = []
    for number, secret in enumerate(secrets):
        expected = base64.b64encode(hmac.digest(secret, message, "sha256"))
        fitting += [number for candidate in candidates if hmac.compare_digest(candidate, expected)]
    return fitting[0] if fitting else None


def _decoded(key: object, number: int) -> bytes:
    if not isinstance(key, str) or not _BASE64.fullmatch(key):
        raise errors.InvalidConfiguration(f"webhook key {number} is not base64; pass it as Zocdoc gave it")
    if not key:
        raise errors.InvalidConfiguration(f"webhook key {number} is empty; pass it as Zocdoc gave it, or leave it out")
    return binascii.a2b_base64(key)


def _member(value: Any, name: str) -> Any:  # noqa: ANN401  any JSON
    return value.get(name) if isinstance(value, dict) else None


def _text(value: Any, name: str, form: re.Pattern[str]) -> str | None:  # noqa: ANN401  any JSON
    found = _member(value, name)
    return found if isinstance(found, str) and form.fullmatch(found) else None


def _instant(appointment: Any) -> datetime | None:  # noqa: ANN401  any JSON
    text = _text(appointment, "appointment_updated_timestamp", _INSTANT)
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
