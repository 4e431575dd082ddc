"""OpenTelemetry: a span for each command and each call of Zocdoc, counters and histograms. Needs the extra `otel`."""

from __future__ import annotations

from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

from lifecycle import errors, telemetry

try:
    from opentelemetry import metrics, trace
except ImportError as missing:  # also where another package of its namespace is installed
    _PROBLEM: Final = "OpenTelemetry is not installed; pip install 'zocdoc-lifecycle[otel]'"
    raise errors.ConfigurationError(problem=_PROBLEM) from missing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lifecycle.telemetry import Fact

_SCOPE: Final = "lifecycle"
_BOUNDARIES: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)
"""Seconds: from an answer on the same network to a delivery whose reads failed for an hour."""

_ATTRIBUTES: Final[Mapping[str, str]] = {
    "error": "error.type",
    "http_status": "http.response.status_code",
    "method": "http.request.method",
    "operation": "zocdoc.operation",
    "port": "server.port",
    "server": "server.address",
    "zocdoc_request_id": "zocdoc.request_id",
}
"""OpenTelemetry's own names where it has them; every other fact is `lifecycle.` and its name."""


class OpenTelemetry:
    """A hook for `Lifecycle(..., telemetry=)` and `ZocdocClient(..., telemetry=)`: one for both, or one each.

    The span of a call is a child of its command's, and that one of whatever span of yours is current. The providers
    are OpenTelemetry's global ones if none are given. Attributes are ids, codes, states and numbers; no exception is
    recorded, because its text might quote more. Raises `ConfigurationError` when imported without the extra `otel`.
    """

    def __init__(
        self,
        *,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
    ) -> None:
        release = version("zocdoc-lifecycle")
        meter = metrics.get_meter(_SCOPE, release, meter_provider)
        self._tracer = trace.get_tracer(_SCOPE, release, tracer_provider)
        self._counters = {name: meter.create_counter(name, "1", about) for name, about in telemetry.COUNTERS.items()}
        self._histograms = {
            name: meter.create_histogram(name, "s", about, explicit_bucket_boundaries_advisory=_BOUNDARIES)
            for name, about in telemetry.TIMINGS.items()
        }

    @contextmanager
    def span(self, name: str, facts: Mapping[str, Fact]) -> Iterator[OpenSpan]:
        """Open a span as the current one of this thread."""
        kind = trace.SpanKind.CLIENT if name == telemetry.CALL else trace.SpanKind.INTERNAL
        with self._tracer.start_as_current_span(
            name, kind=kind, attributes=_attributes(facts), record_exception=False, set_status_on_exception=False
        ) as span:
            yield OpenSpan(span)

    def count(self, name: str, amount: int, facts: Mapping[str, Fact]) -> None:
        """Add to the counter of that name."""
        self._counters[name].add(amount, _attributes(facts))

    def record(self, name: str, seconds: float, facts: Mapping[str, Fact]) -> None:
        """Record into the histogram of that name."""
        self._histograms[name].record(seconds, _attributes(facts))


class OpenSpan:
    """A span of OpenTelemetry that takes facts."""

    __slots__ = ("_span",)

    def __init__(self, span: trace.Span) -> None:
        self._span = span

    def set(self, **facts: Fact) -> None:
        """Add facts as attributes."""
        self._span.set_attributes(_attributes(facts))

    def fail(self, code: str) -> None:
        """Give the span the status ERROR, with the code as its description and its `error.type`."""
        self._span.set_status(trace.StatusCode.ERROR, code)
        self._span.set_attribute("error.type", code)


def _attributes(facts: Mapping[str, Fact]) -> dict[str, str | int | float | bool]:
    return {
        _ATTRIBUTES.get(name, f"{_SCOPE}.{name}"): str(value) if isinstance(value, str) else value
        for name, value in facts.items()
        if value is not None
    }
