"""The views for analysts: the same on both databases, as the catalogue says, and as the migrations made them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from lifecycle import views

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    """The test's database."""
    made = sa.create_engine(database_url)
    yield made
    made.dispose()


def test_the_database_has_each_view_with_its_columns(engine: sa.Engine) -> None:
    """The catalogue tells the truth: the same views, the same columns in the same order, and no others."""
    inspector = sa.inspect(engine)
    found = {name: [column["name"] for column in inspector.get_columns(name)] for name in inspector.get_view_names()}
    assert found == {view.name: [column.name for column in view.table.columns] for view in views.ALL}


def test_the_migrations_make_what_the_catalogue_defines(engine: sa.Engine) -> None:
    """The SQL in the migrations is a copy, and the copy is exact: both make the same view."""
    definition = "SELECT sql FROM sqlite_master WHERE name = :name"
    if engine.dialect.name == "postgresql":
        definition = "SELECT pg_get_viewdef(CAST(:name AS regclass))"
    with engine.begin() as connection:
        for view in views.ALL:
            made = connection.execute(sa.text(definition), {"name": view.name}).scalar_one()
            connection.exec_driver_sql(f"CREATE VIEW again AS {view.select(engine.dialect.name)}")
            again = connection.execute(sa.text(definition), {"name": "again"}).scalar_one()
            connection.exec_driver_sql("DROP VIEW again")
            assert made.split() == again.replace("VIEW again", f"VIEW {view.name}").split()


def test_postgresql_comments_every_view_and_column(postgres_url: str) -> None:
    """Whoever browses the database reads what each view and column is."""
    query = """
        SELECT c.relname, coalesce(a.attname, ''), d.description FROM pg_class c
        JOIN pg_description d ON d.objoid = c.oid
        LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = d.objsubid AND d.objsubid > 0
        WHERE c.relkind = 'v' AND c.relname LIKE 'lifecycle%'
    """
    engine = sa.create_engine(postgres_url)
    with engine.connect() as connection:
        found = {(view, column): text for view, column, text in connection.execute(sa.text(query))}
    engine.dispose()
    expected = {(view.name, ""): view.table.comment for view in views.ALL}
    expected |= {(view.name, column.name): column.comment for view in views.ALL for column in view.table.columns}
    assert found == expected


def test_every_row_of_every_view_can_be_read_by_its_types(engine: sa.Engine) -> None:
    """An empty database gives empty views, read through the types that the catalogue gives them."""
    with engine.connect() as connection:
        for view in views.ALL:
            assert connection.execute(sa.select(view.table)).all() == []


@pytest.mark.parametrize("condition", ["", "WHERE appointment_id = 'x'", "WHERE command_id = 'x'"])
def test_sqlite_looks_up_a_commands_events_by_the_command(sqlite_url: str, condition: str) -> None:
    """Without statistics SQLite would read all events of a kind for each command."""
    engine = sa.create_engine(sqlite_url)
    with engine.connect() as connection:
        query = f"EXPLAIN QUERY PLAN SELECT * FROM lifecycle_command_outcomes {condition}"  # noqa: S608 # ours
        plan = [row[3] for row in connection.exec_driver_sql(query)]
    engine.dispose()
    looked_up = [step for step in plan if " x " in step]
    assert len(looked_up) == 5
    assert all("ix_lifecycle_audit_events_command_id (command_id=?)" in step for step in looked_up)
    assert not any("event_recorded_at" in step for step in plan)
