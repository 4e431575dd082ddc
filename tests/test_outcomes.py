"""Every row of the outcome rules, over real HTTP: what is raised, what is stored, and what reached Zocdoc."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from lifecycle import (
    CommandRejected,
    Lifecycle,
    NotSent,
    OutcomeUnknown,
    Timing,
    TransitionRefused,
    ZocdocClient,
    errors,
    points,
)
from tests import support
from tests.conftest import FAST
from tests.support import ACTOR
from tests.test_zocdoc_server import Server as ScriptedServer
from tests.test_zocdoc_server import answer, hang

if TYPE_CHECKING:
    from lifecycle.sandbox import Sandbox, Server


@dataclass(frozen=True, kw_only=True)
class Row:
    """A fault, and all that must follow from it for a confirm of a pending booking."""

    name: str
    fault: dict[str, Any]
    state: str
    reason: str | None
    http_status: int | None = None
    effects: int = 0
    posts: int = 1
    gets: int = 0
    fields: tuple[str, ...] = ()
    request_id: bool = False
    client: dict[str, Any] = field(default_factory=dict)


def envelope(data: object) -> str:
    """Write a success's body."""
    return json.dumps({"request_id": "rq-1", "data": data})


REFUSAL = json.dumps(
    {"request_id": "rq-9", "error_type": "invalid_request", "errors": [{"message": "m", "field": "appointment_id"}]}
)
UNKNOWN = (
    Row(
        name="200 without a body", fault={"status": 200}, state="uncertain", reason="answer_unreadable", http_status=200
    ),
    Row(
        name="200 with html",
        fault={"status": 200, "body": "<html>"},
        state="uncertain",
        reason="answer_unreadable",
        http_status=200,
    ),
    Row(
        name="200 without a status",
        fault={"status": 200, "body": envelope({"appointment_id": "x"})},
        state="uncertain",
        reason="answer_unreadable",
        http_status=200,
        request_id=True,
    ),
    Row(
        name="200 of another appointment",
        fault={"kind": "foreign_id"},
        state="uncertain",
        reason="answer_foreign",
        http_status=200,
        effects=1,
        request_id=True,
    ),
    Row(
        name="200 cut short",
        fault={"kind": "truncate"},
        state="uncertain",
        reason="answer_truncated",
        http_status=200,
        effects=1,
    ),
    *(
        Row(
            name=f"{status}",
            fault={"status": status, "body": "{}"},
            state="uncertain",
            reason=reason,
            http_status=status,
        )
        for status, reason in (
            (201, "unexpected_status"),
            (202, "unexpected_status"),
            (299, "unexpected_status"),
            (408, "unexpected_status"),
            (418, "unexpected_status"),
            (500, "server_error"),
            (502, "server_error"),
            (503, "server_error"),
            (504, "server_error"),
        )
    ),
    Row(name="204", fault={"status": 204}, state="uncertain", reason="unexpected_status", http_status=204),
    *(
        Row(
            name=f"{status} after applying",
            fault={"status": status, "when": "after"},
            state="uncertain",
            reason="server_error",
            http_status=status,
            effects=1,
            request_id=status in (500, 503),
        )
        for status in (500, 502, 503)
    ),
    Row(
        name="302",
        fault={"status": 302, "headers": {"Location": "http://127.0.0.1:9/elsewhere"}},
        state="uncertain",
        reason="redirected",
        http_status=302,
    ),
    Row(name="reset before", fault={"kind": "reset"}, state="uncertain", reason="connection_lost"),
    Row(
        name="reset after",
        fault={"kind": "reset", "when": "after"},
        state="uncertain",
        reason="connection_lost",
        effects=1,
    ),
    Row(name="closed before", fault={"kind": "close"}, state="uncertain", reason="connection_lost"),
    Row(
        name="timeout before",
        fault={"kind": "delay", "seconds": 2.5},
        state="uncertain",
        reason="timed_out",
        posts=0,
        client={"timeout": 1.0},
    ),
    Row(
        name="timeout after",
        fault={"kind": "delay", "seconds": 2.5, "when": "after"},
        state="uncertain",
        reason="timed_out",
        effects=1,
        client={"timeout": 1.0},
    ),
    Row(
        name="deadline while dripping",
        fault={"kind": "drip_body", "seconds": 0.1},
        state="uncertain",
        reason="timed_out",
        http_status=200,
        effects=1,
        client={"deadline": 3.0},
    ),
)
REJECTED = (
    Row(name="400", fault={"status": 400}, state="rejected", reason="bad_request", http_status=400, request_id=True),
    Row(
        name="400 with a field",
        fault={"status": 400, "body": REFUSAL},
        state="rejected",
        reason="bad_request",
        http_status=400,
        fields=("appointment_id",),
        request_id=True,
    ),
    Row(
        name="404",
        fault={"status": 404},
        state="rejected",
        reason="not_found",
        http_status=404,
        gets=1,
        request_id=True,
    ),
    Row(name="422", fault={"status": 422}, state="rejected", reason="unprocessable", http_status=422, request_id=True),
    Row(
        name="401 twice",
        fault={"status": 401, "times": 2},
        state="rejected",
        reason="unauthorized",
        http_status=401,
        posts=2,
    ),
    Row(name="403", fault={"status": 403}, state="rejected", reason="forbidden", http_status=403),
)
NOT_SENT = (
    Row(
        name="token refused",
        fault={"operation": "token", "status": 401},
        state="not_sent",
        reason="token_refused",
        http_status=401,
        posts=0,
    ),
    Row(
        name="token unavailable",
        fault={"operation": "token", "status": 500},
        state="not_sent",
        reason="token_unavailable",
        http_status=500,
        posts=0,
    ),
    Row(
        name="no answer for a token",
        fault={"operation": "token", "kind": "reset", "times": 9},
        state="not_sent",
        reason="token_unavailable",
        posts=0,
        client={"deadline": 2.0},
    ),
    Row(
        name="429 with a long pause",
        fault={"status": 429, "headers": {"Retry-After": "3600"}},
        state="not_sent",
        reason="rate_limited",
        http_status=429,
        request_id=True,
    ),
)
RAISES = {"uncertain": OutcomeUnknown, "rejected": CommandRejected, "not_sent": NotSent}
EVENTS = {
    "uncertain": ("outcome_lost", "unknown"),
    "rejected": ("command_rejected", "rejected"),
    "not_sent": ("command_not_sent", "not_sent"),
}


