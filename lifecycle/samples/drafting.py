"""One appointment while it is drawn: single steps, each of which adds actions and lets time pass. Pure and seeded."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING, Final

from lifecycle.samples import habits
from lifecycle.samples import practice as practices
from lifecycle.samples.plans import EFFECTS, SILENCES, Action, Asked, Batch, Changed, Effect, Resolved, Told, Trouble

if TYPE_CHECKING:
    from random import Random

    from lifecycle.samples.practice import Location

MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0
"""In seconds."""

_SETTLED_WITHIN: Final = timedelta(seconds=60)
"""Within this a submitted command is read for and sent again, if it must be."""

_JOB_AT: Final = time(3, tzinfo=UTC)
"""When the nightly job runs."""


class Draft:
    """One appointment while it is drawn. `now` is when the last thing was done, `status` what it should be by then."""

    def __init__(self, rng: Random, location: Location, booked_at: datetime) -> None:
        self.rng = rng
        self.location = location
        self.now = self.booked_at = booked_at
        self.start = self.first_start = location.visit(rng, after=booked_at, lead=self.after(4.5 * DAY, 1.0))
        self.confirms_itself = rng.random() < location.confirms_itself
        self.status = self.first_status = "confirmed" if self.confirms_itself else "pending_booking"
        self.actions: list[Action] = []

    def ask(
        self,
        command: str,
        at: datetime,
        actor: str,
        *,
        reason_type: str | None = None,
        start: datetime | None = None,
        answer: str | None = None,
        trouble: Trouble | None = None,
        calm: bool = False,
    ) -> bool:
        """Ask once, and again if it was not sent or proved not applied; give whether it was applied in the end.

        `calm`: nothing goes wrong on the way.
        """
        trouble = trouble if calm or trouble else habits.TROUBLES.draw(self.rng)
        asked = Asked(
            at=at,
            command=command,
            actor=actor,
            source=habits.USER_SOURCES.draw(self.rng) if actor.startswith("user:") else "api",
            milliseconds=self.milliseconds(trouble),
            reason_type=reason_type,
            start=start,
            answer=answer,
            trouble=trouble,
        )
        self.actions.append(asked)
        self.now = at + timedelta(milliseconds=asked.milliseconds, seconds=1)
        if trouble is None:
            return True
        effect = EFFECTS[trouble]
        if effect.outcome == "rejected":
            return False
        if effect.outcome == "unknown" and not self.recover(asked, effect):
            return False
        if effect.is_applied:
            return True
        again = self.now + self.after(5 * MINUTE, 0.8)
        return self.ask(command, again, actor, reason_type=reason_type, start=start, answer=answer, calm=True)

    def submit(self, batch: Batch, *, status: str, reason_type: str | None = None) -> None:
        """Have a command carried out with a batch; `status` is what comes of it, if nobody is quicker."""
        turn = batch.at + timedelta(seconds=self.rng.uniform(10, 600))
        if self.happens(habits.OVERTAKEN):
            self.actions.append(Changed(at=batch.at + timedelta(seconds=1), status="cancelled"))
            if self.happens(habits.OVERTAKEN_TOLD):
                self.actions.append(Told(at=batch.at + timedelta(seconds=3), update_type="cancelled"))
            status = "cancelled"
        trouble = habits.TROUBLES.draw(self.rng)
        asked = Asked(
            at=turn,
            command=batch.command,
            actor=batch.actor,
            source=batch.source,
            milliseconds=self.milliseconds(trouble),
            reason_type=reason_type,
            trouble=trouble,
            batch=batch,
        )
        self.actions.append(asked)
        if trouble is None or EFFECTS[trouble].outcome != "rejected":
            self.status = status  # what had no effect is sent again by itself
        self.now = turn + timedelta(milliseconds=asked.milliseconds) + _SETTLED_WITHIN

    def recover(self, asked: Asked, effect: Effect) -> bool:
        """Let recovery settle a lost answer; False: it cannot be told, and a human looks."""
        if self.happens(habits.IMPATIENT):
            impatient = self.now + timedelta(seconds=self.rng.uniform(0, 0.5))
            self.actions.append(replace(asked, at=impatient, milliseconds=1, answer=None, trouble=None))
        is_blind = asked.command == "mark_arrived" or (effect.is_applied and asked.answer == "reschedule_failed")
        is_crossed = not is_blind and asked.command in {"confirm", "reschedule"} and self.happens(habits.CROSSED)
        if is_crossed:
            # The provider cancels in the same moment, so no read can tell what became of the command.
            self.actions.append(Changed(at=self.now, status="cancelled"))
            self.status = "cancelled"
        self.now += timedelta(seconds=40)
        if not is_blind and not is_crossed:
            return True
        if self.happens(habits.RESOLVED):
            self.resolve("applied" if effect.is_applied else "rejected")
        return False

    def resolve(self, resolution: str) -> None:
        """Let an operator decide, some hours later."""
        self.now = self.location.office_hour(self.rng, self.now + self.after(3 * HOUR, 0.9))
        self.actions.append(
            Resolved(
                at=self.now,
                actor=self.user(),
                resolution=resolution,
                reason_code=self.rng.choice(("seen_in_portal", "called_provider")),
            )
        )

    def change(self, status: str, pause: timedelta, *, start: datetime | None = None) -> None:
        """Let the provider change the status at Zocdoc; a webhook tells most of the times, else the nightly sync."""
        at = self.location.office_hour(self.rng, self.now + pause)
        if at >= self.start and status != "confirmed":
            return
        self.now, self.status = at, status
        self.actions.append(Changed(at=at, status=status, start=start))
        if self.happens(habits.WEBHOOK_TELLS):
            self.tell("cancelled" if status == "cancelled" else "updated")
        else:
            self.now = practices.next_sync(at)
        self.now += timedelta(seconds=20)

    def tell(self, update_type: str) -> None:
        """Let a webhook tell, some seconds later."""
        self.now += timedelta(seconds=self.rng.uniform(1, 15))
        self.actions.append(Told(at=self.now, update_type=update_type))

    def before_visit(self) -> datetime | None:
        """Choose an instant between now and the visit, rather later than sooner; None if there is hardly time."""
        left = (self.start - self.now).total_seconds()
        if left < 2 * HOUR:
            return None
        return self.now + timedelta(seconds=left * 0.97 * math.sqrt(self.rng.random()))

    def happens(self, share: float) -> bool:
        """Tell whether something happens that happens in so many cases."""
        return self.rng.random() < share

    def night(self) -> datetime:
        """Give an instant in the next run of the nightly job."""
        at = datetime.combine(self.now.date(), _JOB_AT) + timedelta(seconds=self.rng.uniform(0, 900))
        return at if at > self.now else at + timedelta(days=1)

    def next_job(self) -> datetime:
        """Give the beginning of the next run of the nightly job."""
        at = datetime.combine(self.now.date(), _JOB_AT)
        return at if at > self.now else at + timedelta(days=1)

    def after(self, median: float, spread: float) -> timedelta:
        """Draw a log-normal pause: `median` in seconds, `spread` is the sigma of its logarithm."""
        return timedelta(seconds=median * self.rng.lognormvariate(0, spread))

    def milliseconds(self, trouble: Trouble | None) -> int:
        """Draw how long a call takes."""
        if trouble in SILENCES:
            return 10_000
        return 5 if trouble is Trouble.UNREACHABLE else round(190 * self.rng.lognormvariate(0, 0.45))

    def user(self, other: str | None = None, share: float = 0.0) -> str:
        """Choose somebody of the staff, or in some share of the cases another actor."""
        if other is not None and self.rng.random() < share:
            return other
        return self.rng.choice(self.location.staff)
