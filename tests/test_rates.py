"""All processes of a database keep to one rate together, at the stand-in; nobody waits behind background work."""

from __future__ import annotations

import itertools
import logging
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from lifecycle import database, errors, rates, schema, zocdoc
from lifecycle.quota import Quota
from lifecycle.rates import SharedPace, stores, timetable
from lifecycle.zocdoc import NotSent, Reason, pacing, timing
from tests import support
from tests.benchmarks.rate import most_in_a_second
from tests.test_cli import assert_error, invoke, settings_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from lifecycle import ZocdocClient
    from lifecycle.sandbox import Sandbox, Server

TICK = 0.051
"""Seconds between two requests at 20/s."""

ROUNDING = 0.01
"""Seconds by which two clocks that are read one after the other may differ, in tests of slots in a store."""

FORKS = """
import os, sys, time
from lifecycle import rates
from lifecycle.zocdoc import timing
pace = rates.shared(sys.argv[1], "20/s")
pace.wait(timing.Budget.of(20.0))
before = getattr(pace._shared.store, "_connection", None)
child = os.fork()
found = []
for _ in range(10):
    assert pace.wait(timing.Budget.of(20.0))
    found.append(time.monotonic())
assert pace._retry == 0.0, "the store failed"
print(*found, flush=True)
if child == 0:
    assert before is None or pace._shared.store._connection is not before, "the parent's connection"
    os._exit(0)
_, status = os.waitpid(child, 0)
pace.close()
sys.exit(os.waitstatus_to_exitcode(status))
"""

CALLER = """
import sys, threading, time
from lifecycle import ZocdocClient, rates
from lifecycle.zocdoc import background
url, base, token, seconds = sys.argv[1:5]
pace = rates.shared(url, "20/s")
client = ZocdocClient(base_url=base, access_token=token, identity="user:7", pace=pace, deadline=30.0)
def read():
    with background():
        while time.monotonic() < end:
            client.get("mine")
threads = [threading.Thread(target=read) for _ in range(4)]
print("ready", flush=True)
sys.stdin.readline()
end = time.monotonic() + float(seconds)
for thread in threads: thread.start()
for thread in threads: thread.join()
client.close()
pace.close()
"""
"""A process that reads as fast as it is let, in the background, from the moment it is told to."""


@pytest.fixture
def pace(database_url: str) -> Iterator[SharedPace]:
    """20 requests a second on both databases in turn."""
    with closing(rates.shared(database_url, "20/s")) as made:
        yield made


@pytest.fixture
def paced(server: Server, pace: SharedPace) -> Iterator[ZocdocClient]:
    """A client that keeps to the pace."""
    with support.client_of(server, pace=pace) as made:
        yield made


def slots(pace: SharedPace, count: int, seconds: float = 20.0) -> list[float]:
    """Wait for so many slots one after the other; give the instants at which they came."""
    found = []
    for _ in range(count):
        assert pace.wait(timing.Budget.of(seconds))
        found.append(timing.clock())
    return found


def assert_spaced(instants: list[float], begun: float) -> None:
    """Check that none came before its slot. How much later each came depends on the machine, gaps as well."""
    for ticks, at in enumerate(instants):
        assert at - begun >= ticks * TICK - ROUNDING, (ticks, instants, begun)


def gaps(instants: Sequence[float]) -> list[float]:
    """Tell the seconds between each instant and the next."""
    return [after - before for before, after in itertools.pairwise(instants)]


