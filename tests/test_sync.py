"""Sync: the whole list is read whatever moves, what differs is followed, and a killed run goes on."""

from __future__ import annotations

import signal
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from lifecycle import ConfigurationError, Lifecycle, SyncFailed, paging
from tests.conftest import machine_client
from tests.support import (
    ACTOR,
    arm,
    assert_history,
    gets,
    in_background,
    lose_answer,
    opened,
    program,
    query,
    send,
    together,
    tracked,
    until,
    user_client,
)

if TYPE_CHECKING:
    from lifecycle import SyncReport, ZocdocClient
    from lifecycle.sandbox import Sandbox, Server

FIXTURES = 10
"""Appointments that the stand-in has from its beginning, booked machine-to-machine."""

PAST = datetime(2026, 1, 1, tzinfo=UTC)
NOTHING = {
    "tracked": 0,
    "changed": 0,
    "missed": 0,
    "unchanged": 0,
    "busy": 0,
    "foreign": 0,
    "unreadable": 0,
    "resumed": False,
}


def counts(report: SyncReport) -> dict[str, Any]:
    """Give what a report counts, without what the machine and the paging decide."""
    return {name: value for name, value in asdict(report).items() if name not in {"rows", "pages", "seconds"}}


def known(url: str) -> set[str]:
    """Give the ids of all appointments that are tracked."""
    return {row["appointment_id"] for row in query(url, "SELECT appointment_id FROM lifecycle_appointments")}


def cursor(url: str, cursor_id: str) -> dict[str, Any]:
    """Give a cursor's row as stored."""
    [row] = query(url, "SELECT * FROM lifecycle_sync_cursors WHERE cursor_id = :id", id=cursor_id)
    return row


def lists(sandbox: Sandbox) -> int:
    """Count the calls of the list."""
    return len(sandbox.ledger.entries(operation="list"))


def test_nothing_at_zocdoc(lifecycle: Lifecycle, sandbox: Sandbox, server: Server, database_url: str) -> None:
    """An empty list is read in one page, and the next sync begins from there."""
    with user_client(server, "nobody") as nobody, opened(database_url, _as_machine(nobody)) as empty:
        assert counts(empty.sync()) == NOTHING
        assert cursor(database_url, "delta")["modified_through"] is not None
        assert counts(empty.sync()) == NOTHING
    assert lists(sandbox) == 2
    assert list(lifecycle.appointments()) == []


def _as_machine(client: ZocdocClient) -> ZocdocClient:
    client._identity = "machine"
    return client


def test_the_first_sync_tracks_everything(lifecycle: Lifecycle, sandbox: Sandbox, database_url: str) -> None:
    """Each appointment gets its row and first event, as if it had been tracked alone."""
    report = lifecycle.sync(actor="job:nightly")
    assert counts(report) == NOTHING | {"tracked": FIXTURES, "missed": FIXTURES}
    assert (report.rows, report.pages) == (FIXTURES, 1)
    for found in lifecycle.appointments():
        remote = sandbox.appointment(found.appointment_id)
        [event] = lifecycle.history(found.appointment_id)
        assert (found.status, found.start_time, found.booked_with) == (remote.status, remote.start, "machine")
        assert (event.event, event.source, event.actor) == ("appointment_tracked", "sync", "job:nightly")
        assert (event.occurred_at, event.to_status) == (remote.modified, remote.status)
    assert cursor(database_url, "full")["finished_at"] is not None
    assert cursor(database_url, "delta")["modified_through"] == cursor(database_url, "full")["started_at"]


def test_a_delta_reads_what_was_modified_since(lifecycle: Lifecycle, sandbox: Sandbox, database_url: str) -> None:
    """What changed long ago is not read again; what is new or changed is."""
    sandbox.add_many(50, modified=PAST)
    assert lifecycle.sync().rows == 50 + FIXTURES
    moved = next(
        iter(known(database_url) - {each.appointment_id for each in lifecycle.appointments(status="cancelled")})
    )
    sandbox.change(moved, status="cancelled")
    new = sandbox.add()
    report = lifecycle.sync()
    assert report.rows < 50
    assert counts(report) == NOTHING | {
        "tracked": 1,
        "changed": 1,
        "missed": 2,
        "unchanged": report.rows - 2,
    }
    assert lifecycle.get(moved).status == "cancelled"
    assert lifecycle.history(moved)[-1].source == "sync"
    assert lifecycle.get(new).status == "pending_booking"


