"""The stand-in calls webhooks as the published contract says, and fails at it as it is told to."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

import pytest
import requests

from lifecycle.sandbox import CLIENTS, Ended, Knobs, Order, Sandbox, Server, Trouble, UpdateType, serve
from tests import support
from tests.test_cli import assert_error, invoke

if TYPE_CHECKING:
    from collections.abc import Iterator

GUIDE = "d04b049a-41b1-4aba-9268-d8973cf72cdd"
EXAMPLE = "62g4ar44-1yv9-0931-dl3t-e9c2174kks09"
KEY = "g9Y9hjTUk9KKH7ffBRbtRmJYo2OISsdMK4flbfDa3zR="
OTHER_KEY = "c2Vjb25kIGtleSBvZiB0aGUgdGVzdHM="
NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
MOCK = "/v1/webhook/mock-request"
RESET = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Received:
    """One call as it came in."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def event(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def appointment(self) -> Any:
        """The innermost object of the event."""
        return self.event["data"]["appointment_data"]


@dataclass
class Receiver:
    """A server of one thread that answers its calls as `script` says, and 200 when that is used up.

    A number is a status; `reset`, `close`, `half` (of a head), `garbage` and `silence` are no answers.
    """

    script: list[int | str] = field(default_factory=list)
    calls: list[Received] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        socket.create_connection(self._listener.getsockname()).close()
        self._thread.join()
        self._listener.close()

    @property
    def url(self) -> str:
        """Where it is called."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}/hooks?from=zocdoc"

    def _serve(self) -> None:
        while not self._over.is_set():
            connection, _ = self._listener.accept()
            with connection:
                received = _receive(connection)
                if received is not None:
                    self.calls.append(received)
                    self._answer(connection, self.script.pop(0) if self.script else 200)

    def _answer(self, connection: socket.socket, action: int | str) -> None:
        match action:
            case "reset":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            case "silence":
                connection.recv(1)  # until the caller has had enough
            case "half":
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-")
            case "garbage":
                connection.sendall(b"220 mail.example ESMTP\r\n\r\n")
            case int():
                connection.sendall(f"HTTP/1.1 {action} Answer\r\nContent-Length: 2\r\n\r\nok".encode())


def _receive(connection: socket.socket) -> Received | None:
    raw = b""
    while b"\r\n\r\n" not in raw:
        piece = connection.recv(65536)
        if not piece:
            return None
        raw += piece
    head, _, body = raw.partition(b"\r\n\r\n")
    line, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, value in (text.split(": ", 1) for text in lines)}
    while len(body) < int(headers["content-length"]):
        body += connection.recv(65536)
    assert line.startswith("POST ")
    return Received(line.split(" ")[1], headers, body)


class Clock:
    """A clock that a test moves."""

    present = NOW

    def __call__(self) -> datetime:
        """Return the present of this clock."""
        return self.present


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Return a running receiver."""
    with Receiver() as running:
        yield running


@pytest.fixture
def clock() -> Clock:
    """Return a clock that stands still."""
    return Clock()


@pytest.fixture
def sandbox(clock: Clock, receiver: Receiver) -> Iterator[Sandbox]:
    """Return a stand-in that tells the receiver, in order, and retries quickly."""
    made = Sandbox(now=clock)
    made.webhooks.configure(first_retry=0.01, answer_within=5, workers=1)
    made.webhooks.subscribe(receiver.url, KEY)
    yield made
    made.webhooks.stop()


@pytest.fixture
def server(sandbox: Sandbox) -> Iterator[Server]:
    """Serve that stand-in."""
    with serve(sandbox) as running:
        yield running


@pytest.fixture
def session(server: Server) -> Iterator[requests.Session]:
    """Return a signed-in session."""
    (client_id, secret), *_ = CLIENTS.items()
    wanted = {"grant_type": "client_credentials", "client_id": client_id, "client_secret": secret}
    with requests.Session() as made:
        made.trust_env = False
        answer = made.post(server.token_url, json=wanted | {"audience": server.audience}, timeout=30)
        made.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
        yield made


def settle(sandbox: Sandbox) -> None:
    """Wait until every delivery has ended."""
    assert sandbox.webhooks.wait_idle(30), sandbox.webhooks.log()