@pytest.mark.parametrize("row", [*UNKNOWN, *REJECTED, *NOT_SENT], ids=lambda row: row.name)
def test_what_is_not_applied_is_raised_stored_and_counted(
    lifecycle: Lifecycle, sandbox: Sandbox, server: Server, database_url: str, row: Row
) -> None:
    """Each answer but a sound 200 ends in its class: the exception, the row, the trail and the calls agree."""
    appointment_id = support.tracked(lifecycle, sandbox)
    before = support.gets(sandbox, appointment_id)
    with support.client_of(server, **row.client) as client, support.opened(database_url, client) as product:
        support.arm(sandbox, **({"kind": "answer", "operation": "confirm"} | row.fault))
        with pytest.raises(errors.CommandEnded) as caught:
            product.confirm(appointment_id, actor=ACTOR)
        if row.name == "timeout before":
            support.until(lambda: support.posts(sandbox, appointment_id))
            assert support.effects(sandbox, appointment_id) == 1  # carried out after the client had gone
        else:
            if row.name == "timeout after":
                support.until(lambda: support.effects(sandbox, appointment_id))
            assert support.effects(sandbox, appointment_id) == row.effects
            assert support.posts(sandbox, appointment_id) == row.posts
    sandbox.faults.clear()
    ended: Any = caught.value
    assert type(caught.value) is RAISES[row.state]
    assert (ended.appointment_id, ended.command) == (appointment_id, "confirm")
    assert (ended.reason_code, ended.http_status) == (row.reason, row.http_status)
    assert (ended.zocdoc_request_id is not None) == row.request_id
    assert support.gets(sandbox, appointment_id) - before == row.gets
    [stored] = support.commands(database_url)
    assert (stored["command_id"], stored["state"]) == (ended.command_id, row.state)
    assert (stored["reason_code"], stored["http_status"]) == (row.reason, row.http_status)
    assert stored["zocdoc_request_id"] == ended.zocdoc_request_id
    assert stored["lease_until"] is None
    assert (stored["ended_at"] is None) == (stored["run_at"] is not None) == (row.state == "uncertain")
    event, outcome = EVENTS[row.state]
    support.assert_history(
        lifecycle,
        appointment_id,
        [
            ("command_accepted", "confirm", "pending_booking", "pending_booking", None, None),
            (event, "confirm", "pending_booking", "pending_booking", outcome, row.reason),
        ],
    )
    last = lifecycle.history(appointment_id)[-1]
    assert (last.http_status, last.zocdoc_request_id) == (row.http_status, ended.zocdoc_request_id)
    assert last.details == ({"fields": list(row.fields)} if row.fields else {})
    assert lifecycle.get(appointment_id).in_doubt == (row.state == "uncertain")
    if row.state == "rejected":
        assert ended.fields == row.fields
    if row.state == "uncertain":
        assert ended.state == "uncertain"


