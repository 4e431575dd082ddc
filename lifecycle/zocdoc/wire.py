"""The connection below `requests`: it knows whether a byte of a request has left, and keeps one deadline for all.

urllib3 gives a timeout to each socket operation and cannot say whether a failed request was sent. Both matter here:
a server that drips one byte a second must not hold a call, and only what was provably not sent may be sent again.

What no socket timeout can bound is name resolution; a request that it delays beyond the deadline is not sent.
"""

from __future__ import annotations

import http.client
import io
import socket
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

from lifecycle.points import Point, reach
from lifecycle.zocdoc.outcomes import Reason
from lifecycle.zocdoc.timing import clock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lifecycle.zocdoc.timing import Budget

# Servers close idle connections, often after a minute. A POST that crosses such a close on the wire is an unknown
# outcome for nothing, so an older connection is not used again.
IDLE_LIMIT = 30.0

# What one answer may bring over the wire, headers and framing included. The limit on bodies is smaller and counted
# elsewhere; this one holds against endless headers, and against a chunk of the size -1, which http.client reads to
# the end of the connection.
ANSWER_LIMIT = 2 * 1024 * 1024


class Grounded(Exception):
    """The request did not leave, because it was too late for it."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


class TooMuch(http.client.HTTPException):
    """The answer goes on and on."""


class Flight:
    """One request on its way: its budget, its query, and whether a byte has left.

    The query is added here, below urllib3, because urllib3 logs URLs and a patient id may be part of a query.
    """

    __slots__ = ("budget", "query", "sent", "timeout")

    def __init__(self, budget: Budget, timeout: float, query: str = "") -> None:
        self.budget = budget
        self.timeout = timeout
        self.query = query
        self.sent = False

    def patience(self) -> float:
        """Return how long the next socket operation may wait. Raises `TimeoutError` past the deadline."""
        return self.budget.patience(self.timeout)

    def depart(self) -> float:
        """Mark the request as sent, or raise `Grounded`: the last thing before the first byte is written."""
        left = self.budget.remaining()
        if self.budget.claim_expired():
            raise Grounded(Reason.CLAIM_EXPIRED)
        if left <= 0:
            raise Grounded(Reason.TIMED_OUT)
        self.sent = True
        return min(self.timeout, left)


class _Air(threading.local):
    flight: Flight | None = None


_air = _Air()


@contextmanager
def flying(flight: Flight) -> Iterator[None]:
    """Make this the flight that connections used by the current thread belong to."""
    before, _air.flight = _air.flight, flight
    try:
        yield
    finally:
        _air.flight = before


def _flight() -> Flight:
    if _air.flight is None:
        raise RuntimeError("a connection was used outside a flight")
    return _air.flight


class _TimedReader(io.RawIOBase):
    """Reads from a socket (TLS or not) and gives each wait only what is left of the deadline."""

    def __init__(self, sock: socket.socket, flight: Flight) -> None:
        self._raw = sock.makefile("rb", buffering=0)
        self._sock = sock
        self._flight = flight
        self._allowed = ANSWER_LIMIT

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:  # noqa: ANN401  any writable buffer
        self._sock.settimeout(self._flight.patience())
        count = self._raw.readinto(buffer)
        self._allowed -= count or 0
        if self._allowed < 0:
            raise TooMuch
        reach(Point.ANSWER_ARRIVING)
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _TimedSocket:
    """The one thing of a socket that `http.client.HTTPResponse` asks for."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_TimedReader(self._sock, _flight()))


class _TimedResponse(http.client.HTTPResponse):
    def __init__(
        self, sock: socket.socket, debuglevel: int = 0, method: str | None = None, url: str | None = None
    ) -> None:
        super().__init__(cast("socket.socket", _TimedSocket(sock)), debuglevel, method, url)

    def begin(self) -> None:
        super().begin()
        # urllib3 would log what it could not parse of the headers, word for word.
        self.msg.defects.clear()
        self.msg.set_payload("")


class _Watched(HTTPConnection):
    response_class = _TimedResponse
    _last_used = 0.0
    _held: list[bytes] | None = None

    @property
    def is_connected(self) -> bool:
        return clock() - self._last_used <= IDLE_LIMIT and super().is_connected

    def putrequest(self, method: str, url: str, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  inherited
        super().putrequest(method, url + _flight().query, *args, **kwargs)

    def request(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  inherited
        """Write the whole request at once.

        urllib3 writes headers and body one after the other: a process that is stopped in between would finish the
        request whenever it goes on, long after its claim has expired.
        """
        try:
            super().request(*args, **kwargs)
            whole = b"".join(self._held or ())
        finally:
            self._held = None
        self.sock.settimeout(_flight().depart())
        super().send(whole)

    def endheaders(self, message_body: Any = None, *, encode_chunked: bool = False) -> None:  # noqa: ANN401  inherited
        if self.sock is None:
            self.connect()
        self._held = []
        super().endheaders(message_body, encode_chunked=encode_chunked)

    def send(self, data: Any) -> None:  # noqa: ANN401  inherited
        if self._held is None:  # what opens a proxy's tunnel
            super().send(data)
        else:
            self._held.append(data)

    def getresponse(self) -> Any:  # noqa: ANN401  urllib3's response, whose import would be circular
        reach(Point.REQUEST_SENT)
        response = super().getresponse()
        self._last_used = clock()
        return response

    def _new_conn(self) -> socket.socket:
        """Connect to the first address that answers; unlike urllib3's, all attempts share the deadline."""
        flight = _flight()
        try:
            addresses = socket.getaddrinfo(self._dns_host, self.port, 0, socket.SOCK_STREAM)
        except (socket.gaierror, UnicodeError) as error:
            raise NameResolutionError(self.host, self, cast("socket.gaierror", error)) from error
        longest = cast("float", self.timeout)
        failure: OSError = OSError("the name has no address")
        for family, kind, protocol, _, address in addresses:
            sock = socket.socket(family, kind, protocol)
            try:
                sock.settimeout(flight.budget.patience(longest))
                for option in self.socket_options or ():
                    sock.setsockopt(*option)
                sock.connect(address)
                sock.settimeout(flight.budget.patience(longest))
            except OSError as error:
                sock.close()
                failure = error
                continue
            sys.audit("http.client.connect", self, self.host, self.port)
            return sock
        if isinstance(failure, TimeoutError):
            raise ConnectTimeoutError(self, "the connection timed out") from failure
        raise NewConnectionError(self, "no connection could be made") from failure

    def _tunnel(self) -> None:
        super()._tunnel()
        self.sock.settimeout(_flight().budget.patience(cast("float", self.timeout)))


class _TlsWatched(_Watched, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Watched


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsWatched


POOLS: dict[str, Any] = {"http": _Pool, "https": _TlsPool}