def signature(key: str, call: Received, digest: str = "sha256") -> str:
    """Compute the signature of a call from the contract's own words."""
    signed = call.headers["webhook-timestamp"].encode() + b"." + call.body
    return base64.b64encode(hmac.new(base64.b64decode(key), signed, getattr(hashlib, digest)).digest()).decode()


def outcomes(sandbox: Sandbox) -> list[tuple[list[Any], Ended | None]]:
    """Return what the calls of each delivery got, and how it ended."""
    return [(delivery.got, delivery.ended) for delivery in sandbox.webhooks.log()]


def told(receiver: Receiver) -> list[tuple[Any, Any]]:
    """Return the appointment and the update type of each call."""
    found = [call.appointment for call in receiver.calls]
    return [(one["appointment_id"], one["appointment_update_type"]) for one in found]


# The call


def test_a_change_by_the_provider_is_told_in_the_documented_form(sandbox: Sandbox, receiver: Receiver) -> None:
    """One POST carries the event: that something changed and when, no status, no value."""
    sandbox.change(GUIDE, start_time="2027-01-01T09:00:00-05:00", status="rescheduled")
    settle(sandbox)
    (call,) = receiver.calls
    assert (call.path, call.headers["content-type"]) == ("/hooks?from=zocdoc", "application/json")
    assert call.event == {
        "event_type": "appointment_updated",
        "webhook_timestamp": "2026-06-01T12:00:00.000000Z",
        "data": {
            "data_type": "appointment_data",
            "appointment_data": {
                "appointment_id": GUIDE,
                "appointment_updated_timestamp": "2026-06-01T12:00:00.000001Z",
                "appointment_update_type": "updated",
                "changed_attributes": [{"attribute_path": "start_time"}, {"attribute_path": "appointment_status"}],
            },
        },
    }
    assert outcomes(sandbox) == [([200], Ended.ANSWERED)]


def test_a_call_is_signed_as_documented(sandbox: Sandbox, receiver: Receiver) -> None:
    """v1 is the HMAC-SHA256 of `<timestamp>.<raw body>` under the decoded key, whose base64 is not canonical."""
    sandbox.change(GUIDE, status="confirmed")
    settle(sandbox)
    (call,) = receiver.calls
    assert call.headers["webhook-timestamp"] == str(int(NOW.timestamp()))
    assert call.headers["webhook-signature"] == f"v1:{signature(KEY, call)}"


def test_a_signature_may_carry_a_second_version(sandbox: Sandbox, receiver: Receiver) -> None:
    """With the knob it reads `v1:...;v2:...`."""
    sandbox.webhooks.configure(second_version=True)
    sandbox.change(GUIDE, status="confirmed")
    settle(sandbox)
    (call,) = receiver.calls
    assert call.headers["webhook-signature"] == f"v1:{signature(KEY, call)};v2:{signature(KEY, call, 'sha512')}"


def test_a_call_can_look_old(sandbox: Sandbox, receiver: Receiver) -> None:
    """`clock_offset` moves the time of signing, and the signature is right for it."""
    sandbox.webhooks.configure(clock_offset=-301)
    sandbox.change(GUIDE, status="confirmed")
    settle(sandbox)
    (call,) = receiver.calls
    assert call.headers["webhook-timestamp"] == str(int(NOW.timestamp()) - 301)
    assert call.headers["webhook-signature"] == f"v1:{signature(KEY, call)}"


@pytest.mark.parametrize(
    ("before", "change", "expected"),
    [
        ("confirmed", {"status": "cancelled"}, "cancelled"),
        ("confirmed", {"status": "no_show"}, "updated"),
        ("cancelled", {"practice_id": "pt_1"}, "updated"),
        ("cancelled", {"status": "cancelled"}, "updated"),
        ("confirmed", {}, "updated"),
    ],
)
def test_the_update_type_tells_a_cancellation(
    sandbox: Sandbox, receiver: Receiver, before: str, change: Any, expected: str
) -> None:
    """`cancelled` when the status becomes that, `updated` for everything else."""
    sandbox.change(sandbox.add(status=before), **change)
    settle(sandbox)
    assert [call.appointment["appointment_update_type"] for call in receiver.calls] == [expected]


def test_a_new_appointment_is_told_only_when_asked(sandbox: Sandbox, receiver: Receiver) -> None:
    """`add` tells of a creation with `webhook=True`; `change` can be told to be silent."""
    sandbox.add("quiet")
    sandbox.change("quiet", webhook=False, status="confirmed")
    sandbox.add("loud", webhook=True)
    settle(sandbox)
    assert told(receiver) == [("loud", "created")]


