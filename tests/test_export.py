"""Exports: what is in each format, on both databases, against plain SQL; whole files or none."""

from __future__ import annotations

import csv
import gc
import io
import json
import re
import shutil
import uuid
from contextlib import contextmanager
from dataclasses import astuple, fields
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, get_type_hints

import pyarrow as pa
import pytest
import sqlalchemy as sa
from pyarrow import parquet

import lifecycle as package
from lifecycle import AuditEvent, EventLogRow, FunnelRow, Lifecycle, database, errors, files, views
from lifecycle.columns import UtcDateTime
from lifecycle.reports import csvs, exporting, formulas, rows, sources, streams
from lifecycle.reports.filters import Filters
from lifecycle.sandbox import Sandbox, serve
from tests import support, trail

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOSTILE = (
    "=HYPERLINK(1)",
    "+1",
    "-1",
    "@SUM(A1)",
    "\uff1d1",
    "\uff0b1",
    "\uff0d1",
    "\uff201",
    'say "hi", there',
    "'quoted'",
    "100%s %(x)s :since",
    "back\\slash \\.",
    "Zoë 名前 🩺",
    " leading",
)
"""Actors that an export must carry unharmed, and that must do no harm."""


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One database for this file, because to play the story takes longer than to read it."""
    if request.param == "sqlite":
        path = tmp_path_factory.mktemp("export") / "appointments.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite:///{path}"
        return
    server: sa.URL = request.getfixturevalue("postgres_server")
    template = request.getfixturevalue("postgres_template")
    name = f"lifecycle_export_{uuid.uuid4().hex[:12]}"
    with autocommit(server) as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name} TEMPLATE {template}")
    yield server.set(database=name).render_as_string(hide_password=False)
    with autocommit(server) as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def autocommit(server: sa.URL) -> Iterator[sa.Connection]:
    """Open a connection without transactions."""
    engine = sa.create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        yield connection
    engine.dispose()


@pytest.fixture(scope="module")
def story(database_url: str) -> Iterator[Lifecycle]:
    """One appointment for each hostile actor, a story with a refusal, a lost answer and a cancellation, and a batch."""
    sandbox = Sandbox()
    with serve(sandbox) as server, support.client_of(server) as client, support.opened(database_url, client) as product:
        for actor in HOSTILE:
            appointment_id = support.tracked(product, sandbox, status="pending_booking", provider_location_id=actor)
            product.confirm(appointment_id, actor=actor)
        with pytest.raises(errors.TransitionRefused):
            product.confirm(appointment_id, actor="user:1")
        support.lose_answer(sandbox, "cancel", when="after")
        with pytest.raises(errors.OutcomeUnknown):
            product.cancel(appointment_id, actor="user:1", reason_type="provider_not_available")
        product.recover(wait=5.0)
        wishes = [{"appointment_id": each} for each in (appointment_id, "not tracked", "n-1")]
        with support.opened(database_url, client) as other:
            assert other.submit_many(wishes, actor="user:1", command="cancel", name="=1+1").wait(timeout=9)
        yield product


def plain(url: str, source: views.View) -> list[tuple[Any, ...]]:
    """Read the same rows through SQLAlchemy's types."""
    columns = [sa.column(column.name, column.type) for column in source.table.columns]
    query = sa.select(*columns).select_from(sa.table(source.name)).order_by(*map(sa.column, source.order))
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        found = [tuple(row) for row in connection.execute(query)]
    engine.dispose()
    return found


def exported(product: Lifecycle, view: str, form: str, **more: Any) -> bytes:
    """Export into memory."""
    file = io.BytesIO()
    product.export(view, file, format=form, **more)
    return file.getvalue()