def test_the_overlap_is_read_again(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """Rows of the minutes before the last sync are compared again, for nothing else than a list that lagged behind."""
    lifecycle.sync()
    assert lifecycle.sync().rows == FIXTURES
    assert lifecycle.sync(overlap=0).rows == 0
    sandbox.add_many(1, prefix="late-", modified=datetime.now(UTC) - timedelta(seconds=300))
    assert lifecycle.sync(overlap=0).tracked == 0
    assert lifecycle.sync().tracked == 1


def test_more_than_a_thousand(lifecycle: Lifecycle, sandbox: Sandbox, database_url: str) -> None:
    """Zocdoc's bound of 1,000 rows is no bound: each page begins where the last one ended."""
    ids = sandbox.add_many(1_250, modified=PAST)
    report = lifecycle.sync()
    assert counts(report) == NOTHING | {"tracked": 1_250 + FIXTURES, "missed": 1_250 + FIXTURES}
    assert report.rows == 1_250 + FIXTURES
    assert set(ids) <= known(database_url)
    assert not [entry for entry in sandbox.ledger.entries(operation="list") if "&page=1" in entry.query]


@pytest.mark.parametrize("count", [99, 100, 101, 250, 990])
def test_many_in_one_instant(sqlite_url: str, sandbox: Sandbox, client: ZocdocClient, count: int) -> None:
    """Where one instant fills pages, they are asked for by number."""
    sandbox.add_many(50, prefix="before-", modified=PAST - timedelta(seconds=1))
    sandbox.add_many(count, modified=PAST, step=timedelta(0))
    sandbox.add_many(50, prefix="after-", modified=PAST + timedelta(microseconds=1), step=timedelta(microseconds=1))
    with opened(sqlite_url, client) as lifecycle:
        assert lifecycle.sync().tracked == count + 100 + FIXTURES


def test_more_than_a_thousand_in_one_instant(lifecycle: Lifecycle, sandbox: Sandbox, database_url: str) -> None:
    """Where no filter tells the rows of an instant apart, the error names it; the rest is read, and sync goes on."""
    sandbox.add_many(1_001, modified=PAST, step=timedelta(0), status="confirmed", start_time="2027-01-01T09:00:00Z")
    with pytest.raises(SyncFailed, match="instant_too_crowded") as failed:
        lifecycle.sync()
    assert failed.value.instant == "2026-01-01T00:00:00.000000Z"
    assert "track" in str(failed.value)
    others = known(database_url) - {f"many-{number:06}" for number in range(1_001)}
    assert len(others) == FIXTURES
    assert counts(lifecycle.sync(overlap=0))["resumed"]
    assert counts(lifecycle.sync())["unchanged"] == FIXTURES


def test_an_instant_is_told_apart_by_start_and_status(sqlite_url: str, sandbox: Sandbox, client: ZocdocClient) -> None:
    """Neither alone is enough here: 1,100 rows share instant and start, 1,350 share the instant."""
    same: dict[str, Any] = {"modified": PAST, "step": timedelta(0)}
    sandbox.add_many(600, prefix="a-", start_time="2027-01-01T09:00:00Z", status="confirmed", **same)
    sandbox.add_many(500, prefix="b-", start_time="2027-01-01T09:00:00Z", status="cancelled", **same)
    sandbox.add_many(250, prefix="c-", start_time="2027-01-02T09:00:00Z", status="cancelled", **same)
    with opened(sqlite_url, client) as lifecycle:
        assert lifecycle.sync().tracked == 1_350 + FIXTURES


def test_a_status_that_no_filter_names_is_not_lost_silently(
    sqlite_url: str, sandbox: Sandbox, client: ZocdocClient
) -> None:
    """Zocdoc's own count shows that rows fell between the filters."""
    same: dict[str, Any] = {"modified": PAST, "step": timedelta(0), "start_time": "2027-01-01T09:00:00Z"}
    sandbox.add_many(1_001, prefix="a-", status="waitlisted", **same)
    with opened(sqlite_url, client) as lifecycle, pytest.raises(SyncFailed, match="instant_too_crowded"):
        lifecycle.sync()
    assert len(known(sqlite_url)) < 1_001


def test_rows_that_move_while_we_page_are_not_skipped(
    lifecycle: Lifecycle, sandbox: Sandbox, database_url: str
) -> None:
    """A row that changes moves to the end of the list; its neighbours do not slip through between two pages."""
    ids = sandbox.add_many(450, modified=PAST)
    moved = iter(ids[::9])

    def change(_rows: int, _total: int | None) -> None:
        for _ in range(8):
            each = next(moved, None)
            if each is not None:
                sandbox.change(each, status="cancelled")

    lifecycle.sync(on_progress=change)
    assert set(ids) <= known(database_url)
    lifecycle.sync()
    assert [lifecycle.get(each).status for each in ids] == [sandbox.status_of(each) for each in ids]


def test_rows_that_leave_a_crowded_instant_hide_no_other(
    sqlite_url: str, sandbox: Sandbox, client: ZocdocClient
) -> None:
    """There pages are read by number, and shift; the instant is read again until it was calm."""
    ids = sandbox.add_many(450, modified=PAST, step=timedelta(0))
    leaving = iter(ids[:6])

    def change(_rows: int, _total: int | None) -> None:
        each = next(leaving, None)
        if each is not None:
            sandbox.change(each, status="cancelled")

    with opened(sqlite_url, client) as lifecycle:
        lifecycle.sync(on_progress=change)
        assert set(ids) <= known(sqlite_url)
        assert {lifecycle.get(each).status for each in ids[:6]} == {"cancelled"}


KILLED = """
import os, signal
from lifecycle import points
left = int(sys.argv[5])
def die(point):
    global left
    if point == sys.argv[6]:
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
with Lifecycle(url, zocdoc=client, timing=timing) as lifecycle, points.armed(die):
    lifecycle.sync(full="full" in sys.argv)
"""


@pytest.mark.parametrize("passed", ["1 after_commit", "3 before_commit", "4 after_commit"])
def test_a_killed_run_goes_on(
    database_url: str, sandbox: Sandbox, server: Server, client: ZocdocClient, passed: str
) -> None:
    """A kill -9 at any transaction: pages that were stored are not read again, and nothing is missing."""
    ids = sandbox.add_many(600, modified=PAST)
    child = program(KILLED, database_url, server, *passed.split())
    assert child.wait(60) == -signal.SIGKILL, child.communicate()
    child.communicate()
    assert cursor(database_url, "full")["finished_at"] is None
    stored, before = known(database_url), lists(sandbox)
    with opened(database_url, client) as lifecycle:
        report = lifecycle.sync(overlap=0)
        assert report.resumed
        assert report.tracked + len(stored) == 600 + FIXTURES
        assert set(ids) <= known(database_url)
        assert lists(sandbox) - before <= 8 - len(stored) // 100
        assert not lifecycle.sync().resumed
    assert cursor(database_url, "full")["rows_read"] >= 600 + FIXTURES


def test_a_full_run_reads_everything_again(lifecycle: Lifecycle, sandbox: Sandbox, database_url: str) -> None:
    """Even what a delta would not look at; and it can be killed and resumed as the first one."""
    sandbox.add_many(250, modified=PAST)
    lifecycle.sync()
    query(database_url, "UPDATE lifecycle_sync_cursors SET modified_through = NULL WHERE cursor_id = 'full'")
    sandbox.add_many(1, prefix="old-", modified=PAST - timedelta(days=1))
    assert lifecycle.sync().tracked == 0
    report = lifecycle.sync(full=True)
    assert counts(report) == NOTHING | {"tracked": 1, "missed": 1, "unchanged": 250 + FIXTURES}
    assert cursor(database_url, "delta")["modified_through"] == cursor(database_url, "full")["started_at"]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"kind": "answer", "status": 500, "times": 1}, "server_error"),
        ({"kind": "answer", "status": 403, "times": 1}, "forbidden"),
        ({"kind": "drip_body", "seconds": 0.5, "times": 1}, None),
    ],
)
def test_a_failure_in_the_middle(
    database_url: str, sandbox: Sandbox, server: Server, fault: dict[str, Any], reason: str | None
) -> None:
    """The error says what happened; what was read is stored, and the next run goes on from there."""
    sandbox.add_many(300, modified=PAST)
    with machine_client(server, deadline=3.0) as client, opened(database_url, client) as lifecycle:

        def fail(rows: int, _total: int | None) -> None:
            if rows == 100:
                arm(sandbox, operation="list", **fault)

        with pytest.raises(SyncFailed) as failed:
            lifecycle.sync(on_progress=fail)
        assert reason in {None, failed.value.reason_code}
        assert len(known(database_url)) == 100
        report = lifecycle.sync()
        assert (report.resumed, report.tracked) == (True, 200 + FIXTURES)


