"""The client: one method for each of Zocdoc's appointment operations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self, Unpack

from lifecycle.telemetry import guarded
from lifecycle.zocdoc import answers, calls, environments, errors, options, queries, timing, tokens
from lifecycle.zocdoc.ids import check_appointment_id
from lifecycle.zocdoc.outcomes import Outcome, Reason
from lifecycle.zocdoc.transport import Transport

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from datetime import datetime
    from types import TracebackType

    from lifecycle.telemetry import Telemetry
    from lifecycle.zocdoc.pacing import Pace
    from lifecycle.zocdoc.payloads import AppointmentData

_BAD_REQUEST = 400

# Zocdoc's bounds for a list: pages 0 to 10, 1,000 rows over all pages.
_LAST_PAGE = 10
_MOST_ROWS = 1000


class ZocdocClient:
    """A client of Zocdoc's appointment API. Thread-safe: one client for many threads.

    Give either client credentials (`client_id`, `client_secret`, `token_url`) or an `access_token`: a text, or a
    callable that returns a fresh one. `identity` says whose credential that is, `machine` or `user:ID`, since an
    appointment booked with a user's credential can be read and changed by that user only.

    `timeout` bounds each wait for the network, `connect_timeout` the making of a connection, and `deadline` a whole
    call: token, repeated sends, pauses and reading. All are seconds. Name resolution alone has no bound but the
    system's. Environment variables and ~/.netrc are not read, because a stray proxy would see tokens: `proxies` (as
    `requests` takes them) and `ca_bundle` (a file or a folder) are arguments. `telemetry` is told of every call.

    `pace` tells when each request may leave, such as `lifecycle.rates.shared` gives; it may be shared by several
    clients, and `close` leaves it alone. None: at once, but for the pause after a 429, which all calls of this client
    respect.

    Raises `InvalidConfiguration`. Opens no connection until it is used.
    """

    def __init__(
        self,
        *,
        base_url: str,
        token_url: str | None = None,
        client_id: str | None = None,
        client_secret: str | None = None,
        audience: str | None = None,
        access_token: str | Callable[[], str] | None = None,
        identity: str = "machine",
        timeout: float = 10.0,
        connect_timeout: float = 3.05,
        deadline: float = 25.0,
        proxies: Mapping[str, str] | None = None,
        ca_bundle: str | os.PathLike[str] | None = None,
        pool_size: int = 32,
        telemetry: Telemetry | None = None,
        pace: Pace | None = None,
    ) -> None:
        options.check_positive(timeout=timeout, connect_timeout=connect_timeout, deadline=deadline, pool_size=pool_size)
        base = environments.check_url("base_url", base_url)
        self._base_url = base.text
        self._environment = environments.name_of(base)
        self._identity = options.check_identity(identity)
        self._deadline = deadline
        checked_proxies = options.check_proxies(proxies)
        self._transport = Transport(
            timeout=timeout,
            connect_timeout=connect_timeout,
            proxies=checked_proxies,
            ca_bundle=ca_bundle,
            pool_size=pool_size,
            tls=options.need_tls(base.text, token_url, *checked_proxies.values()),
        )
        source = tokens.source(
            self._transport,
            access_token=access_token,
            token_url=token_url,
            client_id=client_id,
            client_secret=client_secret,
            audience=audience or f"{base.origin}/",
        )
        self._calls = calls.Caller(
            self._transport,
            source,
            base_url=base.text,
            deadline=deadline,
            pace=pace or timing.Pauses(),
            hook=guarded(telemetry),
        )

    @classmethod
    def for_environment(
        cls, environment: environments.Environment | str, **arguments: Unpack[options.ClientOptions]
    ) -> Self:
        """Build a client for `SANDBOX` or `PRODUCTION`, or by their names; other arguments as for the class."""
        place = environments.named(environment)
        if arguments.get("access_token") is None:
            arguments.setdefault("token_url", place.token_url)
            arguments.setdefault("audience", place.audience)
        return cls(base_url=place.base_url, **arguments)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(base_url={self._base_url!r}, identity={self._identity!r}, "
            f"environment={self._environment!r})"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the idle connections."""
        self._transport.close()

    @property
    def identity(self) -> str:
        """Whose credential this client uses: `machine` or `user:ID`."""
        return self._identity

    @property
    def deadline(self) -> float:
        """The most seconds that one call takes."""
        return self._deadline

    @property
    def environment(self) -> str:
        """`sandbox`, `production`, `local` for any loopback host, or else the origin of the base URL."""
        return self._environment

    def authorize(self) -> bool:
        """Get a token as a call does, and read nothing; False: the token is a ready one, which only a call can judge.

        Calls the token endpoint, unless a token is held. Raises `ReadFailed` if none is to be had.
        """
        return self._calls.authorize()

    def confirm(self, appointment_id: str, *, send_before: float | None = None) -> Outcome:
        """Confirm a booking. Calls Zocdoc at most once, but for a 401 or 429, which are answered before processing.

        `send_before` is an instant of `clock()`: a request that has not left by then does not leave. All commands
        raise `MalformedAppointmentId` before anything is sent, and nothing else.
        """
        body = {"appointment_id": check_appointment_id(appointment_id)}
        return self._calls.command("confirm", appointment_id, body, send_before)

    def cancel(
        self,
        appointment_id: str,
        *,
        reason_type: str | None = None,
        reason: str | None = None,
        send_before: float | None = None,
    ) -> Outcome:
        """Cancel an appointment, as `confirm`. `reason` is free text and counts as patient data."""
        body = {
            "appointment_id": check_appointment_id(appointment_id),
            "cancellation_reason": reason,
            "cancellation_reason_type": reason_type,
        }
        return self._calls.command("cancel", appointment_id, body, send_before)

    def reschedule(self, appointment_id: str, *, start_time: str, send_before: float | None = None) -> Outcome:
        """Move an appointment to another start (ISO 8601 with offset), as `confirm`. A repeat is applied again."""
        body = {"appointment_id": check_appointment_id(appointment_id), "start_time": start_time}
        return self._calls.command("reschedule", appointment_id, body, send_before)

    def update_status(
        self, appointment_id: str, *, status: Literal["arrived", "no_show"], send_before: float | None = None
    ) -> Outcome:
        """Mark a patient as arrived or as not shown, as `confirm`."""
        body = {"appointment_id": check_appointment_id(appointment_id), "appointment_status": status}
        return self._calls.command("update_status", appointment_id, body, send_before)

    def get(self, appointment_id: str) -> answers.Reading:
        """Read one appointment. Repeated on connection errors, 429, 502, 503 and 504, within the deadline.

        Raises `AppointmentMissing` (404), `ReadRefused`, `ReadFailed`, `MalformedAppointmentId`.
        """
        return self._calls.read_one(check_appointment_id(appointment_id))

    def list(
        self,
        *,
        statuses: str | Iterable[str] | None = None,
        developer_patient_id: str | None = None,
        provider_ids: str | Iterable[str] | None = None,
        location_ids: str | Iterable[str] | None = None,
        practice_ids: str | Iterable[str] | None = None,
        start_time_utc_min: datetime | str | None = None,
        start_time_utc_max: datetime | str | None = None,
        created_time_utc_min: datetime | str | None = None,
        created_time_utc_max: datetime | str | None = None,
        last_modified_time_utc_min: datetime | str | None = None,
        last_modified_time_utc_max: datetime | str | None = None,
        sort_by: Literal["start_time_utc", "created_time_utc", "last_modified_time_utc"] | None = None,
        sort_direction: Literal["ascending", "descending"] | None = None,
        page_size: int = 100,
    ) -> Iterator[AppointmentData]:
        """Yield the appointments of all pages, in Zocdoc's order (by default the latest start first).

        Each page is one call with its own deadline, made when its first row is asked for. Pages are asked for by
        number on our own URL: of `next_url` it counts only whether there is one.

        Raises as `get` does. After what could be had was yielded: `ListWindowTooWide` where Zocdoc lists no
        further, `ReadFailed` (`answer_unreadable`) if rows without a sound id, status or start were among them.
        """
        filters = {
            "page_size": page_size,
            "statuses": queries.joined(statuses),
            "developer_patient_id": developer_patient_id,
            "provider_ids": queries.joined(provider_ids),
            "location_ids": queries.joined(location_ids),
            "practice_ids": queries.joined(practice_ids),
            "start_time_utc_min": start_time_utc_min,
            "start_time_utc_max": start_time_utc_max,
            "created_time_utc_min": created_time_utc_min,
            "created_time_utc_max": created_time_utc_max,
            "last_modified_time_utc_min": last_modified_time_utc_min,
            "last_modified_time_utc_max": last_modified_time_utc_max,
            "sort_by": sort_by,
            "sort_direction": sort_direction,
        }
        return self._rows(queries.encode(filters), page_size)

    def list_page(self, *, page: int = 0, page_size: int = 100, **filters: Unpack[queries.ListFilters]) -> answers.Page:
        """Read one page of the list, by its number from 0; filters and order as `list` takes them. One call.

        Rows without a sound id, status or start are counted in `Page.unreadable`. Raises as `get` does.
        """
        return self._calls.read_page(queries.encode({**filters, "page_size": page_size, "page": page}))

    def _rows(self, query: str, page_size: int) -> Iterator[AppointmentData]:
        unreadable, page = 0, None
        for number in range(_LAST_PAGE + 1):
            try:
                page = self._calls.read_page(f"{query}&page={number}")
            except errors.ReadRefused as refused:
                # The bounds meet before page 10 when pages are full, and Zocdoc does not say how it answers there.
                if page is None or number * page_size < _MOST_ROWS or refused.http_status != _BAD_REQUEST:
                    raise
                break
            yield from page.appointments
            unreadable += page.unreadable
            if not page.has_next:
                break
        if page is not None and page.has_next:
            raise errors.ListWindowTooWide(page.total_count, page.request_id)
        if page is not None and unreadable:
            raise errors.ReadFailed(Reason.ANSWER_UNREADABLE, answers.OK, page.request_id)
