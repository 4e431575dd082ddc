"""`lifecycle`: the group of all commands, and the boundary where every error becomes one line and an exit code."""

from __future__ import annotations

import io
import sys
from typing import Any, Final

import click

from lifecycle import errors, settings
from lifecycle.cli import (
    auditing,
    batches,
    bulk,
    commands,
    database,
    demo,
    dictionary,
    doctor,
    events,
    exporting,
    figures,
    inbox,
    operators,
    readers,
    reconciling,
    sandbox,
    serve,
    trust,
    words,
    worker,
)

FAILURE: Final = 1
USAGE: Final = 2
REFUSED: Final = 3
NOT_FOUND: Final = 4
REMOTE: Final = 5
INTERRUPTED: Final = 130

_EXIT_CODES: Final[dict[type[Exception], int]] = {
    errors.InvalidArgument: USAGE,
    errors.ConfigurationError: USAGE,
    settings.SettingsError: USAGE,
    errors.TransitionRefused: REFUSED,
    errors.CredentialNotAllowed: REFUSED,
    errors.RequestKeyReused: REFUSED,
    errors.AppointmentNotFound: NOT_FOUND,
    errors.BatchNotFound: NOT_FOUND,
    errors.CommandNotFound: NOT_FOUND,
    errors.NothingToResolve: NOT_FOUND,
    errors.NothingToRetry: NOT_FOUND,
    errors.CommandNotFound: NOT_FOUND,
    errors.BatchNotFound: NOT_FOUND,
    errors.NotSent: REMOTE,
    errors.OutcomeUnknown: REMOTE,
    errors.ReadFailed: REMOTE,
    errors.SyncFailed: REMOTE,
    errors.CommandRejected: REMOTE,
}
_HINTS: Final[dict[type[Exception], str]] = {
    errors.CredentialNotAllowed: f": set {settings.ZOCDOC}IDENTITY and that credential",
    errors.SchemaMismatch: f" ({settings.DATABASE_URL} or --database-url says which database)",
}
"""What the library's text cannot know: how the command line is told."""


class Boundary(click.Group):
    """A group that lets no traceback through. click itself ends with usage errors, so those pass."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 # click's own signature
        """Keep the order in which the commands were added."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 # click's own signature
        """Run the command; whatever it raises ends as words on stderr and an exit code."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except BrokenPipeError:
            words.drop(sys.stdout)
            ctx.exit(0)
        except KeyboardInterrupt as interrupt:
            words.say("Interrupted.", *_notes(interrupt))
            ctx.exit(INTERRUPTED)
        except Exception as error:  # noqa: BLE001 # the boundary
            _print_traceback(error, wanted=ctx.params["debug"])
            words.say(f"Error: {_text(error)}", *_notes(error))
            ctx.exit(_exit_code(error))
        return result


@click.group(
    cls=Boundary,
    context_settings={
        "auto_envvar_prefix": "LIFECYCLE",
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
    },
    epilog=f"""
    \b
    Settings from the environment alone; no secret is an option. Each variable with a * may
    instead name a file that holds the value, as NAME_FILE.
      {settings.DATABASE_URL} *         by default {settings.DEFAULT_DATABASE_URL}
      {settings.ZOCDOC}ENVIRONMENT      sandbox or production; or, instead of it,
      {settings.ZOCDOC}BASE_URL         with _TOKEN_URL and _AUDIENCE
      {settings.ZOCDOC}CLIENT_ID        with
      {settings.ZOCDOC}CLIENT_SECRET *  or, instead of both,
      {settings.ZOCDOC}ACCESS_TOKEN *
      {settings.ZOCDOC}IDENTITY         whose credential that is: machine (default) or user:ID
      {settings.ZOCDOC}RATE             requests that all processes send together: 20/s, 600/min, 10000/h
      {settings.DISPATCH}                who carries submitted commands out: inline (default) or
                                        procrastinate
      {settings.WEBHOOK_KEYS} *         Zocdoc's base64 keys of webhooks, separated by commas
      {settings.PAGE_TOKEN} *           what opens the page of lifecycle serve to others
      {settings.TELEMETRY}               log (default) or otel, which tells OpenTelemetry
      {settings.CHECKPOINT_KEY} *       hex key of checkpoints, 32 bytes or more

    \b
    Exit codes: 0 done, 1 failure, 2 usage or settings, 3 refused, 4 not found,
    5 remote failure or unknown outcome, 6 audit trail broken, 7 drift was found,
    8 doctor found something wrong, 9 not all of a batch was applied, 130 interrupted.
    """,
)
@click.option("--debug", is_flag=True, show_envvar=True, help="Print the traceback of an error.")
@click.version_option(package_name="zocdoc-lifecycle", prog_name="lifecycle", allow_from_autoenv=False)
def root(*, debug: bool) -> None:
    """Guarded, durable, audited appointment transitions for Zocdoc's developer API.

    Begin with `lifecycle demo`: it needs no account and no network.
    """
    del debug  # The boundary reads it.


for command in (
    demo.demo,
    database.db,
    doctor.doctor,
    commands.track,
    commands.confirm,
    commands.cancel,
    commands.reschedule,
    commands.arrived,
    commands.no_show,
    bulk.bulk,
    batches.batches,
    batches.batch,
    operators.recover,
    operators.attention,
    operators.resolve,
    reconciling.sync,
    reconciling.drift,
    inbox.inbox,
    readers.show,
    readers.list_,
    auditing.history,
    auditing.as_of,
    auditing.audit,
    figures.stats,
    figures.report,
    events.events,
    trust.verify,
    trust.checkpoint,
    exporting.export,
    readers.explain,
    readers.diagram,
    dictionary.schema,
    serve.serve,
    worker.worker,
    sandbox.sandbox,
):
    root.add_command(command)


def run() -> None:
    """Run the command line of this process and exit."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that this terminal cannot show is no failure
    root(prog_name="lifecycle")


def _exit_code(error: Exception) -> int:
    return next((code for kind, code in _EXIT_CODES.items() if isinstance(error, kind)), FAILURE)


def _text(error: Exception) -> str:
    if isinstance(error, errors.LifecycleError | settings.SettingsError):
        return f"{error}{_HINTS.get(type(error), '')}"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    # Not the text: nobody knows whether it quotes a patient.
    return f"unexpected {type(error).__name__}; set LIFECYCLE_DEBUG=1 to see the traceback"


def _notes(error: BaseException) -> list[str]:
    return list(getattr(error, "__notes__", ()))


def _print_traceback(error: Exception, *, wanted: bool) -> None:
    if wanted:
        import traceback  # noqa: PLC0415 # rarely needed

        traceback.print_exception(error)
