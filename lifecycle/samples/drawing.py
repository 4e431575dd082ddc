"""Drawing plans: who books, confirms, moves, cancels and comes, how often, and what goes wrong. Pure and seeded.

How often is in `habits`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from lifecycle.samples import habits
from lifecycle.samples import practice as practices
from lifecycle.samples.chances import uuid_text
from lifecycle.samples.drafting import DAY, HOUR, MINUTE, Draft
from lifecycle.samples.plans import Batch, Changed, Looked, Plan, Trouble

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random


_LAST_WORD: Final = timedelta(minutes=3)
"""Nothing is begun so shortly before the end of the samples, so that what was begun has ended: reads after a lost
answer take half a minute."""


def plans(rng: Random, *, appointments: int, days: int, until: datetime) -> Iterator[Plan]:
    """Draw so many appointments, in the order in which they were booked in so many days before `until`.

    The same state of `rng` gives the same plans. Raises `ConfigurationError` on a machine without time zones.
    """
    practice = practices.found(rng, appointments=appointments, days=days)
    for booked_at in practices.bookings(rng, count=appointments, days=days, until=until):
        yield _Drawing(rng, practice.choose(rng), booked_at).plan(until - _LAST_WORD)


class _Drawing(Draft):
    """One appointment while its life is drawn."""

    def plan(self, end: datetime) -> Plan:
        """Draw the whole life, and leave out what would lie after the end."""
        self.learn()
        if self.status == "pending_booking":
            self.decide_booking()
        if self.status == "confirmed":
            self.change_of_plans()
        if self.status in {"confirmed", "rescheduled"} and not self.be_called_off():
            self.visit()
        return Plan(
            appointment_id=uuid_text(self.rng),
            location=self.location,
            booked_at=self.booked_at,
            start=self.first_start,
            status=self.first_status,
            confirmation_type="auto" if self.confirms_itself else "manual",
            visit_reason_id=self.rng.choice(self.location.visit_reasons),
            actions=tuple(sorted((each for each in self.actions if each.at < end), key=lambda each: each.at)),
        )

    # How the booking becomes known, and is confirmed.

    def learn(self) -> None:
        match habits.LEARNING.draw(self.rng):
            case "webhook":
                self.tell("created")
            case "app":
                self.now += timedelta(seconds=self.rng.uniform(1, 5))
                self.actions.append(Looked(at=self.now, actor=self.user("job:intake", 0.4), source="api"))
            case _:
                self.now = practices.next_sync(self.now)
        self.now += timedelta(seconds=20)

    def decide_booking(self) -> None:
        match habits.CONFIRMING.draw(self.rng):
            case "rule":
                self.confirm(self.now + self.after(4 * MINUTE, 0.8), "job:autoconfirm")
            case "staff":
                self.confirm(self.location.office_hour(self.rng, self.now + self.after(HOUR, 1.2)), self.user())
            case "nightly":
                self.confirm_by_night()
            case "provider":
                self.change("confirmed", self.after(3 * HOUR, 0.8))
            case "failed":
                self.change("booking_failed", self.after(5 * HOUR, 0.8))
            case _:
                pass

    def confirm(self, at: datetime, actor: str) -> None:
        if at >= self.start:
            return
        if self.happens(habits.CANCELLED_UNTOLD):
            # The provider has just cancelled, and no webhook has told: Zocdoc answers 409.
            self.actions.append(Changed(at=at - timedelta(seconds=self.rng.uniform(5, 600)), status="cancelled"))
            self.ask("confirm", at, actor, calm=True)
            self.status = "cancelled"
            return
        if self.ask("confirm", at, actor):
            self.status = "confirmed"
            if self.happens(habits.CONFIRMED_TWICE):
                self.ask("confirm", self.now + timedelta(seconds=self.rng.uniform(1, 4)), actor, calm=True)

    def confirm_by_night(self) -> None:
        at = self.next_job()
        if at + timedelta(minutes=15) >= self.start:
            return
        name = f"confirmations of {at.date()}"
        batch = Batch(at=at, name=name, command="confirm", actor="job:nightly", source="api")
        self.submit(batch, status="confirmed")

    # What happens between confirmation and visit.

    def change_of_plans(self) -> None:
        if self.happens(habits.UNKNOWN_STATUS):
            self.pass_through_an_unknown_status()
        elif self.happens(habits.RESCHEDULED):
            self.reschedule()
        elif self.happens(habits.MOVED_BY_PROVIDER):
            self.be_moved()
        if self.happens(habits.CANCELLED):
            self.cancel()

    def pass_through_an_unknown_status(self) -> None:
        self.change(self.rng.choice(habits.FUTURE_STATUSES), self.after(8 * HOUR, 0.8))
        if self.happens(habits.CANCELLED_IN_UNKNOWN):
            self.ask("cancel", self.now + self.after(HOUR, 0.5), self.user(), calm=True)
        self.change("confirmed", self.after(5 * HOUR, 0.6))

    def reschedule(self) -> None:
        at = self.before_visit()
        if at is None:
            return
        lead = self.start - at + timedelta(days=self.rng.uniform(1, 12))
        start = self.location.visit(self.rng, after=at, lead=lead)
        answer = habits.RESCHEDULE_ANSWERS.draw(self.rng)
        trouble = Trouble.BAD_REQUEST if self.happens(habits.START_REFUSED) else None
        if not self.ask("reschedule", at, self.user(), start=start, answer=answer, trouble=trouble):
            return
        if answer == "reschedule_failed":
            self.status = answer
        else:
            self.start = start
        if answer in {"rescheduled", "pending_reschedule"}:
            self.status = answer
        if answer == "pending_reschedule":
            self.change(habits.AFTER_PENDING.draw(self.rng), self.after(4 * HOUR, 0.9))
        if self.status == "reschedule_failed" and self.happens(habits.CONFIRMED_AFTER_FAILURE):
            self.change("confirmed", self.after(6 * HOUR, 0.5))

    def be_moved(self) -> None:
        at = self.before_visit()
        if at is not None:
            self.now = self.location.office_hour(self.rng, at)
            self.start = self.location.visit(self.rng, after=self.now, lead=self.after(5 * DAY, 0.6))
            self.change("rescheduled", timedelta(0), start=self.start)

    def cancel(self) -> None:
        at = self.before_visit()
        if at is None:
            return
        match habits.CANCELLING.draw(self.rng):
            case "provider":
                self.now = at
                self.change("cancelled", timedelta(0))
            case "patient":
                self.cancel_here(at, self.user("job:patient-portal", 0.5), habits.PATIENT_REASONS.draw(self.rng))
            case _:
                self.cancel_here(at, self.user(), habits.PROVIDER_REASONS.draw(self.rng))
        if self.status == "cancelled":
            self.regret()

    def cancel_here(self, at: datetime, actor: str, reason_type: str | None) -> None:
        if self.happens(habits.CANCELLED_ALREADY):
            # Zocdoc has it cancelled already and has not told: a 409, and the wish is fulfilled.
            self.actions.append(Changed(at=at - timedelta(seconds=self.rng.uniform(5, 900)), status="cancelled"))
            self.ask("cancel", at, actor, reason_type=reason_type, calm=True)
            self.status = "cancelled"
        elif self.ask("cancel", at, actor, reason_type=reason_type):
            self.status = "cancelled"

    def regret(self) -> None:
        """After a cancellation: a second one, a confirmation that comes too late, a provider who takes it back."""
        again = self.after(10 * MINUTE, 1.5)
        match habits.REGRETS.draw(self.rng):
            case "cancel":
                self.ask("cancel", self.now + again, self.user(), reason_type="other_patient_reason", calm=True)
            case "confirm":
                self.ask("confirm", self.now + again, "job:autoconfirm", calm=True)
            case "back":
                self.change("confirmed", again)
            case _:
                pass

    # The visit.

    def be_called_off(self) -> bool:
        """Be cancelled with all other visits of the day, if the provider is ill."""
        at = self.location.called_off(self.start)
        if at is None or at <= self.now:
            return False
        batch = Batch(
            at=at,
            name=f"ill on {at.date()}: {self.location.provider_location_id}",
            command="cancel",
            actor=self.location.staff[0],
            source="cli",
        )
        self.submit(batch, status="cancelled", reason_type="provider_not_available")
        return True

    def visit(self) -> None:
        match habits.VISITS.draw(self.rng):
            case "arrived":
                self.ask("mark_arrived", self.around_start(-12, 10), self.user())
            case "no_show":
                self.mark_no_show(self.around_start(20, 90))
            case "early":
                self.ask("mark_no_show", self.around_start(-25, -2), self.user(), calm=True)
                self.mark_no_show(self.around_start(15, 60))
            case "late":
                self.ask("mark_no_show", self.around_start(2 * 24 * 60 + 5, 3 * 24 * 60), "job:nightly", calm=True)
            case _:
                pass

    def mark_no_show(self, at: datetime) -> None:
        self.now = max(self.now, at)
        if self.happens(habits.NO_SHOW_BY_JOB):
            done = self.ask("mark_no_show", self.night(), "job:nightly")
        else:
            done = self.ask("mark_no_show", at, self.user())
        if done and self.happens(habits.NO_SHOW_TAKEN_BACK):
            # The provider says that the patient did come: the chart has no such move.
            self.change("confirmed", self.after(DAY, 0.5))

    def around_start(self, least: float, most: float) -> datetime:
        at = self.start.astimezone(UTC) + timedelta(minutes=self.rng.uniform(least, most))
        return max(at, self.now + timedelta(seconds=30))
