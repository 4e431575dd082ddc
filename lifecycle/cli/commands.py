"""Commands that change something: at Zocdoc, or in the database by reading from Zocdoc."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, TypedDict, Unpack

import click

from lifecycle import errors
from lifecycle.cli import opening, options, output, words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lifecycle import Lifecycle
    from lifecycle.cli.options import Form
    from lifecycle.outcomes import Done

_IN_DOUBT = (
    "The command may have reached Zocdoc: its outcome may be in doubt. "
    "Do not repeat it; `lifecycle show ID` tells, `lifecycle recover` settles it."
)


class Asked(TypedDict):
    """The options of every command that acts."""

    actor: str
    request_key: str | None
    form: Form | None
    database_url: str


@click.command()
@options.appointment_id
@click.option(
    "--booked-with",
    default="machine",
    show_default=True,
    show_envvar=True,
    metavar="machine|user:ID",
    help="Whose credential booked it; Zocdoc lets only such a credential read or change it.",
)
@options.actor
@options.optional_form
@options.database_url
def track(appointment_id: str, *, booked_with: str, actor: str, form: Form | None, database_url: str) -> None:
    """Read an appointment from Zocdoc and persist it; again: record what has changed there."""
    with opening.opened(database_url) as lifecycle:
        appointment = lifecycle.track(appointment_id, actor=actor, booked_with=booked_with)
    words.say(f"tracking appointment {appointment.appointment_id}: {appointment.status}")
    if form is not None:
        output.one(appointment, form=form)


@click.command()
@options.appointment_id
@options.writing
def confirm(appointment_id: str, **asked: Unpack[Asked]) -> None:
    """Confirm a booking. Zocdoc allows it from pending_booking."""
    with _acting(asked["database_url"]) as lifecycle:
        done = lifecycle.confirm(appointment_id, actor=asked["actor"], request_key=asked["request_key"])
    _print(done, asked["form"])


@click.command()
@options.appointment_id
@click.option("--reason-type", show_envvar=True, metavar="TYPE", help="One of Zocdoc's cancellation_reason_type.")
@click.option("--reason", show_envvar=True, metavar="TEXT", help="Free text; counts as patient data.")
@options.writing
def cancel(appointment_id: str, *, reason_type: str | None, reason: str | None, **asked: Unpack[Asked]) -> None:
    """Cancel an appointment."""
    with _acting(asked["database_url"]) as lifecycle:
        done = lifecycle.cancel(
            appointment_id,
            actor=asked["actor"],
            request_key=asked["request_key"],
            reason_type=reason_type,
            reason=reason,
        )
    _print(done, asked["form"])


@click.command()
@options.appointment_id
@click.option(
    "--start-time",
    required=True,
    show_envvar=True,
    metavar="ISO",
    help="The new start with its offset, such as 2026-12-01T09:00:00-05:00; sent word for word.",
)
@options.writing
def reschedule(appointment_id: str, *, start_time: str, **asked: Unpack[Asked]) -> None:
    """Ask for another start time."""
    with _acting(asked["database_url"], start_time=start_time) as lifecycle:
        done = lifecycle.reschedule(
            appointment_id, actor=asked["actor"], request_key=asked["request_key"], start_time=start_time
        )
    _print(done, asked["form"])


@click.command()
@options.appointment_id
@options.writing
def arrived(appointment_id: str, **asked: Unpack[Asked]) -> None:
    """Tell Zocdoc that the patient has arrived."""
    with _acting(asked["database_url"]) as lifecycle:
        done = lifecycle.mark_arrived(appointment_id, actor=asked["actor"], request_key=asked["request_key"])
    _print(done, asked["form"])


@click.command("no-show")
@options.appointment_id
@options.writing
def no_show(appointment_id: str, **asked: Unpack[Asked]) -> None:
    """Tell Zocdoc that the patient did not come: within 2 days after the start."""
    with _acting(asked["database_url"]) as lifecycle:
        done = lifecycle.mark_no_show(appointment_id, actor=asked["actor"], request_key=asked["request_key"])
    _print(done, asked["form"])


@contextmanager
def _acting(database_url: str, *, start_time: str | None = None) -> Iterator[Lifecycle]:
    """Open the library for one command, and put to its errors what the reader needs to know beside them."""
    with opening.opened(database_url) as lifecycle:
        try:
            yield lifecycle
        except errors.TransitionRefused as refusal:
            for answer in lifecycle.explain(refusal.appointment_id, refusal.command, start_time=start_time):
                if answer.code in refusal.reasons:
                    refusal.add_note(f"  {answer.code}: {answer.rule}")
            raise
        except KeyboardInterrupt as interrupt:
            interrupt.add_note(_IN_DOUBT)
            raise


def _print(done: Done, form: Form | None) -> None:
    words.say(*words.done(done))
    if form is not None:
        output.one(done, form=form)
