"""Checkpoints: a signed file of heads that has all there was, refuses to be changed, and lets honest work go on."""

from __future__ import annotations

import hashlib
import hmac
import json
import stat
import threading
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from lifecycle import (
    Checkpoint,
    CheckpointRefused,
    ConfigurationError,
    DatabaseUnavailable,
    InvalidArgument,
    Lifecycle,
    audit,
    checkpoints,
    database,
    headfile,
    models,
    settings,
    writers,
)
from tests import support
from tests.conftest import _execute
from tests.support import ACTOR
from tests.test_cli import assert_error, invoke

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lifecycle.sandbox import Sandbox
    from tests.tampering import Scene

KEY = bytes(range(32))
ENTRY = audit.Entry(event=audit.Event.COMMAND_REFUSED, actor=ACTOR, source="api", outcome="refused")


def lines(path: Path) -> list[dict[str, Any]]:
    """Read the file as anybody can."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@contextmanager
def product(url: str) -> Iterator[Lifecycle]:
    """Open the product, to read."""
    with Lifecycle(url) as made:
        yield made


def test_the_file_is_what_its_description_says(scene: Scene, tmp_path: Path) -> None:
    """A header, the last event of each chain, totals, and an HMAC over the bytes before: no code of ours is needed."""
    path = tmp_path / "checkpoint.jsonl"
    with product(scene.url) as lifecycle:
        before = datetime.now(UTC)
        made = lifecycle.checkpoint(path, key=KEY)
    header, *heads, totals, signature = lines(path)
    assert set(header) == {"format", "version", "environment", "schema_revision", "as_of", "created_at"}
    assert (header["format"], header["version"], header["schema_revision"]) == (
        "lifecycle-checkpoint",
        1,
        models.REVISION,
    )
    assert {each["appointment_id"]: each["appointment_seq"] for each in heads} == {scene.a: 5, scene.b: 5, scene.c: 1}
    assert {each["hash"] for each in heads} == {
        scene.row(scene.a, 5)["hash"],
        scene.row(scene.b, 5)["hash"],
        scene.row(scene.c, 1)["hash"],
    }
    assert totals == {"appointments": 3, "events": 11, "events_until_as_of": 11}
    content, last = path.read_bytes().rsplit(b"\n", 2)[:2]
    assert signature == json.loads(last)
    assert signature["hmac_sha256"] == hmac.new(KEY, content + b"\n", hashlib.sha256).hexdigest()
    assert isinstance(made, Checkpoint)
    assert (made.path, made.appointments, made.events, made.environment) == (str(path), 3, 11, header["environment"])
    assert abs((made.as_of - before).total_seconds()) < 5
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in tmp_path.iterdir() if "checkpoint" in each.name] == ["checkpoint.jsonl"]


def test_what_is_recorded_afterwards_is_no_finding(lifecycle: Lifecycle, sandbox: Sandbox, tmp_path: Path) -> None:
    """Chains grow and new ones begin; the old checkpoint still fits."""
    path = tmp_path / "checkpoint"
    lifecycle.checkpoint(path, key=KEY)
    first = support.tracked(lifecycle, sandbox)
    assert lifecycle.verify_checkpoint(path, key=KEY).is_sound
    lifecycle.checkpoint(path, key=KEY, replace=True)
    lifecycle.confirm(first, actor=ACTOR)
    support.tracked(lifecycle, sandbox)
    found = lifecycle.verify_checkpoint(path, key=KEY)
    assert (found.is_sound, found.events, found.chains) == (True, 4, 2)


@pytest.fixture
def written(sqlite_only: Scene, tmp_path: Path) -> Path:
    """A checkpoint of an SQLite database."""
    path = tmp_path / "checkpoint"
    with product(sqlite_only.url) as lifecycle:
        lifecycle.checkpoint(path, key=KEY)
    return path


def refusal(scene: Scene, path: Path, key: bytes = KEY) -> str:
    """Verify against a file that is refused; give the reason's code."""
    with product(scene.url) as lifecycle, pytest.raises(CheckpointRefused) as caught:
        lifecycle.verify_checkpoint(path, key=key)
    assert str(path) in str(caught.value)
    return caught.value.reason_code