def test_our_own_commands_do_not_come_back(
    sandbox: Sandbox, receiver: Receiver, server: Server, session: requests.Session
) -> None:
    """Confirm, reschedule, cancel and update-status through the API call nobody."""
    commands = f"{server.base_url}/v1/appointments"
    named = {"appointment_id": GUIDE}
    answers = [
        session.post(f"{commands}/confirm", json=named, timeout=30),
        session.put(f"{commands}/update-status", json=named | {"appointment_status": "arrived"}, timeout=30),
        session.post(f"{commands}/reschedule", json=named | {"start_time": "2027-01-01T09:00:00Z"}, timeout=30),
        session.post(f"{commands}/cancel", json=named, timeout=30),
    ]
    assert [answer.status_code for answer in answers] == [200] * 4
    assert sandbox.ledger.effects(GUIDE) == 4
    assert (sandbox.webhooks.log(), receiver.calls) == ([], [])


def test_each_subscription_is_called_with_its_own_key(sandbox: Sandbox, receiver: Receiver) -> None:
    """Two subscriptions of one receiver get the same body under two keys; an ended one gets nothing."""
    second = sandbox.webhooks.subscribe(receiver.url, OTHER_KEY)
    sandbox.change(GUIDE, status="confirmed")
    settle(sandbox)
    signed = [call.headers["webhook-signature"] for call in receiver.calls]
    assert signed == [f"v1:{signature(key, receiver.calls[0])}" for key in (KEY, OTHER_KEY)]
    assert receiver.calls[0].body == receiver.calls[1].body
    sandbox.webhooks.unsubscribe(second.subscription_id)
    sandbox.change(GUIDE, status="no_show")
    settle(sandbox)
    assert len(receiver.calls) == 3
    assert second.key not in repr(second)
    with pytest.raises(KeyError):
        sandbox.webhooks.unsubscribe(second.subscription_id)


@pytest.mark.parametrize(
    "url",
    [
        "http://192.0.2.1/hooks",
        "http://example.com/hooks",
        "http://localhost.example.com/",
        "http://127.0.0.1@192.0.2.1/",
        "http://127.0.0.1:0/",
        "http://127.0.0.1:70000/",
        "http://127.0.0.1/a b",
        "http://127.0.0.1/\r\nX: y",
        "http://[::1",
        "http://",
        "https://127.0.0.1/",
        "ftp://127.0.0.1/",
        "127.0.0.1:80",
        "",
    ],
)
def test_only_this_machine_is_ever_called(sandbox: Sandbox, url: str) -> None:
    """A subscription elsewhere is an error that says why."""
    with pytest.raises(ValueError, match="url must be an http:// address of this machine"):
        sandbox.webhooks.subscribe(url, KEY)


@pytest.mark.parametrize("key", ["", "not base64", "abc", "Zm9v\n"])
def test_a_key_is_base64(sandbox: Sandbox, receiver: Receiver, key: str) -> None:
    """Any other text is an error, which does not repeat it."""
    with pytest.raises(ValueError, match=r"^key must be base64 of at least one byte$"):
        sandbox.webhooks.subscribe(receiver.url, key)


# Retries


@pytest.mark.parametrize(
    ("trouble", "got"),
    [
        ("reset", Trouble.BROKEN),
        ("close", Trouble.BROKEN),
        ("half", Trouble.BROKEN),
        ("garbage", Trouble.BROKEN),
        ("silence", Trouble.TIMEOUT),
    ],
)
def test_no_answer_is_retried_until_there_is_one(
    sandbox: Sandbox, receiver: Receiver, trouble: str, got: Trouble
) -> None:
    """A connection that breaks and an answer that does not come in time are retried with the same body."""
    sandbox.webhooks.configure(answer_within=0.4 if trouble == "silence" else 5)
    receiver.script = [trouble, trouble]
    sandbox.change(GUIDE, status="confirmed")
    settle(sandbox)
    assert outcomes(sandbox) == [([got, got, 200], Ended.ANSWERED)]
    assert len({call.body for call in receiver.calls}) == 1
    assert sandbox.webhooks.log()[0].body_digest == hashlib.sha256(receiver.calls[0].body).hexdigest()


