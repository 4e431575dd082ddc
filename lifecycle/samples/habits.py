"""How often what happens: the shares by which plans are drawn.

They are plausible, not measured: nobody publishes them. A number alone is the share of the cases that it is about.
"""

from __future__ import annotations

from typing import Final

from lifecycle.samples.chances import Shares
from lifecycle.samples.plans import Trouble

USER_SOURCES: Final = Shares({"api": 0.9, "cli": 0.1})

PATIENT_REASONS: Final[Shares[str | None]] = Shares(
    {
        "patient_no_longer_available": 34.0,
        "patient_no_longer_needs_appointment": 27.0,
        "other_patient_reason": 14.0,
        "rescheduling_patient": 9.0,
        None: 7.0,
    }
)
PROVIDER_REASONS: Final[Shares[str | None]] = Shares(
    {
        "provider_not_available": 40.0,
        "payment_or_insurance_issue": 22.0,
        "patient_or_visit_type_not_accepted": 15.0,
        "missing_needed_patient_information": 13.0,
        "other_provider_reason": 10.0,
    }
)
LEARNING: Final = Shares({"webhook": 62.0, "app": 29.0, "sync": 9.0})
CONFIRMING: Final = Shares({"rule": 34.0, "staff": 50.0, "nightly": 8.0, "provider": 4.0, "failed": 3.0, "nobody": 1.0})
CANCELLING: Final = Shares({"patient": 58.0, "practice": 14.0, "provider": 28.0})
REGRETS: Final = Shares({"nothing": 90.0, "cancel": 5.0, "confirm": 4.0, "back": 1.0})
VISITS: Final = Shares({"arrived": 74.0, "no_show": 8.0, "early": 0.6, "late": 0.8, "unmarked": 16.6})
RESCHEDULE_ANSWERS: Final = Shares(
    {
        "rescheduled": 66.0,
        "pending_reschedule": 26.0,
        "reschedule_failed": 5.0,
        "unchanged": 3.0,
    }
)
AFTER_PENDING: Final = Shares({"rescheduled": 78.0, "confirmed": 9.0, "reschedule_failed": 13.0})
TROUBLES: Final[Shares[Trouble | None]] = Shares(
    {
        None: 982.0,
        Trouble.RESET_BEFORE: 2.0,
        Trouble.RESET_AFTER: 3.0,
        Trouble.SILENCE_BEFORE: 1.0,
        Trouble.SILENCE_AFTER: 2.0,
        Trouble.GATEWAY_BEFORE: 1.0,
        Trouble.GATEWAY_AFTER: 1.0,
        Trouble.UNREACHABLE: 4.5,
        Trouble.BUSY: 2.5,
        Trouble.NOT_FOUND: 1.0,
    }
)
FUTURE_STATUSES: Final = ("waitlisted", "checked_in")
"""Statuses that Zocdoc does not document: it says that it may add some."""

CANCELLED_UNTOLD: Final = 0.006  # a confirmation meets a cancellation of the provider that nobody has told
CONFIRMED_TWICE: Final = 0.015  # somebody clicks twice
UNKNOWN_STATUS: Final = 0.004  # a status that Zocdoc does not document
RESCHEDULED: Final = 0.10
MOVED_BY_PROVIDER: Final = 0.03
CANCELLED: Final = 0.17
CANCELLED_IN_UNKNOWN: Final = 0.5  # somebody tries to cancel meanwhile
START_REFUSED: Final = 0.05  # the slot is taken: Zocdoc answers 400
CONFIRMED_AFTER_FAILURE: Final = 0.5  # after a failed reschedule
CANCELLED_ALREADY: Final = 0.02  # a cancellation meets one of the provider that nobody has told
NO_SHOW_BY_JOB: Final = 0.4
NO_SHOW_TAKEN_BACK: Final = 0.02
IMPATIENT: Final = 0.25  # somebody asks again while the outcome is in doubt
CROSSED: Final = 0.08  # the provider cancels while the outcome is in doubt
RESOLVED: Final = 0.8  # an operator settles what needs attention
OVERTAKEN: Final = 0.06  # the provider cancels while a command waits for its turn in a batch
OVERTAKEN_TOLD: Final = 0.6  # and a webhook tells in time
WEBHOOK_TELLS: Final = 0.88  # a change of the provider; else the nightly sync finds it
