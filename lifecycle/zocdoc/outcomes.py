"""What can become of one call that changes an appointment, as types.

The four are exhaustive, so a caller closes them with `match` and `assert_never`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """Why a call did not end as `Applied` (or a read gave nothing). Codes for programs; new ones may be added."""

    CONNECTION_FAILED = "connection_failed"
    TLS_FAILED = "tls_failed"
    TOKEN_UNAVAILABLE = "token_unavailable"  # noqa: S105  a reason code, no secret
    TOKEN_REFUSED = "token_refused"  # noqa: S105  the same
    RATE_LIMITED = "rate_limited"
    CLAIM_EXPIRED = "claim_expired"
    TIMED_OUT = "timed_out"
    CONNECTION_LOST = "connection_lost"
    ANSWER_TRUNCATED = "answer_truncated"
    ANSWER_TOO_LARGE = "answer_too_large"
    ANSWER_UNREADABLE = "answer_unreadable"
    ANSWER_FOREIGN = "answer_foreign"
    REDIRECTED = "redirected"
    SERVER_ERROR = "server_error"
    UNEXPECTED_STATUS = "unexpected_status"
    BAD_REQUEST = "bad_request"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    UNPROCESSABLE = "unprocessable"


@dataclass(frozen=True, slots=True)
class Applied:
    """Zocdoc answered 200 for this appointment; `status` is the value as it came, known to us or not."""

    status: str
    http_status: int
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Rejected:
    """Zocdoc said no, and nothing was changed by this call.

    `fields` are the names that the error body complains about. Its messages are not kept: they are not for
    end users and may repeat what was sent.
    """

    http_status: int
    reason_code: str
    request_id: str | None = None
    fields: tuple[str, ...] = ()
    error_type: str | None = None


@dataclass(frozen=True, slots=True)
class NotSent:
    """Nothing reached the appointment endpoint, or it answered 429 before processing: safe to call again.

    For a token that could not be had, `http_status` is the token endpoint's answer.
    """

    reason_code: str
    http_status: int | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Unknown:
    """A byte of the request left and no trustworthy answer came: read and compare before anything is repeated."""

    reason_code: str
    http_status: int | None = None
    request_id: str | None = None


Outcome = Applied | Rejected | NotSent | Unknown