def test_a_refused_connection_is_retried(sandbox: Sandbox) -> None:
    """A receiver that is down gets the event when it is back, and the pauses double."""
    sandbox.webhooks.unsubscribe()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))  # nobody else gets the port, and nobody listens there yet
        sandbox.webhooks.subscribe(f"http://localhost:{listener.getsockname()[1]}", KEY)
        sandbox.change(GUIDE, status="confirmed")
        support.until(lambda: len(sandbox.webhooks.log()[0].attempts) >= 4)
        assert not sandbox.webhooks.wait_idle(0)
        listener.listen()
        connection, _ = listener.accept()
        with connection:
            assert _receive(connection) is not None
            connection.sendall(b"HTTP/1.0 204 \r\n\r\n")
        settle(sandbox)
    (delivery,) = sandbox.webhooks.log()
    assert set(delivery.got[:-1]) == {Trouble.REFUSED}
    assert (delivery.got[-1], delivery.ended) == (204, Ended.ANSWERED)
    begun = [attempt.at for attempt in delivery.attempts]
    for number in range(len(begun) - 1):
        assert begun[number + 1] - begun[number] >= 0.01 * 2**number


@pytest.mark.parametrize("status", [201, 301, 400, 401, 404, 429, 500, 503])
def test_any_answer_ends_the_retries(sandbox: Sandbox, receiver: Receiver, status: int) -> None:
    """A status of any kind is an answer, 500 included: nothing comes again."""
    receiver.script = [status]
    sandbox.change(GUIDE, status="confirmed")
    settle(sandbox)
    time.sleep(0.05)
    assert outcomes(sandbox) == [([status], Ended.ANSWERED)]
    assert len(receiver.calls) == 1


def test_it_gives_up_in_the_end(sandbox: Sandbox, receiver: Receiver) -> None:
    """After `give_up_after` seconds, 48 hours by default, no retry comes any more."""
    assert (Knobs().give_up_after, Knobs().answer_within) == (48 * 3600, 5)
    sandbox.webhooks.configure(give_up_after=0.5)
    receiver.script = ["close"] * 100
    sandbox.change(GUIDE, status="confirmed")
    settle(sandbox)
    ((got, ended),) = outcomes(sandbox)
    assert (set(got), ended) == ({Trouble.BROKEN}, Ended.GAVE_UP)
    assert 2 <= len(got) <= 6


@pytest.mark.parametrize("resign", [True, False])
def test_a_retry_is_signed_afresh_or_not(sandbox: Sandbox, receiver: Receiver, clock: Clock, *, resign: bool) -> None:
    """Which of the two is not documented, so both can be had; either is signed rightly."""
    sandbox.webhooks.configure(resign=resign, answer_within=0.4)
    receiver.script = ["silence"]
    sandbox.change(GUIDE, status="confirmed")
    while not receiver.calls:
        time.sleep(0.005)
    clock.present += timedelta(hours=1)
    settle(sandbox)
    first, second = receiver.calls
    apart = int(second.headers["webhook-timestamp"]) - int(first.headers["webhook-timestamp"])
    assert apart == (3600 if resign else 0)
    for call in receiver.calls:
        assert call.headers["webhook-signature"] == f"v1:{signature(KEY, call)}"


def test_closing_the_server_ends_the_retries(sandbox: Sandbox, receiver: Receiver) -> None:
    """No call comes out of a stand-in that was closed, so that no later test is called by it."""
    sandbox.webhooks.configure(first_retry=0.05)
    receiver.script = ["close"] * 100
    with serve(sandbox):
        sandbox.change(GUIDE, status="confirmed")
        while not receiver.calls:
            time.sleep(0.005)
    settle(sandbox)
    assert sandbox.webhooks.log()[0].ended is Ended.STOPPED
    time.sleep(0.1)
    seen = len(receiver.calls)
    time.sleep(0.2)
    assert len(receiver.calls) == seen


# Weather


def test_events_can_come_in_copies(sandbox: Sandbox, receiver: Receiver) -> None:
    """Every copy is a delivery of its own with the same body."""
    sandbox.webhooks.configure(copies=3)
    sandbox.change(GUIDE, status="confirmed")
    settle(sandbox)
    assert len(receiver.calls) == 3
    assert len({call.body for call in receiver.calls}) == 1
    assert outcomes(sandbox) == [([200], Ended.ANSWERED)] * 3


