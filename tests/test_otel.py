"""OpenTelemetry gets a span for each command and each call, and nothing that a patient said."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from lifecycle import Lifecycle, LifecycleError, OutcomeUnknown, TransitionRefused
from lifecycle.otel import OpenTelemetry
from tests import support
from tests.conftest import FAST
from tests.support import ACTOR
from tests.test_cli import assert_error, invoke, settings_for
from tests.test_privacy import NOTES, PATIENT, SECRET, WORD, troubles

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lifecycle.sandbox import Sandbox, Server


class Backend:
    """Keeps in memory what would be sent to a backend."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self._reader = InMemoryMetricReader()
        self._meters = MeterProvider([self._reader], shutdown_on_exit=False)
        self.hook = OpenTelemetry(tracer_provider=self.tracers, meter_provider=self._meters)

    def spans(self, name: str) -> list[ReadableSpan]:
        """Give the spans of a name that have ended."""
        return [span for span in self.exporter.get_finished_spans() if span.name == name]

    def points(self) -> dict[tuple[str, str, str], Any]:
        """Give the measured points by metric, operation or command, and outcome."""
        data = self._reader.get_metrics_data()
        return {
            (metric.name, str(_subject(point)), str((point.attributes or {}).get("lifecycle.outcome"))): point
            for of_resource in (data.resource_metrics if data else ())
            for of_scope in of_resource.scope_metrics
            for metric in of_scope.metrics
            for point in metric.data.data_points
        }

    def everything(self) -> str:
        """Give all that would leave."""
        return "".join(span.to_json() for span in self.exporter.get_finished_spans()) + repr(self.points())


def _subject(point: Any) -> object:
    attributes = point.attributes or {}
    return attributes.get("zocdoc.operation") or attributes.get("lifecycle.command")


@pytest.fixture
def backend() -> Backend:
    """Give a backend of the test's own."""
    return Backend()


@pytest.fixture
def product(database_url: str, server: Server, backend: Backend) -> Iterator[Lifecycle]:
    """Give the product and its client with OpenTelemetry, on both databases in turn."""
    with (
        support.client_of(server, telemetry=backend.hook) as client,
        support.opened(database_url, client, telemetry=backend.hook) as made,
    ):
        yield made


def test_the_call_is_a_child_of_its_command(product: Lifecycle, sandbox: Sandbox, backend: Backend) -> None:
    """And the command of the caller's span. Attributes have OpenTelemetry's names where there are any; ids only."""
    appointment_id = support.tracked(product, sandbox)
    backend.exporter.clear()
    with backend.tracers.get_tracer("test").start_as_current_span("outer"):
        done = product.confirm(appointment_id, actor=ACTOR)
    [call], [command], [outer] = map(backend.spans, ("zocdoc.call", "lifecycle.command", "outer"))
    assert call.parent is not None
    assert command.parent is not None
    assert call.parent.span_id == command.context.span_id
    assert command.parent.span_id == outer.context.span_id
    assert (call.kind, command.kind) == (SpanKind.CLIENT, SpanKind.INTERNAL)
    assert (call.status.status_code, command.status.status_code) == (StatusCode.UNSET, StatusCode.UNSET)
    assert dict(command.attributes or {}) == {
        "lifecycle.command": "confirm",
        "lifecycle.appointment_id": appointment_id,
        "lifecycle.source": "api",
        "lifecycle.command_id": done.command_id,
        "lifecycle.attempt": 1,
        "lifecycle.outcome": "applied",
        "zocdoc.request_id": done.zocdoc_request_id,
    }
    attributes = dict(call.attributes or {})
    assert isinstance(attributes.pop("server.port"), int)
    assert attributes == {
        "zocdoc.operation": "confirm",
        "http.request.method": "POST",
        "server.address": "127.0.0.1",
        "lifecycle.appointment_id": appointment_id,
        "lifecycle.outcome": "applied",
        "http.response.status_code": 200,
        "zocdoc.request_id": done.zocdoc_request_id,
    }


def test_a_failure_has_the_status_error_and_its_code(product: Lifecycle, sandbox: Sandbox, backend: Backend) -> None:
    """A lost answer fails both spans, with the code; a refusal fails none, and no exception is attached."""
    appointment_id = support.tracked(product, sandbox)
    backend.exporter.clear()
    support.lose_answer(sandbox, "confirm")
    with pytest.raises(OutcomeUnknown):
        product.confirm(appointment_id, actor=ACTOR)
    with pytest.raises(TransitionRefused):
        product.confirm(appointment_id, actor=ACTOR)
    [call], [lost, refused] = backend.spans("zocdoc.call"), backend.spans("lifecycle.command")
    for span in (call, lost):
        assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "connection_lost")
        assert (span.attributes or {})["error.type"] == "connection_lost"
    assert refused.status.status_code is StatusCode.UNSET
    assert (refused.attributes or {})["lifecycle.outcome"] == "refused"
    assert not any(span.events for span in backend.exporter.get_finished_spans())


