"""The client's pure functions against mutated answers: no network, some ten thousand cases a second."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from lifecycle.zocdoc import answers, errors, outcomes, timing, tokens
from lifecycle.zocdoc.transport import Answer
from tests.fuzz.mutations import OWN, STATUSES, mutated
from tests.fuzz.reference import is_success

if TYPE_CHECKING:
    from lifecycle.zocdoc import AppointmentData

FAULTS: Final = (*[None] * 300, *outcomes.Reason)
_HIDDEN: Final = {"notes", "developer_patient_id"}
_AFTERS: Final = (
    "0",
    "7",
    " 3 ",
    "-1",
    "1e9",
    "Wed, 21 Oct 2037 07:28:00 GMT",
    "Wed, 99 Oct 2037",
    "\x00",
    "9" * 50,
    "",
)


@dataclass(slots=True)
class Figures:
    """What was tried and found. `strict` counts successes by the reference that the client did not trust."""

    cases: int = 0
    applied: int = 0
    readings: int = 0
    strict: int = 0
    findings: list[str] = field(default_factory=list)

    def note(self, case: str, problem: str) -> None:
        """Keep a finding, the first ones in full."""
        if len(self.findings) < 20:
            self.findings.append(f"{problem}: {case}")


def run(cases: int, seed: int) -> Figures:
    """Try so many answers; the same seed tries the same ones."""
    draw, figures = random.Random(seed), Figures()  # noqa: S311 # repeatable is the point
    for number in range(cases):
        answer = Answer(draw.choice(STATUSES), mutated(draw), draw.choice(FAULTS), draw.choice(_AFTERS))
        figures.cases += 1
        try:
            _try_command(answer, figures)
            if number % 2:
                _try_read(answer, figures)
            if number % 4 == 0:
                _try_page(answer, figures)
                _try_token(answer, figures)
        except Exception as error:  # noqa: BLE001 # that is what the fuzzer looks for
            figures.note(repr((seed, number, answer.http_status, answer.body[:2000])), f"raised {error!r}")
    return figures


def _try_command(answer: Answer, figures: Figures) -> None:
    outcome = answers.outcome(answer, OWN)
    is_valid = answer.fault is None and is_success(answer.http_status, answer.body, OWN)
    if isinstance(outcome, outcomes.Applied):
        figures.applied += 1
        if not is_valid:
            figures.note(repr(answer.body[:2000]), "applied without a success")
        if not _is_code(outcome.status, 64):
            figures.note(repr(answer.body[:2000]), "a status that cannot be kept")
    else:
        figures.strict += is_valid
        if is_valid and answer.http_status == 200 and not isinstance(outcome, outcomes.Unknown):
            figures.note(repr(answer.body[:2000]), "a success that is neither applied nor unknown")
    for text in (outcome.request_id, *getattr(outcome, "fields", ()), getattr(outcome, "error_type", None)):
        if text is not None and not (_is_code(text, 200) and text.isascii()):
            figures.note(repr(answer.body[:2000]), "a text of the answer that may hold anything")


def _try_read(answer: Answer, figures: Figures) -> None:
    try:
        _check_reading(answers.reading(answer, OWN).appointment, answer, figures)
    except (errors.ReadFailed, errors.ReadRefused) as error:
        str(error)


def _try_page(answer: Answer, figures: Figures) -> None:
    try:
        for each in answers.page(answer).appointments:
            _check_appointment(each, answer, figures)
    except (errors.ReadFailed, errors.ReadRefused) as error:
        str(error)


def _check_reading(appointment: AppointmentData, answer: Answer, figures: Figures) -> None:
    figures.readings += 1
    _check_appointment(appointment, answer, figures)
    if appointment.appointment_id != OWN or answer.http_status != 200 or answer.fault is not None:
        figures.note(repr(answer.body[:2000]), "read what is no reading")


def _check_appointment(appointment: AppointmentData, answer: Answer, figures: Figures) -> None:
    times = (appointment.start_time, appointment.created_time_utc, appointment.last_modified_time_utc)
    names = (appointment.appointment_id, appointment.appointment_status, appointment.provider_location_id)
    hidden = {appointment.notes, appointment.developer_patient_id} - {None}
    shown, told = repr(appointment), str([text for name, text in appointment if name not in _HIDDEN])
    is_sound = (
        all(each is None or isinstance(each.utcoffset(), timedelta) for each in times)
        and all(each is None or _is_code(each, 200) for each in names)
        and isinstance(appointment.start_time, datetime)
        and not any(len(text) > 1 and repr(text) in shown and text not in told for text in hidden if text)
    )
    if not is_sound:
        figures.note(repr(answer.body[:2000]), "an unsound appointment")


def _try_token(answer: Answer, figures: Figures) -> None:
    found: Any = tokens._read(answer, 0.0)
    if "Bearer " in repr(found):
        figures.note(repr(answer.body[:2000]), "a token that shows")
    if not 0 <= timing._asked_for(answer.retry_after) < float("inf"):
        figures.note(repr(answer.retry_after), "an endless pause")


def _is_code(text: str, longest: int) -> bool:
    return 0 < len(text) <= longest and text.isprintable()
