"""The stand-in of Zocdoc in simulated time: its clock, how long its answers take, what goes wrong with them."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from lifecycle.samples import ground, plans
from lifecycle.sandbox import Fault, Kind, Moment, Operation, Sandbox
from lifecycle.zocdoc import ZocdocClient

if TYPE_CHECKING:
    from datetime import datetime

    from lifecycle.sandbox.messages import Reply, Request

_FOR_EVER: Final = 100 * 365 * 86_400.0
"""Seconds that a token of the stand-in lives: its clock runs too fast for an hour."""

_LONGEST: Final = 30.0
"""Seconds of real time that one thread waits for another; on a busy machine all of them may stand still for a while."""

_LONG_PAUSE: Final = {"Retry-After": "3600"}
"""It leaves no room for a second try."""


class Clock:
    """Simulated time, for the database, the stand-in and the length of calls."""

    def __init__(self, begin: datetime) -> None:
        self._begin = self._now = begin

    def now(self) -> datetime:
        """Tell the time, UTC."""
        return self._now

    def monotonic(self) -> float:
        """Tell the seconds since the beginning."""
        return (self._now - self._begin).total_seconds()

    def advance(self, at: datetime) -> None:
        """Jump to an instant, if it is ahead."""
        self._now = max(self._now, at)

    def pass_by(self, milliseconds: float) -> None:
        """Let time pass."""
        self._now += timedelta(milliseconds=milliseconds)


class Zocdoc(Sandbox):
    """The stand-in, whose answer to a command takes the time that the plan says."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(now=clock.now, token_lifetime=_FOR_EVER, with_fixtures=False)
        self._clock = clock
        self._pauses = (0.0, 0.0)
        self._is_silent = False
        self._arrived = threading.Event()
        self._ended = threading.Event()

    def expect(self, asked: plans.Asked) -> None:
        """Prepare for a command: how long it takes, what is answered to a reschedule, what goes wrong."""
        self._pauses = asked.pauses
        self._is_silent = asked.trouble in plans.SILENCES
        self._arrived.clear()
        self._ended.clear()
        self._appointments.on_reschedule = asked.answer or plans.UNCHANGED
        fault = None if asked.trouble is None else _FAULTS.get(asked.trouble)
        if fault is not None:
            self.faults.add(replace(fault, operation=_OPERATIONS.get(asked.command, asked.command)))

    def end(self, *, has_arrived: bool) -> None:
        """End what was prepared for a command, and the silence about it; first wait for what arrives for certain."""
        if has_arrived and self._is_silent:
            self._arrived.wait(_LONGEST)
        self._ended.set()
        self.faults.clear()

    def answer(self, request: Request) -> Reply:
        """Answer; only a command takes time."""
        if request.method == "GET":
            return super().answer(request)
        (before, after), self._pauses = self._pauses, (0.0, 0.0)
        self._clock.pass_by(before)
        reply = super().answer(request)
        self._clock.pass_by(after)
        self._arrived.set()
        if self._is_silent:
            self._ended.wait(_LONGEST)
        return reply


class Client(ZocdocClient):
    """A client of the stand-in, of the environment of samples."""

    @property
    def environment(self) -> str:
        """That of samples."""
        return ground.ENVIRONMENT


_OPERATIONS: Final = {"mark_arrived": Operation.UPDATE_STATUS, "mark_no_show": Operation.UPDATE_STATUS}
_BAD_START: Final = '{"request_id":"sample","error_type":"invalid_request","errors":[{"field":"start_time"}]}'
_FAULTS: Final = {
    plans.Trouble.RESET_BEFORE: Fault(kind=Kind.RESET),
    plans.Trouble.RESET_AFTER: Fault(kind=Kind.RESET, when=Moment.AFTER),
    plans.Trouble.SILENCE_BEFORE: Fault(kind=Kind.RESET),
    plans.Trouble.SILENCE_AFTER: Fault(kind=Kind.RESET, when=Moment.AFTER),
    plans.Trouble.GATEWAY_BEFORE: Fault(kind=Kind.ANSWER, status=502),
    plans.Trouble.GATEWAY_AFTER: Fault(kind=Kind.ANSWER, status=502, when=Moment.AFTER),
    plans.Trouble.BUSY: Fault(kind=Kind.ANSWER, status=429, headers=_LONG_PAUSE),
    plans.Trouble.BAD_REQUEST: Fault(kind=Kind.ANSWER, status=400, body=_BAD_START),
    plans.Trouble.NOT_FOUND: Fault(kind=Kind.ANSWER, status=404),
}
