"""Hooks are told what happens, in ids and codes; whatever a hook does, a command does not notice."""

from __future__ import annotations

import dataclasses
import logging
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

import pytest

from lifecycle import (
    CommandRejected,
    Lifecycle,
    LifecycleError,
    NotSent,
    OutcomeUnknown,
    TransitionRefused,
    telemetry,
    tracing,
)
from tests import support
from tests.conftest import FAST
from tests.support import ACTOR, LATER
from tests.test_inbox import KEY, body, signed
from tests.test_privacy import NOTES, PATIENT, SECRET, WORD, troubles

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lifecycle import ZocdocClient
    from lifecycle.sandbox import Sandbox, Server
    from lifecycle.telemetry import Fact

NEVER = "00000000-0000-4000-8000-000000000000"


class Listener:
    """Writes down all that it is told."""

    def __init__(self) -> None:
        self.spans: list[dict[str, Any]] = []
        self.counts: list[tuple[str, dict[str, Fact]]] = []
        self.timings: list[tuple[str, float, dict[str, Fact]]] = []

    @contextmanager
    def span(self, name: str, facts: Mapping[str, Fact]) -> Iterator[Noted]:
        """Keep the span; `_raised` is what ended it."""
        kept: dict[str, Any] = {"_name": name, "_failed": None, "_raised": None, **facts}
        self.spans.append(kept)
        try:
            yield Noted(kept)
        except BaseException as error:
            kept["_raised"] = type(error).__name__
            raise

    def count(self, name: str, amount: int, facts: Mapping[str, Fact]) -> None:
        """Keep each one."""
        self.counts += [(name, dict(facts))] * amount

    def record(self, name: str, seconds: float, facts: Mapping[str, Fact]) -> None:
        """Keep each one."""
        self.timings.append((name, seconds, dict(facts)))

    def of(self, name: str) -> list[dict[str, Any]]:
        """Give the spans of a name."""
        return [span for span in self.spans if span["_name"] == name]

    def outcomes(self, name: str = telemetry.COMMANDS) -> list[Fact]:
        """Give the outcomes that were counted."""
        return [facts["outcome"] for counted, facts in self.counts if counted == name]


class Noted:
    """A span that is kept."""

    def __init__(self, kept: dict[str, Any]) -> None:
        self._kept = kept

    def set(self, **facts: Fact) -> None:
        """Keep facts."""
        self._kept |= facts

    def fail(self, code: str) -> None:
        """Keep the code."""
        self._kept["_failed"] = code


@pytest.fixture
def listener() -> Listener:
    """What is told."""
    return Listener()


@pytest.fixture
def product(database_url: str, server: Server, listener: Listener) -> Iterator[Lifecycle]:
    """Give the product and its client with a listener, on both databases in turn."""
    with (
        support.client_of(server, telemetry=listener) as client,
        support.opened(database_url, client, telemetry=listener) as made,
    ):
        yield made


def test_an_applied_command_is_one_span_with_its_ids(product: Lifecycle, sandbox: Sandbox, listener: Listener) -> None:
    """The command's span tells ids and outcome, the call's what was answered; both are counted and timed once."""
    appointment_id = support.tracked(product, sandbox)
    listener.__init__()  # type: ignore[misc] # forget the tracking
    done = product.confirm(appointment_id, actor=ACTOR)
    [command], [call] = listener.of(telemetry.COMMAND), listener.of(telemetry.CALL)
    assert command == {
        "_name": "lifecycle.command",
        "_failed": None,
        "_raised": None,
        "command": "confirm",
        "appointment_id": appointment_id,
        "source": "api",
        "command_id": done.command_id,
        "attempt": 1,
        "outcome": "applied",
        "reason_code": None,
        "zocdoc_request_id": done.zocdoc_request_id,
    }
    port = call.pop("port")
    assert isinstance(port, int)
    assert call == {
        "_name": "zocdoc.call",
        "_failed": None,
        "_raised": None,
        "operation": "confirm",
        "method": "POST",
        "server": "127.0.0.1",
        "appointment_id": appointment_id,
        "outcome": "applied",
        "http_status": 200,
        "reason_code": None,
        "zocdoc_request_id": done.zocdoc_request_id,
    }
    assert listener.counts == [
        ("zocdoc.calls", {"operation": "confirm", "outcome": "applied"}),
        ("lifecycle.commands", {"command": "confirm", "outcome": "applied"}),
    ]
    [(_, of_call, _), (_, of_command, _)] = listener.timings
    assert [name for name, _, _ in listener.timings] == ["zocdoc.call.duration", "lifecycle.command.duration"]
    assert 0 < of_call < of_command < 10


