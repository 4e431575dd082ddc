"""What runs beside the door goes on, whatever happens to one run of it."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from lifecycle import Lifecycle, jobs
from lifecycle.job import Job
from tests import support
from tests.conftest import FAST
from tests.test_inbox import KEY, body, signed

if TYPE_CHECKING:
    import pytest

    from lifecycle import ZocdocClient
    from lifecycle.sandbox import Sandbox


def test_a_failure_is_logged_by_its_type_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    """Its text may quote anything, so it stays out; after a success the pauses are short again."""
    runs: list[int] = []

    def work() -> float:
        runs.append(1)
        if len(runs) < 3:
            raise ValueError("Jane Canary")
        return 60.0

    job = Job("odd", work)
    with caplog.at_level(logging.DEBUG):
        job.start()
        support.until(lambda: len(runs) == 3)
        job.wake()
        support.until(lambda: len(runs) == 4)
        job.stop()
        job.join(support.PATIENCE)
    assert [(each.message, vars(each)["job"], vars(each)["error"]) for each in caplog.records] == [
        ("job_failed", "odd", "ValueError")
    ] * 2
    assert "Canary" not in caplog.text


def test_a_job_that_was_stopped_does_nothing_more() -> None:
    """Not even what was asked for meanwhile."""
    runs: list[int] = []
    job = Job("late", lambda: float(len(runs.append(1) or runs)), delay=60.0)  # type: ignore[func-returns-value]
    job.start()
    job.stop()
    job.wake()
    job.join(5)
    assert runs == []


def test_the_inbox_waits_for_what_is_another_processs(
    lifecycle: Lifecycle, sandbox: Sandbox, client: ZocdocClient, database_url: str
) -> None:
    """What is due but cannot be taken here is looked at once a second, not all the time."""
    del client
    appointment_id = support.tracked(lifecycle, sandbox, status="confirmed")
    with Lifecycle(database_url, timing=FAST, webhook_keys=[KEY]) as without_client:
        content = body(appointment_id)
        without_client.receive_webhook(signed(content), content)
        job = jobs.inbox(without_client, track_unknown=False)
        begun = time.monotonic()
        assert job._work() == jobs.POLL
        assert time.monotonic() - begun < 5
    assert lifecycle.waiting_deliveries() == 1


def test_the_inbox_goes_on_at_once_while_there_is_more(
    database_url: str, client: ZocdocClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stops in between, so that a long backlog does not keep the server from stopping."""
    monkeypatch.setattr(jobs, "_AT_ONCE", 2)
    with Lifecycle(database_url, zocdoc=client, timing=FAST, webhook_keys=[KEY]) as lifecycle:
        for number in range(3):
            content = body(f"unknown-{number}")
            lifecycle.receive_webhook(signed(content), content)
        job = jobs.inbox(lifecycle, track_unknown=False)
        assert job._work() < 0.1
        assert lifecycle.waiting_deliveries() == 1
        assert job._work() == jobs.POLL
        assert lifecycle.waiting_deliveries() == 0
