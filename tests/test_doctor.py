"""Each thing that can be wrong is provoked for real, found, and comes with what to do; nothing else is said."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from lifecycle import Lifecycle, LifecycleError, OutcomeUnknown, Timing, ZocdocClient, points, schema
from lifecycle.doctor import diagnosis, queue, storage, work
from lifecycle.points import Point
from tests import support
from tests.conftest import FAST
from tests.support import ACTOR, LATER
from tests.test_cli import SECRET, invoke, settings_for
from tests.test_inbox import KEY, body, signed

if TYPE_CHECKING:
    from pathlib import Path

    from lifecycle import Check
    from lifecycle.sandbox import Sandbox, Server
    from tests.tampering import Scene

EVERYWHERE = {
    *(
        "database",
        "schema",
        "writable",
        "guards",
        "counts",
        "environment",
        "statuses",
        "recovery",
        "attention",
        "inbox",
    ),
    *("deliveries", "sync", "credentials", "dispatch"),
}
ONLY = {"sqlite": {"pragmas", "wal", "disk"}, "postgresql": {"clock", "workers"}}


def look(lifecycle: Lifecycle, name: str, *, online: bool = False) -> Check:
    """Give the one check of a name."""
    [found] = [check for check in lifecycle.diagnose(online=online).checks if check.name == name]
    return found


def verdict(check: Check) -> tuple[bool | None, str | None]:
    """Shorten a check to whether it is well, and how much it matters."""
    return check.ok, check.severity


def shift(url: str, table: str, column: str, seconds: float, where: str = "1 = 1") -> None:
    """Let time pass for a column."""
    if url.startswith("sqlite"):
        moved = f"strftime('%Y-%m-%dT%H:%M:%f000Z', {column}, '-{seconds} seconds')"
    else:
        moved = f"{column} - interval '{seconds} seconds'"
    support.query(url, f"UPDATE {table} SET {column} = {moved} WHERE {where}")  # noqa: S608 # the test's own


def in_doubt(lifecycle: Lifecycle, sandbox: Sandbox, command: str = "confirm", **details: Any) -> str:
    """Let the answer of a command be lost, and give its appointment."""
    appointment_id = support.tracked(lifecycle, sandbox, **details)
    support.lose_answer(sandbox, "reschedule" if command == "reschedule" else "confirm")
    with pytest.raises(OutcomeUnknown):
        support.send(lifecycle, command, appointment_id)
    return appointment_id


def test_a_sound_installation_is_well(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """Every check that fits the database is made once, is well, and has nothing to say."""
    support.send(lifecycle, "confirm", support.tracked(lifecycle, sandbox))
    lifecycle.sync()
    found = lifecycle.diagnose()
    backend = lifecycle.database.engine.dialect.name
    assert {check.name for check in found.checks} == EVERYWHERE | ONLY[backend]
    assert len(found.checks) == len(EVERYWHERE | ONLY[backend])
    assert {(check.ok, check.severity, check.problem, check.remedy) for check in found.checks} == {
        (True, None, None, None)
    }
    assert found.is_well
    facts = {check.name: check.facts for check in found.checks}
    assert facts["environment"] == {"database": "local", "client": "local"}
    assert facts["database"]["backend"] == backend
    assert json.dumps([dict(each) for each in facts.values()])


def test_everything_is_told_when_there_is_no_database(tmp_path: Path, client: ZocdocClient) -> None:
    """A file that is missing, a folder that is missing, a file of another kind, and a server that is down."""
    (tmp_path / "odd.db").write_text("no database, but long enough to be read as the header of one\n" * 20)
    for url in (
        f"sqlite:///{tmp_path}/none.db",
        f"sqlite:///{tmp_path}/nowhere/none.db",
        f"sqlite:///{tmp_path}/odd.db",
        "postgresql://nobody@127.0.0.1:9/none",
    ):
        with Lifecycle(url, zocdoc=client) as lifecycle:
            first, *others, last = lifecycle.diagnose().checks
        assert (first.name, *verdict(first)) == ("database", False, "error")
        assert "database URL" in (first.remedy or "")
        assert {(check.ok, check.problem) for check in others} == {(None, "the database cannot be used")}
        assert (last.name, last.ok) == ("credentials", True)
    assert not (tmp_path / "none.db").exists()


def test_a_database_without_our_tables(tmp_path: Path, postgres_server: sa.URL, client: ZocdocClient) -> None:
    """The schema is what is wrong; checks of our tables say that they could not be made, the others are made."""
    for url in (_empty_file(tmp_path), postgres_server.render_as_string(hide_password=False)):
        with Lifecycle(url, zocdoc=client) as lifecycle:
            found = lifecycle.diagnose()
        told = {check.name: check for check in found.checks}
        assert verdict(told["schema"]) == (False, "error")
        assert told["schema"].remedy == "run `lifecycle db upgrade`"
        assert told["schema"].facts["found"] is None
        assert {name for name, check in told.items() if check.ok is None} == {
            *("guards", "counts", "environment", "statuses", "recovery", "attention", "inbox", "deliveries", "sync"),
            "dispatch",
            *(("workers",) if "postgres" in str(url) else ()),
        }
        assert not found.is_well


def _empty_file(folder: Path) -> str:
    (folder / "empty.db").touch()
    return f"sqlite:///{folder}/empty.db"


def test_a_schema_of_another_version(lifecycle: Lifecycle, database_url: str) -> None:
    """It names both revisions."""
    [row] = support.query(database_url, "SELECT version_num FROM lifecycle_alembic_version")
    support.query(database_url, "UPDATE lifecycle_alembic_version SET version_num = '9999'")
    found = look(lifecycle, "schema")
    support.query(database_url, f"UPDATE lifecycle_alembic_version SET version_num = '{row['version_num']}'")  # noqa: S608
    assert verdict(found) == (False, "error")
    assert found.facts == {"found": "9999", "expected": row["version_num"]}
    assert "9999" in (found.problem or "")


def test_a_missing_guard_of_the_trail(scene: Scene) -> None:
    """It is named."""
    on = " ON lifecycle_audit_events" if scene.url.startswith("postgresql") else ""
    support.query(scene.url, f"DROP TRIGGER lifecycle_audit_gapless{on}")
    with Lifecycle(scene.url) as lifecycle:
        found = look(lifecycle, "guards")
    assert verdict(found) == (False, "error")
    assert found.facts["differences"] == ("missing trigger lifecycle_audit_gapless",)
    assert "lifecycle verify" in (found.remedy or "")


def test_a_missing_trigger_of_the_counts(scene: Scene) -> None:
    """It is named; one that is merely disabled counts nothing either."""
    is_postgres = scene.url.startswith("postgresql")
    support.query(scene.url, f"DROP TRIGGER lifecycle_batch_counts_insert{' ON lifecycle_commands' * is_postgres}")
    missing = ["missing trigger lifecycle_batch_counts_insert"]
    if is_postgres:
        support.query(scene.url, "ALTER TABLE lifecycle_commands DISABLE TRIGGER lifecycle_batch_counts_update")
        missing.append("missing trigger lifecycle_batch_counts_update")
    with Lifecycle(scene.url) as lifecycle:
        found = look(lifecycle, "counts")
        assert schema.check(lifecycle.database) == missing
    assert verdict(found) == (False, "error")
    assert found.facts["missing"] == tuple(missing)
    assert "migrations" in (found.remedy or "")


def test_a_database_that_takes_no_writes(sqlite_url: str, postgres_url: str) -> None:
    """A file that is opened for reading only, and a server that is read-only."""
    path = sqlite_url.removeprefix("sqlite:///")
    for url in (
        f"sqlite:///file:{path}?mode=ro&uri=true",
        f"{postgres_url}&options=-cdefault_transaction_read_only=on",
    ):
        with Lifecycle(url if "?" in url else url.replace("&", "?", 1)) as lifecycle:
            found = look(lifecycle, "writable")
        assert verdict(found) == (False, "error")
        assert found.remedy


def _with_options(url: str, options: str) -> sa.URL:
    return sa.make_url(url).update_query_dict({"options": options})


@pytest.mark.parametrize(
    ("pragma", "severity"),
    [("synchronous=NORMAL", "error"), ("journal_mode=DELETE", "warning"), ("foreign_keys=OFF", "warning")],
)
def test_a_hosts_engine_with_unsafe_settings(sqlite_url: str, pragma: str, severity: str) -> None:
    """What may lose commits is an error, what only hurts a warning."""
    engine = sa.create_engine(sqlite_url, poolclass=sa.pool.NullPool)

    def prepare(connection: Any, _: object) -> None:
        for each in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", pragma):
            connection.execute(f"PRAGMA {each}")

    sa.event.listen(engine, "connect", prepare)
    with Lifecycle(engine) as lifecycle:
        found = look(lifecycle, "pragmas")
    assert verdict(found) == (False, severity)
    assert pragma.partition("=")[0] in (found.remedy or "")


def test_a_log_that_only_grows(sqlite_url: str, client: ZocdocClient, sandbox: Sandbox, monkeypatch: Any) -> None:
    """While a reader keeps its transaction open the log cannot be emptied."""
    monkeypatch.setattr(storage, "WAL_LIMIT", 100_000)
    with support.opened(sqlite_url, client) as lifecycle:
        support.tracked(lifecycle, sandbox)
        assert look(lifecycle, "wal").ok
        with lifecycle.database.snapshot():
            while not (found := look(lifecycle, "wal")).problem:
                support.tracked(lifecycle, sandbox)
    assert verdict(found) == (False, "warning")
    assert "reader" in (found.remedy or "")


def test_a_disk_that_fills(sqlite_url: str, monkeypatch: Any) -> None:
    """First a warning, then an error."""
    with Lifecycle(sqlite_url) as lifecycle:
        assert look(lifecycle, "disk").ok
        monkeypatch.setattr(storage, "DISK_WARNING", 1024**6)
        assert verdict(look(lifecycle, "disk")) == (False, "warning")
        monkeypatch.setattr(storage, "DISK_ERROR", 1024**6)
        assert verdict(look(lifecycle, "disk")) == (False, "error")


@pytest.mark.parametrize(("offset", "ok"), [("-5", False), ("5", False), ("1", True)])
def test_a_server_with_another_time(postgres_url: str, offset: str, ok: bool) -> None:  # noqa: FBT001 # a parameter
    """Seconds between the clocks are told, with the direction; less than two do no harm."""
    support.query(postgres_url, "CREATE SCHEMA odd")
    support.query(
        postgres_url,
        "CREATE FUNCTION odd.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS "
        f"$$ SELECT pg_catalog.clock_timestamp() + interval '{offset} seconds' $$",
    )
    with Lifecycle(_with_options(postgres_url, "-c search_path=odd,pg_catalog,public")) as lifecycle:
        found = look(lifecycle, "clock")
    assert found.ok is ok
    uncertain = float(str(found.facts["round_trip_ms"])) / 2000
    assert found.facts["skew_seconds"] == pytest.approx(float(offset), abs=0.5 + uncertain)
    if not ok:
        assert found.severity == "warning"
        assert ("ahead" if offset == "5" else "behind") in (found.problem or "")


def test_a_slow_answer_is_no_other_time(postgres_url: str) -> None:
    """Half of the round trip is taken off."""
    support.query(postgres_url, "CREATE SCHEMA odd")
    support.query(
        postgres_url,
        "CREATE FUNCTION odd.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql AS $$ "
        "DECLARE now timestamptz; BEGIN "
        "PERFORM pg_sleep(0.2); now := pg_catalog.clock_timestamp(); PERFORM pg_sleep(0.2); RETURN now; END $$",
    )
    with Lifecycle(_with_options(postgres_url, "-c search_path=odd,pg_catalog,public")) as lifecycle:
        looks = (look(lifecycle, "clock").facts for _ in range(5))
        # Half is right for an answer that took as long as its question; on a busy machine not each of them does.
        facts = next(facts for facts in looks if facts["skew_seconds"] == pytest.approx(0, abs=0.1))
    assert isinstance(facts["round_trip_ms"], float)
    assert facts["round_trip_ms"] >= 400


def test_a_client_of_another_environment(lifecycle: Lifecycle, sandbox: Sandbox, database_url: str) -> None:
    """The stamp of the database and the client's environment are both named."""
    support.tracked(lifecycle, sandbox)
    with (
        ZocdocClient.for_environment("sandbox", access_token="t") as other,
        support.opened(database_url, other) as product,
    ):
        found = look(product, "environment")
    assert verdict(found) == (False, "error")
    assert found.facts == {"database": "local", "client": "sandbox"}


