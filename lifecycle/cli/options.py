"""Options that several commands share, and what click cannot check by itself."""

from __future__ import annotations

import getpass
import os
import re
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
from click.core import ParameterSource

from lifecycle import errors, settings, zocdoc

if TYPE_CHECKING:
    from collections.abc import Callable

_F = TypeVar("_F", bound="Callable[..., Any]")

_PASSWORD: Final = re.compile(r"://[^/@]*:[^/@]+@|[?&]password=", re.IGNORECASE)


class Form(StrEnum):
    """How data is printed."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"


def _checked_id(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
    try:
        return zocdoc.check_appointment_id(value)
    except zocdoc.MalformedAppointmentId as error:
        raise errors.InvalidArgument(argument="ID", problem=str(error)) from None


def _url(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """Leave the environment and the default to `settings`, which also knows the file that may hold the URL."""
    if ctx.get_parameter_source(param.name or "") is not ParameterSource.COMMANDLINE:
        return settings.database_url(os.environ)
    _refuse_password(value, f"{settings.DATABASE_URL} or {settings.DATABASE_URL}_FILE")
    return value


def checked_url(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Accept a URL that is not the product's own database, from the command line without a password."""
    if value is not None and ctx.get_parameter_source(param.name or "") is ParameterSource.COMMANDLINE:
        _refuse_password(value, f"{ctx.auto_envvar_prefix}_{(param.name or '').upper()}")
    return value


def _refuse_password(url: str, variable: str) -> None:
    if _PASSWORD.search(url):
        problem = "a password on the command line is seen by every user of this machine"
        raise settings.SettingsError(f"{problem}; set {variable} instead")


def _login() -> str:
    try:
        return f"user:{getpass.getuser()}"
    except (KeyError, OSError):  # no such user in this container
        return f"user:{os.getuid()}"


appointment_id = click.argument("appointment_id", metavar="ID", callback=_checked_id)

database_url = click.option(
    "--database-url",
    envvar=settings.DATABASE_URL,
    show_envvar=True,
    default=settings.DEFAULT_DATABASE_URL,
    show_default=True,
    callback=_url,
    metavar="URL",
    help="SQLAlchemy URL of the database; one with a password only by the variable.",
)

actor = click.option(
    "--actor",
    envvar="LIFECYCLE_ACTOR",
    show_envvar=True,
    default=_login,
    show_default="user: and your login name",
    metavar="NAME",
    help="Who asks, for the audit trail: user:17, job:nightly.",
)

request_key = click.option(
    "--request-key",
    envvar="LIFECYCLE_REQUEST_KEY",
    show_envvar=True,
    metavar="KEY",
    help="Your own key of this wish: the same call again gives the first outcome instead of acting twice.",
)

dispatch = click.option(
    "--dispatch",
    envvar=settings.DISPATCH,
    show_envvar=True,
    type=click.Choice(settings.DISPATCHES),
    default=settings.INLINE,
    show_default=True,
    help="Who carries submitted commands out: this process, or workers that PostgreSQL wakes by Procrastinate.",
)

concurrency = click.option(
    "--concurrency",
    type=click.IntRange(1, 128),
    default=8,
    show_default=True,
    show_envvar=True,
    metavar="N",
    help="Calls to Zocdoc at the same time, as far as this process makes them.",
)

settle_for = click.option(
    "--settle-for",
    type=click.FloatRange(min=0),
    default=60,
    show_default=True,
    show_envvar=True,
    metavar="SECONDS",
    help="Stay so long for what is in doubt, when nothing else is left.",
)

form = click.option(
    "--format",
    "form",
    envvar="LIFECYCLE_FORMAT",
    show_envvar=True,
    type=click.Choice(Form, case_sensitive=False),
    default=Form.TABLE,
    show_default=True,
    help="How the data on stdout is written.",
)

optional_form = click.option(
    "--format",
    "form",
    envvar="LIFECYCLE_FORMAT",
    show_envvar=True,
    type=click.Choice(Form, case_sensitive=False),
    help="Write the record to stdout too; without it there are words on stderr only.",
)


def writing(command: _F) -> _F:
    """Add the options of every command that acts: who asks, by which key, on which database."""
    for option in (database_url, optional_form, request_key, actor):
        command = option(command)
    return command
