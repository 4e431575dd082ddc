"""What happens, told to whoever listens: spans, counters and timings. No SQL, no HTTP.

A hook is given facts: ids, codes, states, statuses and numbers. Never free text, a token, or the query of a URL.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager
    from types import TracebackType

Fact = str | int | float | bool | None

COMMAND: Final = "lifecycle.command"
"""Span of one command, from the decision to the recorded outcome: `command`, `appointment_id`, `source`; once they are
known `command_id`, `attempt`, `outcome`, `reason_code`, `http_status`, `zocdoc_request_id`, `error` (the type)."""

CALL: Final = "zocdoc.call"
"""Span of one call of Zocdoc, its repeated sends included: `operation`, `method`, `server`, `port`, `appointment_id`;
then `outcome`, `http_status`, `reason_code`, `zocdoc_request_id`."""

COMMANDS: Final = "lifecycle.commands"
RECOVERED: Final = "lifecycle.recovered"
CALLS: Final = "zocdoc.calls"
CALL_DURATION: Final = "zocdoc.call.duration"
COMMAND_DURATION: Final = "lifecycle.command.duration"
QUEUE_WAIT: Final = "lifecycle.queue.wait"
INBOX_LAG: Final = "lifecycle.inbox.lag"

COUNTERS: Final[Mapping[str, str]] = {
    COMMANDS: "Commands that were carried out, refused or taken back, by command and outcome; each attempt counts",
    RECOVERED: "Commands in doubt that recovery settled, by command and the state they are in then",
    CALLS: "Calls of Zocdoc, by operation and outcome",
}
TIMINGS: Final[Mapping[str, str]] = {
    CALL_DURATION: "How long a call of Zocdoc took, by operation and outcome",
    COMMAND_DURATION: "How long a command took, by command and outcome",
    QUEUE_WAIT: "How long a submitted command waited until it was taken up, by command",
    INBOX_LAG: "How long a webhook call waited until its appointment had been read",
}
"""Every counter and timing there is, with its meaning."""

_log = logging.getLogger(__name__)


class Span(Protocol):
    """Something that is going on."""

    def set(self, **facts: Fact) -> None:
        """Add facts; a later one of the same name wins."""

    def fail(self, code: str) -> None:
        """Tell that it did not come to what was wanted; `code` says why."""


class Telemetry(Protocol):
    """A hook. It is called by many threads at once, must be quick, and may fail: that is logged once, by its type."""

    def span(self, name: str, facts: Mapping[str, Fact]) -> AbstractContextManager[Span]:
        """Open a span around what happens in the block; spans that are opened inside of it are its children."""

    def count(self, name: str, amount: int, facts: Mapping[str, Fact]) -> None:
        """Add to a counter. The facts have few values, so that they can be labels."""

    def record(self, name: str, seconds: float, facts: Mapping[str, Fact]) -> None:
        """Record a timing, in seconds. The facts have few values, so that they can be labels."""


class LoggedTelemetry:
    """The default: counters and timings become DEBUG records (`counted`, `timed`) of the logger `lifecycle.telemetry`.

    Spans become nothing, since what they tell is logged already: `command_ended`, `zocdoc_call`.
    """

    def span(self, name: str, facts: Mapping[str, Fact]) -> AbstractContextManager[Span]:  # noqa: ARG002 # the protocol
        """Open a span that nobody sees."""
        return _NOTHING

    def count(self, name: str, amount: int, facts: Mapping[str, Fact]) -> None:
        """Log one record."""
        if _log.isEnabledFor(logging.DEBUG):
            _log.debug("counted", extra={**facts, "counter": name, "amount": amount})

    def record(self, name: str, seconds: float, facts: Mapping[str, Fact]) -> None:
        """Log one record."""
        if _log.isEnabledFor(logging.DEBUG):
            _log.debug("timed", extra={**facts, "timing": name, "seconds": seconds})


def guarded(hook: Telemetry | None) -> Telemetry:
    """Give a hook that never raises; the default if there is none."""
    if hook is None:
        return LOGGED
    return hook if isinstance(hook, (_Guarded, LoggedTelemetry)) else _Guarded(hook)


class _Nothing:
    __slots__ = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def set(self, **facts: Fact) -> None:
        """Ignore facts."""

    def fail(self, code: str) -> None:
        """Ignore a failure."""


class _Guarded:
    """A hook of the caller's. Whatever it raises ends here: a command must not fail because somebody listens."""

    def __init__(self, hook: Telemetry) -> None:
        self._listener = hook
        self._noted: set[str] = set()

    def span(self, name: str, facts: Mapping[str, Fact]) -> AbstractContextManager[Span]:
        try:
            return _GuardedSpan(self, self._listener.span(name, facts))
        except Exception as error:  # noqa: BLE001 # the caller's own function
            self.note(error)
        return _NOTHING

    def count(self, name: str, amount: int, facts: Mapping[str, Fact]) -> None:
        try:
            self._listener.count(name, amount, facts)
        except Exception as error:  # noqa: BLE001 # the same
            self.note(error)

    def record(self, name: str, seconds: float, facts: Mapping[str, Fact]) -> None:
        try:
            self._listener.record(name, seconds, facts)
        except Exception as error:  # noqa: BLE001 # the same
            self.note(error)

    def note(self, error: Exception) -> None:
        """Log a failure by its type, each type once."""
        kind = type(error).__name__
        if kind not in self._noted:
            self._noted.add(kind)
            _log.warning("telemetry_failed", extra={"error": kind})


class _GuardedSpan:
    """A span of the caller's. What it says about an exception of ours does not count: that one always goes on."""

    __slots__ = ("_context", "_guard", "_span")

    def __init__(self, guard: _Guarded, context: AbstractContextManager[Span]) -> None:
        self._guard = guard
        self._context = context
        self._span: Span | None = None

    def __enter__(self) -> Self:
        try:
            self._span = self._context.__enter__()
        except Exception as error:  # noqa: BLE001 # the same
            self._guard.note(error)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._span is None:
            return
        try:
            self._context.__exit__(kind, error, trace)
        except Exception as failure:  # noqa: BLE001 # the same
            self._guard.note(failure)

    def set(self, **facts: Fact) -> None:
        if self._span is not None:
            try:
                self._span.set(**facts)
            except Exception as error:  # noqa: BLE001 # the same
                self._guard.note(error)

    def fail(self, code: str) -> None:
        if self._span is not None:
            try:
                self._span.fail(code)
            except Exception as error:  # noqa: BLE001 # the same
                self._guard.note(error)


_NOTHING: Final = _Nothing()
LOGGED: Final = LoggedTelemetry()
"""The hook of those who gave none."""
