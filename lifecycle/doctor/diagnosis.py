"""The diagnosis: every check that can be made, in the order in which one would look."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from lifecycle import errors
from lifecycle.doctor import access, queue, storage, work
from lifecycle.doctor.checks import Check, Installation, unseen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import sqlalchemy as sa

    from lifecycle.database import Database
    from lifecycle.resources import Resources

    Look = Callable[[Installation, sa.Connection], Check]


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What all checks found."""

    checks: tuple[Check, ...]

    @property
    def is_well(self) -> bool:
        """Tell whether nothing is wrong; warnings and advice do not count."""
        return not any(check.is_failure for check in self.checks)


def diagnose(resources: Resources, *, dispatch: str, online: bool = True) -> Diagnosis:
    """Make every check that can be made, and tell of the others why not. Raises nothing.

    Reads with short, bounded queries, each in a transaction of its own, and writes nothing. `online` asks Zocdoc for
    a token, once, and reads nothing there.
    """
    installation = Installation(resources.database, resources.clients, dispatch)
    first = storage.reachable(installation.database)
    last = _safely("credentials", lambda: access.credentials(installation, online=online))
    return Diagnosis(checks=(first, *_beside(installation, first), last))


class _Step(NamedTuple):
    """A check, of one kind of database only, or of both; `of_ours`: it needs the tables of this version."""

    name: str
    look: Look
    backend: str | None = None
    of_ours: bool = False


def _beside(installation: Installation, reached: Check) -> Iterator[Check]:
    """Look into the database, as deep as it goes."""
    backend, is_ours = installation.database.engine.dialect.name, True
    for step in _STEPS:
        if step.backend not in {None, backend}:
            continue
        if not reached.ok:
            yield unseen(step.name, "the database cannot be used")
        elif step.of_ours and not is_ours:
            yield unseen(step.name, "the schema is not the one of this version")
        else:
            check = _made(installation, step)
            is_ours = is_ours and (step.name != _SCHEMA or check.ok is True)
            yield check


def _made(installation: Installation, step: _Step) -> Check:
    def look() -> Check:
        with _open(installation.database) as connection:
            return step.look(installation, connection)

    return _safely(step.name, look)


def _safely(name: str, make: Callable[[], Check]) -> Check:
    try:
        return make()
    except Exception as error:  # noqa: BLE001 # a diagnosis goes on whatever breaks
        return unseen(name, _told(error))


@contextmanager
def _open(database: Database) -> Iterator[sa.Connection]:
    """Open a transaction in which nothing takes long."""
    with database.look() as connection:
        if database.is_postgres:
            connection.exec_driver_sql(f"SET LOCAL statement_timeout = '{_PATIENCE}s'")
        yield connection


def _told(error: Exception) -> str:
    """Give the text of our own errors; of others the type, since nobody knows what they quote."""
    return str(error) if isinstance(error, errors.LifecycleError) else f"unexpected {type(error).__name__}"


_PATIENCE: Final = 5
"""Seconds for one query. Each takes milliseconds, unless somebody holds a lock on the table."""

_SCHEMA: Final = "schema"
_STEPS: Final = (
    _Step(_SCHEMA, storage.schema),
    _Step("writable", storage.writable),
    _Step("pragmas", storage.pragmas, "sqlite"),
    _Step("wal", storage.wal, "sqlite"),
    _Step("disk", storage.disk, "sqlite"),
    _Step("clock", storage.clock, "postgresql"),
    _Step("guards", storage.guards, of_ours=True),
    _Step("counts", storage.counts, of_ours=True),
    _Step("environment", access.environment, of_ours=True),
    _Step("statuses", work.statuses, of_ours=True),
    _Step("recovery", work.recovery, of_ours=True),
    _Step("dispatch", queue.dispatch, of_ours=True),
    _Step("workers", queue.workers, "postgresql", of_ours=True),
    _Step("attention", work.attention, of_ours=True),
    _Step("inbox", work.inbox, of_ours=True),
    _Step("deliveries", work.deliveries, of_ours=True),
    _Step("sync", work.sync, of_ours=True),
)
