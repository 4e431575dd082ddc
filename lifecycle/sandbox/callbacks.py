"""One webhook call: the documented event, its signature, and a single POST to an address of this machine."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lifecycle.sandbox.messages import Json

EXAMPLE_ID: Final = "62g4ar44-1yv9-0931-dl3t-e9c2174kks09"
"""The appointment of the published webhook example."""

_PATHS: Final = {"status": "appointment_status"}  # the other fields are called in answers as they are here
_SETTINGS: Final = frozenset({"on_reschedule", "booked_by"})  # of the stand-in, not of the appointment
_HEAD: Final = re.compile(rb"HTTP/1\.[01] ([0-9]{3})[ \r]")
_END: Final = b"\r\n\r\n"
_LONGEST_HEAD: Final = 1 << 16
_CHUNK: Final = 1 << 16
_URL: Final = re.compile(r"http://[!-~]+", re.IGNORECASE)
_NOT_HERE: Final = (
    "must be an http:// address of this machine (127.0.0.1, [::1] or localhost): the stand-in calls nothing else"
)


class UpdateType(StrEnum):
    """The documented values of `appointment_update_type`."""

    UPDATED = "updated"
    CANCELLED = "cancelled"
    CREATED = "created"


class Trouble(StrEnum):
    """Why a call got no answer; these three are retried, any answer is not."""

    REFUSED = "refused"
    BROKEN = "broken"
    TIMEOUT = "timeout"


@dataclass(frozen=True, slots=True)
class Target:
    """Where a call goes: a loopback address, a port, and the path with its query."""

    address: str
    port: int
    path: str
    host: str

    @classmethod
    def parse(cls, url: str) -> Self:
        """Return the target of a URL; raises `ValueError` for any that is not plain HTTP on this machine."""
        try:
            parts = urlsplit(url)
            host = parts.hostname or ""
            address = ip_address("127.0.0.1" if host == "localhost" else host)
            port = 80 if parts.port is None else parts.port
        except ValueError:
            raise ValueError(_NOT_HERE) from None
        if not (_URL.fullmatch(url) and address.is_loopback and port) or parts.username is not None:
            raise ValueError(_NOT_HERE)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return cls(str(address), port, path, parts.netloc)


def decode_key(text: str) -> bytes:
    """Return the bytes of a shared key; raises `ValueError`, without the key, for one that is not base64."""
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        raise ValueError("must be base64 of at least one byte")
    return key


def event(appointment_id: str, update_type: str, *, at: str, sent: str, changed: Iterable[str] = ()) -> Json:
    """Return the documented event. `at` and `sent` are texts in UTC; `changed` names fields of `Appointment`.

    It carries paths and no values, as documented; changes of the stand-in's own settings are not named.
    """
    data: Json = {
        "appointment_id": appointment_id,
        "appointment_updated_timestamp": at,
        "appointment_update_type": update_type,
    }
    paths = [{"attribute_path": _PATHS.get(name, name)} for name in changed if name not in _SETTINGS]
    if paths:
        data["changed_attributes"] = paths
    return {
        "event_type": "appointment_updated",
        "webhook_timestamp": sent,
        "data": {"data_type": "appointment_data", "appointment_data": data},
    }


def encode(document: Json) -> bytes:
    """Return the raw body of an event."""
    return json.dumps(document).encode()


def sign(key: bytes, body: bytes, signed_at: int, *, second_version: bool = False) -> dict[str, str]:
    """Return the two headers of a call that is signed at this Unix second.

    What `v2` is, is not documented: the stand-in sends an HMAC-SHA512, so that a reader of `v1` meets one.
    """
    signed = f"{signed_at}.".encode() + body
    value = f"v1:{_mac(key, signed, 'sha256')}"
    if second_version:
        value += f";v2:{_mac(key, signed, 'sha512')}"
    return {"webhook-timestamp": str(signed_at), "webhook-signature": value}


def post(target: Target, body: bytes, headers: dict[str, str], *, within: float) -> int | Trouble:
    """Send one call and return the status of the answer, or why there was none within `within` seconds.

    An answer counts when its head is complete; the rest is read for as long as there is time, and forgotten.
    """
    deadline = time.monotonic() + within
    try:
        connection = socket.create_connection((target.address, target.port), timeout=within)
    except TimeoutError:
        return Trouble.TIMEOUT
    except OSError:
        return Trouble.REFUSED
    with connection:
        try:
            connection.sendall(_request(target, body, headers))
            return _status(connection, deadline)
        except TimeoutError:
            return Trouble.TIMEOUT
        except OSError:
            return Trouble.BROKEN


def _mac(key: bytes, signed: bytes, digest: str) -> str:
    return base64.b64encode(hmac.new(key, signed, getattr(hashlib, digest)).digest()).decode()


def _request(target: Target, body: bytes, headers: dict[str, str]) -> bytes:
    lines = [
        f"POST {target.path} HTTP/1.1",
        f"Host: {target.host}",
        "User-Agent: zocdoc-stand-in",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Connection: close",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join(lines).encode() + _END + body


def _status(connection: socket.socket, deadline: float) -> int | Trouble:
    received = b""
    while _END not in received:
        piece = _receive(connection, deadline)
        received += piece
        if not piece or len(received) > _LONGEST_HEAD:
            return Trouble.BROKEN
    found = _HEAD.match(received)
    if found is None:
        return Trouble.BROKEN
    with suppress(OSError):  # a receiver that is cut off while it writes would log an error
        while _receive(connection, deadline):
            pass
    return int(found[1])


def _receive(connection: socket.socket, deadline: float) -> bytes:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    connection.settimeout(left)
    return connection.recv(_CHUNK)
