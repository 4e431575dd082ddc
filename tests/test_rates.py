"""All processes of a database keep to one rate together, at the stand-in; nobody waits behind background work."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from lifecycle import errors, rates, zocdoc
from lifecycle.zocdoc import NotSent, Reason, timing
from tests import support
from tests.benchmarks.rate import most_in_a_second

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lifecycle import Lifecycle, ZocdocClient
    from lifecycle.rates import SharedPace
    from lifecycle.sandbox import Sandbox, Server

TICK = 0.051
"""Seconds between two requests at 20/s."""

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


def gaps(instants: list[float]) -> list[float]:
    """Tell the seconds between each instant and the next."""
    return [after - before for before, after in zip(instants, instants[1:], strict=False)]


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


def test_four_processes_keep_to_one_rate_and_use_it(database_url: str, server: Server, sandbox: Sandbox) -> None:
    """At 20/s over 4 processes, never more than 21 requests arrive in a second, and at least 95% of the quota is used."""
    sandbox.add("mine", booked_by="user:7")
    token = sandbox.user_token("7")
    processes = [started(database_url, server.base_url, token, 4.0) for _ in range(4)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    arrivals = [entry.at for entry in support.calls(sandbox)]
    assert most_in_a_second(arrivals) <= 21
    assert len(arrivals) - 1 >= 0.95 * 20 * (arrivals[-1] - arrivals[0])
    assert arrivals[-1] - arrivals[0] > 3.5


def test_every_send_counts(paced: ZocdocClient, pace: SharedPace, sandbox: Sandbox) -> None:
    """A command, a read, a list and the repeat after a 401 each take a slot; a token takes none."""
    appointment_id = sandbox.add()
    paced.get(appointment_id)
    support.arm(sandbox, kind="answer", operation="confirm", status=401)
    paced.confirm(appointment_id)
    next(paced.list())
    arrivals = [entry.at for entry in support.calls(sandbox)]
    assert len(arrivals) == 4
    assert len([each for each in sandbox.ledger.entries() if each.operation == "token"]) == 2
    assert min(gaps(arrivals)) > TICK / 2
    assert arrivals[-1] - arrivals[0] > 2.5 * TICK
    assert slots(pace, 1)[0] > timing.clock() - 1


def test_a_repeat_after_a_429_waits_for_a_slot_too(paced: ZocdocClient, sandbox: Sandbox) -> None:
    """A request that is sent again is a request: it stands in line."""
    appointment_id = sandbox.add()
    support.arm(sandbox, kind="answer", operation="confirm", status=429)
    assert isinstance(paced.confirm(appointment_id), zocdoc.Applied)
    paced.get(appointment_id)
    first, second, third = [entry.at for entry in support.calls(sandbox)]
    assert second - first >= 0.25
    assert third - second > TICK / 2


def test_slots_are_spaced_evenly_and_an_idle_pace_gives_one_at_once(pace: SharedPace) -> None:
    """No burst follows a rest; a call after a rest does not wait."""
    slots(pace, 1)
    time.sleep(0.3)
    begun = timing.clock()
    found = slots(pace, 6)
    assert found[0] - begun < TICK
    assert min(gaps(found)) > TICK / 2
    assert found[-1] - found[0] > 4.5 * TICK


def test_a_call_that_somebody_waits_for_passes_background_work(pace: SharedPace) -> None:
    """With 32 background threads at 20/s an interactive call waits less than 300 ms; those threads go on."""
    end = timing.clock() + 1.8
    sent: list[float] = []

    def work() -> None:
        with zocdoc.background():
            while timing.clock() < end and pace.wait(timing.Budget.of(30.0)):
                sent.append(timing.clock())

    threads = [threading.Thread(target=work) for _ in range(32)]
    for thread in threads:
        thread.start()
    waits = []
    for _ in range(5):
        time.sleep(0.3)
        begun = timing.clock()
        slots(pace, 1)
        waits.append(timing.clock() - begun)
    for thread in threads:
        thread.join()
    assert max(waits) < 0.3
    assert len(sent) > 45


def test_a_slot_that_comes_too_late_is_neither_waited_for_nor_taken(pace: SharedPace) -> None:
    """A call whose budget ends before the next slot is refused at once, and leaves the slot to others."""
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
    pace.hold(5.0)
    appointment_id = sandbox.add()
    outcome = paced.confirm(appointment_id, send_before=zocdoc.clock() + 1.0)
    assert outcome == NotSent(Reason.RATE_LIMITED)
    assert support.calls(sandbox) == []


def test_a_429_to_one_process_holds_all(database_url: str, server: Server, sandbox: Sandbox) -> None:
    """The pause after a 429 lasts as long as Retry-After says, for other processes too, also for slots booked before."""
    appointment_id = sandbox.add()
    with (
        closing(rates.shared(database_url, "20/s")) as ours,
        closing(rates.shared(database_url, "20/s")) as theirs,
        support.client_of(server, pace=ours) as client,
    ):
        slots(theirs, 1)
        booked = [threading.Thread(target=slots, args=(theirs, 1)) for _ in range(8)]
        for thread in booked:
            thread.start()
        support.arm(sandbox, kind="answer", operation="confirm", status=429, headers={"Retry-After": "2"})
        with support.in_background(lambda: client.confirm(appointment_id)) as results:
            support.until(lambda: support.calls(sandbox))
            told = timing.clock()
            time.sleep(0.2)
            assert slots(theirs, 1)[0] - told > 1.8
        for thread in booked:
            thread.join()
    assert isinstance(results[0], zocdoc.Applied)


def test_a_hostile_retry_after_stops_the_others_for_seconds_only(pace: SharedPace) -> None:
    """Five seconds is the most that one 429 holds back."""
    pace.hold(86_400.0)
    assert not pace.wait(timing.Budget.of(4.0))
    begun = timing.clock()
    assert 4.0 < slots(pace, 1)[0] - begun < 6.0