@pytest.mark.parametrize("row", UNKNOWN[::4], ids=lambda row: row.name)
def test_while_an_outcome_is_unknown_no_command_is_sent(
    lifecycle: Lifecycle, sandbox: Sandbox, server: Server, database_url: str, row: Row
) -> None:
    """After an unknown outcome every further command is refused without a call: there is never a blind second POST."""
    appointment_id = support.tracked(lifecycle, sandbox)
    with support.client_of(server, **row.client) as client, support.opened(database_url, client) as product:
        support.arm(sandbox, **({"kind": "answer", "operation": "confirm"} | row.fault))
        with pytest.raises(OutcomeUnknown) as caught:
            product.confirm(appointment_id, actor=ACTOR)
        before = len(sandbox.ledger.entries())
        for command in support.COMMANDS:
            with pytest.raises(errors.CommandInProgress) as refused:
                support.send(product, command, appointment_id)
            assert "outcome_in_doubt" in refused.value.reasons
            assert refused.value.active_command_id == caught.value.command_id
            assert refused.value.active_state == "uncertain"
        assert len(sandbox.ledger.entries()) == before


def test_a_refused_connection_is_not_sent(lifecycle: Lifecycle, sandbox: Sandbox, database_url: str) -> None:
    """Where no connection can be made nothing was sent: it ends `not_sent` and may be called again."""
    appointment_id = support.tracked(lifecycle, sandbox)
    nowhere = ZocdocClient(base_url="http://127.0.0.1:9", access_token="t")
    with nowhere, support.opened(database_url, nowhere) as product, pytest.raises(NotSent) as caught:
        product.confirm(appointment_id, actor=ACTOR)
    assert (caught.value.reason_code, caught.value.http_status) == ("connection_failed", None)
    assert lifecycle.confirm(appointment_id, actor=ACTOR).to_status == "confirmed"
    assert support.states(database_url) == ["not_sent", "applied"]
    assert support.effects(sandbox, appointment_id) == 1
    assert lifecycle.get(appointment_id).in_doubt is False


def test_a_server_that_takes_the_request_and_hangs_is_unknown(
    lifecycle: Lifecycle, sandbox: Sandbox, database_url: str
) -> None:
    """Once a byte has left, silence is an unknown outcome, not a failure to send."""
    appointment_id = support.tracked(lifecycle, sandbox)
    with (
        ScriptedServer(hang) as silent,
        ZocdocClient(base_url=silent.url, access_token="t", deadline=3.0) as client,
        support.opened(database_url, client) as product,
        pytest.raises(OutcomeUnknown) as caught,
    ):
        product.confirm(appointment_id, actor=ACTOR)
    assert caught.value.reason_code == "timed_out"
    assert support.states(database_url) == ["uncertain"]