def test_a_file_with_any_byte_changed_is_refused(sqlite_only: Scene, written: Path) -> None:
    """Each byte of it is signed, the signature's line included."""
    content = written.read_bytes()
    for place in range(0, len(content), 7):
        changed = bytearray(content)
        changed[place] ^= 1
        written.write_bytes(changed)
        assert refusal(sqlite_only, written) in {"bad_signature", "not_a_checkpoint"}, place


def test_a_file_that_was_cut_lengthened_or_reordered_is_refused(sqlite_only: Scene, written: Path) -> None:
    """Lines may neither go nor come nor move."""
    first, *heads, totals, signature = written.read_bytes().splitlines(keepends=True)
    for changed in (
        [],
        [first],
        [first, *heads, totals],
        [first, *heads[1:], totals, signature],
        [first, *heads, heads[0], totals, signature],
        [first, heads[1], heads[0], heads[2], totals, signature],
        [first, *heads, totals, signature[:-1]],
        [first, *heads, totals, signature, signature],
        [first, *heads, totals, signature, b"\n"],
        [b"x" * 10_000_000],
    ):
        written.write_bytes(b"".join(changed))
        assert refusal(sqlite_only, written) in {"bad_signature", "not_a_checkpoint"}


def test_another_key_is_refused(sqlite_only: Scene, written: Path) -> None:
    """Who does not have the key can neither make nor check a checkpoint."""
    assert refusal(sqlite_only, written, key=bytes(32)) == "bad_signature"


def test_a_checkpoint_of_a_newer_version_is_refused(sqlite_only: Scene, written: Path) -> None:
    """It is authentic, but what it means is not known here."""
    _, *rest, _ = written.read_bytes().splitlines(keepends=True)
    header = lines(written)[0] | {"version": 2}
    content = json.dumps(header).encode() + b"\n" + b"".join(rest)
    signature = hmac.new(KEY, content, hashlib.sha256).hexdigest()
    written.write_bytes(content + json.dumps({"hmac_sha256": signature}, separators=(",", ":")).encode() + b"\n")
    assert refusal(sqlite_only, written) == "unknown_version"


def test_a_checkpoint_of_another_environment_is_refused(sqlite_only: Scene, written: Path) -> None:
    """Somebody took the wrong file, or the wrong database."""
    sqlite_only.attack("UPDATE lifecycle_installation SET zocdoc_environment = 'production'")
    assert refusal(sqlite_only, written) == "another_environment"


def test_a_file_that_changes_while_it_is_read_is_refused(sqlite_only: Scene, written: Path) -> None:
    """It is read twice, and must be authentic both times."""
    reader = headfile.Reader(written, KEY)
    heads = reader.heads()
    next(heads)
    written.write_bytes(written.read_bytes().replace(sqlite_only.a.encode(), b"0" * len(sqlite_only.a)))
    with pytest.raises(CheckpointRefused):
        list(reader.heads())


@pytest.mark.parametrize("key", [b"", bytes(31), "0" * 64, None])
def test_a_key_that_could_be_guessed_is_refused(sqlite_only: Scene, written: Path, key: Any) -> None:
    """32 bytes at least; nothing is written."""
    with product(sqlite_only.url) as lifecycle:
        with pytest.raises(InvalidArgument, match="32 random bytes"):
            lifecycle.checkpoint(written.with_name("other"), key=key)
        with pytest.raises(InvalidArgument, match="32 random bytes"):
            lifecycle.verify_checkpoint(written, key=key)
    assert not written.with_name("other").exists()


def test_a_file_that_is_there_is_kept(sqlite_only: Scene, written: Path) -> None:
    """A checkpoint is evidence: it is replaced only when that is said, and by a whole one."""
    before = written.read_bytes()
    with product(sqlite_only.url) as lifecycle:
        with pytest.raises(InvalidArgument, match="is there already"):
            lifecycle.checkpoint(written, key=KEY)
        assert written.read_bytes() == before
        lifecycle.checkpoint(written, key=KEY, replace=True)
    assert written.read_bytes() != before


