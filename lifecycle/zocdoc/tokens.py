"""Where the access token comes from. A token is never part of a repr, a log line or an error."""

from __future__ import annotations

import json
import logging
import math
import re
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import requests
from requests.auth import AuthBase
from requests.structures import CaseInsensitiveDict

from lifecycle.zocdoc import environments, errors, payloads, retries, timing
from lifecycle.zocdoc.outcomes import Reason
from lifecycle.zocdoc.transport import Answer, NoAnswer, Transport, renew_after_fork

if TYPE_CHECKING:
    from collections.abc import Callable

_log = logging.getLogger(__name__)

# Visible ASCII: anything else could end the header line. Real ones (JWTs) have one or two thousand characters.
_TOKEN = re.compile(r"[!-~]{1,16384}")
# Renewed this long before the end, or a tenth of the life if that is less, so that none expires on the way.
_LONGEST_SKEW = 60.0
# Assumed when the answer does not say how long a token lives.
_SHORT_LIFE = 60.0
_REFUSALS = frozenset({400, 401, 403})


class TokenFailed(Exception):
    """No token is to be had. Nothing was sent to the appointment endpoint."""

    def __init__(self, reason_code: Reason, http_status: int | None = None) -> None:
        super().__init__(reason_code, http_status)
        self.reason_code = reason_code
        self.http_status = http_status


class Bearer(AuthBase):
    """Puts a token on a prepared request. Raises `ValueError` for text that does not belong into a header."""

    __slots__ = ("_header",)

    def __init__(self, token: object) -> None:
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise ValueError("an access token is a non-empty text of visible ASCII characters")
        self._header = f"Bearer {token}"

    def __call__(self, r: requests.PreparedRequest) -> requests.PreparedRequest:
        """Set the header."""
        r.headers["Authorization"] = self._header
        return r

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bearer) and other._header == self._header

    def __hash__(self) -> int:
        return hash(self._header)

    def __repr__(self) -> str:
        return "Bearer(...)"

    def __reduce__(self) -> Any:  # noqa: ANN401  the protocol's own signature
        raise TypeError("a token is not pickled")


class TokenSource(Protocol):
    """Gives tokens. Both methods raise `TokenFailed`."""

    def current(self, budget: timing.Budget) -> Bearer:
        """Return the token to use now."""

    def renewed(self, refused: Bearer, budget: timing.Budget) -> Bearer | None:
        """Return another token than the one answered with 401, or None when there is no other."""


class FixedToken:
    """A ready token. There is no other when it is refused."""

    def __init__(self, token: str) -> None:
        self._bearer = Bearer(token)

    def current(self, budget: timing.Budget) -> Bearer:  # noqa: ARG002  the protocol
        """Return the token."""
        return self._bearer

    def renewed(self, refused: Bearer, budget: timing.Budget) -> Bearer | None:  # noqa: ARG002  the protocol
        """Return None."""
        return None


class CalledToken:
    """Asks the caller for a token at every request; caching is the caller's business."""

    def __init__(self, give: Callable[[], str]) -> None:
        self._give = give

    def current(self, budget: timing.Budget) -> Bearer:  # noqa: ARG002  the protocol
        """Call for a token. An error of the callable is logged by its type alone: its text may hold the token."""
        try:
            return Bearer(self._give())
        except Exception as error:  # noqa: BLE001  any failure of the caller's function means: no token
            _log.warning("token_callable_failed", extra={"error": type(error).__name__})
        raise TokenFailed(Reason.TOKEN_UNAVAILABLE)

    def renewed(self, refused: Bearer, budget: timing.Budget) -> Bearer | None:
        """Call again; the same token again is no other token."""
        other = self.current(budget)
        return None if other == refused else other


@dataclass(frozen=True, slots=True)
class _Held:
    bearer: Bearer
    fresh_until: float


