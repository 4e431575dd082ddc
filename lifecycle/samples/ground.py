"""The ground that samples are put on: a database of their own, never one with real appointments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from lifecycle import errors, models
from lifecycle.resources import Clients, Resources

if TYPE_CHECKING:
    from lifecycle.database import Database

ENVIRONMENT: Final = "samples"
"""Stamped on the database: no client of Zocdoc is ever of this environment, so none can act on samples."""


def claim(database: Database) -> None:
    """Stamp an empty database as one of samples. Opens one transaction.

    Raises `ConfigurationError`, and nothing is written, if it belongs to an environment of Zocdoc or holds
    appointments already, samples included.
    """
    with database.write() as connection:
        stamped = connection.execute(sa.select(models.installation.c.zocdoc_environment)).scalar()
        if stamped not in {None, ENVIRONMENT}:
            problem = (
                f"this database belongs to the Zocdoc environment '{stamped}'; samples need a database of their own"
            )
            raise errors.ConfigurationError(problem=problem)
        if connection.execute(sa.select(models.appointments.c.appointment_id).limit(1)).first() is not None:
            raise errors.ConfigurationError(problem="this database holds appointments; samples need an empty one")
        Resources(database, Clients(None)).stamp(connection, environment=ENVIRONMENT)