def test_events_can_be_lost(sandbox: Sandbox, receiver: Receiver) -> None:
    """A lost event is never sent, and the log says so."""
    sandbox.webhooks.configure(loss=1.0)
    sandbox.change(GUIDE, status="confirmed")
    settle(sandbox)
    assert (outcomes(sandbox), receiver.calls) == ([([], Ended.LOST)], [])


def test_a_share_of_events_is_lost(sandbox: Sandbox, receiver: Receiver) -> None:
    """Between none and all, the others arrive."""
    sandbox.webhooks.configure(loss=0.5, workers=8)
    for _ in range(40):
        sandbox.change(GUIDE, notes="synthetic")
    settle(sandbox)
    lost = [delivery for delivery in sandbox.webhooks.log() if delivery.ended is Ended.LOST]
    assert 5 < len(lost) < 35
    assert len(receiver.calls) == 40 - len(lost)


def test_events_can_be_late(sandbox: Sandbox, receiver: Receiver) -> None:
    """`delay` seconds pass before the first call."""
    sandbox.webhooks.configure(delay=1.0)
    begun = time.monotonic()
    sandbox.change(GUIDE, status="confirmed")
    assert time.monotonic() - begun < 0.9
    settle(sandbox)
    assert time.monotonic() - begun >= 1.0
    assert len(receiver.calls) == 1


@pytest.mark.parametrize("order", [Order.GIVEN, Order.REVERSED, Order.SHUFFLED])
def test_held_events_leave_in_any_order(sandbox: Sandbox, receiver: Receiver, order: Order) -> None:
    """`hold` keeps events back until they are released, as they came, reversed or shuffled."""
    sandbox.webhooks.configure(hold=True)
    made = [sandbox.add(webhook=True) for _ in range(12)]
    assert not sandbox.webhooks.wait_idle(0.02)
    assert receiver.calls == []
    assert sandbox.webhooks.release(order) == 12
    settle(sandbox)
    came = [call.appointment["appointment_id"] for call in receiver.calls]
    expected = {Order.GIVEN: made, Order.REVERSED: made[::-1]}
    assert sorted(came) == sorted(made)
    assert came == expected[order] if order in expected else came not in (made, made[::-1])
    sandbox.add(webhook=True)
    sandbox.webhooks.configure(hold=False)
    settle(sandbox)
    assert len(receiver.calls) == 13


def test_events_can_overtake_one_another(sandbox: Sandbox, receiver: Receiver) -> None:
    """A `spread` of waiting times changes the order by itself."""
    sandbox.webhooks.configure(spread=0.1)
    made = [sandbox.add(webhook=True) for _ in range(12)]
    settle(sandbox)
    came = [call.appointment["appointment_id"] for call in receiver.calls]
    assert sorted(came) == sorted(made)
    assert came != made


def test_many_events_reach_a_receiver_that_fails_now_and_then(sandbox: Sandbox, receiver: Receiver) -> None:
    """Of three hundred changes none goes missing, though many calls break."""
    sandbox.webhooks.configure(workers=8)
    receiver.script = ["reset", 200, "close", 500, 200] * 30
    made = [sandbox.add(webhook=True) for _ in range(300)]
    assert sandbox.webhooks.wait_idle(20)
    assert {call.appointment["appointment_id"] for call in receiver.calls} == set(made)
    assert {delivery.ended for delivery in sandbox.webhooks.log()} == {Ended.ANSWERED}
    assert len(receiver.calls) == 360


def test_an_event_can_be_delivered_again(sandbox: Sandbox, receiver: Receiver, clock: Clock) -> None:
    """The same body comes again, signed at the new time; the log of what has ended can be dropped."""
    sandbox.change(GUIDE, status="confirmed")
    settle(sandbox)
    clock.present += timedelta(days=1)
    sandbox.webhooks.repeat(sandbox.webhooks.log()[0].delivery_id)
    settle(sandbox)
    first, again = receiver.calls
    assert first.body == again.body
    assert int(again.headers["webhook-timestamp"]) - int(first.headers["webhook-timestamp"]) == 86400
    sandbox.webhooks.forget()
    assert sandbox.webhooks.log() == []
    with pytest.raises(KeyError):
        sandbox.webhooks.repeat("d1")


