"""What several test modules need: short words for sending commands, counting calls and reading raw rows."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import sqlalchemy as sa

from lifecycle import Lifecycle, Timing, ZocdocClient
from lifecycle.sandbox import Fault
from lifecycle.sandbox.operations import operation_of
from tests.conftest import FAST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from lifecycle import AuditEvent, Done
    from lifecycle.sandbox import Entry, Sandbox, Server
    from lifecycle.sandbox.messages import Reply, Request

ACTOR = "user:17"
LATER = "2031-03-01T09:00:00-05:00"
LATER_UTC = "2031-03-01T14:00:00.000000Z"
STATUSES = (
    "pending_booking",
    "confirmed",
    "booking_failed",
    "cancelled",
    "no_show",
    "pending_reschedule",
    "rescheduled",
    "reschedule_failed",
)
COMMANDS = ("confirm", "cancel", "reschedule", "mark_arrived", "mark_no_show")
OPERATIONS = {
    "confirm": "confirm",
    "cancel": "cancel",
    "reschedule": "reschedule",
    "mark_arrived": "update_status",
    "mark_no_show": "update_status",
}
NOT_ARRIVABLE = {"cancelled", "booking_failed", "no_show"}
ALLOWED = {
    "confirm": {"pending_booking"},
    "cancel": set(STATUSES) - {"cancelled", "no_show"},
    "reschedule": {"pending_booking", "confirmed", "pending_reschedule", "rescheduled"},
    "mark_arrived": set(STATUSES) - NOT_ARRIVABLE,
    "mark_no_show": set(STATUSES) - NOT_ARRIVABLE,
}
"""Written down from the design by hand, not taken from the code under test."""

PATIENCE = 60.0
"""Seconds after which something hangs; whatever takes longer than it should takes less than that on any machine."""

ENGINE_TABLES = ("procrastinate_jobs", "procrastinate_events", "procrastinate_workers", "procrastinate_periodic_defers")


def send(lifecycle: Lifecycle, command: str, appointment_id: str, **given: Any) -> Done:
    """Call the command's method with the arguments it cannot do without."""
    if command == "reschedule":
        given = {"start_time": LATER} | given
    call: Callable[..., Done] = getattr(lifecycle, command)
    return call(appointment_id, **({"actor": ACTOR} | given))


def tracked(lifecycle: Lifecycle, sandbox: Sandbox, **details: Any) -> str:
    """Create an appointment at the stand-in, track it, and give its id."""
    appointment_id = sandbox.add(**details)
    booked_with = details.get("booked_by", "machine")
    lifecycle.track(appointment_id, actor=ACTOR, booked_with=booked_with)
    return appointment_id


def calls(sandbox: Sandbox, appointment_id: str | None = None) -> list[Entry]:
    """Give what reached the appointment endpoints: no token calls, no second halves of zombies."""
    found = sandbox.ledger.entries(appointment_id=appointment_id)
    return [entry for entry in found if entry.operation != "token" and not entry.late]


def posts(sandbox: Sandbox, appointment_id: str) -> int:
    """Count the requests that could change an appointment."""
    return sum(entry.method != "GET" for entry in calls(sandbox, appointment_id))


def gets(sandbox: Sandbox, appointment_id: str) -> int:
    """Count the reads of an appointment."""
    return sum(entry.method == "GET" for entry in calls(sandbox, appointment_id))


def effects(sandbox: Sandbox, appointment_id: str) -> int:
    """Count what really changed the appointment at the stand-in."""
    return sandbox.ledger.effects(appointment_id)


def story(events: Sequence[AuditEvent]) -> list[tuple[Any, ...]]:
    """Shorten events to what a reader of the trail looks at first."""
    return [
        (each.event, each.command, each.from_status, each.to_status, each.outcome, each.reason_code) for each in events
    ]


def assert_history(lifecycle: Lifecycle, appointment_id: str, expected: list[tuple[Any, ...]]) -> None:
    """Check that the whole trail after the tracking is this: event, command, from, to, outcome, reason."""
    first, *rest = lifecycle.history(appointment_id)
    assert first.event == "appointment_tracked"
    assert story(rest) == expected
    assert [each.appointment_seq for each in (first, *rest)] == list(range(1, len(rest) + 2))


def query(url: str, statement: str, **values: Any) -> list[dict[str, Any]]:
    """Run SQL of the test's own and give the rows; commits."""
    engine = sa.create_engine(url, connect_args={"timeout": PATIENCE} if url.startswith("sqlite") else {})
    try:
        with engine.begin() as connection:
            result = connection.execute(sa.text(statement), values)
            return [dict(row) for row in result.mappings()] if result.returns_rows else []
    finally:
        engine.dispose()


def drop_engine(url: str) -> None:
    """Drop the engine's tables, under whoever uses them."""
    while True:
        try:
            query(url, f"DROP TABLE {', '.join(ENGINE_TABLES)} CASCADE")
        except sa.exc.OperationalError as error:
            # A worker locks them in an order of its own, and PostgreSQL chooses which of the two it ends.
            if not isinstance(error.orig, psycopg.errors.DeadlockDetected):
                raise
        else:
            return


