"""What every story needs: the database, the clients by identity, and the intervals of waiting."""

from __future__ import annotations

import logging
import re
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from lifecycle import chart, errors, models, zocdoc
from lifecycle.telemetry import LOGGED, Telemetry

if TYPE_CHECKING:
    from collections.abc import Callable

    from lifecycle.database import Database

_log = logging.getLogger(__name__)

_LONGEST: Final = 86_400.0
"""A day: longer intervals are a slip of units."""

_LONGEST_RESEND: Final = 600.0

USER_PREFIX: Final = "user:"
"""Identity of a Zocdoc user's credential: `user:` and the user's id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """All intervals, in seconds, each with the reason for its default.

    `send_window`: from claiming a command to the first byte of its request; a process that was stopped for longer does
    not send any more. `lease_margin`: between the latest possible end of the call and the end of the lease, for
    recording the answer. `settle`: before the first read after a lost answer, because the request may still be on its
    way. `spacing`: between further reads; an effect that the last one does not show is taken not to have happened
    (30 s in all, beyond the time-outs of usual gateways). `read_backoff`: before reading again when a read failed,
    times the number of failures. `failed_reads`: how many may fail before a human is asked. `record_again`: before each
    further try to record an outcome that the database did not take, because only this process knows it.
    `failed_deliveries`: reads that may fail before a webhook delivery is given up, with pauses that begin at
    `read_backoff` and double up to an hour: four hours by default, longer than most outages; sync finds the rest.
    `resend_backoff`: before a submitted command is sent again that had no effect; it doubles up to ten minutes.
    `resends`: how often, then it ends as `not_sent`: an hour and a half by default, if it does not expire before.
    """

    send_window: float = 15.0
    lease_margin: float = 5.0
    settle: float = 2.0
    spacing: tuple[float, ...] = (8.0, 20.0)
    read_backoff: float = 5.0
    failed_reads: int = 8
    record_again: tuple[float, ...] = (0.2, 1.0, 3.0)
    failed_deliveries: int = 12
    resend_backoff: float = 5.0
    resends: int = 15

    def __post_init__(self) -> None:
        """Refuse what would fail in the middle of a command. Raises `ConfigurationError`."""
        # A negative margin makes a lease end before its call does, which only a test of late answers can want.
        seconds = (self.send_window, abs(self.lease_margin), self.settle, self.read_backoff, self.resend_backoff)
        for interval in (*seconds, *self.spacing, *self.record_again):
            if not isinstance(interval, int | float) or not 0 <= interval <= _LONGEST:
                raise errors.ConfigurationError(problem="every interval of Timing is 0 to 86400 seconds")
        if self.resends < 0:
            raise errors.ConfigurationError(problem="Timing needs 0 or more resends")
        if self.failed_reads < 1 or self.failed_deliveries < 1 or not self.spacing:
            raise errors.ConfigurationError(problem="Timing needs at least one failed read and one pause of spacing")

    def lease(self, deadline: float) -> float:
        """Tell how long a claim is held: the call and a read after it each end within `deadline` seconds."""
        return self.send_window + 2 * deadline + self.lease_margin

    def resend_after(self, attempt: int) -> timedelta | None:
        """Tell how long a submitted command waits after an attempt without effect; None: it is not sent again."""
        if attempt > self.resends:
            return None
        return timedelta(seconds=min(self.resend_backoff * 2.0 ** min(attempt - 1, 20), _LONGEST_RESEND))


@dataclass(frozen=True, slots=True)
class Clients:
    """Which client may act on which appointment: Zocdoc's credential rule.

    `default` is the client at hand; `resolve` gives the client of a Zocdoc user by the user's id, or None.
    """

    default: zocdoc.ZocdocClient | None
    resolve: Callable[[str], zocdoc.ZocdocClient | None] | None = None

    def of(self, identity: str) -> zocdoc.ZocdocClient | None:
        """Find the client with the identity; None when there is none. May call `resolve`: not for use under a lock."""
        if self.default is not None and self.default.identity == identity:
            return self.default
        if self.resolve is None or not identity.startswith(USER_PREFIX):
            return None
        found = self.resolve(identity.removeprefix(USER_PREFIX))
        return found if found is not None and found.identity == identity else None

    def find(self, identity: str) -> zocdoc.ZocdocClient | None:
        """Do as `of`, but None also if `resolve` fails: one user must not keep others from being worked off."""
        try:
            return self.of(identity)
        except Exception as error:  # noqa: BLE001 # the caller's own function
            _log.warning("user_client_failed", extra={"error": type(error).__name__})
            return None


@dataclass(frozen=True, slots=True)
class Resources:
    """The parts that `Lifecycle` brings together and every story is handed.

    `monotonic` gives the seconds that calls are measured in; None: this machine's. `telemetry` never raises.
    """

    database: Database
    clients: Clients
    timing: Timing = Timing()
    monotonic: Callable[[], float] | None = None
    telemetry: Telemetry = LOGGED
    _installation: dict[str, str] = field(default_factory=dict)

    def stamp(self, connection: sa.Connection, *, environment: str) -> None:
        """Write at first use which Zocdoc environment the database belongs to, and its key for digests.

        Raises `EnvironmentMismatch` if it belongs to another one already.
        """
        insert = postgresql.insert if self.database.is_postgres else sqlite.insert
        values = {
            "installation_id": 1,
            "zocdoc_environment": environment,
            "digest_key": secrets.token_hex(32),
            "created_at": self.database.now(connection),
        }
        connection.execute(insert(models.installation).values(values).on_conflict_do_nothing())
        _check_environment(connection.execute(_INSTALLATION).one().zocdoc_environment, environment)

    def digest_key(self, connection: sa.Connection) -> bytes | None:
        """Give the key for digests; None before the database's first use."""
        if not self._installation:
            row = connection.execute(_INSTALLATION).mappings().one_or_none()
            return None if row is None else bytes.fromhex(row["digest_key"])
        return bytes.fromhex(self._installation["digest_key"])

    def check_environment(self, connection: sa.Connection, *, environment: str | None) -> bytes:
        """Refuse a client of another environment than the stamped one; give the key for digests.

        `environment` is the client's, None while there is none. Raises `EnvironmentMismatch`.
        """
        if not self._installation:
            # Kept only once it was read in a transaction that did not write it: that one may still be rolled back.
            self._installation.update(connection.execute(_INSTALLATION).mappings().one())
        if environment is not None:
            _check_environment(self._installation["zocdoc_environment"], environment)
        return bytes.fromhex(self._installation["digest_key"])

    def check_own_environment(self, connection: sa.Connection) -> None:
        """Refuse the default client for a database of another environment; one that is not used yet takes any.

        Raises `EnvironmentMismatch`.
        """
        client = self.clients.default
        if client is not None and self.digest_key(connection) is not None:
            self.check_environment(connection, environment=client.environment)


