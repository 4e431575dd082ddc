"""`lifecycle schema`: what it says is what the databases have."""

from __future__ import annotations

import csv
import json
from dataclasses import fields
from typing import Any

import pytest
import sqlalchemy as sa
import yaml

import lifecycle
from lifecycle import models, views
from tests.support import query
from tests.test_cli import invoke


@pytest.fixture(scope="module")
def columns() -> list[dict[str, Any]]:
    """Every column, as JSON."""
    found: list[dict[str, Any]] = json.loads(invoke("schema", "--format", "json").stdout)
    return found


@pytest.fixture(scope="module")
def sources() -> dict[str, Any]:
    """The tables of the dbt file, by name, read by a real YAML parser."""
    document = yaml.safe_load(invoke("schema", "--format", "dbt").stdout)
    assert (list(document), document["version"]) == (["version", "sources"], 2)
    [source] = document["sources"]
    assert source["name"] == "lifecycle"
    return {table["name"]: table for table in source["tables"]}


def test_every_table_and_view_is_there(database_url: str, columns: list[dict[str, Any]]) -> None:
    """The same relations and columns, in the same order, as the database itself tells."""
    engine = sa.create_engine(database_url)
    inspector = sa.inspect(engine)
    names = [*inspector.get_table_names(), *inspector.get_view_names()]
    found = {name: [column["name"] for column in inspector.get_columns(name)] for name in names}
    engine.dispose()
    told: dict[str, list[str]] = {}
    for each in columns:
        told.setdefault(each["relation"], []).append(each["column"])
    del found[models.VERSION_TABLE]
    assert told == found
    assert [each["position"] for each in columns if each["relation"] == "lifecycle_audit_events"] == [
        *range(1, len(told["lifecycle_audit_events"]) + 1)
    ]


def test_the_types_are_postgresqls(postgres_url: str, columns: list[dict[str, Any]]) -> None:
    """And what may be NULL in a table is what the server says."""
    statement = """
        SELECT table_name, column_name, data_type, character_maximum_length, is_nullable
        FROM information_schema.columns WHERE table_name LIKE 'lifecycle%'
    """
    found = {(row["table_name"], row["column_name"]): row for row in query(postgres_url, statement)}
    for each in columns:
        row = found[each["relation"], each["column"]]
        length = row["character_maximum_length"]
        written = f"varchar({length})" if length else row["data_type"].replace("character varying", "varchar")
        if each["kind"] == "table":
            assert each["type"] == written
            assert each["is_nullable"] == (row["is_nullable"] == "YES")
        else:
            assert each["type"] == ("text" if written.startswith("varchar") else written)
            assert each["is_nullable"] is None


def test_each_form(columns: list[dict[str, Any]]) -> None:
    """One row for each column; the table has headings, and every comment."""
    lines = invoke("schema", "--format", "jsonl").stdout.splitlines()
    rows = list(csv.DictReader(invoke("schema", "--format", "csv").stdout.splitlines()))
    assert [json.loads(line) for line in lines] == columns
    assert list(rows[0]) == [field.name for field in fields(lifecycle.Described)]
    assert [row["column"] for row in rows] == [each["column"] for each in columns]
    shown = invoke("schema").stdout
    for view in views.ALL:
        assert f"{view.name}  view: {view.table.comment}" in shown
    for each in columns:
        assert each["comment"]
        assert each["about"]
        assert each["comment"] in shown


def test_dbt_gets_every_column(columns: list[dict[str, Any]], sources: dict[str, Any]) -> None:
    """Names, texts and types come through the YAML unchanged; odd names are quoted in SQL."""
    told = [
        (name, table["description"], column["name"], column["description"], column["data_type"])
        for name, table in sources.items()
        for column in table["columns"]
    ]
    assert told == [
        (each["relation"], each["about"], each["column"], each["comment"], each["type"]) for each in columns
    ]
    quoted = {column["name"] for table in sources.values() for column in table["columns"] if column.get("quote")}
    assert quoted == {"case:concept:name", "concept:name", "time:timestamp", "org:resource"}


def test_dbt_tests_what_the_tables_promise(sources: dict[str, Any]) -> None:
    """not_null and unique where the model says so; of views and of keys of two columns nothing."""
    tests = {
        (name, column["name"]): column["data_tests"]
        for name, table in sources.items()
        for column in table["columns"]
        if "data_tests" in column
    }
    assert tests["lifecycle_audit_events", "seq"] == ["not_null", "unique"]
    assert tests["lifecycle_audit_events", "appointment_id"] == ["not_null"]
    assert tests["lifecycle_appointments", "appointment_id"] == ["not_null", "unique"]
    assert ("lifecycle_audit_events", "command_id") not in tests
    assert ("lifecycle_commands", "request_key") not in tests
    assert {name for name, _ in tests} == set(models.metadata.tables)


def test_no_database_is_needed() -> None:
    """The definitions are in the code."""
    assert invoke("schema", LIFECYCLE_DATABASE_URL="sqlite:////nowhere/x.db").exit_code == 0