def test_an_unknown_status_is_applied_kept_and_flagged(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """A 200 with a status of the future is a success that does not conform; the value is kept as it came."""
    appointment_id = support.tracked(lifecycle, sandbox)
    support.arm(sandbox, kind="unknown_status", operation="confirm", value="waitlisted")
    done = lifecycle.confirm(appointment_id, actor=ACTOR)
    assert (done.from_status, done.to_status, done.conforming) == ("pending_booking", "waitlisted", False)
    seen = lifecycle.get(appointment_id)
    assert (seen.status, seen.status_known, seen.in_doubt) == ("waitlisted", False, False)
    with pytest.raises(TransitionRefused) as caught:
        lifecycle.cancel(appointment_id, actor=ACTOR)
    assert caught.value.reasons == ("status_unknown",)


def test_one_401_costs_a_new_token_and_nothing_else(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """The first 401 is answered before processing: the token is fetched anew and the call sent once more."""
    appointment_id = support.tracked(lifecycle, sandbox)
    sandbox.revoke_tokens()
    assert lifecycle.confirm(appointment_id, actor=ACTOR).to_status == "confirmed"
    assert (support.posts(sandbox, appointment_id), support.effects(sandbox, appointment_id)) == (2, 1)
    assert len(sandbox.ledger.entries(operation="token")) == 2


def test_one_429_is_waited_for(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """A 429 is answered before processing: the call is sent again within its deadline, and has one effect."""
    appointment_id = support.tracked(lifecycle, sandbox)
    support.arm(sandbox, kind="answer", operation="confirm", status=429)
    assert lifecycle.confirm(appointment_id, actor=ACTOR).to_status == "confirmed"
    assert (support.posts(sandbox, appointment_id), support.effects(sandbox, appointment_id)) == (2, 1)


def test_a_429_then_a_500_is_unknown(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """What counts is the last answer: after the repeat is answered with a 500 nothing more is sent."""
    appointment_id = support.tracked(lifecycle, sandbox)
    support.arm(sandbox, kind="answer", operation="confirm", status=429)
    support.arm(sandbox, kind="answer", operation="confirm", status=500, when="after")
    with pytest.raises(OutcomeUnknown):
        lifecycle.confirm(appointment_id, actor=ACTOR)
    assert (support.posts(sandbox, appointment_id), support.effects(sandbox, appointment_id)) == (2, 1)


def test_a_409_at_the_target_is_applied_already_so(lifecycle: Lifecycle, sandbox: Sandbox, database_url: str) -> None:
    """A conflict whose read shows the target fulfils the wish: `already_so`, without an effect of ours."""
    appointment_id = support.tracked(lifecycle, sandbox)
    sandbox.change(appointment_id, status="confirmed", provider_location_id="pr_new|lo_new")
    done = lifecycle.confirm(appointment_id, actor=ACTOR)
    assert (done.to_status, done.reason_code, done.conforming) == ("confirmed", "already_so", True)
    assert (support.posts(sandbox, appointment_id), support.effects(sandbox, appointment_id)) == (1, 0)
    [stored] = support.commands(database_url)
    assert (stored["state"], stored["reason_code"], stored["http_status"]) == ("applied", "already_so", 409)
    support.assert_history(
        lifecycle,
        appointment_id,
        [
            ("command_accepted", "confirm", "pending_booking", "pending_booking", None, None),
            ("command_applied", "confirm", "pending_booking", "confirmed", "applied", "already_so"),
        ],
    )
    seen = lifecycle.get(appointment_id)
    assert (seen.provider_location_id, seen.in_doubt) == ("pr_new|lo_new", False)


@pytest.mark.parametrize("command", ["confirm", "cancel", "mark_arrived"])
def test_a_409_elsewhere_is_rejected_and_the_status_follows(
    lifecycle: Lifecycle, sandbox: Sandbox, database_url: str, command: str
) -> None:
    """A conflict whose read shows another status is a rejection, and the local status becomes what was read."""
    appointment_id = support.tracked(lifecycle, sandbox)
    sandbox.change(appointment_id, status="no_show")
    with pytest.raises(CommandRejected) as caught:
        support.send(lifecycle, command, appointment_id)
    assert (caught.value.reason_code, caught.value.http_status) == ("conflict", 409)
    assert lifecycle.get(appointment_id).status == "no_show"
    support.assert_history(
        lifecycle,
        appointment_id,
        [
            ("command_accepted", command, "pending_booking", "pending_booking", None, None),
            ("command_rejected", command, "pending_booking", "pending_booking", "rejected", "conflict"),
            ("appointment_observed", None, "pending_booking", "no_show", None, None),
        ],
    )
    assert lifecycle.history(appointment_id)[-1].conforming is False
    assert support.states(database_url) == ["rejected"]
    assert support.posts(sandbox, appointment_id) == 1


@pytest.mark.parametrize(("status", "times"), [(500, 1), (403, 1), (404, 1)])
def test_a_409_that_cannot_be_read_after_is_unknown(
    lifecycle: Lifecycle, sandbox: Sandbox, database_url: str, status: int, times: int
) -> None:
    """A conflict leaves open whether the wish is fulfilled; when the read fails, so does the answer to that."""
    appointment_id = support.tracked(lifecycle, sandbox)
    support.arm(sandbox, kind="answer", operation="confirm", status=409)
    support.arm(sandbox, kind="answer", operation="get", status=status, times=times)
    with pytest.raises(OutcomeUnknown) as caught:
        lifecycle.confirm(appointment_id, actor=ACTOR)
    assert (caught.value.reason_code, caught.value.http_status) == ("conflict_unread", 409)
    assert support.states(database_url) == ["uncertain"]
    assert lifecycle.get(appointment_id).in_doubt is True
    assert support.posts(sandbox, appointment_id) == 1


def test_a_reschedules_400_is_read_and_followed(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """Reschedule answers a wrong status with 400, which may mean that our picture is old: read, and follow."""
    appointment_id = support.tracked(lifecycle, sandbox, status="confirmed")
    sandbox.change(appointment_id, status="cancelled")
    with pytest.raises(CommandRejected) as caught:
        support.send(lifecycle, "reschedule", appointment_id)
    assert (caught.value.reason_code, caught.value.fields) == ("bad_request", ("appointment_id",))
    support.assert_history(
        lifecycle,
        appointment_id,
        [
            ("command_accepted", "reschedule", "confirmed", "confirmed", None, None),
            ("command_rejected", "reschedule", "confirmed", "confirmed", "rejected", "bad_request"),
            ("appointment_observed", None, "confirmed", "cancelled", None, None),
        ],
    )


def test_a_404_is_read_and_the_status_follows(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """A 404 may mean that our picture is old; what the read shows is recorded beside the rejection."""
    appointment_id = support.tracked(lifecycle, sandbox)
    sandbox.change(appointment_id, status="cancelled")
    support.arm(sandbox, kind="answer", operation="confirm", status=404)
    with pytest.raises(CommandRejected):
        lifecycle.confirm(appointment_id, actor=ACTOR)
    assert lifecycle.get(appointment_id).status == "cancelled"


def test_a_redirect_is_never_followed(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """A redirect, even to a host of the same machine, gets neither the request nor the token."""
    appointment_id = support.tracked(lifecycle, sandbox)
    with ScriptedServer(answer(200, {})) as elsewhere:
        headers = {"Location": f"{elsewhere.url}/v1/appointments/confirm"}
        support.arm(sandbox, kind="answer", operation="confirm", status=307, headers=headers)
        with pytest.raises(OutcomeUnknown):
            lifecycle.confirm(appointment_id, actor=ACTOR)
        assert elsewhere.requests == []


def test_an_answer_of_a_status_too_long_to_store_is_unknown(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """A 200 whose status is no status (65 letters) is not counted as a success."""
    appointment_id = support.tracked(lifecycle, sandbox)
    support.arm(sandbox, kind="unknown_status", operation="confirm", value="x" * 65)
    with pytest.raises(OutcomeUnknown) as caught:
        lifecycle.confirm(appointment_id, actor=ACTOR)
    assert caught.value.reason_code == "answer_unreadable"


def test_a_claim_that_is_too_old_is_not_sent(
    lifecycle: Lifecycle, sandbox: Sandbox, client: ZocdocClient, database_url: str
) -> None:
    """Who comes too late for the send window does not send, and says so; nothing is in doubt."""
    appointment_id = support.tracked(lifecycle, sandbox)
    sandbox.revoke_tokens()
    slow = Timing(send_window=3.0, settle=0.05, spacing=(0.05, 0.05))
    with support.opened(database_url, client, slow) as product:
        # The refused token is fetched anew, which takes longer than the claim may age.
        support.arm(sandbox, kind="delay", operation="token", seconds=3.5)
        with pytest.raises(NotSent) as caught:
            product.confirm(appointment_id, actor=ACTOR)
    assert caught.value.reason_code == "claim_expired"
    assert support.states(database_url) == ["not_sent"]
    assert (support.posts(sandbox, appointment_id), support.effects(sandbox, appointment_id)) == (1, 0)


def test_the_intent_is_committed_before_anything_is_sent(
    lifecycle: Lifecycle, sandbox: Sandbox, client: ZocdocClient, database_url: str
) -> None:
    """While the call is in the air the command row and its audit event are there for everybody to read."""
    appointment_id = support.tracked(lifecycle, sandbox)
    with support.while_held(sandbox, "confirm", lambda: lifecycle.confirm(appointment_id, actor=ACTOR)) as results:
        assert support.states(database_url) == ["sending"]
        with Lifecycle(database_url, zocdoc=client, timing=FAST) as other:
            support.assert_history(
                other,
                appointment_id,
                [("command_accepted", "confirm", "pending_booking", "pending_booking", None, None)],
            )
            # No transaction is open meanwhile: others write to the same database without waiting.
            another = support.tracked(other, sandbox)
            support.send(other, "cancel", another)
        assert support.states(database_url, appointment_id) == ["sending"]
    assert results[0].to_status == "confirmed"


_SLOW_COMMIT = (
    "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(1); RETURN NULL; END'",
    """CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON lifecycle_audit_events DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.appointment_seq = 3) EXECUTE FUNCTION slow()""",
)
"""The COMMIT of the third event, which tells what came of the call, takes a second."""


@pytest.mark.parametrize(
    ("fault", "event"),
    [({"kind": "reset"}, "outcome_lost"), ({"status": 400}, "command_rejected"), (None, "command_applied")],
)
def test_an_outcome_whose_commit_comes_through_late_is_recorded_once(
    postgres_url: str, client: ZocdocClient, sandbox: Sandbox, fault: dict[str, Any] | None, event: str
) -> None:
    """The connection is lost in a COMMIT that is still being carried out when the outcome is recorded again."""
    for statement in _SLOW_COMMIT:
        support.query(postgres_url, statement)
    hasty = Timing(settle=0.05, spacing=(0.05, 0.05), record_again=(0.01,))
    with support.opened(postgres_url, client, hasty) as product:
        appointment_id = support.tracked(product, sandbox)
        if fault is not None:
            support.arm(sandbox, **({"kind": "answer", "operation": "confirm"} | fault))
        dialect = product._resources.database.engine.dialect
        commit = dialect.do_commit

        def unheard(connection: Any) -> None:
            setattr(dialect, "do_commit", commit)  # noqa: B010 # SQLAlchemy has no event for it
            with socket.socket(fileno=os.dup(connection.fileno())) as line:
                line.shutdown(socket.SHUT_RD)
            commit(connection)

        def hook(point: points.Point) -> None:
            if point is points.Point.ANSWER_CLASSIFIED:
                setattr(dialect, "do_commit", unheard)  # noqa: B010 # the same

        with points.armed(hook), contextlib.suppress(OutcomeUnknown, CommandRejected):
            product.confirm(appointment_id, actor=ACTOR)
        events = [each.event for each in product.history(appointment_id)]
    assert events == ["appointment_tracked", "command_accepted", event]
