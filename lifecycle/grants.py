"""The least that each role needs in PostgreSQL, as SQL for an administrator to read and run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lifecycle import errors, models

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_FUNCTIONS: Final = ("lifecycle_audit_refuse", "lifecycle_audit_next", "lifecycle_batch_count")
_SEQUENCE: Final = "lifecycle_audit_events_seq_seq"
_APPLICATION: Final = {
    models.VERSION_TABLE: "SELECT",
    models.installation.name: "SELECT, INSERT",
    models.appointments.name: "SELECT, INSERT, UPDATE",
    models.commands.name: "SELECT, INSERT, UPDATE",
    models.batches.name: "SELECT, INSERT, UPDATE",
    models.batch_counts.name: "SELECT, INSERT, UPDATE",
    models.batch_errors.name: "SELECT, INSERT",
    models.webhook_deliveries.name: "SELECT, INSERT, UPDATE",
    models.sync_cursors.name: "SELECT, INSERT, UPDATE",
    models.audit_events.name: "SELECT, INSERT",
}
"""What the product does with each table; a test runs it with no more."""

_RATE: Final = {
    "ratelimit___lifecycle_zocdoc": "SELECT, INSERT, DELETE",
    "ratelimit___lifecycle_zocdoc_pause": "SELECT, INSERT, DELETE",
}
"""The tables of a shared rate, which are there only where one is set."""

_LONGEST: Final = 63
"""Bytes of a name; PostgreSQL cuts off the rest, so that two roles could become one."""

_TAG: Final = "$lifecycle$"
"""The quotes of a block; a name cannot hold them."""


_WITH_SEQUENCE: Final = ("procrastinate_jobs", "procrastinate_events", "procrastinate_periodic_defers")
_PROCRASTINATE: Final = (*_WITH_SEQUENCE, "procrastinate_workers")
"""Nothing of the trail is in them. Procrastinate's functions run with the rights of whoever calls them."""


def sql(
    *,
    owner: str,
    application: str,
    analyst: str,
    schema: str,
    views: Iterable[str],
    with_procrastinate: bool = False,
) -> str:
    """Write the statements, in one transaction that may be run again; needs a superuser, or the owner of everything.

    The owner owns the tables and migrates them; the application appends audit events and cannot change any; analysts
    read `views` and nothing else. `with_procrastinate`: the application uses its tables, which must be there and stay
    their maker's. Raises `InvalidArgument` for names that are none, or the same one twice.
    """
    names = {"owner": owner, "application": application, "analyst": analyst, "schema": schema}
    for argument, name in names.items():
        _check(argument, name)
    if owner in (application, analyst) or application == analyst:
        raise errors.InvalidArgument(argument="roles", problem="three different roles are needed")
    more = _procrastinate(_quoted(schema), _quoted(application)) if with_procrastinate else ()
    statements = _statements(owner, application, analyst, schema, tuple(views))
    return "\n".join([*statements, *more, "COMMIT;"])


def _statements(owner: str, application: str, analyst: str, schema: str, views: tuple[str, ...]) -> Iterator[str]:
    place = _quoted(schema)
    roles = {"owner": _quoted(owner), "application": _quoted(application), "analyst": _quoted(analyst)}
    everybody_else = f"PUBLIC, {roles['application']}, {roles['analyst']}"
    yield "-- Run it again after each `lifecycle db upgrade`. The roles cannot log in: grant them to those who do."
    yield "BEGIN;"
    for name in (owner, application, analyst):
        yield _role(name)
    yield f"GRANT USAGE, CREATE ON SCHEMA {place} TO {roles['owner']};"
    yield f"GRANT USAGE ON SCHEMA {place} TO {roles['application']}, {roles['analyst']};"
    yield f"REVOKE CREATE ON SCHEMA {place} FROM {roles['application']}, {roles['analyst']};"
    for kind, name in (*(("TABLE", table) for table in _APPLICATION), *(("VIEW", view) for view in views)):
        yield f"ALTER {kind} {place}.{_quoted(name)} OWNER TO {roles['owner']};"
        yield f"REVOKE ALL ON {place}.{_quoted(name)} FROM {everybody_else};"
    for name in _FUNCTIONS:
        yield f"ALTER FUNCTION {place}.{_quoted(name)}() OWNER TO {roles['owner']};"
    yield f"REVOKE ALL ON SEQUENCE {place}.{_quoted(_SEQUENCE)} FROM {everybody_else};"
    yield f"GRANT USAGE ON SEQUENCE {place}.{_quoted(_SEQUENCE)} TO {roles['application']};"
    for table, rights in _APPLICATION.items():
        yield f"GRANT {rights} ON {place}.{_quoted(table)} TO {roles['application']};"
    for view in views:
        yield f"GRANT SELECT ON {place}.{_quoted(view)} TO {roles['application']}, {roles['analyst']};"
    for table, rights in _RATE.items():
        yield _if_there(f"{place}.{_quoted(table)}", rights, roles["owner"], roles["application"])


def _procrastinate(place: str, application: str) -> Iterator[str]:
    for table in _PROCRASTINATE:
        yield f"GRANT SELECT, INSERT, UPDATE, DELETE ON {place}.{table} TO {application};"
    for table in _WITH_SEQUENCE:
        yield f"GRANT USAGE ON SEQUENCE {place}.{table}_id_seq TO {application};"


def _if_there(table: str, rights: str, owner: str, application: str) -> str:
    """Give a table that may be missing to its owner, and its rights to the application."""
    there = f"to_regclass({_literal(table)}) IS NOT NULL"
    given = f"ALTER TABLE {table} OWNER TO {owner}; GRANT {rights} ON {table} TO {application};"
    return f"DO {_TAG} BEGIN IF {there} THEN {given} END IF; END {_TAG};"


def _role(name: str) -> str:
    """Create a role unless it is there."""
    exists = f"SELECT FROM pg_roles WHERE rolname = {_literal(name)}"
    create = f"CREATE ROLE {_quoted(name)} NOLOGIN"
    return f"DO {_TAG} BEGIN IF NOT EXISTS ({exists}) THEN {create}; END IF; END {_TAG};"


def _check(argument: str, name: str) -> None:
    is_name = isinstance(name, str) and name.isprintable() and 0 < len(name.encode()) <= _LONGEST
    if not is_name or _TAG in name:
        problem = f"a printable name of 1 to {_LONGEST} bytes is needed"
        raise errors.InvalidArgument(argument=argument, problem=problem)


def _quoted(name: str) -> str:
    """Write an identifier, always quoted: it means this name and no keyword."""
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    """Write a string, in the form that knows escapes, whatever standard_conforming_strings is."""
    return "E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"