def test_each_way_to_fail_has_its_outcome_and_code(product: Lifecycle, sandbox: Sandbox, listener: Listener) -> None:
    """Rejected, not sent, unknown, refused, failed; a refusal alone is no failure of the span."""
    ids = [support.tracked(product, sandbox) for _ in range(3)]
    listener.__init__()  # type: ignore[misc] # forget the tracking
    support.arm(sandbox, kind="answer", operation="confirm", status=400)
    with pytest.raises(CommandRejected):
        product.confirm(ids[0], actor=ACTOR)
    support.lose_answer(sandbox, "confirm")
    with pytest.raises(OutcomeUnknown):
        product.confirm(ids[2], actor=ACTOR)
    with pytest.raises(TransitionRefused):
        product.confirm(ids[2], actor=ACTOR)
    # The last call: others of this client would wait for a while.
    support.arm(sandbox, kind="answer", operation="confirm", status=429, headers={"Retry-After": "60"}, times=9)
    with pytest.raises(NotSent):
        product.confirm(ids[1], actor=ACTOR)
    with pytest.raises(LifecycleError):
        product.confirm(NEVER, actor=ACTOR)
    told = [(each["outcome"], each["_failed"], each["_raised"]) for each in listener.of(telemetry.COMMAND)]
    assert told == [
        ("rejected", "bad_request", "CommandRejected"),
        ("unknown", "connection_lost", "OutcomeUnknown"),
        ("refused", None, "CommandInProgress"),
        ("not_sent", "rate_limited", "NotSent"),
        ("failed", "AppointmentNotFound", "AppointmentNotFound"),
    ]
    assert listener.outcomes() == ["rejected", "unknown", "refused", "not_sent", "failed"]
    assert listener.outcomes(telemetry.CALLS) == ["rejected", "unknown", "not_sent"]
    assert {each["command_id"] for each in listener.of(telemetry.COMMAND) if "command_id" in each} == {
        row["command_id"] for row in support.commands(str(product.database.engine.url.render_as_string(False)))
    }


def test_a_replayed_key_counts_as_no_second_effect(product: Lifecycle, sandbox: Sandbox, listener: Listener) -> None:
    """The same key again is `replayed`, whether its first outcome was a yes or a no."""
    one, other = (support.tracked(product, sandbox) for _ in range(2))
    product.confirm(one, actor=ACTOR, request_key="a")
    product.confirm(one, actor=ACTOR, request_key="a")
    support.arm(sandbox, kind="answer", operation="confirm", status=400)
    for _ in range(2):
        with pytest.raises(CommandRejected):
            product.confirm(other, actor=ACTOR, request_key="b")
    assert listener.outcomes() == ["applied", "replayed", "rejected", "replayed"]
    assert len(set(listener.of(telemetry.COMMAND)[0]) & {"command_id", "attempt"}) == 2
    assert "attempt" not in listener.of(telemetry.COMMAND)[1]


def test_reads_are_told_too(product: Lifecycle, sandbox: Sandbox, listener: Listener) -> None:
    """A read, a page of the list, an appointment that is missing and a read that failed."""
    appointment_id = support.tracked(product, sandbox)
    product.sync()
    with pytest.raises(LifecycleError):
        product.track(NEVER, actor=ACTOR)
    support.arm(sandbox, kind="answer", operation="get", status=500)
    with pytest.raises(LifecycleError):
        product.track(appointment_id, actor=ACTOR)
    calls = [(each["operation"], each["outcome"], each["_failed"]) for each in listener.of(telemetry.CALL)]
    assert calls[0] == ("get", "read", None)
    assert ("list", "read", None) in calls
    assert calls[-2:] == [("get", "missing", "not_found"), ("get", "failed", "server_error")]


def test_what_recovery_settles_is_counted(product: Lifecycle, sandbox: Sandbox, listener: Listener) -> None:
    """By the state that a command in doubt comes to; it was counted as unknown before."""
    ids = [support.tracked(product, sandbox) for _ in range(2)]
    for appointment_id, when in zip(ids, ("before", "after"), strict=True):
        support.lose_answer(sandbox, "confirm", when=when)
        with pytest.raises(OutcomeUnknown):
            product.confirm(appointment_id, actor=ACTOR)
    product.recover(wait=support.PATIENCE)
    assert listener.outcomes() == ["unknown", "unknown"]
    assert sorted(map(str, listener.outcomes(telemetry.RECOVERED))) == ["applied", "not_sent"]


