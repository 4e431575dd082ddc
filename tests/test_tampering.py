"""Whatever an owner of the database does to the trail in raw SQL is found, and named by its kind and its row."""

# ruff: noqa: S608 # SQL of constants is what this module is about

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from lifecycle import checkpoints, database, encoding, schema
from tests import support, trail
from tests.tampering import EVENTS

if TYPE_CHECKING:
    from pathlib import Path

    from tests.tampering import Scene

KEY = bytes(range(32))
OF_A2 = "WHERE appointment_id = {a} AND appointment_seq = 2"


@pytest.fixture
def checkpoint(scene: Scene, tmp_path: Path) -> Path:
    """A checkpoint of the sound database."""
    path = tmp_path / "checkpoint.jsonl"
    made = database.Database(scene.url)
    checkpoints.create(made, path, key=KEY)
    made.close()
    return path


def against(scene: Scene, checkpoint: Path) -> set[tuple[str, str | None, int | None]]:
    """Hold the database against the checkpoint, and give kind, appointment and number of what was found."""
    made = database.Database(scene.url)
    try:
        return scene.named(checkpoints.verify(made, checkpoint, key=KEY))
    finally:
        made.close()


def test_an_untouched_trail_is_sound(scene: Scene, checkpoint: Path) -> None:
    """Nothing is found where nothing was done, nor where the guards were taken down and put back."""
    result = scene.verify()
    assert (result.events, result.chains, result.is_sound, result.first) == (11, 3, True, None)
    scene.attack("SELECT 1")
    assert scene.found() == against(scene, checkpoint) == set()


EDITS: dict[str, tuple[str, set[tuple[str, str | None, int | None]]]] = {
    **{
        column: ("'x'", {("edited", "a", 2)})
        for column in (
            *("actor", "chart_version", "command", "delivery_id", "event", "outcome", "provider_location_id"),
            *("reason_code", "reason_type", "source", "zocdoc_request_id"),
        )
    },
    "conforming": ("NOT conforming", {("edited", "a", 2)}),
    "details": ("""'{{"x": 1}}'""", {("edited", "a", 2)}),
    "duration_ms": ("7", {("edited", "a", 2)}),
    "http_status": ("409", {("edited", "a", 2)}),
    "from_status_since": ("'2030-01-01T00:00:00.000000Z'", {("edited", "a", 2)}),
    "occurred_at": ("'2030-01-01T00:00:00.000000Z'", {("edited", "a", 2)}),
    "recorded_at": ("'2030-01-01T00:00:00.000000Z'", {("edited", "a", 2)}),
    "from_status": ("'x'", {("edited", "a", 2), ("status_break", "a", 2)}),
    "to_status": ("'x'", {("edited", "a", 2), ("status_break", "a", 3)}),
    "command_id": ("'x'", {("edited", "a", 2), ("command_missing", "a", 2)}),
    "hash_version": ("2", {("unknown_hash_version", "a", 2)}),
    "prev_hash": ("'x'", {("edited", "a", 2), ("unlinked", "a", 2)}),
    "hash": ("'x'", {("edited", "a", 2), ("unlinked", "a", 3)}),
    "seq": ("99", {("out_of_order", "a", 3)}),
    "appointment_seq": (
        "9",
        {("edited", "a", 9), ("gap", "a", 3), ("unlinked", "a", 3)}
        | {(kind, "a", 9) for kind in ("gap", "unlinked", "status_break", "out_of_order")}
        | {("status_differs", "a", 9)},
    ),
    "appointment_id": (
        "'x'",
        {("gap", "a", 3), ("unlinked", "a", 3), ("edited", "x", 2), ("appointment_missing", "x", 2)}
        | {(kind, "x", 2) for kind in ("gap", "unlinked", "status_break", "command_missing")},
    ),
}