@pytest.mark.parametrize(
    "wrong",
    [
        {"copies": 0},
        {"copies": 1.5},
        {"copies": True},
        {"hold": 1},
        {"loss": 1.1},
        {"delay": float("nan")},
        {"answer_within": 0},
        {"workers": 65},
        {"speed": 1},
        {"self": 1},
    ],
)
def test_a_knob_that_does_not_exist_or_fit_is_an_error(sandbox: Sandbox, wrong: dict[str, Any]) -> None:
    """Nothing is turned by a wrong wish."""
    before = sandbox.webhooks.knobs
    with pytest.raises(ValueError, match=r"may be|wrong type|have the knobs"):
        sandbox.webhooks.configure(**wrong)
    assert sandbox.webhooks.knobs == before


# mock-request


@pytest.mark.parametrize("wanted", [None, *UpdateType])
def test_a_mock_request_calls_the_url_and_answers_with_the_event(
    sandbox: Sandbox, receiver: Receiver, server: Server, session: requests.Session, wanted: UpdateType | None
) -> None:
    """Any base64 key signs; the answer is the event that was sent; no subscription is needed, none is called."""
    body = {"webhook_url": receiver.url, "webhook_key": OTHER_KEY, "appointment_update_type": wanted}
    answer = session.post(server.base_url + MOCK, json=body, timeout=30)
    settle(sandbox)
    (call,) = receiver.calls
    assert (answer.status_code, answer.json()) == (200, call.event)
    assert call.appointment["appointment_id"] == EXAMPLE
    assert call.appointment["appointment_update_type"] == (wanted or "updated")
    assert call.headers["webhook-signature"] == f"v1:{signature(OTHER_KEY, call)}"
    (entry,) = sandbox.ledger.entries(operation="mock_webhook")
    assert (entry.answered, entry.raw, entry.effect) == (200, b"", False)


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"webhook_url": None}, "webhook_url"),
        ({"webhook_url": 7}, "webhook_url"),
        ({"webhook_url": "http://192.0.2.1/"}, "webhook_url must be an http:// address of this machine"),
        ({"webhook_url": "https://example.com/hooks"}, "webhook_url must be an http:// address of this machine"),
        ({"webhook_key": None}, "webhook_key"),
        ({"webhook_key": ""}, "webhook_key"),
        ({"webhook_key": "not base64"}, "webhook_key"),
        ({"appointment_update_type": "moved"}, "appointment_update_type"),
    ],
)
def test_a_mock_request_that_does_not_fit_is_a_400(  # noqa: PLR0917 - fixtures
    sandbox: Sandbox,
    receiver: Receiver,
    server: Server,
    session: requests.Session,
    change: dict[str, Any],
    wrong: str,
) -> None:
    """The envelope names the field, the key is not repeated, and nobody is called."""
    body = {"webhook_url": receiver.url, "webhook_key": KEY} | change
    answer = session.post(server.base_url + MOCK, json=body, timeout=30)
    (error,) = answer.json()["errors"]
    assert (answer.status_code, answer.json()["error_type"]) == (400, "invalid_request")
    assert error["field"] == wrong.split(maxsplit=1)[0]
    assert error["message"].startswith(wrong)
    assert "not base64" not in answer.text
    assert (sandbox.webhooks.log(), receiver.calls) == ([], [])


def test_a_mock_request_needs_a_token_that_may_write(
    sandbox: Sandbox, receiver: Receiver, server: Server, session: requests.Session
) -> None:
    """Without one it is a bare 401, with a read-only one a bare 403; another method is a 405."""
    body = {"webhook_url": receiver.url, "webhook_key": KEY}
    assert session.get(server.base_url + MOCK, timeout=30).status_code == 405
    token = sandbox.user_token("17", frozenset({"external.appointment.read"}))
    for header, status in (("", 401), ("Bearer unknown", 401), (f"Bearer {token}", 403)):
        session.headers["Authorization"] = header
        answer = session.post(server.base_url + MOCK, json=body, timeout=30)
        assert (answer.status_code, answer.content) == (status, b"")
    assert receiver.calls == []


# Control over HTTP


