"""The transactions that append to the audit trail at this moment, on PostgreSQL: who they are, and waiting for them.

An insert takes the table's lock (ROW EXCLUSIVE, which blocks no reader and no writer) before its `seq` and holds it
until its end.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from lifecycle import models

if TYPE_CHECKING:
    from lifecycle.database import Database

PREPARED: Final = "prepared"
"""Stands for any transaction that PREPARE TRANSACTION has detached from its session; the lock has no other name."""

_PATIENCE: Final = 1.0
"""Seconds to wait for writers: theirs are transactions of milliseconds, one that takes longer is stuck."""

_POLL: Final = 0.02
"""Seconds between two looks at the writers: about as long as one of their transactions."""


def have_ended(database: Database) -> bool:
    """Wait until every transaction that writes audit events at this moment has ended; False: one still runs.

    Each look is a transaction of its own, so what is read next has a newer snapshot, whatever the isolation level.
    """
    patient_until = time.monotonic() + _PATIENCE
    waited_for = active(database)
    while waited_for:
        if time.monotonic() > patient_until:
            return False
        time.sleep(_POLL)
        now = active(database)
        # PREPARE TRANSACTION moves the locks of a writer to a nameless one: any of those may be one that is waited for.
        waited_for = {writer for writer in now if writer == PREPARED or writer in waited_for}
    return True


def active(database: Database) -> set[str]:
    """Name the transactions that have appended audit events and have not ended."""
    with database.read() as connection:
        return set(connection.execute(_WRITERS).scalars())


_WRITERS: Final = sa.text(
    f"""
    SELECT CASE WHEN pid IS NULL THEN '{PREPARED}' ELSE virtualtransaction END FROM pg_locks
    WHERE locktype = 'relation' AND relation = '{models.audit_events.name}'::regclass
      AND mode = 'RowExclusiveLock' AND granted
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    """  # noqa: S608 # constants
)
