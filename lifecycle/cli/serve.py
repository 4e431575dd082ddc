"""The door for Zocdoc's webhooks, with what follows from them, and the page for analysts."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from lifecycle import settings
from lifecycle.cli import filtering, logs, opening, options, words

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.applications import Starlette

_NO_KEYS: Final = (
    f"no webhook keys: set {settings.WEBHOOK_KEYS} (or {settings.WEBHOOK_KEYS}_FILE) to the base64 keys that Zocdoc "
    f"gave for this address, separated by commas"
)
_NO_TOKEN: Final = (
    f"others can reach this address, so it needs a token: set {settings.PAGE_TOKEN} (or {settings.PAGE_TOKEN}_FILE) to "
    f"at least 32 characters"
)
_READABLE: Final = "warning: without --tls-certificate the page's token crosses the network readably"
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
@click.option("--page-only", is_flag=True, show_envvar=True, help="Serve the analysts' page alone: no keys, no Zocdoc.")
@click.option("--no-page", is_flag=True, show_envvar=True, help="Serve the door without the analysts' page.")
@filtering.time_zone
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
    page_only: bool,
    no_page: bool,
    time_zone: str,
    database_url: str,
) -> None:
    """Receive Zocdoc's webhooks and follow them, and show analysts the trail, until SIGTERM or Ctrl-C.

    POST /webhooks/zocdoc is what to tell Zocdoc; GET /healthz tells how it goes. What cannot be stored is not
    answered, so that Zocdoc delivers it again: whatever stands in front must not answer instead.

    / is a page for people: figures, events, each appointment's story. It only reads. On an address that others can
    reach it is served only with a token, LIFECYCLE_PAGE_TOKEN (or _FILE).
    """
    if (tls_certificate is None) != (tls_key is None):
        raise click.UsageError("--tls-certificate and --tls-key belong together: give both, or none.")
    if page_only and no_page:
        raise click.UsageError("--page-only and --no-page leave nothing to serve: give one of them.")
    keys = () if page_only else _keys()
    token = None if no_page else settings.page_token(os.environ)
    try:
        from lifecycle import server  # noqa: PLC0415 # only this command needs them
        from lifecycle.page import access, app  # noqa: PLC0415 # as above
    except ModuleNotFoundError:
        raise settings.SettingsError(_NO_WEB) from None
    has_page = not no_page and (token is not None or access.is_loopback(host))
    if page_only and not has_page:
        raise settings.SettingsError(_NO_TOKEN)
    with opening.reading(database_url) if page_only else opening.opened(database_url, webhook_keys=keys) as lifecycle:
        lifecycle.waiting_deliveries()  # a wrong database is told now, not at the first call
        page = app.Page(lifecycle, token=token, time_zone=time_zone) if has_page else None
        logs.to_stderr(also=("uvicorn",))
        if page_only and page is not None:
            served, path = app.create_app(page), "/"
        else:
            path = server.PATH
            served = server.create_app(
                lifecycle,
                track_unknown=track_unknown,
                recover_every=recover_every,
                sync_every=sync_every,
                body_limit=body_limit,
                page=page,
            )
        origin = f"{'http' if tls_certificate is None else 'https'}://{f'[{host}]' if ':' in host else host}"

        def announce(taken: int) -> None:
            words.say(f"listening on {origin}:{taken}{path}")
            if not no_page:
                words.say(f"the page is at {origin}:{taken}/" if has_page else f"the page is not served: {_NO_TOKEN}")
            if token is not None and tls_certificate is None and not access.is_loopback(host):
                words.say(_READABLE)

        _run(served, host=host, port=port, certificate=tls_certificate, key=tls_key, announce=announce)


def _run(
    served: Starlette,
    *,
    host: str,
    port: int,
    certificate: Path | None,
    key: Path | None,
    announce: Callable[[int], None],
) -> None:
    from lifecycle import serving  # noqa: PLC0415 # only this command needs it

    try:
        serving.serve(served, host=host, port=port, certificate=certificate, key=key, announce=announce)
    except ssl.SSLError:
        problem = "--tls-certificate and --tls-key: not a certificate and its key, in PEM files without a password"
        raise settings.SettingsError(problem) from None
    except OSError as error:
        raise click.ClickException(f"cannot listen on {host} port {port}: {error.strerror}") from None


def _keys() -> tuple[str, ...]:
    keys = settings.webhook_keys(os.environ)
    if not keys:
        raise settings.SettingsError(_NO_KEYS)
    return keys
