"""Errors of the Zocdoc client: one root; the first docstring line is the message, the facts are attributes.

None of them carries a body, a token, or an error of the HTTP library as its cause, because those hold the request.
"""

from __future__ import annotations


class ZocdocError(Exception):
    """A call to Zocdoc did not give what was asked."""


class MalformedAppointmentId(ZocdocError, ValueError):
    """An appointment id is 1 to 64 of the characters A-Z a-z 0-9 _ - and nothing else: pass Zocdoc's id unchanged.

    Raised before anything is sent. The refused value is not part of the text.
    """

    def __str__(self) -> str:
        """Give the rule instead of the value."""
        return _first_line(type(self))


class InvalidConfiguration(ZocdocError, ValueError):
    """The client cannot be built from these arguments; the text names the argument, never its value."""


class _Failure(ZocdocError):
    """A read gave nothing."""

    def __init__(
        self,
        reason_code: str,
        http_status: int | None = None,
        request_id: str | None = None,
        fields: tuple[str, ...] = (),
    ) -> None:
        super().__init__(reason_code, http_status, request_id, fields)
        self.reason_code = reason_code
        self.http_status = http_status
        self.request_id = request_id
        self.fields = fields

    def __str__(self) -> str:
        """Give the message, then the facts, Zocdoc's request id included."""
        facts = [f"reason {self.reason_code}"]
        if self.http_status is not None:
            facts.append(f"HTTP {self.http_status}")
        if self.fields:
            facts.append(f"fields {', '.join(self.fields)}")
        facts.append(f"Zocdoc request id {self.request_id or 'none'}")
        return f"{_first_line(type(self))} ({'; '.join(facts)})"


class ReadRefused(_Failure):
    """Zocdoc refused the read."""


class AppointmentMissing(ReadRefused):
    """Zocdoc knows no such appointment, or shows it to another credential only."""


class ReadFailed(_Failure):
    """The read gave no trustworthy answer; nothing was changed by it, so it may be made again."""


class ListWindowTooWide(ZocdocError):
    """Zocdoc lists no further pages (1,000 rows at most): narrow the time window and go on from there.

    Raised after the rows that could be had were yielded. `total_count` is Zocdoc's own count, where it gave one.
    """

    def __init__(self, total_count: int | None = None, request_id: str | None = None) -> None:
        super().__init__(total_count, request_id)
        self.total_count = total_count
        self.request_id = request_id

    def __str__(self) -> str:
        """Give the message, then the facts, Zocdoc's request id included."""
        count = "unknown" if self.total_count is None else self.total_count
        return f"{_first_line(type(self))} (total count {count}; Zocdoc request id {self.request_id or 'none'})"


def _first_line(kind: type[Exception]) -> str:
    return (kind.__doc__ or kind.__name__).partition("\n")[0].rstrip(".")
