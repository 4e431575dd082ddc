"""The inbox: a call that is accepted is stored once and ends once, and what it tells of is read from Zocdoc."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from lifecycle import (
    ConfigurationError,
    DatabaseUnavailable,
    InvalidArgument,
    Lifecycle,
    NothingToRetry,
    OutcomeUnknown,
    Timing,
    WebhookRefused,
    ZocdocClient,
    points,
)
from lifecycle.points import Point
from lifecycle.sandbox import Fault, Kind, Moment
from tests import support
from tests.conftest import FAST, machine_client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lifecycle.sandbox import Sandbox, Server

KEY = "g9Y9hjTUk9KKH7ffBRbtRmJYo2OISsdMK4flbfDa3zR="
"""The key of Zocdoc's published example."""

OTHER = base64.b64encode(b"another key, of 32 bytes, for us").decode()
UNTRACKED = "0b9c3f4e-1111-4222-8333-000000000001"


FIRST = datetime(2026, 12, 1, 12, 0, 0, tzinfo=UTC)


def body(appointment_id: str, *, update: str = "updated", number: int = 0, at: datetime = FIRST) -> bytes:
    """Write the documented event. `number` makes it another one."""
    at += timedelta(seconds=number)
    appointment = {
        "appointment_id": appointment_id,
        "appointment_updated_timestamp": at.isoformat(),
        "appointment_update_type": update,
        "changed_attributes": [{"attribute_path": "start_time"}],
    }
    event = {
        "event_type": "appointment_updated",
        "webhook_timestamp": at.isoformat(),
        "data": {"data_type": "appointment_data", "appointment_data": appointment},
    }
    return json.dumps(event).encode()


def signed(content: bytes, *, key: str = KEY, age: float = 0.0) -> dict[str, str]:
    """Sign as Zocdoc documents it."""
    at = str(int(time.time() - age))
    mac = hmac.new(base64.b64decode(key), f"{at}.".encode() + content, hashlib.sha256)
    return {"Webhook-Timestamp": at, "Webhook-Signature": f"v1:{base64.b64encode(mac.digest()).decode()}"}


def deliver(lifecycle: Lifecycle, appointment_id: str, **given: Any) -> str:
    """Hand a sound call over; gives the delivery's id."""
    content = body(appointment_id, **given)
    return lifecycle.receive_webhook(signed(content), content).delivery_id


@pytest.fixture
def lifecycle(database_url: str, client: ZocdocClient) -> Iterator[Lifecycle]:
    """The product with a webhook key."""
    with Lifecycle(database_url, zocdoc=client, timing=FAST, webhook_keys=[KEY]) as made:
        yield made


def state_of(lifecycle: Lifecycle, delivery_id: str) -> tuple[str, str | None]:
    """Give where a delivery stands, and why."""
    [found] = [each for each in lifecycle.deliveries() if each.delivery_id == delivery_id]
    return found.state, found.reason_code