def as_text(value: object) -> object:
    """Write a value as the text formats must."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return value.isoformat() if isinstance(value, date) else value


def from_cell(text: str, column: sa.Column[Any]) -> object:
    """Read a CSV cell back."""
    if text == "":
        return None
    kind = column.type
    if isinstance(kind, sa.Boolean):
        return {"true": True, "false": False}[text]
    if isinstance(kind, sa.Integer):
        return int(text)
    if isinstance(kind, sa.Float):
        return float(text)
    return json.loads(text) if isinstance(kind, sa.JSON) else text


@pytest.mark.parametrize("source", sources.BY_NAME.values(), ids=lambda source: source.name)
def test_every_format_holds_the_rows_of_the_view(
    story: Lifecycle, database_url: str, source: views.View, tmp_path: Path
) -> None:
    """CSV, JSON lines, Parquet, Arrow and records say what plain SQL says, in the view's order."""
    expected = plain(database_url, source)
    assert expected
    names = [column.name for column in source.table.columns]
    texts = [tuple(map(as_text, row)) for row in expected]

    head, *cells = csv.reader(io.StringIO(exported(story, source.name, "csv", guard=False).decode(), newline=""))
    assert head == names
    columns = list(source.table.columns)
    read = [tuple(from_cell(text, column) for text, column in zip(row, columns, strict=True)) for row in cells]
    assert read == texts

    lines = exported(story, source.name, "jsonl").splitlines()
    assert [list(json.loads(line).items()) for line in lines] == [list(zip(names, row, strict=True)) for row in texts]

    path = tmp_path / "view.parquet"
    done = story.export(source.name, path, format="parquet")
    assert done == package.Exported(view=source.name, format="parquet", rows=len(expected))
    json_as_text = [tuple(json.dumps(x) if isinstance(x, dict) else x for x in row) for row in expected]
    for table in (parquet.read_table(path), story.arrow(source.name)):
        values = [tuple(row[name] for name in names) for row in table.to_pylist()]
        assert [same_json(row, columns) for row in values] == [same_json(row, columns) for row in json_as_text]

    assert [astuple(row) for row in story.rows(source.name)] == expected


def same_json(row: tuple[Any, ...], columns: list[sa.Column[Any]]) -> tuple[Any, ...]:
    """Compare JSON by what it says: PostgreSQL orders keys its own way."""
    return tuple(
        json.loads(x) if isinstance(column.type, sa.JSON) else x for x, column in zip(row, columns, strict=True)
    )


def test_a_spreadsheet_runs_no_cell_of_an_export(story: Lifecycle, database_url: str) -> None:
    """Text that begins like a formula gets an apostrophe, other text and numbers stay; `guard=False` leaves all."""
    support.query(database_url, "UPDATE lifecycle_appointments SET practice_id = :text", text="\r\n=1")
    for guard in (True, False):
        read = list(csv.DictReader(io.StringIO(exported(story, "event_log", "csv", guard=guard).decode(), newline="")))
        actors = {row["actor"] for row in read}
        assert actors >= {(f"'{actor}" if guard and actor[0] in formulas.STARTS else actor) for actor in HOSTILE}
        assert {row["practice_id"] for row in read} == {"'\r\n=1" if guard else "\r\n=1"}
        dangerous = [cell for row in read for cell in row.values() if cell.startswith(formulas.STARTS)]
        assert bool(dangerous) is not guard


def test_negative_numbers_stay_numbers(sqlite_url: str, postgres_url: str) -> None:
    """The guard is for text: -1.5 in a numeric column is no formula."""
    view = views.View(
        sa.Table("numbers", sa.MetaData(), sa.Column("n", sa.Float()), sa.Column("t", sa.String())),
        "SELECT -1.5 AS n, CAST('-1.5' AS varchar(9)) AS t FROM (SELECT 1 AS one) e",
        ("n",),
    )
    for url in (sqlite_url, postgres_url):
        made = database.Database(url)
        chunks = csvs.chunks(made, view, Filters(), guard=True)
        assert b"".join(chunk.data for chunk in chunks) == b"n,t\n-1.5,'-1.5\n"
        made.close()


def test_filters_choose_and_are_only_values(story: Lifecycle, database_url: str) -> None:
    """Hostile values are found as they are, and do nothing; one that nobody has gives a head alone."""
    for actor in HOSTILE:
        assert [row.actor for row in story.rows(EventLogRow, actor=actor)] == [actor] * 2
        lines = exported(story, "audit_events", "jsonl", actor=actor).splitlines()
        assert [json.loads(line)["actor"] for line in lines] == [actor] * 2
        read = csv.DictReader(io.StringIO(exported(story, "event_log", "csv", actor=actor, guard=False).decode()))
        assert [row["actor"] for row in read] == [actor] * 2
    assert exported(story, "funnel", "csv", actor="'; DROP TABLE lifecycle_commands; --").count(b"\n") == 1
    assert support.commands(database_url)
    now = datetime.now(UTC)
    assert exported(story, "event_log", "jsonl", since=now) == b""
    assert len(exported(story, "event_log", "jsonl", until=now, as_of=now).splitlines()) == len(
        list(story.rows("event_log"))
    )


