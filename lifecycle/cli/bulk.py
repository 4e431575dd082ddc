"""`lifecycle bulk`: one command on many appointments. The declarations; what they do is in `bulking`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, Unpack

import click

from lifecycle.cli import filtering, options

if TYPE_CHECKING:
    from collections.abc import Callable

    from lifecycle.cli.bulking import Asked, Listed

_F = TypeVar("_F", bound="Callable[..., Any]")

_OPTIONS = (
    filtering.time_zone,
    click.option(
        "--file",
        type=click.Path(exists=True, dir_okay=False, allow_dash=True),
        show_envvar=True,
        metavar="FILE",
        help="A wish a row, .csv or .jsonl, with the column appointment_id, and if need be request_key, expires_at and "
        "those that are named above. - is stdin.",
    ),
    click.option(
        "--input-format",
        type=click.Choice(["csv", "jsonl"]),
        show_envvar=True,
        help="How --file is written, if its name does not tell.",
    ),
    click.option("--dry-run", is_flag=True, show_envvar=True, help="Print what would become of each row, and end."),
    click.option("--yes", is_flag=True, show_envvar=True, help="Do not ask."),
    click.option(
        "--again",
        is_flag=True,
        show_envvar=True,
        help="Begin anew, though the same was carried out or begun before. Cut off, go on without it.",
    ),
    click.option("--name", show_envvar=True, metavar="NAME", help="What to call the batch; no patient's name."),
    click.option(
        "--expires-at", show_envvar=True, metavar="INSTANT", help="What was not sent by then is not sent any more."
    ),
    click.option(
        "--expires-in", type=click.FloatRange(min=0.1), show_envvar=True, metavar="MINUTES", help="The same, from now."
    ),
    click.option(
        "--wait/--no-wait",
        default=True,
        show_default=True,
        show_envvar=True,
        help="Stay until all is carried out, or leave it to workers.",
    ),
    options.concurrency,
    options.settle_for,
    click.option(
        "--result",
        type=click.Path(dir_okay=False),
        show_envvar=True,
        show_default="BATCH_ID.results.csv",
        metavar="FILE",
        help="What became of each row, as CSV; replaced if it is there.",
    ),
    options.actor,
    options.form,
    options.database_url,
)


_where = click.option(
    "--where",
    multiple=True,
    show_envvar=True,
    metavar="CONDITION",
    help="Instead of a file: tracked appointments that meet all conditions, such as status=confirmed, "
    "provider_location_id=pr_1|lo_1, 'start_time>=2026-12-01'. Of several = on one field one must hold.",
)


def _bulky(command: _F) -> _F:
    """Add the options of a bulk command whose appointments a file tells, or conditions."""
    return _where(_listed(command))


def _listed(command: _F) -> _F:
    """Add the options of a bulk command whose appointments a file tells."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.group()
def bulk() -> None:
    """Carry out one command on many appointments: shows what would happen, asks, runs, writes what came of each.

    A run that was cut off, by Ctrl-C or by a crash, is gone on with by the same command again: nothing is sent twice.
    """


@bulk.command()
@_bulky
def confirm(**asked: Unpack[Asked]) -> None:
    """Confirm bookings. No further columns."""
    _run("confirm", {}, asked)


@bulk.command()
@click.option(
    "--reason-type",
    show_envvar=True,
    metavar="TYPE",
    help="One of Zocdoc's cancellation_reason_type, for rows that have none.",
)
@click.option(
    "--reason", show_envvar=True, metavar="TEXT", help="Free text, for rows that have none; counts as patient data."
)
@_bulky
def cancel(*, reason_type: str | None, reason: str | None, **asked: Unpack[Asked]) -> None:
    """Cancel appointments. Further columns: reason_type and reason."""
    _run("cancel", {"reason_type": reason_type, "reason": reason}, asked)


@bulk.command()
@_listed
def reschedule(**asked: Unpack[Listed]) -> None:
    """Ask for other start times. Further column: start_time, ISO 8601 with an offset; it is sent word for word."""
    _run("reschedule", {}, {**asked, "where": ()})


@bulk.command()
@_bulky
def arrived(**asked: Unpack[Asked]) -> None:
    """Tell Zocdoc that patients have arrived. No further columns."""
    _run("mark_arrived", {}, asked)


@bulk.command("no-show")
@_bulky
def no_show(**asked: Unpack[Asked]) -> None:
    """Tell Zocdoc that patients did not come. No further columns."""
    _run("mark_no_show", {}, asked)


def _run(command: str, defaults: dict[str, str | None], asked: Asked) -> None:
    from lifecycle.cli import bulking  # noqa: PLC0415 # loads the library

    given = {name: value for name, value in defaults.items() if value is not None}
    click.get_current_context().exit(bulking.run(command, given, asked))
