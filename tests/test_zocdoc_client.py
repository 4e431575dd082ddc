"""The client classifies every answer as documented, sends what the guide shows, and repeats only what is safe."""

from __future__ import annotations

import json
import pickle
import socket
import threading
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

from lifecycle import zocdoc
from lifecycle.zocdoc import (
    Applied,
    AppointmentMissing,
    InvalidConfiguration,
    ListWindowTooWide,
    MalformedAppointmentId,
    NotSent,
    ReadFailed,
    ReadRefused,
    Reason,
    Rejected,
    Unknown,
    ZocdocClient,
)
from tests.test_zocdoc_server import Server, answer, drip, hang, raw, reset

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lifecycle.zocdoc import Outcome
    from tests.test_zocdoc_server import Peer

ID = "d04b049a-41b1-4aba-9268-d8973cf72cdd"
OTHER_ID = "63f995c2-49c4-40c8-a93a-140fb32e913b"
FULL = {
    "appointment_id": ID,
    "appointment_status": "confirmed",
    "is_provider_resource": True,
    "confirmation_type": "manual",
    "visit_type": "in_person",
    "start_time": "2022-04-27T09:00:00-04:00",
    "provider_location_id": "pr_a|lo_b",
    "visit_reason_id": "pc_x",
    "last_modified_time_utc": "2022-04-20T10:00:00",
    "developer_patient_id": None,
    "something_new": {"a": [1]},
}


def base(status: object = "confirmed", appointment_id: object = ID) -> dict[str, Any]:
    """Return the body of a success."""
    return {"request_id": "rq-1", "data": {"appointment_id": appointment_id, "appointment_status": status}}


def refusal(*fields: str) -> dict[str, Any]:
    """Return the body of an error."""
    errors = [{"message": "Jane Doe said so", "field": name} for name in fields]
    return {"request_id": "rq-2", "error_type": "invalid_request", "errors": [*errors, {"message": "no field"}]}


def client_of(server: Server, **arguments: Any) -> ZocdocClient:
    """Return a client with a ready token and short waits."""
    given: dict[str, Any] = {"access_token": "tok", "timeout": 2.0, "deadline": 4.0}
    return ZocdocClient(base_url=server.url, **(given | arguments))


def confirmed_by(*steps: Callable[[Peer], None], **arguments: Any) -> tuple[Outcome, int]:
    """Confirm against these steps; return the outcome and how many requests arrived."""
    with Server(*steps) as server, client_of(server, **arguments) as client:
        return client.confirm(ID), len(server.requests)


@pytest.mark.parametrize("status", ["confirmed", "booking_failed", "a_status_of_2031"])
def test_a_200_is_applied_with_the_status_as_it_came(status: str) -> None:
    """A 200 for this appointment is Applied, whatever the status is called."""
    assert confirmed_by(answer(200, base(status))) == (Applied(status, 200, "rq-1"), 1)


