"""The story of one call: a token, a request, perhaps a second one, and what the answer means."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, NamedTuple, TypeVar
from urllib.parse import urlsplit

from requests import PreparedRequest
from requests.structures import CaseInsensitiveDict

from lifecycle import telemetry
from lifecycle.points import Point, reach
from lifecycle.zocdoc import answers, errors, retries, timing, tokens
from lifecycle.zocdoc.outcomes import Applied, NotSent, Outcome, Reason, Rejected, Unknown
from lifecycle.zocdoc.transport import NoAnswer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from lifecycle.telemetry import Fact, Span, Telemetry
    from lifecycle.zocdoc.pacing import Pace
    from lifecycle.zocdoc.transport import Answer, Transport

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

_APPOINTMENTS = "/v1/appointments"
_ROUTES = {
    "confirm": ("POST", f"{_APPOINTMENTS}/confirm"),
    "cancel": ("POST", f"{_APPOINTMENTS}/cancel"),
    "reschedule": ("POST", f"{_APPOINTMENTS}/reschedule"),
    "update_status": ("PUT", f"{_APPOINTMENTS}/update-status"),
}
_HEADERS = {"User-Agent": "zocdoc-lifecycle", "Accept-Encoding": "gzip", "Accept": "application/json"}
_UNAUTHORIZED = 401


class _Call(NamedTuple):
    request: PreparedRequest
    harmless: bool
    query: str = ""


class Caller:
    """Makes calls to one base URL with one credential, each within `deadline` seconds. Thread-safe."""

    def __init__(
        self,
        transport: Transport,
        token_source: tokens.TokenSource,
        *,
        base_url: str,
        deadline: float,
        pace: Pace,
        hook: Telemetry = telemetry.LOGGED,
    ) -> None:
        self._transport = transport
        self._tokens = token_source
        self._base_url = base_url
        self._deadline = deadline
        self._listener = hook
        self._place = _place_of(base_url)
        self._pace = pace

    def command(
        self, operation: str, appointment_id: str, body: Mapping[str, str | None], send_before: float | None
    ) -> Outcome:
        """Send a command, classify the answer, log one event. Raises nothing: what happened is the outcome."""
        started = timing.clock()
        method, path = _ROUTES[operation]
        given = {name: value for name, value in body.items() if value is not None}
        call = _Call(self._prepared(method, path, json.dumps(given).encode()), harmless=False)
        with self._span(operation, method, appointment_id) as span:
            outcome = self._settle(call, timing.Budget.of(self._deadline, send_before), appointment_id)
            self._tell(logging.INFO, operation, appointment_id, started=started, result=outcome, span=span)
        return outcome

    def read_one(self, appointment_id: str) -> answers.Reading:
        """Read an appointment. Raises `ReadRefused`, `AppointmentMissing` or `ReadFailed`."""
        call = _Call(self._prepared("GET", f"{_APPOINTMENTS}/{appointment_id}"), harmless=True)
        return self._read("get", appointment_id, call, lambda answer: answers.reading(answer, appointment_id))

    def read_page(self, query: str) -> answers.Page:
        """Read one page of the list. Raises `ReadRefused` or `ReadFailed`."""
        call = _Call(self._prepared("GET", _APPOINTMENTS), harmless=True, query=query)
        return self._read("list", None, call, answers.page)

    def authorize(self) -> bool:
        """Get a token as a call does; False: it is a ready one, which only a call can judge. Raises `ReadFailed`."""
        try:
            self._tokens.current(timing.Budget.of(self._deadline))
        except tokens.TokenFailed as failed:
            failure = errors.ReadFailed(failed.reason_code, failed.http_status)
        else:
            return not isinstance(self._tokens, tokens.FixedToken)
        raise failure

    def _settle(self, call: _Call, budget: timing.Budget, appointment_id: str) -> Outcome:
        try:
            return answers.outcome(self._exchange(call, budget), appointment_id)
        except NoAnswer as lost:
            return Unknown(lost.reason) if lost.sent else NotSent(lost.reason)
        except tokens.TokenFailed as failed:
            return NotSent(failed.reason_code, failed.http_status)

    def _read(self, operation: str, appointment_id: str | None, call: _Call, understand: Callable[[Answer], _T]) -> _T:
        """Tell the story of a read: send, understand, log, or raise what it failed of."""
        started = timing.clock()
        result: _T | errors.ReadRefused | errors.ReadFailed
        with self._span(operation, "GET", appointment_id) as span:
            try:
                result = understand(self._exchange(call, timing.Budget.of(self._deadline)))
            except (errors.ReadRefused, errors.ReadFailed) as failure:
                result = failure
            except NoAnswer as lost:
                result = errors.ReadFailed(lost.reason)
            except tokens.TokenFailed as failed:
                result = errors.ReadFailed(failed.reason_code, failed.http_status)
            self._tell(logging.DEBUG, operation, appointment_id, started=started, result=result, span=span)
        if isinstance(result, (errors.ReadRefused, errors.ReadFailed)):
            raise result
        return result

    def _exchange(self, call: _Call, budget: timing.Budget) -> Answer:
        """Send with a token, and once more with another one if the first is answered 401."""
        if budget.claim_expired():
            raise NoAnswer(Reason.CLAIM_EXPIRED, sent=False)
        bearer = self._tokens.current(budget)
        reach(Point.TOKEN_FETCHED)
        answer = self._send(call, bearer, budget)
        if answer.http_status != _UNAUTHORIZED:
            return answer
        other = self._tokens.renewed(bearer, budget)
        return answer if other is None else self._send(call, other, budget)

    def _send(self, call: _Call, bearer: tokens.Bearer, budget: timing.Budget) -> Answer:
        request = bearer(call.request)
        return retries.persist(
            lambda: self._transport.send(request, budget=budget, query=call.query),
            budget=budget,
            pace=self._pace,
            harmless=call.harmless,
        )

    def _prepared(self, method: str, path: str, body: bytes | None = None) -> PreparedRequest:
        """Prepare by hand: nothing of `requests`' own preparation (cookies, hooks, query merging) is wanted here."""
        request = PreparedRequest()
        request.method, request.url, request.body = method, self._base_url + path, body
        request.headers = CaseInsensitiveDict(_HEADERS)
        if body is not None:
            request.headers["Content-Type"] = "application/json"
            request.headers["Content-Length"] = str(len(body))
        return request

    def _span(self, operation: str, method: str, appointment_id: str | None) -> AbstractContextManager[Span]:
        facts = {**self._place, "operation": operation, "method": method, "appointment_id": appointment_id}
        return self._listener.span(telemetry.CALL, facts)

    def _tell(
        self, level: int, operation: str, appointment_id: str | None, *, started: float, result: object, span: Span
    ) -> None:
        """Log one event for one call, and tell the hook. A result without a status of its own was read from a 200."""
        seconds = timing.clock() - started
        outcome = _OUTCOMES[type(result)]
        http_status = getattr(result, "http_status", answers.OK)
        reason_code, request_id = getattr(result, "reason_code", None), getattr(result, "request_id", None)
        if _log.isEnabledFor(level):
            facts = {
                "operation": operation,
                "appointment_id": appointment_id,
                "outcome": type(result).__name__,
                "http_status": http_status,
                "reason_code": reason_code,
                "request_id": request_id,
                "duration_ms": round(seconds * 1000, 1),
            }
            _log.log(level, "zocdoc_call", extra=facts)
        span.set(outcome=outcome, http_status=http_status, reason_code=reason_code, zocdoc_request_id=request_id)
        if reason_code is not None:
            span.fail(str(reason_code))
        labels: dict[str, Fact] = {"operation": operation, "outcome": outcome}
        self._listener.count(telemetry.CALLS, 1, labels)
        self._listener.record(telemetry.CALL_DURATION, seconds, labels)


def _place_of(base_url: str) -> dict[str, Fact]:
    parts = urlsplit(base_url)
    return {"server": parts.hostname, "port": parts.port}


_OUTCOMES: dict[type, str] = {
    Applied: "applied",
    Rejected: "rejected",
    NotSent: "not_sent",
    Unknown: "unknown",
    answers.Reading: "read",
    answers.Page: "read",
    errors.ReadRefused: "refused",
    errors.AppointmentMissing: "missing",
    errors.ReadFailed: "failed",
}
