"""Samples: two ways of making them that tell the same stories, and a ground of their own."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from lifecycle import ConfigurationError, EnvironmentMismatch, InvalidArgument, chart, columns, database, schema
from lifecycle.cli import main
from lifecycle.samples import bulk, drawing, filling, ground, making, plans, playing, scribe
from lifecycle.samples.chances import generator
from tests import trail
from tests.support import opened, query, tracked

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lifecycle import Lifecycle, ZocdocClient
    from lifecycle.sandbox import Sandbox

UNTIL = datetime(2026, 11, 22, 21, 0, tzinfo=UTC)
TOLD = (
    "appointment_id",
    "appointment_seq",
    "event",
    "command",
    "from_status",
    "to_status",
    "conforming",
    "outcome",
    "reason_code",
    "reason_type",
    "actor",
    "source",
    "provider_location_id",
    "http_status",
    "details",
)
"""What an event tells, apart from ids and times."""

ALIKE = {
    "lifecycle_commands": (
        "appointment_id",
        "command",
        "state",
        "attempt",
        "outcome",
        "reason_code",
        "unchanged_reads",
        "http_status",
        "target_status",
        "lease_until",
        "run_at",
        "due_at",
        "priority",
        "batch_id",
    ),
    "lifecycle_webhook_deliveries": ("appointment_id", "state", "update_type", "attempts", "run_at"),
}
"""What a command and a delivery come to."""

KEPT = ("status", "version", "observed_version", "in_doubt", "start_time_offset_minutes", "confirmation_type")


def drawn(count: int, *, seed: int = 1, days: int = 90, until: datetime = UNTIL) -> list[plans.Plan]:
    """Draw plans."""
    return list(drawing.plans(generator(seed), appointments=count, days=days, until=until))


def lives(of: list[plans.Plan], *, until: datetime = UNTIL) -> list[scribe.Life]:
    """Write plans down."""
    ids = generator("ids")
    return [life for plan in of if (life := scribe.write_down(plan, until=until, ids=ids)) is not None]


def counts(url: str) -> dict[str, int]:
    """Count the rows of every table that a generator may write."""
    names = (*(table.name for table in making.TABLES), "lifecycle_installation")
    return {name: query(url, f"SELECT count(*) AS n FROM {name}")[0]["n"] for name in names}  # noqa: S608 # our tables


def story(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Give what events tell, by appointment."""
    plain = [
        {**row, "details": json.loads(row["details"]) if isinstance(row["details"], str) else row["details"]}
        for row in rows
    ]
    ordered = sorted(plain, key=lambda row: (row["appointment_id"], row["appointment_seq"]))
    return [tuple(row[name] for name in TOLD) for row in ordered]


def in_every_trouble(of: list[plans.Plan] | None = None) -> list[plans.Plan]:
    """Take quiet plans, and give each of their commands each trouble in turn, with a change meanwhile or without."""
    troubles = list(plans.Trouble)
    changed: list[plans.Plan] = []
    for number, plan in enumerate(drawn(400, seed=5, days=30) if of is None else of):
        asked = [each for each in plan.actions if isinstance(each, plans.Asked) and each.trouble is None]
        if not asked or len(changed) == 6 * len(troubles):
            continue
        chosen = asked[number % len(asked)]
        trouble = troubles[len(changed) % len(troubles)]
        after = chosen.at + timedelta(milliseconds=chosen.milliseconds, seconds=1)
        meanwhile = [plans.Changed(at=after, status="cancelled")] if number % 3 == 0 else []
        actions = [replace(each, trouble=trouble) if each is chosen else each for each in plan.actions]
        changed.append(replace(plan, actions=tuple(sorted([*actions, *meanwhile], key=lambda each: each.at))))
    return changed


def in_batches() -> list[plans.Plan]:
    """Take plans with commands that are submitted in batches, overtaken and rejected ones among them."""
    return [
        plan
        for plan in drawn(1200, seed=8, days=30)
        if any(isinstance(each, plans.Asked) and each.batch for each in plan.actions)
    ]


