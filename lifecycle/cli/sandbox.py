"""The local stand-in of Zocdoc, for trying things out without an account."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Final

import click

from lifecycle import errors, settings

if TYPE_CHECKING:
    from lifecycle.sandbox import Sandbox, Server

_WEBHOOKS: Final = """\
# Webhooks go to {url}, signed with the first key of {keys}. A provider's change sends one:
#   curl -d '{{"status": "cancelled"}}' {base_url}/_sandbox/appointments/d04b049a-41b1-4aba-9268-d8973cf72cdd"""
_ANNOUNCEMENT: Final = """\
# A stand-in of Zocdoc's developer API, for this machine only. Ctrl-C ends it, and with it what it knows.
# base URL       {base_url}
# token URL      {token_url}
# client id      {client_id}
# client secret  {client_secret}
export LIFECYCLE_ZOCDOC_BASE_URL={base_url}
export LIFECYCLE_ZOCDOC_TOKEN_URL={token_url}
export LIFECYCLE_ZOCDOC_CLIENT_ID={client_id}
export LIFECYCLE_ZOCDOC_CLIENT_SECRET={client_secret}
# Then, in that shell, with an appointment of Zocdoc's guide (it is in pending_booking):
#   lifecycle db upgrade
#   lifecycle track d04b049a-41b1-4aba-9268-d8973cf72cdd
#   lifecycle confirm d04b049a-41b1-4aba-9268-d8973cf72cdd"""


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, show_envvar=True, help="A loopback address.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    show_default="a free one",
    show_envvar=True,
    help="The port to listen on.",
)
@click.option(
    "--webhook-url",
    show_envvar=True,
    help=f"An http:// address of this machine to tell of changes, signed with the first of {settings.WEBHOOK_KEYS}.",
)
def sandbox(*, host: str, port: int, webhook_url: str | None) -> None:
    """Serve a local stand-in of Zocdoc's API until Ctrl-C, and print the settings to reach it."""
    from lifecycle.sandbox import Sandbox, serve_forever  # noqa: PLC0415 # only this command needs it

    stand_in = Sandbox()
    if webhook_url is not None:
        _subscribe(stand_in, webhook_url)
    try:
        serve_forever(stand_in, host, port, announce=partial(_announce, webhook_url=webhook_url))
    except ValueError as error:
        raise errors.InvalidArgument(argument="--host", problem=str(error)) from None
    except OSError as error:
        raise click.ClickException(f"cannot listen on {host} port {port}: {error.strerror}") from None


def _subscribe(stand_in: Sandbox, url: str) -> None:
    keys = settings.webhook_keys(os.environ)
    if not keys:
        problem = f"needs a shared key to sign with: set {settings.WEBHOOK_KEYS} to base64 text, as the receiver has it"
        raise errors.InvalidArgument(argument="--webhook-url", problem=problem)
    try:
        stand_in.webhooks.subscribe(url, keys[0])
    except ValueError as error:
        raise errors.InvalidArgument(argument="--webhook-url", problem=str(error)) from None


def _announce(server: Server, *, webhook_url: str | None) -> None:
    from lifecycle.sandbox import CLIENTS  # noqa: PLC0415 # the same

    (client_id, client_secret), *_ = CLIENTS.items()
    text = _ANNOUNCEMENT.format(
        base_url=server.base_url, token_url=server.token_url, client_id=client_id, client_secret=client_secret
    )
    click.echo(text)
    if webhook_url is not None:
        click.echo(_WEBHOOKS.format(url=webhook_url, keys=settings.WEBHOOK_KEYS, base_url=server.base_url))