def started(url: str, base_url: str, token: str, seconds: float) -> subprocess.Popen[str]:
    """Start a caller and wait until it is ready."""
    process = subprocess.Popen(  # noqa: S603 # our own program
        [sys.executable, "-W", "error", "-c", CALLER, url, base_url, token, str(seconds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=support.environment(),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def unless_the_machine_stalls(check: Callable[[], None]) -> None:
    """Check again, twice at most, if a failed check coincided with a thread that woke up 40 ms late or more."""
    for repeats in (2, 1, 0):
        done, longest = threading.Event(), [0.0]
        sleeper = threading.Thread(target=watch, args=(done, longest))
        sleeper.start()
        try:
            check()
        except AssertionError:
            if repeats == 0 or longest[0] < 0.04:
                raise
        else:
            return
        finally:
            done.set()
            sleeper.join()


def watch(done: threading.Event, longest: list[float]) -> None:
    """Sleep again and again, and note by how much the latest wake-up was late."""
    while not done.is_set():
        begun = time.monotonic()
        time.sleep(0.01)
        longest[0] = max(longest[0], time.monotonic() - begun - 0.01)


def test_four_processes_share_one_rate(database_url: str, server: Server, sandbox: Sandbox) -> None:
    """At 20/s they send no more together than one would, and do not wait for each other's sake.

    How many arrive in any second, and how much of the quota is used, `tests/benchmarks/rate.py` measures: that needs a
    machine which does not stall.
    """
    unless_the_machine_stalls(lambda: send_from_four_processes(database_url, server, sandbox))


def send_from_four_processes(database_url: str, server: Server, sandbox: Sandbox) -> None:
    """Run them for as long as fifty requests take, and count."""
    sandbox.add("mine", booked_by="user:7")
    token, before = sandbox.user_token("7"), len(support.calls(sandbox))
    processes = [started(database_url, server.base_url, token, 2.5) for _ in range(4)]
    begun = time.monotonic()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    arrivals = [entry.at for entry in support.calls(sandbox)][before:]
    assert len(arrivals) <= 20 * (arrivals[-1] - begun) + 2
    assert len(arrivals) >= 20


def test_a_new_file_that_another_process_is_making_is_waited_for(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite refuses to switch its log over at once while somebody writes, whatever the time-out."""
    monkeypatch.setattr(stores, "_PATIENCE", support.PATIENCE)
    other = sqlite3.connect(
        f"{sqlite_url.removeprefix('sqlite:///')}.rate", isolation_level=None, check_same_thread=False
    )
    other.execute("BEGIN IMMEDIATE")
    threading.Timer(0.2, other.rollback).start()
    with closing(rates.shared(sqlite_url, "20/s")) as pace:
        assert pace.wait(timing.Budget.of(20.0))
        assert pace._retry == 0.0, "it fell back to a rate of its own"
    other.close()


def test_every_send_counts(paced: ZocdocClient, pace: SharedPace, sandbox: Sandbox) -> None:
    """A command, a read, a list and the repeat after a 401 each take a slot; a token takes none."""
    appointment_id = sandbox.add()
    begun = time.monotonic()
    paced.get(appointment_id)
    support.arm(sandbox, kind="answer", operation="confirm", status=401)
    paced.confirm(appointment_id)
    next(paced.list())
    arrivals = [entry.at for entry in support.calls(sandbox)]
    assert len(arrivals) == 4
    assert len([each for each in sandbox.ledger.entries() if each.operation == "token"]) == 2
    assert_spaced(arrivals, begun)
    assert slots(pace, 1)[0] > timing.clock() - 1


def test_a_repeat_after_a_429_waits_for_a_slot_too(
    paced: ZocdocClient, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that is sent again is a request: it stands in line."""
    monkeypatch.setattr(timing, "jitter", lambda _: 0.0)
    appointment_id = sandbox.add()
    support.arm(sandbox, kind="answer", operation="confirm", status=429)
    assert isinstance(paced.confirm(appointment_id), zocdoc.Applied)
    paced.get(appointment_id)
    first, second, third = [entry.at for entry in support.calls(sandbox)]
    assert second - first >= 0.25
    assert third - first >= 0.25 + TICK - ROUNDING


def test_slots_are_spaced_evenly_and_an_idle_pace_gives_one_at_once(pace: SharedPace) -> None:
    """No burst follows a rest; a call after a rest does not wait."""
    slots(pace, 1)
    waits = []
    for _ in range(3):
        time.sleep(0.1)
        begun = timing.clock()
        found = slots(pace, 3)
        assert_spaced(found, begun)
        waits.append(found[0] - begun)
    assert min(waits) < TICK


def test_a_call_that_somebody_waits_for_passes_background_work(pace: SharedPace) -> None:
    """With 32 background threads at 20/s an interactive call waits less than 300 ms; those threads go on."""
    unless_the_machine_stalls(lambda: call_among_background_work(pace))


def call_among_background_work(pace: SharedPace) -> None:
    """Run the threads, call in between, and look at the waits."""
    end = timing.clock() + 1.2
    sent: list[float] = []

    def work() -> None:
        with zocdoc.background():
            while timing.clock() < end and pace.wait(timing.Budget.of(30.0)):
                sent.append(timing.clock())

    threads = [threading.Thread(target=work) for _ in range(32)]
    for thread in threads:
        thread.start()
    waits = []
    for _ in range(3):
        time.sleep(0.3)
        begun = timing.clock()
        slots(pace, 1)
        waits.append(timing.clock() - begun)
    for thread in threads:
        thread.join()
    assert max(waits) < 0.3
    assert len(sent) > 40


def test_a_slot_that_comes_too_late_is_neither_waited_for_nor_taken(pace: SharedPace) -> None:
    """A call whose budget ends before the next slot is refused at once, and leaves the slot to others."""
    unless_the_machine_stalls(lambda: refuse_slots_that_come_too_late(pace))


def refuse_slots_that_come_too_late(pace: SharedPace) -> None:
    """Ask in vain, and look at how long that took and what it left."""
    slots(pace, 1)
    pace.hold(1.0)
    begun = timing.clock()
    for budget in (timing.Budget.of(0.5), timing.Budget.of(20.0, send_before=timing.clock() + 0.5)):
        for _ in range(5):
            assert not pace.wait(budget)
    with zocdoc.background():
        assert not pace.wait(timing.Budget.of(0.5))
    assert timing.clock() - begun < 0.5
    assert slots(pace, 1)[0] - begun < 1.0 + 2 * TICK


def test_too_late_a_slot_is_not_sent(paced: ZocdocClient, pace: SharedPace, sandbox: Sandbox) -> None:
    """A command whose window ends before its slot ends as not sent, without a request; a read fails."""
    appointment_id = sandbox.add()
    paced.authorize()
    pace.hold(5.0)
    outcome = paced.confirm(appointment_id, send_before=zocdoc.clock() + 2.5)
    assert outcome == NotSent(Reason.RATE_LIMITED)
    assert support.calls(sandbox) == []


def test_a_429_to_one_process_holds_all(database_url: str, server: Server, sandbox: Sandbox) -> None:
    """The pause after a 429 lasts as long as Retry-After says, for other processes too."""
    appointment_id = sandbox.add()
    with (
        closing(rates.shared(database_url, "20/s")) as ours,
        closing(rates.shared(database_url, "20/s")) as theirs,
        support.client_of(server, pace=ours) as client,
    ):
        support.arm(sandbox, kind="answer", operation="confirm", status=429, headers={"Retry-After": "2"})
        begun = timing.clock()
        with support.in_background(lambda: client.confirm(appointment_id)) as results:
            support.until(lambda: theirs._ask(lambda table: table.resumes()) > begun + 1.9)
            assert slots(theirs, 1)[0] - begun > 1.9
    assert isinstance(results[0], zocdoc.Applied)


def test_a_pause_holds_back_who_had_booked_before_it(database_url: str) -> None:
    """A sender that waits for its slot while a 429 comes to another process sleeps on, until the pause is over."""
    unless_the_machine_stalls(lambda: pause_who_has_booked(database_url))


def pause_who_has_booked(database_url: str) -> None:
    """Have eight wait, pause them, and look at when they went on."""
    with closing(rates.shared(database_url, "20/s")) as ours, closing(rates.shared(database_url, "20/s")) as theirs:
        slots(ours, 1)
        slots(theirs, 1)
        with support.in_background(lambda: support.together(8, lambda _: slots(theirs, 1))) as results:
            time.sleep(0.03)
            begun = timing.clock()
            ours.hold(1.0)
            told = timing.clock()
    found = sorted(itertools.chain.from_iterable(results[0]))
    assert [at for at in found if told + 0.2 < at < begun + 0.95] == []
    assert found[-3] > begun + 0.95
    assert most_in_a_second(found) <= 8


def test_a_hostile_retry_after_stops_the_others_for_seconds_only(
    pace: SharedPace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one 429 may hold back is bounded, whatever it asks for."""
    monkeypatch.setattr(timing, "LONGEST_SHARED_PAUSE", 0.6)
    begun = timing.clock()
    pace.hold(86_400.0)
    assert 0.5 < slots(pace, 1)[0] - begun < 10.0


def test_no_slot_is_given_twice(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Senders with connections of their own, asking all at once, get slots that are a tick apart."""
    monkeypatch.setattr(stores, "_PATIENCE", support.PATIENCE)
    quota = Quota.parse("20/s")
    found: list[int] = []
    put = timetable.Timetable._put

    def noted(self: timetable.Timetable, *given: Any) -> tuple[int, bool]:
        at, is_booked = put(self, *given)
        found.append(at)  # by the store's clock, as all see it
        return at, is_booked

    monkeypatch.setattr(timetable.Timetable, "_put", noted)

    def book(_: int) -> bool:
        with closing(rates.shared(database_url, quota)) as made:
            latest = timing.clock() + 59.0
            return all(made._shared.book(1, earliest=0.0, latest=latest)[0].booked for _ in range(60))

    assert support.together(4, book) == [True] * 4
    assert len(found) == 240
    assert min(gaps(sorted(found))) >= quota.tick_ms


class CountedStore(stores.MemoryStore):
    """A store that counts how often it is asked, and answers slowly."""

    asked = 0

    def opened(self) -> AbstractContextManager[stores.Buckets]:
        """Count, and sleep."""
        self.asked += 1
        time.sleep(0.005)
        return super().opened()


def test_at_high_rates_waiting_threads_share_bookings() -> None:
    """A slow way to the store is gone for a handful of slots at once, and the rate still holds."""
    unless_the_machine_stalls(share_bookings)


def share_bookings() -> None:
    """Have sixteen threads take a dozen slots each."""
    quota = Quota.parse("400/s")
    store = CountedStore(quota)
    made = SharedPace(store, quota)
    slots(made, 1)
    found = sorted(itertools.chain.from_iterable(support.together(16, lambda _: slots(made, 12))))
    assert most_in_a_second(found) <= 400
    assert len(found) == 192
    assert 0.4 < found[-1] - found[0] < 1.2
    assert store.asked < 100


@contextmanager
def outage(url: str) -> Iterator[None]:
    """Make the store of a database unusable until the block ends."""
    place = sa.make_url(url)
    if place.get_backend_name() == "sqlite":
        with closing(sqlite3.connect(f"{place.database}.rate", isolation_level=None)) as connection:
            connection.execute("BEGIN EXCLUSIVE")  # as a process does that was stopped at the wrong moment
            yield
        return
    server, name = place.set(database="postgres").render_as_string(hide_password=False), place.database
    support.query(server, f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false")
    support.query(server, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name", name=name)
    try:
        yield
    finally:
        support.query(server, f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS true")


def test_while_the_store_fails_this_process_keeps_to_the_rate_by_itself(
    pace: SharedPace, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """An outage neither fails a send nor lets a burst through, is logged once without secrets, and ends by itself."""
    caplog.set_level(logging.INFO, logger="lifecycle.rates")
    slots(pace, 2)
    with outage(database_url):
        slots(pace, 1)
        found = sorted(itertools.chain.from_iterable(support.together(4, lambda _: slots(pace, 6))))
        assert 20 * TICK < found[-1] - found[0] < 15.0
    support.until(lambda: slots(pace, 1) and "rate_store_back" in caplog.messages)
    failed, back = (each for each in caplog.records if each.name == "lifecycle.rates.pace")
    assert (failed.message, back.message) == ("rate_store_failed", "rate_store_back")
    assert set(vars(failed)) - set(vars(back)) == {"error"}
    with closing(rates.shared(database_url, "20/s")) as other:
        begun = timing.clock()
        other.hold(1.0)
        assert slots(pace, 1)[0] - begun > 0.9


def test_a_store_that_never_was_there_is_no_failure_of_a_send(tmp_path: Path) -> None:
    """Without its folder, or a server, the process keeps to the rate by itself."""
    for url in (f"sqlite:///{tmp_path}/missing/appointments.db", "postgresql://me:s3cr3t@127.0.0.1:1/x"):
        with closing(rates.shared(url, "20/s")) as made:
            begun = timing.clock()
            assert_spaced(slots(made, 4), begun)


def test_lost_tables_are_made_again(postgres_url: str) -> None:
    """A database that was restored without the limiter's tables gets them back."""
    with closing(rates.shared(postgres_url, "20/s")) as made:
        slots(made, 1)
        for table in ("ratelimit___lifecycle_zocdoc", "ratelimit___lifecycle_zocdoc_pause"):
            support.query(postgres_url, f"DROP TABLE {table}")
        support.until(lambda: slots(made, 1) and made._retry == 0.0)
        assert support.query(postgres_url, "SELECT count(*) AS n FROM ratelimit___lifecycle_zocdoc")[0]["n"] > 0


def test_a_clock_that_was_set_back_stops_nobody(sqlite_url: str) -> None:
    """Slots and pauses that lie farther ahead than anybody books are forgotten."""
    with closing(rates.shared(sqlite_url, "20/s")) as made:
        slots(made, 1)
        place = f"{sqlite_url}.rate"
        later = int((time.time() + 3600) * 1000)
        support.query(place, "INSERT INTO lifecycle_zocdoc VALUES ('send', :at)", at=later)
        support.query(place, "INSERT INTO lifecycle_zocdoc_pause VALUES ('pause', :at)", at=later)
        begun = timing.clock()
        assert slots(made, 3)[-1] - begun < 15.0


def test_past_slots_are_deleted(pace: SharedPace, database_url: str) -> None:
    """The tables stay small."""
    slots(pace, 30)
    if database_url.startswith("sqlite"):
        [row] = support.query(f"{database_url}.rate", "SELECT count(*) AS n FROM lifecycle_zocdoc")
    else:
        [row] = support.query(database_url, "SELECT count(*) AS n FROM ratelimit___lifecycle_zocdoc")
    assert 0 < row["n"] < 25


def test_the_vacuum_of_the_servers_own_is_no_failure(postgres_url: str) -> None:
    """Whoever else holds the table for a moment is waited for."""
    with closing(rates.shared(postgres_url, "20/s")) as made:
        slots(made, 1)
        engine = sa.create_engine(postgres_url)
        with engine.connect() as connection:
            connection.exec_driver_sql("LOCK TABLE ratelimit___lifecycle_zocdoc IN SHARE UPDATE EXCLUSIVE MODE")
            with support.in_background(lambda: slots(made, 2)):
                support.until(lambda: support.query(postgres_url, "SELECT 1 FROM pg_locks WHERE NOT granted"))
                connection.rollback()
        engine.dispose()
        assert made._retry == 0.0


def test_the_tables_are_none_of_the_schema_checks_business(postgres_url: str) -> None:
    """`lifecycle db check` and Alembic see no difference after the limiter has made its tables."""
    with closing(rates.shared(postgres_url, "20/s")) as made, closing(database.Database(postgres_url)) as place:
        slots(made, 1)
        assert schema.check(place) == []


def test_a_role_that_may_make_nothing_can_share_a_rate(postgres_url: str) -> None:
    """Once the tables are there, SELECT, INSERT and DELETE on them are enough."""
    with closing(rates.shared(postgres_url, "20/s")) as made:
        slots(made, 1)
    role = f"sender_{uuid.uuid4().hex[:8]}"
    tables = "ratelimit___lifecycle_zocdoc, ratelimit___lifecycle_zocdoc_pause"
    support.query(postgres_url, f"CREATE ROLE {role} LOGIN")
    support.query(postgres_url, f"GRANT SELECT, INSERT, DELETE ON {tables} TO {role}")
    url = sa.make_url(postgres_url).set(username=role).render_as_string(hide_password=False)
    try:
        with closing(rates.shared(url, "20/s")) as made:
            made.hold(0.1)
            slots(made, 25)
            assert made._retry == 0.0
    finally:
        support.query(postgres_url, f"DROP OWNED BY {role}")
        support.query(postgres_url, f"DROP ROLE {role}")


def test_the_engine_of_a_host_will_do(database_url: str) -> None:
    """An application's own engine gives the same slots as the URL, whatever the time zone of its sessions."""
    engine = sa.create_engine(database_url)
    if engine.name == "postgresql":
        engine = sa.create_engine(database_url, connect_args={"options": "-c timezone=Asia/Tokyo"})
    with closing(rates.shared(engine, "20/s")) as made, closing(rates.shared(database_url, "20/s")) as other:
        slots(made, 1)
        begun = timing.clock()
        other.hold(0.5)
        assert 0.4 < slots(made, 1)[0] - begun < 5.0
        assert made._retry == 0.0
    engine.dispose()


def test_a_forked_child_shares_the_rate(database_url: str) -> None:
    """Parent and child go on with connections of their own, and keep to the rate together."""
    command = [sys.executable, "-c", FORKS, database_url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603 # ours
    assert done.returncode == 0, done.stderr
    found = sorted(float(each) for each in done.stdout.split())
    assert len(found) == 20
    assert found[-1] - found[0] > 18 * TICK


class Witness:
    """A pace that holds nobody back, and writes down who was in the background."""

    def __init__(self) -> None:
        self.seen: list[bool] = []

    def wait(self, budget: timing.Budget) -> bool:  # noqa: ARG002 # the protocol's
        """Let it go."""
        self.seen.append(pacing.is_background())
        return True

    def hold(self, seconds: float) -> None:
        """Ignore it."""


def test_what_nobody_waits_for_is_background(sqlite_url: str, server: Server, sandbox: Sandbox) -> None:
    """Recovery, sync and rows of a batch, with what is read before them, step back; calls and single ones do not."""
    pace = Witness()
    with support.client_of(server, pace=pace) as client, support.opened(sqlite_url, client) as lifecycle:
        ids = [support.tracked(lifecycle, sandbox) for _ in range(3)]
        lifecycle.confirm(ids[0], actor=support.ACTOR)
        lifecycle.submit("cancel", ids[0], actor=support.ACTOR).wait(support.PATIENCE)
        assert pace.seen == [False] * 5
        in_doubt = "UPDATE lifecycle_appointments SET in_doubt = :yes WHERE appointment_id = :id"
        support.query(sqlite_url, in_doubt, yes=True, id=ids[2])
        lifecycle.submit_many([{"appointment_id": ids[2]}], command="cancel", actor=support.ACTOR).wait(
            support.PATIENCE
        )
        assert support.states(sqlite_url, ids[2]) == ["applied"]
        assert pace.seen[5:] == [True, True]
        lifecycle.sync()
        support.lose_answer(sandbox, "confirm")
        lifecycle.submit_many([{"appointment_id": ids[1]}], command="confirm", actor=support.ACTOR)
        support.until(lambda: support.states(sqlite_url, ids[1]) == ["uncertain"])
        lifecycle.recover(wait=support.PATIENCE)
        assert set(pace.seen[5:]) == {True}
        assert len(pace.seen) > 10


def test_the_command_line_shares_the_rate(server: Server, sandbox: Sandbox, sqlite_url: str) -> None:
    """Every command that calls Zocdoc keeps to LIFECYCLE_ZOCDOC_RATE, and a wrong one is a usage error."""
    appointment_id = sandbox.add()
    environ = settings_for(server, sqlite_url)
    begun = time.monotonic()
    for command in ("track", "confirm"):
        assert invoke(command, appointment_id, **environ, LIFECYCLE_ZOCDOC_RATE="60/min").exit_code == 0
    assert support.calls(sandbox)[1].at - begun > 1.0
    wrong = invoke("confirm", appointment_id, **environ, LIFECYCLE_ZOCDOC_RATE="fast")
    assert_error(wrong, 2, "LIFECYCLE_ZOCDOC_RATE", "20/s")


@pytest.mark.parametrize("rate", ["fast", "0/s", ""])
def test_a_rate_that_is_none_is_refused(rate: str, sqlite_url: str) -> None:
    """`shared` names what to write."""
    with pytest.raises(errors.ConfigurationError, match="20/s"):
        rates.shared(sqlite_url, rate)
