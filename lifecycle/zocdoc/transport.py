"""One HTTP exchange: a prepared request in, the status and a bounded body out, or a fact about why there is none."""

from __future__ import annotations

import http.client
import os
import ssl
import weakref
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import requests
from requests.adapters import HTTPAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3 import exceptions as urllib3_errors
from urllib3.util.ssl_ import create_urllib3_context

from lifecycle.points import Point, reach
from lifecycle.zocdoc import wire
from lifecycle.zocdoc.outcomes import Reason

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lifecycle.zocdoc.timing import Budget

# The largest legal answer, a page of 100 appointments, is below 200 KB. Counted after decompression.
BODY_LIMIT = 1024 * 1024
# We offer gzip only; other codings (and chains of them) are not decoded, so that the limit above holds for all.
_CODINGS = frozenset({"", "identity", "gzip"})
_WRAPPERS = (
    requests.RequestException,
    urllib3_errors.ProtocolError,
    urllib3_errors.ProxyError,
    urllib3_errors.MaxRetryError,
)
_WIRE_ERRORS = (requests.RequestException, urllib3_errors.HTTPError, http.client.HTTPException, OSError)


class NoAnswer(Exception):
    """No status line came back. `sent` tells whether a byte of the request had left."""

    def __init__(self, reason: Reason, *, sent: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.sent = sent


@dataclass(frozen=True, slots=True)
class Answer:
    """A status line and what came of the body; `fault` tells why the body is not to be used."""

    http_status: int
    body: bytes = field(default=b"", repr=False)
    fault: Reason | None = None
    retry_after: str | None = None


class Transport:
    """Sends prepared requests over kept-alive connections. Thread-safe.

    The adapter of `requests` is called without a `Session`: so there are no cookies, no redirects, and neither
    proxies nor credentials from environment variables or ~/.netrc, where a stray setting would send a token
    elsewhere. Proxies and certificates come from the arguments; `tls=False` saves the 20 ms that loading them takes.
    """

    def __init__(
        self,
        *,
        timeout: float,
        connect_timeout: float,
        proxies: Mapping[str, str] | None = None,
        ca_bundle: str | os.PathLike[str] | None = None,
        pool_size: int = 32,
        tls: bool = True,
    ) -> None:
        self._timeout = timeout
        self._connect_timeout = connect_timeout
        self._proxies = dict(proxies or {})
        self._pool_size = pool_size
        self._context = _tls_context(ca_bundle) if tls else None
        self.after_fork()
        renew_after_fork(self)

    def send(self, request: requests.PreparedRequest, *, budget: Budget, query: str = "") -> Answer:
        """Send once. Raises `NoAnswer` when no status line came back.

        `query` is put behind the request's URL on the wire and shows in no log or error.
        """
        flight = wire.Flight(budget, self._timeout, query)
        with wire.flying(flight):
            try:
                return self._exchange(request, flight)
            except Exception as error:
                if not flight.sent and not isinstance(error, (*_WIRE_ERRORS, wire.Grounded)):
                    raise
                reason = _why_lost(error) if flight.sent else _why_unsent(error, budget)
        # Outside the handler: the caught error holds the request, with its token, and must not become a context.
        raise NoAnswer(reason, sent=flight.sent)

    def close(self) -> None:
        """Close the idle connections."""
        self._adapter.close()

    def after_fork(self) -> None:
        """Start with no connections, as a forked child must: its inherited sockets are its parent's."""
        self._adapter = _Adapter(self._context, self._pool_size)

    def _exchange(self, request: requests.PreparedRequest, flight: wire.Flight) -> Answer:
        response = self._adapter.send(
            request,
            stream=True,
            timeout=(flight.budget.patience(self._connect_timeout), self._timeout),
            proxies=self._proxies,
        )
        try:
            if not flight.sent:  # every NotSent rests on this mark: an HTTP library that bypasses it is not usable
                raise RuntimeError("a request left without being marked as sent")
            reach(Point.ANSWER_UNREAD)
            body, fault = _read(response.raw)
        finally:
            response.close()
        return Answer(response.status_code, body, fault, response.raw.headers.get("Retry-After"))


class _ForkAware(Protocol):
    def after_fork(self) -> None: ...


_fork_aware: weakref.WeakSet[_ForkAware] = weakref.WeakSet()


def renew_after_fork(thing: _ForkAware) -> None:
    """Have `after_fork` called in a child process, before anything else runs there."""
    _fork_aware.add(thing)


def _after_fork() -> None:
    for each in tuple(_fork_aware):
        each.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class _Adapter(HTTPAdapter):
    """`requests`' adapter on our connections, with one TLS context for all of them (loading it takes milliseconds).

    It never repeats anything by itself: `requests`' default `Retry(0, read=False)` is kept.
    """

    def __init__(self, context: ssl.SSLContext | None, pool_size: int) -> None:
        self._context = context
        super().__init__(pool_maxsize=pool_size)

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **kwargs: Any) -> None:  # noqa: ANN401, FBT001, FBT002  inherited
        super().init_poolmanager(connections, maxsize, block, ssl_context=self._context, **kwargs)
        self.poolmanager.pool_classes_by_scheme = wire.POOLS

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:  # noqa: ANN401  inherited
        kwargs |= {"ssl_context": self._context, "proxy_ssl_context": self._context}
        manager = super().proxy_manager_for(proxy, **kwargs)
        manager.pool_classes_by_scheme = wire.POOLS
        return manager

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:  # noqa: ANN401  inherited
        """Leave the pool alone: the context verifies already."""

    def build_response(self, req: requests.PreparedRequest, resp: Any) -> requests.Response:  # noqa: ANN401, ARG002  inherited
        response = requests.Response()
        response.status_code = resp.status
        response.raw = resp
        return response