def test_a_failure_leaves_nothing(sqlite_only: Scene, written: Path) -> None:
    """A trail that cannot be read to its end makes no file, and harms none that is there."""
    before = written.read_bytes()
    sqlite_only.loosen()
    sqlite_only.attack("UPDATE {events} SET hash = x'ff' WHERE appointment_id = {c}")
    with product(sqlite_only.url) as lifecycle, pytest.raises(DatabaseUnavailable, match="lifecycle verify"):
        lifecycle.checkpoint(written, key=KEY, replace=True)
    assert written.read_bytes() == before
    assert {each.name for each in written.parent.iterdir()} >= {written.name}
    assert [each.name for each in written.parent.iterdir() if each.name.startswith(".")] == []


@contextmanager
def appending(url: str, appointment_id: str) -> Iterator[sa.Connection]:
    """Be a writer that has looked at the clock and has not appended yet; commits at the end."""
    made = database.Database(url)
    with made.write() as connection:
        now = made.now(connection)
        yield connection
        locked = audit.lock(made, connection, appointment_id)
        assert locked is not None
        audit.record(connection, replace(locked, now=now), ENTRY)
    made.close()


def test_an_event_that_is_committed_later_is_not_promised(postgres_only: Scene, tmp_path: Path) -> None:
    """A writer that looked at the clock before the checkpoint and commits after it is younger than `as_of`."""
    path = tmp_path / "checkpoint"
    with product(postgres_only.url) as lifecycle:
        with appending(postgres_only.url, postgres_only.a):
            lifecycle.checkpoint(path, key=KEY)
        found = lifecycle.verify_checkpoint(path, key=KEY)
    assert (found.findings, found.events) == ((), 12)