def test_rows_of_other_credentials_are_left(database_url: str, sandbox: Sandbox, server: Server) -> None:
    """A row that is tracked as booked by a user is followed with that user's client, or not at all."""
    with machine_client(server) as client:
        mine = sandbox.add()
        with opened(database_url, client) as lifecycle:
            lifecycle.track(mine, actor=ACTOR)
            query(database_url, "UPDATE lifecycle_appointments SET booked_with = 'user:42'")
            sandbox.change(mine, status="cancelled")
            assert counts(lifecycle.sync()) == NOTHING | {"tracked": FIXTURES, "missed": FIXTURES, "foreign": 1}
            assert lifecycle.get(mine).status == "pending_booking"

        def broken(_user: str) -> ZocdocClient | None:
            raise RuntimeError

        with opened(database_url, client, user_client=broken) as lifecycle:
            assert lifecycle.sync().foreign == 1


def test_sync_needs_the_machines_credential(database_url: str, server: Server) -> None:
    """A user's list is another list, and the cursor is one."""
    with user_client(server, "7") as user, opened(database_url, user) as lifecycle, pytest.raises(ConfigurationError):
        lifecycle.sync()
    with opened(database_url, None) as lifecycle, pytest.raises(ConfigurationError):
        lifecycle.sync()


def test_nothing_is_stored_while_a_command_is_active(lifecycle: Lifecycle, sandbox: Sandbox, database_url: str) -> None:
    """The row is counted as busy, and the cursor stays behind it until it was looked at."""
    found = tracked(lifecycle, sandbox)
    lifecycle.sync()
    lose_answer(sandbox, "confirm")
    with pytest.raises(Exception, match="unknown outcome"):
        send(lifecycle, "confirm", found)
    sandbox.change(found, status="cancelled")
    busy = sandbox.appointment(found).modified
    sandbox.add_many(3, prefix="after-", modified=busy + timedelta(seconds=0.01))
    report = lifecycle.sync(overlap=0)
    assert (report.busy, report.changed, report.tracked) == (1, 0, 3)
    assert gets(sandbox, found) == 1
    through = cursor(database_url, "delta")["modified_through"]
    through = through if isinstance(through, datetime) else datetime.fromisoformat(through)
    assert through == busy
    query(database_url, "UPDATE lifecycle_commands SET state = 'rejected', ended_at = created_at, run_at = NULL")
    again = lifecycle.sync(overlap=0)
    assert (again.busy, again.changed) == (0, 1)
    assert lifecycle.get(found).status == "cancelled"