def test_every_column_is_covered() -> None:
    """There is an edit for each column of the trail."""
    assert EDITS.keys() == {*trail.COLUMNS, "seq", "hash"} == {*encoding.COLUMNS, "seq", "hash"}


def test_an_edit_of_any_column_is_found_at_its_row(scene: Scene) -> None:
    """One value of one row: that row is named, those that contradict it now, and no other."""
    seq = scene.row(scene.a, 2)["seq"]
    for column, (value, expected) in EDITS.items():
        before = scene.row(scene.a, 2)[column]
        scene.attack(f"UPDATE {{events}} SET {column} = {value} WHERE seq = {seq}")
        assert scene.found() == expected, column
        now = 99 if column == "seq" else seq
        kept = stored(before)
        scene.attack(f"UPDATE {{events}} SET {column} = {cast(scene, column)} WHERE seq = {now}", kept=kept)
        assert scene.found() == set(), column


def stored(value: Any) -> Any:
    """Give a value as a parameter: details as text."""
    return "{}" if value == {} else value


def cast(scene: Scene, column: str) -> str:
    """Write the parameter, as JSON where that is needed."""
    return "CAST(:kept AS jsonb)" if column == "details" and scene.is_postgres else ":kept"


OPERATIONS: dict[str, tuple[tuple[str, ...], set[tuple[str, str | None, int | None]]]] = {
    "delete an event": (
        ("DELETE FROM {events} WHERE appointment_id = {a} AND appointment_seq = 3",),
        {("gap", "a", 4), ("unlinked", "a", 4), ("status_break", "a", 4)},
    ),
    "delete the first event": (
        ("DELETE FROM {events} WHERE appointment_id = {a} AND appointment_seq = 1",),
        {("gap", "a", 2), ("unlinked", "a", 2), ("status_break", "a", 2)},
    ),
    "reorder two events": (
        (
            "UPDATE {events} SET appointment_seq = 1002 WHERE appointment_id = {a} AND appointment_seq = 2",
            "UPDATE {events} SET appointment_seq = 2 WHERE appointment_id = {a} AND appointment_seq = 3",
            "UPDATE {events} SET appointment_seq = 3 WHERE appointment_id = {a} AND appointment_seq = 1002",
        ),
        {("edited", "a", 2), ("edited", "a", 3), ("unlinked", "a", 2), ("unlinked", "a", 3), ("unlinked", "a", 4)}
        | {("out_of_order", "a", 3), ("status_break", "a", 3), ("status_break", "a", 4)},
    ),
    "swap two rows of two chains": (
        (
            "UPDATE {events} SET appointment_id = 'swap' WHERE appointment_id = {a} AND appointment_seq = 2",
            "UPDATE {events} SET appointment_id = {a} WHERE appointment_id = {b} AND appointment_seq = 2",
            "UPDATE {events} SET appointment_id = {b} WHERE appointment_id = 'swap'",
        ),
        {
            *((kind, letter, 2) for kind in ("edited", "unlinked", "command_missing") for letter in "ab"),
            *(("unlinked", letter, 3) for letter in "ab"),
            ("out_of_order", "a", 3),
        },
    ),
    "swap two chains": (
        (
            "UPDATE {events} SET appointment_id = 'swap' WHERE appointment_id = {a}",
            "UPDATE {events} SET appointment_id = {a} WHERE appointment_id = {b}",
            "UPDATE {events} SET appointment_id = {b} WHERE appointment_id = 'swap'",
        ),
        {
            *(("edited", letter, number) for letter in "ab" for number in range(1, 6)),
            *(("command_missing", letter, number) for letter in "ab" for number in (2, 4)),
            *(("command_unrecorded", letter, None) for letter in "ab"),
        },
    ),
    "cut the tail": (
        ("DELETE FROM {events} WHERE appointment_id = {a} AND appointment_seq = 5",),
        {("status_differs", "a", 4)},
    ),
    "delete a chain's events": (
        ("DELETE FROM {events} WHERE appointment_id = {a}",),
        {("events_missing", "a", None), ("command_unrecorded", "a", None)},
    ),
    "delete an appointment": (
        ("DELETE FROM lifecycle_appointments WHERE appointment_id = {a}",),
        {("appointment_missing", "a", 5)},
    ),
    "rename an appointment": (
        (
            "UPDATE lifecycle_appointments SET appointment_id = 'x' WHERE appointment_id = {a}",
            "UPDATE lifecycle_commands SET appointment_id = 'x' WHERE appointment_id = {a}",
            "UPDATE {events} SET appointment_id = 'x' WHERE appointment_id = {a}",
        ),
        {("edited", "x", number) for number in range(1, 6)},
    ),
    "change an appointment's status": (
        ("UPDATE lifecycle_appointments SET status = 'confirmed' WHERE appointment_id = {a}",),
        {("status_differs", "a", 5)},
    ),
    "change what is known of a status": (
        ("UPDATE lifecycle_appointments SET status_known = NOT status_known WHERE appointment_id = {a}",),
        {("status_known_differs", "a", 5)},
    ),
    "delete a command": (
        ("DELETE FROM lifecycle_commands WHERE appointment_id = {a} AND command = 'cancel'",),
        {("command_missing", "a", 4)},
    ),
    "give a command to another appointment": (
        ("UPDATE lifecycle_commands SET appointment_id = {b} WHERE appointment_id = {a} AND command = 'cancel'",),
        {("command_missing", "a", 4), ("command_unrecorded", "b", None)},
    ),
    "insert an event": (
        (
            "INSERT INTO {events} (seq, appointment_id, appointment_seq, "
            + (others := ", ".join(name for name in trail.COLUMNS if not name.startswith("appointment_")))
            + f", hash) SELECT 1000, appointment_id, 6, {others}, hash FROM {{events}} "
            "WHERE appointment_id = {a} AND appointment_seq = 5",
        ),
        {("edited", "a", 6), ("unlinked", "a", 6), ("status_break", "a", 6)},
    ),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_found_and_named(scene: Scene, name: str) -> None:
    """Rows deleted, inserted, exchanged or renamed without new hashes are named exactly, and the first bad row is."""
    statements, expected = OPERATIONS[name]
    scene.attack(*statements)
    result = scene.verify()
    assert scene.named(result) == expected
    assert result.first is not None
    rows = [each.seq for each in result.findings if each.seq is not None]
    assert result.first.seq == min(rows, default=None)


def test_rebuilt_hashes_are_found_by_a_checkpoint(scene: Scene, checkpoint: Path) -> None:
    """Verification alone cannot know better than a trail that fits itself; the checkpoint does."""
    scene.attack(f"UPDATE {{events}} SET actor = 'forger' {OF_A2}")
    scene.rebuild()
    assert scene.found() == set()
    assert against(scene, checkpoint) == {("rewritten", "a", 5)}


def test_a_tail_cut_without_a_trace_is_found_by_a_checkpoint(scene: Scene, checkpoint: Path) -> None:
    """The appointment's status was put back as well."""
    scene.attack(
        "DELETE FROM {events} WHERE appointment_id = {a} AND appointment_seq = 5",
        "UPDATE lifecycle_appointments SET status = 'confirmed' WHERE appointment_id = {a}",
    )
    assert scene.found() == set()
    assert against(scene, checkpoint) == {("tail_cut", "a", 4)}


@pytest.mark.parametrize("letter", ["a", "c"])
def test_a_chain_deleted_with_its_rows_is_found_by_a_checkpoint(scene: Scene, checkpoint: Path, letter: str) -> None:
    """Events, commands and appointment: nothing is left that could contradict."""
    tables = (EVENTS, "lifecycle_commands", "lifecycle_appointments")
    scene.attack(*(f"DELETE FROM {table} WHERE appointment_id = {{{letter}}}" for table in tables))
    assert scene.found() == set()
    assert against(scene, checkpoint) == {("chain_deleted", letter, None)}


def test_a_rebuilt_rename_is_found_by_a_checkpoint(scene: Scene, checkpoint: Path) -> None:
    """The old name's chain is gone, and the new one claims to be older than the checkpoint."""
    scene.attack(*OPERATIONS["rename an appointment"][0])
    scene.rebuild()
    assert scene.found() == set()
    backdated = {("backdated", "x", number) for number in range(1, 6)}
    assert against(scene, checkpoint) == {("chain_deleted", "a", None), *backdated}


def test_a_backdated_chain_is_found_by_a_checkpoint(scene: Scene, checkpoint: Path) -> None:
    """A chain that was added later and fits itself, with times before the checkpoint."""
    scene.adopt("forged")
    scene.forge("forged", copied=scene.b, recorded_at="2020-01-01T00:00:00.000000Z")
    assert scene.found() == set()
    assert against(scene, checkpoint) == {("backdated", "forged", number) for number in range(1, 6)}


def test_backdated_events_behind_a_head_are_found_by_a_checkpoint(scene: Scene, checkpoint: Path) -> None:
    """A chain of the checkpoint that was lengthened with events that claim to be older."""
    scene.forge(scene.c, copied=scene.a, first=2, recorded_at="2020-01-01T00:00:00.000000Z")
    scene.attack("UPDATE lifecycle_appointments SET status = 'cancelled' WHERE appointment_id = {c}")
    assert scene.found() == set()
    assert against(scene, checkpoint) == {("backdated", "c", number) for number in range(2, 6)}


def test_events_inserted_before_a_head_are_found_by_a_checkpoint(scene: Scene, checkpoint: Path) -> None:
    """Later events move up and all is rebuilt: the head is another one, and the new last is too old."""
    columns = ", ".join(name for name in trail.COLUMNS if name != "appointment_seq")
    scene.attack(
        *(
            f"UPDATE {{events}} SET appointment_seq = {number + 1}, seq = seq + 1000 "
            f"WHERE appointment_id = {{a}} AND appointment_seq = {number}"
            for number in (5, 4, 3)
        ),
        f"INSERT INTO {{events}} (seq, appointment_seq, hash, {columns}) "
        f"SELECT 500, 3, hash, {columns} FROM {{events}} {OF_A2}",
    )
    scene.rebuild()
    assert scene.found() == set()
    assert against(scene, checkpoint) == {("rewritten", "a", 5), ("backdated", "a", 6)}


def test_exchanged_places_in_the_order_of_insertion_are_found(scene: Scene) -> None:
    """`seq` is not hashed, but it rises within each chain."""
    second, third = scene.row(scene.a, 2)["seq"], scene.row(scene.a, 3)["seq"]
    scene.attack(
        f"UPDATE {{events}} SET seq = 1000 WHERE seq = {second}",
        f"UPDATE {{events}} SET seq = {second} WHERE seq = {third}",
        f"UPDATE {{events}} SET seq = {third} WHERE seq = 1000",
    )
    assert scene.found() == {("out_of_order", "a", 3)}


def test_nulls_where_none_may_be_are_findings(scene: Scene) -> None:
    """An owner who takes the constraints away can write NULL anywhere; the row is named all the same."""
    seq = scene.row(scene.a, 2)["seq"]
    scene.loosen()
    for column in (*trail.COLUMNS, "hash"):
        before = scene.row_at(seq)[column]
        if before is None:
            continue
        scene.attack(f"UPDATE {{events}} SET {column} = NULL WHERE seq = {seq}")
        named = {(appointment_id, number) for _, appointment_id, number in scene.found()}
        place = {"appointment_id": (None, 2), "appointment_seq": ("a", None)}.get(column, ("a", 2))
        assert place in named, column
        scene.attack(f"UPDATE {{events}} SET {column} = {cast(scene, column)} WHERE seq = {seq}", kept=stored(before))
        assert scene.found() == set(), column


ODD_TEXTS = {
    "details are not JSON": ("details", "'nonsense'"),
    "details are cut off": ("details", """'{{"a": 1'"""),
    "a key of the details is there twice": ("details", """'{{"start_time": 1, "start_time": 2}}'"""),
    "details hold no number of JSON's": ("details", """'{{"a": NaN}}'"""),
    "details are nested too deeply": ("details", "'" + "[" * 200_000 + "'"),
    "details have a number of too many digits": ("details", "'" + "9" * 10_000 + "'"),
    "details have half a letter": ("details", """'{{"a": "\\ud800"}}'"""),
    "details are bytes": ("details", "x'ff00'"),
    "details are huge": ("details", "'\"' || replace(hex(zeroblob(3000000)), '0', 'a') || '\"'"),
    "a text is not UTF-8": ("actor", "CAST(x'ff41' AS TEXT)"),
    "a text has a zero byte": ("actor", "CAST(x'410042' AS TEXT)"),
    "a text is bytes": ("actor", "x'ff00'"),
    "the id is not UTF-8": ("appointment_id", "CAST(x'ff41' AS TEXT)"),
    "the id is bytes": ("appointment_id", "x'ff00'"),
    "the command is not UTF-8": ("command_id", "CAST(x'ff41' AS TEXT)"),
    "a number is a text": ("http_status", "'many'"),
    "a number is a fraction": ("duration_ms", "1.5"),
    "a number is infinite": ("duration_ms", "9e999"),
    "the appointment's number is a text": ("appointment_seq", "'two'"),
    "the appointment's number is a fraction": ("appointment_seq", "2.5"),
    "the appointment's number is huge": ("appointment_seq", "9223372036854775807"),
    "a truth is neither": ("conforming", "2"),
    "a truth is a text": ("conforming", "'yes'"),
    "the version is a text": ("hash_version", "'one'"),
    "the hash is bytes": ("hash", "x'ff00'"),
    "an instant has an offset": ("recorded_at", "'2030-01-01T00:00:00.000000+00:00'"),
    "an instant is none": ("recorded_at", "'yesterday'"),
    "an instant is a number": ("occurred_at", "1e300"),
}


@pytest.mark.parametrize("name", ODD_TEXTS)
def test_sqlite_may_hold_anything_and_it_is_a_finding(sqlite_only: Scene, name: str) -> None:
    """SQLite stores any kind of value in any column; the row is named, whatever it is, and nothing fails."""
    column, value = ODD_TEXTS[name]
    seq = sqlite_only.row(sqlite_only.a, 2)["seq"]
    sqlite_only.loosen()
    sqlite_only.attack(f"UPDATE {{events}} SET {column} = {value} WHERE seq = {seq}")
    result = sqlite_only.verify()
    assert seq in {each.seq for each in result.findings}
    assert all(each.what.isprintable() and len(each.what) < 300 for each in result.findings)


@pytest.mark.parametrize("when", ["infinity", "-infinity", "20000-01-01", "0044-03-15 BC", "0001-01-01 BC"])
@pytest.mark.parametrize("column", ["recorded_at", "occurred_at"])
def test_instants_that_python_does_not_have_are_findings(postgres_only: Scene, column: str, when: str) -> None:
    """PostgreSQL's calendar is longer than Python's."""
    postgres_only.attack(f"UPDATE {{events}} SET {column} = '{when}' {OF_A2}")
    assert postgres_only.found() == {("edited", "a", 2)}


def test_the_same_date_before_christ_is_not_the_same(postgres_only: Scene) -> None:
    """Texts of instants may leave the era out."""
    same = "to_char(recorded_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') || '+00'"
    postgres_only.attack(f"UPDATE {{events}} SET recorded_at = CAST({same} AS timestamptz) {OF_A2}")
    assert postgres_only.found() == set()
    postgres_only.attack(f"UPDATE {{events}} SET recorded_at = CAST({same} || ' BC' AS timestamptz) {OF_A2}")
    assert postgres_only.found() == {("edited", "a", 2)}


@pytest.mark.parametrize("name", ["lifecycle_audit_no_update", "lifecycle_audit_no_delete", "lifecycle_audit_gapless"])
@pytest.mark.parametrize("what", ["dropped", "replaced"])
def test_a_tampered_trigger_of_sqlite_is_named(sqlite_only: Scene, name: str, what: str) -> None:
    """A trigger of the same name that refuses nothing is no guard."""
    [kept] = support.query(sqlite_only.url, "SELECT sql FROM sqlite_master WHERE name = :name", name=name)
    support.query(sqlite_only.url, f"DROP TRIGGER {name}")
    if what == "replaced":
        support.query(sqlite_only.url, kept["sql"].replace("BEGIN SELECT", "BEGIN SELECT 1; SELECT 1 WHERE NULL AND"))
    assert changes_of(sqlite_only) == [f"{'missing' if what == 'dropped' else 'changed'} trigger {name}"]


NEXT = "EXECUTE FUNCTION lifecycle_audit_next()"
REPLACED = {
    "changed trigger lifecycle_audit_no_change": (
        "CREATE OR REPLACE FUNCTION lifecycle_audit_refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN END$$",
    ),
    "changed trigger lifecycle_audit_gapless": (
        f"DROP TRIGGER lifecycle_audit_gapless ON {EVENTS}",
        f"CREATE TRIGGER lifecycle_audit_gapless BEFORE INSERT ON {EVENTS} FOR EACH ROW WHEN (1 < 0) {NEXT}",
        f"ALTER TABLE {EVENTS} ENABLE ALWAYS TRIGGER lifecycle_audit_gapless",
    ),
    "missing trigger lifecycle_audit_gapless": (f"ALTER TABLE {EVENTS} DISABLE TRIGGER lifecycle_audit_gapless",),
    "missing trigger lifecycle_audit_no_change": (f"DROP TRIGGER lifecycle_audit_no_change ON {EVENTS}",),
    "unexpected trigger swallow": (
        "CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$",
        f"CREATE TRIGGER swallow BEFORE INSERT ON {EVENTS} FOR EACH ROW EXECUTE FUNCTION swallow()",
    ),
    "unexpected rule swallow": (f"CREATE RULE swallow AS ON INSERT TO {EVENTS} DO INSTEAD NOTHING",),
    "unexpected row security": (f"ALTER TABLE {EVENTS} ENABLE ROW LEVEL SECURITY",),
}


@pytest.mark.parametrize("change", REPLACED)
def test_a_tampered_guard_of_postgresql_is_named(postgres_only: Scene, change: str) -> None:
    """Dropped, disabled, with another condition or body, or with something in front of it."""
    for statement in REPLACED[change]:
        support.query(postgres_only.url, statement)
    assert changes_of(postgres_only) == [change]


def test_an_unexpected_trigger_of_sqlite_is_named(sqlite_only: Scene) -> None:
    """One that swallows what is inserted comes before the guards."""
    swallow = f"CREATE TRIGGER swallow BEFORE INSERT ON {EVENTS} BEGIN SELECT RAISE(IGNORE); END"
    support.query(sqlite_only.url, swallow)
    assert changes_of(sqlite_only) == ["unexpected trigger swallow"]


def changes_of(scene: Scene) -> list[str]:
    """Give what verification says of the guards, which is what the check of the schema says too."""
    made = database.Database(scene.url)
    try:
        assert schema.check(made) == [each.what for each in scene.verify().findings]
    finally:
        made.close()
    assert scene.found() == {("guard_changed", None, None)}
    return [each.what for each in scene.verify().findings]