@pytest.mark.parametrize(
    ("body", "reason", "request_id"),
    [
        (None, Reason.ANSWER_UNREADABLE, None),
        (b"<html>", Reason.ANSWER_UNREADABLE, None),
        (b"[]", Reason.ANSWER_UNREADABLE, None),
        (b"null", Reason.ANSWER_UNREADABLE, None),
        (b'"confirmed"', Reason.ANSWER_UNREADABLE, None),
        ({"request_id": "rq-1"}, Reason.ANSWER_UNREADABLE, "rq-1"),
        ({"request_id": "rq-1", "data": []}, Reason.ANSWER_UNREADABLE, "rq-1"),
        ({"request_id": "rq-1", "data": {"appointment_id": ID}}, Reason.ANSWER_UNREADABLE, "rq-1"),
        (base(""), Reason.ANSWER_UNREADABLE, "rq-1"),
        (base(None), Reason.ANSWER_UNREADABLE, "rq-1"),
        (base(7), Reason.ANSWER_UNREADABLE, "rq-1"),
        (base("x" * 65), Reason.ANSWER_UNREADABLE, "rq-1"),
        (base("a\0b"), Reason.ANSWER_UNREADABLE, "rq-1"),
        (base(appointment_id=None), Reason.ANSWER_UNREADABLE, "rq-1"),
        (base(appointment_id=OTHER_ID), Reason.ANSWER_FOREIGN, "rq-1"),
        (base() | {"errors": [{"message": "x"}]}, Reason.ANSWER_UNREADABLE, "rq-1"),
        (base() | {"request_id": 5, "data": None}, Reason.ANSWER_UNREADABLE, None),
        (json.dumps(base()).encode()[:-1], Reason.ANSWER_UNREADABLE, None),
    ],
)
def test_a_200_that_is_not_a_sound_answer_is_unknown(body: object, reason: str, request_id: str | None) -> None:
    """A broken, foreign or contradicting success is never counted as success."""
    assert confirmed_by(answer(200, body)) == (Unknown(reason, 200, request_id), 1)


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (400, Reason.BAD_REQUEST),
        (401, Reason.UNAUTHORIZED),
        (403, Reason.FORBIDDEN),
        (404, Reason.NOT_FOUND),
        (409, Reason.CONFLICT),
        (422, Reason.UNPROCESSABLE),
    ],
)
def test_a_documented_no_is_rejected_with_its_fields(status: int, reason: str) -> None:
    """A refusal keeps the request id, the error type and the fields, and none of the messages."""
    outcome, count = confirmed_by(answer(status, refusal("appointment_id", "a sentence", "data.patient[0].sex")))
    fields = ("appointment_id", "data.patient[0].sex")
    assert (outcome, count) == (Rejected(status, reason, "rq-2", fields, "invalid_request"), 1)
    assert "Jane" not in repr(outcome)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409])
def test_a_refusal_without_a_body_is_rejected(status: int) -> None:
    """The status of a bare refusal says enough."""
    outcome, _ = confirmed_by(answer(status))
    assert isinstance(outcome, Rejected)
    assert (outcome.request_id, outcome.fields, outcome.error_type) == (None, (), None)


def test_a_refusal_with_a_broken_body_is_rejected() -> None:
    """A refusal stays one when its body breaks off."""
    outcome, count = confirmed_by(raw(b"HTTP/1.1 409 Conflict\r\nContent-Length: 50\r\n\r\n{"))
    assert (outcome, count) == (Rejected(409, Reason.CONFLICT), 1)


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (102, Reason.UNEXPECTED_STATUS),
        (201, Reason.UNEXPECTED_STATUS),
        (202, Reason.UNEXPECTED_STATUS),
        (204, Reason.UNEXPECTED_STATUS),
        (299, Reason.UNEXPECTED_STATUS),
        (304, Reason.REDIRECTED),
        (402, Reason.UNEXPECTED_STATUS),
        (405, Reason.UNEXPECTED_STATUS),
        (408, Reason.UNEXPECTED_STATUS),
        (410, Reason.UNEXPECTED_STATUS),
        (413, Reason.UNEXPECTED_STATUS),
        (451, Reason.UNEXPECTED_STATUS),
        (500, Reason.SERVER_ERROR),
        (501, Reason.SERVER_ERROR),
        (502, Reason.SERVER_ERROR),
        (503, Reason.SERVER_ERROR),
        (504, Reason.SERVER_ERROR),
        (599, Reason.SERVER_ERROR),
        (999, Reason.UNEXPECTED_STATUS),
    ],
)
def test_every_other_status_is_unknown_and_not_repeated(status: int, reason: str) -> None:
    """What the table does not list is Unknown, after one request, even with a body that looks like a success."""
    body = None if status in {102, 204, 304} else base()
    outcome, count = confirmed_by(answer(status, body))
    assert (outcome, count) == (Unknown(reason, status, "rq-1" if body else None), 1)