def test_webhooks_of_another_process_are_steered_over_http(
    sandbox: Sandbox, receiver: Receiver, server: Server
) -> None:
    """Subscriptions, knobs, deliveries and releases are reached without a token; no key is ever shown."""

    def call(method: str, path: str, body: Any = None, status: int = 200) -> Any:
        answer = requests.request(method, f"{server.base_url}/_sandbox/{path}", json=body, timeout=30)
        assert answer.status_code == status, answer.text
        assert OTHER_KEY not in answer.text
        return answer.json()

    assert call("DELETE", "webhooks") == {"subscriptions": []}
    made = call("POST", "webhooks", {"url": receiver.url, "key": OTHER_KEY})
    assert call("GET", "webhooks") == {"subscriptions": [made]}
    assert call("PATCH", "webhook-knobs", {"hold": True, "copies": 2})["copies"] == 2
    assert call("GET", "webhook-knobs")["hold"] is True
    call("POST", f"appointments/{GUIDE}", {"status": "cancelled"})
    call("POST", f"appointments/{GUIDE}", {"status": "confirmed", "webhook": False})
    call("POST", "appointments", [{"appointment_id": "new", "webhook": True}, {"appointment_id": "quiet"}])
    assert call("GET", "deliveries")["idle"] is False
    assert call("POST", "release", {"order": "reversed"}) == {"released": 4}
    settle(sandbox)
    assert told(receiver) == [("new", "created")] * 2 + [(GUIDE, "cancelled")] * 2
    shown = call("GET", f"deliveries?appointment_id={GUIDE}")
    assert (shown["idle"], [one["ended"] for one in shown["deliveries"]]) == (True, ["answered"] * 2)
    assert [attempt["got"] for attempt in shown["deliveries"][0]["attempts"]] == [200]
    call("PATCH", "webhook-knobs", {"hold": False})
    call("POST", f"deliveries/{shown['deliveries'][0]['delivery_id']}", {})
    settle(sandbox)
    assert receiver.calls[-1].body == receiver.calls[2].body
    call("DELETE", "deliveries")
    assert call("GET", "deliveries") == {"idle": True, "deliveries": []}
    assert call("DELETE", f"webhooks/{made['subscription_id']}") == {"subscriptions": []}
    call("DELETE", "webhooks/w99", status=404)
    call("POST", "deliveries/d99", {}, status=404)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "webhooks", {}),
        ("POST", "webhooks", []),
        ("POST", "webhooks", {"url": "http://192.0.2.1/", "key": KEY}),
        ("POST", "webhooks", {"url": "http://127.0.0.1/", "key": "not base64"}),
        ("PATCH", "webhook-knobs", {"copies": "two"}),
        ("PATCH", "webhook-knobs", {"self": 1}),
        ("POST", "release", {"order": "sideways"}),
        ("POST", "appointments", {"webhook": "yes"}),
        ("POST", "crowd", {}),
        ("POST", "crowd", {"count": 0}),
        ("POST", "crowd", {"count": 2, "step_seconds": -1}),
        ("POST", "crowd", {"count": 2, "prefix": 7}),
        ("POST", "crowd", {"count": 2, "modified": "noon"}),
        ("POST", "crowd", {"count": 2, "colour": "red"}),
    ],
)
def test_a_wrong_wish_is_told_to_who_steers(server: Server, method: str, path: str, body: Any) -> None:
    """What does not fit is a 400 with the reason."""
    answer = requests.request(method, f"{server.base_url}/_sandbox/{path}", json=body, timeout=30)
    assert (answer.status_code, list(answer.json())) == (400, ["error"])


# Ten thousand appointments


def listed(server: Server, session: requests.Session, **query: Any) -> Any:
    """Return a page of a hundred by modification time as JSON."""
    wanted: dict[str, Any] = {
        "page_size": 100,
        "sort_by": "last_modified_time_utc",
        "sort_direction": "ascending",
    } | query
    answer = session.get(f"{server.base_url}/v1/appointments", params=wanted, timeout=30)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_ten_thousand_appointments_are_listed_in_windows(
    sandbox: Sandbox, server: Server, session: requests.Session
) -> None:
    """A reader that moves its lower bound forward sees each once and in order; it takes milliseconds a page."""
    made = sandbox.add_many(10_000, modified=NOW + timedelta(days=1), step=timedelta(seconds=1), status="confirmed")
    seen: list[str] = []
    since = NOW + timedelta(days=1)
    begun = time.monotonic()
    while page := listed(server, session, last_modified_time_utc_min=since.isoformat())["data"]:
        seen += [row["appointment_id"] for row in page]
        since = datetime.fromisoformat(page[-1]["last_modified_time_utc"]) + timedelta(microseconds=1)
    assert seen == made
    assert (time.monotonic() - begun) / 101 < 0.1  # a few milliseconds on an idle machine
    sandbox.change(made[5_000], webhook=False, status="no_show")
    last = listed(server, session, sort_direction="descending", statuses="no_show,confirmed", page=9)
    assert (last["total_count"], len(last["data"]), last["next_url"]) == (10_003, 100, "")
    moved = listed(server, session, last_modified_time_utc_min=sandbox.appointment(made[5_000]).modified.isoformat())
    assert (moved["total_count"], moved["data"][0]["appointment_id"]) == (5_000, made[5_000])