def _tls_context(ca_bundle: str | os.PathLike[str] | None) -> ssl.SSLContext:
    context = create_urllib3_context(cert_reqs=ssl.CERT_REQUIRED)
    trusted = Path(ca_bundle or DEFAULT_CA_BUNDLE_PATH)
    if trusted.is_dir():
        context.load_verify_locations(capath=trusted)
    else:
        context.load_verify_locations(cafile=trusted)
    return context


def _read(raw: Any) -> tuple[bytes, Reason | None]:  # noqa: ANN401  urllib3's response
    if raw.headers.get("Content-Encoding", "").strip().lower() not in _CODINGS:
        return b"", Reason.ANSWER_UNREADABLE
    try:
        body: bytes = raw.read(BODY_LIMIT + 1, decode_content=True)
    except Exception as error:  # noqa: BLE001  whatever a body does, the status line has come and counts
        return b"", _why_lost(error)
    return (b"", Reason.ANSWER_TOO_LARGE) if len(body) > BODY_LIMIT else (body, None)


def _why_unsent(error: Exception, budget: Budget) -> Reason:
    if isinstance(error, wire.Grounded):
        return error.reason
    if budget.remaining() <= 0:
        return Reason.TIMED_OUT
    return Reason.TLS_FAILED if isinstance(error, requests.exceptions.SSLError) else Reason.CONNECTION_FAILED


def _why_lost(error: BaseException) -> Reason:
    """Unpack what `requests` and urllib3 wrapped; by their arguments, since contexts may be the caller's own."""
    while isinstance(error, _WRAPPERS):
        inner = getattr(error, "reason", None) or next(reversed(error.args), None)
        if not isinstance(inner, BaseException):
            break
        error = inner
    if isinstance(error, (urllib3_errors.ReadTimeoutError, TimeoutError)):
        return Reason.TIMED_OUT
    if isinstance(error, wire.TooMuch):
        return Reason.ANSWER_TOO_LARGE
    if isinstance(error, http.client.IncompleteRead):
        return Reason.ANSWER_TRUNCATED
    if isinstance(error, (OSError, urllib3_errors.SSLError)):
        return Reason.CONNECTION_LOST
    return Reason.ANSWER_UNREADABLE
