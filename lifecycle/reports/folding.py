"""From counted steps to figures. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import UTC, date, timedelta
from typing import TYPE_CHECKING, Final

from lifecycle import chart
from lifecycle.reports import facts, lookups, quantiles

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from lifecycle.reports.filters import Filters
    from lifecycle.reports.quantiles import Spread
    from lifecycle.reports.tallies import Move, Step

CONFIRMATION_EDGES: Final = (900.0, 3600.0, 14400.0, 43200.0, 86400.0, 172800.0, 345600.0, 604800.0)
"""Upper ends of the classes of the time to confirm, in seconds: a quarter of an hour to a week."""

COUNTED_STATUSES: Final = ("cancelled", "no_show")
"""The statuses of which the headline counts how many appointments came to them."""

_KINDS: Final[Mapping[tuple[str, str | None], tuple[str, ...]]] = {
    ("appointment_tracked", None): ("tracked",),
    ("command_accepted", None): ("accepted",),
    ("command_applied", None): ("applied",),
    ("arrival_marked", None): ("applied", "arrivals"),
    ("command_refused", None): ("refused",),
    ("command_rejected", None): ("rejected",),
    ("command_not_sent", None): ("not_sent",),
    ("command_resolved", "applied"): ("applied",),
    ("command_resolved", "rejected"): ("rejected",),
    ("outcome_lost", None): ("answers_lost",),
}
"""What an event counts as; of a command that a human settled, the outcome decides."""


def monday(day: date) -> date:
    """Give the Monday of a day's week."""
    return day - timedelta(days=day.weekday())


def weeks(chosen: Filters, steps: Iterable[Step]) -> tuple[date, ...]:
    """List the Mondays of the window, UTC, without gaps; of a window without a beginning, from the first event."""
    first = chosen.since.astimezone(UTC).date() if chosen.since else min((step.day for step in steps), default=None)
    if first is None or chosen.until is None:
        return ()
    last = max(first, (chosen.until.astimezone(UTC) - timedelta(microseconds=1)).date())
    number = (monday(last) - monday(first)).days // 7 + 1
    return tuple(monday(first) + timedelta(weeks=each) for each in range(number))


def kinds(steps: Mapping[Step, int]) -> Counter[str]:
    """Count what the events count as: tracked, accepted, applied, ..."""
    counts: Counter[tuple[str, str | None]] = Counter()
    for step, number in steps.items():
        counts[step.event, step.resolution] += number
    return kinds_of(counts)


def kinds_of(counts: Mapping[tuple[str, str | None], int]) -> Counter[str]:
    """Do as `kinds`, for counts by event and, for `command_resolved`, outcome."""
    found: Counter[str] = Counter()
    for key, number in counts.items():
        for kind in _KINDS.get(key, ()):
            found[kind] += number
    return found


def entered(steps: Mapping[Step, int]) -> Counter[str]:
    """Count for each status how many appointments came to it from another one."""
    found: Counter[str] = Counter()
    for step, number in steps.items():
        if _enters(step):
            found[step.to_status] += number
    return found


def entries(steps: Mapping[Step, int]) -> dict[str, int]:
    """Count for each status how many appointments were tracked in it."""
    found: Counter[str] = Counter()
    for step, number in steps.items():
        if step.from_status is None:
            found[step.to_status] += number
    return dict(found.most_common())


def headline(kinds: Mapping[str, int], entered: Mapping[str, int], lost: Mapping[str, int]) -> facts.Headline:
    """Put the headline together from counts by kind, by status, and by fate of the commands that lost an answer."""
    return facts.Headline(
        **{name: kinds.get(name, 0) for name in _HEADLINE_KINDS},
        lost=sum(lost.values()),
        recovered=lost.get(lookups.RECOVERED, 0),
        cancelled=entered.get("cancelled", 0),
        no_shows=entered.get("no_show", 0),
    )


def by_week(steps: Mapping[Step, int], weeks: Iterable[date]) -> tuple[facts.Week, ...]:
    """Count by week; a week without events has zeros."""
    found: dict[date, dict[Step, int]] = {week: {} for week in weeks}
    for step, number in steps.items():
        found.setdefault(monday(step.day), {})[step] = number
    return tuple(_week(week, found[week]) for week in sorted(found))


def transitions(moves: Mapping[Move, Spread]) -> tuple[facts.Transition, ...]:
    """List the kinds of moves, the most frequent first."""
    made = [
        facts.Transition(
            from_status=move.from_status,
            to_status=move.to_status,
            command=move.command,
            conforming=move.conforming,
            count=stood.count,
            median_seconds=stood.median or 0.0,
            p90_seconds=stood.p90 or 0.0,
        )
        for move, stood in moves.items()
    ]
    return tuple(sorted(made, key=lambda it: (-it.count, it.from_status, it.to_status, it.command or "")))