@pytest.mark.parametrize("status", [500, 502, 503])
@pytest.mark.parametrize("retry_after", ["0", "1"])
def test_a_command_is_not_repeated_after_a_503_with_retry_after(status: int, retry_after: str) -> None:
    """Retry-After makes nobody repeat a POST or PUT that may have been applied."""
    with Server(answer(status, None, (f"Retry-After: {retry_after}",))) as server, client_of(server) as client:
        assert client.cancel(ID) == Unknown(Reason.SERVER_ERROR, status)
        assert client.update_status(ID, status="arrived") == Unknown(Reason.SERVER_ERROR, status)
        assert len(server.requests) == 2


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(status: int) -> None:
    """A token never travels to where a redirect points, neither on the same nor on another host."""
    with Server(answer(200, base())) as target:
        with Server(answer(status, None, (f"Location: {target.url}/v1/appointments/confirm",))) as server:
            with client_of(server) as client:
                assert client.confirm(ID) == Unknown(Reason.REDIRECTED, status)
                with pytest.raises(ReadFailed, match="redirected"):
                    client.get(ID)
            assert len(server.requests) == 2
        assert target.connections == 0


def test_a_429_is_sent_again_within_the_deadline() -> None:
    """A 429 was answered before processing: sent again after a pause."""
    assert confirmed_by(answer(429), answer(200, base())) == (Applied("confirmed", 200, "rq-1"), 2)


def test_a_429_ends_as_not_sent_when_the_deadline_is_near() -> None:
    """No pause that would end beyond the deadline is begun."""
    started = time.monotonic()
    outcome, count = confirmed_by(answer(429, refusal()), deadline=2.0)
    assert outcome == NotSent(Reason.RATE_LIMITED, 429, "rq-2")
    assert 1 <= count <= 4
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("retry_after", ["60", "99999999", "Fri, 31 Dec 2038 23:59:59 GMT"])
def test_a_retry_after_that_does_not_fit_ends_the_call_at_once(retry_after: str) -> None:
    """A longer Retry-After than the deadline is not waited for, and not ignored either."""
    started = time.monotonic()
    outcome, count = confirmed_by(answer(429, None, (f"Retry-After: {retry_after}",)))
    assert (outcome, count) == (NotSent(Reason.RATE_LIMITED, 429), 1)
    assert time.monotonic() - started < 5


def test_a_retry_after_that_fits_is_honoured() -> None:
    """The next send does not come before Retry-After has passed."""
    started = time.monotonic()
    outcome, count = confirmed_by(answer(429, None, ("Retry-After: 1",)), answer(200, base()))
    assert (outcome, count) == (Applied("confirmed", 200, "rq-1"), 2)
    assert time.monotonic() - started >= 1


def test_a_429_holds_back_all_senders_of_the_client() -> None:
    """The pause of a 429 is shared: another call that cannot wait so long ends as not sent, without a request."""
    with Server(answer(429, None, ("Retry-After: 3",)), answer(200, base())) as server, client_of(server) as client:
        assert client.confirm(ID, send_before=zocdoc.clock() + 0.5) == NotSent(Reason.RATE_LIMITED, 429)
        assert client.confirm(ID, send_before=zocdoc.clock() + 0.5) == NotSent(Reason.RATE_LIMITED)
        assert len(server.requests) == 1


def test_a_refused_connection_is_not_sent() -> None:
    """Nothing leaves without a connection."""
    with closing(socket.socket()) as taken:  # nobody else gets the port, and nobody listens there
        taken.bind(("127.0.0.1", 0))
        with ZocdocClient(base_url=f"http://127.0.0.1:{taken.getsockname()[1]}", access_token="tok") as client:
            assert client.confirm(ID) == NotSent(Reason.CONNECTION_FAILED)


def test_a_name_that_does_not_resolve_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing leaves without an address."""

    def resolve(*_: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with ZocdocClient(base_url="http://localhost:1", access_token="tok") as client:
        assert client.confirm(ID) == NotSent(Reason.CONNECTION_FAILED)


def test_the_next_address_is_tried_when_one_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host with several addresses is reached through the one that answers."""
    with Server(answer(200, base())) as server, client_of(server) as client:
        dead = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 1))
        live = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", server.port))
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [dead, live])
        assert client.confirm(ID) == Applied("confirmed", 200, "rq-1")