def test_parquet_keeps_types_comments_and_order(story: Lifecycle) -> None:
    """Instants are microseconds in UTC, Booleans, numbers and days are what they are; each column tells what it is."""
    read = parquet.ParquetFile(io.BytesIO(exported(story, "event_log", "parquet")))
    schema = read.schema_arrow
    expected = {
        "seq": pa.int64(),
        "recorded_at": pa.timestamp("us", tz="UTC"),
        "moved": pa.bool_(),
        "http_status": pa.int32(),
        "details": pa.string(),
    }
    assert {name: schema.field(name).type for name in expected} == expected
    comments = {name: schema.field(name).metadata[b"comment"].decode() for name in schema.names}
    assert comments == {column.name: column.comment for column in views.event_log.table.columns}
    assert schema.metadata[b"view"] == b"lifecycle_event_log"
    funnel = story.arrow("funnel").schema
    assert [funnel.field(name).type for name in ("week", "share")] == [pa.date32(), pa.float64()]


def test_arrow_tables_are_read_by_other_libraries(story: Lifecycle) -> None:
    """The table offers Arrow's C stream, which pandas, polars and DuckDB read; an empty one keeps its types."""
    table = story.arrow("event_log", actor="user:1")
    assert pa.RecordBatchReader.from_stream(table).read_all().equals(table)
    empty = story.arrow("event_log", actor="nobody")
    assert (empty.num_rows, empty.schema) == (0, table.schema)


def test_cloudevents_are_as_the_specification_says(story: Lifecycle) -> None:
    """The required attributes are text that is not empty, `time` is RFC 3339, `source` and `id` name one event."""
    first, again = (exported(story, "audit_events", "cloudevents") for _ in range(2))
    assert first == again
    events = [json.loads(line) for line in first.splitlines()]
    trail_of = {str(row.seq): row for row in story.rows(AuditEvent)}
    assert {event["id"] for event in events} == trail_of.keys()
    for event in events:
        row = trail_of[event["id"]]
        attributes = event.keys() - {"data"}
        assert all(re.fullmatch(r"[a-z0-9]{1,20}", name) for name in attributes)
        assert all(isinstance(event[name], str) and event[name] for name in attributes)
        assert event["specversion"] == "1.0"
        assert re.fullmatch(r"urn:zocdoc-lifecycle:[A-Za-z0-9%.-]+:\d{8}T\d{6}\.\d{6}Z", event["source"])
        assert event["type"] == f"lifecycle.appointment.{row.event}"
        assert (event["subject"], event["time"]) == (row.appointment_id, as_text(row.recorded_at))
        assert event["datacontenttype"] == "application/json"
        assert event["data"]["hash"] == row.hash
    with pytest.raises(errors.InvalidArgument, match="no events"):
        exported(story, "funnel", "cloudevents")
    with pytest.raises(errors.InvalidArgument, match="csv, jsonl"):
        exported(story, "funnel", "xlsx")


def test_the_archive_verifies_without_the_database(story: Lifecycle) -> None:
    """From the JSON lines of `audit_events` alone every hash can be computed again."""
    rows_of = [json.loads(line) for line in exported(story, "audit_events", "jsonl").splitlines()]
    assert rows_of
    assert [trail.hash_of(row) for row in rows_of] == [row["hash"] for row in rows_of]


def test_the_classes_of_rows_are_the_catalogue(story: Lifecycle) -> None:
    """Fields, their order and their types are those of the views; None is allowed where the comment says NULL."""
    kinds = {UtcDateTime: datetime, sa.Boolean: bool, sa.Date: date, sa.Integer: int, sa.Float: float, sa.JSON: dict}
    assert set(rows.VIEWS.values()) == set(sources.BY_NAME.values())
    for kind, view in rows.VIEWS.items():
        hints = get_type_hints(kind, vars(rows) | {"date": date, "datetime": datetime})
        names = [field.name for field in fields(kind)]
        assert names == [column.name.replace(":", "_") for column in view.table.columns]
        if kind is AuditEvent:
            continue
        for name, column in zip(names, view.table.columns, strict=True):
            python = next((made for known, made in kinds.items() if isinstance(column.type, known)), str)
            expected = dict[str, Any] if python is dict else python
            assert hints[name] == (expected | None if "NULL" in (column.comment or "") else expected), (kind, name)
        for row in story.rows(kind):
            for name, column in zip(names, view.table.columns, strict=True):
                assert getattr(row, name) is not None or "NULL" in (column.comment or ""), (kind, name)


def test_what_cannot_be_exported_is_named(story: Lifecycle) -> None:
    """A view that is none, a class that is none, a filter that the view does not have."""
    with pytest.raises(errors.InvalidArgument, match="lifecycle_audit_events"):
        exported(story, "lifecycle_commands", "csv")
    with pytest.raises(errors.InvalidArgument, match="EventLogRow"):
        list(story.rows(dict))
    with pytest.raises(errors.InvalidArgument, match="appointment_id, status, provider_location_id"):
        exported(story, "current_status", "csv", actor="user:1")
    assert [row.step for row in story.rows(FunnelRow)][:1] == ["tracked"]


