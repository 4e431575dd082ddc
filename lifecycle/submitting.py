"""Submitting with an engine: whoever dispatches is told in the same transaction, and again once it is committed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import sqlalchemy as sa
from sqlalchemy import orm

from lifecycle import enqueuing, errors, submissions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from lifecycle.engines.port import Engine
    from lifecycle.resources import Resources
    from lifecycle.wishes import Wish
    from lifecycle.wishlists import Row


def submit(
    resources: Resources,
    engine: Engine,
    wish: Wish,
    *,
    expires_at: datetime | None,
    session: sa.Connection | orm.Session | None,
) -> str:
    """Queue a wish, in the caller's transaction if there is a session, and give its command's id.

    Raises what `submissions.submit` raises, and `InvalidArgument` for a session on another kind of database.
    """
    if session is None:
        command_id = submissions.submit(resources, wish, expires_at=expires_at, announce=engine.announce)
        engine.committed()
        return command_id
    connection = _connection(session)
    if connection.dialect.name != resources.database.engine.dialect.name:
        problem = f"it is on {connection.dialect.name}; one on the database of this Lifecycle is needed"
        raise errors.InvalidArgument(argument="session", problem=problem)
    command_id = submissions.submit(
        resources, wish, expires_at=expires_at, announce=engine.announce, connection=connection
    )
    _tell_after_commit(session, engine)
    return command_id


def submit_many(
    resources: Resources,
    engine: Engine,
    order: enqueuing.Order,
    rows: Iterable[Row],
    *,
    on_progress: Callable[[int], object] | None,
) -> str:
    """Queue a batch and give its id; it is being dispatched while it is being submitted."""

    def told(rows: int) -> None:
        engine.committed()
        if on_progress is not None:
            on_progress(rows)

    return enqueuing.submit(resources, order, rows, announce=engine.announce, on_progress=told)


def _connection(session: object) -> sa.Connection:
    """Give the connection of the caller's transaction. Raises `InvalidArgument`."""
    if isinstance(session, sa.Connection):
        return session
    if isinstance(session, orm.Session | orm.scoped_session):
        return session.connection()
    problem = "a Session or Connection of SQLAlchemy is needed; of an AsyncSession the one that its run_sync gives"
    raise errors.InvalidArgument(argument="session", problem=problem)


def _tell_after_commit(session: sa.Connection | orm.Session, engine: Engine) -> None:
    """Tell the engine after each commit of the session from now on; once too often does no harm."""
    for event in _ENDS if isinstance(session, sa.Connection) else ("after_commit",):
        if not sa.event.contains(session, event, engine.committed):
            sa.event.listen(session, event, engine.committed)


_ENDS: Final = ("commit", "commit_twophase", "rollback")
"""A connection in autocommit mode tells of no commit, but that it is given back."""