@pytest.mark.parametrize(
    ("step", "reason", "status"),
    [
        (reset, Reason.CONNECTION_LOST, None),
        (raw(b""), Reason.CONNECTION_LOST, None),
        (raw(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"), Reason.ANSWER_TRUNCATED, 200),
        (raw(b"HTTP/1.1 200 OK\r\nContent-Le"), Reason.ANSWER_UNREADABLE, 200),
        (raw(b"SSH-2.0-nonsense\r\n"), Reason.ANSWER_UNREADABLE, None),
        (raw(b"HTTP/1.1 99 Low\r\n\r\n"), Reason.ANSWER_UNREADABLE, None),
    ],
)
def test_a_connection_lost_after_the_send_is_unknown(
    step: Callable[[Peer], None], reason: str, status: int | None
) -> None:
    """Once a byte has left, a failure is Unknown, and a POST or PUT is not repeated."""
    with Server(step) as server, client_of(server) as client:
        assert client.confirm(ID) == Unknown(reason, status)
        assert client.update_status(ID, status="no_show") == Unknown(reason, status)
        assert len(server.requests) == 2


def test_no_answer_in_time_is_unknown() -> None:
    """A read timeout is Unknown."""
    assert confirmed_by(hang, timeout=1.0) == (Unknown(Reason.TIMED_OUT), 1)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (b"", b"HTTP/1.1 200 OK" + b" " * 60_000),
        (b"HTTP/1.1 200 OK\r\n", b"X-Slow: 1\r\n"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x"),
    ],
)
def test_a_slow_drip_ends_with_the_deadline(first: bytes, then: bytes) -> None:
    """The deadline bounds the whole call: status line, headers, 1xx answers and body alike."""
    started = time.monotonic()
    outcome, count = confirmed_by(drip(first, then, 0.005 if then.startswith(b"HTTP") else 0.02), deadline=2.0)
    assert (outcome, count) == (Unknown(Reason.TIMED_OUT, outcome.http_status), 1)
    assert 1.9 < time.monotonic() - started < 20


def test_a_refusal_whose_body_drips_is_still_rejected() -> None:
    """The status line of a refusal counts, though its body does not end."""
    step = drip(b"HTTP/1.1 404 Not Found\r\nContent-Length: 100000\r\n\r\n", b" ")
    assert confirmed_by(step, deadline=2.0) == (Rejected(404, Reason.NOT_FOUND), 1)


def test_an_expired_claim_opens_no_connection() -> None:
    """A command whose send window is over does not even connect."""
    with Server(answer(200, base())) as server, client_of(server) as client:
        assert client.confirm(ID, send_before=zocdoc.clock() - 0.001) == NotSent(Reason.CLAIM_EXPIRED)
        assert server.connections == 0


def test_a_claim_that_expires_before_the_first_byte_is_not_sent() -> None:
    """The claim is checked right before the first byte, after a slow token."""

    def slowly() -> str:
        time.sleep(0.2)
        return "tok"

    with Server(answer(200, base())) as server, client_of(server, access_token=slowly) as client:
        assert client.confirm(ID, send_before=zocdoc.clock() + 0.1) == NotSent(Reason.CLAIM_EXPIRED)
        assert server.requests == []
        assert client.confirm(ID, send_before=zocdoc.clock() + 5) == Applied("confirmed", 200, "rq-1")


def test_the_three_calls_of_the_guide_go_out_word_for_word() -> None:
    """Method, path, names, values and their order are those of Zocdoc's guide."""
    with Server(answer(200, base())) as server, client_of(server) as client:
        client.confirm(ID)
        client.cancel(ID, reason="string", reason_type="patient_no_longer_needs_appointment")
        client.reschedule(OTHER_ID, start_time="2022-04-27T09:00:00-04:00")
        client.update_status(ID, status="no_show")
        client.cancel(ID)
    assert [(each.method, each.target, each.pairs()) for each in server.requests] == [
        ("POST", "/v1/appointments/confirm", [("appointment_id", ID)]),
        (
            "POST",
            "/v1/appointments/cancel",
            [
                ("appointment_id", ID),
                ("cancellation_reason", "string"),
                ("cancellation_reason_type", "patient_no_longer_needs_appointment"),
            ],
        ),
        (
            "POST",
            "/v1/appointments/reschedule",
            [("appointment_id", OTHER_ID), ("start_time", "2022-04-27T09:00:00-04:00")],
        ),
        ("PUT", "/v1/appointments/update-status", [("appointment_id", ID), ("appointment_status", "no_show")]),
        ("POST", "/v1/appointments/cancel", [("appointment_id", ID)]),
    ]


def test_requests_carry_the_token_and_no_cookies() -> None:
    """Each request has the bearer token and JSON headers; cookies are not kept."""
    with Server(answer(200, base(), ("Set-Cookie: a=b",))) as server, client_of(server) as client:
        client.confirm(ID)
        client.confirm(ID)
        assert server.connections == 1
    for each in server.requests:
        assert each.headers["authorization"] == "Bearer tok"
        assert each.headers["content-type"] == "application/json"
        assert "cookie" not in each.headers


@pytest.mark.parametrize(
    "bad",
    [
        "",
        ".",
        "..",
        "a/b",
        "a b",
        "a%2e",
        "a\n",
        "\n",
        "é",
        "\uff11",
        "x" * 65,
        "a?b",
        "a#b",
        "a\0",
        "../confirm",
        None,
        7,
    ],
)
def test_an_odd_appointment_id_never_reaches_a_url_or_body(bad: Any) -> None:
    """Only 1 to 64 ASCII letters, digits, underscores and hyphens are an id; the error does not repeat the value."""
    with Server(answer(200, base())) as server, client_of(server) as client:
        calls: tuple[Callable[[], object], ...] = (
            lambda: client.confirm(bad),
            lambda: client.cancel(bad),
            lambda: client.reschedule(bad, start_time="x"),
            lambda: client.update_status(bad, status="arrived"),
            lambda: client.get(bad),
        )
        for call in calls:
            with pytest.raises(MalformedAppointmentId, match="1 to 64") as caught:
                call()
            assert isinstance(caught.value, ValueError)
        assert server.connections == 0


@pytest.mark.parametrize("good", [ID, "62g4ar44-1yv9-0931-dl3t-e9c2174kks09", "a", "_" * 64])
def test_the_published_ids_are_accepted(good: str) -> None:
    """Ids need not be UUIDs."""
    with Server(answer(200, base(appointment_id=good))) as server, client_of(server) as client:
        assert client.confirm(good) == Applied("confirmed", 200, "rq-1")


def test_a_reading_has_the_facts_and_hides_patient_data() -> None:
    """A reading keeps the offset of the start and its text, puts `_utc` times into UTC, and shows no patient data."""
    phi = {
        "notes": "canary-n",
        "cancellation_reason": "canary-c",
        "developer_patient_id": "canary-d",
        "waiting_room_path": "canary-w",
        "location_phone_number": "canary-p",
        "location_phone_extension": "canary-e",
    }
    with Server(answer(200, {"request_id": "rq-1", "data": FULL | phi})) as server, client_of(server) as client:
        reading = client.get(ID)
        assert server.requests[0].target == f"/v1/appointments/{ID}"
    found = reading.appointment
    assert reading.request_id == "rq-1"
    assert found.start_time == datetime(2022, 4, 27, 9, tzinfo=timezone(timedelta(hours=-4)))
    assert found.start_time.utcoffset() == timedelta(hours=-4)
    assert found.start_time_text == "2022-04-27T09:00:00-04:00"
    assert found.last_modified_time_utc == datetime(2022, 4, 20, 10, tzinfo=UTC)
    assert (found.provider_location_id, found.is_provider_resource, found.practice_id) == ("pr_a|lo_b", True, None)
    assert {name: getattr(found, name) for name in phi} == phi
    assert "canary" not in f"{reading!r} {found!s}"
    assert pickle.loads(pickle.dumps(reading)) == reading  # noqa: S301  our own


def test_a_404_on_read_is_a_missing_appointment() -> None:
    """A 404 has its own error; its text carries Zocdoc's request id and its facts survive pickling."""
    with (
        Server(answer(404, refusal("appointment_id"))) as server,
        client_of(server) as client,
        pytest.raises(AppointmentMissing, match="rq-2") as caught,
    ):
        client.get(ID)
    again = pickle.loads(pickle.dumps(caught.value))  # noqa: S301  our own
    for each in (caught.value, again):
        assert (each.reason_code, each.http_status, each.request_id) == (Reason.NOT_FOUND, 404, "rq-2")
        assert each.fields == ("appointment_id",)
    assert str(again) == str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


@pytest.mark.parametrize("status", [400, 401, 403, 409, 422])
def test_a_refused_read_is_its_own_error(status: int) -> None:
    """Other refusals of a read are ReadRefused, and no AppointmentMissing."""
    with Server(answer(status)) as server, client_of(server) as client, pytest.raises(ReadRefused) as caught:
        client.get(ID)
    assert type(caught.value) is ReadRefused
    assert "request id none" in str(caught.value)


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (answer(200, {"data": FULL | {"appointment_id": OTHER_ID}}), Reason.ANSWER_FOREIGN),
        (answer(200, {"data": FULL | {"start_time": "2022-04-27T09:00:00"}}), Reason.ANSWER_UNREADABLE),
        (answer(200, {"data": FULL | {"start_time": 1651064400}}), Reason.ANSWER_UNREADABLE),
        (answer(200, {"data": FULL | {"start_time": "0001-01-01T00:00:00+14:00"}}), Reason.ANSWER_UNREADABLE),
        (answer(200, {"data": FULL | {"appointment_status": ""}}), Reason.ANSWER_UNREADABLE),
        (answer(200, {"data": None}), Reason.ANSWER_UNREADABLE),
        (answer(200, b"{"), Reason.ANSWER_UNREADABLE),
        (answer(201, {"data": FULL}), Reason.UNEXPECTED_STATUS),
        (answer(500), Reason.SERVER_ERROR),
    ],
)
def test_a_read_without_a_sound_answer_fails(step: Callable[[Peer], None], reason: str) -> None:
    """A reading is sound or none."""
    with Server(step) as server, client_of(server) as client:
        with pytest.raises(ReadFailed) as caught:
            client.get(ID)
        assert len(server.requests) == 1
    assert caught.value.reason_code == reason
    assert caught.value.__context__ is None