def confirmations(found: Iterable[tuple[date, float]], weeks: Iterable[date]) -> facts.Confirmations:
    """Tell how long confirmations took, in all, by class and by week; `found` has the day and the seconds of each."""
    each_week: defaultdict[date, list[float]] = defaultdict(list, {week: [] for week in weeks})
    for day, seconds in found:
        each_week[monday(day)].append(seconds)
    everything = sorted(seconds for numbers in each_week.values() for seconds in numbers)
    return facts.Confirmations(
        seconds=quantiles.spread(everything),
        classes=quantiles.bins(everything, CONFIRMATION_EDGES),
        weeks=tuple(
            facts.WeekOfConfirmations(week=week, seconds=quantiles.spread(each_week[week]))
            for week in sorted(each_week)
        ),
    )


def cancellations(steps: Mapping[Step, int]) -> tuple[facts.Cancellations, ...]:
    """Count cancellations by week, reason type and who did it."""
    found: Counter[tuple[date, str | None, str]] = Counter()
    for step, number in steps.items():
        if _enters(step) and step.to_status == "cancelled":
            by = facts.PROVIDER if step.command is None else facts.OURS
            found[monday(step.day), step.why, by] += number
    made = [
        facts.Cancellations(week=week, reason_type=reason, by=by, count=number)
        for (week, reason, by), number in found.items()
    ]
    return tuple(sorted(made, key=lambda it: (it.week, it.reason_type or "", it.by)))


def refusals(steps: Mapping[Step, int]) -> tuple[facts.Refusal, ...]:
    """Count what was tried and not done, the most frequent first."""
    found: Counter[tuple[str, str, str, str | None]] = Counter()
    for step, number in steps.items():
        if step.event in _REFUSED_BY:
            key = (str(step.command), str(step.from_status), _REFUSED_BY[step.event], step.why)
            found[key] += number
    made = [
        facts.Refusal(command=command, status=status, refused_by=by, reason_code=reason, tries=number)
        for (command, status, by, reason), number in found.items()
    ]
    return tuple(sorted(made, key=lambda it: (-it.tries, it.command, it.status, it.refused_by, it.reason_code or "")))


def outcomes(
    steps: Mapping[Step, int], calls: Mapping[str, Spread], lost: Mapping[str, Mapping[str, int]]
) -> tuple[facts.CommandOutcomes, ...]:
    """Tell what became of each command: `calls` tells how long its calls took, `lost` counts those without an answer.

    `lost` is by command and by what became of them until now.
    """
    found: defaultdict[str, dict[Step, int]] = defaultdict(dict)
    for step, number in steps.items():
        if step.command is not None:
            found[step.command][step] = number
    names = [str(command) for command in chart.Command]
    named = [name for name in names if name in found or name in lost]
    others = sorted((found.keys() | lost.keys()) - set(names))
    return tuple(_outcomes(name, found[name], lost.get(name, {}), calls.get(name)) for name in (*named, *others))


def _outcomes(
    command: str, steps: Mapping[Step, int], lost: Mapping[str, int], calls: Spread | None
) -> facts.CommandOutcomes:
    counts = kinds(steps)
    return facts.CommandOutcomes(
        command=command,
        **{name: counts[name] for name in ("accepted", "applied", "rejected", "not_sent", "refused")},
        lost=sum(lost.values()),
        **{
            fate: lost.get(fate, 0)
            for fate in (lookups.RECOVERED, lookups.RESOLVED, lookups.WAITING, lookups.ATTENTION)
        },
        call_ms=calls or quantiles.spread(()),
    )


def _week(week: date, steps: Mapping[Step, int]) -> facts.Week:
    counts, statuses = kinds(steps), entered(steps)
    return facts.Week(
        week=week,
        **{name: counts[name] for name in ("tracked", "applied", "refused", "rejected", "answers_lost")},
        cancelled=statuses["cancelled"],
        no_shows=statuses["no_show"],
    )


def _enters(step: Step) -> bool:
    """Tell whether an appointment that was tracked before came to another status."""
    return step.from_status is not None and step.from_status != step.to_status


_HEADLINE_KINDS: Final = ("tracked", "accepted", "applied", "refused", "rejected", "not_sent", "arrivals")
_REFUSED_BY: Final = {"command_refused": "guard", "command_rejected": "zocdoc"}
