"""The door for Zocdoc's webhooks, with what follows from them."""

from __future__ import annotations

import logging
import os
import ssl
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click

from lifecycle import settings
from lifecycle.cli import opening, options, words

_NO_KEYS: Final = (
    f"no webhook keys: set {settings.WEBHOOK_KEYS} (or {settings.WEBHOOK_KEYS}_FILE) to the base64 keys that Zocdoc "
    f"gave for this address, separated by commas"
)
_NO_WEB: Final = "the web server is not installed; pip install 'zocdoc-lifecycle[web]'"

_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, show_envvar=True, help="The address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8080,
    show_default=True,
    show_envvar=True,
    help="The port to listen on; 0 takes a free one.",
)
@click.option("--track-unknown", is_flag=True, show_envvar=True, help="Track appointments that are not tracked yet.")
@click.option(
    "--recover-every",
    type=click.FloatRange(min=1),
    default=60,
    show_default=True,
    show_envvar=True,
    metavar="SECONDS",
    help="Settle commands in doubt every so many seconds.",
)
@click.option(
    "--sync-every",
    type=click.FloatRange(min=1),
    show_default="never",
    show_envvar=True,
    metavar="SECONDS",
    help="Read Zocdoc's list of changes every so many seconds.",
)
@click.option(
    "--body-limit",
    type=click.IntRange(min=1024),
    default=65536,
    show_default=True,
    show_envvar=True,
    metavar="BYTES",
    help="Refuse larger calls.",
)
@click.option("--tls-certificate", type=_FILE, show_envvar=True, help="PEM file with the chain: serve HTTPS.")
@click.option("--tls-key", type=_FILE, show_envvar=True, help="PEM file with the certificate's key.")
@options.database_url
def serve(
    *,
    host: str,
    port: int,
    track_unknown: bool,
    recover_every: float,
    sync_every: float | None,
    body_limit: int,
    tls_certificate: Path | None,
    tls_key: Path | None,
    database_url: str,
) -> None:
    """Receive Zocdoc's webhooks and follow them, until SIGTERM or Ctrl-C.

    POST /webhooks/zocdoc is what to tell Zocdoc; GET /healthz tells how it goes. What cannot be stored is not
    answered, so that Zocdoc delivers it again: whatever stands in front must not answer instead.
    """
    if (tls_certificate is None) != (tls_key is None):
        raise click.UsageError("--tls-certificate and --tls-key belong together: give both, or none.")
    keys = settings.webhook_keys(os.environ)
    if not keys:
        raise settings.SettingsError(_NO_KEYS)
    try:
        from lifecycle import server, serving  # noqa: PLC0415 # only this command needs them
    except ModuleNotFoundError:
        raise settings.SettingsError(_NO_WEB) from None
    with opening.opened(database_url, webhook_keys=keys) as lifecycle:
        lifecycle.waiting_deliveries()  # a wrong database is told now, not at the first call
        _log_to_stderr()
        app = server.create_app(
            lifecycle,
            track_unknown=track_unknown,
            recover_every=recover_every,
            sync_every=sync_every,
            body_limit=body_limit,
        )
        scheme = "http" if tls_certificate is None else "https"
        try:
            serving.serve(
                app,
                host=host,
                port=port,
                certificate=tls_certificate,
                key=tls_key,
                announce=lambda taken: words.say(f"listening on {scheme}://{host}:{taken}{server.PATH}"),
            )
        except ssl.SSLError:
            problem = "--tls-certificate and --tls-key: not a certificate and its key, in PEM files without a password"
            raise settings.SettingsError(problem) from None
        except OSError as error:
            raise click.ClickException(f"cannot listen on {host} port {port}: {error.strerror}") from None


class _Line(logging.Formatter):
    """Time, level, event word, and the facts as name=value: codes, numbers and names of types, nothing that came in."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        facts = [f"{name}={value}" for name, value in vars(record).items() if name not in _OF_EVERY_RECORD]
        return words.printable(" ".join([at, record.levelname.lower(), record.getMessage(), *facts]))


_OF_EVERY_RECORD: Final = {*vars(logging.makeLogRecord({})), "message", "color_message", "taskName"}


def _log_to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Line())
    for name, level in (("lifecycle", logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.setLevel(level)