@pytest.mark.parametrize("step", [answer(502), answer(503), answer(504), answer(429), reset, raw(b"")])
def test_a_read_is_repeated_where_a_command_is_not(step: Callable[[Peer], None]) -> None:
    """A read changes nothing, so passing trouble is tried again."""
    with Server(step, answer(200, {"request_id": "rq-1", "data": FULL})) as server, client_of(server) as client:
        assert client.get(ID).appointment.appointment_status == "confirmed"
        assert len(server.requests) == 2


def test_a_read_is_repeated_twice_at_most() -> None:
    """Lasting trouble is no reason for a storm."""
    with Server(answer(503)) as server, client_of(server) as client:
        with pytest.raises(ReadFailed, match="server_error"):
            client.get(ID)
        assert len(server.requests) == 3


def rows(count: int, page: int = 0) -> list[dict[str, Any]]:
    """Return rows of a list."""
    return [FULL | {"appointment_id": f"a-{page}-{number}"} for number in range(count)]


def paged(data: object, next_url: object, total: object = 3) -> Callable[[Peer], None]:
    """Return the step that answers with one page."""
    body = {"request_id": "rq-1", "page": 0, "page_size": 2, "total_count": total, "next_url": next_url, "data": data}
    return answer(200, body)


@pytest.mark.parametrize("end", ["", None])
def test_a_list_asks_for_pages_by_number_until_there_is_no_next(end: str | None) -> None:
    """All pages are read on our own URL; `next_url` is never followed, and any falsy one is the end."""
    with Server(answer(500)) as elsewhere:
        steps = (paged(rows(2), f"{elsewhere.url}/x"), paged(rows(1, 1), end))
        with Server(*steps) as server, client_of(server) as client:
            found = [each.appointment_id for each in client.list(page_size=2)]
            targets = [each.target for each in server.requests]
        assert elsewhere.connections == 0
    assert found == ["a-0-0", "a-0-1", "a-1-0"]
    assert targets == ["/v1/appointments?page_size=2&page=0", "/v1/appointments?page_size=2&page=1"]