def test_what_a_webhook_told_is_not_missed(lifecycle: Lifecycle, sandbox: Sandbox, database_url: str) -> None:
    """Only changes that no delivery told of since the last look count as missed."""
    told, untold = tracked(lifecycle, sandbox), tracked(lifecycle, sandbox)
    lifecycle.sync()
    sandbox.change(told, status="cancelled")
    sandbox.change(untold, status="cancelled")
    for appointment_id, at in ((told, datetime.now(UTC)), (untold, PAST)):
        query(
            database_url,
            "INSERT INTO lifecycle_webhook_deliveries (delivery_id, state, copies, is_stale, appointment_id, signed_at,"
            " received_at, last_received_at, attempts, run_at)"
            " VALUES (:id, 'received', 1, false, :id, :at, :at, :at, 0, :at)",
            id=appointment_id,
            at=at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        )
    report = lifecycle.sync()
    assert (report.changed, report.missed) == (2, 1)


def test_unreadable_rows_are_counted(lifecycle: Lifecycle, sandbox: Sandbox, database_url: str) -> None:
    """A row without a sound status is left out and told; the others of its page are stored."""
    sandbox.add("odd-1", status="\n")
    report = lifecycle.sync()
    assert (report.unreadable, report.tracked, report.rows) == (1, FIXTURES, FIXTURES + 1)
    assert "odd-1" not in known(database_url)