def test_a_prepared_transaction_is_told(postgres_only: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody knows when it will be committed, and its events are as old as it is."""
    monkeypatch.setattr(writers, "active", lambda _database: {writers.PREPARED})
    with product(postgres_only.url) as lifecycle, pytest.raises(DatabaseUnavailable, match="prepared transaction"):
        lifecycle.checkpoint(tmp_path / "checkpoint", key=KEY)


def test_a_replica_makes_no_checkpoints(postgres_only: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not show who is writing on the primary."""
    monkeypatch.setattr(checkpoints, "_IS_REPLICA", sa.select(sa.true()))
    with product(postgres_only.url) as lifecycle, pytest.raises(ConfigurationError, match="on the primary"):
        lifecycle.checkpoint(tmp_path / "checkpoint", key=KEY)
    assert list(tmp_path.iterdir()) == []


def test_a_writer_of_another_role_is_waited_for(
    postgres_only: Scene, tmp_path: Path, postgres_server: sa.URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the right to see when it began, nothing can be promised before it has ended."""
    monkeypatch.setattr(checkpoints, "_PATIENCE", 0.3)
    _execute(postgres_server, "DROP ROLE IF EXISTS checkpoint_maker")
    _execute(postgres_server, "CREATE ROLE checkpoint_maker LOGIN")
    for table in ("events", "appointments", "installation", "alembic_version"):
        name = f"lifecycle_{'audit_' if table == 'events' else ''}{table}"
        support.query(postgres_only.url, f"GRANT SELECT ON {name} TO checkpoint_maker")
    url = sa.make_url(postgres_only.url).set(username="checkpoint_maker")
    path = tmp_path / "checkpoint"
    with product(url.render_as_string(hide_password=False)) as lifecycle:
        with (
            appending(postgres_only.url, postgres_only.a),
            pytest.raises(DatabaseUnavailable, match="pg_read_all_stats"),
        ):
            lifecycle.checkpoint(path, key=KEY)
        assert not path.exists()
        made = lifecycle.checkpoint(path, key=KEY)
    assert made.events == 12
    support.query(postgres_only.url, "DROP OWNED BY checkpoint_maker")
    _execute(postgres_server, "DROP ROLE checkpoint_maker")


def test_checkpoints_beside_writers_keep_their_promise(lifecycle: Lifecycle, sandbox: Sandbox, tmp_path: Path) -> None:
    """Whatever is committed while they are written, no event that is as old as `as_of` is missing in any."""
    ends = threading.Event()

    def write() -> None:
        while not ends.is_set():
            lifecycle.confirm(support.tracked(lifecycle, sandbox), actor=ACTOR)

    paths = [tmp_path / str(number) for number in range(8)]
    with support.in_background(write) as results:
        try:
            made = [lifecycle.checkpoint(path, key=KEY) for path in paths]
        finally:
            ends.set()
    assert results == [None]
    for path, each in zip(paths, made, strict=True):
        assert lifecycle.verify_checkpoint(path, key=KEY).findings == ()
        assert each.events == sum(line.get("appointment_seq", 0) for line in lines(path))


HEX = KEY.hex()


def test_the_command_line_writes_and_verifies(scene: Scene, tmp_path: Path) -> None:
    """Words on stderr, the record on stdout if it is asked for; 6 when something was found."""
    path = tmp_path / "checkpoint"
    environ = {"LIFECYCLE_DATABASE_URL": scene.url, "LIFECYCLE_CHECKPOINT_KEY": HEX}
    made = invoke("checkpoint", "create", "-o", str(path), **environ)
    assert (made.exit_code, made.stdout) == (0, "")
    assert made.stderr.startswith("11 events of 3 appointments as of 20")
    assert_error(invoke("checkpoint", "create", "-o", str(path), **environ), 2, "is there already")
    made = invoke("checkpoint", "create", "-o", str(path), "--force", "--format", "json", **environ)
    assert json.loads(made.stdout)["events"] == 11
    sound = invoke("checkpoint", "verify", str(path), "--format", "jsonl", **environ)
    assert (sound.exit_code, sound.stdout) == (0, "")
    scene.attack("DELETE FROM {events} WHERE appointment_id = {a} AND appointment_seq = 5")
    broken = invoke("checkpoint", "verify", str(path), "--format", "jsonl", **environ)
    assert broken.exit_code == 6
    assert [json.loads(line)["kind"] for line in broken.stdout.splitlines()] == ["status_differs", "tail_cut"]
    assert "event 4 of appointment" in broken.stderr


def test_the_command_line_refuses_a_wrong_key_and_a_wrong_file(sqlite_only: Scene, written: Path) -> None:
    """One line, and never the key."""
    environ = {"LIFECYCLE_DATABASE_URL": sqlite_only.url}
    verify = ("checkpoint", "verify", str(written))
    assert_error(invoke(*verify, **environ), 2, "LIFECYCLE_CHECKPOINT_KEY is not set", "openssl rand -hex 32")
    for short in ("ab" * 31, "x" * 64, "ab" * 32 + "c"):
        result = invoke(*verify, **environ, LIFECYCLE_CHECKPOINT_KEY=short)
        assert_error(result, 2, "too short or not hex")
        assert short not in result.output
    assert_error(invoke(*verify, **environ, LIFECYCLE_CHECKPOINT_KEY="ab" * 32), 1, "bad_signature")
    missing = ("checkpoint", "verify", f"{written}.none")
    assert_error(invoke(*missing, **environ, LIFECYCLE_CHECKPOINT_KEY=HEX), 1, "No such file")


def test_the_key_may_come_from_a_file(tmp_path: Path) -> None:
    """As every secret."""
    (tmp_path / "key").write_text(f"{HEX}\n", encoding="utf-8")
    assert settings.checkpoint_key({"LIFECYCLE_CHECKPOINT_KEY_FILE": str(tmp_path / "key")}) == KEY
    assert settings.checkpoint_key({"LIFECYCLE_CHECKPOINT_KEY": HEX.upper()}) == KEY