def test_the_filters_of_a_list_are_encoded() -> None:
    """Every documented filter reaches the query, percent-encoded, and times are written in UTC."""
    east = timezone(timedelta(hours=2))
    with Server(paged([], None)) as server, client_of(server) as client:
        given = client.list(
            statuses=("confirmed", "cancelled"),
            developer_patient_id="a&b=c#d",
            provider_ids="pr_1",
            location_ids=["lo_1", "lo_2"],
            practice_ids="pt|1",
            start_time_utc_min=datetime(2026, 1, 1, 2, tzinfo=east),
            last_modified_time_utc_min="2026-01-01T00:00:00Z",
            sort_by="last_modified_time_utc",
            sort_direction="ascending",
        )
        assert list(given) == []
        target = server.requests[0].target
    assert target == (
        "/v1/appointments?page_size=100&statuses=confirmed%2Ccancelled&developer_patient_id=a%26b%3Dc%23d"
        "&provider_ids=pr_1&location_ids=lo_1%2Clo_2&practice_ids=pt%7C1"
        "&start_time_utc_min=2026-01-01T00%3A00%3A00Z&last_modified_time_utc_min=2026-01-01T00%3A00%3A00Z"
        "&sort_by=last_modified_time_utc&sort_direction=ascending&page=0"
    )


