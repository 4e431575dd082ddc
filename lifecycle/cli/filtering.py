"""The options that choose audit events: the same for every command that reads the trail."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypedDict, TypeVar

import click

from lifecycle import errors, zocdoc
from lifecycle.cli import words

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from zoneinfo import ZoneInfo

    from lifecycle.reports.filters import Filters

_F = TypeVar("_F", bound="Callable[..., Any]")

EVENTS: Final = (
    "appointment_tracked",
    "appointment_observed",
    "command_refused",
    "command_withdrawn",
    "command_expired",
    "command_accepted",
    "command_requeued",
    "command_resent",
    "command_applied",
    "arrival_marked",
    "command_rejected",
    "command_not_sent",
    "outcome_lost",
    "outcome_checked",
    "attention_needed",
    "command_resolved",
    "command_retried",
    "late_answer_received",
)
COMMANDS: Final = ("confirm", "cancel", "reschedule", "mark_arrived", "mark_no_show")
OUTCOMES: Final = ("applied", "rejected", "not_sent", "unknown", "refused")
SOURCES: Final = ("api", "cli", "webhook", "sync", "recovery", "operator")
"""The words of the trail, written here because to ask the library for them would load it; a test holds them equal.
Applications may have sources of their own."""


class Given(TypedDict):
    """What `options` hands to a command, for `made`."""

    appointment: str | None
    status: str | None
    event: str | None
    command: str | None
    actor: str | None
    source: str | None
    outcome: str | None
    provider_location: str | None
    since: str | None
    until: str | None
    as_of: str | None
    time_zone: str


def options(command: _F) -> _F:
    """Add the options; hand what they collect to `made`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def made(
    *,
    appointment: str | None,
    status: str | None,
    event: str | None,
    command: str | None,
    actor: str | None,
    source: str | None,
    outcome: str | None,
    provider_location: str | None,
    since: str | None,
    until: str | None,
    as_of: str | None,
    time_zone: str,
) -> Filters:
    """Make the filters of what the options collected. Raises `InvalidArgument`; notes on stderr what may be a slip."""
    from lifecycle.reports import filters  # noqa: PLC0415 # loads SQLAlchemy

    _note_unknown(status, source)
    return filters.Filters(
        appointment_id=appointment,
        status=status,
        event=event,
        command=command,
        actor=actor,
        source=source,
        outcome=outcome,
        provider_location_id=provider_location,
        since=instant(since, time_zone, "--since"),
        until=instant(until, time_zone, "--until"),
        as_of=instant(as_of, time_zone, "--as-of"),
    )


def instant(text: str | None, time_zone: str, argument: str) -> datetime | None:
    """Read an instant of the command line, None if it was not given. Raises `InvalidArgument`."""
    from lifecycle.reports import instants  # noqa: PLC0415 # needed when a command runs only

    return None if text is None else instants.read(text, zone=zone(time_zone), argument=argument)


def zone(name: str) -> ZoneInfo:
    """Find the time zone of the command line. Raises `InvalidArgument`."""
    from lifecycle.reports import instants  # noqa: PLC0415 # as above

    return instants.zone(name, argument="--time-zone")


def note_unknown_status(status: str) -> None:
    """Tell if a status is none of Zocdoc's: it may be one that Zocdoc has added, or a slip."""
    from lifecycle import chart  # noqa: PLC0415 # loads the chart

    if status not in chart.STATUSES:
        words.say(f"Note: {status} is none of Zocdoc's statuses: {', '.join(chart.Status)}")


def _note_unknown(status: str | None, source: str | None) -> None:
    if status is not None:
        note_unknown_status(status)
    if source is not None and source not in SOURCES:
        words.say(f"Note: {source} is no source but one of an application of yours: {', '.join(SOURCES)}")


def _checked_id(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    try:
        return None if value is None else zocdoc.check_appointment_id(value)
    except zocdoc.MalformedAppointmentId as error:
        raise errors.InvalidArgument(argument="--appointment", problem=str(error)) from None


time_zone = click.option(
    "--time-zone",
    envvar="LIFECYCLE_TIME_ZONE",
    show_envvar=True,
    default="UTC",
    show_default=True,
    metavar="NAME",
    help="Zone of instants without an offset, such as America/New_York.",
)

_OPTIONS: Final = (
    click.option("--appointment", callback=_checked_id, show_envvar=True, metavar="ID", help="Of this appointment."),
    click.option("--status", show_envvar=True, metavar="STATUS", help="With this status after the event."),
    click.option("--event", type=click.Choice(EVENTS), show_envvar=True, metavar="EVENT", help="Of this kind."),
    click.option("--command", type=click.Choice(COMMANDS), show_envvar=True, help="Of this command."),
    click.option("--actor", show_envvar=True, metavar="NAME", help="Asked for by: user:17, job:nightly."),
    click.option("--source", show_envvar=True, metavar="SOURCE", help=f"Come in by: {', '.join(SOURCES)}."),
    click.option("--outcome", type=click.Choice(OUTCOMES), show_envvar=True, help="With this outcome."),
    click.option(
        "--provider-location",
        show_envvar=True,
        metavar="ID",
        help="Of a visit at this location: Zocdoc's pr_...|lo_...",
    ),
    click.option(
        "--since",
        show_envvar=True,
        metavar="INSTANT",
        help="Recorded at or after: 2026-12-01T09:00:00-05:00; or in --time-zone 2026-12-01T09:00, or 2026-12-01, "
        "which is the first instant of that day.",
    ),
    click.option(
        "--until",
        show_envvar=True,
        metavar="INSTANT",
        help="Recorded before; a date alone: before that day began.",
    ),
    click.option(
        "--as-of",
        show_envvar=True,
        metavar="INSTANT",
        help="As the trail stood then: recorded at or before.",
    ),
    time_zone,
)