def test_counters_and_histograms_add_up(product: Lifecycle, sandbox: Sandbox, backend: Backend) -> None:
    """Commands and calls are counted and timed by outcome; seconds, in buckets that fit."""
    ids = [support.tracked(product, sandbox) for _ in range(3)]
    for appointment_id in ids:
        product.confirm(appointment_id, actor=ACTOR)
    with pytest.raises(TransitionRefused):
        product.confirm(ids[0], actor=ACTOR)
    points = backend.points()
    assert points["lifecycle.commands", "confirm", "applied"].value == 3
    assert points["lifecycle.commands", "confirm", "refused"].value == 1
    assert points["zocdoc.calls", "confirm", "applied"].value == 3
    assert points["zocdoc.calls", "get", "read"].value == 3
    timed = points["zocdoc.call.duration", "confirm", "applied"]
    assert timed.count == 3
    assert 0 < timed.sum < 30
    assert timed.explicit_bounds[0] == 0.005
    assert all(len(point.attributes) <= 2 for point in points.values())


def test_nothing_of_a_patient_leaves(sandbox: Sandbox, server: Server, database_url: str, backend: Backend) -> None:
    """No canary and no token is in a span or a metric, whatever goes wrong."""
    sandbox.tokens._clients["canary-client"] = SECRET
    options = {"client_id": "canary-client", "client_secret": SECRET, "telemetry": backend.hook}
    with (
        support.client_of(server, **options) as client,
        support.opened(database_url, client, FAST, telemetry=backend.hook) as product,
    ):
        assert troubles(product, sandbox)
        support.tracked(product, sandbox, notes=NOTES, developer_patient_id=PATIENT)
        product.sync()
    exported = backend.everything()
    assert exported.count("zocdoc.call") > 40
    assert WORD not in exported
    assert not any(token in exported for token in sandbox.tokens._live if len(token) > 10)


def test_without_providers_it_costs_a_no_op(sqlite_url: str, server: Server, sandbox: Sandbox) -> None:
    """The global providers, when nobody has set any, take everything and keep nothing."""
    hook = OpenTelemetry()
    with support.client_of(server, telemetry=hook) as client, support.opened(sqlite_url, client, telemetry=hook) as it:
        appointment_id = support.tracked(it, sandbox)
        assert it.confirm(appointment_id, actor=ACTOR).to_status == "confirmed"
        with pytest.raises(LifecycleError):
            it.confirm(appointment_id, actor=ACTOR)


def test_the_command_line_tells_opentelemetry(server: Server, sandbox: Sandbox, sqlite_url: str) -> None:
    """Where the variable says so, through the global providers; another word is refused."""
    appointment_id = sandbox.add()
    code = (
        "import sys\n"
        "from opentelemetry import trace\n"
        "from opentelemetry.sdk.trace import TracerProvider\n"
        "from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor\n"
        "provider = TracerProvider()\n"
        "provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter()))\n"
        "trace.set_tracer_provider(provider)\n"
        "from lifecycle.cli.main import root\n"
        f"root(['track', {appointment_id!r}], standalone_mode=False)\n"
        f"root(['confirm', {appointment_id!r}])\n"
    )
    environ = support.environment(**settings_for(server, sqlite_url), LIFECYCLE_TELEMETRY="otel")
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)  # noqa: S603 # fixed
    assert done.stdout.count('"name": "zocdoc.call"') == 2
    assert done.stdout.count('"name": "lifecycle.command"') == 1
    odd = invoke("confirm", appointment_id, **settings_for(server, sqlite_url), LIFECYCLE_TELEMETRY="jaeger")
    assert_error(odd, 2, "LIFECYCLE_TELEMETRY")


def test_without_the_extra_the_error_says_what_to_install() -> None:
    """As with every other extra."""
    code = "import sys; sys.modules['opentelemetry'] = None\nimport lifecycle.otel"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)  # noqa: S603 # fixed
    assert done.returncode == 1
    assert "pip install 'zocdoc-lifecycle[otel]'" in done.stderr.splitlines()[-1]