class Stopped(BaseException):
    """As Ctrl-C: no `Exception`."""


@pytest.mark.parametrize("error", [Stopped, OSError])
@pytest.mark.parametrize("form", exporting.Format)
def test_a_broken_export_leaves_nothing_behind(
    story: Lifecycle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException], form: str
) -> None:
    """Whatever stops it in the middle: no part of a file, the old file untouched, the connection free again."""
    monkeypatch.setattr(streams, "BLOCK", 5)
    folder = tmp_path / "out"
    folder.mkdir()
    path = folder / "export"
    path.write_text("old")

    def stop(so_far: int, total: int | None) -> None:
        assert total is not None
        if so_far:
            raise error

    with pytest.raises(error):
        story.export("audit_events", path, format=form, on_progress=stop)
    gc.collect()
    assert [each.name for each in folder.iterdir()] == ["export"]
    assert path.read_text() == "old"
    pool = story._resources.database.engine.pool
    assert isinstance(pool, sa.QueuePool)
    assert pool.checkedout() == 0
    assert story.export("audit_events", path, format=form).rows == len(list(story.rows("audit_events")))
    assert [each.name for each in folder.iterdir()] == ["export"]


def test_the_file_goes_where_it_should(tmp_path: Path) -> None:
    """A link is followed, a folder and a device are refused, a missing folder is told; the mode is the user's usual."""
    real, link = tmp_path / "real.csv", tmp_path / "link.csv"
    real.write_text("old")
    link.symlink_to(real)
    with files.written(link) as file:
        file.write(b"new")
    assert link.is_symlink()
    assert real.read_bytes() == b"new"
    usual = tmp_path / "usual"
    usual.touch()
    assert real.stat().st_mode == usual.stat().st_mode
    for place in (tmp_path, "/dev/null"):
        with pytest.raises(errors.InvalidArgument, match="is not a file"), files.written(place):
            pass
    with pytest.raises(FileNotFoundError), files.written(tmp_path / "none" / "x.csv"):
        pass


def test_progress_tells_rows_and_about_how_many(story: Lifecycle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows so far, to the last one; the total only where an index knows it."""
    monkeypatch.setattr(streams, "BLOCK", 7)
    told: list[tuple[int, int | None]] = []
    story.export("event_log", io.BytesIO(), on_progress=lambda *each: told.append(each))
    count = len(list(story.rows("event_log")))
    assert [rows for rows, _ in told] == [0, *range(7, count, 7), count]
    assert {total for _, total in told} == {count}
    story.export("event_log", io.BytesIO(), actor="user:1", on_progress=lambda *each: told.append(each))
    assert told[-1][1] is None


def test_rows_are_of_one_moment(story: Lifecycle, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is recorded while rows are read does not come, and nobody waits for the reader."""
    monkeypatch.setattr(streams, "BLOCK", 2)
    before = len(list(story.rows("event_log")))
    reading: Iterator[EventLogRow] = story.rows(EventLogRow)
    next(reading)
    with pytest.raises(errors.TransitionRefused):
        story.confirm(next(story.rows("current_status")).appointment_id, actor="user:2")
    assert len(list(reading)) == before - 1
    assert len(list(story.rows("event_log"))) == before + 1


def test_a_hosts_settings_neither_cut_nor_change_an_export(story: Lifecycle, database_url: str) -> None:
    """Another time zone, another date style, impatient time limits, an eager lock: the same bytes, and no lock."""
    engine = sa.create_engine(database_url)
    if engine.dialect.name == "postgresql":
        engine.dispose()
        options = "-c timezone=America/New_York -c datestyle=German -c statement_timeout=500 -c extra_float_digits=-5"
        options += " -c idle_in_transaction_session_timeout=500"
        engine = sa.create_engine(database_url, connect_args={"options": options})
    else:
        sa.event.listen(engine, "connect", _silent)
        sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    with Lifecycle(engine) as hosted:
        for view in ("event_log", "funnel"):
            for form in ("csv", "jsonl", "parquet"):
                assert exported(hosted, view, form) == exported(story, view, form)
    with Lifecycle(engine) as hosted:  # one that has yet to look at the schema, for which the host's engine begins
        reading = hosted.rows(EventLogRow)
        next(reading)
        support.query(database_url, "SELECT 1" if engine.dialect.name == "sqlite" else "SELECT pg_sleep(0.8)")
        support.query(database_url, "UPDATE lifecycle_appointments SET practice_id = 'p'")
        assert list(reading)
    engine.dispose()


def _silent(connection: Any, _: Any) -> None:
    connection.isolation_level = None
    connection.execute("PRAGMA synchronous=FULL")
