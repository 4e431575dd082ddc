"""Commands that read the audit trail: one appointment's story, pages of all events, how things stood then."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Unpack

import click

from lifecycle.cli import filtering, opening, options, output, words
from lifecycle.cli.options import Form

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from zoneinfo import ZoneInfo

    from lifecycle import AuditEvent, Lifecycle
    from lifecycle.reports.filters import Filters

_NOT_FOUND: Final = 4
_LARGEST: Final = 1_000


@click.command()
@options.appointment_id
@click.option("--as-of", show_envvar=True, metavar="INSTANT", help="As the trail stood then: see `audit`.")
@filtering.time_zone
@options.form
@options.database_url
@click.pass_context
def history(
    context: click.Context, appointment_id: str, *, as_of: str | None, time_zone: str, form: Form, database_url: str
) -> None:
    """Tell an appointment's story from its audit events, oldest first.

    The table is for people; the other formats have every column of the events.
    """
    at, zone = filtering.instant(as_of, time_zone, "--as-of"), filtering.zone(time_zone)
    with opening.reading(database_url) as lifecycle:
        found = lifecycle.history(appointment_id, as_of=at)
    if not found:
        words.say(f"{appointment_id} was not tracked yet at {as_of}")
        context.exit(_NOT_FOUND)
    if form is Form.TABLE:
        from lifecycle.cli import timeline  # noqa: PLC0415 # loads rich

        click.echo(timeline.rendered(found, zone=zone, now=at or datetime.now(UTC)), nl=False)
    else:
        output.many(found, kind="AuditEvent", form=form)


@click.command("as-of")
@options.appointment_id
@click.argument("instant")
@filtering.time_zone
@options.form
@options.database_url
@click.pass_context
def as_of(
    context: click.Context, appointment_id: str, instant: str, *, time_zone: str, form: Form, database_url: str
) -> None:
    """Tell how an appointment stood here at INSTANT, such as 2026-12-03T12:00-05:00 or, in --time-zone, 2026-12-03."""
    at = filtering.instant(instant, time_zone, "INSTANT")
    with opening.reading(database_url) as lifecycle:
        found = None if at is None else lifecycle.as_of(appointment_id, at)
    if found is None:
        words.say(f"{appointment_id} was not tracked yet at {instant}")
        context.exit(_NOT_FOUND)
    output.one(found, form=form)


@click.command()
@filtering.options
@click.option(
    "--limit",
    type=click.IntRange(1, _LARGEST),
    default=100,
    show_default=True,
    show_envvar=True,
    metavar="N",
    help="Print so many events, 1 to 1000.",
)
@click.option("--after", show_envvar=True, metavar="CURSOR", help="Go on where a page ended, which told the cursor.")
@click.option(
    "--all",
    "everything",
    is_flag=True,
    envvar="LIFECYCLE_AUDIT_ALL",
    show_envvar=True,
    help="Print all events, without a limit.",
)
@options.form
@options.database_url
def audit(
    *,
    limit: int,
    after: str | None,
    everything: bool,
    form: Form,
    database_url: str,
    **given: Unpack[filtering.Given],
) -> None:
    """Print the audit events that meet all conditions, newest first; no condition looks into text."""
    if everything and after is not None:
        raise click.UsageError("--all begins with the newest event; leave out --after")
    zone = filtering.zone(given["time_zone"])
    filters = filtering.made(**given)
    with opening.reading(database_url) as lifecycle:
        cursor = None
        if everything:
            found: Iterable[AuditEvent] = lifecycle.audit(**filters.given)
        else:
            found, cursor = _page(lifecycle, filters, after, limit)
        output.many(_shown(found, zone) if form is Form.TABLE else found, kind="AuditEvent", form=form)
    if cursor is not None:
        words.say(f"there are more; go on with --after {cursor}")


def _page(
    lifecycle: Lifecycle, filters: Filters, cursor: str | None, limit: int
) -> tuple[list[AuditEvent], str | None]:
    """Fill a page: the library's look through a limited number of events each."""
    found: list[AuditEvent] = []
    while True:
        page = lifecycle.audit_page(cursor=cursor, limit=limit - len(found), **filters.given)
        found += page.events
        cursor = page.next
        if cursor is None or len(found) == limit:
            return found, cursor


def _shown(found: Iterable[AuditEvent], zone: ZoneInfo) -> Iterator[AuditEvent]:
    return (replace(each, recorded_at=each.recorded_at.astimezone(zone)) for each in found)