def test_an_appointment_that_cannot_be_read_holds_only_itself_up(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """One failed read is tried again by the next run; three in a row mean that Zocdoc is unwell."""
    ids = [tracked(lifecycle, sandbox) for _ in range(4)]
    lifecycle.sync()
    for each in ids:
        sandbox.change(each, status="cancelled")
    arm(sandbox, kind="answer", status=500, operation="get", appointment_id=ids[1], times=2)
    report = lifecycle.sync()
    assert (report.changed, report.busy) == (3, 1)
    assert lifecycle.sync().changed == 1
    for each in ids:
        sandbox.change(each, status="confirmed")
    arm(sandbox, kind="answer", status=500, operation="get", times=9)
    with pytest.raises(SyncFailed, match="server_error"):
        lifecycle.sync()
    sandbox.faults.clear()
    assert lifecycle.sync().changed == 4


def test_an_unchanged_row_notes_that_it_was_seen(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """A modification that changes nothing here moves the modification time, and writes no event."""
    found = tracked(lifecycle, sandbox)
    lifecycle.sync()
    sandbox.change(found, notes="x")
    assert lifecycle.get(found).remote_last_modified != sandbox.appointment(found).modified
    report = lifecycle.sync()
    assert (report.changed, report.unchanged) == (0, FIXTURES + 1)
    assert lifecycle.get(found).remote_last_modified == sandbox.appointment(found).modified
    assert_history(lifecycle, found, [])


def test_two_at_once(database_url: str, sandbox: Sandbox, server: Server) -> None:
    """Both end well, every appointment is tracked once, and the cursor is where one run alone had left it."""
    ids = sandbox.add_many(700, modified=PAST)

    def run(index: int) -> Any:
        with machine_client(server) as client, opened(database_url, client) as lifecycle:
            return lifecycle.sync(full=index == 0)

    reports = together(2, run)
    assert sum(report.tracked for report in reports) == 700 + FIXTURES
    assert set(ids) <= known(database_url)
    assert cursor(database_url, "full")["finished_at"] is not None
    assert cursor(database_url, "delta")["modified_through"] == cursor(database_url, "full")["started_at"]


def test_an_older_run_does_not_move_the_cursor(
    database_url: str, sandbox: Sandbox, server: Server, client: ZocdocClient
) -> None:
    """The run that began last owns the cursor; an older one that wakes up stores its rows and leaves it alone."""
    sandbox.add_many(300, modified=PAST)
    seen: list[Any] = []
    with opened(database_url, client) as lifecycle:
        lifecycle.sync()

        def overtake(_rows: int, _total: int | None) -> None:
            if not seen:
                with machine_client(server) as other, opened(database_url, other) as newer:
                    newer.sync()
                seen.append(cursor(database_url, "delta"))

        lifecycle.sync(on_progress=overtake)
    assert cursor(database_url, "delta") == seen[0]


def test_a_list_out_of_order_is_refused(sandbox: Sandbox, client: ZocdocClient) -> None:
    """Going on from the last row would skip some, so it is an error rather than a gap."""
    sandbox.add_many(120, modified=PAST)

    class Backwards:
        def list_page(self, **arguments: Any) -> Any:
            return client.list_page(**(arguments | {"sort_direction": "descending"}))

    with pytest.raises(SyncFailed, match="list_not_in_order"):
        list(paging.walk(Backwards(), since=None))  # type: ignore[arg-type] # the one method that is used


@pytest.mark.parametrize("grain", [1, 1_000, 1_000_000])
@pytest.mark.parametrize("inclusive", [True, False])
@pytest.mark.parametrize("coarse", [("_min", "_max"), ("_max",)])
def test_bounds_that_are_read_coarsely(
    sandbox: Sandbox, client: ZocdocClient, *, grain: int, inclusive: bool, coarse: tuple[str, ...]
) -> None:
    """Zocdoc may cut its bounds to milliseconds or seconds, and include them or not: every row is read all the same."""
    first = PAST + timedelta(microseconds=123_456)
    ids = sandbox.add_many(400, modified=first, step=timedelta(microseconds=7))
    ids += sandbox.add_many(150, prefix="same-", modified=PAST + timedelta(microseconds=200_777), step=timedelta(0))

    class Coarse:
        def list_page(self, **arguments: Any) -> Any:
            for name in list(arguments):
                if name.endswith(coarse) and arguments[name] is not None:
                    cut = arguments[name] - timedelta(microseconds=arguments[name].microsecond % grain)
                    nudge = timedelta(0) if inclusive else timedelta(microseconds=1 if name.endswith("_min") else -1)
                    arguments[name] = cut + nudge
            return client.list_page(**arguments)

    for since in (None, first):
        batches = paging.walk(Coarse(), since=since)  # type: ignore[arg-type] # the one method that is used
        assert set(ids) <= {row.appointment_id for batch in batches for row in batch.rows}


def test_what_was_written_after_the_page_was_asked_for_is_not_confirmed_by_it(
    lifecycle: Lifecycle, sandbox: Sandbox, client: ZocdocClient, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page may be older than our own command, so it does not count as a look at what that one left."""
    found = tracked(lifecycle, sandbox)
    lifecycle.sync()
    sandbox.change(found, notes="x")
    ask = client.list_page

    def then_mark(**arguments: Any) -> Any:
        page = ask(**arguments)
        send(lifecycle, "mark_arrived", found)
        return page

    monkeypatch.setattr(client, "list_page", then_mark)
    lifecycle.sync()
    monkeypatch.undo()
    statement = "SELECT version, observed_version FROM lifecycle_appointments WHERE appointment_id = :id"
    [row] = query(database_url, statement, id=found)
    assert row["observed_version"] < row["version"]
    lifecycle.sync()
    [row] = query(database_url, statement, id=found)
    assert row["observed_version"] == row["version"]


@pytest.mark.parametrize("overlap", [-1, float("nan"), float("inf"), "600"])
def test_an_overlap_is_a_number_of_seconds(lifecycle: Lifecycle, overlap: Any) -> None:
    """What is none is refused before anything is read."""
    with pytest.raises(ValueError, match="overlap"):
        lifecycle.sync(overlap=overlap)


def test_a_sync_beside_commands(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """Commands go on while the list is read."""
    ids = [tracked(lifecycle, sandbox) for _ in range(20)]
    sandbox.add_many(500, modified=PAST)
    with in_background(lambda: lifecycle.sync(full=True)) as reports:
        for each in ids:
            send(lifecycle, "confirm", each)
    assert reports[0].tracked == 500 + FIXTURES
    until(lambda: lifecycle.sync().busy == 0)
    assert {lifecycle.get(each).status for each in ids} == {"confirmed"}