def test_statuses_that_the_chart_does_not_know(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """They are counted and named, and known ones are not."""
    for status in ("confirmed", "teleported", "teleported", "beamed_up", "cancelled"):
        support.tracked(lifecycle, sandbox, status=status)
    found = look(lifecycle, "statuses")
    assert verdict(found) == (False, "warning")
    assert found.facts == {"unknown": ("beamed_up", "teleported"), "appointments": 3}
    assert "teleported (2)" in (found.problem or "")


def test_recovery_that_does_not_run(lifecycle: Lifecycle, sandbox: Sandbox, database_url: str) -> None:
    """Commands in doubt, and those whose sender died, are told a minute after they were due, until they are settled."""
    in_doubt(lifecycle, sandbox)

    def die(point: Point) -> None:
        if point is Point.INTENT_COMMITTED:
            raise KeyboardInterrupt

    appointment_id = support.tracked(lifecycle, sandbox)
    with points.armed(die), pytest.raises(KeyboardInterrupt):
        lifecycle.confirm(appointment_id, actor=ACTOR)
    assert sorted(support.states(database_url)) == ["sending", "uncertain"]
    assert look(lifecycle, "recovery").ok
    shift(database_url, "lifecycle_commands", "run_at", 3600)
    found = look(lifecycle, "recovery")
    assert verdict(found) == (False, "error")
    assert (found.facts["sending"], found.facts["uncertain"]) == (1, 1)
    assert "lifecycle recover" in (found.remedy or "")
    lifecycle.recover(wait=10.0)
    assert look(lifecycle, "recovery").ok


def test_queued_commands_that_nobody_sends(
    lifecycle: Lifecycle, sandbox: Sandbox, database_url: str, client: ZocdocClient
) -> None:
    """A minute after they were due; once somebody has the credential and dispatches, they are gone."""
    appointment_id = support.tracked(lifecycle, sandbox)
    with support.opened(database_url, None) as without_credential:
        submission = without_credential.submit("confirm", appointment_id, actor=ACTOR)
        fresh = look(without_credential, "dispatch")
        assert (fresh.ok, fresh.facts["queued"]) == (True, 1)
        shift(database_url, "lifecycle_commands", "due_at", 3600)
        found = look(without_credential, "dispatch")
    assert verdict(found) == (False, "error")
    assert found.facts["lag_seconds"] == pytest.approx(3600, abs=30)
    assert "lifecycle worker" in (found.remedy or "")
    with support.opened(database_url, client) as other:
        other.recover()
        assert other.submission(submission.id).wait(20.0)
    assert look(lifecycle, "dispatch").facts == {"queued": 0, "lag_seconds": 0.0}


def test_queued_commands_that_others_overtake(lifecycle: Lifecycle, sandbox: Sandbox, database_url: str) -> None:
    """Somebody dispatches, but has not the credential of who booked: to be looked at, after an hour."""
    one, other = (support.tracked(lifecycle, sandbox) for _ in range(2))
    with support.opened(database_url, None) as without_credential:
        without_credential.submit("confirm", other, actor=ACTOR)
    support.query(database_url, "UPDATE lifecycle_appointments SET booked_with = 'user:9' WHERE in_doubt = (1 = 0)")
    support.query(
        database_url, "UPDATE lifecycle_appointments SET booked_with = 'machine' WHERE appointment_id = :id", id=one
    )
    assert lifecycle.submit("confirm", one, actor=ACTOR).wait(20.0)
    for seconds, expected in ((600, (True, None)), (7200, (False, "warning"))):
        shift(database_url, "lifecycle_commands", "due_at", seconds, "due_at IS NOT NULL")
        found = look(lifecycle, "dispatch")
        assert verdict(found) == expected
    assert "credentials of who booked" in (found.remedy or "")


def test_workers_that_are_missing_or_silent(postgres_url: str, client: ZocdocClient, sandbox: Sandbox) -> None:
    """No tables, nobody alive while commands are queued, nobody at all, a silent one, and one that lives."""

    def judge(name: str) -> tuple[bool | None, str | None]:
        found = diagnosis.diagnose(it._resources, dispatch=name, online=False)
        [check] = [each for each in found.checks if each.name == "workers"]
        assert check.ok or check.remedy
        return verdict(check)

    with support.opened(postgres_url, client) as it, support.opened(postgres_url, None) as without_credential:
        assert judge("inline") == (True, None)
        assert judge("procrastinate") == (False, "error")
        support.query(postgres_url, "CREATE TABLE procrastinate_jobs (id bigint)")
        support.query(postgres_url, "CREATE TABLE procrastinate_workers (id bigint, last_heartbeat timestamptz)")
        assert (judge("inline"), judge("procrastinate")) == ((True, None), (False, "warning"))
        submission = without_credential.submit("confirm", support.tracked(it, sandbox), actor=ACTOR)
        assert (judge("inline"), judge("procrastinate")) == ((True, None), (False, "error"))
        support.query(postgres_url, "INSERT INTO procrastinate_workers VALUES (1, now() - interval '20 seconds')")
        assert (judge("inline"), judge("procrastinate")) == ((True, None), (True, None))
        support.query(postgres_url, "INSERT INTO procrastinate_workers VALUES (2, now() - interval '40 seconds')")
        assert (judge("inline"), judge("procrastinate")) == ((False, "warning"), (False, "warning"))
        assert submission.withdraw(actor=ACTOR)


def test_commands_that_need_a_human(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """They are counted; they are a warning, because everything works."""
    in_doubt(lifecycle, sandbox, "reschedule", status="confirmed")
    support.arm(sandbox, kind="answer", operation="get", status=500, times=3)
    lifecycle.recover(wait=5.0)
    found = look(lifecycle, "attention")
    assert verdict(found) == (False, "warning")
    assert found.facts["commands"] == 1
    assert "lifecycle attention" in (found.remedy or "")


def test_an_inbox_that_nobody_processes(database_url: str, client: ZocdocClient, sandbox: Sandbox) -> None:
    """A minute after it was due, unless a command is active on the appointment: then it has to wait."""
    with support.opened(database_url, client, webhook_keys=[KEY]) as lifecycle:
        appointment_id = in_doubt(lifecycle, sandbox)
        content = body(appointment_id, update="updated")
        lifecycle.receive_webhook(signed(content), content)
        shift(database_url, "lifecycle_webhook_deliveries", "run_at", 120)
        shift(database_url, "lifecycle_webhook_deliveries", "received_at", 120)
        busy = look(lifecycle, "inbox")
        assert (busy.ok, busy.facts["waiting"]) == (True, 1)
        assert busy.facts["lag_seconds"] == pytest.approx(120, abs=30)
        lifecycle.recover(wait=5.0)
        shift(database_url, "lifecycle_webhook_deliveries", "run_at", 120)
        found = look(lifecycle, "inbox")
        assert verdict(found) == (False, "error")
        assert "lifecycle inbox process" in (found.remedy or "")
        lifecycle.process_inbox()
        assert look(lifecycle, "inbox").facts == {"waiting": 0, "lag_seconds": 0.0}


def test_webhook_calls_that_were_given_up(database_url: str, client: ZocdocClient, sandbox: Sandbox) -> None:
    """They are counted, and how to take them up again is told."""
    timing = Timing(read_backoff=0.0, failed_deliveries=1)
    with support.opened(database_url, client, timing, webhook_keys=[KEY]) as lifecycle:
        content = body(support.tracked(lifecycle, sandbox), update="updated")
        lifecycle.receive_webhook(signed(content), content)
        support.arm(sandbox, kind="answer", operation="get", status=500)
        assert lifecycle.process_inbox().failed == 1
        found = look(lifecycle, "deliveries")
    assert verdict(found) == (False, "warning")
    assert found.facts["failed"] == 1
    assert "inbox retry" in (found.remedy or "")


def test_a_sync_that_is_old_or_was_cut_off(lifecycle: Lifecycle, sandbox: Sandbox, database_url: str) -> None:
    """Never, long ago, cut off: advice each time, because webhooks may do."""
    support.tracked(lifecycle, sandbox)
    assert verdict(look(lifecycle, "sync")) == (False, "advice")
    lifecycle.sync()
    assert look(lifecycle, "sync").ok
    shift(database_url, "lifecycle_sync_cursors", "finished_at", 90_000)
    old = look(lifecycle, "sync")
    assert verdict(old) == (False, "advice")
    assert "ended at" in (old.problem or "")
    support.query(database_url, "UPDATE lifecycle_sync_cursors SET finished_at = NULL")
    assert look(lifecycle, "sync").ok
    shift(database_url, "lifecycle_sync_cursors", "updated_at", 3600)
    assert "cut off" in (look(lifecycle, "sync").problem or "")


def test_credentials(server: Server, sandbox: Sandbox, sqlite_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """A good pair, a wrong secret, no answer, a ready token, none at all, and not asked. Never is a secret shown."""
    caplog.set_level(logging.DEBUG)
    secret = "CANARY-secret"
    cases: list[tuple[dict[str, Any], bool | None, str]] = [
        ({}, True, ""),
        ({"client_secret": secret}, False, "token_refused"),
        ({"token_url": "http://127.0.0.1:9/oauth", "client_secret": secret, "deadline": 1.0}, False, "token_unavail"),
        ({"access_token": secret, "client_id": None, "client_secret": None}, None, "ready access token"),
    ]
    for options, ok, needed in cases:
        with support.client_of(server, **options) as client, Lifecycle(sqlite_url, zocdoc=client) as lifecycle:
            found = look(lifecycle, "credentials", online=True)
            assert (found.ok, needed in (found.problem or "")) == (ok, True), found
            assert verdict(look(lifecycle, "credentials")) == (None, None)
            assert secret not in repr(lifecycle.diagnose())
    with Lifecycle(sqlite_url) as lifecycle:
        none = look(lifecycle, "credentials", online=True)
    assert none.ok is None
    assert "LIFECYCLE_ZOCDOC_CLIENT_ID" in (none.remedy or "")
    assert secret not in "".join(str(vars(record)) for record in caplog.records)
    assert support.calls(sandbox) == []


def test_a_check_that_breaks_says_so(lifecycle: Lifecycle, database_url: str) -> None:
    """A table that is gone, or a column: that check is not made, the others are."""
    support.query(database_url, "ALTER TABLE lifecycle_sync_cursors RENAME TO gone")
    found = lifecycle.diagnose(online=False)
    support.query(database_url, "ALTER TABLE gone RENAME TO lifecycle_sync_cursors")
    [broken] = [check for check in found.checks if check.ok is None and check.name != "credentials"]
    assert broken.name == "sync"
    assert "the database cannot be used" in (broken.problem or "")


def test_a_locked_table_does_not_hold_the_doctor_up(
    postgres_url: str, client: ZocdocClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A query that waits is given up, and its check says so."""
    monkeypatch.setattr(diagnosis, "_PATIENCE", 1)
    engine = sa.create_engine(postgres_url)
    with support.opened(postgres_url, client) as lifecycle, engine.begin() as connection:
        connection.exec_driver_sql("LOCK TABLE lifecycle_sync_cursors IN ACCESS EXCLUSIVE MODE")
        found = look(lifecycle, "sync")
        connection.rollback()
    engine.dispose()
    assert found.ok is None
    assert "57014" in (found.problem or "")


def test_no_query_reads_a_whole_table(database_url: str) -> None:
    """Each is answered from an index, so that it is as quick with ten million events."""
    bounded = (work._STUCK, work._ATTENTION, work._INBOX, work._WAITING, work._FAILED)
    engine = sa.create_engine(database_url, poolclass=sa.pool.NullPool)
    with engine.connect() as connection:
        if connection.dialect.name == "postgresql":  # so few rows it would rather read all
            connection.exec_driver_sql("SET enable_seqscan = off")
        for query in (work._STATUSES, work._OF_STATUS, *bounded, queue._NEXT, queue._QUEUED, queue._TAKEN):
            plan = _plan(connection, query)
            assert any("INDEX" in line.upper() for line in plan), plan
            whole = [line for line in plan if "Seq Scan" in line or ("SCAN lifecycle" in line and "USING" not in line)]
            assert whole == []


def _plan(connection: sa.Connection, query: sa.Select[*tuple[Any, ...]]) -> list[str]:
    """Give the lines of the database's plan."""
    explain = "EXPLAIN QUERY PLAN" if connection.dialect.name == "sqlite" else "EXPLAIN"
    given = {"most": 10, "before": datetime.now(UTC), "since": datetime.now(UTC), "status": "confirmed", "priority": 0}
    literal = query.params(**given).compile(connection, compile_kwargs={"literal_binds": True})
    return [str(row[-1]) for row in connection.exec_driver_sql(f"{explain} {literal}".replace("%", "%%"))]


@pytest.fixture
def environ(server: Server, sqlite_url: str) -> dict[str, str]:
    """Give settings for the stand-in and a database."""
    return settings_for(server, sqlite_url) | {"LIFECYCLE_ZOCDOC_AUDIENCE": server.audience}


def test_the_command_line_prints_every_check(environ: dict[str, str]) -> None:
    """A table for people, all fields for programs; advice leaves the exit code alone."""
    result = invoke("doctor", **environ)
    assert result.exit_code == 0, result.output
    assert "1 to consider" in result.stderr
    assert "run `lifecycle sync`" in result.stdout
    rows = json.loads(invoke("doctor", "--format", "json", **environ).stdout)
    assert {row["name"] for row in rows} == EVERYWHERE | ONLY["sqlite"]
    assert {row["ok"] for row in rows if row["name"] != "sync"} == {True}
    [row] = [row for row in rows if row["name"] == "sync"]
    assert (row["severity"], row["facts"]) == ("advice", {"finished_at": None})
    offline = json.loads(invoke("doctor", "--offline", "--format", "json", **environ).stdout)
    assert [row["ok"] for row in offline if row["name"] == "credentials"] == [None]
    for form in ("jsonl", "csv"):
        assert len(invoke("doctor", "--format", form, **environ).stdout.splitlines()) >= len(rows)


def test_the_exit_code_tells_that_something_is_wrong(environ: dict[str, str], tmp_path: Path) -> None:
    """8 for a wrong secret, half the settings, no database, a URL of another kind; never a traceback or a secret."""
    cases: list[tuple[dict[str, str | None], str]] = [
        ({"LIFECYCLE_ZOCDOC_CLIENT_SECRET": "CANARY"}, "LIFECYCLE_ZOCDOC_CLIENT_SECRET"),
        ({"LIFECYCLE_ZOCDOC_CLIENT_ID": None}, "without LIFECYCLE_ZOCDOC_CLIENT_ID"),
        ({"LIFECYCLE_DATABASE_URL": f"sqlite:///{tmp_path}/none.db"}, "lifecycle db upgrade"),
        ({"LIFECYCLE_DATABASE_URL": "mysql://nobody:CANARY@nowhere/none"}, "not supported"),
    ]
    for changed, needed in cases:
        result = invoke("doctor", **(environ | changed))
        assert result.exit_code == 8, result.output
        assert needed in result.output
        assert "1 wrong" in result.stderr
        for unwanted in ("Traceback", "CANARY", SECRET):
            assert unwanted not in result.output


def test_warnings_leave_the_exit_code_alone(environ: dict[str, str], client: ZocdocClient, sandbox: Sandbox) -> None:
    """An unknown status is to be looked at; everything works."""
    with support.opened(environ["LIFECYCLE_DATABASE_URL"], client, FAST) as lifecycle:
        support.tracked(lifecycle, sandbox, status="teleported")
        with pytest.raises(LifecycleError):
            lifecycle.reschedule(sandbox.add(), actor=ACTOR, start_time=LATER)
    result = invoke("doctor", **environ)
    assert result.exit_code == 0
    assert "1 to look at" in result.stderr
    assert "teleported" in result.stdout
