"""Commands that only read: the database, or the chart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from lifecycle.cli import filtering, opening, options, output, words

if TYPE_CHECKING:
    from lifecycle.cli.options import Form

_COMMANDS: Final = {"arrived": "mark_arrived", "no-show": "mark_no_show"}
"""The names of this command line that differ from the library's."""


@click.command()
@options.appointment_id
@options.form
@options.database_url
def show(appointment_id: str, *, form: Form, database_url: str) -> None:
    """Show one tracked appointment."""
    with opening.reading(database_url) as lifecycle:
        output.one(lifecycle.get(appointment_id), form=form)


@click.command("list")
@click.option("--status", show_envvar=True, metavar="STATUS", help="Only appointments in this status.")
@click.option("--in-doubt/--not-in-doubt", default=None, show_envvar=True, help="Only those in doubt, or the others.")
@options.form
@options.database_url
def list_(*, status: str | None, in_doubt: bool | None, form: Form, database_url: str) -> None:
    """List the tracked appointments by id."""
    with opening.reading(database_url) as lifecycle:
        output.many(lifecycle.appointments(status=status, in_doubt=in_doubt), kind="Appointment", form=form)
    if status is not None:
        filtering.note_unknown_status(status)


@click.command()
@options.appointment_id
@click.argument("command")
@click.option("--start-time", show_envvar=True, metavar="ISO", help="The new start that a reschedule would ask for.")
@options.form
@options.database_url
def explain(appointment_id: str, command: str, *, start_time: str | None, form: Form, database_url: str) -> None:
    """Tell for each check whether COMMAND would pass now, and by which rule. Calls nobody.

    COMMAND is confirm, cancel, reschedule, arrived or no-show. The credential check needs the settings of Zocdoc.
    """
    with opening.opened(database_url, needs_zocdoc=False) as lifecycle:
        answers = lifecycle.explain(appointment_id, _COMMANDS.get(command, command), start_time=start_time)
    output.many(answers, kind="Explanation", form=form)
    failed = [answer.code for answer in answers if answer.required and answer.code is not None]
    words.say(f"{command} would be refused: {', '.join(failed)}" if failed else f"{command} would pass")
    if not opening.has_zocdoc():
        words.say("Note: without the settings of Zocdoc there is no credential to judge")


@click.command()
@click.option(
    "--kind",
    type=click.Choice(["picture", "table", "moves"]),
    default="picture",
    show_default=True,
    show_envvar=True,
    help="The commands as a Mermaid diagram or a Markdown table, or Zocdoc's own moves as a table.",
)
def diagram(*, kind: str) -> None:
    """Print the state chart as text for documents."""
    from lifecycle import diagram as texts  # noqa: PLC0415 # loads the chart

    click.echo(texts.KINDS[kind](), nl=False)