def test_many_appointments_can_bear_the_same_modification_time(server: Server, session: requests.Session) -> None:
    """A window that cannot be narrowed shows a thousand rows at most, ordered by id, and tells how many match."""
    instant = NOW + timedelta(days=1)
    body = {"count": 1_200, "step_seconds": 0, "modified": instant.isoformat(), "prefix": "same-"}
    made = requests.post(f"{server.base_url}/_sandbox/crowd", json=body, timeout=30).json()
    assert made == {"count": 1_200, "first": "same-000000", "last": "same-001199"}
    pages = [listed(server, session, last_modified_time_utc_min=instant.isoformat(), page=page) for page in range(11)]
    seen = [row["appointment_id"] for page in pages for row in page["data"]]
    assert seen == [f"same-{number:06}" for number in range(1_000)]
    assert {page["total_count"] for page in pages} == {1_200}
    assert {row["last_modified_time_utc"] for page in pages for row in page["data"]} == {"2026-06-02T12:00:00.000000Z"}
    backward = listed(server, session, last_modified_time_utc_max=NOW.isoformat(), sort_direction="descending")
    assert not {row["appointment_id"] for row in backward["data"]} & set(seen)


def test_a_crowd_is_made_at_times_with_an_offset(sandbox: Sandbox) -> None:
    """A naive time is an error."""
    with pytest.raises(ValueError, match="offset"):
        sandbox.add_many(1, modified=datetime(2026, 1, 1))  # noqa: DTZ001 - refused


# The command line


def test_the_command_line_tells_a_receiver(receiver: Receiver) -> None:
    """`lifecycle sandbox --webhook-url` signs with the first key and prints how to cause a call, but no key."""
    command = [sys.executable, "-m", "lifecycle", "sandbox", "--webhook-url", receiver.url]
    environ = os.environ | {"LIFECYCLE_WEBHOOK_KEYS": f"{KEY},{OTHER_KEY}"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ) as process:  # noqa: S603 # fixed
        assert process.stdout is not None
        watchdog = threading.Timer(60, process.kill)
        watchdog.start()
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "_sandbox/appointments/" in line:
                break
        address = lines[-1].split()[-1]
        assert requests.post(address, json={"status": "cancelled"}, timeout=30).status_code == 200
        support.until(lambda: receiver.calls)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0
        watchdog.cancel()
    (call,) = receiver.calls
    assert call.headers["webhook-signature"] == f"v1:{signature(KEY, call)}"
    assert call.appointment["appointment_update_type"] == "cancelled"
    assert KEY not in "".join(lines)


@pytest.mark.parametrize(
    ("keys", "url", "needed"),
    [
        (None, "http://127.0.0.1:9/", "--webhook-url: needs a shared key to sign with: set LIFECYCLE_WEBHOOK_KEYS"),
        ("", "http://127.0.0.1:9/", "--webhook-url: needs a shared key to sign with: set LIFECYCLE_WEBHOOK_KEYS"),
        ("not-base64!", "http://127.0.0.1:9/", "LIFECYCLE_WEBHOOK_KEYS: key 1 of 1 is not base64"),
        (KEY, "http://192.0.2.1/", "--webhook-url: url must be an http:// address of this machine"),
    ],
)
def test_the_command_line_says_what_is_wrong(keys: str | None, url: str, needed: str) -> None:
    """A missing or wrong key and a foreign address end it before it listens, and no key is printed."""
    result = invoke("sandbox", "--webhook-url", url, LIFECYCLE_WEBHOOK_KEYS=keys)
    assert_error(result, 2, needed)
    assert "not-base64!" not in result.output
