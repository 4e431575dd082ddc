"""The triggers inside the database: what the guards of the audit trail must be, what was done to them, who counts.

The definitions repeat those of the migrations, which must never change; a test holds them equal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import sqlalchemy as sa

_TABLE: Final = "lifecycle_audit_events"
_COUNTED: Final = "lifecycle_commands"


def changes(connection: sa.Connection) -> list[str]:
    """Name what differs from the guards as migrated: missing or disabled, changed, and what was put beside them."""
    if connection.dialect.name == "postgresql":
        return [*_differences(_POSTGRES, _postgres_triggers(connection)), *_bypasses(connection)]
    return list(_differences(_SQLITE, _sqlite_triggers(connection)))


def uncounted(connection: sa.Connection) -> list[str]:
    """Name the triggers that are missing or disabled of those that count what becomes of the commands of batches."""
    is_postgres = connection.dialect.name == "postgresql"
    present = set(connection.exec_driver_sql(_POSTGRES_COUNTING if is_postgres else _SQLITE_COUNTING).scalars())
    return [f"missing trigger {name}" for name in _COUNTING if name not in present]


def _differences(expected: Mapping[str, str], present: Mapping[str, str]) -> Iterator[str]:
    for name, definition in expected.items():
        if name not in present:
            yield f"missing trigger {name}"
        elif " ".join(present[name].split()) != " ".join(definition.split()):
            yield f"changed trigger {name}"
    for name in sorted(present.keys() - expected.keys()):
        yield f"unexpected trigger {name}"


def _sqlite_triggers(connection: sa.Connection) -> dict[str, str]:
    return {name: sql or "" for name, sql in connection.exec_driver_sql(_SQLITE_QUERY)}


def _postgres_triggers(connection: sa.Connection) -> dict[str, str]:
    return {name: definition or "" for name, definition in connection.exec_driver_sql(_POSTGRES_QUERY)}


def _bypasses(connection: sa.Connection) -> list[str]:
    """Name what would keep a statement from reaching the triggers, or rows from being seen."""
    return list(connection.exec_driver_sql(_BYPASSES).scalars())


_SQLITE: Final = {
    "lifecycle_audit_no_update": """
    CREATE TRIGGER lifecycle_audit_no_update BEFORE UPDATE ON lifecycle_audit_events
    BEGIN SELECT RAISE(ABORT, 'lifecycle_audit_events is append-only'); END
    """,
    "lifecycle_audit_no_delete": """
    CREATE TRIGGER lifecycle_audit_no_delete BEFORE DELETE ON lifecycle_audit_events
    BEGIN SELECT RAISE(ABORT, 'lifecycle_audit_events is append-only'); END
    """,
    "lifecycle_audit_gapless": """
    CREATE TRIGGER lifecycle_audit_gapless BEFORE INSERT ON lifecycle_audit_events
    WHEN EXISTS (SELECT 1 FROM lifecycle_audit_events WHERE seq = NEW.seq)
      OR NEW.appointment_seq IS NOT (
        SELECT coalesce(max(appointment_seq), 0) + 1 FROM lifecycle_audit_events
        WHERE appointment_id = NEW.appointment_id
      )
    BEGIN SELECT RAISE(ABORT, 'lifecycle_audit_events takes only the next event of an appointment'); END
    """,
}
_SQLITE_QUERY: Final = f"SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND lower(tbl_name) = '{_TABLE}'"  # noqa: S608 # a constant

_COUNTING: Final = ("lifecycle_batch_counts_insert", "lifecycle_batch_counts_update")
_SQLITE_COUNTING: Final = f"SELECT name FROM sqlite_master WHERE type = 'trigger' AND lower(tbl_name) = '{_COUNTED}'"  # noqa: S608 # as above
_POSTGRES_COUNTING: Final = (
    f"SELECT tgname FROM pg_trigger WHERE tgrelid = '{_COUNTED}'::regclass AND tgenabled IN ('O', 'A')"  # noqa: S608 # as above
)

# tgtype: 1 for each row, 2 before, 4 insert, 8 delete, 16 update, 32 truncate.
_POSTGRES: Final = {
    "lifecycle_audit_no_change": """
    58 when <none> of <all> lifecycle_audit_refuse plpgsql <plain>
    BEGIN
      RAISE EXCEPTION 'lifecycle_audit_events is append-only' USING ERRCODE = 'integrity_constraint_violation';
    END
    """,
    "lifecycle_audit_gapless": """
    7 when <none> of <all> lifecycle_audit_next plpgsql <plain>
    BEGIN
      IF NEW.appointment_seq IS DISTINCT FROM (
        SELECT coalesce(max(appointment_seq), 0) + 1 FROM lifecycle_audit_events
        WHERE appointment_id = NEW.appointment_id
      ) THEN
        RAISE EXCEPTION 'lifecycle_audit_events takes only the next event of an appointment'
          USING ERRCODE = 'integrity_constraint_violation';
      END IF;
      RETURN NEW;
    END
    """,
}
"""Kind of the trigger, its condition and columns, its function: name, language, settings, body."""

_POSTGRES_QUERY: Final = f"""
    SELECT tgname, concat_ws(
      ' ', tgtype,
      'when', CASE WHEN tgqual IS NULL THEN '<none>' ELSE pg_get_triggerdef(t.oid) END,
      'of', CASE WHEN tgattr::text = '' AND tgnargs = 0 THEN '<all>' ELSE pg_get_triggerdef(t.oid) END,
      proname, lanname,
      CASE WHEN proconfig IS NULL AND NOT prosecdef THEN '<plain>' ELSE pg_get_functiondef(p.oid) END,
      prosrc
    )
    FROM pg_trigger t JOIN pg_proc p ON p.oid = tgfoid JOIN pg_language l ON l.oid = prolang
    WHERE tgrelid = '{_TABLE}'::regclass AND tgenabled = 'A' AND NOT tgisinternal
    UNION ALL
    SELECT tgname, 'not always' FROM pg_trigger
    WHERE tgrelid = '{_TABLE}'::regclass AND tgenabled IN ('O', 'R') AND NOT tgisinternal
      AND tgname NOT IN ({", ".join(f"'{name}'" for name in _POSTGRES)})
    """  # noqa: S608 # constants
_BYPASSES: Final = f"""
    SELECT 'unexpected rule ' || rulename FROM pg_rewrite WHERE ev_class = '{_TABLE}'::regclass
    UNION ALL
    SELECT 'unexpected row security' FROM pg_class WHERE oid = '{_TABLE}'::regclass AND relrowsecurity
    """  # noqa: S608 # constants
