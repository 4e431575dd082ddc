"""One rate of requests to Zocdoc for all processes together, kept in pyrate-limiter's buckets.

    from lifecycle import ZocdocClient, rates

    pace = rates.shared("postgresql://app@db.internal/appointments", "20/s")
    zocdoc = ZocdocClient.for_environment("sandbox", client_id="...", client_secret="...", pace=pace)

Every request to the appointment endpoints counts: commands, reads, and repeats after a 401 or a 429; the token endpoint
has a limit of its own. Requests are spaced evenly, so that Zocdoc never sees a burst.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from lifecycle import database, errors, quota
from lifecycle.rates import stores
from lifecycle.rates.pace import SharedPace

if TYPE_CHECKING:
    import sqlalchemy as sa

__all__ = ["SharedPace", "prepare", "shared"]


def shared(target: str | sa.URL | sa.Engine, rate: str | quota.Quota) -> SharedPace:
    """Give the pace that all processes with the same `target` share: `20/s`, `600/min`, `10000/h`.

    `target` is the database's URL or a host's Engine. On PostgreSQL the slots are in two small tables of it, by the
    server's clock (`ratelimit___lifecycle_zocdoc` and `..._pause`, made at the first send, or by `prepare`); beside an
    SQLite database in a file of their own (`appointments.db.rate`), by this machine's. All processes are to give the
    same rate.

    One pace serves any number of clients and threads; close it after them. Raises `ConfigurationError`. Opens nothing
    until the first send.
    """
    chosen = _quota(rate)
    place = database.Database(target)
    if place.is_postgres:
        return SharedPace(stores.PostgresStore(place.engine, chosen), chosen, close=place.close)
    file = place.engine.url.database or ""
    if file.startswith("file:"):
        file = unquote(urlsplit(file).path)
    if not file:
        raise errors.ConfigurationError(problem="a rate is shared in a file beside the database; this one has no file")
    return SharedPace(stores.SQLiteStore(Path(f"{file}.rate"), chosen), chosen)


def prepare(place: database.Database) -> None:
    """Make the tables of a shared rate, for roles that may not. Safe to repeat; on SQLite there is nothing to make.

    Raises `DatabaseUnavailable`.
    """
    if not place.is_postgres:
        return
    with place.transaction() as connection:
        connection.begin()
        try:
            stores.make_tables(connection.connection.driver_connection)
        except connection.dialect.loaded_dbapi.Error as error:
            problem = f"the tables of the shared rate cannot be made ({type(error).__name__})"
            raise errors.DatabaseUnavailable(problem=problem) from None


def _quota(rate: str | quota.Quota) -> quota.Quota:
    if isinstance(rate, quota.Quota):
        return rate
    try:
        return quota.Quota.parse(rate)
    except ValueError as error:
        raise errors.ConfigurationError(problem=f"the rate cannot be read: {error}") from None