PLANS: dict[str, Callable[[], list[plans.Plan]]] = {
    "drawn": lambda: drawn(150, seed=7, days=30),
    "in_trouble": in_every_trouble,
    "in_batches": in_batches,
    "batches_in_trouble": lambda: in_every_trouble(in_batches()),
}


@pytest.mark.parametrize("kind", PLANS)
def test_the_engine_writes_what_the_scribe_writes_down(kind: str, sqlite_url: str) -> None:
    """Played by the real engine or written down, a plan gives the same events, rows, commands and deliveries."""
    told = PLANS[kind]()
    playing.carry_out(sqlite_url, told, begin=UNTIL - timedelta(days=30), until=UNTIL)
    written = lives(told)
    played = query(sqlite_url, "SELECT * FROM lifecycle_audit_events ORDER BY appointment_id, appointment_seq")
    events = sorted(
        (event for life in written for event in life.events),
        key=lambda event: (event["appointment_id"], event["appointment_seq"]),
    )
    assert story(played) == story(events)
    for one, other in zip(played, events, strict=True):
        assert abs(datetime.fromisoformat(one["recorded_at"]) - other["recorded_at"]) < timedelta(seconds=1)
    rows = {row["appointment_id"]: row for row in query(sqlite_url, "SELECT * FROM lifecycle_appointments")}
    for life in written:
        row = rows.pop(life.appointment["appointment_id"])
        assert [row[name] for name in KEPT] == [life.appointment[name] for name in KEPT]
        assert row["start_time"] == columns.utc_text(life.appointment["start_time"])
        assert (row["arrived_at"] is None) == (life.appointment["arrived_at"] is None)
    assert rows == {}
    for table, names in ALIKE.items():
        stored = Counter(tuple(row[name] for name in names) for row in query(sqlite_url, f"SELECT * FROM {table}"))  # noqa: S608 # our tables
        assert stored == Counter(
            tuple(row[name] for name in names)
            for life in written
            for row in (life.commands if table == "lifecycle_commands" else life.deliveries)
        )


def test_batches_are_the_same_played_and_written(sqlite_url: str, tmp_path: Path) -> None:
    """Both ways submit the same batches, row for row, with the same ends: applied, refused, rejected."""
    order: dict[str, Any] = {"appointments": 250, "seed": 16, "days": 20, "until": UNTIL}
    playing.play(sqlite_url, **order)
    other = f"sqlite:///{tmp_path / 'written.db'}"
    with closing(database.Database(other)) as target:
        schema.upgrade(target)
        bulk.generate(target, **order)
    names = "batch_id, batch_row, appointment_id, command, state, reason_code, attempts, queued_at"
    for statement in (
        "SELECT * FROM lifecycle_batch_outcomes ORDER BY batch_id",
        f"SELECT {names} FROM lifecycle_batch_rows ORDER BY batch_id, batch_row",  # noqa: S608 # ours
    ):
        assert query(sqlite_url, statement) == query(other, statement) != []
    kinds = query(other, "SELECT DISTINCT command, state FROM lifecycle_batch_rows")
    assert {(row["command"], row["state"]) for row in kinds} >= {
        ("cancel", "applied"),
        ("cancel", "refused"),
        ("confirm", "applied"),
        ("confirm", "refused"),
        ("confirm", "rejected"),
    }
    assert all(row["is_finished"] for row in query(other, "SELECT * FROM lifecycle_batch_outcomes"))


def test_the_bulk_generator_writes_the_same_rows_into_both_databases(database_url: str) -> None:
    """The same seed and end give the same rows, hash for hash, in the order of time."""
    with closing(database.Database(database_url)) as target:
        summary = bulk.generate(target, appointments=300, seed=3, until=UNTIL)
        assert schema.check(target) == []
    order = making.Order(appointments=300, seed=3, days=90, until=UNTIL)
    made = [row for chunk in making.chunks(order) for row in chunk.rows["lifecycle_audit_events"]]
    place = making.NAMES["lifecycle_audit_events"].index("hash")
    stored = query(database_url, "SELECT * FROM lifecycle_audit_events ORDER BY seq")
    assert [row["hash"] for row in stored] == [row[place] for row in made]
    assert [row["seq"] for row in stored] == list(range(1, summary.events + 1))
    assert all(one["recorded_at"] <= other["recorded_at"] for one, other in pairwise(stored))
    assert counts(database_url) == {
        "lifecycle_appointments": summary.appointments,
        "lifecycle_batches": summary.batches,
        "lifecycle_commands": summary.commands,
        "lifecycle_webhook_deliveries": summary.deliveries,
        "lifecycle_audit_events": summary.events,
        "lifecycle_installation": 1,
    }


