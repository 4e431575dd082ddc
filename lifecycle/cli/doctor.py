"""`lifecycle doctor`: what is wrong with this installation, and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from lifecycle import errors, settings
from lifecycle.cli import opening, options, output, words

if TYPE_CHECKING:
    from lifecycle import Diagnosis
    from lifecycle.cli.options import Form

WRONG: Final = 8
"""The exit code when something does not work."""


@click.command()
@click.option("--offline", is_flag=True, show_envvar=True, help="Do not ask Zocdoc for a token.")
@options.form
@options.database_url
@click.pass_context
def doctor(ctx: click.Context, *, offline: bool, form: Form, database_url: str) -> None:
    """Check database, recovery, inbox, clocks and credentials, and say what to do; ends with 8 if anything is wrong.

    Reads only. Asks Zocdoc for one token, unless --offline. Warnings and advice do not change the exit code.
    """
    found = _examine(database_url, online=not offline)
    output.many(found.checks, kind="Check", form=form)
    words.say(words.diagnosed(found))
    ctx.exit(0 if found.is_well else WRONG)


def _examine(database_url: str, *, online: bool) -> Diagnosis:
    """Look at everything; settings that cannot be used are a finding like any other."""
    from lifecycle.doctor import checks, diagnosis  # noqa: PLC0415 # loads SQLAlchemy

    try:
        try:
            with opening.opened(database_url, needs_zocdoc=False) as lifecycle:
                return lifecycle.diagnose(online=online)
        except settings.SettingsError as error:
            broken = checks.found("settings", checks.Severity.ERROR, str(error), "correct that setting")
        with opening.reading(database_url) as lifecycle:
            return diagnosis.Diagnosis(checks=(broken, *lifecycle.diagnose(online=False).checks))
    except errors.ConfigurationError as error:
        broken = checks.found("database", checks.Severity.ERROR, error.problem, f"correct {settings.DATABASE_URL}")
        return diagnosis.Diagnosis(checks=(broken,))
