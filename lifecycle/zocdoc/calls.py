"""The story of one call: a token, a request, perhaps a second one, and what the answer means."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from requests import PreparedRequest
from requests.structures import CaseInsensitiveDict

from lifecycle.points import Point, reach
from lifecycle.zocdoc import answers, errors, retries, timing, tokens
from lifecycle.zocdoc.outcomes import NotSent, Outcome, Reason, Unknown
from lifecycle.zocdoc.transport import NoAnswer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

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
        self, transport: Transport, token_source: tokens.TokenSource, *, base_url: str, deadline: float
    ) -> None:
        self._transport = transport
        self._tokens = token_source
        self._base_url = base_url
        self._deadline = deadline
        self._pace = timing.Pace()

    def command(
        self, operation: str, appointment_id: str, body: Mapping[str, str | None], send_before: float | None
    ) -> Outcome:
        """Send a command, classify the answer, log one event. Raises nothing: what happened is the outcome."""
        started = timing.clock()
        method, path = _ROUTES[operation]
        given = {name: value for name, value in body.items() if value is not None}
        call = _Call(self._prepared(method, path, json.dumps(given).encode()), harmless=False)
        outcome = self._settle(call, timing.Budget.of(self._deadline, send_before), appointment_id)
        _tell(logging.INFO, operation, appointment_id, started, outcome)
        return outcome

    def read_one(self, appointment_id: str) -> answers.Reading:
        """Read an appointment. Raises `ReadRefused`, `AppointmentMissing` or `ReadFailed`."""
        call = _Call(self._prepared("GET", f"{_APPOINTMENTS}/{appointment_id}"), harmless=True)
        return self._read("get", appointment_id, call, lambda answer: answers.reading(answer, appointment_id))

    def read_page(self, query: str) -> answers.Page:
        """Read one page of the list. Raises `ReadRefused` or `ReadFailed`."""
        call = _Call(self._prepared("GET", _APPOINTMENTS), harmless=True, query=query)
        return self._read("list", None, call, answers.page)

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
        try:
            result = understand(self._exchange(call, timing.Budget.of(self._deadline)))
        except (errors.ReadRefused, errors.ReadFailed) as failure:
            result = failure
        except NoAnswer as lost:
            result = errors.ReadFailed(lost.reason)
        except tokens.TokenFailed as failed:
            result = errors.ReadFailed(failed.reason_code, failed.http_status)
        _tell(logging.DEBUG, operation, appointment_id, started, result)
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
        if not self._pace.wait(budget):
            raise NoAnswer(Reason.RATE_LIMITED, sent=False)
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


def _tell(level: int, operation: str, appointment_id: str | None, started: float, result: object) -> None:
    """Log one event for one call. A result without a status of its own was read from a 200."""
    if not _log.isEnabledFor(level):
        return
    facts = {
        "operation": operation,
        "appointment_id": appointment_id,
        "outcome": type(result).__name__,
        "http_status": getattr(result, "http_status", answers.OK),
        "reason_code": getattr(result, "reason_code", None),
        "request_id": getattr(result, "request_id", None),
        "duration_ms": round((timing.clock() - started) * 1000, 1),
    }
    _log.log(level, "zocdoc_call", extra=facts)