def test_a_change_of_the_provider_follows_a_call(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """Stored, then processed: the appointment is read, and the event names the delivery, source and actor."""
    appointment_id = support.tracked(lifecycle, sandbox, status="confirmed")
    sandbox.change(appointment_id, status="cancelled")
    delivery_id = deliver(lifecycle, appointment_id, update="cancelled")
    assert state_of(lifecycle, delivery_id) == ("received", None)
    assert lifecycle.get(appointment_id).status == "confirmed"

    done = lifecycle.process_inbox()
    assert (done.followed, done.reads, done.waiting, done.next_at) == (1, 1, 0, None)
    assert state_of(lifecycle, delivery_id) == ("followed", None)
    assert lifecycle.get(appointment_id).status == "cancelled"
    event = lifecycle.history(appointment_id)[-1]
    assert (event.event, event.source, event.actor, event.delivery_id, event.conforming) == (
        "appointment_observed",
        "webhook",
        "zocdoc",
        delivery_id,
        True,
    )
    [row] = list(lifecycle.deliveries())
    assert (row.appointment_id, row.update_type, row.copies, row.is_stale) == (appointment_id, "cancelled", 1, False)
    assert row.occurred_at == datetime(2026, 12, 1, 12, 0, 0, tzinfo=UTC)


def test_a_move_that_the_chart_does_not_have_is_recorded(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """What Zocdoc says has happened; an unknown status too."""
    appointment_id = support.tracked(lifecycle, sandbox, status="cancelled")
    sandbox.change(appointment_id, status="waitlisted")
    deliver(lifecycle, appointment_id)
    lifecycle.process_inbox()
    assert lifecycle.get(appointment_id).status == "waitlisted"
    assert lifecycle.history(appointment_id)[-1].conforming is False


def test_copies_are_counted_not_stored_again(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """The same body is the same call, before and after it was processed, whatever its signature's time."""
    appointment_id = support.tracked(lifecycle, sandbox)
    content = body(appointment_id)
    receipts = [lifecycle.receive_webhook(signed(content, age=age), content) for age in (0, 10, 200)]
    assert [receipt.copies for receipt in receipts] == [1, 2, 3]
    assert lifecycle.process_inbox().followed == 1
    assert lifecycle.receive_webhook(signed(content), content).copies == 4
    assert lifecycle.process_inbox().reads == 0
    assert len(list(lifecycle.deliveries())) == 1


def test_a_burst_needs_one_read(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """Twenty calls of one appointment and one of another: two reads, and every delivery has its end."""
    first, second = support.tracked(lifecycle, sandbox), support.tracked(lifecycle, sandbox)
    for number in range(20):
        deliver(lifecycle, first, number=number)
    deliver(lifecycle, second)
    before = support.gets(sandbox, first)
    done = lifecycle.process_inbox()
    assert (done.followed, done.reads) == (21, 2)
    assert support.gets(sandbox, first) == before + 1
    assert {each.state for each in lifecycle.deliveries()} == {"followed"}


def test_a_limit_counts_appointments(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """So many at most; the rest is left."""
    for _ in range(3):
        deliver(lifecycle, support.tracked(lifecycle, sandbox))
    assert lifecycle.process_inbox(limit=2).waiting == 1
    with pytest.raises(InvalidArgument, match="limit"):
        lifecycle.process_inbox(limit=0)


def test_an_unknown_appointment_is_kept_and_can_be_tracked(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """By default it ends as untracked, without a call; a retry with the option tracks it."""
    sandbox.add(UNTRACKED, status="confirmed")
    delivery_id = deliver(lifecycle, UNTRACKED)
    assert lifecycle.process_inbox().untracked == 1
    assert state_of(lifecycle, delivery_id) == ("untracked", None)
    assert support.calls(sandbox, UNTRACKED) == []

    lifecycle.retry_delivery(delivery_id)
    assert lifecycle.process_inbox(track_unknown=True).followed == 1
    [event] = lifecycle.history(UNTRACKED)
    assert (event.event, event.source, event.delivery_id) == ("appointment_tracked", "webhook", delivery_id)
    with pytest.raises(NothingToRetry, match="followed"):
        lifecycle.retry_delivery(delivery_id)
    with pytest.raises(NothingToRetry, match="no delivery"):
        lifecycle.retry_delivery("0" * 64)
    with pytest.raises(InvalidArgument):
        lifecycle.retry_delivery("../etc")


def test_a_call_out_of_time_is_a_hint(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """Late by an hour, or from the future, but authentic: stored as stale, and the read tells."""
    appointment_id = support.tracked(lifecycle, sandbox, status="confirmed")
    sandbox.change(appointment_id, status="cancelled")
    for number, age in enumerate((3600, -3600)):
        content = body(appointment_id, number=number)
        assert lifecycle.receive_webhook(signed(content, age=age), content).is_stale
    assert lifecycle.process_inbox().followed == 2
    assert lifecycle.get(appointment_id).status == "cancelled"


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda headers: headers.pop("Webhook-Signature"), "missing_signature"),
        (lambda headers: headers.pop("Webhook-Timestamp"), "missing_timestamp"),
        (lambda headers: headers.update({"Webhook-Timestamp": "soon"}), "malformed_timestamp"),
        (lambda headers: headers.update({"Webhook-Timestamp": str(int(time.time()) - 1)}), "bad_signature"),
        (lambda headers: headers.update({"Webhook-Signature": "v2:AAAA"}), "unknown_version"),
        (lambda headers: headers.update({"Webhook-Signature": "nonsense"}), "malformed_signature"),
    ],
)
def test_what_is_not_zocdocs_is_refused(lifecycle: Lifecycle, spoil: Any, reason: str) -> None:
    """Nothing is stored, and the reason is a code."""
    content = body(UNTRACKED)
    headers = signed(content)
    spoil(headers)
    with pytest.raises(WebhookRefused) as caught:
        lifecycle.receive_webhook(headers, content)
    assert caught.value.reason_code == reason
    assert UNTRACKED not in str(caught.value)
    assert list(lifecycle.deliveries()) == []


def test_another_key_or_another_body_is_refused(lifecycle: Lifecycle) -> None:
    """A forged call, and one whose body was altered by a byte."""
    content = body(UNTRACKED)
    for headers, sent in ((signed(content, key=OTHER), content), (signed(content), content + b" ")):
        with pytest.raises(WebhookRefused):
            lifecycle.receive_webhook(headers, sent)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not json",
        b'{"event_type": "appointment_updated"}',
        b"[" * 5000,
        b'{"event_type": "patient_updated", "data": {}}',
        body("../../v1/appointments"),
        body("x" * 65),
        b"\xff\xfe",
    ],
)
def test_what_is_authentic_but_tells_nothing_is_kept_as_ignored(lifecycle: Lifecycle, content: bytes) -> None:
    """Any answer ends Zocdoc's retries, so there is no use in refusing; nothing is read."""
    receipt = lifecycle.receive_webhook(signed(content), content)
    assert receipt.appointment_id is None
    assert state_of(lifecycle, receipt.delivery_id) == ("ignored", "not_an_update")
    assert lifecycle.process_inbox().reads == 0


def test_keys_are_rotated(database_url: str, client: ZocdocClient) -> None:
    """Old and new are taken at once; without a key nothing is, and a key that is no key is told at the start."""
    content = body(UNTRACKED)
    with Lifecycle(database_url, zocdoc=client, webhook_keys=[OTHER, KEY]) as made:
        assert made.receive_webhook(signed(content), content).copies == 1
        assert made.receive_webhook(signed(content, key=OTHER), content).copies == 2
    with Lifecycle(database_url) as keyless, pytest.raises(ConfigurationError, match="webhook_keys"):
        keyless.receive_webhook(signed(content), content)
    for bad in ([""], ["not base64!"], [KEY, ""]):
        with pytest.raises(ConfigurationError) as caught:
            Lifecycle(database_url, webhook_keys=bad)
        assert "not base64!" not in str(caught.value)


def test_a_delivery_waits_for_our_own_answer(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """While a command is in doubt nothing is stored; once it has ended the delivery is followed."""
    appointment_id = support.tracked(lifecycle, sandbox, status="confirmed")
    sandbox.faults.add(Fault(kind=Kind.RESET, operation="cancel", when=Moment.AFTER))
    with pytest.raises(OutcomeUnknown):
        lifecycle.cancel(appointment_id, actor=support.ACTOR)
    delivery_id = deliver(lifecycle, appointment_id, update="cancelled")
    done = lifecycle.process_inbox()
    assert (done.followed, done.reads, done.waiting) == (0, 0, 1)
    assert state_of(lifecycle, delivery_id) == ("received", None)
    lifecycle.recover(wait=5)
    assert lifecycle.process_inbox().followed == 1
    assert lifecycle.get(appointment_id).status == "cancelled"


def test_a_read_that_fails_is_tried_again_and_then_given_up(
    database_url: str, server: Server, sandbox: Sandbox
) -> None:
    """With growing pauses; a retry takes it up again."""
    timing = Timing(read_backoff=0.01, failed_deliveries=3)
    with (
        machine_client(server) as client,
        Lifecycle(database_url, zocdoc=client, timing=timing, webhook_keys=[KEY]) as lifecycle,
    ):
        appointment_id = support.tracked(lifecycle, sandbox, status="confirmed")
        sandbox.change(appointment_id, status="cancelled")
        delivery_id = deliver(lifecycle, appointment_id)
        sandbox.faults.add(Fault(kind=Kind.ANSWER, status=403, operation="get", times=3))
        states = []
        for _ in range(3):
            lifecycle.process_inbox()
            states.append(state_of(lifecycle, delivery_id))
            time.sleep(0.1)
        assert states == [("received", "forbidden"), ("received", "forbidden"), ("failed", "forbidden")]
        assert lifecycle.get(appointment_id).status == "confirmed"
        lifecycle.retry_delivery(delivery_id)
        assert lifecycle.process_inbox().followed == 1
        assert lifecycle.get(appointment_id).status == "cancelled"


def test_an_appointment_that_zocdoc_does_not_know_fails(lifecycle: Lifecycle) -> None:
    """With the option to track what is unknown: it is not found, which may pass."""
    delivery_id = deliver(lifecycle, UNTRACKED)
    lifecycle.process_inbox(track_unknown=True)
    assert state_of(lifecycle, delivery_id) == ("received", "not_found")


def test_a_users_appointment_waits_for_the_users_credential(
    lifecycle: Lifecycle, sandbox: Sandbox, client: ZocdocClient
) -> None:
    """The machine may not read it, and leaves it to a process that may; without a client now it is asked for later."""
    appointment_id = support.tracked(lifecycle, sandbox)
    support.query(
        str(lifecycle._resources.database.engine.url.render_as_string(hide_password=False)),
        "UPDATE lifecycle_appointments SET booked_with = 'user:42'",
    )
    before = support.gets(sandbox, appointment_id)
    delivery_id = deliver(lifecycle, appointment_id)
    assert lifecycle.process_inbox().reads == 0
    assert state_of(lifecycle, delivery_id) == ("received", None)
    assert support.gets(sandbox, appointment_id) == before

    url = lifecycle._resources.database.engine.url.render_as_string(hide_password=False)
    with Lifecycle(url, zocdoc=client, user_client=lambda _user: None, timing=FAST) as application:
        assert application.process_inbox().waiting == 1
    [row] = list(lifecycle.deliveries())
    assert (row.state, row.reason_code, row.attempts) == ("received", "no_credential", 0)


def test_nothing_is_stored_when_the_database_cannot(lifecycle: Lifecycle) -> None:
    """The caller hears of it and must not answer; the same call again is stored then."""
    content = body(UNTRACKED)

    def fail(point: Point) -> None:
        if point is Point.BEFORE_COMMIT:
            raise DatabaseUnavailable(problem="planted")

    with points.armed(fail), pytest.raises(DatabaseUnavailable):
        lifecycle.receive_webhook(signed(content), content)
    assert list(lifecycle.deliveries()) == []
    assert lifecycle.receive_webhook(signed(content), content).copies == 1


@pytest.mark.parametrize("point", [Point.DELIVERY_CLAIMED, Point.DELIVERY_ENDED, Point.AUDIT_INSERTED])
def test_a_processor_that_dies_is_replaced_when_its_lease_ends(
    lifecycle: Lifecycle, sandbox: Sandbox, database_url: str, point: Point
) -> None:
    """Wherever it stops, the delivery ends once, and the appointment follows."""

    class Killed(BaseException):
        pass

    appointment_id = support.tracked(lifecycle, sandbox, status="confirmed")
    sandbox.change(appointment_id, status="cancelled")
    delivery_id = deliver(lifecycle, appointment_id)

    def kill(reached: Point) -> None:
        if reached is point:
            raise Killed

    with points.armed(kill), pytest.raises(Killed):
        lifecycle.process_inbox()
    support.query(database_url, "UPDATE lifecycle_webhook_deliveries SET run_at = received_at WHERE run_at IS NOT NULL")
    lifecycle.process_inbox()
    assert state_of(lifecycle, delivery_id)[0] == "followed"
    assert lifecycle.get(appointment_id).status == "cancelled"
    assert [event.event for event in lifecycle.history(appointment_id)] == [
        "appointment_tracked",
        "appointment_observed",
    ]


def test_a_call_that_comes_during_the_read_is_read_again(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """The first read may be older than the second change."""
    appointment_id = support.tracked(lifecycle, sandbox, status="pending_booking")
    sandbox.change(appointment_id, status="confirmed")
    deliver(lifecycle, appointment_id, number=1)
    later: list[str] = []

    def change(reached: Point) -> None:
        if reached is Point.DELIVERY_ENDED and not later:
            later.append(appointment_id)
            sandbox.change(appointment_id, status="cancelled")
            deliver(lifecycle, appointment_id, number=2)

    with points.armed(change):
        done = lifecycle.process_inbox()
    assert (done.followed, done.reads, done.waiting) == (1, 1, 1)
    assert lifecycle.process_inbox().followed == 1
    assert lifecycle.get(appointment_id).status == "cancelled"


def test_many_processors_at_once_take_each_delivery_once(
    lifecycle: Lifecycle, sandbox: Sandbox, database_url: str, server: Server
) -> None:
    """Four at once over forty appointments: forty reads."""
    ids = [support.tracked(lifecycle, sandbox, status="confirmed") for _ in range(40)]
    for appointment_id in ids:
        sandbox.change(appointment_id, status="cancelled")
        deliver(lifecycle, appointment_id)
    done: list[int] = []

    def work() -> None:
        with machine_client(server) as own, Lifecycle(database_url, zocdoc=own, timing=FAST) as other:
            done.append(other.process_inbox().followed)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(done) == 40
    assert sum(support.gets(sandbox, each) for each in ids) == 80
    assert {lifecycle.get(each).status for each in ids} == {"cancelled"}


def test_the_inbox_is_listed_a_page_at_a_time(lifecycle: Lifecycle) -> None:
    """Newest first, each once, also where many came in one instant; filtered by state."""
    for number in range(30):
        deliver(lifecycle, UNTRACKED, number=number)
    from lifecycle import inbox  # noqa: PLC0415 # one constant of it

    page, inbox._PAGE = inbox._PAGE, 7  # type: ignore[misc] # a page that a test can fill
    try:
        inbox_of = [each.delivery_id for each in lifecycle.deliveries()]
    finally:
        inbox._PAGE = page  # type: ignore[misc]
    assert len(inbox_of) == len(set(inbox_of)) == 30
    assert list(lifecycle.deliveries(state="failed")) == []
    with pytest.raises(InvalidArgument, match="received"):
        list(lifecycle.deliveries(state="lost"))


def test_tracking_takes_up_what_was_delivered_before(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """What was read for the tracking may be older than the change that a call told of meanwhile."""
    appointment_id = sandbox.add(status="confirmed")

    def change(reached: Point) -> None:
        if reached is Point.TRANSACTION_OPEN and not list(told):
            told.append(appointment_id)
            sandbox.change(appointment_id, status="cancelled")

    told: list[str] = []
    delivery_id = deliver(lifecycle, appointment_id, update="cancelled")
    assert lifecycle.process_inbox().untracked == 1
    with points.armed(change):
        lifecycle.track(appointment_id, actor=support.ACTOR)
    assert lifecycle.get(appointment_id).status == "confirmed"
    assert state_of(lifecycle, delivery_id)[0] == "received"
    assert lifecycle.process_inbox().followed == 1
    assert lifecycle.get(appointment_id).status == "cancelled"


def test_what_becomes_tracked_while_it_is_left_is_not_left(
    lifecycle: Lifecycle, sandbox: Sandbox, client: ZocdocClient, database_url: str
) -> None:
    """Between the look that found it untracked and the end of its delivery somebody tracks it."""
    appointment_id = sandbox.add(status="confirmed")
    delivery_id = deliver(lifecycle, appointment_id)
    done: list[str] = []

    def track(reached: Point) -> None:
        if reached is Point.DELIVERY_CLAIMED and not done:
            done.append(appointment_id)
            with Lifecycle(database_url, zocdoc=client) as other:
                other.track(appointment_id, actor=support.ACTOR)

    with points.armed(track):
        assert lifecycle.process_inbox().untracked == 0
    assert lifecycle.process_inbox().followed == 1
    assert state_of(lifecycle, delivery_id)[0] == "followed"


class Between(ZocdocClient):
    """A client that lets something happen between a reading and what is made of it."""

    happens: Callable[[], None]

    def get(self, appointment_id: str) -> Any:
        """Read, let it happen, give the reading."""
        reading = super().get(appointment_id)
        self.happens()
        return reading


def between(server: Server) -> Between:
    """Make one with the stand-in's default credentials."""
    return Between(
        base_url=server.base_url,
        token_url=server.token_url,
        audience=server.audience,
        client_id="sandbox-client",
        client_secret="sandbox-secret",
    )


def test_of_two_that_track_the_older_reading_does_not_win(server: Server, sandbox: Sandbox, database_url: str) -> None:
    """One has read before a change and stores first; the other has read after it, and reads again."""
    appointment_id = sandbox.add(status="confirmed")
    older, newer = between(server), between(server)
    has_read, has_stored = threading.Event(), threading.Event()
    threads: list[threading.Thread] = []

    def follow() -> None:
        with Lifecycle(database_url, zocdoc=newer, timing=FAST, webhook_keys=[KEY]) as lifecycle:
            deliver(lifecycle, appointment_id)
            lifecycle.process_inbox(track_unknown=True)

    def change() -> None:
        sandbox.change(appointment_id, status="cancelled")
        threads.append(threading.Thread(target=follow))
        threads[0].start()
        assert has_read.wait(10)

    def wait() -> None:
        has_read.set()
        assert has_stored.wait(10)

    older.happens, newer.happens = change, wait
    with older, newer, Lifecycle(database_url, zocdoc=older, timing=FAST) as lifecycle:
        lifecycle.track(appointment_id, actor=support.ACTOR)
        has_stored.set()
        threads[0].join()
        older.happens = lambda: None
        assert lifecycle.get(appointment_id).status == "confirmed"
        assert lifecycle.process_inbox().followed == 1
        assert lifecycle.get(appointment_id).status == "cancelled"


def test_a_read_that_lags_behind_its_call_is_made_again(
    lifecycle: Lifecycle, sandbox: Sandbox, database_url: str
) -> None:
    """Zocdoc may answer from a copy: a modification before the one that was told of does not end the delivery."""
    due = "UPDATE lifecycle_webhook_deliveries SET run_at = received_at WHERE run_at IS NOT NULL"
    first, second = (support.tracked(lifecycle, sandbox, status="confirmed") for _ in range(2))
    time.sleep(1.2)
    lagging, never = (deliver(lifecycle, each, at=datetime.now(UTC)) for each in (first, second))
    lifecycle.process_inbox()
    assert state_of(lifecycle, lagging) == state_of(lifecycle, never) == ("received", "read_is_older")
    sandbox.change(first, status="cancelled")
    support.query(database_url, due)
    lifecycle.process_inbox()
    assert state_of(lifecycle, lagging) == ("followed", None)
    assert lifecycle.get(first).status == "cancelled"
    for _ in range(2):
        assert state_of(lifecycle, never) == ("received", "read_is_older")
        support.query(database_url, due)
        lifecycle.process_inbox()
    assert state_of(lifecycle, never) == ("followed", None)


def test_the_same_call_again_takes_up_what_was_given_up(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """Zocdoc would not repeat what it does not mean."""
    sandbox.add(UNTRACKED, status="confirmed")
    content = body(UNTRACKED)
    lifecycle.receive_webhook(signed(content), content)
    assert lifecycle.process_inbox().untracked == 1
    lifecycle.receive_webhook(signed(content), content)
    assert lifecycle.process_inbox(track_unknown=True).followed == 1
    lifecycle.receive_webhook(signed(content), content)
    assert lifecycle.process_inbox(track_unknown=True).followed == 0


def test_a_stray_date_does_not_blind_an_appointment(lifecycle: Lifecycle, sandbox: Sandbox, database_url: str) -> None:
    """One answer told a modification of the far future; what comes after it is believed all the same."""
    appointment_id = support.tracked(lifecycle, sandbox, status="confirmed")
    support.query(
        database_url, "UPDATE lifecycle_appointments SET remote_last_modified = '2099-01-01T00:00:00.000000Z'"
    )
    sandbox.change(appointment_id, status="cancelled")
    deliver(lifecycle, appointment_id)
    assert lifecycle.process_inbox().followed == 1
    assert lifecycle.get(appointment_id).status == "cancelled"
