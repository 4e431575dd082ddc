"""Requests, replies and the envelope that every JSON answer wears."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import Final

Json = dict[str, object]

JSON_TYPE: Final = "application/json"

_PHRASES: Final = {status.value: status.phrase for status in HTTPStatus}
_encode: Final = json.JSONEncoder(separators=(",", ":")).encode


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One HTTP request as the stand-in sees it: the path is still percent-encoded and has no query."""

    method: str
    path: str
    query: str = ""
    body: bytes = b""
    authorization: str = ""
    content_encoding: str = ""
    accept_encoding: str = ""
    base_url: str = ""


class Wire(StrEnum):
    """How the answer is put on the socket; everything but `PLAIN` is a fault."""

    PLAIN = "plain"
    RESET = "reset"
    CLOSE = "close"
    TRUNCATED = "truncated"
    DRIP_BODY = "drip_body"
    DRIP_HEADERS = "drip_headers"


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP answer. `pace` is the number of seconds between two bytes of a drip."""

    status: int
    body: bytes = b""
    content_type: str = JSON_TYPE
    headers: tuple[tuple[str, str], ...] = ()
    wire: Wire = Wire.PLAIN
    pace: float = 0.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an operation came to. `document` is the whole JSON answer, `None` means a bare answer."""

    status: int
    document: Json | None = None
    effect: bool = False
    appointment_id: str | None = None


class Refusal(Exception):
    """The API refuses a request. `bare` refusals are answered without a body."""

    def __init__(self, status: int, message: str = "", *, field: str | None = None) -> None:
        super().__init__(status, message, field)
        self.status = status
        self.message = message
        self.field = field

    @property
    def bare(self) -> bool:
        """True when the answer carries no body, as documented for 401 and most 403."""
        return not self.message


def phrase(status: int) -> str:
    """Return the reason phrase of a status, or an empty text for one that HTTP does not know."""
    return _PHRASES.get(status, "")


def encode(document: Json | None) -> bytes:
    """Return the compact JSON bytes of an answer, or no bytes for a bare one."""
    return b"" if document is None else _encode(document).encode()


def success(request_id: str, data: object) -> Json:
    """Return the envelope of a success."""
    return {"request_id": request_id, "data": data}


def failure(request_id: str, status: int, message: str, field: str | None = None) -> Json:
    """Return the envelope of an error: `api_error` from 500 on, `invalid_request` below."""
    server_side = status >= HTTPStatus.INTERNAL_SERVER_ERROR
    error: Json = {"message": message}
    if field is not None:
        error["field"] = field
    return {
        "request_id": request_id,
        "error_type": "api_error" if server_side else "invalid_request",
        "errors": [error],
    }
