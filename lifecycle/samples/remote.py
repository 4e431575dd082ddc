"""Zocdoc's side of one appointment, for the scribe: what it answers and how the appointment stands there. No HTTP."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from lifecycle import chart, pending, zocdoc
from lifecycle.samples import plans
from lifecycle.samples.chances import uuid_text

if TYPE_CHECKING:
    from random import Random

_LEAST_STEP: Final = timedelta(microseconds=1)
_OK: Final = 200


class Remote:
    """An appointment at Zocdoc; `data` is what a read shows."""

    def __init__(self, plan: plans.Plan, ids: Random) -> None:
        self._ids = ids
        self.data = _BLANK.model_copy(update=_booked(plan))

    def modify(self, now: datetime, **changes: Any) -> None:  # noqa: ANN401 # fields of AppointmentData
        """Change the appointment, and its modification time."""
        before = self.data.last_modified_time_utc
        modified = now if before is None else max(now, before + _LEAST_STEP)
        self.data = self.data.model_copy(update={**changes, "last_modified_time_utc": modified})

    def outcome(self, asked: plans.Asked, now: datetime) -> zocdoc.Outcome:
        """Tell what the call for a command comes to, in trouble or not; what is applied is changed."""
        if asked.trouble is None:
            return self._answer(asked, now)
        effect = plans.EFFECTS[asked.trouble]
        if effect.is_applied:
            self._answer(asked, now)
        request_id = uuid_text(self._ids) if effect.has_request_id else None
        match effect.outcome:
            case "rejected":
                return zocdoc.Rejected(effect.http_status or 0, effect.reason_code, request_id, effect.fields)
            case "not_sent":
                return zocdoc.NotSent(effect.reason_code, effect.http_status, request_id)
            case _:
                return zocdoc.Unknown(effect.reason_code, effect.http_status, request_id)

    def _answer(self, asked: plans.Asked, now: datetime) -> zocdoc.Outcome:
        """Carry a command out, or reject it, as the stand-in would."""
        status, request_id = self.data.appointment_status, uuid_text(self._ids)
        is_move = asked.command == chart.Command.RESCHEDULE
        if status not in chart.TOPOLOGY[asked.command]:
            if is_move:
                return zocdoc.Rejected(400, zocdoc.Reason.BAD_REQUEST, request_id, ("appointment_id",))
            return zocdoc.Rejected(409, zocdoc.Reason.CONFLICT, request_id)
        if is_move:
            self._move(asked, now)
        else:
            target = pending.TARGET_STATUS.get(chart.Command(asked.command), status)
            self.modify(now, appointment_status=str(target))
        return zocdoc.Applied(self.data.appointment_status, _OK, request_id)

    def _move(self, asked: plans.Asked, now: datetime) -> None:
        answer = self.data.appointment_status if asked.answer == plans.UNCHANGED else asked.answer
        start = self.data.start_time if answer == chart.Status.RESCHEDULE_FAILED else asked.start
        self.modify(now, appointment_status=answer, start_time=start)


def _booked(plan: plans.Plan) -> dict[str, Any]:
    return {
        "appointment_id": plan.appointment_id,
        "appointment_status": plan.status,
        "start_time": plan.start,
        "start_time_text": plan.start.isoformat(),
        "provider_location_id": plan.location.provider_location_id,
        "practice_id": plan.location.practice_id,
        "visit_reason_id": plan.visit_reason_id,
        "confirmation_type": plan.confirmation_type,
        "created_time_utc": plan.booked_at,
        "last_modified_time_utc": plan.booked_at,
    }


_BLANK: Final = zocdoc.AppointmentData.model_construct(
    appointment_id="", appointment_status="", start_time=datetime.min.replace(tzinfo=UTC), start_time_text=""
)
"""To be copied, which takes a fifth of the time."""