class ClientCredentials:
    """OAuth 2.0 client credentials: one cached token, fetched by one thread while the others wait for it."""

    def __init__(
        self, transport: Transport, *, token_url: str, client_id: str, client_secret: str, audience: str
    ) -> None:
        self._transport = transport
        self._url = token_url
        self._body = json.dumps(
            {
                "grant_type": "client_credentials",
                "client_id": client_id,
                "client_secret": client_secret,
                "audience": audience,
            }
        ).encode()
        self._held: _Held | None = None
        self._failure: tuple[float, TokenFailed] | None = None
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """Start with a free lock; a token that is held stays good."""
        self._lock = threading.Lock()

    def current(self, budget: timing.Budget) -> Bearer:
        """Return the cached token, or fetch one. Calls the token endpoint at most once while many threads wait."""
        held = self._held
        if held is not None and timing.clock() < held.fresh_until:
            return held.bearer
        return self._fetch_once(budget, unwanted=None)

    def renewed(self, refused: Bearer, budget: timing.Budget) -> Bearer | None:
        """Return the token that another thread has fetched since, or fetch one."""
        return self._fetch_once(budget, unwanted=refused)

    def _fetch_once(self, budget: timing.Budget, unwanted: Bearer | None) -> Bearer:
        arrived = timing.clock()
        if not self._lock.acquire(timeout=max(0.0, budget.remaining())):
            raise TokenFailed(Reason.TOKEN_UNAVAILABLE)
        try:
            held = self._held
            if held is not None and held.bearer != unwanted and timing.clock() < held.fresh_until:
                return held.bearer
            if self._failure is not None and self._failure[0] >= arrived:
                raise TokenFailed(*self._failure[1].args)
            return self._fetch(budget)
        finally:
            self._lock.release()

    def _fetch(self, budget: timing.Budget) -> Bearer:
        """Fetch a token, or raise. A failure counts for all that wait, unless it was only this call's deadline."""
        found = self._ask(timing.Budget(budget.ends, room=budget.room))
        if isinstance(found, _Held):
            self._held = found
            return found.bearer
        if budget.remaining() > 0:
            self._failure = (timing.clock(), found)
        _log.warning("token_failed", extra={"reason_code": str(found.reason_code), "http_status": found.http_status})
        raise TokenFailed(*found.args)

    def _ask(self, budget: timing.Budget) -> _Held | TokenFailed:
        asked = timing.clock()
        try:
            answer = retries.persist(
                lambda: self._transport.send(self._request(), budget=budget),
                budget=budget,
                pace=timing.Pauses(),  # the token endpoint's limit says nothing about the API's
                harmless=True,
            )
        except NoAnswer:
            return TokenFailed(Reason.TOKEN_UNAVAILABLE)
        return _read(answer, asked)

    def _request(self) -> requests.PreparedRequest:
        request = requests.PreparedRequest()
        request.method, request.url, request.body = "POST", self._url, self._body
        request.headers = CaseInsensitiveDict(
            {
                "Content-Type": "application/json",
                "Accept": "application/json",
                "Accept-Encoding": "gzip",
                "Content-Length": str(len(self._body)),
            }
        )
        return request


def source(
    transport: Transport,
    *,
    access_token: str | Callable[[], str] | None,
    token_url: str | None,
    client_id: str | None,
    client_secret: str | None,
    audience: str,
) -> TokenSource:
    """Return the source that these arguments of the client describe. Raises `InvalidConfiguration`."""
    if access_token is not None:
        if client_id or client_secret:
            raise errors.InvalidConfiguration("give client credentials or an access_token, not both")
        return CalledToken(access_token) if callable(access_token) else _fixed(access_token)
    if not (client_id and client_secret):
        raise errors.InvalidConfiguration("client_id and client_secret, or an access_token, are required")
    if not token_url:
        raise errors.InvalidConfiguration("client credentials need a token_url")
    url = environments.check_url("token_url", token_url).text
    return ClientCredentials(
        transport, token_url=url, client_id=client_id, client_secret=client_secret, audience=audience
    )


def _fixed(access_token: str) -> FixedToken:
    try:
        return FixedToken(access_token)
    except ValueError as error:
        message = str(error)
    raise errors.InvalidConfiguration(message)


def _read(answer: Answer, asked: float) -> _Held | TokenFailed:
    status = answer.http_status
    if status == 429:  # noqa: PLR2004  Too Many Requests
        return TokenFailed(Reason.RATE_LIMITED, status)
    if status in _REFUSALS:
        return TokenFailed(Reason.TOKEN_REFUSED, status)
    if status == 200 and answer.fault is None:  # noqa: PLR2004  OK
        try:
            body = payloads.decode(answer.body)
            return _Held(Bearer(body.get("access_token")), asked + _fresh_for(body.get("expires_in")))
        except (payloads.UnreadableBody, ValueError):
            pass
    return TokenFailed(Reason.TOKEN_UNAVAILABLE, status)


def _fresh_for(expires_in: object) -> float:
    is_number = isinstance(expires_in, (int, float)) and not isinstance(expires_in, bool)
    life = float(expires_in) if is_number and 0 < expires_in < math.inf else _SHORT_LIFE  # type: ignore[operator, arg-type]
    return life - min(_LONGEST_SKEW, life / 10)