def test_an_operators_retry_is_a_command(product: Lifecycle, sandbox: Sandbox, listener: Listener) -> None:
    """Its span has the command's id and the number of the attempt."""
    appointment_id = support.tracked(product, sandbox, status="confirmed")
    support.lose_answer(sandbox, "reschedule")
    with pytest.raises(OutcomeUnknown) as unknown:
        product.reschedule(appointment_id, actor=ACTOR, start_time=LATER)
    support.arm(sandbox, kind="answer", operation="get", status=500, times=3)
    product.recover(wait=support.PATIENCE)
    assert [each.command_id for each in product.attention()] == [unknown.value.command_id]
    product.resolve(unknown.value.command_id, resolution="retry", reason_code="seen_in_portal", actor=ACTOR)
    last = listener.of(telemetry.COMMAND)[-1]
    assert (last["command_id"], last["attempt"], last["source"]) == (unknown.value.command_id, 2, "operator")
    assert listener.outcomes() == ["unknown", "applied"]


def test_a_submitted_command_tells_its_wait_and_each_attempt(
    database_url: str, server: Server, sandbox: Sandbox, listener: Listener
) -> None:
    """The queue's wait once, before the first attempt; a span for each attempt; refused ones are counted."""
    timing = dataclasses.replace(FAST, resend_backoff=2.6)
    with (
        support.client_of(server, telemetry=listener, deadline=1.5) as client,
        support.opened(database_url, client, timing, telemetry=listener) as product,
    ):
        one, other = (support.tracked(product, sandbox) for _ in range(2))
        support.arm(sandbox, kind="answer", operation="confirm", status=429, headers={"Retry-After": "2"})
        first = product.submit("confirm", one, actor=ACTOR)
        assert first.wait(30.0)
        second = product.submit("mark_no_show", other, actor=ACTOR)
        assert second.wait(30.0)
    told = [
        (each["command"], each["attempt"], each["outcome"], each["_failed"]) for each in listener.of(telemetry.COMMAND)
    ]
    assert told == [("confirm", 1, "not_sent", "rate_limited"), ("confirm", 2, "applied", None)]
    assert {each["command_id"] for each in listener.of(telemetry.COMMAND)} == {first.id}
    assert listener.outcomes() == ["not_sent", "applied", "refused"]
    [(_, seconds, facts)] = [each for each in listener.timings if each[0] == telemetry.QUEUE_WAIT]
    assert facts == {"command": "confirm"}
    assert 0 <= seconds < 10


def test_withdrawn_and_expired_commands_are_counted(
    sqlite_url: str, client: ZocdocClient, sandbox: Sandbox, listener: Listener
) -> None:
    """They never were attempted, so they have no span."""
    with support.opened(sqlite_url, client, telemetry=listener) as product:
        ids = [support.tracked(product, sandbox) for _ in range(3)]
        with support.opened(sqlite_url, None, telemetry=listener) as without_credential:
            assert without_credential.submit("confirm", ids[0], actor=ACTOR).withdraw(actor=ACTOR)
            wishes = [{"appointment_id": ids[1]}]
            assert without_credential.submit_many(wishes, command="confirm", actor=ACTOR).cancel(actor=ACTOR) == 1
            soon = datetime.now(UTC) + timedelta(seconds=0.2)
            expiring = without_credential.submit("confirm", ids[2], actor=ACTOR, expires_at=soon)
            time.sleep(0.3)
        product.recover()
        assert product.submission(expiring.id).wait(20.0)
    assert listener.outcomes() == ["withdrawn", "withdrawn", "expired"]
    assert listener.of(telemetry.COMMAND) == []


def test_the_inbox_tells_how_long_a_call_waited(
    database_url: str, client: ZocdocClient, sandbox: Sandbox, listener: Listener
) -> None:
    """From the first stored delivery of an appointment until it has been read."""
    with support.opened(database_url, client, telemetry=listener, webhook_keys=[KEY]) as product:
        appointment_id = support.tracked(product, sandbox)
        content = body(appointment_id, update="updated")
        product.receive_webhook(signed(content), content)
        time.sleep(0.15)
        product.process_inbox()
    [(name, seconds, facts)] = [each for each in listener.timings if each[0] == telemetry.INBOX_LAG]
    assert (name, facts) == ("lifecycle.inbox.lag", {})
    assert 0.14 < seconds < 10


