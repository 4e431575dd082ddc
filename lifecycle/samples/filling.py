"""Filling a database with samples, in the way that suits it."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Final

from lifecycle import database as databases
from lifecycle import schema
from lifecycle.samples import bulk, playing

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    import sqlalchemy as sa

ENGINE_UP_TO: Final = 5_000
"""Appointments up to which the real engine plays them, on SQLite: a minute or so. Beyond that, and on PostgreSQL, whose
clock is the server's, the bulk generator writes the rows."""


def fill(
    target: str | sa.URL,
    *,
    appointments: int,
    seed: int,
    until: datetime,
    days: int = 90,
    on_progress: Callable[[int, int], object] | None = None,
) -> bulk.Summary:
    """Make the tables if there are none, and fill them with so many appointments of the `days` before `until` (UTC).

    Raises `ConfigurationError`, and nothing is written, for a database that holds appointments or belongs to an
    environment of Zocdoc; else as `bulk.generate` does.
    """
    with closing(databases.Database(target)) as database:
        if schema.current(database) is None:
            schema.upgrade(database)
        if plays(database, appointments):
            return playing.play(
                target, appointments=appointments, seed=seed, until=until, days=days, on_progress=on_progress
            )
        return bulk.generate(
            database, appointments=appointments, seed=seed, until=until, days=days, on_progress=on_progress
        )


def plays(database: databases.Database, appointments: int) -> bool:
    """Tell whether the real engine carries so many out; else the bulk generator writes them down."""
    return not database.is_postgres and appointments <= ENGINE_UP_TO