def _check_environment(stamped: str, environment: str) -> None:
    if stamped != environment:
        raise errors.EnvironmentMismatch(database=stamped, client=environment)


def check_appointment_id(appointment_id: object) -> str:
    """Accept an id in the form of Zocdoc's. Raises `InvalidArgument`."""
    try:
        return zocdoc.check_appointment_id(appointment_id)
    except zocdoc.MalformedAppointmentId as error:
        raise errors.InvalidArgument(argument="appointment_id", problem=str(error)) from None


def check_identity(identity: str) -> str:
    """Accept `machine` or `user:ID`. Raises `InvalidArgument`."""
    if isinstance(identity, str) and (identity == chart.MACHINE or _USER.fullmatch(identity)):
        return identity
    problem = "use 'machine' or 'user:ID', at most 128 visible ASCII characters"
    raise errors.InvalidArgument(argument="booked_with", problem=problem)


def check_name(argument: str, value: object, *, at_most: int = 200) -> str:
    """Accept a printable, non-empty text of limited length. Raises `InvalidArgument`."""
    if not isinstance(value, str) or not value.strip() or not value.isprintable() or len(value) > at_most:
        problem = f"a printable text of 1 to {at_most} characters is needed"
        raise errors.InvalidArgument(argument=argument, problem=problem)
    return value


def check_instant(argument: str, value: object) -> datetime:
    """Accept an aware instant that UTC can write. Raises `InvalidArgument`."""
    if not isinstance(value, datetime) or value.utcoffset() is None:
        problem = "an aware datetime is needed: one with an offset or a time zone"
        raise errors.InvalidArgument(argument=argument, problem=problem)
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise errors.InvalidArgument(argument=argument, problem="it is beyond the calendar in UTC") from None


_USER: Final = re.compile(r"user:[!-~]{1,123}")
_INSTALLATION: Final = sa.select(models.installation.c.zocdoc_environment, models.installation.c.digest_key)
