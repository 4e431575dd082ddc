"""Verification: the whole trail, in one process or several, beside writers, with little memory."""

from __future__ import annotations

import itertools
import json
import threading
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from lifecycle import (
    DatabaseUnavailable,
    InvalidArgument,
    Lifecycle,
    OutcomeUnknown,
    TransitionRefused,
    chains,
    database,
    models,
    triggers,
    verification,
    verifiers,
)
from lifecycle.findings import LIMIT, FindingKind
from tests import support
from tests.support import ACTOR
from tests.test_cli import assert_error, invoke

if TYPE_CHECKING:
    from pathlib import Path

    from lifecycle.sandbox import Sandbox
    from tests.tampering import Scene


def test_every_story_of_the_product_is_sound(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """Refusals, lost answers, recovery, arrivals, unknown statuses: whatever the product writes passes."""
    ids = [support.tracked(lifecycle, sandbox) for _ in range(4)]
    lifecycle.confirm(ids[0], actor="user:Zoë")
    lifecycle.reschedule(ids[0], actor="用户:17", start_time=support.LATER)
    lifecycle.mark_arrived(ids[0], actor=ACTOR)
    lifecycle.cancel(ids[1], actor=ACTOR, reason_type="provider_not_available")
    with pytest.raises(TransitionRefused):
        lifecycle.confirm(ids[1], actor=ACTOR)
    support.lose_answer(sandbox, "confirm", when="after")
    with pytest.raises(OutcomeUnknown):
        lifecycle.confirm(ids[2], actor=ACTOR)
    assert lifecycle.verify().is_sound
    lifecycle.recover(wait=5)
    sandbox.change(ids[3], status="of_the_future")
    lifecycle.track(ids[3], actor=ACTOR)
    found = lifecycle.verify()
    assert (found.is_sound, found.chains, found.findings) == (True, 4, ())
    assert found.events == sum(len(lifecycle.history(each)) for each in ids)


def test_an_empty_trail_is_sound(database_url: str) -> None:
    """Nothing is there, and nothing is wrong."""
    with Lifecycle(database_url) as product:
        found = product.verify(processes=2)
    assert (found.events, found.chains, found.is_sound) == (0, 0, True)


def test_the_parts_cover_every_chain(scene: Scene) -> None:
    """However the trail is divided, each chain is judged once, and so is what lies outside of all appointments."""
    scene.attack("DELETE FROM lifecycle_appointments WHERE appointment_id = {b}")
    scene.attack("UPDATE {events} SET appointment_id = ' first' WHERE appointment_id = {c}")
    made = database.Database(scene.url)
    expected = [(each.kind, each.appointment_id, each.seq) for each in scene.verify().findings]
    assert ("appointment_missing", " first") in {each[:2] for each in expected}
    for size in (1, 2, 3):
        parts = list(chains.parts(made, size=size))
        assert len(parts) == 2 // size + 1
        tallies = [chains.judge(made, part) for part in parts]
        assert sum(tally.events for tally in tallies) == 11
        found = itertools.chain.from_iterable(tally.findings.first() for tally in tallies)
        assert sorted((each.kind, each.appointment_id, each.seq or 0) for each in found) == sorted(
            (kind, appointment_id, seq or 0) for kind, appointment_id, seq in expected
        )
    made.close()


def test_processes_find_what_one_finds(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other interpreters judge the parts of a trail that is large; the result is the same."""
    scene.attack("UPDATE {events} SET actor = 'forger', command_id = 'x' WHERE appointment_id <> {b}")
    alone = scene.verify()
    monkeypatch.setattr(verification, "_SMALL", 1)
    monkeypatch.setattr(chains.parts, "__kwdefaults__", {"size": 1})
    made = database.Database(scene.url)
    assert made.url is not None
    tallies = list(verifiers.judge(made.url, chains.parts(made), processes=2))
    assert len(tallies) == 4
    together = scene.verify(processes=2)
    made.close()
    assert (together.counts, together.findings) == (alone.counts, alone.findings)
    assert (together.events, together.chains) == (alone.events, alone.chains)


def test_a_process_that_ends_by_itself_is_an_error(tmp_path: Path) -> None:
    """What was not judged is never taken for sound."""
    url = sa.make_url(f"sqlite:///{tmp_path}/none.db")
    with pytest.raises(DatabaseUnavailable, match="ended by itself"):
        list(verifiers.judge(url, iter([chains.Part()]), processes=2))


def test_a_database_that_fails_in_a_process_is_an_error(tmp_path: Path) -> None:
    """It arrives as the error that it was there."""
    (tmp_path / "text.db").write_text("no database at all, but long enough to be read as one" * 20, encoding="utf-8")
    url = sa.make_url(f"sqlite:///{tmp_path}/text.db")
    with pytest.raises(DatabaseUnavailable, match="SQLITE_NOTADB"):
        list(verifiers.judge(url, iter([chains.Part()]), processes=1))


def test_findings_are_limited_and_all_are_counted(scene: Scene) -> None:
    """The first hundred by `seq` are kept, the rest is counted; the first bad row is named."""
    names = ", ".join(column.name for column in models.appointments.columns if column.name != "appointment_id")
    rows = f"{names} FROM lifecycle_appointments WHERE appointment_id = {{a}}"
    insert = "INSERT INTO lifecycle_appointments (appointment_id, "
    scene.attack(*(f"{insert}{names}) SELECT 'x{number}', {rows}" for number in range(3 * LIMIT)))
    scene.attack("UPDATE {events} SET actor = 'forger' WHERE appointment_id = {b} AND appointment_seq > 3")
    found = scene.verify()
    assert found.counts == {FindingKind.EVENTS_MISSING: 3 * LIMIT, FindingKind.EDITED: 2}
    assert len(found.findings) == LIMIT
    assert found.first is not None
    assert (found.first.kind, found.first.seq) == (FindingKind.EDITED, scene.row(scene.b, 4)["seq"])


def test_writers_beside_it_do_no_harm(lifecycle: Lifecycle, sandbox: Sandbox) -> None:
    """Each chain is judged as it was at one moment, together with its appointment and commands."""
    ends = threading.Event()

    def write() -> None:
        while not ends.is_set():
            appointment_id = support.tracked(lifecycle, sandbox)
            lifecycle.confirm(appointment_id, actor=ACTOR)
            lifecycle.cancel(appointment_id, actor=ACTOR)

    with support.in_background(write) as results:
        found = [lifecycle.verify()]
        try:
            while found[-1].events < 60 and not results:
                found.append(lifecycle.verify())
        finally:
            ends.set()
    assert results == [None]
    assert [each.findings for each in found if not each.is_sound] == []
    assert found[-1].events > found[0].events


def test_the_engine_of_a_host_is_verified_too(scene: Scene) -> None:
    """Whatever time zone, date style and way of beginning its connections have; it is read in this process."""
    options = {"options": "-c timezone=America/New_York -c datestyle=German"} if scene.is_postgres else {}
    engine = sa.create_engine(scene.url, connect_args=options)
    with Lifecycle(engine) as product:
        assert product.verify(processes=2).is_sound
        with engine.connect() as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM lifecycle_audit_events").scalar() == 11
    engine.dispose()


@pytest.mark.parametrize("processes", [0, -1, 65, "2"])
def test_an_impossible_number_of_processes_is_refused(sqlite_only: Scene, processes: Any) -> None:
    """The text says what is possible."""
    with pytest.raises(InvalidArgument, match="from 1 to 64"):
        sqlite_only.verify(processes=processes)


def test_the_chart_of_a_later_version_is_no_tampering(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A status that was not known when it was recorded may be known to the chart of today."""
    scene.attack("UPDATE lifecycle_appointments SET status_known = NOT status_known WHERE appointment_id = {a}")
    assert scene.found() == {("status_known_differs", "a", 5)}
    monkeypatch.setattr("lifecycle.chart.VERSION", "of the future")
    assert scene.found() == set()


def test_the_command_line_says_what_is_sound(scene: Scene) -> None:
    """Nothing on stdout but the heads of columns, the size on stderr, exit code 0."""
    done = invoke("verify", "--format", "jsonl", LIFECYCLE_DATABASE_URL=scene.url)
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr.startswith("11 events in 3 chains are sound (")


def test_the_command_line_names_the_first_bad_row(scene: Scene) -> None:
    """One finding a line on stdout, the first bad row on stderr, exit code 6."""
    scene.attack("UPDATE {events} SET actor = 'forger' WHERE appointment_seq = 3")
    done = invoke("verify", "--format", "jsonl", LIFECYCLE_DATABASE_URL=scene.url)
    assert done.exit_code == 6
    first = scene.row(scene.a, 3)["seq"]
    assert [json.loads(line)["kind"] for line in done.stdout.splitlines()] == ["edited", "edited"]
    assert json.loads(done.stdout.splitlines()[0]) == {
        "kind": "edited",
        "appointment_id": scene.a,
        "appointment_seq": 3,
        "seq": first,
        "what": "the hash does not fit what the row says",
    }
    assert done.stderr.splitlines() == [
        "11 events in 3 chains are NOT sound: 2 edited",
        f"The first bad row is seq {first}: event 3 of appointment {scene.a}",
    ]
    for form in ("table", "csv", "json"):
        done = invoke("verify", "--format", form, LIFECYCLE_DATABASE_URL=scene.url)
        assert (done.exit_code, done.stdout.count("edited")) == (6, 2)


def test_the_command_line_needs_the_schema(tmp_path: Path) -> None:
    """A database that is not there is not sound."""
    assert_error(invoke("verify", LIFECYCLE_DATABASE_URL=f"sqlite:///{tmp_path}/x.db"), 1, "lifecycle db upgrade")


MIGRATED = {
    "sqlite": "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'",
    "postgresql": "SELECT tgname, tgname FROM pg_trigger WHERE NOT tgisinternal",
}


def test_the_expected_guards_are_those_of_the_migrations(database_url: str) -> None:
    """The definitions are written down twice, because migrations never change; here they are held equal."""
    made = database.Database(database_url)
    with made.read() as connection:
        found = {name for name, _ in connection.exec_driver_sql(MIGRATED[connection.dialect.name])}
        present = {name for name in found if not name.startswith("lifecycle_batch_counts_")}
        assert triggers.changes(connection) == []
    made.close()
    assert present == (triggers._POSTGRES.keys() if made.is_postgres else triggers._SQLITE.keys())