def commands(url: str, appointment_id: str | None = None) -> list[dict[str, Any]]:
    """Give the rows of `lifecycle_commands` as stored, oldest first."""
    rows = query(url, "SELECT * FROM lifecycle_commands ORDER BY created_at")
    return [row for row in rows if appointment_id in (None, row["appointment_id"])]


def states(url: str, appointment_id: str | None = None) -> list[str]:
    """Give the states of the commands, oldest first."""
    return [row["state"] for row in commands(url, appointment_id)]


def client_of(server: Server, **options: Any) -> ZocdocClient:
    """Make a client with the stand-in's default credentials and any options."""
    given: dict[str, Any] = {
        "base_url": server.base_url,
        "token_url": server.token_url,
        "client_id": "sandbox-client",
        "client_secret": "sandbox-secret",
        "audience": server.audience,
    }
    return ZocdocClient(**(given | options))


def user_client(server: Server, user_id: str, **options: Any) -> ZocdocClient:
    """Make a client with the token of a Zocdoc user."""
    token = server.sandbox.user_token(user_id)
    given: dict[str, Any] = {"base_url": server.base_url, "access_token": token, "identity": f"user:{user_id}"}
    return ZocdocClient(**(given | options))


def lose_answer(sandbox: Sandbox, operation: str, *, when: str = "before", **more: Any) -> None:
    """Break the connection of the next call, before or after it was applied."""
    arm(sandbox, kind="reset", operation=operation, when=when, **more)


def arm(sandbox: Sandbox, **fault: Any) -> None:
    """Arm one fault."""
    sandbox.faults.add(Fault.parse({name: value for name, value in fault.items() if value is not None}))


@contextmanager
def opened(url: str, client: ZocdocClient | None, timing: Timing = FAST, **more: Any) -> Iterator[Lifecycle]:
    """Open another `Lifecycle` on a database, as another process would."""
    with Lifecycle(url, zocdoc=client, timing=timing, **more) as made:
        yield made


def together(count: int, work: Callable[[int], Any]) -> list[Any]:
    """Run so many threads, started at one moment, and give what each returned or raised."""
    barrier = threading.Barrier(count)
    results: list[Any] = [None] * count

    def run(index: int) -> None:
        barrier.wait()
        try:
            results[index] = work(index)
        except Exception as error:  # noqa: BLE001 # the test looks at it
            results[index] = error

    threads = [threading.Thread(target=run, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@contextmanager
def in_background(work: Callable[[], Any]) -> Iterator[list[Any]]:
    """Run in a thread; the list gets what came of it by the end of the block."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(work())
        except Exception as error:  # noqa: BLE001 # the test looks at it
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield results
    finally:
        thread.join()


@contextmanager
def held(sandbox: Sandbox, operation: str, *, when: str = "after") -> Iterator[tuple[threading.Event, threading.Event]]:
    """Keep requests of an operation at the stand-in, before or after they are carried out, and never answer meanwhile.

    Gives two events: one that is set when a request has come, and one to set so that all go on.
    """
    came, go_on, answer = threading.Event(), threading.Event(), sandbox.answer

    def hold(request: Request) -> Reply:
        if operation_of(request.method, request.path) != operation:
            return answer(request)
        reply = answer(request) if when == "after" else None
        came.set()
        go_on.wait(PATIENCE)
        return answer(request) if reply is None else reply

    sandbox.answer = hold  # type: ignore[method-assign] # of this one only
    try:
        yield came, go_on
    finally:
        go_on.set()
        sandbox.answer = answer  # type: ignore[method-assign]


@contextmanager
def while_held(
    sandbox: Sandbox, operation: str, work: Callable[[], Any], *, when: str = "after"
) -> Iterator[list[Any]]:
    """Run in a thread, and keep its request at the stand-in for as long as the block lasts; gives what came of it."""
    with held(sandbox, operation, when=when) as (came, go_on), in_background(work) as results:
        try:
            assert came.wait(PATIENCE)
            yield results
        finally:
            go_on.set()


def until(condition: Callable[[], object], *, seconds: float = PATIENCE) -> None:
    """Wait until something has come about; fails when it does not."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.005)


PROGRAM = """
import sys
from lifecycle import Lifecycle, Timing, ZocdocClient
from lifecycle.errors import LifecycleError
url, base, token_url, audience = sys.argv[1:5]
client = ZocdocClient(base_url=base, token_url=token_url, client_id="sandbox-client", client_secret="sandbox-secret",
                      audience=audience, deadline=8.0)
timing = Timing(send_window=2.0, lease_margin=0.5, settle=0.05, spacing=(0.05, 0.05), read_backoff=0.02, failed_reads=3)
"""
"""The beginning of a program of another process: a client and the intervals; `sys.argv[5:]` is the test's."""


def program(body: str, url: str, server: Server, *arguments: str) -> subprocess.Popen[str]:
    """Start another Python process that uses the package on this database and this stand-in."""
    places = (url, server.base_url, server.token_url, server.audience)
    return subprocess.Popen(  # noqa: S603 # our own program
        [sys.executable, "-W", "error", "-c", PROGRAM + body, *places, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )


def environment(**more: str) -> Mapping[str, str]:
    """Give the environment of child processes: nothing that could point them elsewhere."""
    kept = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "LANG", "TMPDIR"}}
    return kept | more