class Broken:
    """Raises wherever it is asked to, and quotes a canary."""

    def __init__(self, where: str) -> None:
        self._where = where

    def _break(self, where: str) -> None:
        if where == self._where:
            raise RuntimeError(WORD)

    def span(self, name: str, facts: Mapping[str, Fact]) -> Broken:
        """Be one's own span."""
        del name, facts
        self._break("span")
        return self

    def __enter__(self) -> Self:
        self._break("enter")
        return self

    def __exit__(self, *_: object) -> bool:
        self._break("exit")
        return True  # which would swallow an exception of ours

    def set(self, **_: Fact) -> None:
        """Take facts."""
        self._break("set")

    def fail(self, code: str) -> None:
        """Take a code."""
        del code
        self._break("fail")

    def count(self, name: str, amount: int, facts: Mapping[str, Fact]) -> None:
        """Take a number."""
        del name, amount, facts
        self._break("count")

    def record(self, name: str, seconds: float, facts: Mapping[str, Fact]) -> None:
        """Take a time."""
        del name, seconds, facts
        self._break("record")


@pytest.mark.parametrize("where", ["span", "enter", "exit", "set", "fail", "count", "record", "nowhere"])
def test_a_hook_that_fails_breaks_no_command(
    sqlite_url: str, server: Server, sandbox: Sandbox, where: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Outcomes and errors are those without a hook; the failure is logged once, by its type, without its text."""
    hook = Broken(where)
    with support.client_of(server, telemetry=hook) as client, support.opened(sqlite_url, client, telemetry=hook) as it:
        one, other = support.tracked(it, sandbox), support.tracked(it, sandbox)
        assert it.confirm(one, actor=ACTOR).to_status == "confirmed"
        support.lose_answer(sandbox, "confirm")
        with pytest.raises(OutcomeUnknown):
            it.confirm(other, actor=ACTOR)
        with pytest.raises(TransitionRefused):
            it.confirm(other, actor=ACTOR)
    assert support.states(sqlite_url) == ["applied", "uncertain"]
    failures = [record for record in caplog.records if record.getMessage() == "telemetry_failed"]

    assert [vars(record)["error"] for record in failures] == ["RuntimeError"] * (0 if where == "nowhere" else 2)
    assert WORD not in "".join(str(vars(record)) for record in caplog.records)


def test_without_a_hook_counters_and_timings_are_logged(
    sqlite_url: str, client: ZocdocClient, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    """One DEBUG record each, beside the events that are logged anyway; at INFO there are none."""
    with support.opened(sqlite_url, client) as it:
        one, other = support.tracked(it, sandbox), support.tracked(it, sandbox)
        caplog.set_level(logging.INFO, logger="lifecycle")
        it.confirm(other, actor=ACTOR)
        assert not [record for record in caplog.records if record.name == "lifecycle.telemetry"]
        caplog.set_level(logging.DEBUG, logger="lifecycle")
        it.confirm(one, actor=ACTOR)
    told = [vars(record) for record in caplog.records if record.name == "lifecycle.telemetry"]
    names = [(each["message"], each.get("counter") or each.get("timing"), each["outcome"]) for each in told]
    assert names == [
        ("counted", "zocdoc.calls", "applied"),
        ("timed", "zocdoc.call.duration", "applied"),
        ("counted", "lifecycle.commands", "applied"),
        ("timed", "lifecycle.command.duration", "applied"),
    ]


def test_no_hook_is_told_a_patients_word(
    sandbox: Sandbox, server: Server, database_url: str, listener: Listener
) -> None:
    """No canary and no token is in a fact, whatever goes wrong."""
    sandbox.tokens._clients["canary-client"] = SECRET
    options = {"client_id": "canary-client", "client_secret": SECRET, "telemetry": listener}
    with (
        support.client_of(server, **options) as client,
        support.opened(database_url, client, FAST, telemetry=listener) as product,
    ):
        assert troubles(product, sandbox)
        support.tracked(product, sandbox, notes=NOTES, developer_patient_id=PATIENT)
        product.sync()
    told = f"{listener.spans} {listener.counts} {listener.timings}"
    assert len(listener.spans) > 50
    assert WORD not in told
    assert not any(token in told for token in sandbox.tokens._live if len(token) > 10)


def test_every_counter_and_timing_is_declared(product: Lifecycle, sandbox: Sandbox, listener: Listener) -> None:
    """Whoever makes instruments beforehand knows all names."""
    support.send(product, "confirm", support.tracked(product, sandbox))
    assert {name for name, _ in listener.counts} <= set(telemetry.COUNTERS)
    assert {name for name, _, _ in listener.timings} <= set(telemetry.TIMINGS)


def test_nobody_listening_costs_microseconds() -> None:
    """A command without a hook and without DEBUG pays next to nothing for what could be told of it."""

    def told(count: int) -> float:
        begun = time.thread_time()
        for _ in range(count):
            with tracing.command(telemetry.LOGGED, command="confirm", appointment_id="a-1", source="api") as span:
                span.claimed("c-1", 1)
        return (time.thread_time() - begun) / count

    assert min(told(2000) for _ in range(5)) < 50e-6