def test_a_filter_without_an_offset_is_refused() -> None:
    """A naive time would mean another hour elsewhere."""
    with Server(paged([], None)) as server, client_of(server) as client:
        with pytest.raises(ValueError, match="offset"):
            client.list(start_time_utc_min=datetime(2026, 1, 1))  # noqa: DTZ001  the point
        assert server.connections == 0


def drained(found: Iterator[Any]) -> tuple[int, Exception | None]:
    """Count the rows and return how the iteration ended."""
    count = 0
    try:
        for _ in found:
            count += 1
    except zocdoc.ZocdocError as error:
        return count, error
    return count, None


def test_a_list_beyond_page_10_says_so_after_its_rows() -> None:
    """Eleven pages are read, their rows are yielded, and then the window is called too wide."""
    with Server(paged(rows(2), "more", 4000)) as server, client_of(server) as client:
        count, error = drained(client.list(page_size=2))
        assert len(server.requests) == 11
    assert isinstance(error, ListWindowTooWide)
    assert (count, error.total_count, error.request_id) == (22, 4000, "rq-1")
    assert "rq-1" in str(error)
    assert "narrow" in str(pickle.loads(pickle.dumps(error)))  # noqa: S301  our own


def test_a_list_that_zocdoc_cuts_at_a_thousand_rows_says_so() -> None:
    """A 400 behind the thousandth row means the window, while an earlier one is a refusal."""
    with Server(*[paged(rows(1), "more", 1500)] * 10, answer(400)) as server, client_of(server) as client:
        count, error = drained(client.list())
    assert (count, type(error)) == (10, ListWindowTooWide)
    with Server(paged(rows(1), "more"), answer(400)) as server, client_of(server) as client:
        count, error = drained(client.list())
    assert (count, type(error)) == (1, ReadRefused)


def test_an_unreadable_row_hides_no_other_and_is_not_hidden() -> None:
    """The sound rows of all pages come first, then the error."""
    steps = (paged([*rows(1), {"appointment_id": "x"}, 5], "more"), paged(rows(2, 1), None))
    with Server(*steps) as server, client_of(server) as client:
        count, error = drained(client.list())
    assert isinstance(error, ReadFailed)
    assert (count, error.reason_code) == (3, Reason.ANSWER_UNREADABLE)


