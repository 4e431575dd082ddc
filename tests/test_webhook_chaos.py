"""Webhooks when everything goes wrong at once: `lifecycle serve` as a process, the stand-in calling it over HTTP.

Every event comes five times, reordered and late, some before the answer to our own command; forged calls come between;
the process is killed right after it has answered; the database goes away and comes back. In the end everything here
stands as at Zocdoc, each accepted call has one row and one end, and nothing was answered that was not stored.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Any, Self

import pytest
import requests

from lifecycle import DatabaseUnavailable, Done, Lifecycle, OutcomeUnknown, Timing
from lifecycle.sandbox import Ended, Fault, Kind, Moment, Order, Trouble
from lifecycle.sandbox.bodies import parse_instant
from lifecycle.server import PATH
from tests import support, trail
from tests.crashes.grounds import PostgresGround
from tests.test_inbox import KEY, OTHER, body, signed
from tests.test_server import locked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from lifecycle.sandbox import Attempt, Sandbox, Server

COPIES = 5
ANSWERED_WITHIN = 5.0
"""Seconds, as documented: the door has 4 of them to store."""

AWAY = 6.0
"""Seconds without a database: what was called at its beginning has hung up before it is back."""

TIMING = Timing(
    send_window=2.0,
    lease_margin=0.5,
    settle=0.1,
    spacing=(0.2, 0.2),
    read_backoff=0.2,
    failed_reads=20,
    record_again=(0.05, 0.2, 0.5),
)
LATE = 3.0
"""Seconds that an answer to a command of ours is late."""

PARTS = (slice(0, 24), slice(24, 30), slice(30, 32))
RACES = (
    ("cancel", Kind.DELAY, "confirmed"),
    ("cancel", Kind.DELAY, "cancelled"),
    ("reschedule", Kind.DELAY, "cancelled"),
    ("reschedule", Kind.DELAY, "confirmed"),
    ("cancel", Kind.RESET, "cancelled"),
    ("cancel", Kind.RESET, "cancelled"),
)
"""Our command, what becomes of its answer, and the status that the provider sets before it comes."""

STATUSES = ("confirmed", "rescheduled", "pending_reschedule")
FIRST_START = datetime(2031, 1, 6, 9, tzinfo=UTC)
EVENTS = {
    "appointment_tracked",
    "appointment_observed",
    "command_accepted",
    "command_applied",
    "outcome_lost",
    "outcome_checked",
}
"""No command is refused, rejected, not sent or given to a human here: each was carried out at the stand-in."""


@dataclass(frozen=True)
class Ground:
    """A database, and a way to take it away for as long as a block lasts."""

    url: str
    away: Callable[[], AbstractContextManager[None]]


@pytest.fixture(params=["sqlite", "postgresql"])
def ground(request: pytest.FixtureRequest) -> Iterator[Ground]:
    """A file whose lock another process holds; a server of its own that crashes and replays its log."""
    if request.param == "sqlite":
        url = request.getfixturevalue("sqlite_url")
        yield Ground(url, lambda: locked(url))
        return
    with PostgresGround() as made:
        yield Ground(made.url, lambda: _stopped(made))
        assert trail.faults(made.raw()) == []


@contextmanager
def _stopped(server: PostgresGround) -> Iterator[None]:
    server.stop()
    try:
        yield
    finally:
        server.start()


class Door:
    """`lifecycle serve`, which can be killed and started again on its port; a context manager."""

    def __init__(self, url: str, server: Server, log: Path) -> None:
        self._environment = support.environment(
            LIFECYCLE_DATABASE_URL=url,
            LIFECYCLE_ZOCDOC_BASE_URL=server.base_url,
            LIFECYCLE_ZOCDOC_TOKEN_URL=server.token_url,
            LIFECYCLE_ZOCDOC_CLIENT_ID="sandbox-client",
            LIFECYCLE_ZOCDOC_CLIENT_SECRET="sandbox-secret",
            LIFECYCLE_WEBHOOK_KEYS=KEY,
        )
        self._log = log
        self._port = 0
        self.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def url(self) -> str:
        """Where it is called."""
        return f"http://127.0.0.1:{self._port}{PATH}"

    @property
    def told(self) -> str:
        """All that its processes have logged."""
        return self._log.read_text()

    def start(self) -> None:
        """Start it, and wait until it listens."""
        before = self.told.count("listening on") if self._log.exists() else 0
        command = [sys.executable, "-m", "lifecycle", "serve", "--port", str(self._port), "--recover-every", "3600"]
        with self._log.open("a") as log:
            self._process = subprocess.Popen(command, stderr=log, env=self._environment)  # noqa: S603 # our own
        support.until(lambda: self.told.count(f"{PATH}\n") > before, seconds=20)
        self._port = int(self.told.partition(PATH)[0].rpartition(":")[2])

    def kill(self) -> None:
        """End it with SIGKILL."""
        self._process.kill()
        self._process.wait()


class Provider:
    """Changes appointments at the stand-in, and remembers every status that each has had."""

    def __init__(self, sandbox: Sandbox, lifecycle: Lifecycle) -> None:
        self.sandbox = sandbox
        self.lived: dict[str, list[str]] = {}
        self.changes: Counter[str] = Counter()
        for _ in range(32):
            appointment_id = support.tracked(lifecycle, sandbox, status="confirmed")
            self.lived[appointment_id] = ["confirmed"]

    @property
    def appointments(self) -> list[str]:
        """Their ids."""
        return list(self.lived)

    def change(self, appointment_id: str, status: str | None = None) -> None:
        """Move the start, and go on to another status."""
        self.changes[appointment_id] += 1
        count = self.changes[appointment_id]
        start = FIRST_START + timedelta(days=self.appointments.index(appointment_id), minutes=15 * count)
        self.sandbox.change(
            appointment_id, status=status or STATUSES[count % len(STATUSES)], start_time=start.isoformat()
        )
        self.note(appointment_id)

    def note(self, appointment_id: str) -> None:
        """Remember what it is now."""
        self.lived[appointment_id].append(self.sandbox.status_of(appointment_id))


class Chaos:
    """One run: the phases, then what must hold."""

    def __init__(self, ground: Ground, lifecycle: Lifecycle, sandbox: Sandbox, door: Door) -> None:
        self.ground, self.lifecycle, self.sandbox, self.door = ground, lifecycle, sandbox, door
        self.webhooks = sandbox.webhooks
        self.provider = Provider(sandbox, lifecycle)
        self.plain, self.raced, self.caught = (self.provider.appointments[part] for part in PARTS)
        self.webhooks.subscribe(door.url, KEY)
        self.webhooks.configure(copies=COPIES, first_retry=0.2, answer_within=ANSWERED_WITHIN, workers=32)

    def calls(self) -> list[tuple[str, Attempt]]:
        """Every sound call so far, with the digest of its body."""
        sound = [delivery for delivery in self.webhooks.log() if delivery.to.key == KEY]
        return [(delivery.body_digest, attempt) for delivery in sound for attempt in delivery.attempts]

    def ended_since(self, begun: float) -> list[Any]:
        """What came of each call that began after an instant and has ended."""
        return [attempt.got for _, attempt in self.calls() if attempt.at > begun]

    def accepted(self) -> Counter[str]:
        """How often each body was answered 200."""
        return Counter(digest for digest, attempt in self.calls() if attempt.got == 200)

    def rows(self) -> dict[str, dict[str, Any]]:
        """The inbox as stored, by digest."""
        found = support.query(self.ground.url, "SELECT * FROM lifecycle_webhook_deliveries")
        return {row["delivery_id"]: row for row in found}

    def idle(self) -> None:
        """Wait until each call has its answer."""
        assert self.webhooks.wait_idle(40), [each.got for each in self.webhooks.log() if each.ended is None]

    def burst(self) -> None:
        """Copies, a wrong order, delays, forged calls between, and changes while our own answers are on their way."""
        forger = self.webhooks.subscribe(self.door.url, OTHER)
        self.webhooks.configure(delay=0.05, spread=0.8)
        with ThreadPoolExecutor(8) as pool:
            races = [pool.submit(self.race, *race) for race in zip(self.raced, RACES, strict=True)]
            support.until(lambda: all(self.provider.changes[each] for each in self.raced), seconds=20)
            forged = pool.submit(self.forge)
            for _ in range(2):
                for appointment_id in self.plain:
                    self.provider.change(appointment_id)
            forged.result()
            # A writer of SQLite may wait for long in a burst, so not each of the four.
            assert sum(race.result() for race in races) >= 2
        self.idle()
        self.webhooks.unsubscribe(forger.subscription_id)
        assert self.lifecycle.recover(wait=20).waiting == 0

    def race(self, appointment_id: str, race: tuple[str, Kind, str]) -> bool:
        """Send a command whose answer is late or lost, change the appointment, and tell whether a call came first."""
        command, kind, status = race
        with self.commanding(appointment_id, command, kind) as results:
            self.provider.change(appointment_id, status)
            support.until(lambda: results or self.is_told(appointment_id))
            is_first = not results
        assert isinstance(results[0], OutcomeUnknown if kind is Kind.RESET else Done)
        return is_first

    def is_told(self, appointment_id: str) -> bool:
        """Whether a call about it was answered."""
        return any(delivery.got == [200] for delivery in self.webhooks.log(appointment_id) if delivery.to.key == KEY)

    @contextmanager
    def commanding(self, appointment_id: str, command: str, kind: Kind) -> Iterator[list[Any]]:
        """Run the block once the command has had its effect, before its answer comes or instead of it."""
        seconds = LATE if kind is Kind.DELAY else 0.0
        self.sandbox.faults.add(
            Fault(kind=kind, operation=command, appointment_id=appointment_id, when=Moment.AFTER, seconds=seconds)
        )
        with support.in_background(lambda: support.send(self.lifecycle, command, appointment_id)) as results:
            support.until(lambda: results or support.effects(self.sandbox, appointment_id) == 1, seconds=20)
            assert support.effects(self.sandbox, appointment_id) == 1, results
            if kind is Kind.RESET:
                support.until(lambda: results)
            self.provider.note(appointment_id)
            yield results

    def forge(self) -> None:
        """Send what Zocdoc did not: another key, an altered body, an old signature under a new time, no signature."""
        for number, appointment_id in enumerate(self.plain):
            content = body(appointment_id, update="cancelled", number=number)
            sound = signed(content, age=1)
            unsound = [
                (content, signed(content, key=OTHER)),
                (content + b" ", sound),
                (content, sound | {"Webhook-Timestamp": str(int(time.time()) + 5)}),
                (content, {}),
            ]
            for sent, headers in unsound:
                assert requests.post(self.door.url, sent, headers=headers, timeout=9).status_code == 401

    def kill(self) -> None:
        """SIGKILL in the middle of a burst, right after some answers: what was answered is stored."""
        self.webhooks.configure(delay=0.0, spread=0.0, hold=True)
        before = self.accepted().total()
        for appointment_id in self.plain:
            self.provider.change(appointment_id)
        # A few cannot be followed before the end, however late it comes.
        for appointment_id in self.plain[:4]:
            self.sandbox.faults.add(
                Fault(kind=Kind.DELAY, operation="get", appointment_id=appointment_id, seconds=20.0, times=COPIES)
            )
        self.webhooks.release(Order.SHUFFLED)
        support.until(lambda: self.accepted().total() >= before + 5)
        self.door.kill()
        self.sandbox.faults.clear()
        accepted, rows = self.accepted(), self.rows()
        assert {digest: count for digest, count in accepted.items() if rows[digest]["copies"] < count} == {}
        assert "received" in {row["state"] for row in rows.values()}, "nothing was left to be followed"
        time.sleep(0.3)
        self.door.start()
        self.webhooks.configure(hold=False)
        self.idle()
        assert Trouble.REFUSED in {attempt.got for _, attempt in self.calls()}

    def outage(self) -> None:
        """The database goes in the middle of a burst, with two of our own commands on their way, and comes back."""
        self.webhooks.configure(workers=64, spread=0.3)
        first, second = self.caught
        for appointment_id in self.plain[:4]:
            self.provider.change(appointment_id)
        with (
            self.commanding(first, "cancel", Kind.DELAY) as one,
            self.commanding(second, "reschedule", Kind.DELAY) as two,
        ):
            with self.ground.away():
                begun = time.monotonic()
                for appointment_id in (first, *self.plain[4:14]):
                    self.provider.change(appointment_id, "cancelled")
                time.sleep(AWAY)
                support.until(lambda: len(self.ended_since(begun)) >= 40, seconds=20)
                during = self.ended_since(begun)
            support.until(lambda: one and two, seconds=20)
        assert {type(result) for result in one + two} <= {Done, OutcomeUnknown, DatabaseUnavailable}
        assert set(during) == {Trouble.TIMEOUT}
        self.idle()

    def settle(self) -> None:
        """Recover, and let the time pass that killed and failed runs of the inbox hold what they had taken."""
        assert self.lifecycle.recover(wait=30).waiting == 0
        hasten = "UPDATE lifecycle_webhook_deliveries SET run_at = received_at WHERE run_at IS NOT NULL"
        support.query(self.ground.url, hasten)
        support.until(lambda: self.lifecycle.waiting_deliveries() == 0, seconds=20)

    def assert_as_at_zocdoc(self) -> None:
        """Every appointment has the status and the start that it has there; nothing is in doubt."""
        here = {each.appointment_id: (each.status, each.start_time) for each in self.lifecycle.appointments()}
        there = {name: self.sandbox.appointment(name) for name in self.provider.appointments}
        assert here == {name: (row.status, parse_instant(row.start_time)) for name, row in there.items()}
        assert list(self.lifecycle.appointments(in_doubt=True)) == []
        assert set(support.states(self.ground.url)) == {"applied"}

    def assert_each_call_has_one_end(self) -> None:
        """Every body sent has one row, followed; its copies are those that were answered, or at most those sent."""
        sound = [delivery for delivery in self.webhooks.log() if delivery.to.key == KEY]
        assert len(self.calls()) >= 200
        assert {(delivery.ended, delivery.got[-1]) for delivery in sound} == {(Ended.ANSWERED, 200)}
        accepted, rows = self.accepted(), self.rows()
        sent = Counter(digest for digest, _ in self.calls())
        assert set(rows) == set(sent) == set(accepted)
        assert min(accepted.values()) == COPIES
        odd = {digest: row["copies"] for digest, row in rows.items() if not sent[digest] >= row["copies"] >= COPIES}
        assert odd == {}
        assert {(row["state"], row["processed_at"] is None) for row in rows.values()} == {("followed", False)}

    def assert_nothing_forged(self) -> None:
        """The forger, who sent the same bodies as Zocdoc and signed them with another key, was always told 401."""
        forged = [delivery for delivery in self.webhooks.log() if delivery.to.key == OTHER]
        assert len(forged) >= 200
        # A machine that stalls for as long as the stand-in waits gets the same call again.
        assert {(delivery.ended, delivery.got[-1]) for delivery in forged} == {(Ended.ANSWERED, 401)}
        assert {got for delivery in forged for got in delivery.got} <= {Trouble.TIMEOUT, 401}

    def assert_only_what_happened(self) -> None:
        """Each trail tells moves that were made, in their order; what webhooks told names a delivery of its own."""
        told: dict[str, set[str]] = {}
        for delivery in self.webhooks.log():
            told.setdefault(delivery.appointment_id, set()).add(delivery.body_digest)
        for name, lived in self.provider.lived.items():
            history = self.lifecycle.history(name)
            moves = [status for status, _ in groupby(event.to_status for event in history)]
            passing = iter(lived)
            assert all(status in passing for status in moves), (moves, lived)
            assert {event.event for event in history} <= EVENTS
            observed = [event for event in history if event.event == "appointment_observed"]
            assert len(observed) <= self.provider.changes[name]
            for event in observed:
                assert (event.source, event.actor) == ("webhook", "zocdoc")
                assert event.delivery_id in told[name]
            applied = [event for event in history if event.event == "command_applied"]
            assert len(applied) == support.effects(self.sandbox, name)


def test_nothing_is_lost_and_nothing_is_made_up(
    ground: Ground, sandbox: Sandbox, server: Server, tmp_path: Path
) -> None:
    """A burst with forged calls and races, a kill, an outage: in the end all is as at Zocdoc."""
    with (
        support.client_of(server, deadline=5.0) as client,
        Lifecycle(ground.url, zocdoc=client, timing=TIMING) as lifecycle,
        Door(ground.url, server, tmp_path / "door.log") as door,
    ):
        chaos = Chaos(ground, lifecycle, sandbox, door)
        chaos.burst()
        chaos.kill()
        chaos.outage()
        chaos.settle()
        chaos.assert_as_at_zocdoc()
        chaos.assert_each_call_has_one_end()
        chaos.assert_nothing_forged()
        chaos.assert_only_what_happened()
        assert "Traceback" not in door.told