def test_a_large_order_leaves_every_index_behind(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is dropped for loading is there again afterwards, also when the load was broken off."""
    monkeypatch.setattr(making, "FEW", 10)

    def stop(booked: int, of: int) -> None:
        raise KeyboardInterrupt((booked, of))

    with closing(database.Database(database_url)) as target:
        if not target.is_postgres:
            with pytest.raises(KeyboardInterrupt):
                bulk.generate(target, appointments=11, seed=1, until=UNTIL, on_progress=stop)
            assert schema.check(target) == []
            return
        summary = bulk.generate(target, appointments=60, seed=1, until=UNTIL)
        assert schema.check(target) == []
        assert summary.events > 100


def test_another_seed_makes_other_rows() -> None:
    """Ids, times and stories all hang on the seed."""
    orders = [making.Order(appointments=20, seed=seed, days=90, until=UNTIL) for seed in (1, 2)]
    first, second = ({row[0] for chunk in making.chunks(order) for row in chunk.rows[A]} for order in orders)
    assert not first & second


A = "lifecycle_appointments"


def test_many_are_made_beside_in_chunks_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the second process nor the size of the chunks changes a row."""
    order = making.Order(appointments=60, seed=4, days=30, until=UNTIL)
    (whole,) = making.chunks(order)
    monkeypatch.setattr(making, "BORN_IN_A_CHUNK", 7)
    pieces = list(making.chunks(order))
    monkeypatch.setattr(making, "FEW", 10)
    with making.made(order) as chunks:
        (beside,) = chunks
    assert beside == whole
    assert len(pieces) == 9
    assert sum(piece.booked for piece in pieces) == 60
    for name, rows in whole.rows.items():
        assert [row for piece in pieces for row in piece.rows[name]] == rows


def test_a_second_process_that_ends_too_early_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the samples are not taken for all."""
    order = making.Order(appointments=60, seed=4, days=30, until=UNTIL)
    monkeypatch.setattr(making, "FEW", 10)
    monkeypatch.setattr(sys, "executable", "/bin/true")
    with pytest.raises(ChildProcessError, match="too early"), making.made(order) as chunks:
        list(chunks)


def test_visits_lie_in_opening_hours_on_both_sides_of_daylight_saving() -> None:
    """A visit begins in the local opening hours of its location, whatever its offset from UTC is on that day."""
    offsets: dict[str, set[int]] = {}
    for turn in (datetime(2026, 3, 20, tzinfo=UTC), datetime(2026, 11, 12, tzinfo=UTC)):
        for plan in drawn(1500, days=40, until=turn):
            starts = [
                plan.start,
                *(each.start for each in plan.actions if isinstance(each, plans.Asked) and each.start),
            ]
            for start in starts:
                local = datetime.fromisoformat(start.isoformat()).astimezone(ZoneInfo(plan.location.zone.key))
                minute = local.hour * 60 + local.minute
                opened = plan.location.week[local.weekday()]
                assert any(opens <= minute < closes for opens, closes in opened), (plan.location, local)
                assert not 12 * 60 <= minute < 13 * 60
                offset = local.utcoffset()
                assert offset is not None
                offsets.setdefault(plan.location.zone.key, set()).add(int(offset.total_seconds()) // 3600)
    assert offsets["America/New_York"] == {-5, -4}
    assert all(len(found) == (1 if zone == "America/Phoenix" else 2) for zone, found in offsets.items())


def test_people_act_in_office_hours_and_patients_book_at_any() -> None:
    """Confirmations of the staff are given while their location is open."""
    told = drawn(800)
    for plan in told:
        for action in plan.actions:
            if isinstance(action, plans.Asked) and action.actor.startswith("user:") and action.command == "confirm":
                local = action.at.astimezone(plan.location.zone)
                if action is next(each for each in plan.actions if isinstance(each, plans.Asked)):
                    minute = local.hour * 60 + local.minute
                    assert any(opens <= minute < closes for opens, closes in plan.location.week[local.weekday()])
    assert len({plan.booked_at.astimezone(ZoneInfo("America/Chicago")).hour for plan in told}) == 24


def test_everything_happens_that_may_happen() -> None:
    """All sources, reasons, outcomes and statuses occur, the odd ones rarely, and nothing after the end."""
    written = lives(drawn(3000, seed=2))
    events = [event for life in written for event in life.events]
    assert {event["source"] for event in events} == {"api", "cli", "webhook", "sync", "recovery", "operator"}
    assert {event["reason_type"] for event in events} == {None, *map(str, chart.CancellationReason)}
    assert {event["outcome"] for event in events} == {None, "applied", "rejected", "not_sent", "unknown", "refused"}
    assert {str(event["event"]) for event in events} >= {
        "appointment_tracked",
        "appointment_observed",
        "command_refused",
        "command_accepted",
        "command_applied",
        "arrival_marked",
        "command_rejected",
        "command_not_sent",
        "command_requeued",
        "command_resent",
        "outcome_lost",
        "outcome_checked",
        "attention_needed",
        "command_resolved",
    }
    assert {event["to_status"] for event in events} > chart.STATUSES
    assert 0 < sum(not event["conforming"] for event in events) < len(events) / 200
    assert 0 < sum(life.appointment["in_doubt"] for life in written) < len(written) / 100
    assert max(event["recorded_at"] for event in events) <= UNTIL
    assert not any(life.appointment["developer_patient_id"] for life in written)
    assert {name for event in events for name in event["details"]} == {
        "advice",
        "attempt",
        "booked_with",
        "changed",
        "fields",
        "queued_at",
        "reasons",
        "remote",
        "start_time",
        "unchanged_reads",
    }


@pytest.mark.parametrize("count", [1, 999, 2500])
def test_as_many_are_booked_as_were_ordered(count: int) -> None:
    """Every booking lies in the days before the end, in order."""
    booked = [plan.booked_at for plan in drawn(count, days=9)]
    assert len(booked) == count
    assert booked == sorted(booked)
    assert UNTIL - timedelta(days=9) <= booked[0] <= booked[-1] <= UNTIL


@pytest.mark.parametrize("wrong", [{"appointments": 0}, {"days": 0}, {"until": datetime(2026, 1, 1)}])  # noqa: DTZ001 # on purpose
def test_what_cannot_be_made_is_refused(wrong: dict[str, Any]) -> None:
    """An order names at least one appointment and day, and an end in UTC."""
    with pytest.raises(InvalidArgument, match=next(iter(wrong))):
        making.Order(**{"appointments": 1, "seed": 1, "days": 1, "until": UNTIL, **wrong})


def test_samples_never_come_among_real_appointments(database_url: str, lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """A database of an environment of Zocdoc is refused, and nothing is written."""
    tracked(lifecycle, sandbox)
    before = counts(database_url)
    with pytest.raises(ConfigurationError, match="environment 'local'; samples need a database of their own"):
        filling.fill(database_url, appointments=5, seed=1, until=UNTIL)
    assert counts(database_url) == before


def test_an_unstamped_database_with_appointments_is_refused(sqlite_url: str) -> None:
    """Nor do samples come to a database whose stamp was lost."""
    filling.fill(sqlite_url, appointments=5, seed=1, until=UNTIL, days=5)
    query(sqlite_url, "DELETE FROM lifecycle_installation")
    before = counts(sqlite_url)
    with pytest.raises(ConfigurationError, match="holds appointments"):
        filling.fill(sqlite_url, appointments=5, seed=2, until=UNTIL)
    assert counts(sqlite_url) == before


def test_no_client_of_zocdoc_acts_on_samples(database_url: str, client: ZocdocClient, sandbox: Sandbox) -> None:
    """The stamp of samples keeps every real client out."""
    with closing(database.Database(database_url)) as target:
        ground.claim(target)
    appointment_id = sandbox.add()
    with opened(database_url, client) as other, pytest.raises(EnvironmentMismatch, match="samples"):
        other.track(appointment_id, actor="user:1")


def test_the_real_engine_plays_small_numbers_on_sqlite_only(sqlite_url: str, postgres_url: str) -> None:
    """The rule: up to 5,000 on SQLite; on PostgreSQL the clock is the server's."""
    with closing(database.Database(sqlite_url)) as target:
        assert filling.plays(target, 5000)
        assert not filling.plays(target, 5001)
    with closing(database.Database(postgres_url)) as target:
        assert not filling.plays(target, 1)
    with pytest.raises(ConfigurationError, match="clock of PostgreSQL"):
        playing.play(postgres_url, appointments=1, seed=1, until=UNTIL)


def invoked(*arguments: str) -> Any:
    """Run the command line in this process."""
    return CliRunner().invoke(main.root, ["demo", *arguments])


def test_the_demo_makes_a_new_file_of_samples(tmp_path: Path) -> None:
    """One file with a sound trail, what was made, and what to look at next."""
    until = "2026-11-22T16:00:00-05:00"
    done = invoked("--appointments", "40", "--seed", "3", "--until", until, "--directory", str(tmp_path))
    assert done.exit_code == 0, done.output
    (path,) = tmp_path.iterdir()
    engine = sa.create_engine(f"sqlite:///{path}")
    assert trail.faults(engine) == []
    events = trail.rows_of(engine)
    engine.dispose()
    assert re.search(
        rf"commands and {len(events)} audit events of the 90 days before 2026-11-22T21:00:00Z", done.stdout
    )
    for words in ("report -o report.html", "audit --limit 20", "verify", f"LIFECYCLE_DATABASE_URL=sqlite:///{path}"):
        assert words in done.stdout


def test_the_demo_fills_an_empty_postgresql_database(postgres_url: str) -> None:
    """Another database by its URL, through the bulk generator."""
    done = CliRunner().invoke(
        main.root, ["demo", "--appointments", "30"], env={"LIFECYCLE_DEMO_DATABASE_URL": postgres_url}
    )
    assert done.exit_code == 0, done.output
    assert counts(postgres_url)["lifecycle_audit_events"] > 60


def test_the_demo_refuses_a_database_that_is_in_use(sqlite_url: str) -> None:
    """One line on stderr, exit code 2, and the product's own variable is never taken for the samples' database."""
    given = ("--appointments", "5", "--days", "5")
    assert invoked(*given, "--database-url", sqlite_url).exit_code == 0
    before = counts(sqlite_url)
    again = invoked(*given, "--database-url", sqlite_url)
    assert (again.exit_code, again.stdout) == (2, "")
    assert again.stderr == "Error: this database holds appointments; samples need an empty one\n"
    assert counts(sqlite_url) == before


def test_a_password_is_not_taken_from_the_command_line() -> None:
    """It names the variable that takes it."""
    done = invoked("--appointments", "5", "--database-url", "postgresql://u:secret@localhost/x")
    assert done.exit_code == 2
    assert "set LIFECYCLE_DEMO_DATABASE_URL instead" in done.stderr
    assert "secret" not in done.output


def test_half_made_samples_do_not_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new file is removed when it could not be filled, or when nobody wants to keep it."""
    assert invoked("--appointments", "3", "--no-keep", "--directory", str(tmp_path)).exit_code == 0
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(ground, "ENVIRONMENT", "x" * 300)
    done = invoked("--appointments", "3", "--until", "yesterday", "--directory", str(tmp_path))
    assert done.exit_code == 2
    assert done.stderr.startswith("Error: --until: use ISO 8601")
    assert list(tmp_path.iterdir()) == []