def test_many_threads_share_one_client() -> None:
    """32 threads get their own answers over at most as many connections."""
    outcomes: list[Outcome] = []
    with Server(answer(200, base())) as server, client_of(server) as client:

        def work() -> None:
            outcomes.extend(client.confirm(ID) for _ in range(5))

        threads = [threading.Thread(target=work) for _ in range(32)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert len(server.requests) == 160
        assert server.connections <= 32
    assert set(outcomes) == {Applied("confirmed", 200, "rq-1")}


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"base_url": "http://api.example.com"}, "base_url"),
        ({"base_url": "ftp://localhost"}, "base_url"),
        ({"base_url": "https://user:hunter2@localhost"}, "base_url"),
        ({"base_url": "https://localhost/?a=hunter2"}, "base_url"),
        ({"base_url": "https://localhost/#hunter2"}, "base_url"),
        ({"base_url": "http://localhost\\@evil.example"}, "base_url"),
        ({"base_url": "http://127.0.0.1.evil.example"}, "base_url"),
        ({"base_url": "http://loc\talhost"}, "base_url"),
        ({"base_url": "http://127.1"}, "base_url"),
        ({"base_url": "http://localhost:99999"}, "base_url"),
        ({"base_url": "localhost"}, "base_url"),
        ({"access_token": None}, "client_id"),
        ({"access_token": "to\nken"}, "access token"),
        ({"access_token": ""}, "access token"),
        ({"client_id": "a", "client_secret": "hunter2"}, "not both"),
        ({"access_token": None, "client_id": "a", "client_secret": "hunter2"}, "token_url"),
        (
            {"access_token": None, "client_id": "a", "client_secret": "b", "token_url": "http://evil.example/t"},
            "token_url",
        ),
        ({"identity": "nobody"}, "identity"),
        ({"timeout": 0}, "timeout"),
        ({"deadline": float("nan")}, "deadline"),
        ({"proxies": {"https": "socks5://user:hunter2@localhost:1"}}, "proxies"),
    ],
)
def test_bad_arguments_are_named_and_not_shown(arguments: dict[str, Any], word: str) -> None:
    """A client that would send a token in the clear, or could not say what was sent, is not built."""
    given: dict[str, Any] = {"base_url": "http://localhost:1", "access_token": "tok"}
    with pytest.raises(InvalidConfiguration, match=word) as caught:
        ZocdocClient(**(given | arguments))
    assert "hunter2" not in str(caught.value)


def test_a_client_knows_its_environment_and_shows_no_secret() -> None:
    """The repr has the base URL, the identity and the environment, and nothing else."""
    made = {"client_id": "id-canary", "client_secret": "canary"}
    with ZocdocClient.for_environment("sandbox", client_id="id-canary", client_secret="canary") as client:
        assert (client.environment, client.identity, client.deadline) == ("sandbox", "machine", 25.0)
        assert "canary" not in repr(client)
        assert "api-developer-sandbox" in repr(client)
    with ZocdocClient.for_environment(zocdoc.PRODUCTION, access_token="canary", identity="user:7") as client:
        assert (client.environment, client.identity) == ("production", "user:7")
    with ZocdocClient(base_url="https://API-developer.zocdoc.com:443/", access_token="x") as client:
        assert client.environment == "production"
    with ZocdocClient(base_url="https://proxy.example:8443/zocdoc", access_token="x") as client:
        assert client.environment == "https://proxy.example:8443"
    for url in ("http://localhost", "http://127.9.9.9:80", "http://[::1]:8080", "https://localhost:1"):
        with ZocdocClient(base_url=url, access_token="x") as client:
            assert client.environment == "local"
    with pytest.raises(InvalidConfiguration, match="production"):
        ZocdocClient.for_environment("staging", client_id=made["client_id"], client_secret=made["client_secret"])
